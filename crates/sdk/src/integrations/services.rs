//! tower: the instances that take calls as a `Discover`, and a service that chooses one of them
//! for each request.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::{Stream, stream};
use tower::{Service, ServiceExt, discover::Change};

use crate::{Balancer, CallError, Instance, Subscription};

/// Any error, as tower's own services have it.
pub type BoxError = tower::BoxError;

/// The instances that take calls, each as what `make` makes of it: a `tower::discover::Discover`,
/// for `tower::balance::p2c::Balance` and others. That knows no weights; [`Balanced`] does.
///
/// An instance is known by its address. It is made anew when it comes back, and not when it says
/// something else than before. The stream ends when the subscription does.
pub fn discover<S>(
    subscription: Subscription,
    mut make: impl FnMut(&Arc<Instance>) -> S + Send + 'static,
) -> impl Stream<Item = Result<Change<SocketAddr, S>, std::convert::Infallible>> + Send + Unpin
where
    S: Send + 'static,
{
    type State =
        (Subscription, bool, BTreeSet<SocketAddr>, VecDeque<(SocketAddr, Option<Arc<Instance>>)>);
    let state: State = (subscription, true, BTreeSet::new(), VecDeque::new());
    let steps =
        stream::unfold(state, async |(mut subscription, mut first, mut known, mut steps)| {
            loop {
                if let Some(step) = steps.pop_front() {
                    return Some((step, (subscription, first, known, steps)));
                }
                let snapshot =
                    if first { Some(subscription.current()) } else { subscription.changed().await };
                first = false;
                let snapshot = snapshot?;
                let now: BTreeMap<SocketAddr, &Arc<Instance>> =
                    snapshot.available().iter().map(|one| (one.socket_address(), one)).collect();
                // Who is new comes first, so that there is no moment with nobody.
                for (at, one) in &now {
                    if known.insert(*at) {
                        steps.push_back((*at, Some((*one).clone())));
                    }
                }
                let gone: Vec<SocketAddr> =
                    known.iter().filter(|at| !now.contains_key(*at)).copied().collect();
                for at in gone {
                    known.remove(&at);
                    steps.push_back((at, None));
                }
            }
        });
    Box::pin(futures_util::StreamExt::map(steps, move |(at, one)| {
        Ok(match one {
            Some(one) => Change::Insert(at, make(&one)),
            None => Change::Remove(at),
        })
    }))
}

type Make<S> = dyn Fn(&Instance) -> S + Send + Sync;
type IsFine<R> = dyn Fn(&R) -> bool + Send + Sync;

/// A service that gives each request to the instance which a [`Balancer`] chooses for it, and
/// tells the balancer how it went. Cheap to clone.
///
/// It is always ready: readiness is of the service that is chosen, and waited for there.
pub struct Balanced<S, R> {
    balancer: Arc<Balancer>,
    make: Arc<Make<S>>,
    is_fine: Arc<IsFine<R>>,
    made: Arc<Mutex<HashMap<SocketAddr, S>>>,
}

impl<S, R> Clone for Balanced<S, R> {
    fn clone(&self) -> Self {
        Self {
            balancer: self.balancer.clone(),
            make: self.make.clone(),
            is_fine: self.is_fine.clone(),
            made: self.made.clone(),
        }
    }
}

impl<S, R> fmt::Debug for Balanced<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced").field("balancer", &self.balancer).finish_non_exhaustive()
    }
}

impl<S: Clone, R> Balanced<S, R> {
    /// Balances over what `make` makes of each instance, once.
    pub fn new(balancer: Balancer, make: impl Fn(&Instance) -> S + Send + Sync + 'static) -> Self {
        Self {
            balancer: Arc::new(balancer),
            make: Arc::new(make),
            is_fine: Arc::new(|_| true),
            made: Arc::default(),
        }
    }

    /// Which answers are as bad as none (status 503, say); errors always are.
    #[must_use]
    pub fn fine_if(mut self, is_fine: impl Fn(&R) -> bool + Send + Sync + 'static) -> Self {
        self.is_fine = Arc::new(is_fine);
        self
    }

    /// The balancer.
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    fn service(&self, instance: &Instance) -> S {
        let at = instance.socket_address();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = made.get(&at) {
            return service.clone();
        }
        // Somebody new has come, so perhaps somebody has gone.
        let current = self.balancer.subscription().current();
        made.retain(|at, _| current.instances().iter().any(|one| one.socket_address() == *at));
        made.entry(at).or_insert_with(|| (self.make)(instance)).clone()
    }
}

impl<Q, S> Service<Q> for Balanced<S, S::Response>
where
    Q: Send + 'static,
    S: Service<Q> + Clone + Send + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Q) -> Self::Future {
        let Some(pick) = self.balancer.pick() else {
            let interface = self.balancer.subscription().interface().to_owned();
            let nobody = CallError::<std::convert::Infallible>::Nobody(interface);
            return Box::pin(async move { Err(nobody.into()) });
        };
        let service = self.service(&pick);
        let is_fine = self.is_fine.clone();
        Box::pin(async move {
            let outcome = service.oneshot(request).await.map_err(Into::into);
            match &outcome {
                Ok(response) if is_fine(response) => pick.succeeded(),
                _ => pick.failed(),
            }
            outcome
        })
    }
}
