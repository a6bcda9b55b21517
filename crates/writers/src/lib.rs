//! Everything that writes to the world.
//!
//! ```text
//!   portolan register --> registrar --+-- Pod on Node `external` --> Kubernetes API
//!                            ^        |
//!                            +-- TCP checks of the process --> its Ready condition
//! ```
//!
//! Writers change Kubernetes objects and never the catalog: what they wrote
//! comes back through the sources like anybody else's.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod connect;
pub mod registrar;

pub use connect::{Client, ConnectError, connect};
