//! `--link`: containers on the default bridge that find each other by an alias.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use serde_json::{Value, json};
use testkit::process::eventually;
use testkit::{Bed, BedOptions};

fn sleeper(bed: &Bed, name: &str, more: &[&str]) {
    let mut arguments = vec!["run", "-d", "--name", name];
    arguments.extend(more);
    arguments.extend(["busybox", "sleep", "1000"]);
    bed.run(&arguments).ok();
}

fn address(bed: &Bed, name: &str) -> String {
    bed.inspect(name)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().expect("text").to_owned()
}

fn hosts(bed: &Bed, name: &str) -> String {
    bed.run(&["exec", name, "cat", "/etc/hosts"]).ok().to_owned()
}

#[test]
fn a_linked_container_is_found_by_alias_host_name_and_name() {
    let bed = Bed::new();
    sleeper(&bed, "db", &["--hostname", "keeper"]);
    sleeper(&bed, "web", &["--link", "db:sql", "--link", "db"]);
    let address = address(&bed, "db");
    let text = hosts(&bed, "web");
    assert!(text.contains(&format!("{address}\tsql keeper db\n")), "{text}");
    assert!(text.contains(&format!("{address}\tdb keeper\n")), "{text}");
    bed.run(&["exec", "web", "ping", "-c", "1", "-W", "5", "sql"]).ok();
    // The variables of old are not set unless the daemon is told to.
    assert!(!bed.run(&["exec", "web", "env"]).ok().contains("SQL_"));
    let links = bed.inspect("web")["HostConfig"]["Links"].clone();
    assert_eq!(links, json!(["/db:/web/sql", "/db:/web/db"]));
    // As inspect answers them, they can be given again.
    sleeper(&bed, "again", &["--link", "/db:/web/sql"]);
    assert_eq!(bed.inspect("again")["HostConfig"]["Links"], json!(["/db:/again/sql"]));
}

#[test]
fn links_are_names_of_the_container_they_lead_to() {
    let bed = Bed::new();
    sleeper(&bed, "db", &[]);
    sleeper(&bed, "web", &["--link", "db:sql"]);
    let list = bed.http().get("/containers/json?all=1").expect(200).json();
    let db = list.as_array().expect("a list").iter().find(|one| one["Names"][0] == json!("/db"));
    assert_eq!(db.expect("db")["Names"], json!(["/db", "/web/sql"]));
    assert_eq!(bed.run(&["ps", "--format", "{{.Names}}", "-f", "name=^/db$"]).ok(), "db");
    let found = bed.http().get("/containers/web/sql/json").expect(200).json();
    assert_eq!(found["Name"], json!("/db"));
    bed.run(&["rename", "web", "front"]).ok();
    assert_eq!(bed.inspect("front")["HostConfig"]["Links"], json!(["/db:/front/sql"]));
    bed.http().get("/containers/front/sql/json").expect(200);
    bed.http().get("/containers/web/sql/json").expect(404);

    // A link is taken away; the container that it led to stays.
    let said = bed.run(&["rm", "--link", "db"]);
    let text = "Conflict, cannot remove the default link name of the container";
    assert!(said.fails(1).contains(text), "{}", said.said());
    assert_eq!(bed.run(&["rm", "--link", "front/sql"]).ok(), "front/sql");
    bed.http().get("/containers/front/sql/json").expect(404);
    assert_eq!(bed.inspect("front")["HostConfig"]["Links"], Value::Null);
    assert!(!hosts(&bed, "front").contains("sql"), "{}", hosts(&bed, "front"));
    assert_eq!(bed.inspect("db")["State"]["Running"], json!(true));
    assert_eq!(bed.http().delete("/containers/front/sql?link=1").status, 404);
}

#[test]
fn a_link_follows_its_container_through_restarts_of_both_and_of_the_daemon() {
    let mut bed = Bed::new();
    sleeper(&bed, "db", &[]);
    sleeper(&bed, "web", &["--link", "db:sql"]);
    let old = address(&bed, "db");
    bed.run(&["stop", "-t", "0", "db"]).ok();
    // The address goes to somebody else.
    sleeper(&bed, "other", &[]);
    bed.run(&["start", "db"]).ok();
    let new = address(&bed, "db");
    assert_ne!(new, old);
    eventually("the other container learns the new address", || {
        hosts(&bed, "web").contains(&format!("{new}\tsql "))
    });
    assert!(!hosts(&bed, "web").contains(&format!("{old}\tsql ")));

    bed.kill();
    bed.start();
    bed.run(&["restart", "-t", "0", "web"]).ok();
    assert!(hosts(&bed, "web").contains(&format!("{new}\tsql ")), "{}", hosts(&bed, "web"));
    bed.run(&["stop", "-t", "0", "db"]).ok();
    bed.run(&["stop", "-t", "0", "web"]).ok();
    let said = bed.run(&["start", "web"]);
    let text = "Cannot link to a non running container: /db AS /web/sql";
    assert!(said.fails(1).contains(text), "{}", said.said());
    bed.run(&["rm", "db"]).ok();
    assert!(bed.run(&["start", "web"]).fails(1).contains(text));
}

#[test]
fn links_that_cannot_be_made_are_refused_by_name() {
    let bed = Bed::new();
    sleeper(&bed, "open", &["--network", "host"]);
    sleeper(&bed, "shut", &["--network", "none"]);
    let create = |links: &[&str], network: &str| {
        let host = json!({ "Links": links, "NetworkMode": network });
        let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": host });
        bed.http().post("/containers/create", &body)
    };
    for (links, network, text) in [
        (["gone"], "bridge", "could not get container for gone: No such container: gone"),
        (["a:b:c"], "bridge", "bad format for links: a:b:c"),
        ([""], "bridge", "empty string specified for links"),
        (
            ["open"],
            "bridge",
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ),
        (
            ["shut"],
            "host",
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ),
        (
            ["shut"],
            "container:open",
            "conflicting options: container type network can't be used with links. This would result in undefined \
             behavior",
        ),
    ] {
        assert_eq!(create(&links, network).refused(400), text);
    }
    let said = bed.run(&["run", "--rm", "--link", "shut", "busybox", "true"]);
    let text = "Cannot link to /shut, as it does not belong to the default network";
    assert!(said.fails(125).contains(text), "{}", said.said());
}

#[test]
fn the_variables_of_old_are_set_where_the_daemon_is_told_to() {
    let bed = Bed::with(BedOptions {
        environment: vec![("DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS".into(), "1".into())],
        ..BedOptions::default()
    });
    bed.load(&testkit::image::busybox());
    sleeper(&bed, "db", &["--expose", "6379", "-e", "A=1"]);
    sleeper(&bed, "web", &["--link", "db:my-sql", "-e", "MY_SQL_ENV_A=own"]);
    let address = address(&bed, "db");
    for (place, script) in [("the container", "tr '\\0' '\\n' < /proc/1/environ"), ("an exec", "env")] {
        let text = bed.run(&["exec", "web", "sh", "-c", script]).ok().to_owned();
        for wanted in [
            format!("MY_SQL_PORT=tcp://{address}:6379"),
            format!("MY_SQL_PORT_6379_TCP_ADDR={address}"),
            "MY_SQL_NAME=/web/my-sql".to_owned(),
            "MY_SQL_ENV_A=own".to_owned(),
        ] {
            assert!(text.lines().any(|line| line == wanted), "{place}: {wanted}: {text}");
        }
    }
}

#[test]
fn containers_that_are_linked_come_back_with_the_daemon_in_order() {
    let mut bed = Bed::new();
    sleeper(&bed, "db", &["--restart", "always"]);
    sleeper(&bed, "web", &["--restart", "always", "--link", "db:sql"]);
    bed.stop();
    // Both end while no daemon is there.
    for (pid, line) in bed.host().processes() {
        if line == "sleep 1000" {
            let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        }
    }
    bed.start();
    eventually("both run again", || {
        ["db", "web"].iter().all(|name| bed.inspect(name)["State"]["Running"] == json!(true))
    });
    let address = address(&bed, "db");
    eventually("the link leads there", || hosts(&bed, "web").contains(&format!("{address}\tsql ")));
}

/// A daemon whose containers may not talk to each other, on a host whose rules see what is bridged, or do not.
fn apart(rules_see: bool) -> Bed {
    let see = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let setup = format!("! test -e {see} || echo {} > {see}", u8::from(rules_see));
    let bed = Bed::with(BedOptions { flags: vec!["--icc=false".into()], setup, ..BedOptions::default() });
    bed.load(&testkit::image::busybox());
    bed
}

/// Serves its name on two ports.
fn server(bed: &Bed, name: &str, more: &[&str]) {
    let script = format!("echo {name} > /www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www");
    let mut arguments = vec!["run", "-d", "--name", name];
    arguments.extend(more);
    arguments.extend(["busybox", "sh", "-c", &script]);
    bed.run(&arguments).ok();
    eventually("it serves", || {
        bed.run(&["exec", name, "wget", "-qO-", "http://127.0.0.1:80/"]).stdout.trim() == name
    });
}

/// What one container hears when it calls another; nothing if it does not get through.
fn call(bed: &Bed, from: &str, whom: &str) -> String {
    bed.run(&["exec", from, "timeout", "3", "wget", "-qO-", &format!("http://{whom}/")])
        .stdout
        .trim()
        .to_owned()
}

fn leave_given(bed: &Bed) -> usize {
    let set =
        bed.host().shell("nft list set ip $(nft list tables ip | grep -o 'corten.*') linked").ok().to_owned();
    set.matches(" . tcp . ").count()
}

#[test]
fn where_containers_are_kept_apart_a_link_opens_the_exposed_ports_of_the_other_and_nothing_else() {
    for rules_see in [true, false] {
        a_link_opens_the_exposed_ports(&apart(rules_see));
    }
}

fn a_link_opens_the_exposed_ports(bed: &Bed) {
    server(bed, "db", &["--expose", "80"]);
    server(bed, "web", &["--expose", "80", "--link", "db:sql", "--link", "db"]);
    server(bed, "other", &["--expose", "80"]);
    assert_eq!(call(bed, "web", "sql:80"), "db");
    let (db, web) = (address(bed, "db"), address(bed, "web"));
    assert_eq!(call(bed, "web", &format!("{db}:81")), "", "a port that is not exposed");
    assert_eq!(call(bed, "db", &format!("{web}:80")), "", "the other way round");
    assert_eq!(call(bed, "other", &format!("{db}:80")), "", "who is not linked");
    assert_eq!(call(bed, "web", &format!("{}:80", address(bed, "other"))), "");
    assert_eq!(leave_given(bed), 1);
    // One of two links to the same container is not the last.
    bed.run(&["rm", "--link", "web/sql"]).ok();
    assert_eq!(call(bed, "web", "db:80"), "db");
    bed.run(&["rm", "--link", "web/db"]).ok();
    assert_eq!(call(bed, "web", &format!("{db}:80")), "");
    assert_eq!(leave_given(bed), 0);
}

#[test]
fn what_a_link_opens_follows_restarts_of_both_and_of_the_daemon() {
    let mut bed = apart(false);
    server(&bed, "db", &["--expose", "80"]);
    server(&bed, "web", &["--link", "db:sql"]);
    let old = address(&bed, "db");
    bed.run(&["stop", "-t", "0", "db"]).ok();
    assert_eq!(leave_given(&bed), 0);
    // The address goes to somebody else, who is not called by it.
    server(&bed, "other", &["--expose", "80"]);
    assert_eq!(address(&bed, "other"), old);
    assert_eq!(call(&bed, "web", &format!("{old}:80")), "");
    bed.run(&["start", "db"]).ok();
    assert_ne!(address(&bed, "db"), old);
    eventually("the link leads to the new address", || call(&bed, "web", "sql:80") == "db");
    assert_eq!(leave_given(&bed), 1);

    bed.kill();
    bed.start();
    assert_eq!(call(&bed, "web", "sql:80"), "db");
    assert_eq!(leave_given(&bed), 1);
    assert_eq!(call(&bed, "other", &format!("{}:80", address(&bed, "db"))), "");
    bed.run(&["restart", "-t", "0", "web"]).ok();
    eventually("the link is open again", || call(&bed, "web", "sql:80") == "db");

    // What ends while no daemon is there leaves nothing open.
    let pid = bed.inspect("db")["State"]["Pid"].as_u64().expect("a number");
    bed.kill();
    bed.host().shell(&format!("kill -KILL {pid}")).ok();
    bed.start();
    eventually("its end is seen", || bed.inspect("db")["State"]["Running"] == json!(false));
    assert_eq!(leave_given(&bed), 0);
    bed.run(&["start", "db"]).ok();
    eventually("the link leads to the new address", || call(&bed, "web", "sql:80") == "db");
    bed.run(&["rm", "-f", "web"]).ok();
    assert_eq!(leave_given(&bed), 0);
}
