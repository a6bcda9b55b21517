//! Pure codecs of what processes write on their Pods.
//!
//! ```text
//!   Pod (labels, annotations, addresses)
//!        |  Dialect::read
//!        v
//!   Reading { registrations, reasons }      one broken entry costs only itself
//!
//!   [Registration] -- ListDialect::update --> the next text of an annotation that is shared
//!                  -- native::encode ------> the text of an annotation of one's own
//! ```
//!
//! Every dialect that is met in the field is one module; all of them end in the
//! same [`Registration`]. Nothing here does I/O, and no input makes it panic.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod app;
mod dialect;
mod dubbo;
mod dubbo_java;
pub mod list;
mod micro;
pub mod native;
mod operator;
mod percent;
mod registration;

pub use dialect::{ContainerView, Dialect, PodView, Reading, UnknownDialect};
pub use dubbo::DubboGo;
pub use list::ListDialect;
pub use registration::{EncodeError, Registration, Standing};

/// The largest sum of annotations that the Kubernetes API takes
/// (TotalAnnotationSizeLimitB of k8s.io/apimachinery): more cannot have been
/// written, so more is not read.
pub const READ_BYTES_MAX: usize = 256 * 1024;

/// What we write at most on one Pod: half of what the API takes, because other
/// operators' annotations share the limit.
pub const WRITE_BYTES_MAX: usize = READ_BYTES_MAX / 2;
