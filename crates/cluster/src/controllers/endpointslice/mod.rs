//! EndpointSlices of Services with a selector.
//!
//! ```text
//!  Service, Pods, Nodes, slices ─▶ queue of Services ─▶ plan ─▶ actions
//!                                                       │
//!                                          pods: Pod -> endpoint
//!                                          packing: endpoints -> slices
//! ```

pub(crate) mod packing;
pub(crate) mod plan;
pub(crate) mod pods;
mod trigger;

use std::sync::{Arc, Mutex, PoisonError};

use portolan_apiserver::{Status, kinds, registry::object::timestamp};

pub(crate) use self::plan::{
    HEADLESS_LABEL, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, TRIGGER_TIME_ANNOTATION, generate_name,
};
use self::{plan::View, pods::ZONE_LABEL, trigger::TriggerTimes};
use super::{
    action::Hands,
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, ObjectKey},
    object,
    queue::Queue,
};

/// Endpoints in one slice (`--max-endpoints-per-slice`).
pub(crate) const ENDPOINTS_MAX_DEFAULT: usize = 100;

/// Keeps the EndpointSlices of Services.
pub(crate) struct EndpointSlices {
    hands: Hands,
    services: Informer,
    pods: Informer,
    nodes: Informer,
    slices: Informer,
    trigger_times: Mutex<TriggerTimes>,
}

impl EndpointSlices {
    /// Sees to it that every change that matters puts its Service into the queue.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let services = informers.of(&kinds::SERVICES);
        let pods = informers.of(&kinds::PODS);
        let nodes = informers.of(&kinds::NODES);
        let slices = informers.of(&kinds::ENDPOINT_SLICES);
        {
            let queue = queue.clone();
            services.on_change(move |change| queue.add(change.key.clone()));
        }
        pods::queue_services_of_pods(&pods, &services, &queue);
        queue_services_of_slices(&slices, &queue);
        queue_services_of_nodes(&nodes, &services, &queue);
        let trigger_times = Mutex::default();
        (EndpointSlices { hands, services, pods, nodes, slices, trigger_times }, queue)
    }
}

/// Somebody changed or removed a slice of ours.
fn queue_services_of_slices(slices: &Informer, queue: &Arc<Queue<ObjectKey>>) {
    let queue = queue.clone();
    slices.on_change(move |change| {
        for slice in change.sides() {
            if let Some(service) = object::label(slice, SERVICE_NAME_LABEL) {
                queue.add(ObjectKey::new(&change.key.namespace, service));
            }
        }
    });
}

/// A Node that comes, goes or changes its zone may concern any Service; its heartbeats do not.
fn queue_services_of_nodes(nodes: &Informer, services: &Informer, queue: &Arc<Queue<ObjectKey>>) {
    let (services, queue) = (services.clone(), queue.clone());
    nodes.on_change(move |change| {
        let zone = |node: Option<&crate::informer::Object>| {
            node.map(|node| object::label(node, ZONE_LABEL).map(str::to_owned))
        };
        if zone(change.old) != zone(change.new) {
            for service in services.cached_list(None) {
                queue.add(ObjectKey::of(&service));
            }
        }
    });
}

impl Worker for EndpointSlices {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            // The slices go with their owner.
            let mut times = self.trigger_times.lock().unwrap_or_else(PoisonError::into_inner);
            times.forget(key);
            return Ok(Next::Done);
        };
        let pods = self.pods.list(Some(&key.namespace));
        let mut slices = self.slices.list(Some(&key.namespace));
        slices.retain(|slice| plan::is_ours(slice, &key.name));
        let trigger_time = {
            let mut times = self.trigger_times.lock().unwrap_or_else(PoisonError::into_inner);
            times.next(key, &service, &pods::selected(&service, &pods)).map(timestamp)
        };
        self.nodes.refresh();
        let plan = plan::plan(&View {
            service: &service,
            pods: &pods,
            slices: &slices,
            node: &|name| self.nodes.cached("", name),
            endpoints_max: ENDPOINTS_MAX_DEFAULT,
            trigger_time: trigger_time.as_deref().unwrap_or_default(),
        });
        // Such Pods come in when the Node does: that change queues the Service.
        for node in &plan.missing_nodes {
            tracing::debug!(service = %key, node, "a Pod is on a Node that is not there");
        }
        self.hands.apply(plan.actions).await?;
        Ok(Next::Done)
    }
}
