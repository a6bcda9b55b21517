//! From a Pod's key to a worker or a responder, and at the end to neither.

use std::{net::IpAddr, sync::Arc, time::Duration};

use portolan_apiserver::{
    Status, kinds,
    registry::{Patch, WriteOptions},
};
use serde_json::json;

use super::{
    HOLLOW_ANNOTATION, env,
    hollow::{self, Responder},
    host::{Entry, Host},
    netns::Wanted,
    pod::{self, Pod},
    problem,
    status::{self, Report},
};
use crate::{
    controllers::runner::{self, Next},
    informer::ObjectKey,
    object,
};

/// Pause before another look for a free address.
const ADDRESS_RETRY: Duration = Duration::from_secs(1);

/// Pause before another try to bind a hollow Pod's blocked ports.
const BLOCKED_RETRY: Duration = Duration::from_secs(3);

/// Brings one Pod after the other to what its object asks for.
pub(super) struct Kubelet(pub(super) Arc<Host>);

impl runner::Worker for Kubelet {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let host = &self.0;
        // Whole, as the informer does not have it.
        let pod = host.registry.get(&kinds::PODS, &key.namespace, &key.name).ok().map(Arc::new);
        let pod = pod.filter(|pod| object::text(pod, "/spec/nodeName") == host.config.node_name);
        let former = {
            let mut entries = host.entries();
            match &pod {
                Some(pod) => entries.uids.insert(key.clone(), object::uid(pod).to_owned()),
                None => entries.uids.remove(key),
            }
        };
        if let Some(former) = former.filter(|f| pod.as_ref().is_none_or(|p| object::uid(p) != f)) {
            host.let_go(&former);
        }
        let Some(pod) = pod else { return Ok(Next::Done) };
        let known = match host.entries().by_uid.get(object::uid(&pod)) {
            Some(Entry::Process { updates, .. }) => {
                updates.send_replace(Some(pod.clone()));
                // Nobody there: it has ended, and only its object is left.
                if !updates.is_closed() || !object::is_deleting(&pod) {
                    return Ok(Next::Done);
                }
                false
            }
            Some(Entry::Hollow(_)) => true,
            None => false,
        };
        let pod = Pod::of(pod);
        if pod.deletion_grace_s.is_some() {
            if let Some(Entry::Hollow(responder)) = host.entries().by_uid.get(&pod.uid) {
                responder.leave();
            }
            return self.end(&pod).await;
        }
        if known || !pod.has_ended() { self.run(key, pod, known).await } else { Ok(Next::Done) }
    }
}

impl Kubelet {
    /// Nothing of the Pod runs: it may go.
    async fn end(&self, pod: &Pod) -> Result<Next, Status> {
        if pod.deletion_grace_s == Some(0)
            && !object::list(&pod.raw, "/metadata/finalizers").is_empty()
        {
            // Confirmed already; whoever holds the finalizer is next.
            return Ok(Next::Done);
        }
        self.0.delete_pod(pod).await.map(|()| Next::Done)
    }

    async fn run(&self, key: &ObjectKey, pod: Pod, known: bool) -> Result<Next, Status> {
        let host = &self.0;
        let addresses = match host.take_addresses(&pod) {
            Ok(addresses) => addresses,
            Err(range) => return self.without_address(&pod, &range).await,
        };
        self.attach(key, &pod, &addresses).await?;
        if pod.is_process() {
            host.start_worker(pod, addresses);
            return Ok(Next::Done);
        }
        self.run_hollow(pod, &addresses, known).await
    }

    async fn attach(&self, key: &ObjectKey, pod: &Pod, addresses: &[IpAddr]) -> Result<(), Status> {
        if pod.host_network || self.0.config.network.node().is_none() {
            return Ok(());
        }
        let wanted = Wanted {
            uid: pod.uid.clone(),
            hostname: env::hostname(pod),
            addresses: addresses.to_vec(),
            processes: pod.is_process(),
        };
        let host = self.0.clone();
        let attaching = tokio::task::spawn_blocking(move || {
            host.config.network.attach(&wanted, &host.config.shim)
        });
        let attached = attaching.await.unwrap_or_else(|ended| Err(std::io::Error::other(ended)));
        attached.map_err(|error| {
            let text = format!("Failed to create pod sandbox: {error}");
            self.0.warn(pod, "FailedCreatePodSandBox", &text);
            Status::internal(format!("cannot attach Pod {key}: {error}"))
        })
    }

    async fn run_hollow(
        &self,
        pod: Pod,
        addresses: &[IpAddr],
        known: bool,
    ) -> Result<Next, Status> {
        let host = &self.0;
        let services = host.services.list(Some(&pod.namespace));
        let wanted = hollow::wanted_ports(&pod, services.iter().map(|service| &**service));
        let host_ip = host.config.network.host_ip();
        let address = addresses.first().copied().unwrap_or(host_ip);
        let (report, blocked) = {
            let mut entries = host.entries();
            let entry = entries.by_uid.entry(pod.uid.clone()).or_insert_with(|| {
                Entry::Hollow(Responder::new(&pod.name, address, host.permits.clone()))
            });
            let Entry::Hollow(responder) = entry else { return Ok(Next::Done) };
            responder.listen_on(&wanted);
            let report = responder.report(&pod, addresses, host_ip, host.now().unix_s);
            (report, !responder.blocked().is_empty())
        };
        if !known && object::annotation(&pod.raw, HOLLOW_ANNOTATION) != Some("true") {
            self.mark_hollow(&pod).await?;
        }
        self.write(&pod, &report).await?;
        Ok(if blocked { Next::After(BLOCKED_RETRY) } else { Next::Done })
    }

    async fn mark_hollow(&self, pod: &Pod) -> Result<(), Status> {
        let host = &self.0;
        let mark =
            json!({"metadata": {"uid": pod.uid, "annotations": {HOLLOW_ANNOTATION: "true"}}});
        let (mark, options) = (Patch::Merge(mark), WriteOptions::default());
        let (namespace, name) = (&pod.namespace, &pod.name);
        host.registry
            .patch(&host.caller, &kinds::PODS, namespace, name, None, mark, &options)
            .await
            .map(drop)
    }

    async fn without_address(&self, pod: &Pod, range: &str) -> Result<Next, Status> {
        let waiting = |c: &pod::Container| {
            let state = json!({"waiting": {"reason": "ContainerCreating"}});
            status::container_status(&c.name, &c.image, "", "", state)
        };
        let report = Report {
            phase: "Pending",
            initialised: pod.init.is_empty(),
            ready: false,
            remark: Some(problem::addresses_exhausted(range)),
            unready: pod.main.iter().map(|c| c.name.clone()).collect(),
            addresses: Vec::new(),
            host_ip: self.0.config.network.host_ip(),
            seen_unix_s: self.0.now().unix_s,
            init_statuses: pod.init.iter().map(waiting).collect(),
            statuses: pod.main.iter().map(waiting).collect(),
        };
        self.write(pod, &report).await?;
        Ok(Next::After(ADDRESS_RETRY))
    }

    async fn write(&self, pod: &Pod, report: &Report) -> Result<(), Status> {
        let Some(patch) = status::patch(report, pod, self.0.now().unix_s) else { return Ok(()) };
        self.0.patch_status(pod, patch).await?;
        if let Some(problem) = report.remark.as_ref().filter(|remark| remark.has_code()) {
            self.0.warn(pod, problem.reason, &problem.message);
        }
        Ok(())
    }
}
