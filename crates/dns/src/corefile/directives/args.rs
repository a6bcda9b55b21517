//! The words behind a directive or an option, taken one by one.

use std::str::FromStr;

use super::{Fault, Line, Word};
use crate::config::{Fallthrough, ZoneName};

/// What is left of a line.
#[derive(Clone, Copy)]
pub(crate) struct Args<'l> {
    name: &'l Word,
    rest: &'l [Word],
}

impl<'l> Args<'l> {
    pub(crate) fn of(line: &'l Line) -> Self {
        Self { name: &line.name, rest: &line.args }
    }

    /// Words that follow another one.
    pub(crate) fn words(name: &'l Word, rest: &'l [Word]) -> Self {
        Self { name, rest }
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next word, if there is one.
    pub(crate) fn next(&mut self) -> Option<&'l Word> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// The next word without taking it.
    pub(crate) fn peek(&self) -> Option<&'l Word> {
        self.rest.first()
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'l [Word] {
        std::mem::take(&mut self.rest)
    }

    /// The next word; there must be one.
    pub(crate) fn word(&mut self, what: &str) -> Result<&'l Word, Fault> {
        self.next().ok_or_else(|| {
            let text = format!("expected {what} behind {:?}", self.name.text);
            Fault::new(&self.name.spot, text)
        })
    }

    /// The next word as a value.
    pub(crate) fn value<T: FromStr<Err = String>>(&mut self, what: &str) -> Result<T, Fault> {
        let word = self.word(what)?;
        word.text.parse().map_err(|why: String| Fault::new(&word.spot, why))
    }

    /// The next word as a number within bounds.
    pub(crate) fn number<T>(&mut self, bounds: std::ops::RangeInclusive<T>) -> Result<T, Fault>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let what = format!("a number from {} to {}", bounds.start(), bounds.end());
        let word = self.word(&what)?;
        let number = word.text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| {
            Fault::new(&word.spot, format!("expected {what}, found {:?}", word.text))
        })
    }

    /// Nothing may follow.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        match self.next() {
            None => Ok(()),
            Some(word) => {
                let text = format!("found {:?} where the line should end", word.text);
                Err(Fault::new(&word.spot, text))
            }
        }
    }

    /// All that is left as zones.
    pub(crate) fn zones(&mut self) -> Result<Vec<ZoneName>, Fault> {
        zones(self.rest())
    }

    /// `fallthrough [ZONES...]`; without zones it is about all names.
    pub(crate) fn fallthrough(&mut self) -> Result<Fallthrough, Fault> {
        let zones = self.zones()?;
        Ok(Fallthrough { zones: if zones.is_empty() { vec![ZoneName::root()] } else { zones } })
    }
}

/// Words as zones.
pub(crate) fn zones(words: &[Word]) -> Result<Vec<ZoneName>, Fault> {
    let mut zones = Vec::new();
    for word in words {
        let more = ZoneName::all_of(&word.text).map_err(|why| Fault::new(&word.spot, why))?;
        zones.extend(more);
    }
    Ok(zones)
}
