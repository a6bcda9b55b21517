//! Samples of both servers, and what is made of them: a table for people, a
//! figure a line for `cargo xtask bench`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::servers::Which;

/// What a sample says: whether more is better decides which end is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// One thing that is measured on both servers.
struct Row {
    title: String,
    unit: &'static str,
    better: Better,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// All that was measured, in the order of first measurement.
#[derive(Default)]
pub(crate) struct Figures {
    order: Vec<String>,
    rows: BTreeMap<String, Row>,
}

impl Figures {
    pub(crate) fn add(
        &mut self,
        which: Which,
        name: &str,
        title: &str,
        (value, unit, better): (f64, &'static str, Better),
    ) {
        if !self.rows.contains_key(name) {
            self.order.push(name.to_owned());
        }
        let row = self.rows.entry(name.to_owned()).or_insert_with(|| Row {
            title: title.to_owned(),
            unit,
            better,
            ours: Vec::new(),
            theirs: Vec::new(),
        });
        match which {
            Which::Ours => row.ours.push(value),
            Which::Theirs => row.theirs.push(value),
        }
    }

    /// Markdown: median and worst of all runs, and the ratio of the medians.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| figure | ours, median (worst) | theirs, median (worst) | ratio |\n|---|---|---|---|\n",
        );
        for row in self.in_order().map(|(_, row)| row) {
            let cell = |samples: &[f64]| {
                format!("{} ({}) {}", short(median(samples)), short(row.worst(samples)), row.unit)
            };
            let ratio = match row.better {
                Better::Less => row.ratio(),
                Better::More => 1.0 / row.ratio(),
            };
            let sign = if row.better == Better::More { "× faster" } else { "× theirs" };
            text.push_str(&format!(
                "| {} | {} | {} | {ratio:.2}{sign} |\n",
                row.title,
                cell(&row.ours),
                cell(&row.theirs),
            ));
        }
        text
    }

    /// A figure a line: `NAME` is ours by theirs with less being better, and
    /// `NAME_ours`, `NAME_theirs` are the medians, each with its worst.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |name: String, value: f64, unit: &str| {
            json!({"name": name, "value": value, "unit": unit}).to_string()
        };
        self.in_order()
            .flat_map(|(name, row)| {
                [
                    line(format!("cluster.{name}"), row.ratio(), "x"),
                    line(format!("cluster.{name}_ours"), median(&row.ours), row.unit),
                    line(format!("cluster.{name}_ours_worst"), row.worst(&row.ours), row.unit),
                    line(format!("cluster.{name}_theirs"), median(&row.theirs), row.unit),
                    line(format!("cluster.{name}_theirs_worst"), row.worst(&row.theirs), row.unit),
                ]
            })
            .collect()
    }

    fn in_order(&self) -> impl Iterator<Item = (&String, &Row)> {
        // Rows of which only one server was measured say nothing.
        self.order
            .iter()
            .filter_map(|name| self.rows.get_key_value(name))
            .filter(|(_, row)| !row.ours.is_empty() && !row.theirs.is_empty())
    }
}

impl Row {
    /// Ours by theirs for what should be small, theirs by ours for what should
    /// be large: below one is better than theirs.
    fn ratio(&self) -> f64 {
        let (ours, theirs) = (median(&self.ours), median(&self.theirs));
        match self.better {
            Better::Less => ours / theirs,
            Better::More => theirs / ours,
        }
    }

    fn worst(&self, samples: &[f64]) -> f64 {
        let ends = samples.iter().copied();
        match self.better {
            Better::Less => ends.fold(f64::MIN, f64::max),
            Better::More => ends.fold(f64::MAX, f64::min),
        }
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_below_one_are_better_than_theirs() {
        let mut figures = Figures::default();
        for (ours, theirs) in [(10.0, 100.0), (30.0, 90.0), (20.0, 120.0)] {
            figures.add(Which::Ours, "time", "time", (ours, "ms", Better::Less));
            figures.add(Which::Theirs, "time", "time", (theirs, "ms", Better::Less));
            figures.add(Which::Ours, "rate", "rate", (theirs, "/s", Better::More));
            figures.add(Which::Theirs, "rate", "rate", (ours, "/s", Better::More));
        }
        figures.add(Which::Ours, "half", "half", (1.0, "ms", Better::Less));
        let lines = figures.lines();
        assert_eq!(lines.len(), 10, "a row with one server is left out: {lines:?}");
        assert_eq!(lines[0], r#"{"name":"cluster.time","value":0.2,"unit":"x"}"#);
        assert_eq!(lines[2], r#"{"name":"cluster.time_ours_worst","value":30.0,"unit":"ms"}"#);
        assert_eq!(lines[5], r#"{"name":"cluster.rate","value":0.2,"unit":"x"}"#);
        assert_eq!(lines[7], r#"{"name":"cluster.rate_ours_worst","value":90.0,"unit":"/s"}"#);
        assert!(
            figures.table().contains("| rate | 100 (90.0) /s | 20.0 (10.0) /s | 5.00× faster |")
        );
    }
}
