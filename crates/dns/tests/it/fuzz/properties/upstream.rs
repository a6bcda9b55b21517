//! Replies of upstream servers, through faces that ask them and through the stages that
//! take their records apart.

use std::{cell::RefCell, collections::HashMap, sync::LazyLock};

use hickory_proto::{op::Message, rr::Record};
use portolan_dns::{Forwarding, Offline, Settings, StandIn};
use portolan_testkit::fuzz::Choices;

use super::{
    faces, grow,
    judge::{self, HEADER, Manners},
};

/// Names that lead to upstream servers: as they are, from an alias of ours, below a search
/// path, through rewriting.
const NAMES: [&str; 9] = [
    "www.example.org",
    "a.b.test",
    "WWW.Example.ORG",
    "away.demo.svc.cluster.local",
    "www.example.org.demo.svc.cluster.local",
    "x.plain.test",
    "gone.test",
    "x.alias.test",
    "9.9.9.11.in-addr.arpa",
];

thread_local! {
    /// What the stand-in answers by.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// What it has answered last.
    static SAID: RefCell<Option<Grown>> = const { RefCell::new(None) };
}

/// A reply.
#[derive(Clone, Debug, Default)]
struct Grown {
    bytes: Vec<u8>,
    /// Names may point to what is no name, such as a TTL, and change with it.
    wild: bool,
}

/// A face, and whether it passes replies on as they are.
type Face = (Offline, bool);

static FACES: LazyLock<Vec<Face>> = LazyLock::new(|| {
    let stand_in = StandIn::new(|query| {
        let grown = BYTES.with_borrow(|bytes| grown(&mut Choices::new(bytes), query));
        SAID.set(grown.clone());
        grown.map(|grown| grown.bytes)
    });
    let blocks = |text: &str| {
        faces::by_blocks(&faces::configuration(text), &stand_in).expect("a configuration")
    };
    let server = "127.0.0.1:5353".parse().expect("an address");
    let settings = Settings { forwarding: Forwarding::to([server]), ..Settings::default() };
    let plain = Offline::new(None, &settings, faces::world().snapshot(), &stand_in);
    vec![
        (blocks(faces::DIRECT), true),
        (plain.expect("settings"), true),
        (blocks(faces::STAGES), false),
    ]
});

/// Bytes as what an upstream server says to a question: whatever it is, the client gets a
/// reply to its own question; what others can read of it is passed on whole and unchanged,
/// but for TTLs, which never grow.
pub(crate) fn upstream_replies(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let (face, plain) = &FACES[choices.below(FACES.len())];
    let mut query =
        vec![7, 7, choices.byte() & 0x01, choices.byte() & 0x10, 0, 1, 0, 0, 0, 0, 0, 0];
    let name = choices.one(&NAMES);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(grow::kind(choices).to_be_bytes());
    query.extend([0, 1]);
    if choices.rarely(2) {
        query[11] = 1;
        let size: u16 = choices.one(&[512, 1232, 4096]);
        query.extend([0, 0, 41]);
        query.extend(size.to_be_bytes());
        query.extend([0, 0, choices.byte() & 0x80, 0, 0, 0]);
    }
    let turn = usize::from(choices.byte());
    BYTES.set(choices.rest().to_vec());
    SAID.set(None);
    let replies =
        judge::packet(face, &query, turn, Manners { garbled: true, ..Manners::default() });
    let Some(said) = SAID.take() else { return };
    let Ok(upstream) = Message::from_vec(&said.bytes) else { return };
    if said.wild {
        return;
    }
    let [_, tcp] = &replies;
    let tcp = tcp.as_ref().expect("what others read of an upstream server, they read of us");
    if *plain && upstream.queries.len() == 1 && !name.contains("cluster") {
        passed_on(&upstream, tcp);
    }
}

/// Records without their TTL, with it. A negative one is 0 (RFC 2181, 8).
fn by_text<'m>(records: impl IntoIterator<Item = &'m Record>) -> HashMap<String, u32> {
    let mut all = HashMap::new();
    for record in records {
        let ttl = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl };
        let mut plain = record.clone();
        plain.ttl = 0;
        let text = plain.to_string().to_ascii_lowercase();
        all.entry(text).and_modify(|longest: &mut u32| *longest = ttl.max(*longest)).or_insert(ttl);
    }
    all
}

fn passed_on(upstream: &Message, reply: &Message) {
    let code = |message: &Message| u16::from(message.metadata.response_code);
    // SERVFAIL: it was no reply to the question, or had more in it than a reply has.
    if code(reply) == 2 || reply.metadata.truncation {
        return;
    }
    assert_eq!(code(reply), code(upstream), "the result code");
    let sections = [
        (&upstream.answers, &reply.answers),
        (&upstream.authorities, &reply.authorities),
        (&upstream.additionals, &reply.additionals),
    ];
    for (theirs, ours) in sections {
        let (theirs, ours) = (by_text(theirs), by_text(ours));
        let mut missing: Vec<&String> =
            theirs.keys().filter(|text| !ours.contains_key(*text)).collect();
        missing.extend(ours.keys().filter(|text| !theirs.contains_key(*text)));
        assert!(missing.is_empty(), "on one side only: {missing:?}");
        for (text, ttl) in &ours {
            assert!(*ttl <= theirs[text], "{text} for {ttl} s");
        }
    }
}

/// A reply to a query, nearly. `None`: silence.
fn grown(choices: &mut Choices<'_>, query: &[u8]) -> Option<Grown> {
    match choices.below(32) {
        30 => return None,
        31 => return Some(Grown { bytes: choices.rest().to_vec(), wild: true }),
        _ => {}
    }
    let question = judge::question(query)?;
    let mut reply = query[..2].to_vec();
    let flags = if choices.rarely(3) { choices.byte() } else { 0 };
    reply.extend([
        0x80 | flags & 0x07,
        choices.byte() & 0xb0 | choices.one(&[0, 0, 0, 3, 2, 5, 1, 9]),
    ]);
    reply.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    reply.extend(question);
    if choices.rarely(6) {
        // In another case.
        for byte in &mut reply[HEADER + 1..HEADER + 4] {
            *byte ^= 0x20;
        }
    }
    let mut reply = Grown { bytes: reply, wild: false };
    let mut counts = [0_u16; 3];
    for count in &mut counts {
        for _ in 0..choices.one(&[1, 2, 0, 1, 5, 40]) {
            if choices.is_empty() {
                break;
            }
            *count += 1;
            reply.record(choices);
        }
    }
    let Grown { bytes: mut reply, mut wild } = reply;
    if choices.rarely(2) {
        counts[2] += 1;
        let extended = if choices.rarely(6) { choices.byte() } else { 0 };
        reply.extend([0, 0, 41, 4, 208, extended, 0, 0, 0]);
        let mut options = Vec::new();
        for _ in 0..choices.below(3) {
            let data = choices.bytes(20);
            options.extend([0, choices.one(&[15, 3, 10])]);
            options.extend((data.len() as u16).to_be_bytes());
            options.extend(data);
        }
        reply.extend((options.len() as u16).to_be_bytes());
        reply.extend(options);
    }
    for (count, place) in counts.into_iter().zip([6, 8, 10]) {
        reply[place..place + 2].copy_from_slice(&count.to_be_bytes());
    }
    if choices.rarely(10) {
        let place = choices.below(reply.len());
        reply[place] = choices.byte();
        wild = true;
    }
    if choices.rarely(16) {
        reply.truncate(choices.below(reply.len() + 1));
    }
    if choices.rarely(16) {
        reply.extend(choices.bytes(4));
    }
    Some(Grown { bytes: reply, wild })
}

impl Grown {
    /// A name, which may end in a pointer to a label of the question, or anywhere.
    fn name(&mut self, choices: &mut Choices<'_>) {
        let out = &mut self.bytes;
        if choices.rarely(3) {
            let label = choices.bytes(6);
            if !label.is_empty() {
                out.push(label.len() as u8);
                out.extend(label);
            }
        }
        match choices.below(6) {
            0..=2 => out.extend([0xc0, 12]),
            3 => out.extend([0xc0, 13 + out[HEADER]]),
            4 => out.push(0),
            _ => {
                let place = choices.below(out.len());
                out.extend([0xc0 | (place >> 8) as u8 & 0x3f, place as u8]);
                self.wild = true;
            }
        }
    }

    fn record(&mut self, choices: &mut Choices<'_>) {
        if choices.rarely(4) {
            self.name(choices)
        } else {
            self.bytes.extend([0xc0, 12])
        }
        // A, AAAA, CNAME, NS, PTR, DNAME, MX, SOA, SRV, TXT, NAPTR, HTTPS, CAA, DS, RRSIG, NSEC.
        let kind: u16 = match choices.rarely(20) {
            true => u16::from(choices.byte()) << 8 | u16::from(choices.byte()),
            false => choices.one(&[1, 28, 5, 2, 12, 39, 15, 6, 33, 16, 35, 65, 257, 43, 46, 47]),
        };
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend([0, if choices.rarely(20) { choices.byte() } else { 1 }]);
        let ttl = choices.one(&[300_u32, 0, 1, 29, 31, 3601, i32::MAX as u32, 1 << 31, u32::MAX]);
        self.bytes.extend(ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend([0, 0]);
        self.data(kind, choices);
        let length = (self.bytes.len() - length_at - 2) as u16;
        let lie = u16::from(choices.rarely(24));
        self.wild |= lie > 0;
        self.bytes[length_at..length_at + 2].copy_from_slice(&(length + lie).to_be_bytes());
    }

    fn data(&mut self, kind: u16, choices: &mut Choices<'_>) {
        match kind {
            1 => self.bytes.extend([192, 0, 2, choices.byte()]),
            28 => {
                self.bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                self.bytes.push(choices.byte());
            }
            5 | 2 | 12 | 39 => self.name(choices),
            15 => {
                self.bytes.extend([0, 10]);
                self.name(choices);
            }
            6 => {
                self.name(choices);
                self.name(choices);
                self.bytes.extend([0; 16]);
                self.bytes.extend([0, 0, 0, choices.byte()]);
            }
            33 => {
                self.bytes.extend([0, 0, 0, 1, 0, 80]);
                self.name(choices);
            }
            16 => {
                let text = choices.bytes(20);
                self.bytes.push(text.len() as u8);
                self.bytes.extend(text);
            }
            35 => {
                self.bytes.extend(b"\0\x01\0\x01\x01s\x03SIP\0");
                self.name(choices);
            }
            65 => {
                self.bytes.extend([0, choices.byte() & 1]);
                self.name(choices);
            }
            257 => self.bytes.extend(b"\x00\x05issueca.test"),
            _ => {
                self.bytes.extend(choices.bytes(40));
                self.wild = true;
            }
        }
    }
}
