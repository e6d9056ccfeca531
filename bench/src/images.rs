//! Images on their way: pulled, loaded, saved and pushed, beside what the same bytes cost without an engine.
//!
//! The registry is the distribution registry (Debian: `docker-registry`), started in the host of whoever is measured, on
//! one folder for all. Its images have five layers of this machine's own programs and libraries.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use sha2::{Digest, Sha256};
use testkit::image::Entry;
use testkit::{Bed, Deadline, Engine};

use crate::measure::{Subject, milliseconds, say, shell};
use crate::memory;
use crate::samples::{Kind, Samples, Who};

const ADDRESS: &str = "127.0.0.1:5000";
/// Bytes of each of the five layers, before they are compressed.
const LAYER_BYTES: u64 = 60_000_000;
const LAYERS: usize = 5;
/// How often each engine does everything; each time with images that nobody has seen.
const REPEATS: usize = 3;

/// Where everything is that is measured.
struct Place {
    folder: PathBuf,
    registry: PathBuf,
}

pub fn measure(subjects: &mut [Subject], samples: &mut Samples) -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("docker-registry"));
    let Some(registry) = found.into_iter().find(|file| file.is_file()) else {
        say("images are left out: there is no docker-registry");
        return Ok(());
    };
    say("images: making them");
    let maker = Subject::empty(Engine::Corten);
    let place = Place { folder: maker.bed.folder("images"), registry };
    place.layers()?;
    let running = place.serve(&maker.bed)?;
    for repeat in 0..REPEATS {
        place.archive(&format!("load-{repeat}"))?;
        let name = format!("pull-{repeat}");
        maker.cli(&["load", "-q", "-i", &place.archive(&name)?])?;
        maker.cli(&["push", "-q", &image(&name)])?;
    }
    drop(running);
    for repeat in 0..REPEATS {
        for subject in &mut *subjects {
            say(&format!("images, {} of {}: {}", repeat + 1, REPEATS, subject.who.name()));
            place.floors(samples)?;
            subject.images(&place, repeat, samples)?;
        }
    }
    Ok(())
}

fn image(name: &str) -> String {
    format!("{ADDRESS}/bench:{name}")
}

impl Place {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the layers that all images have in common, but for a mark.
    fn layers(&self) -> anyhow::Result<()> {
        let mut files = Vec::new();
        for root in ["/usr/bin", "/usr/sbin", "/usr/lib"] {
            list(Path::new(root), &mut files)?;
        }
        files.sort();
        let mut files = files.into_iter();
        for number in 1..=LAYERS {
            let mut bytes = 0;
            let within = |(_, size): &(String, u64)| {
                bytes += size;
                bytes < LAYER_BYTES
            };
            let part: Vec<String> = files.by_ref().take_while(within).map(|(path, _)| path).collect();
            ensure!(!part.is_empty(), "this machine has too few programs for an image");
            fs::write(self.at("list"), part.join("\0"))?;
            let pack = format!("tar --null -T list -cf {number}.tar 2>/dev/null; gzip -n {number}.tar");
            shell("true", &format!("cd {} && {pack}", self.folder.display()))?;
        }
        Ok(())
    }

    /// An archive as `save` writes it, of an image that shares no layer with another; its path. Nothing has to be removed
    /// between two measurements then: filesystems remember for minutes what was removed, and make new files slowly.
    fn archive(&self, name: &str) -> anyhow::Result<String> {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for number in 1..=LAYERS {
            let mut mark = testkit::image::layer(&[Entry::file(&format!("mark-{number}"), 0o644, name)]);
            // Without the end: the rest comes behind it, as another member of the compressed file.
            mark.truncate(mark.len() - 1024);
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packed.write_all(&mark)?;
            let base = self.at(&format!("{number}.tar.gz"));
            let layer = format!("{name}-{number}.tar.gz");
            let mut file = File::create(self.at(&layer))?;
            file.write_all(&packed.finish()?)?;
            io::copy(&mut File::open(&base)?, &mut file)?;
            let mut hash = Sha256::new();
            hash.update(&mark);
            let mut plain = flate2::read::GzDecoder::new(File::open(&base)?);
            let mut buffer = vec![0; 256 << 10];
            loop {
                match plain.read(&mut buffer)? {
                    0 => break,
                    count => hash.update(&buffer[..count]),
                }
            }
            let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            diff_ids.push(format!("sha256:{hex}"));
            layers.push(layer);
        }
        let config = serde_json::json!({
            "architecture": testkit::image::architecture(), "os": "linux", "config": { "Cmd": ["/none"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        fs::write(self.at("config.json"), config.to_string())?;
        let manifest =
            serde_json::json!([{ "Config": "config.json", "RepoTags": [image(name)], "Layers": layers }]);
        fs::write(self.at("manifest.json"), manifest.to_string())?;
        let names = layers.join(" ");
        let pack = format!("tar -cf {name}.tar config.json manifest.json {names}; rm {names}");
        shell("true", &format!("cd {} && {pack}", self.folder.display()))?;
        Ok(self.at(&format!("{name}.tar")).to_string_lossy().into_owned())
    }

    /// The registry, for as long as what this gives lives.
    fn serve(&self, bed: &Bed) -> anyhow::Result<Running> {
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: \
             {}}}}}\nhttp: {{addr: \"{ADDRESS}\"}}\n",
            self.at("registry").display()
        );
        fs::write(self.at("registry.yml"), config)?;
        let mut command = bed.host().command(&self.registry);
        command.arg("serve").arg(self.at("registry.yml"));
        let log = File::create(self.at("registry.log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let inner = bed.host().inner(&child);
        let running = Running { child, inner };
        let up = bed.host().in_network(|| {
            let tried = || std::net::TcpStream::connect(ADDRESS).is_ok().then_some(());
            Deadline::after(Duration::from_secs(20)).poll(tried).is_some()
        });
        ensure!(up, "the registry did not come up: {}", fs::read_to_string(self.at("registry.log"))?);
        Ok(running)
    }

    /// What the same bytes cost on two cores, and on the disk.
    fn floors(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let start = Instant::now();
        two_at_a_time(LAYERS, |number| inflate(&self.at(&format!("{}.tar.gz", number + 1))))?;
        let took = milliseconds(start);
        samples.add(Kind::PullCold, Who::Floor, took);
        samples.add(Kind::ImageLoad, Who::Floor, took);
        let folder = self.folder.display();
        let copy = format!("cd {folder}; cp load-0.tar copy; sync -f copy");
        memory::touch();
        let copied = shell(&format!("cd {folder}; rm -f copy; sync"), &copy)?;
        samples.add(Kind::ImageSave, Who::Floor, copied);
        let fresh = self.at("fresh");
        fresh_file(&self.at("1.tar.gz"), &fresh)?;
        let start = Instant::now();
        archive::gzip(File::open(&fresh)?, 2, |_| Ok(()))?;
        samples.add(Kind::ImagePush, Who::Floor, milliseconds(start));
        Ok(())
    }
}

/// A registry that runs.
struct Running {
    child: Child,
    inner: Option<u32>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.inner.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Subject {
    fn images(&mut self, place: &Place, repeat: usize, samples: &mut Samples) -> anyhow::Result<()> {
        let running = place.serve(&self.bed)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let insecure: &[&str] = if self.who == Who::Podman { &["--tls-verify=false"] } else { &[] };
        let quiet = |verb: &'static str, name: &str| -> Vec<String> {
            let words = [verb, "-q"].into_iter().chain(insecure.iter().copied()).chain([name]);
            words.map(str::to_owned).collect()
        };
        let run = |words: &[String]| self.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let settle = || {
            memory::touch();
            shell("true", "sync")
        };

        let pulled = image(&format!("pull-{repeat}"));
        settle()?;
        memory::forget_peaks(self.bed.host());
        samples.add(Kind::PullCold, self.who, run(&quiet("pull", &pulled))?);
        if self.who != Who::Podman {
            samples.add(Kind::PullMemory, self.who, memory::daemon_peak(self.bed.host()));
            samples.add(Kind::PullUnchanged, self.who, self.pull_again(repeat)?);
        }

        let saved = place.at("saved.tar");
        settle()?;
        let save = ["save", "-o", &text(saved.clone()), &pulled].map(String::from);
        samples.add(Kind::ImageSave, self.who, run(&save)?);
        fs::remove_file(saved)?;

        // A layer that nobody has seen, on top of the image.
        let fresh = place.at("fresh");
        fresh_file(&place.at("1.tar.gz"), &fresh)?;
        let name = format!("fresh-{}-{repeat}", self.who.name().to_lowercase());
        let pushed = image(&name);
        self.cli(&["create", "--name", &name, "--network", "none", &pulled, "/none"])?;
        self.cli(&["cp", &text(fresh), &format!("{name}:/fresh")])?;
        self.cli(&["commit", &name, &pushed])?;
        settle()?;
        samples.add(Kind::ImagePush, self.who, run(&quiet("push", &pushed))?);
        drop(running);

        // As the floor's files are: in memory.
        let archive = place.at(&format!("load-{repeat}.tar"));
        io::copy(&mut File::open(&archive)?, &mut io::sink())?;
        let archive = text(archive);
        settle()?;
        samples.add(Kind::ImageLoad, self.who, run(&["load", "-q", "-i", &archive].map(String::from))?);
        self.cli(&["rm", &name])?;
        Ok(())
    }

    /// A pull of what is there already, through the API.
    fn pull_again(&self, repeat: usize) -> anyhow::Result<f64> {
        let mut http = self.bed.http();
        let path = format!("/images/create?fromImage={ADDRESS}/bench&tag=pull-{repeat}");
        let mut took = f64::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            let answer = http.ask("POST", &path, None)?;
            ensure!(answer.text().contains("up to date"), "{answer:?}");
            took = took.min(milliseconds(start));
        }
        Ok(took)
    }
}

/// Files below a folder with their sizes; what is linked elsewhere or large is left out.
fn list(folder: &Path, files: &mut Vec<(String, u64)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() {
            list(&entry.path(), files)?;
        } else if found.is_file() && found.len() < 20 << 20 {
            files.push((entry.path().to_string_lossy().into_owned(), found.len()));
        }
    }
    Ok(())
}

/// What a pull cannot do without for one layer: both digests, and what is compressed as it was.
fn inflate(path: &Path) -> anyhow::Result<()> {
    struct Hashed<R>(R, Sha256);
    impl<R: Read> Read for Hashed<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.update(&buffer[..count]);
            Ok(count)
        }
    }
    let compressed = io::BufReader::with_capacity(256 << 10, Hashed(File::open(path)?, Sha256::new()));
    let mut plain = Hashed(flate2::bufread::GzDecoder::new(compressed), Sha256::new());
    let mut buffer = vec![0; 256 << 10];
    while plain.read(&mut buffer)? > 0 {}
    std::hint::black_box((plain.1.finalize(), plain.0.into_inner().into_inner().1.finalize()));
    Ok(())
}

/// The content of a layer behind something that was never there before.
fn fresh_file(layer: &Path, to: &Path) -> anyhow::Result<()> {
    let mut file = File::create(to)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    file.write_all(now.as_nanos().to_string().as_bytes())?;
    io::copy(&mut flate2::read::GzDecoder::new(File::open(layer)?), &mut file)?;
    Ok(())
}

fn two_at_a_time(count: usize, work: impl Fn(usize) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            work(number)?;
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(worker);
        let own = worker();
        own.and(other.join().expect("no panic"))
    })
}
