//! Reports of what controllers did, as Events for `kubectl describe`.
//!
//! ```text
//! report() ─▶ bounded queue ─▶ recorder ─▶ create, or count up an equal one
//! ```
//!
//! Reporting never waits: Events are for people, and a full queue drops them
//! with a line in the log. The registry removes them when they are old.

use std::collections::HashMap;

use portolan_apiserver::{
    kinds,
    registry::{Caller, Patch, Registry, WriteOptions, object as stored},
};
use portolan_runtime::Tasks;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::object;

/// Events that wait to be written (client-go `maxQueuedEvents`).
const QUEUE_MAX: usize = 1000;
/// Events that may be counted up (client-go `maxLruCacheEntries`).
const COUNTED_MAX: usize = 4096;

struct Report {
    component: String,
    about: Value,
    kind: &'static str,
    reason: String,
    message: String,
}

/// Takes reports; clones are one.
#[derive(Clone)]
pub struct Recorder {
    reports: mpsc::Sender<Report>,
}

impl Recorder {
    /// Starts to write what is reported.
    pub fn start(registry: Registry, tasks: &Tasks) -> Recorder {
        let (reports, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            registry,
            caller: Caller::system("event-recorder").within("kube-controller-manager"),
            counted: HashMap::new(),
        };
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("event recorder", async move {
            tokio::select! {
                () = writer.run(queue) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Recorder { reports }
    }

    /// Reports an Event of type `Normal` or `Warning` about an object.
    pub fn report(
        &self,
        component: &str,
        about: &Value,
        kind: &'static str,
        reason: &str,
        message: &str,
    ) {
        let metadata = |key: &str| object::text(about, &format!("/metadata/{key}"));
        let report = Report {
            component: component.to_owned(),
            about: json!({
                "kind": object::text(about, "/kind"),
                "namespace": metadata("namespace"),
                "name": metadata("name"),
                "uid": metadata("uid"),
                "apiVersion": object::text(about, "/apiVersion"),
                "resourceVersion": metadata("resourceVersion"),
            }),
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        if let Err(error) = self.reports.try_send(report) {
            tracing::warn!(%error, component, reason, message, "an Event was dropped");
        }
    }
}

/// Equal Events are counted up instead of written again.
type Same = (String, String, String, String);

struct Writer {
    registry: Registry,
    caller: Caller,
    counted: HashMap<Same, (String, u64)>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Report>) {
        while let Some(report) = queue.recv().await {
            self.write(report).await;
        }
    }

    async fn write(&mut self, report: Report) {
        let namespace = match object::text(&report.about, "/namespace") {
            "" => "default",
            namespace => namespace,
        }
        .to_owned();
        let same = (
            object::text(&report.about, "/uid").to_owned(),
            report.component.clone(),
            report.reason.clone(),
            report.message.clone(),
        );
        if let Some((name, count)) = self.counted.get_mut(&same) {
            *count += 1;
            let patch = Patch::Merge(json!({"count": count, "lastTimestamp": stored::now()}));
            let (caller, options) = (&self.caller, WriteOptions::default());
            let kind = &kinds::EVENTS;
            match self.registry.patch(caller, kind, &namespace, name, None, patch, &options).await {
                Ok(_) => return,
                // Gone: write a new one.
                Err(status) if status.is_not_found() => drop(self.counted.remove(&same)),
                Err(status) => return tracing::debug!(%status, "an Event was not counted"),
            }
        }
        let event = event(&namespace, &report);
        let options = WriteOptions::default();
        let made =
            self.registry.create(&self.caller, &kinds::EVENTS, &namespace, event, &options).await;
        match made {
            Ok(made) => {
                let name = object::name(&made).to_owned();
                if self.counted.len() >= COUNTED_MAX {
                    self.counted.clear();
                }
                self.counted.insert(same, (name, 1));
            }
            // Mostly a namespace on its way out.
            Err(status) => tracing::debug!(%status, "an Event was not written"),
        }
    }
}

fn event(namespace: &str, report: &Report) -> Value {
    let now = stored::now();
    let about = object::text(&report.about, "/name");
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{about}.{:016x}", rand::random::<u64>()),
            "namespace": namespace,
        },
        "involvedObject": report.about,
        "reason": report.reason,
        "message": report.message,
        "type": report.kind,
        "source": {"component": report.component},
        "reportingComponent": report.component,
        "reportingInstance": "",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "eventTime": null,
        "count": 1,
    })
}
