//! JSON patch and JSON merge patch: what they answer, and with which code.

use portolan_kube_patch::{MAX_JSON_PATCH_OPERATIONS, PatchError, json_patch, merge_patch};
use serde_json::{Value, json};

fn pod() -> Value {
    json!({"metadata": {"labels": {"a/b": "1"}}, "spec": {"args": ["x", "y"]}})
}

#[test]
fn json_patch_operations() {
    let check = |patch: Value, pointer: &str, expected: Value| {
        let got = json_patch(&pod(), &patch).unwrap();
        assert_eq!(got.pointer(pointer).unwrap_or(&Value::Null), &expected, "{patch}");
    };
    check(
        json!([{"op": "add", "path": "/spec/args/-", "value": "z"}]),
        "/spec/args",
        json!(["x", "y", "z"]),
    );
    check(
        json!([{"op": "add", "path": "/spec/args/0", "value": "z"}]),
        "/spec/args",
        json!(["z", "x", "y"]),
    );
    check(
        json!([{"op": "remove", "path": "/metadata/labels/a~1b"}]),
        "/metadata/labels",
        json!({}),
    );
    check(json!([{"op": "replace", "path": "/spec", "value": 1}]), "/spec", json!(1));
    check(
        json!([{"op": "move", "from": "/spec/args", "path": "/args"}]),
        "/args",
        json!(["x", "y"]),
    );
    check(json!([{"op": "copy", "from": "/spec/args/1", "path": "/last"}]), "/last", json!("y"));
    check(
        json!([{"op": "test", "path": "/spec/args/0", "value": "x"}, {"op": "remove", "path": "/spec"}]),
        "/spec",
        json!(null),
    );
    check(json!([]), "", pod());
    check(json!(null), "", pod());
}

#[test]
fn what_only_the_library_of_the_api_server_takes() {
    let check = |patch: Value, pointer: &str, expected: Value| {
        let got = json_patch(&pod(), &patch).unwrap();
        assert_eq!(got.pointer(pointer).unwrap_or(&Value::Null), &expected, "{patch}");
    };
    check(json!([{"op": "add", "path": "/metadata/x"}]), "/metadata", {
        json!({"labels": {"a/b": "1"}, "x": null})
    });
    check(
        json!([{"op": "replace", "path": "/spec/args/00", "value": 1}]),
        "/spec/args/0",
        json!(1),
    );
    check(
        json!([{"op": "replace", "path": "/spec/args/+1", "value": 1}]),
        "/spec/args/1",
        json!(1),
    );
    check(json!([{"op": "remove", "path": "/spec/args/-1"}]), "/spec/args", json!(["x"]));
    check(json!([{"op": "add", "path": "/spec/args/-1", "value": "z"}]), "/spec/args", {
        json!(["x", "y", "z"])
    });
    check(json!([{"op": "copy", "from": "/spec/args/-2", "path": "/last"}]), "/last", json!("x"));
    check(json!([{"op": "add", "path": "/spec/~2~", "value": 1}]), "/spec/~02~0", json!(1));
    // A name of digits is a name in a map.
    check(json!([{"op": "add", "path": "/spec/00", "value": 1}]), "/spec/00", json!(1));
    assert_eq!(json_patch(&pod(), &json!([null])).unwrap_err().code(), 422);
    let outside = json!([{"op": "remove", "path": "/spec/args/-3"}]);
    assert_eq!(json_patch(&pod(), &outside).unwrap_err().code(), 422);
}

#[test]
fn json_patch_errors() {
    let check = |patch: Value, code: u16, words: &str| {
        let error = json_patch(&pod(), &patch).unwrap_err();
        assert_eq!(error.code(), code, "{patch}: {error}");
        assert!(error.to_string().contains(words), "{patch}: {error}");
        assert_eq!(error.causes().is_empty(), code != 422, "{patch}");
    };
    check(json!({"op": "add"}), 400, "expected a list of operations, found a map");
    check(json!(["add"]), 400, "found a string");
    check(json!([{"op": "jump", "path": "/a"}]), 422, "malformed operation");
    check(json!([{"op": "add", "path": "a", "value": 1}]), 422, "malformed operation");
    check(json!([{"op": "remove", "path": "/nope"}]), 422, "doc is missing path: \"/nope\"");
    check(json!([{"op": "replace", "path": "/spec/args/9", "value": 1}]), 422, "/spec/args/9");
    check(json!([{"op": "copy", "from": "/no", "path": "/a"}]), 422, "/no");
    check(
        json!([{"op": "test", "path": "/spec/args/0", "value": "q"}]),
        422,
        "testing value /spec/args/0 failed: test failed",
    );
    let long: Vec<Value> = (0..=MAX_JSON_PATCH_OPERATIONS)
        .map(|_| json!({"op": "add", "path": "/a", "value": 1}))
        .collect();
    check(Value::Array(long), 413, "10000, got 10001");
}

#[test]
fn a_failing_operation_is_named() {
    let patch = json!([
        {"op": "add", "path": "/a", "value": 1},
        {"op": "test", "path": "/a", "value": 2},
    ]);
    let error = json_patch(&json!({}), &patch).unwrap_err();
    assert_eq!(error, PatchError::TestFailed { path: "/a".into(), operation: 1 });
    let cause = &error.causes()[0];
    assert_eq!((cause.reason, cause.field.as_str()), ("FieldValueInvalid", "/a"));
}

/// Each copy doubles the document; without the limit this makes 2^64 elements.
#[test]
fn copies_cannot_swell_without_bound() {
    let doubling: Vec<Value> =
        (0..64).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})).collect();
    let error = json_patch(&json!({"a": {}}), &Value::Array(doubling)).unwrap_err();
    assert!(matches!(error, PatchError::CopyTooLarge { .. }), "{error}");
    assert_eq!(error.code(), 422);
}

#[test]
fn merge_patch_follows_the_rfc() {
    // The example table of RFC 7386, appendix A: original, patch, result.
    let table = json!([
        [{"a": "b"}, {"a": "c"}, {"a": "c"}],
        [{"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}],
        [{"a": "b"}, {"a": null}, {}],
        [{"a": "b", "b": "c"}, {"a": null}, {"b": "c"}],
        [{"a": ["b"]}, {"a": "c"}, {"a": "c"}],
        [{"a": "c"}, {"a": ["b"]}, {"a": ["b"]}],
        [{"a": {"b": "c"}}, {"a": {"b": "d", "c": null}}, {"a": {"b": "d"}}],
        [{"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}],
        [["a", "b"], ["c", "d"], ["c", "d"]],
        [{"a": "b"}, ["c"], ["c"]],
        [{"a": "foo"}, null, null],
        [{"a": "foo"}, "bar", "bar"],
        [{"e": null}, {"a": 1}, {"e": null, "a": 1}],
        [[1, 2], {"a": "b", "c": null}, {"a": "b"}],
        [{}, {"a": {"bb": {"ccc": null}}}, {"a": {"bb": {}}}]
    ]);
    for row in table.as_array().unwrap() {
        assert_eq!(merge_patch(&row[0], &row[1]), row[2], "{row}");
    }
}
