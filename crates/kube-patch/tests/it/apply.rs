//! Server-side apply: the scenarios of `testdata/apply.json`, refusals, codecs, and laws.

use std::collections::BTreeMap;

use portolan_kube_patch::apply::{
    ApplyError, FieldSet, Managers, PathElement, Workflow, Write, apply, display_path,
    manager_name, reset_fields, strip, update,
};
use portolan_kube_patch::{Schema, merge_patch, schema_for};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: &str = "2030-01-01T00:00:00Z";

fn write_by<'a>(manager: &'a str, api_version: &'a str, subresource: &'a str) -> Write<'a> {
    Write { manager, api_version, subresource, now: NOW, reset: reset_fields(subresource) }
}

#[test]
fn scenarios() {
    let table: Value = serde_json::from_str(include_str!("../../testdata/apply.json")).unwrap();
    let scenarios = table["scenarios"].as_array().unwrap();
    assert!(scenarios.len() > 30, "the table shrank to {}", scenarios.len());
    for scenario in scenarios {
        play(scenario);
    }
}

fn play(scenario: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let [group, version, kind] = [0, 1, 2].map(|i| text(&scenario["kind"][i]));
    let schema = schema_for(&group, &version, &kind);
    let api_version = if group.is_empty() { version } else { format!("{group}/{version}") };
    let mut live: Option<Value> = None;
    for (number, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let place = format!("{}, step {number}", scenario["name"]);
        let (manager, subresource) = (text(&step["by"]), text(&step["sub"]));
        let write = write_by(&manager, &api_version, &subresource);
        let result = if let Some(applied) = step.get("apply") {
            apply(live.as_ref(), applied, step["force"] == json!(true), schema, &write)
        } else if let Some(created) = step.get("create") {
            Ok(update(None, created.clone(), schema, &write))
        } else {
            let old = live.as_ref().unwrap();
            Ok(update(Some(old), merge_patch(old, &step["update"]), schema, &write))
        };
        match (result, step.get("conflict")) {
            (Err(error), Some(expected)) => {
                assert_eq!(error.to_string(), text(expected), "{place}");
                assert_eq!((error.code(), error.reason()), (409, "Conflict"), "{place}");
            }
            (Ok(object), None) => {
                assert_eq!(owners(&object), step["owners"], "{place}");
                for (pointer, expected) in step["has"].as_object().into_iter().flatten() {
                    let found = object.pointer(pointer).unwrap_or(&Value::Null);
                    assert_eq!(found, expected, "{place}: {pointer}");
                }
                live = Some(object);
            }
            (result, expected) => panic!("{place}: {result:?}, not {expected:?}"),
        }
    }
}

/// Manager, operation and subresource, to the sorted paths that it owns.
fn owners(object: &Value) -> Value {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (manager, owned) in Managers::of(object).unwrap().iter() {
        let workflow = if manager.workflow == Workflow::Apply { "Apply" } else { "Update" };
        let name = format!("{} {workflow} {}", manager.name, manager.subresource);
        let mut paths: Vec<_> = owned.fields.paths().iter().map(|p| display_path(p)).collect();
        paths.sort();
        owners.insert(name.trim_end().to_owned(), paths);
    }
    json!(owners)
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

#[test]
fn refusals() {
    let schema = schema_for("", "v1", "Pod");
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    let check = |live: Option<&Value>, applied: &Value, code: u16, words: &str| {
        let error = apply(live, applied, false, schema, &write_by("me", "v1", "")).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.causes().is_empty());
    };
    check(None, &json!("pod"), 400, "expected a map, found a string");
    check(None, &json!({"apiVersion": "v2"}), 400, "Specified patch version: v2, expected: v1");
    let mut entries = pod(json!({}));
    entries["metadata"]["managedFields"] = json!([]);
    check(None, &entries, 400, "metadata.managedFields must be nil");
    let twice = pod(json!({"containers": [{"name": "a"}, {"name": "a"}]}));
    check(
        None,
        &twice,
        500,
        "(/p; v1, Kind=Pod): .spec.containers: duplicate entries for key [name=\"a\"]",
    );
    check(None, &pod(json!({"containers": [1]})), 500, "may not have non-map elements");
    check(None, &pod(json!({"containers": [{"name": {"a": "b"}}]})), 500, "\"name\" is no scalar");
    let broken = json!({"metadata": {"managedFields": [{"manager": "x"}]}});
    check(Some(&broken), &pod(json!({})), 500, "operation must be `Apply` or `Update`");
}

#[test]
fn a_key_that_is_left_out_is_the_zero_value_where_go_has_one() {
    let applied = |kind: &str, object: Value| {
        let schema = schema_for("", "v1", kind);
        apply(None, &object, false, schema, &write_by("me", "v1", ""))
    };
    for (spec, owned) in [
        (json!({"containers": [{"image": "a"}]}), ".spec.containers[name=\"\"]"),
        (
            json!({"containers": [{"name": "a", "ports": [{"name": "b"}]}]}),
            ".spec.containers[name=\"a\"].ports[containerPort=0,protocol=\"TCP\"]",
        ),
    ] {
        let metadata = json!({"name": "p"});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        let made = applied("Pod", pod).unwrap();
        let owned_fields = owners(&made).to_string();
        assert!(owned_fields.contains(&owned.replace('"', "\\\"")), "{owned_fields}");
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"uid": "x"}]});
    let refused = applied("ServiceAccount", account).unwrap_err().to_string();
    assert!(refused.contains("omits all key fields [\"name\"]"), "{refused}");
}

#[test]
fn managers_have_names() {
    let check = |field_manager: &str, user_agent: &str, expected: &str| {
        assert_eq!(manager_name(field_manager, user_agent), expected);
    };
    check("me", "kubectl/v1.32 (linux)", "me");
    check("", "kubectl/v1.32 (linux)", "kubectl");
    check("", "a\u{7}b", "ab");
    check("", "", "");
    check("", &"é".repeat(100), &"é".repeat(64));
    let schema = schema_for("", "v1", "ConfigMap");
    let object = update(None, config_map(json!({"a": "1"})), schema, &write_by("", "v1", ""));
    assert_eq!(owners(&object), json!({"unknown Update": [".data", ".data.a"]}));
}

#[test]
fn conflicts_come_as_causes() {
    let schema = schema_for("", "v1", "ConfigMap");
    let live =
        apply(None, &config_map(json!({"a": "1"})), false, schema, &write_by("me", "v1", ""));
    let mine = config_map(json!({"a": "2"}));
    let error = apply(Some(&live.unwrap()), &mine, false, schema, &write_by("you", "v1", ""));
    let causes = error.unwrap_err().causes();
    assert_eq!(causes.len(), 1);
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].field, ".data.a");
    assert_eq!(causes[0].message, "conflict with \"me\"");
}

#[test]
fn a_live_object_with_doubled_elements_can_be_applied_to() {
    let schema = schema_for("", "v1", "Pod");
    let pod = |env: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a", "env": env}]}})
    };
    let live = update(
        None,
        pod(json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}])),
        schema,
        &write_by("me", "v1", ""),
    );
    let mine = pod(json!([{"name": "X", "value": "3"}]));
    let applied = apply(Some(&live), &mine, true, schema, &write_by("you", "v1", "")).unwrap();
    assert_eq!(applied["spec"]["containers"][0]["env"], json!([{"name": "X", "value": "3"}]));
}

#[test]
fn fields_that_became_atomic_are_owned_whole() {
    let schema = schema_for("apps", "v1", "Deployment");
    let mut live = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "1"}}}});
    live["metadata"]["managedFields"] = json!([{"manager": "old", "operation": "Apply",
        "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:selector": {"f:matchLabels": {"f:a": {}}}}}}]);
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(1);
    let new = update(Some(&live), new, schema, &write_by("me", "apps/v1", ""));
    assert_eq!(
        owners(&new),
        json!({"old Apply": [".spec.selector"], "me Update": [".spec.replicas"]})
    );
}

#[test]
fn an_unknown_kind_is_tracked_by_shape() {
    let schema = Schema::empty();
    let widget = |spec: Value| json!({"apiVersion": "x/v1", "kind": "W", "metadata": {"name": "w"}, "spec": spec});
    let write = |manager| write_by(manager, "x/v1", "");
    let first =
        apply(None, &widget(json!({"a": {"b": 1}, "l": [1, 2]})), false, schema, &write("me"));
    let first = first.unwrap();
    assert_eq!(owners(&first), json!({"me Apply": [".spec", ".spec.a", ".spec.a.b", ".spec.l"]}));
    let error = apply(Some(&first), &widget(json!({"l": [1]})), false, schema, &write("you"));
    assert_eq!(
        error.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"me\": .spec.l"
    );
}

#[test]
fn entries_are_read_and_written() {
    let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1",
        "time": "2029-01-01T00:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:finalizers": {".": {}, "v:\"a\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:old": {"i:3": {}}}},
        "subresource": "status"});
    let object = json!({"metadata": {"managedFields": [entry]}});
    let managers = Managers::of(&object).unwrap();
    let (manager, owned) = managers.iter().next().unwrap();
    assert_eq!(manager.to_string(), "\"m\" with subresource \"status\" using v1");
    let paths: Vec<_> = owned.fields.paths().iter().map(|path| display_path(path)).collect();
    assert_eq!(
        paths,
        [
            ".metadata.finalizers",
            ".metadata.finalizers[=\"a\"]",
            ".spec.old[3]",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
        ]
    );
    let mut written = json!({"metadata": {}});
    managers.store(&mut written);
    assert_eq!(written, object);
    strip(&mut written);
    assert_eq!(written, json!({"metadata": {}}));
}

#[test]
fn malformed_entries_are_named() {
    let check = |change: Value, words: &str| {
        let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {}});
        let object = json!({"metadata": {"managedFields": [merge_patch(&entry, &change)]}});
        let error = Managers::of(&object).unwrap_err();
        assert!(error.contains(words), "{change}: {error}");
    };
    check(json!({"operation": "Guess"}), "operation must be `Apply` or `Update`");
    check(json!({"apiVersion": null}), "apiVersion must not be empty");
    check(json!({"fieldsType": null}), "missing fieldsType in managed fields entry 0");
    check(json!({"fieldsType": "V2"}), "invalid fieldsType \"V2\"");
    check(json!({"fieldsV1": {"spec": {}}}), "is no field path element");
    check(json!({"fieldsV1": {"k:[]": {}}}), "the keys are no object");
    check(json!({"fieldsV1": {"v:{": {}}}), "v:{");
    check(json!({"fieldsV1": {"i:x": {}}}), "i:x");
    check(json!({"fieldsV1": {"f:a": 1}}), "no object");
    // An element of a later format is skipped, not refused.
    assert_eq!(FieldSet::decode(&json!({"z:new": {}})).unwrap(), FieldSet::default());
}

fn element() -> impl Strategy<Value = PathElement> {
    let text = prop_oneof![
        Just("f:a".to_owned()),
        Just("f:b".to_owned()),
        Just("k:{\"name\":\"x\"}".to_owned()),
        Just("k:{\"a\":1,\"b\":true}".to_owned()),
        Just("v:\"x\"".to_owned()),
        Just("v:1".to_owned()),
        Just("i:7".to_owned()),
    ];
    text.prop_map(|text| PathElement::decode(&text).unwrap().unwrap())
}

fn field_set() -> impl Strategy<Value = FieldSet> {
    let path = proptest::collection::vec(element(), 1..4);
    proptest::collection::vec(path, 0..8).prop_map(|paths| {
        let mut set = FieldSet::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

prop_compose! {
    fn deployment()(
        replicas in proptest::option::of(1..4),
        paused in proptest::option::of(any::<bool>()),
        labels in proptest::collection::btree_map("[ab]", "[12]", 0..3),
        images in proptest::collection::btree_map("[xyz]", proptest::option::of("[12]"), 0..4),
        finalizers in proptest::collection::btree_set("[pq]", 0..3),
    ) -> Value {
        let containers: Vec<Value> = images
            .into_iter()
            .map(|(name, image)| match image {
                Some(image) => json!({"name": name, "image": image}),
                None => json!({"name": name}),
            })
            .collect();
        let mut object = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "d", "labels": labels, "finalizers": finalizers},
            "spec": {"template": {"spec": {"containers": containers}}},
        });
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = json!(replicas);
        }
        if let Some(paused) = paused {
            object["spec"]["paused"] = json!(paused);
        }
        object
    }
}

/// The object without what has no meaning for the laws: owners, empty objects and lists, order.
fn rest(object: &Value) -> Value {
    fn tidy(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.values_mut().for_each(tidy);
                members.retain(|_, member| *member != json!({}) && *member != json!([]));
                members.sort_keys();
            }
            Value::Array(items) => {
                items.iter_mut().for_each(tidy);
                items.sort_by_key(Value::to_string);
            }
            _ => {}
        }
    }
    let mut object = object.clone();
    strip(&mut object);
    tidy(&mut object);
    object
}

fn force(live: Option<&Value>, applied: &Value, manager: &str) -> Value {
    let schema = schema_for("apps", "v1", "Deployment");
    apply(live, applied, true, schema, &write_by(manager, "apps/v1", "")).unwrap()
}

proptest! {
    #[test]
    fn sets_obey_the_laws_of_sets(a in field_set(), b in field_set()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert!(a.difference(&a).is_empty());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        let parts = a.difference(&b).union(&a.intersection(&b));
        prop_assert_eq!(parts.paths(), a.paths());
        for path in a.paths() {
            prop_assert!(a.union(&b).contains(&path));
            prop_assert_eq!(a.intersection(&b).contains(&path), b.contains(&path));
            prop_assert_eq!(a.difference(&b).contains(&path), !b.contains(&path));
        }
    }

    #[test]
    fn sets_survive_the_codec(set in field_set()) {
        let decoded = FieldSet::decode(&set.encode()).unwrap();
        prop_assert_eq!(decoded.paths(), set.paths());
    }

    #[test]
    fn applied_twice_is_applied_once(first in deployment(), applied in deployment()) {
        let live = force(None, &first, "you");
        let once = force(Some(&live), &applied, "me");
        prop_assert_eq!(&force(Some(&once), &applied, "me"), &once);
    }

    #[test]
    fn an_apply_that_is_taken_back_leaves_what_others_had(
        first in deployment(),
        applied in deployment(),
    ) {
        // Only what the other owner kept: fields taken by force stay gone.
        let live = force(None, &first, "you");
        let schema = schema_for("apps", "v1", "Deployment");
        let write = write_by("me", "apps/v1", "");
        if let Ok(both) = apply(Some(&live), &applied, false, schema, &write) {
            let nothing = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
            let after = force(Some(&both), &nothing, "me");
            prop_assert_eq!(rest(&after), rest(&live));
        }
    }

    #[test]
    fn the_applied_fields_are_there_and_owned(first in deployment(), applied in deployment()) {
        let live = force(None, &first, "you");
        let got = force(Some(&live), &applied, "me");
        for pointer in ["/spec/replicas", "/spec/paused"] {
            if let Some(value) = applied.pointer(pointer) {
                prop_assert_eq!(got.pointer(pointer), Some(value));
                let path = pointer.replace('/', ".");
                prop_assert!(owners(&got)["me Apply"].as_array().unwrap().contains(&json!(path)));
            }
        }
    }

    #[test]
    fn an_update_without_a_change_changes_nothing(first in deployment()) {
        let live = force(None, &first, "me");
        let schema = schema_for("apps", "v1", "Deployment");
        prop_assert_eq!(&update(Some(&live), live.clone(), schema, &write_by("you", "apps/v1", "")), &live);
    }

    #[test]
    fn no_managed_fields_panic(fields in any_fields(), object in deployment()) {
        let mut live = object.clone();
        live["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply",
            "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
        let schema = schema_for("apps", "v1", "Deployment");
        let write = write_by("m", "apps/v1", "");
        let _updated = update(Some(&live), object.clone(), schema, &write);
        let outcome = apply(Some(&live), &object, false, schema, &write);
        prop_assert!(!matches!(outcome, Err(ApplyError::Conflict(_))));
    }
}

fn any_fields() -> impl Strategy<Value = Value> {
    let key = proptest::sample::select(vec![
        "f:spec",
        "f:metadata",
        "f:template",
        "f:containers",
        "k:{\"name\":\"x\"}",
        "k:{}",
        ".",
        "v:1",
        "f:labels",
        "f:a",
        "i:0",
        "bad",
        "z:1",
        "k:{",
        "f:",
    ]);
    let leaf = prop_oneof![Just(json!({})), Just(json!(1)), Just(Value::Null)];
    leaf.prop_recursive(5, 30, 4, move |inner| {
        proptest::collection::vec((key.clone(), inner), 0..4).prop_map(|members| {
            Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
        })
    })
}
