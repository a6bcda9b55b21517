//! The servers that are compared, each on one core, with the same names.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dns_load::{Load, Question, run_udp};
use portolan_wire::Addresses;

use crate::world::World;

/// How long a peer may take to answer its first question.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server at work.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    /// It sends back what it gets: nothing in it can be checked.
    pub(crate) echoes: bool,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// All of them.
pub(crate) struct Peers {
    peers: Vec<Peer>,
    pub(crate) load_to_ready: Duration,
}

impl Peers {
    /// Starts all, and waits until each answers as it should.
    pub(crate) fn start(world: &World) -> Self {
        let folder = world.folder.path();
        let [cluster, outside] = world.zone_files();
        fs::write(folder.join("cluster.local.zone"), cluster).unwrap();
        fs::write(folder.join("example.org.zone"), outside).unwrap();

        let knot = knot(folder);
        let upstream = knot.address.to_string();
        let started = Instant::now();
        let portolan = portolan(&world.kubeconfig, &upstream);
        let load_to_ready = started.elapsed();

        let listen = free();
        let mut command = pinned(&std::env::current_exe().unwrap());
        let mut echo = peer("echo", listen, command.args(["echo", &listen.to_string()]));
        echo.echoes = true;
        let coredns = coredns(folder, &world.kubeconfig, &upstream);
        let peers = vec![echo, portolan, knot, nsd(folder), coredns];
        let questions = world.questions_cluster_ip();
        for peer in &peers {
            wait(peer, &questions);
        }
        Self { peers, load_to_ready }
    }

    /// All.
    pub(crate) fn all(&self) -> Vec<&Peer> {
        self.peers.iter().collect()
    }

    /// Some.
    pub(crate) fn named(&self, names: &[&str]) -> Vec<&Peer> {
        self.peers.iter().filter(|peer| names.contains(&peer.name)).collect()
    }
}

/// Asks until every reply is right: the peer has loaded all names.
fn wait(peer: &Peer, questions: &[Question]) {
    let deadline = Instant::now() + PATIENCE;
    let checked: Vec<Question> = match peer.echoes {
        true => questions.iter().map(Question::without_check).collect(),
        false => questions.to_vec(),
    };
    loop {
        let load = Load {
            server: peer.address,
            pid: peer.pid,
            rate: 5000,
            time: Duration::from_secs(2),
            questions: &checked,
        };
        let outcome = run_udp(&load);
        if outcome.as_ref().is_ok_and(|outcome| outcome.sent > 0 && outcome.right == outcome.sent) {
            return;
        }
        assert!(Instant::now() < deadline, "{} does not answer: {outcome:?}", peer.name);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A free port for both transports.
fn free() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::net::TcpListener::bind(address).unwrap();
    address
}

/// A command on the first core; the load keeps to the others.
fn pinned(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

fn peer(name: &'static str, address: SocketAddr, command: &mut Command) -> Peer {
    let child = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} is needed for this benchmark: {error}"));
    Peer { name, address, pid: child.id(), echoes: false, child }
}

/// A program of Debian's, in one of the folders that root has on its PATH.
fn debian(program: &str, package: &str) -> PathBuf {
    let found =
        ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(program));
    let found = found.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is needed: install the Debian package {package}"))
}

/// Ours, once it has listed everything. On one core it has one worker.
fn portolan(kubeconfig: &str, upstream: &str) -> Peer {
    let listen = free();
    let mut command = pinned(Path::new(env!("CARGO_BIN_EXE_portolan")));
    command.args(["serve", "--roles=dns", "-o=json", "--http-listen=127.0.0.1:0"]);
    command.arg(format!("--dns-listen={listen}")).arg(format!("--dns-upstream={upstream}"));
    command.args(["--kubeconfig", kubeconfig]).stdout(Stdio::piped());
    let mut portolan = peer("portolan", listen, &mut command);
    let mut line = String::new();
    BufReader::new(portolan.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addresses: Addresses = serde_json::from_str(&line).expect("addresses");
    assert_eq!(addresses.dns.as_deref(), Some(&*listen.to_string()));
    portolan
}

fn knot(folder: &Path) -> Peer {
    let address = free();
    let home = folder.join("knot");
    fs::create_dir_all(&home).unwrap();
    let config = format!(
        "server:\n    rundir: \"{home}\"\n    listen: {ip}@{port}\n    udp-workers: 1\n    \
         tcp-workers: 1\n    background-workers: 1\n\
         database:\n    storage: \"{home}\"\n\
         template:\n  - id: default\n    storage: \"{folder}\"\n    zonefile-sync: -1\n    \
         journal-content: none\n\
         zone:\n  - domain: cluster.local\n    file: cluster.local.zone\n  \
         - domain: example.org\n    file: example.org.zone\n",
        home = home.display(),
        folder = folder.display(),
        ip = address.ip(),
        port = address.port(),
    );
    let path = folder.join("knot.conf");
    fs::write(&path, config).unwrap();
    let mut command = pinned(&debian("knotd", "knot"));
    peer("knot", address, command.arg("-c").arg(path).stdout(Stdio::null()))
}

fn nsd(folder: &Path) -> Peer {
    let address = free();
    let home = folder.join("nsd");
    fs::create_dir_all(&home).unwrap();
    let config = format!(
        "server:\n  ip-address: {ip}@{port}\n  server-count: 1\n  username: \"\"\n  \
         zonesdir: \"{folder}\"\n  pidfile: \"{home}/nsd.pid\"\n  xfrdfile: \"{home}/xfrd.state\"\n  \
         zonelistfile: \"{home}/zone.list\"\n  xfrdir: \"{home}\"\n  logfile: \"{home}/nsd.log\"\n  \
         rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n\
         remote-control:\n  control-enable: no\n\
         zone:\n  name: cluster.local\n  zonefile: cluster.local.zone\n",
        home = home.display(),
        folder = folder.display(),
        ip = address.ip(),
        port = address.port(),
    );
    let path = folder.join("nsd.conf");
    fs::write(&path, config).unwrap();
    let mut command = pinned(&debian("nsd", "nsd"));
    peer("nsd", address, command.args(["-d", "-c"]).arg(path).stdout(Stdio::null()))
}

/// CoreDNS with the default Corefile of a cluster, on ports of its own.
fn coredns(folder: &Path, kubeconfig: &str, upstream: &str) -> Peer {
    let address = free();
    let corefile = format!(
        ".:{port} {{\n    bind 127.0.0.1\n    errors\n    health 127.0.0.1:{health} {{\n       \
         lameduck 5s\n    }}\n    ready 127.0.0.1:{ready}\n    \
         kubernetes cluster.local in-addr.arpa ip6.arpa {{\n       kubeconfig {kubeconfig}\n       \
         pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }}\n    \
         prometheus 127.0.0.1:{metrics}\n    forward . {upstream} {{\n       \
         max_concurrent 1000\n    }}\n    cache 30\n    loop\n    reload\n    loadbalance\n}}\n",
        port = address.port(),
        health = free().port(),
        ready = free().port(),
        metrics = free().port(),
    );
    let path = folder.join("Corefile");
    fs::write(&path, corefile).unwrap();
    let mut command = pinned(&built_coredns());
    command.arg("-conf").arg(path).env("GOMAXPROCS", "1");
    peer("coredns", address, command.stdout(Stdio::null()))
}

/// CoreDNS, where `cargo xtask` has built it.
fn built_coredns() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = root.join("target/conformance/coredns");
    assert!(program.exists(), "CoreDNS is built by cargo xtask bench dns");
    program
}
