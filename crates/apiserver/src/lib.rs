//! An embedded Kubernetes API: machinery and store.
//!
//! ```text
//!  kubectl, informers ──▶ http ──▶ registry ──▶ store
//!  controllers, kubelet ─────────────┘ │
//!                                      └─ schema (defaults, validation, columns, OpenAPI)
//! ```
//!
//! [`kinds`] is the table of what is held, [`registry`] the one generic
//! implementation of every verb on every kind, [`store`] the ordered log of
//! revisions beneath it, and `http` the door for everything outside the
//! process. [`Status`] is the shape of every refusal on the way.
#![forbid(unsafe_code)]

mod go;
pub mod http;
pub mod kinds;
pub mod registry;
pub mod schema;
pub mod status;
pub mod store;

pub use http::{Config, Running, StartError, start};
pub use kinds::Kind;
pub use registry::{Caller, Registry};
pub use status::{Cause, Status};
