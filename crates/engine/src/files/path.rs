//! Paths as clients of the archive endpoints write them, where a slash or a dot at the end has a meaning.

/// The path from the root, cleaned by name, with the `/.` or `/` at its end kept.
pub fn absolute(path: &str) -> String {
    let mut clean = model::mounts::clean(path).to_string_lossy().into_owned();
    if base(path) == "." {
        if !clean.ends_with('/') {
            clean.push('/');
        }
        clean.push('.');
    }
    if path.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// The last name of a path, slashes at its end aside; `/` has none, and is its own.
pub fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ if path.is_empty() => ".",
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_paths_are_kept() {
        for (path, absolute_path, name) in [
            ("/", "/", "/"),
            (".", "/.", "."),
            ("/.", "/.", "."),
            ("./", "/./", "."),
            ("/./", "/./", "."),
            ("a/b", "/a/b", "b"),
            ("/a/../b//c/", "/b/c/", "c"),
            ("/a/.", "/a/.", "."),
            ("../../a", "/a", "a"),
            ("/a/..", "/", "/"),
        ] {
            let found = absolute(path);
            assert_eq!((found.as_str(), base(&found)), (absolute_path, name), "{path}");
        }
    }
}
