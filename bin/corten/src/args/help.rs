//! Help texts in Docker's layout.

use std::fmt::Write as _;

use super::{Command, Flag, Kind, Section};
use crate::plugins::Plugin;

/// What help needs to know about its surroundings.
pub struct Setting<'a> {
    /// `docker` or `corten`.
    pub program: &'a str,
    /// Columns of the terminal; 80 where there is none.
    pub columns: usize,
    /// The folder of the client's configuration, for default values.
    pub config: &'a str,
    /// Commands that programs add; only the root's help lists them.
    pub plugins: &'a [Plugin],
}

/// The whole help text of `command`, reached by `path`.
pub fn render(setting: &Setting<'_>, command: &'static Command, path: &[&'static str]) -> String {
    if path.is_empty() {
        return root(setting, command);
    }
    let full = format!("{} {}", setting.program, path.join(" "));
    let mut out = String::from("Usage:  ");
    let usage = if command.subs.is_empty() { command.usage } else { "COMMAND" };
    for (index, line) in usage.split('\n').enumerate() {
        // Further forms are shown by the short path, whichever way the help was asked for.
        let _ = match index {
            0 => writeln!(out, "{}", format!("{full} {line}").trim_end()),
            _ => writeln!(out, "\t{} {} {line}", setting.program, command.name),
        };
    }
    let text = if command.long.is_empty() { command.short } else { command.long };
    let _ = write!(out, "\n{}\n", text.replace("{program}", setting.program));
    if !command.paths.is_empty() {
        let paths: Vec<_> =
            command.paths.split(", ").map(|path| format!("{} {path}", setting.program)).collect();
        let _ = write!(out, "\nAliases:\n  {}\n", paths.join(", "));
    }
    let flags: Vec<_> = command.all_flags().collect();
    if flags.iter().any(|flag| !flag.hidden) {
        let _ = write!(out, "\nOptions:\n{}", options(setting, &flags));
    }
    if !command.subs.is_empty() {
        out.push_str("\nCommands:\n");
        commands(&mut out, command.subs.iter().copied());
        let _ = writeln!(out, "\nRun '{full} COMMAND --help' for more information on a command.");
    }
    out
}

fn root(setting: &Setting<'_>, root: &'static Command) -> String {
    let program = setting.program;
    let mut out = format!("Usage:  {program} [OPTIONS] COMMAND\n\n{}\n", root.short);
    for (heading, section) in [
        ("Common Commands", Section::Common),
        ("Management Commands", Section::Management),
        ("Commands", Section::Plain),
    ] {
        let _ = write!(out, "\n{heading}:\n");
        let subs = root.subs.iter().copied().filter(|sub| sub.section == section);
        let mut lines: Vec<(String, &str)> = subs.map(|sub| (sub.name.to_owned(), sub.short)).collect();
        if section == Section::Management {
            let usable =
                setting.plugins.iter().filter(|plugin| plugin.error.is_none() && !plugin.is_hidden());
            lines.extend(usable.map(|plugin| (format!("{}*", plugin.name), plugin.text("ShortDescription"))));
            lines.sort_by(|left, right| left.0.trim_end_matches('*').cmp(right.0.trim_end_matches('*')));
        }
        for (name, short) in lines {
            let _ = writeln!(out, "  {name:<11} {short}");
        }
    }
    let flags: Vec<_> = root.all_flags().collect();
    let _ = write!(out, "\nGlobal Options:\n{}", options(setting, &flags));
    let _ = writeln!(out, "\nRun '{program} COMMAND --help' for more information on a command.");
    if program == "docker" {
        out.push_str("\nFor more help on how to use Docker, head to https://docs.docker.com/go/guides/\n");
    }
    out
}

fn commands<'a>(out: &mut String, commands: impl Iterator<Item = &'a Command>) {
    for command in commands.filter(|command| command.section != Section::Hidden) {
        let _ = writeln!(out, "  {:<11} {}", command.name, command.short);
    }
}

fn type_name(flag: &Flag) -> &'static str {
    match flag.kind {
        Kind::Bool => "",
        Kind::Str => "string",
        Kind::Int => "int",
        Kind::Uint => "uint",
        Kind::Uint16 => "uint16",
        Kind::List(name) => name,
        Kind::Map => "map",
        Kind::Strings => "strings",
        Kind::Bytes | Kind::SwapBytes => "bytes",
        Kind::Duration => "duration",
        Kind::Decimal => "decimal",
    }
}

fn default_text(setting: &Setting<'_>, flag: &Flag) -> String {
    let default = flag.default.replace("{config}", setting.config);
    match flag.kind {
        _ if default.is_empty() => String::new(),
        Kind::Str => format!(" (default {})", template::quote(&default)),
        _ => format!(" (default {default})"),
    }
}

/// The lines of a flag list, sorted by name, the descriptions wrapped in a column of their own.
fn options(setting: &Setting<'_>, flags: &[&'static Flag]) -> String {
    let mut flags: Vec<_> = flags.iter().filter(|flag| !flag.hidden).collect();
    flags.sort_by_key(|flag| flag.name);
    let heads: Vec<String> = flags
        .iter()
        .map(|flag| {
            let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
            format!("  {short}--{} {}", flag.name, type_name(flag)).trim_end().to_owned()
        })
        .collect();
    // Three blanks between the longest head and the descriptions.
    let column = heads.iter().map(String::len).max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (flag, head) in flags.iter().zip(&heads) {
        let text = format!("{}{}", flag.help, default_text(setting, flag));
        let pad = column - head.len();
        let _ = writeln!(
            out,
            "{head}{}{}",
            " ".repeat(pad),
            wrap(column, setting.columns.saturating_sub(1), &text)
        );
    }
    out
}

/// How far a line may overrun to spare the next one an orphan.
const SLOP: usize = 5;
/// The narrowest column that is worth wrapping into.
const NARROWEST: usize = 24;

/// Wraps `text` into the columns from `indent` to `width`; the first line is indented by the caller.
fn wrap(indent: usize, width: usize, text: &str) -> String {
    let mut indent = indent;
    let mut out = String::new();
    let mut columns = width.saturating_sub(indent);
    if columns < NARROWEST {
        indent = 16;
        columns = width.saturating_sub(indent);
        let _ = write!(out, "\n{}", " ".repeat(indent));
    }
    let newline = format!("\n{}", " ".repeat(indent));
    if columns < NARROWEST {
        return text.replace('\n', &newline);
    }
    let columns = columns - SLOP;
    let (line, mut rest) = cut(columns, text);
    out.push_str(&line.replace('\n', &newline));
    while !rest.is_empty() {
        let (line, next) = cut(columns, rest);
        out.push_str(&newline);
        out.push_str(&line.replace('\n', &newline));
        rest = next;
    }
    out
}

/// The first line's worth of `text`, and the rest.
fn cut(columns: usize, text: &str) -> (&str, &str) {
    if columns + SLOP > text.len() {
        return (text, "");
    }
    let head = &text[..text.floor_char_boundary(columns)];
    let Some(at) = head.rfind([' ', '\t', '\n']).filter(|at| *at > 0) else {
        return (text, "");
    };
    match head.rfind('\n').filter(|newline| *newline > 0 && *newline < at) {
        Some(newline) => (&text[..newline], &text[newline + 1..]),
        None => (&text[..at], &text[at + 1..]),
    }
}
