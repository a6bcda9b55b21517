//! What a process links: register, find, subscribe, balance.
//!
//! The registry is the Kubernetes API, and nothing else has to run. A process
//! writes what it offers onto its own Pod; whoever wants to call it watches
//! the Pods of the namespace:
//!
//! ```text
//!   provider                    Kubernetes API                     consumer
//!   register() ──PATCH label──▶     Pod     ◀──LIST, WATCH by label── subscribe()
//!              ──PATCH annotation─▶                                      │
//!                                                  Snapshot ◀── cache ◀──┘
//!                                                     │
//!                                                  Balancer ── pick() ──▶ Instance
//! ```
//!
//! A provider registers once it listens, and deregisters before it stops:
//!
//! ```no_run
//! # async fn provide() -> Result<(), portolan_sdk::Error> {
//! use portolan_sdk::{Registration, Registry};
//!
//! let registry = Registry::from_env().await?;
//! let reviews = Registration {
//!     version: Some("v1".into()),
//!     methods: vec!["list".into()],
//!     ..Registration::new("reviews", "http", ([127, 10, 0, 7], 9080).into())
//! };
//! let registered = registry.register(reviews).await?;
//! portolan_sdk::terminated().await;
//! // Callers hear of it before the process stops.
//! registered.drain(std::time::Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```
//!
//! A consumer subscribes once and picks for each call:
//!
//! ```no_run
//! # async fn consume() -> Result<(), portolan_sdk::Error> {
//! use portolan_sdk::{Balancer, Registry};
//!
//! let registry = Registry::from_env().await?;
//! let reviews = Balancer::new(registry.subscribe("reviews").await?);
//! if let Some(pick) = reviews.pick() {
//!     println!("http://{}/reviews", pick.socket_address());
//!     pick.succeeded();
//! }
//! # Ok(()) }
//! ```
//!
//! Where a Portolan server runs, [`Discovery`] asks it instead: it watches the Pods once for
//! everybody, and a process is told only what changes of the services that it asked for.
//!
//! The features `tower`, `tonic` and `reqwest` have a subscription speak the words of those
//! libraries: a `Discover` and a balanced service, a gRPC channel that balances each request, a
//! resolver.
//!
//! Where the answers come from is always told: a [`Snapshot`] says how old it
//! is and whether the API is out of reach. Losing the API never empties it.
//! Liveness is the Pod's word: an instance counts as available while its Pod is
//! running, ready and not terminating, so a process that died without
//! deregistering takes no calls, and nothing sends heartbeats.
//!
//! The Pod's ServiceAccount needs `get`, `list`, `watch` and `patch` on `pods`
//! of its namespace; Portolan's embedded cluster gives each Pod a token that
//! may do just that, to its own Pod. The environment is read as
//! [`Builder`] tells.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
// Each of the two fills the cache in its own way.
#![cfg_attr(not(all(feature = "direct", feature = "server")), allow(dead_code))]

mod balance;
mod cache;
mod directory;
mod error;
mod feed;
mod instance;
mod integrations;
mod kept;
mod pod;
mod signal;
mod subscription;

#[cfg(feature = "direct")]
mod direct;
#[cfg(feature = "server")]
mod server;

pub use balance::{Balancer, BalancerBuilder, Call, CallError, Pick, Policy};
#[cfg(feature = "direct")]
pub use direct::{Builder, Registered, Registry};
pub use error::Error;
pub use instance::Instance;
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub use integrations::*;
pub use portolan_dialects::{
    Dialect, DubboGo, EncodeError, ListDialect, Registration, Standing, app::App,
};
pub use portolan_model::State;
/// Services and instances as a server tells them.
#[cfg(feature = "server")]
pub use portolan_wire as wire;
#[cfg(feature = "server")]
pub use server::{Changes, Discovery, Event, InstanceQuery, ServiceQuery, Watching};
pub use signal::terminated;
pub use subscription::{Delta, Snapshot, Subscription};
