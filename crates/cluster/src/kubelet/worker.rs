//! The task of one Pod with processes: carries out what its [`Machine`] decides.
//!
//! ```text
//!  updates (the object) ─┐                    ┌─▶ shim, logs, probes, hooks ─▶ events ─┐
//!  sockets (who listens) ┼─▶ Worker ─▶ Machine ─▶ status patch                         │
//!  time, shutdown ───────┘      ▲                                                      │
//!                               └──────────────────────────────────────────────────────┘
//! ```
//!
//! One owner, one loop: nothing else touches the machine. What takes time runs
//! in tasks of its own and sends an [`Event`] with the number of the run that
//! it was about. The status is written when it says something new, and not
//! while a start is under way.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use portolan_apiserver::{Status, registry::object::parse_timestamp};
use portolan_runtime::Backoff;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    env::{self, Env, Given},
    host::Host,
    listeners::{Listening, Sockets, judge},
    machine::{Action, EXIT_UNKNOWN, Ended, Machine, Moment, Obstacle, Slot, Unit},
    output::{Copying, LISTENERS_MAX, Listener},
    pod::{Container, Hook, Pod},
    probes::{self, Handler, ProbeKind},
    proc,
    process::{self, Control, Ends, Launch, Place},
    sessions::{Ask, Attachment, Grant, Wish, not_found},
    status::{self, Report},
    terminal::{self, Terminal},
};
use crate::object::{self, at, int, list, text};

/// Events of one Pod that wait; senders wait then.
const EVENTS_MAX: usize = 64;

/// Shortest time between two walks through a Pod's processes.
const WALK_EVERY_MS: u64 = 200;

/// Grace of containers when the kubelet itself ends. Short: somebody waits at
/// a terminal.
const SHUTDOWN_GRACE_MS: u64 = 3_000;

/// Grace of containers whose Pod object is gone already (a forced deletion).
const GONE_GRACE_MS: u64 = 2_000;

/// Most that a hook may take when nothing else limits it.
const HOOK_WAIT_MAX: Duration = Duration::from_secs(60);

/// Lines and bytes of the log that become the termination message
/// (`MaxContainerTerminationMessageLogLines`, `...LogLength`).
const LAST_WORDS_LINES: u64 = 80;
const LAST_WORDS_BYTES: usize = 2048;

/// How often volumes that show objects follow them (the kubelet's `syncFrequency`).
const VOLUMES_EVERY_MS: u64 = 60_000;

/// Where Kubernetes mounts the token of a Pod.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io";

/// What a task of the worker found.
#[derive(Debug)]
enum Event {
    Started { slot: Slot, run: u32, id: String, pid: i32, control: Control, life: Life },
    CannotStart { slot: Slot, run: u32, why: Obstacle },
    Exited { slot: Slot, run: u32, code: i32, text: String },
    Probed { slot: Slot, run: u32, kind: ProbeKind, answer: Result<(), String> },
    HookFailed { slot: Slot, run: u32, text: String },
}

/// What others may have of a run.
#[derive(Debug)]
struct Life {
    /// Dropped with the run, which those who hold the other side see.
    ends: watch::Sender<()>,
    listeners: mpsc::Sender<Listener>,
    /// If the container has an input; with `stdinOnce` only until it was given to somebody.
    stdin: Option<OwnedFd>,
    terminal: Option<Arc<OwnedFd>>,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The Pod object is gone.
    Gone,
    /// The Pod has ended for good; its object stays.
    Ended,
    /// The kubelet ends.
    Shutdown,
}

/// See the module.
pub(crate) struct Worker {
    host: Arc<Host>,
    pod: Pod,
    addresses: Vec<IpAddr>,
    machine: Machine,
    controls: BTreeMap<Slot, Arc<Control>>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    updates: watch::Receiver<Option<Arc<Value>>>,
    asks: mpsc::Receiver<Ask>,
    /// One per run; dropped with it, which ends what runs beside it.
    lives: BTreeMap<Slot, Life>,
    sockets: watch::Receiver<Arc<Sockets>>,
    given: Result<Given, String>,
    /// The tables changed.
    look: bool,
    walk_at_ms: Option<u64>,
    /// When volumes are brought up to date next, if they are mounted.
    volumes_at_ms: Option<u64>,
    /// When the last walk was, and among which strays.
    walked: (u64, u64),
    /// The sockets of each container at the last walk.
    inodes: BTreeMap<Slot, HashSet<u64>>,
    seen_unix_s: u64,
    gone: bool,
    write_again_ms: Option<u64>,
    backoff: Backoff,
}

impl Worker {
    pub(crate) fn new(
        host: Arc<Host>,
        pod: Pod,
        addresses: Vec<IpAddr>,
        updates: watch::Receiver<Option<Arc<Value>>>,
        asks: mpsc::Receiver<Ask>,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let mut machine = Machine::new(&pod, host.config.restart);
        remember(&mut machine, &pod, host.now().unix_s);
        Self {
            addresses,
            machine,
            controls: BTreeMap::new(),
            sender,
            events,
            updates,
            asks,
            lives: BTreeMap::new(),
            sockets: host.sweep.subscribe(),
            given: host.given(&pod),
            look: false,
            walk_at_ms: None,
            volumes_at_ms: host.config.network.node().map(|_| host.now().ms + VOLUMES_EVERY_MS),
            walked: (0, 0),
            inodes: BTreeMap::new(),
            seen_unix_s: host.now().unix_s,
            gone: false,
            write_again_ms: None,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
            pod,
            host,
        }
    }

    /// Runs the Pod until its end.
    pub(crate) async fn run(mut self) -> Outcome {
        let shutdown = self.host.tasks.shutdown().clone();
        let mut leaving = false;
        self.read_pod();
        self.say_what_is_ignored();
        loop {
            let now = self.host.now();
            self.judge_all(now);
            if self.volumes_at_ms.is_some_and(|at| at <= now.ms) {
                self.volumes_at_ms = Some(now.ms + VOLUMES_EVERY_MS);
                self.host.refresh_volumes(&self.pod, &self.facts());
            }
            for action in self.machine.advance(now) {
                self.carry_out(action);
            }
            // Nobody writes Events any more when the kubelet ends.
            for note in self.machine.take_notes().into_iter().filter(|_| !leaving) {
                let kind = if note.warning { "Warning" } else { "Normal" };
                self.host.events.report("kubelet", &self.pod.raw, kind, note.reason, &note.message);
            }
            if self.machine.is_over() {
                if leaving {
                    return Outcome::Shutdown;
                }
                if self.gone || self.finalise().await {
                    return Outcome::Gone;
                }
            }
            let ending = leaving || self.pod.deletion_grace_s.is_some();
            if !leaving && self.publish(now).await && !ending && self.machine.is_over() {
                return Outcome::Ended;
            }
            let wake = self.next_wake();
            tokio::select! {
                event = self.events.recv() => {
                    // The worker holds a sender itself: there is always a next one.
                    if let Some(event) = event {
                        self.take(event).await;
                    }
                }
                changed = self.updates.changed() => {
                    if changed.is_err() {
                        self.gone = true;
                    }
                    self.read_pod();
                }
                Some(ask) = self.asks.recv() => self.grant(ask),
                Ok(()) = self.sockets.changed() => {
                    self.look = true;
                }
                () = sleep_until(wake) => {}
                () = shutdown.cancelled(), if !leaving => {
                    leaving = true;
                    let now = self.host.now();
                    self.machine.stop(SHUTDOWN_GRACE_MS.min(self.pod.grace_s * 1000), now);
                }
            }
        }
    }

    /// What the Pod asks for and this network cannot give.
    fn say_what_is_ignored(&self) {
        if self.host.config.network.node().is_some() {
            return;
        }
        let mounts = self.machine.units.iter().any(|unit| {
            // The token's volume is there by default; processes find the token by its variable.
            let mounts = list(&unit.container.raw, "/volumeMounts").iter();
            mounts.map(|mount| text(mount, "/mountPath")).any(|path| !path.starts_with(TOKEN_MOUNT))
        });
        if mounts {
            let text = "volumes are not mounted: processes share the machine's files";
            self.host.warn(&self.pod, "VolumesNotMounted", text);
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let own = [self.walk_at_ms, self.volumes_at_ms, self.write_again_ms];
        let times = [self.machine.next_ms()].into_iter().chain(own);
        let next = times.flatten().min()?;
        Some(self.host.began + Duration::from_millis(next))
    }

    /// Takes over the newest object.
    fn read_pod(&mut self) {
        let latest = self.updates.borrow_and_update().clone();
        let now = self.host.now();
        match latest {
            Some(raw) => {
                self.pod = Pod::of(raw);
                if let Some(grace_s) = self.pod.deletion_grace_s {
                    self.machine.stop(grace_s * 1000, now);
                }
            }
            None => {
                self.gone = true;
                self.machine.stop(GONE_GRACE_MS, now);
            }
        }
    }

    async fn take(&mut self, event: Event) {
        let now = self.host.now();
        match event {
            Event::Started { slot, run, id, pid, control, life } => {
                self.controls.insert(slot, Arc::new(control));
                self.lives.insert(slot, life);
                self.machine.started(slot, run, id, pid, now);
                // The tables of before this start may show its predecessor's sockets.
                self.host.sweep.refresh().await;
                self.walk(slot);
                self.judge_one(slot);
                self.run_hook_after_start(slot, run);
            }
            Event::CannotStart { slot, run, why } => {
                self.machine.cannot_start(slot, run, &why, now);
            }
            Event::Exited { slot, run, code, text } => {
                self.controls.remove(&slot);
                self.lives.remove(&slot);
                self.machine.exited(slot, run, code, text, now);
            }
            Event::Probed { slot, run, kind, answer } => {
                self.machine.probed(slot, run, kind, answer, now);
            }
            Event::HookFailed { slot, run, text } => {
                self.machine.hook_failed(slot, run, &text, now);
            }
        }
    }

    //--- listeners ---

    /// Judges all containers if the tables changed. A look at the tables is never
    /// put off; a walk through processes is made when listeners outside the
    /// Pods' addresses changed (or one of them was the container's), and not too often.
    fn judge_all(&mut self, now: Moment) {
        if std::mem::take(&mut self.look) {
            let doubted = self.machine.units.iter().filter_map(Unit::running);
            let doubted =
                doubted.map(|r| &r.listening).any(|l| matches!(l, Listening::Elsewhere(_)));
            if doubted || self.sockets.borrow().strays != self.walked.1 {
                self.walk_at_ms.get_or_insert(now.ms.max(self.walked.0 + WALK_EVERY_MS));
            }
            for slot in 0..self.machine.units.len() {
                self.judge_one(slot);
            }
        }
        if self.walk_at_ms.is_some_and(|at| at <= now.ms) {
            self.walk_at_ms = None;
            self.walked = (now.ms, self.sockets.borrow().strays);
            for slot in 0..self.machine.units.len() {
                self.walk(slot);
                self.judge_one(slot);
            }
        }
    }

    /// Finds out which sockets a container has.
    fn walk(&mut self, slot: Slot) {
        let running = self.machine.units.get(slot).and_then(Unit::running);
        let Some(pid) = running.map(|running| running.pid) else { return };
        self.inodes.insert(slot, proc::socket_inodes(proc::descendants(pid)));
    }

    fn judge_one(&mut self, slot: Slot) {
        let Some(unit) = self.machine.units.get(slot) else { return };
        let found = if self.host.config.network.shares_sockets() {
            let sockets = self.sockets.borrow().clone();
            let own = || self.inodes.get(&slot).cloned().unwrap_or_default();
            judge(&unit.container.ports, &self.addresses, &sockets, own)
        } else {
            Listening::Fine
        };
        let run = unit.run;
        self.machine.listens(slot, run, found, self.host.now());
    }

    //--- actions ---

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Start { slot, run } => self.start(slot, run),
            Action::Terminate { slot, why } => self.terminate(slot, &why),
            Action::Kill { slot } => {
                if let Some(control) = self.controls.get(&slot) {
                    control.kill();
                }
            }
            Action::Probe { slot, run, kind } => self.probe(slot, run, kind),
        }
    }

    fn start(&mut self, slot: Slot, run: u32) {
        if self.given.is_err() {
            self.given = self.host.given(&self.pod);
        }
        let container = self.machine.units[slot].container.clone();
        let words: Vec<String> = container.command.iter().chain(&container.args).cloned().collect();
        let prepared = self.prepare(&container, &words);
        let sender = self.sender.clone();
        let (host, uid) = (self.host.clone(), self.pod.uid.clone());
        tokio::spawn(async move {
            let event = match prepared {
                Ok(launch) => {
                    let ran = run_container(&host, &uid, &container, (slot, run), &launch, &sender);
                    match ran.await {
                        Ok((code, text)) => Event::Exited { slot, run, code, text },
                        Err(why) => Event::CannotStart { slot, run, why },
                    }
                }
                Err(why) => Event::CannotStart { slot, run, why },
            };
            // The worker may have ended with the kubelet.
            sender.send(event).await.ok();
        });
        self.host.sweep.nudge();
    }

    /// Environment, folder and program of something that runs in a container.
    fn prepare(&self, container: &Container, words: &[String]) -> Result<Launch, Obstacle> {
        let (env, dir) = self.surroundings(container)?;
        let words: Vec<String> = words.iter().map(|word| env::expand(word, &env)).collect();
        let place = self.place(container, &env, &dir)?;
        process::find_program(&words, env, dir, &self.host.config.executable, place)
            .map_err(|why| Obstacle::Start(why.text))
    }

    /// What a container's processes begin with.
    fn surroundings(&self, container: &Container) -> Result<(Env, PathBuf), Obstacle> {
        let host = &self.host;
        if let Some(problem) = &container.problem {
            return Err(Obstacle::Config(problem.clone()));
        }
        if !container.is_process() {
            return Err(Obstacle::Config(format!(
                "image {:?} cannot run beside processes: a Pod is all processes ({}) or all hollow",
                container.image,
                super::pod::PROCESS_IMAGE
            )));
        }
        let given = self.given.as_ref().map_err(|why| Obstacle::Config(why.clone()))?;
        let links = host.links(&self.pod);
        let mut env = env::build(&self.pod, container, &self.facts(), given, links, &**host)
            .map_err(|error| Obstacle::Config(error.to_string()))?;
        if object::flag(&container.raw, "/tty") {
            terminal::name(&mut env);
        }
        Ok((env, host.config.working_dir.join(&container.working_dir)))
    }

    /// Lets somebody run a command beside a container, or attach to it, if it runs.
    fn grant(&mut self, ask: Ask) {
        let Ask { container, wish } = ask;
        // Whoever asked may have left.
        match wish {
            Wish::Run { command, reply } => {
                let granted = self.granted(&container, &command);
                reply.send(granted.unwrap_or_else(|| Err(not_found(&container)))).ok();
            }
            Wish::Attach { stdin, reply } => {
                let attached = self.attached(&container, stdin);
                reply.send(attached.unwrap_or_else(|| Err(not_found(&container)))).ok();
            }
        }
    }

    fn granted(&self, name: &str, command: &[String]) -> Option<Result<Grant, Status>> {
        let slot = self.slot(name)?;
        let unit = &self.machine.units[slot];
        let (running, life) = (unit.running()?, self.lives.get(&slot)?.ends.subscribe());
        // As when the container started, but for what the API has changed since.
        let (env, dir) = match self.surroundings(&unit.container) {
            Ok(surroundings) => surroundings,
            Err(Obstacle::Config(why) | Obstacle::Start(why)) => {
                return Some(Err(Status::internal(why)));
            }
        };
        let place = match self.host.config.network.node() {
            Some(_) => Place::Beside(running.pid),
            None => Place::Machine,
        };
        let portolan = &self.host.config.executable;
        let launch = process::find_program(command, env, dir, portolan, place);
        Some(Ok(Grant { launch, life }))
    }

    fn attached(&mut self, name: &str, stdin: bool) -> Option<Result<Attachment, Status>> {
        let slot = self.slot(name)?;
        self.machine.units[slot].running()?;
        let once = object::flag(&self.machine.units[slot].container.raw, "/stdinOnce");
        let life = self.lives.get_mut(&slot)?;
        let given = match &life.stdin {
            Some(_) if stdin && once => Ok(life.stdin.take()),
            Some(input) if stdin => input.try_clone().map(Some),
            _ => Ok(None),
        };
        Some(match given {
            Ok(stdin) => Ok(Attachment {
                listeners: life.listeners.clone(),
                stdin,
                terminal: life.terminal.clone(),
                life: life.ends.subscribe(),
            }),
            Err(error) => Err(Status::internal(format!("cannot attach: {error}"))),
        })
    }

    fn slot(&self, name: &str) -> Option<Slot> {
        self.machine.units.iter().position(|unit| unit.container.name == name)
    }

    fn facts(&self) -> env::Facts {
        let host_ip = self.host.config.network.host_ip();
        env::Facts { addresses: self.addresses.clone(), host_ip }
    }

    /// Where Pods run apart from the machine: what this container runs in.
    fn place(&self, container: &Container, env: &Env, dir: &Path) -> Result<Place, Obstacle> {
        let Some(node) = self.host.config.network.node() else { return Ok(Place::Machine) };
        let made = self.host.enclosure(node, &self.pod, container, &self.facts(), env, dir);
        made.map(Place::Enclosed).map_err(Obstacle::Config)
    }

    fn terminate(&mut self, slot: Slot, why: &str) {
        let Some(control) = self.controls.get(&slot).cloned() else { return };
        let unit = &self.machine.units[slot];
        tracing::debug!(pod = %self.pod.name, container = %unit.container.name, why, "terminating");
        let Some(hook) = unit.container.pre_stop.clone() else {
            control.terminate();
            return;
        };
        let (host, pod, container) =
            (self.host.clone(), self.pod.raw.clone(), unit.container.clone());
        let doing = self.do_hook(&container, hook);
        tokio::spawn(async move {
            // The machine's deadline kills the container even while the hook runs.
            if let Err(text) = doing.await {
                let text = format!("PreStopHook of container {} failed: {text}", container.name);
                host.events.report("kubelet", &pod, "Warning", "FailedPreStopHook", &text);
            }
            control.terminate();
        });
    }

    fn run_hook_after_start(&mut self, slot: Slot, run: u32) {
        let container = self.machine.units[slot].container.clone();
        let Some(hook) = container.post_start.clone() else { return };
        let doing = self.do_hook(&container, hook);
        let sender = self.sender.clone();
        tokio::spawn(async move {
            if let Err(text) = doing.await {
                sender.send(Event::HookFailed { slot, run, text }).await.ok();
            }
        });
    }

    fn do_hook(
        &self,
        container: &Container,
        hook: Hook,
    ) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (asking, pause) = match hook {
            Hook::Run(handler) => (Some(self.ask(container, handler, HOOK_WAIT_MAX)), 0),
            Hook::SleepS(seconds) => (None, seconds),
        };
        async move {
            match asking {
                Some(asking) => asking.await,
                None => {
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                    Ok(())
                }
            }
        }
    }

    fn probe(&mut self, slot: Slot, run: u32, kind: ProbeKind) {
        let container = self.machine.units[slot].container.clone();
        let probe = match kind {
            ProbeKind::Startup => &container.startup,
            ProbeKind::Readiness => &container.readiness,
            ProbeKind::Liveness => &container.liveness,
        };
        let Some(probe) = probe else { return };
        let asking =
            self.ask(&container, probe.handler.clone(), Duration::from_millis(probe.timeout_ms));
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let answer = asking.await;
            sender.send(Event::Probed { slot, run, kind, answer }).await.ok();
        });
    }

    /// Asks over the network, or runs a command where the container runs.
    fn ask(
        &self,
        container: &Container,
        handler: Handler,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let launch = match &handler {
            Handler::Exec { command } => Some(self.prepare(container, command)),
            _ => None,
        };
        let host = self.host.clone();
        let address = self.addresses.first().copied().unwrap_or(host.config.network.host_ip());
        async move {
            match launch {
                Some(Ok(launch)) => process::execute(&host.config.shim, &launch, timeout).await,
                Some(Err(Obstacle::Config(why) | Obstacle::Start(why))) => Err(why),
                None => probes::ask(&handler, address, timeout).await,
            }
        }
    }

    //--- the object ---

    /// Writes the status if it says something new; whether all is written.
    async fn publish(&mut self, now: Moment) -> bool {
        if self.machine.is_unsettled() || self.gone {
            return false;
        }
        if self.write_again_ms.is_some_and(|at| at > now.ms) {
            return false;
        }
        self.write_again_ms = None;
        let host_ip = self.host.config.network.host_ip();
        let report = Report::of_machine(&self.machine, &self.addresses, host_ip, self.seen_unix_s);
        let Some(patch) = status::patch(&report, &self.pod, now.unix_s) else { return true };
        match self.host.patch_status(&self.pod, patch).await {
            Ok(written) => {
                self.backoff.reset();
                // The others show in the containers' own events.
                if let Some(remark) = report.remark.filter(|r| r.reason == "ListensElsewhere") {
                    self.host.warn(&self.pod, remark.reason, &remark.message);
                }
                self.pod = Pod::of(Arc::new(written));
                true
            }
            Err(status) => {
                self.retry(&status, now);
                false
            }
        }
    }

    fn retry(&mut self, status: &Status, now: Moment) {
        // Gone or replaced: the update that says so is on its way.
        let pause = self.backoff.next_pause();
        tracing::debug!(pod = %self.pod.name, %status, ?pause, "the status was not written");
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.write_again_ms = Some(now.ms.saturating_add(pause));
    }

    /// Everything has ended: takes the object away if that is asked. Whether it is gone.
    async fn finalise(&mut self) -> bool {
        if self.pod.deletion_grace_s.is_none() {
            return false;
        }
        let now = self.host.now();
        if self.write_again_ms.is_some_and(|at| at > now.ms) {
            return false;
        }
        // Whoever holds a finalizer wants to know how it ended.
        if !list(&self.pod.raw, "/metadata/finalizers").is_empty() && !self.publish(now).await {
            return false;
        }
        match self.host.delete_pod(&self.pod).await {
            Ok(()) => true,
            Err(status) => {
                self.retry(&status, now);
                false
            }
        }
    }
}

/// Runs a container to its end; its exit code and last words.
async fn run_container(
    host: &Host,
    uid: &str,
    container: &Container,
    (slot, run): (Slot, u32),
    launch: &Launch,
    sender: &mpsc::Sender<Event>,
) -> Result<(i32, String), Obstacle> {
    let failed = |what: &str, error: io::Error| Obstacle::Start(format!("{what}: {error}"));
    let log = host.logs.create(uid, &container.name).map_err(|e| failed("log", e))?;
    let Prepared { ends, output, stdin, terminal } =
        ends_of(container).map_err(|e| failed("pipe", e))?;
    let (control, mut reports) =
        process::spawn_with(&host.config.shim, launch, ends).map_err(|e| failed("shim", e))?;
    let (listeners, newcomers) = mpsc::channel(LISTENERS_MAX);
    let copying = Copying::start(output, log, newcomers).map_err(|e| failed("pipe", e))?;
    let pid = reports.pid();
    reports.started().await.map_err(Obstacle::Start)?;
    let id = format!("portolan://{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let life = Life { ends: watch::Sender::new(()), listeners, stdin, terminal };
    // If the worker has ended, the control is dropped with the event, which kills.
    sender.send(Event::Started { slot, run, id, pid, control, life }).await.ok();
    let code = reports.exited().await;
    copying.finish().await;
    let policy = text(&container.raw, "/terminationMessagePolicy");
    let words = if code != 0 && policy == "FallbackToLogsOnError" {
        let mut words = host.logs.tail(uid, &container.name, LAST_WORDS_LINES);
        let from = words.len().saturating_sub(LAST_WORDS_BYTES);
        let from = (from..=words.len()).find(|at| words.is_char_boundary(*at)).unwrap_or(0);
        words.split_off(from)
    } else {
        String::new()
    };
    Ok((code, words))
}

/// The ends of a container's process, and our sides of them.
struct Prepared {
    ends: Ends,
    output: OwnedFd,
    stdin: Option<OwnedFd>,
    terminal: Option<Arc<OwnedFd>>,
}

/// What `stdin` and `tty` of a container ask for.
fn ends_of(container: &Container) -> io::Result<Prepared> {
    let input = object::flag(&container.raw, "/stdin");
    if object::flag(&container.raw, "/tty") {
        let Terminal { ours, theirs } = Terminal::open()?;
        let ends = Ends::on(theirs)?;
        let stdin = if input { Some(ours.try_clone()?) } else { None };
        let output = ours.try_clone()?;
        return Ok(Prepared { ends, output, stdin, terminal: Some(Arc::new(ours)) });
    }
    let (reader, writer) = io::pipe()?;
    let mut ends = Ends::printing(writer)?;
    let mut stdin = None;
    if input {
        let (reader, writer) = io::pipe()?;
        ends.stdin = Some(reader.into());
        stdin = Some(writer.into());
    }
    let output = OwnedFd::from(reader);
    for ours in stdin.iter().chain([&output]) {
        terminal::never_wait(ours)?;
    }
    Ok(Prepared { ends, output, stdin, terminal: None })
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What the status of an earlier kubelet's time says about the containers. That
/// kubelet's processes ended with it.
fn remember(machine: &mut Machine, pod: &Pod, now_unix_s: u64) {
    let statuses: Vec<&Value> = ["/status/initContainerStatuses", "/status/containerStatuses"]
        .iter()
        .flat_map(|path| list(&pod.raw, path))
        .collect();
    for slot in 0..machine.units.len() {
        let name = &machine.units[slot].container.name;
        let Some(status) = statuses.iter().find(|s| text(s, "/name") == name) else { continue };
        let restarts = int(status, "/restartCount").and_then(|n| u32::try_from(n).ok());
        let ended = |at: &str| Ended {
            code: int(status, &format!("{at}/exitCode"))
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(EXIT_UNKNOWN),
            reason: match text(status, &format!("{at}/reason")) {
                "Completed" => "Completed",
                "StartError" => "StartError",
                _ => "Error",
            },
            message: text(status, &format!("{at}/message")).to_owned(),
            id: text(status, &format!("{at}/containerID")).to_owned(),
            started_unix_s: parse_timestamp(text(status, &format!("{at}/startedAt"))).unwrap_or(0),
            finished_unix_s: parse_timestamp(text(status, &format!("{at}/finishedAt")))
                .unwrap_or(0),
        };
        let lost = if let Some(running) = at(status, "/state/running") {
            Some(Ended {
                code: EXIT_UNKNOWN,
                reason: "ContainerStatusUnknown",
                message: "the process ended with the kubelet that ran it".to_owned(),
                id: text(status, "/containerID").to_owned(),
                started_unix_s: parse_timestamp(text(running, "/startedAt")).unwrap_or(now_unix_s),
                finished_unix_s: now_unix_s,
            })
        } else if at(status, "/state/terminated").is_some() {
            Some(ended("/state/terminated"))
        } else {
            at(status, "/lastState/terminated").map(|_| ended("/lastState/terminated"))
        };
        machine.remember(slot, restarts.unwrap_or(0), lost);
    }
}
