//! The values that a configuration is made of, each read from text in one way,
//! whichever file it stands in.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use domain::base::iana::{Rcode, Rtype};
use portolan_model::Selector;
use regex::Regex;
use serde::Deserialize;

use crate::{
    name::{DnsName, parse, text},
    settings::Zone,
};

/// The longest regular expression (CoreDNS: the same).
const PATTERN_BYTES_MAX: usize = 10_000;

/// What one may compile to. `regex` matches in time linear in the name, so this
/// bounds memory alone.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 20;

/// Implements reading from text for types that have `FromStr<Err = String>`.
macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}
from_text!(ZoneName, Span, Listen, Target, Network, RecordType, ResultCode, Pattern, Labels);

/// The name of a zone, in lower case.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ZoneName(pub DnsName);

impl ZoneName {
    /// The root: all names.
    pub(crate) fn root() -> Self {
        Self(DnsName::root_bytes())
    }

    /// The zones of a text: a name, or a range of addresses, which may take several
    /// reverse zones.
    pub(crate) fn all_of(text: &str) -> Result<Vec<Self>, String> {
        if let Some(network) = range(text) {
            let zones = Zone::reverse_of(network.address, network.length);
            return Ok(zones.into_iter().map(|zone| Self(zone.apex)).collect());
        }
        text.parse().map(|zone| vec![zone])
    }
}

/// A text that can only be a range of addresses.
fn range(text: &str) -> Option<Network> {
    text.parse().ok().filter(|_| text.contains('/'))
}

impl FromStr for ZoneName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if range(text).is_some() {
            return Err(format!(
                "expected a domain name, found the range {text:?}; write its in-addr.arpa or \
                 ip6.arpa names"
            ));
        }
        let name = parse(&text.to_ascii_lowercase()).filter(|_| !text.is_empty());
        name.map(Self).ok_or_else(|| format!("expected a domain name, found {text:?}"))
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.0))
    }
}

impl fmt::Debug for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The deepest of the zones that a name lies in.
pub(crate) fn zone_of<'z>(zones: &'z [ZoneName], name: &DnsName) -> Option<&'z ZoneName> {
    let holding = zones.iter().filter(|zone| name.ends_with(&zone.0));
    holding.max_by_key(|zone| zone.0.label_count())
}

/// The longest time span: about what Go's have room for (292 years), and none that cannot be
/// added to a point in time.
const SPAN_MAX: Duration = Duration::from_secs(i64::MAX.unsigned_abs() / 1_000_000_000);

/// A time span as Go writes it: `1m30s`, `500ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a time span such as 30s or 1m30s, found {text:?}");
        if text == "0" {
            return Ok(Self::default());
        }
        let mut seconds = 0.0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let (number, unit) = rest.split_at(digits);
            let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
            let (unit, after) = unit.split_at(end);
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let scale = match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
            seconds += number * scale;
            rest = after;
        }
        let span = Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty());
        span.filter(|span| *span <= SPAN_MAX).map(Self).ok_or_else(wrong)
    }
}

/// Where a server listens: `address:port`, or `:port` for all addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected an address such as 127.0.0.1:8080 or :8080, found {text:?}");
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().map_err(|_| wrong())?;
            return Ok(Self(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)));
        }
        let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        local.as_deref().unwrap_or(text).parse().map(Self).map_err(|_| wrong())
    }
}

/// Where names that are not ours are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Target {
    /// A server: `10.0.0.10`, `[fd00::a]:5353`, `dns://...`.
    Plain(SocketAddr),
    /// A server behind TLS: `tls://1.1.1.1`, with `%name` for the name that its
    /// certificate is for.
    Tls(SocketAddr, Option<String>),
    /// The name servers of a file such as `/etc/resolv.conf`.
    File(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const PLAIN: u16 = 53;
        const TLS: u16 = 853;
        if let Some(rest) = text.strip_prefix("tls://") {
            let (address, name) = server_name(rest);
            let address = socket(&address, TLS)
                .ok_or_else(|| format!("expected an address behind tls://, found {rest:?}"))?;
            return Ok(Self::Tls(address, name));
        }
        let rest = text.strip_prefix("dns://").unwrap_or(text);
        if let Some(scheme) = rest.split_once("://").map(|(scheme, _)| scheme) {
            return Err(format!(
                "{scheme}:// is not supported for upstream servers; there are dns:// and tls://"
            ));
        }
        if let Some(address) = socket(rest, PLAIN) {
            return Ok(Self::Plain(address));
        }
        if rest.contains('/') {
            return Ok(Self::File(rest.to_owned()));
        }
        Err(format!("expected an address or a file such as /etc/resolv.conf, found {text:?}"))
    }
}

/// Parts `address%name`, `address%name:port` and `[address%name]:port`.
fn server_name(text: &str) -> (String, Option<String>) {
    let Some((address, rest)) = text.rsplit_once('%') else { return (text.to_owned(), None) };
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) => (name.trim_end_matches(']'), format!(":{port}")),
        None => (rest, String::new()),
    };
    let close = if address.starts_with('[') { "]" } else { "" };
    (format!("{address}{close}{port}"), Some(name.to_owned()))
}

fn socket(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(socket) = text.parse() {
        return Some(socket);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().map(|address| SocketAddr::new(address, port))
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    pub(crate) address: IpAddr,
    pub(crate) length: u8,
}

impl Network {
    /// Whether it is one address.
    pub(crate) fn is_one(&self) -> bool {
        self.length == if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Whether an address lies in it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
            IpAddr::V6(v6) => (u128::from(v6), false),
        };
        let ((own, own_v4), (other, other_v4)) = (bits(self.address), bits(address));
        let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
        own_v4 == other_v4 && own & mask == other & mask
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a range such as 10.0.0.0/8 or an address, found {text:?}");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(max), str::parse).map_err(|_| wrong())?;
        if length > max { Err(wrong()) } else { Ok(Self { address, length }) }
    }
}

/// A type of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RecordType(pub Rtype);

impl FromStr for RecordType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Rtype::from_mnemonic(text.as_bytes());
        let numbered = || {
            let number = text.strip_prefix("TYPE")?;
            number.parse().ok().map(Rtype::from_int)
        };
        let kind = known.or_else(numbered);
        kind.map(Self)
            .ok_or_else(|| format!("expected a type of record such as AAAA, found {text:?}"))
    }
}

/// A result code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ResultCode(pub u16);

/// The greatest result code that fits without an extended one.
const RESULT_CODE_MAX: u16 = 23;

impl FromStr for ResultCode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.parse().ok().filter(|number| *number <= RESULT_CODE_MAX) {
            return Ok(Self(number));
        }
        let known = (0..=15)
            .map(Rcode::masked_from_int)
            .find(|code| code.to_string().eq_ignore_ascii_case(text));
        known
            .map(|code| Self(code.to_int().into()))
            .ok_or_else(|| format!("expected a result code such as NXDOMAIN, found {text:?}"))
    }
}

/// A label selector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Labels(pub Selector);

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Selector::parse(text).map(Self)
    }
}

/// A regular expression.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"));
        }
        let built = regex::RegexBuilder::new(text).size_limit(PATTERN_COMPILED_BYTES_MAX).build();
        built.map(Self).map_err(|error| {
            let error = error.to_string();
            let last = error.lines().last().unwrap_or_default();
            format!("{text:?} is no regular expression: {}", last.trim_start_matches("error: "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = String> + fmt::Debug>(text: &str, expected: Option<&str>) {
        let found = text.parse::<T>().ok().map(|value| format!("{value:?}"));
        assert_eq!(found.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn spans() {
        for (text, expected) in [
            ("5s", Some("Span(5s)")),
            ("1m30s", Some("Span(90s)")),
            ("1.5h", Some("Span(5400s)")),
            ("500ms", Some("Span(500ms)")),
            ("0", Some("Span(0ns)")),
            ("", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("5 s", None),
            ("1e99h", None),
            ("2000000h", Some("Span(7200000000s)")),
            ("3000000h", None),
            ("99999999999999999999h", None),
        ] {
            check::<Span>(text, expected);
        }
    }

    #[test]
    fn targets() {
        for (text, expected) in [
            ("10.0.0.10", Some("Plain(10.0.0.10:53)")),
            ("dns://10.0.0.10:5353", Some("Plain(10.0.0.10:5353)")),
            ("fd00::a", Some("Plain([fd00::a]:53)")),
            ("[fd00::a]", Some("Plain([fd00::a]:53)")),
            ("[fd00::a]:5", Some("Plain([fd00::a]:5)")),
            ("tls://9.9.9.9", Some("Tls(9.9.9.9:853, None)")),
            ("tls://9.9.9.9%dns.quad9.net", Some("Tls(9.9.9.9:853, Some(\"dns.quad9.net\"))")),
            ("tls://9.9.9.9%a.b:8853", Some("Tls(9.9.9.9:8853, Some(\"a.b\"))")),
            ("tls://[fd00::a%a.b]:8853", Some("Tls([fd00::a]:8853, Some(\"a.b\"))")),
            ("/etc/resolv.conf", Some("File(\"/etc/resolv.conf\")")),
            ("https://9.9.9.9", None),
            ("dns.google", None),
            ("tls://dns.google", None),
            ("", None),
        ] {
            check::<Target>(text, expected);
        }
    }

    #[test]
    fn networks_types_and_codes() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/16", "fd00:1::2", true),
            ("::/0", "fd00:1::2", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected);
        }
        check::<Network>("10.0.0.0/33", None);
        check::<RecordType>("aaaa", Some("RecordType(Rtype::AAAA)"));
        check::<RecordType>("TYPE65", Some("RecordType(Rtype::HTTPS)"));
        check::<RecordType>("AAAAA", None);
        check::<ResultCode>("nxdomain", Some("ResultCode(3)"));
        check::<ResultCode>("NOERROR", Some("ResultCode(0)"));
        check::<ResultCode>("5", Some("ResultCode(5)"));
        check::<ResultCode>("99", None);
        assert!("(a".parse::<Pattern>().unwrap_err().contains("unclosed group"));
    }

    #[test]
    fn zones_of_a_text() {
        for (text, expected) in [
            ("Cluster.Local", &["cluster.local."][..]),
            (".", &["."]),
            ("10.0.0.0/8", &["10.in-addr.arpa."]),
            ("10.96.0.0/15", &["96.10.in-addr.arpa.", "97.10.in-addr.arpa."]),
        ] {
            let zones = ZoneName::all_of(text).unwrap();
            let zones: Vec<String> = zones.iter().map(ToString::to_string).collect();
            assert_eq!(zones, expected);
        }
        assert!(ZoneName::all_of("a..b").is_err());
    }
}
