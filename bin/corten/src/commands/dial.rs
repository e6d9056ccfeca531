//! `system dial-stdio`: the daemon's socket, on standard input and output. It is what `ssh://` hosts are made of.

use std::io::Read as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::app::App;
use crate::fail::Fail;
use crate::output::{Which, write_or_end};

const CHUNK: usize = 32 << 10;

/// Standard input in pieces, read by a thread of its own.
fn input() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut piece = vec![0; CHUNK];
        while let Ok(count @ 1..) = std::io::stdin().lock().read(&mut piece) {
            if send.blocking_send(piece[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receive
}

pub async fn dial(app: &App) -> Result<(), Fail> {
    // Starts a daemon if none answers, as every command does.
    let endpoint = app.client().await?.endpoint().clone();
    let stream = api_client::dial(&endpoint).await?;
    let (mut from_daemon, mut to_daemon) = tokio::io::split(stream);
    let upwards = async move {
        let mut pieces = input();
        while let Some(piece) = pieces.recv().await {
            if to_daemon.write_all(&piece).await.is_err() || to_daemon.flush().await.is_err() {
                break;
            }
        }
        // The daemon may still have an answer to give; how that ends is the end.
        let _ = to_daemon.shutdown().await;
        std::future::pending::<()>().await;
    };
    let downwards = async move {
        let mut piece = vec![0; CHUNK];
        loop {
            let count = from_daemon.read(&mut piece).await?;
            if count == 0 {
                return Ok(());
            }
            write_or_end(Which::Stdout, &piece[..count]).await?;
        }
    };
    tokio::select! {
        done = downwards => done,
        () = upwards => Ok(()),
    }
}
