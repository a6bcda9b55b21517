//! Fixtures in JSON: the worlds of `dns.json`, as Kubernetes objects in short form.
//!
//! A fixture names `namespaces`, `services`, `serviceimports`, `endpointslices` and `pods`. It may
//! hold what a real API server would refuse (that is why it does not go through
//! one); what cannot be read at all is an error that names the object.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use portolan_model::{
    AppProtocol, Conditions, Endpoint, EndpointPort, Exposure, Name, ObjectName, Origin, Outside,
    Service, ServiceKey, ServicePort, Transport, name,
};
use serde_json::Value;

use crate::World;

/// Makes a world of a fixture.
pub fn world(fixture: &Value) -> Result<World, String> {
    let mut world = World::new();
    for namespace in list(fixture, "namespaces") {
        world = world.namespace(namespace.as_str().ok_or("a namespace is no text")?);
    }
    for value in list(fixture, "services") {
        world = world.service(service(value)?);
    }
    for value in list(fixture, "serviceimports") {
        world = world.service(import(value)?);
    }
    for value in list(fixture, "endpointslices") {
        let origin = match value["source_cluster"].is_null() {
            true => Origin::kubernetes(),
            false => Origin::clusterset(),
        };
        let key = ServiceKey::new(origin, text(value, "namespace")?, text(value, "service")?);
        world = world.endpoints(text(value, "name")?, &key, endpoints(value)?);
    }
    for value in list(fixture, "pods") {
        let address = address(&value["podIP"])?;
        world = world.pod(text(value, "namespace")?, text(value, "name")?, address);
    }
    Ok(world)
}

/// Reads one service.
pub fn service(value: &Value) -> Result<Service, String> {
    let key = ServiceKey::kubernetes(text(value, "namespace")?, text(value, "name")?);
    let addresses: Vec<&Value> = list(value, "clusterIPs").collect();
    let exposure = match value["externalName"].as_str() {
        Some(target) => Exposure::ExternalName(name(target)),
        None if addresses.first().is_some_and(|first| *first == "None") => Exposure::Headless,
        None => Exposure::ClusterIp,
    };
    let addresses = match exposure {
        Exposure::ClusterIp => addresses.into_iter().map(address).collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    Ok(Service {
        exposure,
        addresses,
        ports: list(value, "ports").map(service_port).collect::<Result<_, _>>()?,
        publish_not_ready: value["publishNotReadyAddresses"] == true,
        outside: outside(value)?,
        labels: labels(value),
        ..Service::bare(key)
    })
}

/// Reads one service of a cluster set.
pub fn import(value: &Value) -> Result<Service, String> {
    let key =
        ServiceKey::new(Origin::clusterset(), text(value, "namespace")?, text(value, "name")?);
    let exposure = match value["type"].as_str() {
        Some("Headless") => Exposure::Headless,
        _ => Exposure::ClusterIp,
    };
    Ok(Service {
        exposure,
        addresses: list(value, "ips").map(address).collect::<Result<_, _>>()?,
        ports: list(value, "ports").map(service_port).collect::<Result<_, _>>()?,
        labels: labels(value),
        ..Service::bare(key)
    })
}

fn outside(value: &Value) -> Result<Option<Arc<Outside>>, String> {
    let mut outside = Outside {
        addresses: list(value, "externalIPs").map(address).collect::<Result<_, _>>()?,
        ..Outside::default()
    };
    // A load balancer has an address or a name.
    for ingress in list(value, "loadBalancer").filter_map(Value::as_str) {
        match ingress.parse() {
            Ok(address) => outside.balancers.push(address),
            Err(_) => outside.balancer_names.push(name(ingress)),
        }
    }
    Ok(Some(outside).filter(|outside| *outside != Outside::default()).map(Arc::new))
}

fn labels(value: &Value) -> Arc<BTreeMap<Name, Name>> {
    let labels = value["labels"].as_object().into_iter().flatten();
    labels
        .map(|(key, value)| (name(key), name(value.as_str().unwrap_or_default())))
        .collect::<BTreeMap<_, _>>()
        .into()
}

fn service_port(value: &Value) -> Result<ServicePort, String> {
    let (port_name, transport, number) = port(value)?;
    let app_protocol = AppProtocol::of(None, &port_name, transport);
    Ok(ServicePort { name: port_name, transport, port: number, node_port: None, app_protocol })
}

fn port(value: &Value) -> Result<(Name, Transport, u16), String> {
    let transport = Transport::parse(value["protocol"].as_str())
        .ok_or_else(|| format!("{value}: unknown protocol"))?;
    let number = value["port"]
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("{value}: port is missing or out of range"))?;
    Ok((name(value["name"].as_str().unwrap_or_default()), transport, number))
}

fn endpoints(slice: &Value) -> Result<Vec<Endpoint>, String> {
    let ports: Arc<[EndpointPort]> = list(slice, "ports")
        .map(|value| {
            let (port_name, transport, number) = port(value)?;
            Ok(EndpointPort { name: port_name, transport, port: Some(number), app_protocol: None })
        })
        .collect::<Result<_, String>>()?;
    list(slice, "endpoints")
        .map(|value| {
            let mut endpoint = Endpoint::new(address(&value["address"])?, ports.clone());
            endpoint.conditions = Conditions::from_optional(
                value["ready"].as_bool(),
                value["serving"].as_bool(),
                value["terminating"].as_bool(),
            );
            endpoint.particulars.discriminator = slice["source_cluster"].as_str().map(name);
            endpoint.particulars.hostname = value["hostname"].as_str().map(name);
            endpoint.zone = value["zone"].as_str().map(name);
            endpoint.node = value["nodeName"].as_str().map(name);
            if let Some(target) = value["targetRef"]["name"].as_str() {
                endpoint.target = Some(ObjectName::new(text(slice, "namespace")?, target));
            }
            Ok(endpoint)
        })
        .collect()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    value[key].as_str().ok_or_else(|| format!("{value}: {key} is missing"))
}

fn address(value: &Value) -> Result<IpAddr, String> {
    let text = value.as_str().ok_or_else(|| format!("{value}: no address"))?;
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}
