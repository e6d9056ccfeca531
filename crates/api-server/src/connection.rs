//! Listeners and connections.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::authorization::Peer;
use crate::hijack::{Bare, Line, Unasked};
use crate::{App, route};

/// Bytes that are read from a connection at once at most; so many only if they come that fast. The head of a request must
/// fit as well, and arguments of a build or credentials make it long.
pub const BUFFER_MAX: usize = 512 << 10;
/// Bytes of an answer that the kernel takes from us before a local client has read them.
const LOCAL_SEND_BUFFER: usize = 1 << 20;

/// Where clients connect.
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
}

/// How long to wait before a connection is accepted, after one could not be.
pub const BREATH: Duration = Duration::from_millis(50);

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
            tokio::time::sleep(BREATH).await;
        }
    }
}

async fn accept_one(listener: &Listener, app: &Arc<App>) -> io::Result<()> {
    match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            // Archives go through in fewer, larger steps; who may not have so much has what the machine gives.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&stream, LOCAL_SEND_BUFFER);
            let bare = stream.as_fd().try_clone_to_owned().ok();
            tokio::spawn(converse(stream, bare, app.clone(), Peer { local: true, ..Peer::default() }));
        }
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            let bare = stream.as_fd().try_clone_to_owned().ok();
            tokio::spawn(converse(stream, bare, app.clone(), Peer::default()));
        }
        Listener::Tls(listener, acceptor) => {
            let (stream, _) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            let (acceptor, app) = (acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let shaken = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream)).await;
                match shaken {
                    Ok(Ok(stream)) => {
                        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                        let certificates = chain.iter().map(|one| one.to_vec()).collect();
                        converse(stream, None, app, Peer { certificates, ..Peer::default() }).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            });
        }
    }
    Ok(())
}

/// How long a client may take to send the head of a request; and how long it may keep quiet between two.
pub const HEAD_TIME: Duration = Duration::from_secs(300);

/// `bare`: the socket, if it is nothing more than the stream.
async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    bare: Option<OwnedFd>,
    app: Arc<App>,
    peer: Peer,
) {
    let line = Line::new(stream);
    let bare = bare.map(|socket| Arc::new(Bare::new(socket, &line)));
    let taken = bare.clone();
    let service = service_fn(move |request| {
        let (app, peer, bare) = (app.clone(), peer.clone(), bare.clone());
        async move {
            let answer = route::answer(&app, &peer, request).await;
            Ok::<_, std::convert::Infallible>(Unasked::settle(answer, bare.as_deref()).await)
        }
    });
    let connection = http1::Builder::new()
        // A client that has said all it has to say still wants the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(line), service)
        .with_upgrades();
    let taken = async {
        match &taken {
            Some(bare) => bare.taken.notified().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
        }
        () = taken => {}
    }
}
