//! What people do in running containers: `kubectl exec`, `attach`, `port-forward`.
//!
//! ```text
//!  apiserver ──open──▶ Sessions ──Ask──▶ Worker (knows the container's environment)
//!                          │ ◀──Grant──────┘
//!                          └─▶ shim ─▶ the command;  Session ─▶ apiserver
//! ```
//!
//! A session belongs to whoever asked for it: when it is dropped, its control is,
//! and the shim ends the command with all that descends from it. It ends with its
//! container too, and like all children with the kubelet. On the network of
//! namespaces the command joins those of the running container.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    process::Stdio,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use portolan_apiserver::{
    Status,
    registry::{Connection, Output, PodSessions, Session, SessionOptions},
};
use serde_json::Value;
use tokio::{
    net::{TcpStream, unix::pipe},
    sync::{mpsc, oneshot, watch},
};

use super::{
    host::{Entry, Host},
    netns,
    output::Listener,
    pod::{PROCESS_IMAGE, Pod},
    process::{self, CannotRun, Ends, Launch, Shim},
    terminal::{self, Terminal},
};

/// Questions to one Pod's worker that wait; more wait with their askers.
pub(super) const ASKS_MAX: usize = 16;

/// Bytes of a container's output that wait for somebody who is attached.
const ATTACHED_BYTES: usize = 64 << 10;

/// How long a port of a Pod may take to answer.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A question to a Pod's worker, about one of its containers.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) container: String,
    pub(super) wish: Wish,
}

/// What is wished for, and where the answer goes.
#[derive(Debug)]
pub(super) enum Wish {
    /// To run a command.
    Run { command: Vec<String>, reply: oneshot::Sender<Result<Grant, Status>> },
    /// To see what the container prints, and maybe to write to it.
    Attach { stdin: bool, reply: oneshot::Sender<Result<Attachment, Status>> },
}

/// What a worker lets somebody run.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) launch: Result<Launch, CannotRun>,
    /// Closed when the container's run ends.
    pub(super) life: watch::Receiver<()>,
}

/// The ends of a container's run that others may have.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) listeners: mpsc::Sender<Listener>,
    /// If the container has an input.
    pub(super) stdin: Option<OwnedFd>,
    /// If it is on a terminal.
    pub(super) terminal: Option<Arc<OwnedFd>>,
    /// Closed when the run ends.
    pub(super) life: watch::Receiver<()>,
}

/// The kubelet's door for sessions. Weak, because the registry, which keeps this,
/// is kept by the kubelet.
pub(super) struct Sessions(pub(super) Weak<Host>);

impl PodSessions for Sessions {
    fn open(
        &self,
        pod: Value,
        options: SessionOptions,
    ) -> BoxFuture<'static, Result<Session, Status>> {
        let host = self.0.upgrade();
        async move {
            let host = host.ok_or_else(ended)?;
            let pod = Pod::of(Arc::new(pod));
            if !pod.is_process() {
                return Err(hollow(&pod, &options.container));
            }
            let container = options.container.clone();
            let Some(command) = options.command.clone() else {
                let stdin = options.stdin;
                let wish = |reply| Wish::Attach { stdin, reply };
                let attachment = ask(&host, &pod, container, wish).await?;
                return attach(attachment, &options).await;
            };
            let grant = ask(&host, &pod, container, |reply| Wish::Run { command, reply }).await?;
            match grant.launch {
                Ok(launch) => run(&host.config.shim, launch, grant.life, &options).await,
                Err(why) => Ok(not_run(why, &options)),
            }
        }
        .boxed()
    }

    fn connect(
        &self,
        pod: Value,
        port: u16,
    ) -> BoxFuture<'static, Result<Pin<Box<dyn Connection>>, String>> {
        let host = self.0.upgrade();
        async move {
            let host = host.ok_or_else(|| ended().message)?;
            let pod = Pod::of(Arc::new(pod));
            let connected = tokio::time::timeout(CONNECT_MAX, connect(&host, &pod, port)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match connected {
                Ok(stream) => Ok(Box::pin(stream) as _),
                Err(error) => Err(format!("failed to connect to port {port}: {error}")),
            }
        }
        .boxed()
    }
}

fn ended() -> Status {
    Status::unavailable("the kubelet has ended")
}

fn hollow(pod: &Pod, container: &str) -> Status {
    let image = pod.main.iter().find(|c| c.name == container).map_or("", |c| &c.image);
    Status::bad_request(format!(
        "pod {} is hollow: no process runs for image {image:?}, so that there is nothing to run a \
         command in; processes run for image {PROCESS_IMAGE:?}",
        pod.name
    ))
}

/// As a kubelet says it whose container does not run.
pub(super) fn not_found(container: &str) -> Status {
    Status::internal(format!("unable to upgrade connection: container not found ({container:?})"))
}

/// Asks the Pod's worker.
async fn ask<T>(
    host: &Host,
    pod: &Pod,
    container: String,
    wish: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> Wish,
) -> Result<T, Status> {
    let asks: Option<mpsc::Sender<Ask>> = match host.entries().by_uid.get(&pod.uid) {
        Some(Entry::Process { asks, .. }) => Some(asks.clone()),
        _ => None,
    };
    let (reply, answer) = oneshot::channel();
    let asked = Ask { container: container.clone(), wish: wish(reply) };
    match asks {
        Some(asks) if asks.send(asked).await.is_ok() => {
            answer.await.unwrap_or_else(|_| Err(not_found(&container)))
        }
        // Not begun, or ended for good.
        _ => Err(not_found(&container)),
    }
}

/// Listens to a container, and writes to it if it has an input.
async fn attach(attachment: Attachment, options: &SessionOptions) -> Result<Session, Status> {
    let Attachment { listeners, stdin, terminal, mut life } = attachment;
    let (to, from) = tokio::io::duplex(ATTACHED_BYTES);
    let (missed, was_missed) = oneshot::channel();
    if listeners.send(Listener { to, missed }).await.is_err() {
        return Err(not_found(&options.container));
    }
    let stdin = stdin.map(pipe::Sender::from_owned_fd_unchecked).transpose();
    let stdin = stdin.map_err(|error| Status::internal(format!("cannot attach: {error}")))?;
    let mut session = empty();
    session.stdin = stdin.map(|stdin| Box::pin(stdin) as _);
    // A container's two outputs are one here, as on a terminal.
    if options.stdout {
        session.stdout = Some(Box::pin(from));
    } else {
        session.stderr = Some(Box::pin(from));
    }
    session.resize = terminal.map(|ours| Box::new(move |size| terminal::resize(&ours, size)) as _);
    session.ended = async move {
        tokio::select! {
            // Its exit code is in the Pod's status, as upstream.
            _ = life.changed() => Ok(0),
            Ok(()) = was_missed => Err(Status::new(
                408,
                "Timeout",
                "what the container prints was not read in time; attach again",
            )),
        }
    }
    .boxed();
    Ok(session)
}

/// Connects to a port of a Pod: at its own localhost where it has one, as upstream.
async fn connect(host: &Host, pod: &Pod, port: u16) -> io::Result<TcpStream> {
    let holder = host.config.network.node().and_then(|node| node.holder(&pod.uid));
    if let Some(holder) = holder {
        let connecting = tokio::task::spawn_blocking(move || netns::connect(holder, port));
        let stream = connecting.await.unwrap_or_else(|ended| Err(io::Error::other(ended)))?;
        stream.set_nonblocking(true)?;
        return TcpStream::from_std(stream);
    }
    let address = pod.addresses.first().copied().unwrap_or(host.config.network.host_ip());
    TcpStream::connect((address, port)).await
}

/// Starts the command.
async fn run(
    shim: &Shim,
    mut launch: Launch,
    life: watch::Receiver<()>,
    options: &SessionOptions,
) -> Result<Session, Status> {
    let failed =
        |what: &str| Status::internal(format!("error executing command in container: {what}"));
    let (ends, mut session) = if options.tty {
        terminal::name(&mut launch.env);
        on_terminal(options)
    } else {
        on_pipes(options)
    }
    .map_err(|error| failed(&error.to_string()))?;
    let (control, mut reports) =
        process::spawn_with(shim, &launch, ends).map_err(|error| failed(&error.to_string()))?;
    reports.started().await.map_err(|why| failed(&why))?;
    session.ended = async move {
        let mut life = life;
        let mut exited = Box::pin(reports.exited());
        tokio::select! {
            code = &mut exited => Ok(code),
            _ = life.changed() => {
                control.kill();
                Ok(exited.await)
            }
        }
    }
    .boxed();
    Ok(session)
}

/// A session whose ends are still to be filled in.
fn empty() -> Session {
    let ended = std::future::pending().boxed();
    Session { stdin: None, stdout: None, stderr: None, resize: None, ended }
}

fn on_terminal(options: &SessionOptions) -> io::Result<(Ends, Session)> {
    let Terminal { ours, theirs } = Terminal::open()?;
    let (sender, receiver) = terminal::ends(&ours)?;
    let session = Session {
        stdin: options.stdin.then(|| Box::pin(sender) as _),
        stdout: Some(Box::pin(receiver)),
        resize: Some(Box::new(move |size| terminal::resize(ours.as_fd(), size))),
        ..empty()
    };
    Ok((Ends::on(theirs)?, session))
}

fn on_pipes(options: &SessionOptions) -> io::Result<(Ends, Session)> {
    let mut session = empty();
    let mut stdin = None;
    if options.stdin {
        let (reader, writer) = io::pipe()?;
        stdin = Some(OwnedFd::from(reader));
        session.stdin = Some(Box::pin(pipe::Sender::from_owned_fd(writer.into())?));
    }
    let (stdout, output) = output(options.stdout)?;
    session.stdout = output;
    let (stderr, output) = self::output(options.stderr)?;
    session.stderr = output;
    Ok((Ends { stdin, stdout, stderr, terminal: false }, session))
}

/// Where a command prints to, and where that comes out if somebody wants it.
fn output(wanted: bool) -> io::Result<(Stdio, Option<Output>)> {
    if !wanted {
        return Ok((Stdio::null(), None));
    }
    let (reader, writer) = io::pipe()?;
    let output: Output = Box::pin(pipe::Receiver::from_owned_fd(reader.into())?);
    Ok((writer.into(), Some(output)))
}

/// What cannot be run is told as a shell tells it: a line, and the exit code.
fn not_run(why: CannotRun, options: &SessionOptions) -> Session {
    let text: Output = Box::pin(io::Cursor::new(format!("{}\n", why.text).into_bytes()));
    let code = i32::from(why.code);
    let mut session = Session { ended: async move { Ok(code) }.boxed(), ..empty() };
    if options.stderr {
        session.stderr = Some(text);
    } else {
        session.stdout = Some(text);
    }
    session
}
