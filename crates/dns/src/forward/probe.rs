//! Finding upstreams that lead back to us.
//!
//! Now and then each upstream is asked for a name that nobody else knows (as
//! CoreDNS' `loop` does once, at its start). When that question arrives here, the
//! server it was sent to is one of a circle; it is not asked any more until a
//! later probe stays away. The process never ends for it. Until a probe has told,
//! a circle costs little: a question that comes back joins its own flight.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, Weak},
    time::Duration,
};

use domain::base::iana::Rtype;
use portolan_runtime::Shutdown;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Ask, Shared, exchange::exchange};
use crate::name::{DnsName, parse, text};

/// Between two rounds: how long a circle that comes about goes unnoticed.
const ROUND: Duration = Duration::from_secs(60);

/// How long a probe has to come back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a probe went: group and place in it.
type Server = (usize, usize);

/// Probes that are out.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    out: Mutex<HashMap<String, (Server, bool)>>,
}

impl Probes {
    /// Whether a name is that of a probe. If so, its server is not asked again.
    pub(crate) fn came_back(&self, name: &DnsName, shared: &Shared) -> bool {
        // Two labels of 16 digits: nothing else needs the lock.
        if name.len() != 35 {
            return false;
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((server, seen)) = out.get_mut(&text(name).to_ascii_lowercase()) else {
            return false;
        };
        *seen = true;
        mark(shared, *server, true);
        true
    }
}

/// Probes all upstreams until shutdown, or until nobody asks them any more.
pub(crate) async fn run(shared: Weak<Shared>, shutdown: Shutdown) {
    loop {
        let Some(asked) = shared.upgrade() else { return };
        tokio::select! {
            () = round(&asked) => {}
            () = shutdown.cancelled() => return,
        }
        drop(asked);
        tokio::select! {
            () = sleep(ROUND) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn round(shared: &Shared) {
    for (group, upstreams) in shared.groups.iter().enumerate() {
        for (place, upstream) in upstreams.list.iter().enumerate() {
            let label = |random: u64| format!("{random:016x}");
            let name = format!("{}.{}.", label(rand::random()), label(rand::random()));
            let Some(parsed) = parse(&name) else { continue };
            let ask = Ask {
                name: parsed,
                kind: Rtype::HINFO,
                dnssec_ok: false,
                checking_disabled: false,
            };
            let lock = || shared.probes.out.lock().unwrap_or_else(PoisonError::into_inner);
            lock().insert(name.clone(), ((group, place), false));
            let answered = timeout(PATIENCE, exchange(upstream, &ask)).await.is_ok();
            let seen = lock().remove(&name).is_some_and(|(_, seen)| seen);
            // A server that says nothing proves nothing.
            if answered && !seen {
                mark(shared, (group, place), false);
            }
        }
    }
}

fn mark(shared: &Shared, (group, place): Server, loops: bool) {
    let Some(upstream) = shared.groups.get(group).and_then(|group| group.list.get(place)) else {
        return;
    };
    let before = upstream.set_loops(loops);
    shared.metrics.looping(upstream.address, loops);
    match (before, loops) {
        (false, true) => warn!(
            upstream = %upstream.address,
            "what is sent to this upstream comes back to us; it is not asked until that ends"
        ),
        (true, false) => info!(upstream = %upstream.address, "this upstream is asked again"),
        _ => {}
    }
}
