//! The commands that people type, by the real kubectl, without special flags.

use serde_json::{Value, json};

use crate::support::{Api, Lines};

const WEB: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: registry.example/web:1
        ports:
        - containerPort: 8081
        env:
        - {name: A, value: a}
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports:
  - port: 80
    targetPort: 8081
";

#[tokio::test]
async fn tables_and_wide_tables() {
    let api = Api::start().await;
    api.run_with("apply -f -", WEB).await;
    let shown = api.run("get deployments").await;
    let mut lines = shown.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    );
    assert!(lines.next().unwrap().starts_with("web    0/2"), "{shown}");
    assert!(api.run("get deploy -o wide").await.contains("registry.example/web:1"));
    assert!(api.run("get svc web -o wide").await.contains("app=web"));
    assert!(api.run("get all -A").await.contains("deployment.apps/web"));
    assert_eq!(api.run("get deploy,svc -o name").await, "deployment.apps/web\nservice/web\n");
    assert!(api.run("get deploy -l app=web,app!=x -o name").await.contains("web"));
    assert_eq!(api.run("get deploy -l app=db -o name").await, "");
    assert!(api.run("get deploy --show-labels").await.contains("app=web"));
    assert!(api.run("get pods --field-selector status.phase=Running -o name").await.is_empty());
    let refused = api.refuse("get pods --field-selector spec.nonsense=x", "").await;
    assert!(refused.contains("field label not supported"), "{refused}");
    let refused = api.refuse("get nothing", "").await;
    assert!(refused.contains("the server doesn't have a resource type \"nothing\""), "{refused}");
    let refused = api.refuse("get pod nobody", "").await;
    assert_eq!(refused, "Error from server (NotFound): pods \"nobody\" not found\n");
}

#[tokio::test]
async fn apply_changes_only_what_changed() {
    let api = Api::start().await;
    let made = api.run_with("apply -f -", WEB).await;
    assert_eq!(made, "deployment.apps/web created\nservice/web created\n");
    assert_eq!(
        api.run_with("apply -f -", WEB).await,
        "deployment.apps/web unchanged\nservice/web unchanged\n"
    );
    let changed =
        WEB.replace("web:1", "web:2").replace("{name: A, value: a}", "{name: B, value: b}");
    assert!(api.run_with("diff -f -", WEB).await.is_empty());
    assert!(
        api.run_with("apply --dry-run=server -f -", &changed)
            .await
            .contains("configured (server dry run)")
    );
    assert!(api.run("get deploy web -o yaml").await.contains("web:1"));
    assert!(api.run_with("apply -f -", &changed).await.contains("deployment.apps/web configured"));
    let now: Value = serde_json::from_str(&api.run("get deploy web -o json").await).unwrap();
    let container = &now["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/web:2");
    assert_eq!(container["env"], json!([{"name": "B", "value": "b"}]), "the list merges by name");
    assert_eq!(now["metadata"]["generation"], 2);
    assert_eq!(
        api.run_with("delete -f -", WEB).await,
        "deployment.apps \"web\" deleted\nservice \"web\" deleted\n"
    );
}

#[tokio::test]
async fn unknown_fields_are_refused() {
    let api = Api::start().await;
    let wrong = WEB.replace("replicas: 2", "replica: 2");
    let refused = api.refuse("apply -f -", &wrong).await;
    assert!(refused.contains("unknown field \"spec.replica\""), "{refused}");
    assert!(
        api.run_with("apply --validate=warn -f -", &wrong)
            .await
            .contains("deployment.apps/web created")
    );
    let wrong = WEB.replace("replicas: 2", "replicas: two");
    let refused = api.refuse("apply -f -", &wrong).await;
    assert!(refused.contains("unrecognized type: int32"), "{refused}");
}

#[tokio::test]
async fn generators_send_protobuf() {
    let api = Api::start().await;
    for (line, says) in [
        ("create deployment web --image=a --replicas=3 --port=80", "deployment.apps/web created"),
        ("create service clusterip web --tcp=80:8080", "service/web created"),
        ("create service nodeport np --tcp=80:8080", "service/np created"),
        ("create service externalname ext --external-name=example.org", "service/ext created"),
        ("create configmap c --from-literal=a=b", "configmap/c created"),
        ("create secret generic s --from-literal=a=b", "secret/s created"),
        ("create serviceaccount sa", "serviceaccount/sa created"),
        ("create namespace n", "namespace/n created"),
        ("create role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r created"),
        (
            "create rolebinding rb --role=r --serviceaccount=default:sa",
            "rolebinding.rbac.authorization.k8s.io/rb created",
        ),
        (
            "create clusterrole cr --verb=get --resource=nodes",
            "clusterrole.rbac.authorization.k8s.io/cr created",
        ),
        ("run p --image=a --port=80", "pod/p created"),
        ("expose deployment web --name=web2 --port=80", "service/web2 exposed"),
    ] {
        assert_eq!(api.run(line).await.trim(), says, "{line}");
    }
    assert_eq!(api.run("get secret s -o jsonpath={.data.a}").await, "Yg==");
    assert_eq!(api.run("get deploy web -o jsonpath={.spec.replicas}").await, "3");
    assert!(api.run("create token sa").await.split('.').count() == 3);
    assert!(api.run("auth whoami").await.contains("kubernetes-admin"));
    assert_eq!(api.run("auth can-i delete pods").await, "yes\n");
    // What a cluster makes for everybody (`system:basic-user`), and this API alone does not.
    api.run("create clusterrole basic --verb=create --resource=selfsubjectaccessreviews").await;
    api.run("create clusterrolebinding basic --clusterrole=basic --group=system:authenticated")
        .await;
    let refused = api.refuse("auth can-i delete pods --as=nobody", "").await;
    assert!(refused.is_empty(), "{refused}");
    api.run("create rolebinding nobody --clusterrole=cr --user=nobody").await;
    api.run("create rolebinding nobody2 --role=r --user=nobody").await;
    assert_eq!(api.run("auth can-i get pods --as=nobody").await, "yes\n");
    let refused = api.refuse("get secrets --as=nobody", "").await;
    assert!(refused.contains("User \"nobody\" cannot list resource \"secrets\""), "{refused}");
}

#[tokio::test]
async fn changes_by_command() {
    let api = Api::start().await;
    api.run_with("apply -f -", WEB).await;
    for line in [
        "label deploy web tier=front",
        "annotate deploy web note=hello",
        "scale deployment web --replicas=5",
        "set image deployment/web web=registry.example/web:3",
        "set env deployment/web B=c",
        "rollout restart deployment/web",
        "rollout pause deployment/web",
        "rollout resume deployment/web",
        "autoscale",
    ] {
        if line == "autoscale" {
            continue;
        }
        api.run(line).await;
    }
    let patches: [&[&str]; 3] = [
        &[
            "patch",
            "deploy",
            "web",
            "-p",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"s"}]}}}}"#,
        ],
        &["patch", "deploy", "web", "--type=merge", "-p", r#"{"spec":{"minReadySeconds":3}}"#],
        &[
            "patch",
            "deploy",
            "web",
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/metadata/labels/j","value":"k"}]"#,
        ],
    ];
    for patch in patches {
        api.try_kubectl(patch, "").await.unwrap();
    }
    let now: Value = serde_json::from_str(&api.run("get deploy web -o json").await).unwrap();
    assert_eq!(now["spec"]["replicas"], 5);
    assert_eq!(now["spec"]["minReadySeconds"], 3);
    assert_eq!(now["metadata"]["labels"], json!({"app": "web", "tier": "front", "j": "k"}));
    let containers = &now["spec"]["template"]["spec"]["containers"];
    let names: Vec<_> =
        containers.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2);
    let web = containers.as_array().unwrap().iter().find(|c| c["name"] == "web").unwrap();
    assert_eq!(web["image"], "registry.example/web:3");
    assert!(
        now["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"]
            .is_string()
    );
    api.run("label deploy web tier-").await;
    assert!(!api.run("get deploy web --show-labels").await.contains("tier"));
    let stale = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}});
    api.run_with("create -f -", &stale.to_string()).await;
    assert_eq!(
        api.run_with("replace -f -", &stale.to_string()).await.trim(),
        "configmap/c replaced"
    );
    let refused = api.refuse("create -f -", &stale.to_string()).await;
    assert!(refused.contains("AlreadyExists"), "{refused}");
}

#[tokio::test]
async fn describe_and_explain() {
    let api = Api::start().await;
    api.run_with("apply -f -", WEB).await;
    api.run("run p --image=a").await;
    for (line, says) in [
        ("describe deployment web", "StrategyType:           RollingUpdate"),
        ("describe service web", "Selector:"),
        ("describe pod p", "Status:           Pending"),
        ("describe ns default", "Status:       Active"),
        ("explain pods.spec.containers.image", "FIELD: image <string>"),
        ("explain deployment", "KIND:       Deployment"),
        ("api-resources", "endpointslices"),
        ("api-versions", "apps/v1"),
        ("version", "Server Version: v1.33"),
        ("cluster-info", "Kubernetes control plane"),
        ("get --raw /readyz", "ok"),
    ] {
        let shown = api.run(line).await;
        assert!(shown.contains(says), "{line}: {shown}");
    }
}

#[tokio::test]
async fn watch_shows_rows_as_they_change() {
    let api = Api::start().await;
    api.run("create configmap first").await;
    let mut lines = Lines::of(api.kubectl(&["get", "cm", "-w"]));
    lines.find("first").await;
    api.run("create configmap second --from-literal=a=b").await;
    let line = lines.find("second").await;
    assert_eq!(line.split_whitespace().nth(1), Some("1"), "{line}");
    let mut events =
        Lines::of(api.kubectl(&["get", "cm", "-w", "--output-watch-events", "-o", "name"]));
    drop(events.find("second").await);
}

#[tokio::test]
async fn wait_and_rollout_status_return_when_it_is_so() {
    let api = Api::start().await;
    api.run_with("apply -f -", WEB).await;
    let waiting = api
        .kubectl(&["wait", "deploy/web", "--for=condition=Available", "--timeout=50s"])
        .spawn()
        .unwrap();
    let rollout =
        api.kubectl(&["rollout", "status", "deploy/web", "--timeout=50s"]).spawn().unwrap();
    let gone = api.kubectl(&["wait", "svc/web", "--for=delete", "--timeout=50s"]).spawn().unwrap();
    let status = json!({"status": {
        "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        "conditions": [{"type": "Available", "status": "True"}],
    }});
    api.try_kubectl(
        &[
            "patch",
            "deploy",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status.to_string(),
        ],
        "",
    )
    .await
    .unwrap();
    api.run("delete svc web").await;
    for (child, says) in
        [(waiting, "condition met"), (rollout, "successfully rolled out"), (gone, "condition met")]
    {
        let output = tokio::time::timeout(crate::support::DEADLINE, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(says), "{says}: {output:?}");
    }
}

#[tokio::test]
async fn delete_in_all_its_forms() {
    let api = Api::start().await;
    for name in ["a", "b", "c", "d"] {
        api.run(&format!("create configmap {name}")).await;
        api.run(&format!("label cm {name} x=y")).await;
    }
    assert_eq!(api.run("delete cm a").await, "configmap \"a\" deleted\n");
    assert_eq!(
        api.run("delete cm b --dry-run=server").await,
        "configmap \"b\" deleted (server dry run)\n"
    );
    assert_eq!(
        api.run("delete cm b --cascade=orphan --wait=false").await,
        "configmap \"b\" deleted\n"
    );
    api.run("delete cm -l x=y").await;
    api.run("delete cm --all").await;
    assert_eq!(api.run("get cm c d --ignore-not-found -o name").await, "");
    let refused = api.refuse("delete cm nobody", "").await;
    assert!(refused.contains("NotFound"));
    api.run("run p --image=a").await;
    assert_eq!(api.run("delete pod p --now").await, "pod \"p\" deleted\n");
    let refused = api.refuse("delete ns default", "").await;
    assert!(refused.contains("this namespace may not be deleted"), "{refused}");
}

#[tokio::test]
async fn server_side_apply_owns_and_conflicts() {
    let api = Api::start().await;
    let apply = "apply --server-side -f -";
    assert!(api.run_with(apply, WEB).await.contains("deployment.apps/web serverside-applied"));
    let revision = api.run("get deploy web -o jsonpath={.metadata.resourceVersion}").await;
    api.run_with(apply, WEB).await;
    let again = api.run("get deploy web -o jsonpath={.metadata.resourceVersion}").await;
    assert_eq!(revision, again, "applying the same again writes nothing");
    let shown = api.run("get deploy web -o yaml --show-managed-fields").await;
    assert!(shown.contains("manager: kubectl") && shown.contains("operation: Apply"), "{shown}");

    api.run("scale deploy web --replicas=7").await;
    let refused = api.refuse(apply, WEB).await;
    assert!(refused.contains("conflict with \"kubectl\" with subresource \"scale\""), "{refused}");
    assert!(refused.contains(".spec.replicas"), "{refused}");
    api.run_with("apply --server-side --force-conflicts -f -", WEB).await;
    assert_eq!(api.run("get deploy web -o jsonpath={.spec.replicas}").await, "2");

    // A field that is stated no more, and that nobody else owns, goes.
    let without = WEB.replace("        env:\n        - {name: A, value: a}\n", "");
    api.run_with(apply, &without).await;
    assert_eq!(
        api.run("get deploy web -o jsonpath={.spec.template.spec.containers[0].env}").await,
        ""
    );
    let refused = api.refuse(apply, &WEB.replace("replicas: 2", "replica: 2")).await;
    assert!(refused.contains("spec.replica"), "{refused}");
}

#[tokio::test]
async fn writes_are_tracked_and_statuses_apart() {
    let api = Api::start().await;
    api.run_with("create -f -", WEB).await;
    let status = r#"{"status":{"replicas":1}}"#;
    let patch = ["patch", "deploy", "web", "--subresource=status", "--type=merge", "-p", status];
    api.try_kubectl(&patch, "").await.unwrap();
    let now: Value =
        serde_json::from_str(&api.run("get deploy web -o json --show-managed-fields").await)
            .unwrap();
    let entries = now["metadata"]["managedFields"].as_array().unwrap();
    let of = |manager: &str, part: Option<&str>| {
        entries.iter().find(|e| e["manager"] == manager && e["subresource"].as_str() == part)
    };
    let created = of("kubectl-create", None).unwrap();
    assert_eq!(created["operation"], "Update");
    assert!(created["fieldsV1"]["f:spec"]["f:replicas"].is_object());
    assert!(created["fieldsV1"].get("f:status").is_none());
    let patched = of("kubectl-patch", Some("status")).unwrap();
    assert!(patched["fieldsV1"]["f:status"]["f:replicas"].is_object());
}

#[tokio::test]
async fn nodes_are_cordoned_and_drained() {
    let api = Api::start().await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    api.run_with("create -f -", &node.to_string()).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "b"}]},
    });
    api.run_with("create -f -", &pod.to_string()).await;
    assert_eq!(api.run("cordon n").await, "node/n cordoned\n");
    assert!(api.run("get node n").await.contains("SchedulingDisabled"));
    assert!(api.run("drain n --force").await.contains("node/n drained"));
    assert_eq!(api.run("get pods -o name").await, "");
    assert_eq!(api.run("uncordon n").await, "node/n uncordoned\n");
}

#[tokio::test]
async fn edit_sends_what_the_editor_left() {
    let api = Api::start().await;
    api.run("create configmap c --from-literal=a=before").await;
    let mut command = api.kubectl(&["edit", "configmap", "c"]);
    command.env("KUBE_EDITOR", "sed -i s/before/after/");
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(api.run("get configmap c -o jsonpath={.data.a}").await, "after");
}
