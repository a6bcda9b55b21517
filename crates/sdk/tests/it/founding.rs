//! What the registry of dubbo-go did, as far as its 13 known defects need it: a model, so that
//! each test of `defects` can show that it fails where the defect is.
//!
//! It is made from what is known of `remoting/kubernetes` and `registry/kubernetes` of
//! dubbo-go 1.4 and 1.5, keeps what a defect comes from, and leaves out all else: no
//! connections, no goroutines. A record is the path that it has there as a key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use portolan_dialects::list;

/// `make(chan *WatcherEvent, 100)`.
const CHANNEL: usize = 100;

/// What its informer hands to the event handler. Which Pod it is about is not in it: nothing
/// there looked at that (6).
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// ADDED or MODIFIED: a Pod's records.
    Put(Vec<&'static str>),
    /// DELETED: its last records.
    Deleted(Vec<&'static str>),
    /// `DeletedFinalStateUnknown`: a deletion that was seen by listing only.
    Tombstone,
}

/// A consumer: its store, its watchers, and the providers that its directory holds.
#[derive(Debug, Default)]
pub(crate) struct Consumer {
    /// By path alone (6).
    pub(crate) store: BTreeSet<String>,
    /// Never taken out (3).
    watchers: Vec<VecDeque<String>>,
    /// What callers choose from.
    pub(crate) providers: BTreeSet<String>,
}

impl Consumer {
    /// `initWatchSet`: ranges over a map of namespaces that nobody has filled (1).
    pub(crate) fn init(&mut self, listed: &[Event]) {
        let namespaces: BTreeMap<&str, ()> = BTreeMap::new();
        for _ in namespaces.keys() {
            for event in listed {
                self.take(event).unwrap();
            }
        }
    }

    /// One turn of `ListenServiceNodeEventWithPrefix`: a watcher more (3).
    pub(crate) fn listen(&mut self) {
        self.watchers.push(VecDeque::new());
    }

    /// The event handler. `Err`: blocked for ever, with the lock of the store.
    pub(crate) fn take(&mut self, event: &Event) -> Result<(), &'static str> {
        match event {
            Event::Put(records) => {
                // What the Pod had before is not looked at (5), nor its status (11).
                for record in records {
                    if self.store.insert((*record).to_owned()) {
                        self.tell(record)?;
                        self.providers.insert((*record).to_owned());
                    }
                }
            }
            Event::Deleted(records) => {
                for record in records {
                    self.store.remove(*record);
                    // handleEvents logs a deletion and returns true (2).
                    self.tell(record)?;
                }
            }
            // `obj.(*v1.Pod)` fails, and that was it (4).
            Event::Tombstone => {}
        }
        Ok(())
    }

    fn tell(&mut self, record: &str) -> Result<(), &'static str> {
        for watcher in &mut self.watchers {
            if watcher.len() == CHANNEL {
                return Err("a full channel, under the lock of the store");
            }
            watcher.push_back(record.to_owned());
        }
        Ok(())
    }

    /// `go handle(event)` for each of a batch (7): any order may come out; here the last first.
    pub(crate) fn take_in_goroutines(&mut self, events: &[Event]) {
        for event in events.iter().rev() {
            self.take(event).unwrap();
        }
    }
}

/// Registers by appending to the text that was read (8).
pub(crate) fn append(annotation: &str, record: &str) -> String {
    let mut items =
        if annotation.is_empty() { Vec::new() } else { list::read(annotation).unwrap() };
    items.push(list::item(record.to_owned(), String::new()));
    list::write(&items)
}

/// `ValidateClient`: makes a client where there is none, or the one there is works (10).
pub(crate) fn makes_a_client(client: Option<bool>) -> bool {
    client.is_none_or(|is_valid| is_valid)
}
