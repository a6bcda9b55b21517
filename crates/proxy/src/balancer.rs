//! Which endpoint the next connection goes to.
//!
//! Round robin from a random start, so that proxies which start together do not
//! all begin with the same endpoint. With session affinity a client stays with
//! its endpoint while that one takes traffic and the client comes back in time.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::plan::Plan;

/// Clients that one front remembers. Beyond that the client whose time ends
/// first makes room.
const CLIENTS_MAX: usize = 16_384;

/// Endpoints of a front, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Balancer {
    plan: ArcSwap<Plan>,
    turn: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, Sticky>>,
}

#[derive(Clone, Copy, Debug)]
struct Sticky {
    endpoint: SocketAddr,
    until_ms: u64,
}

impl Balancer {
    pub(crate) fn new(plan: Plan, start: usize) -> Self {
        Self {
            plan: ArcSwap::from_pointee(plan),
            turn: AtomicUsize::new(start),
            clients: Mutex::default(),
        }
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    pub(crate) fn set_plan(&self, plan: Plan) {
        self.plan.store(Arc::new(plan));
    }

    /// The endpoints in the order in which this connection tries them.
    pub(crate) fn order(&self, client: IpAddr, now_ms: u64) -> Vec<SocketAddr> {
        let plan = self.plan.load();
        let count = plan.endpoints.len();
        if count == 0 {
            return Vec::new();
        }
        let mut order = plan.endpoints.clone();
        let sticky = plan.affinity.and_then(|_| self.remembered(client, now_ms));
        match sticky.and_then(|endpoint| order.iter().position(|other| *other == endpoint)) {
            Some(place) => order.rotate_left(place),
            None => order.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % count),
        }
        order
    }

    fn remembered(&self, client: IpAddr, now_ms: u64) -> Option<SocketAddr> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(&client).filter(|sticky| sticky.until_ms > now_ms).map(|sticky| sticky.endpoint)
    }

    /// The connection has reached an endpoint: with affinity, the client's next
    /// ones go there, too.
    pub(crate) fn reached(&self, client: IpAddr, endpoint: SocketAddr, now_ms: u64) {
        let Some(timeout) = self.plan.load().affinity else { return };
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            clients.retain(|_, sticky| sticky.until_ms > now_ms);
            if clients.len() >= CLIENTS_MAX
                && let Some(first) =
                    clients.iter().min_by_key(|(_, sticky)| sticky.until_ms).map(|(ip, _)| *ip)
            {
                clients.remove(&first);
            }
        }
        let until_ms = now_ms.saturating_add(timeout_ms);
        clients.insert(client, Sticky { endpoint, until_ms });
    }
}

/// How long one endpoint is tried. On a laptop a connection is made or refused
/// in microseconds; a second is for endpoints elsewhere.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);

/// Endpoints that one connection tries before it is given up.
pub(crate) const TRIES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use portolan_model::ServiceKey;

    use super::*;

    fn balancer(endpoints: &[u16], affinity: Option<u64>) -> Balancer {
        Balancer::new(plan(endpoints, affinity), 0)
    }

    fn plan(endpoints: &[u16], affinity: Option<u64>) -> Plan {
        Plan {
            service: ServiceKey::kubernetes("demo", "web"),
            endpoints: endpoints.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect(),
            affinity: affinity.map(Duration::from_secs),
        }
    }

    fn first(balancer: &Balancer, client: u8, now_ms: u64) -> u16 {
        balancer.order([10, 0, 0, client].into(), now_ms)[0].port()
    }

    #[test]
    fn goes_round() {
        let balancer = balancer(&[1, 2, 3], None);
        let order: Vec<u16> = (0..6).map(|_| first(&balancer, 1, 0)).collect();
        assert_eq!(order, [1, 2, 3, 1, 2, 3]);
        // The others follow, for when the first refuses.
        let rest: Vec<u16> =
            balancer.order([10, 0, 0, 1].into(), 0).iter().map(SocketAddr::port).collect();
        assert_eq!(rest, [1, 2, 3]);
        balancer.set_plan(plan(&[], None));
        assert!(balancer.order([10, 0, 0, 1].into(), 0).is_empty());
    }

    #[test]
    fn clients_stay_while_they_come_back_and_their_endpoint_lives() {
        let balancer = balancer(&[1, 2, 3], Some(10));
        let connect = |client: u8, now_ms: u64| {
            let ip = [10, 0, 0, client].into();
            let endpoint = balancer.order(ip, now_ms)[0];
            balancer.reached(ip, endpoint, now_ms);
            endpoint.port()
        };
        assert_eq!(connect(1, 0), 1);
        assert_eq!(connect(2, 0), 2);
        assert_eq!(connect(1, 9_999), 1);
        // Refreshed by the connection before.
        assert_eq!(connect(1, 19_000), 1);
        assert_eq!(connect(1, 29_000), 3, "its time is over: its turn as everyone's");
        balancer.set_plan(plan(&[1, 2], Some(10)));
        assert_ne!(connect(1, 29_500), 3, "its endpoint is gone");
    }

    #[test]
    fn forgets_rather_than_grows() {
        let balancer = balancer(&[1], Some(10));
        for client in 0..CLIENTS_MAX as u32 + 100 {
            balancer.reached(IpAddr::V4(client.into()), ([127, 0, 0, 1], 1).into(), 0);
        }
        assert_eq!(balancer.clients.lock().unwrap().len(), CLIENTS_MAX);
    }
}
