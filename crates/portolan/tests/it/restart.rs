//! Restarts: nothing that was acknowledged is lost, and nothing outlives its
//! owner.

use crate::harness::{
    Up, apart, eventually, expect, is_alive, python_deployment, service, up_with,
};

fn pid_of_first_process(up: &Up) -> u32 {
    eventually("the process's first log line", || {
        let log = up.try_kubectl(&["logs", "deployment/sleeper"]);
        log.out.trim().parse().map_err(|_| format!("{log:?}"))
    })
}

const SLEEPER: &str = "import os, time\nprint(os.getpid())\ntime.sleep(600)";

#[test]
fn objects_and_addresses_survive_a_kill_and_processes_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let flags = apart();
    let up = up_with(folder, &flags, &[]);
    up.apply(&python_deployment("sleeper", 1, 9000, SLEEPER));
    up.apply(&service("sleeper", 80));
    let address = up.cluster_ip("default", "sleeper");
    let uid = up.kubectl(&["get", "deployment", "sleeper", "-o", "jsonpath={.metadata.uid}"]);
    let pid = pid_of_first_process(&up);
    assert!(is_alive(pid));

    let folder = up.sigkill();
    eventually("the process ends with its owner", || expect(is_alive(pid), false));

    let up = up_with(folder, &flags, &[]);
    assert_eq!(up.cluster_ip("default", "sleeper"), address);
    assert_eq!(
        up.kubectl(&["get", "deployment", "sleeper", "-o", "jsonpath={.metadata.uid}"]),
        uid
    );
    let again = eventually("the process again", || {
        let pid = pid_of_first_process(&up);
        if is_alive(pid) { Ok(pid) } else { Err("dead".into()) }
    });
    let (code, _) = up.sigterm();
    assert_eq!(code, Some(0));
    eventually("the process ends in order", || expect(is_alive(again), false));
}

#[test]
fn an_ephemeral_run_leaves_nothing_behind() {
    let up = crate::harness::up(&["--without", "proxy"]);
    let data = up.addresses.data_dir.clone();
    let kubeconfig = up.addresses.kubeconfig.clone().unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&kubeconfig).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{kubeconfig}");
    let (code, folder) = up.sigterm();
    assert_eq!(code, Some(0));
    let _ = folder;
    let left = std::path::Path::new(&data).join("addresses.json");
    assert!(!left.exists(), "addresses.json is withdrawn");
}
