//! Controllers at work on a cluster in memory.

use portolan_apiserver::{kinds, registry::Propagation};
use portolan_cluster::{fixed, object};
use serde_json::{Value, json};

use crate::support::{Cluster, NODE, deployment, service};

/// Ready addresses over all slices of a Service, when they are as many as expected.
fn addresses(
    slices: &[portolan_cluster::informer::Object],
    service: &str,
    count: usize,
) -> Option<Vec<String>> {
    let mut found: Vec<String> = slices
        .iter()
        .filter(|slice| object::label(slice, "kubernetes.io/service-name") == Some(service))
        .flat_map(|slice| object::list(slice, "/endpoints"))
        .filter(|endpoint| object::flag(endpoint, "/conditions/ready"))
        .map(|endpoint| object::text(endpoint, "/addresses/0").to_owned())
        .collect();
    found.sort();
    (found.len() == count).then_some(found)
}

fn rolled_out(deployment: &Value, revision: &str, replicas: i64) -> Option<()> {
    let count = |field: &str| object::int(deployment, &format!("/status/{field}")).unwrap_or(0);
    let done = object::int(deployment, "/metadata/generation") == Some(count("observedGeneration"))
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|f| count(f) == replicas)
        && object::annotation(deployment, "deployment.kubernetes.io/revision") == Some(revision)
        && object::condition(deployment, "Progressing")
            .is_some_and(|c| object::text(c, "/reason") == "NewReplicaSetAvailable");
    done.then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_and_its_service() {
    let cluster = Cluster::start().await;
    cluster.running.ready().await;
    cluster.create(&kinds::SERVICES, "default", service("web")).await;
    cluster.create(&kinds::DEPLOYMENTS, "default", deployment("web", 2, "v1")).await;
    let slices = &kinds::ENDPOINT_SLICES;
    cluster.until(slices, "default", "two endpoints", |s| addresses(s, "web", 2)).await;
    let deployments = &kinds::DEPLOYMENTS;
    cluster
        .until_one(deployments, "default", "web", "first rollout", |d| rolled_out(d, "1", 2))
        .await;
    cluster
        .until_one(&kinds::ENDPOINTS, "default", "web", "Endpoints", |endpoints| {
            let subset = object::list(endpoints, "/subsets").first()?;
            let port = object::int(subset, "/ports/0/port")?;
            (object::list(subset, "/addresses").len() == 2 && port == 8081).then_some(())
        })
        .await;

    cluster.merge(deployments, "default", "web", json!({"spec": {"replicas": 5}})).await;
    cluster.until(slices, "default", "five endpoints", |s| addresses(s, "web", 5)).await;
    cluster.merge(deployments, "default", "web", json!({"spec": {"replicas": 1}})).await;
    let last = cluster.until(slices, "default", "one endpoint", |s| addresses(s, "web", 1)).await;

    let image = |image: &str| {
        json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image,
            "ports": [{"name": "http", "containerPort": 8081}]}]}}}})
    };
    cluster.merge(deployments, "default", "web", image("v2")).await;
    cluster
        .until_one(deployments, "default", "web", "second rollout", |d| rolled_out(d, "2", 1))
        .await;
    cluster
        .until(slices, "default", "the new one", |s| {
            addresses(s, "web", 1).filter(|addresses| *addresses != last)
        })
        .await;
    // A template that never gets ready takes no Pod away.
    cluster.merge(deployments, "default", "web", image("broken")).await;
    // Its own set first: a second Pod alone could be one of before that still ends.
    cluster
        .until(&kinds::REPLICA_SETS, "default", "a third set", |sets| {
            (sets.len() == 3).then_some(())
        })
        .await;
    cluster
        .until(&kinds::PODS, "default", "a Pod of the third set", |pods| {
            let image = |pod| object::text(pod, "/spec/containers/0/image");
            pods.iter().any(|pod| image(pod) == "broken").then_some(())
        })
        .await;
    cluster.until(slices, "default", "one endpoint", |s| addresses(s, "web", 1)).await;
    cluster.merge(deployments, "default", "web", image("v2")).await;
    cluster
        .until_one(deployments, "default", "web", "the way back", |d| rolled_out(d, "4", 1))
        .await;
    let sets = cluster.list(&kinds::REPLICA_SETS, "default");
    assert_eq!(sets.len(), 3);

    // What it owns goes with it; the Service stays, and says that it has nobody.
    cluster.delete(deployments, "default", "web", Some(Propagation::Background)).await.unwrap();
    cluster.until(&kinds::PODS, "default", "no Pod", |pods| pods.is_empty().then_some(())).await;
    cluster
        .until(&kinds::REPLICA_SETS, "default", "no set", |sets| sets.is_empty().then_some(()))
        .await;
    cluster.until(slices, "default", "no endpoint", |s| addresses(s, "web", 0)).await;
    cluster.delete(&kinds::SERVICES, "default", "web", None).await.unwrap();
    cluster
        .until(slices, "default", "no slice", |slices| {
            let ours = |slice| object::label(slice, "kubernetes.io/service-name") == Some("web");
            (!slices.iter().any(|s| ours(s))).then_some(())
        })
        .await;
    cluster
        .until(&kinds::ENDPOINTS, "default", "no Endpoints", |endpoints| {
            (!endpoints.iter().any(|e| object::name(e) == "web")).then_some(())
        })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_and_never_one_too_many() {
    let cluster = Cluster::start().await;
    let most = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
    let (now, peak) = (std::sync::atomic::AtomicI64::new(0), most.clone());
    cluster.informer(&kinds::PODS).on_change(move |change| {
        use std::sync::atomic::Ordering::SeqCst;
        let by = i64::from(change.new.is_some()) - i64::from(change.old.is_some());
        peak.fetch_max(now.fetch_add(by, SeqCst) + by, SeqCst);
    });
    cluster.create(&kinds::SERVICES, "default", service("web")).await;
    cluster.create(&kinds::DEPLOYMENTS, "default", deployment("web", 250, "v1")).await;
    let slices = &kinds::ENDPOINT_SLICES;
    cluster.until(slices, "default", "250 endpoints", |s| addresses(s, "web", 250)).await;
    assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 250);
    let ours = cluster.list(slices, "default");
    let sizes: Vec<usize> = ours
        .iter()
        .filter(|s| object::label(s, "kubernetes.io/service-name") == Some("web"))
        .map(|s| object::list(s, "/endpoints").len())
        .collect();
    assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    cluster.merge(&kinds::DEPLOYMENTS, "default", "web", json!({"spec": {"replicas": 3}})).await;
    cluster.until(slices, "default", "three endpoints", |s| addresses(s, "web", 3)).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_adopts_and_releases() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "lone", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "v1"}]}});
    cluster.create(&kinds::PODS, "default", pod).await;
    let mut set = deployment("web", 2, "v1");
    set["spec"].as_object_mut().unwrap().remove("strategy");
    let set = cluster.create(&kinds::REPLICA_SETS, "default", set).await;
    let uid = object::uid(&set).to_owned();
    let owned = |count: usize| {
        let uid = uid.clone();
        move |pods: &[portolan_cluster::informer::Object]| {
            let own = pods.iter().filter(|p| object::controller_uid(p) == uid);
            let names: Vec<String> = own.map(|p| object::name(p).to_owned()).collect();
            (names.len() == count).then_some(names)
        }
    };
    let names = cluster.until(&kinds::PODS, "default", "two of the set", owned(2)).await;
    assert!(names.contains(&"lone".to_owned()), "{names:?}");
    // Another label: the set lets it go and makes a new one.
    let away = json!({"metadata": {"labels": {"app": "debug"}}});
    cluster.merge(&kinds::PODS, "default", "lone", away).await;
    cluster
        .until(&kinds::PODS, "default", "a replacement", |pods| {
            (pods.len() == 3 && owned(2)(pods)?.iter().all(|name| name != "lone")).then_some(())
        })
        .await;
    // Without its set, what it owned stays, and nothing else.
    let orphan = Some(Propagation::Orphan);
    cluster.delete(&kinds::REPLICA_SETS, "default", "web", orphan).await.unwrap();
    cluster
        .until(&kinds::REPLICA_SETS, "default", "no set", |sets| sets.is_empty().then_some(()))
        .await;
    let pods = cluster.list(&kinds::PODS, "default");
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| object::controller_uid(pod).is_empty()));
    cluster.end().await;
}

/// Informers keep a part of a Pod, and the record of field owners of nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_leave_alone_what_informers_do_not_keep() {
    let cluster = Cluster::start().await;
    let pods = &kinds::PODS;
    let pod = json!({
        "metadata": {"name": "lone", "labels": {"app": "web"}, "annotations": {"note": "mine"},
            "finalizers": ["example.com/hold"]},
        "spec": {
            "nodeSelector": {"disk": "none"},
            "containers": [{"name": "main", "image": "v1", "env": [{"name": "A", "value": "b"}]}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
        },
    });
    let pod = cluster.create(pods, "default", pod).await;
    let rest = |pod: &Value| {
        let mut rest = pod.clone();
        for field in ["resourceVersion", "ownerReferences", "managedFields"] {
            rest["metadata"].as_object_mut().unwrap().shift_remove(field);
        }
        rest["status"].as_object_mut().unwrap().shift_remove("conditions");
        rest
    };
    let fields_of = |object: &Value, manager: &str| {
        let entries = object::list(object, "/metadata/managedFields");
        entries.iter().find(|entry| entry["manager"] == *manager).map(|e| e["fieldsV1"].clone())
    };
    let made = fields_of(&pod, "test").unwrap();
    let unharmed = |now: &Value| {
        assert_eq!(rest(now), rest(&pod));
        assert_eq!(fields_of(now, "test"), Some(made.clone()));
    };
    // The scheduler finds no Node for it.
    let told = |pod: &Value| object::condition(pod, "PodScheduled").map(|_| pod.clone());
    unharmed(&cluster.until_one(pods, "default", "lone", "a reason", told).await);
    // A set adopts it, and the garbage collector frees it again.
    let mut set = deployment("web", 1, "v1");
    set["spec"].as_object_mut().unwrap().remove("strategy");
    cluster.create(&kinds::REPLICA_SETS, "default", set).await;
    let owned = |is: bool| {
        move |pod: &Value| (object::controller_uid(pod).is_empty() != is).then(|| pod.clone())
    };
    unharmed(&cluster.until_one(pods, "default", "lone", "an owner", owned(true)).await);
    let sets = &kinds::REPLICA_SETS;
    let set = cluster.list(sets, "default").remove(0);
    let fields = fields_of(&set, "test").unwrap();
    let counted = |set: &Value| object::int(set, "/status/replicas").map(|_| set.clone());
    let set = cluster.until_one(sets, "default", "web", "a status", counted).await;
    assert_eq!(fields_of(&set, "test"), Some(fields));
    cluster.delete(sets, "default", "web", Some(Propagation::Orphan)).await.unwrap();
    unharmed(&cluster.until_one(pods, "default", "lone", "no owner", owned(false)).await);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreground_deletion_waits_for_what_is_owned() {
    let cluster = Cluster::start().await;
    cluster.create(&kinds::DEPLOYMENTS, "default", deployment("web", 3, "v1")).await;
    let deployments = &kinds::DEPLOYMENTS;
    cluster.until_one(deployments, "default", "web", "rollout", |d| rolled_out(d, "1", 3)).await;
    // Something that blocks one Pod.
    let pods = cluster.list(&kinds::PODS, "default");
    let held = object::name(&pods[0]).to_owned();
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    cluster.merge(&kinds::PODS, "default", &held, hold).await;
    let foreground = Some(Propagation::Foreground);
    cluster.delete(deployments, "default", "web", foreground).await.unwrap();
    cluster
        .until(&kinds::PODS, "default", "only the one that is held", |pods| {
            (pods.len() == 1).then_some(())
        })
        .await;
    for kind in [&kinds::DEPLOYMENTS, &kinds::REPLICA_SETS] {
        assert_eq!(cluster.list(kind, "default").len(), 1, "{kind:?}");
    }
    let release = json!({"metadata": {"finalizers": null}});
    cluster.merge(&kinds::PODS, "default", &held, release).await;
    for kind in [&kinds::PODS, &kinds::REPLICA_SETS, &kinds::DEPLOYMENTS] {
        cluster.until(kind, "default", "none", |all| all.is_empty().then_some(())).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let cluster = Cluster::start().await;
    cluster.create(&kinds::NAMESPACES, "", json!({"metadata": {"name": "demo"}})).await;
    cluster
        .until(&kinds::SERVICE_ACCOUNTS, "demo", "its account", |a| (a.len() == 1).then_some(()))
        .await;
    cluster
        .until_one(&kinds::CONFIG_MAPS, "demo", "kube-root-ca.crt", "its certificate", |map| {
            map["data"]["ca.crt"].as_str()?.contains("BEGIN CERTIFICATE").then_some(())
        })
        .await;
    cluster.create(&kinds::SERVICES, "demo", service("web")).await;
    cluster.create(&kinds::DEPLOYMENTS, "demo", deployment("web", 3, "v1")).await;
    let deployments = &kinds::DEPLOYMENTS;
    cluster.until_one(deployments, "demo", "web", "rollout", |d| rolled_out(d, "1", 3)).await;
    cluster.delete(&kinds::NAMESPACES, "", "demo", None).await.unwrap();
    cluster
        .until(&kinds::NAMESPACES, "", "no Namespace", |all| {
            (!all.iter().any(|n| object::name(n) == "demo")).then_some(())
        })
        .await;
    for kind in kinds::ALL.iter().filter(|kind| kind.namespaced) {
        let left = cluster.running.registry.list(kind, Some("demo")).1;
        assert_eq!(left, Vec::<Value>::new(), "{kind:?}");
    }
    let immortal = cluster.delete(&kinds::NAMESPACES, "", "kube-system", None).await;
    assert_eq!(immortal.unwrap_err().code, 403);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_only_where_something_runs_them() {
    let cluster = Cluster::start().await;
    let pod = |name: &str, spec: Value| {
        let mut pod = json!({"metadata": {"name": name},
            "spec": {"containers": [{"name": "main", "image": "v1"}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let far = json!({"nodeName": fixed::EXTERNAL_NODE});
    cluster.create(&kinds::PODS, "default", pod("far", far)).await;
    let nowhere = json!({"nodeSelector": {"disk": "ssd"}});
    cluster.create(&kinds::PODS, "default", pod("nowhere", nowhere)).await;
    cluster.create(&kinds::PODS, "default", pod("here", json!({}))).await;
    cluster
        .until_one(&kinds::PODS, "default", "here", "a ready Pod", |pod| {
            object::is_condition_true(pod, "Ready").then_some(())
        })
        .await;
    let message = cluster
        .until_one(&kinds::PODS, "default", "nowhere", "a reason", |pod| {
            let condition = object::condition(pod, "PodScheduled")?;
            assert_eq!(object::text(pod, "/status/phase"), "Pending");
            (object::text(condition, "/reason") == "Unschedulable")
                .then(|| object::text(condition, "/message").to_owned())
        })
        .await;
    assert!(message.contains("didn't match Pod's node affinity/selector"), "{message}");
    let label = json!({"metadata": {"labels": {"disk": "ssd"}}});
    cluster.merge(&kinds::NODES, "", NODE, label).await;
    cluster
        .until_one(&kinds::PODS, "default", "nowhere", "a Node", |pod| {
            (object::text(pod, "/spec/nodeName") == NODE).then_some(())
        })
        .await;
    let far = cluster.informer(&kinds::PODS).get("default", "far").unwrap();
    assert!(!object::is_condition_true(&far, "Ready"), "nothing here speaks for it");
    // Nobody would end it: it goes at once.
    cluster.delete(&kinds::PODS, "default", "far", None).await.unwrap();
    assert!(cluster.informer(&kinds::PODS).get("default", "far").is_none());
    let scheduled = |events: &[portolan_cluster::informer::Object]| {
        let is = |event, pointer: &str, text: &str| object::text(event, pointer) == text;
        let found = events
            .iter()
            .find(|e| is(e, "/reason", "Scheduled") && is(e, "/involvedObject/name", "here"))?;
        Some(object::text(found, "/message").to_owned())
    };
    let message = cluster.until(&kinds::EVENTS, "default", "an Event", scheduled).await;
    assert_eq!(message, "Successfully assigned default/here to portolan");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_written_endpoints_are_mirrored() {
    let cluster = Cluster::start().await;
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}});
    cluster.create(&kinds::SERVICES, "default", service).await;
    let endpoints = json!({"metadata": {"name": "db"}, "subsets":
        [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432}]}]});
    cluster.create(&kinds::ENDPOINTS, "default", endpoints).await;
    let slices = &kinds::ENDPOINT_SLICES;
    let found = cluster.until(slices, "default", "a mirror", |s| addresses(s, "db", 1)).await;
    assert_eq!(found, ["192.0.2.7"]);
    cluster.delete(&kinds::SERVICES, "default", "db", None).await.unwrap();
    cluster.until(slices, "default", "no mirror", |s| addresses(s, "db", 0)).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_gather_the_rules_of_others() {
    let cluster = Cluster::start().await;
    let roles = &kinds::CLUSTER_ROLES;
    let allows = |role: &Value, resource: &str, verb: &str| {
        let has = |rule: &Value, path: &str, wanted: &str| {
            object::list(rule, path).iter().any(|found| found == wanted)
        };
        object::list(role, "/rules")
            .iter()
            .any(|rule| has(rule, "/resources", resource) && has(rule, "/verbs", verb))
            .then_some(())
    };
    // What is gathered is gathered further.
    for (name, resource, verb) in
        [("view", "pods", "list"), ("edit", "pods", "watch"), ("admin", "services", "delete")]
    {
        cluster.until_one(roles, "", name, "its rules", |r| allows(r, resource, verb)).await;
    }
    let widgets = json!({
        "metadata": {
            "name": "see-widgets",
            "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"},
        },
        "rules": [{"apiGroups": ["a.io"], "resources": ["widgets"], "verbs": ["get"]}],
    });
    cluster.create(roles, "", widgets).await;
    cluster.until_one(roles, "", "admin", "more rules", |r| allows(r, "widgets", "get")).await;
    let view = cluster.running.registry.get(roles, "", "view").unwrap();
    assert_eq!(allows(&view, "secrets", "get"), None);
    cluster.end().await;
}
