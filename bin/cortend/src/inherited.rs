//! What a service manager hands over: sockets that are open already, and a place to report to (sd_listen_fds(3),
//! sd_notify(3)).

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::{Context, Result, bail};

/// The first descriptor that is handed over.
const FIRST: i32 = 3;

/// The sockets of `fd://WHICH`: all, those of a name, or the one of a number.
pub fn sockets(which: &str) -> Result<Vec<OwnedFd>> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let for_us = variable("LISTEN_PID").parse() == Ok(std::process::id());
    let count: i32 = variable("LISTEN_FDS").parse().unwrap_or(0);
    if !for_us || count <= 0 {
        bail!(
            "no sockets found via socket activation: make sure the service was started by systemd, with a socket unit"
        );
    }
    let names = variable("LISTEN_FDNAMES");
    let names: Vec<&str> = names.split(':').collect();
    let wanted = (0..count).filter(|at| {
        let number = FIRST + at;
        matches!(which, "" | "*")
            || which.parse() == Ok(number)
            || names.get(usize::try_from(*at).unwrap_or(0)) == Some(&which)
    });
    let taken: Vec<OwnedFd> = wanted
        .map(|at| {
            sys::process::take_inherited(FIRST + at)
                .with_context(|| format!("cannot use descriptor {}", FIRST + at))
        })
        .collect::<Result<_>>()?;
    if taken.is_empty() {
        bail!("no socket named {which} was handed over; there are: {}", names.join(", "));
    }
    Ok(taken)
}

/// Reports a state to the service manager, if there is one that wants to know.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    let bytes = path.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = clock.tv_sec * 1_000_000 + clock.tv_nsec / 1000;
        let text = format!("{state}\nMONOTONIC_USEC={microseconds}\nMAINPID={}\n", std::process::id());
        UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
