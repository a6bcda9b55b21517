//! The open cases, asked over a real socket.
//!
//! Every case of `testdata/cases.json` is either asked and compared, or named in
//! [`DECIDED`] with the reason why it is answered differently. A case that is named
//! there and passes fails the test.

use std::{collections::BTreeMap, path::Path};

use domain::{
    base::{
        Message, ParsedName, ParsedRecord, Rtype,
        iana::{Class, Rcode},
    },
    rdata::AllRecordData,
};
use portolan_dns::{
    ExternalSettings, Forwarding, PodNames, Settings, Zone, ZoneKind, config::FaceConfig, corefile,
};
use portolan_testkit::{Live, fixture};
use serde_json::{Value, json};

use crate::{
    client::{Ask, PATIENCE, Server, message, tcp, udp},
    upstream::{Heard, Upstream},
};

/// Cases that we answer differently on purpose.
const DECIDED: &[(&str, &str)] =
    &[("main-051", "SERVFAIL for the whole zone until every source has told all it knows")];

#[tokio::test]
async fn open_cases() {
    let table: Value = serde_json::from_str(include_str!("../../testdata/cases.json")).unwrap();
    let cases = table["cases"].as_array().unwrap();
    let (mut passed, mut wrong) = (0, Vec::new());
    let mut decided_differently: BTreeMap<&str, usize> = BTreeMap::new();
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let decided = DECIDED.iter().find(|(prefix, _)| id.starts_with(prefix));
        let verdict = ask(&table, case).await;
        match (decided.map(|(_, why)| *why), verdict) {
            (None, Ok(())) => passed += 1,
            (None, Err(difference)) => wrong.push(format!("{id}: {difference}")),
            (Some(what), Ok(())) => wrong.push(format!("{id} passes, but is listed: {what}")),
            (Some(what), Err(_)) => *decided_differently.entry(what).or_default() += 1,
        }
    }
    let left: usize = decided_differently.values().sum();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(passed + left, cases.len());
    println!(
        "{passed} of {} cases pass; differently on purpose: {decided_differently:?}",
        cases.len()
    );
    // Raise it with each feature; never lower it.
    assert!(passed >= PASSED_MIN, "only {passed} cases pass");
}

/// How many cases pass today.
const PASSED_MIN: usize = 158;

async fn ask(table: &Value, case: &Value) -> Result<(), String> {
    let mut fixture = table["fixtures"][case["fixture"].as_str().unwrap()].clone();
    if let Some(changes) = case["override"].as_object() {
        for (key, value) in changes {
            fixture["config"][key] = value.clone();
        }
    }
    step(&mut fixture, case);
    if let Some(client) = case["client_ip"].as_str() {
        is_client(&mut fixture, client);
    }
    let mut settings = settings(&fixture)?;
    let upstream = upstream(&fixture["config"]).await;
    settings.forwarding = Forwarding::to(upstream.iter().map(|upstream| upstream.address));
    let world = fixture::world(&fixture)?;
    let server = if fixture["config"]["synced"] == false {
        let hub = portolan_catalog::Hub::new(portolan_model::Version::first(0));
        let mut catalog = portolan_catalog::Catalog::new(hub.clone());
        let mut reports = world.reports();
        reports.pop();
        catalog.apply(reports, 1);
        Server::start(hub, settings).await
    } else {
        let face = upstream.as_ref().and_then(|upstream| stages(&fixture["config"], upstream));
        Server::by(Live::new(&world).hub().clone(), settings, face).await
    };
    let outcome = exchange(&server, case).await;
    server.stop().await;
    outcome
}

async fn exchange(server: &Server, case: &Value) -> Result<(), String> {
    let name = case["qname"].as_str().unwrap();
    let kind: Rtype = case["qtype"].as_str().unwrap().parse().map_err(|_| "unknown type")?;
    let mut ask = Ask::new(if name.starts_with('(') { "x." } else { name }, kind);
    if case["qclass"] == "CH" {
        ask.class = Class::CH;
    }
    if let Some(version) = case["edns"]["version"].as_u64() {
        ask.edns = Some((1232, u8::try_from(version).unwrap()));
    }
    let mut packet = ask.packet();
    if let Some(count) = case["qdcount"].as_u64() {
        packet[5] = u8::try_from(count).unwrap();
    }
    let mut reply = None;
    if case["transport"] != "tcp" {
        let bytes = udp(server.address(), &packet, PATIENCE).await.ok_or("no reply over UDP")?;
        let cut = Message::from_slice(&bytes).is_ok_and(|message| message.header().tc());
        // A cut reply is asked for again over TCP, unless the case is about it.
        reply = (!cut || case["tc"] == true).then_some(bytes);
    }
    let reply = match reply {
        Some(reply) => reply,
        None => tcp(server.address(), &packet).await.ok_or("no reply over TCP")?,
    };
    compare(&message(reply), case, ask.edns.is_some())
}

fn compare(reply: &Message<Vec<u8>>, case: &Value, edns: bool) -> Result<(), String> {
    let sensitive = case["case_sensitive"] == true;
    let rcode = reply.opt_rcode().to_string();
    let expected_rcode = case["rcode"].as_str().unwrap();
    let header = reply.header();
    let mut differences = Vec::new();
    let mut differ = |what: &str, found: String, expected: String| {
        if found != expected {
            differences.push(format!("{what} is {found}, expected {expected}"));
        }
    };
    differ("rcode", rcode, expected_rcode.to_owned());
    let (answer, authority, additional) = sections(reply, sensitive);
    differ("answer", show(&answer), expected(case, "answer", sensitive));
    // An empty authority of a refusal means: nothing is required.
    let required = !matches!(expected_rcode, "REFUSED" | "FORMERR" | "NOTIMP");
    if required {
        differ("authority", show(&authority), expected(case, "authority", sensitive));
        differ("AA", header.aa().to_string(), (expected_rcode != "BADVERS").to_string());
        differ("TC", header.tc().to_string(), (case["tc"] == true).to_string());
    }
    differ("additional", show(&additional), expected(case, "additional", sensitive));
    differ("RA", header.ra().to_string(), "false".to_owned());
    differ("RD", header.rd().to_string(), "true".to_owned());
    differ("OPT", reply.opt().is_some().to_string(), edns.to_string());
    // A CNAME stands before the records of its target.
    let alias = answer.iter().rposition(|line| line.contains(" CNAME "));
    let first = answer.iter().position(|line| !line.contains(" CNAME "));
    if let (Some(alias), Some(first)) = (alias, first) {
        differ("the alias comes first", (alias < first).to_string(), "true".to_owned());
    }
    if differences.is_empty() { Ok(()) } else { Err(differences.join("; ")) }
}

type Record<'a> =
    domain::base::Record<ParsedName<&'a [u8]>, AllRecordData<&'a [u8], ParsedName<&'a [u8]>>>;

fn sections(reply: &Message<Vec<u8>>, sensitive: bool) -> (Vec<String>, Vec<String>, Vec<String>) {
    let lines = |section: domain::base::message::RecordSection<'_, Vec<u8>>| -> Vec<String> {
        section
            .map(|record: Result<ParsedRecord<'_, Vec<u8>>, _>| {
                let record: Record<'_> =
                    record.unwrap().into_record().unwrap().expect("a type we know");
                line(&record.to_string(), sensitive)
            })
            .filter(|line| !line.contains(" OPT "))
            .collect()
    };
    (
        lines(reply.answer().unwrap()),
        lines(reply.authority().unwrap()),
        lines(reply.additional().unwrap()),
    )
}

/// One record in the form of the case file: serials do not count, nor does case.
fn line(text: &str, sensitive: bool) -> String {
    let mut fields: Vec<&str> = text.split_whitespace().collect();
    if fields.get(3) == Some(&"SOA") && fields.len() > 6 {
        fields[6] = "*";
    }
    let mut line = fields.join(" ");
    // `domain` prints the target of an SRV without its last dot.
    if fields.get(3) == Some(&"SRV") && !line.ends_with('.') {
        line.push('.');
    }
    if sensitive {
        return line;
    }
    let upper =
        [" IN ", " SOA ", " CNAME ", " AAAA ", " SRV ", " PTR ", " TXT ", " NS ", " A ", " OPT "];
    upper
        .iter()
        .fold(line.to_lowercase(), |line, word| line.replacen(&word.to_lowercase(), word, 1))
}

fn expected(case: &Value, section: &str, sensitive: bool) -> String {
    let lines = case[section].as_array().into_iter().flatten();
    show(&lines.map(|text| line(text.as_str().unwrap(), sensitive)).collect::<Vec<_>>())
}

/// As a set.
fn show(lines: &[String]) -> String {
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.sort_unstable();
    format!("[{}]", lines.join(", "))
}

fn settings(fixture: &Value) -> Result<Settings, String> {
    let config = &fixture["config"];
    let ttl = u32::try_from(config["ttl"].as_u64().unwrap_or(5)).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        let values = value.as_array().into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let clustersets = texts(&config["multicluster_zones"]);
    let external = &config["k8s_external"];
    let ours = texts(&config["zones"]).into_iter().map(|zone| {
        let clusterset = clustersets.contains(&zone);
        if clusterset { Zone::of(&zone, ZoneKind::ClusterSet) } else { Zone::new(&zone) }
    });
    let outside = external["zone"].as_str().map(|zone| Zone::of(zone, ZoneKind::External));
    let extra = config["extra_zone"].as_str().map(Zone::new);
    let zones = ours.chain(outside).chain(extra).collect::<Option<_>>().ok_or("no zone")?;
    let exposed = texts(&config["namespaces"]);
    Ok(Settings {
        zones,
        ttl_seconds: ttl,
        // As under a Corefile.
        negative_ttl_seconds: ttl,
        pods: match config["pods"].as_str() {
            Some("insecure") => PodNames::Insecure,
            Some("verified") => PodNames::Verified,
            _ => PodNames::Disabled,
        },
        namespaces: (!exposed.is_empty())
            .then(|| exposed.iter().map(|name| name.as_str().into()).collect()),
        endpoint_pod_names: config["endpoint_pod_names"] == true,
        endpoints: config["noendpoints"] != true,
        empty_services: config["ignore_empty_service"] != true,
        zonal: config["zonal"] == true,
        own_addresses: texts(&config["server_ips"])
            .iter()
            .map(|ip| std::net::SocketAddr::new(ip.parse().unwrap(), 53))
            .collect(),
        external: ExternalSettings {
            headless: external["headless"] == true,
            ttl_seconds: u32::try_from(external["ttl"].as_u64().unwrap_or(5)).unwrap(),
            ..ExternalSettings::default()
        },
        forwarding: Forwarding::default(),
        ..Settings::default()
    })
}

/// The Corefile of a case that is about more than `kubernetes`, as upstream's test has it.
/// Their `file` is a zone of the server itself; it stands in the upstream server here.
fn stages(config: &Value, upstream: &Upstream) -> Option<FaceConfig> {
    let falls = if config["fallthrough"].is_null() { "" } else { "fallthrough\n" };
    let autopath = if config["autopath"] == true { "autopath @kubernetes\n" } else { "" };
    if falls.is_empty() && autopath.is_empty() {
        return None;
    }
    let pods = config["pods"].as_str().unwrap_or("disabled");
    let exposed: Vec<&str> =
        config["namespaces"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let namespaces = match &exposed[..] {
        [] => String::new(),
        some => format!("namespaces {}\n", some.join(" ")),
    };
    let text = format!(
        ".:53 {{\n{autopath}kubernetes cluster.local {{\npods {pods}\n{namespaces}{falls}}}\n\
         forward . {}\n}}\n",
        upstream.address
    );
    let read = corefile::read(&text, Path::new("Corefile"), &corefile::Disk);
    Some(read.unwrap_or_else(|fault| panic!("{fault}\n{text}")).config)
}

/// Gives the Pod that a case asks from the address that questions of this test come from.
fn is_client(fixture: &mut Value, client: &str) {
    let pods = fixture["pods"].as_array_mut().into_iter().flatten();
    for pod in pods.filter(|pod| pod["podIP"] == client) {
        pod["podIP"] = json!("127.0.0.1");
    }
}

/// The zone file that a case's server has beside Services: names with their lines, and the
/// lines of its authority. The file of the autopath test gives foo.example.net the address
/// that its cases expect; the case file tells it as that of the name above.
fn static_zone(config: &Value) -> (BTreeMap<String, String>, Vec<&'static str>) {
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let mut names = BTreeMap::new();
    for line in texts(&config["next_zone"]) {
        if let Some((name, address)) = line.split_once(". A ") {
            names.insert(name.to_owned(), format!("{name}. 303 IN A {address}"));
        }
    }
    if config["static_zone"].is_object() {
        let name = "foo.example.net";
        names.insert(name.to_owned(), format!("{name}. 303 IN A 10.10.10.11"));
        return (names, vec!["example.net. 303 IN NS ns.example.net."]);
    }
    let authority = [
        "cluster.local. 303 IN NS a.iana-servers.net.",
        "cluster.local. 303 IN NS b.iana-servers.net.",
    ];
    (names, authority.to_vec())
}

/// The server that a fixture has for names that are not ours.
async fn upstream(config: &Value) -> Option<Upstream> {
    let (known, zone) = (config["upstream"].clone(), config["upstream_zone"].clone());
    if known.is_null() && zone.is_null() {
        return None;
    }
    let cut = config["upstream_truncated"] == true;
    let (statics, authority) = static_zone(config);
    let say = move |heard: &Heard| {
        if let Some(line) = statics.get(&heard.name).filter(|_| heard.kind == Rtype::A) {
            let mut reply = heard.reply(Rcode::NOERROR, &[line], &authority);
            // A zone of its own: authoritative, and no recursion.
            reply[2] |= 0x04;
            reply[3] &= 0x7f;
            return Some(reply);
        }
        let mut lines: Vec<String> = Vec::new();
        match &known[format!("{}. {}", heard.name, heard.kind)] {
            Value::Array(known) => {
                lines.extend(known.iter().map(|line| line.as_str().unwrap().to_owned()));
            }
            Value::String(word) if word == "timeout" => return None,
            _ => {}
        }
        if let (Some(address), Rtype::A) = (zone[format!("{}.", heard.name)].as_str(), heard.kind) {
            lines.push(format!("{}. 303 IN A {address}", heard.name));
        }
        let exists = known[format!("{}. {}", heard.name, heard.kind)] == "NODATA";
        let rcode = if lines.is_empty() && !exists { Rcode::NXDOMAIN } else { Rcode::NOERROR };
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut reply = heard.reply(rcode, &lines, &[]);
        if cut {
            reply[2] |= 0x02;
        }
        Some(reply)
    };
    Some(Upstream::start(say).await)
}

/// The change that a case describes in words, made to the fixture.
fn step(fixture: &mut Value, case: &Value) {
    let find = |list: &mut Value, name: &str| -> usize {
        let items = list.as_array().unwrap();
        items.iter().position(|item| item["name"] == name).unwrap()
    };
    match case["id"].as_str().unwrap() {
        // "The DNS server itself is its endpoint."
        "ci-206" => {
            fixture["config"]["server_ips"] = json!(["10.20.0.53"]);
            push(
                &mut fixture["endpointslices"],
                json!({
                    "name": "kube-dns", "namespace": "kube-system", "service": "kube-dns",
                    "ports": [{"name": "dns", "protocol": "UDP", "port": 53}],
                    "endpoints": [{"address": "10.20.0.53", "ready": true}],
                }),
            );
        }
        "ci-208" => {
            let ports = json!([{"name": "http", "protocol": "TCP", "port": 80}]);
            push(
                &mut fixture["services"],
                json!({
                    "name": "new-svc", "namespace": "test-1", "clusterIPs": ["10.96.0.222"],
                    "ports": ports,
                }),
            );
            push(
                &mut fixture["endpointslices"],
                json!({
                    "name": "new-svc", "namespace": "test-1", "service": "new-svc", "ports": ports,
                    "endpoints": [{"address": "172.17.0.222", "ready": true}],
                }),
            );
        }
        "e2e-245" => {
            let services = &mut fixture["services"];
            let place = find(services, "dns-test-service-3");
            services[place]["externalName"] = json!("bar.example.com");
        }
        "e2e-246" => {
            let services = &mut fixture["services"];
            let place = find(services, "dns-test-service-3");
            services[place] = json!({
                "name": "dns-test-service-3", "namespace": "dns-1", "clusterIPs": ["10.96.7.8"],
                "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
            });
        }
        id => assert!(case["step"].is_null(), "{id}: the step is not made"),
    }
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().unwrap().push(item);
}
