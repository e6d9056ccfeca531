//! One member of an archive.

/// Seconds and nanoseconds since 1970, the latter counting forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

/// Extended attributes, name and value.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What the member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    /// Another name of the member at this path of the archive.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Directory,
    Fifo,
}

/// A member's description; for a file, its content follows in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As written in the archive: not cleaned, not trusted.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Bytes of a file, holes included.
    pub size: u64,
    /// Extended attributes in the order of the archive.
    pub xattrs: Xattrs,
    /// Where the content in the stream belongs, as (offset, length) in ascending order; `None` for plain files, whose
    /// content is all there.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// The content does not follow in the stream: see [`crate::handover`].
    pub apart: bool,
}

impl Entry {
    /// A plain file of root's with mode 0644, for archives that are made by hand.
    pub fn file(path: &str, size: u64) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size,
            xattrs: Vec::new(),
            sparse: None,
            apart: false,
        }
    }

    /// A directory of root's with mode 0755.
    pub fn directory(path: &str) -> Entry {
        Entry { kind: Kind::Directory, mode: 0o755, ..Entry::file(path, 0) }
    }
}
