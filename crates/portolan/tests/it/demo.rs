//! README command one: the demo runs, is called, scaled, and hurt.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Up, eventually, expect, signal, up};

fn page(up: &Up, url: &str) -> Option<Value> {
    serde_json::from_str(&up.curl(url)?).ok()
}

fn serving_reviews(up: &Up) -> Vec<Value> {
    up.api("/v1/instances?origin=registry&service=reviews&namespace=demo")["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|instance| instance["state"] == "serving")
        .cloned()
        .collect()
}

fn demo() -> (Up, String) {
    let up = up(&["--demo"]);
    let address = eventually("the productpage Service", || {
        let ran = up.try_kubectl(&[
            "-n",
            "demo",
            "get",
            "svc",
            "productpage",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ]);
        if ran.fine && !ran.out.is_empty() { Ok(ran.out) } else { Err(ran.err) }
    });
    let url = format!("http://{address}:9080/productpage");
    eventually("three registered reviews", || expect(serving_reviews(&up).len(), 3));
    eventually("the productpage", || page(&up, &url).map(|_| ()).ok_or("no page".into()));
    (up, url)
}

#[test]
fn calls_alternate_over_versions_and_follow_scaling() {
    let (up, url) = demo();
    let versions = eventually("all three versions", || {
        let mut seen = BTreeSet::new();
        for _ in 0..6 {
            let page = page(&up, &url).ok_or("no page")?;
            assert_eq!(page["details"]["service"], "details", "{page}");
            seen.insert(page["reviews"]["version"].as_str().unwrap_or_default().to_owned());
        }
        if seen.len() == 3 { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(versions, ["v1", "v2", "v3"].map(str::to_owned).into());

    up.kubectl(&["-n", "demo", "scale", "deployment", "reviews-v1", "--replicas=3"]);
    eventually("five registered reviews", || expect(serving_reviews(&up).len(), 5));
    let listed = up.portolan(&["get", "instances", "-n", "demo"]);
    assert_eq!(listed.lines().filter(|line| line.contains("registry")).count(), 5, "{listed}");
    eventually("traffic to all five", || {
        let mut pods = BTreeSet::new();
        for _ in 0..10 {
            let page = page(&up, &url).ok_or("no page")?;
            pods.insert(page["reviews"]["pod"].as_str().unwrap_or_default().to_owned());
        }
        expect(pods.len(), 5)
    });
    let why = up.portolan(&["why", "svc/reviews", "-n", "demo"]);
    assert!(why.contains("acknowledged"), "{why}");
    let check = up.portolan(&["check", "--wait", "30s"]);
    assert!(check.contains("source"), "{check}");
}

#[test]
fn killing_a_process_costs_at_most_the_calls_in_flight() {
    let (up, url) = demo();
    let victim = serving_reviews(&up)[0]["address"].as_str().unwrap().to_owned();
    let pid = listener(&victim, 9080).expect("the process that listens");
    // One call at a time: at most one can be in flight when the process dies.
    let mut failed = 0;
    for call in 0..60 {
        if call == 20 {
            signal(pid, rustix::process::Signal::KILL);
        }
        if page(&up, &url).is_none() {
            failed += 1;
        }
    }
    assert!(failed <= 1, "{failed} calls failed");
    // It comes back by itself.
    eventually("the process again", || {
        expect(serving_reviews(&up).len(), 3)?;
        let again = listener(&victim, 9080).ok_or("nobody listens")?;
        if again == pid { Err("the old one".to_owned()) } else { Ok(()) }
    });
}

/// The process that listens on an address, from /proc.
fn listener(address: &str, port: u16) -> Option<u32> {
    let octets: std::net::Ipv4Addr = address.parse().ok()?;
    let local = format!("{:08X}:{port:04X}", u32::from_le_bytes(octets.octets()));
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let inode =
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|row| {
            (row.get(1) == Some(&local.as_str()) && row.get(3) == Some(&"0A"))
                .then(|| row[9].to_owned())
        })?;
    let socket = format!("socket:[{inode}]");
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        for file in files.flatten() {
            if std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket.as_str())
            {
                return Some(pid);
            }
        }
    }
    None
}
