use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn steps(text: &str) -> Vec<Instruction> {
    let file = parse(&format!("FROM x\n{text}")).unwrap_or_else(|error| panic!("{text}: {error}"));
    file.stages[0].steps.iter().map(|step| step.instruction.clone()).collect()
}

fn step(text: &str) -> Instruction {
    let mut steps = steps(text);
    assert_eq!(steps.len(), 1, "{text}");
    steps.remove(0)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn lines_are_joined_and_comments_go() {
    let text = "# syntax=docker/dockerfile:1\n# escape=\\\n\n  # a comment\nfrom busybox AS Base\nRUN a \\\n  # inside\n\n  && b \\  \n c\\\\\nCMD x\r\n";
    let file = parse(text).unwrap();
    assert_eq!(file.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(file.stages[0].name.as_deref(), Some("base"));
    assert_eq!(file.stages[0].text, "from busybox AS Base");
    assert_eq!(file.stages[0].steps[0].text, "RUN a   && b  c\\\\");
    assert_eq!((file.stages[0].steps[0].line, file.stages[0].steps[1].line), (6, 11));
    assert_eq!(file.stages[0].steps[1].instruction, Instruction::Cmd(Command::Shell("x".into())));
    let windows = parse("#escape=`\nFROM x\nRUN a `\n b\\\n").unwrap();
    assert_eq!(windows.stages[0].steps[0].text, "RUN a  b\\");
    // After an ordinary comment, directives are comments.
    assert_eq!(parse("# hello\n# escape=`\nFROM x\nRUN a\\\n b").unwrap().directives.escape, '\\');
}

#[test]
fn instructions_are_read() {
    assert_eq!(
        step("ENV a=b c=\"d e\" f=g\\ h"),
        Instruction::Env(vec![
            ("a".into(), "b".into()),
            ("c".into(), "\"d e\"".into()),
            ("f".into(), "g\\ h".into())
        ])
    );
    assert_eq!(step("ENV a  b c=d"), Instruction::Env(vec![("a".into(), "b c=d".into())]));
    assert_eq!(step("CMD [\"a\", \"b c\"]"), Instruction::Cmd(Command::Exec(strings(&["a", "b c"]))));
    assert_eq!(step("CMD ['a']"), Instruction::Cmd(Command::Shell("['a']".into())));
    assert_eq!(step("ENTRYPOINT []"), Instruction::Entrypoint(Command::Exec(vec![])));
    assert_eq!(step("expose 80 53/udp"), Instruction::Expose(strings(&["53/udp", "80"])));
    assert_eq!(step("ARG a b=c"), Instruction::Arg(vec![("a".into(), None), ("b".into(), Some("c".into()))]));
    assert_eq!(step("VOLUME /a /b"), Instruction::Volume(strings(&["/a", "/b"])));
    assert_eq!(step("VOLUME [\"/a b\"]"), Instruction::Volume(strings(&["/a b"])));
    assert_eq!(step("WORKDIR /a b"), Instruction::Workdir("/a b".into()));
    assert_eq!(step("SHELL [\"/bin/bash\", \"-c\"]"), Instruction::Shell(strings(&["/bin/bash", "-c"])));
    assert_eq!(
        step("ONBUILD RUN --mount=type=cache,target=/x ls"),
        Instruction::Onbuild("RUN --mount=type=cache,target=/x ls".into())
    );
    let Instruction::Copy(copy) =
        step("COPY --from=0 --chown=1:2 --chmod=755 --exclude=a --exclude=b a b/ /c/")
    else {
        panic!()
    };
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("0"), Some("1:2"), Some("755"))
    );
    assert_eq!((copy.sources.len(), copy.destination.as_str(), copy.exclude.len()), (2, "/c/", 2));
    let Instruction::Copy(copy) = step("COPY [\"a b\", \"/c d\"]") else { panic!() };
    assert_eq!(copy.sources, [CopySource::Path("a b".into())]);
    let Instruction::Run(run) =
        step("RUN --mount=type=bind,ro --mount=type=tmpfs,target=/t --network=none -- ls --all")
    else {
        panic!()
    };
    assert_eq!(run.command, Command::Shell("ls --all".into()));
    assert_eq!((run.mounts.len(), run.network.as_deref()), (2, Some("none")));
    let Instruction::Healthcheck(Some(check)) =
        step("HEALTHCHECK --interval=1m30s --retries=2 CMD [\"true\"]")
    else {
        panic!()
    };
    assert_eq!((check.interval, check.retries, check.timeout), (90_000_000_000, 2, 0));
    assert_eq!(step("HEALTHCHECK NONE"), Instruction::Healthcheck(None));
    let file = parse("ARG v=1\nFROM --platform=linux/amd64 x:$v\nFROM 0\n").unwrap();
    assert_eq!((file.arguments.len(), file.stages.len()), (1, 2));
    assert_eq!(file.stages[0].platform.as_deref(), Some("linux/amd64"));
}

#[test]
fn heredocs_are_gathered() {
    let text = "RUN <<EOF\necho $a\n# kept\nEOF\nCOPY <<-\"one\" <<two /d/\n\tone's\n\tone\nzwei\ntwo\nRUN cat <<< x && echo '<<EOF'\n";
    let found = steps(text);
    let Instruction::Run(run) = &found[0] else { panic!() };
    assert_eq!(run.heredocs[0].content, "echo $a\n# kept\n");
    let Instruction::Copy(copy) = &found[1] else { panic!() };
    let [CopySource::Heredoc(one), CopySource::Heredoc(two)] = &copy.sources[..] else { panic!("{copy:?}") };
    assert_eq!((one.content.as_str(), one.expand, one.name.as_str()), ("one's\n", false, "one"));
    assert_eq!((two.content.as_str(), two.expand), ("zwei\n", true));
    let Instruction::Run(run) = &found[2] else { panic!() };
    assert!(run.heredocs.is_empty());
    assert_eq!(error("FROM x\nRUN <<EOF\nx"), "dockerfile parse error on line 2: unterminated heredoc");
}

#[test]
fn errors_have_dockers_words() {
    for (text, expected) in [
        ("", "file with no instructions"),
        ("# only\n", "file with no instructions"),
        ("FROM x\n\nFOO bar", "dockerfile parse error on line 3: unknown instruction: FOO"),
        ("RUN x", "dockerfile parse error on line 1: no build stage in current context"),
        ("ARG x", "no build stage in current context"),
        ("FROM", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        (
            "FROM a AS 1x",
            "dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        (
            "FROM x\nCOPY a",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM x\nCOPY --nope=1 a b", "dockerfile parse error on line 2: unknown flag: --nope"),
        (
            "FROM x\nCOPY --from=1 --from=2 a b",
            "dockerfile parse error on line 2: duplicate flag specified: --from",
        ),
        ("FROM x\nCOPY --from a b", "dockerfile parse error on line 2: missing a value on flag: --from"),
        (
            "FROM x\nCOPY --link=maybe a b",
            "dockerfile parse error on line 2: expecting boolean value for flag --link, not: maybe",
        ),
        ("FROM x\nENV a", "dockerfile parse error on line 2: ENV must have two arguments"),
        (
            "FROM x\nENV a=b c",
            "dockerfile parse error on line 2: Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        ("FROM x\nENV =b", "dockerfile parse error on line 2: ENV names can not be blank"),
        ("FROM x\nWORKDIR", "dockerfile parse error on line 2: WORKDIR requires exactly one argument"),
        (
            "FROM x\nSHELL sh -c",
            "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form",
        ),
        (
            "FROM x\nCMD [\"a\", 1]",
            "dockerfile parse error on line 2: when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "FROM x\nONBUILD ONBUILD RUN x",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "FROM x\nONBUILD FROM y",
            "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "FROM x\nHEALTHCHECK --interval=1us CMD x",
            "dockerfile parse error on line 2: Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "FROM x\nHEALTHCHECK EXEC x",
            "dockerfile parse error on line 2: Unknown type \"EXEC\" in HEALTHCHECK (try CMD)",
        ),
        ("FROM x\nRUN", "dockerfile parse error on line 2: RUN requires at least one argument"),
        (
            "FROM x\nSTOPSIGNAL a b",
            "dockerfile parse error on line 2: STOPSIGNAL requires exactly one argument",
        ),
        (
            "# escape=x\nFROM x",
            "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn variables_are_expanded() {
    let values: HashMap<&str, &str> = [("a", "A"), ("empty", ""), ("path", "/usr/local/lib.tar.gz")].into();
    let lookup = |name: &str| values.get(name).map(|value| (*value).to_owned());
    let check = |text: &str, expected: &str| {
        assert_eq!(expand::word(text, '\\', &lookup).as_deref(), Ok(expected), "{text}");
    };
    check("$a-${a}x$aa.", "A-Ax.");
    check("${no:-d} ${empty:-d} ${empty-d} ${a:-d}", "d d  A");
    check("${no:+d} ${empty:+d} ${empty+d} ${a:+d}", "  d d");
    check("${no:-${a}${no:-'x}'}}", "Ax}");
    check("\\$a '$a' \"$a\" \"\\$a\" \"\\x\" \\x", "$a $a A $a \\x x");
    check("\"a b\"'c d'e", "a bc de");
    check(
        "${path##*/} ${path#*/} ${path%.*} ${path%%.*}",
        "lib.tar.gz usr/local/lib.tar.gz /usr/local/lib.tar /usr/local/lib",
    );
    check(
        "${path//l/L} ${path/l/L} ${path/l?b}",
        "/usr/LocaL/Lib.tar.gz /usr/Local/lib.tar.gz /usr/local/.tar.gz",
    );
    check("$ $$ 5$", "$ $$ 5$");
    check("ünï${a}côde", "ünïAcôde");
    for (text, expected) in [
        ("${a", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${a:x}", "unsupported modifier (:x) in substitution"),
        ("${no:?must be there}", "no: must be there"),
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
    ] {
        assert_eq!(expand::word(text, '\\', &lookup).unwrap_err(), expected, "{text}");
    }
    let words = expand::words("${no:-80 81} \"a b\" $a", '\\', &lookup).unwrap();
    assert_eq!(words, ["80", "81", "a b", "A"]);
    assert!(expand::word(&"${a:-".repeat(100), '\\', &lookup).is_err());
}

#[test]
fn contexts_are_filtered() {
    let check = |patterns: &str, path: &str, expected: bool| {
        assert_eq!(Ignore::parse(patterns).unwrap().matches(path), expected, "{patterns:?} {path}");
    };
    check("*.md", "a.md", true);
    check("*.md", "d/a.md", false);
    check("**/*.md", "d/e/a.md", true);
    check("**/*.md", "a.md", true);
    check("dir", "dir/sub/file", true);
    check("/dir/", "dir/file", true);
    check("./dir", "dir", true);
    check("dir/*", "dir", false);
    check("dir/**", "dir/a/b", true);
    check("**", "anything/at/all", true);
    check("*\n!keep", "keep", false);
    check("*\n!keep", "other", true);
    check("*\n!keep/this", "keep/this", false);
    check("*\n!keep/this", "keep/that", true);
    check("*.md\n!README.md\nREADME.md", "README.md", true);
    check("# comment\n\n  spaced  ", "spaced", true);
    check("a?c", "abc", true);
    check("a?c", "a/c", false);
    check("[a-c]x", "bx", true);
    check("[^a-c]x", "bx", false);
    check("\\*", "*", true);
    check("\\*", "x", false);
    check("a/**/b", "a/b", true);
    check("a/**/b", "a/x/y/b", true);
    check("a/../b", "b", true);
    assert!(Ignore::parse("!").is_err());
    assert!(Ignore::parse("[").is_err());
    assert!(Ignore::parse("*\n!a").unwrap().has_exceptions());
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "(FROM|RUN|COPY|ENV|ARG|<<EOF|EOF|\\\\|`|\"|'|\\[|\\]|--from=|#|=|\\$\\{|\\}|\\n| |\t|a|é){0,40}") {
        let _ = parse(&text);
        let _ = parse_trigger(&text);
        let _ = Ignore::parse(&text);
        let lookup = |_: &str| Some("v".to_owned());
        let _ = expand::word(&text, '\\', &lookup);
        let _ = expand::words(&text, '\\', &lookup);
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
        let _ = expand::word(&text, '\\', &|_| None);
        let _ = Ignore::parse(&text).map(|ignore| ignore.matches(&text));
    }

    #[test]
    fn printed_steps_parse_to_the_same(name in "[a-z]{1,4}", value in "[a-z0-9 ]{0,6}") {
        let first = parse(&format!("FROM x\nENV {name}=\"{value}\" \\\n  b=c\n")).unwrap();
        let again = parse(&format!("FROM x\n{}", first.stages[0].steps[0].text)).unwrap();
        prop_assert_eq!(&first.stages[0].steps[0].instruction, &again.stages[0].steps[0].instruction);
    }

    #[test]
    fn text_without_specials_is_itself(text in "[a-zA-Z0-9 ./:=-]{0,40}") {
        prop_assert_eq!(expand::word(&text, '\\', &|_| None), Ok(text));
    }

    #[test]
    fn a_path_matches_itself_and_what_is_in_it(path in "[a-z]{1,3}(/[a-z]{1,3}){0,3}", below in "[a-z]{1,3}") {
        let ignore = Ignore::parse(&path).unwrap();
        prop_assert!(ignore.matches(&path));
        let child = format!("{path}/{below}");
        let sibling = format!("{path}{below}");
        prop_assert!(ignore.matches(&child));
        prop_assert!(!ignore.matches(&sibling));
    }
}
