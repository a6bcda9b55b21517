//! The kubelet.
mod addresses;
mod env;
mod listeners;
mod machine;
mod pod;
mod probes;
mod problem;
mod proc;
pub mod supervise;
