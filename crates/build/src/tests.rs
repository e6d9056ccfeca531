//! Builds with an executor that understands a few words instead of running programs.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use archive::{Entry, Root, Writer};
use rustix::fs::{Mode, OFlags};

use super::*;

struct Fixture {
    directory: tempfile::TempDir,
    images: Arc<Images>,
    builder: Builder,
}

/// Does what the last word of the command line says: `exit N`, `write PATH TEXT`, `remove PATH`, `env`, `fail`.
struct Fake<'a> {
    images: &'a Images,
    ran: RefCell<Vec<String>>,
    configs: RefCell<std::collections::HashMap<String, Config>>,
    fetched: RefCell<Vec<String>>,
}

impl Executor for Fake<'_> {
    fn create(&self, step: &RunStep<'_>) -> Result<String, ExecutorError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("{:064x}", NEXT.fetch_add(1, Ordering::Relaxed));
        let chain = step.image.and_then(|image| image.chain());
        self.images.snapshots().create(&id, chain).unwrap();
        self.configs.borrow_mut().insert(id.clone(), step.config.clone());
        Ok(id)
    }

    fn run(&self, container: &str, output: &mut dyn FnMut(Stream, &[u8])) -> Result<i64, ExecutorError> {
        let config = self.configs.borrow()[container].clone();
        let line = config.cmd.unwrap().pop().unwrap();
        self.ran.borrow_mut().push(line.clone());
        let root = Root::from_descriptor(self.images.snapshots().open_root(container).unwrap());
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["exit", code] => return Ok(code.parse().unwrap()),
            ["write", path, text] => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
                let file = root.open(path.as_ref(), flags, Mode::from_raw_mode(0o644)).unwrap();
                std::fs::File::from(file).write_all(text.as_bytes()).unwrap();
            }
            ["remove", path] => {
                let directory = root.open("/".as_ref(), OFlags::PATH, Mode::empty()).unwrap();
                rustix::fs::unlinkat(&directory, path, rustix::fs::AtFlags::empty()).unwrap();
            }
            ["env"] => output(Stream::Stdout, config.env.join("\n").as_bytes()),
            ["fail"] => {
                return Err(ExecutorError { kind: Kind::System, message: "no such runtime".into() });
            }
            _ => panic!("{line}"),
        }
        output(Stream::Stderr, b"done\n");
        Ok(0)
    }

    fn remove(&self, container: &str) -> Result<(), ExecutorError> {
        drop(self.images.release(container).unwrap());
        Ok(())
    }

    fn fetch(
        &self,
        reference: &Reference,
        _: &Platform,
        _: &mut dyn FnMut(&str),
    ) -> Result<(), ExecutorError> {
        self.fetched.borrow_mut().push(reference.familiar());
        Err(ExecutorError {
            kind: Kind::NotFound,
            message: format!("pull access denied for {}", reference.familiar_name()),
        })
    }
}

/// What came out of a build.
struct Outcome {
    result: Result<Digest, Error>,
    text: String,
    ran: Vec<String>,
    fetched: Vec<String>,
}

impl Outcome {
    fn error(&self) -> String {
        self.result.as_ref().unwrap_err().to_string()
    }
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let content = content::Store::open(&path.join("content")).unwrap();
        let snapshots = snapshots::Overlay::open(&path.join("snapshots"), &[]).unwrap();
        let store = metadata::Store::open(&path.join("state")).unwrap();
        let limits = images::Limits::default();
        let (images, _) =
            Images::open(Arc::new(content), Arc::new(snapshots), store, limits, "boot").unwrap();
        let images = Arc::new(images);
        let builder = Builder::open(Arc::clone(&images), &path.join("build")).unwrap();
        let fixture = Fixture { directory, images, builder };
        let base = archive(&[
            (Entry::directory("etc"), b""),
            (Entry::file("etc/passwd", 0), b"root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n"),
            (Entry::file("etc/group", 0), b"root:x:0:\nweb:x:35:\n"),
            (Entry::directory("usr/lib"), b""),
            (Entry { kind: archive::Kind::Symlink(b"usr/lib".to_vec()), ..Entry::file("lib", 0) }, b""),
        ]);
        let config = Config {
            cmd: Some(vec!["sh".into()]),
            env: vec!["PATH=/bin".into(), "FROM_BASE=yes".into()],
            ..Config::default()
        };
        let import = images::Import {
            reference: Some(Reference::parse("base").unwrap()),
            config,
            message: String::new(),
            platform: Platform::host(),
            now: Timestamp { seconds: 1_600_000_000, nanos: 0 },
        };
        fixture.images.maker().import(&base[..], import).unwrap();
        fixture
    }

    fn build_with(&self, files: &[(&str, &[u8])], options: &Options) -> Outcome {
        let members: Vec<(Entry, &[u8])> = files
            .iter()
            .map(|(path, bytes)| (Entry { uid: 1000, gid: 1000, ..Entry::file(path, 0) }, *bytes))
            .collect();
        self.build_archive(&archive(&members), options)
    }

    fn build_archive(&self, bytes: &[u8], options: &Options) -> Outcome {
        let executor = Fake {
            images: &self.images,
            ran: RefCell::default(),
            configs: RefCell::default(),
            fetched: RefCell::default(),
        };
        let mut text = String::new();
        let clock = || Timestamp { seconds: 1_700_000_000, nanos: 0 };
        let result = self.builder.context(bytes).and_then(|context| {
            self.builder.build(&context, options, &executor, &clock, &mut |event| match event {
                Event::Text(piece) => text.push_str(piece),
                Event::Output(_, bytes) => text.push_str(std::str::from_utf8(bytes).unwrap()),
                Event::Image(id) => text.push_str(&format!("aux {}\n", id.short())),
                Event::Tagged(..) => {}
            })
        });
        Outcome { result, text, ran: executor.ran.into_inner(), fetched: executor.fetched.into_inner() }
    }

    fn build(&self, dockerfile: &str) -> Outcome {
        self.build_with(&[("Dockerfile", dockerfile.as_bytes())], &Options::default())
    }

    fn image(&self, outcome: &Outcome) -> Arc<StoredImage> {
        match &outcome.result {
            Ok(id) => self.images.get(id).unwrap(),
            Err(error) => panic!("{error}\n{}", outcome.text),
        }
    }

    /// The root filesystem of an image.
    fn root(&self, image: &StoredImage) -> Root {
        Root::from_descriptor(self.images.snapshots().open_layers(image.chain().unwrap()).unwrap())
    }

    fn read(&self, image: &StoredImage, path: &str) -> Option<(Vec<u8>, std::fs::Metadata)> {
        let file = self.root(image).open(path.as_ref(), OFlags::RDONLY, Mode::empty()).ok()?;
        let mut file = std::fs::File::from(file);
        let metadata = file.metadata().unwrap();
        let mut bytes = Vec::new();
        if metadata.is_file() {
            std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        }
        Some((bytes, metadata))
    }
}

fn archive(members: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in members {
        let entry = Entry { size: content.len() as u64, ..entry.clone() };
        writer.append(&entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn the_whole_output_is_as_expected() {
    let fixture = Fixture::new();
    let dockerfile = b"ARG v=base\nFROM $v AS one\nRUN write /made text\nENV A=b\nCMD [\"x\"]\n";
    let options = Options { tags: vec![Reference::parse("app:1").unwrap()], ..Options::default() };
    let files: &[(&str, &[u8])] = &[("Dockerfile", dockerfile)];
    let first = fixture.build_with(files, &options);
    let image = fixture.image(&first);
    let chain: Vec<String> = {
        let mut ids = vec![image.id.short().to_owned()];
        let mut next = image.parent.clone();
        while let Some(id) = next {
            ids.push(id.short().to_owned());
            next = fixture.images.get(&id).unwrap().parent.clone();
        }
        ids.reverse();
        ids
    };
    let [base, made, env, cmd] = &chain[..] else { panic!("{chain:?}") };
    let expected = format!(
        "Step 1/5 : ARG v=base\nStep 2/5 : FROM $v AS one\n ---> {base}\nStep 3/5 : RUN write /made text\n ---> Running in 000000000000\ndone\n ---> Removed intermediate container 000000000000\n ---> {made}\nStep 4/5 : ENV A=b\n ---> {env}\nStep 5/5 : CMD [\"x\"]\n ---> {cmd}\naux {cmd}\nSuccessfully built {cmd}\nSuccessfully tagged app:1\n"
    );
    assert_eq!(first.text, expected);
    assert_eq!(fixture.images.resolve("app:1").unwrap().id, image.id);
    let history: Vec<&str> = image.config.history.iter().map(|step| step.created_by.as_str()).collect();
    assert_eq!(
        history,
        ["", "/bin/sh -c write /made text", "/bin/sh -c #(nop)  ENV A=b", "/bin/sh -c #(nop)  CMD [\"x\"]"]
    );
    assert_eq!(image.config.config.env, ["PATH=/bin", "FROM_BASE=yes", "A=b"]);
    assert_eq!(image.config.config.cmd, Some(vec!["x".to_owned()]));
    assert!(fixture.images.snapshots().containers().is_empty());
    // Again: nothing runs.
    let again = fixture.build_with(files, &options);
    assert_eq!(fixture.image(&again).id, image.id);
    assert!(again.ran.is_empty());
    assert_eq!(again.text.matches(" ---> Using cache\n").count(), 3);
    let fresh = fixture.build_with(files, &Options { no_cache: true, ..options });
    assert_eq!(fresh.ran.len(), 1);
}

#[test]
fn a_failing_command_is_told_with_its_code() {
    let fixture = Fixture::new();
    let outcome = fixture.build("FROM base\nRUN exit 3\n");
    assert_eq!(outcome.error(), "The command '/bin/sh -c exit 3' returned a non-zero code: 3");
    assert_eq!(outcome.result.as_ref().unwrap_err().code(), Some(3));
    // The container of a failed step stays, as Docker leaves it.
    assert_eq!(fixture.images.snapshots().containers().len(), 1);
    let options = Options { force_remove: true, ..Options::default() };
    let outcome =
        fixture.build_with(&[("Dockerfile", b"FROM base\nRUN [\"/bin/x\", \"exit 4\"]\n")], &options);
    assert_eq!(outcome.error(), "The command '/bin/x exit 4' returned a non-zero code: 4");
    assert_eq!(fixture.build("FROM base\nRUN fail\n").error(), "no such runtime");
}

#[test]
fn files_are_copied_by_dockers_rules() {
    let fixture = Fixture::new();
    let dockerfile = "FROM base\nWORKDIR /place/deep\nCOPY a.txt .\nCOPY a.txt /renamed\nCOPY --chown=web:web --chmod=750 a.txt b.txt /many/\nCOPY dir /dest\nCOPY di* /lib\nCOPY dir/sub/*.md /etc/\nCOPY --chown=7 dir /owned/new\nCOPY link /followed\nCOPY <<one <<\"two\" /here/\nwith $FROM_BASE\none\nwith $FROM_BASE\ntwo\n";
    let members = [
        (Entry::file("Dockerfile", 0), dockerfile.as_bytes()),
        (Entry { uid: 5, mode: 0o4711, ..Entry::file("a.txt", 0) }, b"a"),
        (Entry::file("b.txt", 0), b"b"),
        (Entry::file("dir/x", 0), b"x"),
        (Entry::file("dir/sub/y.md", 0), b"y"),
        (Entry { kind: archive::Kind::Symlink(b"/dir/x".to_vec()), ..Entry::file("link", 0) }, b""),
    ];
    let outcome = fixture.build_archive(&archive(&members), &Options::default());
    let image = fixture.image(&outcome);
    let check = |path: &str, bytes: &[u8], uid: u32, gid: u32, mode: u32| {
        let (found, metadata) = fixture.read(&image, path).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(found, bytes, "{path}");
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (uid, gid, mode), "{path}");
    };
    check("/place/deep/a.txt", b"a", 0, 0, 0o4711);
    check("/place", b"", 0, 0, 0o755);
    check("/renamed", b"a", 0, 0, 0o4711);
    check("/many/a.txt", b"a", 33, 35, 0o750);
    check("/many", b"", 0, 0, 0o755);
    check("/dest/sub/y.md", b"y", 0, 0, 0o644);
    // Through the image's own link.
    check("/usr/lib/sub/y.md", b"y", 0, 0, 0o644);
    check("/etc/y.md", b"y", 0, 0, 0o644);
    check("/owned/new", b"", 7, 7, 0o755);
    check("/owned", b"", 0, 0, 0o755);
    check("/owned/new/x", b"x", 7, 7, 0o644);
    check("/followed", b"x", 0, 0, 0o644);
    check("/here/one", b"with yes\n", 0, 0, 0o644);
    check("/here/two", b"with $FROM_BASE\n", 0, 0, 0o644);
    assert!(outcome.text.contains("Step 3/11 : COPY a.txt .\n"));
    let history = &image.config.history;
    let step = &history[2].created_by;
    assert!(
        step.starts_with("/bin/sh -c #(nop) COPY file:") || step.starts_with("/bin/sh -c #(nop)  COPY file:"),
        "{step}"
    );
    assert!(step.ends_with(" in /place/deep/ "), "{step}");
    // Another time of a file is no change; another content is.
    let touched: Vec<(Entry, &[u8])> = members
        .iter()
        .map(|(entry, bytes)| {
            (Entry { mtime: archive::Time { seconds: 5, nanos: 0 }, ..entry.clone() }, *bytes)
        })
        .collect();
    assert_eq!(fixture.image(&fixture.build_archive(&archive(&touched), &Options::default())).id, image.id);
    let mut changed = members.clone();
    changed[1].1 = b"A";
    assert_ne!(fixture.image(&fixture.build_archive(&archive(&changed), &Options::default())).id, image.id);
}

#[test]
fn archives_are_added_unpacked() {
    let fixture = Fixture::new();
    let inner = archive(&[(Entry { uid: 9, ..Entry::file("in/file", 0) }, b"deep")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&inner).unwrap();
    let gzip = gzip.finish().unwrap();
    let files: &[(&str, &[u8])] = &[
        (
            "Dockerfile",
            b"FROM scratch\nADD plain.tar /p\nADD packed /g/\nADD notes.txt /n/\nCOPY plain.tar /kept.tar\n",
        ),
        ("plain.tar", &inner),
        ("packed", &gzip),
        ("notes.txt", b"just text, and long enough to be something"),
    ];
    let image = fixture.image(&fixture.build_with(files, &Options::default()));
    for path in ["/p/in/file", "/g/in/file"] {
        let (bytes, metadata) = fixture.read(&image, path).unwrap();
        assert_eq!((bytes.as_slice(), metadata.uid()), (&b"deep"[..], 9), "{path}");
    }
    assert!(fixture.read(&image, "/n/notes.txt").is_some());
    assert_eq!(fixture.read(&image, "/kept.tar").unwrap().0, inner);
    assert_eq!(
        image.config.config.env,
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
}

#[test]
fn stages_copy_from_each_other() {
    let fixture = Fixture::new();
    let dockerfile = b"FROM base AS build\nRUN write /out binary\nFROM scratch AS mid\nCOPY --from=build /out /mid\nFROM mid\nCOPY --from=0 /out /first\nCOPY --from=base /etc/passwd /users\n";
    let files: &[(&str, &[u8])] = &[("Dockerfile", dockerfile)];
    let outcome = fixture.build_with(files, &Options::default());
    let image = fixture.image(&outcome);
    for path in ["/mid", "/first", "/users"] {
        assert!(fixture.read(&image, path).is_some(), "{path}");
    }
    assert!(fixture.read(&image, "/out").is_none());
    assert_eq!(outcome.text.matches("aux ").count(), 3);
    let target = Options { target: "MID".into(), ..Options::default() };
    let mid = fixture.image(&fixture.build_with(files, &target));
    assert!(fixture.read(&mid, "/first").is_none());
    let wrong = Options { target: "nope".into(), ..Options::default() };
    assert_eq!(fixture.build_with(files, &wrong).error(), "target stage \"nope\" could not be found");
}

#[test]
fn removed_files_stay_removed() {
    let fixture = Fixture::new();
    let image = fixture.image(&fixture.build("FROM base\nRUN remove etc/passwd\nRUN write /etc/new x\n"));
    assert!(fixture.read(&image, "/etc/passwd").is_none());
    assert!(fixture.read(&image, "/etc/group").is_some());
    // And after a journey through an archive.
    let saved = fixture.images.archives().save(&[image.id.to_string()], &[], Vec::new()).unwrap();
    let other = Fixture::new();
    let load = images::LoadOptions { platforms: Vec::new(), now: Timestamp::default() };
    let loaded = other.images.archives().load(images::Input::Stream(&saved[..]), &load, &mut |_| {}).unwrap();
    assert!(other.read(&loaded[0].image, "/etc/passwd").is_none());
    assert!(other.read(&loaded[0].image, "/etc/new").is_some());
}

#[test]
fn arguments_reach_commands_and_the_cache() {
    let fixture = Fixture::new();
    let dockerfile = b"FROM base\nARG version=1\nARG other\nENV other=set\nRUN env\n";
    let files: &[(&str, &[u8])] = &[("Dockerfile", dockerfile)];
    let with = |pairs: &[(&str, &str)]| {
        let build_args = pairs.iter().map(|(name, value)| ((*name).into(), Some((*value).into()))).collect();
        fixture.build_with(files, &Options { build_args, ..Options::default() })
    };
    let first = with(&[]);
    assert!(first.text.contains("version=1") && first.text.contains("other=set"), "{}", first.text);
    let image = fixture.image(&first);
    let last = image.config.history.last().unwrap();
    assert_eq!(last.created_by, "|1 version=1 /bin/sh -c env");
    assert!(!image.config.config.env.contains(&"version=1".to_owned()));
    let second = with(&[("version", "2"), ("HTTP_PROXY", "http://proxy")]);
    assert!(second.text.contains("version=2") && second.text.contains("HTTP_PROXY=http://proxy"));
    // A proxy is no other build.
    assert!(with(&[("version", "2")]).ran.is_empty());
    assert!(
        with(&[("nobody", "1")])
            .text
            .contains("[Warning] One or more build-args [nobody] were not consumed\n")
    );
}

#[test]
fn configurations_are_changed() {
    let fixture = Fixture::new();
    let dockerfile = "FROM base\nMAINTAINER me\nLABEL a=\"b c\" d=$FROM_BASE\nEXPOSE 80 90-91/udp\nVOLUME /data\nUSER web\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT run it\nHEALTHCHECK --interval=5s CMD check\nONBUILD RUN write /triggered yes\n";
    let options = Options { labels: [("z".to_owned(), "it's".to_owned())].into(), ..Options::default() };
    let outcome = fixture.build_with(&[("Dockerfile", dockerfile.as_bytes())], &options);
    let image = fixture.image(&outcome);
    let config = &image.config.config;
    assert_eq!(image.config.author, "me");
    assert_eq!(
        config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        ["a=b c", "d=yes", "z=it's"]
    );
    assert_eq!(config.exposed_ports.iter().cloned().collect::<Vec<_>>(), ["80/tcp", "90/udp", "91/udp"]);
    assert_eq!(config.entrypoint.clone().unwrap(), ["/bin/bash", "-c", "run it"]);
    // The base image's command went with the new entrypoint.
    assert_eq!(config.cmd, None);
    assert_eq!((config.user.as_str(), config.stop_signal.as_str()), ("web", "SIGINT"));
    assert_eq!(config.healthcheck.as_ref().unwrap().test, ["CMD-SHELL", "check"]);
    assert!(outcome.text.contains("Step 12/12 : LABEL z=it's\n"));
    fixture
        .images
        .names()
        .tag(
            &images::Target::Image(image.id.clone()),
            &Reference::parse("parent").unwrap(),
            Timestamp::default(),
        )
        .unwrap();
    let child = fixture.build("FROM parent\nCMD [\"y\"]\n");
    let child_image = fixture.image(&child);
    assert!(child.text.contains("# Executing 1 build trigger\n"));
    assert!(fixture.read(&child_image, "/triggered").is_some());
    assert!(child_image.config.config.on_build.is_empty());
}

#[test]
fn commit_changes_are_applied() {
    let mut config = Config { env: vec!["A=1".into()], ..Config::default() };
    let changes: Vec<String> =
        ["ENV B=$A", "CMD echo $B", "EXPOSE 80", "WORKDIR /x", "WORKDIR y"].map(str::to_owned).to_vec();
    changes::apply(&mut config, &changes).unwrap();
    assert_eq!(config.env, ["A=1", "B=1"]);
    assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo $B"]);
    assert_eq!(config.working_dir, "/x/y");
    let refused =
        |change: &str| changes::apply(&mut Config::default(), &[change.to_owned()]).unwrap_err().to_string();
    assert_eq!(refused("RUN x"), "RUN is not a valid change command");
    assert_eq!(refused("FOO x"), "unknown instruction: FOO");
    assert_eq!(refused("EXPOSE x"), "invalid containerPort: x");
    assert_eq!(refused("STOPSIGNAL SIGNOPE"), "invalid signal: SIGNOPE");
}

#[test]
fn what_is_wrong_is_told() {
    let fixture = Fixture::new();
    for (dockerfile, expected) in [
        ("FROM base\nFOO", "dockerfile parse error on line 2: unknown instruction: FOO"),
        (
            "FROM base\nCOPY nope /",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
        ),
        ("FROM base\nCOPY *.nope /x/", "COPY failed: no source files were specified"),
        ("FROM base\nCOPY ../x /", "COPY failed: forbidden path outside the build context: ../x ()"),
        (
            "FROM base\nCOPY Dockerfile Dockerfile /x",
            "COPY failed: When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        (
            "FROM base\nCOPY --chown=nobody Dockerfile /x",
            "COPY failed: unable to convert uid/gid chown string to host mapping: can't find uid for user nobody: no such user: nobody",
        ),
        (
            "FROM base\nCOPY --chmod=999 Dockerfile /x",
            "COPY failed: invalid chmod parameter: '999'. it should be octal string and between 0 and 07777",
        ),
        ("FROM base\nCOPY --from=7 a /b", "invalid from flag value 7: invalid context value"),
        (
            "FROM base\nRUN --mount=type=cache,target=/c x",
            "the --mount option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled",
        ),
        ("FROM base\nADD https://example.com/x /x", "ADD of a remote address is not supported yet"),
        ("FROM base\nENV a=${", "dockerfile parse error on line 2: syntax error: bad substitution"),
        ("FROM missing", "pull access denied for missing"),
        ("FROM Base", "invalid reference format: repository name (library/Base) must be lowercase"),
        ("FROM $nothing", "base name ($nothing) should not be blank"),
        ("\n# nothing\n", "failed to parse Dockerfile: file with no instructions"),
        (" \n", "the Dockerfile (Dockerfile) cannot be empty"),
    ] {
        assert_eq!(fixture.build(dockerfile).error(), expected, "{dockerfile}");
    }
    assert_eq!(fixture.build("FROM missing").fetched, ["missing:latest"]);
    let none = fixture.build_with(&[("other", b"")], &Options::default());
    assert_eq!(none.error(), "Cannot locate specified Dockerfile: Dockerfile");
    let outside = Options { dockerfile: "../x".into(), ..Options::default() };
    let outside = fixture.build_with(&[("Dockerfile", b"FROM base")], &outside);
    assert_eq!(outside.error(), "forbidden path outside the build context: ../x ()");
    let hostile = archive(&[(Entry::file("../../x", 0), b"")]);
    assert!(
        fixture.build_archive(&hostile, &Options::default()).error().contains("leads outside of the root")
    );
    let cancelled = Options { cancel: Arc::new(AtomicBool::new(true)), ..Options::default() };
    let cancelled = fixture.build_with(&[("Dockerfile", b"FROM base")], &cancelled);
    assert_eq!(cancelled.error(), "Build cancelled");
    // Nothing of all that stays.
    assert!(fixture.images.snapshots().containers().is_empty());
    let scratch: Vec<_> = std::fs::read_dir(fixture.directory.path().join("build")).unwrap().collect();
    assert!(scratch.is_empty());
}

#[test]
fn a_context_cannot_reach_the_host() {
    let fixture = Fixture::new();
    let members = [
        (Entry::file("Dockerfile", 0), &b"FROM scratch\nCOPY link /x\n"[..]),
        (Entry { kind: archive::Kind::Symlink(b"/etc/passwd".to_vec()), ..Entry::file("link", 0) }, b""),
    ];
    let outcome = fixture.build_archive(&archive(&members), &Options::default());
    assert!(outcome.error().contains("file not found in build context"), "{}", outcome.error());
    let members = [(
        Entry { kind: archive::Kind::Symlink(b"/etc/passwd".to_vec()), ..Entry::file("Dockerfile", 0) },
        &b""[..],
    )];
    let outcome = fixture.build_archive(&archive(&members), &Options::default());
    assert_eq!(outcome.error(), "Cannot locate specified Dockerfile: Dockerfile");
}

#[test]
fn ignored_dockerfiles_leave_the_context() {
    let fixture = Fixture::new();
    let files: &[(&str, &[u8])] =
        &[("Dockerfile", b"FROM scratch\nCOPY . /all\n"), (".dockerignore", b"Dockerfile\n"), ("kept", b"")];
    let image = fixture.image(&fixture.build_with(files, &Options::default()));
    assert!(fixture.read(&image, "/all/Dockerfile").is_none());
    assert!(fixture.read(&image, "/all/.dockerignore").is_some());
    assert!(fixture.read(&image, "/all/kept").is_some());
}

#[test]
fn heredocs_are_scripts() {
    let fixture = Fixture::new();
    let outcome = fixture.build("FROM base\nRUN <<EOF\nwrite /a b\nEOF\n");
    assert_eq!(outcome.ran, ["write /a b\n"]);
    fixture.image(&outcome);
}
