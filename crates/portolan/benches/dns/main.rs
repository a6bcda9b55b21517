//! The DNS face beside its peers: what a query costs the server, and what a large
//! cluster does.
//!
//! ```text
//!   portolan cluster <--fill-- 10,000 Services, 100,000 endpoints
//!      |          |
//!      |          +--kubernetes plugin--> CoreDNS, its default Corefile
//!      +--> portolan serve --roles dns      Knot, NSD: zone files of the same names
//!                          \______ the same questions, in turn ______/
//! ```
//!
//! All servers run at once, each on one core; rounds are interleaved, so that what
//! else the machine does meets all alike. Every reply is checked. `echo` is a bare
//! recvmmsg and sendmmsg loop: no server over sockets can cost less.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod peers;
mod world;

use std::time::Duration;

use dns_load::{Load, Outcome, Question, run_tcp, run_udp};

use peers::{Peer, Peers};

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    /// Rounds of each measurement; the median is the figure.
    rounds: usize,
    /// How long one server is asked in one round.
    time: Duration,
    /// Changes that are timed.
    changes: usize,
    /// Questions a second over UDP. Low enough for every peer on a busy machine.
    rate: u32,
    /// Questions a second for 100 addresses: CoreDNS spends a millisecond on each.
    rate_headless: u32,
}

const FULL: Effort = Effort {
    rounds: 5,
    time: Duration::from_secs(3),
    changes: 500,
    rate: 20_000,
    rate_headless: 1000,
};

/// Whether it all works; its figures say little.
const SHORT: Effort =
    Effort { rounds: 1, time: Duration::from_secs(1), changes: 50, rate: 2000, rate_headless: 100 };

/// Set for the short way.
const SHORT_SWITCH: &str = "PORTOLAN_BENCH_SHORT";

fn effort() -> Effort {
    if std::env::var_os(SHORT_SWITCH).is_some() { SHORT } else { FULL }
}

/// The most that we may lose of a run that counts. What a peer loses is a figure: it is
/// not asked for less, and its cost is that of the replies that came.
const LOST_MAX: f64 = 0.01;

/// What we are called.
const OURS: &str = "portolan";

/// Changes a second of a storm.
const STORM: u32 = 200;

fn main() {
    // Both a server and a client of TLS live in this build: name the provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["echo", listen] => dns_load::echo(listen.parse().unwrap()).unwrap(),
        _ => compare(),
    }
}

fn compare() {
    let effort = effort();
    let world = world::World::start();
    let peers = Peers::start(&world);
    sizes(&peers);
    let cluster_ip = world.questions_cluster_ip();
    let medians = rounds("ClusterIP A", &peers.all(), &cluster_ip, effort.rate, run_udp);
    ratio("dns.cluster_ip_over_knot", &medians, "portolan", "knot");
    ratio("dns.cluster_ip_over_nsd", &medians, "portolan", "nsd");
    ratio("dns.cluster_ip_over_echo", &medians, "portolan", "echo");
    ratio("dns.cluster_ip_over_coredns", &medians, "portolan", "coredns");

    let both = peers.named(&["portolan", "coredns", "knot"]);
    let denied = world.questions_denied();
    let medians = rounds("search path denial", &both, &denied, effort.rate, run_udp);
    ratio("dns.denial_over_coredns", &medians, "portolan", "coredns");
    let cut = world.questions_headless(true);
    let medians = rounds("100 endpoints, cut", &both, &cut, effort.rate_headless, run_udp);
    ratio("dns.headless_cut_over_coredns", &medians, "portolan", "coredns");
    let whole = world.questions_headless(false);
    let medians = rounds("100 endpoints, TCP", &both, &whole, effort.rate_headless, run_tcp);
    ratio("dns.headless_tcp_over_coredns", &medians, "portolan", "coredns");
    let cached = world.questions_cached();
    let medians = rounds("cache hit", &both, &cached, effort.rate, run_udp);
    ratio("dns.cache_hit_over_coredns", &medians, "portolan", "coredns");

    let ours = peers.named(&["portolan"]);
    let mut lags = changes::lags(&world, ours[0], effort.changes);
    common::report("dns.event_to_answer_p50", common::percentile(&mut lags, 50.0), "ms");
    common::report("dns.event_to_answer_p99", common::percentile(&mut lags, 99.0), "ms");
    // The floor follows no changes: what it costs more is what a busy machine costs all.
    let followed = peers.named(&["portolan", "coredns", "echo"]);
    let calm = rounds("ClusterIP A, calm", &followed, &cluster_ip, effort.rate, run_udp);
    let storm = world.storm(STORM);
    let storming = rounds("ClusterIP A, storm", &followed, &cluster_ip, effort.rate, run_udp);
    let changes = storm.stop();
    eprintln!("storm: {changes:.0} changes a second");
    common::report("dns.storm_changes", changes, "/s");
    for (calm, storming) in calm.iter().zip(&storming) {
        let of = if calm.name == OURS { String::new() } else { format!("_{}", calm.name) };
        common::report(&format!("dns.storm_cost{of}"), storming.us / calm.us, "x");
        if calm.name == OURS {
            let rise = storming.answering_us / calm.answering_us;
            common::report("dns.storm_cost_answering", rise, "x");
        }
    }

    common::report("dns.relist_peak", changes::relist(&world, ours[0]), "x");
}

fn sizes(peers: &Peers) {
    common::report("dns.load_to_ready", peers.load_to_ready.as_secs_f64(), "s");
    let rss = |name: &str| {
        let pid = peers.named(&[name])[0].pid;
        let (now, peak) = dns_load::resident_kib(pid).unwrap();
        common::report(&format!("dns.rss_{name}"), now as f64 / 1024.0, "MiB");
        common::report(&format!("dns.rss_peak_{name}"), peak as f64 / 1024.0, "MiB");
        now as f64
    };
    let (ours, theirs) = (rss("portolan"), rss("coredns"));
    common::report("dns.rss_over_coredns", ours / theirs, "x");
}

/// What a query costs a peer: the median of some rounds.
struct Median {
    name: &'static str,
    us: f64,
    /// Of the threads that answer over UDP alone; 0 where they have no name of their own.
    answering_us: f64,
}

type Run = fn(&Load<'_>) -> std::io::Result<Outcome>;

/// Asks each peer in turn, several times; the CPU time of a query by peer.
fn rounds(what: &str, peers: &[&Peer], questions: &[Question], rate: u32, run: Run) -> Vec<Median> {
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); peers.len()];
    let mut answering = costs.clone();
    let mut p99 = vec![0; peers.len()];
    let mut lost = vec![0.0_f64; peers.len()];
    let effort = effort();
    for round in 0..=effort.rounds {
        for (place, peer) in peers.iter().enumerate() {
            let echoes: Vec<Question>;
            let asked = if peer.echoes {
                echoes = questions.iter().map(Question::without_check).collect();
                &echoes
            } else {
                questions
            };
            let load = Load {
                server: peer.address,
                pid: peer.pid,
                rate,
                time: effort.time,
                questions: asked,
            };
            let outcome =
                run(&load).unwrap_or_else(|error| panic!("{what}, {}: {error}", peer.name));
            let bad = outcome.failed + outcome.wrong;
            assert_eq!(bad, 0, "{what}: {} gives wrong replies: {outcome:?}", peer.name);
            lost[place] = lost[place].max(outcome.lost());
            let is_ours = peer.name == OURS;
            assert!(!is_ours || outcome.lost() < LOST_MAX, "{what}: we lose {}", outcome.lost());
            // The first round warms caches.
            if round > 0 {
                costs[place].push(outcome.cpu_us());
                answering[place].push(outcome.thread_us(portolan_dns::UDP_THREAD));
                p99[place] = p99[place].max(outcome.percentile_us(99.0));
            }
        }
    }
    let outcomes = costs.into_iter().zip(answering).zip(p99.into_iter().zip(lost));
    let medians = peers.iter().zip(outcomes);
    let medians = medians.map(|(peer, ((mut costs, mut answering), (p99, lost)))| {
        let (median, worst) = (common::percentile(&mut costs, 50.0), costs[costs.len() - 1]);
        let answering_us = common::percentile(&mut answering, 50.0);
        eprintln!(
            "{what:<20} {:<10} {median:>8.2} us/query, worst {worst:.2}, p99 {p99} us, lost {:.1} %",
            peer.name,
            lost * 100.0
        );
        Median { name: peer.name, us: median, answering_us }
    });
    medians.collect()
}

fn ratio(name: &str, medians: &[Median], ours: &str, theirs: &str) {
    let of = |name: &str| medians.iter().find(|median| median.name == name).unwrap().us;
    common::report(name, of(ours) / of(theirs), "x");
}
