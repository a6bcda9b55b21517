//! What choosing an instance costs, as JSON lines for `cargo xtask bench registry`.
//!
//! 1,000 instances, picks that end with an outcome. Times are CPU time of this thread per pick,
//! the median of several rounds, so that a busy machine does not decide the result.

#![allow(clippy::print_stdout)]

mod allocations {
    //! Counts what is allocated. Every allocator is unsafe to write; this one hands everything on.
    #![allow(unsafe_code)]

    use std::{
        alloc::{GlobalAlloc, Layout, System},
        sync::atomic::{AtomicU64, Ordering::Relaxed},
    };

    struct Counting;

    static COUNT: AtomicU64 = AtomicU64::new(0);

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    // SAFETY: both calls go to the system's allocator as they are.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            COUNT.fetch_add(1, Relaxed);
            // SAFETY: the caller keeps the contract, which is the same.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            // SAFETY: the caller keeps the contract, which is the same.
            unsafe { System.dealloc(at, layout) }
        }
    }

    pub(super) fn count() -> u64 {
        COUNT.load(Relaxed)
    }
}

use std::hint::black_box;

use portolan_sdk::{Balancer, Call, Instance, Policy, Registration, Subscription};

const INSTANCES: u16 = 1_000;
const ROUNDS: usize = 9;
const PICKS: u32 = 200_000;

fn main() {
    let mut allocated = 0;
    for (name, policy) in [
        ("registry.pick_peak_ewma", Policy::PeakEwma),
        ("registry.pick_least_request", Policy::LeastRequest),
        ("registry.pick_round_robin", Policy::RoundRobin),
        ("registry.pick_random", Policy::Random),
        ("registry.pick_ring_hash", Policy::RingHash),
    ] {
        let instances = (0..INSTANCES).map(|number| {
            let [high, low] = number.to_be_bytes();
            let at = ([10, 0, high, low], 80).into();
            Instance::fixed(Registration::new("a", "http", at))
        });
        let balancer =
            Balancer::builder(Subscription::fixed("a", instances)).policy(policy).build();
        // Nothing is unknown any more.
        for _ in 0..20 * u32::from(INSTANCES) {
            balancer.pick().expect("instances").succeeded();
        }
        let call = Call { key: Some(b"user-1"), ..Call::default() };
        let before = allocations::count();
        for _ in 0..INSTANCES {
            black_box(balancer.pick_for(&call));
        }
        allocated += allocations::count() - before;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let start = cpu_ns();
            for _ in 0..PICKS {
                // The choice alone: how it ended is told later, and costs the caller nothing then.
                black_box(balancer.pick_for(&call));
            }
            rounds.push((cpu_ns() - start) / f64::from(PICKS));
        }
        rounds.sort_by(f64::total_cmp);
        report(name, rounds[rounds.len() / 2], "ns");
    }
    #[allow(clippy::cast_precision_loss)]
    report("registry.pick_allocations", allocated as f64, "1");
}

/// CPU time of this thread, in nanoseconds.
fn cpu_ns() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"}}");
}
