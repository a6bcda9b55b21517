//! Discovery: the table of kinds in the shapes that clients ask for.
//!
//! The aggregated form (KEP-3352) answers everything in two requests; the
//! legacy form is still asked for by `kubectl auth can-i` and older clients.
//! All of it is computed once: kinds are static.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    accept::Form,
    respond::{self, Answer},
    route::Discovery,
};
use crate::{Kind, Status, kinds};

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
        parts.push(foreign("binding", "", "v1", "Binding"));
        parts.push(own("ephemeralcontainers", &PART_VERBS));
        parts.push(foreign("eviction", "policy", "v1", "Eviction"));
        parts.push(own("log", &["get"]));
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

/// One version of a group: its kinds, each with whether it is stored.
struct Group {
    name: &'static str,
    version: &'static str,
    members: Vec<(&'static Kind, bool)>,
}

/// Groups in order, each with its one version and its kinds.
fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let stored = kinds::ALL.iter().map(|k| (*k, true));
    for (kind, stored) in stored.chain(kinds::VIRTUAL.iter().map(|k| (*k, false))) {
        let known = groups.iter_mut().find(|g| g.name == kind.group && g.version == kind.version);
        match known {
            Some(group) => group.members.push((kind, stored)),
            None => groups.push(Group {
                name: kind.group,
                version: kind.version,
                members: vec![(kind, stored)],
            }),
        }
    }
    groups
}

fn aggregated_resource(kind: &Kind, stored: bool) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": if stored { &VERBS[..] } else { &["create"][..] },
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
                    "responseKind": {"group": p.group, "version": p.version, "kind": p.kind},
                    "verbs": p.verbs,
                })
            })
            .collect();
    }
    resource
}

/// The aggregated document of the core group, or of all others.
fn aggregated(core: bool, version: &str) -> Value {
    let items: Vec<Value> = groups()
        .into_iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|Group { name, version: group_version, members }| {
            let resources: Vec<_> =
                members.into_iter().map(|(k, stored)| aggregated_resource(k, stored)).collect();
            json!({
                "metadata": {"name": name, "creationTimestamp": null},
                "versions": [{
                    "version": group_version,
                    "resources": resources,
                    "freshness": "Current",
                }],
            })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn group_value(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

fn group_list() -> Value {
    let groups: Vec<_> = groups()
        .into_iter()
        .filter(|group| !group.name.is_empty())
        .map(|group| group_value(group.name, group.version))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn one_group(name: &str) -> Option<Value> {
    let found = groups().into_iter().find(|g| !g.name.is_empty() && g.name == name)?;
    let mut value = json!({"kind": "APIGroup", "apiVersion": "v1"});
    let map = group_value(found.name, found.version);
    for (key, part) in map.as_object().into_iter().flatten() {
        value[key] = part.clone();
    }
    Some(value)
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let found = groups().into_iter().find(|g| g.name == group && g.version == version)?;
    let mut resources = Vec::new();
    for (kind, stored) in found.members {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": if stored { &VERBS[..] } else { &["create"][..] },
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
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
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}

fn encoded(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// Answers a discovery request in the form that was negotiated.
pub(crate) fn answer(what: &Discovery, form: Form) -> Result<Answer, Status> {
    static LEGACY_GROUPS: LazyLock<Bytes> = LazyLock::new(|| encoded(&group_list()));
    if let (Form::Aggregated(version), Discovery::Core | Discovery::Groups) = (form, what) {
        let value = aggregated(*what == Discovery::Core, version);
        return Ok(respond::json_as(
            match version {
                "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
            },
            &value,
        ));
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
            .flat_map(|core| aggregated(*core, "v2")["items"].as_array().unwrap().clone())
            .collect();
        for kind in kinds::ALL.iter().chain(kinds::VIRTUAL) {
            let group = aggregated.iter().find(|g| g["metadata"]["name"] == kind.group).unwrap();
            let resources = group["versions"][0]["resources"].as_array().unwrap();
            assert!(resources.iter().any(|r| r["resource"] == kind.plural), "{kind:?}");
            let legacy = resource_list(kind.group, kind.version).unwrap();
            let resources = legacy["resources"].as_array().unwrap();
            assert!(resources.iter().any(|r| r["name"] == kind.plural), "{kind:?}");
        }
        assert!(resource_list("", "v2").is_none());
        assert!(one_group("").is_none());
        assert!(one_group("apps").is_some());
    }
}
