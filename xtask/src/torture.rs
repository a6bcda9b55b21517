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

/// Package and the tests that are ignored there.
const TORTURES: [(&str, &str); 4] = [
    ("portolan-apiserver", "store::torture::torn_writes"),
    ("portolan", "torture::sigkill"),
    ("portolan", "abuse::slow::slow_clients_are_let_go"),
    ("portolan", "abuse::crowd::ten_thousand_connections"),
];

pub(crate) fn run() -> Result<()> {
    for (package, test) in TORTURES {
        let mut torture = cargo();
        torture.args(["test", "--locked", "-p", package, "--test", "it", "--", "--exact", test]);
        must(torture.args(["--ignored", "--nocapture"]))?;
    }
    Ok(())
}
