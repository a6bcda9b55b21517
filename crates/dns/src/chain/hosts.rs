//! `hosts`: names from a list like `/etc/hosts`, given in the configuration or read
//! from a file that is looked at again and again.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use domain::{base::iana::Rtype, rdata::Ptr};

use super::{Refused, Request, Response, Stage, Step, bearing_of};
use crate::{
    bearing::Bearing,
    config::{Fallthrough, HostsConfig, ZoneName, zone_of},
    name::{DnsName, depth, folded_labels, parse, record},
    names::Names,
    records::{Family, addresses},
    wire::Rcode,
};

/// Names and addresses of one list.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Table {
    addresses: HashMap<String, Vec<IpAddr>>,
    /// By address.
    names: HashMap<IpAddr, Vec<DnsName>>,
}

impl Table {
    /// Reads a list. Lines that are no entry are passed over, as every program does
    /// with `/etc/hosts`; names outside the zones too.
    pub(crate) fn read(text: &str, zones: &[ZoneName], reverse: bool) -> Self {
        let mut table = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let address = words.next().and_then(|word| word.split('%').next()).map(str::parse);
            let Some(Ok(address)) = address else { continue };
            for name in words.filter_map(parse) {
                if zone_of(zones, &name).is_none() {
                    continue;
                }
                let key = folded_labels(&name).join(".");
                let wildcard = key.starts_with("*.");
                table.addresses.entry(key).or_default().push(address);
                if reverse && !wildcard {
                    table.names.entry(address).or_default().push(name);
                }
            }
        }
        table
    }

    /// Whether it has a name in a zone, or one for all in its place.
    fn holds_below(&self, apex: &DnsName) -> bool {
        let apex = folded_labels(apex).join(".");
        let below = |key: &str| key.strip_suffix(&*apex).is_some_and(|rest| rest.ends_with('.'));
        self.addresses.keys().any(|key| *key == apex || below(key))
    }

    /// The addresses of a name; of all in its place where there is a `*`.
    fn addresses(&self, name: &DnsName, family: Family) -> Vec<IpAddr> {
        let labels = folded_labels(name);
        let of = |key: &str| -> Vec<IpAddr> {
            let found = self.addresses.get(key).into_iter().flatten();
            found.filter(|address| family.has(**address)).copied().collect()
        };
        let own = of(&labels.join("."));
        if !own.is_empty() || labels.len() < 2 {
            return own;
        }
        of(&format!("*.{}", labels[1..].join(".")))
    }
}

/// A file that is looked at.
#[derive(Clone, Debug)]
pub(crate) struct HostsFile {
    pub(crate) path: PathBuf,
    pub(crate) zones: Vec<ZoneName>,
    pub(crate) reverse: bool,
    /// Zero: it is read once.
    pub(crate) reload: Duration,
    pub(crate) table: Arc<ArcSwap<Table>>,
}

impl HostsFile {
    /// Reads it. A file that is not there, or not now, changes nothing.
    pub(crate) fn refresh(&self) {
        if let Ok(text) = std::fs::read_to_string(&self.path) {
            let table = Table::read(&text, &self.zones, self.reverse);
            if table != **self.table.load() {
                self.table.store(Arc::new(table));
            }
        }
    }
}

/// The stage.
#[derive(Debug)]
pub(crate) struct Hosts {
    zones: Vec<ZoneName>,
    ttl: u32,
    fallthrough: Fallthrough,
    inline: Table,
    file: Option<HostsFile>,
}

impl Hosts {
    /// `zones` are the directive's, or the block's.
    pub(crate) fn new(config: &HostsConfig, zones: Vec<ZoneName>) -> Self {
        let file = config.file.as_ref().map(|path| HostsFile {
            path: path.into(),
            zones: zones.clone(),
            reverse: config.reverse,
            reload: config.reload.0,
            table: Arc::default(),
        });
        Self {
            inline: Table::read(&config.entries.join("\n"), &zones, config.reverse),
            zones,
            ttl: config.ttl,
            fallthrough: config.fallthrough.clone(),
            file,
        }
    }

    /// The file, to be looked at by a task.
    pub(crate) fn file(&self) -> Option<&HostsFile> {
        self.file.as_ref()
    }

    fn addresses(&self, name: &DnsName, family: Family) -> Vec<IpAddr> {
        let file = self.file.as_ref().map(|file| file.table.load().addresses(name, family));
        let inline = self.inline.addresses(name, family);
        file.into_iter().flatten().chain(inline).collect()
    }

    /// Whether it has a name in a zone.
    fn holds_below(&self, apex: &DnsName) -> bool {
        let file = self.file.as_ref();
        self.inline.holds_below(apex)
            || file.is_some_and(|file| file.table.load().holds_below(apex))
    }

    fn names(&self, address: IpAddr) -> Vec<DnsName> {
        let of = |table: &Table| table.names.get(&address).cloned().unwrap_or_default();
        let file = self.file.as_ref().map(|file| of(&file.table.load()));
        file.into_iter().flatten().chain(of(&self.inline)).collect()
    }
}

impl Stage for Hosts {
    fn name(&self) -> &'static str {
        "hosts"
    }

    fn bearing(&self, apex: &DnsName) -> Bearing {
        if bearing_of(&self.zones, apex) == Bearing::NOTHING {
            return Bearing::NOTHING;
        }
        match self.fallthrough.passes(apex) && !self.holds_below(apex) {
            true => Bearing::NOTHING,
            false => Bearing::EVERYTHING,
        }
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let name = &request.question.name;
        let ours = zone_of(&self.zones, name).is_some();
        let kind = request.question.kind;
        let family = match kind {
            Rtype::PTR => {
                let names = reverse(name).map(|address| self.names(address)).unwrap_or_default();
                if names.is_empty() {
                    return Step::Next("the address has no name in the list");
                }
                let pointers = names.into_iter().map(|to| record(name, self.ttl, Ptr::new(to)));
                return Step::Answer(Response::records("hosts", pointers.collect()));
            }
            _ if !ours => return Step::Next("in no zone of the list"),
            Rtype::A => Some(Family::V4),
            Rtype::AAAA => Some(Family::V6),
            _ => None,
        };
        let found = family.map(|family| self.addresses(name, family)).unwrap_or_default();
        let exists = || {
            [Family::V4, Family::V6]
                .into_iter()
                .any(|family| !self.addresses(name, family).is_empty())
        };
        if found.is_empty() && !exists() {
            if self.fallthrough.passes(name) {
                return Step::Next("not in the list");
            }
            // There is no SOA to deny a name with, so CoreDNS fails; so do we.
            return Step::Refuse(Refused {
                rcode: Rcode::ServFail as u16,
                error: Some((0, "the list of hosts has no such name".to_owned())),
                why: "not in the list, which does not fall through",
            });
        }
        let records = family.map(|family| addresses(name, self.ttl, family, found));
        Step::Answer(Response::records("hosts", records.unwrap_or_default()))
    }
}

/// The address that a reverse name is about.
fn reverse(name: &DnsName) -> Option<IpAddr> {
    let labels = folded_labels(name);
    match depth(name) {
        6 => {
            let [d, c, b, a, arpa @ ..] = &labels[..] else { return None };
            let text = format!("{a}.{b}.{c}.{d}");
            (arpa == ["in-addr", "arpa"]).then(|| text.parse().ok()).flatten()
        }
        34 => {
            let (digits, arpa) = labels.split_at(32);
            let bits = digits.iter().rev().try_fold(0_u128, |bits, digit| {
                let digit = u128::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1)?;
                Some(bits << 4 | digit)
            })?;
            (arpa == ["ip6", "arpa"]).then(|| Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let zones = [ZoneName::root()];
        let text = "10.0.0.1 a.test A2.test # remark\nfe80::1%eth0 a.test\n*\n10.0.0.2 *.w.test\n\
                    nonsense b.test\n10.0.0.3 a.test\n";
        let table = Table::read(text, &zones, true);
        let of = |name: &str, family| {
            let found = table.addresses(&parse(name).unwrap(), family);
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        for (name, family, expected) in [
            ("a.test", Family::V4, "10.0.0.1 10.0.0.3"),
            ("A.TEST", Family::V6, "fe80::1"),
            ("a2.test", Family::V4, "10.0.0.1"),
            ("x.w.test", Family::V4, "10.0.0.2"),
            ("y.x.w.test", Family::V4, ""),
            ("b.test", Family::V4, ""),
        ] {
            assert_eq!(of(name, family), expected, "{name}");
        }
        assert_eq!(table.names[&"10.0.0.1".parse::<IpAddr>().unwrap()].len(), 2);
        let other = [ZoneName::all_of("b.test").unwrap().remove(0)];
        assert_eq!(Table::read(text, &other, true), Table::default());
    }

    #[test]
    fn reverse_names() {
        for (name, expected) in [
            ("1.0.0.10.in-addr.arpa", Some("10.0.0.1")),
            ("1.0.0.10.example.arpa", None),
            ("0.0.10.in-addr.arpa", None),
            ("300.0.0.10.in-addr.arpa", None),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
                Some("fd00::1"),
            ),
        ] {
            let found = reverse(&parse(name).unwrap()).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
