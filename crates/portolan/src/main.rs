//! Parses, wires and runs Portolan.
fn main() {}
