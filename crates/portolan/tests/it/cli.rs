//! The command line itself.

use std::process::Command;

use crate::harness::{binary, free_port, run, up};

fn portolan(args: &[&str]) -> crate::harness::Ran {
    let mut command = Command::new(binary());
    let folder = tempfile::tempdir().unwrap();
    command
        .args(args)
        .current_dir(folder.path())
        .env_remove("PORTOLAN_SERVER")
        .env("NO_COLOR", "1");
    run(command, None)
}

#[test]
fn without_a_server_it_says_how_to_start_one_and_ends_with_3() {
    let server = format!("http://127.0.0.1:{}", free_port());
    for verb in
        [&["get", "services"][..], &["why", "svc/x"], &["wait", "svc/x"], &["check"], &["watch"]]
    {
        let ran = portolan(&[verb, &["--server", &server]].concat());
        assert_eq!(ran.code, Some(3), "{verb:?}: {ran:?}");
        assert!(ran.err.contains(&server) && ran.err.contains("portolan up"), "{ran:?}");
    }
}

#[test]
fn words_about_itself() {
    let version = portolan(&["version"]);
    assert_eq!(version.out.trim(), format!("portolan {}", env!("CARGO_PKG_VERSION")));
    let help = portolan(&["--help"]);
    assert!(help.fine && help.out.contains("Examples:"), "{help:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = portolan(&["completion", shell]);
        assert!(script.fine && script.out.contains("portolan"), "{shell}");
    }
    let code = portolan(&["explain", "PTL0201"]);
    assert!(
        code.fine && code.out.contains("ListensElsewhere") && code.out.contains("POD_IP"),
        "{code:?}"
    );
    assert_eq!(portolan(&["explain", "PTL9999"]).code, Some(2));
    assert_eq!(portolan(&["nonsense"]).code, Some(2));
}

#[test]
fn every_list_has_every_format() {
    let up = up(&["--without", "proxy"]);
    for noun in ["services", "instances", "endpoints", "nodes", "sources", "versions"] {
        for format in ["table", "wide", "json", "yaml", "name"] {
            let out = up.portolan(&["get", noun, "-A", "-o", format]);
            assert!(!out.trim().is_empty(), "{noun} {format}");
            if format == "json" {
                let page: serde_json::Value = serde_json::from_str(&out).unwrap();
                assert!(page["version"].is_string() && page["ageMs"].is_u64(), "{page}");
                assert!(page["items"].is_array(), "{page}");
            }
        }
    }
    let table = up.portolan(&["get", "services", "-n", "default"]);
    assert!(table.starts_with("NAMESPACE") && table.contains("kubernetes"), "{table}");
    assert!(!table.contains("kube-system"), "{table}");
    let none = up.try_portolan(&["get", "services", "nothing"]);
    assert_eq!(none.code, Some(1), "{none:?}");
}

#[test]
fn it_finds_the_server_by_its_addresses_file() {
    let up = up(&["--without", "proxy"]);
    // A folder whose .portolan is the data directory of the running one.
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&up.addresses.data_dir, folder.path().join(".portolan")).unwrap();
    let mut command = Command::new(binary());
    command.args(["get", "services", "-o", "name"]).current_dir(folder.path());
    command.env_remove("PORTOLAN_SERVER");
    let ran = run(command, None);
    assert!(ran.fine && ran.out.contains("default/kubernetes"), "{ran:?}");
}

#[test]
fn the_http_face_speaks_for_machines() {
    let up = up(&[]);
    assert_eq!(up.curl(&format!("{}/healthz", up.http())).as_deref(), Some("ok\n"));
    assert_eq!(up.curl(&format!("{}/readyz", up.http())).as_deref(), Some("ok\n"));
    let metrics = up.curl(&format!("{}/metrics", up.http())).unwrap();
    assert!(metrics.contains("portolan_") && metrics.trim_end().ends_with("# EOF"), "{metrics}");
    let unknown = up.curl_for(5, &format!("{}/v1/nothing", up.http()));
    assert!(unknown.contains("\"status\":404"), "{unknown}");
    let bad = up.curl_for(5, &format!("{}/v1/services?nonsense=1", up.http()));
    assert!(bad.contains("\"status\":400"), "{bad}");
}
