//! AppArmor: the default profile of containers, loaded once when the daemon starts.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use model::security::{APPARMOR_DEFAULT, AppArmor};

const PARSERS: [&str; 3] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Whether the kernel has AppArmor and it is on.
fn is_enabled() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Sees to it that the default profile is loaded. Not where the kernel has no AppArmor, or the profile cannot be had:
/// then containers run without one, and `info` and the log say why.
pub fn prepare() -> AppArmor {
    if !is_enabled() {
        return AppArmor::Absent;
    }
    match load() {
        Ok(()) => AppArmor::Ready,
        Err(why) => {
            tracing::warn!(%why, profile = APPARMOR_DEFAULT, "containers run without an AppArmor profile");
            AppArmor::Unusable(why)
        }
    }
}

fn load() -> Result<(), String> {
    if is_loaded() {
        return Ok(());
    }
    let parser = PARSERS.iter().find(|path| Path::new(path).exists());
    let parser = parser.ok_or("apparmor_parser, which compiles profiles, is not installed")?;
    run(parser).map_err(|error| format!("{parser}: {error}"))?;
    Ok(())
}

fn is_loaded() -> bool {
    let profiles = std::fs::read_to_string(PROFILES).unwrap_or_default();
    profiles.lines().any(|line| line.split_once(" (").is_some_and(|(name, _)| name == APPARMOR_DEFAULT))
}

// Once at the daemon's start, and not on behalf of a container.
#[allow(clippy::disallowed_methods)]
fn run(parser: &str) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(text)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(profile().as_bytes()).map_err(text)?;
    }
    let output = child.wait_with_output().map_err(text)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}

/// The profile: everything that a container does by itself is allowed; mounting, and writing where the kernel can be
/// reached through procfs and sysfs, is not. Signals come from outside, and tracing stays inside.
fn profile() -> String {
    format!(
        r#"#include <tunables/global>

profile {APPARMOR_DEFAULT} flags=(attach_disconnected,mediate_deleted) {{
  #include <abstractions/base>

  network,
  deny network alg,
  capability,
  file,
  umount,

  # From the engine and whoever else is unconfined on the host.
  signal (receive) peer=unconfined,
  signal (receive) peer=cortend,
  signal (receive) peer=corten-shim,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  # Among the container's own.
  signal (send,receive) peer={APPARMOR_DEFAULT},

  # Of procfs only what belongs to processes and to namespaced settings may be written.
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}}/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/sysrq-trigger rwklx,
  deny @{{PROC}}/kcore rwklx,

  deny mount,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,

  ptrace (trace,read,tracedby,readby) peer={APPARMOR_DEFAULT},
}}
"#
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_profile_has_its_name() {
        let text = super::profile();
        assert!(text.contains("profile docker-default flags="));
        assert!(text.contains("deny mount,") && text.contains("peer=docker-default"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
