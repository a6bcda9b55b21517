//! The embedded cluster: API server, controllers and the runner of Pods.
#![forbid(unsafe_code)]

pub mod controllers;
pub mod informer;
pub mod kubelet;
pub mod object;
pub mod queue;
