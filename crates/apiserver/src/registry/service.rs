//! What a Service is given: families, cluster IPs, node ports.
//!
//! On create and update the Service is normalised (both spellings of the
//! cluster IP, values carried over from before), its families are decided from
//! policy, request and cluster, and then everything still missing is taken
//! from [`super::allocators`]. The guard that comes back gives it all away
//! again unless the write goes through. As upstream, all this comes before
//! validation, which then looks at what was given too.
//! Counterpart of upstream's `pkg/registry/core/service/storage/alloc.go` and
//! `pkg/registry/core/service/strategy.go`.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    allocators::{Allocation, AllocationError, Allocators, Holding, family},
    object,
    rules::set_or_remove,
};
use crate::{
    Cause, Kind, kinds,
    schema::validate::{parse_address, service_addresses},
};

const NONE: &str = "None";
const BOTH: [&str; 2] = ["IPv4", "IPv6"];

fn spec(service: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    service.get("spec").and_then(Value::as_object).unwrap_or(&EMPTY)
}

fn text<'a>(spec: &'a Map<String, Value>, key: &str) -> &'a str {
    spec.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn texts(spec: &Map<String, Value>, key: &str) -> Vec<String> {
    let list = spec.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn port_number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
}

/// Whether there is a number, be it one that is no port.
fn asks_for_port(value: Option<&Value>) -> bool {
    value.and_then(Value::as_i64).is_some_and(|number| number != 0)
}

fn is_external_name(spec: &Map<String, Value>) -> bool {
    text(spec, "type") == "ExternalName"
}

fn is_headless(spec: &Map<String, Value>) -> bool {
    text(spec, "clusterIP") == NONE
        || texts(spec, "clusterIPs").first().is_some_and(|ip| ip == NONE)
}

fn needs_cluster_ip(spec: &Map<String, Value>) -> bool {
    !is_external_name(spec)
}

fn needs_node_ports(spec: &Map<String, Value>) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&json!(false)),
        _ => false,
    }
}

fn needs_health_port(spec: &Map<String, Value>) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Everything that a Service holds.
pub(crate) fn holdings(service: &Value) -> Vec<Holding> {
    let spec = spec(service);
    if is_external_name(spec) {
        return Vec::new();
    }
    let mut found: Vec<Holding> = texts(spec, "clusterIPs")
        .iter()
        .filter_map(|ip| parse_address(ip))
        .map(Holding::Address)
        .collect();
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    found.extend(ports.filter_map(|p| port_number(p.get("nodePort"))).map(Holding::Port));
    found.extend(port_number(spec.get("healthCheckNodePort")).map(Holding::Port));
    found
}

/// What goes back when an object of this kind goes.
pub(crate) fn holdings_of(kind: &Kind, object: &Value) -> Vec<Holding> {
    if *kind == kinds::SERVICES { holdings(object) } else { Vec::new() }
}

/// Makes `clusterIP` and `clusterIPs` say the same where only one was given.
pub(crate) fn normalise(service: &mut Value) {
    let spec = object::map_at(object::map_of(service), "spec");
    let (one, all) = (text(spec, "clusterIP").to_owned(), texts(spec, "clusterIPs"));
    // Not the other way round: addresses without a first one are refused.
    if !one.is_empty() && all.is_empty() {
        spec.insert("clusterIPs".into(), json!([one]));
    }
}

/// Carries over what the client left out, and drops what the new type has no use for.
pub(crate) fn prepare_update(old: &Value, new: &mut Value) {
    let before = spec(old).clone();
    let after = object::map_at(object::map_of(new), "spec");
    drop_type_dependent(&before, after);
    if needs_cluster_ip(&before) && needs_cluster_ip(after) {
        carry_cluster_ips(&before, after);
    }
    if needs_node_ports(&before) && needs_node_ports(after) {
        carry_node_ports(&before, after);
    }
    if needs_health_port(&before)
        && needs_health_port(after)
        && port_number(after.get("healthCheckNodePort")).is_none()
    {
        set_or_remove(after, "healthCheckNodePort", before.get("healthCheckNodePort").cloned());
    }
    trim_to_single_stack(&before, after);
    normalise(new);
}

fn carry_cluster_ips(before: &Map<String, Value>, after: &mut Map<String, Value>) {
    let unchanged = texts(after, "clusterIPs") == texts(before, "clusterIPs");
    let one = text(after, "clusterIP").to_owned();
    if one.is_empty() && (unchanged || texts(after, "clusterIPs").is_empty()) {
        set_or_remove(after, "clusterIP", before.get("clusterIP").cloned());
        set_or_remove(after, "clusterIPs", before.get("clusterIPs").cloned());
    } else if texts(after, "clusterIPs").is_empty() && one == text(before, "clusterIP") {
        set_or_remove(after, "clusterIPs", before.get("clusterIPs").cloned());
    } else if unchanged && one != text(before, "clusterIP") {
        // A client that knows only the older field has changed it.
        after.insert("clusterIPs".into(), json!([one]));
    }
    if texts(after, "ipFamilies").is_empty() {
        set_or_remove(after, "ipFamilies", before.get("ipFamilies").cloned());
    }
    if text(after, "ipFamilyPolicy").is_empty() {
        set_or_remove(after, "ipFamilyPolicy", before.get("ipFamilyPolicy").cloned());
    }
}

fn carry_node_ports(before: &Map<String, Value>, after: &mut Map<String, Value>) {
    let identity = |port: &Value| {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        (protocol, port.get("port").and_then(Value::as_u64))
    };
    let old_ports = before.get("ports").and_then(Value::as_array);
    let mut used: HashSet<u16> =
        ports_of(after).filter_map(|p| port_number(p.get("nodePort"))).collect();
    for port in after.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port_number(port.get("nodePort")).is_some() {
            continue;
        }
        let mut same = old_ports.into_iter().flatten().filter(|o| identity(o) == identity(port));
        let found = same.find_map(|o| port_number(o.get("nodePort")));
        if let Some(number) = found.filter(|n| used.insert(*n)) {
            object::map_of(port).insert("nodePort".into(), number.into());
        }
    }
}

fn ports_of(spec: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    spec.get("ports").and_then(Value::as_array).into_iter().flatten()
}

/// What belongs to the old type goes with it, unless the client changed it in the same write.
fn drop_type_dependent(before: &Map<String, Value>, after: &mut Map<String, Value>) {
    let drop = |after: &mut Map<String, Value>, keys: &[&str]| {
        for key in keys {
            if before.get(*key) == after.get(*key) {
                after.shift_remove(*key);
            }
        }
    };
    if needs_cluster_ip(before) && !needs_cluster_ip(after) {
        drop(after, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
        drop(after, &["internalTrafficPolicy"]);
    }
    let had_ports = matches!(text(before, "type"), "NodePort" | "LoadBalancer");
    let has_ports = matches!(text(after, "type"), "NodePort" | "LoadBalancer");
    if had_ports && !has_ports {
        let old: Vec<_> = ports_of(before).map(|p| p.get("nodePort").cloned()).collect();
        let ports = after.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            if old.contains(&port.get("nodePort").cloned()) {
                object::map_of(port).shift_remove("nodePort");
            }
        }
        drop(after, &["externalTrafficPolicy"]);
    }
    if needs_health_port(before) && !needs_health_port(after) {
        drop(after, &["healthCheckNodePort"]);
    }
    if text(before, "type") == "LoadBalancer" && text(after, "type") != "LoadBalancer" {
        drop(after, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
}

/// Dual to single stack with nothing else changed: the second family goes.
fn trim_to_single_stack(before: &Map<String, Value>, after: &mut Map<String, Value>) {
    let downgraded = text(before, "ipFamilyPolicy") != "SingleStack"
        && text(after, "ipFamilyPolicy") == "SingleStack";
    if !downgraded || texts(before, "clusterIPs") != texts(after, "clusterIPs") {
        return;
    }
    if texts(before, "ipFamilies") != texts(after, "ipFamilies") {
        return;
    }
    for key in ["clusterIPs", "ipFamilies"] {
        if let Some(list) = after.get_mut(key).and_then(Value::as_array_mut) {
            list.truncate(1);
        }
    }
}

/// What the Service had before, as far as it decides what a change is given.
struct Before<'a> {
    spec: &'a Map<String, Value>,
    held: HashSet<Holding>,
}

/// Gives a new Service what it needs.
pub(crate) fn allocate_create(
    allocators: &Arc<Allocators>,
    service: &mut Value,
    dry_run: bool,
) -> Result<Allocation, Vec<Cause>> {
    let mut allocation = Allocation::begin(allocators, dry_run);
    assign(allocators, &mut allocation, None, service)?;
    Ok(allocation)
}

/// Gives a changed Service what it now needs, and lists what it needs no more.
pub(crate) fn allocate_update(
    allocators: &Arc<Allocators>,
    old: &Value,
    new: &mut Value,
    dry_run: bool,
) -> Result<(Allocation, Vec<Holding>), Vec<Cause>> {
    let before = Before { spec: spec(old), held: holdings(old).into_iter().collect() };
    let mut allocation = Allocation::begin(allocators, dry_run);
    assign(allocators, &mut allocation, Some(&before), new)?;
    let kept: HashSet<Holding> = holdings(new).into_iter().collect();
    Ok((allocation, before.held.difference(&kept).copied().collect()))
}

fn assign(
    allocators: &Allocators,
    allocation: &mut Allocation,
    before: Option<&Before<'_>>,
    service: &mut Value,
) -> Result<(), Vec<Cause>> {
    if is_external_name(spec(service)) {
        return Ok(());
    }
    let cluster: Vec<&str> = allocators.cidrs().iter().map(|c| c.family()).collect();
    default_policy(before, object::map_at(object::map_of(service), "spec"));
    check_stacks(before, service)?;
    let spec = object::map_at(object::map_of(service), "spec");
    let families = match before {
        // What prefers two families does not get another when the cluster does.
        Some(before) if prefers_as_before(before.spec, spec) => texts(spec, "ipFamilies"),
        _ => decide_families(spec, &cluster)?,
    };
    let was_headless = before.is_some_and(|before| is_headless(before.spec));
    if !is_headless(spec) && !was_headless {
        let addresses = assign_addresses(allocation, before, spec, &families)?;
        spec.insert("clusterIP".into(), json!(addresses.first()));
        spec.insert("clusterIPs".into(), json!(addresses));
    }
    spec.insert("ipFamilies".into(), json!(families));
    if needs_node_ports(spec) {
        assign_node_ports(allocation, before, spec)?;
    }
    if needs_health_port(spec) {
        assign_health_port(allocation, before, spec)?;
    }
    Ok(())
}

/// Whether the families of the cluster do not matter: nothing is allocated, and nobody is chosen.
fn is_free(spec: &Map<String, Value>) -> bool {
    let selector = spec.get("selector").and_then(Value::as_object);
    is_headless(spec) && selector.is_none_or(Map::is_empty)
}

fn prefers_as_before(before: &Map<String, Value>, after: &Map<String, Value>) -> bool {
    let same = |key: &str| before.get(key) == after.get(key);
    text(after, "ipFamilyPolicy") == "PreferDualStack"
        && !texts(after, "ipFamilies").is_empty()
        && ["ipFamilyPolicy", "ipFamilies", "clusterIP", "clusterIPs"].into_iter().all(same)
}

fn default_policy(before: Option<&Before<'_>>, spec: &mut Map<String, Value>) {
    if !text(spec, "ipFamilyPolicy").is_empty() {
        return;
    }
    let old = before.map(|before| text(before.spec, "ipFamilyPolicy")).unwrap_or_default();
    let policy = match old {
        "" if is_free(spec) => "RequireDualStack",
        "" => "SingleStack",
        old => old,
    };
    spec.insert("ipFamilyPolicy".into(), json!(policy));
}

/// Whether addresses and families go with each other and with the policy.
fn check_stacks(before: Option<&Before<'_>>, service: &Value) -> Result<(), Vec<Cause>> {
    let mut causes = service_addresses(service);
    if !causes.is_empty() {
        return Err(causes);
    }
    let spec = spec(service);
    let policy = text(spec, "ipFamilyPolicy");
    for (key, one, many) in
        [("clusterIPs", "cluster IP", "cluster IPs"), ("ipFamilies", "IP family", "IP families")]
    {
        let count = texts(spec, key).len();
        let mut refuse =
            |why: String| causes.push(Cause::invalid("spec.ipFamilyPolicy", &json!(policy), &why));
        if before.is_some_and(|before| texts(before.spec, key).len() == 2)
            && count == 1
            && policy != "SingleStack"
        {
            refuse(format!("must be 'SingleStack' to release the secondary {one}"));
        }
        if count == 2 && policy == "SingleStack" {
            refuse(format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {many} are specified"
            ));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

/// The families, from what the Service says and what the cluster has.
fn decide_families(
    spec: &Map<String, Value>,
    cluster: &[&'static str],
) -> Result<Vec<String>, Vec<Cause>> {
    let policy = text(spec, "ipFamilyPolicy");
    let mut families = texts(spec, "ipFamilies");
    if !is_headless(spec) {
        for address in texts(spec, "clusterIPs").iter().skip(families.len()) {
            families.extend(parse_address(address).map(|ip| family(ip).to_owned()));
        }
    }
    let free = is_free(spec);
    if !free {
        check_against_cluster(policy, &families, cluster)?;
    }
    if families.is_empty() {
        families.push(cluster.first().copied().unwrap_or(BOTH[0]).to_owned());
    }
    // A headless Service without selector may have what the cluster has not: nothing is allocated.
    if families.len() == 1 && policy != "SingleStack" && (free || cluster.len() > 1) {
        let other = BOTH.into_iter().find(|f| *f != families[0]);
        families.extend(other.map(str::to_owned));
    }
    Ok(families)
}

fn check_against_cluster(
    policy: &str,
    families: &[String],
    cluster: &[&str],
) -> Result<(), Vec<Cause>> {
    let mut causes = Vec::new();
    if policy == "RequireDualStack" && cluster.len() < 2 {
        causes.push(Cause::invalid(
            "spec.ipFamilyPolicy",
            &json!(policy),
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (index, family) in families.iter().enumerate() {
        if !cluster.contains(&family.as_str()) {
            causes.push(Cause::invalid(
                format!("spec.ipFamilies[{index}]"),
                &json!(family),
                "not configured on this cluster",
            ));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

fn assign_addresses(
    allocation: &mut Allocation,
    before: Option<&Before<'_>>,
    spec: &Map<String, Value>,
    families: &[String],
) -> Result<Vec<String>, Vec<Cause>> {
    let asked = texts(spec, "clusterIPs");
    // Those it had stay or are refused: no address is allocated in their place.
    let had = before.map_or(0, |before| texts(before.spec, "clusterIPs").len());
    let refused = |why: String| vec![Cause::invalid("spec.clusterIPs", &json!(asked), &why)];
    let mut addresses = Vec::with_capacity(families.len());
    for (index, wanted) in families.iter().enumerate() {
        let Some(given) = asked.get(index) else {
            let address = allocation
                .any_address(wanted)
                .map_err(|error| refused(format!("failed to allocate a serviceIP: {error}")))?;
            addresses.push(address.to_string());
            continue;
        };
        if index >= had
            && let Some(address) = parse_address(given)
        {
            allocation
                .address(address)
                .map_err(|error| refused(format!("failed to allocate IP {given}: {error}")))?;
        }
        addresses.push(given.clone());
    }
    Ok(addresses)
}

/// Ports of one Service that differ only in protocol share a node port.
fn assign_node_ports(
    allocation: &mut Allocation,
    before: Option<&Before<'_>>,
    spec: &mut Map<String, Value>,
) -> Result<(), Vec<Cause>> {
    // (node port, service port, protocol) of what this Service has so far.
    let mut own: Vec<(u16, Option<u64>, String)> = Vec::new();
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
    // What is asked for comes first, or a dynamic pick could take it.
    let (asked, open): (Vec<usize>, Vec<usize>) =
        (0..ports.len()).partition(|i| asks_for_port(ports[*i].get("nodePort")));
    for index in asked.into_iter().chain(open) {
        let port = &mut ports[index];
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        let service_port = port.get("port").and_then(Value::as_u64);
        let field = format!("spec.ports[{index}].nodePort");
        let number = match port_number(port.get("nodePort")) {
            // No port at all: validation says so.
            None if asks_for_port(port.get("nodePort")) => continue,
            Some(number) => {
                let is_shared = own
                    .iter()
                    .any(|(n, p, other)| *n == number && *p == service_port && *other != protocol);
                let is_had = before.is_some_and(|before| {
                    before.held.contains(&Holding::Port(number))
                        || own.iter().any(|(n, _, _)| *n == number)
                });
                if !is_shared && !is_had {
                    allocation.port(number).map_err(|e| port_cause(&field, number, &e))?;
                }
                number
            }
            None => {
                let shared = own
                    .iter()
                    .find(|(n, p, other)| {
                        *p == service_port
                            && *other != protocol
                            && !own.iter().any(|(m, _, o)| m == n && *o == protocol)
                    })
                    .map(|(number, _, _)| *number);
                match shared {
                    Some(number) => number,
                    None => allocation.any_port().map_err(|e| port_cause(&field, 0, &e))?,
                }
            }
        };
        object::map_of(port).insert("nodePort".into(), number.into());
        own.push((number, service_port, protocol));
    }
    Ok(())
}

fn assign_health_port(
    allocation: &mut Allocation,
    before: Option<&Before<'_>>,
    spec: &mut Map<String, Value>,
) -> Result<(), Vec<Cause>> {
    let field = "spec.healthCheckNodePort";
    match port_number(spec.get("healthCheckNodePort")) {
        Some(number) => {
            if before.is_none_or(|before| !before.held.contains(&Holding::Port(number))) {
                allocation.port(number).map_err(|e| port_cause(field, number, &e))?;
            }
        }
        None if asks_for_port(spec.get("healthCheckNodePort")) => {}
        None => {
            let number = allocation.any_port().map_err(|e| port_cause(field, 0, &e))?;
            spec.insert("healthCheckNodePort".into(), number.into());
        }
    }
    Ok(())
}

fn port_cause(field: &str, number: u16, error: &AllocationError) -> Vec<Cause> {
    vec![Cause::invalid(field, &json!(number), &error.to_string())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocators(families: &[&str]) -> Arc<Allocators> {
        let cidrs: Vec<_> = families
            .iter()
            .map(|f| if *f == "IPv4" { "10.0.0.0/16" } else { "fd00::/112" }.parse().unwrap())
            .collect();
        Arc::new(Allocators::new(&cidrs, 30_000..=32_767))
    }

    fn service(spec: Value) -> Value {
        let mut service = json!({"spec": spec});
        normalise(&mut service);
        service
    }

    /// The dual-stack table of issue 3 (upstream `storage_test.go`).
    #[test]
    fn dual_stack_defaults() {
        let (v4, both) = (&["IPv4"][..], &["IPv4", "IPv6"][..]);
        for (spec, cluster, policy, families, ips) in [
            (json!({"selector": {"a": "b"}}), v4, "SingleStack", v4, 1),
            (json!({"selector": {"a": "b"}}), both, "SingleStack", v4, 1),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), v4, "PreferDualStack", v4, 1),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), both, "PreferDualStack", both, 2),
            (
                json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}),
                both,
                "PreferDualStack",
                &["IPv6", "IPv4"][..],
                2,
            ),
            (json!({"clusterIP": "None"}), v4, "RequireDualStack", both, 1),
            (json!({"clusterIP": "None", "selector": {"a": "b"}}), both, "SingleStack", v4, 1),
            (json!({"clusterIP": "fd00::5"}), both, "SingleStack", &["IPv6"][..], 1),
        ] {
            let mut object = service(spec.clone());
            allocate_create(&allocators(cluster), &mut object, false).unwrap().keep();
            let spec_now = &object["spec"];
            assert_eq!(spec_now["ipFamilyPolicy"], policy, "{spec}");
            assert_eq!(spec_now["ipFamilies"], json!(families), "{spec}");
            assert_eq!(spec_now["clusterIPs"].as_array().unwrap().len(), ips, "{spec}");
            assert_eq!(spec_now["clusterIP"], spec_now["clusterIPs"][0], "{spec}");
        }
    }

    #[test]
    fn dual_stack_refusals() {
        let (v4, both) = (&["IPv4"][..], &["IPv4", "IPv6"][..]);
        for (spec, cluster, message) in [
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                v4,
                "this cluster is not configured for dual-stack services",
            ),
            (
                json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}),
                both,
                "when multiple IP families are specified",
            ),
            (
                json!({"ipFamilyPolicy": "SingleStack", "clusterIP": "10.0.0.1",
                    "clusterIPs": ["10.0.0.1", "fd00::1"]}),
                both,
                "when multiple cluster IPs are specified",
            ),
            (json!({"ipFamilies": ["IPv6"]}), v4, "not configured on this cluster"),
            (json!({"clusterIP": "11.0.0.1"}), v4, "is not in the valid range"),
        ] {
            let all = allocators(cluster);
            let causes = allocate_create(&all, &mut service(spec.clone()), false).unwrap_err();
            assert!(causes[0].message.contains(message), "{spec}: {causes:?}");
            assert_eq!(all.held(), (0, 0));
        }
    }

    fn update(all: &Arc<Allocators>, old: &Value, spec: Value) -> Result<Value, Vec<Cause>> {
        let mut new = json!({"spec": spec});
        prepare_update(old, &mut new);
        let (taken, released) = allocate_update(all, old, &mut new, false)?;
        taken.keep();
        all.release(&released);
        Ok(new)
    }

    #[test]
    fn families_follow_the_policy() {
        let all = allocators(&["IPv4", "IPv6"]);
        let mut old = service(json!({"selector": {"a": "b"}, "type": "ClusterIP"}));
        allocate_create(&all, &mut old, false).unwrap().keep();
        let first = old["spec"]["clusterIP"].clone();

        let mut wanted = old["spec"].clone();
        wanted["ipFamilyPolicy"] = json!("PreferDualStack");
        let dual = update(&all, &old, wanted).unwrap();
        assert_eq!(dual["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
        assert_eq!(dual["spec"]["clusterIP"], first);
        assert_eq!(all.held().0, 2);

        let mut dropped = dual["spec"].clone();
        dropped["clusterIPs"].as_array_mut().unwrap().pop();
        let causes = update(&all, &dual, dropped).unwrap_err();
        assert!(causes[0].message.contains("must be 'SingleStack' to release"), "{causes:?}");

        let mut single = dual["spec"].clone();
        single["ipFamilyPolicy"] = json!("SingleStack");
        let single = update(&all, &dual, single).unwrap();
        assert_eq!(single["spec"]["clusterIPs"], json!([first]));
        assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(all.held().0, 1);
    }

    #[test]
    fn what_is_left_out_is_carried_over() {
        let all = allocators(&["IPv4"]);
        let mut old = service(
            json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 53}]}),
        );
        allocate_create(&all, &mut old, false).unwrap().keep();
        let ports = old["spec"]["ports"].clone();
        assert_eq!(ports[1]["nodePort"], ports[2]["nodePort"], "protocols share a node port");
        assert_eq!(all.held(), (1, 2));

        let again =
            update(&all, &old, json!({"type": "NodePort", "ports": [{"port": 80}]})).unwrap();
        assert_eq!(again["spec"]["clusterIP"], old["spec"]["clusterIP"]);
        assert_eq!(again["spec"]["ports"][0]["nodePort"], ports[0]["nodePort"]);
        assert_eq!(all.held(), (1, 1));

        let mut plain = again["spec"].clone();
        plain["type"] = json!("ClusterIP");
        let plain = update(&all, &again, plain).unwrap();
        assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
        assert_eq!(all.held(), (1, 0));

        let mut external = plain["spec"].clone();
        external["type"] = json!("ExternalName");
        let external = update(&all, &plain, external).unwrap();
        assert!(external["spec"].get("clusterIP").is_none());
        assert_eq!(all.held(), (0, 0));
    }

    #[test]
    fn node_port_clashes() {
        let all = allocators(&["IPv4"]);
        for (ports, ok) in [
            (json!([{"port": 1, "nodePort": 30001}, {"port": 2, "nodePort": 30001}]), false),
            (
                json!([{"port": 1, "nodePort": 30001}, {"port": 1, "nodePort": 30001, "protocol": "UDP"}]),
                true,
            ),
            (json!([{"port": 1, "nodePort": 80}]), false),
        ] {
            let mut object = service(json!({"type": "NodePort", "ports": ports}));
            assert_eq!(allocate_create(&all, &mut object, false).is_ok(), ok, "{object}");
            assert_eq!(all.held(), (0, 0), "nothing leaks");
        }
    }

    #[test]
    fn health_check_port_comes_and_goes() {
        let all = allocators(&["IPv4"]);
        let mut old = service(
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
        );
        allocate_create(&all, &mut old, false).unwrap().keep();
        assert!(old["spec"]["healthCheckNodePort"].is_u64());
        assert_eq!(all.held(), (1, 2));
        let mut new = old["spec"].clone();
        new["type"] = json!("ClusterIP");
        let new = update(&all, &old, new).unwrap();
        assert!(new["spec"].get("healthCheckNodePort").is_none());
        assert_eq!(all.held(), (1, 0));
    }
}
