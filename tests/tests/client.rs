//! The command line itself: contexts, hosts by ssh, plugins, and what it reads from its configuration.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::engine::{docker_client, program};
use testkit::{Bed, Client, Engine, Ran, run};
use tests::has;

/// Our client with a configuration of its own, and nothing that says where the daemon is.
fn corten(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("corten"));
    command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("DOCKER_CONFIG", config);
    command.env("CORTEN_NO_AUTOSTART", "1").args(arguments);
    command
}

fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

#[test]
fn contexts_lead_to_daemons_and_both_clients_know_them() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    let bed = Bed::new();
    let config = bed.folder("config");
    fs::write(config.join("config.json"), r#"{"psFormat":"{{.Names}} by config","odd":{"kept":1}}"#)
        .expect("config");
    let call = |arguments: &[&str]| -> Ran { run(&mut corten(&config, arguments)) };
    let host = format!("host=unix://{}", bed.socket().display());
    assert_eq!(call(&["context", "create", "bed", "--docker", &host, "--description", "a bed"]).ok(), "bed");
    call(&["--context", "bed", "create", "--name", "web", "busybox", "true"]).ok();
    assert_eq!(call(&["context", "use", "bed"]).ok(), "bed");
    assert_eq!(call(&["context", "show"]).ok(), "bed");
    assert_eq!(call(&["ps", "-a"]).ok(), "web by config");
    let kept: Value =
        serde_json::from_slice(&fs::read(config.join("config.json")).expect("config")).expect("JSON");
    assert_eq!(
        kept,
        json!({"psFormat": "{{.Names}} by config", "odd": {"kept": 1}, "currentContext": "bed"})
    );
    if let Some(docker) = docker_client() {
        let mut docker = Command::new(docker);
        let ran = run(docker.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", &config).args(["ps", "-a"]));
        assert_eq!(ran.ok(), "web by config");
    }
    // Carried to another configuration, with its certificates.
    let certificate = config.join("some-ca.pem");
    fs::write(&certificate, "CA").expect("a file");
    let endpoint = format!("host=tcp://127.0.0.1:1,ca={}", certificate.display());
    call(&["context", "create", "far", "--docker", &endpoint]).ok();
    let archive = config.join("far.tar").display().to_string();
    call(&["context", "export", "far", &archive]).ok();
    assert_eq!(
        fs::metadata(&archive).expect("written").permissions().mode() & 0o777,
        0o600,
        "it may hold keys"
    );
    let other = bed.folder("other");
    run(&mut corten(&other, &["context", "import", "near", &archive])).ok();
    let seen: Value =
        serde_json::from_str(run(&mut corten(&other, &["context", "inspect", "near"])).ok()).expect("JSON");
    assert_eq!(seen[0]["TLSMaterial"], json!({"docker": ["ca.pem"]}));
    assert_eq!(seen[0]["Endpoints"]["docker"]["Host"], "tcp://127.0.0.1:1");
    has(
        call(&["context", "rm", "bed"]).fails(1),
        &["context \"bed\" is in use, set -f flag to force remove"],
    );
    call(&["context", "rm", "-f", "bed", "far"]).ok();
    assert_eq!(call(&["context", "ls", "-q"]).ok(), "default");
    has(call(&["-c", "gone", "ps"]).fails(1), &["context \"gone\": context not found: open"]);
    has(
        call(&["-c", "gone", "-H", "unix:///x", "ps"]).fails(1),
        &["cannot specify both --host and --context"],
    );
}

#[test]
fn hosts_by_ssh_speak_through_the_client_over_there() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    let bed = Bed::new();
    let config = bed.folder("config");
    // The other side is this machine, with our client on its path.
    let there = bed.folder("there");
    let ssh = format!(
        "#!/bin/sh\necho \"$@\" >>{folder}/calls\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n\
         PATH={programs}:$PATH DOCKER_HOST=unix://{socket} exec sh -c \"$*\"\n",
        folder = there.display(),
        programs = program("corten").parent().expect("a folder").display(),
        socket = bed.socket().display(),
    );
    script(&there.join("ssh"), &ssh);
    let path = format!("{}:{}", there.display(), std::env::var("PATH").expect("PATH"));
    let call = |arguments: &[&str]| {
        let mut command = corten(&config, &["-H", "ssh://me@far.example:2222"]);
        run(command.env("PATH", &path).args(arguments))
    };
    assert_eq!(call(&["run", "--rm", "busybox", "echo", "from afar"]).ok(), "from afar");
    has(&fs::read_to_string(there.join("calls")).expect("calls"), &["-l me -p 2222 -- far.example"]);
    let mut command = corten(&config, &["-H", "ssh://far.example", "run", "-i", "--rm", "busybox", "cat"]);
    let input = vec![b'x'; 300_000];
    let ran = testkit::process::run_with(command.env("PATH", &path), &input, testkit::process::PATIENCE);
    assert_eq!(ran.ok().len(), input.len());
    script(&there.join("ssh"), "#!/bin/sh\necho 'no route to host' >&2\nexit 255\n");
    has(&call(&["ps"]).said(), &["no route to host"]);
    has(
        run(&mut corten(&config, &["-H", "ssh://-oProxyCommand=x", "ps"])).fails(1),
        &["unable to parse docker host"],
    );
}

#[test]
fn plugins_are_commands() {
    if Engine::from_environment() != Engine::Corten {
        return;
    }
    let bed = Bed::new();
    let config = bed.folder("config");
    let plugin = |name: &str, metadata: &str, body: &str| {
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{metadata}'; exit; fi\n{body}\n"
        );
        script(&config.join("cli-plugins").join(format!("docker-{name}")), &text);
    };
    let good = r#"{"SchemaVersion":"0.1.0","Vendor":"Tests","Version":"v1","ShortDescription":"Says hello"}"#;
    plugin(
        "hello",
        good,
        "echo \"args: $*\"; cat; echo \"by $DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND\"; exit 7",
    );
    plugin("ps", good, "echo never");
    plugin("broken", "nonsense", "echo never");
    let call = |arguments: &[&str]| run(&mut corten(&config, arguments));
    let help = call(&["--help"]);
    has(help.ok(), &["  hello*      Says hello"]);
    assert!(!help.stdout.contains("broken"));
    let mut command = corten(&config, &["-D", "hello", "a", "--flag=b", "--help"]);
    let ran = testkit::process::run_with(&mut command, b"input\n", testkit::process::PATIENCE);
    assert_eq!(ran.code, 7, "the plugin's own");
    has(&ran.stdout, &["args: -D hello a --flag=b --help\ninput\nby ", "/corten"]);
    has(call(&["broken"]).fails(1), &["unknown command: corten broken"]);
    has(
        &call(&["info"]).said(),
        &["hello: Says hello (Tests)", "Version:  v1", "duplicates builtin command", "invalid metadata"],
    );
    assert_eq!(call(&["__complete", "hel"]).ok(), "hello\tSays hello");
    has(&call(&["compose", "up"]).said(), &["'compose' is not supported yet"]);
    has(&call(&["rnu"]).said(), &["unknown command: corten rnu", "hint: did you mean 'corten run'?"]);
    assert!(bed.cli(Client::Own, &["version"]).ok().contains("Engine:"));
}
