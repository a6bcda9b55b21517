//! An API server on loopback with its own temporary folder, and ways to talk to it.

use std::{process::Stdio, time::Duration};

use portolan_apiserver::{
    Caller, Config, Running, kinds,
    registry::{self, WriteOptions},
    start,
};
use portolan_runtime::Shutdown;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdout, Command},
};

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Api {
    pub(crate) running: Running,
    pub(crate) client: Client,
    pub(crate) folder: TempDir,
    pub(crate) shutdown: Shutdown,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Api {
    pub(crate) async fn start() -> Api {
        Api::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Api {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            registry: registry::Options {
                service_cidrs: vec![
                    "127.96.0.0/16".parse().unwrap(),
                    "fd00:96::/112".parse().unwrap(),
                ],
                ..config.registry
            },
            ..config
        };
        let shutdown = Shutdown::new();
        let running = start(config, shutdown.clone()).await.unwrap();
        std::fs::write(folder.path().join("kubeconfig"), &running.kubeconfig).unwrap();
        let client = client(&running);
        let api = Api { running, client, folder, shutdown };
        for name in ["default", "kube-system"] {
            let namespace = json!({"metadata": {"name": name}});
            let made = api.create(&kinds::NAMESPACES, "", namespace).await;
            assert!(made.is_ok() || made.is_err_and(|s| s.is_already_exists()));
        }
        api
    }

    pub(crate) async fn create(
        &self,
        kind: &'static portolan_apiserver::Kind,
        namespace: &str,
        object: Value,
    ) -> Result<Value, portolan_apiserver::Status> {
        let caller = Caller::system("test");
        let options = WriteOptions::default();
        self.running.registry.create(&caller, kind, namespace, object, &options).await
    }

    /// A request of the administrator.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_as(&self.running.admin_token, method, path)
    }

    pub(crate) fn request_as(&self, token: &str, method: Method, path: &str) -> RequestBuilder {
        let url = format!("https://{}{path}", self.running.address);
        self.client.request(method, url).bearer_auth(token)
    }

    /// Status code and body of a request.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        answer(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }

    /// A kubectl with its own home and cache, ready to run.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .arg("--cache-dir")
            .arg(self.folder.path().join("cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl; returns what it printed if it succeeded, and what it complained of if not.
    pub(crate) async fn try_kubectl(
        &self,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, String> {
        let mut child =
            self.kubectl(arguments).spawn().expect("kubectl must be on PATH for these tests");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("kubectl {arguments:?} did not end"))
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }

    /// Runs a command line that must succeed.
    pub(crate) async fn run(&self, line: &str) -> String {
        self.run_with(line, "").await
    }

    /// Runs a command line that must succeed, with something on its input.
    pub(crate) async fn run_with(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        match self.try_kubectl(&arguments, input).await {
            Ok(output) => output,
            Err(complaint) => panic!("kubectl {line}: {complaint}"),
        }
    }

    /// Runs a command line that must fail.
    pub(crate) async fn refuse(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        match self.try_kubectl(&arguments, input).await {
            Ok(output) => panic!("kubectl {line} succeeded: {output}"),
            Err(complaint) => complaint,
        }
    }
}

/// A client that trusts the server's authority only.
pub(crate) fn client(running: &Running) -> Client {
    // The second test of a process finds the provider installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(running.ca_pem.as_bytes()).unwrap()])
        .build()
        .unwrap()
}

pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = tokio::time::timeout(DEADLINE, request.send()).await.unwrap().unwrap();
    let code = response.status().as_u16();
    let text = response.text().await.unwrap();
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Lines of a running kubectl.
pub(crate) struct Lines {
    _child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Lines {
    pub(crate) fn of(mut command: Command) -> Lines {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Lines { _child: child, lines }
    }

    /// The next line that holds a text.
    pub(crate) async fn find(&mut self, text: &str) -> String {
        let search = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.contains(text) {
                    return line;
                }
            }
            panic!("the output ended without {text:?}");
        };
        tokio::time::timeout(DEADLINE, search)
            .await
            .unwrap_or_else(|_| panic!("no line with {text:?}"))
    }
}

/// Events of a watch over HTTP.
pub(crate) struct Events {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Events {
    pub(crate) async fn open(request: RequestBuilder) -> Events {
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        Events { response, buffer: Vec::new() }
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await.unwrap();
            match chunk.unwrap() {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return None,
            }
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn next_name(&mut self) -> (String, String) {
        let event = self.next().await.expect("another event");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}
