//! What is copied out of a container and into it: as an archive, or handed over to a program of this machine.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use archive::handover::{Inlet, Outlet};
use archive::{Decoder, Limits, Ownership, PackOptions, Packer, Root, UnpackOptions};
use model::Refusal;

use super::{Archive, ExtractOptions, Files, Opened, path, refusal};

/// Places where a running container has the kernel's files, which are no part of its own.
const KERNEL_PLACES: [&str; 3] = ["dev", "proc", "sys"];
/// Members of one archive that is copied in.
const MEMBERS_MAX: u64 = 16_000_000;

/// What is to be copied out of a container.
pub struct Source {
    pub(super) opened: Opened,
    pub(super) path: String,
    pub(super) place: archive::Place,
}

impl Source {
    /// As an archive like any other.
    pub fn archive(self) -> Archive {
        Archive(Box::new(move |out| self.pack(|options| Packer::new(out, options)).map(drop)))
    }

    /// To a program of this machine. Blocks.
    pub fn hand_over(self, outlet: Outlet) -> Result<Outlet, Refusal> {
        self.pack(|options| Packer::handing(outlet, options))
    }

    /// Docker's names in the archive: all under the last name of the path that was asked for; `/` is no name, and `.`
    /// is one.
    fn pack<W: Write>(self, packer: impl FnOnce(PackOptions) -> Packer<W>) -> Result<W, Refusal> {
        let Source { opened, path, place } = self;
        let absolute = path::absolute(&path);
        let top = match path::base(&absolute) {
            "/" => "",
            name => name,
        };
        let options =
            PackOptions { skip_kernel_files: true, owner_offset: opened.offset, ..PackOptions::default() };
        let mut packer = packer(options);
        let below = |inner: &Path| -> Option<Vec<u8>> {
            let rest = inner.strip_prefix(&place.path).ok().filter(|rest| !rest.as_os_str().is_empty())?;
            Some([top.as_bytes(), b"/", rest.as_os_str().as_bytes()].concat())
        };
        for graft in opened.root.grafts() {
            let Some(name) = below(&graft.place) else { continue };
            let tree = graft.tree.try_clone();
            packer.graft(name, tree.map_err(|error| Refusal::from_error("duplicate a descriptor", &error))?);
        }
        if opened.is_running {
            KERNEL_PLACES.iter().filter_map(|place| below(Path::new(place))).for_each(|name| {
                packer.leave_empty(name);
            });
        }
        packer
            .add_handle(&place.found, top.as_bytes())
            .and_then(|()| packer.finish())
            .map_err(|error| refusal(&format!("cannot copy {path} from container {}", opened.name), &error))
    }
}

/// A directory of a container that is to be copied into.
pub struct Destination {
    pub(super) files: Files,
    pub(super) opened: Opened,
    pub(super) path: String,
    pub(super) place: archive::Place,
    pub(super) ownership: Ownership,
    pub(super) options: ExtractOptions,
}

impl Destination {
    /// Unpacks an archive, compressed or not. Blocks.
    pub fn extract(self, stream: impl Read) -> Result<(), Refusal> {
        self.unpack(None, |root, options| {
            Decoder::new(stream).and_then(|decoder| archive::unpack(decoder, root, options))
        })
    }

    /// Unpacks what another program of this machine hands over. Blocks.
    pub fn take_over(self, inlet: &Inlet) -> Result<(), Refusal> {
        self.unpack(Some(inlet), |root, options| archive::unpack(inlet, root, options))
    }

    fn unpack(
        self,
        inlet: Option<&Inlet>,
        unpack: impl FnOnce(&Root, &UnpackOptions<'_>) -> Result<archive::Unpacked, archive::Error>,
    ) -> Result<(), Refusal> {
        let opened = &self.opened;
        let options = UnpackOptions {
            destination: self.place.path.as_os_str().as_bytes(),
            ownership: self.ownership,
            limits: Limits { bytes: u64::MAX, entries: MEMBERS_MAX },
            keep_kinds: self.options.keep_kinds,
            keep_destination: true,
            inlet,
            ..UnpackOptions::default()
        };
        let (uid, gid) = opened.offset;
        // A container's own overlay takes files from its own users only.
        let user = (uid != 0).then(|| sys::security::FileUser::become_user(uid, gid)).transpose();
        let _user = user.map_err(|error| Refusal::from_error("act as the container's root", &error))?;
        unpack(&opened.root, &options).map_err(|error| {
            refusal(&format!("cannot copy to {} in container {}", self.path, opened.name), &error)
        })?;
        self.files.0.events().container(&opened.record, "extract-to-dir", &[]);
        Ok(())
    }
}
