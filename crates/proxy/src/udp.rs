//! UDP fronts: a flow per client address, each with a socket of its own towards
//! its endpoint.
//!
//! A flow ends when nothing passes for a while, when its endpoint refuses, or
//! when the endpoint leaves the service: datagrams of the same client then begin
//! a new one, elsewhere. Unlike a TCP connection a flow has no state that a new
//! endpoint could not take over.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use portolan_runtime::Shutdown;
use tokio::{
    net::UdpSocket,
    sync::{OwnedSemaphorePermit, TryAcquireError},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::{
    balancer::{Balancer, TRIES_MAX},
    bind,
    plan::Front,
    server::Shared,
};

/// A flow ends after this time without a datagram either way: the kernel's
/// nf_conntrack_udp_timeout, which kube-proxy's flows live by.
const IDLE: Duration = Duration::from_secs(30);

/// The longest datagram.
const DATAGRAM_MAX: usize = 65_535;

/// How long closing a front waits for its tasks; they wait for nothing but to
/// be told.
const CLOSE: Duration = Duration::from_secs(1);

/// An open front.
#[derive(Debug)]
pub(crate) struct UdpFront {
    stop: Shutdown,
    tasks: TaskTracker,
    flows: Arc<Flows>,
}

#[derive(Debug, Default)]
struct Flows {
    by_client: Mutex<HashMap<SocketAddr, Arc<Flow>>>,
}

#[derive(Debug)]
struct Flow {
    endpoint: SocketAddr,
    socket: UdpSocket,
    /// Milliseconds since the front was opened.
    used_ms: AtomicU64,
    stop: Shutdown,
    _permit: OwnedSemaphorePermit,
}

impl UdpFront {
    pub(crate) fn open(
        front: Front,
        balancer: &Arc<Balancer>,
        shared: &Arc<Shared>,
    ) -> io::Result<Self> {
        let stop = shared.shutdown.child_token();
        let tasks = TaskTracker::new();
        let flows = Arc::new(Flows::default());
        let hub = Hub {
            socket: Arc::new(bind::udp(front)?),
            balancer: balancer.clone(),
            shared: shared.clone(),
            flows: flows.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            opened: Instant::now(),
        };
        tasks.spawn(hub.receive());
        Ok(Self { stop, tasks, flows })
    }

    /// Ends the flows whose endpoint is no longer among these.
    pub(crate) fn keep(&self, endpoints: &[SocketAddr]) {
        self.flows.lock().retain(|_, flow| {
            let keep = endpoints.contains(&flow.endpoint);
            if !keep {
                flow.stop.cancel();
            }
            keep
        });
    }

    /// Closes the socket; returns once the port is free, so that it can be bound
    /// again at once.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.flows.lock().clear();
        self.tasks.close();
        if timeout(CLOSE, self.tasks.wait()).await.is_err() {
            debug!("a UDP front is slow to close");
        }
    }
}

impl Flows {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Arc<Flow>>> {
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, client: SocketAddr) -> Option<Arc<Flow>> {
        self.lock().get(&client).cloned()
    }

    fn remove(&self, client: SocketAddr, flow: &Arc<Flow>) {
        let mut flows = self.lock();
        if flows.get(&client).is_some_and(|current| Arc::ptr_eq(current, flow)) {
            flows.remove(&client);
        }
        flow.stop.cancel();
    }

    /// Ends the flow that was used longest ago. False: there is none.
    fn evict(&self) -> bool {
        let mut flows = self.lock();
        let oldest = flows
            .iter()
            .min_by_key(|(_, flow)| flow.used_ms.load(Ordering::Relaxed))
            .map(|(client, _)| *client);
        let Some(flow) = oldest.and_then(|client| flows.remove(&client)) else { return false };
        flow.stop.cancel();
        true
    }
}

/// What the tasks of a front share.
#[derive(Clone)]
struct Hub {
    socket: Arc<UdpSocket>,
    balancer: Arc<Balancer>,
    shared: Arc<Shared>,
    flows: Arc<Flows>,
    tasks: TaskTracker,
    stop: Shutdown,
    opened: Instant,
}

impl Hub {
    async fn receive(self) {
        let mut datagram = Vec::with_capacity(DATAGRAM_MAX);
        loop {
            datagram.clear();
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                received = self.socket.recv_buf_from(&mut datagram) => received,
            };
            match received {
                Ok((_, client)) if client.port() != 0 => self.forward(client, &datagram).await,
                Ok(_) => self.shared.metrics.udp_dropped("bad_source"),
                // A client that is gone by the time of a reply is told here.
                Err(error) => debug!(%error, "receiving failed"),
            }
        }
    }

    /// Sends a datagram on, by the client's flow or a new one. An endpoint that
    /// has refused an earlier datagram is told by the next send: then the
    /// datagram goes to another one.
    async fn forward(&self, client: SocketAddr, datagram: &[u8]) {
        let mut refused = None;
        for _ in 0..TRIES_MAX {
            let flow = match self.flows.get(client) {
                Some(flow) => flow,
                None => match self.begin(client, refused).await {
                    Ok(flow) => flow,
                    Err(reason) => return self.shared.metrics.udp_dropped(reason),
                },
            };
            self.touch(&flow);
            match flow.socket.send(datagram).await {
                Ok(_) => return,
                Err(error) => {
                    debug!(endpoint = %flow.endpoint, %error, "an endpoint does not take a datagram");
                    refused = Some(flow.endpoint);
                    self.flows.remove(client, &flow);
                }
            }
        }
        self.shared.metrics.udp_dropped("all_failed");
    }

    async fn begin(
        &self,
        client: SocketAddr,
        refused: Option<SocketAddr>,
    ) -> Result<Arc<Flow>, &'static str> {
        let now_ms = self.shared.clock.unix_ms();
        let order = self.balancer.order(client.ip(), now_ms);
        let other = order.iter().find(|endpoint| Some(**endpoint) != refused);
        let endpoint = *other.or(order.first()).ok_or("no_endpoints")?;
        let permit = self.permit()?;
        let any: IpAddr = match endpoint {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await.map_err(|_| "no_socket")?;
        socket.connect(endpoint).await.map_err(|_| "no_route")?;
        self.balancer.reached(client.ip(), endpoint, now_ms);
        let flow = Arc::new(Flow {
            endpoint,
            socket,
            used_ms: AtomicU64::new(self.now_ms()),
            stop: self.stop.child_token(),
            _permit: permit,
        });
        self.flows.lock().insert(client, flow.clone());
        self.tasks.spawn(self.clone().answer(client, flow.clone()));
        Ok(flow)
    }

    /// Room for one more flow. At the limit the oldest of this front makes room:
    /// most flows are a question and an answer, and only wait to be forgotten.
    fn permit(&self) -> Result<OwnedSemaphorePermit, &'static str> {
        let acquire = || self.shared.flows.clone().try_acquire_owned();
        match acquire() {
            Err(TryAcquireError::NoPermits) if self.flows.evict() => {
                // The permit comes free when the flow's task ends; this datagram
                // may come a moment too early and is then sent again by its client.
                acquire().map_err(|_| "limit")
            }
            other => other.map_err(|_| "limit"),
        }
    }

    /// Brings the endpoint's datagrams back to the client, until the flow ends.
    async fn answer(self, client: SocketAddr, flow: Arc<Flow>) {
        self.shared.metrics.udp_flows.inc();
        let mut datagram = Vec::with_capacity(DATAGRAM_MAX);
        loop {
            datagram.clear();
            let received = tokio::select! {
                biased;
                () = flow.stop.cancelled() => break,
                received = timeout(IDLE, flow.socket.recv_buf(&mut datagram)) => received,
            };
            match received {
                Ok(Ok(_)) => {
                    self.touch(&flow);
                    if let Err(error) = self.socket.send_to(&datagram, client).await {
                        debug!(%client, %error, "a client does not take a datagram");
                    }
                }
                Ok(Err(error)) => {
                    debug!(endpoint = %flow.endpoint, %error, "an endpoint refuses");
                    break;
                }
                Err(_) if self.is_idle(&flow) => break,
                Err(_) => {}
            }
        }
        self.flows.remove(client, &flow);
        self.shared.metrics.udp_flows.dec();
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn touch(&self, flow: &Flow) {
        flow.used_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn is_idle(&self, flow: &Flow) -> bool {
        let idle_ms = u64::try_from(IDLE.as_millis()).unwrap_or(u64::MAX);
        self.now_ms().saturating_sub(flow.used_ms.load(Ordering::Relaxed)) >= idle_ms
    }
}
