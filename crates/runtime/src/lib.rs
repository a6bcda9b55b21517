//! Clock, supervised tasks, readiness, shutdown, limits and metrics: what every long-running part shares.
