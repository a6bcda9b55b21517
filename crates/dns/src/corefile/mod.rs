//! Reading a Corefile: the configuration of CoreDNS, in the grammar of Caddy 1.
//!
//! ```text
//!   text --lexer--> words --parser--> blocks of directives --directives--> FaceConfig
//!                     ^  import: snippets and files, {$VARIABLES}
//!                     +-- Surroundings (files and environment)
//! ```
//!
//! What comes out is the same value that the native TOML is read into: a Corefile
//! is a second spelling, not a second way of running. A directive or an option that
//! is not known is refused with its place and the list of what is known; nothing is
//! passed over in silence.

mod directives;
mod fault;
mod lexer;
mod parser;
mod surroundings;

pub use directives::{Translated, read};
pub use fault::{Fault, Spot};
pub(crate) use lexer::Word;
pub(crate) use parser::{Block, Directive, Line, parse};
pub use surroundings::{Disk, Surroundings};
