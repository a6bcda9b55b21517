//! The SDK against a small API server, over HTTP.

#![allow(clippy::unwrap_used)]

mod defects;
mod fake;
mod founding;
mod integrations;
mod kept;
mod model;
mod portolan;
mod register;
mod server;
mod subscribe;

use std::time::Duration;

use portolan_dialects::{Registration, app};
use portolan_sdk::Registry;
use tokio::time::timeout;

use fake::Fake;

/// Long enough for a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);

async fn registry(fake: &Fake, pod: &str) -> Registry {
    Registry::builder().namespace("shop").pod(pod).api(fake.url()).build().await.unwrap()
}

/// A service on a port of the Pod p1.
fn service(interface: &str, port: u16) -> Registration {
    Registration::new(interface, "http", ([10, 0, 0, 1], port).into())
}

/// What the registrations on a Pod of the fake are.
fn registered(fake: &Fake, pod: &str) -> Vec<Registration> {
    let pod = fake.get(pod);
    let text = pod["metadata"]["annotations"]["app.io/annotation"].as_str().unwrap_or_default();
    let reading = app::decode(text);
    assert_eq!(reading.reasons, []);
    reading.registrations
}

/// Polls until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = timeout(DEADLINE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}
