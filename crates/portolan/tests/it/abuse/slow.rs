//! Clients that take their time.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{assert_unharmed, block_on, raw};
use crate::api::{Api, cluster};

/// More than the requests that the server works on at a time.
const SLOW_BODIES: usize = 700;
/// By when nobody may be left: the longest of the limits is 90 s.
const LET_GO_WITHIN: Duration = Duration::from_secs(300);

fn post_head(api: &Api, length: usize) -> String {
    format!(
        "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n",
        api.token
    )
}

/// Who waits for the rest of a body does not work, and takes nobody's turn.
#[test]
fn slow_bodies_leave_room_for_others() {
    let api = cluster();
    block_on(async {
        let mut slow = Vec::new();
        for _ in 0..SLOW_BODIES {
            let mut stream = raw::connect(&api, b"http/1.1").await.unwrap();
            stream.write_all(post_head(&api, 1_000).as_bytes()).await.unwrap();
            stream.write_all(b"{").await.unwrap();
            stream.flush().await.unwrap();
            slow.push(stream);
        }
        let object = json!({"metadata": {"name": "quick"}});
        let path = "/api/v1/namespaces/default/configmaps";
        let (code, made) = api.client().ask(Method::POST, path, Some(&object)).await.unwrap();
        assert_eq!(code, 201, "{made}");
        assert_unharmed(&api).await;
        // The slow ones are not given up either, while their time lasts.
        let mut first = slow.swap_remove(0);
        let rest = r#""metadata":{"name":"slow"}}"#;
        first.write_all(format!("{rest:999}").as_bytes()).await.unwrap();
        first.flush().await.unwrap();
        assert_eq!(raw::read_answer(&mut first).await.unwrap().0, 201);
    });
}

/// Sends a byte a second until the server has had enough; what it says then.
async fn trickle(stream: &mut raw::Stream, byte: u8) -> Option<(u16, String, Vec<u8>)> {
    let (mut reading, mut writing) = tokio::io::split(&mut *stream);
    let mut said = Vec::new();
    let sending = async {
        while writing.write_all(&[byte]).await.is_ok() && writing.flush().await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let (read, ()) = tokio::join!(reading.read_to_end(&mut said), sending);
    // However the connection ended: what matters is what came before.
    drop(read);
    let text = String::from_utf8_lossy(&said).into_owned();
    let code = text.split(' ').nth(1)?.parse().ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((code, head.to_owned(), body.as_bytes().to_vec()))
}

#[test]
#[ignore = "it waits for time-outs, minutes; `cargo xtask torture` runs it"]
fn slow_clients_are_let_go() {
    let api = cluster();
    block_on(async {
        let began = Instant::now();
        let body = async {
            let mut stream = raw::connect(&api, b"http/1.1").await.unwrap();
            stream.write_all(post_head(&api, 100_000).as_bytes()).await.unwrap();
            let (code, _, body) = trickle(&mut stream, b' ').await.expect("an answer");
            let status: Value = serde_json::from_slice(&body).unwrap();
            assert!(matches!(code, 408 | 504), "{status}");
            assert_eq!(status["reason"], "Timeout", "{status}");
            println!("a body of a byte a second is refused after {:?}", began.elapsed());
        };
        let head = async {
            let mut stream = raw::connect(&api, b"http/1.1").await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
            let answer = trickle(&mut stream, b'y').await;
            assert!(answer.is_none_or(|(code, ..)| code == 408));
            println!("a head of a byte a second is cut off after {:?}", began.elapsed());
        };
        let silent = async {
            let mut stream = TcpStream::connect(api.address).await.unwrap();
            drop(stream.read(&mut [0; 8]).await);
            println!("a connection without handshake is closed after {:?}", began.elapsed());
        };
        let idle = async {
            let mut stream = raw::connect(&api, b"http/1.1").await.unwrap();
            drop(stream.read(&mut [0; 8]).await);
            println!("a connection without request is closed after {:?}", began.elapsed());
        };
        let half = async {
            let mut stream = TcpStream::connect(api.address).await.unwrap();
            stream.write_all(&super::crowd::client_hello()).await.unwrap();
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            println!("half a handshake is closed after {:?}", began.elapsed());
        };
        let all = async { tokio::join!(body, head, silent, idle, half) };
        tokio::time::timeout(LET_GO_WITHIN, all).await.expect("somebody was not let go");
        assert_unharmed(&api).await;
    });
}
