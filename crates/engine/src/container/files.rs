//! The files that each container is given: `hosts`, `hostname` and `resolv.conf`.

use std::path::PathBuf;

use model::Refusal;
use model::create::{NetworkChoice, Record};
use model::links::Linked;

use crate::net::{self, Endpoint, NameService};
use crate::paths::{Paths, replace};

/// Where they lie; those of the other container, if the network is shared.
pub struct Files {
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
}

impl Files {
    pub fn of(paths: &Paths, record: &Record) -> Files {
        let owner = match &record.network {
            NetworkChoice::Container(other) => other,
            _ => &record.id,
        };
        Files {
            hosts: paths.file(owner, "hosts"),
            hostname: paths.file(owner, "hostname"),
            resolv_conf: paths.file(owner, "resolv.conf"),
        }
    }

    /// Writes them for a start. Those of another container are left alone.
    pub fn write(
        &self,
        record: &Record,
        endpoint: Option<&Endpoint>,
        linked: &[Linked],
        names: &NameService,
    ) -> Result<(), Refusal> {
        if matches!(record.network, NetworkChoice::Container(_)) {
            return Ok(());
        }
        let failed =
            |error: std::io::Error| Refusal::from_error("cannot write the container's hosts files", &error);
        let name =
            if record.config.hostname.is_empty() { net::host_name() } else { record.config.hostname.clone() };
        replace(&self.hostname, format!("{name}\n").as_bytes()).map_err(failed)?;
        replace(&self.hosts, net::hosts_text(record, &name, endpoint, linked, names).as_bytes())
            .map_err(failed)?;
        replace(&self.resolv_conf, net::resolv_text(record, names).as_bytes()).map_err(failed)
    }
}
