//! The language of templates: text with `{{ ... }}`, of which the part of Go's
//! text/template that Corefiles use.
//!
//! ```text
//!   {{ .Name }} {{ .Zone }} {{ .Class }} {{ .Type }} {{ .Regex }} {{ .Remote }}
//!   {{ .Question.Name }} {{ .Group.x }} {{ index .Match 1 }} {{ index .Group "x" }}
//!   {{ parseInt .Group.x 16 8 }}    with {{- and -}} to trim
//! ```
//!
//! What is not known is refused when the configuration is read, not at the first
//! query.

use regex::Captures;

/// A template that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Value),
    /// A number in some base, written in base ten.
    ParseInt(Value, u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Name,
    Zone,
    Class,
    Type,
    Regex,
    Remote,
    Group(String),
    Match(usize),
    Literal(String),
}

/// What a template is filled with.
pub(crate) struct Data<'d> {
    pub(crate) name: &'d str,
    pub(crate) zone: &'d str,
    pub(crate) kind: &'d str,
    pub(crate) regex: &'d str,
    pub(crate) remote: &'d str,
    pub(crate) groups: &'d Captures<'d>,
}

/// Whether a text is a template.
pub(crate) fn check(text: &str) -> Result<(), String> {
    Template::read(text).map(drop)
}

impl Template {
    /// Reads a text.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut trim = false;
        loop {
            let (before, inside) = match rest.split_once("{{") {
                Some((before, inside)) => (before, Some(inside)),
                None => (rest, None),
            };
            let before = if trim { before.trim_start() } else { before };
            let Some(inside) = inside else {
                push(&mut pieces, before);
                return Ok(Self(pieces));
            };
            let Some((action, after)) = inside.split_once("}}") else {
                return Err(format!("expected }}}} behind {{{{{inside}"));
            };
            let opened = action.strip_prefix("- ");
            push(&mut pieces, if opened.is_some() { before.trim_end() } else { before });
            let action = opened.unwrap_or(action);
            let closed = action.strip_suffix(" -");
            trim = closed.is_some();
            pieces.push(piece(closed.unwrap_or(action).trim())?);
            rest = after;
        }
    }

    /// Fills it. `None`: a group that it names is no number.
    pub(crate) fn fill(&self, data: &Data<'_>) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(value) => out.push_str(&value.of(data)),
                Piece::ParseInt(value, base) => {
                    let number = u64::from_str_radix(&value.of(data), *base).ok()?;
                    out.push_str(&number.to_string());
                }
            }
        }
        Some(out)
    }
}

fn push(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

impl Value {
    fn of(&self, data: &Data<'_>) -> String {
        let group =
            |group: Option<regex::Match<'_>>| group.map_or("", |found| found.as_str()).to_owned();
        match self {
            Self::Name => data.name.to_owned(),
            Self::Zone => data.zone.to_owned(),
            Self::Class => "IN".to_owned(),
            Self::Type => data.kind.to_owned(),
            Self::Regex => data.regex.to_owned(),
            Self::Remote => data.remote.to_owned(),
            Self::Literal(text) => text.clone(),
            Self::Match(number) => group(data.groups.get(*number)),
            Self::Group(name) => match name.parse() {
                Ok(number) => group(data.groups.get(number)),
                Err(_) => group(data.groups.name(name)),
            },
        }
    }
}

fn piece(action: &str) -> Result<Piece, String> {
    let words = words(action);
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    match &texts[..] {
        ["parseInt", value @ .., base, _bits] if !value.is_empty() => {
            let base = base.parse().ok().filter(|base| (2..=36).contains(base));
            let base =
                base.ok_or_else(|| format!("{{{{ {action} }}}}: expected a base from 2 to 36"))?;
            Ok(Piece::ParseInt(self::value(value, action)?, base))
        }
        value => Ok(Piece::Value(self::value(value, action)?)),
    }
}

/// Words of an action; brackets stand for themselves.
fn words(action: &str) -> Vec<String> {
    let spaced = action.replace('(', " ( ").replace(')', " ) ");
    spaced.split_whitespace().map(ToOwned::to_owned).collect()
}

fn value(words: &[&str], action: &str) -> Result<Value, String> {
    let unknown = || {
        format!(
            "{{{{ {action} }}}} is not known; there are .Name, .Zone, .Class, .Type, .Regex, \
             .Remote, .Group.NAME, index .Match N, index .Group \"NAME\", parseInt VALUE BASE BITS"
        )
    };
    let quoted = |text: &str| {
        let quote = text.chars().next().filter(|c| matches!(c, '"' | '`'))?;
        text.strip_prefix(quote)?.strip_suffix(quote).map(ToOwned::to_owned)
    };
    match words {
        ["(", inner @ .., ")"] => value(inner, action),
        [".Name" | ".Question.Name"] => Ok(Value::Name),
        [".Zone"] => Ok(Value::Zone),
        [".Class"] => Ok(Value::Class),
        [".Type"] => Ok(Value::Type),
        [".Regex"] => Ok(Value::Regex),
        [".Remote"] => Ok(Value::Remote),
        ["index", ".Match", number] => number.parse().map(Value::Match).map_err(|_| unknown()),
        ["index", ".Group", name] => quoted(name).map(Value::Group).ok_or_else(unknown),
        [one] => match one.strip_prefix(".Group.").filter(|name| !name.contains('.')) {
            Some(name) => Ok(Value::Group(name.to_owned())),
            None => quoted(one).map(Value::Literal).ok_or_else(unknown),
        },
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn fill(template: &str) -> Result<Option<String>, String> {
        let regex = Regex::new(r"^ip-(?P<a>[0-9]+)-(?P<hex>[0-9a-f]+)\.(.*)$").unwrap();
        let name = "ip-10-ff.example.";
        let data = Data {
            name,
            zone: "example.",
            kind: "A",
            regex: regex.as_str(),
            remote: "10.0.0.9",
            groups: &regex.captures(name).unwrap(),
        };
        Ok(Template::read(template)?.fill(&data))
    }

    #[test]
    fn templates_are_filled() {
        for (template, expected) in [
            ("plain", Some("plain")),
            ("", Some("")),
            ("{{ .Name }} 60 IN {{.Type}} {{ .Zone }}", Some("ip-10-ff.example. 60 IN A example.")),
            ("{{ .Group.a }}/{{ index .Match 3 }}", Some("10/example.")),
            ("{{ index .Group \"hex\" }}/{{ index .Group \"1\" }}", Some("ff/10")),
            ("{{ parseInt .Group.hex 16 8 }}", Some("255")),
            ("{{ parseInt ( index .Match 2 ) 16 8 }}", Some("255")),
            ("{{ parseInt .Zone 16 8 }}", None),
            ("a {{- .Class -}} b", Some("aINb")),
            ("{{ .Group.none }}{{ index .Match 9 }}", Some("")),
            ("{{ .Remote }} {{ \"x\" }}", Some("10.0.0.9 x")),
            ("} } { {", Some("} } { {")),
        ] {
            assert_eq!(fill(template).unwrap().as_deref(), expected, "{template}");
        }
        for template in
            ["{{ .Nome }}", "{{ .Name", "{{ if .Name }}x{{ end }}", "{{ index .Match x }}", "{{ }}"]
        {
            assert!(fill(template).is_err(), "{template}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "[{}. a-zA-Z\"()0-9-]{0,40}") {
            check(&text).ok();
        }
    }
}
