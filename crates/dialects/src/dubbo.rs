//! `dubbo.io` of dubbo-go 1.4 (A) and 1.5 (B), read only.
//!
//! A [`list`](crate::list) whose information sits in the keys, ZooKeeper paths:
//! `/dubbo/<service>/providers/<percent-encoded URL>`; values are empty.
//! The two versions escape the URL's query differently (A twice, B once and
//! lossily), so both are read with the same leniency; paths without a URL,
//! consumers, configurators and routers are no providers and are passed over.
//! Facts: apache/dubbo-go v1.4.0 and v1.5.9, `remoting/kubernetes` and
//! `registry/kubernetes`.

use std::collections::BTreeMap;

use portolan_model::{Code, Endpoint, Reason};

use crate::{
    PodView, Reading, Registration, Standing,
    app::{invalid, parse_authority},
    list,
    percent::{self, Plus},
    registration::{check_interface, check_protocol, latest},
};

/// The label; its value differs by version and role, so only its presence counts.
pub(crate) const LABEL: &str = "dubbo.io/label";
const ANNOTATION: &str = "dubbo.io/annotation";

pub(crate) fn read(pod: &PodView<'_>) -> Reading {
    let Some(text) = pod.annotation(ANNOTATION) else { return Reading::default() };
    if pod.label(LABEL).is_none() {
        let detail = format!("The Pod lacks the label {LABEL}.");
        return Reading::rejected(Code::REGISTRATION_INVALID, detail);
    }
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
