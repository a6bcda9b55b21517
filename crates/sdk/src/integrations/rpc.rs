//! tonic: one channel that balances each request, not each connection.

use http::Response;
use tonic::{
    body::Body,
    transport::{Channel, Endpoint},
};

use super::Balanced;
use crate::{Balancer, Instance};

/// A channel for generated clients. Each call goes to the instance that the balancer chooses,
/// over a connection that is made once.
pub type GrpcChannel = Balanced<Channel, Response<Body>>;

/// A channel in the clear.
///
/// ```no_run
/// # async fn call(reviews: portolan_sdk::Subscription) {
/// use portolan_sdk::{Balancer, grpc};
///
/// let channel = grpc(Balancer::new(reviews));
/// // let mut client = ReviewsClient::new(channel);
/// # drop(channel) }
/// ```
pub fn grpc(balancer: Balancer) -> GrpcChannel {
    grpc_with(balancer, |endpoint, _| endpoint)
}

/// A channel with settings of one's own, as TLS or timeouts; must be made on a tokio runtime.
pub fn grpc_with(
    balancer: Balancer,
    settings: impl Fn(Endpoint, &Instance) -> Endpoint + Send + Sync + 'static,
) -> GrpcChannel {
    let make = move |instance: &Instance| {
        // An address and a port always make a URL.
        let endpoint = Endpoint::from_shared(format!("http://{}", instance.socket_address()))
            .unwrap_or_else(|_| Endpoint::from_static("http://0.0.0.0:0"));
        settings(endpoint, instance).connect_lazy()
    };
    Balanced::new(balancer, make).fine_if(says_nothing_bad)
}

/// Whether the answer's status, where it comes first, is none that speaks against the instance:
/// those that Envoy counts as 5xx (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
/// UNAVAILABLE, DATA_LOSS). A status behind a body comes too late to count.
fn says_nothing_bad(response: &Response<Body>) -> bool {
    let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    !matches!(status, Some("2" | "4" | "12" | "13" | "14" | "15"))
}
