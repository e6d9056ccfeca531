//! Devices of vendors, as the Container Device Interface describes them: files that say what a container needs to use
//! a device, by names such as `vendor.com/class=name`.
//!
//! Pure: files are read by whoever calls, and the host's device numbers are asked for. Files are strangers': their
//! size, depth and number of parts are bounded, and what is not understood is refused.

mod edits;
mod spec;
mod yaml;

pub use edits::HostDevice;
pub use spec::{ContainerEdits, Device, DeviceNode, Error, FILE_LIMIT, Format, Spec};

/// The name of a device, told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// `vendor.com/class`
    pub kind: &'a str,
    pub device: &'a str,
}

impl<'a> Name<'a> {
    /// Takes `vendor/class=name` apart; none if it is no such name.
    pub fn parse(text: &'a str) -> Option<Name<'a>> {
        let (kind, device) = text.split_once('=')?;
        (spec::is_kind(kind) && spec::is_device(device)).then_some(Name { kind, device })
    }
}

/// Every spec that was found, a later one winning over those before it unless both are of equal rank.
#[derive(Debug, Default)]
pub struct Registry {
    specs: Vec<(usize, Spec)>,
}

impl Registry {
    /// Adds a spec; `rank` is that of its directory: a higher one overrides lower ones.
    pub fn add(&mut self, rank: usize, spec: Spec) {
        self.specs.push((rank, spec));
    }

    /// The full names of all devices that can be had, in order.
    pub fn names(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .specs
            .iter()
            .flat_map(|(_, spec)| spec.devices.iter().map(|device| format!("{}={}", spec.kind, device.name)))
            .collect();
        all.sort();
        all.dedup();
        all.retain(|name| self.find(name).is_some());
        all
    }

    /// A device with the spec that it is of; none if it is not there, or if two of equal rank have its name.
    fn find(&self, name: &str) -> Option<(&Spec, &Device)> {
        let name = Name::parse(name)?;
        let having =
            self.specs.iter().filter(|(_, spec)| spec.kind == name.kind).filter_map(|(rank, spec)| {
                let device = spec.devices.iter().find(|device| device.name == name.device)?;
                Some((*rank, spec, device))
            });
        let having: Vec<_> = having.collect();
        let highest = having.iter().map(|(rank, ..)| *rank).max()?;
        let mut best = having.into_iter().filter(|(rank, ..)| *rank == highest);
        let (_, spec, device) = best.next()?;
        best.next().is_none().then_some((spec, device))
    }

    /// Changes a container's runtime spec for devices by their full names.
    ///
    /// # Errors
    /// The names that nothing stands for, or what a device asks for that cannot be.
    pub fn inject(
        &self,
        names: &[impl AsRef<str>],
        container: &mut oci::runtime::Spec,
        host: &dyn Fn(&std::path::Path) -> Option<HostDevice>,
    ) -> Result<(), Error> {
        let unknown: Vec<String> = names
            .iter()
            .map(AsRef::as_ref)
            .filter(|name| self.find(name).is_none())
            .map(String::from)
            .collect();
        if !unknown.is_empty() {
            return Err(Error::Unresolvable(unknown.join(", ")));
        }
        let mut of_specs: Vec<&Spec> = Vec::new();
        for (spec, device) in names.iter().filter_map(|name| self.find(name.as_ref())) {
            // What a spec wants for all its devices is done once, and before the devices of it.
            if !of_specs.iter().any(|done| std::ptr::eq(*done, spec)) {
                of_specs.push(spec);
                edits::apply(&spec.edits, container, host)?;
            }
            edits::apply(&device.edits, container, host)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
