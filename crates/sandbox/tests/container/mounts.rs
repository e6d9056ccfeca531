//! The root and what is mounted in it.

use crate::*;

pub fn mounts_of_all_kinds(host: &Host) {
    let source = host.scratch.0.join("source");
    fs::create_dir_all(source.join("below")).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    let bind = |source: &Path, destination: &str, options: &[&str]| Mount {
        destination: destination.into(),
        kind: "bind".into(),
        source: Some(source.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    };
    let file = source.join("file");
    let output =
        host.shell("cat /etc/hosts /data/file; touch /data/new; touch /ro/x; echo $?; ls /ro", |spec| {
            spec.mounts.push(bind(&file, "/etc/hosts", &["rbind", "rprivate"]));
            spec.mounts.push(bind(&source, "/data", &["rbind", "rprivate"]));
            spec.mounts.push(bind(&source, "/ro", &["rbind", "ro", "rro", "rprivate"]));
        });
    assert!(
        output.starts_with("content\ncontent\n")
            && output.contains("Read-only")
            && output.ends_with("1\nbelow\nfile\nnew\n"),
        "{output}"
    );
    let error = host.error(&["true"], |spec| spec.mounts.push(bind(&source.join("none"), "/x", &["rbind"])));
    assert_eq!(
        error,
        Error::Invalid(format!("bind source path does not exist: {}", source.join("none").display()))
    );
    let error = host.error(&["true"], |spec| spec.mounts.push(bind(&source, "/etc/passwd", &["rbind"])));
    assert!(matches!(error, Error::System { errno: libc::ENOTDIR, .. } | Error::Invalid(_)), "{error}");

    let tmpfs = |destination: &str, options: &[&str]| Mount {
        kind: "tmpfs".into(),
        source: Some("tmpfs".into()),
        ..bind(&source, destination, options)
    };
    let output = host.shell("cat /etc/plain; touch /etc/x && rm /etc/x; stat -f -c %T /etc; touch /sealed/x 2>/dev/null; echo $?; ls -a /empty | wc -l; stat -c %a /etc /empty /sealed /root", |spec| {
        spec.mounts.push(tmpfs("/etc", &["tmpcopyup", "size=1m"]));
        spec.mounts.push(tmpfs("/sealed", &["ro"]));
        spec.mounts.push(tmpfs("/empty", &["mode=711", "noexec"]));
            spec.mounts.push(tmpfs("/root", &[]));
    });
    assert_eq!(output, "no program\ntmpfs\n1\n2\n755\n711\n1777\n700\n");
    let error = host.error(&["true"], |spec| spec.mounts.push(tmpfs("/x", &["nonsense=1"])));
    assert!(error.to_string().contains("nonsense"), "{error}");
    let error =
        host.error(&["true"], |spec| spec.mounts.push(Mount { kind: "nofs".into(), ..tmpfs("/x", &[]) }));
    assert!(matches!(error, Error::Invalid(_)), "{error}");
}

pub fn owners_are_mapped_by_mounts(host: &Host) {
    let source = host.scratch.0.join("owned");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(5), Some(6)).unwrap();
    let mapping = |container_id| vec![LinuxIdMapping { container_id, host_id: 1000, size: 100 }];
    let output = host.shell("stat -c '%u %g' /owned/file; touch /owned/new", |spec| {
        process(spec).user = User { uid: 1005, gid: 1005, ..User::default() };
        spec.mounts.push(Mount {
            destination: "/owned".into(),
            kind: "bind".into(),
            source: Some(source.clone()),
            options: vec!["bind".into(), "idmap".into()],
            uid_mappings: mapping(0),
            gid_mappings: mapping(0),
        });
        process(spec).args[2] = "stat -c '%u %g' /owned/file; touch /owned/file && echo written".into();
    });
    assert_eq!(output, "1005 1006\nwritten\n");
}

pub fn mounts_spread_as_they_are_told(host: &Host) {
    // In a namespace of the test's own, so that nothing of it reaches the host.
    let outcome = sys::process::clone(
        &sys::process::CloneOptions { namespaces: sys::process::Namespaces::MOUNT, ..Default::default() },
        || {
            let shared = host.scratch.0.join("shared");
            fs::create_dir_all(shared.join("later")).unwrap();
            let slash = sys::Root::open_path(Path::new("/")).unwrap();
            let private = sys::mount::Change {
                propagation: Some(sys::mount::Propagation::Private),
                ..Default::default()
            };
            sys::mount::change(std::os::fd::AsFd::as_fd(&slash), true, &private).unwrap();
            rustix::mount::mount_bind(&shared, &shared).unwrap();
            rustix::mount::mount_change(&shared, rustix::mount::MountPropagationFlags::SHARED).unwrap();
            for (propagation, expected) in
                [("rslave", "master:"), ("rshared", "shared:"), ("rprivate", "- ext4")]
            {
                let output = host.shell("grep ' /spread ' /proc/self/mountinfo", |spec| {
                    spec.mounts.push(Mount {
                        destination: "/spread".into(),
                        kind: "bind".into(),
                        source: Some(shared.clone()),
                        options: vec!["rbind".into(), propagation.into()],
                        ..Mount::default()
                    });
                });
                let quiet =
                    propagation == "rprivate" && !output.contains("master:") && !output.contains("shared:");
                assert!(quiet || output.contains(expected), "{propagation}: {output}");
            }
            // Also where the root itself is shared.
            let output = host.shell("grep -e ' / / ' -e ' /spread ' /proc/self/mountinfo", |spec| {
                spec.linux.get_or_insert_default().rootfs_propagation = "shared".into();
                spec.mounts.push(Mount {
                    destination: "/spread".into(),
                    kind: "bind".into(),
                    source: Some(shared.clone()),
                    options: vec!["rbind".into(), "rshared".into()],
                    ..Mount::default()
                });
            });
            assert!(
                output.lines().count() == 2 && output.lines().all(|line| line.contains("shared:")),
                "{output}"
            );
            remove_parent_cgroups();
            0
        },
    );
    assert_eq!(sys::process::wait(outcome.unwrap().0).unwrap(), Ended::Code(0));
}

pub fn links_in_the_image_lead_nowhere_else(host: &Host) {
    let lower = host.scratch.0.join("evil");
    fill_rootfs(&lower);
    let outside = host.scratch.0.join("outside");
    fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, lower.join("data")).unwrap();
    std::os::unix::fs::symlink("/../../../../../../..", lower.join("up")).unwrap();
    let spec_with = |change: &dyn Fn(&mut Spec)| {
        let mut spec = spec("box", &["sh", "-c", "ls /up/etc/plain; ls /data/x; pwd"]);
        change(&mut spec);
        let rootfs = overlay(&host.scratch.0, &lower, "evil");
        run(|stdio| sandbox::create(Plan::new("box", &spec, rootfs, stdio)))
    };
    let mount = Mount { destination: "/data/x".into(), kind: "tmpfs".into(), ..Mount::default() };
    let outcome = spec_with(&|spec| {
        spec.mounts.push(mount.clone());
        process(spec).cwd = "/up/up/made".into();
    });
    let outcome = outcome.unwrap();
    assert_eq!(outcome.output, "/up/etc/plain\n/made\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // A procfs that is not at its place is refused.
    fs::remove_dir(lower.join("proc")).unwrap();
    std::os::unix::fs::symlink("/tmp", lower.join("proc")).unwrap();
    let error = spec_with(&|_| {}).unwrap_err();
    assert_eq!(error, Error::Invalid("filesystem \"proc\" must be mounted on ordinary directory".into()));
}

pub fn a_plain_directory_is_a_root_as_well(host: &Host) {
    let lower = host.scratch.0.join("plain");
    fill_rootfs(&lower);
    let spec = spec("box", &["sh", "-c", "echo x > /made; cat /proc/mounts | wc -l"]);
    let outcome =
        run(|stdio| sandbox::create(Plan::new("box", &spec, RootfsSource::Directory(lower.clone()), stdio)));
    assert_eq!(outcome.unwrap().ended, Ended::Code(0));
    assert_eq!(fs::read_to_string(lower.join("made")).unwrap(), "x\n");
    let missing = RootfsSource::Directory("/no/such/root".into());
    let error = run(|stdio| sandbox::create(Plan::new("box", &spec, missing, stdio))).unwrap_err();
    assert_eq!(error, Error::Invalid("root filesystem /no/such/root does not exist".into()));
}
