//! Images imported from archives that the daemon fetches itself.
#![allow(clippy::disallowed_methods)] // Tests start programs.

use testkit::Bed;
use testkit::image::{self, Entry};
use testkit::registry::{Fault, Registry};
use tests::{each_client, gzip, has, is_peer};

const TAR: &str = "application/x-tar";

/// A root file system with a program in it.
fn archive(text: &str) -> Vec<u8> {
    image::layer(&[Entry::file("mark", 0o644, text)])
}

#[test]
fn an_archive_on_the_web_becomes_an_image() {
    let bed = Bed::new();
    let server = Registry::start(bed.host());
    server.serve_at("/plain.tar", TAR, &archive("plain"));
    server.serve_at("/packed.tgz", TAR, &gzip(&archive("packed")));
    server.fault("/moved.tar", Fault::Redirect(format!("http://{}/plain.tar", server.address())));
    each_client(&bed, |client, name| {
        for (file, holds) in [("plain.tar", "plain"), ("packed.tgz", "packed"), ("moved.tar", "plain")] {
            let url = format!("http://{}/{file}", server.address());
            let (image, words) = (format!("web-{name}:{holds}"), ["import", "-c", "CMD [\"/none\"]"]);
            let ran = bed.cli(client, &[words[0], words[1], words[2], &url, &image]);
            let said = ran.ok();
            has(said, &[&format!("Downloading from {url}"), "sha256:"]);
            let id = said.lines().last().unwrap_or_default().trim();
            let shown =
                bed.cli(client, &["image", "inspect", "-f", "{{.Id}} {{.Comment}} {{.Config.Cmd}}", &image]);
            assert_eq!(shown.ok(), format!("{id} Imported from {url} [/none]"));
            let made = bed.cli(client, &["create", &image]).ok().to_owned();
            let mark = bed.cli(client, &["cp", &format!("{made}:/mark"), "-"]).ok().to_owned();
            has(&mark, &[holds]);
            bed.cli(client, &["rm", &made]).ok();
            bed.cli(client, &["rmi", &image]).ok();
        }
    });
    // Through the API also without a scheme.
    let path = format!("/images/create?fromSrc={}%2Fplain.tar&repo=bare&tag=1", server.address());
    let answer = bed.http().ask("POST", &path, None).expect("an answer");
    has(&answer.text(), &["Importing", "sha256:"]);
    bed.run(&["image", "inspect", "bare:1"]).ok();
}

#[test]
fn what_cannot_be_fetched_leaves_no_image() {
    if is_peer() {
        return;
    }
    let bed = Bed::new();
    let server = Registry::start(bed.host());
    let noise: String =
        (0..200_000u32).map(|number| number.wrapping_mul(2_654_435_761).to_string()).collect();
    server.serve_at("/cut.tar", TAR, &archive(&noise));
    server.fault("/cut.tar", Fault::Cut(100_000));
    server.fault("/gone.tar", Fault::Status(404, vec![], "no such file here".into()));
    server.fault("/closed.tar", Fault::Status(403, vec![], "not for you".into()));
    server.fault("/loop.tar", Fault::Redirect(format!("http://{}/loop.tar", server.address())));
    server.serve_at("/page.html", "text/html", b"<html>not an archive</html>");
    let before = bed.run(&["images", "-aq"]).ok().to_owned();
    let at = |file: &str| format!("http://{}/{file}", server.address());
    for (url, status, said) in [
        (at("gone.tar"), 404, "with status 404 Not Found: no such file here"),
        (at("closed.tar"), 403, "with status 403 Forbidden: not for you"),
        (at("loop.tar"), 500, "stopped after 10 redirects"),
        ("http://127.0.0.1:1/x.tar".to_owned(), 500, "connection refused"),
        ("ftp://127.0.0.1/x.tar".to_owned(), 400, "invalid URL"),
        ("http://user:secret@127.0.0.1/x.tar".to_owned(), 400, "invalid URL"),
    ] {
        let encoded = url.replace(':', "%3A").replace('/', "%2F").replace('@', "%40");
        let refusal = bed.http().ask("POST", &format!("/images/create?fromSrc={encoded}&repo=x"), None);
        has(&refusal.expect("an answer").refused(status), &[said]);
        if url.starts_with("http") {
            has(bed.run(&["import", &url, "x:1"]).fails(1), &[said]);
        }
    }
    for file in ["cut.tar", "page.html"] {
        let ran = bed.run(&["import", &at(file), "x:1"]);
        assert!(!ran.fails(1).is_empty(), "{file}");
    }
    assert_eq!(bed.run(&["images", "-aq"]).ok(), before);
    has(bed.run(&["system", "check"]).ok(), &["everything is whole"]);
}
