//! One question to a DNS server: over UDP, over TCP when the answer is cut.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;
use domain::base::{Message, MessageBuilder, Name, Rtype, iana::Class};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::Failure;

/// How long one question may take: the resolver's usual `timeout:5`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// When a question over UDP is sent again: a datagram may be lost.
const RESEND: Duration = Duration::from_secs(2);

/// The largest UDP answer asked for (DNS flag day 2020).
const UDP_PAYLOAD_MAX: u16 = 1232;

/// Asks one question and returns the answer to it.
pub(super) async fn ask(
    server: SocketAddr,
    name: &str,
    rtype: Rtype,
    tcp: bool,
) -> Result<Message<Bytes>, Failure> {
    let question = question(name, rtype)?;
    let unreachable = |reason: String| Failure::NoDns { server, reason };
    let exchange = async {
        if tcp {
            return over_tcp(server, &question).await;
        }
        let answer = over_udp(server, &question).await?;
        if answer.header().tc() { over_tcp(server, &question).await } else { Ok(answer) }
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| unreachable(format!("no answer within {TIMEOUT:?}")))?
        .map_err(|error| unreachable(error.to_string()))
}

fn question(name: &str, rtype: Rtype) -> Result<Vec<u8>, Failure> {
    let usage = || {
        Failure::Usage(format!(
            "{name:?} is no DNS name: labels of 1 to 63 letters, 255 in all, with dots between"
        ))
    };
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

async fn over_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Message<Bytes>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        socket.send(question).await?;
        let received = async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                // Anything else is no answer to this question.
                if let Ok(message) = Message::from_octets(bytes)
                    && message.header().qr()
                    && question.get(..2) == message.as_slice().get(..2)
                {
                    return Ok::<_, std::io::Error>(message);
                }
            }
        };
        if let Ok(answer) = tokio::time::timeout(RESEND, received).await {
            return answer;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none_are_usage() {
        let long = format!("{}.a", "x".repeat(64));
        let endless = "abcdefgh.".repeat(32);
        for name in ["a..b", ".a", &long, &endless] {
            let refused = question(name, Rtype::A).err().map(|failure| failure.exit());
            assert_eq!(refused, Some(crate::output::Exit::Usage), "{name:?}");
        }
        for name in [".", "a", "a.", "_http._tcp.web.demo.svc.cluster.local"] {
            assert!(question(name, Rtype::A).is_ok(), "{name:?}");
        }
    }
}
