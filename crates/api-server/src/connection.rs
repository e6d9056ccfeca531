//! Listeners and connections.

use std::io;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::{App, route};

/// Where clients connect.
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
}

/// Serves a listener until `stopping` says true.
pub async fn serve(listener: Listener, app: App, mut stopping: watch::Receiver<bool>) {
    let app = Arc::new(app);
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &app) => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = accepted {
            // Out of descriptors, most likely: clients wait in the backlog until some are free.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

async fn accept_one(listener: &Listener, app: &Arc<App>) -> io::Result<()> {
    match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(converse(stream, app.clone()));
        }
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            tokio::spawn(converse(stream, app.clone()));
        }
        Listener::Tls(listener, acceptor) => {
            let (stream, _) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            let (acceptor, app) = (acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let shaken =
                    tokio::time::timeout(std::time::Duration::from_secs(10), acceptor.accept(stream)).await;
                match shaken {
                    Ok(Ok(stream)) => converse(stream, app).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            });
        }
    }
    Ok(())
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, app: Arc<App>) {
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, std::convert::Infallible>(route::answer(&app, request).await) }
    });
    let connection = http1::Builder::new()
        // A client that has said all it has to say still wants the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended");
    }
}
