//! `portolan dig`: ask the DNS server as a Pod would.
//!
//! The question goes over the same socket as everybody's, so that the answer is
//! the one that programs get. `--from` expands the search path of a Pod's
//! resolv.conf (`ndots:5`), and shows every name that was tried.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;
use domain::{
    base::{
        Message, MessageBuilder, Name, ParsedName, Rtype,
        iana::{Class, Rcode},
    },
    rdata::AllRecordData,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::{
    Failure,
    args::{Connection, DigArgs},
    client::local_addresses,
    output::{Exit, Output},
};

/// Where `portolan up` serves DNS unless told otherwise.
const DNS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1053);

/// A Pod's resolver tries the search path first for names with fewer dots
/// (resolv.conf `options ndots:5`, as the kubelet writes it).
const NDOTS: usize = 5;

/// How long one question may take: the resolver's usual `timeout:5`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest UDP answer asked for (DNS flag day 2020).
const UDP_PAYLOAD_MAX: u16 = 1232;

/// One name that was tried.
struct Tried {
    name: String,
    answer: Message<Bytes>,
}

pub(crate) async fn run(
    _connection: &Connection,
    args: &DigArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let rtype = Rtype::from_str(&args.rtype.to_uppercase())
        .map_err(|_| Failure::Usage(format!("{:?} is no record type", args.rtype)))?;
    let local = local_addresses().and_then(|addresses| addresses.dns);
    let server = match (args.dns, local) {
        (Some(given), _) => given,
        (None, Some(local)) => local.parse().unwrap_or(DNS_DEFAULT),
        (None, None) => DNS_DEFAULT,
    };
    let mut tried: Vec<Tried> = Vec::new();
    for name in candidates(args, rtype) {
        let answer = ask(server, &name, rtype, args.tcp).await?;
        let found =
            answer.header().rcode() == Rcode::NOERROR && answer.header_counts().ancount() > 0;
        tried.push(Tried { name, answer });
        if found {
            break;
        }
    }
    // When no name of the search path answers, the resolver reports the first.
    let found = tried.iter().position(|one| one.answer.header_counts().ancount() > 0);
    let Some(shown) = tried.get(found.unwrap_or(0)) else {
        return Err(Failure::Usage(format!("{:?} is no name", args.name)));
    };
    if args.short {
        for line in records(&shown.answer, Section::Answer)? {
            output.line(line.rsplit('\t').next().unwrap_or(&line))?;
        }
    } else {
        print(server, &tried, shown, output)?;
    }
    Ok(if found.is_some() { Exit::Fine } else { Exit::Problem })
}

/// The names that a Pod's resolver would try, in order.
fn candidates(args: &DigArgs, rtype: Rtype) -> Vec<String> {
    let name = args.name.as_str();
    if let Ok(address) = name.parse::<IpAddr>()
        && (rtype == Rtype::PTR || rtype == Rtype::A)
    {
        return vec![reverse(address)];
    }
    let Some(from) = &args.from else { return vec![name.to_owned()] };
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let namespace = from.split('/').next().unwrap_or(from);
    let searched = [
        format!("{namespace}.svc.cluster.local"),
        "svc.cluster.local".to_owned(),
        "cluster.local".to_owned(),
    ]
    .into_iter()
    .map(|suffix| format!("{name}.{suffix}"));
    let dots = name.matches('.').count();
    if dots >= NDOTS {
        std::iter::once(name.to_owned()).chain(searched).collect()
    } else {
        searched.chain(std::iter::once(name.to_owned())).collect()
    }
}

fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles: Vec<String> = v6
                .octets()
                .iter()
                .rev()
                .flat_map(|byte| [format!("{:x}", byte & 15), format!("{:x}", byte >> 4)])
                .collect();
            format!("{}.ip6.arpa", nibbles.join("."))
        }
    }
}

fn question(name: &str, rtype: Rtype) -> Result<Vec<u8>, Failure> {
    let usage = || Failure::Usage(format!("{name:?} is no DNS name"));
    let qname: Name<Vec<u8>> = Name::from_str(name).map_err(|_| usage())?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_random_id();
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((qname, rtype, Class::IN)).map_err(|_| usage())?;
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(UDP_PAYLOAD_MAX);
            Ok(())
        })
        .map_err(|_| usage())?;
    Ok(builder.finish())
}

async fn ask(
    server: SocketAddr,
    name: &str,
    rtype: Rtype,
    tcp: bool,
) -> Result<Message<Bytes>, Failure> {
    let question = question(name, rtype)?;
    let unreachable = |reason: String| Failure::Unreachable { server: server.to_string(), reason };
    let exchange = async {
        let answer = if tcp {
            over_tcp(server, &question).await?
        } else {
            over_udp(server, &question).await?
        };
        if !tcp && answer.header().tc() { over_tcp(server, &question).await } else { Ok(answer) }
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| unreachable(format!("no answer within {TIMEOUT:?}")))?
        .map_err(|error| unreachable(error.to_string()))
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Message<Bytes>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        if let Ok(message) = Message::from_octets(bytes)
            && question.get(..2) == message.as_slice().get(..2)
        {
            return Ok(message);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Message<Bytes>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    Message::from_octets(Bytes::from(buffer))
        .map_err(|_| std::io::Error::other("the answer is no DNS message"))
}

#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// The records of a section as a zone file writes them.
fn records(message: &Message<Bytes>, section: Section) -> Result<Vec<String>, Failure> {
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
        lines.push(format!(
            "{}\t{}\t{}\t{}\t{}",
            dotted(&record.owner().to_string()),
            record.ttl().as_secs(),
            record.class(),
            record.rtype(),
            record.data()
        ));
    }
    Ok(lines)
}

fn dotted(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
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
    }
    let header = shown.answer.header();
    let mut flags = Vec::new();
    for (set, flag) in [
        (header.qr(), "qr"),
        (header.aa(), "aa"),
        (header.tc(), "tc"),
        (header.rd(), "rd"),
        (header.ra(), "ra"),
    ] {
        if set {
            flags.push(flag);
        }
    }
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
            for line in lines {
                output.line(&line)?;
            }
        }
    }
    output.line("")?;
    output.line(&format!(";; server: {server}, size: {} bytes", shown.answer.as_slice().len()))?;
    Ok(())
}
