//! What the server has done since its start, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Verbs of requests for objects, as upstream names them in `apiserver_request_total`.
pub(crate) const VERBS: [&str; 7] = ["GET", "LIST", "WATCH", "POST", "PUT", "PATCH", "DELETE"];

/// Counters. They are read while they grow, so their sums may be a moment apart.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: [AtomicU64; VERBS.len()],
    watch_events: AtomicU64,
    watch_bytes: AtomicU64,
}

impl Counts {
    /// A request for objects has come.
    pub(crate) fn request(&self, verb: &str) {
        let mut counters = VERBS.iter().zip(&self.requests);
        if let Some((_, counter)) = counters.find(|(one, _)| **one == verb) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// A watcher gets a piece with so many events.
    pub(crate) fn watched(&self, events: u64, bytes: usize) {
        self.watch_events.fetch_add(events, Relaxed);
        self.watch_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
    }

    /// In the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("# TYPE apiserver_request_total counter\n");
        for (verb, counter) in VERBS.iter().zip(&self.requests) {
            let count = counter.load(Relaxed);
            text.push_str(&format!("apiserver_request_total{{verb=\"{verb}\"}} {count}\n"));
        }
        for (name, counter) in [
            ("apiserver_watch_events_total", &self.watch_events),
            ("apiserver_watch_events_bytes_total", &self.watch_bytes),
        ] {
            text.push_str(&format!("# TYPE {name} counter\n{name} {}\n", counter.load(Relaxed)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let counts = Counts::default();
        counts.request("PATCH");
        counts.request("BREW");
        counts.watched(2, 100);
        counts.watched(1, 11);
        let text = counts.text();
        for line in [
            "apiserver_request_total{verb=\"PATCH\"} 1",
            "apiserver_request_total{verb=\"GET\"} 0",
            "apiserver_watch_events_total 3",
            "apiserver_watch_events_bytes_total 111",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
    }
}
