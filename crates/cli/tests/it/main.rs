//! The reading verbs against servers that say what the test wants.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod dig;
mod fake;
mod verbs;
