//! Thousands of connections at once that ask for nothing.

use std::sync::Arc;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

use super::{assert_served, assert_unharmed, block_on, peak_bytes, raw, resident_bytes};
use crate::api::{Api, cluster};

/// Connections of the whole crowd, and of the taste in the usual run.
const CROWD: usize = 10_000;
const TASTE: usize = 900;

/// What the server may hold for one connection.
const CONNECTION_BYTES_MAX: u64 = 64 << 10;
/// What it may hold besides.
const OTHER_BYTES_MAX: u64 = 64 << 20;

/// Descriptors that the test needs for other things.
const FILES_SPARE: u64 = 2_000;

/// The first message of a handshake.
pub(super) fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// A connection that stays.
#[expect(dead_code, reason = "held open, never looked at")]
enum Held {
    /// TCP, and not a byte.
    Idle(TcpStream),
    /// The server has answered the first message of the handshake.
    HalfShaken(TcpStream),
    /// It was served, and may ask again.
    KeptAlive(Box<raw::Stream>),
}

/// The first third is served, and stays; then come those that the server gives up after
/// some seconds, so that all are there at once.
async fn join(api: &Api, number: usize, size: usize, hello: &[u8]) -> Held {
    match number % 2 {
        _ if number < size / 3 => {
            let mut stream = raw::connect(api, b"http/1.1").await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(raw::read_answer(&mut stream).await.unwrap().0, 200);
            Held::KeptAlive(Box::new(stream))
        }
        0 => Held::Idle(TcpStream::connect(api.address).await.unwrap()),
        _ => {
            let mut stream = TcpStream::connect(api.address).await.unwrap();
            stream.write_all(hello).await.unwrap();
            assert_ne!(stream.read(&mut [0; 1]).await.unwrap(), 0, "no answer to a hello");
            Held::HalfShaken(stream)
        }
    }
}

fn open_more_files(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    assert!(allowed >= wanted + FILES_SPARE, "this needs {wanted} descriptors: raise `ulimit -Hn`");
}

// The figures are what it is run for at length.
#[allow(clippy::print_stdout)]
fn crowd(size: usize) {
    open_more_files(size as u64);
    let api = Arc::new(cluster());
    block_on(async {
        assert_served(&api).await;
        let before = resident_bytes(&api);
        let hello: Arc<[u8]> = client_hello().into();
        // So many handshakes at a time: the listener's backlog is not what is tested.
        let turns = Arc::new(Semaphore::new(64));
        let joining = (0..size).map(|number| {
            let (api, hello, turns) = (api.clone(), hello.clone(), turns.clone());
            tokio::spawn(async move {
                let _turn = turns.acquire().await.unwrap();
                join(&api, number, size, &hello).await
            })
        });
        let joining: Vec<_> = joining.collect();
        let mut held = Vec::new();
        for joined in joining {
            held.push(joined.await.unwrap());
        }
        let grown = peak_bytes(&api).saturating_sub(before);
        println!(
            "{size} connections (kept alive, idle, half shaken): {} KiB more at most, {} bytes each",
            grown >> 10,
            grown / size as u64,
        );
        assert!(grown < size as u64 * CONNECTION_BYTES_MAX + OTHER_BYTES_MAX, "{grown} bytes");
        assert_unharmed(&api).await;
        drop(held);
        assert_unharmed(&api).await;
    });
}

#[test]
fn a_crowd_leaves_room_for_a_good_client() {
    crowd(TASTE);
}

#[test]
#[ignore = "it takes 20,000 descriptors; `cargo xtask torture` runs it"]
fn ten_thousand_connections() {
    crowd(CROWD);
}
