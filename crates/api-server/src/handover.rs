//! Copies to and from programs of this machine, with files as descriptors ([`archive::handover`]).
//!
//! A client on a Unix socket asks for it with `Upgrade: corten-handover` on the request for an archive, or the one that
//! would have it as its body, which is the same otherwise: path, query and refusals. Who does not get it has an ordinary
//! archive. It is not for clients whose requests authorization plugins decide on: who owns a file can do more with its
//! descriptor than to read it.

use std::io;
use std::os::unix::net::UnixStream;

use archive::handover::{Handed, Inlet, Outlet, PROTOCOL};
use bytes::Bytes;
use engine::files::{Destination, Source};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use model::Refusal;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::App;
use crate::hijack::bare_socket;
use crate::request::Request;
use crate::respond::{Answer, full, told};
use crate::stream::Messages;

/// The connection, if the client asks for it and may have it.
pub fn agreed(app: &App, request: &mut Request) -> Option<OnUpgrade> {
    let asked = request.local && request.header(header::UPGRADE).eq_ignore_ascii_case(PROTOCOL);
    let decided_elsewhere = !app.engine.settings().authorization_plugins.is_empty();
    if asked && !decided_elsewhere { request.upgrade.take() } else { None }
}

fn switching() -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    answer
}

/// Answers, and sends what is to be copied out. A copy that fails breaks the archive off.
pub fn send(upgrade: OnUpgrade, source: Source) -> Answer {
    spawn(upgrade, move |socket, early| {
        let outlet = Outlet::greet(socket, &early)?;
        match source.hand_over(outlet) {
            Ok(outlet) => drop(outlet.close()?),
            Err(refusal) => tracing::debug!(error = %refusal, "an archive was broken off"),
        }
        Ok(())
    });
    switching()
}

/// Answers, and takes what is to be copied in. When all has come, or something went wrong, the client is told with a
/// status on a line of its own, and behind it what would be the answer's body.
pub fn receive(upgrade: OnUpgrade, destination: Destination) -> Answer {
    spawn(upgrade, move |socket, early| {
        refuse_early(&early)?;
        let inlet = Inlet::greet(socket)?;
        let (status, body) = match destination.take_over(&inlet) {
            Ok(()) => (StatusCode::OK, Vec::new()),
            Err(refusal) => told(&refusal),
        };
        tell(inlet.into_socket(), status, &body)
    });
    switching()
}

/// Answers, and takes one file. `take` is given a question, whether the client still waits, and the way to it: what is
/// written there is what would be the answer's body.
pub fn receive_file(
    upgrade: OnUpgrade,
    take: impl FnOnce(Handed<'_>, &(dyn Fn() -> bool + Sync), &mut UnixStream) + Send + 'static,
) -> Answer {
    spawn(upgrade, move |mut socket, early| {
        refuse_early(&early)?;
        let inlet = Inlet::greet(socket.try_clone()?)?;
        let watched = socket.try_clone()?;
        match inlet.take_one() {
            Ok(handed) => take(handed, &|| !has_hung_up(&watched), &mut socket),
            Err(error) => socket.fail(0, &Refusal::from_error("cannot take the file", &error)),
        }
        end(&socket)
    });
    switching()
}

/// Whether the other end is closed, and not only the way from there to here.
fn has_hung_up(socket: &UnixStream) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

fn refuse_early(early: &[u8]) -> io::Result<()> {
    if early.is_empty() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the client did not wait for its turn"))
}

fn tell(mut socket: UnixStream, status: StatusCode, body: &[u8]) -> io::Result<()> {
    use std::io::Write;
    socket.write_all(format!("{}\n", status.as_u16()).as_bytes())?;
    socket.write_all(body)?;
    end(&socket)
}

/// Says that this was all.
fn end(socket: &UnixStream) -> io::Result<()> {
    socket.shutdown(std::net::Shutdown::Write)?;
    // A client that still sends reads its answer only if what it sent is taken until it closes.
    drain(socket);
    Ok(())
}

/// Reads what nobody wants any more, within bounds.
fn drain(mut socket: &UnixStream) {
    use std::io::Read;
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
    let began = std::time::Instant::now();
    let _ = socket.set_read_timeout(Some(PATIENCE));
    let mut buffer = [0; 8192];
    while began.elapsed() < PATIENCE && socket.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

/// Runs the copy on a blocking thread once the answer has gone out.
fn spawn(upgrade: OnUpgrade, copy: impl FnOnce(UnixStream, Vec<u8>) -> io::Result<()> + Send + 'static) {
    tokio::spawn(async move {
        let copied = match bare_socket(upgrade).await {
            Ok((socket, early)) => tokio::task::spawn_blocking(move || copy(socket, early)).await,
            Err(error) => Ok(Err(error)),
        };
        match copied {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a client left in the middle of a copy"),
            Err(error) => tracing::error!(%error, "a copy ended in a defect"),
        }
    });
}
