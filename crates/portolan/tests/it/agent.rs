//! The sidecar from outside: a Pod of a running Portolan, `portolan agent` with that Pod's
//! environment, and curl.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Up, binary, eventually, expect, run, terminate, up};

/// An agent at work, for one Pod.
struct Agent {
    child: Child,
    listen: String,
    address: String,
}

/// What a call was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn states(&self) -> Vec<String> {
        let items = self.json()["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|one| format!("{} {}", text(&one["name"]), text(&one["state"]))).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A Portolan with Pods that only pretend; their addresses are real.
fn with_pods(names: &[&str]) -> Up {
    let up = up(&["--without", "proxy,dns,xds"]);
    for name in names {
        up.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: main, \
             image: example.com/a}}]}}\n"
        ));
    }
    for name in names {
        up.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    }
    up
}

/// The agent of a Pod, as it would be started in it.
fn command(up: &Up, pod: &str, extra: &[&str]) -> (Command, String) {
    let address = up.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]);
    let mut command = Command::new(binary());
    command
        .arg("agent")
        .args(["-o", "json", "--drain", "0s"])
        .args(extra)
        .env("KUBECONFIG", up.addresses.kubeconfig.as_deref().unwrap())
        .env("PORTOLAN_SERVER", up.http())
        .env("POD_NAME", pod)
        .env("POD_NAMESPACE", "default")
        .env("POD_IP", &address)
        .env_remove("NAMESPACE")
        .env("RUST_BACKTRACE", "0")
        .current_dir(up.folder.path())
        .stdin(Stdio::null());
    (command, address)
}

fn agent(up: &Up, pod: &str, extra: &[&str]) -> Agent {
    let mut args = vec!["--listen", "127.0.0.1:0"];
    args.extend(extra);
    agent_at(up, pod, &args)
}

fn agent_at(up: &Up, pod: &str, args: &[&str]) -> Agent {
    let (mut command, address) = command(up, pod, args);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
        child.kill().ok();
        panic!("the agent printed {line:?}: {error}")
    });
    Agent { child, listen: text(&told["listen"]).to_owned(), address }
}

impl Agent {
    fn curl(&self, method: &str, path: &str, more: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--max-time", "60", "--noproxy", "*", "-X", method]).args(more);
        match self.listen.strip_prefix("unix:") {
            Some(socket) => {
                command.args(["--unix-socket", socket, &format!("http://localhost{path}")])
            }
            None => command.arg(format!("{}{path}", self.listen)),
        };
        command
    }

    fn ask(&self, method: &str, path: &str, more: &[&str], body: Option<&str>) -> Answer {
        let ran = run(self.curl(method, path, more), body);
        assert!(ran.fine, "{method} {path}: {ran:?}");
        let (head, text) = ran.out.split_once("\r\n\r\n").unwrap_or((&ran.out, ""));
        let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        Answer {
            status: status.unwrap_or_default(),
            headers: head.to_owned(),
            text: text.to_owned(),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let more = ["-H", "content-type: application/json", "--data-binary", "@-"];
        self.ask(method, path, &more, Some(&body.to_string()))
    }

    fn put(&self, owner: &str, services: Value) -> Answer {
        self.send("PUT", &format!("/agent/v1/instances/{owner}"), &json!({"services": services}))
    }

    /// Registers, which must work.
    fn register(&self, owner: &str, names: &[&str]) {
        let services =
            names.iter().map(|name| json!({"name": name, "protocol": "http", "port": 9080}));
        let answer = self.put(owner, services.collect());
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Waits until a service has these instances.
    fn until(&self, service: &str, expected: &[&str]) -> Answer {
        eventually(&format!("{expected:?} of {service}"), || {
            let answer = self.get(&format!("/agent/v1/services/{service}"));
            expect(answer.states(), expected.iter().map(|one| (*one).to_owned()).collect())?;
            Ok(answer)
        })
    }

    fn events(&self, service: &str) -> Events {
        let mut command =
            self.curl("GET", &format!("/agent/v1/services/{service}/events"), &["-N"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Events { child, lines }
    }

    /// Ends it as a service manager would.
    fn end(mut self) -> Option<i32> {
        terminate(self.child.id());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// An open stream of events.
struct Events {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Events {
    /// The next event and its data.
    fn next(&mut self) -> (String, Value) {
        let mut kind = String::new();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if let Some(event) = line.strip_prefix("event: ") {
                event.trim().clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (kind, serde_json::from_str(data).unwrap());
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The owners' records on a Pod.
fn records(up: &Up, pod: &str) -> Vec<(String, Value)> {
    let pod: Value = serde_json::from_str(&up.kubectl(&["get", "pod", pod, "-o", "json"])).unwrap();
    let all = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let records = all.into_iter().filter_map(|(key, value)| {
        let owner = key.strip_prefix("registry.portolan.dev/")?.to_owned();
        Some((owner, serde_json::from_str::<Value>(value.as_str()?).ok()?["services"].clone()))
    });
    records.collect()
}

fn owners(up: &Up, pod: &str) -> Vec<String> {
    records(up, pod).into_iter().map(|(owner, _)| owner).collect()
}

#[test]
fn two_programs_find_each_other() {
    let up = with_pods(&["p1", "p2"]);
    let (one, two) = (agent(&up, "p1", &[]), agent(&up, "p2", &["--direct"]));
    one.register("main", &["reviews", "ratings"]);
    // Through the server, and straight from the Kubernetes API.
    for (asker, name) in [(&one, "reviews"), (&two, "ratings")] {
        let found = asker.until(name, &["p1 serving"]);
        let item = &found.json()["items"][0];
        assert_eq!((text(&item["address"]), &item["port"]), (one.address.as_str(), &json!(9080)));
        assert_eq!(found.header("x-portolan-degraded"), Some("false"));
    }
    for asker in [&one, &two] {
        let names = asker.get("/agent/v1/services");
        assert_eq!(names.json()["items"], json!(["ratings", "reviews"]), "{names:?}");
    }
    // The whole set of an owner, each time; others' are their own.
    two.register("main", &["reviews"]);
    two.register("other.2", &["details"]);
    one.until("reviews", &["p1 serving", "p2 serving"]);
    one.register("main", &["ratings"]);
    two.until("reviews", &["p2 serving"]);
    assert_eq!(owners(&up, "p2"), ["main", "other.2"]);
    for _ in 0..2 {
        assert_eq!(two.ask("DELETE", "/agent/v1/instances/main", &[], None).status, 204);
    }
    one.until("reviews", &[]);
    assert_eq!(owners(&up, "p2"), ["other.2"]);

    for path in ["/healthz", "/readyz"] {
        assert_eq!((one.get(path).status, one.get(path).text.as_str()), (200, "ok\n"));
    }
    let metrics = one.get("/metrics").text;
    assert!(metrics.contains("portolan_agent_owners 1"), "{metrics}");
    assert!(metrics.contains("portolan_agent_names 1"), "{metrics}");
    assert_eq!(one.get("/agent/v1/openapi.json").json()["openapi"], "3.1.0");

    // What the agent registered goes with it.
    assert_eq!(two.end(), Some(0));
    assert_eq!(owners(&up, "p2"), Vec::<String>::new());
}

#[test]
fn changes_are_waited_for() {
    let up = with_pods(&["p1", "p2"]);
    let agent = agent(&up, "p1", &[]);
    let mut events = agent.events("reviews");
    let (kind, first) = events.next();
    assert_eq!((kind.as_str(), &first["items"]), ("snapshot", &json!([])));
    let empty = agent.get("/agent/v1/services/reviews");
    let index = empty.header("x-portolan-index").unwrap().to_owned();
    assert_eq!(first["index"].to_string(), index);

    // A blocking query returns with the change, which is made after it was asked.
    let path = format!("/agent/v1/services/reviews?index={index}&wait=60s");
    let waiting = agent.curl("GET", &path, &[]).stdout(Stdio::piped()).spawn().unwrap();
    agent.register("main", &["reviews"]);
    let came = waiting.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&came.stdout).contains(&agent.address), "{came:?}");
    let (kind, put) = events.next();
    assert_eq!((kind.as_str(), text(&put["instance"]["name"])), ("upsert", "p1"));

    // Nothing changes: the same, or 304 for who has it, after the wait.
    let now = agent.get("/agent/v1/services/reviews");
    let (index, tag) = (now.header("x-portolan-index").unwrap(), now.header("etag").unwrap());
    let path = format!("/agent/v1/services/reviews?index={index}&wait=10ms");
    let same = agent.get(&path);
    assert_eq!((same.status, same.header("x-portolan-index")), (200, Some(index)));
    let known = format!("If-None-Match: {tag}");
    let none = agent.ask("GET", &path, &["-H", &known], None);
    assert_eq!((none.status, none.text.as_str(), none.header("etag")), (304, "", Some(tag)));
    // An index of another agent is answered at once.
    assert_eq!(agent.get("/agent/v1/services/reviews?index=7&wait=60s").status, 200);

    agent.ask("DELETE", "/agent/v1/instances/main", &[], None);
    let (kind, gone) = events.next();
    assert_eq!((kind.as_str(), text(&gone["instance"]["name"])), ("remove", "p1"));
    let metrics = agent.get("/metrics").text;
    assert!(metrics.contains("portolan_agent_waits 1"), "{metrics}");
}

#[test]
fn bad_requests_name_the_field_and_change_nothing() {
    let up = with_pods(&["p1"]);
    let agent = agent(&up, "p1", &[]);
    agent.register("main", &["reviews"]);
    let before = records(&up, "p1");
    let fine = json!({"name": "more", "protocol": "http", "port": 80});
    let with = |key: &str, value: Value| {
        let mut one = fine.clone();
        one["version"] = json!("v2");
        one[key] = value;
        json!([fine, one])
    };
    for (services, field) in [
        (with("port", json!(0)), "services[1].port"),
        (with("name", json!("a b")), "services[1].name"),
        (with("address", json!("10.9.9.9")), "services[1].address"),
        (with("colour", json!("red")), "services[1].colour"),
        (json!([fine, fine]), "services[1]"),
        (with("metadata", json!({"k": "v".repeat(40_000)})), "services"),
        (json!(7), "services"),
    ] {
        let answer = agent.put("main", services);
        refused(&answer, 400, Some(field));
    }
    let long = json!([{"name": "a", "protocol": "http", "port": 1, "path": "/".repeat(300_000)}]);
    refused(&agent.put("main", long), 413, Some("body"));
    refused(&agent.put("a%20b", json!([fine])), 400, Some("owner"));
    for (method, path, status, field) in [
        ("GET", "/agent/v1/services/a%20b", 400, Some("service")),
        ("GET", "/agent/v1/services/%ff", 400, Some("path")),
        ("GET", "/agent/v1/services/a?wait=soon", 400, Some("wait")),
        ("GET", "/agent/v1/services/a?index=x", 400, Some("index")),
        ("GET", "/agent/v1/services/a?namespace=No", 400, Some("namespace")),
        ("GET", "/agent/v1/services/a?what=1", 400, Some("what")),
        ("PUT", "/agent/v1/instances/main", 415, Some("content-type")),
        ("POST", "/agent/v1/services", 405, None),
        ("GET", "/agent/v1/nothing", 404, None),
        ("GET", "/v1/services", 404, None),
    ] {
        refused(&agent.ask(method, path, &[], None), status, field);
    }
    // Pages of elsewhere that a browser was led here with come under another name.
    let foreign = agent.ask("GET", "/agent/v1/services", &["-H", "host: evil.example"], None);
    refused(&foreign, 421, Some("host"));
    assert_eq!(records(&up, "p1"), before);

    // What cannot be listened on is refused before anything is written.
    let (mut off, _) = command(&up, "p1", &["--listen", "0.0.0.0:0"]);
    let ran = run(
        {
            off.env("NO_COLOR", "1");
            off
        },
        None,
    );
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("--listen") && ran.err.contains("loopback"), "{ran:?}");
    let file = up.folder.path().join("register.yaml");
    std::fs::write(&file, "owner: main\nservices: [{name: a, protocol: http, port: 0}]\n").unwrap();
    let (off, _) =
        command(&up, "p1", &["--listen=127.0.0.1:0", "--register", file.to_str().unwrap()]);
    let ran = run(off, None);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("register.yaml") && ran.err.contains("services[0].port"), "{ran:?}");
    assert_eq!(records(&up, "p1"), before);
}

fn refused(answer: &Answer, status: u16, field: Option<&str>) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(
        (&problem["status"], problem["field"].as_str()),
        (&json!(status), field),
        "{problem}"
    );
    assert!(!text(&problem["detail"]).is_empty() && !text(&problem["fix"]).is_empty(), "{problem}");
}

#[test]
fn a_unix_socket_and_a_file() {
    let up = with_pods(&["p1"]);
    let socket = up.folder.path().join("agent.sock");
    let listen = format!("unix:{}", socket.display());
    let file = up.folder.path().join("register.yaml");
    std::fs::write(
        &file,
        "owner: main\nservices:\n  - {name: reviews, protocol: http, port: 80}\n",
    )
    .unwrap();
    let args = ["--listen", &listen, "--register", file.to_str().unwrap()];
    let one = agent_at(&up, "p1", &args);
    one.until("reviews", &["p1 serving"]);
    // Killed, it leaves its socket and its record; the next one takes both over.
    drop(one);
    assert!(socket.exists());
    assert_eq!(owners(&up, "p1"), ["main"]);
    let two = agent_at(&up, "p1", &["--listen", &listen]);
    assert_eq!(two.ask("DELETE", "/agent/v1/instances/main", &[], None).status, 204);
    assert_eq!(owners(&up, "p1"), Vec::<String>::new());
    // While it is there nobody else gets it.
    let (second, _) = command(&up, "p1", &["--listen", &listen]);
    let ran = run(second, None);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(two.end(), Some(0));
    assert!(!socket.exists());
}
