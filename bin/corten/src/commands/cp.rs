//! `cp`: files between here and a container.
//!
//! The API knows archives and directories to unpack them into; which name a copy gets is decided here, by what is
//! there on both sides, as `cp -a` would. What comes out of a container was written by strangers: it is unpacked by
//! descriptor, below the one directory that it is meant for.

mod local;
mod progress;
mod remote;

use api_client::Client;

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::term;

use local::Local;
use progress::Progress;
use remote::Remote;

/// What is known of an end of the copy before it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub path: String,
    /// None if nothing is there.
    pub is_directory: Option<bool>,
}

struct Wishes {
    follow_link: bool,
    /// Keep owners, or give them to the container's user.
    owners: bool,
    quiet: bool,
}

/// One side of the command line.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Container { name: &'a str, path: &'a str },
    Here(&'a str),
}

/// `CONTAINER:PATH`, or a path here: what begins with `/` or `.` is one in any case.
fn side(argument: &str) -> Side<'_> {
    match argument.split_once(':') {
        Some((name, path)) if !argument.starts_with('/') && !name.starts_with('.') && !name.is_empty() => {
            Side::Container { name, path }
        }
        _ => Side::Here(argument),
    }
}

pub async fn cp(app: &App, matches: &Matches) -> Result<(), Fail> {
    let (source, destination) = (matches.args[0].as_str(), matches.args[1].as_str());
    for (argument, what) in [(source, "source"), (destination, "destination")] {
        if argument.is_empty() {
            return Err(Fail::text(format!("{what} can not be empty")));
        }
    }
    let quiet = if matches.has("quiet") { matches.bool("quiet") } else { !term::stdout_is_terminal() };
    let wishes = Wishes { follow_link: matches.bool("follow-link"), owners: matches.bool("archive"), quiet };
    match (side(source), side(destination)) {
        (Side::Container { name, path }, Side::Here(to)) => {
            from_container(app.client().await?, name, path, to, &wishes).await
        }
        (Side::Here(from), Side::Container { name, path }) => {
            to_container(app.client().await?, name, from, path, &wishes).await
        }
        (Side::Container { .. }, Side::Container { .. }) => {
            Err(Fail::text("copying between containers is not supported"))
        }
        (Side::Here(_), Side::Here(_)) => Err(Fail::text("must specify at least one container source")),
    }
}

/// Where an archive is to be unpacked, and the name that its top is to have there; none: the one that it has.
#[derive(Debug, PartialEq, Eq)]
pub struct Placing {
    pub directory: String,
    pub name: Option<String>,
}

/// The rules of `cp -a`, in the words of Docker's.
fn placing(source_is_directory: bool, destination: &End) -> Result<Placing, Fail> {
    let (parent, name) = split(&destination.path);
    let renamed = || Placing { directory: parent.clone(), name: Some(name.clone()) };
    match destination.is_directory {
        Some(true) => Ok(Placing { directory: destination.path.clone(), name: None }),
        Some(false) if source_is_directory => Err(Fail::text("cannot copy directory")),
        None if !source_is_directory && asks_for_directory(&destination.path) => {
            Err(Fail::text("no such directory"))
        }
        _ => Ok(renamed()),
    }
}

async fn from_container(
    client: &Client,
    container: &str,
    path: &str,
    to: &str,
    wishes: &Wishes,
) -> Result<(), Fail> {
    let remote = Remote { client, container };
    let to = if to == "-" { None } else { Some(local::absolute(to)?) };
    if let Some(to) = &to {
        local::check_output(to)?;
    }
    let mut source = path.to_owned();
    let mut rename = None;
    if wishes.follow_link
        && let Some(stat) = remote.stat(path).await
        && stat.is_symlink()
    {
        let (followed, name) = followed_name(path, &remote::join_link(path, &stat.link_target));
        (source, rename) = (followed, name);
    }
    let Some(to) = to else { return remote::to_stdout(remote.get(&source).await?.1).await };
    let (stat, incoming) = remote.take(&source).await?;
    let destination = local::destination(&to)?;
    let placing = placing(stat.is_directory(), &destination)?;
    let old = top_name(&source);
    let new = placing.name.clone().or(rename).unwrap_or_else(|| old.clone());
    let mut progress = Progress::new(wishes.quiet, "Copying from container - ");
    let unpacked = local::Unpack {
        directory: placing.directory,
        rename: (old != new).then(|| (old.into_bytes(), new.into_bytes())),
        keep_owners: wishes.owners,
    };
    let copied = remote::receive(incoming, unpacked, &mut progress).await;
    progress.end(copied.is_ok().then_some((stat.told_size(), to.as_str())));
    copied
}

async fn to_container(
    client: &Client,
    container: &str,
    from: &str,
    path: &str,
    wishes: &Wishes,
) -> Result<(), Fail> {
    let remote = Remote { client, container };
    let destination = remote.destination(path).await?;
    let mut progress = Progress::new(wishes.quiet, "Copying to container - ");
    let told = format!("{container}:{}", destination.path);
    if from == "-" {
        if destination.is_directory != Some(true) {
            return Err(Fail::text(format!("destination \"{container}:{path}\" must be a directory")));
        }
        let body = super::transfer::read_body(std::io::stdin());
        let sent = remote.put(&destination.path, body, wishes.owners).await;
        progress.end(sent.is_ok().then_some((None, told.as_str())));
        return sent;
    }
    let source = Local::open(&local::absolute(from)?, wishes.follow_link)?;
    let placing = placing(source.is_directory, &destination)?;
    let name = placing.name.unwrap_or_else(|| source.name.clone());
    let size = if wishes.quiet { None } else { source.size() };
    if let Some(offered) = remote.offer(&placing.directory, wishes.owners).await? {
        let counter = progress.counter();
        let sent = progress.during(move || offered.send(source, &name, counter)).await;
        progress.end(sent.is_ok().then_some((size, told.as_str())));
        return sent;
    }
    let (body, packing) = source.pack(name);
    let body = progress.watch(body);
    let sent = remote.put(&placing.directory, body, wishes.owners).await;
    let sent = match packing.failure() {
        // The daemon only saw the archive break off.
        Some(why) => Err(Fail::text(why)),
        None => sent,
    };
    progress.end(sent.is_ok().then_some((size, told.as_str())));
    sent
}

/// The name under which the daemon archives a path: `/` has none, and `.` is one.
fn top_name(path: &str) -> String {
    match split(path).1.as_str() {
        "/" => String::new(),
        name => name.to_owned(),
    }
}

/// Directory and last name of a path, cleaned; a `.` at the end stays the last name.
fn split(path: &str) -> (String, String) {
    let clean = clean(path);
    if last_name(path) == "." {
        return (clean, ".".to_owned());
    }
    match clean.rsplit_once('/') {
        _ if clean == "/" => (clean, "/".to_owned()),
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((parent, name)) => (parent.to_owned(), name.to_owned()),
        None => (".".to_owned(), clean),
    }
}

/// Go's `filepath.Base`.
fn last_name(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Go's `filepath.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Puts back the `/.` or `/` that cleaning a path took from its end.
fn keep_end(clean: String, path: &str) -> String {
    let mut kept = clean;
    if last_name(&kept) != "." && last_name(path) == "." {
        if !kept.ends_with('/') {
            kept.push('/');
        }
        kept.push('.');
    }
    if !kept.ends_with('/') && path.ends_with('/') {
        kept.push('/');
    }
    kept
}

fn asks_for_directory(path: &str) -> bool {
    path.ends_with('/') || last_name(path) == "."
}

/// What a link leads to, as the source, and the link's own name for the copy if the two differ.
fn followed_name(path: &str, target: &str) -> (String, Option<String>) {
    let followed = keep_end(target.to_owned(), path);
    let name = last_name(path);
    let differs = last_name(&followed) != name;
    (followed, differs.then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        let container = |name, path| Side::Container { name, path };
        assert_eq!(side("web:/etc"), container("web", "/etc"));
        assert_eq!(side("web:a:b"), container("web", "a:b"));
        assert_eq!(side("./a:b"), Side::Here("./a:b"));
        assert_eq!(side("/a:b"), Side::Here("/a:b"));
        assert_eq!(side("file"), Side::Here("file"));
        assert_eq!(side(":x"), Side::Here(":x"));
        assert_eq!(side("-"), Side::Here("-"));
    }

    #[test]
    fn names_of_paths() {
        for (path, parent, name) in [
            ("/a/b/", "/a", "b"),
            ("/a/b/.", "/a/b", "."),
            ("/", "/", "/"),
            ("/a", "/", "a"),
            ("a", ".", "a"),
            ("a/../b/c", "b", "c"),
        ] {
            assert_eq!(split(path), (parent.to_owned(), name.to_owned()), "{path}");
        }
        assert_eq!(keep_end(clean("/a/../b/."), "/a/../b/."), "/b/.");
        assert_eq!(keep_end(clean("/a/"), "/a/"), "/a/");
        assert_eq!(followed_name("/a/link", "/b/file"), ("/b/file".to_owned(), Some("link".to_owned())));
        assert_eq!(followed_name("/a/link/.", "/b/dir"), ("/b/dir/.".to_owned(), None));
        assert_eq!(top_name("/"), "");
        assert_eq!(top_name("/a/."), ".");
    }

    #[test]
    fn where_a_copy_goes() {
        let end = |path: &str, is_directory| End { path: path.to_owned(), is_directory };
        let placed = |directory: &str, name: Option<&str>| {
            Ok(Placing { directory: directory.to_owned(), name: name.map(str::to_owned) })
        };
        let check = |source, destination| placing(source, &destination).map_err(|fail| fail.text);
        assert_eq!(check(true, end("/d", Some(true))), placed("/d", None));
        assert_eq!(check(false, end("/d/.", Some(true))), placed("/d/.", None));
        assert_eq!(check(false, end("/d/f", Some(false))), placed("/d", Some("f")));
        assert_eq!(check(true, end("/d/f", Some(false))), Err("cannot copy directory".to_owned()));
        assert_eq!(check(true, end("/d/new/", None)), placed("/d", Some("new")));
        assert_eq!(check(false, end("/d/new", None)), placed("/d", Some("new")));
        assert_eq!(check(false, end("/d/new/", None)), Err("no such directory".to_owned()));
    }
}
