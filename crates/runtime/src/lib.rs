//! What every long-running part of Portolan shares.
//!
//! ```text
//!   main -- Shutdown --> tasks (supervised) -- Readiness --> /readyz
//!                          |
//!                          +-- Clock (real, or a test's)      Metrics --> /metrics
//! ```
//!
//! The parts that decide are synchronous and pure; this crate is the seam
//! between them and the machine. A simulation replaces [`Clock`], and nothing
//! else of Portolan reads the time.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod backoff;
mod clock;
mod metrics;
mod problems;
mod readiness;
mod tasks;

pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use metrics::Metrics;
pub use problems::{FaceProblems, Problems};
pub use readiness::{BlockReady, Readiness};
pub use tasks::{Shutdown, Tasks};
