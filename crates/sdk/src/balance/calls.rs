//! What becomes of a call that fails: the strategies that RPC frameworks have names for.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicI32, Ordering::Relaxed},
};

use super::{Balancer, Call};
use crate::Instance;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// No instance takes calls.
    #[error("no instance of {0} is available")]
    Nobody(String),
    /// Each instance that was asked failed; this is what the last one said.
    #[error("{error}")]
    Failed {
        /// How many were asked.
        attempts: u32,
        /// What the last one said.
        error: E,
    },
}

/// Thousandths of a token; see [`Budget`].
const TOKENS_MAX: i32 = 100_000;
const TOKEN: i32 = 1_000;
/// What a call that goes well gives back.
const TOKEN_BACK: i32 = 100;

/// What keeps repeated calls from making an overload worse: each failure costs a token, ten
/// successes give one back, and calls are repeated only while more than half of the tokens are
/// left (gRFC A6, retry throttling).
#[derive(Debug)]
pub(super) struct Budget(AtomicI32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicI32::new(TOKENS_MAX))
    }
}

impl Budget {
    pub(super) fn succeed(&self) {
        self.add(TOKEN_BACK);
    }

    pub(super) fn fail(&self) {
        self.add(-TOKEN);
    }

    fn add(&self, more: i32) {
        let sum = |tokens: i32| {
            let after = (tokens + more).clamp(0, TOKENS_MAX);
            (after != tokens).then_some(after)
        };
        // Refused only where nothing changes.
        self.0.fetch_update(Relaxed, Relaxed, sum).ok();
    }

    fn allows(&self) -> bool {
        self.0.load(Relaxed) > TOKENS_MAX / 2
    }
}

impl Balancer {
    /// Asks one instance, once.
    ///
    /// # Errors
    ///
    /// When no instance is available, or the one that was asked fails.
    pub async fn failfast<T, E>(
        &self,
        call: impl AsyncFn(&Instance) -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        self.failover(0, call).await
    }

    /// Asks one instance and, if it fails, up to `retries` others: for calls that may be made
    /// twice. While more than one call in ten fails for long, calls are not repeated.
    ///
    /// # Errors
    ///
    /// When no instance is available, or all that were asked fail.
    pub async fn failover<T, E>(
        &self,
        retries: u32,
        call: impl AsyncFn(&Instance) -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut last = None;
        for attempt in 0..=retries {
            if attempt > 0 && !self.shared.budget.allows() {
                break;
            }
            let Some(pick) = self.pick_for(&Call { tried: &tried, ..Call::default() }) else {
                break;
            };
            match call(&pick).await {
                Ok(answer) => {
                    pick.succeeded();
                    return Ok(answer);
                }
                Err(error) => {
                    tried.push(pick.socket_address());
                    pick.failed();
                    last = Some(CallError::Failed { attempts: attempt + 1, error });
                }
            }
        }
        Err(last.unwrap_or_else(|| CallError::Nobody(self.subscription.interface().to_owned())))
    }

    /// Asks one instance, once; that it failed is logged and no more: for calls that nobody
    /// waits for, such as notices.
    pub async fn failsafe<T, E: std::fmt::Display>(
        &self,
        call: impl AsyncFn(&Instance) -> Result<T, E>,
    ) -> Option<T> {
        match self.failfast(call).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                let interface = self.subscription.interface();
                tracing::warn!(interface, %error, "a call failed and is let go");
                None
            }
        }
    }
}
