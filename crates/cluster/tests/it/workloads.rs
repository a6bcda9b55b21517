//! StatefulSets, DaemonSets, and what a restart finds.

use portolan_apiserver::kinds;
use portolan_cluster::object;
use serde_json::{Value, json};

use crate::support::{Cluster, NODE, deployment, service};

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

fn images(pods: &[portolan_cluster::informer::Object]) -> Vec<String> {
    let ready = pods.iter().filter(|pod| object::is_condition_true(pod, "Ready"));
    let text = |pod: &Value| {
        format!("{} {}", object::name(pod), object::text(pod, "/spec/containers/0/image"))
    };
    ready.map(|pod| text(pod)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_keeps_names_and_rolls() {
    let cluster = Cluster::start().await;
    let set = json!({"metadata": {"name": "db"}, "spec": {"serviceName": "db", "replicas": 3,
        "selector": {"matchLabels": {"app": "db"}}, "template": template("v1")}});
    let sets = &kinds::STATEFUL_SETS;
    cluster.create(sets, "default", set).await;
    let mut headless = service("db");
    headless["spec"]["clusterIP"] = "None".into();
    cluster.create(&kinds::SERVICES, "default", headless).await;
    let done = |revisions: usize| {
        move |set: &Value| {
            let status = |field: &str| set.pointer(&format!("/status/{field}"));
            let is_done = status("readyReplicas") == Some(&json!(3))
                && status("updatedReplicas") == Some(&json!(3))
                && status("observedGeneration") == Some(&json!(revisions))
                && status("currentRevision") == status("updateRevision");
            is_done.then_some(())
        }
    };
    cluster.until_one(sets, "default", "db", "the first rollout", done(1)).await;
    let pods = cluster.list(&kinds::PODS, "default");
    assert_eq!(images(&pods), ["db-0 v1", "db-1 v1", "db-2 v1"]);
    // Each answers by its name.
    let names = cluster.until(&kinds::ENDPOINT_SLICES, "default", "names", |slices| {
        let ours =
            slices.iter().filter(|s| object::label(s, "kubernetes.io/service-name") == Some("db"));
        let endpoints = ours.flat_map(|slice| object::list(slice, "/endpoints"));
        let names: Vec<&str> = endpoints.map(|e| object::text(e, "/hostname")).collect();
        (names.len() == 3).then(|| names.join(" "))
    });
    let names = names.await;
    for name in ["db-0", "db-1", "db-2"] {
        assert!(names.contains(name), "{names}");
    }
    cluster.merge(sets, "default", "db", json!({"spec": {"template": template("v2")}})).await;
    cluster.until_one(sets, "default", "db", "the second rollout", done(2)).await;
    let pods = cluster.list(&kinds::PODS, "default");
    assert_eq!(images(&pods), ["db-0 v2", "db-1 v2", "db-2 v2"]);
    let history = cluster.list(&kinds::CONTROLLER_REVISIONS, "default");
    assert_eq!(history.len(), 2);
    cluster.merge(sets, "default", "db", json!({"spec": {"replicas": 1}})).await;
    cluster
        .until(&kinds::PODS, "default", "the first only", |pods| {
            (images(pods) == ["db-0 v2"] && pods.len() == 1).then_some(())
        })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_is_on_the_node_that_is_run() {
    let cluster = Cluster::start().await;
    let set = json!({"metadata": {"name": "log"}, "spec": {
        "selector": {"matchLabels": {"app": "db"}}, "template": template("v1")}});
    let sets = &kinds::DAEMON_SETS;
    cluster.create(sets, "default", set).await;
    let done = |generation: i64| {
        move |set: &Value| {
            let count = |field: &str| object::int(set, &format!("/status/{field}")).unwrap_or(0);
            let is_done = count("observedGeneration") == generation
                && ["desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"]
                    .iter()
                    .all(|field| count(field) == 1);
            is_done.then_some(())
        }
    };
    cluster.until_one(sets, "default", "log", "its Pod", done(1)).await;
    cluster.merge(sets, "default", "log", json!({"spec": {"template": template("v2")}})).await;
    cluster.until_one(sets, "default", "log", "its new Pod", done(2)).await;
    let pods = cluster.list(&kinds::PODS, "default");
    assert_eq!(pods.len(), 1);
    assert_eq!(object::text(&pods[0], "/spec/nodeName"), NODE);
    assert_eq!(object::text(&pods[0], "/spec/containers/0/image"), "v2");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start_in(folder.path()).await;
    let kubeconfig = cluster.running.kubeconfig.clone().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&kubeconfig).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    cluster.create(&kinds::SERVICES, "default", service("web")).await;
    cluster.create(&kinds::DEPLOYMENTS, "default", deployment("web", 2, "v1")).await;
    let settled = |deployment: &Value| {
        (object::int(deployment, "/status/availableReplicas") == Some(2)).then_some(())
    };
    cluster.until_one(&kinds::DEPLOYMENTS, "default", "web", "a rollout", settled).await;
    let service_before = cluster.informer(&kinds::SERVICES).get("default", "web").unwrap();
    let names = |cluster: &Cluster| -> Vec<String> {
        let pods = cluster.list(&kinds::PODS, "default");
        pods.iter().map(|pod| object::name(pod).to_owned()).collect()
    };
    let before = names(&cluster);
    let address = cluster.running.address;
    cluster.end().await;

    let cluster = Cluster::start_in(folder.path()).await;
    assert_ne!(cluster.running.address, address, "a free port is another port");
    let slice = cluster.informer(&kinds::ENDPOINT_SLICES).get("default", "kubernetes").unwrap();
    assert_eq!(slice["ports"][0]["port"], cluster.running.address.port());
    // What is asked for now happens, and what was there stays.
    let more = json!({"spec": {"replicas": 3}});
    cluster.merge(&kinds::DEPLOYMENTS, "default", "web", more).await;
    cluster
        .until(&kinds::PODS, "default", "a third Pod", |pods| {
            (images(pods).len() == 3).then_some(())
        })
        .await;
    let after = names(&cluster);
    assert!(before.iter().all(|name| after.contains(name)), "{before:?} {after:?}");
    let service_after = cluster.informer(&kinds::SERVICES).get("default", "web").unwrap();
    assert_eq!(service_before["spec"], service_after["spec"]);
    cluster.end().await;
}
