//! `cargo xtask torture`: what the embedded API promises under abuse, at full
//! length.
//!
//! The tests are those of the usual run, which does a little of each. Here the
//! power fails 50 times in the middle of 10,000 writes to a simulated disk, the
//! real process is killed 50 times under clients that write as much, slow clients
//! are waited for, and ten thousand connections come at once. How long restarts
//! took and how much memory was held is printed; the time is no part of the
//! verdict.

use anyhow::Result;

use crate::{cargo, must};

/// The tests, which the usual run ignores.
const TORTURES: [&str; 4] = [
    "store::torture::torn_writes",
    "torture::sigkill",
    "abuse::slow::slow_clients_are_let_go",
    "abuse::crowd::ten_thousand_connections",
];

pub(crate) fn run() -> Result<()> {
    let mut torture = cargo();
    // What is delivered is what is tortured. With the whole workspace nothing is built twice.
    torture.args(["test", "--release", "--locked", "--workspace", "--test", "it", "--"]);
    torture.args(["--exact", "--ignored", "--nocapture", "--test-threads=1"]).args(TORTURES);
    must(&mut torture)
}
