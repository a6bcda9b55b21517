//! Who wants to hear of what: so that a change wakes those whom it concerns, and costs
//! nobody else anything.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use portolan_model::Name;
use tokio::sync::Notify;

use crate::{
    store::Kind,
    stream::Interest,
    view::{Shelf, View},
};

/// Streams by what they want to hear of.
#[derive(Debug, Default)]
pub(crate) struct Interests(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u32,
    streams: HashMap<u32, Arc<Notify>>,
    /// Whoever asks for a name is woken by it in whichever view: few differ in it.
    by_name: HashMap<(Kind, Name), BTreeSet<u32>>,
    /// Whoever asks for all of a shelf.
    by_shelf: HashMap<Shelf, BTreeSet<u32>>,
}

/// A stream among them.
#[derive(Debug)]
pub(crate) struct Listener {
    number: u32,
    /// Told when something has changed that the stream wants to hear of.
    pub(crate) wake: Arc<Notify>,
}

impl Interests {
    /// A stream that wants to hear of nothing yet.
    pub(crate) fn join(&self) -> Listener {
        let wake = Arc::new(Notify::new());
        let mut table = self.table();
        // Numbers come round after four billion streams; one that is in use is passed over.
        let mut number = table.last.wrapping_add(1);
        while table.streams.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        table.last = number;
        table.streams.insert(number, wake.clone());
        Listener { number, wake }
    }

    /// What a stream wants to hear of differs by this.
    pub(crate) fn change(&self, listener: &Listener, view: &View, interests: Vec<Interest>) {
        if interests.is_empty() {
            return;
        }
        let mut table = self.table();
        for interest in interests {
            match interest {
                Interest::Name(kind, name, wants) => {
                    set(&mut table.by_name, (kind, name), listener.number, wants);
                }
                Interest::All(kind, wants) => {
                    let shelves = [Some(view.shelf(kind)), view.overlay(kind)];
                    for shelf in shelves.into_iter().flatten() {
                        set(&mut table.by_shelf, shelf, listener.number, wants);
                    }
                }
            }
        }
    }

    /// A stream goes, with all that it wanted to hear of; without a view that is nothing.
    pub(crate) fn leave(
        &self,
        listener: &Listener,
        view: Option<&View>,
        interests: impl Iterator<Item = Interest>,
    ) {
        let gone = interests.map(|interest| match interest {
            Interest::Name(kind, name, _) => Interest::Name(kind, name, false),
            Interest::All(kind, _) => Interest::All(kind, false),
        });
        if let Some(view) = view {
            self.change(listener, view, gone.collect());
        }
        self.table().streams.remove(&listener.number);
    }

    /// Wakes those whom a change concerns.
    pub(crate) fn wake(&self, changed: &[(Shelf, Name)]) {
        let table = self.table();
        let mut concerned = BTreeSet::new();
        for (shelf, name) in changed {
            concerned
                .extend(table.by_name.get(&(shelf.kind(), name.clone())).into_iter().flatten());
            concerned.extend(table.by_shelf.get(shelf).into_iter().flatten());
        }
        for number in concerned {
            if let Some(wake) = table.streams.get(number) {
                wake.notify_one();
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, BTreeSet<u32>>,
    key: K,
    number: u32,
    wants: bool,
) {
    if wants {
        map.entry(key).or_default().insert(number);
    } else if let Some(numbers) = map.get_mut(&key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            map.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use portolan_model::name;

    use super::*;
    use crate::view::{Dialect, Place};

    fn view(last: u8) -> View {
        let own = IpAddr::from([127, 0, 0, last]);
        View { dialect: Dialect::Envoy(own), namespace: None, place: Place::default() }
    }

    /// Whether a stream was woken since the last look.
    fn is_woken(listener: &Listener) -> bool {
        let mut notified = std::pin::pin!(listener.wake.notified());
        notified.as_mut().enable()
    }

    #[test]
    fn whom_a_change_concerns_is_woken() {
        let interests = Interests::default();
        let (all, one, other) = (interests.join(), interests.join(), interests.join());
        interests.change(&all, &view(1), vec![Interest::All(Kind::Listener, true)]);
        let wants = |text, wants| vec![Interest::Name(Kind::Endpoints, name(text), wants)];
        interests.change(&one, &view(1), wants("a", true));
        interests.change(&other, &view(2), [wants("a", true), wants("b", true)].concat());
        let woken = |shelf, text| {
            interests.wake(&[(shelf, name(text))]);
            [&all, &one, &other].map(is_woken)
        };
        let own = |last| Shelf::EnvoyListeners([127, 0, 0, last].into());
        assert_eq!(woken(own(1), "x"), [true, false, false]);
        assert_eq!(woken(own(2), "x"), [false, false, false], "another view");
        assert_eq!(woken(Shelf::Endpoints, "a"), [false, true, true]);
        assert_eq!(woken(Shelf::EnvoyClusters, "a"), [false, false, false], "another type");
        interests.change(&other, &view(2), wants("a", false));
        assert_eq!(woken(Shelf::Endpoints, "a"), [false, true, false]);
        interests.leave(&one, Some(&view(1)), wants("a", true).into_iter());
        assert_eq!(woken(Shelf::Endpoints, "a"), [false, false, false]);
        assert_eq!(woken(Shelf::Endpoints, "b"), [false, false, true]);
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let interests = Interests::default();
        let listener = interests.join();
        let wanted =
            [Interest::Name(Kind::Routes, name("80"), true), Interest::All(Kind::Cluster, true)];
        interests.change(&listener, &view(1), wanted.to_vec());
        interests.leave(&listener, Some(&view(1)), wanted.into_iter());
        let table = interests.table();
        assert!(table.streams.is_empty() && table.by_name.is_empty() && table.by_shelf.is_empty());
    }
}
