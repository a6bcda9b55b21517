//! What the tests work with: a proxy, a world of services, and endpoints that
//! answer with their own names.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use portolan_catalog::Snapshot;
use portolan_model::{Endpoint, Face, Service, ServiceKey, Transport};
use portolan_proxy::{Config, Running, start};
use portolan_runtime::{Metrics, Readiness, Shutdown, SystemClock, Tasks};
use portolan_testkit::{Live, World, cluster_ip, endpoint, port};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

/// Long enough for a machine that is busy with other tests; nothing waits for
/// it unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy in front of a world.
pub(crate) struct Bench {
    pub(crate) live: Live,
    pub(crate) running: Running,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Metrics,
    tasks: Tasks,
}

impl Bench {
    pub(crate) async fn start(world: &World) -> Self {
        Self::with(world, Config::default()).await
    }

    pub(crate) async fn with(world: &World, config: Config) -> Self {
        let live = Live::new(world);
        let (readiness, tasks) = (Readiness::new(), Tasks::new(Shutdown::new()));
        let metrics = Metrics::new();
        let running =
            start(config, live.hub().clone(), Arc::new(SystemClock), &metrics, &readiness, &tasks)
                .await
                .unwrap();
        Self { live, running, readiness, metrics, tasks }
    }

    /// Changes the world and waits until the proxy says that it serves it.
    pub(crate) async fn set(&mut self, world: &World) -> Arc<Snapshot> {
        let snapshot = self.live.set(world);
        let board = self.live.hub().board();
        let mut changed = board.watch();
        timeout(PATIENCE, async {
            while !board.convergence(snapshot.version(), &[Face::Proxy]).is_reached() {
                changed.changed().await.unwrap();
            }
        })
        .await
        .expect("the proxy does not acknowledge");
        snapshot
    }

    pub(crate) async fn stop(self) {
        self.tasks.shutdown().cancel();
        self.tasks.finish(PATIENCE).await;
    }
}

/// A virtual IP that no other test has, in this process or another.
pub(crate) fn virtual_ip() -> IpAddr {
    let [a, b]: [u8; 2] = rand::random();
    [127, 97, a, b.clamp(1, 254)].into()
}

/// The port of all virtual IPs here: not privileged.
pub(crate) const PORT: u16 = 8081;

/// Service demo/web on a virtual IP with these endpoints, ports named `main`.
pub(crate) fn web(ip: IpAddr, transport: Transport, endpoints: &[SocketAddr]) -> World {
    web_as(ip, transport, endpoints, |_| {})
}

pub(crate) fn web_as(
    ip: IpAddr,
    transport: Transport,
    endpoints: &[SocketAddr],
    edit: impl FnOnce(&mut Service),
) -> World {
    let mut service = cluster_ip("demo", "web", &[ip], vec![port("main", transport, PORT)]);
    edit(&mut service);
    let list: Vec<Endpoint> = endpoints
        .iter()
        .map(|socket| endpoint(socket.ip(), &[("main", transport, socket.port())]))
        .collect();
    World::new().service(service).endpoints("web-1", &ServiceKey::kubernetes("demo", "web"), list)
}

/// A TCP endpoint: says its name, then echoes until the client has said all,
/// then says goodbye.
pub(crate) async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                    // The client may be gone; then nobody misses it.
                    drop(writer.write_all(b"bye").await);
                }
            });
        }
    });
    address
}

/// A UDP endpoint: answers each datagram with its name and the datagram.
pub(crate) async fn udp_echo(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = vec![0; 65_535];
        while let Ok((length, client)) = socket.recv_from(&mut datagram).await {
            let reply = [name.as_bytes(), &datagram[..length]].concat();
            socket.send_to(&reply, client).await.unwrap();
        }
    });
    address
}

/// An address where nobody listens, and where nobody will.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((virtual_ip(), 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// Connects and reads the name (one letter) of the endpoint behind.
pub(crate) async fn connect(front: SocketAddr) -> std::io::Result<(TcpStream, char)> {
    let mut stream = TcpStream::connect(front).await?;
    let mut name = [0];
    timeout(PATIENCE, stream.read_exact(&mut name)).await.expect("neither a name nor an end")?;
    Ok((stream, char::from(name[0])))
}
