//! List, then watch, then again: the Pods of the namespace followed for ever.
//!
//! ```text
//!   list ── whole ──▶ Directory::complete        (what it lacks is gone)
//!     |                  ^
//!     v                  | 410: the revision is gone; meanwhile all stays
//!   watch ── events ──▶ Directory::apply, alive
//!     |
//!     +── ends ──▶ watch again from the last revision
//!     +── fails ──▶ Directory::lose, pause, watch again
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use portolan_runtime::Backoff;
use tokio::time::{Instant, sleep};

use super::api::{Event, Failure, Pods, parse_event};
use crate::{
    cache::Changed,
    directory::{Directory, End},
    feed::{PAUSE_FIRST, PAUSE_MAX},
};

/// A watch that held this long was a good one, even if it brought nothing.
const WATCH_HELD: Duration = Duration::from_secs(5);

/// Follows the Pods until the task is aborted.
pub(super) async fn follow(pods: Pods, directory: Arc<Directory>) {
    let end = End(directory);
    let directory = &*end.0;
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    loop {
        match pods.list().await {
            Ok((revision, all)) => {
                directory.complete(|cache| cache.replace(&all));
                drop(all);
                follow_from(&pods, directory, revision, &mut backoff).await;
            }
            Err(failure) => {
                lose(directory, &failure);
                sleep(backoff.next_pause()).await;
            }
        }
    }
}

/// Watches from a revision on, until all has to be listed anew.
async fn follow_from(
    pods: &Pods,
    directory: &Directory,
    mut revision: String,
    backoff: &mut Backoff,
) {
    loop {
        let began = Instant::now();
        let outcome = watch(pods, directory, &mut revision).await;
        if matches!(outcome, Ok(true)) || began.elapsed() >= WATCH_HELD {
            backoff.reset();
        }
        match outcome {
            Ok(true) => {}
            // Ended at once and without a word: do not spin.
            Ok(false) => sleep(backoff.next_pause()).await,
            Err(failure) if failure.is_expired() => {
                tracing::debug!(?failure, "the revision is gone; listing anew");
                // At once the first time; an API that expires every revision
                // must not be listed in a circle.
                let again = backoff.failures() > 0;
                let pause = backoff.next_pause();
                if again {
                    sleep(pause).await;
                }
                return;
            }
            Err(failure) => {
                lose(directory, &failure);
                sleep(backoff.next_pause()).await;
            }
        }
    }
}

/// Watches until the watch ends. Tells whether it brought anything.
async fn watch(pods: &Pods, directory: &Directory, revision: &mut String) -> Result<bool, Failure> {
    let mut lines = pods.watch(revision).await?;
    directory.alive();
    let mut brought = false;
    while let Some(batch) = lines.next().await? {
        // What came before an error still counts.
        take(&batch, directory, revision)?;
        brought = true;
    }
    Ok(brought)
}

/// Takes what has arrived together as one change.
fn take(batch: &[Bytes], directory: &Directory, revision: &mut String) -> Result<(), Failure> {
    let mut outcome = Ok(());
    directory.apply(|cache| {
        let mut changed = Changed::new();
        for line in batch {
            match parse_event(line) {
                Ok((at, event)) => {
                    *revision = at;
                    changed.extend(match event {
                        Event::Put(pod) => cache.put(&pod),
                        Event::Gone(pod) => cache.remove(&pod),
                        Event::Bookmark => Changed::new(),
                    });
                }
                Err(failure) => {
                    outcome = Err(failure);
                    break;
                }
            }
        }
        changed
    });
    outcome
}

fn lose(directory: &Directory, failure: &Failure) {
    tracing::debug!(?failure, "the API cannot be followed; the last good state stays");
    directory.lose(&failure.told());
}
