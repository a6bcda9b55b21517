//! The xDS face: the catalog as resources of Envoy and of proxyless gRPC.
//!
//! ```text
//!   ServiceEntry --backends--> Backend --+-- endpoints (EDS, the same for both)
//!   Snapshot ----aliases----> Aliases ---+-- envoy: clusters, routes, listeners
//!                                        +-- grpc:  cluster, routes, listener
//!                                                          |
//!                            Publisher: encoded, by shelf, into the Store
//!                                                          |
//!                                   Streams, each through its View --> server (gRPC)
//! ```
//!
//! A [`Backend`] is one port of a service with the endpoints that take its traffic,
//! in the words of no dialect. The dialects turn backends into resources; each is a
//! pure function of what it is given, so that equal input gives equal bytes on every
//! replica. The two share nothing but endpoints: gRPC refuses a whole resource for a
//! single choice that is Envoy's. The [`Store`] keeps them encoded, with versions that
//! follow from content alone, and knows what changed since a revision; the
//! [`Publisher`] keeps the store in step with the catalog.
//!
//! Read [`backend`] first, then [`grpc`], which is the smaller dialect, then
//! [`envoy`]; [`store`] and [`stream`] stand for themselves, and the [`server`] puts
//! them to work.
//!
//! Deliberately absent: routing rules and mutual TLS. They are policy; the generators
//! of routes and clusters are where they will come in.

#![forbid(unsafe_code)]

pub mod aliases;
pub mod backend;
mod encoding;
pub mod endpoints;
pub mod envoy;
pub mod grpc;
mod interest;
pub mod names;
mod parts;
pub mod protocol;
pub mod publisher;
pub mod server;
pub mod store;
pub mod stream;
pub mod view;

pub use aliases::Aliases;
pub use backend::{Backend, Destination, Locality, backends};
pub use protocol::Protocol;
pub use publisher::Publisher;
pub use server::{Config, Running, Surroundings, start};
pub use store::Store;
pub use stream::Stream;
pub use view::View;
