//! The command line itself: help, versions, formats, exit codes, completion.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::{Value, json};
use testkit::{Bed, engine, run};
use tests::{each_client, has, is_corten, not_yet};

#[test]
fn version_and_info() {
    let bed = Bed::new();
    each_client(&bed, |client, _| {
        has(bed.cli(client, &["version"]).ok(), &["Client:", "Server:", "API version:"]);
        let api = bed.cli(client, &["version", "-f", "{{.Server.APIVersion}}"]);
        assert!(api.ok().starts_with("1."), "{api:?}");
        let info: Value =
            serde_json::from_str(bed.cli(client, &["info", "-f", "{{json .}}"]).ok()).expect("json");
        assert_eq!(
            (&info["Images"], &info["Containers"], &info["OSType"]),
            (&json!(1), &json!(0), &json!("linux"))
        );
        has(
            bed.cli(client, &["info"]).ok(),
            &["Storage Driver:", "Cgroup Version:", "Logging Driver: json-file"],
        );
    });
}

#[test]
fn help_is_everywhere() {
    let bed = Bed::empty();
    let top = bed.run(&["--help"]);
    for command in ["run", "exec", "ps", "build", "images", "logs", "network", "volume"] {
        has(top.ok(), &[command]);
        has(bed.run(&[command, "--help"]).ok(), &["Usage:", command]);
    }
    has(bed.run(&["container", "--help"]).ok(), &["create", "inspect", "prune"]);
    has(bed.run(&["run", "--help"]).ok(), &["--cap-add", "--memory", "--publish", "-d, --detach"]);
}

#[test]
fn formats() {
    let bed = Bed::new();
    bed.run(&["run", "-d", "--name", "web", "-l", "a=b", "-e", "X=1", "busybox", "sleep", "1000"]).ok();
    each_client(&bed, |client, _| {
        let inspect = |format: &str| bed.cli(client, &["inspect", "-f", format, "web"]).ok().to_owned();
        assert_eq!(inspect("{{.Name}} {{.State.Status}}"), "/web running");
        assert_eq!(inspect("{{json .Config.Labels}}"), "{\"a\":\"b\"}");
        assert_eq!(inspect("{{range .Config.Env}}{{println .}}{{end}}").lines().next(), Some("X=1"));
        assert_eq!(inspect("{{if .State.Running}}yes{{else}}no{{end}} {{len .Config.Cmd}}"), "yes 2");
        assert_eq!(
            inspect("{{index .Config.Cmd 1}} {{join .Config.Cmd \"-\"}}").split(' ').next(),
            Some("1000")
        );
        assert_eq!(inspect("{{upper .Config.Image}}"), "BUSYBOX");
        let rows = bed.cli(client, &["ps", "--format", "{{json .}}"]);
        let row: Value = serde_json::from_str(rows.ok()).expect("a row of JSON");
        assert_eq!(
            (&row["Names"], &row["State"], &row["Labels"]),
            (&json!("web"), &json!("running"), &json!("a=b"))
        );
        let table = bed.cli(client, &["ps", "--format", "table {{.Names}}\t{{.Image}}"]);
        let lines: Vec<_> =
            table.ok().lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines, [["NAMES", "IMAGE"], ["web", "busybox"]]);
        let all: Value =
            serde_json::from_str(bed.cli(client, &["inspect", "web", "busybox"]).ok()).expect("a list");
        assert_eq!(all.as_array().map(Vec::len), Some(2), "containers and images in one");
        let broken = bed.cli(client, &["inspect", "-f", "{{.NoSuch", "web"]);
        assert_ne!(broken.code, 0);
    });
    assert_eq!(bed.run(&["ps", "-q", "--no-trunc"]).ok().len(), 64);
}

#[test]
fn no_daemon_is_said_plainly() {
    let bed = Bed::empty();
    if !is_corten(&bed) {
        return;
    }
    let socket = bed.host().folder().join("nobody.sock");
    let ask = |words: &[&str]| {
        let mut command = std::process::Command::new(engine::program("corten"));
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        run(command.arg("--no-autostart").args(words))
    };
    let wanted = format!(
        "Cannot connect to the Docker daemon at unix://{}. Is the docker daemon running?",
        socket.display()
    );
    has(ask(&["ps"]).fails(1), &[&wanted]);
    has(ask(&["run", "busybox"]).fails(125), &[&wanted]);
}

#[test]
fn completion_scripts() {
    if engine::Engine::from_environment() != engine::Engine::Corten {
        return;
    }
    for (shell, check) in [("bash", "bash -n"), ("zsh", ""), ("fish", "")] {
        let ran = run(std::process::Command::new(engine::program("corten")).args(["completion", shell]));
        has(ran.ok(), &["corten"]);
        if !check.is_empty() {
            let checked = testkit::process::run_with(
                std::process::Command::new("sh").args(["-c", check]),
                ran.stdout.as_bytes(),
                testkit::process::PATIENCE,
            );
            checked.ok();
        }
    }
}

#[test]
fn called_docker_it_is_docker() {
    let bed = Bed::new();
    if !is_corten(&bed) {
        return;
    }
    let link = bed.folder("bin").join("docker");
    std::os::unix::fs::symlink(engine::program("corten"), &link).expect("link");
    let mut command = std::process::Command::new(&link);
    command.env("DOCKER_HOST", format!("unix://{}", bed.socket().display()));
    assert_eq!(run(command.args(["run", "--rm", "busybox", "echo", "hi"])).ok(), "hi");
    let mut command = std::process::Command::new(&link);
    command.env("DOCKER_HOST", format!("unix://{}", bed.socket().display()));
    has(
        run(command.args(["ps", "--no-such-flag"])).fails(125),
        &["unknown flag: --no-such-flag", "docker ps"],
    );
}

#[test]
fn volumes_on_the_command_line() {
    let bed = Bed::new();
    if not_yet(&bed, "POST", "/volumes/create") {
        return;
    }
    each_client(&bed, |client, name| {
        assert_eq!(bed.cli(client, &["volume", "create", "--label", "a=b", name]).ok(), name);
        has(bed.cli(client, &["volume", "ls"]).ok(), &["DRIVER", "VOLUME NAME", "local", name]);
        let label = bed.cli(client, &["volume", "inspect", "-f", "{{.Labels.a}} {{.Driver}}", name]);
        assert_eq!(label.ok(), "b local");
        let mount = format!("{name}:/data");
        bed.cli(client, &["run", "-d", "--name", name, "-v", &mount, "busybox", "sleep", "1000"]).ok();
        has(&bed.http().delete(&format!("/volumes/{name}")).refused(409), &["volume is in use"]);
        bed.cli(client, &["rm", "-f", name]).ok();
        assert_eq!(bed.cli(client, &["volume", "rm", name]).ok(), name);
        let gone = bed.http().get(&format!("/volumes/{name}")).refused(404);
        assert_eq!(gone, format!("get {name}: no such volume"));
    });
}
