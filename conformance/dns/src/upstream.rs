//! The upstream server that both ask: a few names, made up as they are asked for.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    thread,
};

use anyhow::{Context, Result};
use domain::{
    base::{
        Message, MessageBuilder, Name, Rtype, Serial, Ttl,
        iana::{Class, Rcode},
    },
    rdata::{A, Soa},
};

/// Names below it have an address.
pub(crate) const KNOWN: &str = "known.test";
/// Nothing is below it.
pub(crate) const ABSENT: &str = "absent.test";
/// Questions for names below it fail.
pub(crate) const FAILING: &str = "failing.test";

/// Starts it; it ends with the process.
pub(crate) fn start() -> Result<SocketAddr> {
    let (listener, socket) = loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        if let Ok(socket) = UdpSocket::bind(listener.local_addr()?) {
            break (listener, socket);
        }
    };
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            if let Ok(reply) = answer(packet.get(..length).unwrap_or_default()) {
                socket.send_to(&reply, client).ok();
            }
        }
    });
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || -> Result<()> {
                loop {
                    let mut length = [0; 2];
                    stream.read_exact(&mut length)?;
                    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut packet)?;
                    let reply = answer(&packet)?;
                    let length = u16::try_from(reply.len())?.to_be_bytes();
                    stream.write_all(&[&length, &*reply].concat())?;
                }
            });
        }
    });
    Ok(address)
}

fn answer(packet: &[u8]) -> Result<Vec<u8>> {
    let query = Message::from_slice(packet).context("no message")?;
    let question = query.sole_question()?;
    let name = question.qname().to_string().to_lowercase();
    let below = |zone: &str| name.ends_with(zone);
    let rcode = match () {
        () if below(FAILING) => Rcode::SERVFAIL,
        () if below(KNOWN) => Rcode::NOERROR,
        () => Rcode::NXDOMAIN,
    };
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_ra(true);
    let mut section = builder.start_answer(query, rcode)?;
    let is_known = rcode == Rcode::NOERROR && question.qtype() == Rtype::A;
    if is_known {
        section.push((
            question.qname(),
            Class::IN,
            Ttl::from_secs(30),
            A::from_octets(192, 0, 2, 7),
        ))?;
    }
    let mut section = section.authority();
    if !is_known && rcode != Rcode::SERVFAIL {
        let name = |text: &str| text.parse::<Name<Vec<u8>>>();
        let time = Ttl::from_secs(30);
        let soa = Soa::new(name("ns.test")?, name("hm.test")?, Serial(1), time, time, time, time);
        section.push((name("test")?, Class::IN, time, soa))?;
    }
    Ok(section.finish())
}
