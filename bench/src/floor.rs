//! The kernel's own price, measured by `floor.c` in a private host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use testkit::{Host, image, run};

pub struct Floor {
    host: Host,
    program: PathBuf,
}

impl Floor {
    pub fn new(program: PathBuf) -> anyhow::Result<Self> {
        let host = Host::new();
        let lower = host.folder().join("lower");
        for name in ["bin", "dev", "etc", "proc", "sys"] {
            fs::create_dir_all(lower.join(name))?;
        }
        fs::create_dir(host.folder().join("upper"))?;
        let busybox = lower.join("bin/busybox");
        fs::write(&busybox, &image::busybox_program().0)?;
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755))?;
        symlink("busybox", lower.join("bin/true"))?;
        Ok(Self { host, program: fs::canonicalize(&program).with_context(|| program.display().to_string())? })
    }

    /// Milliseconds from start to the end of the removal, one for each of `count` containers.
    pub fn samples(&self, network: &str, count: usize) -> anyhow::Result<Vec<f64>> {
        self.samples_in(&self.host, network, count)
    }

    /// The same in another host, beside what runs there.
    pub fn samples_in(&self, host: &Host, network: &str, count: usize) -> anyhow::Result<Vec<f64>> {
        let mut command = host.command(&self.program);
        command.args([network, &count.to_string(), host.cgroup().trim_start_matches('/')]);
        command.arg(self.host.folder().join("lower")).arg(self.host.folder().join("upper"));
        let ran = run(&mut command);
        ensure!(ran.code == 0, "{ran:?}");
        ran.stdout
            .lines()
            .map(|line| {
                let micros = line.split(' ').nth(1).with_context(|| format!("floor said {line:?}"))?;
                Ok(micros.parse::<f64>()? / 1000.0)
            })
            .collect()
    }
}
