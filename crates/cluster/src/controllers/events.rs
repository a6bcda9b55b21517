//! Reports of what controllers did, as Events for `kubectl describe`.
//!
//! ```text
//! report() ─▶ bounded queue ─▶ recorder ─▶ create, or count up an equal one
//! ```
//!
//! Reporting never waits: Events are for people, and a full queue drops them
//! with a line in the log. Events go after an hour, as in the real cluster.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use portolan_apiserver::{
    kinds,
    registry::{Caller, DeleteOptions, Patch, Registry, WriteOptions, object as stored},
};
use portolan_runtime::Tasks;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use crate::object;

/// Events that wait to be written (client-go `maxQueuedEvents`).
const QUEUE_MAX: usize = 1000;
/// Events that may be counted up (client-go `maxLruCacheEntries`).
const COUNTED_MAX: usize = 4096;
/// How long an Event lives (kube-apiserver `--event-ttl`).
const LIFETIME: Duration = Duration::from_secs(3600);

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
            caller: Caller::system("event-recorder"),
            counted: HashMap::new(),
            written: VecDeque::new(),
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
    counted: HashMap<Same, (String, String, u64)>,
    /// What was written, oldest first, and when it may go.
    written: VecDeque<(Instant, Same, String, String)>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Report>) {
        loop {
            let due = self.written.front().map(|(at, ..)| *at);
            let expiry = async move {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                report = queue.recv() => match report {
                    Some(report) => self.write(report).await,
                    None => return,
                },
                () = expiry => self.expire().await,
            }
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
        if let Some((_, name, count)) = self.counted.get_mut(&same) {
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
                self.counted.insert(same.clone(), (namespace.clone(), name.clone(), 1));
                self.written.push_back((Instant::now() + LIFETIME, same, namespace, name));
            }
            // Mostly a namespace on its way out.
            Err(status) => tracing::debug!(%status, "an Event was not written"),
        }
    }

    async fn expire(&mut self) {
        let Some((_, same, namespace, name)) = self.written.pop_front() else { return };
        self.counted.remove(&same);
        let options = DeleteOptions::default();
        let gone =
            self.registry.delete(&self.caller, &kinds::EVENTS, &namespace, &name, &options).await;
        if let Err(status) = gone
            && !status.is_not_found()
        {
            tracing::debug!(%status, "an old Event was not removed");
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
