//! Names of images as they are shown.

/// The name with `:latest` if it has neither tag nor digest, as Docker prints it when it is not found.
pub fn familiar(name: &str) -> String {
    let short =
        name.strip_prefix("docker.io/library/").or_else(|| name.strip_prefix("docker.io/")).unwrap_or(name);
    if short.contains('@') || tag(short).is_some() { short.to_owned() } else { format!("{short}:latest") }
}

/// The tag of a name, if it has one.
pub fn tag(name: &str) -> Option<&str> {
    let name = name.split('@').next().unwrap_or(name);
    let (_, tag) = name.rsplit_once(':')?;
    // A colon before a slash is the port of a registry.
    (!tag.contains('/')).then_some(tag)
}

/// Repository, tag and digest.
pub fn split(name: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = name.split_once('@').map_or((name, None), |(rest, digest)| (rest, Some(digest)));
    match tag(rest) {
        Some(tag) => (&rest[..rest.len() - tag.len() - 1], Some(tag), digest),
        None => (rest, None, digest),
    }
}

/// Refuses what cannot be a name of an image, with the words of the reference grammar.
pub fn check(name: &str) -> Result<(), String> {
    let (repository, tag, digest) = split(name);
    let path_of = |repository: &'_ str| match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path.to_owned(),
        _ => repository.to_owned(),
    };
    let path = path_of(repository);
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let full =
            if repository.contains('/') { repository.to_owned() } else { format!("library/{repository}") };
        return Err(format!("invalid reference format: repository name ({full}) must be lowercase"));
    }
    let component = |part: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(edge)
            && part.ends_with(edge)
            && part.chars().all(|c| edge(c) || matches!(c, '.' | '_' | '-'))
            && !part.contains("..")
            && !part.contains("___")
    };
    let tag_fits = |tag: &str| {
        !tag.is_empty()
            && tag.len() <= 128
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let digest_fits =
        |digest: &str| digest.split_once(':').is_some_and(|(name, hex)| !name.is_empty() && hex.len() >= 32);
    let fits = path.split('/').all(component) && tag.is_none_or(tag_fits) && digest.is_none_or(digest_fits);
    if fits { Ok(()) } else { Err("invalid reference format".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(familiar("busybox"), "busybox:latest");
        assert_eq!(familiar("docker.io/library/busybox:1"), "busybox:1");
        assert_eq!(familiar("localhost:5000/x"), "localhost:5000/x:latest");
        assert_eq!(split("localhost:5000/x:1@sha256:ab"), ("localhost:5000/x", Some("1"), Some("sha256:ab")));
        assert!(check("busybox").is_ok());
        assert!(check("Host.example/a/b_c:T1").is_ok());
        assert_eq!(check(""), Err("invalid reference format".to_owned()));
        assert_eq!(check("-"), Err("invalid reference format".to_owned()));
        assert_eq!(
            check("A B"),
            Err("invalid reference format: repository name (library/A B) must be lowercase".to_owned())
        );
    }
}
