//! The shim as its daemon and its clients see it. Needs root and `/usr/bin/busybox`.

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use harness::*;
use shim_protocol::{Attach, Command, FailureKind, Notice, Reply, StdinMode};

#[test]
fn a_container_runs_and_its_end_is_told() {
    let bed = Bed::new("echo", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let (mut client, theirs) = client();
    let mut daemon = bed.start(vec![(Attach { stdin: false, ..attach() }, theirs)]);
    let exit = daemon.exited();
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
    assert_eq!(bed.exit_file(), Some(exit.clone()));
    assert_eq!(read_frames(&mut client), [b"out\n".to_vec(), b"err\n".to_vec()]);
    let mut lines: Vec<String> = bed.logged().lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    let state = daemon.state();
    assert_eq!(state.exit, Some(exit));
    assert!(state.started_at_nanoseconds.is_some());
    daemon.leave();
    assert!(!exists(&bed.run_directory().join("shim.sock")));
}

#[test]
fn signals_end_with_128_and_more() {
    let bed = Bed::new("signals", &["sleep", "1000"]);
    let mut daemon = bed.start(vec![]);
    assert_eq!(daemon.state().exit, None);
    daemon.done(Command::Signal { signal: 9, all: false });
    let exit = daemon.exited();
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert_eq!(daemon.failed(Command::Signal { signal: 9, all: false }).kind, FailureKind::NotRunning);
    daemon.leave();
}

#[test]
fn the_end_of_the_first_clients_input_is_the_end_of_input() {
    let bed = Bed::new("once", &["cat"]).stdin(StdinMode::Once);
    let (mut client, theirs) = client();
    let early = Attach { early_input: b"first ".to_vec(), ..attach() };
    let mut daemon = bed.start(vec![(early, theirs)]);
    client.write_all(b"second\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_frames(&mut client)[0], b"first second\n");
    assert_eq!(daemon.exited().code, 0);
    daemon.leave();
}

#[test]
fn open_input_outlives_clients() {
    let bed = Bed::new("open", &["cat"]).stdin(StdinMode::Open);
    let mut daemon = bed.start(vec![]);
    for text in ["one\n", "two\n"] {
        let (mut client, theirs) = client();
        assert!(matches!(daemon.call(Command::Attach(attach_raw()), &[theirs]), Reply::Attached(_)));
        client.write_all(text.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // Its own side is closed, and output still comes.
        assert_eq!(read_until(&mut client, "\n"), text);
    }
    assert_eq!(daemon.state().exit, None);
    daemon.done(Command::Signal { signal: 9, all: true });
    assert_eq!(daemon.exited().code, 137);
    assert_eq!(bed.logged(), "one\ntwo\n");
    daemon.leave();
}

#[test]
fn more_input_than_the_process_takes_waits() {
    let bed = Bed::new("input", &["sh", "-c", "sleep 0.3; wc -c"]).stdin(StdinMode::Once);
    let (mut client, theirs) = client();
    let mut daemon = bed.start(vec![(attach(), theirs)]);
    let writer = std::thread::spawn(move || {
        client.write_all(&vec![b'x'; 3_000_000]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        read_frames(&mut client)
    });
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(writer.join().unwrap()[0], b"3000000\n");
    daemon.leave();
}

#[test]
fn terminals_have_a_size_and_echo() {
    let bed = Bed::new("terminal", &["sh", "-c", "read line; tty; stty size; read line; exit 3"])
        .terminal()
        .stdin(StdinMode::Open);
    let (mut client, theirs) = client();
    let mut daemon = Daemon::spawn();
    daemon.create(&bed, vec![(attach_raw(), theirs)]).unwrap();
    daemon.done(Command::Resize { exec: None, rows: 10, columns: 20 });
    assert!(matches!(daemon.call(Command::Start, &[]), Reply::Started { .. }));
    client.write_all(b"go\n").unwrap();
    let text = read_until(&mut client, "10 20\r\n");
    assert!(text.starts_with("go\r\n/dev/"), "{text}");
    daemon.done(Command::Resize { exec: None, rows: 30, columns: 40 });
    client.write_all(b"\n").unwrap();
    assert_eq!(daemon.exited().code, 3);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(bed.logged().contains("10 20"));
    daemon.leave();
}

#[test]
fn detach_keys_end_the_clients_stream_only() {
    let bed = Bed::new("detach", &["cat"]).terminal().stdin(StdinMode::Open);
    let (mut client, theirs) = client();
    let mut daemon = bed.start(vec![(attach_raw(), theirs)]);
    client.write_all(b"a\x10").unwrap();
    // The first key alone is held back.
    assert_eq!(read_until(&mut client, "a"), "a");
    client.write_all(b"b\n").unwrap();
    read_until(&mut client, "b\r\n");
    client.write_all(b"\x10").unwrap();
    client.write_all(b"\x11").unwrap();
    assert!(matches!(daemon.notice(), Notice::Detached { exec: None }));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(daemon.state().exit, None);
    daemon.done(Command::Signal { signal: 9, all: false });
    daemon.exited();
    daemon.leave();
}

#[test]
fn much_output_is_logged_whole_and_fast() {
    const MEGABYTES: usize = 100;
    let command =
        format!("yes 0123456789012345678901234567890123456789012345678 | head -c {MEGABYTES}000000");
    let bed = Bed::new("much", &["sh", "-c", &command]);
    let started = Instant::now();
    let mut daemon = bed.start(vec![]);
    daemon.exited();
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0} MB/s", MEGABYTES as f64 / seconds);
    let text = bed.logged();
    assert_eq!(text.len(), MEGABYTES * 1_000_000);
    assert_eq!(text.lines().count(), MEGABYTES * 1_000_000 / 50);
    daemon.leave();
}

#[test]
fn a_slow_client_holds_the_container_up_and_loses_nothing() {
    let bed = Bed::new("slow", &["sh", "-c", "yes 0123456789 | head -c 5000000; echo end >&2"]);
    let (mut slow, theirs) = client();
    let mut daemon = bed.start(vec![(Attach { stdin: false, ..attach() }, theirs)]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(daemon.state().exit, None);
    assert!(bed.logged().len() < 2_000_000);
    let streams = read_frames(&mut slow);
    assert_eq!((streams[0].len(), streams[1].as_slice()), (5_000_000, b"end\n".as_slice()));
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(bed.logged().len(), 5_000_004);
    daemon.leave();
}

#[test]
fn a_slow_client_does_not_delay_the_news_of_the_end() {
    let bed = Bed::new("late", &["sh", "-c", "yes 0123456789 | head -c 250000; echo end >&2"]);
    let (mut slow, theirs) = client();
    let mut daemon = bed.start(vec![(Attach { stdin: false, ..attach() }, theirs)]);
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(bed.logged().len(), 250_004);
    let shim = daemon.shim.take().unwrap();
    drop(daemon);
    // Nobody else needs the shim any more, but what the client did not read is here only.
    let streams = read_frames(&mut slow);
    assert_eq!((streams[0].len(), streams[1].as_slice()), (250_000, b"end\n".as_slice()));
    gone(shim);
}

#[test]
fn a_client_that_goes_does_not_hold_anything_up() {
    let bed = Bed::new("gone", &["sh", "-c", "yes 0123456789 | head -c 5000000"]);
    let (slow, theirs) = client();
    let mut daemon = bed.start(vec![(Attach { stdin: false, ..attach() }, theirs)]);
    std::thread::sleep(Duration::from_millis(50));
    drop(slow);
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(bed.logged().len(), 5_000_000);
    daemon.leave();
}

#[test]
fn the_container_outlives_its_daemon() {
    let bed = Bed::new("outlive", &["sh", "-c", "echo before; read line; echo after; exit 5"])
        .stdin(StdinMode::Open);
    let (mut watcher, theirs) = client();
    let mut first = bed.start(vec![(attach_raw(), theirs)]);
    read_until(&mut watcher, "before\n");
    let shim = first.shim.take().unwrap();
    let pid = first.state().pid;
    drop(first);
    let mut second = bed.connect();
    let mut third = bed.connect();
    assert_eq!([second.state().pid, third.state().pid], [pid; 2]);
    let (mut client, theirs) = client();
    assert!(matches!(second.call(Command::Attach(attach_raw()), &[theirs]), Reply::Attached(_)));
    client.write_all(b"\n").unwrap();
    assert_eq!(read_until(&mut client, "\n"), "after\n");
    // The newest connection is told.
    let exit = third.exited();
    assert_eq!(exit.code, 5);
    assert_eq!(second.state().exit, Some(exit));
    drop((second, third));
    gone(shim);
    assert_eq!(bed.logged(), "before\nafter\n");
}

#[test]
fn without_any_daemon_the_exit_is_in_a_file() {
    let bed = Bed::new("alone", &["sh", "-c", "sleep 0.2; exit 9"]);
    let mut daemon = bed.start(vec![]);
    let shim = daemon.shim.take().unwrap();
    drop(daemon);
    gone(shim);
    assert_eq!(bed.exit_file().unwrap().code, 9);
    assert!(!exists(&bed.run_directory().join("shim.sock")));
}

#[test]
fn execs_have_streams_and_codes_of_their_own() {
    let bed = Bed::new("exec", &["sleep", "1000"]);
    let mut daemon = bed.start(vec![]);
    let (mut client, theirs) = client();
    let process = bed.process(&["sh", "-c", "cat; echo $$ >&2; exit 4"]);
    let pid = daemon.exec("one", process, Some((attach(), theirs)));
    assert_eq!(daemon.state().execs.get("one"), Some(&pid));
    client.write_all(b"through\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(daemon.exec_exited(), ("one".into(), 4));
    assert_eq!(read_frames(&mut client)[0], b"through\n");
    let state = daemon.state();
    assert_eq!((state.execs.len(), state.ended_execs.get("one")), (0, Some(&4)));
    assert_eq!(daemon.state().ended_execs.len(), 0);
    // Detached.
    daemon.exec("two", bed.process(&["sh", "-c", "echo lost; exit 6"]), None);
    assert_eq!(daemon.exec_exited(), ("two".into(), 6));
    // What an exec leaves behind does not keep its client.
    let (mut background, theirs) = harness::client();
    let process = bed.process(&["sh", "-c", "sleep 1000 & echo started"]);
    daemon.exec("three", process, Some((attach(), theirs)));
    assert_eq!(daemon.exec_exited(), ("three".into(), 0));
    assert_eq!(read_frames(&mut background)[0], b"started\n");
    let failure = daemon.failed(Command::Exec(Box::new(shim_protocol::Exec {
        id: "four".into(),
        process: bed.process(&["/no/such/program"]),
        attach: None,
        stdin_open: false,
        capture: None,
    })));
    assert_eq!(failure.kind, FailureKind::ProgramNotFound, "{failure}");
    daemon.done(Command::Signal { signal: 9, all: false });
    daemon.exited();
    assert_eq!(bed.logged(), "");
    daemon.leave();
}

#[test]
fn execs_can_have_a_terminal() {
    let bed = Bed::new("exec-tty", &["sleep", "1000"]);
    let mut daemon = bed.start(vec![]);
    let (mut client, theirs) = client();
    let mut process = bed.process(&["sh", "-c", "read line; stty size; cat"]);
    process.terminal = true;
    daemon.exec("shell", process, Some((attach_raw(), theirs)));
    daemon.done(Command::Resize { exec: Some("shell".into()), rows: 11, columns: 22 });
    client.write_all(b"\n").unwrap();
    read_until(&mut client, "11 22\r\n");
    client.write_all(b"\x10\x11").unwrap();
    assert!(matches!(daemon.notice(), Notice::Detached { exec: Some(id) } if id == "shell"));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(daemon.state().execs.len(), 1);
    daemon.done(Command::Signal { signal: 9, all: true });
    let mut told = [daemon.notice(), daemon.notice()].map(|notice| match notice {
        Notice::Exited(exit) => exit.code,
        Notice::ExecExited { code, .. } => code,
        other => panic!("{other:?}"),
    });
    told.sort_unstable();
    assert_eq!(told, [137, 137]);
    daemon.leave();
}

#[test]
fn an_attached_client_detects_nothing_but_the_end_of_a_frozen_container() {
    let bed = Bed::new("frozen", &["sh", "-c", "while true; do echo x; sleep 0.01; done"]);
    let mut daemon = bed.start(vec![]);
    daemon.done(Command::Freeze(true));
    assert!(daemon.state().frozen);
    let before = bed.logged().len();
    std::thread::sleep(Duration::from_millis(100));
    assert!(bed.logged().len() <= before + 2);
    daemon.done(Command::Freeze(false));
    assert!(!daemon.state().frozen);
    daemon.done(Command::Signal { signal: 9, all: true });
    assert_eq!(daemon.exited().code, 137);
    daemon.leave();
}

#[test]
fn programs_that_cannot_start_are_told_by_kind() {
    for (program, kind) in
        [("/nowhere", FailureKind::ProgramNotFound), ("/etc", FailureKind::ProgramNotExecutable)]
    {
        let bed = Bed::new("failing", &[program]);
        let (mut client, theirs) = client();
        let mut daemon = Daemon::spawn();
        daemon.create(&bed, vec![(attach(), theirs)]).unwrap();
        let failure = daemon.failed(Command::Start);
        assert_eq!(failure.kind, kind, "{failure}");
        let mut nothing = Vec::new();
        client.read_to_end(&mut nothing).unwrap();
        daemon.leave();
        assert_eq!(bed.exit_file(), None);
    }
}

#[test]
fn a_container_that_is_not_wanted_after_all_leaves_nothing() {
    let bed = Bed::new("discard", &["true"]);
    let mut daemon = Daemon::spawn();
    daemon.create(&bed, vec![]).unwrap();
    daemon.done(Command::Discard);
    daemon.leave();
    // And if the daemon goes in between.
    let mut daemon = Daemon::spawn();
    daemon.create(&bed, vec![]).unwrap();
    daemon.leave();
    assert_eq!(bed.exit_file(), None);
    assert!(!exists(&bed.run_directory().join("shim.sock")));
}

#[test]
fn a_container_that_dies_before_its_start_fails_to_start() {
    let bed = Bed::new("early", &["true"]);
    let mut daemon = Daemon::spawn();
    daemon.create(&bed, vec![]).unwrap();
    daemon.done(Command::Signal { signal: 9, all: false });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(daemon.failed(Command::Start).kind, FailureKind::System);
    match daemon.call(Command::Attach(attach()), &[client().1]) {
        Reply::Failed(failure) => assert_eq!(failure.kind, FailureKind::NotRunning),
        other => panic!("{other:?}"),
    }
    daemon.leave();
}

#[test]
fn clients_may_come_over_tcp() {
    let bed = Bed::new("tcp", &["sh", "-c", "cat; yes 0123456789 | head -c 3000000"]).stdin(StdinMode::Once);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let theirs = OwnedFd::from(listener.accept().unwrap().0);
    let mut daemon = bed.start(vec![(attach(), UnixStream::from(theirs))]);
    client.write_all(b"hello\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    let output = &frames(&bytes)[0];
    assert!(output.starts_with(b"hello\n0123456789\n"));
    assert_eq!(output.len(), 3_000_006);
    assert_eq!(daemon.exited().code, 0);
    daemon.leave();
}

#[test]
fn input_typed_too_early_may_detach() {
    let bed = Bed::new("early-detach", &["cat"]).stdin(StdinMode::Open);
    let (mut client, theirs) = client();
    let early = Attach { early_input: b"last words\n\x10\x11lost".to_vec(), ..attach_raw() };
    let mut daemon = bed.start(vec![(early, theirs)]);
    assert!(matches!(daemon.notice(), Notice::Detached { exec: None }));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    bed.wait_for_log("last words\n");
    daemon.done(Command::Signal { signal: 9, all: false });
    daemon.exited();
    assert_eq!(bed.logged(), "last words\n");
    daemon.leave();
}

#[test]
fn any_user_may_reopen_the_standard_streams() {
    let bed = Bed::new(
        "reopen",
        &["sh", "-c", "echo out > /dev/stdout; echo err > /proc/self/fd/2; read x < /dev/stdin; echo $x"],
    )
    .user(1000)
    .stdin(StdinMode::Once);
    let (mut client, theirs) = client();
    let mut daemon = bed.start(vec![(attach(), theirs)]);
    client.write_all(b"in\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(read_frames(&mut client), [b"out\nin\n".to_vec(), b"err\n".to_vec()]);
    daemon.leave();
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let bed = Bed::new("nonsense", &["sleep", "1000"]);
    let mut daemon = bed.start(vec![]);
    for nonsense in [&[0xff; 64][..], b"\x04\0\0\0\0\0\0\0null", b"\x02\0\0\0\0\0\0\0{]"] {
        let mut stranger = UnixStream::connect(bed.run_directory().join("shim.sock")).unwrap();
        stranger.set_read_timeout(Some(DEADLINE)).unwrap();
        stranger.write_all(nonsense).unwrap();
        let mut answer = Vec::new();
        // Unread bytes make the end a reset.
        let _ = stranger.read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }
    // A command without its descriptor.
    let mut other = bed.connect();
    let frame = shim_protocol::Request { seq: 1, command: Command::Attach(attach()) };
    other.socket.write_all(&shim_protocol::encode(&frame, &[]).unwrap()).unwrap();
    let mut answer = Vec::new();
    other.socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");
    assert_eq!(daemon.failed(Command::Start).kind, FailureKind::Invalid);
    assert_eq!(daemon.state().exit, None);
    daemon.done(Command::Signal { signal: 9, all: false });
    daemon.exited();
    daemon.leave();
    Daemon::spawn().leave();
}

#[test]
fn logs_rotate_and_are_compressed() {
    let mut bed = Bed::new("rotate", &["seq", "1", "200000"]);
    bed.log.size_max = Some(1_000_000);
    bed.log.files_max = 1000;
    bed.log.compress = true;
    let mut daemon = bed.start(vec![]);
    daemon.exited();
    daemon.leave();
    let logged = bed.logged();
    let mut numbers = logged.lines().enumerate();
    let wrong = numbers.find(|(index, line)| *line != (index + 1).to_string());
    assert_eq!((wrong, logged.lines().count()), (None, 200_000));
    let compressed = fs::read_dir(bed.directory.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".gz"));
    assert!(compressed.count() > 0);
}

#[test]
fn in_a_shared_pid_namespace_the_end_of_the_first_is_the_end_of_all() {
    let bed = Bed::new("shared", &["sh", "-c", "sleep 1000 & echo started"]).host_pids();
    let (mut client, theirs) = client();
    let mut daemon = bed.start(vec![(Attach { stdin: false, ..attach() }, theirs)]);
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(read_frames(&mut client)[0], b"started\n");
    daemon.leave();
}

#[test]
fn want_of_memory_is_told() {
    const HOG: &str = "x=xxxxxxxx; while true; do x=$x$x; done";
    let bed =
        Bed::new("memory", &["sh", "-c", &format!("sh -c '{HOG}'; echo survived; {HOG}")]).memory(32 << 20);
    let mut daemon = bed.start(vec![]);
    assert!(matches!(daemon.notice(), Notice::OutOfMemory));
    let exit = loop {
        match daemon.notice() {
            Notice::OutOfMemory => {}
            Notice::Exited(exit) => break exit,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), true));
    assert!(bed.logged().contains("survived"));
    daemon.leave();
}

#[test]
fn the_default_policy_loads_and_holds() {
    let arch = seccomp::Arch::HOST.unwrap();
    let kernel = seccomp::Kernel { major: 6, minor: 1 };
    let section = seccomp::default_profile().resolve(&["CAP_SYS_CHROOT"], arch, kernel).unwrap().unwrap();
    let mut bed = Bed::new(
        "policy",
        &["sh", "-c", "grep Seccomp: /proc/self/status; unshare -u true; chroot / true; echo $?"],
    );
    bed.filter = seccomp::compile(&section, arch).unwrap();
    let mut daemon = bed.start(vec![]);
    daemon.exited();
    let text = bed.logged();
    assert!(text.contains("Seccomp:\t2\n"), "{text}");
    assert!(text.contains("unshare: ") && text.contains("Operation not permitted"), "{text}");
    daemon.leave();
}

#[test]
fn a_socket_from_inside_the_network_namespace_comes_with_the_answer() {
    let mut bed = Bed::new("netlink", &["true"]);
    bed.netlink = true;
    let mut daemon = Daemon::spawn();
    daemon.create(&bed, vec![]).unwrap();
    let socket = daemon.descriptors.pop().unwrap();
    let domain = rustix::net::sockopt::socket_domain(&socket).unwrap();
    assert_eq!(domain, rustix::net::AddressFamily::NETLINK);
    assert!(matches!(daemon.call(Command::Start, &[]), Reply::Started { .. }));
    assert_eq!(daemon.exited().code, 0);
    daemon.leave();
}

#[test]
#[ignore = "a measurement: prints the memory of many idle shims"]
fn memory_of_many() {
    const COUNT: usize = 200;
    let beds: Vec<Bed> =
        (0..COUNT).map(|index| Bed::new(&format!("many{index}"), &["sleep", "1000"])).collect();
    let started = Instant::now();
    let mut daemons: Vec<Daemon> = beds.iter().map(|bed| bed.start(vec![])).collect();
    println!("{:.2} ms per start", started.elapsed().as_secs_f64() * 1000.0 / COUNT as f64);
    std::thread::sleep(Duration::from_secs(1));
    for name in ["Pss", "Pss_Dirty", "Private_Dirty", "Rss"] {
        let kilobytes = daemons.iter().map(|daemon| {
            let rollup =
                fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.shim.as_ref().unwrap().id()));
            let rollup = rollup.unwrap();
            let line = rollup.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
        });
        println!("{name}: {} kB each", kilobytes.sum::<usize>() / COUNT);
    }
    for daemon in &mut daemons {
        daemon.done(Command::Signal { signal: 9, all: false });
        daemon.exited();
    }
    daemons.into_iter().for_each(Daemon::leave);
}

#[test]
#[ignore = "a measurement: prints how fast output is logged, by the clock and by the shim's processor time"]
fn speed_of_logging() {
    const MEGABYTES: usize = 400;
    let bed = Bed::new("speed", &["cat", "/data"]);
    let line = "012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678\n";
    fs::write(bed.directory.path().join("root/data"), line.repeat(MEGABYTES * 10_000)).unwrap();
    let started = Instant::now();
    let mut daemon = bed.start(vec![]);
    daemon.exited();
    let seconds = started.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{}/stat", daemon.shim.as_ref().unwrap().id())).unwrap();
    let fields: Vec<&str> = status.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    println!("user {} system {} ticks", fields[11], fields[12]);
    let (wall, processor) = (MEGABYTES as f64 / seconds, MEGABYTES as f64 / (ticks / 100.0));
    println!("{wall:.0} MB/s, {processor:.0} MB per second of the shim's processor");
    std::thread::sleep(Duration::from_secs(1));
    let rollup =
        fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.shim.as_ref().unwrap().id())).unwrap();
    println!("afterwards: {}", rollup.lines().find(|line| line.starts_with("Private_Dirty")).unwrap());
    daemon.leave();
}
