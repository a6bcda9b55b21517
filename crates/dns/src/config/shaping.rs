//! What changes questions and answers on their way, or refuses them.

use serde::Deserialize;

use super::{
    serving::Fallthrough,
    values::{Network, Pattern, RecordType, ResultCode, ZoneName},
};

/// What is done with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AclAction {
    /// It goes on.
    Allow,
    /// REFUSED.
    Block,
    /// An empty answer.
    Filter,
    /// Silence.
    Drop,
}

/// One rule: the first that fits counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclRule {
    /// What is done.
    pub action: AclAction,
    /// With queries of these types; none: all.
    #[serde(default)]
    pub types: Vec<RecordType>,
    /// From these clients; none: all.
    #[serde(default)]
    pub networks: Vec<Network>,
}

/// Rules for zones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclConfig {
    /// Zones; none: those of the block.
    pub zones: Vec<ZoneName>,
    /// Its rules.
    pub rules: Vec<AclRule>,
}

/// A flag of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flag {
    /// Authoritative answer.
    Aa,
    /// Recursion available.
    Ra,
    /// Recursion desired.
    Rd,
}

/// Flags that are set or cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderConfig {
    /// Set in queries.
    pub query_set: Vec<Flag>,
    /// Cleared in queries.
    pub query_clear: Vec<Flag>,
    /// Set in replies.
    pub response_set: Vec<Flag>,
    /// Cleared in replies.
    pub response_clear: Vec<Flag>,
}

/// How a name is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchKind {
    /// The whole name.
    #[default]
    Exact,
    /// Its beginning.
    Prefix,
    /// Its end.
    Suffix,
    /// A part of it.
    Substring,
    /// A regular expression finds something in it.
    Regex,
}

/// Which names a rule is about.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawNameMatch")]
pub enum NameMatch {
    /// By the text of the name, in lower case with its last dot.
    Text(MatchKind, String),
    /// By a regular expression.
    Regex(Pattern),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNameMatch {
    #[serde(default)]
    kind: MatchKind,
    from: String,
}

impl TryFrom<RawNameMatch> for NameMatch {
    type Error = String;

    fn try_from(raw: RawNameMatch) -> Result<Self, String> {
        Self::new(raw.kind, &raw.from)
    }
}

impl NameMatch {
    /// Every text gets a last dot, as in CoreDNS: prefixes and parts are whole labels at
    /// their end.
    pub(crate) fn new(kind: MatchKind, from: &str) -> Result<Self, String> {
        if kind == MatchKind::Regex {
            return from.parse().map(Self::Regex);
        }
        let mut from = from.to_ascii_lowercase();
        if !from.ends_with('.') {
            from.push('.');
        }
        Ok(Self::Text(kind, from))
    }
}

/// What a rule changes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RewriteRule {
    /// The name that is asked for.
    Name {
        /// Which names.
        matches: NameMatch,
        /// What takes the place of what was found; of a regular expression, `{1}` is
        /// its first group.
        to: String,
        /// Whether the answer is turned back the same way.
        #[serde(default)]
        auto: bool,
        /// Changes of owner names in the answer: pattern and replacement.
        #[serde(default)]
        answer_names: Vec<(Pattern, String)>,
        /// Changes of names inside records of the answer.
        #[serde(default)]
        answer_values: Vec<(Pattern, String)>,
    },
    /// The type that is asked for.
    Type {
        /// This type
        from: RecordType,
        /// becomes that one.
        to: RecordType,
    },
    /// The TTLs of the answer.
    Ttl {
        /// For which names.
        matches: NameMatch,
        /// At least, in seconds.
        min: u32,
        /// At most, in seconds.
        max: u32,
    },
    /// The result code.
    Rcode {
        /// For which names.
        matches: NameMatch,
        /// This code
        from: ResultCode,
        /// becomes that one.
        to: ResultCode,
    },
}

/// One rule of `rewrite`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewriteConfig {
    /// Whether the rules after it are looked at too.
    #[serde(default, rename = "continue")]
    pub goes_on: bool,
    /// What it changes.
    pub rule: RewriteRule,
}

/// Answers made from the question.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TemplateConfig {
    /// Zones; none: those of the block.
    pub zones: Vec<ZoneName>,
    /// The type that is asked for; none, or ANY: all.
    #[serde(rename = "type")]
    pub kind: Option<RecordType>,
    /// The name must match one of these; none: any name.
    #[serde(rename = "match")]
    pub matches: Vec<Pattern>,
    /// Records of the answer.
    pub answer: Vec<String>,
    /// Further records.
    pub additional: Vec<String>,
    /// Records of the authority section.
    pub authority: Vec<String>,
    /// The result code.
    pub rcode: ResultCode,
    /// An extended error: its number and a text (RFC 8914).
    pub ederror: Option<(u16, String)>,
    /// Names that match no pattern and others may have.
    pub fallthrough: Fallthrough,
}

impl Default for TemplateConfig {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            kind: None,
            matches: Vec::new(),
            answer: Vec::new(),
            additional: Vec::new(),
            authority: Vec::new(),
            rcode: ResultCode(0),
            ederror: None,
            fallthrough: Fallthrough::default(),
        }
    }
}
