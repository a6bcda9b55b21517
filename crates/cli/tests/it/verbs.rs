//! Lists, watches, waits and the rest, word by word.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use clap::Parser;
use portolan_cli::{
    args::Cli,
    output::{Exit, Output},
};
use serde_json::{Value, json};

use crate::fake::{Answer, Buffer, Fake};

fn instance(service: &str, address: &str, state: &str) -> Value {
    let reasons = match state {
        "serving" => json!([]),
        _ => json!([{"code": "PTL0103", "text": "The Pod is not ready.", "fix": "Look."}]),
    };
    json!({
        "origin": "kubernetes", "namespace": "demo", "service": service, "name": "pod-1",
        "address": address, "port": 80, "portName": "http", "protocol": "http",
        "state": state, "source": "kubernetes", "weight": 100, "metadata": {}, "reasons": reasons,
    })
}

fn service(origin: &str, name: &str) -> Value {
    json!({
        "origin": origin, "namespace": "demo", "name": name, "type": "ClusterIP",
        "addresses": ["127.96.0.1"], "ports": [], "configured": 1, "serving": 1,
        "etag": "00", "changed": "aaaa-1", "reasons": [],
    })
}

fn page(items: Value) -> Answer {
    Answer::Json(200, json!({"version": "aaaa-1", "ageMs": 5, "items": items}).to_string())
}

fn refusal(status: u16, message: &str, hint: &str) -> Answer {
    let body = json!({"status": status, "message": message, "hint": hint});
    Answer::Json(status, body.to_string())
}

fn event(body: Value) -> String {
    let kind = body["event"].as_str().unwrap().to_owned();
    let id = if kind == "synced" { "id: x\n" } else { "" };
    format!("event: {kind}\n{id}data: {body}\n\n")
}

fn upsert(name: &str, state: &str) -> String {
    let service = service("kubernetes", name);
    let instances = [instance(name, "fd00::1", state)];
    event(json!({
        "event": "upsert", "version": "aaaa-2", "service": service, "instances": instances,
    }))
}

fn synced(version: &str) -> String {
    event(json!({"event": "synced", "version": version}))
}

fn reset() -> String {
    event(json!({"event": "reset", "version": "aaaa-1"}))
}

#[tokio::test]
async fn lists_in_every_format() {
    let fake =
        Fake::start(|_| page(json!([service("kubernetes", "web"), service("registry", "web")])))
            .await;
    for (format, expected) in [
        ("table", "NAMESPACE  NAME  ORIGIN      TYPE"),
        ("wide", "CHANGED"),
        ("json", "\"items\": ["),
        ("yaml", "version: aaaa-1"),
        ("name", "demo/web\nregistry:demo/web\n"),
    ] {
        let ran = fake.run(&format!("get services -o {format}")).await;
        assert_eq!(ran.exit, Exit::Fine, "{ran:?}");
        assert!(ran.out.contains(expected), "{format}: {ran:?}");
        assert_eq!(ran.err, "", "data on stdout, words on stderr");
    }
}

#[tokio::test]
async fn what_is_asked_reaches_the_server_encoded() {
    let fake = Fake::start(|_| page(json!([]))).await;
    let ran = fake.run("get instances registry:demo/a -n other -l a!=b --origin x").await;
    assert_eq!(ran.exit, Exit::Problem, "a name that is not there: {ran:?}");
    assert_eq!(
        fake.asked(),
        ["/v1/instances?namespace=other&origin=x&labels=a%21%3Db&service=registry%3Ademo%2Fa"]
    );
    assert!(ran.err.contains("portolan why registry:demo/a -n other"), "{ran:?}");
}

#[tokio::test]
async fn exits_tell_what_went_wrong() {
    let fake = Fake::start(|path| match path.split('?').next().unwrap() {
        "/v1/services" => refusal(400, "\"x y\" is no label requirement", "write key=value"),
        "/v1/instances" => refusal(503, "busy", "ask again later"),
        "/v1/endpoints" => Answer::Json(502, "<html>".to_owned()),
        "/v1/nodes" => Answer::Json(200, "{\"items\": 7}".to_owned()),
        _ => refusal(404, "there is nothing", "see /v1/services"),
    })
    .await;
    for (words, exit, expected) in [
        ("get services -l x", Exit::Usage, "write key=value"),
        ("get instances", Exit::Problem, "ask again later"),
        ("get endpoints", Exit::Problem, "is http://127.0.0.1"),
        ("get nodes", Exit::Problem, "makes no sense to this version"),
        ("get sources", Exit::Problem, "see /v1/services"),
        ("get nodes -l a=b", Exit::Usage, "services, instances and endpoints"),
        ("watch", Exit::Problem, "there is nothing"),
        ("dig web NONSENSE", Exit::Usage, "SRV"),
        ("dig web +nssearch", Exit::Usage, "+trace, +tcp and +short"),
        ("explain PTL9999", Exit::Usage, "portolan explain"),
    ] {
        let ran = fake.run(words).await;
        assert_eq!(ran.exit, exit, "{words}: {ran:?}");
        assert!(ran.failure.contains(expected), "{words}: {ran:?}");
        assert_eq!(ran.out, "", "{words}");
    }
}

#[tokio::test]
async fn a_list_that_is_watched_is_printed_when_it_changes() {
    let lists = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |path| {
        if path.starts_with("/v1/watch") {
            // Once for what is, once for a version that changes nothing here.
            return Answer::Events(vec![reset(), synced("aaaa-1"), synced("aaaa-9")], true);
        }
        match lists.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => page(json!([instance("web", "127.10.0.1", "starting")])),
            _ => page(json!([instance("web", "127.10.0.1", "serving")])),
        }
    })
    .await;
    let (out, err) = (Buffer::default(), Buffer::default());
    let run = fake.run_into("get instances web -n demo -l a=b -w", &out, &err);
    tokio::select! {
        ran = run => panic!("{ran:?}"),
        () = out.holds("serving") => {}
    }
    assert_eq!(out.text().matches("starting").count(), 1, "{}", out.text());
    assert_eq!(out.text().matches("NAMESPACE").count(), 2, "{}", out.text());
    let watch = fake.asked().into_iter().find(|path| path.starts_with("/v1/watch"));
    assert_eq!(watch.as_deref(), Some("/v1/watch?namespace=demo&labels=a%3Db&service=web"));
}

#[tokio::test]
async fn nodes_are_watched_by_asking_again() {
    let lists = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |_| {
        let ready = lists.fetch_add(1, Ordering::SeqCst) > 0;
        page(json!([{"name": "a", "addresses": [], "ready": ready, "workloads": 0}]))
    })
    .await;
    let (out, err) = (Buffer::default(), Buffer::default());
    tokio::select! {
        ran = fake.run_into("get nodes -w -o json", &out, &err) => panic!("{ran:?}"),
        () = out.holds("\"ready\":true") => {}
    }
    // One list a line.
    let lists: Vec<Value> =
        out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lists[0]["items"][0]["ready"], false);
}

#[tokio::test]
async fn a_watch_comes_back_from_where_it_was() {
    let connections = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |_| match connections.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Events(
            vec![reset(), upsert("web", "starting"), upsert("old", "serving"), synced("aaaa-1")],
            false,
        ),
        // Cut off between an upsert and the end of its version.
        1 => Answer::Events(vec![upsert("web", "serving")], false),
        2 => Answer::Events(vec![upsert("web", "serving"), synced("aaaa-3")], false),
        3 => refusal(503, "starting", ""),
        _ => Answer::Events(
            vec![reset(), upsert("web", "serving"), upsert("new", "serving"), synced("bbbb-1")],
            true,
        ),
    })
    .await;
    let (out, err) = (Buffer::default(), Buffer::default());
    let ended = tokio::select! {
        ran = fake.run_into("watch", &out, &err) => ran,
        () = out.holds("bbbb-1") => unreachable!("a refusal ends it"),
    };
    assert_eq!((ended.exit, ended.failure.contains("starting")), (Exit::Problem, true));
    assert_eq!(
        fake.asked(),
        [
            "/v1/watch",
            "/v1/watch?version=aaaa-1",
            "/v1/watch?version=aaaa-1",
            "/v1/watch?version=aaaa-3"
        ]
    );
    let lines: Vec<String> = out.text().lines().map(ToOwned::to_owned).collect();
    assert_eq!(lines[0], "aaaa-2  demo/web  ~ pod-1 [fd00::1]:80 starting (PTL0103) -> serving");
    assert!(err.text().contains("watching from version aaaa-1"), "{}", err.text());
    assert!(err.text().contains("trying again"), "{}", err.text());

    // Anew after a reset: only what differs is told.
    let (out, err) = (Buffer::default(), Buffer::default());
    let connections = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |_| match connections.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Events(
            vec![reset(), upsert("web", "serving"), upsert("old", "serving"), synced("aaaa-1")],
            false,
        ),
        _ => Answer::Events(
            vec![reset(), upsert("web", "serving"), upsert("new", "serving"), synced("bbbb-1")],
            true,
        ),
    })
    .await;
    tokio::select! {
        ran = fake.run_into("watch", &out, &err) => panic!("{ran:?}"),
        () = out.holds("demo/old  - service removed") => {}
    }
    let lines: Vec<String> = out.text().lines().map(ToOwned::to_owned).collect();
    assert_eq!(
        lines,
        [
            "bbbb-1  demo/new  + service added",
            "bbbb-1  demo/new  + pod-1 [fd00::1]:80 serving",
            "bbbb-1  demo/old  - service removed",
        ]
    );
}

fn convergence(present: bool, converged: bool, residue_ms: u64) -> Answer {
    let body = json!({
        "target": "service demo/web", "version": "aaaa-7", "present": present,
        "converged": converged,
        "residue": {"ms": residue_ms, "because": "the largest DNS TTL that was served"},
        "reasons": [],
        "members": [
            {"id": "api/http", "version": "aaaa-7", "ageMs": 1, "reached": true},
            {"id": "dns/udp-0", "version": "aaaa-6", "ageMs": 1, "reached": converged},
        ],
    });
    Answer::Json(200, body.to_string())
}

#[tokio::test]
async fn waits() {
    let fake = Fake::start(|path| match path {
        path if path.contains("live") => convergence(true, true, 0),
        path if path.contains("slow") => convergence(true, false, 0),
        path if path.contains("none") => convergence(false, false, 0),
        path if path.contains("brief") => convergence(true, true, 30),
        path if path.contains("long") => convergence(true, true, 60_000),
        _ => Answer::Json(
            200,
            json!({
                "target": "x", "version": "aaaa-1", "present": true, "converged": false,
                "residue": {"ms": 0, "because": ""}, "members": [],
                "reasons": [{"code": "PTL0306", "text": "No member.", "fix": "Start the face."}],
            })
            .to_string(),
        ),
    })
    .await;
    for (words, exit, out, err) in [
        ("wait live", Exit::Fine, "is live on 2 members (version aaaa-7)", ""),
        ("wait slow --timeout 1ms", Exit::Problem, "", "dns/udp-0 serves aaaa-6"),
        ("wait none --timeout 1ms -n demo", Exit::Problem, "", "portolan why none -n demo"),
        ("wait none --gone --timeout 1ms", Exit::Problem, "", "is still in the catalog"),
        ("wait brief --gone", Exit::Fine, "is gone on 2 members", "waiting 30ms more"),
        ("wait long --gone --timeout 5ms", Exit::Problem, "", "give a longer --timeout"),
        ("wait long --gone --timeout 5ms -o json", Exit::Problem, "\"aaaa-7\"", "timed out"),
        ("wait absent --on console --timeout 1ms", Exit::Problem, "", "PTL0306"),
    ] {
        let ran = fake.run(words).await;
        assert_eq!(ran.exit, exit, "{words}: {ran:?}");
        assert!(
            ran.out.contains(out) && (out.is_empty() == ran.out.is_empty()),
            "{words}: {ran:?}"
        );
        assert!(
            ran.err.contains(err) && (err.is_empty() == ran.err.is_empty()),
            "{words}: {ran:?}"
        );
    }
    let asked = fake.asked();
    let gone = asked.iter().find(|path| path.contains("target=brief")).unwrap();
    assert!(gone.contains("gone=true") && gone.contains("timeoutMs="), "{gone}");
    assert!(asked.last().unwrap().contains("on=console"), "{asked:?}");
}

#[tokio::test]
async fn why_prints_ladders_with_fixes() {
    let fake = Fake::start(|path| {
        let fine = path.contains("fine");
        let stop = json!({"code": "PTL0201", "text": "Listens elsewhere.", "fix": "Listen here."});
        let step = |stage: &str, state: &str, reason: Value| {
            let mut step = json!({"stage": stage, "state": state, "detail": "d"});
            if reason.is_object() {
                step["reason"] = reason;
            }
            step
        };
        let steps = match fine {
            true => json!([step("seen", "passed", Value::Null)]),
            false => json!([
                step("matched", "passed", Value::Null),
                step("ready", "stopped", stop),
                step("published", "notReached", Value::Null),
            ]),
        };
        let body = json!({
            "version": "aaaa-1", "ageMs": 4000, "target": "t", "summary": "so it is",
            "fine": fine, "ladders": [{"subject": "pod-1 of web", "address": "a:1", "steps": steps}],
            "reasons": [], "nearest": if fine { json!([]) } else { json!(["svc/demo/web"]) },
        });
        Answer::Json(200, body.to_string())
    })
    .await;
    let fine = fake.run("why fine --from demo/client --on dns -n demo").await;
    assert_eq!((fine.exit, fine.out.contains("✓ so it is  (aaaa-1, 4s old)")), (Exit::Fine, true));
    assert_eq!(fake.asked(), ["/v1/why?target=fine&namespace=demo&on=dns&from=demo%2Fclient"]);
    let bad = fake.run("why bad").await;
    assert_eq!(bad.exit, Exit::Problem);
    for words in ["✕ PTL0201 Listens", "fix: Listen here.", "– not reached", "did you mean svc/"]
    {
        assert!(bad.out.contains(words), "{words}: {}", bad.out);
    }
    assert!(!bad.out.contains('\u{1b}'), "no colour where nobody looks");
}

#[tokio::test]
async fn check_tells_each_finding() {
    let fake = Fake::start(|path| match path {
        "/readyz" => Answer::Json(200, "ok\n".to_owned()),
        "/v1/status" => Answer::Json(
            200,
            json!({
                "version": "aaaa-1", "ageMs": 5, "program": "1", "clusterDomain": "cluster.local",
                "synced": true, "blockers": [], "services": 1, "endpoints": 2, "serving": 2,
                "problems": [{"code": "PTL0301", "text": "Port 80.", "fix": "Use 8080."}],
            })
            .to_string(),
        ),
        _ => page(json!([
            {"name": "kubernetes", "state": "lost", "sinceMs": 5, "error": "pods: reset", "parts": []}
        ])),
    })
    .await;
    let ran = fake.run("check").await;
    assert_eq!(ran.exit, Exit::Problem, "{ran:?}");
    for words in ["✓ ready", "✕ source", "pods: reset", "! face", "hint: Use 8080."] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    let ran = fake.run("check -o json --wait 1ms").await;
    let findings: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(findings.as_array().map(Vec::len), Some(4), "{findings}");
}

#[tokio::test]
async fn codes_for_scripts() {
    let fake = Fake::start(|_| page(json!([]))).await;
    let one = fake.run("explain PTL0201 -o json").await;
    let document: Value = serde_json::from_str(&one.out).unwrap();
    assert_eq!(document["items"][0]["name"], "ListensElsewhere");
    let names = fake.run("explain -o name").await;
    assert!(names.out.lines().all(|line| line.starts_with("PTL")) && names.out.contains("PTL0306"));
    assert!(fake.asked().is_empty(), "codes are known without a server");
}

#[tokio::test]
async fn a_server_that_is_none() {
    let fake = Fake::start(|_| page(json!([]))).await;
    for (words, exit, expected) in [
        (&["--server", "127.0.0.1:1", "get", "services"][..], Exit::Usage, "http://127.0.0.1:8500"),
        (&["--token-file", "/nowhere", "get", "services"], Exit::Usage, "--token-file /nowhere"),
        (&["--server", "http://127.0.0.1:1", "get", "services"], Exit::Unreachable, "refused"),
        (&["dig", "web", "--dns", "127.0.0.1:1"], Exit::Unreachable, "DNS server at 127.0.0.1:1"),
    ] {
        let cli = Cli::try_parse_from(["portolan"].iter().chain(words)).unwrap();
        let mut output = Output::to(Buffer::default(), Buffer::default());
        let failure = portolan_cli::run(&cli, &mut output).await.unwrap().unwrap_err();
        assert_eq!(failure.exit(), exit, "{words:?}: {failure}");
        assert!(failure.to_string().contains(expected), "{words:?}: {failure}");
    }
    drop(fake);
}

/// Closed by its reader, as by `| head -1`.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_failure() {
    let cli = Cli::try_parse_from(["portolan", "explain"]).unwrap();
    let mut output = Output::to(Closed, Buffer::default());
    assert_eq!(portolan_cli::run(&cli, &mut output).await.unwrap().unwrap(), Exit::Fine);
}
