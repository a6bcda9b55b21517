//! List, then watch, then again: one kind of object followed for ever.
//!
//! ```text
//!   list --pages--> Begin, Sighting..., Complete
//!     |                 ^
//!     v                 | 410: the revision is gone
//!   watch --events--> Sighting | Gone | Alive
//!     |
//!     +-- ends --> watch again from the last revision
//!     |              now and then first: list that revision --> Verify, Sighting..., Complete
//!     +-- fails --> Lost, pause, watch again
//!
//!   nothing is listed yet, and will not be soon: the last listing of before, from a file
//! ```
//!
//! Reports map one to one to what the API said; nothing is cached here but the
//! keys under which unusual objects spoke.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use portolan_model::{Code, Event, FactKey, Name, ObjectName, Reason};
use portolan_runtime::{Backoff, Clock};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Speaker,
    api::{Failure, Resource, refusal},
    convert,
    kinds::{Context, Kind, Said, Voice},
    last_known::{Draft, LastKnown},
    objects::{EventKind, EventObject, Meta, MetaOnly, Page, PageMeta, Status},
};
use crate::{Reports, Sink, names::Names, report::Closed};

/// The first pause is short: most losses are restarts of the API server.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// client-go's reflector waits 30 s at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A watch that held this long was a good one, even if it brought nothing.
const WATCH_HELD: Duration = Duration::from_secs(5);

/// How long a first listing is waited for where there is one of before: half of what a
/// restart may cost. A server that is there has told of a small cluster by then; while it
/// tells of a large one, or says nothing, names are as they were.
const FIRST_LIST_WITHIN: Duration = Duration::from_millis(250);

/// What keeps a follower right in the long run.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// Where listings are kept for the next start.
    pub(super) last_known: Option<LastKnown>,
    /// How often what was said is verified.
    pub(super) verify_every: Duration,
}

/// Follows one kind.
pub(super) struct Reflector<K> {
    resource: Resource,
    context: Context,
    speakers: Vec<Speaker>,
    sink: Sink,
    clock: Arc<dyn Clock>,
    names: Names,
    /// Under which keys an object spoke, where that is not its primary alone.
    unusual: HashMap<ObjectName, Vec<(Voice, FactKey)>>,
    lost: bool,
    upkeep: Upkeep,
    /// Whether anything was listed, or told of before.
    spoken: bool,
    /// When that was listed which was told of before, while nothing newer is known.
    recalled_at_ms: Option<u64>,
    verified: Instant,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// Why a step ended.
enum Stop {
    Api(Failure),
    /// Nobody listens any more.
    Closed,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Api(failure)
    }
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

/// An object, or as much of it as could be read.
enum Read<K> {
    Whole(K),
    Broken(Meta, String),
}

/// Everything, as it was told.
struct Listing {
    revision: Name,
    draft: Option<Draft>,
}

impl Listing {
    /// Keeps it for the next start, where that is wanted. Gives its revision.
    async fn keep(self) -> Name {
        if let Some(draft) = self.draft {
            draft.finish(&self.revision).await;
        }
        self.revision
    }
}

impl<K: Kind> Reflector<K> {
    pub(super) fn new(
        resource: Resource,
        context: Context,
        speakers: Vec<Speaker>,
        sink: Sink,
        clock: Arc<dyn Clock>,
        upkeep: Upkeep,
    ) -> Self {
        Self {
            resource,
            context,
            speakers,
            sink,
            clock,
            names: Names::default(),
            unusual: HashMap::new(),
            lost: false,
            upkeep,
            spoken: false,
            recalled_at_ms: None,
            verified: Instant::now(),
            kind: std::marker::PhantomData,
        }
    }

    /// Runs until nobody listens any more.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        loop {
            match self.first_or_next_list().await {
                Ok(revision) => {
                    if self.follow(revision, &mut backoff).await.is_err() {
                        return;
                    }
                }
                Err(Stop::Api(failure)) => {
                    if self.lose(&failure).await.is_err() {
                        return;
                    }
                    sleep(backoff.next_pause()).await;
                }
                Err(Stop::Closed) => return,
            }
        }
    }

    /// Lists. What was listed in an earlier life is told where that does not succeed at
    /// once.
    async fn first_or_next_list(&mut self) -> Result<Name, Stop> {
        if self.spoken || self.upkeep.last_known.is_none() {
            return self.list(None).await;
        }
        let Ok(told) = timeout(FIRST_LIST_WITHIN, self.tell(None)).await else {
            let late = Failure::Other("the API has not told everything yet".to_owned());
            self.recall(late.text()).await?;
            self.lose(&late).await?;
            return self.list(None).await;
        };
        match told {
            Ok(listing) => Ok(listing.keep().await),
            Err(Stop::Api(failure)) => {
                self.recall(failure.text()).await?;
                Err(Stop::Api(failure))
            }
            Err(Stop::Closed) => Err(Stop::Closed),
        }
    }

    /// Tells what was listed in an earlier life, if anything was.
    async fn recall(&mut self, why: &str) -> Result<(), Closed> {
        self.spoken = true;
        let Some(file) = &self.upkeep.last_known else { return Ok(()) };
        let Some(kept) = file.read::<K>().await else { return Ok(()) };
        let age_s = self.clock.unix_ms().saturating_sub(kept.at_ms) / 1000;
        warn!(kind = K::KIND, age_s, why, "telling what the API had before");
        let revision = portolan_model::name(&kept.revision);
        let mut reports = Reports::at(kept.at_ms);
        self.say_all(&mut reports, &revision, |part| Event::Begin { part });
        for item in kept.items {
            self.change(&Read::Whole(item), &mut reports);
        }
        self.say_all(&mut reports, &revision, |part| Event::Complete { part });
        self.recalled_at_ms = Some(kept.at_ms);
        reports.send(&self.sink).await
    }

    /// Watches from a revision on, until it has to be listed anew.
    async fn follow(&mut self, mut revision: Name, backoff: &mut Backoff) -> Result<(), Closed> {
        loop {
            let began = Instant::now();
            let outcome = self.watch(&mut revision).await;
            if matches!(outcome, Ok(true)) || began.elapsed() >= WATCH_HELD {
                backoff.reset();
            }
            match outcome {
                Ok(true) => self.verify(&revision).await?,
                // Ended at once and without a word: do not spin.
                Ok(false) => {
                    self.verify(&revision).await?;
                    sleep(backoff.next_pause()).await;
                }
                Err(Stop::Closed) => return Err(Closed),
                Err(Stop::Api(Failure::Expired(text))) => {
                    debug!(kind = K::KIND, text, "the revision is gone; listing anew");
                    // At once the first time; a server that expires every
                    // revision must not be listed in a circle.
                    let again = backoff.failures() > 0;
                    let pause = backoff.next_pause();
                    if again {
                        sleep(pause).await;
                    }
                    return Ok(());
                }
                Err(Stop::Api(failure)) => {
                    self.lose(&failure).await?;
                    sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// Compares what was said with what the API held at the same revision, when it is time.
    /// Where that revision is gone or nobody answers, the next watch will tell.
    async fn verify(&mut self, revision: &Name) -> Result<(), Closed> {
        if self.lost || self.verified.elapsed() < self.upkeep.verify_every {
            return Ok(());
        }
        match self.list(Some(revision)).await {
            Ok(_) => Ok(()),
            Err(Stop::Closed) => Err(Closed),
            Err(Stop::Api(failure)) => {
                debug!(kind = K::KIND, error = failure.text(), "not verified");
                Ok(())
            }
        }
    }

    /// Lists everything, of one revision or of the newest, and keeps it for the next start.
    /// Gives the revision to watch from.
    async fn list(&mut self, exact: Option<&Name>) -> Result<Name, Stop> {
        Ok(self.tell(exact).await?.keep().await)
    }

    /// Tells everything, of one revision or of the newest, one batch per page.
    async fn tell(&mut self, exact: Option<&Name>) -> Result<Listing, Stop> {
        let at_ms = self.clock.unix_ms();
        let mut draft = self.upkeep.last_known.as_ref().map(|file| file.draft::<K>(at_ms));
        let mut next = String::new();
        let mut first: Option<Name> = None;
        let mut unusual = HashMap::new();
        loop {
            let bytes = self.resource.page(&next, exact.map(|revision| &**revision)).await?;
            let (meta, items) = parse_page::<K>(&bytes).map_err(Failure::Other)?;
            drop(bytes);
            let mut reports = Reports::now(&self.clock);
            // The first page's revision is where the watch begins. Pages are of
            // one revision as long as the server keeps it; where it does not,
            // a later page's would skip what changed behind the first.
            let begun = first.is_some();
            let revision =
                first.get_or_insert_with(|| portolan_model::name(&meta.resource_version)).clone();
            if !begun {
                self.say_all(&mut reports, &revision, |part| match exact {
                    Some(_) => Event::Verify { part },
                    None => Event::Begin { part },
                });
            }
            if let Some(draft) = &mut draft {
                draft.add(items.iter().filter_map(Read::whole)).await;
            }
            for item in &items {
                let (object, said) = self.convert(item);
                let keys: Vec<_> =
                    said.iter().map(|(voice, key, _)| (*voice, key.clone())).collect();
                if !is_usual::<K>(&object, &keys) {
                    unusual.insert(object, keys);
                }
                self.say(&mut reports, item, said);
            }
            next = meta.next;
            if next.is_empty() {
                self.say_all(&mut reports, &revision, |part| Event::Complete { part });
                reports.send(&self.sink).await?;
                self.unusual = unusual;
                self.found();
                (self.spoken, self.verified) = (true, Instant::now());
                return Ok(Listing { revision, draft });
            }
            reports.send(&self.sink).await?;
        }
    }

    /// Watches until the watch ends. Tells whether it brought anything.
    async fn watch(&mut self, revision: &mut Name) -> Result<bool, Stop> {
        let mut lines = self.resource.watch(revision).await?;
        let was_lost = self.lost;
        self.found();
        if was_lost {
            let mut reports = Reports::now(&self.clock);
            self.say_all(&mut reports, revision, |part| Event::Alive { part });
            reports.send(&self.sink).await?;
        }
        let mut brought = false;
        while let Some(batch) = lines.next().await? {
            let mut reports = Reports::now(&self.clock);
            let mut outcome = Ok(());
            for line in &batch {
                outcome = self.take(line, revision, &mut reports);
                if outcome.is_err() {
                    break;
                }
                brought = true;
            }
            // What came before the error still counts.
            reports.send(&self.sink).await?;
            outcome?;
        }
        Ok(brought)
    }

    /// Takes one event of a watch.
    fn take(
        &mut self,
        line: &Bytes,
        revision: &mut Name,
        reports: &mut Reports,
    ) -> Result<(), Failure> {
        let broken = |error: serde_json::Error| Failure::Other(format!("event: {error}"));
        let event: EventKind = serde_json::from_slice(line).map_err(broken)?;
        if event.kind == "ERROR" {
            let status: EventObject<Status> = serde_json::from_slice(line).map_err(broken)?;
            return Err(refusal(&status.object));
        }
        if event.kind == "BOOKMARK" {
            let mark: EventObject<MetaOnly> = serde_json::from_slice(line).map_err(broken)?;
            *revision = portolan_model::name(&mark.object.metadata.resource_version);
            self.say_all(reports, revision, |part| Event::Alive { part });
            return Ok(());
        }
        let item = match serde_json::from_slice::<EventObject<K>>(line) {
            Ok(whole) => Read::Whole(whole.object),
            Err(error) => {
                let rest: EventObject<MetaOnly> = serde_json::from_slice(line).map_err(broken)?;
                Read::Broken(rest.object.metadata, error.to_string())
            }
        };
        *revision = portolan_model::name(&item.meta().resource_version);
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => self.change(&item, reports),
            "DELETED" => self.delete(&item, reports),
            other => return Err(Failure::Other(format!("unknown event {other:?}"))),
        }
        Ok(())
    }

    fn change(&mut self, item: &Read<K>, reports: &mut Reports) {
        let (object, said) = self.convert(item);
        let keys: Vec<_> = said.iter().map(|(voice, key, _)| (*voice, key.clone())).collect();
        let before = if is_usual::<K>(&object, &keys) {
            self.unusual.remove(&object)
        } else {
            self.unusual.insert(object.clone(), keys.clone())
        };
        let before = before.unwrap_or_else(|| vec![(Voice::Objects, K::primary(&object))]);
        // What the object no longer says is gone; gone first, so that a claim
        // never stands beside its own withdrawal.
        let revision = portolan_model::name(&item.meta().resource_version);
        for (voice, key) in before.into_iter().filter(|said| !keys.contains(said)) {
            self.say_gone(reports, &revision, voice, key);
        }
        self.say(reports, item, said);
    }

    fn delete(&mut self, item: &Read<K>, reports: &mut Reports) {
        let object = self.object_name(item.meta());
        let keys = self.unusual.remove(&object);
        let revision = portolan_model::name(&item.meta().resource_version);
        for (voice, key) in keys.unwrap_or_else(|| vec![(Voice::Objects, K::primary(&object))]) {
            self.say_gone(reports, &revision, voice, key);
        }
    }

    fn convert(&mut self, item: &Read<K>) -> (ObjectName, Vec<Said>) {
        let object = self.object_name(item.meta());
        let said = match item {
            Read::Whole(whole) => whole.convert(&self.context, &mut self.names),
            Read::Broken(_, error) => {
                let reason = Reason::new(Code::OBJECT_UNREADABLE, error);
                convert::rejection(K::KIND, object.clone(), vec![reason])
                    .into_iter()
                    .map(|(key, fact)| (Voice::Objects, key, fact))
                    .collect()
            }
        };
        (object, said)
    }

    fn object_name(&mut self, meta: &Meta) -> ObjectName {
        self.names.object(&meta.namespace, &meta.name)
    }

    fn speaker(&self, voice: Voice) -> Option<&Speaker> {
        self.speakers.iter().find(|speaker| speaker.voice == voice)
    }

    fn say(&self, reports: &mut Reports, item: &Read<K>, said: Vec<Said>) {
        let revision = portolan_model::name(&item.meta().resource_version);
        for (voice, key, fact) in said {
            // A voice that was not asked for has nothing to say.
            let Some(speaker) = self.speaker(voice) else { continue };
            let event = Event::Sighting { part: speaker.part.clone(), key, fact: Box::new(fact) };
            reports.push(&speaker.source, &revision, event);
        }
    }

    fn say_gone(&self, reports: &mut Reports, revision: &Name, voice: Voice, key: FactKey) {
        let Some(speaker) = self.speaker(voice) else { return };
        let event = Event::Gone { part: speaker.part.clone(), key };
        reports.push(&speaker.source, revision, event);
    }

    fn say_all(&self, reports: &mut Reports, revision: &Name, event: impl Fn(Name) -> Event) {
        for speaker in &self.speakers {
            reports.push(&speaker.source, revision, event(speaker.part.clone()));
        }
    }

    async fn lose(&mut self, failure: &Failure) -> Result<(), Closed> {
        if self.lost {
            debug!(kind = K::KIND, error = failure.text(), "still lost");
        } else {
            warn!(kind = K::KIND, error = failure.text(), "lost; the last good state stays");
        }
        self.lost = true;
        let error = portolan_model::name(failure.text());
        // What is told from before is as old as its listing.
        let since_ms = self.recalled_at_ms.unwrap_or_else(|| self.clock.unix_ms());
        let mut reports = Reports::at(since_ms);
        self.say_all(&mut reports, &portolan_model::name(""), |part| Event::Lost {
            part,
            error: error.clone(),
        });
        reports.send(&self.sink).await
    }

    fn found(&mut self) {
        self.recalled_at_ms = None;
        if std::mem::take(&mut self.lost) {
            info!(kind = K::KIND, "connected again");
        }
    }
}

impl<K: Kind> Read<K> {
    fn whole(&self) -> Option<&K> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Broken(..) => None,
        }
    }

    fn meta(&self) -> &Meta {
        match self {
            Self::Whole(whole) => whole.meta(),
            Self::Broken(meta, _) => meta,
        }
    }
}

fn is_usual<K: Kind>(object: &ObjectName, keys: &[(Voice, FactKey)]) -> bool {
    matches!(keys, [(Voice::Objects, key)] if *key == K::primary(object))
}

/// Reads a page; where it does not parse whole, object by object.
fn parse_page<K: Kind>(bytes: &Bytes) -> Result<(PageMeta, Vec<Read<K>>), String> {
    let broken = match serde_json::from_slice::<Page<K>>(bytes) {
        Ok(page) => {
            return Ok((page.metadata, page.items.into_iter().map(Read::Whole).collect()));
        }
        Err(error) => error,
    };
    debug!(kind = K::KIND, error = %broken, "a page does not parse whole; object by object");
    let page: Page<Value> =
        serde_json::from_slice(bytes).map_err(|error| format!("list: {error}"))?;
    let items = page.items.into_iter().map(|item| {
        let meta = item.get("metadata").cloned().unwrap_or_default();
        match serde_json::from_value(item) {
            Ok(whole) => Read::Whole(whole),
            Err(error) => {
                Read::Broken(serde_json::from_value(meta).unwrap_or_default(), error.to_string())
            }
        }
    });
    Ok((page.metadata, items.collect()))
}
