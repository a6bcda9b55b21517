//! Tables for people.

/// Lines of a table: columns as wide as their widest cell, two blanks between.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(header.get(column).map(|title| title.len()))
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let blanks = width + 2 - cell.chars().count().min(*width);
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', blanks));
        }
        text.truncate(text.trim_end().len());
        text
    };
    std::iter::once(line(&mut header.iter().copied()))
        .chain(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))))
        .collect()
}

/// Milliseconds as people say them: `300ms`, `4s`, `3m`, `2h`, `5d`.
pub(crate) fn age(ms: u64) -> String {
    match ms {
        0..=999 => format!("{ms}ms"),
        1_000..=119_999 => format!("{}s", ms / 1_000),
        120_000..=7_199_999 => format!("{}m", ms / 60_000),
        7_200_000..=172_799_999 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

/// A cell that is never empty, so that columns can be cut by scripts.
pub(crate) fn cell(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "long cell".into()], vec!["bcd".into(), "-".into()]];
        assert_eq!(render(&["X", "YY"], &rows), ["X    YY", "a    long cell", "bcd  -"]);
    }

    #[test]
    fn ages() {
        for (ms, text) in [(5, "5ms"), (4_000, "4s"), (180_000, "3m"), (90_000_000, "25h")] {
            assert_eq!(age(ms), text);
        }
    }
}
