//! Certificates for registries, where Docker keeps them.

use std::path::{Path, PathBuf};

use tls::ClientFiles;

use crate::error::Error;

/// Adds what a folder in Docker's layout has: `*.crt` are authorities, the first `*.cert` with its `*.key` is shown.
pub(crate) fn add_folder(files: &mut ClientFiles, folder: &Path) -> Result<(), Error> {
    let broken = |error: std::io::Error| Error::File { path: folder.to_owned(), what: error.to_string() };
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(broken)? {
        names.push(entry.map_err(broken)?.path());
    }
    names.sort();
    for path in &names {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => files.authorities.push(path.clone()),
            Some("cert") => {
                let key = path.with_extension("key");
                if !names.contains(&key) {
                    let what = format!("missing key {} for client certificate", key.display());
                    return Err(Error::File { path: path.clone(), what });
                }
                files.identity.get_or_insert((path.clone(), Some(key)));
            }
            Some("key") if !names.contains(&path.with_extension("cert")) => {
                let what = "missing client certificate for key".to_owned();
                return Err(Error::File { path: path.clone(), what });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_in_dockers_layout() {
        let root = tempfile::tempdir().unwrap();
        for name in ["ca.crt", "b.crt", "client.cert", "client.key", "notes.txt"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        let added = || {
            let mut files = ClientFiles::default();
            add_folder(&mut files, root.path()).map(|()| files)
        };
        let files = added().unwrap();
        assert_eq!(files.authorities, [root.path().join("b.crt"), root.path().join("ca.crt")]);
        let pair = (root.path().join("client.cert"), Some(root.path().join("client.key")));
        assert_eq!(files.identity, Some(pair));
        std::fs::remove_file(root.path().join("client.key")).unwrap();
        let error = added().unwrap_err().to_string();
        assert!(error.contains("missing key"), "{error}");
        std::fs::write(root.path().join("other.key"), "").unwrap();
        std::fs::remove_file(root.path().join("client.cert")).unwrap();
        let error = added().unwrap_err().to_string();
        assert!(error.contains("missing client certificate"), "{error}");
    }
}
