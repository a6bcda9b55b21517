//! `rewrite`, `template`, `acl`, `header`.

use super::{Args, Directive, Fault, Line, Translation, Word, unknown_option};
use crate::config::{
    AclAction, AclConfig, AclRule, Flag, HeaderConfig, MatchKind, NameMatch, Network, Pattern,
    RecordType, ResultCode, RewriteConfig, RewriteRule, TemplateConfig,
};

pub(super) fn acl(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut config = AclConfig { zones: Args::of(&directive.head).zones()?, rules: Vec::new() };
    for line in &directive.body {
        let action = match line.name.text.to_ascii_lowercase().as_str() {
            "allow" => AclAction::Allow,
            "block" => AclAction::Block,
            "filter" => AclAction::Filter,
            "drop" => AclAction::Drop,
            _ => return Err(unknown_option(directive, line, "allow, block, drop, filter")),
        };
        let mut rule = AclRule { action, types: Vec::new(), networks: Vec::new() };
        let mut args = Args::of(line);
        while let Some(section) = args.next() {
            let is_section =
                |word: &&Word| matches!(word.text.to_ascii_lowercase().as_str(), "type" | "net");
            if !is_section(&section) {
                let text = format!("expected type or net, found {:?}", section.text);
                return Err(Fault::new(&section.spot, text));
            }
            let mut any = false;
            let mut all = false;
            while args.peek().is_some_and(|word| !is_section(&word)) {
                any = true;
                if args.peek().is_some_and(|word| word.text == "*") {
                    args.next();
                    all = true;
                } else if section.text.eq_ignore_ascii_case("type") {
                    rule.types.push(args.value::<RecordType>("a type")?);
                } else {
                    rule.networks.push(args.value::<Network>("a range")?);
                }
            }
            if !any {
                let text = format!("expected a value behind {:?}", section.text);
                return Err(Fault::new(&section.spot, text));
            }
            // No types, and no ranges, mean all of them.
            match section.text.eq_ignore_ascii_case("type") {
                true if all => rule.types.clear(),
                false if all => rule.networks.clear(),
                _ => {}
            }
        }
        config.rules.push(rule);
    }
    into.server.acl.push(config);
    Ok(())
}

pub(super) fn header(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    Args::of(&directive.head).end()?;
    let mut config = into.server.header.take().unwrap_or_default();
    for line in &directive.body {
        header_line(directive, line, &mut config)?;
    }
    into.server.header = Some(config);
    Ok(())
}

fn header_line(directive: &Directive, line: &Line, config: &mut HeaderConfig) -> Result<(), Fault> {
    let mut args = Args::of(line);
    let action = args.word("set or clear")?;
    let response = match line.name.text.to_ascii_lowercase().as_str() {
        "response" => true,
        "query" => false,
        _ => return Err(unknown_option(directive, line, "query, response")),
    };
    let flags = match (response, action.text.to_ascii_lowercase().as_str()) {
        (true, "set") => &mut config.response_set,
        (true, "clear") => &mut config.response_clear,
        (false, "set") => &mut config.query_set,
        (false, "clear") => &mut config.query_clear,
        (_, other) => {
            let text = format!("expected set or clear, found {other:?}");
            return Err(Fault::new(&action.spot, text));
        }
    };
    loop {
        let word = args.word("aa, ra or rd")?;
        flags.push(match word.text.to_ascii_lowercase().as_str() {
            "aa" => Flag::Aa,
            "ra" => Flag::Ra,
            "rd" => Flag::Rd,
            other => {
                return Err(Fault::new(
                    &word.spot,
                    format!("expected aa, ra or rd, found {other:?}"),
                ));
            }
        });
        if args.peek().is_none() {
            return Ok(());
        }
    }
}

pub(super) fn template(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut head = Args::of(&directive.head);
    let class = head.word("a class")?;
    if !matches!(class.text.as_str(), "IN" | "ANY") {
        let text = format!("expected IN or ANY, found {:?}; no other class is served", class.text);
        return Err(Fault::new(&class.spot, text));
    }
    let mut config = TemplateConfig {
        kind: Some(head.value("a type of record")?),
        zones: head.zones()?,
        ..TemplateConfig::default()
    };
    for line in &directive.body {
        let mut args = Args::of(line);
        match line.name.text.as_str() {
            "match" => {
                config.matches.push(args.value("a pattern")?);
                while args.peek().is_some() {
                    config.matches.push(args.value::<Pattern>("a pattern")?);
                }
            }
            "answer" => records(&mut args, &mut config.answer)?,
            "additional" => records(&mut args, &mut config.additional)?,
            "authority" => records(&mut args, &mut config.authority)?,
            "rcode" => config.rcode = args.value("a result code")?,
            "ederror" => {
                let number = args.number(0..=u16::MAX)?;
                let text = args.next().map(|word| word.text.clone()).unwrap_or_default();
                config.ederror = Some((number, text));
            }
            "fallthrough" => config.fallthrough = args.fallthrough()?,
            "upstream" => {
                args.rest();
                into.note(&line.name, "aliases are followed always");
            }
            "var" | "expr" => {
                let text = format!("{} is not supported; match tells names apart", line.name.text);
                return Err(Fault::new(&line.name.spot, text));
            }
            _ => {
                let options = "additional, answer, authority, ederror, fallthrough, match, rcode";
                return Err(unknown_option(directive, line, options));
            }
        }
        args.end()?;
    }
    into.server.template.push(config);
    Ok(())
}

/// Templates of records, checked where they stand.
fn records(args: &mut Args<'_>, into: &mut Vec<String>) -> Result<(), Fault> {
    loop {
        let word = args.word("a record")?;
        crate::chain::check_template(&word.text).map_err(|why| Fault::new(&word.spot, why))?;
        into.push(word.text.clone());
        if args.peek().is_none() {
            return Ok(());
        }
    }
}

pub(super) fn rewrite(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut words: Vec<Word> = directive.head.args.clone();
    if words.len() < 2 {
        for line in &directive.body {
            words.push(line.name.clone());
            words.extend(line.args.iter().cloned());
        }
    } else if let Some(line) = directive.body.first() {
        let text = "a rule stands on the line of rewrite or between its braces, not both";
        return Err(Fault::new(&line.name.spot, text));
    }
    let mut args = Args::words(&directive.head.name, &words);
    let goes_on = match args.peek().map(|word| word.text.to_ascii_lowercase()).as_deref() {
        Some("continue") => args.next().is_some(),
        Some("stop") => {
            args.next();
            false
        }
        _ => false,
    };
    let kind = args.word("name, type, ttl or rcode")?;
    let rule = match kind.text.to_ascii_lowercase().as_str() {
        "name" => name_rule(&mut args)?,
        "type" => RewriteRule::Type {
            from: args.value("a type of record")?,
            to: args.value("a type of record")?,
        },
        "class" => {
            let text = "class rules are not supported: only class IN is served";
            return Err(Fault::new(&kind.spot, text));
        }
        "ttl" => {
            let matches = name_match(&mut args, 1)?;
            let (min, max) = ttl_bounds(args.word("a TTL or MIN-MAX")?)?;
            RewriteRule::Ttl { matches, min, max }
        }
        "rcode" => RewriteRule::Rcode {
            matches: name_match(&mut args, 2)?,
            from: args.value::<ResultCode>("a result code")?,
            to: args.value::<ResultCode>("a result code")?,
        },
        "edns0" | "cname" => {
            let text =
                format!("{} rules are not supported; there are name, type, ttl, rcode", kind.text);
            return Err(Fault::new(&kind.spot, text));
        }
        other => {
            let text = format!("expected name, type, ttl or rcode, found {other:?}");
            return Err(Fault::new(&kind.spot, text));
        }
    };
    args.end()?;
    let config = RewriteConfig { goes_on, rule };
    crate::chain::check_rewrite(&config).map_err(|why| Fault::new(&kind.spot, why))?;
    into.server.rewrite.push(config);
    Ok(())
}

/// `[KIND] TEXT`, with so many words behind it.
fn name_match(args: &mut Args<'_>, behind: usize) -> Result<NameMatch, Fault> {
    let kind = if args.len() > 1 + behind { match_kind(args)? } else { MatchKind::Exact };
    let from = args.word("a name")?;
    NameMatch::new(kind, &from.text).map_err(|why| Fault::new(&from.spot, why))
}

fn match_kind(args: &mut Args<'_>) -> Result<MatchKind, Fault> {
    let word = args.word("exact, prefix, suffix, substring or regex")?;
    match word.text.to_ascii_lowercase().as_str() {
        "exact" => Ok(MatchKind::Exact),
        "prefix" => Ok(MatchKind::Prefix),
        "suffix" => Ok(MatchKind::Suffix),
        "substring" => Ok(MatchKind::Substring),
        "regex" => Ok(MatchKind::Regex),
        other => {
            let text =
                format!("expected exact, prefix, suffix, substring or regex, found {other:?}");
            Err(Fault::new(&word.spot, text))
        }
    }
}

/// `[KIND] FROM TO [answer auto | answer name P R | answer value P R]...`
fn name_rule(args: &mut Args<'_>) -> Result<RewriteRule, Fault> {
    let kind = if args.len() >= 3 { match_kind(args)? } else { MatchKind::Exact };
    let from = args.word("a name")?;
    let matches = NameMatch::new(kind, &from.text).map_err(|why| Fault::new(&from.spot, why))?;
    let to = args.word("a name")?.text.to_ascii_lowercase();
    let mut auto = false;
    let (mut answer_names, mut answer_values) = (Vec::new(), Vec::new());
    let mut first = true;
    while let Some(word) = args.next() {
        let what = match word.text.as_str() {
            "answer" => args.word("auto, name or value")?,
            _ if first => {
                return Err(Fault::new(
                    &word.spot,
                    format!("expected answer, found {:?}", word.text),
                ));
            }
            _ => word,
        };
        first = false;
        match what.text.as_str() {
            "auto" => auto = true,
            "name" => answer_names.push((args.value::<Pattern>("a pattern")?, replacement(args)?)),
            "value" => {
                answer_values.push((args.value::<Pattern>("a pattern")?, replacement(args)?))
            }
            other => {
                let text = format!("expected auto, name or value, found {other:?}");
                return Err(Fault::new(&what.spot, text));
            }
        }
    }
    Ok(RewriteRule::Name { matches, to, auto, answer_names, answer_values })
}

fn replacement(args: &mut Args<'_>) -> Result<String, Fault> {
    Ok(args.word("a name")?.text.to_ascii_lowercase())
}

/// `SECONDS`, `MIN-MAX`, `MIN-` or `-MAX`.
fn ttl_bounds(word: &Word) -> Result<(u32, u32), Fault> {
    let wrong =
        || Fault::new(&word.spot, format!("expected a TTL or MIN-MAX, found {:?}", word.text));
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let (min, max) = match word.text.split_once('-') {
        None => {
            let ttl = number(&word.text)?;
            (ttl, ttl)
        }
        Some(("", "")) => return Err(wrong()),
        Some(("", max)) => (0, number(max)?),
        Some((min, "")) => (number(min)?, i32::MAX.unsigned_abs()),
        Some((min, max)) => (number(min)?, number(max)?),
    };
    if min > max { Err(wrong()) } else { Ok((min, max)) }
}
