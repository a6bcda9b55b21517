//! The kubelet with real processes, on a cluster in memory.
//!
//! Processes are `sh` where a line of shell will do, and otherwise this very
//! test binary, started again with one of the tests of [`helper`] chosen.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use portolan_apiserver::{
    Caller, Kind, Status, kinds,
    registry::{DeleteOptions, LogOptions, Patch, WriteOptions},
};
use portolan_cluster::{
    Running,
    controllers::events::Recorder,
    kubelet::{self, ApiDoor, HOLLOW_ANNOTATION, RestartPacing, Shim},
    object,
};
use portolan_runtime::{Shutdown, Tasks};
use serde_json::{Value, json};

/// Far beyond what anything here takes: the tests wait for states, not for time.
const DEADLINE: Duration = Duration::from_secs(60);

struct Kube {
    running: Running,
    shutdown: Shutdown,
    /// The kubelet's own, so that it can be stopped alone.
    tasks: Tasks,
    folder: tempfile::TempDir,
    pod_cidr: &'static str,
}

impl Kube {
    async fn start() -> Kube {
        Kube::start_on("127.10.0.0/16").await
    }

    async fn start_on(pod_cidr: &'static str) -> Kube {
        let shutdown = Shutdown::new();
        let mut config = portolan_cluster::Config::default();
        config.api.registry.service_cidrs = vec!["127.96.0.0/16".parse().unwrap()];
        config.api.registry.pod_cidrs = vec![pod_cidr.parse().unwrap()];
        let running = portolan_cluster::start(config, shutdown.clone()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut kube = Kube { running, shutdown, tasks: Tasks::default(), folder, pod_cidr };
        kube.start_kubelet().await;
        kube
    }

    async fn start_kubelet(&mut self) {
        let mut config = kubelet::Config::new(
            self.folder.path().to_owned(),
            vec![self.pod_cidr.parse().unwrap()],
        );
        config.shim =
            Shim { program: env!("CARGO_BIN_EXE_portolan-shim").into(), args: Vec::new() };
        config.restart = RestartPacing { first_ms: 100, max_ms: 400 };
        config.zone = Some("here".into());
        let api = ApiDoor { address: self.running.address, ca_pem: self.running.ca_pem.clone() };
        self.tasks = Tasks::new(self.shutdown.child_token());
        let (registry, informers) = (&self.running.registry, &self.running.informers);
        let recorder = Recorder::start(registry.clone(), &self.tasks);
        kubelet::start(config, api, registry, informers, recorder, &self.tasks).await.unwrap();
    }

    async fn stop_kubelet(&self) {
        self.tasks.shutdown().cancel();
        self.tasks.finish(DEADLINE).await;
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.tasks.finish(DEADLINE).await;
        self.running.finish().await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn create(&self, kind: &'static Kind, object: Value) -> Value {
        let (caller, options) = (Caller::system("test"), WriteOptions::default());
        let namespace = if kind.namespaced { "default" } else { "" };
        self.running.registry.create(&caller, kind, namespace, object, &options).await.unwrap()
    }

    async fn delete(&self, name: &str, grace: Option<i64>) -> Result<(), Status> {
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        let (caller, registry) = (Caller::system("test"), &self.running.registry);
        registry.delete(&caller, &kinds::PODS, "default", name, &options).await.map(drop)
    }

    /// Waits until a Pod is as `find` wants it.
    async fn until<T>(&self, name: &str, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        let pods = self.running.informers.of(&kinds::PODS);
        let get = || self.running.registry.get(&kinds::PODS, "default", name).ok();
        let found = pods.until(|_| find(&get()?));
        match tokio::time::timeout(DEADLINE, found).await {
            Ok(found) => found,
            Err(_) => panic!(
                "{what} did not come; there is {}",
                serde_json::to_string_pretty(&get()).unwrap()
            ),
        }
    }

    async fn ready(&self, name: &str) -> Value {
        self.until(name, "readiness", |pod| {
            object::is_condition_true(pod, "Ready").then(|| pod.clone())
        })
        .await
    }

    async fn not_ready_for(&self, name: &str, code: &str) -> String {
        self.until(name, code, |pod| {
            let ready = object::condition(pod, "Ready")?;
            let message = object::text(ready, "/message");
            let matches = object::text(ready, "/status") == "False" && message.starts_with(code);
            matches.then(|| message.to_owned())
        })
        .await
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |pod| {
            (object::text(pod, "/status/phase") == phase).then(|| pod.clone())
        })
        .await
    }

    async fn gone(&self, name: &str) {
        let pods = self.running.informers.of(&kinds::PODS);
        let gone = pods.until(|pods| pods.get("default", name).is_none().then_some(()));
        tokio::time::timeout(DEADLINE, gone).await.expect("the Pod stays");
    }

    async fn logs(&self, name: &str, change: impl FnOnce(&mut LogOptions)) -> String {
        let mut options = LogOptions::default();
        change(&mut options);
        let pod = self.running.registry.get(&kinds::PODS, "default", name).unwrap();
        let mut stream =
            self.running.registry.pod_logs().unwrap().open(pod, options).await.unwrap();
        let mut text = Vec::new();
        while let Some(piece) = stream.next().await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }
}

fn pod(name: &str, spec: Value, container: Value) -> Value {
    let mut all = json!({"name": "main", "image": "portolan.dev/process:v1"});
    for (key, value) in container.as_object().unwrap() {
        all[key.as_str()] = value.clone();
    }
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": "portolan", "containers": [all]},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key.as_str()] = value.clone();
    }
    pod
}

fn sh(script: &str) -> Value {
    json!({"command": ["sh", "-c", script]})
}

/// A container that runs one of the [`helper`]s.
fn help(name: &str, env: &[(&str, &str)]) -> Value {
    let program = std::env::current_exe().unwrap();
    let env: Vec<Value> = [("PORTOLAN_HELP", "yes")]
        .iter()
        .chain(env)
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({
        "command": [program, "--exact", format!("kubelet::helper::{name}"), "--nocapture"],
        "env": env,
    })
}

/// A free port of the machine, for what must not listen on a Pod's address.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn pod_ip(pod: &Value) -> String {
    object::text(pod, "/status/podIP").to_owned()
}

async fn get(place: SocketAddr) -> String {
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(place).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The pids of processes that have this word in their command line.
fn processes_with(word: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let with = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|b| *b == 0);
        words.any(|w| w == word.as_bytes()).then_some(pid)
    };
    all.filter_map(with).collect()
}

/// What other processes do: each of these is a test that does nothing unless asked to.
mod helper {
    use super::*;

    fn asked() -> bool {
        std::env::var_os("PORTOLAN_HELP").is_some()
    }

    fn var(name: &str) -> String {
        std::env::var(name).unwrap()
    }

    /// Answers HTTP on `LISTEN`: 200, or 503 while the file `SICK` exists.
    #[test]
    fn serve() {
        if !asked() {
            return;
        }
        let sick = std::env::var("SICK").unwrap_or_default();
        let listener = TcpListener::bind(var("LISTEN")).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            if stream.read(&mut head).unwrap_or(0) > 0 {
                let code = if Path::new(&sick).exists() { "503 Sick" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {code}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).ok();
            }
        }
    }

    /// A whole cluster with one Pod, whose process has children of all sorts;
    /// says so in the file `READY`.
    #[test]
    fn cluster() {
        if !asked() {
            return;
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let kube = Kube::start().await;
            let mark = var("MARK");
            let script = format!(
                "sleep {mark} & (setsid sleep {mark} &) ; trap '' TERM HUP; sleep {mark}; sleep {mark}"
            );
            kube.create(&kinds::PODS, pod("family", json!({}), sh(&script))).await;
            kube.ready("family").await;
            fs::write(var("READY"), "").unwrap();
            std::future::pending::<()>().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_runs_is_ready_and_ends() {
    let kube = Kube::start().await;
    let mut container = help("serve", &[("LISTEN", "$(POD_IP):8080")]);
    container["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    container["readinessProbe"] = json!({"httpGet": {"port": "http", "path": "/"}});
    kube.create(&kinds::PODS, pod("web", json!({}), container)).await;
    let ready = kube.ready("web").await;
    assert_eq!(object::text(&ready, "/status/phase"), "Running");
    assert_eq!(object::text(&ready, "/status/hostIP"), "127.0.0.1");
    assert_eq!(object::annotation(&ready, HOLLOW_ANNOTATION), None);
    let status = &ready["status"]["containerStatuses"][0];
    assert_eq!(status["ready"], true);
    assert_eq!(status["started"], true);
    assert!(object::text(status, "/containerID").starts_with("portolan://"));
    let ip = pod_ip(&ready);
    assert!(ip.starts_with("127.10."), "{ip}");
    let place: SocketAddr = format!("{ip}:8080").parse().unwrap();
    assert!(get(place).await.starts_with("HTTP/1.1 200 OK"));

    let folder = kube.path("pods").join(object::uid(&ready));
    let token = folder.join("token");
    assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    kube.delete("web", None).await.unwrap();
    kube.gone("web").await;
    assert!(TcpStream::connect(place).is_err());
    eventually("removal of the Pod's files", || !folder.exists()).await;
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_is_told() {
    let kube = Kube::start().await;
    let data = json!({"metadata": {"name": "settings"}, "data": {"colour": "red"}});
    let mut container =
        sh("env; pwd; echo \"arg $0 $1\"; cat $PORTOLAN_TOKEN_FILE $PORTOLAN_CA_FILE");
    container["args"] = json!(["$(POD_NAME)", "$$(X)"]);
    container["workingDir"] = kube.folder.path().to_str().unwrap().into();
    container["env"] = json!([
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "UID_OF", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
    ]);
    kube.create(&kinds::PODS, pod("told", json!({"restartPolicy": "Never"}), container)).await;
    let waiting = kube.not_ready_for("told", "PTL0204").await;
    assert!(waiting.contains("configmap \"settings\" not found"), "{waiting}");
    let reason = "/status/containerStatuses/0/state/waiting/reason";
    kube.until("told", reason, |pod| {
        (object::text(pod, reason) == "CreateContainerConfigError").then_some(())
    })
    .await;
    kube.create(&kinds::CONFIG_MAPS, data).await;
    let done = kube.phase("told", "Succeeded").await;
    let log = kube.logs("told", |_| {}).await;
    let lines: Vec<&str> = log.lines().collect();
    for expected in [
        "POD_NAME=told".to_owned(),
        "POD_NAMESPACE=default".to_owned(),
        "HOSTNAME=told".to_owned(),
        "NODE=portolan".to_owned(),
        "APP=told".to_owned(),
        "COLOUR=red".to_owned(),
        "arg told $(X)".to_owned(),
        format!("UID_OF={}", object::uid(&done)),
        format!("IP={}", pod_ip(&done)),
        format!("POD_IP={}", pod_ip(&done)),
        format!("PORTOLAN_API=https://{}", kube.running.address),
        format!("KUBERNETES_SERVICE_PORT={}", kube.running.address.port()),
        "-----BEGIN CERTIFICATE-----".to_owned(),
        kube.folder.path().canonicalize().unwrap().display().to_string(),
    ] {
        assert!(lines.iter().any(|l| l.ends_with(&expected)), "{expected} is not in\n{log}");
    }
    assert!(!log.contains("CARGO"), "the parent's environment stays out:\n{log}");
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listening_elsewhere_is_not_ready() {
    let kube = Kube::start().await;
    for (name, host) in [("local", "127.0.0.1"), ("any", "0.0.0.0")] {
        for declared in [true, false] {
            let name = format!("{name}-{declared}");
            let port = free_port();
            let mut container = help("serve", &[("LISTEN", &format!("{host}:{port}"))]);
            if declared {
                container["ports"] = json!([{"containerPort": port}]);
            }
            kube.create(&kinds::PODS, pod(&name, json!({}), container)).await;
            let message = kube.not_ready_for(&name, "PTL0201").await;
            assert!(message.contains(&format!("{host}:{port}")), "{message}");
            assert!(message.contains("; fix: "), "{message}");
        }
    }
    // Nowhere at all: that is another matter.
    let mut container = sh("exec sleep 1000");
    container["ports"] = json!([{"containerPort": 8080}]);
    kube.create(&kinds::PODS, pod("nowhere", json!({}), container)).await;
    kube.not_ready_for("nowhere", "PTL0205").await;
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_are_restarted_with_pauses() {
    let kube = Kube::start().await;
    let count = kube.path("count");
    let script = format!("echo x >> {0}; echo run $(wc -l < {0}); exit 3", count.display());
    kube.create(&kinds::PODS, pod("crash", json!({}), sh(&script))).await;
    let message = kube.not_ready_for("crash", "PTL0203").await;
    assert!(message.contains("ended with code 3"), "{message}");
    let pod = kube
        .until("crash", "three restarts", |pod| {
            let status = object::list(pod, "/status/containerStatuses").first()?;
            let waits = object::text(status, "/state/waiting/reason") == "CrashLoopBackOff";
            (waits && object::int(status, "/restartCount")? >= 3).then(|| pod.clone())
        })
        .await;
    assert_eq!(object::text(&pod, "/status/phase"), "Running");
    let last = "/status/containerStatuses/0/lastState/terminated/exitCode";
    assert_eq!(object::int(&pod, last), Some(3));
    // Further runs may come between the two looks, so that only their order is certain.
    let previous = kube.logs("crash", |o| o.previous = true).await;
    assert!(previous.starts_with("run "), "{previous}");
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_for_good() {
    let kube = Kube::start().await;
    for (name, policy, script, phase, code) in [
        ("done", "OnFailure", "exit 0", "Succeeded", 0),
        ("failed", "Never", "exit 7", "Failed", 7),
        ("signal", "Never", "kill -USR1 $$$$", "Failed", 138),
    ] {
        let pod = pod(name, json!({"restartPolicy": policy}), sh(script));
        kube.create(&kinds::PODS, pod).await;
        let ended = kube.phase(name, phase).await;
        let path = "/status/containerStatuses/0/state/terminated/exitCode";
        assert_eq!(object::int(&ended, path), Some(code), "{name}");
        assert!(!object::is_condition_true(&ended, "Ready"));
        kube.delete(name, None).await.unwrap();
        kube.gone(name).await;
    }
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_cannot_be_run() {
    let kube = Kube::start().await;
    let never = json!({"restartPolicy": "Never"});
    for (name, container, text) in [
        ("missing", json!({"command": ["no-such-program"]}), "executable file not found in $PATH"),
        ("empty", json!({}), "no command specified"),
        ("folder", json!({"command": ["ls"], "workingDir": "/no/such"}), "no such directory"),
    ] {
        kube.create(&kinds::PODS, pod(name, json!({}), container.clone())).await;
        let message = kube.not_ready_for(name, "PTL0204").await;
        assert!(message.contains(text), "{message}");
        kube.create(&kinds::PODS, pod(&format!("{name}-never"), never.clone(), container)).await;
        kube.phase(&format!("{name}-never"), "Failed").await;
    }
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_asked_then_made_to_end() {
    let kube = Kube::start().await;
    let (up, bye, hook) = (kube.path("up"), kube.path("bye"), kube.path("hook"));
    let polite = format!(
        "trap 'echo bye > {}; exit 0' TERM; echo > {}; while :; do sleep 0.01; done",
        bye.display(),
        up.display()
    );
    let mut container = sh(&polite);
    container["lifecycle"] = json!({"preStop": {"exec": {"command": ["sh", "-c", format!("echo x > {}", hook.display())]}}});
    kube.create(&kinds::PODS, pod("polite", json!({}), container)).await;
    kube.ready("polite").await;
    eventually("its trap", || up.exists()).await;
    kube.delete("polite", None).await.unwrap();
    kube.gone("polite").await;
    assert!(bye.exists() && hook.exists());

    let mark = format!("{}.31", 100_000 + std::process::id());
    let stubborn = format!("trap '' TERM; while :; do sleep {mark}; done");
    kube.create(&kinds::PODS, pod("stubborn", json!({}), sh(&stubborn))).await;
    kube.ready("stubborn").await;
    eventually("its child", || !processes_with(&mark).is_empty()).await;
    kube.delete("stubborn", Some(1)).await.unwrap();
    let deleting = kube.running.registry.get(&kinds::PODS, "default", "stubborn").unwrap();
    assert!(object::is_deleting(&deleting), "it is given its second");
    kube.gone("stubborn").await;
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_object_ends_its_process() {
    let kube = Kube::start().await;
    let mark = format!("{}.32", 100_000 + std::process::id());
    kube.create(&kinds::PODS, pod("gone", json!({}), json!({"command": ["sleep", mark]}))).await;
    kube.ready("gone").await;
    assert!(!processes_with(&mark).is_empty());
    kube.delete("gone", Some(0)).await.unwrap();
    kube.gone("gone").await;
    eventually("the end of its process", || processes_with(&mark).is_empty()).await;
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_containers_and_several_containers() {
    let kube = Kube::start().await;
    let file = kube.path("order");
    let script = |word: &str| format!("echo {word} >> {}", file.display());
    let init = |name: &str| json!({"name": name, "image": "portolan.dev/process", "command": ["sh", "-c", script(name)]});
    let mut object = pod(
        "several",
        json!({"initContainers": [init("one"), init("two")]}),
        sh(&format!("{}; exec sleep 1000", script("main"))),
    );
    let second =
        json!({"name": "second", "image": "portolan.dev/process", "command": ["sleep", "1000"]});
    object["spec"]["containers"].as_array_mut().unwrap().push(second);
    kube.create(&kinds::PODS, object).await;
    let ready = kube.ready("several").await;
    eventually("the last word", || fs::read_to_string(&file).unwrap().lines().count() == 3).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\nmain\n");
    assert_eq!(object::list(&ready, "/status/containerStatuses").len(), 2);
    let inits = object::list(&ready, "/status/initContainerStatuses");
    assert!(inits.iter().all(|s| object::text(s, "/state/terminated/reason") == "Completed"));
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_decide() {
    let kube = Kube::start().await;
    let (sick, alive) = (kube.path("sick"), kube.path("alive"));
    fs::write(&sick, "").unwrap();
    let sick_text = sick.to_str().unwrap();
    let mut container = help("serve", &[("LISTEN", "$(POD_IP):8080"), ("SICK", sick_text)]);
    container["ports"] = json!([{"containerPort": 8080}]);
    container["readinessProbe"] =
        json!({"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    kube.create(&kinds::PODS, pod("sick", json!({}), container)).await;
    // Before it listens, the probe fails in another way.
    kube.until("sick", "PTL0202 with 503", |pod| {
        let message = object::text(object::condition(pod, "Ready")?, "/message");
        (message.starts_with("PTL0202") && message.contains("503")).then_some(())
    })
    .await;
    fs::remove_file(&sick).unwrap();
    kube.ready("sick").await;
    fs::write(&sick, "").unwrap();
    kube.not_ready_for("sick", "PTL0202").await;

    fs::write(&alive, "").unwrap();
    let mut container = sh("exec sleep 1000");
    container["livenessProbe"] = json!({"exec": {"command": ["test", "-f", alive]},
        "periodSeconds": 1, "failureThreshold": 1});
    kube.create(&kinds::PODS, pod("alive", json!({}), container)).await;
    kube.ready("alive").await;
    fs::remove_file(&alive).unwrap();
    kube.until("alive", "a restart", |pod| {
        (object::int(pod, "/status/containerStatuses/0/restartCount")? > 0).then_some(())
    })
    .await;
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_followed_to_the_end() {
    let kube = Kube::start().await;
    let go = kube.path("go");
    let script =
        format!("echo one; while [ ! -f {} ]; do sleep 0.01; done; echo two >&2", go.display());
    kube.create(&kinds::PODS, pod("talk", json!({"restartPolicy": "Never"}), sh(&script))).await;
    kube.ready("talk").await;
    let object = kube.running.registry.get(&kinds::PODS, "default", "talk").unwrap();
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let logs = kube.running.registry.pod_logs().unwrap().clone();
    let mut stream = logs.open(object, options).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "one\n");
    fs::write(&go, "").unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "two\n");
    assert!(stream.next().await.is_none());
    assert_eq!(kube.logs("talk", |o| o.tail_lines = Some(1)).await, "two\n");
    kube.end().await;
}

fn hollow(name: &str, ports: Value) -> Value {
    let mut object = pod(name, json!({}), json!({"image": "nginx:1.27"}));
    object["spec"]["containers"][0]["ports"] = ports;
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hollow_pods_answer() {
    let kube = Kube::start().await;
    kube.create(&kinds::PODS, hollow("shell", json!([{"name": "web", "containerPort": 8080}])))
        .await;
    let ready = kube.ready("shell").await;
    assert_eq!(object::annotation(&ready, HOLLOW_ANNOTATION), Some("true"));
    let said = object::condition(&ready, "Ready").unwrap();
    assert!(object::text(said, "/message").contains("hollow"));
    let place = |port: u16| -> SocketAddr { format!("{}:{port}", pod_ip(&ready)).parse().unwrap() };
    let answer = get(place(8080)).await;
    assert!(
        answer.ends_with("\r\n\r\nshell\n") && answer.contains("x-pod-name: shell"),
        "{answer}"
    );

    let service = json!({"metadata": {"name": "front"}, "spec": {"selector": {"app": "shell"},
        "ports": [{"port": 80, "targetPort": 9090}]}});
    kube.create(&kinds::SERVICES, service).await;
    eventually("the Service's port", || TcpStream::connect(place(9090)).is_ok()).await;
    let change = Patch::Merge(json!({"spec": {"ports": [{"port": 80, "targetPort": 9091}]}}));
    let (caller, options) = (Caller::system("test"), WriteOptions::default());
    let (registry, kind) = (&kube.running.registry, &kinds::SERVICES);
    registry.patch(&caller, kind, "default", "front", None, change, &options).await.unwrap();
    eventually("the new port", || TcpStream::connect(place(9091)).is_ok()).await;
    eventually("the old port's end", || TcpStream::connect(place(9090)).is_err()).await;

    assert!(kube.logs("shell", |_| {}).await.contains("hollow"));
    kube.delete("shell", None).await.unwrap();
    kube.gone("shell").await;
    eventually("the end of its responder", || TcpStream::connect(place(8080)).is_err()).await;
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hollow_pods() {
    let kube = Kube::start().await;
    let service = json!({"metadata": {"name": "front"}, "spec": {"selector": {"crowd": "yes"},
        "ports": [{"port": 80, "targetPort": 9090}]}});
    kube.create(&kinds::SERVICES, service).await;
    let crowd = (0..1000).map(|number| {
        let mut object = hollow(&format!("p{number}"), json!([{"containerPort": 8080}]));
        object["metadata"]["labels"]["crowd"] = "yes".into();
        kube.create(&kinds::PODS, object)
    });
    futures_util::future::join_all(crowd).await;
    let pods = kube.running.informers.of(&kinds::PODS);
    let ready = pods.until(|pods| {
        let all = pods.list(Some("default"));
        all.iter().all(|pod| object::is_condition_true(pod, "Ready")).then_some(all)
    });
    let all = tokio::time::timeout(DEADLINE, ready).await.unwrap();
    let ips: std::collections::BTreeSet<String> = all.iter().map(|pod| pod_ip(pod)).collect();
    assert_eq!(ips.len(), 1000, "each has an address of its own");
    let last = &all[999];
    for port in [8080, 9090] {
        let answer = get(format!("{}:{port}", pod_ip(last)).parse().unwrap()).await;
        assert!(answer.ends_with(&format!("\n{}\n", object::name(last))), "{answer}");
    }
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_port_says_so_until_it_is_free() {
    let kube = Kube::start().await;
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    kube.create(&kinds::PODS, hollow("blocked", json!([{"containerPort": port}]))).await;
    let message = kube.not_ready_for("blocked", "PTL0207").await;
    assert!(message.contains(&port.to_string()), "{message}");
    drop(taken);
    kube.ready("blocked").await;
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_run_out_and_come_back() {
    let kube = Kube::start_on("127.10.77.0/30").await;
    for name in ["a", "b", "c"] {
        kube.create(&kinds::PODS, hollow(name, json!([]))).await;
        if name != "c" {
            kube.ready(name).await;
        }
    }
    let message = kube.not_ready_for("c", "PTL0206").await;
    assert!(message.contains("127.10.77.0/30"), "{message}");
    kube.delete("a", None).await.unwrap();
    kube.ready("c").await;
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_other_nodes_are_left_alone() {
    let kube = Kube::start().await;
    let mut other = hollow("other", json!([]));
    other["spec"]["nodeName"] = "external".into();
    kube.create(&kinds::PODS, other).await;
    kube.create(&kinds::PODS, hollow("own", json!([]))).await;
    kube.ready("own").await;
    let other = kube.running.registry.get(&kinds::PODS, "default", "other").unwrap();
    assert_eq!(pod_ip(&other), "");
    assert_eq!(object::annotation(&other, HOLLOW_ANNOTATION), None);
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_and_its_lease() {
    let kube = Kube::start().await;
    let registry = &kube.running.registry;
    let node = registry.get(&kinds::NODES, "", "portolan").unwrap();
    assert!(object::is_condition_true(&node, "Ready"));
    let labels: BTreeMap<_, _> = object::texts(&node, "/metadata/labels").collect();
    assert_eq!(labels.get("topology.kubernetes.io/zone"), Some(&"here"));
    assert_eq!(labels.get("portolan.dev/runner"), Some(&"true"));
    assert_eq!(object::text(&node, "/status/addresses/0/address"), "127.0.0.1");
    eventually("the lease", || {
        let lease = registry.get(&kinds::LEASES, "kube-node-lease", "portolan");
        lease.is_ok_and(|lease| object::text(&lease, "/spec/holderIdentity") == "portolan")
    })
    .await;
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_comes_back_runs_its_pods_again() {
    let mut kube = Kube::start().await;
    let mark = format!("{}.33", 100_000 + std::process::id());
    kube.create(&kinds::PODS, pod("stays", json!({}), json!({"command": ["sleep", mark]}))).await;
    kube.create(&kinds::PODS, hollow("shell", json!([]))).await;
    let before = kube.ready("stays").await;
    let shell = kube.ready("shell").await;
    kube.stop_kubelet().await;
    assert_eq!(processes_with(&mark), Vec::<u32>::new(), "nothing outlives the kubelet");
    kube.start_kubelet().await;
    let after = kube
        .until("stays", "the restart", |pod| {
            let again = object::int(pod, "/status/containerStatuses/0/restartCount")? == 1;
            (again && object::is_condition_true(pod, "Ready")).then(|| pod.clone())
        })
        .await;
    assert_eq!(pod_ip(&before), pod_ip(&after));
    assert_eq!(pod_ip(&shell), pod_ip(&kube.ready("shell").await));
    kube.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_a_killed_parent() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mark = format!("{}.34", 100_000 + std::process::id());
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kubelet::helper::cluster", "--nocapture"])
        .envs([("PORTOLAN_HELP", "yes"), ("MARK", &mark)])
        .env("READY", &ready)
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the family", || ready.exists() && processes_with(&mark).len() >= 3).await;
    parent.kill().unwrap(); // SIGKILL
    parent.wait().unwrap();
    eventually("the end of the family", || processes_with(&mark).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_takes_its_command_along() {
    let kube = Kube::start().await;
    let mark = format!("{}.35", 100_000 + std::process::id());
    kube.create(&kinds::PODS, pod("orphan", json!({}), json!({"command": ["sleep", mark]}))).await;
    kube.ready("orphan").await;
    let sleep = processes_with(&mark);
    let shim = sleep.iter().find(|pid| {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("portolan-shim")
    });
    let shim = i32::try_from(*shim.unwrap()).unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    kube.until("orphan", "a restart", |pod| {
        (object::int(pod, "/status/containerStatuses/0/restartCount")? > 0).then_some(())
    })
    .await;
    eventually("the end of the first run", || {
        processes_with(&mark).iter().all(|pid| !sleep.contains(pid))
    })
    .await;
    kube.end().await;
}
