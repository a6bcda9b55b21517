//! Watches: stored bytes as they come, one JSON document per line.
//!
//! A watch first replays what exists when it is asked to (no revision, `0`, or
//! `sendInitialEvents`), then follows the store from exactly there. With
//! selectors an object can enter and leave the view: entering shows as ADDED,
//! leaving as DELETED. A watcher that cannot keep up loses its place in the
//! store's window and ends with a 410 event; nothing is queued for it.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, stream};
use portolan_runtime::Shutdown;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    counts::Counts,
    filter::Filter,
    options::ListOptions,
    query::Query,
    respond::{self, Answer},
    table::Shape,
};
use crate::{
    Status,
    registry::{Registry, object},
    store::{Event, EventKind, Record, Watcher},
};

/// Bytes gathered before they are sent, when more is ready.
const PIECE_BYTES: usize = 64 << 10;
/// Time between bookmarks (cacher `bookmarkFrequency`).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A last bookmark comes this long before a watch ends by its timeout (cacher).
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch without timeout lasts between this and twice this (`--min-request-timeout`).
const WATCH_SECONDS_MIN: u64 = 1_800;
/// What such a mark says of the list (`metav1.InitialEventsListBlueprintAnnotationKey`).
const BLUEPRINT: &str = "kubernetes.io/initial-events-list-blueprint";
/// Marks the end of what existed before (`metav1.InitialEventsAnnotationKey`).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

struct Watch {
    watcher: Watcher,
    filter: Filter,
    shape: Shape,
    initial: VecDeque<Arc<Record>>,
    /// The bookmark that ends the replay is still owed.
    owes_end_mark: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    columns_sent: bool,
    /// Rings at the next bookmark, or at the end. Enrolled once, as is the next: a thousand
    /// watches that do so for every event wait for each other.
    alarm: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
    /// Events that are not counted yet.
    pushed: u64,
}

/// Answers a watch request.
pub(crate) fn answer(
    registry: &Registry,
    filter: Filter,
    shape: Shape,
    query: &Query,
    shutdown: Shutdown,
    counts: Arc<Counts>,
) -> Result<Answer, Status> {
    let options = ListOptions::read(query, true)?;
    // Here upstream lets the parser's error through as it is.
    let since = options.revision().map_err(Status::unforeseen)?;
    let (bookmarks, streaming) = (options.bookmarks, options.send_initial_events);
    let current = registry.store().revision();
    if streaming.is_some() && since > current {
        return Err(Status::revision_too_large(since, current));
    }
    let replays = streaming.unwrap_or(since == 0);
    let (from, initial) = if replays {
        let listing = registry
            .store()
            .list(filter.kind.resource, filter.scope(), None, None, None)
            .map_err(Status::internal)?;
        let shown = listing.items.into_iter().filter(|r| filter.shows(r));
        (listing.revision, shown.collect())
    } else if since == 0 {
        (current, VecDeque::new())
    } else {
        (since, VecDeque::new())
    };
    let content_type = "application/json";
    let watcher = match registry.store().watch(filter.kind.resource, from) {
        Ok(watcher) => watcher,
        // As upstream: once the request is understood, errors come as events.
        Err(compacted) => {
            let status = Status::expired(format!(
                "too old resource version: {} ({})",
                compacted.requested, compacted.oldest
            ));
            let line = error_line(&status);
            return Ok(respond::live(content_type, stream::once(async { Ok(line) })));
        }
    };
    let seconds = options
        .timeout_seconds
        .unwrap_or_else(|| WATCH_SECONDS_MIN + rand::rng().random_range(0..WATCH_SECONDS_MIN));
    let now = Instant::now();
    let ends = now + Duration::from_secs(seconds.min(2 * WATCH_SECONDS_MIN * 24));
    let next_bookmark = next_bookmark(now, ends);
    let watch = Watch {
        watcher,
        filter,
        shape,
        initial,
        owes_end_mark: streaming == Some(true) && bookmarks,
        bookmarks,
        next_bookmark,
        ends,
        columns_sent: false,
        alarm: Box::pin(tokio::time::sleep_until(alarm(bookmarks, next_bookmark, ends))),
        shutdown: Box::pin(shutdown.cancelled_owned()),
        over: false,
        pushed: 0,
    };
    let begun = (watch, counts);
    let lines = stream::unfold(begun, |(mut watch, counts)| async move {
        let piece = watch.next().await?;
        counts.watched(std::mem::take(&mut watch.pushed), piece.len());
        Some((Ok(piece), (watch, counts)))
    });
    Ok(respond::live(content_type, lines))
}

/// In a minute, or just before the end when that is sooner.
fn next_bookmark(now: Instant, ends: Instant) -> Instant {
    let last = ends.checked_sub(BOOKMARK_BEFORE_END).filter(|t| *t > now);
    last.map_or(now + BOOKMARK_EVERY, |last| last.min(now + BOOKMARK_EVERY))
}

/// When there is something to do without an event.
fn alarm(bookmarks: bool, next_bookmark: Instant, ends: Instant) -> Instant {
    if bookmarks { ends.min(next_bookmark) } else { ends }
}

fn error_line(status: &Status) -> Bytes {
    let mut line = json!({"type": "ERROR", "object": status.to_value()}).to_string();
    line.push('\n');
    Bytes::from(line)
}

impl Watch {
    /// The next piece of the stream; `None` when it is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        while let Some(record) = self.initial.pop_front() {
            self.push(&mut piece, "ADDED", &record);
            if piece.len() >= PIECE_BYTES {
                return Some(piece.freeze());
            }
        }
        if std::mem::take(&mut self.owes_end_mark) {
            self.push_bookmark(&mut piece, true);
        }
        if !piece.is_empty() {
            return Some(piece.freeze());
        }
        while !self.over {
            tokio::select! {
                biased;
                () = &mut self.shutdown => self.over = true,
                next = self.watcher.next() => self.take(&mut piece, next),
                () = &mut self.alarm => self.tick(&mut piece),
            }
            while !self.over && piece.len() < PIECE_BYTES {
                // Dropping the future loses nothing: the watcher only holds a position.
                match self.watcher.next().now_or_never() {
                    Some(next) => self.take(&mut piece, next),
                    None => break,
                }
            }
            if !piece.is_empty() {
                return Some(piece.freeze());
            }
        }
        None
    }

    fn take(
        &mut self,
        piece: &mut BytesMut,
        next: Option<Result<Arc<Event>, crate::store::Compacted>>,
    ) {
        match next {
            Some(Ok(event)) => self.show(piece, &event),
            Some(Err(compacted)) => {
                let text = format!(
                    "too old resource version: {} ({})",
                    compacted.requested, compacted.oldest
                );
                piece.put_slice(&error_line(&Status::expired(text)));
                self.over = true;
            }
            None => self.over = true,
        }
    }

    fn tick(&mut self, piece: &mut BytesMut) {
        let now = Instant::now();
        if now >= self.ends {
            self.over = true;
        } else {
            self.next_bookmark = next_bookmark(now, self.ends);
            let next = alarm(self.bookmarks, self.next_bookmark, self.ends);
            self.alarm.as_mut().reset(next);
            self.push_bookmark(piece, false);
        }
    }

    /// What an event means to this view.
    fn show(&mut self, piece: &mut BytesMut, event: &Event) {
        let is_shown = event.kind != EventKind::Deleted && self.filter.shows(&event.record);
        let was_shown = event.previous.as_ref().is_some_and(|p| self.filter.shows(p));
        match (was_shown, is_shown) {
            (false, true) => self.push(piece, "ADDED", &event.record),
            (true, true) => self.push(piece, "MODIFIED", &event.record),
            (true, false) if event.kind == EventKind::Deleted => {
                self.push(piece, "DELETED", &event.record);
            }
            // It left the view: shown as it last was in view, at the revision at which it left.
            (true, false) => {
                if let Some(previous) = &event.previous {
                    self.push_left(piece, previous, event.record.revision);
                }
            }
            (false, false) => {}
        }
    }

    fn push(&mut self, piece: &mut BytesMut, what: &str, record: &Record) {
        self.pushed += 1;
        if self.shape.is_plain() {
            push_line(piece, what, &record.bytes);
        } else if let Ok(object) = object::parse(record) {
            self.push_value(piece, what, &object);
        }
    }

    fn push_left(&mut self, piece: &mut BytesMut, previous: &Record, revision: u64) {
        self.pushed += 1;
        if let Ok(mut object) = object::parse(previous) {
            object::set_revision(&mut object, revision);
            self.push_value(piece, "DELETED", &object);
        }
    }

    fn push_value(&mut self, piece: &mut BytesMut, what: &str, object: &Value) {
        let with_columns = !std::mem::replace(&mut self.columns_sent, true);
        let shown = self.shape.one(object, with_columns);
        push_line(piece, what, shown.to_string().as_bytes());
    }

    /// The list that the events make up, empty: how clients learn its kind. Upstream's encoder
    /// ends documents with a line feed.
    fn blueprint(&self) -> String {
        let kind = self.filter.kind;
        let (list_kind, api_version) = match self.shape.is_plain() {
            true => (kind.list_kind, kind.api_version),
            false => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
        };
        format!(
            "{{\"kind\":\"{list_kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{}},\
             \"items\":null}}\n"
        )
    }

    fn push_bookmark(&mut self, piece: &mut BytesMut, end_of_initial: bool) {
        let mut metadata = json!({
            "resourceVersion": self.watcher.position().to_string(),
            "creationTimestamp": null,
        });
        if end_of_initial {
            metadata["annotations"] = json!({
                INITIAL_EVENTS_END: "true",
                BLUEPRINT: BASE64.encode(self.blueprint()),
            });
        }
        let kind = self.filter.kind;
        let object =
            json!({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata});
        if self.shape.is_plain() {
            push_line(piece, "BOOKMARK", object.to_string().as_bytes());
        } else {
            self.push_value(piece, "BOOKMARK", &object);
        }
    }
}

fn push_line(piece: &mut BytesMut, what: &str, object: &[u8]) {
    piece.reserve(object.len() + 40);
    piece.put_slice(b"{\"type\":\"");
    piece.put_slice(what.as_bytes());
    piece.put_slice(b"\",\"object\":");
    piece.put_slice(object);
    piece.put_slice(b"}\n");
}
