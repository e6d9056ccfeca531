//! `build`: a Dockerfile and a folder become an image.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use testkit::image::{Entry, layer};
use testkit::{Bed, Client, Ran};
use tests::{each_client, has};

/// A context folder with a Dockerfile and files.
fn context(bed: &Bed, name: &str, dockerfile: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = bed.folder(name);
    fs::write(folder.join("Dockerfile"), dockerfile).expect("Dockerfile");
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("file");
    }
    folder
}

fn build(bed: &Bed, client: Client, folder: &std::path::Path, flags: &[&str]) -> Ran {
    let mut words = vec!["build"];
    words.extend(flags);
    words.push(folder.to_str().expect("path"));
    bed.cli(client, &words)
}

#[test]
fn an_image_from_nothing_but_files() {
    let bed = Bed::new();
    let folder = context(
        &bed,
        "scratch",
        "FROM scratch\nCOPY --chown=7:8 greeting /etc/greeting\nCOPY dir/ /dir\nENV A=b\nLABEL x=y\nCMD [\"/none\"]\n",
        &[("greeting", "hello\n"), ("dir/one", "1"), ("dir/sub/two", "2")],
    );
    each_client(&bed, |client, name| {
        let tag = format!("{name}:latest");
        build(&bed, client, &folder, &["-t", &tag]).ok();
        let found = bed.http().get(&format!("/images/{name}/json")).expect(200).json();
        assert_eq!(found["Config"]["Cmd"], json!(["/none"]));
        assert_eq!(found["Config"]["Labels"]["x"], json!("y"));
        has(&found["Config"]["Env"].to_string(), &["\"A=b\""]);
    });
    let over = context(&bed, "over", "FROM busybox\nCOPY --from=own / /from/\n", &[]);
    build(&bed, Client::Own, &over, &["-t", "looker"]).ok();
    let script =
        "cat /from/etc/greeting; stat -c '%u %g' /from/etc/greeting; cat /from/dir/one /from/dir/sub/two";
    assert_eq!(bed.run(&["run", "--rm", "looker", "sh", "-c", script]).ok(), "hello\n7 8\n12");
}

#[test]
fn run_steps_and_what_they_see() {
    let bed = Bed::new();
    let folder = context(
        &bed,
        "steps",
        "FROM busybox AS base\n\
         ARG WHO=nobody\n\
         ENV GREETING=\"hello $WHO\"\n\
         WORKDIR /place/here\n\
         RUN echo \"$GREETING from $(pwd)\" >said && adduser -D maker || true\n\
         USER user\n\
         RUN id -u >/tmp/id\n\
         \n\
         FROM busybox\n\
         # a comment\n\
         COPY --from=base /place/here/said /tmp/id /from/\n\
         RUN set -e; \\\n    cat /from/said; \\\n    rm /www/index.html\n\
         ENTRYPOINT [\"cat\"]\n\
         CMD [\"/from/said\"]\n",
        &[],
    );
    each_client(&bed, |client, name| {
        let ran = build(&bed, client, &folder, &["-t", name, "--build-arg", "WHO=you", "--no-cache"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        has(&ran.said(), &["hello you from /place/here"]);
        assert_eq!(bed.cli(client, &["run", "--rm", name]).ok(), "hello you from /place/here");
        assert_eq!(bed.cli(client, &["run", "--rm", name, "/from/id"]).ok(), "1000");
        bed.cli(client, &["run", "--rm", name, "/www/index.html"]).fails(1);
    });
}

#[test]
fn steps_are_remembered() {
    let bed = Bed::new();
    let folder = context(
        &bed,
        "cached",
        "FROM busybox\nCOPY file /file\nRUN cat /proc/sys/kernel/random/uuid >/stamp\n",
        &[("file", "1")],
    );
    let stamp = |flags: &[&str]| {
        let mut all = vec!["-t", "cached"];
        all.extend(flags);
        build(&bed, Client::Own, &folder, &all).ok();
        bed.run(&["run", "--rm", "cached", "cat", "/stamp"]).ok().to_owned()
    };
    let first = stamp(&[]);
    assert_eq!(stamp(&[]), first, "nothing changed");
    fs::write(folder.join("unused"), "x").expect("file");
    assert_eq!(stamp(&[]), first, "a file that no step reads changes nothing");
    fs::write(folder.join("file"), "2").expect("file");
    let second = stamp(&[]);
    assert_ne!(second, first, "a copied file changed");
    assert_ne!(stamp(&["--no-cache"]), second);
}

#[test]
fn ignored_files_stay_out() {
    let bed = Bed::new();
    let files = [
        (".dockerignore", "*.log\n!keep.log\nsecret\n"),
        ("a.log", ""),
        ("keep.log", ""),
        ("secret/key", ""),
        ("plain", ""),
    ];
    let folder = context(&bed, "ignore", "FROM busybox\nCOPY . /all\n", &files);
    each_client(&bed, |client, name| {
        build(&bed, client, &folder, &["-t", name]).ok();
        let ran = bed.cli(client, &["run", "--rm", name, "sh", "-c", "cd /all; ls"]);
        assert_eq!(ran.ok().split_whitespace().collect::<Vec<_>>(), ["Dockerfile", "keep.log", "plain"]);
    });
}

#[test]
fn failing_steps_say_which_and_give_their_code() {
    let bed = Bed::new();
    let folder = context(&bed, "failing", "FROM busybox\nRUN echo before; exit 42\n", &[]);
    each_client(&bed, |client, name| {
        let ran = build(&bed, client, &folder, &["-t", name]);
        assert_eq!(ran.code, 42, "{ran:?}");
        has(
            &ran.said(),
            &["before", "The command '/bin/sh -c echo before; exit 42' returned a non-zero code: 42"],
        );
    });
}

#[test]
fn mistakes_are_named() {
    let bed = Bed::new();
    let cases = [
        ("", "cannot be empty"),
        ("FRM busybox\n", "unknown instruction: FRM"),
        ("RUN true\n", "no build stage in current context"),
        ("FROM busybox\nCOPY nosuch /\n", "nosuch"),
        ("FROM busybox\nCOPY ../outside /\n", "outside"),
        ("FROM busybox\nCOPY --from=nosuchstage /a /b\n", "nosuchstage"),
        ("FROM busybox\nCOPY only-one\n", "COPY requires at least two arguments"),
        ("FROM busybox\nUSER\n", "USER requires exactly one argument"),
    ];
    for (number, (dockerfile, part)) in cases.into_iter().enumerate() {
        let folder = context(&bed, &format!("mistake{number}"), dockerfile, &[]);
        let ran = build(&bed, Client::Own, &folder, &[]);
        assert_ne!(ran.code, 0, "{dockerfile:?}: {ran:?}");
        has(&ran.said().to_lowercase(), &[&part.to_lowercase()]);
    }
    let folder = bed.folder("without");
    assert_ne!(build(&bed, Client::Own, &folder, &[]).code, 0, "no Dockerfile");
}

#[test]
fn a_context_cannot_reach_outside() {
    let bed = Bed::new();
    let victim = bed.folder("victim").join("file");
    fs::write(&victim, "secret").expect("victim");
    let name = victim.to_str().expect("path");
    let post = |entries: &[Entry]| {
        let path = format!("{}/build?t=reached", testkit::http::API);
        let answer =
            bed.http().exchange("POST", &path, "Content-Type: application/x-tar\r\n", &layer(entries));
        answer.expect("an answer")
    };
    let dockerfile = |text: &str| Entry::file("Dockerfile", 0o644, text);
    let copy = "FROM busybox\nCOPY link /got\nRUN cat /got\n";
    for entries in [
        vec![dockerfile(copy), Entry::symlink("link", name)],
        vec![
            dockerfile(copy),
            Entry::symlink("dir", victim.parent().and_then(|path| path.to_str()).expect("path")),
            Entry::hardlink("link", "dir/file"),
        ],
        vec![dockerfile(copy), Entry::hardlink("link", name)],
        vec![Entry::symlink("Dockerfile", name)],
    ] {
        let answer = post(&entries);
        assert!(!answer.text().contains("secret"), "{entries:?}: {answer:?}");
    }
    let entries = [
        dockerfile("FROM busybox\nCOPY x /\n"),
        Entry::file(&format!("../../../../../../../..{name}"), 0o644, "hit"),
    ];
    post(&entries);
    assert_eq!(fs::read_to_string(&victim).ok().as_deref(), Some("secret"));
    // Inside the image too: a link of the base image is the image's, not the host's.
    let folder = context(
        &bed,
        "linked",
        &format!(
            "FROM busybox\nRUN ln -s {} /out\nCOPY payload /out/file\n",
            victim.parent().expect("folder").display()
        ),
        &[("payload", "hit")],
    );
    build(&bed, Client::Own, &folder, &[]);
    assert_eq!(fs::read_to_string(&victim).ok().as_deref(), Some("secret"));
}

#[test]
fn other_dockerfiles_targets_and_quiet() {
    let bed = Bed::new();
    let folder = context(
        &bed,
        "named",
        "FROM nosuch\n",
        &[(
            "other.Dockerfile",
            "FROM busybox AS one\nRUN echo one >/which\nFROM busybox AS two\nRUN echo two >/which\n",
        )],
    );
    let file = folder.join("other.Dockerfile");
    let file = file.to_str().expect("path");
    let ran = build(&bed, Client::Own, &folder, &["-q", "-f", file, "--target", "one"]);
    let id = ran.ok();
    assert!(id.starts_with("sha256:") && id.lines().count() == 1, "{ran:?}");
    assert_eq!(bed.run(&["run", "--rm", id, "cat", "/which"]).ok(), "one");
    let from_input = bed.run_with_input(&["build", "-q", "-"], b"FROM busybox\nRUN echo piped >/which\n");
    assert_eq!(bed.run(&["run", "--rm", from_input.ok(), "cat", "/which"]).ok(), "piped");
}
