//! The list that all writers of a Pod share: the label, then the annotation.
//!
//! ```text
//!   PATCH label ── the Pod as it is ──▶ annotation says it already? ── yes ──▶ done
//!                                          ▲         │ no
//!                                          │         ▼
//!                     GET Pod ◀── 409, pause ── PATCH annotation, if resourceVersion
//!                                               and uid are as read
//! ```
//!
//! The list is read, changed and written back under a precondition: whoever
//! comes second reads again, and nobody's entries are lost.

use portolan_dialects::{EncodeError, ListDialect, Registration, list};
use serde_json::{Value, json};

use super::{Place, Stop, Wanted};
use crate::pod::Pod;

/// Writes the list of one Pod.
pub(super) struct List {
    dialect: ListDialect,
}

impl List {
    pub(super) fn new(dialect: ListDialect) -> Self {
        Self { dialect }
    }

    /// Whether the services can be written.
    pub(super) fn check(&self, services: &[Registration]) -> Result<(), EncodeError> {
        self.dialect.update(None, &[], services).map(drop)
    }

    pub(super) async fn try_write(
        &self,
        place: &Place,
        wanted: &Wanted<'_>,
        is_first: bool,
    ) -> Result<(), Stop> {
        let (remove, add) = (wanted.gone, wanted.new);
        let (label, value) = self.dialect.label();
        let mut change = json!({"metadata": {"labels": {&label: &value}}});
        if let Some(uid) = place.uid.get() {
            change["metadata"]["uid"] = uid.as_str().into();
        }
        // The answer to the label's patch is the Pod: no need to read it first.
        let answer = if is_first && !add.is_empty() {
            place.pods.patch(&place.pod, &change).await
        } else {
            place.pods.get(&place.pod).await
        };
        let mut pod = match answer {
            Ok(pod) => pod,
            // With the Pod its registrations are gone.
            Err(failure) if failure.is_code(404) && add.is_empty() => return Ok(()),
            Err(failure) if failure.is_code(404) => return Err(place.not_found()),
            Err(failure) => return Err(place.stop(failure)),
        };
        let uid = place.uid.get_or_init(|| pod.metadata.uid.clone());
        if *uid != pod.metadata.uid {
            if add.is_empty() {
                return Ok(());
            }
            return Err(place.replaced());
        }
        if !add.is_empty() && pod.metadata.labels.get(&label) != Some(&value) {
            pod = patch(place, &change).await?;
        }
        let key = self.dialect.annotation_key();
        let current = pod.metadata.annotations.get(&key);
        let next = self.dialect.update(current.map(String::as_str), remove, add);
        let next = next.map_err(|error| Stop::Final(error.into()))?;
        if is_settled(&self.dialect, current, next.as_ref(), add) {
            return Ok(());
        }
        let revision = pod.metadata.resource_version;
        let next = next.map_or(Value::Null, Value::String);
        let metadata = json!({"uid": uid, "resourceVersion": revision, "annotations": {key: next}});
        patch(place, &json!({"metadata": metadata})).await?;
        Ok(())
    }
}

async fn patch(place: &Place, change: &Value) -> Result<Pod, Stop> {
    place.pods.patch(&place.pod, change).await.map_err(|failure| place.stop(failure))
}

/// Whether the annotation says all of it already. Its text may still differ:
/// what is put in goes to the end of the list, which nobody needs to be told.
fn is_settled(
    dialect: &ListDialect,
    current: Option<&String>,
    next: Option<&String>,
    add: &[Registration],
) -> bool {
    let (Some(current), Some(next)) = (current, next) else { return current == next };
    let count = |text| list::read(text).map(|items| items.len()).ok();
    let present = dialect.decode(current).registrations;
    // As many items: nothing leaves, and nothing is there twice.
    current == next
        || (count(current) == count(next) && add.iter().all(|one| present.contains(one)))
}

#[cfg(test)]
mod tests {
    use portolan_dialects::app::{self, App};
    use proptest::prelude::*;

    use super::*;

    fn service(interface: &str, port: u16, weight: u32) -> Registration {
        let at = std::net::SocketAddr::from(([10, 0, 0, 1], port));
        Registration { weight, ..Registration::new(interface, "http", at) }
    }

    #[test]
    fn what_needs_no_write() {
        let app = ListDialect::App(App::default());
        let (a, b) = (service("a", 1, 100), service("b", 2, 100));
        let both = app::encode(&[a.clone(), b.clone()]).unwrap();
        let twice = app::encode(&[a.clone(), a.clone(), b.clone()]).unwrap();
        let heavy = service("a", 1, 200);
        for (current, remove, add, expected) in [
            (None, vec![], vec![], true),
            (None, vec![a.clone()], vec![], true),
            (None, vec![], vec![a.clone()], false),
            (Some(&both), vec![], vec![a.clone()], true),
            (Some(&both), vec![a.clone()], vec![a.clone()], true),
            (Some(&both), vec![], vec![a.clone(), b.clone()], true),
            (Some(&both), vec![b], vec![a.clone()], false),
            (Some(&both), vec![], vec![heavy], false),
            // Left behind by a writer that only appends.
            (Some(&twice), vec![], vec![a], false),
        ] {
            let next = app.update(current.map(String::as_str), &remove, &add).unwrap();
            assert_eq!(
                is_settled(&app, current, next.as_ref(), &add),
                expected,
                "{remove:?} {add:?}"
            );
        }
    }

    proptest! {
        /// What others wrote stays, what was put in is there once, what was
        /// taken out is not.
        #[test]
        fn merges(
            present in proptest::collection::vec((0..3_usize, 1..4_u16, 1..3_u32), 0..8),
            remove in proptest::collection::vec((0..3_usize, 1..4_u16), 0..3),
            add in proptest::collection::btree_map((0..3_usize, 1..4_u16), 1..3_u32, 0..3),
        ) {
            let name = |at: usize| ["a", "b", "c"][at];
            let present: Vec<_> = present.iter().map(|(n, p, w)| service(name(*n), *p, *w)).collect();
            let remove: Vec<_> = remove.iter().map(|(n, p)| service(name(*n), *p, 1)).collect();
            let add: Vec<_> = add.iter().map(|((n, p), w)| service(name(*n), *p, *w)).collect();
            let text = app::encode(&present).unwrap();
            let app = ListDialect::App(App::default());
            let next = app.update(Some(&text), &remove, &add).unwrap();
            let before = app::decode(&text).registrations;
            let after = next.as_deref().map(|text| app::decode(text).registrations).unwrap_or_default();
            for one in &add {
                prop_assert_eq!(after.iter().filter(|r| one.replaces(r)).collect::<Vec<_>>(), [one]);
            }
            let touched = |r: &Registration| remove.iter().chain(&add).any(|one| one.replaces(r));
            for one in before.iter().filter(|r| !touched(r)) {
                prop_assert!(after.contains(one));
            }
            prop_assert!(after.iter().all(|r| add.contains(r) || (before.contains(r) && !touched(r))));
            if is_settled(&app, Some(&text), next.as_ref(), &add) {
                let sorted = |mut all: Vec<Registration>| { all.sort(); all };
                prop_assert_eq!(sorted(before), sorted(after));
            }
        }
    }
}
