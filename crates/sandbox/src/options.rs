//! A mount's options, told apart.

use std::borrow::Cow;

use oci::runtime::Mount;
use sys::mount::{Attributes, Propagation};

/// What the options of a mount ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options<'a> {
    /// It is a bind mount, and whether with all mounts below.
    pub bind: Option<bool>,
    pub set: Attributes,
    pub clear: Attributes,
    /// For the mount and all below it.
    pub set_recursive: Attributes,
    pub clear_recursive: Attributes,
    /// The kind, and whether for all mounts below as well.
    pub propagation: Option<(Propagation, bool)>,
    /// The filesystem itself is read-only, not only this mount of it.
    pub read_only: bool,
    /// Flags of the filesystem, such as `sync`.
    pub flags: Vec<&'static str>,
    /// What the filesystem understands: `key` or `key=value`.
    pub data: Vec<Cow<'a, str>>,
    /// Fill a new tmpfs with what is at its place.
    pub copy_up: bool,
    /// Mount only this directory or file below the source.
    pub subpath: Option<&'a str>,
    /// Map owners as the container's user namespace does, and whether for all mounts below.
    pub map: Option<bool>,
}

impl<'a> Options<'a> {
    pub fn parse(mount: &'a Mount) -> Options<'a> {
        let mut options = Options::default();
        if mount.kind == "bind" {
            options.bind = Some(false);
        }
        for option in &mount.options {
            options.add(option);
        }
        options
    }

    fn add(&mut self, option: &'a str) {
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.map = Some(false),
            "ridmap" => self.map = Some(true),
            "ro" => {
                self.read_only = true;
                self.raise(false, Attributes::READ_ONLY);
            }
            "rw" => {
                self.read_only = false;
                self.lower(false, Attributes::READ_ONLY);
            }
            "sync" => self.flag("sync", "async"),
            "async" => self.flag("async", "sync"),
            "dirsync" => self.flags.push("dirsync"),
            "lazytime" => self.flag("lazytime", "nolazytime"),
            "nolazytime" => self.flag("nolazytime", "lazytime"),
            "mand" => self.flag("mand", "nomand"),
            "nomand" => self.flag("nomand", "mand"),
            // What is the default, and what only mount(8) knows.
            "defaults" | "remount" | "loud" | "silent" | "iversion" | "noiversion" | "notmpcopyup" => {}
            _ => {
                if let Some(subpath) = option.strip_prefix("x-subpath=") {
                    self.subpath = Some(subpath);
                } else if let Some(propagation) = propagation(option) {
                    self.propagation = Some(propagation);
                } else if !self.attribute(option, false)
                    && !option.strip_prefix('r').is_some_and(|rest| self.attribute(rest, true))
                {
                    self.data.push(Cow::Borrowed(option));
                }
            }
        }
    }

    /// Takes an option that is an attribute of the mount.
    fn attribute(&mut self, option: &str, recursive: bool) -> bool {
        let (attribute, raise) = match option {
            "nosuid" => (Attributes::NO_SUID, true),
            "suid" => (Attributes::NO_SUID, false),
            "nodev" => (Attributes::NO_DEVICES, true),
            "dev" => (Attributes::NO_DEVICES, false),
            "noexec" => (Attributes::NO_EXEC, true),
            "exec" => (Attributes::NO_EXEC, false),
            "nodiratime" => (Attributes::NO_DIRECTORY_ACCESS_TIME, true),
            "diratime" => (Attributes::NO_DIRECTORY_ACCESS_TIME, false),
            "nosymfollow" => (Attributes::NO_SYMLINKS, true),
            "symfollow" => (Attributes::NO_SYMLINKS, false),
            "noatime" => (Attributes::NO_ACCESS_TIME, true),
            "strictatime" => (Attributes::STRICT_ACCESS_TIME, true),
            "atime" | "relatime" | "norelatime" | "nostrictatime" => (Attributes::ACCESS_TIME, false),
            "ro" if recursive => (Attributes::READ_ONLY, true),
            "rw" if recursive => (Attributes::READ_ONLY, false),
            _ => return false,
        };
        if raise {
            self.raise(recursive, attribute);
        } else {
            self.lower(recursive, attribute);
        }
        true
    }

    fn raise(&mut self, recursive: bool, attribute: Attributes) {
        let (set, clear) = self.fields(recursive);
        // The rules of access times are one field: to set one, the field must be cleared as well.
        if Attributes::ACCESS_TIME.contains(attribute) {
            *set = set.without(Attributes::ACCESS_TIME);
            *clear = clear.with(Attributes::ACCESS_TIME);
        } else {
            *clear = clear.without(attribute);
        }
        *set = set.with(attribute);
    }

    fn lower(&mut self, recursive: bool, attribute: Attributes) {
        let (set, clear) = self.fields(recursive);
        *set = set.without(attribute);
        *clear = clear.with(attribute);
    }

    fn fields(&mut self, recursive: bool) -> (&mut Attributes, &mut Attributes) {
        if recursive {
            (&mut self.set_recursive, &mut self.clear_recursive)
        } else {
            (&mut self.set, &mut self.clear)
        }
    }

    fn flag(&mut self, add: &'static str, remove: &str) {
        self.flags.retain(|flag| *flag != remove);
        self.flags.push(add);
    }
}

/// A propagation by its name, and whether it concerns all mounts below.
pub(crate) fn propagation(name: &str) -> Option<(Propagation, bool)> {
    Some(match name {
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, options: &[&str], expected: &Options<'_>) {
        let mount = Mount {
            kind: kind.into(),
            options: options.iter().map(|option| (*option).into()).collect(),
            ..Mount::default()
        };
        assert_eq!(&Options::parse(&mount), expected, "{kind} {options:?}");
    }

    #[test]
    fn options_fall_into_their_places() {
        let tmpfs = Options {
            set: Attributes::NO_SUID.with(Attributes::STRICT_ACCESS_TIME),
            clear: Attributes::ACCESS_TIME,
            data: vec!["mode=755".into(), "size=65536k".into()],
            ..Options::default()
        };
        check("tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"], &tmpfs);
        let bind = Options {
            bind: Some(true),
            read_only: true,
            set: Attributes::READ_ONLY,
            set_recursive: Attributes::READ_ONLY,
            propagation: Some((Propagation::Slave, true)),
            ..Options::default()
        };
        check("", &["rbind", "bind", "ro", "rro", "rprivate", "rslave"], &bind);
        let other = Options {
            clear: Attributes::NO_EXEC.with(Attributes::READ_ONLY),
            flags: vec!["sync"],
            data: vec!["relaxed".into(), "ronly=1".into()],
            copy_up: true,
            ..Options::default()
        };
        check(
            "x",
            &["noexec", "exec", "ro", "rw", "async", "sync", "relaxed", "ronly=1", "tmpcopyup"],
            &other,
        );
    }

    #[test]
    fn the_last_word_on_access_times_wins() {
        let relative = Options { clear: Attributes::ACCESS_TIME, ..Options::default() };
        check("x", &["noatime", "relatime"], &relative);
        let none = Options { set: Attributes::NO_ACCESS_TIME, ..relative };
        check("x", &["strictatime", "noatime"], &none);
    }
}
