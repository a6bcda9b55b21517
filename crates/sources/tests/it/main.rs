//! The sources from outside: against an API server that can be made to fail,
//! and against files.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod fake;
mod file;
mod kubernetes;
mod mirror;
