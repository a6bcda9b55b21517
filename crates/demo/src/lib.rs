//! The services of `portolan up --demo`: the BookInfo shape as small processes.
//!
//! ```text
//!   you ──▶ productpage ──▶ details                  by DNS name and virtual IP
//!               └─────────▶ reviews v1 v2 v3         by subscription, balanced in the client
//!                              └──▶ ratings          by DNS name and virtual IP (v2, v3)
//! ```
//!
//! `reviews` registers itself on its own Pod; `productpage` subscribes to it and
//! balances over the processes it finds. Everything here is what any program
//! could do with the SDK, a DNS query and HTTP.

#![forbid(unsafe_code)]

mod call;
mod lookup;
mod pages;

use std::{net::SocketAddr, sync::Arc};

use thiserror::Error;
use tokio::net::TcpListener;

pub use pages::MANIFESTS;

/// The namespace of the demo.
pub const NAMESPACE: &str = "demo";

/// The port of every service of the demo.
pub const PORT: u16 = 9080;

/// One service, as its Pod starts it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `productpage`, `details`, `reviews` or `ratings`.
    pub service: String,
    /// `v1`, `v2`, `v3`.
    pub version: String,
    /// Where to listen; by default the Pod's address.
    pub listen: Option<SocketAddr>,
}

/// A service could not run.
#[derive(Debug, Error)]
pub enum Failure {
    /// No such service.
    #[error("{0:?} is no service of the demo; there are productpage, details, reviews, ratings")]
    Unknown(String),
    /// It runs in no Pod.
    #[error("{0} is not set: the demo's services run as Pods; give --listen to run one by hand")]
    Environment(&'static str),
    /// The port is taken.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The registry refused.
    #[error("cannot use the registry on Pods")]
    Registry(#[from] portolan_sdk::Error),
    /// HTTP could not be set up.
    #[error("cannot set up HTTP")]
    Http(#[from] reqwest::Error),
    /// The server ended.
    #[error("the server ended")]
    Served(#[from] std::io::Error),
}

/// What every service knows of itself.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) pod: String,
    pub(crate) caller: call::Caller,
}

/// Runs one service until it is asked to end (SIGTERM).
pub async fn run(config: Config) -> Result<(), Failure> {
    let environment =
        |name: &'static str| std::env::var(name).map_err(|_| Failure::Environment(name));
    let listen = match config.listen {
        Some(listen) => listen,
        None => {
            let ip = environment("POD_IP")?;
            let ip = ip.parse().map_err(|_| Failure::Environment("POD_IP"))?;
            SocketAddr::new(ip, PORT)
        }
    };
    let service = Arc::new(Service {
        name: config.service.clone(),
        version: config.version,
        pod: environment("POD_NAME").unwrap_or_else(|_| listen.to_string()),
        caller: call::Caller::new()?,
    });
    let listener = TcpListener::bind(listen).await.map_err(|e| Failure::Listen(listen, e))?;
    let (router, registration) = match config.service.as_str() {
        "details" => (pages::details(service), None),
        "ratings" => (pages::ratings(service), None),
        "reviews" => {
            let registration = call::register(&service, listen).await?;
            (pages::reviews(service), Some(registration))
        }
        "productpage" => {
            let reviews = call::subscribe().await?;
            (pages::productpage(service, reviews), None)
        }
        _ => return Err(Failure::Unknown(config.service)),
    };
    axum::serve(listener, router).with_graceful_shutdown(asked_to_end(registration)).await?;
    Ok(())
}

/// Waits for SIGTERM, then takes the registration back, so that subscribers
/// stop calling before the last answer is given.
async fn asked_to_end(registration: Option<portolan_sdk::Registered>) {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    if let Ok(mut terminate) = terminate {
        terminate.recv().await;
    }
    if let Some(registration) = registration
        && let Err(error) = registration.deregister().await
    {
        tracing::warn!(%error, "could not take the registration back");
    }
}
