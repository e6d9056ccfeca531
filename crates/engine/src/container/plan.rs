//! What a shim is told to make of a container, and the files that it will bind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::Refusal;
use model::create::{NetworkChoice, Record};
use model::links::Linked;
use model::spec::{Place, StartFacts};
use shim_protocol::{Create, LogDriver, LogTarget, Rootfs, Runtime, StdinMode};
use snapshots::Mounts;

use super::files::Files;
use super::joins;
use crate::net::Endpoint;
use crate::paths::ENDPOINT_NAME;
use crate::{Engine, host, selinux};

/// A container that is to be started.
pub struct Plan<'a> {
    pub engine: &'a Engine,
    pub record: &'a Record,
    /// Containers that it is linked to.
    pub linked: Vec<Linked>,
}

impl Plan<'_> {
    /// Everything that the shim is told; the files that it will bind are written. Blocks.
    pub fn create(
        &self,
        endpoint: Option<&Endpoint>,
        places: &BTreeMap<PathBuf, Place>,
    ) -> Result<Create, Refusal> {
        let (record, paths) = (self.record, self.engine.paths());
        let run_directory = paths.task(&record.id);
        let io = |error: std::io::Error| {
            Refusal::from_error("cannot prepare the container's run directory", &error)
        };
        if let Err(error) = std::fs::create_dir(&run_directory) {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                // What an earlier end left there must not be taken for this one's, and not go before it is known.
                self.engine.records().settle(&record.id, self.engine.registry());
                paths.discard_task(&record.id);
            }
            std::fs::create_dir_all(&run_directory).map_err(io)?;
        }
        if let Some(endpoint) = endpoint {
            // Before anything of it exists in the kernel, so that a next daemon can find and undo it.
            let text = serde_json::to_vec(endpoint).map_err(|error| io(error.into()))?;
            std::fs::write(run_directory.join(ENDPOINT_NAME), text).map_err(io)?;
        }
        let files = Files::of(paths, record);
        files.write(record, endpoint, &self.linked, &self.engine.options().network.names)?;
        self.make_bind_sources()?;
        let cgroup_parent = match record.host_config.resources.cgroup_parent.as_str() {
            "" => self.engine.options().cgroup_parent.as_str(),
            own => own,
        };
        let host_facts = self.engine.facts();
        let remap = model::remap::of(&record.host_config, host_facts.remap.as_ref());
        let systemd_cgroup = self.engine.options().cgroup_driver == crate::CgroupDriver::Systemd;
        let (init, init_path) = self.init();
        let ipc_of = match record.host_config.ipc_mode.strip_prefix("container:") {
            Some(other) => Some(joins::ipc(self.engine, other)?),
            None => None,
        };
        let variables: Vec<String> = match self.engine.options().link_variables {
            true => self.linked.iter().flat_map(|linked| linked.variables(&record.name)).collect(),
            false => Vec::new(),
        };
        let facts = StartFacts {
            cgroup_path: match systemd_cgroup {
                true => format!("{cgroup_parent}:corten:{}", record.id),
                false => format!("{}/{}", cgroup_parent.trim_end_matches('/'), record.id),
            },
            join_network: match &record.network {
                NetworkChoice::Container(other) => {
                    Some(namespace(joins::network(self.engine, other)?, "net"))
                }
                _ => None,
            },
            join_pid: match record.host_config.pid_mode.strip_prefix("container:") {
                Some(other) => Some(namespace(joins::pids(self.engine, other)?, "pid")),
                None => None,
            },
            join_ipc: ipc_of.map(|pid| namespace(pid, "ipc")),
            init_path,
            resolv_conf: Some(&files.resolv_conf),
            hostname: Some(&files.hostname),
            hosts: Some(&files.hosts),
            device: &host::device,
            device_nodes: &host::device_nodes,
            all_devices: &host::all_devices,
            places,
            remap,
            join_user: if remap.is_some() { self.shared_users(ipc_of)? } else { None },
            data_root: &paths.data,
            linked: &variables,
        };
        let mut spec = model::spec::runtime_spec(record, &facts)?;
        let requests = record.host_config.resources.device_requests.as_deref();
        self.engine.devices().inject(requests.unwrap_or_default(), &mut spec)?;
        let rootfs = self.rootfs(record.host_config.auto_remove)?;
        selinux::relabel_sources(record, &files, &rootfs, places)?;
        let runtime = self.other_runtime(&mut spec, init || ipc_of.is_some())?;
        Ok(Create {
            id: record.id.clone(),
            run_directory,
            spec,
            rootfs,
            map_root: remap.is_some(),
            runtime,
            stdin: match (record.config.open_stdin, record.config.stdin_once) {
                (false, _) => StdinMode::Null,
                (true, false) => StdinMode::Open,
                (true, true) => StdinMode::Once,
            },
            log: self.log_target()?,
            attach: Vec::new(),
            netlink: endpoint.is_some(),
            systemd_cgroup,
            init,
            shared_memory_of: ipc_of,
        })
    }

    /// The program that makes the container in Corten's stead, if one was asked for. `odd`: the shim is to have a part
    /// in what the container's processes see.
    fn other_runtime(&self, spec: &mut oci::runtime::Spec, odd: bool) -> Result<Option<Runtime>, Refusal> {
        let (record, name) = (self.record, &self.record.host_config.runtime);
        let Some((program, arguments)) = self.engine.settings().runtimes.find(name)? else { return Ok(None) };
        let remapped = spec.linux.as_ref().is_some_and(|linux| !linux.uid_mappings.is_empty());
        for (what, asked) in [("--userns-remap", remapped), ("--init or --ipc container:", odd)] {
            if asked {
                return Err(Refusal::not_implemented(&format!("{what} together with the runtime {name}"))
                    .hint("use Corten's own runtime, or leave the option out (--userns=host for a remap)"));
            }
        }
        // It makes the filter itself.
        if let Some(linux) = &mut spec.linux {
            linux.seccomp = self.engine.seccomp_section(record)?;
        }
        Ok(Some(Runtime { program, arguments }))
    }

    /// The user namespace of the container that this one shares another namespace with: the two belong together.
    fn shared_users(&self, ipc_of: Option<i32>) -> Result<Option<PathBuf>, Refusal> {
        let pid = match (&self.record.network, self.record.host_config.pid_mode.strip_prefix("container:")) {
            (NetworkChoice::Container(other), _) => Some(joins::network(self.engine, other)?),
            (_, Some(other)) => Some(joins::pids(self.engine, other)?),
            (_, None) => ipc_of,
        };
        Ok(pid.map(|pid| namespace(pid, "user")))
    }

    /// Whether an init of Corten's own stands before the program, or which of the host's. In a PID namespace that is
    /// somebody else's, there is one already.
    fn init(&self) -> (bool, Option<&Path>) {
        let host = &self.record.host_config;
        match &self.engine.options().init_path {
            _ if host.resources.init != Some(true) || !matches!(host.pid_mode.as_str(), "" | "private") => {
                (false, None)
            }
            Some(path) => (false, Some(path)),
            None => (true, None),
        }
    }

    /// Binds by `-v` make the missing directory on the host, as Docker does.
    fn make_bind_sources(&self) -> Result<(), Refusal> {
        for mount in &self.record.mounts {
            let model::mounts::Source::Bind { path, create, propagation, .. } = &mount.source else {
                continue;
            };
            match std::fs::symlink_metadata(path) {
                Ok(_) => host::check_propagation(path, propagation)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && *create => {
                    std::fs::create_dir_all(path).map_err(|error| {
                        let what = format!("error while creating mount source path '{}'", path.display());
                        Refusal::from_error(&what, &error)
                    })?;
                }
                Err(error) => {
                    let what = format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        path.display()
                    );
                    return Err(Refusal::invalid(what).hint(format!("the host said: {error}")));
                }
            }
        }
        Ok(())
    }

    /// How the container's root is put together. `volatile`: its writable layer ends with it.
    fn rootfs(&self, volatile: bool) -> Result<Rootfs, Refusal> {
        let mounts = self
            .engine
            .snapshots()
            .mounts(&self.record.id)
            .map_err(|error| Refusal::from_error("cannot find the container's layer", &error))?;
        Ok(match mounts {
            Mounts::Overlay { lowers, upper, .. } if lowers.is_empty() => Rootfs::Directory(upper),
            Mounts::Overlay { lowers, upper, work } => {
                Rootfs::Overlay { lower: lowers, upper, work, volatile }
            }
            Mounts::Tree(tree) => Rootfs::Directory(tree),
        })
    }

    fn log_target(&self) -> Result<LogTarget, Refusal> {
        let Some(files) = self.engine.logs().files(self.record)? else { return Ok(LogTarget::default()) };
        crate::shipping::make_folder(&files.path)?;
        Ok(LogTarget {
            driver: match files.driver {
                logs::Driver::JsonFile => LogDriver::JsonFile,
                logs::Driver::Local => LogDriver::Local,
            },
            path: files.path,
            size_max: files.size_max,
            files_max: files.files_max,
            compress: files.compress,
            numbered: files.numbered,
            attributes: files.attributes,
        })
    }
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}
