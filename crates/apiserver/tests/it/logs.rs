//! `kubectl logs`, against somebody who keeps logs.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream};
use portolan_apiserver::{
    Status, kinds,
    registry::{LogOptions, LogStream, PodLogs},
};
use serde_json::{Value, json};

use crate::support::{Api, Lines};

/// Remembers what it was asked, prints the container's name, and then waits if it is followed.
#[derive(Default)]
struct Fake(Mutex<Vec<LogOptions>>);

impl PodLogs for Fake {
    fn open(
        &self,
        pod: Value,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<LogStream, Status>> {
        self.0.lock().unwrap().push(options.clone());
        Box::pin(async move {
            let container = options.container.unwrap_or_default();
            if container == "broken" {
                return Err(Status::bad_request("container \"broken\" in pod is waiting to start"));
            }
            assert_ne!(container, "panic", "a bug in one request");
            let line = format!("{} of {}\n", container, pod["metadata"]["name"].as_str().unwrap());
            let first = stream::iter([Ok(Bytes::from(line))]);
            Ok(if options.follow { first.chain(stream::pending()).boxed() } else { first.boxed() })
        })
    }
}

#[tokio::test]
async fn logs_of_a_container() {
    let api = Api::start().await;
    let containers = json!([{"name": "main", "image": "a"}, {"name": "broken", "image": "a"}, {"name": "panic", "image": "a"}]);
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": containers}});
    api.create(&kinds::PODS, "default", pod).await.unwrap();
    let one = |name: &str, node: &str| {
        let containers = json!([{"name": "only", "image": "a"}]);
        json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": containers}})
    };
    api.create(&kinds::PODS, "default", one("q", "n")).await.unwrap();
    api.create(&kinds::PODS, "default", one("unplaced", "")).await.unwrap();
    assert_eq!(api.run("logs unplaced").await, "");
    let refused = api.refuse("logs q", "").await;
    assert!(refused.contains("pods \"n\" not found"), "{refused}");
    api.create(&kinds::NODES, "", json!({"metadata": {"name": "n"}})).await.unwrap();
    let refused = api.refuse("logs q", "").await;
    assert!(refused.contains("nothing here keeps the logs"), "{refused}");

    let fake = Arc::new(Fake::default());
    api.running.registry.set_pod_logs(fake.clone());
    assert_eq!(api.run("logs q").await, "only of q\n");
    assert_eq!(
        api.run("logs p -c main --tail=5 --timestamps --previous --since=1m").await,
        "main of p\n"
    );
    let asked = fake.0.lock().unwrap().last().unwrap().clone();
    assert_eq!(asked.tail_lines, Some(5));
    assert!(asked.timestamps && asked.previous && !asked.follow);
    assert_eq!(asked.since.unwrap().as_secs(), 60);
    let refused = api.refuse("logs p -c broken", "").await;
    assert!(refused.contains("waiting to start"), "{refused}");
    let refused = api.refuse("logs p -c nobody", "").await;
    assert!(refused.contains("container nobody is not valid for pod p"), "{refused}");
    let refused = api.refuse("logs p -c panic", "").await;
    assert!(refused.contains("caused apiserver to panic"), "{refused}");
    let mut followed = Lines::of(api.kubectl(&["logs", "-f", "q"]));
    assert_eq!(followed.find("only").await, "only of q");
}
