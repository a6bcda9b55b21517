//! What stages may change of the answers about our own names.
//!
//! Most queries are answered from compiled bytes, which no stage sees. That is right as
//! long as no stage would have changed the answer, so each says what of the names of a
//! zone it bears on: a list of hosts outside the zone bears on nothing in it, a search
//! path on denials alone. What nothing bears on stays compiled, whatever else a server
//! block holds.

use std::{fmt, ops::BitOr};

/// A set of answers that have to take the general way.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Bearing(u8);

impl Bearing {
    /// None: all compiled answers are right.
    pub const NOTHING: Self = Self(0);
    /// Denials of names: somebody else may know the name.
    pub const DENIALS: Self = Self(1);
    /// Questions of type ANY.
    pub const ANY: Self = Self(1 << 1);
    /// What stands beside an answer, as SRV records have it.
    pub const ADDITIONAL: Self = Self(1 << 2);
    /// Names that begin with `localhost`.
    pub const LOCALHOST: Self = Self(1 << 3);
    /// The order of addresses: it stays.
    pub const ORDER: Self = Self(1 << 4);
    /// Queries with EDNS options.
    pub const OPTIONS: Self = Self(1 << 5);
    /// All.
    pub const EVERYTHING: Self = Self(u8::MAX);

    /// Whether all of these are in it.
    pub fn has(self, part: Self) -> bool {
        self.0 & part.0 == part.0
    }
}

impl BitOr for Bearing {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Bearing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Bearing, &str); 6] = [
            (Bearing::DENIALS, "denials"),
            (Bearing::ANY, "any"),
            (Bearing::ADDITIONAL, "additional"),
            (Bearing::LOCALHOST, "localhost"),
            (Bearing::ORDER, "order"),
            (Bearing::OPTIONS, "options"),
        ];
        if *self == Self::EVERYTHING {
            return f.write_str("everything");
        }
        let held = NAMES.iter().filter(|(part, _)| self.has(*part));
        f.debug_set().entries(held.map(|(_, name)| name)).finish()
    }
}
