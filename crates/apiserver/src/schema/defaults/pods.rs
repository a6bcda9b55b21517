//! Defaults of Pods and of Pod templates.

use serde_json::{Value, json};

use crate::schema::value::{Object, existing, fill, fill_zero, is_zero, items, object};

/// `corev1.DefaultTerminationGracePeriodSeconds`.
const TERMINATION_GRACE_PERIOD_SECONDS: i64 = 30;
/// Mode of files in secret, configMap, downwardAPI and projected volumes: 0644.
const VOLUME_FILE_MODE: i64 = 0o644;
/// Lifetime of a projected ServiceAccount token: one hour.
const PROJECTED_TOKEN_SECONDS: i64 = 3600;
/// How long a Pod stays on a node that is not ready (admission DefaultTolerationSeconds).
const NOT_READY_TOLERATION_SECONDS: i64 = 300;

/// A Pod: the template's defaults and those that upstream gives only to Pods themselves.
pub(super) fn pod(root: &mut Object) {
    let Some(spec) = object(root, "spec") else { return };
    pod_spec(spec);
    // A grace of less than nothing once meant the shortest that there is.
    if let Some(grace) = spec.get_mut("terminationGracePeriodSeconds")
        && grace.as_i64().is_some_and(|seconds| seconds < 0)
    {
        *grace = 1.into();
    }
    fill(spec, "enableServiceLinks", true);
    for key in ["initContainers", "containers"] {
        for container in items(spec, key) {
            requests_from_limits(container);
        }
    }
    if let Some(status) = object(root, "status") {
        first_address(status);
    }
}

/// A Pod's one address is the first of its addresses; where they differ, the one is right.
fn first_address(status: &mut Object) {
    let one = status.get("podIP").filter(|ip| !is_zero(ip)).cloned();
    let all = status.get("podIPs").and_then(Value::as_array);
    let first = all.and_then(|all| all.first()).and_then(|ip| ip.get("ip")).cloned();
    match (one, first) {
        (Some(one), first) if first.as_ref() != Some(&one) => {
            status.insert("podIPs".into(), json!([{"ip": one}]));
        }
        (None, Some(first)) => {
            status.insert("podIP".into(), first);
        }
        _ => {}
    }
}

/// The Pod template of a workload.
pub(super) fn template(workload_spec: &mut Object) {
    let Some(template) = object(workload_spec, "template") else { return };
    object(template, "metadata");
    if let Some(spec) = object(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Object) {
    fill_zero(spec, "dnsPolicy", "ClusterFirst");
    fill_zero(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", TERMINATION_GRACE_PERIOD_SECONDS);
    fill_zero(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for item in items(spec, key) {
            container(item);
            if host_network {
                host_ports(item);
            }
        }
    }
    for item in items(spec, "volumes") {
        volume(item);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; conversion keeps both equal.
fn mirror_service_account(spec: &mut Object) {
    let text = |spec: &Object, key: &str| {
        spec.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
    };
    if let Some(name) = text(spec, "serviceAccountName").or_else(|| text(spec, "serviceAccount")) {
        spec.insert("serviceAccountName".into(), name.as_str().into());
        spec.insert("serviceAccount".into(), name.into());
    }
}

fn container(container: &mut Object) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if image_tag(image) == "latest" { "Always" } else { "IfNotPresent" };
    fill_zero(container, "imagePullPolicy", policy);
    fill_zero(container, "terminationMessagePath", "/dev/termination-log");
    fill_zero(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    for port in items(container, "ports") {
        fill_zero(port, "protocol", "TCP");
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = existing(container, key) {
            probe(found);
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(get) = existing(lifecycle, key).and_then(|h| existing(h, "httpGet")) {
                http_get(get);
            }
        }
    }
    for variable in items(container, "env") {
        if let Some(reference) =
            existing(variable, "valueFrom").and_then(|from| existing(from, "fieldRef"))
        {
            fill_zero(reference, "apiVersion", "v1");
        }
    }
}

/// The tag that an image name means: `latest` when it names neither tag nor digest, and nothing
/// for a name by digest alone or no name at all.
fn image_tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(n, d)| (n, d));
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => tag,
        None if digest.is_empty() && !name.is_empty() => "latest",
        None => "",
    }
}

fn probe(probe: &mut Object) {
    fill_zero(probe, "timeoutSeconds", 1);
    fill_zero(probe, "periodSeconds", 10);
    fill_zero(probe, "successThreshold", 1);
    fill_zero(probe, "failureThreshold", 3);
    if let Some(get) = existing(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = existing(probe, "grpc") {
        fill(grpc, "service", "");
    }
}

fn http_get(get: &mut Object) {
    fill_zero(get, "path", "/");
    fill_zero(get, "scheme", "HTTP");
}

/// With the host's network every container port is the host's port.
fn host_ports(container: &mut Object) {
    for port in items(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned() {
            fill_zero(port, "hostPort", number);
        }
    }
}

/// A limit without a request is also the request.
fn requests_from_limits(container: &mut Object) {
    let Some(resources) = existing(container, "resources") else { return };
    let Some(limits) = existing(resources, "limits").cloned() else { return };
    if let Some(requests) = object(resources, "requests") {
        for (name, quantity) in limits {
            fill(requests, &name, quantity);
        }
    }
}

fn volume(volume: &mut Object) {
    let has_source = volume.iter().any(|(key, v)| key != "name" && !v.is_null());
    if !has_source {
        volume.insert("emptyDir".into(), json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, key) {
            fill(source, "defaultMode", VOLUME_FILE_MODE);
        }
    }
    if let Some(source) = existing(volume, "hostPath") {
        fill(source, "type", "");
    }
    if let Some(source) = existing(volume, "downwardAPI") {
        downward_items(source);
    }
    if let Some(projected) = existing(volume, "projected") {
        for source in items(projected, "sources") {
            if let Some(token) = existing(source, "serviceAccountToken") {
                fill(token, "expirationSeconds", PROJECTED_TOKEN_SECONDS);
            }
            if let Some(downward) = existing(source, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
}

fn downward_items(source: &mut Object) {
    for item in items(source, "items") {
        if let Some(reference) = existing(item, "fieldRef") {
            fill_zero(reference, "apiVersion", "v1");
        }
    }
}

/// What admission and the Pod strategy add when a Pod is created: its service account, priority,
/// the two tolerations, phase and quality of service. The token volume is not added: a Pod here
/// gets its token from the kubelet.
pub fn admit_pod(object_: &mut Value) {
    let qos = super::super::qos::class(object_);
    let Some(root) = object_.as_object_mut() else { return };
    let Some(spec) = object(root, "spec") else { return };
    fill_zero(spec, "serviceAccountName", "default");
    mirror_service_account(spec);
    fill(spec, "priority", 0);
    fill(spec, "preemptionPolicy", "PreemptLowerPriority");
    tolerations(spec);
    let mut status = json!({"phase": "Pending"});
    status["qosClass"] = qos.into();
    root.insert("status".into(), status);
}

/// What admission puts back when a Pod is changed: the two tolerations and the priority.
pub(super) fn carry(old: &Value, new: &mut Value) {
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for key in ["priority", "preemptionPolicy"] {
        if let Some(before) = old.get("spec").and_then(|spec| spec.get(key)) {
            fill(spec, key, before.clone());
        }
    }
    tolerations(spec);
}

fn tolerations(spec: &mut Object) {
    let slot = spec.entry("tolerations").or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Array(Vec::new());
    }
    let Some(present) = slot.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = present.iter().any(|t| {
            let named = t.get("key").and_then(Value::as_str).unwrap_or_default();
            let effect = t.get("effect").and_then(Value::as_str).unwrap_or_default();
            (named == key || named.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            present.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": NOT_READY_TOLERATION_SECONDS}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::image_tag;

    #[test]
    fn image_tags() {
        for (image, tag) in [
            ("nginx", "latest"),
            ("nginx:1.27", "1.27"),
            ("nginx:latest", "latest"),
            ("localhost:5000/nginx", "latest"),
            ("localhost:5000/nginx:2", "2"),
            ("nginx@sha256:00", ""),
            ("nginx:1@sha256:00", "1"),
            ("", ""),
        ] {
            assert_eq!(image_tag(image), tag, "{image}");
        }
    }
}
