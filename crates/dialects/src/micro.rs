//! `micro.mu` of go-micro, read only.
//!
//! One annotation per service, `micro.mu/service-<name>`, plain JSON of name,
//! version, metadata, endpoints (methods) and nodes (addresses). Facts:
//! asim/nitro-plugins, `registry/kubernetes/kubernetes.go`.

use std::collections::BTreeMap;

use portolan_model::{Code, Reason};
use serde::Deserialize;

use crate::{
    PodView, Reading, Registration,
    app::{invalid, parse_authority},
    registration::{check_interface, check_protocol},
};

/// The label of every Pod of the dialect.
pub(crate) const SELECTOR: &str = "micro.mu/type=service";
const PREFIX: &str = "micro.mu/service-";

#[derive(Deserialize)]
struct Record {
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    endpoints: Option<Vec<Method>>,
    #[serde(default)]
    nodes: Option<Vec<Node>>,
}

#[derive(Deserialize)]
struct Method {
    name: String,
}

#[derive(Deserialize)]
struct Node {
    address: String,
    #[serde(default)]
    port: Option<u32>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

pub(crate) fn read(pod: &PodView<'_>) -> Reading {
    let mut reading = Reading::default();
    let all = pod.annotations.range(PREFIX.to_owned()..);
    for (key, text) in all.take_while(|(key, _)| key.starts_with(PREFIX)) {
        match serde_json::from_str::<Record>(text) {
            Ok(record) => read_record(record, &mut reading),
            Err(error) => reading
                .refuse(Reason::new(Code::ANNOTATION_UNREADABLE, format!("{key}: JSON: {error}"))),
        }
    }
    reading
}

fn read_record(record: Record, reading: &mut Reading) {
    let methods: Vec<String> =
        record.endpoints.unwrap_or_default().into_iter().map(|method| method.name).collect();
    for node in record.nodes.unwrap_or_default() {
        // Older writers keep the port beside the address, newer ones in it.
        let authority = match node.port {
            Some(port) if port > 0 => format!("{}:{port}", node.address),
            _ => node.address,
        };
        let (address, port) = match parse_authority(&authority) {
            Ok(place) => place,
            Err(reason) => {
                reading.refuse(reason);
                continue;
            }
        };
        let mut params = record.metadata.clone().unwrap_or_default();
        params.extend(node.metadata.unwrap_or_default());
        let protocol = params.remove("protocol").unwrap_or_else(|| "mucp".to_owned());
        let checked = check_interface(&record.name).and_then(|()| check_protocol(&protocol));
        if let Err(detail) = checked {
            reading.refuse(invalid(&detail));
            continue;
        }
        reading.registrations.push(Registration {
            version: record.version.clone().filter(|version| !version.is_empty()),
            methods: methods.clone(),
            params,
            ..Registration::new(&record.name, &protocol, (address, port).into())
        });
    }
}
