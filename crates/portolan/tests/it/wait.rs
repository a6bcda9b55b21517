//! Convergence that can be waited for.

use std::{thread, time::Duration};

use crate::harness::{eventually, up};

const WEB: &str = include_str!("../../../../examples/web.yaml");

#[test]
fn wait_returns_when_every_face_serves_the_change() {
    let up = up(&[]);
    up.apply(WEB);
    let out = up.portolan(&["wait", "svc/web", "--timeout", "30s"]);
    assert!(out.contains("live"), "{out}");
    // What wait promised holds for the DNS server at once, with no retry.
    let address = up.cluster_ip("default", "web");
    assert_eq!(up.dig("web.default.svc.cluster.local", "A"), [address]);

    let state = up.api("/v1/convergence?target=svc/web");
    assert_eq!(state["converged"], true, "{state}");
    let members = state["members"].as_array().unwrap();
    let faces: Vec<&str> =
        members.iter().filter_map(|member| member["id"].as_str()?.split('/').next()).collect();
    for face in ["api", "dns", "proxy"] {
        assert!(faces.contains(&face), "{faces:?}");
    }
}

#[test]
fn wait_times_out_with_the_reason() {
    let up = up(&["--without", "proxy"]);
    let ran = up.try_portolan(&["wait", "svc/nothing", "--timeout", "200ms"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("not in the catalog"), "{ran:?}");
    let why = up.try_portolan(&["why", "svc/kuberntes"]);
    assert_eq!(why.code, Some(1), "{why:?}");
    assert!(why.out.contains("did you mean svc/default/kubernetes"), "{why:?}");
}

#[test]
fn gone_counts_the_answers_that_clients_still_hold() {
    let up = up(&["--without", "proxy"]);
    up.apply(WEB);
    up.portolan(&["wait", "svc/web"]);
    // Give the answer a TTL that somebody holds.
    eventually("an answer", || {
        let answer = up.dig("web.default.svc.cluster.local", "A");
        if answer.is_empty() { Err("none".into()) } else { Ok(()) }
    });
    up.kubectl(&["delete", "service", "web"]);
    let ran = up.try_portolan(&["wait", "svc/web", "--gone", "--timeout", "30s"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("TTL"), "the residue is named: {ran:?}");
    assert!(up.dig("web.default.svc.cluster.local", "A").is_empty());
}

#[test]
fn the_stream_tells_each_change_once_and_resumes() {
    let up = up(&["--without", "proxy"]);
    up.apply(WEB);
    up.portolan(&["wait", "svc/web"]);
    let mut command = std::process::Command::new("curl");
    command.args([
        "-sN",
        "--max-time",
        "5",
        "--noproxy",
        "*",
        &format!("{}/v1/watch?service=default/web", up.http()),
    ]);
    let follower = thread::spawn(move || command.output().unwrap().stdout);
    thread::sleep(Duration::from_millis(500));
    up.kubectl(&["label", "service", "web", "tier=front"]);
    let text = String::from_utf8(follower.join().unwrap()).unwrap();
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events.first(), Some(&"reset"), "{text}");
    assert!(events.contains(&"synced"), "{text}");
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert!(text.matches("event: upsert").count() >= 2, "the state, then the change: {text}");

    // Resuming from the last id: nothing is sent again.
    let resumed = up.curl_for(
        1,
        &format!("{}/v1/watch?service=default/web&version={}", up.http(), ids.last().unwrap()),
    );
    assert!(!resumed.contains("event: reset"), "{resumed}");
    // A version of another life: everything anew.
    let foreign =
        up.curl_for(1, &format!("{}/v1/watch?service=default/web&version=zzzz-1", up.http()));
    assert!(foreign.contains("event: reset"), "{foreign}");
}
