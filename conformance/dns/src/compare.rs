//! Two replies side by side, and what may differ.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::ask::{Manner, Question, Reply};

/// What is meant to differ.
const DEVIATIONS: &str = include_str!("../deviations.toml");

#[derive(Deserialize)]
struct File {
    deviation: Vec<Deviation>,
}

/// One difference that is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    /// Patterns of names, `*` being any text.
    names: Vec<String>,
    /// Types; none: all.
    #[serde(default)]
    types: Vec<String>,
    /// Result code of CoreDNS, and ours.
    theirs: String,
    ours: String,
    /// Patterns of records that only theirs, or only ours, may have.
    #[serde(default)]
    records: Vec<String>,
    /// Flags that may differ.
    #[serde(default)]
    flags: Vec<String>,
    /// Our answer has an alias.
    #[serde(default)]
    alias: bool,
    /// Weights of SRV records may differ, and nothing else.
    #[serde(default)]
    weights: bool,
    reason: String,
    #[serde(skip)]
    used: usize,
}

/// All that was judged.
pub(crate) struct Verdicts {
    deviations: Vec<Deviation>,
    equal: usize,
    meant: usize,
    differences: Vec<String>,
}

impl Verdicts {
    pub(crate) fn read() -> Result<Self> {
        let file: File = toml::from_str(DEVIATIONS).context("deviations.toml")?;
        Ok(Self { deviations: file.deviation, equal: 0, meant: 0, differences: Vec::new() })
    }

    /// How many pairs of replies were judged.
    pub(crate) fn count(&self) -> usize {
        self.equal + self.meant + self.differences.len()
    }

    pub(crate) fn is_fine(&self) -> bool {
        self.differences.is_empty() && self.count() > 0
    }

    /// Judges one pair. False: they differ, and are not meant to.
    pub(crate) fn judge(
        &mut self,
        question: &Question,
        manner: Manner,
        ours: &Reply,
        theirs: &Reply,
    ) -> bool {
        if is_same(ours, theirs) {
            self.equal += 1;
            return true;
        }
        let kind = question.kind.to_string();
        let meant = self.deviations.iter_mut().find(|deviation| {
            deviation.explains(&question.name.to_lowercase(), &kind, ours, theirs)
        });
        if let Some(deviation) = meant {
            deviation.used += 1;
            self.meant += 1;
            return true;
        }
        self.differences.push(format!(
            "{} {kind} over {}\n  ours   {}\n  theirs {}",
            question.name,
            manner.name,
            told(ours),
            told(theirs)
        ));
        false
    }

    /// The table.
    pub(crate) fn print(&self, show: usize) {
        for difference in self.differences.iter().take(show) {
            println!("\n{difference}");
        }
        println!("\n{:>8}  answers that are the same", self.equal);
        println!("{:>8}  differ as listed:", self.meant);
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for Deviation { reason, used, .. } in &self.deviations {
            match reasons.iter_mut().find(|(told, _)| told == reason) {
                Some((_, times)) => *times += used,
                None => reasons.push((reason, *used)),
            }
        }
        for (reason, times) in reasons {
            println!("{times:>8}    {reason}");
        }
        println!("{:>8}  differ without a reason", self.differences.len());
    }
}

/// Whether two replies say the same. What is left of one that was cut is anybody's choice.
fn is_same(ours: &Reply, theirs: &Reply) -> bool {
    if ours.is_cut() && theirs.is_cut() {
        return ours.rcode == theirs.rcode && ours.flags == theirs.flags && ours.opt == theirs.opt;
    }
    ours == theirs
}

impl Deviation {
    fn explains(&self, name: &str, kind: &str, ours: &Reply, theirs: &Reply) -> bool {
        let only: Vec<&String> = [
            (&ours.answer, &theirs.answer),
            (&ours.authority, &theirs.authority),
            (&ours.additional, &theirs.additional),
        ]
        .into_iter()
        .flat_map(|(one, other): (&BTreeSet<String>, _)| one.symmetric_difference(other))
        .collect();
        let flags = |reply: &Reply| -> BTreeSet<String> {
            reply.flags.split(' ').map(str::to_owned).collect()
        };
        if self.alias && !ours.answer.iter().any(|line| line.contains(" in cname ")) {
            return false;
        }
        if self.weights && without_weights(ours) != without_weights(theirs) {
            return false;
        }
        let (own, other) = (flags(ours), flags(theirs));
        let mut differing = own.symmetric_difference(&other);
        self.names.iter().any(|pattern| fits(pattern, name))
            && (self.types.is_empty() || self.types.iter().any(|known| known == kind))
            && (&*self.ours, &*self.theirs) == (&*ours.rcode, &*theirs.rcode)
            && (self.weights
                || only.iter().all(|line| self.records.iter().any(|pattern| fits(pattern, line))))
            && differing.all(|flag| self.flags.contains(flag))
            && ours.opt == theirs.opt
    }
}

fn without_weights(reply: &Reply) -> Reply {
    let lines = reply.answer.iter().map(|line| {
        let mut fields: Vec<&str> = line.split(' ').collect();
        if let ([_, _, _, "srv", _, ..], Some(weight)) = (&fields.clone()[..], fields.get_mut(5)) {
            *weight = "*";
        }
        fields.join(" ")
    });
    Reply { answer: lines.collect(), ..reply.clone() }
}

/// Whether a text is as a pattern has it.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, rest)) => text.strip_prefix(before).is_some_and(|text| {
            text.char_indices()
                .map(|(place, _)| place)
                .chain([text.len()])
                .any(|place| text.get(place..).is_some_and(|text| fits(rest, text)))
        }),
    }
}

fn told(reply: &Reply) -> String {
    let section = |lines: &BTreeSet<String>| lines.iter().cloned().collect::<Vec<_>>().join("; ");
    format!(
        "{} [{}]{} answer [{}] authority [{}] additional [{}]",
        reply.rcode,
        reply.flags,
        if reply.opt { " opt" } else { "" },
        section(&reply.answer),
        section(&reply.authority),
        section(&reply.additional)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*.svc.z.", "a.b.svc.z.", true),
            ("*.svc.z.", "svc.z.", false),
            ("a*c*", "abcd", true),
            ("a*d*e", "abcd", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_list_is_read() {
        let verdicts = Verdicts::read().unwrap();
        assert!(verdicts.deviations.iter().all(|one| !one.reason.is_empty()));
    }
}
