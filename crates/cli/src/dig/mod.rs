//! `portolan dig`: ask the DNS server as a Pod would.
//!
//! ```text
//!   name, --from --search--> names to try --exchange--> answers --> print
//! ```
//!
//! The question goes over the same socket as everybody's, so that the answer is
//! the one that programs get. `--from` expands the search path of a Pod's
//! resolv.conf (`ndots:5`), and shows every name that was tried. `+trace` asks the HTTP API
//! beside it how the server comes to each of those answers.

mod exchange;
mod search;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;
use domain::{
    base::{Message, ParsedName, Rtype, iana::Rcode},
    rdata::AllRecordData,
};
use portolan_wire::{Page, Resolution, ResolutionStep};
use serde_json::{Value, json};

use crate::{
    Failure,
    args::{Connection, DigArgs, Format},
    client::{Client, local_addresses},
    get::to_yaml,
    output::{Exit, Output},
};
use exchange::ask;
use search::{SearchPath, candidates};

/// Where `portolan up` serves DNS unless told otherwise.
const DNS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1053);

/// One name that was tried.
struct Tried {
    name: String,
    answer: Message<Bytes>,
    /// How the server comes to the answer, where that is asked for.
    steps: Vec<ResolutionStep>,
}

impl Tried {
    /// The resolver stops here.
    fn is_answer(&self) -> bool {
        self.answer.header().rcode() == Rcode::NOERROR && self.answer.header_counts().ancount() > 0
    }
}

/// What the DNS server says of a name: NOERROR, NXDOMAIN, SERVFAIL, ...
pub(crate) async fn status(server: SocketAddr, name: &str) -> Result<String, Failure> {
    Ok(ask(server, name, Rtype::SOA, false).await?.header().rcode().to_string())
}

pub(crate) async fn run(
    connection: &Connection,
    args: &DigArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let Wanted { rtype, tcp, short, trace } = Wanted::of(args)?;
    let server = match (args.dns, local_addresses().and_then(|addresses| addresses.dns)) {
        (Some(given), _) => given,
        (None, Some(local)) => local.parse().unwrap_or(DNS_DEFAULT),
        (None, None) => DNS_DEFAULT,
    };
    let path = match &args.from {
        Some(from) => Some(SearchPath::of(from, connection, output).await?),
        None => None,
    };
    let (names, rtype) = candidates(&args.name, rtype, path.as_ref());
    let mut tried: Vec<Tried> = Vec::new();
    for name in names {
        let answer = ask(server, &name, rtype, tcp).await?;
        let from = path.as_ref().and_then(|path| path.pod.as_deref());
        let steps = match trace {
            true => steps(connection, &name, rtype, from).await?,
            false => Vec::new(),
        };
        tried.push(Tried { name, answer, steps });
        if tried.last().is_some_and(Tried::is_answer) {
            break;
        }
    }
    // When no name of the search path answers, the resolver reports the first.
    let found = tried.iter().position(Tried::is_answer);
    let Some(shown) = tried.get(found.unwrap_or(0)) else {
        return Err(Failure::Usage(format!("{:?} is no name", args.name)));
    };
    match args.output {
        Format::Json => {
            let document = document(server, rtype, &tried, shown)?;
            output.line(&serde_json::to_string_pretty(&document)?)?;
        }
        Format::Yaml => {
            output.raw(to_yaml(&document(server, rtype, &tried, shown)?)?.as_bytes())?;
        }
        Format::Table | Format::Wide if !short => print(server, &tried, shown, output)?,
        _ => {
            for record in records(&shown.answer, Section::Answer)? {
                output.line(&record.data)?;
            }
            if found.is_none() {
                output.word(&format!("{}: {}", shown.name, shown.answer.header().rcode()));
            }
        }
    }
    Ok(if found.is_some() { Exit::Fine } else { Exit::Problem })
}

/// What of an answer is wanted.
struct Wanted {
    rtype: Rtype,
    tcp: bool,
    short: bool,
    trace: bool,
}

impl Wanted {
    /// By flags, or by words as dig has them.
    fn of(args: &DigArgs) -> Result<Self, Failure> {
        let DigArgs { tcp, short, trace, .. } = *args;
        let mut wanted = Self { rtype: Rtype::A, tcp, short, trace };
        for word in &args.words {
            match word.as_str() {
                "+trace" => wanted.trace = true,
                "+tcp" => wanted.tcp = true,
                "+short" => wanted.short = true,
                option if option.starts_with('+') => {
                    return Err(Failure::Usage(format!(
                        "{option:?} is not known; of dig's options there are +trace, +tcp and +short"
                    )));
                }
                rtype => {
                    wanted.rtype = Rtype::from_str(&rtype.to_uppercase()).map_err(|_| {
                        Failure::Usage(format!(
                            "{rtype:?} is no record type; write A, AAAA, SRV, PTR, CNAME, TXT, \
                             SOA, NS or ANY"
                        ))
                    })?;
                }
            }
        }
        Ok(wanted)
    }
}

/// How the server comes to the answer about one name, by its HTTP API.
async fn steps(
    connection: &Connection,
    name: &str,
    rtype: Rtype,
    from: Option<&str>,
) -> Result<Vec<ResolutionStep>, Failure> {
    let mut query = vec![("name", name.to_owned()), ("type", rtype.to_string())];
    query.extend(from.map(|from| ("from", from.to_owned())));
    let page: Page<Resolution> =
        Client::new(connection)?.get("/v1/resolve", &query, Duration::ZERO).await?;
    Ok(page.items.into_iter().flat_map(|one| one.steps).collect())
}

#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// A record as a zone file writes it.
struct Line {
    owner: String,
    ttl: u32,
    class: String,
    rtype: String,
    data: String,
}

fn records(message: &Message<Bytes>, section: Section) -> Result<Vec<Line>, Failure> {
    let broken = |error: domain::base::wire::ParseError| Failure::Refused {
        message: format!("the answer is broken: {error}"),
        hint: String::new(),
    };
    let (_, answer, authority, additional) = message.sections().map_err(broken)?;
    let section = match section {
        Section::Answer => answer,
        Section::Authority => authority,
        Section::Additional => additional,
    };
    let mut lines = Vec::new();
    for record in section.limit_to::<AllRecordData<Bytes, ParsedName<Bytes>>>() {
        let record = record.map_err(broken)?;
        if record.rtype() == Rtype::OPT {
            continue;
        }
        let owner = record.owner().to_string();
        lines.push(Line {
            owner: if owner.ends_with('.') { owner } else { format!("{owner}.") },
            ttl: record.ttl().as_secs(),
            class: record.class().to_string(),
            rtype: record.rtype().to_string(),
            data: record.data().to_string(),
        });
    }
    Ok(lines)
}

/// The answer for scripts.
fn document(
    server: SocketAddr,
    rtype: Rtype,
    tried: &[Tried],
    shown: &Tried,
) -> Result<Value, Failure> {
    let section = |section: Section| -> Result<Vec<Value>, Failure> {
        let lines = records(&shown.answer, section)?;
        let item = |line: Line| {
            json!({
                "name": line.owner, "ttl": line.ttl, "class": line.class, "type": line.rtype,
                "data": line.data,
            })
        };
        Ok(lines.into_iter().map(item).collect())
    };
    let tried: Vec<Value> = tried
        .iter()
        .map(|one| {
            let answers = one.answer.header_counts().ancount();
            let status = one.answer.header().rcode().to_string();
            let mut tried = json!({"name": one.name, "status": status, "answers": answers});
            if !one.steps.is_empty() {
                tried["steps"] = json!(one.steps);
            }
            tried
        })
        .collect();
    Ok(json!({
        "server": server.to_string(),
        "name": shown.name,
        "type": rtype.to_string(),
        "status": shown.answer.header().rcode().to_string(),
        "tried": tried,
        "answer": section(Section::Answer)?,
        "authority": section(Section::Authority)?,
        "additional": section(Section::Additional)?,
    }))
}

fn print(
    server: SocketAddr,
    tried: &[Tried],
    shown: &Tried,
    output: &mut Output,
) -> Result<(), Failure> {
    for one in tried {
        let header = one.answer.header();
        output.line(&format!(
            ";; {} -> {} ({} answers)",
            one.name,
            header.rcode(),
            one.answer.header_counts().ancount()
        ))?;
        for step in &one.steps {
            output.line(&format!(";;   {:<10} {}", step.stage, step.text))?;
        }
    }
    let header = shown.answer.header();
    let flags: Vec<&str> = [
        (header.qr(), "qr"),
        (header.aa(), "aa"),
        (header.tc(), "tc"),
        (header.rd(), "rd"),
        (header.ra(), "ra"),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .collect();
    output.line(&format!(";; status: {}, flags: {}", header.rcode(), flags.join(" ")))?;
    for (section, title) in [
        (Section::Answer, "ANSWER"),
        (Section::Authority, "AUTHORITY"),
        (Section::Additional, "ADDITIONAL"),
    ] {
        let lines = records(&shown.answer, section)?;
        if !lines.is_empty() {
            output.line("")?;
            output.line(&format!(";; {title}"))?;
            for Line { owner, ttl, class, rtype, data } in lines {
                output.line(&format!("{owner}\t{ttl}\t{class}\t{rtype}\t{data}"))?;
            }
        }
    }
    output.line("")?;
    output.line(&format!(";; server: {server}, size: {} bytes", shown.answer.as_slice().len()))?;
    Ok(())
}
