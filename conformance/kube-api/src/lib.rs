//! What other judges of the same servers share: how a kubeconfig is read.
#![forbid(unsafe_code)]

pub mod kubeconfig;
