//! Where the daemon listens.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Error;

/// Certificates for TLS; paths that are unset are not used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Take any certificate that the server shows.
    pub insecure: bool,
}

impl TlsFiles {
    pub(crate) fn config(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        let files = tls::ClientFiles {
            system: self.ca.is_none(),
            authorities: self.ca.iter().cloned().collect(),
            identity: self.cert.clone().zip(self.key.clone()).map(|(cert, key)| (cert, Some(key))),
            skip_verify: self.insecure,
        };
        files.config().map_err(|error| Error::Tls(error.to_string()))
    }
}

/// How to reach the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    Unix(PathBuf),
    /// `host:port`
    Tcp {
        authority: String,
    },
    Tls {
        authority: String,
        files: TlsFiles,
    },
    /// By the client of another host, which `ssh` starts there.
    Ssh(Ssh),
}

/// Another host, as `ssh` finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssh {
    pub user: String,
    pub host: String,
    /// Empty: as `ssh` is configured.
    pub port: String,
    /// The daemon's socket there; empty for the usual one.
    pub socket: String,
}

impl Ssh {
    /// `[user@]host[:port][/socket]`
    fn parse(text: &str) -> Option<Ssh> {
        let (authority, socket) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let (user, rest) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
            None => rest.split_once(':').unwrap_or((rest, "")),
        };
        let plain = |text: &str, more: &[char]| {
            // What begins with a dash would be an option of ssh.
            !text.starts_with('-') && !text.contains(['?', '#', '\'', '"', ' ', '\n']) && !text.contains(more)
        };
        // A password has no place here.
        let fits = !host.is_empty()
            && plain(user, &[':'])
            && plain(host, &[])
            && plain(socket, &['$', '`', ';', '&', '|'])
            && port.bytes().all(|byte| byte.is_ascii_digit());
        let text = |text: &str| text.to_owned();
        let socket = if socket == "/" { "" } else { socket };
        fits.then(|| Ssh { user: text(user), host: text(host), port: text(port), socket: text(socket) })
    }

    /// The arguments of `ssh`. On the other side our own client is taken if it is there, else Docker's.
    pub fn arguments(&self) -> Vec<String> {
        let mut all: Vec<String> = ["-o", "ConnectTimeout=30", "-T"].map(str::to_owned).to_vec();
        for (flag, value) in [("-l", &self.user), ("-p", &self.port)] {
            if !value.is_empty() {
                all.extend([flag.to_owned(), value.clone()]);
            }
        }
        let host = match self.socket.as_str() {
            "" => String::new(),
            socket => format!(" --host unix://{socket}"),
        };
        let dial = |program: &str| format!("exec {program}{host} system dial-stdio");
        let script = format!("command -v corten >/dev/null 2>&1 && {}; {}", dial("corten"), dial("docker"));
        all.extend(["--".to_owned(), self.host.clone(), format!("sh -c '{script}'")]);
        all
    }
}

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub transport: Transport,
    /// As the user wrote it.
    text: String,
    /// A path in front of every request.
    base: String,
}

impl Endpoint {
    /// Parses `unix:///path`, `tcp://host:port[/base]`, `http://…`, `https://…`. With `tls` a TCP address uses TLS.
    pub fn parse(text: &str, tls: Option<TlsFiles>) -> Result<Self, Error> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Error::Host(text.to_owned()));
        };
        if rest.is_empty() {
            return Err(Error::Host(text.to_owned()));
        }
        match scheme {
            "unix" => Ok(Self {
                transport: Transport::Unix(rest.into()),
                text: text.to_owned(),
                base: String::new(),
            }),
            "tcp" | "http" | "https" => {
                let (authority, base) = match rest.find('/') {
                    Some(at) => (&rest[..at], rest[at..].trim_end_matches('/')),
                    None => (rest, ""),
                };
                let tls = tls.or_else(|| (scheme == "https").then(TlsFiles::default));
                let port = match scheme {
                    "http" => 80,
                    "https" => 443,
                    _ if tls.is_some() => 2376,
                    _ => 2375,
                };
                let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
                    port.bytes().all(|byte| byte.is_ascii_digit())
                        && (!host.contains(':') || host.ends_with(']'))
                });
                let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
                let transport = match tls {
                    Some(files) => Transport::Tls { authority, files },
                    None => Transport::Tcp { authority },
                };
                Ok(Self { transport, text: text.to_owned(), base: base.to_owned() })
            }
            "ssh" => {
                let ssh = Ssh::parse(rest).ok_or_else(|| Error::Host(text.to_owned()))?;
                Ok(Self { transport: Transport::Ssh(ssh), text: text.to_owned(), base: String::new() })
            }
            _ => Err(Error::Host(text.to_owned())),
        }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn host_header(&self) -> &str {
        match &self.transport {
            // What daemons expect where there is no host.
            Transport::Unix(_) | Transport::Ssh(_) => "api.moby.localhost",
            Transport::Tcp { authority } | Transport::Tls { authority, .. } => authority,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let tcp = |text: &str| match Endpoint::parse(text, None).expect(text).transport {
            Transport::Tcp { authority } => authority,
            other => panic!("{other:?}"),
        };
        assert_eq!(tcp("tcp://h"), "h:2375");
        assert_eq!(tcp("tcp://[::1]"), "[::1]:2375");
        assert_eq!(tcp("tcp://h:1/base/"), "h:1");
        assert_eq!(Endpoint::parse("tcp://h:1/base/", None).expect("valid").base(), "/base");
        assert!(matches!(
            Endpoint::parse("https://h", None).expect("valid").transport,
            Transport::Tls { .. }
        ));
        let text = "ssh://me@h:22/run/x.sock";
        let Transport::Ssh(ssh) = Endpoint::parse(text, None).expect("valid").transport else { panic!() };
        let arguments = ssh.arguments().join(" ");
        assert!(arguments.starts_with("-o ConnectTimeout=30 -T -l me -p 22 -- h sh -c '"), "{arguments}");
        assert!(
            arguments.ends_with("exec docker --host unix:///run/x.sock system dial-stdio'"),
            "{arguments}"
        );
        for bad in [
            "",
            "/run/x",
            "unix://",
            "foo://x",
            "ssh://",
            "ssh://-oX",
            "ssh://u:pw@h",
            "ssh://h:x",
            "ssh://h/a'b",
        ] {
            assert!(Endpoint::parse(bad, None).is_err(), "{bad}");
        }
    }
}
