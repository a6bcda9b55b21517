//! reqwest: names of services as hosts of URLs.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use rand::seq::SliceRandom;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::Balancer;

/// Resolves the names of services to instances, one that the balancer chooses first; other names
/// as the system does.
///
/// reqwest resolves once for each connection and keeps connections, so requests stay with an
/// instance for as long as its connection is kept; the port is the instance's, unless the URL has
/// one. For a choice with every request call through [`Balancer::failover`] and make the URL of
/// [`Instance::socket_address`](crate::Instance::socket_address).
///
/// ```no_run
/// # fn client(reviews: portolan_sdk::Subscription) -> reqwest::Result<reqwest::Client> {
/// use std::sync::Arc;
/// use portolan_sdk::{Balancer, Resolver};
///
/// let resolver = Resolver::new().with("reviews", Balancer::new(reviews));
/// // GET http://reviews/stars
/// reqwest::Client::builder().dns_resolver(resolver).build()
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    by_name: HashMap<String, Arc<Balancer>>,
}

impl Resolver {
    /// Knows no service yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows one service more. Hosts of URLs know no case.
    #[must_use]
    pub fn with(mut self, host: &str, balancer: Balancer) -> Self {
        self.by_name.insert(host.to_ascii_lowercase(), Arc::new(balancer));
        self
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_ascii_lowercase();
        let Some(balancer) = self.by_name.get(&host) else {
            return Box::pin(async move {
                // Port 0: reqwest puts the one of the URL's scheme in its place.
                let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
                Ok(Box::new(found.into_iter()) as Addrs)
            });
        };
        let first = balancer.pick().map(|pick| pick.socket_address());
        let snapshot = balancer.subscription().current();
        let mut others: Vec<SocketAddr> =
            snapshot.available().iter().map(|one| one.socket_address()).collect();
        others.retain(|at| Some(*at) != first);
        others.sort();
        others.dedup();
        // Those that are tried when the first refuses.
        others.shuffle(&mut rand::rng());
        let all: Vec<SocketAddr> = first.into_iter().chain(others).collect();
        Box::pin(async move {
            if all.is_empty() {
                return Err(format!("no instance of {host} is available").into());
            }
            Ok(Box::new(all.into_iter()) as Addrs)
        })
    }
}
