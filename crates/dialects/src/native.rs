//! The native dialect: `registry.portolan.dev/<owner>`.
//!
//! One annotation per owner (a container, or one SDK in it), so that two writers
//! of one Pod never touch each other's text. Plain JSON, with the services that
//! the owner offers:
//!
//! ```text
//!   {"v":1,"inc":"9f1c...","start":"2026-01-01T00:00:00Z",
//!    "services":[{"name":"reviews","version":"v1","protocol":"http","port":9080,
//!                 "address":"10.244.0.7","weight":100,"zone":"a","methods":["list"],
//!                 "metadata":{"key":"value"},"state":"up"}]}
//! ```
//!
//! `inc` names one life of the owner and `start` tells when it began (RFC 3339). Of a service, `name`, `protocol` and `port` are required; the
//! address is the Pod's unless given.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use jiff::Timestamp;
use portolan_model::{Code, Endpoint, Reason};
use serde::{Deserialize, Serialize};

use crate::{
    ContainerView, EncodeError, PodView, READ_BYTES_MAX, Reading, Registration, Standing,
    app::invalid,
    registration::{OWN_PARAMS, check_interface, check_protocol},
};

const PREFIX: &str = "registry.portolan.dev/";
/// The label of Pods with such a record.
const LABEL: &str = "registry.portolan.dev/registered";

/// The version of the record that we read and write.
const VERSION: u32 = 1;

/// What one owner may take of the 256 KiB that all annotations of a Pod share.
const RECORD_BYTES_MAX: usize = 32 << 10;
/// The longest name of an owner: that of a container, and of an annotation's last part.
const OWNER_BYTES_MAX: usize = 63;

#[derive(Deserialize, Serialize)]
struct Record {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inc: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Default, Deserialize, Serialize)]
struct Service {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    protocol: String,
    port: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

/// Who writes a record: one container of a Pod, or one SDK in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// An owner's name. `Err` says what is wrong with it.
    pub fn new(name: &str) -> Result<Self, String> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = name.as_bytes();
        let fine = bytes.len() <= OWNER_BYTES_MAX
            && bytes.iter().all(|b| inner(*b))
            && outer(bytes.first())
            && outer(bytes.last())
            && name != "registered";
        if fine {
            return Ok(Self(name.to_owned()));
        }
        Err(format!(
            "{name:?} is no name of an owner: letters, digits, '-', '_' and '.', at most \
             {OWNER_BYTES_MAX}, beginning and ending with a letter or digit, and not \"registered\""
        ))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Key of its annotation.
    pub fn annotation_key(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    /// Key and value of the label that Pods with records have.
    pub fn label() -> (&'static str, &'static str) {
        (LABEL, "true")
    }
}

/// One life of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Differs from that of every other life.
    pub id: String,
    /// When it began (RFC 3339).
    pub start: String,
}

/// The record of an owner, as it is written.
pub fn encode(life: &Incarnation, services: &[Registration]) -> Result<String, EncodeError> {
    for service in services {
        service.check()?;
    }
    let record = Record {
        v: VERSION,
        inc: Some(life.id.clone()),
        start: Some(life.start.clone()),
        services: services.iter().map(Service::of).collect(),
    };
    // Strings and numbers only: nothing that JSON cannot say.
    let text = serde_json::to_string(&record).unwrap_or_default();
    if text.len() > RECORD_BYTES_MAX {
        return Err(EncodeError::RecordTooLarge { bytes: text.len(), max: RECORD_BYTES_MAX });
    }
    Ok(text)
}

impl Service {
    fn of(registration: &Registration) -> Self {
        let Registration { group, interface, version, protocol, address, port, .. } = registration;
        let Registration { path, methods, weight, zone, standing, params, .. } = registration;
        let state = match standing {
            // That it is switched off is what others say.
            Standing::Up | Standing::SwitchedOff => None,
            Standing::Down => Some("down"),
            Standing::Starting => Some("starting"),
            Standing::Draining => Some("draining"),
            Standing::OutOfService => Some("out_of_service"),
        };
        Self {
            name: interface.clone(),
            group: group.clone(),
            version: version.clone(),
            protocol: protocol.clone(),
            port: u32::from(*port),
            address: Some(*address),
            path: path.clone(),
            weight: (*weight != Endpoint::DEFAULT_WEIGHT).then_some(*weight),
            zone: zone.clone(),
            methods: methods.clone(),
            metadata: params.clone(),
            state: state.map(str::to_owned),
            ..Self::default()
        }
    }
}

pub(crate) fn read(pod: &PodView<'_>) -> Reading {
    let mut reading = Reading::default();
    let mut found: Vec<(&str, Registration)> = Vec::new();
    let all = pod.annotations.range(PREFIX.to_owned()..);
    for (key, text) in all.take_while(|(key, _)| key.starts_with(PREFIX)) {
        let unreadable =
            |detail: String| Reason::new(Code::ANNOTATION_UNREADABLE, format!("{key}: {detail}"));
        if text.len() > READ_BYTES_MAX {
            reading.refuse(unreadable(format!(
                "it has {} bytes; {READ_BYTES_MAX} are the most.",
                text.len()
            )));
            continue;
        }
        match serde_json::from_str::<Record>(text) {
            Ok(record) if record.v == VERSION => {
                let stale = staleness(&key[PREFIX.len()..], &record, pod.containers);
                if let Some(why) = &stale {
                    reading.refuse(Reason::new(Code::REGISTRATION_STALE, format!("{key}: {why}")));
                }
                if let Some(start) = record.start.as_deref()
                    && start.parse::<Timestamp>().is_err()
                {
                    let detail = format!("{key}: start {start:?} is no time (RFC 3339).");
                    reading.refuse(invalid(&detail));
                }
                for service in record.services {
                    match registration(service, pod.addresses) {
                        Ok(Some(mut registration)) => {
                            if stale.is_some() {
                                registration.standing = Standing::Down;
                            }
                            found.push((key, registration));
                        }
                        Ok(None) => {}
                        Err(reason) => reading.refuse(reason),
                    }
                }
            }
            Ok(record) => reading.refuse(unreadable(format!(
                "version {} of the record; {VERSION} is known.",
                record.v
            ))),
            Err(error) => reading.refuse(unreadable(format!("JSON: {error}"))),
        }
    }
    one_owner_each(found, &mut reading);
    reading
}

/// Of two owners that say they are the same service at the same place, one is wrong. The one that
/// lives counts, else the first by name.
fn one_owner_each(mut found: Vec<(&str, Registration)>, reading: &mut Reading) {
    found.sort_by_key(|(_, registration)| registration.standing == Standing::Down);
    let mut owners = HashMap::new();
    let twins: Vec<Option<Reason>> = found
        .iter()
        .map(|(key, registration)| {
            let owner = *owners.entry(registration.place()).or_insert(*key);
            let at = registration.socket_address();
            (owner != *key).then(|| {
                let detail = format!("{key}: {} at {at} is of {owner}.", registration.interface);
                Reason::new(Code::DUPLICATE_ADDRESS, detail)
            })
        })
        .collect();
    for (twin, (_, registration)) in twins.into_iter().zip(found) {
        match twin {
            Some(reason) => reading.refuse(reason),
            None => reading.registrations.push(registration),
        }
    }
}

/// Why nobody lives any more who wrote a record; `None` if somebody does, or nothing tells.
/// An owner is named after its container, with a suffix after a '.' if there are several.
fn staleness(owner: &str, record: &Record, containers: &[ContainerView<'_>]) -> Option<String> {
    let name = owner.split('.').next().unwrap_or_default();
    let container = containers.iter().find(|container| container.name == name)?;
    let Some(started) = container.started else {
        return Some(format!("container {name} does not run."));
    };
    let time = |text: &str| text.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let wrote = record.start.as_deref()?;
    // Containers' times have whole seconds, so the record's count as such too.
    (time(wrote)? < time(started)?)
        .then(|| format!("written by a process of {wrote}; container {name} runs since {started}."))
}

fn registration(service: Service, addresses: &[IpAddr]) -> Result<Option<Registration>, Reason> {
    check_interface(&service.name)
        .and_then(|()| check_protocol(&service.protocol))
        .map_err(|detail| invalid(&detail))?;
    let port = u16::try_from(service.port).ok().filter(|port| *port > 0).ok_or_else(|| {
        Reason::new(Code::PORT_INVALID, format!("{}: {} is no port.", service.name, service.port))
    })?;
    // Without an address the Pod has not started; it will be read again.
    let Some(address) = service.address.or_else(|| addresses.first().copied()) else {
        return Ok(None);
    };
    let standing = match service.state.as_deref() {
        None | Some("up") => Standing::Up,
        Some("starting") => Standing::Starting,
        Some("draining") => Standing::Draining,
        Some("out_of_service") => Standing::OutOfService,
        // Of whoever checks a process for it: the agent.
        Some("down") => Standing::Down,
        Some(state) => {
            return Err(invalid(&format!("{}: unknown state {state:?}.", service.name)));
        }
    };
    let mut params = service.metadata;
    params.retain(|key, _| !OWN_PARAMS.contains(&key.as_str()));
    if !service.tags.is_empty() {
        params.insert("tags".to_owned(), service.tags.join(","));
    }
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Some(Registration {
        group: some(service.group),
        interface: service.name,
        version: some(service.version),
        protocol: service.protocol,
        address,
        port,
        path: service.path,
        methods: service.methods,
        weight: service.weight.unwrap_or(Endpoint::DEFAULT_WEIGHT),
        zone: some(service.zone),
        standing,
        params,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn life() -> Incarnation {
        Incarnation { id: "9f1c".into(), start: "2026-01-01T00:00:00Z".into() }
    }

    fn read_back(text: &str) -> Reading {
        let labels = BTreeMap::new();
        let key = Owner::new("main").unwrap().annotation_key();
        let annotations = BTreeMap::from([(key, text.to_owned())]);
        let addresses = ["10.0.0.9".parse().unwrap()];
        read(&PodView {
            labels: &labels,
            annotations: &annotations,
            addresses: &addresses,
            containers: &[],
        })
    }

    #[test]
    fn written_to_the_byte() {
        let at = "10.0.0.1:9080".parse().unwrap();
        let least = Registration::new("reviews", "http", at);
        let most = Registration {
            group: Some("shop".into()),
            version: Some("v1".into()),
            path: "/api".into(),
            methods: vec!["list".into(), "get".into()],
            weight: 0,
            zone: Some("a".into()),
            params: BTreeMap::from([("k".into(), "\"v\"".into())]),
            ..least.clone()
        };
        let text = encode(&life(), &[least.clone(), most.clone()]).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"inc":"9f1c","start":"2026-01-01T00:00:00Z","services":[{"name":"reviews","protocol":"http","port":9080,"address":"10.0.0.1"},{"name":"reviews","group":"shop","version":"v1","protocol":"http","port":9080,"address":"10.0.0.1","path":"/api","weight":0,"zone":"a","methods":["list","get"],"metadata":{"k":"\"v\""}}]}"#
        );
        assert_eq!(read_back(&text).registrations, [least, most]);
    }

    #[test]
    fn what_a_process_says_of_itself_reads_back() {
        let fine = Registration::new("a", "http", "10.0.0.1:80".parse().unwrap());
        for standing in [
            Standing::Up,
            Standing::Starting,
            Standing::Draining,
            Standing::OutOfService,
            Standing::Down,
        ] {
            let one = Registration { standing, ..fine.clone() };
            let text = encode(&life(), std::slice::from_ref(&one)).unwrap();
            assert_eq!(read_back(&text).registrations, [one]);
        }
    }

    #[test]
    fn what_cannot_be_written() {
        let fine = Registration::new("a", "http", "10.0.0.1:80".parse().unwrap());
        let blank = Registration { interface: "a b".into(), ..fine.clone() };
        assert!(matches!(encode(&life(), &[blank]), Err(EncodeError::Invalid { .. })));
        let large = Registration { methods: vec!["m".repeat(RECORD_BYTES_MAX)], ..fine };
        let error = encode(&life(), &[large]).unwrap_err();
        assert!(matches!(error, EncodeError::RecordTooLarge { max: 32_768, .. }), "{error}");
    }

    #[test]
    fn a_record_is_as_old_as_its_container() {
        let at = "10.0.0.1:80".parse().unwrap();
        let text = encode(&life(), &[Registration::new("a", "http", at)]).unwrap();
        let ours = [("registry.portolan.dev/main.2", text.as_str())];
        for (container, started, standing) in [
            // In the same second, however much earlier the kubelet saw it.
            ("main", Some("2026-01-01T00:00:00Z"), Standing::Up),
            ("main", Some("2025-12-31T23:59:59Z"), Standing::Up),
            ("main", Some("2026-01-01T00:00:01Z"), Standing::Down),
            ("main", Some("2026-01-01T01:00:01+01:00"), Standing::Down),
            ("main", None, Standing::Down),
            // Nothing is known of it.
            ("other", None, Standing::Up),
            ("main", Some("yesterday"), Standing::Up),
        ] {
            let annotations =
                ours.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            let (labels, containers) =
                (BTreeMap::new(), [ContainerView { name: container, started }]);
            let view = PodView {
                labels: &labels,
                annotations: &annotations,
                addresses: &[],
                containers: &containers,
            };
            let reading = read(&view);
            assert_eq!(reading.registrations[0].standing, standing, "{container} {started:?}");
            let code = (standing == Standing::Down).then_some(Code::REGISTRATION_STALE);
            assert_eq!(reading.reasons.first().map(|reason| reason.code), code);
        }
    }

    #[test]
    fn owners() {
        for (name, fine) in [
            ("main", true),
            ("main.1", true),
            ("A_b-c.9", true),
            ("", false),
            ("-a", false),
            ("a/b", false),
            ("a b", false),
            // The key of the label.
            ("registered", false),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(Owner::new(name).is_ok(), fine, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(
            interface in "[a-z.]{1,12}",
            port in 1..u16::MAX,
            version in proptest::option::of("[^\\s]{1,6}"),
            methods in proptest::collection::vec("[^,]{1,6}", 0..4),
            weight in 0..1_000_u32,
            params in proptest::collection::btree_map("[a-v]{1,6}", ".{0,12}", 0..4),
        ) {
            let at = ([10, 0, 0, 1], port).into();
            let registration = Registration {
                version, methods, weight, params, ..Registration::new(&interface, "http", at)
            };
            prop_assume!(registration.problem().is_none());
            let reading = read_back(&encode(&life(), std::slice::from_ref(&registration)).unwrap());
            prop_assert_eq!(reading.reasons, []);
            prop_assert_eq!(reading.registrations, [registration]);
        }
    }
}
