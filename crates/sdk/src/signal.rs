//! The word to stop.

/// Waits until the process is asked to end: SIGTERM, as Kubernetes and service managers send it,
/// or SIGINT, as a terminal does.
///
/// Where the system lets nobody listen to signals, this waits for ever: the process then ends as
/// if this had not been called.
pub async fn terminated() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut int)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
