//! Where plugins are: sockets, and files that say where they listen.

use std::path::{Path, PathBuf};

use serde::Deserialize;

const SOCKETS: &str = "/run/docker/plugins";
const FILES: [&str; 2] = ["/etc/docker/plugins", "/usr/lib/docker/plugins"];

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Unix(PathBuf),
    /// `host:port`, and how to encrypt, if at all.
    Tcp(String, Option<Tls>),
}

/// Certificates for a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tls {
    #[serde(rename = "InsecureSkipVerify")]
    pub insecure: bool,
    #[serde(rename = "CAFile")]
    pub ca: PathBuf,
    #[serde(rename = "CertFile")]
    pub certificate: PathBuf,
    #[serde(rename = "KeyFile")]
    pub key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Described {
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls: Option<Tls>,
}

/// Finds a plugin by its name.
pub fn find(name: &str) -> Result<Place, String> {
    find_below(Path::new("/"), name)
}

fn find_below(root: &Path, name: &str) -> Result<Place, String> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(format!("invalid plugin name {name:?}"));
    }
    let below = |folder: &str| root.join(folder.trim_start_matches('/'));
    let in_folder = |folder: &str, ending: &str| {
        let (plain, own) = (format!("{name}.{ending}"), format!("{name}/{name}.{ending}"));
        [below(folder).join(plain), below(folder).join(own)]
    };
    if let Some(socket) = in_folder(SOCKETS, "sock").into_iter().find(|path| is_socket(path)) {
        return Ok(Place::Unix(socket));
    }
    for folder in FILES {
        for path in in_folder(folder, "spec") {
            if let Some(text) = read(&path)? {
                return place(text.trim(), None).map_err(|error| format!("{}: {error}", path.display()));
            }
        }
        for path in in_folder(folder, "json") {
            if let Some(text) = read(&path)? {
                let described: Described =
                    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
                return place(&described.addr, described.tls)
                    .map_err(|error| format!("{}: {error}", path.display()));
            }
        }
    }
    Err(format!(
        "plugin \"{name}\" not found: there is no {name}.sock in {SOCKETS}, and no {name}.spec or {name}.json in {}",
        FILES.join(" or ")
    ))
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn read(path: &Path) -> Result<Option<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn place(address: &str, tls: Option<Tls>) -> Result<Place, String> {
    match address.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Place::Unix(path.into())),
        Some((scheme @ ("tcp" | "http" | "https"), authority)) => {
            let authority = authority.trim_end_matches('/');
            if authority
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
            {
                return Err(format!("the address {address} has no port"));
            }
            let tls = tls.or_else(|| (scheme == "https").then(Tls::default));
            Ok(Place::Tcp(authority.into(), tls))
        }
        _ => Err(format!("invalid address {address:?}: use unix:///PATH or tcp://HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_first_then_files() {
        let folder = std::env::temp_dir().join(format!("corten-plugins-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/docker/plugins/a.spec", "tcp://localhost:80\n");
        write("usr/lib/docker/plugins/a.spec", "unix:///not/this");
        write(
            "usr/lib/docker/plugins/b/b.json",
            r#"{"Name":"b","Addr":"https://h:1","TLSConfig":{"CAFile":"/ca"}}"#,
        );
        write("etc/docker/plugins/c.spec", "somewhere");
        assert_eq!(find_below(&folder, "a"), Ok(Place::Tcp("localhost:80".into(), None)));
        let Ok(Place::Tcp(authority, Some(tls))) = find_below(&folder, "b") else { panic!() };
        assert_eq!((authority.as_str(), tls.ca.to_str()), ("h:1", Some("/ca")));
        assert!(find_below(&folder, "c").unwrap_err().contains("invalid address \"somewhere\""));
        assert!(find_below(&folder, "d").unwrap_err().contains("not found"));
        for bad in ["", "../a", ".", "a/b"] {
            assert!(find_below(&folder, bad).unwrap_err().contains("invalid plugin name"));
        }
        let socket = folder.join("run/docker/plugins/a.sock");
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(find_below(&folder, "a"), Ok(Place::Unix(socket)));
        let _ = std::fs::remove_dir_all(&folder);
    }
}
