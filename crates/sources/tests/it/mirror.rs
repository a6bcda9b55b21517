//! What a catalog would know from the reports: facts by source and key, with
//! the same rules for listings.

use std::{collections::BTreeMap, time::Duration};

use portolan_model::{Event, Fact, FactKey, SourceReport};
use tokio::{sync::mpsc, time::timeout};

/// Long enough for a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Mirror {
    receiver: mpsc::Receiver<Vec<SourceReport>>,
    facts: BTreeMap<(String, FactKey), (String, u64, Fact)>,
    listings: BTreeMap<(String, String), u64>,
    pub(crate) complete: BTreeMap<(String, String), u64>,
    pub(crate) lost: BTreeMap<(String, String), String>,
    /// Listings that were to change nothing.
    pub(crate) verified: usize,
    /// When the newest report was observed.
    pub(crate) observed_at_ms: u64,
}

impl Mirror {
    pub(crate) fn new() -> (mpsc::Sender<Vec<SourceReport>>, Self) {
        let (sender, receiver) = mpsc::channel(4);
        let mirror = Self {
            receiver,
            facts: BTreeMap::new(),
            listings: BTreeMap::new(),
            complete: BTreeMap::new(),
            lost: BTreeMap::new(),
            verified: 0,
            observed_at_ms: 0,
        };
        (sender, mirror)
    }

    /// Takes reports in until `done`.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let waited = timeout(DEADLINE, async {
            while !done(self) {
                let batch = self.receiver.recv().await.expect("the sources have ended");
                assert!(!batch.is_empty());
                batch.into_iter().for_each(|report| self.take(report));
            }
        });
        if waited.await.is_err() {
            panic!("never: {what}; have {:?}, lost {:?}", self.keys(), self.lost);
        }
    }

    /// Takes in what comes for a while.
    pub(crate) async fn take_for(&mut self, while_: Duration) {
        let taken = timeout(while_, async {
            while let Some(batch) = self.receiver.recv().await {
                batch.into_iter().for_each(|report| self.take(report));
            }
        });
        taken.await.ok();
    }

    fn take(&mut self, report: SourceReport) {
        let source = report.source.to_string();
        let part = (source.clone(), report.event.part().to_string());
        if !matches!(report.event, Event::Lost { .. }) {
            self.lost.remove(&part);
        }
        self.observed_at_ms = report.observed_at_ms;
        self.verified += usize::from(matches!(report.event, Event::Verify { .. }));
        match report.event {
            Event::Verify { .. } | Event::Begin { .. } => {
                *self.listings.entry(part).or_default() += 1
            }
            Event::Sighting { key, fact, .. } => {
                let listing = self.listings.get(&part).copied().unwrap_or_default();
                self.facts.insert((source, key), (part.1, listing, *fact));
            }
            Event::Gone { key, .. } => {
                self.facts.remove(&(source, key));
            }
            Event::Complete { .. } => {
                let listing = self.listings[&part];
                self.facts.retain(|(from, _), (of, seen, _)| {
                    (from, &*of) != (&part.0, &part.1) || *seen == listing
                });
                *self.complete.entry(part).or_default() += 1;
            }
            Event::Lost { error, .. } => {
                self.lost.insert(part, error.to_string());
            }
            Event::Alive { .. } => {}
        }
    }

    /// All keys, as short texts.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.facts
            .keys()
            .map(|(source, key)| match key {
                FactKey::Namespace(name) => format!("{source} namespace {name}"),
                FactKey::Node(name) => format!("{source} node {name}"),
                FactKey::Workload(name) => format!("{source} pod {name}"),
                FactKey::Service(key) => format!("{source} service {key}"),
                FactKey::EndpointSlice(_, name) => format!("{source} endpoints {name}"),
                FactKey::Rejection(kind, name) => format!("{source} rejected {kind} {name}"),
            })
            .collect()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys().iter().any(|known| known == key)
    }

    pub(crate) fn fact(&self, wanted: &FactKey) -> Option<&Fact> {
        self.facts.iter().find(|((_, key), _)| key == wanted).map(|(_, (_, _, fact))| fact)
    }
}
