//! Health, readiness and metrics on ports of their own, where CoreDNS has them, so
//! that probes and scrapes that are set up for it need no change.
//!
//! Each port serves one page and nothing of the API. It may therefore listen off
//! loopback, where it was asked to: by whoever named the port.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use portolan_runtime::{Metrics, Readiness, Tasks};
use tokio::net::TcpListener;

use crate::{StartError, routes};

/// One page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/health`: 200 while the process lives.
    Health,
    /// `/ready`: 200 while nothing blocks readiness, else 503 and what does.
    Ready,
    /// `/metrics`.
    Metrics,
}

/// Serves one page. The socket is bound when this returns.
pub async fn serve(
    page: Page,
    listen: SocketAddr,
    metrics: &Metrics,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<SocketAddr, StartError> {
    let failed = |source| StartError::Plain { address: listen, source };
    let listener = bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let router = match page {
        Page::Health => Router::new().route("/health", get(async || "OK")),
        Page::Ready => Router::new().route("/ready", get(ready)).with_state(readiness.clone()),
        Page::Metrics => {
            let pages = Router::new().route("/metrics", get(numbers));
            pages.with_state(metrics.clone())
        }
    };
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("plain page", async move {
        let stop = shutdown.clone().cancelled_owned();
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
            tracing::error!(%error, ?page, "a page for probes ended; ending the process");
            shutdown.cancel();
        }
    });
    Ok(address)
}

/// All addresses mean those of IPv4 alone where there is no IPv6.
async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(listen).await {
        Err(error)
            if listen.ip().is_unspecified()
                && listen.is_ipv6()
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            TcpListener::bind(SocketAddr::new(all, listen.port())).await
        }
        bound => bound,
    }
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    match readiness.blockers() {
        blockers if blockers.is_empty() => {
            let lines = std::iter::once("OK".to_owned()).chain(readiness.notes());
            lines.collect::<Vec<_>>().join("\n").into_response()
        }
        blockers => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", blockers.join("\n"))).into_response()
        }
    }
}

async fn numbers(State(metrics): State<Metrics>) -> Response {
    routes::numbers(&metrics)
}
