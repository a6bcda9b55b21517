//! `rewrite`: other questions than were asked, and the way back.
//!
//! A rule sees the name as text, in lower case with its last dot. What it changes of
//! the question is not seen by the client: the reply repeats what was asked. What
//! stands in the records is changed back where a rule says so, rules in turn from the
//! last to the first.

use domain::{
    base::Ttl,
    rdata::{Cname, Dname, Mx, Naptr, Ns, Ptr, Soa, Srv, ZoneRecordData},
};

use super::{Refused, Request, Response, Stage, Step};
use crate::{
    bearing::Bearing,
    config::{MatchKind, NameMatch, Pattern, RewriteConfig, RewriteRule},
    name::{DnsName, Rr, parse, text},
    names::Names,
    wire::Rcode,
};

/// Groups of a pattern that a replacement can name.
const GROUPS_MAX: usize = 100;

/// What is changed of an answer, in the order of the rules.
pub(crate) type Reverts = Vec<Revert>;

/// One change of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Revert {
    Owners(Rewriter),
    Targets(Rewriter),
    Ttl(u32, u32),
    Rcode(u16, u16),
}

/// How one name becomes another.
#[derive(Clone, Debug)]
pub(crate) enum Rewriter {
    /// A name, and all below it.
    Remap(String, String),
    /// The end of a text.
    Suffix(String, String),
    /// What a pattern finds in it becomes the whole.
    Pattern(Pattern, String),
}

impl Rewriter {
    fn rewrite(&self, name: &str) -> Option<String> {
        match self {
            Self::Remap(from, to) => {
                let before = name.strip_suffix(from.as_str())?;
                (before.is_empty() || before.ends_with('.')).then(|| format!("{before}{to}"))
            }
            Self::Suffix(from, to) => {
                name.strip_suffix(from.as_str()).map(|before| format!("{before}{to}"))
            }
            Self::Pattern(pattern, to) => filled(pattern, to, name),
        }
    }
}

/// A replacement with the groups of what a pattern found in a name.
fn filled(pattern: &Pattern, to: &str, name: &str) -> Option<String> {
    let found = pattern.0.captures(name)?;
    let mut out = to.to_owned();
    for (number, group) in found.iter().enumerate().take(GROUPS_MAX + 1) {
        let text = group.map_or("", |group| group.as_str());
        out = out.replace(&format!("{{{number}}}"), text);
    }
    Some(out)
}

/// Whether a rule can work at all; checked where it is read.
pub(crate) fn check(config: &RewriteConfig) -> Result<(), String> {
    let RewriteRule::Name { matches, to, auto, answer_names, answer_values } = &config.rule else {
        return Ok(());
    };
    let groups = |pattern: &Pattern, to: &str| {
        let used = (0..=GROUPS_MAX).filter(|number| to.contains(&format!("{{{number}}}"))).max();
        let has = pattern.0.captures_len() - 1;
        match used {
            Some(used) if used > has => {
                Err(format!("{to:?} uses group {used}, and {:?} has {has}", pattern.0.as_str()))
            }
            _ => Ok(()),
        }
    };
    if let NameMatch::Regex(pattern) = matches {
        groups(pattern, to)?;
    } else {
        // The new end of a name may begin with a dot.
        let exact = matches!(matches, NameMatch::Text(MatchKind::Exact, _));
        let whole = if exact { to } else { to.strip_prefix('.').unwrap_or(to) };
        if parse(whole).is_none() {
            return Err(format!("{to:?} is no domain name"));
        }
    }
    for (pattern, to) in answer_names.iter().chain(answer_values) {
        groups(pattern, to)?;
    }
    if *auto && !answer_names.is_empty() {
        return Err("answer auto and answer name do not go together".to_owned());
    }
    Ok(())
}

/// The stage.
#[derive(Debug)]
pub(crate) struct Rewrite(pub(crate) Vec<RewriteConfig>);

impl Stage for Rewrite {
    fn name(&self) -> &'static str {
        "rewrite"
    }

    fn bearing(&self, apex: &DnsName) -> Bearing {
        let apex = text(apex).to_ascii_lowercase();
        match self.0.iter().any(|config| may_match(&config.rule, &apex)) {
            true => Bearing::EVERYTHING,
            false => Bearing::NOTHING,
        }
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let mut any = false;
        for config in &self.0 {
            match apply(&config.rule, request) {
                Applied::No => continue,
                Applied::Yes => any = true,
                Applied::NoName => {
                    return Step::Refuse(Refused {
                        rcode: Rcode::ServFail as u16,
                        error: Some((0, "a rewrite rule makes no domain name".to_owned())),
                        why: "a rule makes no domain name",
                    });
                }
            }
            if !config.goes_on {
                break;
            }
        }
        Step::Next(if any { "a rule fits" } else { "no rule fits" })
    }

    fn leave(&self, request: &Request, response: &mut Response) {
        for revert in request.reverts.iter().rev() {
            if let Revert::Rcode(from, to) = revert
                && response.rcode == *from
            {
                response.rcode = *to;
                // Bytes of an upstream server say what it said; records do not.
                response.parts();
            }
        }
        let touches_records = |revert: &Revert| !matches!(revert, Revert::Rcode(..));
        if !request.reverts.iter().any(touches_records) {
            return;
        }
        let Some(sections) = response.parts() else { return };
        for record in sections.into_iter().flatten() {
            for revert in request.reverts.iter().rev() {
                revert.apply(record);
            }
        }
    }
}

/// Whether a rule may change questions for names that end in a text, or their answers.
fn may_match(rule: &RewriteRule, apex: &str) -> bool {
    let (RewriteRule::Name { matches, .. }
    | RewriteRule::Ttl { matches, .. }
    | RewriteRule::Rcode { matches, .. }) = rule
    else {
        return true;
    };
    match matches {
        NameMatch::Text(MatchKind::Exact, name) => fully_qualified(name).ends_with(apex),
        NameMatch::Text(MatchKind::Suffix, end) => {
            let end = fully_qualified(end);
            end.ends_with(apex) || apex.ends_with(&*end)
        }
        _ => true,
    }
}

enum Applied {
    No,
    Yes,
    NoName,
}

fn apply(rule: &RewriteRule, request: &mut Request) -> Applied {
    let before = request.name_text();
    match rule {
        RewriteRule::Type { from, to } => {
            if request.question.kind != from.0 {
                return Applied::No;
            }
            request.question.kind = to.0;
        }
        RewriteRule::Ttl { matches, min, max } => {
            if !matches.finds(&before) {
                return Applied::No;
            }
            request.reverts.push(Revert::Ttl(*min, *max));
        }
        RewriteRule::Rcode { matches, from, to } => {
            if !matches.finds(&before) {
                return Applied::No;
            }
            request.reverts.push(Revert::Rcode(from.0, to.0));
        }
        RewriteRule::Name { matches, to, auto, answer_names, answer_values } => {
            let to = fully_qualified(to);
            let Some(after) = matches.replaced(&before, &to) else { return Applied::No };
            let Some(name) = parse(&after) else { return Applied::NoName };
            request.question.name = name;
            // Exact rules always lead back (CoreDNS).
            let exact = matches!(matches, NameMatch::Text(MatchKind::Exact, _));
            if *auto || exact {
                let back = match matches {
                    NameMatch::Text(MatchKind::Suffix, from) => Rewriter::Suffix(to, from.clone()),
                    _ => Rewriter::Remap(after, before),
                };
                request.reverts.push(Revert::Owners(back.clone()));
                request.reverts.push(Revert::Targets(back));
            }
            let rewriter = |(pattern, to): &(Pattern, String)| {
                Rewriter::Pattern(pattern.clone(), fully_qualified(to))
            };
            request.reverts.extend(answer_names.iter().map(rewriter).map(Revert::Owners));
            request.reverts.extend(answer_values.iter().map(rewriter).map(Revert::Targets));
        }
    }
    Applied::Yes
}

fn fully_qualified(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

impl NameMatch {
    fn finds(&self, name: &str) -> bool {
        match self {
            Self::Regex(pattern) => pattern.0.is_match(name),
            Self::Text(MatchKind::Prefix, from) => name.starts_with(from.as_str()),
            Self::Text(MatchKind::Suffix, from) => name.ends_with(from.as_str()),
            Self::Text(MatchKind::Substring, from) => name.contains(from.as_str()),
            Self::Text(MatchKind::Exact | MatchKind::Regex, from) => name == from,
        }
    }

    /// The name with what was found replaced. `None`: nothing was found.
    fn replaced(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Self::Regex(pattern) => filled(pattern, to, name),
            _ if !self.finds(name) => None,
            Self::Text(MatchKind::Prefix, from) => {
                name.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}"))
            }
            Self::Text(MatchKind::Suffix, from) => {
                name.strip_suffix(from.as_str()).map(|rest| format!("{rest}{to}"))
            }
            Self::Text(MatchKind::Substring, from) => Some(name.replace(from.as_str(), to)),
            Self::Text(..) => Some(to.to_owned()),
        }
    }
}

impl Revert {
    fn apply(&self, record: &mut Rr) {
        match self {
            Self::Rcode(..) => {}
            Self::Ttl(min, max) => {
                let ttl = record.ttl().as_secs().clamp(*min, *max);
                record.set_ttl(Ttl::from_secs(ttl));
            }
            Self::Owners(rewriter) => {
                if let Some(owner) = renamed(rewriter, record.owner()) {
                    let data = record.data().clone();
                    *record = Rr::new(owner, record.class(), record.ttl(), data);
                }
            }
            Self::Targets(rewriter) => {
                if let Some(data) = retargeted(rewriter, record.data()) {
                    *record = Rr::new(record.owner().clone(), record.class(), record.ttl(), data);
                }
            }
        }
    }
}

/// A name after a change; what is no name any more stays.
fn renamed(rewriter: &Rewriter, name: &DnsName) -> Option<DnsName> {
    parse(&rewriter.rewrite(&text(name))?)
}

type Data = ZoneRecordData<bytes::Bytes, DnsName>;

/// Data with the name in it changed.
fn retargeted(rewriter: &Rewriter, data: &Data) -> Option<Data> {
    let new = |name: &DnsName| renamed(rewriter, name);
    Some(match data {
        Data::Cname(cname) => Cname::new(new(cname.cname())?).into(),
        Data::Dname(dname) => Dname::new(new(dname.dname())?).into(),
        Data::Ns(ns) => Ns::new(new(ns.nsdname())?).into(),
        Data::Ptr(ptr) => Ptr::new(new(ptr.ptrdname())?).into(),
        Data::Mx(mx) => Mx::new(mx.preference(), new(mx.exchange())?).into(),
        Data::Srv(srv) => {
            Srv::new(srv.priority(), srv.weight(), srv.port(), new(srv.target())?).into()
        }
        Data::Soa(soa) => Soa::new(
            new(soa.mname())?,
            soa.rname().clone(),
            soa.serial(),
            soa.refresh(),
            soa.retry(),
            soa.expire(),
            soa.minimum(),
        )
        .into(),
        Data::Naptr(naptr) => Naptr::new(
            naptr.order(),
            naptr.preference(),
            naptr.flags().clone(),
            naptr.services().clone(),
            naptr.regexp().clone(),
            new(naptr.replacement())?,
        )
        .into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
