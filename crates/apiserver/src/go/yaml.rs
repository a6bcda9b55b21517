//! What is wrong with a YAML document, in the words of `go.yaml.in/yaml`. It is libyaml in Go as
//! ours is libyaml in Rust, so that the problem is named alike; how its place is told is not.

/// The fault of a document out of the words of our reader:
/// `PROBLEM at line 2 column 1, while parsing a flow sequence at line 1 column 4`.
pub(crate) fn yaml_fault(told: &str) -> String {
    if told == "repetition limit exceeded" {
        return "yaml: document contains excessive aliasing".to_owned();
    }
    let (first, context) = match told.split_once(", while ") {
        Some((first, context)) => (first, Some(context)),
        None => (told, None),
    };
    let (problem, problem_line) = place(first);
    let (doing, context_line) = context.map_or(("", None), place);
    let is_of_scanner = doing.starts_with("scanning")
        || doing == "parsing a tag"
        || problem.ends_with("not allowed in this context");
    // Lines are counted from 0, which stands for none, too; the scanner counts from 1.
    let known = |line: Option<usize>| line.and_then(|line| line.checked_sub(1)).filter(|l| *l > 0);
    match known(context_line).or(known(problem_line)) {
        Some(line) => format!("yaml: line {}: {problem}", line + usize::from(is_of_scanner)),
        None => format!("yaml: {problem}"),
    }
}

/// A text, and the line behind it.
fn place(told: &str) -> (&str, Option<usize>) {
    for mark in [" at line ", " at position "] {
        if let Some((text, rest)) = told.rsplit_once(mark) {
            let line = rest.split(' ').next().filter(|_| mark == " at line ");
            return (text, line.and_then(|line| line.parse().ok()));
        }
    }
    (told, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_our_reader_in_the_words_of_go() {
        for (document, expected) in [
            ("a: [b", "yaml: line 1: did not find expected ',' or ']'"),
            ("a: b: c", "yaml: mapping values are not allowed in this context"),
            ("x: 1\ny: a: b", "yaml: line 2: mapping values are not allowed in this context"),
            ("a: \"b", "yaml: found unexpected end of stream"),
            ("x: 1\na:\n\t- b", "yaml: line 3: found character that cannot start any token"),
            ("x: 1\n- a", "yaml: line 1: did not find expected key"),
        ] {
            let told = serde_norway::from_str::<serde_json::Value>(document).unwrap_err();
            assert_eq!(yaml_fault(&told.to_string()), expected, "{document}: {told}");
        }
    }
}
