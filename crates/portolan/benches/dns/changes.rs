//! What changes cost: how soon an answer follows one, and what a listing anew takes.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    common,
    peers::Peer,
    world::{HISTORY, World},
};

/// How long a change may take to be answered with.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two timed changes: nothing else is to do.
const PAUSE: Duration = Duration::from_millis(10);

/// Between two looks whether a server has caught up.
const LOOK: Duration = Duration::from_millis(200);

fn socket(peer: &Peer) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(peer.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// From sending a change to the API until it is answered with, in milliseconds each.
pub(crate) fn lags(world: &World, peer: &Peer, times: usize) -> Vec<f64> {
    let socket = socket(peer);
    let lag = |number: usize| {
        std::thread::sleep(PAUSE);
        let address = Ipv4Addr::new(10, 251, (number / 250) as u8, (number % 250) as u8 + 1);
        let started = Instant::now();
        world.move_to(address);
        while common::lookup(&socket, "many.n0.svc.cluster.local") != [address] {
            assert!(started.elapsed() < PATIENCE, "{} does not follow", peer.name);
        }
        started.elapsed().as_secs_f64() * 1e3
    };
    (0..times).map(lag).collect()
}

/// Holds a server while the API forgets where it was, so that it has to list all anew; its
/// memory at the most, by that of before.
pub(crate) fn relist(world: &World, peer: &Peer) -> f64 {
    let (before, _) = dns_load::resident_kib(peer.pid).unwrap();
    let pid = Pid::from_raw(i32::try_from(peer.pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    world.churn(3 * HISTORY);
    let names = world.mark(peer.name);
    // Forgets the peak.
    fs::write(format!("/proc/{}/clear_refs", peer.pid), "5").unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let socket = socket(peer);
    // One name a look: a denial may be kept.
    let known = names.iter().any(|name| {
        std::thread::sleep(LOOK);
        !common::lookup(&socket, name).is_empty()
    });
    assert!(known, "{} does not come back", peer.name);
    let (_, peak) = dns_load::resident_kib(peer.pid).unwrap();
    peak as f64 / before as f64
}
