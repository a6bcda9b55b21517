//! The embedded API from outside, one module per room.

mod store;
