//! `kubectl exec`, `attach`, `cp` and `port-forward`, on both Pod networks.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    harness::{Ran, Up, eventually, expect, is_alive, signal, up},
    netns,
};

/// A Pod with two containers, and a hollow one.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, annotations: {kubectl.kubernetes.io/default-container: main}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: portolan.dev/process
      command: [sh, -c, "while sleep 1; do :; done"]
      env: [{name: COLOUR, value: red}]
      workingDir: /usr
    - name: side
      image: portolan.dev/process
      command: [sh, -c, "while sleep 1; do :; done"]
      env: [{name: COLOUR, value: blue}]
---
apiVersion: v1
kind: Pod
metadata: {name: hollow}
spec: {containers: [{name: main, image: nginx}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done}
spec:
  restartPolicy: Never
  containers: [{name: main, image: portolan.dev/process, command: ["true"]}]
"#;

fn ready(up: &Up, pod: &str) {
    let wanted = format!("pod/{pod}");
    up.kubectl(&["wait", "--for=condition=Ready", &wanted, "--timeout=60s"]);
}

fn up_with_pods() -> Up {
    let up = up(&["--without", "proxy,dns"]);
    up.apply(PODS);
    ready(&up, "web");
    ready(&up, "hollow");
    up
}

fn exec(up: &Up, args: &[&str]) -> Ran {
    let mut all = vec!["exec"];
    all.extend(args);
    up.try_kubectl(&all)
}

/// The exit code and both outputs.
fn check(up: &Up, args: &[&str], code: i32, out: &str, err: &str) {
    let ran = exec(up, args);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(code), out, err), "{args:?}");
}

/// A command that is refused, and some words of the reason.
fn refused(up: &Up, args: &[&str], words: &str) {
    let ran = exec(up, args);
    assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
    assert!(ran.err.contains(words), "{args:?}: {words:?} is not in {:?}", ran.err);
}

/// Several megabytes that no compression shortens and no line ends divide evenly.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

/// What a command makes of bytes on its standard input.
fn through(mut command: Command, input: Vec<u8>) -> (Option<i32>, Vec<u8>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may end before it has read all.
    let writing = thread::spawn(move || stdin.write_all(&input).ok());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    (output.status.code(), output.stdout)
}

#[test]
fn commands_run_where_the_container_runs() {
    let up = up_with_pods();
    check(&up, &["web", "--", "echo", "hello  world"], 0, "hello  world\n", "");
    check(&up, &["web", "--", "sh", "-c", "echo $COLOUR; pwd"], 0, "red\n/usr\n", "");
    check(&up, &["web", "-c", "side", "--", "sh", "-c", "echo $COLOUR"], 0, "blue\n", "");
    let ended = "command terminated with exit code 3\n";
    let script = "echo out; echo err >&2; exit 3";
    check(&up, &["web", "--", "sh", "-c", script], 3, "out\n", &format!("err\n{ended}"));
    // Nothing is expanded that no shell expands.
    check(&up, &["web", "--", "echo", "$(COLOUR)"], 0, "$(COLOUR)\n", "");
    // Nothing to read, unless asked for.
    check(&up, &["web", "--", "cat"], 0, "", "");

    // As shells tell it.
    let ran = exec(&up, &["web", "--", "no-such-program"]);
    assert_eq!(ran.code, Some(127), "{ran:?}");
    assert!(ran.err.contains("\"no-such-program\": executable file not found in $PATH"), "{ran:?}");
    let ran = exec(&up, &["web", "--", "/etc/passwd"]);
    assert_eq!(ran.code, Some(126), "{ran:?}");
    assert!(ran.err.contains("permission denied"), "{ran:?}");
}

#[test]
fn what_cannot_be_entered_says_why() {
    let up = up_with_pods();
    refused(&up, &["nobody", "--", "true"], "pods \"nobody\" not found");
    refused(&up, &["web", "-c", "third", "--", "true"], "container third is not valid for pod web");
    refused(
        &up,
        &["hollow", "--", "true"],
        "pod hollow is hollow: no process runs for image \"nginx\"",
    );
    eventually("the end of a Pod", || {
        let phase = up.kubectl(&["get", "pod", "done", "-o", "jsonpath={.status.phase}"]);
        expect(phase.as_str(), "Succeeded")
    });
    refused(&up, &["done", "--", "true"], "completed pod");
    // A container that has not begun.
    up.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  containers:
    - name: main
      image: portolan.dev/process
      command: [sleep, '1000']
      env: [{name: X, valueFrom: {configMapKeyRef: {name: absent, key: x}}}]
",
    );
    eventually("a Pod that waits", || {
        let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
        expect(
            up.kubectl(&["get", "pod", "waits", "-o", path]).as_str(),
            "CreateContainerConfigError",
        )
    });
    refused(&up, &["waits", "--", "true"], "container not found (\"main\")");
}

#[test]
fn megabytes_pass_unharmed_both_ways() {
    let up = up_with_pods();
    let sent = noise(6_000_011);
    let (code, received) =
        through(up.kubectl_command(&["exec", "-i", "web", "--", "cat"]), sent.clone());
    assert_eq!(code, Some(0));
    assert_eq!(received.len(), sent.len());
    assert!(received == sent, "the bytes differ");
    // A command that does not want the input ends all the same.
    let (code, received) =
        through(up.kubectl_command(&["exec", "-i", "web", "--", "echo", "enough"]), sent);
    assert_eq!((code, received.as_slice()), (Some(0), &b"enough\n"[..]));
}

#[test]
fn files_are_copied_in_and_out() {
    let up = up_with_pods();
    let folder = up.folder.path();
    let sent = noise(2_000_003);
    std::fs::write(folder.join("sent"), &sent).unwrap();
    let inside = folder.join("inside");
    let target = format!("web:{}", inside.display());
    up.kubectl(&["cp", "sent", &target]);
    assert!(std::fs::read(&inside).unwrap() == sent);
    up.kubectl(&["cp", &target, "back"]);
    assert!(std::fs::read(folder.join("back")).unwrap() == sent);
}

/// How long a line that must come may take, so that one that never comes is told.
const LINE_WAIT: Duration = Duration::from_secs(60);

/// A child with its standard output at hand.
struct Talk {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Talk {
    fn start(mut command: Command) -> Talk {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Talk { child, lines }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }

    fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(LINE_WAIT);
        line.unwrap_or_else(|error| panic!("no other line: {error}"))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A command in a Pod that tells its pid, and of one that it has left behind, then stays.
fn lingering(up: &Up, flags: &[&str]) -> (Talk, [u32; 2]) {
    let mut args = vec!["exec"];
    args.extend(flags);
    args.extend([
        "web",
        "--",
        "sh",
        "-c",
        "(setsid sleep 1000 & echo $!); echo $$; exec sleep 1000",
    ]);
    let mut talk = Talk::start(up.kubectl_command(&args));
    let pids = [talk.line(), talk.line()].map(|line| line.parse().unwrap());
    assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    (talk, pids)
}

fn gone(pids: &[u32]) {
    eventually("the end of a session's processes", || {
        expect(pids.iter().filter(|pid| is_alive(**pid)).count(), 0)
    });
}

#[test]
fn a_session_ends_with_its_client_its_pod_and_the_server() {
    let up = up_with_pods();
    let (talk, pids) = lingering(&up, &[]);
    signal(talk.child.id(), rustix::process::Signal::KILL);
    gone(&pids);

    let (mut talk, pids) = lingering(&up, &["-i"]);
    up.kubectl(&["delete", "pod", "web"]);
    gone(&pids);
    assert_eq!(talk.child.wait().unwrap().code(), Some(137));

    up.apply(PODS);
    ready(&up, "web");
    let (_talk, pids) = lingering(&up, &[]);
    let _folder = up.sigkill();
    gone(&pids);
}

/// kubectl on a terminal that is ours.
struct Terminal {
    child: Child,
    ours: std::fs::File,
    heard: mpsc::Receiver<Vec<u8>>,
    said: String,
}

impl Terminal {
    fn start(up: &Up, width: u16, args: &[&str]) -> Terminal {
        use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        resize(&ours, width);
        // So that it is told of other sizes.
        let mut command = Command::new("setsid");
        let kubectl = up.kubectl_command(args);
        command.args(["--ctty", "--wait", "kubectl"]).args(kubectl.get_args());
        command.envs(kubectl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
        let child = command.stderr(theirs).spawn().unwrap();
        let ours = std::fs::File::from(ours);
        let mut reader = ours.try_clone().unwrap();
        let (sender, heard) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal ends with an error.
            while let Ok(read @ 1..) = reader.read(&mut buffer)
                && sender.send(buffer[..read].to_vec()).is_ok()
            {}
        });
        Terminal { child, ours, heard, said: String::new() }
    }

    fn say(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until these words have come; what came before them.
    fn hear(&mut self, words: &str) -> String {
        while !self.said.contains(words) {
            let heard = self.heard.recv_timeout(LINE_WAIT);
            let heard = heard.unwrap_or_else(|error| {
                panic!("the terminal has not said {words:?} ({error}): {:?}", self.said)
            });
            self.said += &String::from_utf8_lossy(&heard);
        }
        let (before, rest) = self.said.split_once(words).unwrap();
        let before = before.to_owned();
        self.said = rest.to_owned();
        before
    }

    /// How wide the shell takes it for.
    fn width(&mut self) -> String {
        self.say("echo is $(stty size) end\n");
        self.hear("is 30 ");
        self.hear(" end")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn resize(terminal: impl std::os::fd::AsFd, width: u16) {
    let size = rustix::termios::Winsize { ws_row: 30, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

fn terminals(up: &Up) {
    let mut terminal = Terminal::start(up, 91, &["exec", "-it", "web", "--", "sh"]);
    terminal.say("PS1=; stty -echo\n");
    terminal.say("test -t 0 && test -t 1 && test -t 2 && echo a-$TERM-terminal\n");
    terminal.hear("a-xterm-terminal");
    // The size travels beside the bytes: it may come a moment later.
    eventually("the first size", || expect(terminal.width().as_str(), "91"));
    resize(&terminal.ours, 47);
    eventually("the next size", || expect(terminal.width().as_str(), "47"));
    // Ctrl-C is for the program there.
    // What tells that it has begun is in the foreground already.
    terminal.say("sh -c 'echo begun-$((40 + 1)); exec sleep 1000'\n");
    terminal.hear("begun-41");
    terminal.say("\x03");
    terminal.say("echo after-$((40 + 2))\n");
    terminal.hear("after-42");
    terminal.say("exit 5\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_terminal_has_its_size_and_its_keys() {
    terminals(&up_with_pods());
}

/// A container that answers what it is told.
const LISTENER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: portolan.dev/process
      command: [sh, -c, "while read line; do echo heard $line; done; echo all"]
      stdin: true
"#;

#[test]
fn a_container_is_attached_to() {
    let up = up_with_pods();
    up.apply(LISTENER);
    ready(&up, "listener");
    let mut talks =
        [(); 2].map(|()| Talk::start(up.kubectl_command(&["attach", "-qi", "listener"])));
    // Who is heard listens. What was printed before somebody came is in the log only.
    eventually("both to be heard", || {
        for (number, talk) in talks.iter_mut().enumerate() {
            talk.say(&format!("number {number}"));
        }
        let log = up.kubectl(&["logs", "listener"]);
        expect([0, 1].map(|number| log.contains(&format!("heard number {number}"))), [true; 2])
    });
    talks[0].say("last");
    for talk in &mut talks {
        while talk.line() != "heard last" {}
    }
    // The container outlives those who leave.
    drop(talks);
    check(&up, &["listener", "--", "echo", "still there"], 0, "still there\n", "");

    // `run -i` attaches with an input that ends once.
    let args = ["run", "cat", "-qi", "--rm", "--restart=Never", "--image=portolan.dev/process"];
    let mut command = up.kubectl_command(&args);
    command.args(["--command", "--", "sh", "-c", "wc -c; exit 4"]);
    let (code, out) = through(command, noise(300_001));
    let out = String::from_utf8_lossy(&out).into_owned();
    assert!(out.starts_with("300001\n"), "{out}");
    assert_eq!(code, Some(4), "{out}");

    let args = ["run", "box", "-qit", "--rm", "--restart=Never", "--image=portolan.dev/process"];
    let mut terminal = Terminal::start(&up, 66, &[&args[..], &["--command", "--", "sh"]].concat());
    terminal.say("echo on $(tty) of $(stty size)-$((40 + 2))\n");
    assert!(terminal.hear("-42").contains("/dev/pts/"));
    terminal.say("exit\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
}

/// `kubectl port-forward` and the port that it listens on.
fn forwarded(up: &Up, to: &[&str]) -> (Talk, u16) {
    let mut talk = Talk::start(up.kubectl_command(&[&["port-forward"], to].concat()));
    let line = talk.line();
    let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split(' ').next());
    let port = port.and_then(|port| port.parse().ok());
    let port = port.unwrap_or_else(|| panic!("port-forward said {line:?}"));
    (talk, port)
}

/// What a port says to what is sent to it, until it closes.
fn said(port: u16, sent: Vec<u8>) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    received
}

/// A server that sends back what it gets, until that ends; `address` is where, in Python.
fn echo_pod(address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: echo}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: portolan.dev/process
      command: [python3, -u, -c]
      args:
        - |
          import os, socketserver
          class Echo(socketserver.BaseRequestHandler):
              def handle(self):
                  while data := self.request.recv(65536): self.request.sendall(data)
          class Server(socketserver.ThreadingTCPServer):
              allow_reuse_address = True
          server = Server(({address}, 7000), Echo)
          print('listening')
          server.serve_forever()
"
    )
}

fn echoes(up: &Up) {
    eventually("a server", || {
        let log = up.try_kubectl(&["logs", "echo"]);
        expect(log.out.as_str(), "listening\n")
    });
    let (mut talk, port) = forwarded(up, &["pod/echo", ":7000"]);
    // Several at once, each with bytes of its own.
    let asking: Vec<_> = (1..5)
        .map(|n| {
            thread::spawn(move || {
                let sent = noise(700_001 * n);
                assert!(said(port, sent.clone()) == sent, "the bytes of connection {n} differ");
            })
        })
        .collect();
    asking.into_iter().for_each(|asked| asked.join().unwrap());
    assert_eq!(said(port, b"and again".to_vec()), b"and again");
    up.kubectl(&["delete", "pod", "echo"]);
    // Nobody is there any more: kubectl says so, and gives up.
    assert!(said(port, Vec::new()).is_empty());
    assert_eq!(talk.child.wait().unwrap().code(), Some(1));
}

#[test]
fn ports_are_forwarded() {
    let up = up_with_pods();
    up.apply(&echo_pod("os.environ['POD_IP']"));
    echoes(&up);
    // Hollow Pods answer too, once a Service makes them listen.
    up.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: page, labels: {app: page}}
spec: {containers: [{name: main, image: nginx, ports: [{containerPort: 8080}]}]}
",
    );
    ready(&up, "page");
    let (_talk, port) = forwarded(&up, &["pod/page", ":8080"]);
    let page = up.curl(&format!("http://127.0.0.1:{port}/")).unwrap();
    assert!(page.contains("page"), "{page}");
    let refused = up.try_kubectl(&["port-forward", "pod/nobody", ":80"]);
    assert!(refused.err.contains("pods \"nobody\" not found"), "{refused:?}");
}

#[test]
fn containers_with_namespaces_are_entered() {
    if !netns::possible() {
        return;
    }
    let up = netns::up();
    up.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: scratch, emptyDir: {}}]
  containers:
    - name: main
      image: portolan.dev/process
      command: [sh, -c, "mkdir /made-by-main; echo hello > /made-by-main/hello; cd /made-by-main; exec python3 -u -m http.server 8080 --bind 127.0.0.1"]
      readinessProbe: {exec: {command: [curl, -sS, --fail, "http://127.0.0.1:8080/hello"]}, periodSeconds: 1}
    - name: side
      image: portolan.dev/process
      command: [sh, -c, "exec sleep 1000"]
      volumeMounts: [{name: scratch, mountPath: /scratch}]
"#,
    );
    ready(&up, "web");
    // The sidecar shares the Pod's localhost, not its files.
    let fetch = ["web", "-c", "side", "--", "curl", "-sS", "http://127.0.0.1:8080/hello"];
    check(&up, &fetch, 0, "hello\n", "");
    check(&up, &["web", "-c", "main", "--", "cat", "/made-by-main/hello"], 0, "hello\n", "");
    let list = exec(&up, &["web", "-c", "side", "--", "ls", "/made-by-main"]);
    assert_eq!(list.code, Some(2), "{list:?}");
    check(&up, &["web", "-c", "side", "--", "touch", "/scratch/x"], 0, "", "");
    check(&up, &["web", "-c", "side", "--", "hostname"], 0, "web\n", "");
    let address = up.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let own = exec(&up, &["web", "-c", "side", "--", "ip", "-brief", "address", "show", "eth0"]);
    assert!(own.out.contains(&address), "{own:?} has not {address}");
    check(
        &up,
        &["web", "-c", "side", "--", "sh", "-c", "exit 7"],
        7,
        "",
        "command terminated with exit code 7\n",
    );
    let sent = noise(1_000_003);
    let cat = up.kubectl_command(&["exec", "-i", "web", "-c", "side", "--", "cat"]);
    let (code, received) = through(cat, sent.clone());
    assert_eq!(code, Some(0));
    assert!(received == sent);
    std::fs::write(up.folder.path().join("sent"), &sent).unwrap();
    up.kubectl(&["cp", "-c", "side", "sent", "web:/scratch/received"]);
    up.kubectl(&["cp", "-c", "side", "web:/scratch/received", "back"]);
    assert!(std::fs::read(up.folder.path().join("back")).unwrap() == sent);
    terminals(&up);
    // A port that only the Pod itself can reach.
    up.apply(&echo_pod("'127.0.0.1'"));
    echoes(&up);
}
