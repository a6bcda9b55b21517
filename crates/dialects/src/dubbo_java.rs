//! `io.dubbo/metadata` of Dubbo Java, read only.
//!
//! One plain JSON object of strings per Pod. It tells protocols and ports
//! (`dubbo.endpoints`, itself JSON in a string) but no name: in the field the
//! name is that of the Service which selects the Pod. Here the instance goes by
//! the application's own label. Facts: apache/dubbo-spi-extensions,
//! `KubernetesServiceDiscovery.java`.

use std::collections::BTreeMap;

use portolan_model::Code;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    PodView, Reading, Registration,
    app::invalid,
    registration::{check_interface, check_protocol},
};

const ANNOTATION: &str = "io.dubbo/metadata";
const ENDPOINTS: &str = "dubbo.endpoints";

/// Labels that name an application, best first (the recommended label of the
/// Kubernetes documentation, then habits).
const NAME_LABELS: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];

#[derive(Deserialize)]
struct EndpointRecord {
    port: u32,
    protocol: String,
}

pub(crate) fn read(pod: &PodView<'_>) -> Reading {
    let Some(text) = pod.annotation(ANNOTATION) else { return Reading::default() };
    let mut metadata: BTreeMap<String, Value> = match serde_json::from_str(text) {
        Ok(metadata) => metadata,
        Err(error) => {
            return Reading::rejected(Code::ANNOTATION_UNREADABLE, format!("JSON: {error}"));
        }
    };
    let endpoints = match metadata.remove(ENDPOINTS) {
        // Consumers write the annotation too and have no endpoints.
        None => return Reading::default(),
        Some(Value::String(text)) => serde_json::from_str::<Vec<EndpointRecord>>(&text),
        Some(other) => serde_json::from_value(other),
    };
    let endpoints = match endpoints {
        Ok(endpoints) => endpoints,
        Err(error) => {
            return Reading::rejected(Code::ANNOTATION_UNREADABLE, format!("{ENDPOINTS}: {error}"));
        }
    };
    let Some(name) = NAME_LABELS.iter().find_map(|key| pod.label(key)) else {
        let detail = format!("The Pod has none of the labels {}.", NAME_LABELS.join(", "));
        return Reading::rejected(Code::REGISTRATION_INVALID, detail);
    };
    // Without an address the Pod has not started; it will be read again.
    let Some(address) = pod.addresses.first() else { return Reading::default() };
    let params: BTreeMap<String, String> = metadata
        .into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(text) if !text.is_empty() => Some((key, text)),
            Value::Number(number) => Some((key, number.to_string())),
            _ => None,
        })
        .collect();
    let mut reading = Reading::default();
    for endpoint in endpoints {
        let checked = check_interface(name).and_then(|()| check_protocol(&endpoint.protocol));
        if let Err(detail) = checked {
            reading.refuse(invalid(&detail));
            continue;
        }
        match u16::try_from(endpoint.port) {
            Ok(port) if port > 0 => reading.registrations.push(Registration {
                params: params.clone(),
                ..Registration::new(name, &endpoint.protocol, (*address, port).into())
            }),
            _ => reading.refuse(portolan_model::Reason::new(
                Code::PORT_INVALID,
                format!("{} is no port.", endpoint.port),
            )),
        }
    }
    reading
}
