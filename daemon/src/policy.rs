// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an administrator lets ordinary users do: mptcpapid.conf(5).

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    manage: bool,
    grace: Option<u64>,
    default: Section,
    user: BTreeMap<String, Section>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Section {
    allow: Option<bool>,
    #[serde(rename = "use")]
    usable: Option<Vec<String>>,
    never: Option<Vec<String>>,
    advertise: Option<Vec<String>>,
    servers: Option<bool>,
    peers: Option<bool>,
    fate_sharing: Option<bool>,
    sockets: Option<u32>,
    clients: Option<u32>,
    requests: Option<u32>,
}

/// Addresses, by themselves or by the interface that holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Everything,
    Net(IpNet),
    /// An interface's name; a star at the end stands for anything.
    Interface(String),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        if let Ok(net) = net {
            return Ok(Self::Net(unmapped(net.trunc())));
        }
        let name = text.strip_suffix('*').unwrap_or(text);
        let plain = |c: char| c.is_ascii_graphic() && c != '/' && c != '*' && c != ':';
        // No interface is meant by what is nearly an address.
        let numeric = name.contains('.') && name.chars().all(|c| c.is_ascii_digit() || c == '.');
        if name.is_empty() || name.len() > 15 || !name.chars().all(plain) || numeric {
            return Err(format!("{text:?} is no address, no prefix (10.0.0.0/8) and no interface's name"));
        }
        Ok(Self::Interface(text.to_owned()))
    }

    fn matches(&self, addr: IpAddr, interface: Option<&str>) -> bool {
        match self {
            Self::Everything => true,
            Self::Net(net) => net.contains(&addr),
            Self::Interface(pattern) => interface.is_some_and(|name| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            }),
        }
    }
}

/// A prefix in the form of the addresses that it is compared with, in which
/// IPv4 is IPv4.
fn unmapped(net: IpNet) -> IpNet {
    let of_v4 = || {
        let addr = net.addr();
        let IpAddr::V4(v4) = addr.to_canonical() else { return None };
        let bits = if addr.is_ipv6() { net.prefix_len().checked_sub(96)? } else { net.prefix_len() };
        Ipv4Net::new(v4, bits).ok()
    };
    of_v4().map_or(net, IpNet::V4)
}

/// What one user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Anything at all.
    pub allow: bool,
    usable: Vec<Pattern>,
    never: Vec<Pattern>,
    advertise: Vec<Pattern>,
    /// Have lists on listeners, which puts the namespace in userspace mode.
    pub servers: bool,
    /// Name further addresses of a peer (mptcp_connectx), which subflows then
    /// go to.
    pub peers: bool,
    /// Connections end with their initial subflow, unless their application
    /// says otherwise.
    pub fate_sharing: bool,
    /// Sockets under control at a time.
    pub sockets: u32,
    /// Connections to the broker at a time.
    pub clients: u32,
    /// Requests in a second.
    pub requests: u32,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            allow: true,
            usable: vec![Pattern::Everything],
            never: Vec::new(),
            advertise: vec![Pattern::Everything],
            servers: false,
            peers: false,
            fate_sharing: false,
            sockets: 16384,
            clients: 1024,
            requests: 10_000,
        }
    }
}

impl Rights {
    fn amended(&self, section: &Section) -> Result<Self, String> {
        let patterns = |texts: &Option<Vec<String>>, otherwise: &Vec<Pattern>| match texts {
            None => Ok(otherwise.clone()),
            Some(texts) => texts.iter().map(|text| Pattern::parse(text)).collect::<Result<Vec<_>, _>>(),
        };
        Ok(Self {
            allow: section.allow.unwrap_or(self.allow),
            usable: patterns(&section.usable, &self.usable)?,
            never: patterns(&section.never, &self.never)?,
            advertise: patterns(&section.advertise, &self.advertise)?,
            servers: section.servers.unwrap_or(self.servers),
            peers: section.peers.unwrap_or(self.peers),
            fate_sharing: section.fate_sharing.unwrap_or(self.fate_sharing),
            sockets: section.sockets.unwrap_or(self.sockets),
            clients: section.clients.unwrap_or(self.clients).max(1),
            requests: section.requests.unwrap_or(self.requests).max(1),
        })
    }

    /// Whether subflows may start from this address, which this interface
    /// holds.
    pub fn may_use(&self, addr: IpAddr, interface: Option<&str>) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(addr, interface));
        any(&self.usable) && !any(&self.never)
    }

    /// Whether a peer may be told of it.
    pub fn may_advertise(&self, addr: IpAddr, interface: Option<&str>) -> bool {
        self.advertise.iter().any(|p| p.matches(addr, interface))
    }
}

/// The whole policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Keep the namespace in userspace mode and serve every connection.
    pub manage: bool,
    /// How long a list outlives its program's connection to the broker.
    pub grace: Duration,
    default: Rights,
    users: HashMap<u32, Rights>,
    /// Ids that users may take in user namespaces of their own: first, how
    /// many, whose.
    subordinate: Vec<(u32, u32, u32)>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            manage: false,
            grace: Duration::from_secs(60),
            default: Rights::default(),
            users: HashMap::new(),
            subordinate: Vec::new(),
        }
    }
}

/// Who has subordinate ids (subuid(5)).
pub const SUBUID: &str = "/etc/subuid";

impl Policy {
    /// Reads a policy file. The error says where and why, in words.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        let default = Rights::default().amended(&file.default).map_err(|e| format!("[default]: {e}"))?;
        let mut users = HashMap::new();
        for (name, section) in &file.user {
            let rights = default.amended(section).map_err(|e| format!("[user.{name}]: {e}"))?;
            let uid = uid_of(name)?;
            if users.insert(uid, rights).is_some() {
                return Err(format!("[user.{name}]: this user has two sections"));
            }
        }
        Ok(Self {
            manage: file.manage,
            grace: file.grace.map_or(Self::default().grace, Duration::from_secs),
            default,
            users,
            subordinate: Vec::new(),
        })
    }

    /// Learns whose subordinate ids are, from a file as /etc/subuid; a line
    /// that says nothing is passed over.
    pub fn learn_subordinates(&mut self, text: &str) {
        let line = |line: &str| {
            let mut words = line.split(':');
            let owner = uid_of(words.next()?).ok()?;
            let mut number = || words.next()?.trim().parse::<u32>().ok();
            Some((number()?, number()?, owner))
        };
        self.subordinate = text.lines().filter_map(line).collect();
    }

    /// The user that this id belongs to: quotas are of people, who have tens of
    /// thousands of ids.
    pub fn owner(&self, uid: u32) -> u32 {
        let held =
            |(first, count, _): &&(u32, u32, u32)| uid.checked_sub(*first).is_some_and(|at| at < *count);
        self.subordinate.iter().find(held).map_or(uid, |(_, _, owner)| *owner)
    }

    /// What this user may do.
    pub fn rights(&self, uid: u32) -> &Rights {
        self.users.get(&uid).unwrap_or(&self.default)
    }
}

fn uid_of(name: &str) -> Result<u32, String> {
    if let Ok(uid) = name.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("[user.{name}]: there is no such user")),
        Err(errno) => Err(format!("[user.{name}]: {}", errno.desc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Policy::parse(""), Ok(Policy::default()));
    }

    #[test]
    fn sections_amend_the_default() {
        let policy = Policy::parse(
            "grace = 5\n[default]\nuse = ['eth*', '10.0.0.0/8', 'fd00::1']\nnever = ['eth9']\n\
             [user.1000]\nservers = true\nadvertise = []\n[user.root]\nallow = false\n",
        )
        .unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let other = policy.rights(7);
        assert!(other.may_use(ip("192.0.2.1"), Some("eth0")));
        assert!(!other.may_use(ip("192.0.2.1"), Some("eth9")));
        assert!(!other.may_use(ip("192.0.2.1"), Some("wlan0")));
        assert!(other.may_use(ip("10.1.2.3"), Some("wlan0")));
        assert!(other.may_use(ip("fd00::1"), None));
        assert!(other.may_advertise(ip("192.0.2.1"), None) && !other.servers);
        let mine = policy.rights(1000);
        assert!(mine.servers && !mine.may_advertise(ip("10.1.2.3"), Some("eth0")));
        assert!(mine.may_use(ip("10.1.2.3"), Some("wlan0")));
        assert!(!policy.rights(0).allow);
        assert_eq!(policy.grace, Duration::from_secs(5));
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let policy = Policy::parse("[default]\nnever = ['::ffff:10.0.0.0/104', '::ffff:192.0.2.1']").unwrap();
        let rights = policy.rights(7);
        assert!(!rights.may_use(ip("10.1.2.3"), None) && !rights.may_use(ip("192.0.2.1"), None));
        assert!(rights.may_use(ip("11.1.2.3"), None) && rights.may_use(ip("::1"), None));
        assert!(Pattern::parse("eth0.100").is_ok() && Pattern::parse("::/0").is_ok());
    }

    #[test]
    fn subordinate_ids_are_their_user_s() {
        let mut policy = Policy::default();
        policy.learn_subordinates(
            "# x\n\n1000:100000:65536\nnobody-of-this-name:7:1\nroot:200000:2\n5:4294967290:65536\n9:x:1\n8",
        );
        for (uid, owner) in
            [(7, 7), (1000, 1000), (99_999, 99_999), (100_000, 1000), (165_535, 1000), (165_536, 165_536)]
        {
            assert_eq!(policy.owner(uid), owner);
        }
        assert_eq!((policy.owner(200_001), policy.owner(200_002), policy.owner(u32::MAX)), (0, 200_002, 5));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, word) in [
            ("[default]\nuse = ['10.0.0.0/40']", "10.0.0.0/40"),
            ("[default]\nuze = []", "uze"),
            ("[default]\nnever = ['10.0.0.256']", "10.0.0.256"),
            ("[default]\nnever = ['192.168.1']", "192.168.1"),
            ("[default]\nnever = ['10.*']", "10.*"),
            ("[user.nobody-of-this-name]\nservers = true", "no such user"),
            ("[user.0]\n[user.root]\n", "two sections"),
            ("manage = 3", "manage"),
        ] {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "[a-z0-9\\[\\]='\"\n*./: ]{0,80}") {
            let _ = Policy::parse(&text);
            Policy::default().learn_subordinates(&text);
        }
    }
}
