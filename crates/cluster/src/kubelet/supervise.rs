//! The shim: a small process between the kubelet and each container's process,
//! so that nothing outlives the kubelet, however it ends.
//!
//! ```text
//!  kubelet ──socket pair (the shim's stdin)──▶ shim ──▶ stage two ══exec══▶ the command
//!     "T" terminate, "K" kill, EOF = the kubelet is gone (kill)        └▶ its descendants
//!     ◀── "started PID", "failed TEXT", "exited CODE"
//! ```
//!
//! The shim is the same executable, started again. The kernel closes the
//! kubelet's end of the socket when the kubelet ends for whatever reason,
//! SIGKILL included, and the shim then kills what it has started. It is the
//! *child subreaper*, so that a descendant whose parent has ended becomes its
//! child and cannot hide. Should the shim itself be killed, the command goes
//! with it: stage two asks the kernel for that (parent death signal) and then
//! becomes the command. A pidfd, not a pid, is what gets the signals, so that
//! they cannot reach a stranger.
//!
//! On a network of namespaces the shim first moves into the Pod's ([`enclosure`]),
//! and another form of it holds them ([`netns`](super::netns)).
//!
//! Rejected: signals to the shim by pid (needs handlers, which need `unsafe`),
//! and the parent death signal alone (it follows the *thread* that forked, and
//! tokio's threads come and go).

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, kill_process, pidfd_open,
    pidfd_send_signal, wait,
};

use super::{
    enclosure::{self, Enclosure},
    handover, netns, proc,
};

/// The hidden subcommand that starts the shim.
pub const SHIM_WORD: &str = "__shim";

/// First word behind [`SHIM_WORD`] of stage two, which becomes the command.
const EXEC_WORD: &str = "exec";

/// First word of a holder of namespaces: `hold HOSTNAME`.
pub(crate) const HOLD_WORD: &str = "hold";

/// First word when the command runs in an [`Enclosure`]: `in FILE -- COMMAND [ARG...]`.
pub(crate) const ENCLOSED_WORD: &str = "in";

/// First word when the command runs where another process is: `beside PID DIR -- ...`.
pub(crate) const BESIDE_WORD: &str = "beside";

/// The command's standard input comes over the socket, as a descriptor.
pub(crate) const INPUT_WORD: &str = "input";

/// As [`INPUT_WORD`], and it is a terminal, which becomes the command's own.
pub(crate) const TERMINAL_WORD: &str = "terminal";

/// Asks the shim to send SIGTERM to the command.
pub(crate) const TERMINATE: u8 = b'T';
/// Asks the shim to kill the command and all its descendants.
pub(crate) const KILL: u8 = b'K';

/// Exit code when the command could not be started: what shells use for "not found".
pub(crate) const EXIT_NOT_STARTED: u8 = 127;
/// And for what is there but cannot be run.
pub(crate) const EXIT_NOT_EXECUTABLE: u8 = 126;
/// Added to a signal's number, as shells and container runtimes report it.
pub(crate) const EXIT_SIGNAL_BASE: i32 = 128;

/// How long the shim waits for killed descendants before it reports without
/// them. A killed process goes within milliseconds unless the kernel holds it
/// (a dead network disk), and then waiting longer does not help.
const REAP_WAIT_MAX: Duration = Duration::from_secs(5);

/// Runs the shim until its command has ended; returns the exit code for `main`.
/// `args` is everything behind the program's name, with or without
/// [`SHIM_WORD`]: `[in FILE | beside PID DIR] [input | terminal] -- COMMAND [ARG...]`.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let mut args = args.into_iter().peekable();
    args.next_if(|word| word == SHIM_WORD);
    match args.next() {
        Some(word) if word == EXEC_WORD => become_command(args),
        Some(word) if word == HOLD_WORD => {
            let hostname = args.next().unwrap_or_default();
            netns::hold(&hostname.to_string_lossy()).map_or(EXIT_NOT_STARTED, |()| 0)
        }
        Some(word) => run(word, args).unwrap_or(EXIT_NOT_STARTED),
        None => EXIT_NOT_STARTED,
    }
}

/// Where the command's standard input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Nothing,
    Handed,
    Terminal,
}

/// Reads the words up to `--`, does what they say, then supervises the command.
fn run(first: OsString, mut args: impl Iterator<Item = OsString>) -> io::Result<u8> {
    let (mut input, mut entered) = (Input::Nothing, Ok(()));
    let mut word = Some(first);
    while let Some(next) = word.take_if(|word| *word != "--") {
        let mut argument = || args.next().unwrap_or_default();
        if next == ENCLOSED_WORD {
            entered = enclose(argument());
        } else if next == BESIDE_WORD {
            let pid = argument();
            entered = enclosure::join(&pid.to_string_lossy(), argument().as_ref());
        } else if next == INPUT_WORD {
            input = Input::Handed;
        } else if next == TERMINAL_WORD {
            input = Input::Terminal;
        } else {
            entered = Err(format!("{next:?}: no word of the shim"));
        }
        word = args.next();
    }
    supervise(entered, input, &args.collect::<Vec<_>>())
}

/// Moves into the enclosure that a file describes.
fn enclose(file: OsString) -> Result<(), String> {
    let read = std::fs::read(&file);
    let enclosure: Enclosure = read
        .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
        .map_err(|error| format!("{}: {error}", file.to_string_lossy()))?;
    enclosure::enter(&enclosure)
}

/// Stage two: `PARENT [terminal] -- COMMAND [ARG...]`. Returns only if the command cannot be started.
fn become_command(mut args: impl Iterator<Item = OsString>) -> u8 {
    let parent = args.next().and_then(|text| text.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let mut word = args.next();
    if word.take_if(|word| *word == TERMINAL_WORD).is_some() {
        if let Err(error) = own_terminal() {
            drop(writeln!(io::stderr(), "cannot have the terminal: {error}"));
            return EXIT_NOT_STARTED;
        }
        word = args.next();
    }
    let (Some(parent), Some(_), Some(program)) = (parent, word, args.next()) else {
        return EXIT_NOT_STARTED;
    };
    #[cfg(target_os = "linux")]
    if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return EXIT_NOT_STARTED;
    }
    // The parent may have ended before the line above.
    if getppid() != Some(parent) {
        return EXIT_NOT_STARTED;
    }
    let failure = Command::new(&program).args(args).exec();
    // Standard error is the container's log.
    let text = format!("cannot start {}: {failure}\n", program.to_string_lossy());
    drop(io::stderr().write_all(text.as_bytes()));
    match failure.kind() {
        io::ErrorKind::PermissionDenied => EXIT_NOT_EXECUTABLE,
        _ => EXIT_NOT_STARTED,
    }
}

/// Begins a session of its own on the terminal that is the standard input, so
/// that Ctrl-C and the end of the terminal reach the command.
fn own_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(rustix::process::ioctl_tiocsctty(io::stdin())?)
}

fn supervise(entered: Result<(), String>, input: Input, command: &[OsString]) -> io::Result<u8> {
    let mut control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let started =
        entered.and_then(|()| start(&control, input, command).map_err(|error| error.to_string()));
    match started {
        Ok((child, handle)) => {
            writeln!(control, "started {}", child.as_raw_nonzero())?;
            let listener = control.try_clone()?;
            thread::spawn(move || obey(listener, &handle));
            let code = wait_for(child);
            kill_descendants();
            // The kubelet may be gone; then nobody wants to know.
            drop(writeln!(control, "exited {code}"));
            Ok(u8::try_from(code).unwrap_or(u8::MAX))
        }
        Err(failure) => {
            drop(writeln!(control, "failed {failure}"));
            Ok(EXIT_NOT_STARTED)
        }
    }
}

/// Starts stage two in a process group (or session) of its own; from the main
/// thread, which lives as long as the shim.
fn start(socket: &UnixStream, input: Input, command: &[OsString]) -> io::Result<(Pid, OwnedFd)> {
    // The pid named here is any: only whether there is one counts (prctl(2)).
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let me = getpid().as_raw_nonzero().to_string();
    let mut stage_two = Command::new(own_executable());
    stage_two.args([SHIM_WORD, EXEC_WORD, &me]);
    match input {
        Input::Terminal => stage_two.arg(TERMINAL_WORD),
        Input::Handed | Input::Nothing => stage_two.process_group(0),
    };
    let stdin = match input {
        Input::Nothing => Stdio::null(),
        Input::Handed | Input::Terminal => handover::receive(socket)?.into(),
    };
    let child = stage_two.arg("--").args(command).stdin(stdin).spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the child has no pid"))?;
    // Not yet waited for, so the pid is still the child's.
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    Ok((pid, handle))
}

/// The running executable, also when its file was replaced since.
pub(crate) fn own_executable() -> std::path::PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| "/proc/self/exe".into())
}

/// Carries out the kubelet's words until it is gone.
fn obey(mut control: UnixStream, command: &OwnedFd) {
    let mut word = [0];
    loop {
        match control.read(&mut word) {
            Ok(1) if word[0] == TERMINATE => signal(command, Signal::TERM),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(1) if word[0] != KILL => {}
            Ok(_) | Err(_) => {
                signal(command, Signal::KILL);
                return;
            }
        }
    }
}

fn signal(command: &OwnedFd, signal: Signal) {
    // An error: the command has ended already.
    pidfd_send_signal(command, signal).ok();
}

/// Reaps children until the command is among them; returns its exit code.
fn wait_for(command: Pid) -> i32 {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                return status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|s| EXIT_SIGNAL_BASE + s))
                    .unwrap_or(i32::from(EXIT_NOT_STARTED));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return i32::from(EXIT_NOT_STARTED),
        }
    }
}

/// Kills everything beneath the shim. Repeats, because a process may fork
/// between the look and the signal.
fn kill_descendants() {
    let began = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        for pid in proc::descendants(getpid().as_raw_nonzero().get()) {
            // An error: it is gone by itself.
            if Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_err()) {
                continue;
            }
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return, // no children left
            }
        }
        if began.elapsed() > REAP_WAIT_MAX {
            return;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
