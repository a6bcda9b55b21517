//! Deployments: from one template of Pods to the next, without a gap.
//!
//! ```text
//!  Deployment, ReplicaSets ─▶ queue ─▶ plan: one step in a copy of the world ─▶ actions
//!                                       │
//!                          revision: which set is which     status: what to say about it
//! ```

mod plan;
mod revision;
mod status;
#[cfg(test)]
mod tests;
mod world;

use std::{sync::Arc, time::Duration};

use portolan_apiserver::{Status, kinds};
use serde_json::Value;

use self::plan::View;
pub(crate) use self::{revision::hash as template_hash, world::resolve};
use super::{
    action::{Action, Hands, is_namespace_leaving},
    claim::{Claim, claim},
    replicaset::{queue_owners, selector},
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object,
    queue::Queue,
};

/// Keeps the ReplicaSets of Deployments.
pub(crate) struct Deployments {
    hands: Hands,
    deployments: Informer,
    sets: Informer,
    pods: Informer,
}

impl Deployments {
    /// Sees to it that every change that matters puts its Deployment into the queue.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let deployments = informers.of(&kinds::DEPLOYMENTS);
        let sets = informers.of(&kinds::REPLICA_SETS);
        let pods = informers.of(&kinds::PODS);
        {
            let queue = queue.clone();
            deployments.on_change(move |change| queue.add(change.key.clone()));
        }
        queue_owners(&sets, &deployments, "Deployment", &queue);
        queue_recreated(&pods, &sets, &queue);
        (Deployments { hands, deployments, sets, pods }, queue)
    }

    fn claim(&self, deployment: &Object) -> Result<Claim, Status> {
        let selector = selector(deployment)?;
        let namespace = object::namespace(deployment);
        let mut candidates = self.sets.controlled_by(namespace, object::uid(deployment));
        candidates.extend(self.sets.controlled_by(namespace, ""));
        Ok(claim(deployment, &kinds::DEPLOYMENTS, &selector, &kinds::REPLICA_SETS, candidates))
    }

    /// The name of the new set was taken by something else: take another one next time.
    async fn note_collision(&self, deployment: &Object) -> Result<(), Status> {
        let mut new = Value::clone(deployment);
        let collisions = object::int(deployment, "/status/collisionCount").unwrap_or(0) + 1;
        object::map_mut(&mut new, "status").insert("collisionCount".into(), collisions.into());
        self.hands.apply(vec![Action::UpdateStatus(&kinds::DEPLOYMENTS, new)]).await
    }

    /// The new set was refused: say why, once.
    async fn note_failure(&self, deployment: &Object, failure: &Status) -> Result<(), Status> {
        let now_unix = self.hands.now_unix();
        let new = status::with_failure(deployment, &failure.to_string(), now_unix);
        let action = new.map(|new| Action::UpdateStatus(&kinds::DEPLOYMENTS, new));
        self.hands.apply(action.into_iter().collect()).await
    }
}

/// The last old Pod of a `Recreate` Deployment is gone: on with the new ones.
fn queue_recreated(pods: &Informer, sets: &Informer, queue: &Arc<Queue<ObjectKey>>) {
    let (sets, queue) = (sets.clone(), queue.clone());
    pods.on_change(move |change| {
        let (Some(pod), None) = (change.old, change.new) else { return };
        let Some(owner) = object::controller(pod) else { return };
        let set = sets.cached(&change.key.namespace, object::text(owner, "/name"));
        if let Some(owner) = set.as_deref().and_then(object::controller) {
            queue.add(ObjectKey::new(&change.key.namespace, object::text(owner, "/name")));
        }
    });
}

impl Worker for Deployments {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        let claim = self.claim(&deployment)?;
        if !claim.actions.is_empty() {
            self.hands.apply(claim.actions).await?;
            return Ok(Next::After(Duration::ZERO));
        }
        let (actions, again) = plan::plan(&View {
            deployment: &deployment,
            sets: &claim.owned,
            pods: &|uid| self.pods.controlled_by(&key.namespace, uid),
            now_unix: self.hands.now_unix(),
        });
        let makes_set = actions.iter().any(|action| matches!(action, Action::Create(..)));
        match self.hands.apply(actions).await {
            Err(status) if makes_set && status.is_already_exists() => {
                self.note_collision(&deployment).await?;
            }
            Err(status) if makes_set && !is_namespace_leaving(&status) => {
                self.note_failure(&deployment, &status).await?;
                return Err(status);
            }
            outcome => outcome?,
        }
        Ok(again.map_or(Next::Done, Next::After))
    }
}
