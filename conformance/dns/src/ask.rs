//! Asking, and reading what comes back.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use domain::{
    base::{Message, MessageBuilder, Name, ParsedName, Rtype, iana::Class, message::RecordSection},
    rdata::AllRecordData,
};

/// How long a reply may take. Upstream servers are in this process, so none takes long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Times that a question over UDP is sent.
const TRIES: usize = 3;

/// A name and a type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) kind: Rtype,
}

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) name: &'static str,
    tcp: bool,
    /// The size that is offered, and whether DNSSEC is wanted.
    edns: Option<(u16, bool)>,
}

/// All ways.
pub(crate) const MANNERS: [Manner; 4] = [
    Manner { name: "udp", tcp: false, edns: None },
    Manner { name: "udp+edns", tcp: false, edns: Some((1232, false)) },
    Manner { name: "udp+do", tcp: false, edns: Some((1232, true)) },
    Manner { name: "tcp", tcp: true, edns: Some((1232, false)) },
];

/// A reply, as far as its order does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) rcode: String,
    /// Those that are set.
    pub(crate) flags: String,
    pub(crate) answer: BTreeSet<String>,
    pub(crate) authority: BTreeSet<String>,
    pub(crate) additional: BTreeSet<String>,
    pub(crate) opt: bool,
}

impl Reply {
    pub(crate) fn is_cut(&self) -> bool {
        self.flags.contains("tc")
    }
}

pub(crate) fn ask(server: SocketAddr, question: &Question, manner: Manner) -> Result<Reply> {
    let packet = packet(question, manner)?;
    let bytes = if manner.tcp { tcp(server, &packet) } else { udp(server, &packet) };
    let bytes = bytes.with_context(|| format!("{question:?} over {}", manner.name))?;
    read(bytes).with_context(|| format!("{question:?} over {}", manner.name))
}

fn packet(question: &Question, manner: Manner) -> Result<Vec<u8>> {
    let name: Name<Vec<u8>> = question.name.parse().context("a name")?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(rand::random());
    builder.header_mut().set_rd(true);
    let mut section = builder.question();
    section.push((name, question.kind, Class::IN))?;
    let mut additional = section.additional();
    if let Some((size, dnssec)) = manner.edns {
        additional.opt(|opt| {
            opt.set_udp_payload_size(size);
            opt.set_dnssec_ok(dnssec);
            Ok(())
        })?;
    }
    Ok(additional.finish())
}

fn udp(server: SocketAddr, packet: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut reply = vec![0; 65_535];
    for _ in 0..TRIES {
        socket.send(packet)?;
        if let Ok(length) = socket.recv(&mut reply) {
            reply.truncate(length);
            return Ok(reply);
        }
    }
    Err(anyhow!("no reply"))
}

fn tcp(server: SocketAddr, packet: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(packet.len())?;
    stream.write_all(&[&length.to_be_bytes(), packet].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn read(bytes: Vec<u8>) -> Result<Reply> {
    let message = Message::from_octets(bytes).map_err(|_| anyhow!("no message"))?;
    let header = message.header();
    let flags = [
        (header.aa(), "aa"),
        (header.tc(), "tc"),
        (header.rd(), "rd"),
        (header.ra(), "ra"),
        (header.ad(), "ad"),
        (header.cd(), "cd"),
    ];
    let flags: Vec<&str> =
        flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
    Ok(Reply {
        rcode: message.opt_rcode().to_string(),
        flags: flags.join(" "),
        answer: lines(message.answer()?)?,
        authority: lines(message.authority()?)?,
        additional: lines(message.additional()?)?,
        opt: message.opt().is_some(),
    })
}

type Record<'m> =
    domain::base::Record<ParsedName<&'m [u8]>, AllRecordData<&'m [u8], ParsedName<&'m [u8]>>>;

/// Records as text, in lower case; serials do not count.
fn lines(section: RecordSection<'_, Vec<u8>>) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    for record in section {
        let record = record?;
        if record.rtype() == Rtype::OPT {
            continue;
        }
        let record: Record<'_> =
            record.into_record()?.ok_or_else(|| anyhow!("a record of an unknown type"))?;
        let text = record.to_string().to_lowercase();
        let mut fields: Vec<&str> = text.split_whitespace().collect();
        if fields.get(3) == Some(&"soa") && fields.len() > 6 {
            fields[6] = "*";
        }
        lines.insert(fields.join(" "));
    }
    Ok(lines)
}
