//! Where the daemon listens.

use std::fmt;
use std::path::PathBuf;

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
                Err(Error::Connect("ssh hosts are not supported yet; use a unix or tcp host".to_owned()))
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
            Transport::Unix(_) => "api.moby.localhost",
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
        for bad in ["", "/run/x", "unix://", "foo://x", "ssh://x"] {
            assert!(Endpoint::parse(bad, None).is_err(), "{bad}");
        }
    }
}
