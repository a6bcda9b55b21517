//! `limit`: how much one client may ask.
//!
//! Each client has a bucket of queries that fills with time. What is over is refused
//! at once, so that a Pod that runs wild gets a clear error and the others their
//! answers. Clients are their addresses: behind a node-local cache they are one, for
//! which there is `except`.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Refused, Request, Stage, Step};
use crate::{config::LimitConfig, names::Names, wire::Rcode};

/// Clients that are counted. More than all Pods of most clusters; when it is full,
/// those that have been quiet make room, and if none has, newcomers are not limited.
const CLIENTS_MAX: usize = 65_536;

/// How often room is looked for in a full table. Looking for it at each newcomer would let a
/// flood of forged addresses cost a walk through the table per query.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    queries: f64,
    at: Instant,
}

#[derive(Debug, Default)]
struct Clients {
    buckets: HashMap<IpAddr, Bucket>,
    swept: Option<Instant>,
}

impl Clients {
    /// Whether there is room for one more. `is_quiet` tells who makes room.
    fn has_room(&mut self, now: Instant, is_quiet: impl Fn(&Bucket) -> bool) -> bool {
        let is_due = self.swept.is_none_or(|swept| now >= swept + SWEEP_PAUSE);
        if self.buckets.len() >= CLIENTS_MAX && is_due {
            self.swept = Some(now);
            self.buckets.retain(|_, bucket| !is_quiet(bucket));
        }
        self.buckets.len() < CLIENTS_MAX
    }
}

/// The stage.
#[derive(Debug)]
pub(crate) struct Limit {
    config: LimitConfig,
    clients: Mutex<Clients>,
}

impl Limit {
    pub(crate) fn new(config: &LimitConfig) -> Self {
        Self { config: config.clone(), clients: Mutex::default() }
    }

    /// Takes one query out of a client's bucket. False: there is none left.
    fn allows(&self, client: IpAddr, now: Instant) -> bool {
        let (rate, burst) =
            (f64::from(self.config.queries_per_second), f64::from(self.config.burst));
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.queries + since * rate).min(burst.max(1.0))
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if !clients.buckets.contains_key(&client)
            && !clients.has_room(now, |bucket| filled(bucket) >= burst)
        {
            return true;
        }
        let bucket =
            clients.buckets.entry(client).or_insert(Bucket { queries: burst.max(1.0), at: now });
        bucket.queries = filled(bucket);
        bucket.at = now;
        let allowed = bucket.queries >= 1.0;
        if allowed {
            bucket.queries -= 1.0;
        }
        allowed
    }
}

impl Stage for Limit {
    fn name(&self) -> &'static str {
        "limit"
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let client = request.client.to_canonical();
        if self.config.except.iter().any(|network| network.contains(client)) {
            return Step::Next("the client has no limit");
        }
        if self.allows(client, request.at) {
            return Step::Next("within the client's limit");
        }
        Step::Refuse(Refused {
            rcode: Rcode::Refused as u16,
            error: Some((0, "this client asks too much; ask again later".to_owned())),
            why: "the client asks too much",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills() {
        let config = LimitConfig { queries_per_second: 10, burst: 3, except: Vec::new() };
        let limit = Limit::new(&config);
        let (start, a, b) = (Instant::now(), [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let at = |ms| start + Duration::from_millis(ms);
        for (client, ms, expected) in [
            (a, 0, true),
            (a, 0, true),
            (a, 0, true),
            (a, 0, false),
            (b, 0, true),
            (a, 99, false),
            (a, 250, true),
            (a, 250, true),
            (a, 250, false),
            (a, 10_000, true),
            (a, 10_000, true),
            (a, 10_000, true),
            (a, 10_000, false),
        ] {
            assert_eq!(limit.allows(client, at(ms)), expected, "{client} at {ms}");
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let config = LimitConfig { queries_per_second: 1, burst: 1, except: Vec::new() };
        let limit = Limit::new(&config);
        let start = Instant::now();
        for number in 0..u32::try_from(2 * CLIENTS_MAX).unwrap() {
            assert!(limit.allows(std::net::Ipv4Addr::from(number).into(), start));
        }
        assert!(limit.clients.lock().unwrap().buckets.len() <= CLIENTS_MAX);
        // Room is made by those that were quiet.
        assert!(limit.allows([255, 0, 0, 1].into(), start + Duration::from_secs(5)));
        assert_eq!(limit.clients.lock().unwrap().buckets.len(), 1);
    }
}
