//! What stands between an image's name and its registry: mirrors, `hosts.toml`, lasting tokens, broken uploads, search.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::time::Duration;

use serde_json::json;
use testkit::image::{self, Entry, Image};
use testkit::registry::{Fault, Registry, digest};
use testkit::{Bed, Client};
use tests::{each_client, has, is_peer};

/// An image in a registry, whose file `who` says what is given.
fn push(registry: &Registry, name: &str, who: &str) -> String {
    use std::io::Write;
    let tar = image::layer(&[
        Entry::folder("bin", 0o755),
        Entry::file("bin/busybox", 0o755, image::busybox_program().0.clone()),
        Entry::file("who", 0o644, who),
    ]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).expect("in memory");
    let layer = (encoder.finish().expect("in memory"), digest(&tar));
    registry.push(name, "1", &[layer], json!({ "Cmd": ["/bin/busybox", "cat", "/who"] })).digest
}

/// Starts the bed's daemon anew, with flags.
fn start_with(bed: &mut Bed, flags: &[&str]) {
    bed.stop();
    bed.set_flags(flags);
    bed.start();
}

fn paths(registry: &Registry) -> Vec<String> {
    registry.asked().into_iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
}

#[test]
fn mirrors_are_asked_in_their_order() {
    if is_peer() {
        return;
    }
    let mut bed = Bed::empty();
    let (broken, empty, good) =
        (Registry::start(bed.host()), Registry::start(bed.host()), Registry::start(bed.host()));
    push(&good, "lib/small", "the mirror");
    let manifest = "/v2/lib/small/manifests/1";
    broken.fault(manifest, Fault::Status(500, Vec::new(), String::new()));
    let mirrors = [&broken, &empty, &good].map(|registry| format!("http://{}", registry.address()));
    let flags: Vec<&str> = mirrors.iter().flat_map(|mirror| ["--registry-mirror", mirror]).collect();
    start_with(&mut bed, &flags);
    each_client(&bed, |client, _| {
        has(bed.cli(client, &["pull", "lib/small:1"]).ok(), &["Downloaded newer image for lib/small:1"]);
        assert_eq!(bed.cli(client, &["run", "--rm", "lib/small:1"]).ok(), "the mirror");
        for (registry, name) in [(&broken, "broken"), (&empty, "empty")] {
            assert!(paths(registry).iter().any(|path| path.ends_with(manifest)), "{name}");
        }
        assert!(paths(&good).iter().any(|path| path.contains("/blobs/")));
        let shown = bed.cli(client, &["info", "--format", "{{json .RegistryConfig.Mirrors}}"]);
        has(shown.ok(), &[&mirrors[0], &mirrors[2]]);
        bed.cli(client, &["rmi", "lib/small:1"]).ok();
        // A mirror stands in for the hub alone.
        let other = format!("{}/lib/none:1", empty.address());
        has(bed.cli(client, &["pull", &other]).fails(1), &["manifest unknown"]);
        assert!(!paths(&good).iter().any(|path| path.contains("none")));
    });
}

#[test]
fn hosts_files_say_who_stands_in_for_a_registry() {
    if is_peer() {
        return;
    }
    let mut bed = Bed::empty();
    let (near, origin) = (Registry::start(bed.host()), Registry::start(bed.host()));
    push(&near, "lib/small", "near");
    push(&origin, "lib/far", "far");
    let certs = bed.folder("certs");
    let folder = certs.join("registry.example:5000");
    fs::create_dir_all(&folder).expect("folder");
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n[host.\"http://{}\".header]\n\
         x-own = \"told\"\n",
        origin.address(),
        near.address(),
        near.address()
    );
    fs::write(folder.join("hosts.toml"), text).expect("hosts.toml");
    start_with(&mut bed, &["--certs-dir", certs.to_str().expect("path")]);
    each_client(&bed, |client, name| {
        let small = "registry.example:5000/lib/small:1";
        near.asked();
        origin.asked();
        bed.cli(client, &["pull", small]).ok();
        assert_eq!(bed.cli(client, &["run", "--rm", small]).ok(), "near");
        let asked = near.asked();
        assert!(
            asked.iter().all(|one| one.headers.get("x-own").is_some_and(|value| value == "told")),
            "{asked:?}"
        );
        assert!(paths(&origin).is_empty());
        let far = "registry.example:5000/lib/far:1";
        bed.cli(client, &["pull", far]).ok();
        assert_eq!(bed.cli(client, &["run", "--rm", far]).ok(), "far");
        // What only gives is not pushed to.
        let own = format!("registry.example:5000/lib/{name}:1");
        bed.cli(client, &["tag", small, &own]).ok();
        near.asked();
        has(bed.cli(client, &["push", &own]).ok(), &["1: digest: sha256:"]);
        assert!(origin.manifest(&format!("lib/{name}"), "1").is_some());
        assert!(!paths(&near).iter().any(|path| path.starts_with("P")));
        bed.cli(client, &["rmi", "-f", small, far, &own]).ok();
    });
    fs::write(folder.join("hosts.toml"), "server = 3").expect("hosts.toml");
    has(bed.run(&["pull", "registry.example:5000/lib/small:1"]).fails(1), &["hosts.toml"]);
}

#[test]
fn lasting_tokens_stand_for_passwords() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    each_client(&bed, |client, _| {
        let (registry, tokens) = (Registry::start(bed.host()), Registry::start(bed.host()));
        push(&registry, "lib/small", "small");
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"reg\"", tokens.address());
        registry.require("Bearer t1", &challenge);
        let granted = br#"{"access_token":"t1","refresh_token":"lasting","expires_in":1}"#;
        tokens.serve_at("/token", "application/json", granted);
        let name = format!("{}/lib/small:1", registry.address());
        let mut login = bed.command(client);
        login.args(["login", "-u", "joe", "--password-stdin", &registry.address()]);
        has(
            testkit::process::run_with(&mut login, b"secret", Duration::from_secs(30)).ok(),
            &["Login Succeeded"],
        );
        has(&tokens.asked()[0].path, &["offline_token=true", "account=joe"]);
        let kept =
            || fs::read_to_string(bed.host().folder().join("client/config.json")).expect("config.json");
        has(&kept(), &["lasting"]);
        assert!(!kept().contains("secret"));
        has(bed.cli(client, &["pull", &name]).ok(), &["Downloaded newer image"]);
        let asked = tokens.asked();
        let bodies: Vec<_> = asked.iter().map(|one| String::from_utf8_lossy(&one.body)).collect();
        has(
            &bodies.concat(),
            &["grant_type=refresh_token", "refresh_token=lasting", "scope=repository%3Alib%2Fsmall%3Apull"],
        );
        assert!(asked.iter().all(|one| !one.headers.contains_key("authorization")), "{asked:?}");
        bed.cli(client, &["rmi", &name]).ok();
        bed.cli(client, &["logout", &registry.address()]).ok();
        assert!(!kept().contains("lasting"));
    });
}

#[test]
fn broken_uploads_go_on_where_they_were() {
    if is_peer() {
        return;
    }
    let bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let mut state = 7u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let noise: Vec<u8> = noise.take(1 << 20).flatten().collect();
    for (client, name) in [(Client::Own, "own"), (Client::Docker, "docker")] {
        if !bed.clients().contains(&client) {
            continue;
        }
        let image = format!("{}/lib/{name}:1", registry.address());
        bed.load(&Image::new(&image, &[Entry::file(name, 0o644, noise.clone())]));
        let id = bed.http().get(&format!("/images/{image}/json")).expect(200).json()["Id"].clone();
        registry.fault(&format!("/v2/lib/{name}/blobs/uploads/"), Fault::CutUpload(5 << 20));
        registry.asked();
        let pushed = bed.cli(client, &["push", &image]);
        let asked = registry.asked();
        has(pushed.ok(), &["1: digest: sha256:"]);
        let looked = asked.iter().any(|one| one.method == "GET" && one.path.contains("/blobs/uploads/"));
        assert!(looked, "the registry was asked how far it had come");
        let begun = asked.iter().filter(|one| one.method == "POST").count();
        assert_eq!(begun, 2, "one upload of the layer and one of the configuration");
        bed.cli(client, &["rmi", &image]).ok();
        bed.cli(client, &["pull", &image]).ok();
        assert_eq!(bed.http().get(&format!("/images/{image}/json")).expect(200).json()["Id"], id);
        bed.cli(client, &["rmi", &image]).ok();
    }
}

#[test]
fn a_search_index_of_one_s_own() {
    if is_peer() {
        return;
    }
    let mut bed = Bed::empty();
    let registry = Registry::start(bed.host());
    let found = json!({ "num_results": 2, "query": "web", "results": [
        { "name": "lib/web", "description": "serves", "star_count": 7, "is_official": true },
        { "name": "other/web", "description": "serves as well", "star_count": 1, "is_official": false },
    ]});
    registry.serve_at("/v1/search", "application/json", found.to_string().as_bytes());
    let index = format!("http://{}", registry.address());
    start_with(&mut bed, &["--search-index", &index]);
    each_client(&bed, |client, _| {
        has(bed.cli(client, &["search", "web"]).ok(), &["lib/web", "serves as well", "[OK]"]);
        assert!(registry.asked().iter().any(|one| one.path.contains("q=web")));
        let few = bed.cli(client, &["search", "--filter", "stars=3", "web"]);
        assert!(!few.ok().contains("other/web"));
        let official =
            bed.cli(client, &["search", "--filter", "is-official=true", "--format", "{{.Name}}", "web"]);
        assert_eq!(official.ok(), "lib/web");
    });
}
