//! Starts a Portolan, and runs the clients against it.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

use portolan_wire::Addresses;
use tempfile::TempDir;

/// How long anything may take before a test gives up on it. Machines are
/// shared: this is patience, not a claim.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The second byte of the next Portolan's loopback ranges. Two per test run:
/// services 127.(100+n)/16, Pods 127.(101+n)/16.
static NEXT_RANGE: AtomicU8 = AtomicU8::new(100);

/// A Portolan at work.
pub(crate) struct Up {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: PathBuf,
    pub(crate) addresses: Addresses,
    pub(crate) folder: TempDir,
}

/// The binary under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_portolan")
}

/// A Portolan in memory.
pub(crate) fn up(extra: &[&str]) -> Up {
    let mut args = vec!["--ephemeral"];
    args.extend(extra);
    up_in(tempfile::tempdir().unwrap(), &args)
}

/// The flags that keep a Portolan apart from all others.
pub(crate) fn apart() -> Vec<String> {
    let range = NEXT_RANGE.fetch_add(2, Ordering::Relaxed);
    let flags = [
        "up".into(),
        "--api-listen=127.0.0.1:0".into(),
        "--dns-listen=127.0.0.1:0".into(),
        "--http-listen=127.0.0.1:0".into(),
        "--xds-listen=127.0.0.1:0".into(),
        format!("--service-cidr=127.{range}.0.0/16"),
        format!("--pod-cidr=127.{}.0.0/16", range + 1),
        "-o=json".into(),
    ];
    flags.into()
}

/// Takes out the flags that `portolan cluster` has no use for.
pub(crate) fn without_faces(flags: &mut Vec<String>) {
    let of_faces = ["--dns-listen", "--http-listen", "--xds-listen"];
    flags.retain(|flag| !of_faces.iter().any(|own| flag.starts_with(own)));
}

/// A Portolan with a folder of its own as data directory.
pub(crate) fn up_in(folder: TempDir, extra: &[&str]) -> Up {
    up_with(folder, &apart(), extra)
}

/// A Portolan with these flags; `flags` come from [`apart`].
pub(crate) fn up_with(folder: TempDir, flags: &[String], extra: &[&str]) -> Up {
    up_by(Command::new(binary()), folder, flags, extra)
}

/// A Portolan that a command starts which takes Portolan's arguments.
pub(crate) fn up_by(mut command: Command, folder: TempDir, flags: &[String], extra: &[&str]) -> Up {
    let stderr = folder.path().join("stderr");
    let mut child = command
        .args(flags)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(extra)
        .env("RUST_BACKTRACE", "0")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let addresses = serde_json::from_str(&line).unwrap_or_else(|error| {
        child.kill().ok();
        let said = std::fs::read_to_string(&stderr).unwrap_or_default();
        panic!("up printed {line:?} ({error}) and said:\n{said}");
    });
    Up { child, stdout, stderr, addresses, folder }
}

impl Up {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    pub(crate) fn http(&self) -> &str {
        self.addresses.http.as_deref().unwrap()
    }

    pub(crate) fn dns(&self) -> (&str, &str) {
        self.addresses.dns.as_deref().unwrap().rsplit_once(':').unwrap()
    }

    fn clean(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.addresses.kubeconfig.as_deref().unwrap())
            // A cluster alone has none.
            .env("PORTOLAN_SERVER", self.addresses.http.as_deref().unwrap_or_default())
            .env_remove("PORTOLAN_NAMESPACE")
            .env("NO_COLOR", "1")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// A kubectl command that is not run yet.
    pub(crate) fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.clean("kubectl");
        command.args(args);
        command
    }

    /// What kubectl prints; it must succeed.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        must(self.kubectl_command(args))
    }

    /// kubectl, whatever comes of it.
    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Ran {
        run(self.kubectl_command(args), None)
    }

    /// `kubectl VERB -f -` with a manifest.
    pub(crate) fn kubectl_with(&self, args: &[&str], manifest: &str) -> Ran {
        run(self.kubectl_command(args), Some(manifest))
    }

    /// Applies a manifest; it must be taken.
    pub(crate) fn apply(&self, manifest: &str) -> String {
        let ran = self.kubectl_with(&["apply", "-f", "-"], manifest);
        assert!(ran.fine, "kubectl apply: {ran:?}");
        ran.out
    }

    /// What a portolan command prints; it must end with exit code 0.
    pub(crate) fn portolan(&self, args: &[&str]) -> String {
        let ran = self.try_portolan(args);
        assert_eq!(ran.code, Some(0), "portolan {args:?}: {ran:?}");
        ran.out
    }

    /// A portolan command, whatever comes of it.
    pub(crate) fn try_portolan(&self, args: &[&str]) -> Ran {
        let mut command = self.clean(binary());
        command.args(args);
        run(command, None)
    }

    /// `dig +short`: the data of the answer, sorted.
    pub(crate) fn dig(&self, name: &str, rtype: &str) -> Vec<String> {
        let out = self.dig_full(&["+short", name, rtype]);
        let mut lines: Vec<String> = out.lines().map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    }

    /// What dig prints.
    pub(crate) fn dig_full(&self, args: &[&str]) -> String {
        let (address, port) = self.dns();
        let mut command = self.clean("dig");
        command.arg(format!("@{address}")).args(["-p", port, "+tries=3", "+time=5"]).args(args);
        must(command)
    }

    /// The body behind a URL, or `None` when the call fails.
    pub(crate) fn curl(&self, url: &str) -> Option<String> {
        let mut command = self.clean("curl");
        command.args(["-sS", "--fail", "--max-time", "10", "--noproxy", "*", url]);
        let ran = run(command, None);
        ran.fine.then_some(ran.out)
    }

    /// JSON of the HTTP API.
    pub(crate) fn api(&self, path: &str) -> serde_json::Value {
        let body = self.curl(&format!("{}{path}", self.http()));
        serde_json::from_str(&body.unwrap_or_else(|| panic!("{path} has no answer"))).unwrap()
    }

    /// The virtual IP of a Service.
    pub(crate) fn cluster_ip(&self, namespace: &str, service: &str) -> String {
        self.kubectl(&["-n", namespace, "get", "svc", service, "-o", "jsonpath={.spec.clusterIP}"])
    }

    /// Kills it without a word, as a power failure would.
    pub(crate) fn sigkill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.into_folder()
    }

    /// Ends it as a service manager would; the exit code.
    pub(crate) fn sigterm(mut self) -> (Option<i32>, TempDir) {
        terminate(self.pid());
        let status = self.child.wait().unwrap();
        (status.code(), self.into_folder())
    }

    fn into_folder(mut self) -> TempDir {
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            terminate(self.pid());
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if thread::panicking() {
            let mut rest = String::new();
            self.stdout.read_to_string(&mut rest).ok();
            let said = std::fs::read_to_string(&self.stderr).unwrap_or_default();
            let tail: Vec<&str> = said.lines().rev().take(60).collect();
            eprintln!("--- what up said last ---");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// Asks a process to end.
pub(crate) fn terminate(pid: u32) {
    signal(pid, rustix::process::Signal::TERM);
}

/// Sends a signal to a process that this test (or what it started) started.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).ok();
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) fine: bool,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command, with a text on its standard input.
pub(crate) fn run(mut command: Command, input: Option<&str>) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let name = format!("{command:?}");
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("cannot run {name}: {error}; see README"));
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).unwrap();
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        fine: status.success(),
        code: status.code(),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

fn must(command: Command) -> String {
    let name = format!("{command:?}");
    let ran = run(command, None);
    assert!(ran.fine, "{name}: {ran:?}");
    ran.out
}

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) => {
                assert!(Instant::now() < deadline, "gave up on {what}: {last}");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// `Ok` when it is as it should be, else what it is.
pub(crate) fn expect<T: std::fmt::Debug + PartialEq>(actual: T, expected: T) -> Result<(), String> {
    if actual == expected { Ok(()) } else { Err(format!("{actual:?}, not {expected:?}")) }
}

/// A free port of an address, for a test that wants to take it.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A Deployment of process Pods whose one container runs a Python script.
pub(crate) fn python_deployment(name: &str, replicas: u32, port: u16, script: &str) -> String {
    let mut indented = String::new();
    for line in script.lines() {
        writeln!(indented, "                {line}").unwrap();
    }
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {replicas}
  selector:
    matchLabels:
      app: {name}
  template:
    metadata:
      labels:
        app: {name}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: main
          image: portolan.dev/process
          command: [\"python3\", \"-u\", \"-c\"]
          args:
            - |
{indented}          ports:
            - containerPort: {port}
"
    )
}

/// A Service in front of what has the label `app: NAME`.
pub(crate) fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector:
    app: {name}
  ports:
    - port: {port}
"
    )
}

/// Whether a process is there.
pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/stat")).exists()
        && std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim().starts_with('Z'))
}

impl Up {
    /// What a URL streams within some seconds.
    pub(crate) fn curl_for(&self, seconds: u32, url: &str) -> String {
        let mut command = self.clean("curl");
        command.args(["-sN", "--noproxy", "*", "--max-time", &seconds.to_string(), url]);
        run(command, None).out
    }
}

/// RFC 4648 with padding; the test's own, so that it does not trust ours.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = u32::from(chunk[0]) << 16
            | u32::from(chunk.get(1).copied().unwrap_or(0)) << 8
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// The way back.
pub(crate) fn base64_decoded(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u32> =
        text.bytes().filter(|b| *b != b'=').map(|letter| u32::from(value(letter))).collect();
    let mut bytes = Vec::new();
    for chunk in letters.chunks(4) {
        let bits =
            chunk.iter().enumerate().fold(0, |bits, (place, v)| bits | v << (18 - 6 * place));
        let whole = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        bytes.extend(&whole[..chunk.len() - 1]);
    }
    bytes
}

/// A question for an address, without EDNS: the reply ends with it.
pub(crate) fn address_query(name: &str) -> Vec<u8> {
    let mut query = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend(b"\x00\x00\x01\x00\x01");
    query
}
