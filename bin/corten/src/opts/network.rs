//! `--network`: a name, or comma-separated options.

use api_types::StringMap;

use crate::args::check::csv_fields;

/// One `--network` value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    pub target: String,
    pub aliases: Vec<String>,
    pub links: Vec<String>,
    pub driver_opts: StringMap,
    pub ipv4: String,
    pub ipv6: String,
    pub link_local: Vec<String>,
    pub mac: String,
    pub priority: i64,
}

pub fn parse(value: &str) -> Result<Attachment, String> {
    let mut found = Attachment::default();
    if !value.contains('=') {
        found.target = value.to_owned();
        return Ok(found);
    }
    for field in csv_fields(value)? {
        let Some((key, text)) = field.split_once('=') else {
            return Err(format!("invalid field {field}"));
        };
        let (key, text) = (key.trim().to_lowercase(), text.trim());
        match key.as_str() {
            "name" => found.target = text.to_owned(),
            "alias" => found.aliases.push(text.to_owned()),
            "driver-opt" => match text.split_once('=') {
                Some((key, value)) => {
                    found.driver_opts.insert(key.trim().to_lowercase(), value.trim().to_owned());
                }
                None => return Err("invalid key value pair format in driver options".to_owned()),
            },
            "ip" => found.ipv4 = text.to_owned(),
            "ip6" => found.ipv6 = text.to_owned(),
            "mac-address" => found.mac = text.to_owned(),
            "link-local-ip" => found.link_local.push(text.to_owned()),
            "gw-priority" => {
                found.priority = text.parse().map_err(|_| {
                    format!(
                        "invalid gw-priority: strconv.Atoi: parsing {}: invalid syntax",
                        template::quote(text)
                    )
                })?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if found.target.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(found)
}

/// A MAC address of 6, 8 or 20 bytes.
pub fn mac_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = |separator: char, len: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|part| hex(part, len))
    };
    if parts(':', 2, &[6, 8, 20]) || parts('-', 2, &[6, 8, 20]) || parts('.', 4, &[3, 4, 10]) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text} is not a valid mac address"))
    }
}

/// Whether a network is one that users make, and not a mode with a meaning of its own.
pub fn is_user_defined(name: &str) -> bool {
    !matches!(name, "" | "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attachments() {
        assert_eq!(parse("web").expect("valid").target, "web");
        let found =
            parse("name=web,alias=a,alias=b,ip=1.2.3.4,driver-opt=k=v,gw-priority=-3").expect("valid");
        assert_eq!((found.target.as_str(), found.aliases.len(), found.priority), ("web", 2, -3));
        assert_eq!(parse("foo=1"), Err("invalid field key foo".to_owned()));
        assert_eq!(mac_address("zz"), Err("zz is not a valid mac address".to_owned()));
        assert!(mac_address("92:d0:c6:0a:29:33").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(value in "\\PC{0,40}") {
            let _ = (parse(&value), mac_address(&value));
        }
    }
}
