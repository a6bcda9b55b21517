//! The crate from outside: tables of vectors, and laws.

mod json;
mod schema;
mod strategic;
