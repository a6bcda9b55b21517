//! Names that were perhaps meant.

use portolan_catalog::Snapshot;
use portolan_model::ServiceKey;

use crate::target::Target;

/// Names offered when nothing was found under the one asked for.
const NEAREST_MAX: usize = 5;

/// The longest name that is compared letter by letter: a label of DNS. Comparing
/// costs the product of both lengths, for every name of the catalog.
const COMPARED_MAX: usize = 63;

/// Names like the one asked for, the likest first.
pub(super) fn nearest(snapshot: &Snapshot, target: &Target) -> Vec<String> {
    let wanted = match target {
        Target::Service { name, .. } | Target::Bare { name, .. } => name.clone(),
        Target::Pod(pod) => pod.name.to_string(),
        Target::DnsName(key) => key.name.to_string(),
        Target::Address(..) => return Vec::new(),
    };
    let services = snapshot.services().map(|entry| &entry.service.key).map(
        |ServiceKey { namespace, name, .. }| {
            (distance(&wanted, name), format!("svc/{namespace}/{name}"))
        },
    );
    let pods = snapshot
        .workloads()
        .map(|pod| (distance(&wanted, &pod.name.name), format!("pod/{}", pod.name)));
    let mut near: Vec<(usize, String)> =
        services.chain(pods).filter(|(far, _)| *far <= wanted.len().div_ceil(3)).collect();
    near.sort();
    near.dedup();
    near.into_iter().take(NEAREST_MAX).map(|(_, name)| name).collect()
}

/// How many letters differ (Levenshtein), or 1 where one name begins with the
/// other: Pods carry their owner's name and a suffix.
fn distance(wanted: &str, name: &str) -> usize {
    if wanted.len() >= 3 && (name.starts_with(wanted) || wanted.starts_with(name)) {
        return usize::from(wanted != name);
    }
    if wanted.len() > COMPARED_MAX || name.len() > COMPARED_MAX {
        return usize::MAX;
    }
    let name: Vec<char> = name.chars().collect();
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (i, a) in wanted.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&name) {
            let best = (diagonal + usize::from(a != *b)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn letters_that_differ() {
        for (a, b, expected) in [
            ("checkout", "checkout", 0),
            ("chekout", "checkout", 1),
            ("reviews", "reviews-v1-abc", 1),
            ("abc", "xyz", 3),
            ("kitten", "sitting", 3),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
