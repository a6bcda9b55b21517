//! The crate from outside: tables of vectors, and laws.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apply;
mod json;
mod schema;
mod strategic;
