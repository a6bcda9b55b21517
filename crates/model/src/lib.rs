//! The words of Portolan.
//!
//! Sources describe the world in these types, the catalog keeps them, faces
//! answer from them:
//!
//! ```text
//!   [source] --Event(Sighting | Gone)--> [catalog] --Service, Endpoint--> [face] --> programs
//!                 |                          |
//!                 +-- Fact                   +-- Version, Verdict, Reason
//! ```
//!
//! A word here has no behaviour that needs I/O, a clock or an executor, and it
//! is not serialisable by design: what goes over a wire is `portolan-wire`'s
//! business, so that a change of format never reaches the core.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod endpoint;
mod face;
mod key;
mod reason;
mod selector;
mod service;
mod sighting;
mod version;
mod world;

pub use endpoint::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Hints, Particular, Particulars, Placed,
    State, Verdict,
};
pub use face::{Asker, ClientProgress, ClientStatus, ClientView, Face, FaceId, Flavour, Problem};
pub use key::{Name, ObjectName, Origin, ServiceKey, name};
pub use reason::{CODES, Code, CodeInfo, Reason, Stage};
pub use selector::Selector;
pub use service::{
    AppProtocol, Exposure, Outside, Service, ServicePort, SessionAffinity, TrafficDistribution,
    TrafficPolicy, Transport,
};
pub use sighting::{Event, Fact, FactKey, SourceId, SourceReport};
pub use version::{ParseVersionError, Version};
pub use world::{Namespace, Node, Rejection, Workload};
