//! The in-process door: what controllers and the kubelet rely on.

use std::time::Duration;

use portolan_apiserver::{
    Caller, Kind, Registry, Status, kinds,
    registry::{
        DeleteOptions, Deleted, Options, Patch, Preconditions, Propagation, Subresource,
        WriteOptions,
    },
    store::{self, Backend, EventKind, Store},
};
use serde_json::{Value, json};

struct World {
    registry: Registry,
    caller: Caller,
}

impl World {
    async fn new() -> World {
        let store = Store::open(Backend::Memory, store::Options::default()).unwrap();
        let options = Options {
            service_cidrs: vec!["127.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            ..Options::default()
        };
        let world =
            World { registry: Registry::new(store, options), caller: Caller::system("test") };
        world
            .create(&kinds::NAMESPACES, "", json!({"metadata": {"name": "default"}}))
            .await
            .unwrap();
        world
    }

    async fn create(&self, kind: &'static Kind, ns: &str, object: Value) -> Result<Value, Status> {
        self.registry.create(&self.caller, kind, ns, object, &WriteOptions::default()).await
    }

    async fn update(
        &self,
        kind: &'static Kind,
        name: &str,
        sub: Option<Subresource>,
        object: Value,
    ) -> Result<Value, Status> {
        let ns = if kind.namespaced { "default" } else { "" };
        self.registry
            .update(&self.caller, kind, ns, name, sub, object, &WriteOptions::default())
            .await
    }

    async fn merge(
        &self,
        kind: &'static Kind,
        name: &str,
        sub: Option<Subresource>,
        patch: Value,
    ) -> Result<Value, Status> {
        let ns = if kind.namespaced { "default" } else { "" };
        let patch = Patch::Merge(patch);
        self.registry
            .patch(&self.caller, kind, ns, name, sub, patch, &WriteOptions::default())
            .await
    }

    async fn delete(
        &self,
        kind: &'static Kind,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Deleted, Status> {
        let ns = if kind.namespaced { "default" } else { "" };
        self.registry.delete(&self.caller, kind, ns, name, &options).await
    }
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "b"}]}})
}

fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "a", "image": "b"}]},
            },
        },
    })
}

#[tokio::test]
async fn the_server_stamps_new_objects() {
    let world = World::new().await;
    let made = world.create(&kinds::DEPLOYMENTS, "default", deployment("web")).await.unwrap();
    let metadata = &made["metadata"];
    assert_eq!(made["apiVersion"], "apps/v1");
    assert_eq!(made["kind"], "Deployment");
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(world.registry.get(&kinds::DEPLOYMENTS, "default", "web").unwrap(), made);

    let again = world.create(&kinds::DEPLOYMENTS, "default", deployment("web")).await.unwrap_err();
    assert_eq!((again.code, again.reason), (409, "AlreadyExists"));
    let nowhere = world.create(&kinds::PODS, "nowhere", pod("x")).await.unwrap_err();
    assert_eq!(nowhere.message, "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn generated_names_differ() {
    let world = World::new().await;
    let base = json!({"metadata": {"generateName": "web-"}, "data": {}});
    let one = world.create(&kinds::CONFIG_MAPS, "default", base.clone()).await.unwrap();
    let two = world.create(&kinds::CONFIG_MAPS, "default", base).await.unwrap();
    let name = |o: &Value| o["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&one).starts_with("web-") && name(&one).len() == 9);
    assert_ne!(name(&one), name(&two));
    let none = world.create(&kinds::CONFIG_MAPS, "default", json!({})).await.unwrap_err();
    assert_eq!(none.code, 422);
}

#[tokio::test]
async fn generation_counts_the_spec_only() {
    let world = World::new().await;
    world.create(&kinds::DEPLOYMENTS, "default", deployment("web")).await.unwrap();
    let generation = |o: &Value| o["metadata"]["generation"].as_u64().unwrap();
    let labelled = world
        .merge(&kinds::DEPLOYMENTS, "web", None, json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap();
    assert_eq!(generation(&labelled), 1);
    let scaled = world
        .merge(
            &kinds::DEPLOYMENTS,
            "web",
            Some(Subresource::Scale),
            json!({"spec": {"replicas": 3}}),
        )
        .await
        .unwrap();
    assert_eq!(scaled["kind"], "Scale");
    assert_eq!(scaled["spec"]["replicas"], 3);
    assert_eq!(scaled["status"]["selector"], "app=web");
    let now = world.registry.get(&kinds::DEPLOYMENTS, "default", "web").unwrap();
    assert_eq!((generation(&now), &now["spec"]["replicas"]), (2, &json!(3)));

    // Each door changes its own part only.
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 1}});
    let now = world
        .merge(&kinds::DEPLOYMENTS, "web", Some(Subresource::Status), status.clone())
        .await
        .unwrap();
    assert_eq!((&now["spec"]["replicas"], &now["status"]["replicas"]), (&json!(3), &json!(1)));
    assert_eq!(generation(&now), 2);
    let status = json!({"spec": {"replicas": 4}, "status": {"replicas": 7}});
    let now = world.merge(&kinds::DEPLOYMENTS, "web", None, status).await.unwrap();
    assert_eq!((&now["spec"]["replicas"], &now["status"]["replicas"]), (&json!(4), &json!(1)));
}

#[tokio::test]
async fn a_change_of_nothing_is_not_written() {
    let world = World::new().await;
    let made = world
        .create(
            &kinds::CONFIG_MAPS,
            "default",
            json!({"metadata": {"name": "c"}, "data": {"a": "1"}}),
        )
        .await
        .unwrap();
    let same =
        world.merge(&kinds::CONFIG_MAPS, "c", None, json!({"data": {"a": "1"}})).await.unwrap();
    assert_eq!(made, same);
    let same = world.update(&kinds::CONFIG_MAPS, "c", None, made.clone()).await.unwrap();
    assert_eq!(made, same);
}

#[tokio::test]
async fn a_stale_write_is_refused_and_an_unversioned_one_is_not() {
    let world = World::new().await;
    let first = world
        .create(
            &kinds::CONFIG_MAPS,
            "default",
            json!({"metadata": {"name": "c"}, "data": {"a": "1"}}),
        )
        .await
        .unwrap();
    world.merge(&kinds::CONFIG_MAPS, "c", None, json!({"data": {"a": "2"}})).await.unwrap();
    let mut stale = first.clone();
    stale["data"]["a"] = json!("3");
    let refused = world.update(&kinds::CONFIG_MAPS, "c", None, stale.clone()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason), (409, "Conflict"));
    stale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(
        world.update(&kinds::CONFIG_MAPS, "c", None, stale.clone()).await.unwrap()["data"]["a"],
        "3"
    );
    stale["metadata"]["uid"] = json!("other");
    assert_eq!(world.update(&kinds::CONFIG_MAPS, "c", None, stale).await.unwrap_err().code, 409);
    let missing = world.merge(&kinds::CONFIG_MAPS, "d", None, json!({})).await.unwrap_err();
    assert_eq!(missing.code, 404);
}

#[tokio::test]
async fn racing_patches_all_arrive() {
    let world = World::new().await;
    world.create(&kinds::CONFIG_MAPS, "default", json!({"metadata": {"name": "c"}})).await.unwrap();
    let patches = (0..32).map(|i| {
        let (registry, caller) = (world.registry.clone(), world.caller.clone());
        tokio::spawn(async move {
            let patch = Patch::Merge(json!({"data": {format!("k{i}"): "v"}}));
            registry
                .patch(
                    &caller,
                    &kinds::CONFIG_MAPS,
                    "default",
                    "c",
                    None,
                    patch,
                    &WriteOptions::default(),
                )
                .await
                .unwrap();
        })
    });
    for patch in patches.collect::<Vec<_>>() {
        patch.await.unwrap();
    }
    let now = world.registry.get(&kinds::CONFIG_MAPS, "default", "c").unwrap();
    assert_eq!(now["data"].as_object().unwrap().len(), 32);
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let world = World::new().await;
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let service = json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    let shown = world
        .registry
        .create(&world.caller, &kinds::SERVICES, "default", service, &dry)
        .await
        .unwrap();
    assert!(shown["metadata"]["uid"].is_string());
    assert!(world.registry.get(&kinds::SERVICES, "default", "s").unwrap_err().is_not_found());
    assert_eq!(world.registry.allocators().held(), (0, 0));
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let world = World::new().await;
    let object = json!({"metadata": {"name": "c", "finalizers": ["x.io/wait"]}});
    world.create(&kinds::CONFIG_MAPS, "default", object).await.unwrap();
    let marked = world.delete(&kinds::CONFIG_MAPS, "c", DeleteOptions::default()).await.unwrap();
    assert!(
        matches!(&marked, Deleted::Marked(o) if o["metadata"]["deletionTimestamp"].is_string())
    );
    let more = json!({"metadata": {"finalizers": ["x.io/wait", "y.io/more"]}});
    let refused = world.merge(&kinds::CONFIG_MAPS, "c", None, more).await.unwrap_err();
    assert_eq!(refused.code, 422);
    world
        .merge(&kinds::CONFIG_MAPS, "c", None, json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
    assert!(world.registry.get(&kinds::CONFIG_MAPS, "default", "c").unwrap_err().is_not_found());
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let world = World::new().await;
    for (propagation, finalizers) in [
        (Propagation::Foreground, json!(["foregroundDeletion"])),
        (Propagation::Orphan, json!(["orphan"])),
    ] {
        world.create(&kinds::DEPLOYMENTS, "default", deployment("web")).await.unwrap();
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let marked = world.delete(&kinds::DEPLOYMENTS, "web", options).await.unwrap();
        assert_eq!(marked.object()["metadata"]["finalizers"], finalizers);
        let patch = json!({"metadata": {"finalizers": null}});
        world.merge(&kinds::DEPLOYMENTS, "web", None, patch).await.unwrap();
    }
}

#[tokio::test]
async fn preconditions_hold_a_delete() {
    let world = World::new().await;
    let made = world
        .create(&kinds::CONFIG_MAPS, "default", json!({"metadata": {"name": "c"}}))
        .await
        .unwrap();
    let with = |uid: &str| DeleteOptions {
        preconditions: Preconditions { uid: Some(uid.to_owned()), resource_version: None },
        ..DeleteOptions::default()
    };
    assert_eq!(world.delete(&kinds::CONFIG_MAPS, "c", with("other")).await.unwrap_err().code, 409);
    let uid = made["metadata"]["uid"].as_str().unwrap();
    assert!(matches!(
        world.delete(&kinds::CONFIG_MAPS, "c", with(uid)).await.unwrap(),
        Deleted::Gone(_)
    ));
    assert_eq!(world.delete(&kinds::CONFIG_MAPS, "c", with(uid)).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn pods_end_gracefully_where_somebody_ends_them() {
    let world = World::new().await;
    world.registry.add_node_agent("portolan");
    for (node, graceful) in [("portolan", true), ("external", false), ("", false)] {
        let name = format!("on-{node}x");
        world.create(&kinds::PODS, "default", pod(&name)).await.unwrap();
        if !node.is_empty() {
            world.registry.bind(&world.caller, "default", &name, node).await.unwrap();
            let again = world.registry.bind(&world.caller, "default", &name, "other").await;
            assert_eq!(again.unwrap_err().code, 409);
        }
        let first = world.delete(&kinds::PODS, &name, DeleteOptions::default()).await.unwrap();
        assert_eq!(matches!(first, Deleted::Marked(_)), graceful, "{name}");
        if graceful {
            assert_eq!(first.object()["metadata"]["deletionGracePeriodSeconds"], 30);
            let shorter =
                DeleteOptions { grace_period_seconds: Some(5), ..DeleteOptions::default() };
            let second = world.delete(&kinds::PODS, &name, shorter).await.unwrap();
            assert_eq!(second.object()["metadata"]["deletionGracePeriodSeconds"], 5);
            let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            assert!(matches!(
                world.delete(&kinds::PODS, &name, now).await.unwrap(),
                Deleted::Gone(_)
            ));
        }
        assert!(world.registry.get(&kinds::PODS, "default", &name).unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn namespaces_end_when_they_are_finalized() {
    let world = World::new().await;
    let made =
        world.create(&kinds::NAMESPACES, "", json!({"metadata": {"name": "n"}})).await.unwrap();
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    let marked = world.delete(&kinds::NAMESPACES, "n", DeleteOptions::default()).await.unwrap();
    assert_eq!(marked.object()["status"]["phase"], "Terminating");
    let refused = world.create(&kinds::PODS, "n", pod("late")).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains("because it is being terminated"), "{refused}");
    let finalized = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
    world.update(&kinds::NAMESPACES, "n", Some(Subresource::Finalize), finalized).await.unwrap();
    assert!(world.registry.get(&kinds::NAMESPACES, "", "n").unwrap_err().is_not_found());
    let kept =
        world.delete(&kinds::NAMESPACES, "default", DeleteOptions::default()).await.unwrap_err();
    assert_eq!(kept.code, 403);
}

#[tokio::test]
async fn services_hold_addresses_while_they_live() {
    let world = World::new().await;
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let ports = json!([{"port": 80}]);
    let dns = service(
        "kube-dns",
        json!({"clusterIP": "127.96.0.10", "ports": ports, "selector": {"a": "b"}}),
    );
    let made = world.create(&kinds::SERVICES, "default", dns).await.unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!(["127.96.0.10"]));
    let taken = service("other", json!({"clusterIP": "127.96.0.10", "ports": ports}));
    let refused = world.create(&kinds::SERVICES, "default", taken).await.unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("provided IP is already allocated"), "{refused}");

    let node_port =
        service("web", json!({"type": "NodePort", "ports": ports, "selector": {"a": "b"}}));
    world.create(&kinds::SERVICES, "default", node_port.clone()).await.unwrap();
    assert_eq!(world.registry.allocators().held(), (2, 1));
    assert!(
        world.create(&kinds::SERVICES, "default", node_port).await.unwrap_err().is_already_exists()
    );
    assert_eq!(world.registry.allocators().held(), (2, 1), "a refused write leaks nothing");

    // A second registry over the same store finds what is held.
    let second = Registry::new(world.registry.store().clone(), world.registry.options().clone());
    assert_eq!(second.allocators().held(), (2, 1));

    for name in ["web", "kube-dns"] {
        world.delete(&kinds::SERVICES, name, DeleteOptions::default()).await.unwrap();
    }
    assert_eq!(world.registry.allocators().held(), (0, 0));
}

#[tokio::test]
async fn list_and_watch_have_no_gap() {
    let world = World::new().await;
    world.create(&kinds::CONFIG_MAPS, "default", json!({"metadata": {"name": "a"}})).await.unwrap();
    let (revision, items) = world.registry.list(&kinds::CONFIG_MAPS, Some("default"));
    assert_eq!(items.len(), 1);
    let mut watcher = world.registry.watch(&kinds::CONFIG_MAPS, revision).unwrap();
    world.create(&kinds::CONFIG_MAPS, "default", json!({"metadata": {"name": "b"}})).await.unwrap();
    world.merge(&kinds::CONFIG_MAPS, "b", None, json!({"data": {"x": "y"}})).await.unwrap();
    world.delete(&kinds::CONFIG_MAPS, "a", DeleteOptions::default()).await.unwrap();
    for (kind, name) in
        [(EventKind::Added, "b"), (EventKind::Modified, "b"), (EventKind::Deleted, "a")]
    {
        let event = tokio::time::timeout(Duration::from_secs(10), watcher.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!((event.kind, &*event.record.key.name), (kind, name));
        let object: Value = serde_json::from_slice(&event.record.bytes).unwrap();
        assert_eq!(object["metadata"]["resourceVersion"], event.record.revision.to_string());
    }
}

#[tokio::test]
async fn a_pod_token_changes_only_its_own_registration() {
    let world = World::new().await;
    let made = world.create(&kinds::PODS, "default", pod("mine")).await.unwrap();
    world.create(&kinds::PODS, "default", pod("other")).await.unwrap();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let caller = |uid: &str| Caller {
        user: "system:serviceaccount:default:default".into(),
        extra: [
            ("authentication.kubernetes.io/pod-name".to_owned(), vec!["mine".to_owned()]),
            ("authentication.kubernetes.io/pod-uid".to_owned(), vec![uid.to_owned()]),
        ]
        .into(),
        ..Caller::default()
    };
    let patch = |caller: Caller, patch: Value| {
        let registry = world.registry.clone();
        async move {
            registry
                .patch(
                    &caller,
                    &kinds::PODS,
                    "default",
                    "mine",
                    None,
                    Patch::Merge(patch),
                    &WriteOptions::default(),
                )
                .await
        }
    };
    let registration = json!({"metadata": {"labels": {"app.io/label": "app.io-value"}, "annotations": {"app.io/annotation": "W10="}}});
    // Also between the binding and the kubelet's first word on its status.
    world.registry.bind(&world.caller, "default", "mine", "node-1").await.unwrap();
    let now = patch(caller(uid), registration.clone()).await.unwrap();
    assert_eq!(now["metadata"]["annotations"]["app.io/annotation"], "W10=");
    for (who, change) in [
        (caller("earlier"), json!({"metadata": {"labels": {"app.io/label": "x"}}})),
        (caller(uid), json!({"metadata": {"labels": {"app": "x"}}})),
        (caller(uid), json!({"spec": {"activeDeadlineSeconds": 1}})),
        (caller(uid), json!({"metadata": {"finalizers": ["a.io/b"]}})),
    ] {
        assert_eq!(patch(who, change.clone()).await.unwrap_err().code, 403, "{change}");
    }
}

#[tokio::test]
async fn text_of_a_secret_becomes_data_and_is_never_shown() {
    let world = World::new().await;
    let secret = json!({
        "metadata": {"name": "s"},
        "data": {"old": "b2xk", "key": "b2xk"},
        "stringData": {"key": "value"},
    });
    let made = world.create(&kinds::SECRETS, "default", secret).await.unwrap();
    assert_eq!(made["data"], json!({"old": "b2xk", "key": "dmFsdWU="}));
    assert_eq!(made.get("stringData"), None);
    let patch = Patch::Merge(json!({"stringData": {"old": "new"}}));
    let options = WriteOptions::default();
    let changed = world
        .registry
        .patch(&world.caller, &kinds::SECRETS, "default", "s", None, patch, &options)
        .await
        .unwrap();
    assert_eq!(changed["data"], json!({"old": "bmV3", "key": "dmFsdWU="}));
    assert_eq!(changed.get("stringData"), None);
}

#[tokio::test]
async fn nobody_owns_what_the_server_adds() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let service = world.create(&kinds::SERVICES, "default", service).await.unwrap();
    let owned = &service["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert!(service["spec"].get("clusterIP").is_some() && owned.get("f:clusterIP").is_none());
    assert!(owned.get("f:ports").is_some(), "{owned}");
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    let pod = world.create(&kinds::PODS, "default", pod).await.unwrap();
    let owned = &pod["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert!(pod["spec"].get("tolerations").is_some() && owned.get("f:tolerations").is_none());
    assert!(owned.get("f:containers").is_some(), "{owned}");
}

#[tokio::test]
async fn a_new_pod_may_not_have_what_comes_later() {
    let world = World::new().await;
    let containers = json!([{"name": "c", "image": "i"}]);
    for (extra, expected) in [
        (
            json!({"ephemeralContainers": [{"name": "e", "image": "i"}]}),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            json!({"nodeName": "n", "schedulingGates": [{"name": "a.io/b"}]}),
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ),
    ] {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": extra});
        pod["spec"]["containers"] = containers.clone();
        let status = world.create(&kinds::PODS, "default", pod).await.unwrap_err();
        assert_eq!((status.code, status.message.ends_with(expected)), (422, true), "{status:?}");
    }
}
