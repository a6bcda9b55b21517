//! What dies under load: the API, the DNS face, both. No reply says what is not so, and a
//! face that is started again answers from what it knew.
//!
//! ```text
//!   portolan cluster <--watch-- portolan serve --roles dns <--questions-- dns-load
//!        ^ SIGKILL                    ^ SIGKILL                 every reply checked
//! ```
//!
//! `cargo xtask torture` does it at length, the usual run once and with less load. A reply
//! that does not come is no wrong one (while the face is dead none can), and neither is one
//! that says so before everything is known.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dns_load::{Expect, Load, Outcome, Question, run_udp_while};
use tempfile::TempDir;

use crate::{
    harness::{Up, address_query, eventually, expect, free_port, service},
    serve::{cluster, serve},
};

/// How much is done.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    services: usize,
    /// Questions a second.
    rate: u32,
    /// Between two faults.
    calm: Duration,
}

const TORTURE: Effort =
    Effort { rounds: 10, services: 300, rate: 20_000, calm: Duration::from_secs(1) };
const TASTE: Effort =
    Effort { rounds: 1, services: 20, rate: 2_000, calm: Duration::from_millis(200) };

/// The load goes on until it is told to end; this bounds a test that hangs.
const LOAD_MAX: Duration = Duration::from_secs(300);

/// Between two questions of who waits for the first answer.
const PROBE: Duration = Duration::from_millis(1);

/// A face that has not replied by then never will.
const REPLY_MAX: Duration = Duration::from_secs(60);

/// Code of a reply: something failed.
const SERVFAIL: u8 = 2;

/// Type A.
const A: u16 = 1;

/// A cluster with Services, and a face for them.
struct World {
    effort: Effort,
    api: Option<Up>,
    face: Option<Up>,
    ports: [u16; 2],
    kubeconfig: String,
    /// Keeps the kubeconfig where it is while the cluster's folder moves.
    _kept: TempDir,
    questions: Arc<[Question]>,
    /// A name and its address, for who waits for a face to answer.
    known: (String, Ipv4Addr),
}

impl World {
    fn start(effort: Effort) -> Self {
        let ports = [free_port(), free_port()];
        let api = cluster(tempfile::tempdir().unwrap(), ports[0]);
        let names: Vec<String> = (0..effort.services).map(|n| format!("s{n}")).collect();
        let manifests: Vec<String> = names.iter().map(|name| service(name, 80)).collect();
        api.apply(&manifests.join("\n---\n"));
        let list = api.kubectl(&["get", "services", "-o", "json"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let mut made: Vec<(String, Ipv4Addr)> = Vec::new();
        for item in list["items"].as_array().unwrap() {
            let name = item["metadata"]["name"].as_str().unwrap();
            let address = item["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
            made.push((format!("{name}.default.svc.cluster.local"), address));
        }
        assert!(made.len() >= effort.services, "{} of {}", made.len(), effort.services);
        let mut questions = Vec::new();
        for (name, address) in &made {
            let right = Expect::Addresses(vec![*address]);
            questions.push(Question::new(name, A, true, right).unwrap());
            // On the way to a name outside.
            let denied = format!("www.example.org.{name}");
            questions.push(Question::new(&denied, A, false, Expect::NxDomain).unwrap());
        }
        let kept = tempfile::tempdir().unwrap();
        let kubeconfig = kept.path().join("kubeconfig").display().to_string();
        std::fs::copy(api.addresses.kubeconfig.as_ref().unwrap(), &kubeconfig).unwrap();
        let face = serve(tempfile::tempdir().unwrap(), &kubeconfig, ports[1]);
        Self {
            effort,
            api: Some(api),
            face: Some(face),
            ports,
            kubeconfig,
            _kept: kept,
            questions: questions.into(),
            known: made.remove(0),
        }
    }

    fn load(&self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let (questions, rate) = (self.questions.clone(), self.effort.rate);
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[1]));
        let load = std::thread::spawn({
            let stop = stop.clone();
            move || {
                // What the face costs is no matter here: it does not live through this.
                let pid = std::process::id();
                let load = Load { server, pid, rate, time: LOAD_MAX, questions: &questions };
                run_udp_while(&load, || !stop.load(Ordering::Relaxed)).unwrap()
            }
        });
        Running { stop, load }
    }

    fn pause(&self) {
        std::thread::sleep(self.effort.calm);
    }

    fn kill_api(&mut self) -> TempDir {
        self.api.take().unwrap().sigkill()
    }

    /// The API comes back, and its news reaches the face.
    fn api_again(&mut self, folder: TempDir, news: &str) {
        let api = cluster(folder, self.ports[0]);
        api.apply(&service(news, 80));
        let face = self.face.as_ref().unwrap();
        let address = vec![api.cluster_ip("default", news)];
        let name = format!("{news}.default.svc.cluster.local");
        eventually("news", || expect(face.dig(&name, "A"), address.clone()));
        self.api = Some(api);
    }

    /// Kills the face and starts it again: from then to its first answer.
    fn face_again(&mut self) -> Duration {
        let folder = self.face.take().unwrap().sigkill();
        let ((name, address), port, started) = (self.known.clone(), self.ports[1], Instant::now());
        let answered = std::thread::spawn(move || {
            first_reply(port, &name, |reply| reply.ends_with(&address.octets()));
            started.elapsed()
        });
        self.face = Some(serve(folder, &self.kubeconfig, self.ports[1]));
        answered.join().unwrap()
    }
}

/// A load under way.
struct Running {
    stop: Arc<AtomicBool>,
    load: JoinHandle<Outcome>,
}

impl Running {
    fn end(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.load.join().unwrap()
    }
}

/// Asks until such a reply comes.
fn first_reply(port: u16, name: &str, is_it: impl Fn(&[u8]) -> bool) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(PROBE)).unwrap();
    let (query, started) = (address_query(name), Instant::now());
    let mut reply = [0; 512];
    // While nobody listens, an error says so.
    while !socket
        .send(&query)
        .and_then(|_| socket.recv(&mut reply))
        .is_ok_and(|length| is_it(&reply[..length]))
    {
        assert!(started.elapsed() < REPLY_MAX, "no such reply for {name}: {reply:?}");
        std::thread::sleep(PROBE);
    }
}

/// What a run came to.
#[derive(Default)]
struct Report {
    asked: u64,
    answered: u64,
    /// Replies of a face that did not know everything yet, and said so.
    failed: u64,
    /// From exec to the first answer: with the API there, and without.
    restarts: [Vec<Duration>; 2],
}

fn survive(effort: Effort) -> Report {
    let mut world = World::start(effort);
    let mut report = Report::default();
    for round in 0..effort.rounds {
        let load = world.load();
        world.pause();
        let folder = world.kill_api();
        world.pause();
        world.api_again(folder, &format!("late-{round}"));
        let apart = load.end();
        let bad = apart.failed + apart.wrong;
        assert_eq!(bad, 0, "round {round}, without the API: {} sent", apart.sent);
        assert!(apart.right > apart.sent / 2, "round {round}: {} came", apart.right);

        let load = world.load();
        world.pause();
        report.restarts[0].push(world.face_again());
        world.pause();
        let folder = world.kill_api();
        report.restarts[1].push(world.face_again());
        world.pause();
        world.api_again(folder, &format!("later-{round}"));
        let died = load.end();
        assert_eq!(died.wrong, 0, "round {round}, when the face died: {} sent", died.sent);
        assert!(died.right > 0, "round {round}: no answer came");
        report.asked += apart.sent + died.sent;
        report.answered += apart.right + died.right;
        report.failed += died.failed;
    }
    report
}

// The figures are what it is run for at length.
#[allow(clippy::print_stdout)]
fn told(effort: Effort) {
    let report = survive(effort);
    let longest = |place: usize| report.restarts[place].iter().max().unwrap();
    println!(
        "DNS under faults: {} rounds at {} questions a second; {} asked, {} answered, {} \
         failed before all was known, none wrong. From exec to the first answer {:?} at most, {:?} without the API.",
        effort.rounds,
        effort.rate,
        report.asked,
        report.answered,
        report.failed,
        longest(0),
        longest(1),
    );
}

#[test]
fn no_wrong_answer_when_processes_die() {
    told(TASTE);
}

/// The control: a face that has forgotten what it knew fails its names, and the same load
/// notices.
#[test]
fn a_face_without_a_memory_is_caught() {
    let mut world = World::start(TASTE);
    let load = world.load();
    let cluster_folder = world.kill_api();
    let folder = world.face.take().unwrap().sigkill();
    std::fs::remove_dir_all(folder.path().join("data/last-known")).unwrap();
    let (kubeconfig, [api_port, dns_port]) = (world.kubeconfig.clone(), world.ports);
    let face = std::thread::spawn(move || serve(folder, &kubeconfig, dns_port));
    first_reply(world.ports[1], &world.known.0, |reply| reply[3] & 0xf == SERVFAIL);
    world.pause();
    world.api = Some(cluster(cluster_folder, api_port));
    world.face = Some(face.join().unwrap());
    let outcome = load.end();
    assert!(outcome.failed > 0, "{} right of {}", outcome.right, outcome.sent);
}

#[test]
#[ignore = "minutes; cargo xtask torture"]
fn torture() {
    told(TORTURE);
}
