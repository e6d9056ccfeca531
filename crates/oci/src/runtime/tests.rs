//! Documents read and written.

use super::*;

#[test]
fn a_spec_reads_back_as_it_was_written() {
    let text = r#"{
        "ociVersion": "1.2.0", "windows": {"ignored": true},
        "process": {"terminal": true, "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [5]},
            "args": ["sh"], "env": ["A=b"], "cwd": "/",
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_BPF", "CAP_FROM_THE_FUTURE"], "effective": null},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 1024}],
            "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}, "execCPUAffinity": {"initial": "0-1", "final": "0"}},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
        "hooks": {"createRuntime": [{"path": "/bin/hook", "timeout": 3}]},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 1, "disableOOMKiller": true},
                "cpu": {"shares": 2, "quota": -1}, "pids": {"limit": -1}, "blockIO": {"throttleReadIOPSDevice":
                [{"major": 8, "minor": 0, "rate": 3}]}, "unified": {"memory.high": "1"}},
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls":
                [{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]},
            "timeOffsets": {"monotonic": {"secs": -3, "nanosecs": 1}}, "personality": {"domain": "LINUX32"}}}"#;
    let spec: Spec = serde_json::from_str(text).unwrap();
    let process = spec.process.as_ref().unwrap();
    let caps = process.capabilities.as_ref().unwrap();
    assert_eq!(caps.bounding, CapabilitySet::from_iter([Capability::Chown, Capability::Bpf]));
    assert!(caps.effective.is_empty());
    assert_eq!(process.rlimits[0].hard, u64::MAX);
    let again: Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(spec, again);
    let linux = again.linux.unwrap();
    assert_eq!(linux.namespaces[1].kind, LinuxNamespaceKind::Network);
    assert_eq!(linux.seccomp.unwrap().syscalls[0].args[0].op, LinuxSeccompOperator::MaskedEqual);
}

#[test]
fn an_empty_spec_writes_nothing_but_its_version() {
    assert_eq!(serde_json::to_string(&Spec::default()).unwrap(), r#"{"ociVersion":""}"#);
}

#[test]
fn capability_numbers_are_the_kernels() {
    assert_eq!(Capability::SysAdmin as u8, 21);
    assert_eq!(Capability::CheckpointRestore as u8, 40);
    for capability in Capability::ALL {
        assert_eq!(Capability::from_name(capability.name()), Some(capability));
    }
}
