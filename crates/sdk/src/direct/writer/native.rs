//! The record of one's own: one server-side apply, and no reading before it but of the uid.
//!
//! What is applied is all that this owner has on the Pod, under a field manager of its own, so
//! that writers of one Pod never meet. The uid goes with it: a Pod that took the name since is
//! not written to, and one that is gone is not made anew.

use jiff::{Timestamp, Unit};
use portolan_dialects::{
    EncodeError, Registration,
    native::{self, Incarnation, Owner},
};
use serde_json::{Value, json};

use super::{Place, Stop, Wanted};

/// Writes the record of one owner.
pub(super) struct Native {
    owner: Owner,
    life: Incarnation,
}

impl Native {
    /// A life of the owner, which begins now.
    pub(super) fn new(owner: Owner) -> Self {
        let now = Timestamp::now();
        // In whole seconds, as containers' times are.
        let start = now.round(Unit::Second).unwrap_or(now).to_string();
        let id = format!("{:032x}", rand::random::<u128>());
        Self { owner, life: Incarnation { id, start } }
    }

    /// Whether the services can be written.
    pub(super) fn check(&self, services: &[Registration]) -> Result<(), EncodeError> {
        native::encode(&self.life, services).map(drop)
    }

    pub(super) async fn try_write(&self, place: &Place, wanted: &Wanted<'_>) -> Result<(), Stop> {
        // Whoever takes back has what they want when the Pod is gone.
        let takes_back = wanted.new.is_empty();
        let uid = match place.uid.get() {
            Some(uid) => uid,
            None => match place.pods.get(&place.pod).await {
                Ok(pod) => place.uid.get_or_init(|| pod.metadata.uid),
                Err(failure) if failure.is_code(404) && takes_back => return Ok(()),
                Err(failure) if failure.is_code(404) => return Err(place.not_found()),
                Err(failure) => return Err(place.stop(failure)),
            },
        };
        let applied = self.applied(place, uid, wanted.all).map_err(|e| Stop::Final(e.into()))?;
        let manager = format!("portolan/{}", self.owner.name());
        match place.pods.apply(&place.pod, &manager, &applied).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_code(404) && takes_back => Ok(()),
            Err(failure) if failure.is_code(404) => Err(place.not_found()),
            // Nobody else owns what is applied, and it names no revision: another uid.
            Err(failure) if failure.is_code(409) && takes_back => Ok(()),
            Err(failure) if failure.is_code(409) => Err(place.replaced()),
            Err(failure) => Err(place.stop(failure)),
        }
    }

    fn applied(
        &self,
        place: &Place,
        uid: &str,
        services: &[Registration],
    ) -> Result<Value, EncodeError> {
        let mut metadata = json!({"name": place.pod, "namespace": place.namespace, "uid": uid});
        if !services.is_empty() {
            let (label, value) = Owner::label();
            let text = native::encode(&self.life, services)?;
            metadata["labels"] = json!({label: value});
            metadata["annotations"] = json!({self.owner.annotation_key(): text});
        }
        Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}))
    }
}
