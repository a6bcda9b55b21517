//! Load over TCP: a few connections that stay open, one question at a time on each.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{CpuTime, Load, Outcome, due};

/// Connections.
const LANES: usize = 4;

/// Pause while nothing is due.
const PAUSE: Duration = Duration::from_micros(100);

/// How long a reply may take before the run counts for nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Offers the load and checks what comes back.
pub fn run(load: &Load<'_>) -> io::Result<Outcome> {
    let mut lanes = Vec::new();
    for _ in 0..LANES {
        let lane = TcpStream::connect(load.server)?;
        lane.set_nodelay(true)?;
        lane.set_read_timeout(Some(PATIENCE))?;
        lanes.push(lane);
    }
    let mut outcome = Outcome::default();
    let mut packet = Vec::new();
    let before = CpuTime::of(load.pid)?;
    let started = Instant::now();
    while started.elapsed() < load.time {
        if outcome.sent >= due(load, started) {
            std::thread::sleep(PAUSE);
            continue;
        }
        let numbers: Vec<usize> = (0..LANES as u64)
            .map(|lane| ((outcome.sent + lane) % load.questions.len() as u64) as usize)
            .collect();
        let asked = Instant::now();
        for (lane, number) in lanes.iter_mut().zip(&numbers) {
            let question = &load.questions[*number].packet;
            packet.clear();
            packet.extend_from_slice(&u16::try_from(question.len()).unwrap_or(0).to_be_bytes());
            packet.extend_from_slice(question);
            lane.write_all(&packet)?;
            outcome.sent += 1;
        }
        for (lane, number) in lanes.iter_mut().zip(&numbers) {
            let mut length = [0; 2];
            lane.read_exact(&mut length)?;
            let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
            lane.read_exact(&mut reply)?;
            outcome.count(load.questions[*number].judge(&reply));
            outcome.waits_us.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
    outcome.cpu = CpuTime::of(load.pid)?.since(&before);
    outcome.waits_us.sort_unstable();
    Ok(outcome)
}
