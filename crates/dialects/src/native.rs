//! The native dialect: `registry.portolan.dev/<owner>`, read only for now.
//!
//! One annotation per owner (a container, an SDK instance), so that two writers
//! of one Pod never touch each other's text: plain JSON with the services that
//! the owner offers at the Pod's own address.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_model::{Code, Endpoint, Reason};
use serde::Deserialize;

use crate::{
    PodView, Reading, Registration,
    app::invalid,
    registration::{OWN_PARAMS, check_interface, check_protocol},
};

const PREFIX: &str = "registry.portolan.dev/";

/// The version of the record that we read.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Record {
    v: u32,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    name: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    version: Option<String>,
    protocol: String,
    port: u32,
    #[serde(default)]
    address: Option<IpAddr>,
    #[serde(default)]
    path: String,
    #[serde(default)]
    weight: Option<u32>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    state: Option<String>,
}

pub(crate) fn read(pod: &PodView<'_>) -> Reading {
    let mut reading = Reading::default();
    let all = pod.annotations.range(PREFIX.to_owned()..);
    for (key, text) in all.take_while(|(key, _)| key.starts_with(PREFIX)) {
        let unreadable =
            |detail: String| Reason::new(Code::ANNOTATION_UNREADABLE, format!("{key}: {detail}"));
        match serde_json::from_str::<Record>(text) {
            Ok(record) if record.v == VERSION => {
                for service in record.services {
                    match registration(service, pod.addresses) {
                        Ok(Some(registration)) => reading.registrations.push(registration),
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
    reading
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
    // A service that drains or is out of service is there and takes nothing.
    let weight = match service.state.as_deref() {
        None | Some("up") => service.weight.unwrap_or(Endpoint::DEFAULT_WEIGHT),
        Some("starting" | "draining" | "out_of_service") => 0,
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
        weight,
        zone: some(service.zone),
        params,
    }))
}
