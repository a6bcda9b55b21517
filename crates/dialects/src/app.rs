//! The default dialect, `app.io`.
//!
//! Label `app.io/label=app.io-value`, annotation `app.io/annotation`: a
//! [`list`](crate::list) in which each pair is one service of the process:
//!
//! ```text
//!   k = [group/]interface[:version]
//!   v = protocol://address:port[/path][?methods=a,b&weight=100&zone=...&key=value]
//! ```
//!
//! The prefix is configurable; what is written is stable to the byte: pairs in
//! the order given, `methods`, `weight` (unless 100), `zone`, then the other
//! parameters by name.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use portolan_model::{Code, Endpoint, Reason};
use serde_json::Value;

use crate::{
    EncodeError, PodView, Reading, Registration, Standing, WRITE_BYTES_MAX, list,
    percent::{self, Plus},
    registration::{check_interface, check_protocol, latest},
};

/// The dialect with its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    prefix: String,
}

impl Default for App {
    fn default() -> Self {
        Self { prefix: Self::PREFIX.to_owned() }
    }
}

impl App {
    /// The prefix unless configured otherwise.
    pub const PREFIX: &'static str = "app.io";

    /// The dialect under another prefix. `Err` says what is wrong with it: it
    /// must be a DNS subdomain, as prefixes of label keys are.
    pub fn with_prefix(prefix: &str) -> Result<Self, String> {
        let label = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        // 57 = 63, the longest label value, without "-value".
        if prefix.len() <= 57 && prefix.split('.').all(label) {
            Ok(Self { prefix: prefix.to_owned() })
        } else {
            Err(format!("{prefix:?} is no DNS subdomain of at most 57 characters"))
        }
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Key of the label.
    pub fn label_key(&self) -> String {
        format!("{}/label", self.prefix)
    }

    /// Value of the label.
    pub fn label_value(&self) -> String {
        format!("{}-value", self.prefix)
    }

    /// Key of the annotation.
    pub fn annotation_key(&self) -> String {
        format!("{}/annotation", self.prefix)
    }

    /// The label selector that finds the Pods of this dialect.
    pub fn selector(&self) -> String {
        format!("{}={}", self.label_key(), self.label_value())
    }

    /// Reads a Pod.
    pub(crate) fn read(&self, pod: &PodView<'_>) -> Reading {
        let Some(text) = pod.annotation(&self.annotation_key()) else {
            return Reading::default();
        };
        if pod.label(&self.label_key()) != Some(&self.label_value()) {
            // Readers find Pods by the label, so without it nobody would see
            // the annotation; say so instead of passing over it.
            let detail = format!("The Pod lacks the label {}.", self.selector());
            return Reading::rejected(Code::REGISTRATION_INVALID, detail);
        }
        decode(text)
    }

    /// Takes items out of a list, and puts services in at its end.
    pub(crate) fn change(
        &self,
        items: &mut Vec<Value>,
        goes: impl Fn(&Registration) -> bool,
        add: &[Registration],
    ) -> Result<(), EncodeError> {
        items.retain(|item| !entry(item).is_ok_and(|old| goes(&old)));
        for registration in add {
            items.push(encode_one(registration)?);
        }
        Ok(())
    }
}

/// Reads the annotation's text: what is usable, and what is not and why.
pub fn decode(text: &str) -> Reading {
    match list::read(text) {
        Ok(items) => {
            let mut reading = Reading::default();
            for item in &items {
                match entry(item) {
                    Ok(registration) => reading.registrations.push(registration),
                    Err(reason) => reading.refuse(reason),
                }
            }
            reading.registrations = latest(reading.registrations);
            reading
        }
        Err(error) => Reading::rejected(Code::ANNOTATION_UNREADABLE, error.to_string()),
    }
}

/// Writes registrations: base64, standard alphabet, padded.
pub fn encode(registrations: &[Registration]) -> Result<String, EncodeError> {
    let items: Vec<Value> = registrations.iter().map(encode_one).collect::<Result<_, _>>()?;
    let text = list::write(&items);
    if text.len() > WRITE_BYTES_MAX {
        return Err(EncodeError::TooLarge { bytes: text.len() });
    }
    Ok(text)
}

fn encode_one(registration: &Registration) -> Result<Value, EncodeError> {
    registration.check()?;
    registration.check_is_up()?;
    Ok(list::item(key(registration), value(registration)))
}

/// `[group/]interface[:version]`.
fn key(registration: &Registration) -> String {
    let mut text = String::new();
    if let Some(group) = &registration.group {
        percent::encode(group, "$", &mut text);
        text.push('/');
    }
    percent::encode(&registration.interface, "$", &mut text);
    if let Some(version) = &registration.version {
        text.push(':');
        percent::encode(version, "", &mut text);
    }
    text
}

/// `protocol://address:port[/path][?...]`.
fn value(registration: &Registration) -> String {
    let mut text = format!("{}://{}", registration.protocol, registration.socket_address());
    percent::encode(&registration.path, "/:@!$'()*,;=+", &mut text);
    let mut separator = '?';
    let mut parameter = |key: &str, value: &str, text: &mut String| {
        text.push(std::mem::replace(&mut separator, '&'));
        percent::encode(key, "", text);
        text.push('=');
        percent::encode(value, ",/:", text);
    };
    if !registration.methods.is_empty() {
        parameter("methods", &registration.methods.join(","), &mut text);
    }
    if registration.weight != Endpoint::DEFAULT_WEIGHT {
        parameter("weight", &registration.weight.to_string(), &mut text);
    }
    if let Some(zone) = &registration.zone {
        parameter("zone", zone, &mut text);
    }
    for (key, value) in &registration.params {
        parameter(key, value, &mut text);
    }
    text
}

/// Reads one item.
fn entry(item: &Value) -> Result<Registration, Reason> {
    let (k, v) = list::pair(item).map_err(|detail| invalid(&detail))?;
    let (group, interface, version) = parse_key(k)?;
    let mut registration = parse_value(v).map_err(|reason| {
        // The message names the entry, since one Pod may carry many.
        Reason::new(reason.code, format!("{k:?}: {}", reason.detail))
    })?;
    registration.group = group;
    registration.interface = interface;
    registration.version = version;
    Ok(registration)
}

type Key = (Option<String>, String, Option<String>);

fn parse_key(k: &str) -> Result<Key, Reason> {
    let part = |text: &str| {
        percent::decode(text, Plus::Literal).map_err(|error| invalid(&format!("Key: {error}.")))
    };
    let (group, rest) = k.split_once('/').map_or((None, k), |(group, rest)| (Some(group), rest));
    let (interface, version) =
        rest.split_once(':').map_or((rest, None), |(name, version)| (name, Some(version)));
    if interface.contains('/') {
        return Err(invalid(&format!("Key {k:?} has more than one '/'.")));
    }
    let interface = part(interface)?;
    check_interface(&interface).map_err(|detail| invalid(&detail))?;
    let optional = |text: Option<&str>| match text {
        None | Some("") => Ok(None),
        Some(text) => part(text).map(Some),
    };
    Ok((optional(group)?, interface, optional(version)?))
}

/// Reads a value; key and names are filled in by the caller.
fn parse_value(v: &str) -> Result<Registration, Reason> {
    let (protocol, rest) = v
        .split_once("://")
        .ok_or_else(|| invalid(&format!("{v:?} is no protocol://address:port.")))?;
    check_protocol(protocol).map_err(|detail| invalid(&detail))?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    let (address, port) = parse_authority(authority)?;
    let mut registration = Registration {
        standing: Standing::Up,
        group: None,
        interface: String::new(),
        version: None,
        protocol: protocol.to_owned(),
        address,
        port,
        path: percent::decode(path, Plus::Literal)
            .map_err(|error| invalid(&format!("Path: {error}.")))?,
        methods: Vec::new(),
        weight: Endpoint::DEFAULT_WEIGHT,
        zone: None,
        params: Default::default(),
    };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let read = |text: &str| {
            percent::decode(text, Plus::Blank)
                .map_err(|error| invalid(&format!("Parameter: {error}.")))
        };
        take_parameter(&mut registration, read(key)?, read(value)?)?;
    }
    Ok(registration)
}

fn take_parameter(
    registration: &mut Registration,
    key: String,
    value: String,
) -> Result<(), Reason> {
    // The names with a field of their own are `registration::OWN_PARAMS`.
    match key.as_str() {
        "methods" => {
            registration.methods = value
                .split(',')
                .map(str::trim)
                .filter(|method| !method.is_empty())
                .map(str::to_owned)
                .collect();
        }
        "weight" => {
            registration.weight = value
                .parse()
                .map_err(|_| invalid(&format!("The weight {value:?} is no whole number.")))?;
        }
        "zone" => registration.zone = Some(value).filter(|zone| !zone.is_empty()),
        "" => return Err(invalid("A parameter has no name.")),
        _ => {
            registration.params.insert(key, value);
        }
    }
    Ok(())
}

/// Reads `address:port`, IPv6 addresses in brackets.
pub(crate) fn parse_authority(text: &str) -> Result<(IpAddr, u16), Reason> {
    let no_address =
        || invalid(&format!("{text:?} is no address:port (IPv6 addresses go in brackets)."));
    let (address, port) = text.rsplit_once(':').ok_or_else(no_address)?;
    let address = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => Ipv6Addr::from_str(inner).ok().map(IpAddr::V6),
        None => address.parse().ok().filter(IpAddr::is_ipv4),
    };
    let address = address.ok_or_else(no_address)?;
    Ok((address, parse_port(port)?))
}

/// Reads a port from 1 to 65535.
pub(crate) fn parse_port(text: &str) -> Result<u16, Reason> {
    // `parse` alone would take "+80".
    let number = Some(text).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    match number.and_then(|text| text.parse().ok()) {
        Some(port) if port > 0 => Ok(port),
        _ => Err(Reason::new(Code::PORT_INVALID, format!("{text:?} is no port."))),
    }
}

pub(crate) fn invalid(detail: &str) -> Reason {
    Reason::new(Code::REGISTRATION_INVALID, detail)
}
