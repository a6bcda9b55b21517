//! Sockets with TLS and nothing else between the test and the server.

use std::{io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{api::Api, harness::PATIENCE};

pub(super) type Stream = TlsStream<TcpStream>;

pub(super) fn tls(api: &Api, protocol: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(api.ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// A connection that speaks `http/1.1` or `h2`.
pub(super) async fn connect(api: &Api, protocol: &[u8]) -> io::Result<Stream> {
    let name = ServerName::IpAddress(api.address.ip().into());
    let tcp = TcpStream::connect(api.address).await?;
    tls(api, protocol).connect(name, tcp).await
}

/// Reads until the server closes; what it sent.
pub(super) async fn read_to_end(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // A connection that is cut off has ended too.
    drop(read.expect("the server neither answers nor closes"));
    all
}

/// The head and the body of one answer over HTTP/1.1.
pub(super) async fn read_answer(stream: &mut Stream) -> Option<(u16, String, Vec<u8>)> {
    let mut all = Vec::new();
    let head = loop {
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let read = timeout(PATIENCE, stream.read_buf(&mut all)).await;
        if read.expect("the server neither answers nor closes").unwrap_or(0) == 0 {
            return None;
        }
    };
    let mut body = all.split_off(head);
    let head = String::from_utf8(all).unwrap();
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let length: usize = length.unwrap_or(0);
    while body.len() < length {
        let read = timeout(PATIENCE, stream.read_buf(&mut body)).await.expect("the rest of a body");
        if read.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some((code, head, body))
}

/// Sends bytes as they are on a connection of its own and reads the answer.
pub(super) async fn exchange(api: &Api, bytes: &[u8]) -> Option<(u16, String, Vec<u8>)> {
    let mut stream = connect(api, b"http/1.1").await.unwrap();
    // The server may answer, and close, before it has read everything.
    drop(stream.write_all(bytes).await);
    drop(stream.flush().await);
    read_answer(&mut stream).await
}
