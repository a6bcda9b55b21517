//! One question to the DNS server that the Pod was told of.
//!
//! On the loopback Pod network a Pod shares the machine's resolv.conf, so the
//! name is asked for directly, at the address in `PORTOLAN_DNS`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use domain::{
    base::{Message, MessageBuilder, Name, Rtype},
    rdata::A,
};
use tokio::net::UdpSocket;

/// A resolver asks again after so long (resolv.conf's `timeout` is 5 s; the
/// server is on this machine).
const TRY: Duration = Duration::from_millis(500);
const TRIES: usize = 4;

/// The address behind a name.
pub(crate) async fn address(name: &str) -> io::Result<IpAddr> {
    let server: SocketAddr = std::env::var("PORTOLAN_DNS")
        .ok()
        .and_then(|server| server.parse().ok())
        .ok_or_else(|| io::Error::other("PORTOLAN_DNS names no DNS server"))?;
    let question = question(name)?;
    // Not at loopback: the server may be beyond it.
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut buffer = [0; 1232];
    for _ in 0..TRIES {
        socket.send(&question).await?;
        let Ok(received) = tokio::time::timeout(TRY, socket.recv(&mut buffer)).await else {
            continue;
        };
        let answer = buffer.get(..received?).unwrap_or_default();
        if answer.get(..2) == question.get(..2) {
            return first_address(answer).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("no address for {name}"))
            });
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the DNS server does not answer for {name}"),
    ))
}

fn question(name: &str) -> io::Result<Vec<u8>> {
    let name: Name<Vec<u8>> = Name::from_str(name).map_err(io::Error::other)?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_random_id();
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name, Rtype::A)).map_err(io::Error::other)?;
    Ok(builder.finish())
}

fn first_address(answer: &[u8]) -> Option<IpAddr> {
    let message = Message::from_octets(answer).ok()?;
    let answers = message.answer().ok()?.limit_to::<A>();
    answers.filter_map(Result::ok).map(|record| record.data().addr().into()).next()
}
