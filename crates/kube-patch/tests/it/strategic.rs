//! Strategic merge: the vectors of `testdata/strategic.json`, and laws on generated documents.

use portolan_kube_patch::{schema_for, strategic_merge};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn vectors() {
    let table: Value = serde_json::from_str(include_str!("../../testdata/strategic.json")).unwrap();
    let cases = table["cases"].as_array().unwrap();
    assert!(cases.len() > 60, "the table shrank to {}", cases.len());
    for case in cases {
        check(case);
    }
}

fn check(case: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let [group, version, kind] = [0, 1, 2].map(|i| text(&case["kind"][i]));
    let schema = schema_for(&group, &version, &kind);
    let got = strategic_merge(&case["doc"], &case["patch"], schema);
    let name = &case["name"];
    match (got, case.get("want")) {
        (Ok(got), Some(want)) => assert_eq!(&got, want, "{name}"),
        (Err(error), None) => {
            let wanted = text(&case["error"]);
            assert!(error.to_string().contains(&wanted), "{name}: {error}, not {wanted}");
            assert_eq!(json!(error.code()), case["code"], "{name}");
        }
        (got, want) => panic!("{name}: got {got:?}, want {want:?}"),
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-d]".prop_map(|name| name)
}

/// Elements with distinct merge keys.
fn keyed(key: &'static str) -> impl Strategy<Value = Value> {
    let element = (name(), proptest::option::of(0..3u8));
    proptest::collection::btree_map(name(), element, 0..4).prop_shuffle_values(key)
}

/// Turns a map of generated elements into a list in random order.
trait ShuffleValues {
    fn prop_shuffle_values(self, key: &'static str) -> BoxedStrategy<Value>;
}

impl<S> ShuffleValues for S
where
    S: Strategy<Value = std::collections::BTreeMap<String, (String, Option<u8>)>> + 'static,
{
    fn prop_shuffle_values(self, key: &'static str) -> BoxedStrategy<Value> {
        self.prop_map(|map| map.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(move |elements| {
                let elements = elements.into_iter().map(|(name, (image, number))| {
                    let mut element = json!({key: name, "image": image});
                    if let Some(number) = number {
                        element["stdinOnce"] = json!(number);
                    }
                    element
                });
                Value::Array(elements.collect())
            })
            .boxed()
    }
}

prop_compose! {
    fn pod()(
        containers in keyed("name"),
        volumes in keyed("name"),
        labels in proptest::collection::btree_map(name(), name(), 0..4),
        finalizers in proptest::collection::btree_set(name(), 0..4),
    ) -> Value {
        json!({
            "metadata": {"labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers, "volumes": volumes},
        })
    }
}

proptest! {
    #[test]
    fn an_empty_patch_changes_nothing(pod in pod()) {
        let schema = schema_for("", "v1", "Pod");
        prop_assert_eq!(&strategic_merge(&pod, &json!({}), schema).unwrap(), &pod);
        prop_assert_eq!(&strategic_merge(&pod, &Value::Null, schema).unwrap(), &pod);
    }

    #[test]
    fn an_object_merged_into_itself_stays(pod in pod()) {
        let schema = schema_for("", "v1", "Pod");
        prop_assert_eq!(&strategic_merge(&pod, &pod, schema).unwrap(), &pod);
    }

    #[test]
    fn a_patch_applied_twice_is_applied_once(live in pod(), patch in pod()) {
        let schema = schema_for("", "v1", "Pod");
        let once = strategic_merge(&live, &patch, schema).unwrap();
        let twice = strategic_merge(&once, &patch, schema).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn merging_into_nothing_gives_the_patch(patch in pod()) {
        let schema = schema_for("", "v1", "Pod");
        prop_assert_eq!(&strategic_merge(&json!({}), &patch, schema).unwrap(), &patch);
    }

    #[test]
    fn every_element_is_there_once_and_the_patch_keeps_its_order(live in pod(), patch in pod()) {
        let schema = schema_for("", "v1", "Pod");
        let got = strategic_merge(&live, &patch, schema).unwrap();
        let names = |doc: &Value| -> Vec<String> {
            let list = doc["spec"]["containers"].as_array().unwrap();
            list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
        };
        let (live, patch, got) = (names(&live), names(&patch), names(&got));
        let mut both: Vec<_> = live.iter().chain(&patch).cloned().collect();
        both.sort();
        both.dedup();
        let mut sorted = got.clone();
        sorted.sort();
        prop_assert_eq!(sorted, both);
        let of_patch: Vec<_> = got.iter().filter(|name| patch.contains(name)).cloned().collect();
        prop_assert_eq!(of_patch, patch.clone());
        let of_live: Vec<_> = got.iter().filter(|name| !patch.contains(name)).cloned().collect();
        let alone: Vec<_> = live.iter().filter(|name| !patch.contains(name)).cloned().collect();
        prop_assert_eq!(of_live, alone);
    }

    #[test]
    fn no_patch_panics(doc in any_json(), patch in any_json()) {
        let schema = schema_for("", "v1", "Pod");
        let _outcome = strategic_merge(&doc, &patch, schema);
    }
}

/// Any JSON, made of the words that mean something to a Pod patch.
fn any_json() -> impl Strategy<Value = Value> {
    let key = proptest::sample::select(vec![
        "spec",
        "metadata",
        "containers",
        "name",
        "finalizers",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/finalizers",
        "$setElementOrder",
        "$deleteFromPrimitiveList/finalizers",
        "$deleteFromPrimitiveList/containers",
        "env",
    ]);
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        proptest::sample::select(vec!["a", "b", "name", "replace", "delete", "merge"])
            .prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((key.clone(), inner), 0..5).prop_map(|members| {
                Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}
