//! The desk: keeps open fronts equal to plans.
//!
//! Each service claims the fronts of its plans. A front that two services claim
//! goes to the first by key; the other has a problem until it is free. A change
//! of the catalog touches the fronts of the services that changed, and no other
//! socket. What cannot be opened is a problem with a reason; it is tried again
//! now and then, as the one who holds a port may leave.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use portolan_catalog::ServiceEntry;
use portolan_model::{Code, Face, Problem, Reason, ServiceKey, Transport};
use portolan_runtime::FaceProblems;
use tracing::{debug, info, warn};

use crate::{
    balancer::Balancer,
    bind::reason,
    plan::{Front, Plan, Rules, plans},
    server::Shared,
    tcp::TcpFront,
    udp::UdpFront,
};

/// The problems of the proxy, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct ProblemList(Mutex<Vec<Problem>>);

impl FaceProblems for ProblemList {
    fn problems(&self) -> Vec<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpFront),
    /// Closed while there are no endpoints: the kernel then tells clients that
    /// nobody listens, which an open socket cannot.
    Udp(Option<UdpFront>),
}

#[derive(Debug)]
struct Open {
    balancer: Arc<Balancer>,
    socket: Socket,
}

/// Keeps open fronts equal to plans.
#[derive(Debug)]
pub(crate) struct Desk {
    shared: Arc<Shared>,
    rules: Rules,
    claims: BTreeMap<Front, BTreeMap<ServiceKey, Plan>>,
    open: BTreeMap<Front, Open>,
    /// Of fronts, and of ports that can have none.
    problems: BTreeMap<(ServiceKey, u16, Option<Front>), Reason>,
    list: Arc<ProblemList>,
    /// Whether addresses of IPv4 and IPv6 that are not local have been logged:
    /// every service has one, and one line says it.
    told_not_local: [bool; 2],
}

impl Desk {
    pub(crate) fn new(shared: Arc<Shared>, rules: Rules, list: Arc<ProblemList>) -> Self {
        Self {
            shared,
            rules,
            claims: BTreeMap::new(),
            open: BTreeMap::new(),
            problems: BTreeMap::new(),
            list,
            told_not_local: [false; 2],
        }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Replaces everything: all services, under rules that may be new.
    pub(crate) async fn reset<'e>(
        &mut self,
        rules: Rules,
        entries: impl Iterator<Item = &'e ServiceEntry>,
    ) {
        self.rules = rules;
        let mut touched: BTreeSet<Front> = self.claims.keys().copied().collect();
        self.claims.clear();
        self.problems.retain(|(_, _, front), _| front.is_some());
        for entry in entries {
            self.claim(entry, &mut touched);
        }
        self.settle_all(touched).await;
    }

    /// Follows changes of services.
    pub(crate) async fn change<'e>(
        &mut self,
        changes: impl Iterator<Item = (Option<&'e ServiceEntry>, Option<&'e ServiceEntry>)>,
    ) {
        let mut touched = BTreeSet::new();
        for (before, after) in changes {
            if let Some(before) = before {
                self.disclaim(before, &mut touched);
            }
            if let Some(after) = after {
                self.claim(after, &mut touched);
            }
        }
        self.settle_all(touched).await;
    }

    /// Tries again what could not be opened; addresses that are not local only
    /// where asked for.
    pub(crate) async fn retry(&mut self, not_local: bool) {
        let failed: BTreeSet<Front> = self
            .problems
            .iter()
            .filter(|(_, why)| not_local || why.code != Code::ADDRESS_NOT_LOCAL)
            .filter_map(|((_, _, front), _)| *front)
            .collect();
        if !failed.is_empty() {
            self.settle_all(failed).await;
        }
    }

    fn claim(&mut self, entry: &ServiceEntry, touched: &mut BTreeSet<Front>) {
        let key = &entry.service.key;
        let (fronts, impossible) = plans(entry, &self.rules);
        for (front, plan) in fronts {
            touched.insert(front);
            self.claims.entry(front).or_default().insert(key.clone(), plan);
        }
        for (port, why) in impossible {
            self.has_problem(key, port, None, why);
        }
    }

    fn disclaim(&mut self, entry: &ServiceEntry, touched: &mut BTreeSet<Front>) {
        let key = &entry.service.key;
        for front in plans(entry, &self.rules).0.into_keys() {
            touched.insert(front);
            if let Some(claims) = self.claims.get_mut(&front) {
                claims.remove(key);
                if claims.is_empty() {
                    self.claims.remove(&front);
                }
            }
        }
        self.problems.retain(|(service, _, front), _| service != key || front.is_some());
    }

    async fn settle_all(&mut self, fronts: BTreeSet<Front>) {
        for front in fronts {
            self.settle(front).await;
        }
        self.shared.metrics.fronts.set(i64::try_from(self.open.len()).unwrap_or(i64::MAX));
        self.shared.metrics.problems.set(i64::try_from(self.problems.len()).unwrap_or(i64::MAX));
        let all = self.problems.iter().map(|((service, port, _), reason)| Problem {
            face: Face::Proxy,
            service: service.clone(),
            port: *port,
            reason: reason.clone(),
        });
        *self.list.0.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
    }

    /// Makes one front what its claims say.
    async fn settle(&mut self, front: Front) {
        let claims: Vec<(ServiceKey, Plan)> = self
            .claims
            .get(&front)
            .into_iter()
            .flatten()
            .map(|(key, plan)| (key.clone(), plan.clone()))
            .collect();
        let port = front.address.port();
        let mut claims = claims.into_iter();
        let mut reasons: Vec<(ServiceKey, Reason)> = Vec::new();
        match claims.next() {
            None => self.close(front).await,
            Some((key, plan)) => {
                if let Err(error) = self.serve(front, plan).await {
                    reasons.push((key.clone(), reason(front, &error)));
                    self.close(front).await;
                }
                for (other, _) in claims {
                    let detail = format!("{front}: service {key} has it.");
                    reasons.push((other, Reason::new(Code::PORT_TAKEN, detail)));
                }
            }
        }
        let solved: Vec<_> = self
            .problems
            .keys()
            .filter(|(key, _, of)| {
                *of == Some(front) && reasons.iter().all(|(other, _)| other != key)
            })
            .cloned()
            .collect();
        for problem in solved {
            self.problems.remove(&problem);
            info!(service = %problem.0, %front, "a virtual port has no problem any more");
        }
        for (key, why) in reasons {
            self.has_problem(&key, port, Some(front), why);
        }
    }

    /// Opens or changes a front.
    async fn serve(&mut self, front: Front, plan: Plan) -> io::Result<()> {
        let shared = &self.shared;
        let Some(open) = self.open.get_mut(&front) else {
            let balancer = Arc::new(Balancer::new(plan, rand::random_range(0..1 << 16)));
            let socket = match front.transport {
                Transport::Udp => Socket::Udp(None),
                _ => Socket::Tcp(TcpFront::open(front, shared.clone())?),
            };
            let open = self.open.entry(front).or_insert(Open { balancer, socket });
            return adapt(front, open, shared).await;
        };
        if *open.balancer.plan() != plan {
            open.balancer.set_plan(plan);
        }
        adapt(front, open, shared).await
    }

    async fn close(&mut self, front: Front) {
        if let Some(Open { socket: Socket::Udp(Some(socket)), .. }) = self.open.remove(&front) {
            socket.close().await;
        }
    }

    /// Notes a problem, and logs it when it is new.
    fn has_problem(&mut self, key: &ServiceKey, port: u16, front: Option<Front>, why: Reason) {
        let known = self.problems.insert((key.clone(), port, front), why.clone());
        if known.is_some_and(|known| known.code == why.code) {
            return;
        }
        let family = usize::from(front.is_some_and(|front| front.address.is_ipv6()));
        if why.code == Code::ADDRESS_NOT_LOCAL
            && std::mem::replace(&mut self.told_not_local[family], true)
        {
            debug!(service = %key, port, "{why}");
            return;
        }
        warn!(service = %key, port, fix = why.fix(), "{why}");
    }
}

/// Makes a front listen or refuse, as its plan has endpoints or not.
async fn adapt(front: Front, open: &mut Open, shared: &Arc<Shared>) -> io::Result<()> {
    let plan = open.balancer.plan();
    match &mut open.socket {
        Socket::Tcp(socket) if plan.endpoints.is_empty() => socket.refuse(),
        Socket::Tcp(socket) => socket.listen(&open.balancer)?,
        Socket::Udp(socket) if plan.endpoints.is_empty() => {
            if let Some(socket) = socket.take() {
                socket.close().await;
            }
        }
        Socket::Udp(Some(socket)) => socket.keep(&plan.endpoints),
        Socket::Udp(socket) => *socket = Some(UdpFront::open(front, &open.balancer, shared)?),
    }
    Ok(())
}
