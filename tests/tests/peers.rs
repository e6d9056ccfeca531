//! The image store beside other people's programs: the distribution registry and skopeo (Debian: `docker-registry`,
//! `skopeo`). A test says so by name if its program is not here.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::image::{Entry, Image, busybox, busybox_program};
use testkit::{Bed, BedOptions, Client, Deadline, Engine, Host, Ran, run};
use tests::{each_client, has, is_corten};

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: {program} is missing");
    }
    found
}

fn program(command: &str, arguments: &[&str]) -> Ran {
    run(Command::new(command).args(arguments))
}

/// An address of the host that is no loopback: registries there are not taken for insecure ones.
const OWN_ADDRESS: &str = "10.99.0.1";

/// The distribution registry in a bed's host, with its files in a folder of the bed.
struct Distribution {
    program: PathBuf,
    folder: PathBuf,
    address: String,
    running: Option<(Child, u32)>,
}

impl Distribution {
    /// Starts it; `http` and `rest` are added to its configuration.
    fn start(bed: &Bed, name: &str, address: &str, http: &str, rest: &str) -> Option<Distribution> {
        let program = find("docker-registry")?;
        let folder = bed.folder(name);
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: \
             {0}/files}}\n  delete: {{enabled: true}}\nhttp:\n  addr: {address}\n{http}{rest}",
            folder.display()
        );
        fs::write(folder.join("config.yml"), text).expect("config");
        let mut distribution = Distribution { program, folder, address: address.to_owned(), running: None };
        distribution.run(bed.host());
        Some(distribution)
    }

    fn run(&mut self, host: &Host) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).expect("log");
        let mut command = host.command(&self.program);
        command.arg("serve").arg(self.folder.join("config.yml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        let child = command.spawn().expect("the registry starts");
        let pid = host.inner(&child).expect("the registry runs");
        let address = self.address.clone();
        let answers = host.in_network(move || {
            let tried = || std::net::TcpStream::connect(&*address).is_ok().then_some(());
            Deadline::after(Duration::from_secs(20)).poll(tried).is_some()
        });
        self.running = Some((child, pid));
        assert!(
            answers,
            "the registry did not come up:\n{}",
            fs::read_to_string(self.folder.join("log")).unwrap_or_default()
        );
    }

    fn kill(&mut self) {
        let Some((mut child, pid)) = self.running.take() else { return };
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = child.wait();
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An image of several layers that runs; the layers of different numbers are the same but for the last.
fn layered(name: &str, number: usize, bytes: usize) -> Image {
    let noise = |seed: u64, bytes: usize| -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..bytes.div_ceil(8)).flat_map(step).collect()
    };
    let base = [
        Entry::folder("bin", 0o755),
        Entry::file("bin/busybox", 0o755, busybox_program().0.clone()),
        Entry::symlink("bin/cat", "busybox"),
        Entry::symlink("bin/sha256sum", "busybox"),
    ];
    Image::new(name, &base)
        .with_layer(&[Entry::folder("data", 0o755), Entry::file("data/shared", 0o644, noise(1, bytes))])
        .with_layer(&[Entry::file("data/own", 0o644, noise(2 + number as u64, bytes))])
        .with_layer(&[Entry::file("number", 0o644, number.to_string())])
        .with("Cmd", json!(["/bin/cat", "/number"]))
        .with("Env", json!(["PATH=/bin"]))
}

/// What two files of such an image hold.
fn sums(bed: &Bed, name: &str) -> String {
    bed.run(&["run", "--rm", "--net", "none", name, "/bin/sha256sum", "/data/shared", "/data/own"])
        .ok()
        .to_owned()
}

#[test]
fn pushed_to_a_plain_registry_and_pulled_from_it() {
    let bed = Bed::new();
    let Some(registry) = Distribution::start(&bed, "registry", "127.0.0.1:5000", "", "") else { return };
    each_client(&bed, |client, name| {
        let context = bed.folder(name);
        let text = format!("FROM busybox\nRUN echo {name} > /made\nCMD [\"cat\", \"/made\"]\n");
        fs::write(context.join("Dockerfile"), text).expect("Dockerfile");
        let tag = format!("{}/lib/{name}:1", registry.address);
        bed.cli(client, &["build", "-t", &tag, context.to_str().expect("path")]).ok();
        let pushed = bed.cli(client, &["push", &tag]);
        has(
            pushed.ok(),
            &[
                &format!("The push refers to repository [{}/lib/{name}]", registry.address),
                "1: digest: sha256:",
            ],
        );
        has(bed.cli(client, &["push", &tag]).ok(), &["Layer already exists"]);
        let id = bed.http().get(&format!("/images/{tag}/json")).expect(200).json()["Id"].clone();
        bed.cli(client, &["rmi", &tag]).ok();
        bed.cli(client, &["pull", &tag]).ok();
        let inspected = bed.http().get(&format!("/images/{tag}/json")).expect(200).json();
        assert_eq!(inspected["Id"], id);
        assert_eq!(bed.cli(client, &["run", "--rm", &tag]).ok(), name);
        // Another repository of the same registry takes the layers over.
        let other = format!("{}/other/{name}:2", registry.address);
        bed.cli(client, &["tag", &tag, &other]).ok();
        has(bed.cli(client, &["push", &other]).ok(), &["Mounted from lib/"]);
        if let Some(skopeo) = find("skopeo") {
            let mut look = bed.host().command(skopeo);
            let seen = run(look.args(["inspect", "--tls-verify=false", &format!("docker://{tag}")]));
            let seen: Value = serde_json::from_str(seen.ok()).expect("JSON");
            let digest = seen["Digest"].as_str().expect("a digest");
            has(&inspected["RepoDigests"].to_string(), &[digest]);
            assert_eq!(
                seen["Layers"].as_array().map(Vec::len),
                inspected["RootFS"]["Layers"].as_array().map(Vec::len)
            );
        }
    });
}

/// An authority, and certificates that it gave to the registry and to a client, in a folder.
fn certificates(folder: &Path) {
    let script = format!(
        "set -e; cd '{}'; new() {{ openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key \
         -subj /CN=$1 \"$2\" \"$3\" $4; }}; new ca -x509 -out ca.crt; printf 'subjectAltName=IP:{OWN_ADDRESS}' > names; for \
         name in server client; do new $name -out $name.csr; openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key \
         -CAcreateserial -days 2 -extfile names -out $name.cert; done",
        folder.display()
    );
    program("sh", &["-c", &script]).ok();
}

/// A bed with an address of its own, that finds certificates of registries in `certs` of its folder.
fn bed_with_certificates() -> Bed {
    let setup = format!("ip addr add {OWN_ADDRESS}/32 dev lo");
    let flags = vec!["--certs-dir".into(), "$FOLDER/certs".into()];
    let bed = Bed::with(BedOptions { setup, flags, ..BedOptions::default() });
    bed.load(&busybox());
    bed
}

fn tls_of(folder: &Path, more: &str) -> String {
    let at = folder.display();
    format!("  tls:\n    certificate: {at}/server.cert\n    key: {at}/server.key\n{more}")
}

#[test]
fn certificates_are_looked_at() {
    // Docker has its folder for certificates in one place, which is the machine's.
    if Engine::from_environment() != Engine::Corten
        || find("docker-registry").is_none()
        || find("openssl").is_none()
    {
        return;
    }
    let bed = bed_with_certificates();
    let folder = bed.folder("certificates");
    certificates(&folder);
    let address = format!("{OWN_ADDRESS}:5001");
    let Some(registry) = Distribution::start(&bed, "tls", &address, &tls_of(&folder, ""), "") else { return };
    let strict_address = format!("{OWN_ADDRESS}:5002");
    let more = format!("    clientcas: [{}/ca.crt]\n", folder.display());
    let strict = Distribution::start(&bed, "strict", &strict_address, &tls_of(&folder, &more), "");
    let strict = strict.expect("a second one");
    let certs = bed.host().folder().join("certs");
    let known = |name: &str, to: &str, address: &str| {
        fs::create_dir_all(certs.join(address)).expect("folder");
        fs::copy(folder.join(name), certs.join(address).join(to)).expect("copied");
    };
    each_client(&bed, |client, name| {
        let _ = fs::remove_dir_all(certs.join(&registry.address));
        let _ = fs::remove_dir_all(certs.join(&strict.address));
        let tag = format!("{}/lib/{name}:1", registry.address);
        bed.cli(client, &["tag", "busybox", &tag]).ok();
        has(bed.cli(client, &["push", &tag]).fails(1), &["certificate signed by unknown authority"]);
        known("ca.crt", "ca.crt", &registry.address);
        bed.cli(client, &["push", &tag]).ok();
        bed.cli(client, &["rmi", &tag]).ok();
        bed.cli(client, &["pull", &tag]).ok();

        let tag = format!("{}/lib/{name}:1", strict.address);
        bed.cli(client, &["tag", "busybox", &tag]).ok();
        known("ca.crt", "ca.crt", &strict.address);
        has(bed.cli(client, &["push", &tag]).fails(1), &["remote error: tls: bad certificate"]);
        known("client.cert", "client.cert", &strict.address);
        has(bed.cli(client, &["push", &tag]).fails(1), &["client.key"]);
        known("client.key", "client.key", &strict.address);
        bed.cli(client, &["push", &tag]).ok();
        bed.cli(client, &["rmi", &tag]).ok();
        bed.cli(client, &["pull", &tag]).ok();
    });
}

#[test]
fn who_logs_in_may_push() {
    let bed = Bed::new();
    let users = bed.folder("users").join("htpasswd");
    // joe's password is `secret`.
    fs::write(&users, "joe:$2b$04$Kj4SoidVwHEczGHa6J0ZaeN8RgUsUrasCxaCqZNbS820ww5upE5ve\n").expect("users");
    let access = format!("auth:\n  htpasswd: {{realm: here, path: {}}}\n", users.display());
    let Some(registry) = Distribution::start(&bed, "registry", "127.0.0.1:5000", "", &access) else { return };
    each_client(&bed, |client, name| {
        let tag = format!("{}/lib/{name}:1", registry.address);
        bed.cli(client, &["tag", "busybox", &tag]).ok();
        has(bed.cli(client, &["push", &tag]).fails(1), &["no basic auth credentials"]);
        let login = |password: &str| {
            let mut command = bed.command(client);
            command.args(["login", "-u", "joe", "--password-stdin", &registry.address]);
            testkit::process::run_with(&mut command, password.as_bytes(), Duration::from_secs(30))
        };
        has(login("wrong").fails(1), &["failed with status: 401 Unauthorized"]);
        has(login("secret").ok(), &["Login Succeeded"]);
        bed.cli(client, &["push", &tag]).ok();
        bed.cli(client, &["rmi", &tag]).ok();
        bed.cli(client, &["pull", &tag]).ok();
        has(bed.cli(client, &["logout", &registry.address]).ok(), &["Removing login credentials"]);
        has(bed.cli(client, &["pull", &tag]).fails(1), &["no basic auth credentials"]);
    });
}

/// What one writes, the other reads.
#[test]
fn archives_and_layouts_go_both_ways() {
    let bed = Bed::empty();
    if !is_corten(&bed) || find("skopeo").is_none() {
        return;
    }
    bed.load(&layered("app:1", 1, 100_000));
    let expected = sums(&bed, "app:1");
    let id = bed.http().get("/images/app:1/json").json()["Id"].clone();
    let config = |place: &str| -> Value {
        let said = program("skopeo", &["inspect", "--config", "--raw", place]);
        json!(format!("sha256:{}", testkit::image::hex_digest(said.ok().as_bytes())))
    };
    // The store itself is a layout.
    let store = format!("oci:{}:app:1", bed.host().folder().join("data/content").display());
    assert_eq!(config(&store), id);
    let folder = bed.folder("archives");
    let at = |name: &str| folder.join(name).to_str().expect("path").to_owned();
    for (kind, name) in [("docker-archive", "from:docker"), ("oci-archive", "from:oci")] {
        let place = format!("{kind}:{}:{name}", at(kind));
        program("skopeo", &["copy", "--quiet", &store, &place]).ok();
        bed.run(&["rmi", "-f", "app:1"]);
        has(bed.run(&["load", "-i", &at(kind)]).ok(), &["Loaded image"]);
        assert_eq!(bed.http().get(&format!("/images/{name}/json")).expect(200).json()["Id"], id, "{kind}");
        assert_eq!(sums(&bed, name), expected, "{kind}");
        bed.run(&["tag", name, "app:1"]).ok();
        bed.run(&["rmi", name]).ok();
    }
    bed.run(&["save", "-o", &at("saved"), "app:1"]).ok();
    for kind in ["docker-archive", "oci-archive"] {
        assert_eq!(config(&format!("{kind}:{}", at("saved"))), id, "{kind}");
    }
}

/// A number that differs from run to run.
fn random(seed: &mut u64, below: u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed % below.max(1)
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let seed = u64::try_from(now.as_nanos() & 0xffff_ffff).unwrap_or(1) | 1;
    println!("seed: {seed}");
    seed
}

/// Everything in the store belongs to an image or a container, and everything that an image names is there.
#[track_caller]
fn store_is_whole(bed: &Bed) {
    let content = bed.host().folder().join("data/content/blobs/sha256");
    let mut named = std::collections::BTreeSet::new();
    let mut chains = std::collections::BTreeSet::new();
    let read = |digest: &str| -> Value {
        let bytes = fs::read(content.join(digest.trim_start_matches("sha256:"))).unwrap_or_default();
        assert_eq!(format!("sha256:{}", testkit::image::hex_digest(&bytes)), digest);
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let index: Value =
        serde_json::from_slice(&fs::read(content.join("../../index.json")).expect("index")).expect("JSON");
    for manifest in index["manifests"].as_array().into_iter().flatten() {
        let digest = manifest["digest"].as_str().expect("digest");
        let manifest = read(digest);
        named.insert(digest.to_owned());
        let config = manifest["config"]["digest"].as_str().expect("digest");
        named.insert(config.to_owned());
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            named.insert(layer["digest"].as_str().expect("digest").to_owned());
        }
        let mut chain = String::new();
        for diff_id in read(config)["rootfs"]["diff_ids"].as_array().into_iter().flatten() {
            let diff_id = diff_id.as_str().expect("digest");
            chain = match chain.as_str() {
                "" => diff_id.to_owned(),
                below => {
                    format!("sha256:{}", testkit::image::hex_digest(format!("{below} {diff_id}").as_bytes()))
                }
            };
            chains.insert(chain.trim_start_matches("sha256:")[..16].to_owned());
        }
    }
    let entries = |path: &Path| -> std::collections::BTreeSet<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let layers = bed.host().folder().join("data/snapshots/overlay");
    Deadline::after(Duration::from_secs(10)).poll(|| entries(&layers.join("rest")).is_empty().then_some(()));
    assert!(entries(&layers.join("rest")).is_empty());
    let mut found = entries(&layers);
    found.retain(|name| name != "containers" && name != "rest");
    assert_eq!(found, chains, "layers that are unpacked, and those that images name");
    let blobs: std::collections::BTreeSet<_> =
        entries(&content).into_iter().map(|hex| format!("sha256:{hex}")).collect();
    assert_eq!(blobs, named, "blobs that are there, and those that images name");
    // What the daemon itself finds agrees.
    bed.run(&["system", "check"]).ok();
    for folder in ["content/ingest", "content/partial"] {
        assert!(entries(&bed.host().folder().join("data").join(folder)).is_empty(), "{folder}");
    }
}

#[test]
fn pulls_that_break_anywhere_go_on() {
    let mut bed = Bed::empty();
    if !is_corten(&bed) {
        return;
    }
    let Some(mut registry) = Distribution::start(&bed, "registry", "127.0.0.1:5000", "", "") else { return };
    let name = format!("{}/lib/app:1", registry.address);
    bed.load(&layered(&name, 1, 6 << 20));
    let expected = sums(&bed, &name);
    bed.run(&["push", &name]).ok();
    bed.run(&["rmi", &name]).ok();
    let begin = std::time::Instant::now();
    bed.run(&["pull", &name]).ok();
    let whole = u64::try_from(begin.elapsed().as_micros()).expect("short");
    let mut seed = seed();
    for round in 0..20 {
        bed.run(&["rmi", &name]).ok();
        let mut pull = bed.command(Client::Own);
        let pull = pull.args(["pull", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut pull = pull.expect("the client");
        std::thread::sleep(Duration::from_micros(random(&mut seed, whole)));
        if round % 2 == 0 {
            bed.kill();
            bed.start();
        } else {
            registry.kill();
            registry.run(bed.host());
        }
        let _ = pull.wait();
        bed.run(&["pull", &name]).ok();
        assert_eq!(sums(&bed, &name), expected, "round {round}");
        store_is_whole(&bed);
    }
}

#[test]
fn many_pulls_runs_and_removals_at_once_leave_a_whole_store() {
    let bed = Bed::empty();
    if !is_corten(&bed) {
        return;
    }
    let Some(registry) = Distribution::start(&bed, "registry", "127.0.0.1:5000", "", "") else { return };
    let names: Vec<String> = (0..5).map(|number| format!("{}/lib/app:{number}", registry.address)).collect();
    for (number, name) in names.iter().enumerate() {
        bed.load(&layered(name, number, 200_000));
        bed.run(&["push", name]).ok();
        bed.run(&["rmi", name]).ok();
    }
    let seed = seed();
    let (done, ran) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..8u64 {
            let (bed, names, done, ran) = (&bed, &names, &done, &ran);
            scope.spawn(move || {
                let mut seed = seed.wrapping_mul(worker + 1) | 1;
                while done.fetch_add(1, Ordering::Relaxed) < 200 {
                    let number = usize::try_from(random(&mut seed, 5)).expect("small");
                    let name = &names[number];
                    match random(&mut seed, 3) {
                        0 => drop(bed.run(&["pull", "-q", name]).ok()),
                        1 => {
                            // It may be removed between its pull and the create; then that is what is said.
                            let said = bed.run(&["run", "--rm", "--net", "none", "-q", name]);
                            match said.code {
                                0 => {
                                    assert_eq!(said.stdout.trim(), number.to_string());
                                    ran.fetch_add(1, Ordering::Relaxed);
                                }
                                _ => has(&said.said(), &["No such image"]),
                            }
                        }
                        _ => {
                            let said = bed.run(&["rmi", "-f", name]);
                            if said.code != 0 {
                                let said = said.said();
                                assert!(
                                    said.contains("No such image")
                                        || said.contains("is using")
                                        || said.contains("being used"),
                                    "{said}"
                                );
                            }
                        }
                    }
                }
            });
        }
    });
    assert!(ran.load(Ordering::Relaxed) > 10, "hardly anything ran");
    bed.remove_all();
    store_is_whole(&bed);
    for name in &names {
        bed.run(&["rmi", "-f", name]);
    }
    store_is_whole(&bed);
    assert_eq!(bed.http().get("/images/json?all=1").json(), json!([]));
}
