//! The texts of `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` in a container. Pure: text in, text
//! out; who reads and writes the files is the engine's affair.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where systemd-resolved lists the servers behind its own local one.
pub const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// Where everybody else lists them.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Servers for containers on hosts that list none which a container could reach.
const FALLBACK_V4: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];
const FALLBACK_V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844)),
];
/// The local server of systemd-resolved.
const RESOLVED_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// Larger files are cut: no resolver reads that far.
const BYTES_MAX: usize = 64 * 1024;

/// The text of `/etc/hostname`.
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// What `/etc/hosts` is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hosts<'a> {
    /// The container's own addresses; none in the networks `none` and `host`.
    pub own: &'a [IpAddr],
    pub hostname: &'a str,
    /// May be empty.
    pub domain: &'a str,
    /// Further lines (`--add-host`, links): address and name.
    pub extra: &'a [(IpAddr, &'a str)],
    /// Leave out the lines for IPv6: the container has it switched off altogether.
    pub no_ipv6: bool,
}

impl Hosts<'_> {
    /// The whole file.
    pub fn text(&self) -> String {
        let mut text = String::from("127.0.0.1\tlocalhost\n");
        if !self.no_ipv6 {
            text.push_str(
                "::1\tlocalhost ip6-localhost ip6-loopback\n\
                 fe00::\tip6-localnet\n\
                 ff00::\tip6-mcastprefix\n\
                 ff02::1\tip6-allnodes\n\
                 ff02::2\tip6-allrouters\n",
            );
        }
        self.append_to(&mut text);
        text
    }

    /// The host's own file with the container's lines behind, for containers in the host's network.
    pub fn text_after(&self, host_file: &str) -> String {
        let mut text = host_file.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.append_to(&mut text);
        text
    }

    fn append_to(&self, text: &mut String) {
        for (address, name) in self.extra {
            push_line(text, *address, name);
        }
        for address in self.own {
            let (hostname, domain) = (self.hostname, self.domain);
            if domain.is_empty() {
                push_line(text, *address, hostname);
            } else {
                push_line(text, *address, &format!("{hostname}.{domain} {hostname}"));
            }
        }
    }
}

/// The text of a hosts file in which the line that a name begins has another address, or, for none, is left out. A name
/// that begins no line is not added.
pub fn move_host(text: &str, name: &str, address: Option<IpAddr>) -> String {
    let mut moved = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let names = line.split_once('\t').map(|(_, names)| names.trim_end());
        let first = names.and_then(|names| names.split_ascii_whitespace().next());
        match (names, address) {
            (Some(names), Some(address)) if first == Some(name) => push_line(&mut moved, address, names),
            (Some(_), None) if first == Some(name) => {}
            _ => moved.push_str(line),
        }
    }
    moved
}

fn push_line(text: &mut String, address: IpAddr, names: &str) {
    writeln!(text, "{address}\t{names}").expect("writing to a string cannot fail");
}

/// Which file to start from, given the text of `/etc/resolv.conf`: that one, unless all it names is the
/// local server of systemd-resolved, which no container can reach.
pub fn resolv_conf_source(text: &str) -> &'static str {
    let parsed = ResolvConf::parse(text);
    if parsed.nameservers == [Nameserver::from(RESOLVED_STUB)] { RESOLVED_CONF } else { RESOLV_CONF }
}

/// A server's address; IPv6 ones may name a link (`fe80::1%eth0`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nameserver {
    pub address: IpAddr,
    pub zone: Option<String>,
}

impl From<IpAddr> for Nameserver {
    fn from(address: IpAddr) -> Self {
        Self { address, zone: None }
    }
}

/// `/etc/resolv.conf`, as far as it concerns resolvers in containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub nameservers: Vec<Nameserver>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// Lines that are none of these (`sortlist`, …), as they were.
    pub other: Vec<String>,
}

impl ResolvConf {
    /// Read a file; what makes no sense is left out, as resolvers do.
    pub fn parse(text: &str) -> Self {
        let mut end = text.len().min(BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut conf = Self::default();
        for line in text[..end].lines() {
            let mut words = line.split_whitespace();
            let Some(keyword) = words.next() else { continue };
            if keyword.starts_with(['#', ';']) {
                continue;
            }
            match keyword {
                "nameserver" => conf.nameservers.extend(words.next().and_then(parse_nameserver)),
                // The last one counts.
                "search" | "domain" => conf.search = words.map(str::to_owned).collect(),
                "options" => conf.options.extend(words.map(str::to_owned)),
                _ => conf.other.push(line.trim().to_owned()),
            }
        }
        conf
    }

    /// Put a container's own settings in place of the host's; an empty list leaves the host's. The
    /// search list `.` means none at all.
    pub fn override_with(&mut self, nameservers: &[IpAddr], search: &[String], options: &[String]) {
        if !nameservers.is_empty() {
            self.nameservers = nameservers.iter().copied().map(Nameserver::from).collect();
        }
        if !search.is_empty() {
            self.search = search.to_vec();
        }
        if self.search == ["."] {
            self.search.clear();
        }
        if !options.is_empty() {
            self.options = options.to_vec();
        }
    }

    /// Make it fit a network without a resolver of its own: servers on the host's loopback cannot be
    /// reached from a container, nor IPv6 ones if it has no IPv6. If none is left, public ones are used.
    pub fn fit_plain_network(&mut self, has_ipv6: bool) {
        self.nameservers
            .retain(|server| !server.address.is_loopback() && (has_ipv6 || server.address.is_ipv4()));
        if self.nameservers.is_empty() {
            self.nameservers.extend(FALLBACK_V4.map(Nameserver::from));
            if has_ipv6 {
                self.nameservers.extend(FALLBACK_V6.map(Nameserver::from));
            }
        }
    }

    /// The whole file.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# Generated by Corten.\n# Corten makes no further changes once this file has been edited.\n\n",
        );
        for Nameserver { address, zone } in &self.nameservers {
            match zone {
                Some(zone) => writeln!(text, "nameserver {address}%{zone}"),
                None => writeln!(text, "nameserver {address}"),
            }
            .expect("writing to a string cannot fail");
        }
        for (keyword, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                writeln!(text, "{keyword} {}", words.join(" ")).expect("writing to a string cannot fail");
            }
        }
        for line in &self.other {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn parse_nameserver(word: &str) -> Option<Nameserver> {
    let (address, zone) = match word.split_once('%') {
        Some((address, zone)) => (address, Some(zone.to_owned())),
        None => (word, None),
    };
    Some(Nameserver { address: address.parse().ok()?, zone })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_of_a_container_on_a_bridge() {
        let hosts = Hosts {
            own: &[ip("172.17.0.2")],
            hostname: "web",
            extra: &[(ip("172.17.0.1"), "host.docker.internal")],
            ..Hosts::default()
        };
        assert_eq!(
            hosts.text(),
            "127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\n\
             ff02::2\tip6-allrouters\n\
             172.17.0.1\thost.docker.internal\n\
             172.17.0.2\tweb\n"
        );
    }

    #[test]
    fn a_domain_gives_two_names() {
        let hosts = Hosts {
            own: &[ip("172.17.0.2")],
            hostname: "web",
            domain: "example.com",
            no_ipv6: true,
            ..Hosts::default()
        };
        assert_eq!(hosts.text(), "127.0.0.1\tlocalhost\n172.17.0.2\tweb.example.com web\n");
    }

    #[test]
    fn the_hosts_file_of_the_host_is_kept() {
        let extra = [(ip("10.0.0.1"), "db")];
        let hosts = Hosts { extra: &extra, ..Hosts::default() };
        assert_eq!(hosts.text_after("127.0.0.1 localhost"), "127.0.0.1 localhost\n10.0.0.1\tdb\n");
    }

    #[test]
    fn unreachable_servers_are_dropped() {
        let text = "# a comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fd00::1\n\
                    domain a.example\nsearch b.example c.example\noptions edns0 trust-ad\n";
        let mut conf = ResolvConf::parse(text);
        conf.fit_plain_network(false);
        assert_eq!(
            conf.text().split_once("\n\n").unwrap().1,
            "nameserver 10.0.0.2\nsearch b.example c.example\noptions edns0 trust-ad\n"
        );
    }

    #[test]
    fn public_servers_stand_in() {
        let mut conf = ResolvConf::parse("nameserver 127.0.0.1\n");
        conf.fit_plain_network(false);
        assert_eq!(conf.nameservers, FALLBACK_V4.map(Nameserver::from));
        let mut conf = ResolvConf::default();
        conf.fit_plain_network(true);
        assert_eq!(conf.nameservers.len(), 4);
    }

    #[test]
    fn own_settings_replace_the_hosts() {
        let mut conf = ResolvConf::parse("nameserver 10.0.0.2\nsearch corp\noptions rotate\n");
        conf.override_with(&[ip("1.1.1.1")], &[".".into()], &["ndots:2".into()]);
        assert_eq!(conf.text().split_once("\n\n").unwrap().1, "nameserver 1.1.1.1\noptions ndots:2\n");
    }

    #[test]
    fn the_local_stub_is_followed_to_the_real_list() {
        assert_eq!(resolv_conf_source("nameserver 127.0.0.53\noptions edns0\n"), RESOLVED_CONF);
        assert_eq!(resolv_conf_source("nameserver 127.0.0.53\nnameserver 10.0.0.2\n"), RESOLV_CONF);
        assert_eq!(resolv_conf_source(""), RESOLV_CONF);
    }

    #[test]
    fn a_zone_is_kept() {
        let conf = ResolvConf::parse("nameserver fe80::1%eth0\n");
        assert!(conf.text().ends_with("nameserver fe80::1%eth0\n"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_what_is_written_reads_the_same(text in "(?s).{0,400}") {
            let conf = ResolvConf::parse(&text);
            prop_assert_eq!(ResolvConf::parse(&conf.text()), conf);
        }

        #[test]
        fn lines_of_keywords_round_trip(
            lines in proptest::collection::vec("(nameserver|search|domain|options|sortlist|#|;)[ \t][a-z0-9.:%]{0,12}( [a-z.]{1,5})?", 0..12),
        ) {
            let conf = ResolvConf::parse(&lines.join("\n"));
            prop_assert_eq!(ResolvConf::parse(&conf.text()), conf);
        }
    }
}
