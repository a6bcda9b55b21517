//! `dig` against a DNS server of canned answers, over UDP, TCP and IPv6.

use std::{net::SocketAddr, sync::Arc};

use domain::{
    base::{Message, MessageBuilder, Name, Ttl, iana::Rcode},
    rdata::{A, AllRecordData, Ptr},
};
use portolan_cli::output::Exit;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::fake::{Answer, Fake};

type Data = AllRecordData<Vec<u8>, Name<Vec<u8>>>;

/// What the server knows: `web.demo.svc.c.test`, `big` (cut over UDP), one PTR.
fn known(name: &str) -> Option<Data> {
    match name {
        "web.demo.svc.c.test" => Some(Data::A(A::from_octets(127, 96, 0, 1))),
        "big" => Some(Data::A(A::from_octets(127, 96, 0, 2))),
        "4.0.10.127.in-addr.arpa" => Some(Data::Ptr(Ptr::new("pod.demo.test".parse().unwrap()))),
        _ => None,
    }
}

fn answer(question: &[u8], udp: bool) -> Vec<u8> {
    let question = Message::from_octets(question).unwrap();
    let name = question.sole_question().unwrap().qname().to_string();
    let found = known(&name);
    let rcode = if found.is_some() { Rcode::NOERROR } else { Rcode::NXDOMAIN };
    let mut builder = MessageBuilder::new_vec().start_answer(&question, rcode).unwrap();
    if udp && name == "big" {
        builder.header_mut().set_tc(true);
        return builder.finish();
    }
    if let Some(data) = found {
        let owner: Name<Vec<u8>> = name.parse().unwrap();
        builder.push((owner, Ttl::from_secs(5), data)).unwrap();
    }
    builder.finish()
}

/// Serves on one port over both transports.
async fn server(address: &str) -> SocketAddr {
    let tcp = TcpListener::bind(address).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = Arc::new(UdpSocket::bind(address).await.unwrap());
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
            // First noise that is no answer to the question, then the answer.
            udp.send_to(&buffer[..length], peer).await.ok();
            udp.send_to(b"noise", peer).await.ok();
            udp.send_to(&answer(&buffer[..length], true), peer).await.ok();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = usize::from(stream.read_u16().await.unwrap());
            let mut question = vec![0; length];
            stream.read_exact(&mut question).await.unwrap();
            let answer = answer(&question, false);
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

async fn api() -> Fake {
    Fake::start(|path| {
        let body = match path {
            "/v1/status" => json!({
                "version": "a", "ageMs": 0, "program": "1", "clusterDomain": "c.test",
                "synced": true, "blockers": [], "services": 0, "endpoints": 0, "serving": 0,
                "problems": [],
            }),
            path => {
                let pod = |namespace: &str| {
                    json!({"namespace": namespace, "name": "p", "addresses": [],
                           "phase": "Running", "ready": true})
                };
                let items = match path {
                    "/v1/workloads?name=client" => json!([pod("demo")]),
                    "/v1/workloads?name=twice" => json!([pod("demo"), pod("shop")]),
                    _ => json!([]),
                };
                json!({"version": "a", "ageMs": 0, "items": items})
            }
        };
        Answer::Json(200, body.to_string())
    })
    .await
}

#[tokio::test]
async fn names_addresses_and_search_paths() {
    let (api, v4, v6) = (api().await, server("127.0.0.1:0").await, server("[::1]:0").await);
    for (words, exit, expected) in [
        ("web.demo.svc.c.test", Exit::Fine, "127.96.0.1\n"),
        ("WEB.demo.svc.c.test.", Exit::Problem, ""),
        ("web", Exit::Problem, ""),
        ("web --from demo/client", Exit::Fine, "127.96.0.1\n"),
        ("web --from client", Exit::Fine, "127.96.0.1\n"),
        ("web --from pod/client", Exit::Fine, "127.96.0.1\n"),
        ("web --from demo", Exit::Fine, "127.96.0.1\n"),
        ("web --from shop", Exit::Problem, ""),
        ("web.demo --from shop", Exit::Fine, "127.96.0.1\n"),
        ("web. --from demo", Exit::Problem, ""),
        ("big", Exit::Fine, "127.96.0.2\n"),
        ("big --tcp", Exit::Fine, "127.96.0.2\n"),
        ("big A +tcp +short", Exit::Fine, "127.96.0.2\n"),
        ("127.10.0.4", Exit::Fine, "pod.demo.test.\n"),
        ("127.10.0.4 PTR", Exit::Fine, "pod.demo.test.\n"),
        ("127.10.0.5", Exit::Problem, ""),
    ] {
        for server in [v4, v6] {
            let ran = api.run(&format!("dig {words} --short --dns {server}")).await;
            assert_eq!(ran.exit, exit, "{words}: {ran:?}");
            assert_eq!(ran.out, expected, "{words}");
            let told = ran.err.contains("NXDOMAIN");
            assert_eq!(told, exit == Exit::Problem, "nothing has a reason: {words}: {ran:?}");
        }
    }
    let twice = api.run(&format!("dig web --from twice --dns {v4}")).await;
    assert_eq!(twice.exit, Exit::Usage, "{twice:?}");
    assert!(twice.failure.contains("--from demo/twice"), "{twice:?}");
    let wrong = api.run(&format!("dig a..b --dns {v4}")).await;
    assert_eq!((wrong.exit, wrong.failure.contains("no DNS name")), (Exit::Usage, true));
}

#[tokio::test]
async fn every_name_that_was_tried_is_shown() {
    let (api, server) = (api().await, server("127.0.0.1:0").await);
    let ran = api.run(&format!("dig web.demo --from shop --dns {server}")).await;
    for words in [
        ";; web.demo.shop.svc.c.test -> NXDOMAIN (0 answers)",
        ";; web.demo.svc.c.test -> NOERROR (1 answers)",
        "web.demo.svc.c.test.\t5\tIN\tA\t127.96.0.1",
        ";; status: NOERROR, flags: qr rd",
    ] {
        assert!(ran.out.contains(words), "{words:?} in {}", ran.out);
    }
    let ran = api.run(&format!("dig web.demo --from shop -o json --dns {server}")).await;
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["status"], "NOERROR");
    assert_eq!(document["tried"].as_array().map(Vec::len), Some(2));
    assert_eq!(document["answer"][0]["data"], "127.96.0.1");
}
