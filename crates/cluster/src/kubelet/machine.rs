//! The life of a Pod's containers, as a value.
//!
//! ```text
//!             ┌────────── back-off ──────────┐
//!             ▼                              │
//!  Waiting ──▶ Starting ──▶ Running ──exit──▶┤
//!             │                              └─▶ Ended (for good, by restartPolicy)
//!             └─ cannot start ─▶ Waiting
//! ```
//!
//! The worker tells what happened ([`Machine::started`], [`Machine::exited`],
//! ...), asks what to do now ([`Machine::advance`]) and when to ask again
//! ([`Machine::next_ms`]). No clock, no process, no socket: time is handed in.
//! The rules are those of k8s.io/kubernetes `pkg/kubelet` (kuberuntime, prober,
//! `getPhase`): init containers one after the other, sidecars stay, a first
//! crash is restarted at once and the next ones after growing pauses.

use super::{
    listeners::Listening,
    pod::{Container, Pod, RestartPolicy},
    probes::{Probe, ProbeKind, Track},
    problem::{self, Problem},
};

/// Exit code of what was found dead after the kubelet had been away
/// (`ContainerStatusUnknown` upstream).
pub(crate) const EXIT_UNKNOWN: i32 = 137;

/// A point in time, twice: monotonic for decisions, wall clock for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Milliseconds since the kubelet started.
    pub(crate) ms: u64,
    /// Seconds of Unix time.
    pub(crate) unix_s: u64,
}

/// Pauses between restarts: doubled from the first to the longest, forgotten
/// after twice the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPacing {
    /// Milliseconds before the second restart in a row.
    pub first_ms: u64,
    /// The longest pause, in milliseconds.
    pub max_ms: u64,
}

impl Default for RestartPacing {
    /// `containerBackOffPeriod` and `MaxCrashLoopBackOff` of k8s.io/kubernetes `pkg/kubelet`.
    fn default() -> Self {
        Self { first_ms: 10_000, max_ms: 300_000 }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct BackOff {
    /// The pause before the next restart; 0 before the first one.
    pause_ms: u64,
    set_ms: u64,
}

impl BackOff {
    /// The pause before the restart after a failure now.
    fn next(&mut self, pacing: RestartPacing, now_ms: u64) -> u64 {
        if now_ms.saturating_sub(self.set_ms) > pacing.max_ms.saturating_mul(2) {
            self.pause_ms = 0;
        }
        let pause = self.pause_ms;
        self.pause_ms = pause.saturating_mul(2).clamp(pacing.first_ms, pacing.max_ms);
        self.set_ms = now_ms + pause;
        pause
    }
}

/// One of the Pod's containers: the init containers count first.
pub(crate) type Slot = usize;

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) id: String,
    pub(crate) started_unix_s: u64,
    pub(crate) finished_unix_s: u64,
}

/// A run that goes on.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) since: Moment,
    startup: Option<Track>,
    readiness: Option<Track>,
    liveness: Option<Track>,
    pub(crate) listening: Listening,
    stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug)]
struct Stop {
    kill_at_ms: u64,
    killed: bool,
}

impl Running {
    fn track(&mut self, kind: ProbeKind) -> Option<&mut Track> {
        match kind {
            ProbeKind::Startup => self.startup.as_mut(),
            ProbeKind::Readiness => self.readiness.as_mut(),
            ProbeKind::Liveness => self.liveness.as_mut(),
        }
    }

    /// Whether the startup probe has succeeded, if there is one.
    pub(crate) fn is_started(&self) -> bool {
        self.startup.as_ref().is_none_or(|track| track.verdict == Some(true))
    }

    fn is_ready(&self) -> bool {
        let probed = self.readiness.as_ref().map(|track| track.verdict == Some(true));
        self.is_started()
            && match self.listening {
                Listening::Elsewhere(_) => false,
                Listening::NotYet(_) | Listening::Unknown => probed == Some(true),
                Listening::Fine => probed.unwrap_or(true),
            }
    }
}

/// What a container does.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Not running; it starts at that time, unless something else keeps it.
    Waiting { reason: &'static str, message: String, until_ms: u64 },
    /// Asked to start.
    Starting,
    /// It runs.
    Running(Box<Running>),
    /// It will not run again.
    Ended(Ended),
}

/// One container with its history.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) container: Container,
    pub(crate) init: bool,
    pub(crate) state: State,
    /// The run before the present one.
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: u32,
    /// Counts the runs, so that word of an earlier one is told from word of this one.
    pub(crate) run: u32,
    /// The next start is a restart.
    again: bool,
    pause: BackOff,
    problem: Option<Problem>,
}

impl Unit {
    fn new(container: Container, init: bool) -> Self {
        let state = State::Waiting {
            reason: if init { "PodInitializing" } else { "ContainerCreating" },
            message: String::new(),
            until_ms: 0,
        };
        Unit {
            container,
            init,
            state,
            last: None,
            restarts: 0,
            run: 0,
            again: false,
            pause: BackOff::default(),
            problem: None,
        }
    }

    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    fn is_alive(&self) -> bool {
        matches!(self.state, State::Running(_) | State::Starting)
    }

    pub(crate) fn is_ready(&self) -> bool {
        match &self.state {
            State::Running(running) => running.is_ready(),
            // An init container is ready when it has done its work.
            State::Ended(ended) => self.init && !self.container.sidecar && ended.code == 0,
            _ => false,
        }
    }

    /// Whether it counts for the Pod's readiness.
    fn is_long_lived(&self) -> bool {
        !self.init || self.container.sidecar
    }

    /// Why it is not ready, as far as that is known.
    fn explain(&self, address: std::net::IpAddr) -> Option<Problem> {
        let name = &self.container.name;
        let running = match &self.state {
            State::Running(running) => running,
            State::Waiting { .. } => return self.problem.clone(),
            State::Starting | State::Ended(_) => return None,
        };
        let failing = |what, track: &Option<Track>| {
            let track = track.as_ref().filter(|t| t.verdict != Some(true))?;
            (!track.failure.is_empty()).then(|| problem::probe_failing(name, what, &track.failure))
        };
        match &running.listening {
            Listening::Elsewhere(found) => {
                return Some(problem::listens_elsewhere(name, *found, address));
            }
            Listening::NotYet(ports) if running.readiness.is_none() => {
                return Some(problem::not_listening(name, ports, address));
            }
            _ => {}
        }
        failing("startup", &running.startup).or_else(|| failing("readiness", &running.readiness))
    }
}

/// What the worker is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start {
        slot: Slot,
        run: u32,
    },
    /// The preStop hook, then SIGTERM.
    Terminate {
        slot: Slot,
        why: String,
    },
    Kill {
        slot: Slot,
    },
    Probe {
        slot: Slot,
        run: u32,
        kind: ProbeKind,
    },
}

/// Something worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Why a container could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// What it refers to is missing or odd (`CreateContainerConfigError`): tried
    /// again at a steady pace, because the mend is likely outside the Pod.
    Config(String),
    /// The command cannot be run (`StartError`).
    Start(String),
}

/// How often a container with a bad reference is tried again. Upstream's
/// kubelet looks again at each sync, once in 10 s; here it costs next to nothing.
const CONFIG_RETRY_MS: u64 = 2_000;

/// All containers of one Pod.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    policy: RestartPolicy,
    pacing: RestartPacing,
    grace_ms: u64,
    pub(crate) units: Vec<Unit>,
    init_count: usize,
    stopping_at_ms: Option<u64>,
    notes: Vec<Note>,
    /// Decided already, handed out by the next [`Machine::advance`].
    asked: Vec<Action>,
}

impl Machine {
    pub(crate) fn new(pod: &Pod, pacing: RestartPacing) -> Self {
        let mut units: Vec<Unit> = pod.init.iter().map(|c| Unit::new(c.clone(), true)).collect();
        let init_count = units.len();
        units.extend(pod.main.iter().map(|c| Unit::new(c.clone(), false)));
        if init_count > 0 {
            for unit in &mut units[init_count..] {
                unit.state = State::Waiting {
                    reason: "PodInitializing",
                    message: String::new(),
                    until_ms: 0,
                };
            }
        }
        Self {
            policy: pod.restart,
            pacing,
            grace_ms: pod.grace_s * 1000,
            units,
            init_count,
            stopping_at_ms: None,
            notes: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// What an earlier kubelet left: its runs are dead, their counts go on.
    pub(crate) fn remember(&mut self, slot: Slot, restarts: u32, lost: Option<Ended>) {
        let Some(unit) = self.units.get_mut(slot) else { return };
        unit.restarts = restarts;
        if let Some(lost) = lost {
            if needs_restart(self.policy, &unit.container, unit.init, lost.code) {
                unit.again = true;
                unit.last = Some(lost);
            } else {
                unit.state = State::Ended(lost);
            }
        }
    }

    /// Events since the last call.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn note(&mut self, reason: &'static str, message: String) {
        self.notes.push(Note { warning: false, reason, message });
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        self.notes.push(Note { warning: true, reason, message });
    }

    /// Everything is to end; may be said again with less time.
    pub(crate) fn stop(&mut self, grace_ms: u64, now: Moment) {
        let at = now.ms.saturating_add(grace_ms);
        self.stopping_at_ms = Some(self.stopping_at_ms.map_or(at, |before| before.min(at)));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping_at_ms.is_some()
    }

    /// Nothing runs and nothing will.
    pub(crate) fn is_over(&self) -> bool {
        !self.units.iter().any(Unit::is_alive)
            && (self.is_stopping() || matches!(self.phase(), "Succeeded" | "Failed"))
    }

    /// A start is under way: its outcome comes within moments, and a status
    /// written before it would be outdated at once.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.units.iter().any(|unit| matches!(unit.state, State::Starting))
    }

    //--- what happened ---

    fn of_run(&mut self, slot: Slot, run: u32) -> Option<&mut Unit> {
        self.units.get_mut(slot).filter(|unit| unit.run == run && unit.is_alive())
    }

    pub(crate) fn started(&mut self, slot: Slot, run: u32, id: String, pid: i32, now: Moment) {
        let Some(unit) = self.of_run(slot, run) else { return };
        let track = |probe: &Option<Probe>| probe.as_ref().map(|p| Track::new(p, now.ms));
        let container = &unit.container;
        let running = Running {
            id,
            pid,
            since: now,
            startup: track(&container.startup),
            readiness: track(&container.readiness),
            liveness: track(&container.liveness),
            listening: Listening::Unknown,
            stop: None,
        };
        unit.problem = None;
        unit.state = State::Running(Box::new(running));
        let text = format!("Started container {}", unit.container.name);
        self.note("Started", text);
    }

    pub(crate) fn cannot_start(&mut self, slot: Slot, run: u32, why: &Obstacle, now: Moment) {
        let (policy, pacing) = (self.policy, self.pacing);
        let Some(unit) = self.of_run(slot, run) else { return };
        let name = unit.container.name.clone();
        let (reason, text, until_ms) = match why {
            Obstacle::Config(text) => {
                ("CreateContainerConfigError", text, now.ms + CONFIG_RETRY_MS)
            }
            Obstacle::Start(text) => {
                let pause = unit.pause.next(pacing, now.ms).max(pacing.first_ms);
                ("StartError", text, now.ms + pause)
            }
        };
        let for_good = policy == RestartPolicy::Never && matches!(why, Obstacle::Start(_));
        unit.problem = Some(problem::start_error(&name, text));
        unit.state = if for_good {
            // The code with which container runtimes report it.
            State::Ended(Ended {
                code: 128,
                reason,
                message: text.clone(),
                id: String::new(),
                started_unix_s: now.unix_s,
                finished_unix_s: now.unix_s,
            })
        } else {
            State::Waiting { reason, message: text.clone(), until_ms }
        };
        let text = format!("Error: container {name}: {text}");
        self.warn("Failed", text);
    }

    pub(crate) fn exited(&mut self, slot: Slot, run: u32, code: i32, text: String, now: Moment) {
        let (policy, pacing, stopping) = (self.policy, self.pacing, self.is_stopping());
        let over = self.is_main_over();
        let Some(unit) = self.of_run(slot, run) else { return };
        let (id, started_unix_s) =
            unit.running().map_or((String::new(), now.unix_s), |r| (r.id.clone(), r.since.unix_s));
        let ended = Ended {
            code,
            reason: if code == 0 { "Completed" } else { "Error" },
            message: text,
            id,
            started_unix_s,
            finished_unix_s: now.unix_s,
        };
        // A sidecar that ends after the work is done has ended in its turn.
        let in_turn = stopping || (over && unit.container.sidecar);
        if in_turn || !needs_restart(policy, &unit.container, unit.init, code) {
            unit.state = State::Ended(ended);
            return;
        }
        let pause = unit.pause.next(pacing, now.ms);
        let name = unit.container.name.clone();
        unit.again = true;
        unit.last = Some(ended);
        unit.problem = Some(problem::crash_loop(&name, unit.restarts, code, pause.div_ceil(1000)));
        let message = format!("back-off {pause}ms restarting failed container={name}");
        unit.state =
            State::Waiting { reason: "CrashLoopBackOff", message, until_ms: now.ms + pause };
        if pause > 0 {
            self.warn("BackOff", format!("Back-off restarting failed container {name}"));
        }
    }

    pub(crate) fn probed(
        &mut self,
        slot: Slot,
        run: u32,
        kind: ProbeKind,
        answer: Result<(), String>,
        now: Moment,
    ) {
        let grace_ms = self.grace_ms;
        let Some(unit) = self.of_run(slot, run) else { return };
        let container = &unit.container;
        let probe = match kind {
            ProbeKind::Startup => container.startup.clone(),
            ProbeKind::Readiness => container.readiness.clone(),
            ProbeKind::Liveness => container.liveness.clone(),
        };
        let name = container.name.clone();
        let Some(running) = unit.running_mut() else { return };
        let (Some(probe), Some(track)) = (probe, running.track(kind)) else { return };
        let failure = answer.as_ref().err().cloned();
        track.answer(&probe, answer);
        let verdict = track.verdict;
        let fatal = verdict == Some(false) && kind != ProbeKind::Readiness;
        if fatal && running.stop.is_none() {
            let grace = probe.grace_s.map_or(grace_ms, |s| s * 1000);
            running.stop = Some(Stop { kill_at_ms: now.ms + grace, killed: false });
            self.warn("Killing", format!("Container {name} failed {} probe", word(kind)));
            let why = format!("failed {} probe", word(kind));
            self.asked.push(Action::Terminate { slot, why });
        }
        if let Some(failure) = failure {
            let mut what = word(kind).to_owned();
            what[..1].make_ascii_uppercase();
            self.warn("Unhealthy", format!("{what} probe failed: {failure}"));
        }
    }

    pub(crate) fn hook_failed(&mut self, slot: Slot, run: u32, text: &str, now: Moment) {
        let grace_ms = self.grace_ms;
        let Some(unit) = self.of_run(slot, run) else { return };
        let name = unit.container.name.clone();
        if let Some(running) = unit.running_mut()
            && running.stop.is_none()
        {
            running.stop = Some(Stop { kill_at_ms: now.ms + grace_ms, killed: false });
            self.warn("FailedPostStartHook", format!("Container {name}: {text}"));
            let why = "FailedPostStartHook".to_owned();
            self.asked.push(Action::Terminate { slot, why });
        }
    }

    pub(crate) fn listens(&mut self, slot: Slot, run: u32, found: Listening, now: Moment) {
        let Some(running) = self.of_run(slot, run).and_then(Unit::running_mut) else { return };
        if running.listening == found {
            return;
        }
        if found == Listening::Fine {
            for kind in [ProbeKind::Startup, ProbeKind::Readiness] {
                if let Some(track) = running.track(kind) {
                    track.hurry(now.ms);
                }
            }
        }
        running.listening = found;
    }

    //--- what to do ---

    /// Everything that is due now.
    pub(crate) fn advance(&mut self, now: Moment) -> Vec<Action> {
        let mut actions = std::mem::take(&mut self.asked);
        if let Some(kill_at_ms) = self.stopping_at_ms {
            for slot in 0..self.units.len() {
                self.end(slot, kill_at_ms, "is being deleted", &mut actions);
            }
        } else {
            self.start_due(now, &mut actions);
            if self.is_main_over() {
                let kill_at_ms = now.ms + self.grace_ms;
                for slot in 0..self.init_count {
                    self.end(slot, kill_at_ms, "has done its work", &mut actions);
                }
            }
        }
        for slot in 0..self.units.len() {
            self.kill_overdue(slot, now, &mut actions);
            self.probe_due(slot, now, &mut actions);
        }
        actions
    }

    /// When to look again if nothing happens.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let units = self.units.iter().flat_map(|unit| {
            let mut times = Vec::new();
            match &unit.state {
                State::Waiting { until_ms, .. } if *until_ms > 0 && !self.is_stopping() => {
                    times.push(*until_ms);
                }
                State::Running(running) => {
                    let stop = running.stop.filter(|stop| !stop.killed);
                    times.extend(stop.map(|stop| stop.kill_at_ms));
                    let kinds = probes_asked(running);
                    let tracks = [&running.startup, &running.readiness, &running.liveness];
                    for (track, on) in tracks.into_iter().zip(kinds) {
                        times.extend(track.as_ref().filter(|_| on).and_then(Track::due_ms));
                    }
                }
                _ => {}
            }
            times
        });
        units.min()
    }

    /// Starts what may start: init containers in order, then all others.
    fn start_due(&mut self, now: Moment, actions: &mut Vec<Action>) {
        for slot in 0..self.units.len() {
            let initialised = slot >= self.init_count;
            self.start_if_due(slot, now, actions);
            let unit = &self.units[slot];
            let passed = match &unit.state {
                State::Ended(ended) => ended.code == 0 || unit.container.sidecar,
                State::Running(running) => unit.container.sidecar && running.is_started(),
                _ => false,
            };
            if !initialised && !passed {
                return;
            }
        }
    }

    fn start_if_due(&mut self, slot: Slot, now: Moment, actions: &mut Vec<Action>) {
        let unit = &mut self.units[slot];
        let State::Waiting { until_ms, .. } = &unit.state else { return };
        if *until_ms > now.ms {
            return;
        }
        unit.restarts += u32::from(std::mem::take(&mut unit.again));
        unit.run += 1;
        unit.state = State::Starting;
        actions.push(Action::Start { slot, run: unit.run });
    }

    /// Has a running container terminated by a time.
    fn end(&mut self, slot: Slot, kill_at_ms: u64, why: &str, actions: &mut Vec<Action>) {
        let Some(running) = self.units[slot].running_mut() else { return };
        match &mut running.stop {
            // Already on its way; the time may only get shorter.
            Some(stop) => stop.kill_at_ms = stop.kill_at_ms.min(kill_at_ms),
            None => {
                running.stop = Some(Stop { kill_at_ms, killed: false });
                actions.push(Action::Terminate { slot, why: why.to_owned() });
                let text = format!("Stopping container {}", self.units[slot].container.name);
                self.note("Killing", text);
            }
        }
    }

    fn kill_overdue(&mut self, slot: Slot, now: Moment, actions: &mut Vec<Action>) {
        let stop = self.units[slot].running_mut().and_then(|running| running.stop.as_mut());
        if let Some(stop) = stop.filter(|stop| !stop.killed && stop.kill_at_ms <= now.ms) {
            stop.killed = true;
            actions.push(Action::Kill { slot });
        }
    }

    fn probe_due(&mut self, slot: Slot, now: Moment, actions: &mut Vec<Action>) {
        let Unit { container, state: State::Running(running), run, .. } = &mut self.units[slot]
        else {
            return;
        };
        let (run, on) = (*run, probes_asked(running));
        let probes = [
            (ProbeKind::Startup, &container.startup),
            (ProbeKind::Readiness, &container.readiness),
            (ProbeKind::Liveness, &container.liveness),
        ];
        for ((kind, probe), _) in probes.into_iter().zip(on).filter(|(_, on)| *on) {
            if let (Some(probe), Some(track)) = (probe, running.track(kind))
                && track.begin(probe, now.ms)
            {
                actions.push(Action::Probe { slot, run, kind });
            }
        }
    }

    //--- what to report ---

    /// Whether all init containers have done their work.
    pub(crate) fn is_initialised(&self) -> bool {
        self.units[..self.init_count].iter().all(|unit| match &unit.state {
            State::Ended(ended) => ended.code == 0 || unit.container.sidecar,
            State::Running(running) => unit.container.sidecar && running.is_started(),
            State::Waiting { .. } => unit.container.sidecar && unit.last.is_some(),
            State::Starting => unit.container.sidecar && unit.restarts > 0,
        })
    }

    fn main(&self) -> &[Unit] {
        &self.units[self.init_count..]
    }

    /// Whether the containers proper have ended for good.
    fn is_main_over(&self) -> bool {
        !self.main().is_empty() && self.main().iter().all(|u| matches!(u.state, State::Ended(_)))
    }

    /// As `getPhase` of the kubelet has it.
    pub(crate) fn phase(&self) -> &'static str {
        let failed = |unit: &Unit| matches!(&unit.state, State::Ended(e) if e.code != 0);
        let init = &self.units[..self.init_count];
        if init.iter().any(|unit| !unit.container.sidecar && failed(unit)) {
            return if init.iter().any(Unit::is_alive) { "Pending" } else { "Failed" };
        }
        if !self.is_initialised() {
            return "Pending";
        }
        let fresh = |unit: &Unit| match unit.state {
            State::Waiting { .. } | State::Starting => unit.last.is_none(),
            _ => false,
        };
        if self.main().iter().any(fresh) {
            return "Pending";
        }
        if !self.is_main_over() || init.iter().any(Unit::is_alive) {
            return "Running";
        }
        if self.main().iter().any(failed) { "Failed" } else { "Succeeded" }
    }

    /// Whether every container that counts is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.units.iter().filter(|unit| unit.is_long_lived()).all(Unit::is_ready)
    }

    /// The names of the containers that keep the Pod from being ready.
    pub(crate) fn unready(&self) -> Vec<&str> {
        let unready = self.units.iter().filter(|unit| unit.is_long_lived() && !unit.is_ready());
        unready.map(|unit| unit.container.name.as_str()).collect()
    }

    /// Why the Pod is not ready, as far as that is known.
    pub(crate) fn explain(&self, address: std::net::IpAddr) -> Option<Problem> {
        let unready = self.units.iter().filter(|unit| !unit.is_ready());
        unready.filter_map(|unit| unit.explain(address)).next()
    }
}

fn needs_restart(policy: RestartPolicy, container: &Container, init: bool, code: i32) -> bool {
    match policy {
        _ if init && container.sidecar => true,
        // An init container that has done its work is not run again.
        RestartPolicy::Always => !init || code != 0,
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

/// Which of startup, readiness and liveness are asked now.
fn probes_asked(running: &Running) -> [bool; 3] {
    let (started, ending) = (running.is_started(), running.stop.is_some());
    [!started && !ending, started, started && !ending]
}

fn word(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "startup",
        ProbeKind::Readiness => "readiness",
        ProbeKind::Liveness => "liveness",
    }
}

#[cfg(test)]
mod tests;
