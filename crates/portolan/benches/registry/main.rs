//! What the registry on Pods costs, as JSON lines for `cargo xtask bench registry`.
//!
//! ```text
//!   founding: N processes, each lists and watches all N Pods of the namespace
//!   ours:     N processes, each follows its 10 services at one server, which watches the Pods
//! ```
//!
//! Everything restarts at once, and ends when everybody knows everybody that they asked for.
//! Writes, events and bytes are what the servers counted. The founding design is measured as far
//! as this machine carries it; beyond, it is computed as growing with the square of N, and said so
//! in the figure's name.

#![allow(clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod memory;
mod world;

use std::time::{Duration, Instant};

use portolan_sdk::{Discovery, Registration, Registry};

use crowd::{Crowd, Delivered, Way};
use world::World;

/// Says to measure as little as shows that it works.
const SHORT: &str = "PORTOLAN_BENCH_SHORT";

/// Between two timed changes: more than the pace of a watch.
const IDLE: Duration = Duration::from_millis(60);

/// How much is measured.
struct Extent {
    /// Processes with the founding design.
    founding: &'static [usize],
    /// Processes with ours; those of the founding design are among them.
    ours: &'static [usize],
    /// Changes that are timed.
    changes: usize,
    /// Pods, each of which registers ten services.
    pods: usize,
}

const FULL: Extent = Extent {
    founding: &[50, 100, 200, 400],
    ours: &[50, 100, 200, 400, 1_000, 2_000],
    changes: 300,
    pods: 10_000,
};
const LEAST: Extent = Extent { founding: &[10, 20], ours: &[10, 20, 40], changes: 20, pods: 200 };

fn main() {
    // Both a server and a client of TLS live in this build: name the provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    let extent = if std::env::var_os(SHORT).is_some() { LEAST } else { FULL };
    common::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(restarts(&extent));
    runtime.block_on(changes(&extent));
    runtime.block_on(memory::measure(extent.pods));
}

#[allow(clippy::cast_precision_loss)]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn restarts(extent: &Extent) {
    let mut founding: Vec<(usize, Delivered)> = Vec::new();
    for count in extent.founding {
        let delivered = restart(*count, Way::Founding).await;
        report("founding", *count, &delivered);
        founding.push((*count, delivered));
    }
    for count in extent.ours {
        let delivered = restart(*count, Way::Ours).await;
        report("ours", *count, &delivered);
        match founding.iter().find(|(other, _)| other == count) {
            Some((_, theirs)) => {
                let ratio = mib(delivered.bytes) / mib(theirs.bytes);
                common::report(&format!("registry.restart_{count}_bytes"), ratio, "x");
            }
            None => {
                let (last, theirs) = founding.last().unwrap();
                #[allow(clippy::cast_precision_loss)]
                let more = (*count as f64 / *last as f64).powi(2);
                let name = format!("registry.restart_{count}_founding_computed");
                common::report(&name, mib(theirs.bytes) * more, "MiB");
            }
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn report(way: &str, count: usize, delivered: &Delivered) {
    let name = |what: &str| format!("registry.restart_{count}_{way}{what}");
    common::report(&name(""), mib(delivered.bytes), "MiB");
    common::report(&name("_events"), delivered.events as f64, "1");
    common::report(&name("_writes_each"), delivered.writes as f64 / count as f64, "1");
    common::report(&name("_time"), delivered.took.as_secs_f64(), "s");
}

async fn restart(count: usize, way: Way) -> Delivered {
    let world = World::start().await;
    let mut crowd = Crowd::new(&world, count, way);
    crowd.start(0).await;
    let before = world.counts().await;
    let began = Instant::now();
    crowd.start(1).await;
    let took = began.elapsed();
    // What is still on its way belongs to it.
    let mut after = world.counts().await;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let next = world.counts().await;
        if next == after {
            break;
        }
        after = next;
    }
    let own = crowd::WRITES_OF_THE_PLATFORM * u64::try_from(count).unwrap();
    Delivered {
        bytes: after.bytes - before.bytes,
        events: after.events - before.events,
        writes: (after.writes - before.writes).saturating_sub(own),
        took,
    }
}

/// From a process's word until a subscriber of its service has it, while nothing else happens.
async fn changes(extent: &Extent) {
    let world = World::start().await;
    world.pod("provider", [10, 200, 0, 1].into()).await;
    world.ready("provider", [10, 200, 0, 1].into()).await;
    let builder = Registry::builder().namespace(world::NAMESPACE).pod("provider").owner("main");
    let registry = builder.kubeconfig(&world.kubeconfig).build().await.unwrap();
    let service = |weight| Registration {
        weight,
        ..Registration::new("reviews", "http", ([10, 200, 0, 1], 80).into())
    };
    let mut registered = registry.register(service(1)).await.unwrap();
    let discovery = Discovery::connect(&world.http).unwrap();
    let mut reviews = discovery.subscribe(world::NAMESPACE, "reviews").await.unwrap();
    let weight = |reviews: &portolan_sdk::Subscription| {
        reviews.current().instances().first().map_or(0, |one| one.weight)
    };
    while weight(&reviews) != 1 {
        reviews.changed().await.unwrap();
    }
    let mut taken_ms = Vec::new();
    for number in 0..extent.changes {
        // Idle: the write does not come in the wake of another.
        tokio::time::sleep(IDLE).await;
        let next = u32::try_from(number).unwrap() + 2;
        let began = Instant::now();
        let write = registered.update([service(next)]);
        let heard = async {
            while weight(&reviews) != next {
                reviews.changed().await.unwrap();
            }
            began.elapsed()
        };
        let (written, took) = tokio::join!(write, heard);
        written.unwrap();
        taken_ms.push(took.as_secs_f64() * 1e3);
    }
    common::report(
        "registry.change_to_callback_p50",
        common::percentile(&mut taken_ms, 50.0),
        "ms",
    );
    common::report(
        "registry.change_to_callback_p99",
        common::percentile(&mut taken_ms, 99.0),
        "ms",
    );
    registered.keep();
}
