//! `dubbo.io` of dubbo-go 1.4 (A) and 1.5 (B).
//!
//! A [`list`](crate::list) whose information sits in the keys, ZooKeeper paths:
//! `/dubbo/<service>/providers/<percent-encoded URL>`; values are empty.
//! The two versions escape the URL's query differently (A twice, B once and
//! lossily), so both are read with the same leniency; paths without a URL,
//! consumers, configurators and routers are no providers and are passed over.
//! What is written is what the version itself would write of the same
//! parameters, to the byte; what it could not read back is refused.
//!
//! | | A | B |
//! |---|---|---|
//! | label's value | `dubbo.io-value` | `dubbo.io.provider` |
//! | query | escaped | bare: no value may hold `&`, `+` or `%` |
//! | empty parameters | `group` and `version` are there | none |
//! | added if missing | `category`, `side` (twice) | `methods`, `side` |
//!
//! Facts: apache/dubbo-go v1.4.0 and v1.5.9, `remoting/kubernetes` and
//! `registry/kubernetes`.

use std::collections::BTreeMap;

use portolan_model::{Code, Endpoint, Reason};
use serde_json::Value;

use crate::{
    EncodeError, PodView, Reading, Registration, Standing,
    app::{invalid, parse_authority},
    list,
    percent::{self, Plus},
    registration::{check_interface, check_protocol, latest},
};

/// The label; its value differs by version and role, so only its presence counts.
pub(crate) const LABEL: &str = "dubbo.io/label";
pub(crate) const ANNOTATION: &str = "dubbo.io/annotation";

pub(crate) fn read(pod: &PodView<'_>) -> Reading {
    let Some(text) = pod.annotation(ANNOTATION) else { return Reading::default() };
    if pod.label(LABEL).is_none() {
        let detail = format!("The Pod lacks the label {LABEL}.");
        return Reading::rejected(Code::REGISTRATION_INVALID, detail);
    }
    decode(text)
}

/// Reads the annotation's text.
pub(crate) fn decode(text: &str) -> Reading {
    let items = match list::read(text) {
        Ok(items) => items,
        Err(error) => return Reading::rejected(Code::ANNOTATION_UNREADABLE, error.to_string()),
    };
    let mut reading = Reading::default();
    for item in &items {
        match list::pair(item) {
            Ok((key, _)) => match provider(key).map(|(service, url)| parse(&service, &url)) {
                Some(Ok(registration)) => reading.registrations.push(registration),
                Some(Err(reason)) => reading.refuse(reason),
                None => {}
            },
            Err(detail) => reading.refuse(invalid(&detail)),
        }
    }
    reading.registrations = latest(reading.registrations);
    reading
}

/// The service and the URL of a provider's path; `None` for other paths.
fn provider(key: &str) -> Option<(String, String)> {
    let (head, url) = key.split_once("/providers/")?;
    let service = head.rsplit('/').next().unwrap_or_default();
    // Keys are written with Go's url.QueryEscape.
    Some((percent::decode_lenient(service, Plus::Blank), percent::decode_lenient(url, Plus::Blank)))
}

fn parse(service: &str, url: &str) -> Result<Registration, Reason> {
    let (protocol, rest) =
        url.split_once("://").ok_or_else(|| invalid(&format!("{service}: {url:?} is no URL.")))?;
    check_protocol(protocol).map_err(|detail| invalid(&detail))?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    let (address, port) = parse_authority(authority)?;
    let mut params = parameters(query);
    let mut take = |key: &str| params.remove(key).filter(|value| !value.is_empty());
    let interface = take("interface").unwrap_or_else(|| service.to_owned());
    check_interface(&interface).map_err(|detail| invalid(&detail))?;
    let (group, version) = (take("group"), take("version"));
    let methods = take("methods").unwrap_or_default();
    let weight = match take("weight") {
        None => Endpoint::DEFAULT_WEIGHT,
        // Dubbo takes a negative weight for none.
        Some(text) => match text.parse::<i64>() {
            Ok(number) => u32::try_from(number.max(0)).unwrap_or(u32::MAX),
            Err(_) => return Err(invalid(&format!("The weight {text:?} is no whole number."))),
        },
    };
    let enabled = take("enabled").is_none_or(|text| text != "false");
    let zone = take("zone");
    params.retain(|_, value| !value.is_empty());
    Ok(Registration {
        standing: Standing::Up,
        group,
        interface,
        version,
        protocol: protocol.to_owned(),
        address,
        port,
        path: path.to_owned(),
        methods: methods.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect(),
        weight: if enabled { weight } else { 0 },
        zone,
        params,
    })
}

/// Which dubbo-go writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DubboGo {
    /// 1.4.0 to 1.4.5.
    V1_4,
    /// 1.5.0 to 1.5.9, and 3.0.0-rc1 to rc4.
    V1_5,
}

impl DubboGo {
    /// Value of the label of a provider.
    pub(crate) fn label_value(self) -> &'static str {
        match self {
            Self::V1_4 => "dubbo.io-value",
            Self::V1_5 => "dubbo.io.provider",
        }
    }

    /// Takes items out of a list, and puts services in at its end.
    pub(crate) fn change(
        self,
        items: &mut Vec<Value>,
        goes: impl Fn(&Registration) -> bool,
        add: &[Registration],
    ) -> Result<(), EncodeError> {
        let mut left = Vec::new();
        items.retain(|item| {
            let Some((service, url)) = list::pair(item).ok().and_then(|(key, _)| provider(key))
            else {
                return true;
            };
            let stays = !parse(&service, &url).is_ok_and(|old| goes(&old));
            if !stays {
                left.push(folder(&service));
            }
            stays
        });
        for registration in add {
            let key = self.key(registration)?;
            let folder = folder(&registration.interface);
            if !items.iter().any(|item| is(item, &folder)) {
                items.push(list::item(folder, String::new()));
            }
            items.push(list::item(key, String::new()));
        }
        // A folder says nothing once its last provider has left.
        for folder in left {
            let inside = format!("{folder}/");
            let key = |item| list::pair(item).map_or("", |(key, _)| key);
            if !items.iter().any(|item| key(item).starts_with(&inside)) {
                items.retain(|item| !is(item, &folder));
            }
        }
        Ok(())
    }

    /// The path of a provider.
    fn key(self, registration: &Registration) -> Result<String, EncodeError> {
        registration.check()?;
        registration.check_is_up()?;
        let mut path = registration.path.clone();
        if path.is_empty() {
            path = format!("/{}", registration.interface);
        }
        let place = registration.socket_address();
        let url = format!("{}://{place}{path}?{}", registration.protocol, self.query(registration));
        let service = &registration.interface;
        let written = Registration { path, ..registration.clone() };
        match parse(service, &url) {
            Ok(read) if read.is_like(&written) => {}
            _ => {
                return Err(EncodeError::Invalid {
                    interface: service.clone(),
                    problem: "dubbo-go could not read it back: a value holds '&', '+' or '%', or \
                              the path '?'."
                        .into(),
                });
            }
        }
        Ok(format!("{}/{}", folder(service), query_escape(&url)))
    }

    fn query(self, registration: &Registration) -> String {
        let mut parameters = registration.params.clone();
        let mut put = |key: &str, value: &str| {
            parameters.insert(key.to_owned(), value.to_owned());
        };
        put("interface", &registration.interface);
        for (key, value) in [("group", &registration.group), ("version", &registration.version)] {
            match (value, self) {
                (Some(value), _) => put(key, value),
                (None, Self::V1_4) => put(key, ""),
                (None, Self::V1_5) => {}
            }
        }
        if !registration.methods.is_empty() {
            put("methods", &registration.methods.join(","));
        }
        if registration.weight != Endpoint::DEFAULT_WEIGHT {
            put("weight", &registration.weight.to_string());
        }
        if let Some(zone) = &registration.zone {
            put("zone", zone);
        }
        let mut add = |key: &str, value: &str| {
            parameters.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        };
        add("anyhost", "true");
        add("registry.role", PROVIDER_ROLE);
        add("side", "provider");
        if self == Self::V1_4 {
            add("category", "providers");
        }
        let mut pairs = Vec::new();
        for (key, value) in &parameters {
            let pair = match self {
                Self::V1_4 => format!("{}={}", query_escape(key), query_escape(value)),
                // Its authors unescape the query once more.
                Self::V1_5 => format!("{key}={value}"),
            };
            // 1.4 adds it to what it has.
            if self == Self::V1_4 && key == "side" {
                pairs.push(pair.clone());
            }
            pairs.push(pair);
        }
        pairs.join("&")
    }
}

/// `registry.role` of a provider.
const PROVIDER_ROLE: &str = "3";

/// The path below which a service's providers are.
fn folder(service: &str) -> String {
    format!("/dubbo/{}/providers", query_escape(service))
}

/// Whether an item is this path.
fn is(item: &Value, path: &str) -> bool {
    list::pair(item).is_ok_and(|(key, _)| key == path)
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    let mut out = String::new();
    percent::encode(text, "", &mut out);
    // A plus was escaped, so that these were blanks.
    out.replace("%20", "+")
}

/// B's query was unescaped as a whole, so a value may hold bare `%` and `=`;
/// what cannot be told apart stays as it is.
fn parameters(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (percent::decode_lenient(key, Plus::Blank), percent::decode_lenient(value, Plus::Blank))
        })
        .filter(|(key, _)| !key.is_empty())
        .collect()
}
