//! The embedded cluster: API server, controllers and the runner of Pods.
//!
//! ```text
//!  kubectl ──TLS──▶ apiserver ─▶ registry ─▶ store
//!                                  ▲ │
//!                     actions ─────┘ └──▶ informers ─▶ queues
//!                        ▲                               │
//!                        └──── controllers, kubelet ◀────┘
//! ```
//!
//! [`start`] brings all of it up. [`controllers`] keep the promises of the API,
//! [`kubelet`] runs the Pods of one Node, [`fixed`] holds what every cluster
//! has. Both read through [`informer`]s, which never lag behind the store, and
//! write through the registry, as clients outside do.
#![forbid(unsafe_code)]

pub mod controllers;
pub mod fixed;
pub mod informer;
pub mod kubelet;
pub mod object;
mod projection;
pub mod queue;
mod start;

pub use start::{Config, KUBECONFIG_FILE, Running, StartError, start};
