//! Versions of the catalog: which state of the world an answer came from.

use std::{fmt, str::FromStr};

/// A point in the life of one catalog. `seq` grows by one with each commit;
/// `epoch` is drawn at random at each start, so that a version of an earlier
/// life is recognised as foreign instead of being compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// Drawn at start; below [`Version::EPOCHS`].
    pub epoch: u32,
    /// Grows by one with each commit.
    pub seq: u64,
}

impl Version {
    /// Four characters of base 36 hold the epoch.
    pub const EPOCHS: u32 = 36 * 36 * 36 * 36;

    /// The version of an empty catalog.
    pub fn first(epoch: u32) -> Self {
        Self { epoch: epoch % Self::EPOCHS, seq: 0 }
    }

    /// The version after this one.
    pub fn next(self) -> Self {
        Self { seq: self.seq + 1, ..self }
    }

    /// Whether this version holds all that `other` holds. Versions of different
    /// epochs are never comparable, hence `false`.
    pub fn includes(self, other: Version) -> bool {
        self.epoch == other.epoch && self.seq >= other.seq
    }
}

impl fmt::Display for Version {
    /// `k3f9-1842`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut rest = self.epoch;
        let mut text = ['0'; 4];
        for place in text.iter_mut().rev() {
            *place = char::from(DIGITS[(rest % 36) as usize]);
            rest /= 36;
        }
        let [a, b, c, d] = text;
        write!(f, "{a}{b}{c}{d}-{}", self.seq)
    }
}

/// The text is no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseVersionError(String);

impl fmt::Display for ParseVersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no catalog version; one looks like k3f9-1842", self.0)
    }
}

impl std::error::Error for ParseVersionError {}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseVersionError(text.to_owned());
        let (epoch, seq) = text.split_once('-').ok_or_else(wrong)?;
        if epoch.len() != 4 || !epoch.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        {
            return Err(wrong());
        }
        if !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        Ok(Self {
            epoch: u32::from_str_radix(epoch, 36).map_err(|_| wrong())?,
            seq: seq.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (epoch, seq, text) in
            [(0, 0, "0000-0"), (Version::EPOCHS - 1, 7, "zzzz-7"), (945_333, 1842, "k9f9-1842")]
        {
            let version = Version { epoch, seq };
            assert_eq!(version.to_string(), text);
            assert_eq!(text.parse(), Ok(version));
        }
        for wrong in ["", "k3f9", "k3f-1", "K3F9-1", "k3f9-", "k3f9-x", "+abc-1", "k3f9-+1"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn epochs_do_not_compare() {
        let a = Version { epoch: 1, seq: 9 };
        let b = Version { epoch: 2, seq: 1 };
        assert!(!a.includes(b) && !b.includes(a));
        assert!(a.includes(a) && a.next().includes(a) && !a.includes(a.next()));
    }
}
