//! Pods, as far as they explain endpoints.

use std::{net::IpAddr, sync::Arc};

use portolan_model::{Code, Fact, FactKey, Name, Workload};

use super::{Facts, parse_addresses, some};
use crate::{kubernetes::objects, names::Names};

/// Marks Pods that only pretend to run (the embedded cluster's kubelet).
const HOLLOW_ANNOTATION: &str = "portolan.dev/hollow";

/// A Pod as a workload.
pub(crate) fn workload(object: &objects::Pod, names: &mut Names) -> Facts {
    let (meta, spec, status) = (&object.metadata, &object.spec, &object.status);
    let name = names.object(&meta.namespace, &meta.name);
    let mut optional = |text: &Option<String>| text.as_deref().and_then(some).map(|t| names.get(t));
    let workload = Workload {
        name: name.clone(),
        uid: portolan_model::name(&meta.uid),
        addresses: addresses(object),
        node: optional(&spec.node_name),
        service_account: optional(&spec.service_account_name),
        phase: names.get(&status.phase),
        ready: is_ready(object),
        terminating: meta.deletion_timestamp.is_some(),
        not_ready: not_ready(object, names),
        hollow: meta.annotations.get(HOLLOW_ANNOTATION).is_some_and(|text| text == "true"),
        labels: names.map(&meta.labels),
    };
    vec![(FactKey::Workload(name), Fact::Workload(workload.into()))]
}

/// The addresses of a Pod, primary first.
pub(crate) fn addresses(object: &objects::Pod) -> Vec<IpAddr> {
    let all = object.status.pod_ips.iter().map(|ip| ip.ip.as_str());
    parse_addresses([object.status.pod_ip.as_str()].into_iter().chain(all)).0
}

/// The Ready condition is true.
pub(super) fn is_ready(object: &objects::Pod) -> bool {
    condition(object, "Ready").is_some_and(|condition| condition.status == "True")
}

fn condition<'a>(object: &'a objects::Pod, kind: &str) -> Option<&'a objects::Condition> {
    object.status.conditions.iter().find(|condition| condition.kind == kind)
}

/// Why a Pod is not ready: the condition's words, and where a container waits,
/// those of the container, which say more ("back-off 40s restarting failed
/// container" instead of "containers with unready status").
fn not_ready(object: &objects::Pod, names: &mut Names) -> Option<Arc<(Name, Name)>> {
    if is_ready(object) {
        return None;
    }
    let ready = condition(object, "Ready");
    // Messages of our own kubelet carry their code already.
    if let Some(ready) = ready
        && Code::leading(&ready.message).is_some()
    {
        return pair(&ready.reason, &ready.message, names);
    }
    if let Some((container, waiting)) = waiting(object) {
        let text = match some(&waiting.message) {
            Some(message) => format!("container {container}: {message}"),
            None => format!("container {container}: {}", waiting.reason),
        };
        return match code_of(&waiting.reason) {
            Some(code) => pair(&waiting.reason, &format!("{code}: {text}"), names),
            None => pair(&waiting.reason, &text, names),
        };
    }
    let unscheduled =
        condition(object, "PodScheduled").filter(|condition| condition.status == "False");
    let said = unscheduled.or(ready)?;
    pair(&said.reason, &said.message, names)
}

fn pair(reason: &str, message: &str, names: &mut Names) -> Option<Arc<(Name, Name)>> {
    Some(Arc::new((names.get(reason), names.get(message))))
}

/// The first container that waits for more than its turn to be created.
fn waiting(object: &objects::Pod) -> Option<(&str, &objects::Waiting)> {
    let status = &object.status;
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .filter_map(|container| Some((container.name.as_str(), container.state.waiting.as_ref()?)))
        .find(|(_, waiting)| {
            !matches!(waiting.reason.as_str(), "" | "ContainerCreating" | "PodInitializing")
        })
}

/// Our code for what an upstream kubelet reports.
fn code_of(waiting_reason: &str) -> Option<Code> {
    match waiting_reason {
        "CrashLoopBackOff" => Some(Code::CRASH_LOOP),
        "CreateContainerError"
        | "CreateContainerConfigError"
        | "RunContainerError"
        | "StartError" => Some(Code::START_ERROR),
        _ => None,
    }
}
