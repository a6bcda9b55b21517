//! Resources of Envoy as a sidecar.
//!
//! Listeners bind the proxy's own address, one per port number (Istio's interception
//! mode NONE): programs call `OWN-ADDRESS:PORT` and name the service by the Host
//! header or by the server name of TLS. A port over which neither is said can stand
//! for one service only; which one, and which had to give way, is told with the
//! listeners.

mod clusters;
mod listeners;
mod routes;

pub use clusters::cluster;
pub use listeners::{Conflict, Listeners, listeners};
pub use routes::{routes_of_port, routes_of_sniffed};

#[cfg(test)]
mod tests;
