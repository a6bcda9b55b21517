//! `cargo xtask torture`: what the embedded API and the DNS face promise under
//! abuse, at full length.
//!
//! The tests are those of the usual run, which does a little of each. Here the
//! power fails 50 times in the middle of 10,000 writes to a simulated disk, the
//! real process is killed 50 times under clients that write as much, slow clients
//! are waited for, and ten thousand connections come at once. The DNS face is asked
//! 20,000 questions a second while it and the API die. How long restarts
//! took and how much memory was held is printed; the time is no part of the
//! verdict.

use anyhow::Result;

use crate::{cargo, must};

/// The tests, which the usual run ignores.
const TORTURES: [&str; 5] = [
    "store::torture::torn_writes",
    "torture::sigkill",
    "abuse::slow::slow_clients_are_let_go",
    "abuse::crowd::ten_thousand_connections",
    "dns_faults::torture",
];

/// Where they are. A release build of all the others' tests would take a quarter of an hour.
const PACKAGES: [&str; 2] = ["portolan-apiserver", "portolan"];

pub(crate) fn run() -> Result<()> {
    let mut torture = cargo();
    // What is delivered is what is tortured.
    torture.args(["test", "--release", "--locked", "--test", "it"]);
    torture.args(PACKAGES.map(|package| format!("--package={package}"))).arg("--");
    torture.args(["--exact", "--ignored", "--nocapture", "--test-threads=1"]).args(TORTURES);
    must(&mut torture)
}
