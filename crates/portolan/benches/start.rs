//! From exec to ready: `portolan up --ephemeral`, until its addresses are on
//! stdout and an API call and a DNS query are answered.

#![allow(clippy::print_stdout)]

mod common;

use std::time::Instant;

const ROUNDS: usize = 15;

fn main() {
    let mut ready_ms = Vec::new();
    let mut resident_mib = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let up = common::up();
        ready_ms.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(up.lookup("kubernetes.default.svc.cluster.local").len(), 1, "ready means ready");
        resident_mib.push(up.resident_mib());
    }
    common::report("start.exec_to_ready", common::percentile(&mut ready_ms, 50.0), "ms");
    common::report("start.exec_to_ready_worst", common::percentile(&mut ready_ms, 100.0), "ms");
    common::report("start.resident", common::percentile(&mut resident_mib, 50.0), "MiB");
}
