//! From a static list to facts. One endpoint that cannot be used costs only
//! itself; it is named in a rejection.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use portolan_model::{
    AppProtocol, Code, Endpoint, EndpointPort, EndpointSlice, Fact, FactKey, Name, ObjectName,
    Origin, Particular, Reason, Rejection, Service, ServiceKey, ServicePort, Transport,
};

use super::format::{self, Document, Scalar};
use crate::names::Names;

type Facts = Vec<(FactKey, Fact)>;

/// All that a list says.
pub(super) fn convert(document: &Document, origin: &Origin) -> Facts {
    let mut names = Names::default();
    let mut seen = BTreeSet::new();
    let mut facts = Facts::new();
    for declared in &document.services {
        let object = names.object(&declared.namespace, &declared.name);
        let mut reasons = Vec::new();
        if let Err(reason) = check_names(declared) {
            reasons.push(reason);
        } else if !seen.insert(object.clone()) {
            reasons.push(Reason::new(Code::DECLARED_TWICE, "The file lists it twice."));
        } else {
            facts.extend(one(declared, &object, origin, &mut reasons, &mut names));
        }
        if !reasons.is_empty() {
            facts.push(rejection(object, reasons));
        }
    }
    facts
}

/// A rejection of something in a file.
pub(super) fn rejection(object: ObjectName, reasons: Vec<Reason>) -> (FactKey, Fact) {
    let kind = portolan_model::name("file");
    (
        FactKey::Rejection(kind.clone(), object.clone()),
        Fact::Rejection(Rejection { kind, object, reasons }),
    )
}

/// Names of services may hold dots; what no DNS name can hold is refused.
fn check_names(declared: &format::Service) -> Result<(), Reason> {
    let label =
        |text: &str| (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let fine = declared.name.len() <= 253
        && declared.name.split('.').all(label)
        && label(&declared.namespace)
        && !declared.namespace.contains('.');
    if fine {
        Ok(())
    } else {
        let detail = format!("{:?} in namespace {:?}", declared.name, declared.namespace);
        Err(Reason::new(Code::NAME_INVALID, detail))
    }
}

fn one(
    declared: &format::Service,
    object: &ObjectName,
    origin: &Origin,
    reasons: &mut Vec<Reason>,
    names: &mut Names,
) -> Facts {
    let key = ServiceKey {
        origin: origin.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    };
    let mut fronts = fronts(declared, reasons, names);
    let declares_ports = !declared.ports.is_empty();
    let mut endpoints = Vec::new();
    for text in &declared.endpoints {
        let ports = place(text)
            .and_then(|place| Ok((place.0, ports(text, place.1, declares_ports, &fronts, names)?)));
        match ports {
            Ok((address, ports)) => endpoints.push(Arc::new(endpoint(text, address, ports, names))),
            Err(reason) => {
                reasons.push(Reason::new(
                    reason.code,
                    format!("endpoint {:?}: {}", text.address, reason.detail),
                ));
            }
        }
    }
    if !declares_ports {
        fronts = fronts_of(&endpoints);
    }
    let service = Service {
        ports: fronts.into_iter().map(|front| front.port).collect(),
        labels: map(&declared.labels, names),
        ..Service::bare(key.clone())
    };
    vec![
        (FactKey::Service(key.clone()), Fact::Service(service.into())),
        (
            FactKey::EndpointSlice(origin.clone(), object.clone()),
            Fact::EndpointSlice(EndpointSlice { service: key, endpoints }),
        ),
    ]
}

/// A port in front, and the usual port behind it.
struct Front {
    port: ServicePort,
    target: u16,
}

fn fronts(declared: &format::Service, reasons: &mut Vec<Reason>, names: &mut Names) -> Vec<Front> {
    let mut fronts: Vec<Front> = Vec::new();
    for one in &declared.ports {
        let Some(transport) = Transport::parse(one.protocol.as_deref()) else {
            let detail = format!("Port {} has the unknown protocol {:?}.", one.port, one.protocol);
            reasons.push(Reason::new(Code::TRANSPORT_UNSUPPORTED, detail));
            continue;
        };
        let checked = number(one.port).and_then(|front| {
            let target = one.target_port.map_or(Ok(front), number)?;
            Ok((front, target))
        });
        match checked {
            Ok((front, target)) => fronts.push(Front {
                port: ServicePort {
                    name: names.get(&one.name),
                    transport,
                    port: front,
                    node_port: None,
                    app_protocol: AppProtocol::of(
                        one.app_protocol.as_deref(),
                        &one.name,
                        transport,
                    ),
                },
                target,
            }),
            Err(reason) => reasons.push(reason),
        }
    }
    fronts
}

/// A service without declared ports has those of its endpoints.
fn fronts_of(endpoints: &[Arc<Endpoint>]) -> Vec<Front> {
    let mut found: BTreeMap<&Name, u16> = BTreeMap::new();
    for port in endpoints.iter().flat_map(|endpoint| endpoint.ports.iter()) {
        if let Some(number) = port.port {
            found.entry(&port.name).or_insert(number);
        }
    }
    found
        .into_iter()
        .map(|(name, number)| Front {
            port: ServicePort {
                name: name.clone(),
                transport: Transport::Tcp,
                port: number,
                node_port: None,
                app_protocol: AppProtocol::of(None, name, Transport::Tcp),
            },
            target: number,
        })
        .collect()
}

fn number(number: i64) -> Result<u16, Reason> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Reason::new(Code::PORT_INVALID, format!("port {number}"))),
    }
}

/// `address`, `address:port` or `[address]:port`.
fn place(declared: &format::Endpoint) -> Result<(IpAddr, Option<u16>), Reason> {
    let text = declared.address.as_str();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    if let Ok(place) = text.parse::<SocketAddr>() {
        if place.port() == 0 {
            return Err(Reason::new(Code::PORT_INVALID, "port 0"));
        }
        return Ok((place.ip(), Some(place.port())));
    }
    // An address that is fine tells that the port is at fault.
    if let Some((address, port)) = text.rsplit_once(':')
        && address.parse::<IpAddr>().is_ok()
    {
        return Err(Reason::new(Code::PORT_INVALID, format!("port {port}")));
    }
    Err(Reason::new(Code::ADDRESS_INVALID, "Expected an IP address, or address:port."))
}

fn ports(
    declared: &format::Endpoint,
    own: Option<u16>,
    declares_ports: bool,
    fronts: &[Front],
    names: &mut Names,
) -> Result<Arc<[EndpointPort]>, Reason> {
    let wrong = |detail: String| Err(Reason::new(Code::PORT_INVALID, detail));
    if !declares_ports {
        let mut ports: Vec<EndpointPort> = Vec::new();
        if let Some(own) = own {
            ports.push(port(names.get(""), Transport::Tcp, own));
        }
        for (name, target) in &declared.ports {
            ports.push(port(names.get(name), Transport::Tcp, number(*target)?));
        }
        if ports.is_empty() {
            return wrong("Neither it nor the service names a port.".into());
        }
        return Ok(ports.into());
    }
    if let Some(unknown) =
        declared.ports.keys().find(|name| !fronts.iter().any(|front| *front.port.name == ***name))
    {
        return wrong(format!("The service has no port {unknown:?}."));
    }
    if own.is_some() && fronts.len() > 1 {
        return wrong("The service has several ports; name them with `ports`.".into());
    }
    let ports: Result<Vec<_>, Reason> = fronts
        .iter()
        .map(|front| {
            let target = match declared.ports.get(&*front.port.name) {
                Some(named) => number(*named)?,
                None => own.unwrap_or(front.target),
            };
            Ok(port(front.port.name.clone(), front.port.transport, target))
        })
        .collect();
    Ok(ports?.into())
}

fn port(name: Name, transport: Transport, number: u16) -> EndpointPort {
    EndpointPort { name, transport, port: Some(number), app_protocol: None }
}

fn endpoint(
    declared: &format::Endpoint,
    address: IpAddr,
    ports: Arc<[EndpointPort]>,
    names: &mut Names,
) -> Endpoint {
    let mut optional = |text: &Option<String>| text.as_deref().map(|text| names.get(text));
    let (zone, node, hostname) =
        (optional(&declared.zone), optional(&declared.node), optional(&declared.hostname));
    Endpoint {
        zone,
        node,
        particulars: Particular {
            hostname,
            weight: declared.weight.unwrap_or(Endpoint::DEFAULT_WEIGHT),
            metadata: Some(map(&declared.metadata, names)).filter(|map| !map.is_empty()),
            ..Particular::NONE
        }
        .into(),
        ..Endpoint::new(address, ports)
    }
}

fn map(map: &BTreeMap<String, Scalar>, names: &mut Names) -> Arc<BTreeMap<Name, Name>> {
    Arc::new(map.iter().map(|(key, value)| (names.get(key), names.get(&value.0))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> (Vec<String>, Vec<String>) {
        let document = Document::parse(text, false).unwrap();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (_, fact) in convert(&document, &Origin::configured("school").unwrap()) {
            match fact {
                Fact::Service(service) => {
                    let ports: Vec<_> = service
                        .ports
                        .iter()
                        .map(|p| format!("{}={}/{}", p.name, p.port, p.transport.as_str()))
                        .collect();
                    good.push(format!("{} {}", service.key, ports.join(",")));
                }
                Fact::EndpointSlice(slice) => good.extend(slice.endpoints.iter().map(|e| {
                    let ports: Vec<_> = e
                        .ports
                        .iter()
                        .map(|p| format!("{}={}", p.name, p.port.unwrap_or_default()))
                        .collect();
                    format!("{} {} w{}", e.address, ports.join(","), e.particulars.weight)
                })),
                Fact::Rejection(r) => {
                    let texts: Vec<_> = r
                        .reasons
                        .iter()
                        .map(|one| format!("{} {}", one.code, one.detail))
                        .collect();
                    bad.push(format!("{} {}", r.object, texts.join("; ")));
                }
                fact => panic!("{fact:?}"),
            }
        }
        (good, bad)
    }

    #[test]
    fn a_static_list() {
        for (text, expected) in [
            ("", &[][..]),
            ("services: []", &[]),
            (
                "student: {url: ['192.168.1.1:8081', '192.168.1.2:8081']}",
                &[
                    "school:default/student =8081/TCP",
                    "192.168.1.1 =8081 w100",
                    "192.168.1.2 =8081 w100",
                ],
            ),
            (
                "services: [{name: a.b, namespace: n, ports: [{name: http, port: 80}], endpoints: ['10.0.0.1:8081', 10.0.0.2, {address: '[fd00::1]:1', weight: 7}]}]",
                &[
                    "school:n/a.b http=80/TCP",
                    "10.0.0.1 http=8081 w100",
                    "10.0.0.2 http=80 w100",
                    "fd00::1 http=1 w7",
                ],
            ),
            (
                "services: [{name: a, ports: [{name: x, port: 1, targetPort: 11}, {name: y, port: 2, protocol: UDP}], endpoints: [{address: 10.0.0.1, ports: {y: 22}}]}]",
                &["school:default/a x=1/TCP,y=2/UDP", "10.0.0.1 x=11,y=22 w100"],
            ),
            ("services: [{name: empty}]", &["school:default/empty "]),
        ] {
            let (good, bad) = facts(text);
            assert_eq!(good, expected, "{text}");
            assert_eq!(bad, [""; 0], "{text}");
        }
    }

    #[test]
    fn one_bad_entry_costs_only_itself() {
        for (endpoint, expected) in [
            ("'10.0.0.1:70000'", "PTL0005 endpoint \"10.0.0.1:70000\": port 70000"),
            ("'10.0.0.1:0'", "PTL0005 endpoint \"10.0.0.1:0\": port 0"),
            ("'web.example:80'", "PTL0006 endpoint \"web.example:80\": Expected an IP address"),
            ("10.0.0.1", "PTL0005 endpoint \"10.0.0.1\": Neither it nor the service"),
            ("{address: 10.0.0.1, ports: {x: -1}}", "PTL0005 endpoint \"10.0.0.1\": port -1"),
        ] {
            let (good, bad) =
                facts(&format!("services: [{{name: a, endpoints: ['10.0.0.9:1', {endpoint}]}}]"));
            assert_eq!(good, ["school:default/a =1/TCP", "10.0.0.9 =1 w100"], "{endpoint}");
            let [bad] = &bad[..] else { panic!("{bad:?}") };
            assert!(bad.starts_with(&format!("default/a {expected}")), "{bad}");
        }
        for (text, expected) in [
            ("services: [{name: a b}]", "PTL0004"),
            ("services: [{name: ''}]", "PTL0004"),
            ("services: [{name: a}, {name: a}]", "PTL0109"),
            ("services: [{name: a, ports: [{port: 0}]}]", "PTL0005"),
            ("services: [{name: a, ports: [{port: 1, protocol: QUIC}]}]", "PTL0304"),
            (
                "services: [{name: a, ports: [{name: x, port: 1}, {name: y, port: 2}], endpoints: ['10.0.0.1:1']}]",
                "several ports",
            ),
            (
                "services: [{name: a, ports: [{name: x, port: 1}], endpoints: [{address: 10.0.0.1, ports: {y: 1}}]}]",
                "no port \"y\"",
            ),
        ] {
            let (_, bad) = facts(text);
            assert!(bad.len() == 1 && bad[0].contains(expected), "{text} {bad:?}");
        }
    }

    #[test]
    fn errors_say_where() {
        for (text, json, expected) in [
            ("services:\n  - name: a\n    wieght: 1\n", false, "line 3"),
            ("services:\n  - {name: a, endpoints: [{address: x, wieght: 1}]}\n", false, "wieght"),
            ("service:\n  - name: a\n", false, "line 2"),
            ("services: {", false, "line"),
            ("{\"services\": [{\"name\": 1}]}", true, "line 1 column 24"),
            ("", true, "line 1 column 0"),
            ("- a\n", false, "`services:` with a list"),
        ] {
            let error = Document::parse(text, json).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
