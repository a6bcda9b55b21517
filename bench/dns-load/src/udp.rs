//! Load over UDP: several sockets, batches in and out, one thread.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::UdpSocket,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg},
};

use crate::{CpuTime, Load, Outcome, due};

/// Sockets: the kernel spreads clients over a server's workers by their ports.
const LANES: usize = 16;

/// Packets of a batch.
const BATCH: usize = 16;

/// Longest reply.
const REPLY: usize = 1536 + 64;

/// Pause while nothing is due.
const PAUSE: Duration = Duration::from_micros(50);

/// How long late replies are waited for.
const GRACE: Duration = Duration::from_millis(300);

/// Offers the load and checks what comes back.
pub fn run(load: &Load<'_>) -> io::Result<Outcome> {
    run_while(load, || true)
}

/// The same, until somebody says that it is enough.
pub fn run_while(load: &Load<'_>, goes_on: impl Fn() -> bool) -> io::Result<Outcome> {
    let mut load = *load;
    let mut lanes = (0..LANES).map(|_| Lane::new(&load)).collect::<io::Result<Vec<_>>>()?;
    let mut outcome = Outcome::default();
    let before = CpuTime::of(load.pid)?;
    let started = Instant::now();
    let mut next = 0;
    while started.elapsed() < load.time + GRACE {
        let mut idle = true;
        if !goes_on() {
            load.time = load.time.min(started.elapsed());
        }
        while outcome.sent < due(&load, started) {
            let count = (due(&load, started) - outcome.sent).min(BATCH as u64) as usize;
            lanes[next % LANES].send(&load, count, outcome.sent, started)?;
            outcome.sent += count as u64;
            next += 1;
            idle = false;
        }
        for lane in &mut lanes {
            idle &= lane.receive(&load, started, &mut outcome)? == 0;
        }
        if idle {
            std::thread::sleep(PAUSE);
        }
    }
    outcome.cpu = CpuTime::of(load.pid)?.since(&before);
    outcome.waits_us.sort_unstable();
    Ok(outcome)
}

/// One socket, with what it waits for by ID.
struct Lane {
    socket: UdpSocket,
    send: MultiHeaders<SockaddrIn>,
    receive: MultiHeaders<SockaddrIn>,
    waiting: Vec<Option<(u32, u32)>>,
    next_id: u16,
    packets: [Vec<u8>; BATCH],
    replies: Box<[[u8; REPLY]; BATCH]>,
}

impl Lane {
    fn new(load: &Load<'_>) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(load.server)?;
        Ok(Self {
            socket,
            send: MultiHeaders::preallocate(BATCH, None),
            receive: MultiHeaders::preallocate(BATCH, None),
            waiting: vec![None; 1 << 16],
            next_id: 0,
            packets: Default::default(),
            replies: Box::new([[0; REPLY]; BATCH]),
        })
    }

    fn send(
        &mut self,
        load: &Load<'_>,
        count: usize,
        first: u64,
        started: Instant,
    ) -> io::Result<()> {
        let now_us = started.elapsed().as_micros() as u32;
        for (place, packet) in self.packets.iter_mut().take(count).enumerate() {
            let number = (first as usize + place) % load.questions.len();
            packet.clear();
            packet.extend_from_slice(&load.questions[number].packet);
            packet[..2].copy_from_slice(&self.next_id.to_be_bytes());
            self.waiting[usize::from(self.next_id)] = Some((number as u32, now_us));
            self.next_id = self.next_id.wrapping_add(1);
        }
        let slices = self.packets.each_ref().map(|packet| [IoSlice::new(packet)]);
        let nobody = [None; BATCH];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::empty();
        match sendmmsg(fd, &mut self.send, &slices[..count], &nobody[..count], [], flags) {
            // A server that has just been started may refuse the first packets.
            Ok(_) | Err(Errno::ECONNREFUSED) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(
        &mut self,
        load: &Load<'_>,
        started: Instant,
        outcome: &mut Outcome,
    ) -> io::Result<usize> {
        let mut lengths = [0; BATCH];
        let mut count = 0;
        {
            let mut slices = self.replies.each_mut().map(|reply| [IoSliceMut::new(reply)]);
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT;
            match recvmmsg(fd, &mut self.receive, slices.iter_mut(), flags, None) {
                Ok(messages) => {
                    for message in messages {
                        lengths[count] = message.bytes;
                        count += 1;
                    }
                }
                Err(Errno::EAGAIN | Errno::ECONNREFUSED) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let now_us = started.elapsed().as_micros() as u32;
        for (reply, length) in self.replies.iter().zip(&lengths[..count]) {
            let reply = &reply[..*length];
            let id = reply.first_chunk().map(|id| usize::from(u16::from_be_bytes(*id)));
            let Some((number, sent_us)) = id.and_then(|id| self.waiting[id].take()) else {
                outcome.wrong += 1;
                continue;
            };
            outcome.count(load.questions[number as usize].judge(reply));
            outcome.waits_us.push(now_us.saturating_sub(sent_us));
        }
        Ok(count)
    }
}
