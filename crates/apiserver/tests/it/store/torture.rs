//! Ten thousand writes, and the power fails somewhere among them.
//!
//! `power` looks for the worst moment in short lives of small stores. Here the
//! store is as large and as busy as in use: the cut falls on any of the writes,
//! what comes back is compared byte for byte with what was acknowledged, and the
//! rest of the writes go on from there. `cargo xtask torture` does all of it; the
//! usual test run does a little.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    disk::{Contents, Disk},
    power::{self, History, open},
};

/// Rounds and writes of the whole torture, and of the taste in the usual run.
const ROUNDS: u64 = 50;
const WRITES: u64 = 10_000;
const TASTE: (u64, u64) = (3, 500);

/// Names per namespace and resource: four times as many objects at most, so that
/// some of the writes make objects and some meet one.
const NAMES: u32 = 1_000;

/// Writes that wait at once: as many as the busy clients of the benchmarks.
const TOGETHER_MAX: u64 = 64;

/// Operations of a commit or two, so that the cut falls into any part of it.
const CUT_OPERATIONS: u64 = 24;

/// What one round came to.
struct Round {
    history: History,
    restart: Duration,
    objects: usize,
}

/// Writes through one power failure.
async fn round(empty: &Contents, seed: u64, writes: u64) -> Result<Round, String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut history = History::new(NAMES);
    let cut = dice.random_range(0..writes);
    let disk = Disk::new(empty.clone());
    let store = open(&disk, true).map_err(|error| error.to_string())?;
    let mut acknowledged = 0;
    let mut armed = false;
    loop {
        if acknowledged >= cut && !armed {
            disk.fail_after(dice.random_range(0..CUT_OPERATIONS));
            armed = true;
        }
        let together = dice.random_range(1..=TOGETHER_MAX);
        match history.write_together(&store, together, &mut dice).await {
            Some(written) => acknowledged += written,
            None => break,
        }
    }
    let contents = disk.pull_the_plug(&mut dice);
    store.close().await;

    let disk = Disk::new(contents);
    let before = Instant::now();
    let store = open(&disk, true).map_err(|error| error.to_string())?;
    let restart = before.elapsed();
    history.check(&store)?;
    let objects = store.resources().iter().map(|resource| store.count(resource)).sum();

    while acknowledged < writes {
        let together = dice.random_range(1..=TOGETHER_MAX);
        let written = history.write_together(&store, together, &mut dice).await;
        acknowledged += written.ok_or("the power failed a second time")?;
    }
    store.close().await;
    let unused = Disk::new(disk.pull_the_plug(&mut dice));
    let store = open(&unused, true).map_err(|error| error.to_string())?;
    history.check(&store).map_err(|wrong| format!("after an orderly end: {wrong}"))?;
    store.close().await;
    Ok(Round { history, restart, objects })
}

// The figures are what it is run for at length.
#[allow(clippy::print_stdout)]
async fn torture(rounds: u64, writes: u64) {
    let empty = power::empty().await;
    let mut restarts = Vec::new();
    let (mut kept, mut lost, mut objects) = (0, 0, 0);
    for seed in 0..rounds {
        match round(&empty, seed, writes).await {
            Ok(round) => {
                restarts.push(round.restart);
                kept += round.history.unacknowledged;
                lost += round.history.lost;
                objects = objects.max(round.objects);
            }
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    restarts.sort();
    println!(
        "torn writes: {rounds} rounds of {writes} writes; no acknowledged write lost. The cut \
         took unacknowledged writes in {lost} rounds and left some in {kept}. Up to {objects} \
         objects came back, in {:?} at the median, {:?} at most.",
        restarts[restarts.len() / 2],
        restarts[restarts.len() - 1],
    );
}

#[tokio::test]
async fn a_busy_store_survives_a_power_failure() {
    torture(TASTE.0, TASTE.1).await;
}

#[tokio::test]
#[ignore = "minutes; `cargo xtask torture` runs it"]
async fn torn_writes() {
    torture(ROUNDS, WRITES).await;
}
