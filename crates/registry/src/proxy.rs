//! Through which proxy a host is reached, by the rules that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` have.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::base64;
use crate::error::Error;
use crate::url::{Scheme, Url};

/// A proxy's address and what it is told of who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub url: Url,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

/// The proxies of the daemon.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

#[derive(Debug, Clone)]
enum Exception {
    All,
    Network(IpNet),
    /// A host with everything below it; with a port, only that.
    Host {
        suffix: String,
        below_only: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads the three settings; empty ones are none.
    pub fn new(http: &str, https: &str, exceptions: &str) -> Result<Proxies, Error> {
        Ok(Proxies {
            http: proxy(http)?,
            https: proxy(https)?,
            exceptions: exceptions.split(',').filter_map(|one| exception(one.trim())).collect(),
        })
    }

    /// The proxy for a URL. This machine is always reached without.
    pub fn select(&self, url: &Url) -> Option<&Proxy> {
        let proxy = match url.scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        }?;
        let host = url.host().trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = host.parse().ok();
        let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let excepted = self.exceptions.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Exception::Host { suffix, below_only, port } => {
                let below = host.strip_suffix(suffix.as_str()).is_some_and(|head| head.ends_with('.'));
                port.is_none_or(|port| port == url.port()) && (below || !below_only && host == suffix)
            }
        });
        (!local && !excepted).then_some(proxy)
    }
}

fn proxy(text: &str) -> Result<Option<Proxy>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || Error::Address(text.to_owned());
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let url = Url::parse(&format!("{scheme}://{host}{path}")).ok_or_else(invalid)?;
    let authorization = user.map(|user| {
        let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
        format!("Basic {}", base64::encode(&decode(&user)))
    });
    Ok(Some(Proxy { url, authorization }))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.filter(|_| byte == b'%').and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    bytes
}

fn exception(text: &str) -> Option<Exception> {
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(Exception::All);
    }
    if let Ok(network) = text.parse::<IpNet>() {
        return Some(Exception::Network(network));
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Some(Exception::Network(address.into()));
    }
    let host = crate::url::host_of(text);
    let port = text.strip_prefix(host).and_then(|tail| tail.strip_prefix(':')).and_then(|p| p.parse().ok());
    let bare = host.trim_start_matches("*.").trim_start_matches('.');
    Some(Exception::Host {
        suffix: bare.to_ascii_lowercase(),
        below_only: host.starts_with('.') || host.starts_with("*."),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_goes_through_which() {
        let proxies = Proxies::new(
            "http://user:p%40ss@proxy:3128",
            "proxy.secure:8443",
            "a.example, .b.example,10.0.0.0/8,c.example:5000,*.d.example, ::2",
        )
        .unwrap();
        let through =
            |text: &str| proxies.select(&Url::parse(text).unwrap()).map(|proxy| proxy.url.authority.clone());
        for url in [
            "https://a.example/",
            "https://x.a.example/",
            "https://x.b.example/",
            "http://10.2.3.4/",
            "http://c.example:5000/",
            "https://x.d.example/",
            "http://[::2]/",
            "http://127.0.0.1/",
            "http://localhost:5000/",
            "http://[::1]/",
        ] {
            assert_eq!(through(url), None, "{url}");
        }
        for url in ["https://b.example/", "https://xa.example/", "https://c.example/", "https://d.example/"] {
            assert_eq!(through(url).as_deref(), Some("proxy.secure:8443"), "{url}");
        }
        let http = proxies.select(&Url::parse("http://e/").unwrap()).unwrap();
        assert_eq!(http.authorization.as_deref(), Some("Basic dXNlcjpwQHNz"));
        assert!(Proxies::new("ftp://x", "", "").is_err());
        let none = Proxies::new("p:1", "p:1", "*").unwrap();
        assert_eq!(none.select(&Url::parse("http://e/").unwrap()), None);
    }

    proptest! {
        #[test]
        fn never_panics(http in "\\PC{0,20}", exceptions in "[a-z0-9.,:*/\\[\\]]{0,30}") {
            if let Ok(proxies) = Proxies::new(&http, "", &exceptions) {
                let _ = proxies.select(&Url::parse("http://a.b:5/").unwrap());
            }
        }
    }
}
