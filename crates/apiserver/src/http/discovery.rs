//! Discovery: the table of kinds in the shapes that clients ask for.
//!
//! The aggregated form (KEP-3352) answers everything in two requests; the
//! legacy form is still asked for by `kubectl auth can-i` and older clients.
//! All of it is computed once: kinds are static.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    accept::Form,
    respond::{self, Answer},
    route::Discovery,
};
use crate::{Kind, Status, kinds};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// By the priorities that kube-aggregator gives them.
const GROUP_ORDER: [&str; 8] = [
    "",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "networking.k8s.io",
    "rbac.authorization.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
];
const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A part of a kind that has its own URL: name, kind of its body with group and version, verbs.
struct Part {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

fn parts(kind: &Kind) -> Vec<Part> {
    let own = |name, verbs| Part {
        name,
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
        verbs,
    };
    let foreign =
        |name, group, version, kind| Part { name, group, version, kind, verbs: &["create"] };
    let mut parts = Vec::new();
    if kind.is_core("pods") {
        let connected =
            |name, kind| Part { verbs: &["create", "get"], ..foreign(name, "", "v1", kind) };
        parts.push(connected("attach", "PodAttachOptions"));
        parts.push(foreign("binding", "", "v1", "Binding"));
        parts.push(own("ephemeralcontainers", &PART_VERBS));
        parts.push(foreign("eviction", "policy", "v1", "Eviction"));
        parts.push(connected("exec", "PodExecOptions"));
        parts.push(own("log", &["get"]));
        parts.push(connected("portforward", "PodPortForwardOptions"));
        parts.push(own("resize", &PART_VERBS));
    }
    if kind.is_core("namespaces") {
        parts.push(own("finalize", &["update"]));
    }
    if kind.is_core("serviceaccounts") {
        parts.push(foreign("token", "authentication.k8s.io", "v1", "TokenRequest"));
    }
    if kind.has_scale {
        let scale = foreign("scale", "autoscaling", "v1", "Scale");
        parts.push(Part { verbs: &PART_VERBS, ..scale });
    }
    if kind.has_status {
        parts.push(own("status", &PART_VERBS));
    }
    parts
}

/// A group with its versions, the preferred one first.
struct Group {
    name: &'static str,
    versions: Vec<GroupVersion>,
}

/// A version of a group: its kinds, each with whether it is stored.
struct GroupVersion {
    version: &'static str,
    members: Vec<(&'static Kind, bool)>,
}

/// Groups and their versions, in the order in which the table of kinds first names them.
fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let stored = kinds::ALL.iter().map(|k| (*k, true));
    for (kind, stored) in stored.chain(kinds::VIRTUAL.iter().map(|k| (*k, false))) {
        let group = position_or_push(
            &mut groups,
            |g| g.name == kind.group,
            || Group { name: kind.group, versions: Vec::new() },
        );
        let versions = &mut groups[group].versions;
        let version = position_or_push(
            versions,
            |v| v.version == kind.version,
            || GroupVersion { version: kind.version, members: Vec::new() },
        );
        versions[version].members.push((kind, stored));
    }
    let rank = |name: &str| GROUP_ORDER.iter().position(|known| *known == name);
    groups.sort_by_key(|group| rank(group.name));
    for version in groups.iter_mut().flat_map(|group| &mut group.versions) {
        version.members.sort_by_key(|(kind, _)| kind.plural);
    }
    groups
}

/// Where the first such item is; a new one is put at the end when there is none.
fn position_or_push<T>(
    items: &mut Vec<T>,
    is_it: impl Fn(&T) -> bool,
    new: impl FnOnce() -> T,
) -> usize {
    items.iter().position(is_it).unwrap_or_else(|| {
        items.push(new());
        items.len() - 1
    })
}

fn verbs(kind: &Kind, stored: bool) -> Vec<&'static str> {
    match stored {
        false => vec!["create"],
        // Namespaces are not deleted all at once.
        true if kind.is_core("namespaces") => {
            VERBS.into_iter().filter(|verb| *verb != "deletecollection").collect()
        }
        true => VERBS.to_vec(),
    }
}

/// Group and version are left open where they are those of the list.
fn response_kind(kind: &Kind, group: &str, version: &str, name: &str) -> Value {
    let is_own = (group, version) == (kind.group, kind.version);
    let (group, version) = if is_own { ("", "") } else { (group, version) };
    json!({"group": group, "version": version, "kind": name})
}

/// Tells clients whether the stored form has changed: a hash of group, version and kind
/// (apiserver `pkg/endpoints/discovery/storageversionhash.go`).
fn storage_version_hash(kind: &Kind) -> String {
    let kind_version = kind.version;
    const BYTES: usize = 8;
    let Kind { group, kind, .. } = kind;
    // Stored in the version in which they began; 1.34 moves on.
    let version = if *group == "networking.k8s.io" { "v1beta1" } else { kind_version };
    let name = format!("{group}/{version}/{kind}");
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    STANDARD.encode(&digest.as_ref()[..BYTES])
}

fn aggregated_resource(kind: &Kind, stored: bool) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": response_kind(kind, kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind, stored),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let parts = if stored { parts(kind) } else { Vec::new() };
    if !parts.is_empty() {
        resource["subresources"] = parts
            .iter()
            .map(|p| {
                json!({
                    "subresource": p.name,
                    "responseKind": response_kind(kind, p.group, p.version, p.kind),
                    "verbs": p.verbs,
                })
            })
            .collect();
    }
    resource
}

/// The aggregated document of the core group, or of all others.
fn aggregated(core: bool) -> Value {
    let items: Vec<Value> = groups()
        .into_iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<_> = group.versions.into_iter().map(aggregated_version).collect();
            json!({
                "metadata": match group.name {
                    "" => json!({"creationTimestamp": null}),
                    name => json!({"name": name, "creationTimestamp": null}),
                },
                "versions": versions,
            })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_version(GroupVersion { version, members }: GroupVersion) -> Value {
    let resources: Vec<_> =
        members.into_iter().map(|(kind, stored)| aggregated_resource(kind, stored)).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn group_value(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|GroupVersion { version, .. }| {
            json!({"groupVersion": format!("{}/{version}", group.name), "version": version})
        })
        .collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

fn group_list() -> Value {
    let groups: Vec<_> =
        groups().iter().filter(|group| !group.name.is_empty()).map(group_value).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn one_group(name: &str) -> Option<Value> {
    let found = groups().into_iter().find(|g| !g.name.is_empty() && g.name == name)?;
    let mut value = json!({"kind": "APIGroup", "apiVersion": "v1"});
    for (key, part) in group_value(&found).as_object().into_iter().flatten() {
        value[key] = part.clone();
    }
    Some(value)
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let found = groups().into_iter().find(|g| g.name == group)?;
    let found = found.versions.into_iter().find(|v| v.version == version)?;
    let mut resources = Vec::new();
    for (kind, stored) in found.members {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": verbs(kind, stored),
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        if stored {
            resource["storageVersionHash"] = storage_version_hash(kind).into();
        }
        resources.push(resource);
        for part in if stored { parts(kind) } else { Vec::new() } {
            let mut value = json!({
                "name": format!("{}/{}", kind.plural, part.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": part.kind,
                "verbs": part.verbs,
            });
            if (part.group, part.version) != (kind.group, kind.version) {
                value["group"] = part.group.into();
                value["version"] = part.version.into();
            }
            resources.push(value);
        }
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList"});
    if !group.is_empty() {
        // The oldest list of all goes without.
        list["apiVersion"] = "v1".into();
    }
    list["groupVersion"] = group_version.into();
    list["resources"] = resources.into();
    Some(list)
}

fn encoded(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// Answers a discovery request in the form that was negotiated.
pub(crate) fn answer(what: &Discovery, form: Form) -> Result<Answer, Status> {
    static LEGACY_GROUPS: LazyLock<Bytes> = LazyLock::new(|| encoded(&group_list()));
    if let (Form::Aggregated, Discovery::Core | Discovery::Groups) = (form, what) {
        let value = aggregated(*what == Discovery::Core);
        return Ok(respond::json_as(AGGREGATED, &value));
    }
    let value = match what {
        Discovery::Core => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        Discovery::Groups => return Ok(respond::bytes(200, LEGACY_GROUPS.clone())),
        Discovery::Group(name) => one_group(name),
        Discovery::Resources { group, version } => resource_list(group, version),
    };
    value.map(|v| respond::json(200, &v)).ok_or_else(Status::no_such_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_discovered_in_both_forms() {
        let aggregated: Vec<Value> = [true, false]
            .iter()
            .flat_map(|core| aggregated(*core)["items"].as_array().unwrap().clone())
            .collect();
        for kind in kinds::ALL.iter().chain(kinds::VIRTUAL) {
            let name = |g: &Value| g["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let group = aggregated.iter().find(|g| name(g) == kind.group).unwrap();
            let versions = group["versions"].as_array().unwrap();
            let version = versions.iter().find(|v| v["version"] == kind.version).unwrap();
            let resources = version["resources"].as_array().unwrap();
            assert!(resources.iter().any(|r| r["resource"] == kind.plural), "{kind:?}");
            let legacy = resource_list(kind.group, kind.version).unwrap();
            let resources = legacy["resources"].as_array().unwrap();
            assert!(resources.iter().any(|r| r["name"] == kind.plural), "{kind:?}");
        }
        // What the real server says of them.
        assert_eq!(storage_version_hash(&kinds::CONTROLLER_REVISIONS), "85nkx63pcBU=");
        assert_eq!(storage_version_hash(&kinds::ENDPOINT_SLICES), "qgS0xkrxYAI=");
        assert!(resource_list("", "v2").is_none());
        assert!(one_group("").is_none());
        assert!(one_group("apps").is_some());
    }
}
