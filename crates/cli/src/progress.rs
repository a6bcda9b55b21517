//! A sign of life on a terminal, for work that takes a while.

use std::{future::Future, io::IsTerminal, pin::pin, time::Duration};

use indicatif::ProgressBar;

/// Work that is done by then needs no sign.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the sign moves.
const TICK: Duration = Duration::from_millis(120);

/// Awaits work, and shows on stderr what is waited for once it takes long. Where
/// stderr is no terminal nothing is shown: a log needs no spinner.
pub(crate) async fn shown<T>(what: String, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(TICK);
    let done = work.await;
    bar.finish_and_clear();
    done
}
