//! Images made without a network: an archive as `docker save` writes it, from files in memory and this machine's
//! busybox.

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An entry of a layer.
#[derive(Debug, Clone)]
pub struct Entry {
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Folder,
    File(Vec<u8>),
    /// Points at this.
    Symlink(String),
    /// Another name of this.
    Hardlink(String),
    /// A character device.
    Device {
        major: u32,
        minor: u32,
    },
}

impl Entry {
    pub fn folder(path: &str, mode: u32) -> Self {
        Self { path: path.to_owned(), kind: Kind::Folder, mode, uid: 0, gid: 0 }
    }

    pub fn file(path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), kind: Kind::File(bytes.into()), mode, uid: 0, gid: 0 }
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self { path: path.to_owned(), kind: Kind::Symlink(target.to_owned()), mode: 0o777, uid: 0, gid: 0 }
    }

    pub fn hardlink(path: &str, target: &str) -> Self {
        Self { path: path.to_owned(), kind: Kind::Hardlink(target.to_owned()), mode: 0o644, uid: 0, gid: 0 }
    }

    pub fn owned(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }
}

/// An image: its name, its layers from the lowest up, and the `config` object of its configuration.
#[derive(Debug, Clone)]
pub struct Image {
    pub name: String,
    pub layers: Vec<Vec<u8>>,
    pub config: Value,
}

impl Image {
    pub fn new(name: &str, entries: &[Entry]) -> Self {
        Self { name: name.to_owned(), layers: vec![layer(entries)], config: json!({}) }
    }

    pub fn with_layer(mut self, entries: &[Entry]) -> Self {
        self.layers.push(layer(entries));
        self
    }

    /// Sets one key of the `config` object.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// The archive that `load` takes.
    pub fn archive(&self) -> Vec<u8> {
        let diff_ids: Vec<_> =
            self.layers.iter().map(|layer| format!("sha256:{}", hex_digest(layer))).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created_by": "testkit" })).collect::<Vec<_>>(),
        })
        .to_string();
        let config_name = format!("{}.json", hex_digest(config.as_bytes()));
        let mut entries = vec![Entry::file(&config_name, 0o644, config)];
        let mut names = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            entries.push(Entry::folder(&number.to_string(), 0o755));
            names.push(format!("{number}/layer.tar"));
            entries.push(Entry::file(&format!("{number}/layer.tar"), 0o644, layer.clone()));
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": names }]);
        entries.push(Entry::file("manifest.json", 0o644, manifest.to_string()));
        layer(&entries)
    }
}

/// `busybox:latest`: the machine's static busybox with all its applets, some users, and `sh` as its command.
pub fn busybox() -> Image {
    let mut entries: Vec<_> =
        ["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "var", "www"]
            .iter()
            .map(|name| Entry::folder(name, 0o755))
            .collect();
    entries.push(Entry::folder("tmp", 0o1777));
    entries.push(Entry::folder("home/user", 0o755).owned(1000, 1000));
    entries.push(Entry::file("bin/busybox", 0o755, busybox_program().0.clone()));
    for applet in &busybox_program().1 {
        if applet != "busybox" {
            entries.push(Entry::symlink(&format!("bin/{applet}"), "busybox"));
        }
    }
    entries.push(Entry::file(
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    ));
    entries.push(Entry::file(
        "etc/group",
        0o644,
        "root:x:0:\nuser:x:1000:\nextra:x:2000:user\nnogroup:x:65534:\n",
    ));
    entries.push(Entry::file("www/index.html", 0o644, "hello from busybox\n"));
    entries.push(Entry::file("etc/plain", 0o644, "not a program\n"));
    Image::new("busybox:latest", &entries)
        .with("Cmd", json!(["sh"]))
        .with("Env", json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]))
}

/// The static busybox of this machine, and its applets.
///
/// # Panics
/// When there is none, or it needs shared libraries.
pub fn busybox_program() -> &'static (Vec<u8>, Vec<String>) {
    static PROGRAM: OnceLock<(Vec<u8>, Vec<String>)> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let path = ["/usr/bin/busybox", "/bin/busybox"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("busybox (Debian: busybox-static)");
        let bytes = std::fs::read(path).expect("busybox is readable");
        // The name of the dynamic loader stands in every program that needs one.
        let needs_loader = bytes.windows(7).take(4096).any(|window| window == b"/lib64/");
        assert!(!needs_loader, "{path} needs shared libraries: install busybox-static");
        let list = Command::new(path).arg("--list").output().expect("busybox runs");
        let applets = String::from_utf8_lossy(&list.stdout).lines().map(str::to_owned).collect();
        (bytes, applets)
    })
}

/// A layer's tar.
pub fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(1_700_000_000);
        write_entry(&mut tar, &mut header, entry);
    }
    tar.into_inner().expect("in memory")
}

fn write_entry(tar: &mut tar::Builder<Vec<u8>>, header: &mut tar::Header, entry: &Entry) {
    use tar::EntryType;
    let (kind, bytes, link): (EntryType, &[u8], &str) = match &entry.kind {
        Kind::Folder => (EntryType::Directory, b"", ""),
        Kind::File(bytes) => (EntryType::Regular, bytes, ""),
        Kind::Symlink(target) => (EntryType::Symlink, b"", target),
        Kind::Hardlink(target) => (EntryType::Link, b"", target),
        Kind::Device { major, minor } => {
            header.set_device_major(*major).expect("gnu header");
            header.set_device_minor(*minor).expect("gnu header");
            (EntryType::Char, b"", "")
        }
    };
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    // Names go in as bytes: hostile ones (absolute, with `..`) are the point of some tests, and the library's
    // own setters refuse them.
    let fields = header.as_gnu_mut().expect("gnu header");
    assert!(entry.path.len() < 100 && link.len() < 100, "testkit writes short names only");
    fields.name[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
    fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    tar.append(header, bytes).expect("in memory");
}

/// Writes an archive to a file and gives its path.
pub fn write_archive(folder: &std::path::Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    let mut file = std::fs::File::create(&path).expect("archive file");
    file.write_all(bytes).expect("archive file");
    path
}

pub fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The architecture's name in image documents.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
