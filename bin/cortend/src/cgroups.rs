//! Who makes containers' cgroups, and where: `--exec-opt native.cgroupdriver=…` and `--cgroup-parent`.

use anyhow::{Result, bail};
use engine::CgroupDriver;

/// The driver and the parent of all containers' cgroups. As with Docker, systemd makes them where it runs and there is
/// only the unified hierarchy, whose one writer it means to be.
pub fn read(
    exec_options: &[String],
    parent: Option<&str>,
    has_systemd: bool,
    cgroup_v2: bool,
) -> Result<(CgroupDriver, String)> {
    let standard = match has_systemd && cgroup_v2 {
        true => CgroupDriver::Systemd,
        false => CgroupDriver::Cgroupfs,
    };
    let driver = driver(exec_options)?.unwrap_or(standard);
    if driver == CgroupDriver::Cgroupfs {
        return Ok((driver, parent.unwrap_or("/corten").into()));
    }
    if !has_systemd {
        bail!("native.cgroupdriver=systemd needs systemd, which does not run on this machine; use cgroupfs");
    }
    let parent = parent.unwrap_or("system.slice");
    if parent.len() <= ".slice".len() || !parent.ends_with(".slice") || parent.contains('/') {
        bail!("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"");
    }
    Ok((driver, parent.into()))
}

/// The last option of its name counts; none: what fits the machine.
fn driver(exec_options: &[String]) -> Result<Option<CgroupDriver>> {
    let mut driver = None;
    for option in exec_options {
        let Some((key, value)) = option.split_once('=') else {
            bail!("unable to parse key/value option: {option}");
        };
        if !key.trim().eq_ignore_ascii_case("native.cgroupdriver") {
            tracing::warn!(option, "exec option is not for this platform and has no effect");
            continue;
        }
        driver = match value.trim() {
            "" => None,
            "cgroupfs" => Some(CgroupDriver::Cgroupfs),
            "systemd" => Some(CgroupDriver::Systemd),
            "none" => {
                bail!("native.cgroupdriver option none is internally used and cannot be specified manually");
            }
            other => bail!("native.cgroupdriver option {other} not supported"),
        };
    }
    Ok(driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_and_parents() {
        let read = |option: &str, parent: Option<&str>| {
            let options: Vec<String> =
                option.split(' ').filter(|one| !one.is_empty()).map(String::from).collect();
            super::read(&options, parent, true, false).map_err(|error| error.to_string())
        };
        let systemd = "native.cgroupdriver=systemd";
        assert_eq!(read("", None), Ok((CgroupDriver::Cgroupfs, "/corten".into())));
        assert_eq!(read(systemd, None), Ok((CgroupDriver::Systemd, "system.slice".into())));
        assert_eq!(read(systemd, Some("a-b.slice")), Ok((CgroupDriver::Systemd, "a-b.slice".into())));
        assert_eq!(
            read("native.cgroupdriver=systemd native.cgroupdriver=cgroupfs", Some("/x")),
            Ok((CgroupDriver::Cgroupfs, "/x".into()))
        );
        let slice = "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"";
        assert_eq!(read(systemd, Some("/x")), Err(slice.into()));
        assert_eq!(
            read("native.cgroupdriver=odd", None),
            Err("native.cgroupdriver option odd not supported".into())
        );
        assert_eq!(read("odd", None), Err("unable to parse key/value option: odd".into()));
        assert!(super::read(&[systemd.into()], None, false, true).is_err());
        let fitting = |has_systemd, cgroup_v2| super::read(&[], None, has_systemd, cgroup_v2).unwrap().0;
        assert_eq!(fitting(true, true), CgroupDriver::Systemd);
        assert_eq!(fitting(false, true), CgroupDriver::Cgroupfs);
        assert_eq!(fitting(true, false), CgroupDriver::Cgroupfs);
        let asked = ["native.cgroupdriver=cgroupfs".to_string()];
        assert_eq!(super::read(&asked, None, true, true).unwrap().0, CgroupDriver::Cgroupfs);
    }
}
