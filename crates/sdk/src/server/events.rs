//! What happens to services and instances, one event after the other.

use std::collections::{BTreeMap, VecDeque};

use portolan_runtime::Backoff;
use portolan_wire::{Instance, Service, WatchEvent};
use tokio::time::sleep;

use super::{
    ServiceQuery,
    http::{Events, Http, Told},
};
use crate::feed::{PAUSE_FIRST, PAUSE_MAX};

/// One event. Of one service, it comes before its instances and goes after them.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A service is there.
    ServiceAdded(Service),
    /// It is otherwise than before.
    ServiceModified(Service),
    /// It is gone; this is how it was last.
    ServiceRemoved(Service),
    /// An instance is there.
    InstanceAdded(Instance),
    /// It is otherwise than before.
    InstanceModified(Instance),
    /// It is gone; this is how it was last.
    InstanceRemoved(Instance),
    /// Everything up to this version of the catalog has been told.
    Synced(String),
    /// The server cannot be followed, for this reason; what was told last stays.
    Lost(String),
}

/// An instance of a service.
type Key = (String, String, Option<u16>, String, Option<String>, Option<String>);

fn key(one: &Instance) -> Key {
    let of = |name: &str| one.metadata.get(name).cloned();
    let (group, version) = (of("group"), of("version"));
    (one.name.clone(), one.address.clone(), one.port, one.port_name.clone(), group, version)
}

/// What is known of a service.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    service: Service,
    instances: BTreeMap<Key, Instance>,
}

type State = BTreeMap<(String, String, String), Known>;

/// Events in order, without end. Made by [`Discovery::changes`](super::Discovery::changes).
pub struct Changes {
    http: Http,
    query: ServiceQuery,
    events: Option<Events>,
    state: State,
    /// The state that comes anew, until it is whole.
    anew: Option<State>,
    version: Option<String>,
    ready: VecDeque<Event>,
    backoff: Backoff,
    lost: bool,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("query", &self.query).finish_non_exhaustive()
    }
}

impl Changes {
    pub(super) fn new(http: Http, query: ServiceQuery) -> Self {
        Self {
            http,
            query,
            events: None,
            state: State::new(),
            anew: None,
            version: None,
            ready: VecDeque::new(),
            backoff: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
            lost: false,
        }
    }

    /// The next event. While the server cannot be reached this waits, after one [`Event::Lost`].
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            if let Err(why) = self.read().await {
                self.events = None;
                self.anew = None;
                let first = !self.lost;
                self.lost = true;
                if first {
                    return Event::Lost(why);
                }
                sleep(self.backoff.next_pause()).await;
            }
        }
    }

    /// Takes one event of the stream.
    async fn read(&mut self) -> Result<(), String> {
        let events = match &mut self.events {
            Some(events) => events,
            None => {
                let ServiceQuery { origin, namespace, labels } = &self.query;
                let given = [
                    ("origin", origin),
                    ("namespace", namespace),
                    ("labels", labels),
                    ("version", &self.version),
                ];
                let given =
                    given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
                let query = given.chain([("changes", "true")]);
                let events = self.http.watch(query).await.map_err(|failure| failure.detail)?;
                self.events.insert(events)
            }
        };
        match events.next().await {
            Ok(Some(Told::Event(event))) => self.take(*event),
            Ok(Some(Told::Alive)) => {}
            Ok(None) => return Err("the server ended the stream".to_owned()),
            Err(failure) => return Err(failure.detail),
        }
        Ok(())
    }

    fn take(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Reset { .. } => self.anew = Some(State::new()),
            WatchEvent::Upsert { service, instances, .. } => {
                let place =
                    (service.origin.clone(), service.namespace.clone(), service.name.clone());
                let instances = instances.into_iter().map(|one| (key(&one), one)).collect();
                let known = Known { service, instances };
                match &mut self.anew {
                    Some(anew) => drop(anew.insert(place, known)),
                    None => self.now(place, Some(known)),
                }
            }
            WatchEvent::Change { origin, namespace, name, put, gone, .. } => {
                let place = (origin, namespace, name);
                let Some(mut known) = self.state.get(&place).cloned() else { return };
                for one in &gone {
                    known.instances.remove(&key(one));
                }
                known.instances.extend(put.into_iter().map(|one| (key(&one), one)));
                self.now(place, Some(known));
            }
            WatchEvent::Remove { origin, namespace, name, .. } => {
                self.now((origin, namespace, name), None);
            }
            WatchEvent::Synced { version } => {
                if let Some(anew) = self.anew.take() {
                    let gone: Vec<_> = self
                        .state
                        .keys()
                        .filter(|place| !anew.contains_key(*place))
                        .cloned()
                        .collect();
                    for (place, known) in anew {
                        self.now(place, Some(known));
                    }
                    for place in gone {
                        self.now(place, None);
                    }
                }
                self.lost = false;
                self.backoff.reset();
                self.version = Some(version.clone());
                self.ready.push_back(Event::Synced(version));
            }
        }
    }

    /// A service is this from now on; `None`: it is gone.
    fn now(&mut self, place: (String, String, String), known: Option<Known>) {
        let before = match &known {
            Some(known) => self.state.insert(place, known.clone()),
            None => self.state.remove(&place),
        };
        let none = BTreeMap::new();
        let was = before.as_ref().map_or(&none, |before| &before.instances);
        let is = known.as_ref().map_or(&none, |known| &known.instances);
        match (&before, &known) {
            (None, Some(known)) => self.ready.push_back(Event::ServiceAdded(known.service.clone())),
            (Some(before), Some(known)) if before.service != known.service => {
                self.ready.push_back(Event::ServiceModified(known.service.clone()));
            }
            _ => {}
        }
        for (key, one) in is {
            match was.get(key) {
                None => self.ready.push_back(Event::InstanceAdded(one.clone())),
                Some(old) if old != one => {
                    self.ready.push_back(Event::InstanceModified(one.clone()));
                }
                Some(_) => {}
            }
        }
        let gone = was.iter().filter(|(key, _)| !is.contains_key(*key));
        self.ready.extend(gone.map(|(_, one)| Event::InstanceRemoved(one.clone())));
        if let (Some(before), None) = (before, known) {
            self.ready.push_back(Event::ServiceRemoved(before.service));
        }
    }
}
