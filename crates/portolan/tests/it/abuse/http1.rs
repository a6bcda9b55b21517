//! Requests that no HTTP library would send.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{assert_unharmed, block_on, raw};
use crate::api::{Api, cluster};

/// One request as bytes, and what comes of it: the code, and a word of the body.
/// Code 0 is a connection that is closed without an answer.
struct Case {
    about: &'static str,
    head: String,
    body: Vec<u8>,
    expected: (u16, &'static str),
}

fn case(about: &'static str, head: &str, expected: (u16, &'static str)) -> Case {
    Case { about, head: head.to_owned(), body: Vec::new(), expected }
}

fn cases() -> Vec<Case> {
    let get = "GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n";
    let post = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n\
                Authorization: Bearer TOKEN\r\nContent-Type: application/json\r\n";
    let long_path = "a".repeat(50_000);
    let long_header = "b".repeat(1 << 20);
    let chunk = format!("100000\r\n{}\r\n", "c".repeat(1 << 20)).into_bytes();
    vec![
        case("a good one", &format!("{get}\r\n"), (200, "NamespaceList")),
        case("NUL in the path", "GET /api/v1/na\0me HTTP/1.1\r\nHost: x\r\n\r\n", (400, "")),
        case("a control character", "GET /api/v1/na\x07me HTTP/1.1\r\nHost: x\r\n\r\n", (400, "")),
        case("no version", "GET /api/v1/namespaces\r\n\r\n", (400, "")),
        case("a version to come", "GET / HTTP/9.9\r\nHost: x\r\n\r\n", (400, "")),
        case("no host", "GET /healthz HTTP/1.1\r\n\r\n", (400, "missing required Host header")),
        case("HTTP/1.0 without host", "GET /healthz HTTP/1.0\r\n\r\n", (200, "ok")),
        case("no request line", "\r\n\r\n\r\nnothing\r\n\r\n", (400, "")),
        case("bytes", "\u{1}\u{2}\u{3}\r\n\r\n", (400, "")),
        case("a header without colon", &format!("{get}nothing\r\n\r\n"), (400, "")),
        case("a header with a space", &format!("{get}a b: c\r\n\r\n"), (400, "")),
        case("NUL in a header", &format!("{get}a: b\0c\r\n\r\n"), (400, "")),
        case(
            "a path of 50 kB",
            &format!("{}\r\n", get.replace("namespaces", &format!("namespaces/{long_path}"))),
            (404, "NotFound"),
        ),
        case("a header of 1 MiB", &format!("{get}a: {long_header}\r\n\r\n"), (431, "")),
        case(
            "two lengths",
            &format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"),
            (400, ""),
        ),
        case("a length of no number", &format!("{post}Content-Length: x\r\n\r\n{{}}"), (400, "")),
        case("a negative length", &format!("{post}Content-Length: -1\r\n\r\n{{}}"), (400, "")),
        case(
            "a length beyond all limits",
            &format!("{post}Content-Length: 99999999999\r\n\r\n{{}}"),
            (413, "RequestEntityTooLarge"),
        ),
        case("an unknown coding", &format!("{post}Transfer-Encoding: frob\r\n\r\n"), (400, "")),
        case(
            "a chunk of no size",
            &format!("{post}Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
            (400, "BadRequest"),
        ),
        Case {
            body: vec![b'x'; 4 << 20],
            ..case(
                "4 MiB at once",
                &format!("{post}Content-Length: {}\r\n\r\n", 4 << 20),
                (413, "RequestEntityTooLarge"),
            )
        },
        Case {
            body: [chunk.as_slice(), &chunk, &chunk, &chunk, b"0\r\n\r\n"].concat(),
            ..case(
                "4 MiB in chunks",
                &format!("{post}Transfer-Encoding: chunked\r\n\r\n"),
                (413, "RequestEntityTooLarge"),
            )
        },
    ]
}

#[test]
fn broken_requests_are_refused_one_by_one() {
    let api = cluster();
    block_on(async {
        for case in cases() {
            let head = case.head.replace("TOKEN", &api.token);
            let bytes = [head.as_bytes(), &case.body].concat();
            let (code, body) = match raw::exchange(&api, &bytes).await {
                None => (0, String::new()),
                Some((code, _, body)) => (code, String::from_utf8_lossy(&body).into_owned()),
            };
            assert_eq!(code, case.expected.0, "{}: {body}", case.about);
            assert!(body.contains(case.expected.1), "{}: {body}", case.about);
        }
        assert_unharmed(&api).await;
    });
}

/// A refusal that names its reason is a Status also when the body was never looked at, and
/// reaches a client that sends all of it first.
#[test]
fn refusals_come_as_a_status() {
    let api = cluster();
    block_on(async {
        let request = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n\
                       Authorization: Bearer wrong\r\nContent-Length: 3000000\r\n\r\n";
        let request = [request.as_bytes(), &[b' '; 3_000_000]].concat();
        let (code, head, body) = raw::exchange(&api, &request).await.unwrap();
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (code, &status["reason"], &status["code"]),
            (401, &"Unauthorized".into(), &401.into())
        );
        assert!(head.contains("application/json"), "{head}");
    });
}

/// What Go's server says to people who forget the s of https.
#[test]
fn plain_http_is_told_so() {
    let api = cluster();
    block_on(async {
        let mut stream = tokio::net::TcpStream::connect(api.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(
            text,
            "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
        );
        assert_unharmed(&api).await;
    });
}

/// Two requests at once on one connection, the second behind a body that is too
/// large to be read: it must not be taken for a request.
#[test]
fn what_follows_a_refused_body_is_not_a_request() {
    let api = cluster();
    block_on(async {
        let hidden = format!(
            "DELETE /api/v1/namespaces/default HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            api.token
        );
        let filler = "x".repeat((4 << 20) - hidden.len());
        let request = format!(
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n\
             Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{filler}{hidden}",
            api.token,
            4 << 20,
        );
        let (code, _, _) = raw::exchange(&api, request.as_bytes()).await.unwrap();
        assert_eq!(code, 413);
        assert_default_namespace(&api).await;
    });
}

async fn assert_default_namespace(api: &Api) {
    let path = "/api/v1/namespaces/default";
    let (code, namespace) = api.client().ask(reqwest::Method::GET, path, None).await.unwrap();
    assert_eq!((code, &namespace["status"]["phase"]), (200, &"Active".into()), "{namespace}");
}
