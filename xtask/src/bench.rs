//! `cargo xtask bench`: measured figures beside their budgets.

use anyhow::{Result, bail};

pub(crate) fn run(name: &str) -> Result<()> {
    bail!("no benchmark is called {name:?}")
}
