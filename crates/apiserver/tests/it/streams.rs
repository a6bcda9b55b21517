//! `exec` as clients other than kubectl speak it, against somebody who runs Pods.

use std::{pin::Pin, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use portolan_apiserver::{
    Status, kinds,
    registry::{Connection, PodSessions, Session, SessionOptions},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::support::Api;

/// Every session echoes its input until that ends or says `bye`; then it ends with the exit
/// code that the command is. What is no number does not run.
struct Fake;

impl PodSessions for Fake {
    fn open(
        &self,
        _: Value,
        options: SessionOptions,
    ) -> BoxFuture<'static, Result<Session, Status>> {
        let command = options.command.unwrap_or_default();
        let Ok(code) = command[0].parse() else {
            return async { Err(Status::internal("container not found (\"main\")")) }.boxed();
        };
        let (stdin, mut input) = tokio::io::duplex(1024);
        let (mut output, stdout) = tokio::io::duplex(1024);
        let ended = async move {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = input.read(&mut buffer).await {
                output.write_all(&buffer[..count]).await.unwrap();
                if buffer[..count].ends_with(b"bye") {
                    break;
                }
            }
            Ok(code)
        };
        let session = Session {
            stdin: options.stdin.then(|| Box::pin(stdin) as _),
            stdout: Some(Box::pin(stdout)),
            stderr: None,
            resize: None,
            ended: ended.boxed(),
        };
        async { Ok(session) }.boxed()
    }

    fn connect(
        &self,
        _: Value,
        _: u16,
    ) -> BoxFuture<'static, Result<Pin<Box<dyn Connection>>, String>> {
        async { Err("nobody listens".to_owned()) }.boxed()
    }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens a WebSocket as the administrator.
async fn socket(api: &Api, path: &str, protocol: &str) -> Result<Socket, Error> {
    let address = api.running.address;
    let mut roots = RootCertStore::empty();
    let ca = rustls_pki_types::CertificateDer::from_pem_slice(api.running.ca_pem.as_bytes());
    roots.add(ca.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.unwrap().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(address.ip().into(), stream).await.unwrap();
    let mut request = format!("wss://{address}{path}").into_client_request().unwrap();
    let headers = request.headers_mut();
    let bearer = format!("Bearer {}", api.running.admin_token);
    headers.insert("authorization", bearer.parse().unwrap());
    if !protocol.is_empty() {
        headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    client_async(request, stream).await.map(|(socket, _)| socket)
}

/// A Pod that somebody runs, and one that nobody does.
async fn api() -> Api {
    let api = Api::start().await;
    for (name, node) in [("p", "here"), ("q", "")] {
        let pod = json!({"metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "a"}]}});
        api.create(&kinds::PODS, "default", pod).await.unwrap();
    }
    api.running.registry.add_node_agent("here");
    api.running.registry.set_pod_sessions(Arc::new(Fake));
    api
}

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Everything that the server says up to its close: the outputs, and the last error message.
async fn listen(socket: &mut Socket, base64: bool) -> (String, String) {
    let (mut out, mut error) = (String::new(), String::new());
    while let Some(message) = socket.next().await {
        let data = match message.unwrap() {
            Message::Close(_) => break,
            message @ (Message::Binary(_) | Message::Text(_)) => {
                assert_eq!(message.is_text(), base64, "{message:?}");
                message.into_data()
            }
            _ => continue,
        };
        let (channel, text) = data.split_first().unwrap();
        let channel = if base64 { channel - b'0' } else { *channel };
        let text = if base64 { BASE64.decode(text).unwrap() } else { text.to_vec() };
        let text = String::from_utf8(text).unwrap();
        match channel {
            1 => out += &text,
            3 => error += &text,
            other => panic!("channel {other}: {text}"),
        }
    }
    (out, error)
}

#[tokio::test]
async fn every_version_of_the_subprotocol() {
    let api = api().await;
    let path = |code: &str| format!("{PODS}/p/exec?command={code}&stdin=true&stdout=true");
    let binary = |text: &str| Message::Binary(Bytes::from(format!("\0{text}")));
    for (protocol, ends) in [("v5.channel.k8s.io", true), ("v4.channel.k8s.io", false)] {
        let mut socket = socket(&api, &path("3"), protocol).await.unwrap();
        socket.send(binary("hello ")).await.unwrap();
        // As the Python client sends text.
        socket.send(Message::Text("\0you ".into())).await.unwrap();
        socket.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
        let last =
            if ends { Message::Binary(Bytes::from_static(&[255, 0])) } else { binary("bye") };
        socket.send(last).await.unwrap();
        let (out, error) = listen(&mut socket, false).await;
        assert_eq!(out, if ends { "hello you " } else { "hello you bye" }, "{protocol}");
        let status: Value = serde_json::from_str(&error).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode", "{protocol}: {status}");
        assert_eq!(status["details"]["causes"][0]["message"], "3", "{protocol}: {status}");
    }
    let mut socket_64 = socket(&api, &path("0"), "v4.base64.channel.k8s.io").await.unwrap();
    socket_64.send(Message::Text(format!("0{}", BASE64.encode("bye")).into())).await.unwrap();
    let (out, error) = listen(&mut socket_64, true).await;
    assert_eq!(out, "bye");
    assert!(error.contains("Success"), "{error}");
    for protocol in ["channel.k8s.io", ""] {
        let mut socket = socket(&api, &path("0"), protocol).await.unwrap();
        socket.send(binary("bye")).await.unwrap();
        let told = listen(&mut socket, false).await;
        assert_eq!(told, ("bye".to_owned(), String::new()), "{protocol}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened() {
    let api = api().await;
    let exec = |pod: &str, rest: &str| format!("{PODS}/{pod}/exec?{rest}");
    let refused = async |path: String, protocol: &str| match socket(&api, &path, protocol).await {
        Err(Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            let status: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(status["code"], answer.status().as_u16());
            format!("{} {}", status["code"], status["message"].as_str().unwrap())
        }
        Ok(_) => panic!("{path} was opened"),
        Err(other) => panic!("{path}: {other}"),
    };
    let check = async |path: String, protocol: &str, expected: &str| {
        let said = refused(path.clone(), protocol).await;
        assert!(said.starts_with(expected), "{path}: {said}");
    };
    let v4 = "v4.channel.k8s.io";
    let fine = "command=0&stdout=true";
    check(exec("nobody", fine), v4, "404 pods \"nobody\" not found").await;
    check(exec("q", fine), v4, "400 pod q does not have a host assigned").await;
    let other = exec("p", "command=0&stdout=true&container=x");
    check(other, v4, "400 container x is not valid for pod p").await;
    check(exec("p", "stdout=true"), v4, "400 command: ").await;
    check(exec("p", "command=0"), v4, "400 you must specify at least 1 of").await;
    check(exec("p", fine), "soap", "400 requested protocol(s) are not supported").await;
    let ports = format!("{PODS}/p/portforward");
    check(ports, v4, "400 requested protocol(s) are not supported").await;
    // What the runner says: before the handshake to old clients, over the channel to new ones.
    let absent = "command=none&stdout=true";
    check(exec("p", absent), v4, "500 Internal error occurred: container not found").await;
    let mut socket = socket(&api, &exec("p", absent), "v5.channel.k8s.io").await.unwrap();
    let (_, error) = listen(&mut socket, false).await;
    assert!(error.contains("container not found"), "{error}");
    // Without an upgrade.
    let (code, status) = api.get(&exec("p", fine)).await;
    assert_eq!((code, status["message"].as_str().unwrap()), (400, "Upgrade request required"));
}

#[tokio::test]
async fn a_message_that_is_none_ends_the_session() {
    let api = api().await;
    let path = format!("{PODS}/p/exec?command=0&stdin=true&stdout=true");
    let mut socket = socket(&api, &path, "v5.channel.k8s.io").await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(&[255, 0, 0]))).await.unwrap();
    let mut closed = None;
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(Some(frame)) = message {
            closed = Some(frame.reason.to_string());
        }
    }
    assert_eq!(closed.as_deref(), Some("255 is followed by the one channel that ends"));
}

#[tokio::test]
async fn a_token_of_a_pod_enters_nothing() {
    let api = api().await;
    let account = json!({"metadata": {"name": "default"}});
    let made = api.create(&kinds::SERVICE_ACCOUNTS, "default", account).await;
    assert!(made.is_ok() || made.is_err_and(|status| status.is_already_exists()));
    let registry = &api.running.registry;
    let pod = registry.get(&kinds::PODS, "default", "p").unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let token = registry.mint_pod_token("default", "p", uid);
    let read = api.request_as(&token, reqwest::Method::GET, &format!("{PODS}/p")).send().await;
    assert_eq!(read.unwrap().status(), 200);
    for part in ["exec?command=0&stdout=true", "attach?stdout=true", "portforward"] {
        let path = format!("{PODS}/p/{part}");
        let answer = api.request_as(&token, reqwest::Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{part}");
    }
}
