//! Subscriptions in the words of other libraries, each behind a feature of its name.

#[cfg(feature = "reqwest")]
mod resolver;
#[cfg(feature = "tonic")]
mod rpc;
#[cfg(feature = "tower")]
mod services;

#[cfg(feature = "reqwest")]
pub use resolver::Resolver;
#[cfg(feature = "tonic")]
pub use rpc::{GrpcChannel, grpc, grpc_with};
#[cfg(feature = "tower")]
pub use services::{Balanced, BoxError, discover};
