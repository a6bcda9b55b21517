//! Names and packets that are nearly right.

use portolan_testkit::fuzz::Choices;

/// Names of the small world, and their neighbours; labels with dots between.
pub(super) const NAMES: [&str; 60] = [
    "web.demo.svc.cluster.local",
    "db.demo.svc.cluster.local",
    "many.demo.svc.cluster.local",
    "near.demo.svc.cluster.local",
    "away.demo.svc.cluster.local",
    "here.demo.svc.cluster.local",
    "circle.demo.svc.cluster.local",
    "none.demo.svc.cluster.local",
    "web.svc.svc.cluster.local",
    "web.none.svc.cluster.local",
    "_http._tcp.web.demo.svc.cluster.local",
    "_dns._udp.web.demo.svc.cluster.local",
    "_http._tcp.db.demo.svc.cluster.local",
    "_http._tcp.many.demo.svc.cluster.local",
    "_http._udp.web.demo.svc.cluster.local",
    "_tcp.web.demo.svc.cluster.local",
    "10-1-1-1.db.demo.svc.cluster.local",
    "10-1-1-9.db.demo.svc.cluster.local",
    "demo.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
    "local",
    "",
    "10-0-0-1.demo.pod.cluster.local",
    "10-1-9-9.demo.pod.cluster.local",
    "demo.pod.cluster.local",
    "ns.dns.cluster.local",
    "dns-version.cluster.local",
    "hostmaster.cluster.local",
    "com.example.Api.demo.registry.cluster.local",
    "demo.registry.cluster.local",
    "example.org.demo.svc.cluster.local",
    "web.demo.svc.demo.svc.cluster.local",
    "example.org.svc.cluster.local",
    "example.org",
    "many.example.org",
    "nothing.example.org",
    "fail.example.org",
    "chain.example.org",
    "silent.example.org",
    "1.0.0.10.in-addr.arpa",
    "1.1.1.10.in-addr.arpa",
    "9.9.9.10.in-addr.arpa",
    "10.in-addr.arpa",
    "1.0.0.127.in-addr.arpa",
    "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
    "web.demo.svc.k8s.example.org",
    "web.demo.example.net",
    "example.net",
    "old.test",
    "web.corp.test",
    "x.plain.test",
    "gone.test",
    "x.blocked.test",
    "ip-7.ip.test",
    "ip-999.ip.test",
    "x.alias.test",
    "a.hosts.test",
    "b.hosts.test",
    "localhost",
];

/// A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, DS, HTTPS, TSIG, IXFR, AXFR, ANY.
const TYPES: [u16; 16] = [1, 28, 33, 2, 5, 6, 12, 15, 16, 41, 43, 65, 250, 251, 252, 255];

/// What clients offer, at the edges of what we take.
const SIZES: [u16; 10] = [1232, 0, 511, 512, 513, 700, 1231, 1233, 4096, 65_535];

/// A name as it stands in a packet.
pub(super) fn name(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut octets = Vec::new();
    if choices.rarely(8) {
        // In front of it, what a client may add.
        let label = match choices.below(3) {
            0 => b"www".to_vec(),
            1 => vec![b'x'; choices.one(&[62, 63, 64])],
            _ => choices.bytes(20).to_vec(),
        };
        octets.push(label.len() as u8);
        octets.extend(label);
    }
    let text = choices.one(&NAMES);
    let case = if choices.rarely(3) { choices.byte() } else { 0 };
    for (place, label) in text.split('.').filter(|label| !label.is_empty()).enumerate() {
        octets.push(label.len() as u8);
        let turned = label.bytes().enumerate().map(|(at, byte)| match case >> ((at + place) % 8) {
            bits if bits & 1 == 1 => byte.to_ascii_uppercase(),
            _ => byte,
        });
        octets.extend(turned);
    }
    match choices.below(24) {
        // A pointer where none may be, or to itself.
        22 => octets.extend([0xc0 | choices.byte() & 1, choices.byte()]),
        // Longer than a name may be.
        23 => {
            for _ in 0..choices.below(5) {
                octets.push(63);
                octets.extend([b'x'; 63]);
            }
            octets.push(0);
        }
        _ => octets.push(0),
    }
    octets
}

fn options(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..choices.below(4) {
        // NSID, client subnet, cookie, keepalive, padding, extended error.
        let number = match choices.rarely(8) {
            true => u16::from(choices.byte()) << 8 | u16::from(choices.byte()),
            false => choices.one(&[3, 10, 8, 11, 12, 15]),
        };
        let data = choices.bytes(12);
        options.extend(number.to_be_bytes());
        let lie = if choices.rarely(16) { 1 } else { 0 };
        options.extend((data.len() as u16 + lie).to_be_bytes());
        options.extend(data);
    }
    options
}

fn opt(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut record = if choices.rarely(16) { name(choices) } else { vec![0] };
    record.extend(41_u16.to_be_bytes());
    let size = if choices.rarely(4) { u16::from(choices.byte()) * 16 } else { choices.one(&SIZES) };
    record.extend(size.to_be_bytes());
    let version = if choices.rarely(10) { choices.byte() } else { 0 };
    let extended = if choices.rarely(10) { choices.byte() } else { 0 };
    record.extend([extended, version, if choices.rarely(2) { 0x80 } else { 0 }, 0]);
    let options = options(choices);
    record.extend((options.len() as u16).to_be_bytes());
    record.extend(options);
    record
}

/// Another record: the SOA of an IXFR client, a signature, an address.
fn record(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut record = match choices.below(4) {
        0 => vec![0xc0, 12],
        1 => vec![0xc0, choices.byte()],
        2 => vec![0],
        _ => name(choices),
    };
    let kind: u16 = choices.one(&[6, 250, 1, 41, 16]);
    record.extend(kind.to_be_bytes());
    record.extend([0, choices.one(&[1, 255, 0])]);
    record.extend([0, 0, 0, choices.byte()]);
    let data = match kind {
        6 => [&[0, 0][..], &[0; 16], &[0, 0, 0, choices.byte()]].concat(),
        1 => vec![10, 0, 0, choices.byte()],
        _ => choices.bytes(12).to_vec(),
    };
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// The type of a question.
pub(super) fn kind(choices: &mut Choices<'_>) -> u16 {
    match choices.rarely(12) {
        true => u16::from(choices.byte()) << 8 | u16::from(choices.byte()),
        false => choices.one(&TYPES),
    }
}

/// A query, nearly.
pub(super) fn packet(choices: &mut Choices<'_>) -> Vec<u8> {
    if choices.rarely(16) {
        return choices.bytes(600).to_vec();
    }
    let mut packet = vec![choices.byte(), choices.byte()];
    match choices.rarely(8) {
        true => packet.extend([choices.byte(), choices.byte()]),
        false => packet.extend([choices.byte() & 0x03, choices.byte() & 0x10]),
    }
    packet.extend([0; 8]);
    let mut counts = [1_u8, 0, 0, 0];
    packet.extend(name(choices));
    packet.extend(kind(choices).to_be_bytes());
    let class = match choices.rarely(12) {
        true => u16::from(choices.byte()) << 8 | u16::from(choices.byte()),
        false => choices.one(&[1, 1, 1, 1, 3, 255]),
    };
    packet.extend(class.to_be_bytes());
    for count in &mut counts[1..3] {
        if choices.rarely(16) {
            *count += 1;
            packet.extend(record(choices));
        }
    }
    for _ in 0..choices.one(&[1, 0, 1, 1, 2, 3]) {
        counts[3] += 1;
        match choices.rarely(8) {
            true => packet.extend(record(choices)),
            false => packet.extend(opt(choices)),
        }
    }
    if choices.rarely(12) {
        let lie = choices.below(4);
        counts[lie] = choices.byte();
    }
    for (count, place) in counts.into_iter().zip([5, 7, 9, 11]) {
        packet[place] = count;
    }
    if choices.rarely(16) {
        packet.extend(choices.bytes(4));
    }
    if choices.rarely(12) {
        let place = choices.below(packet.len());
        packet[place] = choices.byte();
    }
    if choices.rarely(20) {
        packet.truncate(choices.below(packet.len() + 1));
    }
    packet
}
