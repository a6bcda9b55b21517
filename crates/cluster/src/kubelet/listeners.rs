//! Who listens where: `/proc/net/{tcp,tcp6,udp,udp6}`, and what it means for a container.
//!
//! ```text
//!  sweep (one task per kubelet) ──▶ Sockets ──watch──▶ each worker: judge ──▶ Listening
//! ```
//!
//! The tables are read often while containers have just started and seldom
//! otherwise, and workers are woken only when the set of listeners changed.
//! A listener on the Pod's own address needs no more proof. Whether one on
//! another address belongs to the container takes a walk through its processes,
//! which is done only when something is missing.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use portolan_apiserver::registry::Cidr;
use tokio::sync::{Notify, watch};

use super::pod::{Port, Transport};

/// Pause between two looks right after a container has started. The pauses grow
/// by a quarter each, so that a slow starter costs little.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// Pause between two looks when nothing happens.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// State `TCP_LISTEN` in the tables (include/net/tcp_states.h).
const LISTEN: &str = "0A";
/// State of a UDP socket that is bound and not connected (`TCP_CLOSE`).
const BOUND: &str = "07";

/// A socket that takes connections or packets from anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Listener {
    pub(crate) transport: Transport,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) inode: u64,
}

/// All listeners of the machine at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sockets {
    listeners: HashSet<Listener>,
    places: HashSet<(Transport, IpAddr, u16)>,
    /// Stands for the listeners that are on no Pod's address: while it stays the
    /// same, no container can have begun or ceased to listen elsewhere.
    pub(crate) strays: u64,
}

impl Sockets {
    fn of(listeners: HashSet<Listener>, pods: &[Cidr]) -> Self {
        let places = listeners.iter().map(|l| (l.transport, l.address, l.port)).collect();
        let stray = |l: &&Listener| !pods.iter().any(|range| range.contains(l.address));
        // A sum, so that the order does not matter.
        let strays = listeners.iter().filter(stray).fold(0, |sum: u64, listener| {
            let mut hasher = DefaultHasher::new();
            listener.hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        });
        Self { listeners, places, strays }
    }

    /// Reads the tables; one that does not exist (no IPv6, say) is empty.
    fn read(pods: &[Cidr]) -> Self {
        let mut listeners = HashSet::new();
        for (name, transport) in [
            ("tcp", Transport::Tcp),
            ("tcp6", Transport::Tcp),
            ("udp", Transport::Udp),
            ("udp6", Transport::Udp),
        ] {
            let table = std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
            listeners.extend(table.lines().skip(1).filter_map(|line| row(line, transport)));
        }
        Self::of(listeners, pods)
    }
}

/// One row of a table (Linux Documentation/networking/proc_net_tcp.rst):
/// number, local address, remote address, state, ..., inode in the tenth place.
fn row(line: &str, transport: Transport) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let wanted = if transport == Transport::Tcp { LISTEN } else { BOUND };
    if state != wanted {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    Some(Listener {
        transport,
        address: address_of(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode,
    })
}

/// Words of 32 bits, each in the machine's byte order. An IPv4 address in IPv6
/// form, as Java binds it, is the IPv4 address.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Where a container listens, against what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listening {
    /// Not looked at yet.
    Unknown,
    /// On its Pod's address at every declared port; or it declares none and
    /// listens nowhere else.
    Fine,
    /// Not on these declared ports.
    NotYet(Vec<u16>),
    /// On another address, and not on the Pod's.
    Elsewhere(SocketAddr),
}

/// Judges one container. `own` are the inodes of its sockets, asked for only if needed.
pub(crate) fn judge(
    ports: &[Port],
    pod: &[IpAddr],
    sockets: &Sockets,
    own: impl FnOnce() -> HashSet<u64>,
) -> Listening {
    let here = |transport, port| {
        pod.iter().any(|address| sockets.places.contains(&(transport, *address, port)))
    };
    let declared: Vec<&Port> = ports.iter().filter(|p| p.transport != Transport::Other).collect();
    let missing: Vec<&Port> =
        declared.iter().copied().filter(|p| !here(p.transport, p.number)).collect();
    if missing.is_empty() && !declared.is_empty() {
        return Listening::Fine;
    }
    let own = own();
    let mut mine: Vec<&Listener> =
        sockets.listeners.iter().filter(|l| own.contains(&l.inode)).collect();
    mine.sort_unstable_by_key(|l| (l.port, l.address));
    let place = |l: &Listener| SocketAddr::new(l.address, l.port);
    if declared.is_empty() {
        let tcp: Vec<_> = mine.iter().filter(|l| l.transport == Transport::Tcp).collect();
        let somewhere = tcp.first().filter(|_| !tcp.iter().any(|l| pod.contains(&l.address)));
        return somewhere.map_or(Listening::Fine, |l| Listening::Elsewhere(place(l)));
    }
    let stray = mine.iter().find(|l| {
        !pod.contains(&l.address)
            && missing.iter().any(|p| p.transport == l.transport && p.number == l.port)
    });
    match stray {
        Some(listener) => Listening::Elsewhere(place(listener)),
        None => Listening::NotYet(missing.iter().map(|p| p.number).collect()),
    }
}

/// Keeps [`Sockets`] fresh for whoever subscribes.
#[derive(Debug)]
pub(crate) struct Sweep {
    pods: Arc<[Cidr]>,
    latest: watch::Sender<Arc<Sockets>>,
    nudge: Notify,
}

impl Sweep {
    /// For a node whose Pods have addresses of these ranges.
    pub(crate) fn new(pods: &[Cidr]) -> Self {
        Self { pods: pods.into(), latest: watch::Sender::default(), nudge: Notify::new() }
    }

    /// Follows the listeners of the machine.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Sockets>> {
        self.latest.subscribe()
    }

    /// Something has started that will listen soon: look often.
    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Reads the tables now.
    pub(crate) async fn refresh(&self) {
        // Reading fails only when the runtime ends.
        let pods = self.pods.clone();
        let Ok(fresh) = tokio::task::spawn_blocking(move || Sockets::read(&pods)).await else {
            return;
        };
        self.latest.send_if_modified(|latest| {
            let changed = **latest != fresh;
            if changed {
                *latest = Arc::new(fresh);
            }
            changed
        });
    }

    /// Sweeps for ever; drop the future to end it.
    pub(crate) async fn run(&self) {
        let mut pause = PAUSE_FIRST;
        loop {
            if self.latest.receiver_count() > 0 {
                self.refresh().await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = pause.mul_f64(1.25).min(PAUSE_MAX),
                () = self.nudge.notified() => {
                    pause = PAUSE_FIRST;
                    tokio::time::sleep(PAUSE_FIRST).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0
   1: 07000A7F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 222 1 0
   2: 0100007F:8888 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 333 1 0
   3: nonsense";

    fn listener(address: &str, port: u16, inode: u64) -> Listener {
        Listener { transport: Transport::Tcp, address: address.parse().unwrap(), port, inode }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_the_tables() {
        let found: Vec<_> = TABLE.lines().filter_map(|l| row(l, Transport::Tcp)).collect();
        assert_eq!(found, [listener("127.0.0.1", 8080, 111), listener("127.10.0.7", 8081, 222)]);
        for (hex, expected) in [
            ("00000000", Some("0.0.0.0")),
            ("00000000000000000000000000000000", Some("::")),
            ("00000000000000000000000001000000", Some("::1")),
            ("0000000000000000FFFF000007000A7F", Some("127.10.0.7")),
            ("10000DF0", Some("240.13.0.16")),
            ("0000", None),
            ("zz000000", None),
        ] {
            assert_eq!(address_of(hex), expected.map(|text| text.parse().unwrap()), "{hex}");
        }
    }

    #[test]
    fn where_a_container_listens() {
        let pod = ["127.10.0.7".parse().unwrap()];
        let check = |declared: &[u16], listeners: &[Listener], own: &[u64], expected: Listening| {
            let port =
                |n: &u16| Port { name: String::new(), number: *n, transport: Transport::Tcp };
            let ports: Vec<Port> = declared.iter().map(port).collect();
            let sockets = Sockets::of(listeners.iter().copied().collect(), &[]);
            let found = judge(&ports, &pod, &sockets, || own.iter().copied().collect());
            assert_eq!(found, expected, "{declared:?} {listeners:?}");
        };
        let elsewhere = |text: &str| Listening::Elsewhere(text.parse().unwrap());
        let here = listener("127.10.0.7", 80, 1);
        let local = listener("127.0.0.1", 80, 2);
        let any = listener("0.0.0.0", 80, 3);
        let any6 = listener("::", 80, 4);
        let debug = listener("127.0.0.1", 6060, 5);
        check(&[80], &[here], &[1], Listening::Fine);
        check(&[80], &[], &[], Listening::NotYet(vec![80]));
        check(&[80], &[local], &[2], elsewhere("127.0.0.1:80"));
        check(&[80], &[any], &[3], elsewhere("0.0.0.0:80"));
        check(&[80], &[any6], &[4], elsewhere("[::]:80"));
        check(&[80], &[local], &[9], Listening::NotYet(vec![80])); // a stranger's socket
        check(&[80], &[here, debug], &[1, 5], Listening::Fine);
        check(&[80], &[debug], &[5], Listening::NotYet(vec![80]));
        check(&[80, 81], &[here], &[1], Listening::NotYet(vec![81]));
        check(&[], &[], &[], Listening::Fine);
        check(&[], &[here, debug], &[1, 5], Listening::Fine);
        check(&[], &[any], &[3], elsewhere("0.0.0.0:80"));
        check(&[], &[any], &[], Listening::Fine);
    }

    #[test]
    fn strays_are_told_from_pods() {
        let pods = ["127.10.0.0/16".parse().unwrap()];
        let strays =
            |listeners: &[Listener]| Sockets::of(listeners.iter().copied().collect(), &pods).strays;
        let (here, away) = (listener("127.10.0.7", 80, 1), listener("127.0.0.1", 80, 2));
        assert_eq!(strays(&[away]), strays(&[away, here]));
        assert_ne!(strays(&[away]), strays(&[here]));
        assert_ne!(strays(&[away]), strays(&[listener("127.0.0.1", 80, 3)]));
    }

    #[tokio::test]
    async fn sees_what_starts_to_listen() {
        let sweep = Arc::new(Sweep::new(&[]));
        let mut sockets = sweep.subscribe();
        let task = tokio::spawn({
            let sweep = sweep.clone();
            async move { sweep.run().await }
        });
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = socket.local_addr().unwrap();
        sweep.nudge();
        let found =
            sockets.wait_for(|s| s.places.contains(&(Transport::Tcp, place.ip(), place.port())));
        tokio::time::timeout(Duration::from_secs(20), found).await.unwrap().unwrap();
        task.abort();
    }
}
