//! What the API knows about the shape of its kinds.
//!
//! A written object passes through here in this order: [`protobuf::decode`]
//! (only when the body was protobuf), [`types::check`] (400 on a wrong JSON
//! type), [`types::unknown_fields`] (for `fieldValidation`), [`types::prune`]
//! (what a typed server would drop), [`gates::drop`], [`defaults::apply`],
//! [`types::complete`] (what it would add), then [`validate::create`] or
//! [`validate::update`] (422 with causes) and [`warnings`]. Readers use
//! [`tables`] for what kubectl prints, [`fields`] for field selectors and
//! [`openapi`] for the documents that kubectl reads before it writes.
//!
//! Everything is a function over `serde_json::Value`: no state, no clock but
//! the one handed in, no I/O. Rules that are the same for every kind come from
//! one table of types (`data/`, generated from upstream's facts); rules of one
//! kind are an arm in the module concerned.

mod data;
pub mod defaults;
pub mod fields;
pub mod gates;
pub mod openapi;
pub mod protobuf;
pub mod qos;
pub mod quantity;
pub mod tables;
pub mod types;
pub mod validate;
mod value;
pub mod warnings;
