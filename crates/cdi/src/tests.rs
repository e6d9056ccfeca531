//! Files read, devices found, containers changed.

use std::path::Path;

use oci::runtime::{LinuxDeviceKind, Spec as Container};
use proptest::prelude::*;

use super::*;

const YAML: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/gpu
containerEdits:
  env: ["ALL=1"]
devices:
  - name: "0"   # the first
    containerEdits:
      env:
        - GPU=zero
      deviceNodes:
        - path: /dev/gpu0
          hostPath: /dev/real
          permissions: rw
          fileMode: 0660
      mounts:
        - {hostPath: /usr/lib/x, containerPath: /lib/x, options: [ro, nosuid, bind]}
      hooks:
        - hookName: createContainer
          path: /usr/bin/hook
          args: [hook, --yes]
  - name: all
    containerEdits: {env: [GPU=all]}
"#;

fn real(path: &Path) -> Option<HostDevice> {
    let kind = LinuxDeviceKind::Char;
    (path == Path::new("/dev/real")).then_some(HostDevice {
        kind,
        major: 195,
        minor: 3,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
}

#[test]
fn a_device_changes_a_container() {
    let mut registry = Registry::default();
    registry.add(0, Spec::parse(YAML, Format::Yaml).unwrap());
    assert_eq!(registry.names(), ["vendor.com/gpu=0", "vendor.com/gpu=all"]);
    let mut container = Container::default();
    container.process.get_or_insert_default().env = vec!["GPU=old".into(), "PATH=/bin".into()];
    registry.inject(&["vendor.com/gpu=0"], &mut container, &real).unwrap();
    assert_eq!(container.process.unwrap().env, ["PATH=/bin", "ALL=1", "GPU=zero"]);
    let linux = container.linux.unwrap();
    let (node, rule) = (&linux.devices[0], &linux.resources.as_ref().unwrap().devices[0]);
    assert_eq!((node.path.to_str(), node.major, node.file_mode), (Some("/dev/gpu0"), 195, Some(0o660)));
    assert_eq!((rule.access.as_str(), rule.minor), ("rw", Some(3)));
    assert_eq!(container.mounts[0].options, ["ro", "nosuid", "bind"]);
    assert_eq!(container.hooks.unwrap().create_container[0].args, ["hook", "--yes"]);
}

#[test]
fn json_is_read_as_yaml_is() {
    let text = r#"{"cdiVersion":"0.5.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":null,
        "deviceNodes":[{"path":"/dev/real","uid":5}]}}]}"#;
    assert_eq!(Spec::parse(text, Format::Json).unwrap(), Spec::parse(text, Format::Yaml).unwrap());
}

#[test]
fn what_is_not_there_is_named() {
    let mut registry = Registry::default();
    registry.add(0, Spec::parse(YAML, Format::Yaml).unwrap());
    let error =
        registry.inject(&["vendor.com/gpu=0", "x.com/y=z"], &mut Container::default(), &real).unwrap_err();
    assert_eq!(error.to_string(), "unresolvable CDI devices x.com/y=z");
    // Two of equal rank: nobody knows which is meant. One of a higher rank decides.
    registry.add(0, Spec::parse(YAML, Format::Yaml).unwrap());
    assert!(registry.names().is_empty());
    registry.add(1, Spec::parse(YAML, Format::Yaml).unwrap());
    assert_eq!(registry.names().len(), 2);
}

#[test]
fn nonsense_is_refused() {
    for (change, text) in [
        (("0.6.0", "9.0.0"), "version"),
        (("vendor.com/gpu", "gpu"), "kind of devices"),
        (("name: all", "name: \"0\""), "twice"),
        (("createContainer", "sometime"), "invalid hook"),
        (("permissions: rw", "permissions: rx"), "permissions"),
        (("GPU=zero", "GPU"), "environment variable"),
        (("containerPath: /lib/x", "containerPath: lib"), "invalid mount"),
        (("fileMode", "odd"), "unknown field"),
        (("env: [GPU=all]", "env: &a [GPU=all], mounts: *a"), "alias"),
    ] {
        let error = Spec::parse(&YAML.replace(change.0, change.1), Format::Yaml).unwrap_err().to_string();
        assert!(error.contains(text), "{change:?}: {error}");
    }
    assert!(Spec::parse(&"[".repeat(100_000), Format::Yaml).is_err());
    assert!(Spec::parse(&" ".repeat(FILE_LIMIT + 1), Format::Yaml).is_err());
    assert!(Spec::parse("", Format::Yaml).is_err());
}

#[test]
fn names() {
    assert_eq!(Name::parse("a.b/c=d:1"), Some(Name { kind: "a.b/c", device: "d:1" }));
    for bad in ["a/b", "/b=c", "a/=c", "a/b=", "a/b=c/d", "/dev/x:/dev/y=z", "a b/c=d"] {
        assert_eq!(Name::parse(bad), None, "{bad}");
    }
}

proptest! {
    /// Whatever the bytes are, they are read or refused.
    #[test]
    fn any_text_is_decided(text in "\\PC{0,80}", at in 0..YAML.len(), cut in any::<bool>()) {
        let mut changed = String::from_utf8_lossy(&YAML.as_bytes()[..at]).into_owned();
        changed.push_str(&text);
        if !cut {
            changed.push_str(&String::from_utf8_lossy(&YAML.as_bytes()[at..]));
        }
        let _ = Spec::parse(&changed, Format::Yaml);
        let _ = Spec::parse(&text, Format::Json);
    }
}
