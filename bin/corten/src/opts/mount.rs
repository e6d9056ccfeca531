//! `--mount`.

use api_types::StringMap;
use api_types::container::{BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions};

use crate::args::check::{csv_fields, parse_bool};

/// One `--mount` value: comma-separated `key=value`.
pub fn parse(value: &str) -> Result<Mount, String> {
    if value.is_empty() {
        // What the reader of comma-separated values says of nothing.
        return Err("EOF".to_owned());
    }
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in csv_fields(value)? {
        let (key, text) = match field.split_once('=') {
            Some((key, text)) => (key.to_lowercase(), text),
            None => (field.to_lowercase(), ""),
        };
        let has_value = field.contains('=');
        match key.as_str() {
            "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" | "bind-create-src" if !has_value => {
                set(&mut mount, &key, "true", &field)?;
            }
            _ if !has_value => return Err(format!("invalid field '{field}' must be a key=value pair")),
            _ => set(&mut mount, &key, text, &field)?,
        }
    }
    check(&mount)?;
    Ok(mount)
}

fn boolean(key: &str, text: &str) -> Result<bool, String> {
    parse_bool(text).map_err(|_| format!("invalid value for {key}: {text}"))
}

fn pair(map: &mut Option<StringMap>, text: &str) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    map.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

fn set(mount: &mut Mount, key: &str, text: &str, field: &str) -> Result<(), String> {
    match key {
        "type" => mount.kind = text.to_lowercase(),
        "source" | "src" => {
            mount.source = text.to_owned();
            // A path relative to here is only known as such by us.
            if text == "." || text.starts_with("./") || text.starts_with("../") || text == ".." {
                mount.source = absolute(text);
            }
        }
        "target" | "dst" | "destination" => mount.target = text.to_owned(),
        "readonly" | "ro" => mount.read_only = boolean(key, text)?,
        "consistency" => mount.consistency = text.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = text.to_lowercase(),
        "bind-create-src" => bind(mount).create_mountpoint = boolean(key, text)?,
        "bind-nonrecursive" => bind(mount).non_recursive = boolean(key, text)?,
        "bind-recursive" => match text {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                return Err(format!(
                    "invalid value for {key}: {text} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                ));
            }
        },
        "volume-subpath" => volume(mount).subpath = text.to_owned(),
        "volume-nocopy" => {
            volume(mount).no_copy =
                parse_bool(text).map_err(|_| format!("invalid value for volume-nocopy: {text}"))?;
        }
        "volume-label" => pair(&mut volume(mount).labels, text),
        "volume-driver" => driver(mount).name = text.to_owned(),
        "volume-opt" => pair(&mut driver(mount).options, text),
        "image-subpath" => {
            mount.image_options.get_or_insert_with(ImageOptions::default).subpath = text.to_owned();
        }
        "tmpfs-size" => {
            let size =
                crate::units::parse_ram(text).map_err(|_| format!("invalid value for {key}: {text}"))?;
            tmpfs(mount).size_bytes = size;
        }
        "tmpfs-mode" => {
            let mode =
                u32::from_str_radix(text, 8).map_err(|_| format!("invalid value for {key}: {text}"))?;
            tmpfs(mount).mode = mode;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    volume(mount).driver_config.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn check(mount: &Mount) -> Result<(), String> {
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let mix =
        |options: &str, kind: &str| Err(format!("cannot mix '{options}' options with mount type '{kind}'"));
    if mount.volume_options.is_some() && mount.kind != "volume" {
        return mix("volume-*", &mount.kind);
    }
    if mount.bind_options.is_some() && mount.kind != "bind" {
        return mix("bind-*", &mount.kind);
    }
    if mount.tmpfs_options.is_some() && mount.kind != "tmpfs" {
        return mix("tmpfs-*", &mount.kind);
    }
    if mount.image_options.is_some() && mount.kind != "image" {
        return mix("image-*", &mount.kind);
    }
    if let Some(options) = &mount.bind_options {
        if options.read_only_non_recursive && !mount.read_only {
            return Err(
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
                    .to_owned(),
            );
        }
        if options.read_only_force_recursive && !mount.read_only {
            return Err(
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
                    .to_owned(),
            );
        }
        if options.read_only_force_recursive && options.propagation != "rprivate" {
            return Err(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in \
                        conjunction"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// `path` seen from the current folder, without `.` and `..`.
pub fn absolute(path: &str) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let mut out = std::path::PathBuf::new();
    for part in here.join(path).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mounts() {
        let mount = parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").expect("valid");
        assert_eq!((mount.kind.as_str(), mount.source.as_str(), mount.read_only), ("bind", "/a", true));
        assert_eq!(mount.bind_options.map(|options| options.propagation), Some("rslave".to_owned()));
        let mount = parse("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770").expect("valid");
        assert_eq!(
            mount.tmpfs_options.map(|options| (options.size_bytes, options.mode)),
            Some((67_108_864, 0o1770))
        );
        let mount = parse("src=v,dst=/v,volume-opt=type=nfs,volume-opt=o=addr").expect("valid");
        let options =
            mount.volume_options.and_then(|options| options.driver_config).and_then(|config| config.options);
        assert_eq!(options.map(|options| options.len()), Some(2));
    }

    #[test]
    fn refusals() {
        for (value, text) in [
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("target=/x,foo=1", "unexpected key 'foo' in 'foo=1'"),
            ("type=bind,source=/x", "target is required"),
            ("type=bind,src=x,dst=/x,readonly=z", "invalid value for readonly: z"),
            ("type=bind,dst=/x,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
        ] {
            assert_eq!(parse(value), Err(text.to_owned()), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(value in "\\PC{0,40}") {
            let _ = parse(&value);
        }
    }
}
