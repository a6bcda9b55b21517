//! One run of one command under the shim.
//!
//! ```text
//!  find_program ─▶ spawn ─▶ Control  (terminate, kill; dropped = kill)
//!                     └───▶ Reports  (started, then exited)
//! ```
//!
//! Containers, exec probes and exec hooks all go this way, so that none of them
//! can outlive the kubelet. What to make of the outcome is the caller's.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    process::{Child, Command},
};

use super::{
    env::Env,
    handover,
    supervise::{
        self, BESIDE_WORD, ENCLOSED_WORD, EXIT_NOT_EXECUTABLE, EXIT_NOT_STARTED, EXIT_SIGNAL_BASE,
        INPUT_WORD, SHIM_WORD, TERMINAL_WORD,
    },
};

/// How the shim is started.
#[derive(Clone, Debug)]
pub struct Shim {
    /// The executable.
    pub program: PathBuf,
    /// What goes before `-- COMMAND`.
    pub args: Vec<OsString>,
}

impl Default for Shim {
    /// The running executable, whose `main` hands over to [`supervise::shim_main`].
    fn default() -> Self {
        Self { program: supervise::own_executable(), args: vec![SHIM_WORD.into()] }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Env,
    pub(crate) dir: PathBuf,
    pub(crate) place: Place,
}

/// Where a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the machine as it is.
    Machine,
    /// In what a file describes.
    Enclosed(PathBuf),
    /// Where a process is already.
    Beside(i32),
}

/// Why a command cannot be run, as people know it from container runtimes, and
/// the exit code that shells give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CannotRun {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl CannotRun {
    fn missing(text: String) -> Self {
        CannotRun { text, code: EXIT_NOT_STARTED }
    }

    fn forbidden(text: String) -> Self {
        CannotRun { text, code: EXIT_NOT_EXECUTABLE }
    }
}

/// The words of a container's command, its variables replaced by then, as
/// something that can be run. Away from the machine, what is not found may be in
/// a volume: the shim, which sees the volumes, has the last word.
pub(crate) fn find_program(
    words: &[String],
    env: Env,
    dir: PathBuf,
    portolan: &Path,
    place: Place,
) -> Result<Launch, CannotRun> {
    let (first, args) =
        words.split_first().ok_or_else(|| CannotRun::missing("no command specified".to_owned()))?;
    let here = place == Place::Machine;
    if here && !dir.is_dir() {
        let text = format!("workingDir {}: no such directory", dir.display());
        return Err(CannotRun::forbidden(text));
    }
    if let Some(odd) = words.iter().find(|word| word.contains('\0')) {
        return Err(CannotRun::forbidden(format!("{odd:?}: a word cannot hold a zero byte")));
    }
    let program = if first == "portolan" {
        portolan.to_owned()
    } else if first.contains('/') {
        let path = dir.join(first);
        if here {
            check_executable(first, &path)?;
        }
        path
    } else {
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let candidates = path.split(':').filter(|part| !part.is_empty());
        let mut candidates = candidates.map(|part| dir.join(part).join(first));
        candidates.find(|path| check_executable(first, path).is_ok()).ok_or_else(|| {
            CannotRun::missing(format!("exec: {first:?}: executable file not found in $PATH"))
        })?
    };
    Ok(Launch { program, args: args.to_vec(), env, dir, place })
}

fn check_executable(word: &str, path: &Path) -> Result<(), CannotRun> {
    let forbidden = |why: &str| Err(CannotRun::forbidden(format!("exec: {word:?}: {why}")));
    match path.metadata() {
        Ok(meta) if meta.is_dir() => forbidden("is a directory"),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => forbidden("permission denied"),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => forbidden("permission denied"),
        Err(_) => Err(CannotRun::missing(format!("exec: {word:?}: no such file or directory"))),
    }
}

/// The way to end a run. Dropping it kills.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedWriteHalf,
}

impl Control {
    /// SIGTERM to the command.
    pub(crate) fn terminate(&self) {
        self.say(supervise::TERMINATE);
    }

    /// SIGKILL to the command and all that descends from it.
    pub(crate) fn kill(&self) {
        self.say(supervise::KILL);
    }

    fn say(&self, word: u8) {
        // An error: the shim has ended, and the command with it.
        self.socket.try_write(&[word]).ok();
    }
}

/// Word from the shim.
#[derive(Debug)]
pub(crate) struct Reports {
    lines: BufReader<OwnedReadHalf>,
    shim: Child,
    group: Option<Pid>,
    early_exit: Option<i32>,
}

/// Where the bytes of a run come from and go to.
#[derive(Debug)]
pub(crate) struct Ends {
    /// None: there is nothing to read.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
    /// The standard input is a terminal, which is to be the command's own.
    pub(crate) terminal: bool,
}

impl Ends {
    /// Nothing to read; both outputs go to one pipe.
    pub(crate) fn printing(output: io::PipeWriter) -> io::Result<Ends> {
        let stderr = output.try_clone()?.into();
        Ok(Ends { stdin: None, stdout: output.into(), stderr, terminal: false })
    }

    /// All of it on a terminal.
    pub(crate) fn on(terminal: OwnedFd) -> io::Result<Ends> {
        let (stdout, stderr) = (terminal.try_clone()?.into(), terminal.try_clone()?.into());
        Ok(Ends { stdin: Some(terminal), stdout, stderr, terminal: true })
    }
}

/// Starts a command; both its outputs go to `output`.
pub(crate) fn spawn(
    shim: &Shim,
    launch: &Launch,
    output: io::PipeWriter,
) -> io::Result<(Control, Reports)> {
    spawn_with(shim, launch, Ends::printing(output)?)
}

/// Starts a command.
pub(crate) fn spawn_with(
    shim: &Shim,
    launch: &Launch,
    ends: Ends,
) -> io::Result<(Control, Reports)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(&shim.program);
    command.args(&shim.args);
    // Elsewhere the folder may exist only inside: the shim goes there.
    let mut dir = Path::new("/");
    match &launch.place {
        Place::Machine => dir = &launch.dir,
        Place::Enclosed(file) => {
            command.arg(ENCLOSED_WORD).arg(file);
        }
        Place::Beside(pid) => {
            command.arg(BESIDE_WORD).arg(pid.to_string()).arg(&launch.dir);
        }
    }
    if let Some(stdin) = &ends.stdin {
        handover::send(&ours, stdin.as_fd())?;
        command.arg(if ends.terminal { TERMINAL_WORD } else { INPUT_WORD });
    }
    let child = command
        .arg("--")
        .arg(&launch.program)
        .args(&launch.args)
        .env_clear()
        .envs(&launch.env)
        .current_dir(dir)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(ends.stderr)
        .stdout(ends.stdout)
        // Out of the reach of the terminal's Ctrl-C, which is for the kubelet.
        .process_group(0)
        .spawn()?;
    let (read, write) = UnixStream::from_std(ours)?.into_split();
    let reports =
        Reports { lines: BufReader::new(read), shim: child, group: None, early_exit: None };
    Ok((Control { socket: write }, reports))
}

impl Reports {
    /// The shim's pid: the root of the run's processes. 0 once it has ended.
    pub(crate) fn pid(&self) -> i32 {
        self.shim.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        // The shim writes short lines; anything else is no shim.
        let read = (&mut self.lines).take(4096).read_line(&mut line).await;
        read.ok().filter(|read| *read > 0).map(|_| line.trim_end().to_owned())
    }

    /// Waits until the command runs, or says why it does not.
    pub(crate) async fn started(&mut self) -> Result<(), String> {
        let line = self.line().await.unwrap_or_default();
        match line.split_once(' ') {
            Some(("started", pid)) => {
                self.group = pid.parse().ok().and_then(Pid::from_raw);
                Ok(())
            }
            Some(("failed", why)) => Err(why.to_owned()),
            _ => Err("the shim ended without a word".to_owned()),
        }
    }

    /// Waits until the command and its descendants have ended; the exit code.
    pub(crate) async fn exited(mut self) -> i32 {
        let mut code = self.early_exit;
        while let Some(line) = self.line().await {
            if let Some(("exited", number)) = line.split_once(' ') {
                code = number.parse().ok();
            }
        }
        let status = self.shim.wait().await.ok();
        code.or_else(|| {
            // Somebody killed the shim: see that nothing of its command stays.
            if let Some(group) = self.group {
                kill_process_group(group, Signal::KILL).ok();
            }
            status?.code()
        })
        .unwrap_or(EXIT_SIGNAL_BASE + Signal::KILL.as_raw())
    }
}

/// Bytes of an exec probe's output that are shown.
const OUTPUT_BYTES_MAX: u64 = 10 << 10;

/// Runs a command to its end, as exec probes and hooks do.
pub(crate) async fn execute(shim: &Shim, launch: &Launch, timeout: Duration) -> Result<(), String> {
    let (reader, writer) = io::pipe().map_err(|e| e.to_string())?;
    let (control, mut reports) = spawn(shim, launch, writer).map_err(|e| e.to_string())?;
    let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(|e| e.to_string())?;
    let running = async {
        reports.started().await?;
        let mut printed = Vec::new();
        let mut output = output.take(OUTPUT_BYTES_MAX);
        // What cannot be read is not shown; the exit code is what counts.
        output.read_to_end(&mut printed).await.ok();
        tokio::io::copy(&mut output.into_inner(), &mut tokio::io::sink()).await.ok();
        Ok::<_, String>((reports.exited().await, printed))
    };
    let (code, printed) = match tokio::time::timeout(timeout, running).await {
        Ok(outcome) => outcome?,
        Err(_) => {
            // Dropping the control kills it; its shim is reaped by the runtime.
            drop(control);
            return Err(format!("no exit within {timeout:?}"));
        }
    };
    if code == 0 {
        Ok(())
    } else {
        let text = String::from_utf8_lossy(&printed);
        Err(format!("exit code {code}: {}", text.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        std::fs::create_dir(dir.join("bin")).unwrap();
        for (name, mode) in [("bin/tool", 0o755), ("bin/text", 0o644)] {
            std::fs::write(dir.join(name), "").unwrap();
            std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        let path = format!("/nowhere::{}", dir.join("bin").display());
        for (words, expected) in [
            (vec!["tool", "-x"], Ok("bin/tool")),
            (vec!["bin/tool"], Ok("bin/tool")),
            (vec!["./bin/tool"], Ok("./bin/tool")),
            (vec!["portolan", "demo"], Ok("the/portolan")),
            (vec![], Err("no command specified")),
            (vec!["text"], Err("exec: \"text\": executable file not found in $PATH")),
            (vec!["bin/text"], Err("exec: \"bin/text\": permission denied")),
            (vec!["./bin"], Err("exec: \"./bin\": is a directory")),
            (vec!["./no"], Err("exec: \"./no\": no such file or directory")),
            (vec![""], Err("exec: \"\": executable file not found in $PATH")),
        ] {
            let owned: Vec<String> = words.iter().map(ToString::to_string).collect();
            let env = Env::from([("PATH".into(), path.clone())]);
            let found = find_program(
                &owned,
                env,
                dir.to_owned(),
                &dir.join("the/portolan"),
                Place::Machine,
            );
            let found = found.map(|launch| launch.program).map_err(|why| why.text);
            assert_eq!(found, expected.map(|p| dir.join(p)).map_err(str::to_owned), "{words:?}");
        }
        let nowhere = find_program(&["x".into()], Env::new(), dir.join("no"), dir, Place::Machine)
            .unwrap_err();
        assert!(nowhere.text.ends_with("no such directory"));
    }
}
