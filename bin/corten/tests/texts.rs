//! Help texts and complaints, as users of Docker's client know them.
//!
//! `help/` holds the help of some commands; `mistakes.txt` has a line per command line that is refused: the exit code,
//! the words, and the first line on standard error.

mod program;

use program::run;

const HOST: Option<&str> = Some("unix:///tmp/nope.sock");

#[test]
fn help() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/help");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the folder").flatten() {
        let expected = std::fs::read_to_string(entry.path()).expect("a file");
        let name = entry.path().file_stem().expect("a name").to_string_lossy().replace('_', " ");
        let line: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        let output = run("docker", &line, "", HOST);
        assert_eq!(output.stdout, expected, "docker {name} --help");
        assert_eq!((output.stderr.as_str(), output.code), ("", 0));
        count += 1;
    }
    assert!(count > 5, "the folder has help texts");
}

#[test]
fn mistakes() {
    let text = include_str!("mistakes.txt");
    let mut wrong = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.splitn(3, " | ");
        let (code, words, expected) = (
            fields.next().unwrap_or_default(),
            fields.next().unwrap_or_default(),
            fields.next().unwrap_or_default(),
        );
        let words = split(words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = run("docker", &words, "", HOST);
        let first = output.stderr.lines().next().unwrap_or_default();
        if first != expected || output.code.to_string() != code {
            wrong.push(format!(
                "docker {words:?}\n  wanted {code} {expected}\n  got    {} {first}",
                output.code
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Words as a shell splits them, as far as the table needs it: blanks, and single quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn called_by_its_own_name_it_says_so() {
    let output = run("corten", &["run"], "", HOST);
    assert!(
        output.stderr.starts_with("corten: 'corten run' requires at least 1 argument\n"),
        "{}",
        output.stderr
    );
    let output = run("corten", &["swarm", "init"], "", HOST);
    assert_eq!((output.stderr.as_str(), output.code), ("corten: 'swarm' is not supported yet\n", 1));
}

#[test]
fn groups_explain_themselves_on_standard_error() {
    let output = run("docker", &["container"], "", HOST);
    assert_eq!((output.stdout.as_str(), output.code), ("", 0));
    assert!(output.stderr.starts_with("Usage:  docker container COMMAND\n\nManage containers\n"));
}

#[test]
fn completion_scripts_name_the_program() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run("corten", &["completion", shell], "", HOST);
        assert!(
            output.stdout.contains("corten __complete") && !output.stdout.contains("@program@"),
            "{shell}"
        );
    }
    let output = run("docker", &["__complete", "container", "re"], "", HOST);
    assert_eq!(output.stdout, "rename\tRename a container\nrestart\tRestart one or more containers\n");
}
