//! How services reach each other: by name through DNS and the virtual IP, or by
//! subscription with a balancer in the client.

use std::{net::SocketAddr, time::Duration};

use portolan_sdk::{Balancer, Call, Policy, Registered, Registration, Registry};
use serde_json::Value;
use thiserror::Error;

use crate::{Service, lookup};

/// One call may take so long; the demo's services answer in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Other instances that are tried when one refuses the connection: the request
/// was never sent, so sending it elsewhere is safe.
const TRIES: usize = 3;

/// A call did not get its answer.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    /// The name has no address.
    #[error("cannot resolve {0}: {1}")]
    Lookup(String, std::io::Error),
    /// Nobody offers the interface now.
    #[error("no instance of {0} is available")]
    Nobody(&'static str),
    /// The service did not answer.
    #[error("{0} does not answer: {1}")]
    Http(String, reqwest::Error),
}

/// Makes calls.
pub(crate) struct Caller {
    http: reqwest::Client,
}

impl Caller {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        // A fresh connection for each call, so that the virtual IP may choose
        // another endpoint each time, as the demo wants to show.
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .no_proxy()
            .build()?;
        Ok(Self { http })
    }

    /// Calls a Service of the own namespace: DNS name, virtual IP, any endpoint.
    pub(crate) async fn by_name(
        &self,
        service: &str,
        port: u16,
        path: &str,
    ) -> Result<Value, CallError> {
        let namespace = std::env::var("NAMESPACE").unwrap_or_else(|_| "demo".to_owned());
        let name = format!("{service}.{namespace}.svc.cluster.local");
        let address =
            lookup::address(&name).await.map_err(|error| CallError::Lookup(name, error))?;
        let address = SocketAddr::new(address, port);
        self.get(address, path).await.map_err(|error| CallError::Http(service.to_owned(), error))
    }

    async fn get(&self, address: SocketAddr, path: &str) -> reqwest::Result<Value> {
        self.http
            .get(format!("http://{address}{path}"))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await
    }
}

/// Registers a service on its own Pod, once it listens.
pub(crate) async fn register(
    service: &Service,
    listen: SocketAddr,
) -> Result<Registered, portolan_sdk::Error> {
    let registry = Registry::from_env().await?;
    let registration = Registration {
        version: Some(service.version.clone()),
        methods: vec!["reviews".to_owned()],
        ..Registration::new(&service.name, "http", listen)
    };
    registry.register(registration).await
}

/// The processes that offer an interface, each in its turn.
pub(crate) struct Reviews {
    balancer: Balancer,
}

/// Follows the processes that offer `reviews`.
pub(crate) async fn subscribe() -> Result<Reviews, portolan_sdk::Error> {
    let registry = Registry::from_env().await?;
    // In turn, so that whoever looks sees one version after the other.
    let reviews = Balancer::builder(registry.subscribe("reviews").await?);
    Ok(Reviews { balancer: reviews.policy(Policy::RoundRobin).build() })
}

impl Reviews {
    /// Calls the next process; where the connection is refused, the one after.
    pub(crate) async fn call(&self, caller: &Caller, path: &str) -> Result<Value, CallError> {
        let mut tried = Vec::new();
        loop {
            let call = Call { tried: &tried, ..Call::default() };
            let Some(pick) = self.balancer.pick_for(&call) else {
                return Err(CallError::Nobody("reviews"));
            };
            let address = pick.socket_address();
            match caller.get(address, path).await {
                Ok(answer) => {
                    pick.succeeded();
                    return Ok(answer);
                }
                Err(error) => {
                    pick.failed();
                    if !error.is_connect() || tried.len() + 1 == TRIES {
                        return Err(CallError::Http("reviews".to_owned(), error));
                    }
                    tried.push(address);
                }
            }
        }
    }
}
