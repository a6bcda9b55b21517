//! Who asks, how much, and how much of it in vain: accounting by client.
//!
//! ```text
//!   worker --1 query of 16--> Sample --by the batch--> Askers --loudest first--> people
//!   general path ------------every query--------------^
//! ```
//!
//! Workers count a sample, so that a query that is answered from compiled names takes no
//! lock and allocates nothing; what is shown of them is an estimate. Clients are their
//! addresses; whoever shows them knows whose those are.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use portolan_model::Asker;

use crate::wire::Rcode;

/// Clients that are told apart in one window; the rest is counted together. More than the
/// Pods that one server usually answers for, and 250 KiB.
const CLIENTS_MAX: usize = 4_096;

/// How long is counted together. Shown is the window before, and what there is of this one.
const WINDOW: Duration = Duration::from_secs(60);

/// Of so many queries one is counted, so many times.
const SAMPLE_OF: usize = 16;

/// Queries that a worker gathers before it hands them over.
const BATCH: usize = 64;

/// How long a worker that is asked little gathers them, at most.
const BATCH_FOR: Duration = Duration::from_secs(1);

/// What one client has asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) queries: u64,
    /// NXDOMAIN.
    pub(crate) denied: u64,
    /// SERVFAIL and REFUSED.
    pub(crate) failed: u64,
}

impl Counts {
    fn add(&mut self, rcode: &str, times: u64) {
        self.queries += times;
        if rcode == Rcode::NxDomain.as_str() {
            self.denied += times;
        } else if rcode == Rcode::ServFail.as_str() || rcode == Rcode::Refused.as_str() {
            self.failed += times;
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            queries: self.queries + other.queries,
            denied: self.denied + other.denied,
            failed: self.failed + other.failed,
        }
    }
}

#[derive(Debug, Default)]
struct Window {
    clients: HashMap<IpAddr, Counts>,
    others: Counts,
}

impl Window {
    fn add(&mut self, client: IpAddr, rcode: &str, times: u64) {
        let full = self.clients.len() >= CLIENTS_MAX;
        let counts = match self.clients.get_mut(&client) {
            Some(counts) => counts,
            None if full => &mut self.others,
            None => self.clients.entry(client).or_default(),
        };
        counts.add(rcode, times);
    }
}

#[derive(Debug)]
struct Windows {
    began: Instant,
    now: Window,
    /// The window before; `None`: there is none yet, or nobody asked in it.
    before: Option<Window>,
}

impl Windows {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age < WINDOW {
            return;
        }
        let last = std::mem::take(&mut self.now);
        // After a longer silence nothing of it was in the window before.
        self.before = (age < 2 * WINDOW).then_some(last);
        self.began = now;
    }
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Askers {
    windows: Mutex<Windows>,
}

impl Default for Askers {
    fn default() -> Self {
        Self::since(Instant::now())
    }
}

impl Askers {
    fn since(began: Instant) -> Self {
        let (now, before) = (Window::default(), None);
        Self { windows: Mutex::new(Windows { began, now, before }) }
    }

    /// Counts one query with its result code.
    pub(crate) fn note(&self, client: IpAddr, rcode: &str) {
        self.add(Instant::now(), [(client, rcode)], 1);
    }

    fn add<'r>(
        &self,
        now: Instant,
        noted: impl IntoIterator<Item = (IpAddr, &'r str)>,
        times: u64,
    ) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(now);
        for (client, rcode) in noted {
            windows.now.add(client.to_canonical(), rcode, times);
        }
    }

    /// Those who ask most, the loudest first.
    pub(crate) fn loudest(&self, now: Instant, count: usize) -> Vec<Asker> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(now);
        let mut sums: HashMap<Option<IpAddr>, Counts> = HashMap::new();
        for window in [Some(&windows.now), windows.before.as_ref()].into_iter().flatten() {
            let clients = window.clients.iter().map(|(client, counts)| (Some(*client), *counts));
            for (client, counts) in clients.chain([(None, window.others)]) {
                let sum = sums.entry(client).or_default();
                *sum = sum.plus(counts);
            }
        }
        let earlier = windows.before.as_ref().map_or(Duration::ZERO, |_| WINDOW);
        let seconds = (now.saturating_duration_since(windows.began) + earlier).as_secs_f64();
        drop(windows);
        let mut askers: Vec<(Option<IpAddr>, Counts)> =
            sums.into_iter().filter(|(_, counts)| counts.queries > 0).collect();
        askers.sort_by_key(|(client, counts)| (std::cmp::Reverse(counts.queries), *client));
        askers.truncate(count);
        let part = |some: u64, all: u64| some as f64 / all.max(1) as f64;
        let shown = askers.into_iter().map(|(client, counts)| Asker {
            client,
            // A rate over less than a second says little.
            queries_per_second: counts.queries as f64 / seconds.max(1.0),
            denied: part(counts.denied, counts.queries),
            failed: part(counts.failed, counts.queries),
        });
        shown.collect()
    }
}

/// What one worker has sampled.
#[derive(Debug)]
pub(crate) struct Sample {
    noted: Vec<(IpAddr, Rcode)>,
    since: Instant,
}

impl Default for Sample {
    fn default() -> Self {
        Self { noted: Vec::with_capacity(BATCH), since: Instant::now() }
    }
}

impl Sample {
    /// Notes one query of some. `random`: whether it is this one.
    pub(crate) fn note(&mut self, random: usize, client: impl FnOnce() -> IpAddr, rcode: Rcode) {
        if random.is_multiple_of(SAMPLE_OF) && self.noted.len() < BATCH {
            self.noted.push((client(), rcode));
        }
    }

    /// Hands over what was noted, if it is time.
    pub(crate) fn flush(&mut self, askers: &Askers, now: Instant) {
        let is_due = now.saturating_duration_since(self.since) >= BATCH_FOR;
        if is_due || self.noted.len() >= BATCH / 2 {
            self.hand_over(askers, now);
        }
    }

    /// Hands over what was noted.
    pub(crate) fn hand_over(&mut self, askers: &Askers, now: Instant) {
        self.since = now;
        if self.noted.is_empty() {
            return;
        }
        let noted = self.noted.iter().map(|(client, rcode)| (*client, rcode.as_str()));
        askers.add(now, noted, SAMPLE_OF as u64);
        self.noted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn shown(askers: &Askers, now: Instant) -> Vec<(u8, f64, f64, f64)> {
        let last = |client: Option<IpAddr>| match client {
            Some(IpAddr::V4(client)) => client.octets()[3],
            _ => 0,
        };
        let loudest = askers.loudest(now, 10).into_iter();
        loudest.map(|a| (last(a.client), a.queries_per_second, a.denied, a.failed)).collect()
    }

    #[test]
    fn the_loudest_come_first_with_what_they_asked_in_vain() {
        let start = Instant::now();
        let askers = Askers::since(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        for number in 0..100 {
            let rcode = if number < 75 { "NXDOMAIN" } else { "NOERROR" };
            askers.add(start, [(client(1), rcode)], 4);
        }
        askers.add(start, [(client(2), "SERVFAIL"), (client(2), "REFUSED")], 5);
        // One Pod, however its address is written.
        askers.add(start, [("::ffff:10.0.0.2".parse().unwrap(), "NOERROR")], 10);
        assert_eq!(shown(&askers, after(10)), [(1, 40.0, 0.75, 0.0), (2, 2.0, 0.0, 0.5)]);
        // The window before counts, the one before that does not.
        assert_eq!(shown(&askers, after(60))[0].1, 400.0 / 60.0);
        assert_eq!(shown(&askers, after(100))[0].1, 4.0);
        assert_eq!(shown(&askers, after(120)), []);
        askers.add(after(130), [(client(3), "NOERROR")], 1);
        assert_eq!(shown(&askers, after(400)), []);
    }

    #[test]
    fn the_table_is_bounded_and_nothing_is_lost() {
        let now = Instant::now();
        let askers = Askers::since(now);
        for number in 0..CLIENTS_MAX as u32 + 10 {
            askers.add(now, [(IpAddr::V4((0x0a00_0000 + number).into()), "NXDOMAIN")], 1);
        }
        let all = askers.loudest(now + Duration::from_secs(1), usize::MAX);
        assert_eq!(all.len(), CLIENTS_MAX + 1);
        assert_eq!((all[0].client, all[0].queries_per_second), (None, 10.0));
    }

    #[test]
    fn a_sample_stands_for_all() {
        let start = Instant::now();
        let (askers, mut sample) = (Askers::since(start), Sample::default());
        for number in 0..16 * 512 {
            sample.note(number, || client(1), Rcode::NxDomain);
            sample.flush(&askers, start);
        }
        sample.note(0, || client(1), Rcode::NxDomain);
        sample.flush(&askers, start);
        let second = start + Duration::from_secs(1);
        assert_eq!(shown(&askers, second), [(1, 8192.0, 1.0, 0.0)]);
        // Little is handed over, too, in the end.
        sample.flush(&askers, start + BATCH_FOR);
        assert_eq!(shown(&askers, second)[0].1, 8208.0);
    }
}
