//! Controllers: each keeps one promise of the API by writing to the API.
//!
//! ```text
//!  informers ─▶ queue of keys ─▶ plan(view) -> actions ─▶ hands ─▶ registry
//!                                pure, table-tested
//! ```
//!
//! A plan sees the world as the store has it at that moment
//! ([`crate::informer`]), so that none needs to remember what it did before.

mod action;
mod aggregation;
#[cfg(test)]
mod cases;
mod claim;
mod daemonset;
mod deployment;
mod endpoints;
mod endpointslice;
pub mod events;
mod garbage;
mod mirroring;
mod namespace;
mod podset;
mod replicaset;
mod revisions;
pub(crate) mod runner;
mod scheduler;
mod servicecidr;
mod statefulset;

use portolan_apiserver::Registry;
use portolan_runtime::Tasks;

pub(crate) use self::podset::DELETION_COST_ANNOTATION;
pub use self::scheduler::RUNNER_LABEL;
use self::{action::Hands, events::Recorder};
use crate::informer::Informers;

/// Workers of the controllers that make and remove many objects: enough to fill
/// commit groups of the store (upstream's defaults are 5 to 20).
const WORKERS: usize = 8;

/// Starts what binds Pods to Nodes; it ends with `tasks`.
pub fn start_scheduler(
    registry: &Registry,
    informers: &Informers,
    recorder: &Recorder,
    tasks: &Tasks,
) {
    let name = "default-scheduler";
    let hands = Hands::new(registry.clone(), recorder.clone(), name);
    runner::run(tasks, name, WORKERS, scheduler::Scheduler::start(hands, informers));
}

/// Starts all other controllers; they end with `tasks`.
pub fn start(
    registry: &Registry,
    informers: &Informers,
    recorder: &Recorder,
    tasks: &Tasks,
    ca_pem: &str,
) {
    let hands = |component: &str| Hands::new(registry.clone(), recorder.clone(), component);
    let name = "deployment-controller";
    runner::run(tasks, name, WORKERS, deployment::Deployments::start(hands(name), informers));
    let name = "replicaset-controller";
    runner::run(tasks, name, WORKERS, replicaset::ReplicaSets::start(hands(name), informers));
    let name = "statefulset-controller";
    runner::run(tasks, name, WORKERS, statefulset::StatefulSets::start(hands(name), informers));
    let name = "daemonset-controller";
    runner::run(tasks, name, WORKERS, daemonset::DaemonSets::start(hands(name), informers));
    let name = "endpointslice-controller";
    runner::run(tasks, name, WORKERS, endpointslice::EndpointSlices::start(hands(name), informers));
    let name = "endpoint-controller";
    runner::run(tasks, name, WORKERS, endpoints::Endpoints::start(hands(name), informers));
    let name = "endpointslicemirroring-controller";
    runner::run(tasks, name, 1, mirroring::Mirroring::start(hands(name), informers));
    let name = "generic-garbage-collector";
    runner::run(tasks, name, 2 * WORKERS, garbage::Garbage::start(hands(name), informers));
    let name = "namespace-controller";
    runner::run(tasks, name, 2, namespace::Namespaces::start(hands(name), informers));
    let name = "service-cidr-controller";
    runner::run(tasks, name, 1, servicecidr::ServiceCidrs::start(hands(name), informers));
    let name = "clusterrole-aggregation-controller";
    runner::run(tasks, name, 1, aggregation::Aggregation::start(hands(name), informers));
    let name = "service-account-controller";
    let furnishing = namespace::Furnishing::start(hands(name), informers, ca_pem.to_owned());
    runner::run(tasks, name, 2, furnishing);
}
