//! What is run, as whom and where.

use crate::*;

pub fn programs_that_cannot_run(host: &Host) {
    let cases: [(&[&str], Error); 9] = [
        (&["foo"], Error::ProgramNotFound("exec: \"foo\": executable file not found in $PATH".into())),
        (&[""], Error::ProgramNotFound("exec: \"\": executable file not found in $PATH".into())),
        (&["/x/y"], Error::ProgramNotFound("exec: \"/x/y\": stat /x/y: no such file or directory".into())),
        (&["./foo"], Error::ProgramNotFound("exec: \"./foo\": stat ./foo: no such file or directory".into())),
        (&["/etc/plain"], Error::ProgramNotExecutable("exec: \"/etc/plain\": permission denied".into())),
        (&["/etc"], Error::ProgramNotExecutable("exec: \"/etc\": is a directory".into())),
        (
            &["nointerpreter"],
            Error::ProgramNotFound("exec /bin/nointerpreter: no such file or directory".into()),
        ),
        (&["/bin/noformat"], Error::ProgramNotExecutable("exec /bin/noformat: exec format error".into())),
        (
            &["/etc/passwd/x"],
            Error::ProgramNotFound("exec: \"/etc/passwd/x\": stat /etc/passwd/x: not a directory".into()),
        ),
    ];
    for (args, expected) in cases {
        assert_eq!(host.error(args, no_change), expected);
    }
    assert!(matches!(host.error(&[], no_change), Error::Invalid(_)));
    let error = host.error(&["true"], |spec| process(spec).env.clear());
    assert_eq!(error, Error::ProgramNotFound("exec: \"true\": executable file not found in $PATH".into()));
}

pub fn users_come_from_the_containers_files(host: &Host) {
    let check = |user: &str, script: &str, expected: &str| {
        let output = host.shell(script, |spec| process(spec).user.username = user.into());
        assert_eq!(output, expected, "{user}");
    };
    let ids = "id -u; id -g; id -G; echo $HOME";
    check("", ids, "0\n0\n0\n/root\n");
    check("web", ids, "33\n34\n34 29\n/home/web\n");
    check("33", ids, "33\n34\n34 29\n/home/web\n");
    check("web:audio", ids, "33\n29\n29\n/home/web\n");
    check("77:88", ids, "77\n88\n88\n/\n");
    let output = host.shell(ids, |spec| {
        process(spec).user =
            User { uid: 5, gid: 6, additional_gids: vec![7], umask: Some(0o77), ..User::default() };
        process(spec).env.push("HOME=/elsewhere".into());
        process(spec).args[2].push_str("; umask");
    });
    assert_eq!(output, "5\n6\n6 7\n/elsewhere\n0077\n");
    let output =
        host.shell("id -G", |spec| process(spec).user.additional_groups = vec!["audio".into(), "99".into()]);
    assert_eq!(output, "0 29 99\n");
    let error = host.error(&["true"], |spec| process(spec).user.username = "foo".into());
    assert_eq!(error, Error::Invalid("unable to find user foo: no matching entries in passwd file".into()));
    let error = host.error(&["true"], |spec| process(spec).user.username = "web:foo".into());
    assert_eq!(error, Error::Invalid("unable to find group foo: no matching entries in group file".into()));
    // A pipe can be opened again by name.
    check("web", "echo said > /dev/stdout", "said\n");
}

pub fn directories_to_start_in(host: &Host) {
    let cwd = |path: &'static str| move |spec: &mut Spec| process(spec).cwd = path.into();
    assert_eq!(host.shell("pwd", cwd("/var/www")), "/var/www\n");
    assert_eq!(host.shell("pwd; stat -c %a-%u .", cwd("/made/for/it")), "/made/for/it\n755-0\n");
    // Only root may enter it, and a user can start in it all the same.
    let output = host.shell("pwd", |spec| {
        process(spec).cwd = "/root".into();
        process(spec).user.username = "web".into();
    });
    assert_eq!(output, "/root\n");
    for leak in ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/9/../.."] {
        assert!(
            matches!(host.error(&["true"], cwd(leak)), Error::Invalid(_) | Error::System { .. }),
            "{leak}"
        );
    }
    assert!(matches!(host.error(&["true"], cwd("/etc/passwd")), Error::Invalid(_)));
}

pub fn another_process_joins(host: &Host) {
    let (spec, running) = host.sleeper(with_cgroup_namespace);
    let script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; hostname; cat /proc/self/status | grep CapEff; ls /proc/self/fd | wc -l; [ $$ != 1 ]";
    let outcome = execute(&spec, &running, &["sh", "-c", script], |_| {}).unwrap();
    let mut lines = outcome.output.lines();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let container = fs::read_link(format!("/proc/{}/ns/{name}", running.pid)).unwrap();
        assert_eq!(Path::new(lines.next().unwrap()), container, "{name}: {}", outcome.output);
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["box", "CapEff:\t00000000a80425fb", "4"]);
    assert_eq!(outcome.ended, Ended::Code(0));
    let cgroup = execute(&spec, &running, &["cat", "/proc/self/cgroup"], |_| {}).unwrap().output;
    let own = if unified() { "0::/" } else { ":freezer:/" };
    assert!(cgroup.lines().any(|line| line.ends_with(own)), "{cgroup}");
    // This process's own children are born where they were before.
    assert_eq!(
        fs::read_link("/proc/self/ns/pid").unwrap(),
        fs::read_link("/proc/self/ns/pid_for_children").unwrap()
    );
    let outcome = execute(&spec, &running, &["sh", "-c", "id -un; pwd"], |process| {
        process.user.username = "web".into();
        process.cwd = "/var".into();
    });
    assert_eq!(outcome.unwrap().output, "web\n/var\n");
    let error = execute(&spec, &running, &["nothing"], |_| {}).unwrap_err();
    assert_eq!(error, Error::ProgramNotFound("exec: \"nothing\": executable file not found in $PATH".into()));
    let error = execute(&spec, &running, &["pwd"], |process| process.cwd = "/nowhere".into()).unwrap_err();
    assert_eq!(
        error,
        Error::Invalid(
            "chdir to cwd (\"/nowhere\") set in config.json failed: no such file or directory".into()
        )
    );
    let error =
        execute(&spec, &running, &["pwd"], |process| process.user.username = "nobody".into()).unwrap_err();
    assert_eq!(
        error,
        Error::Invalid("unable to find user nobody: no matching entries in passwd file".into())
    );
    kill(running);
}

pub fn terminals(host: &Host) {
    let mut spec = spec(
        "box",
        &[
            "sh",
            "-c",
            "tty; stty size; ls -l /dev/console | head -c 1; test -t 0 && test -t 1 && test -t 2; echo $?; read x; echo got $x; tty > /dev/stdout",
        ],
    );
    process(&mut spec).terminal = true;
    process(&mut spec).user.username = "web".into();
    process(&mut spec).console_size = Some(ConsoleSize { height: 33, width: 77 });
    let rootfs = overlay(&host.scratch.0, &host.lower(), "box");
    let running = sandbox::create(Plan::new("box", &spec, rootfs, Stdio::Terminal)).unwrap().start().unwrap();
    let mut controller = fs::File::from(running.terminal.as_ref().unwrap().try_clone().unwrap());
    controller.write_all(b"word\n").unwrap();
    let outcome = finish(running, &mut controller);
    assert_eq!(
        outcome.output.replacen("word\r\n", "", 1).replace('\r', ""),
        "/dev/pts/0\n33 77\nc0\ngot word\n/dev/pts/0\n"
    );
    assert_eq!(outcome.ended, Ended::Code(0));

    let (spec, running) = host.sleeper(no_change);
    let mut process = spec.process.clone().unwrap();
    process.args = ["sh", "-c", "tty; exit 3"].map(str::to_owned).to_vec();
    let executed = sandbox::exec(ExecPlan {
        target_pid: running.pid,
        process: &process,
        spec: &spec,
        stdio: Stdio::Terminal,
        seccomp: None,
        cgroup: &running.cgroup,
        preserved_descriptors: 0,
    })
    .unwrap();
    let mut said = Vec::new();
    let _ = fs::File::from(executed.terminal.unwrap()).read_to_end(&mut said);
    assert_eq!(String::from_utf8(said).unwrap(), "/dev/pts/0\r\n");
    assert_eq!(sys::process::wait(executed.pid).unwrap(), Ended::Code(3));
    kill(running);
}
