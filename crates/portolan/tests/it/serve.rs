//! `portolan serve` beside a cluster in a process of its own: what a loss of the API
//! costs (nothing), and what a restart without it costs.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::harness::{
    Up, address_query, binary, eventually, expect, free_port, run, service, up_with,
};

const WEB: &str = "web.default.svc.cluster.local";

/// A cluster alone, on a port that it keeps.
pub(crate) fn cluster(folder: tempfile::TempDir, port: u16) -> Up {
    let range = 90 + u8::try_from(port % 10).unwrap();
    let flags = [
        "cluster".to_owned(),
        format!("--api-listen=127.0.0.1:{port}"),
        format!("--service-cidr=127.{range}.0.0/16"),
        "--pod-cidr=127.89.0.0/16".to_owned(),
        "--no-node".to_owned(),
        "-o=json".to_owned(),
    ];
    up_with(folder, &flags, &[])
}

/// All faces for a cluster, with DNS on a port that it keeps.
pub(crate) fn serve(folder: tempfile::TempDir, kubeconfig: &str, dns: u16) -> Up {
    let flags = [
        "serve".to_owned(),
        format!("--kubeconfig={kubeconfig}"),
        format!("--dns-listen=127.0.0.1:{dns}"),
        "--http-listen=127.0.0.1:0".to_owned(),
        "--xds-listen=127.0.0.1:0".to_owned(),
        "-o=json".to_owned(),
    ];
    up_with(folder, &flags, &[])
}

/// A metric's value.
fn metric(up: &Up, line: &str) -> f64 {
    let page = up.curl(&format!("{}/metrics", up.http())).unwrap();
    let found = page.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in\n{page}"))
}

fn ready(up: &Up) -> Option<String> {
    up.curl(&format!("{}/readyz", up.http()))
}

/// Asks for a name again and again, and counts what comes of it.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    wrong: thread::JoinHandle<Vec<String>>,
}

impl Load {
    /// `expected`: the last bytes of the right reply.
    fn start(dns: &str, expected: [u8; 4]) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(dns).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut query = address_query(WEB);
        let (halt, count) = (stop.clone(), asked.clone());
        let wrong = thread::spawn(move || {
            let mut wrong = Vec::new();
            let mut reply = [0; 512];
            while !halt.load(Ordering::Relaxed) {
                let number = count.fetch_add(1, Ordering::Relaxed);
                query[..2].copy_from_slice(&number.to_be_bytes()[6..]);
                socket.send(&query).unwrap();
                match socket.recv(&mut reply) {
                    Ok(length) => {
                        let right = reply[..2] == query[..2] && reply[3] & 0xf == 0;
                        if !right || reply[..length].last_chunk() != Some(&expected) {
                            wrong.push(format!("{number}: {:?}", &reply[..length]));
                        }
                    }
                    Err(error) => wrong.push(format!("{number}: {error}")),
                }
                thread::sleep(Duration::from_millis(1));
            }
            wrong
        });
        Self { stop, asked, wrong }
    }

    /// Waits until it has asked so often more.
    fn goes_on(&self, times: u64) {
        let until = self.asked.load(Ordering::Relaxed) + times;
        eventually("the load goes on", || {
            let asked = self.asked.load(Ordering::Relaxed);
            if asked >= until { Ok(()) } else { Err(format!("{asked} of {until}")) }
        });
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.wrong.join().unwrap()
    }
}

#[test]
fn loss_of_the_api_and_restarts_without_it() {
    let (api_port, dns_port) = (free_port(), free_port());
    let api = cluster(tempfile::tempdir().unwrap(), api_port);
    api.apply(&service("web", 80));
    let address: std::net::Ipv4Addr = api.cluster_ip("default", "web").parse().unwrap();
    let right = vec![address.to_string()];
    // The kubeconfig has to stay where it is while the cluster's folder moves.
    let kept = tempfile::tempdir().unwrap();
    let kubeconfig = kept.path().join("kubeconfig").display().to_string();
    std::fs::copy(api.addresses.kubeconfig.as_ref().unwrap(), &kubeconfig).unwrap();

    let face = serve(tempfile::tempdir().unwrap(), &kubeconfig, dns_port);
    assert_eq!(face.dig(WEB, "A"), right);
    assert_eq!(ready(&face).as_deref(), Some("ok\n"));
    assert_eq!(metric(&face, "portolan_source_stale_seconds{source=\"kubernetes\"}"), 0.0);

    // The API dies under load: nobody notices, but for who asks how old it all is.
    let load = Load::start(face.addresses.dns.as_deref().unwrap(), address.octets());
    load.goes_on(100);
    let folder = api.sigkill();
    let lost =
        |face: &Up| ready(face).is_some_and(|text| text.starts_with("ok\nstale: kubernetes for "));
    eventually("the loss is told", || expect(lost(&face), true));
    load.goes_on(500);
    assert_eq!(face.dig("none.default.svc.cluster.local", "A"), Vec::<String>::new());
    let age = |face: &Up| metric(face, "portolan_source_stale_seconds{source=\"kubernetes\"}");
    eventually("the age is counted", || expect(age(&face) > 0.0, true));
    assert_eq!(load.end(), Vec::<String>::new());

    // So does the face, and it comes back without an API.
    let face_folder = face.sigkill();
    let face = serve(face_folder, &kubeconfig, dns_port);
    assert_eq!(face.dig(WEB, "A"), right);
    assert!(face.said().contains("telling what the API had before"), "{}", face.said());
    assert!(lost(&face), "{:?}", ready(&face));
    // As old as what it tells, not as its own life.
    assert!(age(&face) > 0.0);

    // The API comes back, with what was there and with news.
    let load = Load::start(face.addresses.dns.as_deref().unwrap(), address.octets());
    let api = cluster(folder, api_port);
    api.apply(&service("late", 80));
    let late = vec![api.cluster_ip("default", "late")];
    eventually("news", || expect(face.dig("late.default.svc.cluster.local", "A"), late.clone()));
    eventually("readiness says nothing more", || expect(ready(&face).as_deref(), Some("ok\n")));
    load.goes_on(100);
    assert_eq!(load.end(), Vec::<String>::new());
}

#[test]
fn names_fail_until_everything_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let nobody = free_port();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster: \
         {{server: \"http://127.0.0.1:{nobody}\"}}\nusers:\n- name: u\n  user: {{token: t}}\n\
         contexts:\n- name: c\n  context: {{cluster: c, user: u}}\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let data = folder.path().join("data");
    let mut child = Command::new(binary())
        .args([
            "serve",
            "--dns-listen=127.0.0.1:0",
            "--http-listen=127.0.0.1:0",
            "--xds-listen=127.0.0.1:0",
            "-o=json",
        ])
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--data-dir={}", data.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let addresses: BTreeMap<String, serde_json::Value> = eventually("the addresses", || {
        let text = std::fs::read_to_string(data.join("addresses.json"));
        serde_json::from_str(&text.unwrap_or_default()).map_err(|error| error.to_string())
    });
    let (address, port) = addresses["dns"].as_str().unwrap().rsplit_once(':').unwrap();
    let dig = |name: &str| {
        let mut command = Command::new("dig");
        command.args([&format!("@{address}"), "-p", port, "+tries=3", name]);
        run(command, None).out
    };
    let status = |path: &str| {
        let mut command = Command::new("curl");
        let url = format!("{}{path}", addresses["http"].as_str().unwrap());
        command.args(["-s", "--noproxy", "*", "-w", "%{http_code}", &url]);
        run(command, None).out
    };
    for name in ["kubernetes.default.svc.cluster.local", "none.default.svc.cluster.local"] {
        let said = dig(name);
        assert!(said.contains("status: SERVFAIL"), "{said}");
    }
    let said = status("/readyz");
    assert!(said.ends_with("503") && said.contains("not told all they know yet"), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
}
