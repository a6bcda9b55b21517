//! One question to one server, over UDP and, where that does not do, over TCP.
//!
//! Each query has a socket of its own, so that its port is random (the kernel
//! draws it) beside its ID: two things that a forger has to guess (RFC 5452). What
//! does not match is passed over, as it may be forged, and the reply may still
//! come. What does match and is cut or does not parse is asked for over TCP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use domain::base::iana::Rtype;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::{
    Ask,
    reply::{FORMERR, NOTIMP, Reply, Unreadable},
};
use crate::wire::UDP_PAYLOAD_MAX;

/// Room for a datagram: servers may send more than we offer.
const DATAGRAM_MAX: usize = 4096;

/// Asks, and waits for as long as the caller does.
pub(crate) async fn exchange(server: SocketAddr, ask: &Ask) -> io::Result<Reply> {
    match over_udp(server, ask, true).await? {
        // A server from before EDNS (RFC 6891, 7).
        Some(reply) if matches!(reply.rcode, FORMERR | NOTIMP) => {
            match over_udp(server, ask, false).await? {
                Some(plain) if !plain.truncated => Ok(plain),
                _ => over_tcp(server, ask, false).await,
            }
        }
        Some(reply) if reply.truncated => {
            // Half an answer, that says so, is better than none.
            Ok(over_tcp(server, ask, true).await.unwrap_or(reply))
        }
        Some(reply) => Ok(reply),
        None => over_tcp(server, ask, true).await,
    }
}

/// `None`: a reply came that does not parse.
async fn over_udp(server: SocketAddr, ask: &Ask, edns: bool) -> io::Result<Option<Reply>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Only what comes from this server is received.
    socket.connect(server).await?;
    let id = rand::random();
    socket.send(&query(ask, id, edns)).await?;
    let mut packet = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut packet).await?;
        match Reply::read(packet.get(..length).unwrap_or_default(), id, ask) {
            Ok(reply) => return Ok(Some(reply)),
            Err(Unreadable::Malformed) => return Ok(None),
            Err(Unreadable::NotOurs) => {}
        }
    }
}

async fn over_tcp(server: SocketAddr, ask: &Ask, edns: bool) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let id = rand::random();
    let query = query(ask, id, edns);
    let mut message = u16::try_from(query.len()).unwrap_or_default().to_be_bytes().to_vec();
    message.extend(query);
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Reply::read(&packet, id, ask).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "the reply does not parse, over TCP either")
    })
}

/// The query as we send it. EDNS options of the client are for us, not for the
/// server (RFC 6891, 6.2.1): cookies would be wrong there, and a client subnet
/// tells what need not be told.
fn query(ask: &Ask, id: u16, edns: bool) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let checking_disabled = if ask.checking_disabled { 0x10 } else { 0 };
    let mut packet = vec![high, low, 0x01, checking_disabled, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    ask.question(&mut packet);
    if edns {
        packet.push(0);
        packet.extend(Rtype::OPT.to_int().to_be_bytes());
        packet.extend(UDP_PAYLOAD_MAX.to_be_bytes());
        packet.extend([0, 0, if ask.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
    packet
}
