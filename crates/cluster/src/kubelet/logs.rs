//! What containers print: kept in files, read by `kubectl logs`.
//!
//! ```text
//!  pipe ──▶ LogWriter ──▶ ROOT/UID/logs/CONTAINER/N.log (and N.log.1, rotated)
//!               │                      │
//!               └── progress (watch) ──┴──▶ LogStream, one per reader
//! ```
//!
//! One file per run of a container, numbered; the last two runs are kept. Each
//! line is stored as `TIME F TEXT` (`P` instead of `F` where a very long line
//! was cut), close to the format of the container runtime interface. A reader
//! holds a place in the file, not a queue; the writer only tells it that there
//! is more. Files are read in small pieces, so that a reader costs no memory.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use portolan_apiserver::{
    Status,
    registry::{LogOptions, LogStream, PodLogs, object::timestamp},
};
use serde_json::Value;
use tokio::sync::watch;

use super::pod::Pod;
use crate::object;

/// Size at which a file is rotated (`containerLogMaxSize` of the kubelet's configuration).
pub const LOG_BYTES_DEFAULT: u64 = 10 << 20;

/// Longest stored line; longer ones are cut in parts (containerd's `max_container_log_line_size`).
const LINE_BYTES_MAX: usize = 16 << 10;

/// Runs of a container whose logs are kept: the present one and `--previous`.
const RUNS_KEPT: u64 = 2;

/// Bytes read at a time.
const READ_BYTES: usize = 32 << 10;

/// Chooses the container when `kubectl logs` names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// How far a log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    bytes: u64,
    rotations: u32,
    closed: bool,
}

/// All logs of a node.
#[derive(Debug)]
pub(crate) struct Logs {
    root: PathBuf,
    limit: u64,
    live: Mutex<HashMap<(String, String), watch::Receiver<Progress>>>,
}

impl Logs {
    pub(crate) fn new(root: PathBuf, limit: u64) -> Self {
        Self { root, limit, live: Mutex::default() }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<(String, String), watch::Receiver<Progress>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, uid: &str, container: &str) -> PathBuf {
        self.root.join(safe(uid)).join("logs").join(safe(container))
    }

    /// The log of a new run.
    pub(crate) fn create(&self, uid: &str, container: &str) -> io::Result<LogWriter> {
        let folder = self.folder(uid, container);
        fs::create_dir_all(&folder)?;
        let runs = runs(&folder);
        let number = runs.last().map_or(0, |last| last + 1);
        for old in runs.iter().filter(|run| **run + RUNS_KEPT <= number) {
            for path in [path_of(&folder, *old), rotated(&path_of(&folder, *old))] {
                // A rotated part need not be there.
                fs::remove_file(path).ok();
            }
        }
        let path = path_of(&folder, number);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let (progress, receiver) = watch::channel(Progress::default());
        self.live().insert((uid.to_owned(), container.to_owned()), receiver);
        Ok(LogWriter { path, file, limit: self.limit, size: 0, line: Vec::new(), progress })
    }

    /// The Pod is gone.
    pub(crate) fn remove(&self, uid: &str) {
        self.live().retain(|(owner, _), _| owner != uid);
        let folder = self.root.join(safe(uid)).join("logs");
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "logs stay behind");
        }
    }

    /// The end of the last run's log, for `terminationMessagePolicy: FallbackToLogsOnError`.
    pub(crate) fn tail(&self, uid: &str, container: &str, lines: u64) -> String {
        let options = LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
        let reading = self.read(uid, container, &options).map(|mut reader| {
            let mut text = Vec::new();
            while let Ok(Some(piece)) = reader.piece() {
                text.extend_from_slice(&piece);
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        reading.unwrap_or_default()
    }

    fn read(&self, uid: &str, container: &str, options: &LogOptions) -> io::Result<Reader> {
        let folder = self.folder(uid, container);
        let runs = runs(&folder);
        let number = if options.previous {
            runs.len().checked_sub(2).and_then(|at| runs.get(at))
        } else {
            runs.last()
        };
        let number = *number.ok_or(io::ErrorKind::NotFound)?;
        let live = self.live().get(&(uid.to_owned(), container.to_owned())).cloned();
        let live = live.filter(|_| options.follow && !options.previous);
        Reader::open(path_of(&folder, number), live, options)
    }
}

/// A name that cannot leave its folder. The API lets no other through; this is
/// for objects from elsewhere.
pub(crate) fn safe(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with('.') || name.is_empty() { format!("_{name}") } else { name }
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number}.log"))
}

fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The numbers of the runs that have a log, ascending.
fn runs(folder: &Path) -> Vec<u64> {
    let number = |entry: io::Result<fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok()
    };
    let mut found: Vec<u64> =
        fs::read_dir(folder).into_iter().flatten().filter_map(number).collect();
    found.sort_unstable();
    found
}

/// RFC 3339 with nine decimals: sorts as text.
fn stamp(time: SystemTime) -> String {
    let passed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = timestamp(passed.as_secs());
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), passed.subsec_nanos())
}

/// Takes what one run prints.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    limit: u64,
    size: u64,
    line: Vec<u8>,
    progress: watch::Sender<Progress>,
}

impl LogWriter {
    /// Stores all whole lines; the rest waits for its end.
    pub(crate) fn append(&mut self, printed: &[u8]) -> io::Result<()> {
        let now = stamp(SystemTime::now());
        let mut out = Vec::with_capacity(printed.len() + 64);
        for part in printed.split_inclusive(|b| *b == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(end) => {
                    self.line.extend_from_slice(end);
                    self.flush_line(&now, 'F', &mut out);
                }
                None => self.line.extend_from_slice(part),
            }
            while self.line.len() > LINE_BYTES_MAX {
                let rest = self.line.split_off(LINE_BYTES_MAX);
                self.flush_line(&now, 'P', &mut out);
                self.line = rest;
            }
        }
        self.store(&out)
    }

    fn flush_line(&mut self, now: &str, mark: char, out: &mut Vec<u8>) {
        out.extend_from_slice(now.as_bytes());
        out.extend_from_slice(&[b' ', if mark == 'F' { b'F' } else { b'P' }, b' ']);
        out.append(&mut self.line);
        out.push(b'\n');
    }

    fn store(&mut self, out: &[u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let mut rotations = 0;
        if self.size >= self.limit {
            fs::rename(&self.path, rotated(&self.path))?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.size = 0;
            rotations = 1;
        }
        self.file.write_all(out)?;
        let bytes = u64::try_from(out.len()).unwrap_or(0);
        self.size += bytes;
        self.progress.send_modify(|progress| {
            progress.bytes += bytes;
            progress.rotations += rotations;
        });
        Ok(())
    }
}

impl Drop for LogWriter {
    /// The run is over: readers that follow may go. A last line without an end is kept too.
    fn drop(&mut self) {
        if !self.line.is_empty() {
            let (now, mut out) = (stamp(SystemTime::now()), Vec::new());
            self.flush_line(&now, 'P', &mut out);
            if let Err(error) = self.store(&out) {
                tracing::warn!(path = %self.path.display(), %error, "the end of a log is lost");
            }
        }
        self.progress.send_modify(|progress| progress.closed = true);
    }
}

/// One reader's place.
struct Reader {
    path: PathBuf,
    file: File,
    next: VecDeque<File>,
    live: Option<watch::Receiver<Progress>>,
    rotations: u32,
    timestamps: bool,
    since: Option<String>,
    left: Option<u64>,
    carry: Vec<u8>,
}

impl Reader {
    fn open(
        path: PathBuf,
        live: Option<watch::Receiver<Progress>>,
        options: &LogOptions,
    ) -> io::Result<Reader> {
        let rotations = live.as_ref().map_or(0, |live| live.borrow().rotations);
        let mut newest = File::open(&path)?;
        let mut older = File::open(rotated(&path)).ok();
        if let Some(lines) = options.tail_lines {
            let found = seek_lines_back(&mut newest, lines)?;
            let rest = lines - found;
            match &mut older {
                Some(file) if rest > 0 => drop(seek_lines_back(file, rest)?),
                _ => older = None,
            }
        }
        let younger = options.since.map(|since| SystemTime::now().checked_sub(since));
        let after =
            options.since_unix_seconds.map(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s)));
        let (file, next) = match older {
            Some(older) => (older, VecDeque::from([newest])),
            None => (newest, VecDeque::new()),
        };
        Ok(Reader {
            path,
            file,
            next,
            live,
            rotations,
            timestamps: options.timestamps,
            since: younger.or(after).map(|time| stamp(time.unwrap_or(UNIX_EPOCH))),
            left: options.limit_bytes,
            carry: Vec::new(),
        })
    }

    /// What can be read without waiting; `None` at the end.
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; READ_BYTES];
        while self.left != Some(0) {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                match self.next.pop_front() {
                    Some(file) => self.file = file,
                    None => return Ok(None),
                }
                continue;
            }
            let mut out = self.show(&buffer[..read]);
            if let Some(left) = &mut self.left {
                out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= u64::try_from(out.len()).unwrap_or(0);
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
        Ok(None)
    }

    /// Stored lines as they are shown.
    fn show(&mut self, stored: &[u8]) -> Vec<u8> {
        self.carry.extend_from_slice(stored);
        let Some(end) = self.carry.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let rest = self.carry.split_off(end + 1);
        let whole = std::mem::replace(&mut self.carry, rest);
        let mut out = Vec::with_capacity(whole.len());
        for line in whole.split_inclusive(|b| *b == b'\n') {
            let mut parts = line.splitn(3, |b| *b == b' ');
            let (Some(time), Some(mark), Some(text)) = (parts.next(), parts.next(), parts.next())
            else {
                continue; // a line that was being written when the machine stopped
            };
            if self.since.as_ref().is_some_and(|since| time < since.as_bytes()) {
                continue;
            }
            if self.timestamps {
                out.extend_from_slice(time);
                out.push(b' ');
            }
            let text = if mark == b"P" { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
            out.extend_from_slice(text);
        }
        out
    }

    /// The next piece, waiting for it if the log is followed.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Before the look at the file: what is written after it wakes us.
            let progress = self.live.as_mut().map(|live| *live.borrow_and_update());
            if let Some(piece) = self.piece()? {
                return Ok(Some(piece));
            }
            let (Some(progress), true) = (progress, self.left != Some(0)) else { return Ok(None) };
            if progress.rotations != self.rotations {
                self.file = File::open(&self.path)?;
                self.rotations = progress.rotations;
                continue;
            }
            if progress.closed {
                return Ok(None);
            }
            if let Some(live) = &mut self.live
                && live.changed().await.is_err()
            {
                // The writer is gone: one more look, then the end.
                self.live = None;
            }
        }
    }
}

/// Puts the file at the beginning of its last `lines` lines; returns how many it has of them.
fn seek_lines_back(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut at = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    let mut buffer = vec![0; READ_BYTES];
    // The newline at the very end ends the last line; it is one more to pass.
    let mut newlines = 0;
    while at > 0 {
        let take = usize::try_from(at).unwrap_or(READ_BYTES).min(READ_BYTES);
        at -= take as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut buffer[..take])?;
        for index in (0..take).rev() {
            if buffer[index] == b'\n' {
                newlines += 1;
                if newlines > lines {
                    file.seek(SeekFrom::Start(at + index as u64 + 1))?;
                    return Ok(lines);
                }
                found = newlines;
            }
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

impl PodLogs for Logs {
    fn open(
        &self,
        pod: Value,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<LogStream, Status>> {
        let stream = self.open_now(pod, &options);
        async move { stream }.boxed()
    }
}

impl Logs {
    fn open_now(&self, pod: Value, options: &LogOptions) -> Result<LogStream, Status> {
        let pod = Pod::of(Arc::new(pod));
        let container = choose_container(&pod, options)?;
        if !pod.is_process() {
            let text = format!(
                "This Pod is hollow: no process runs for image {:?}, so that there is no log.\n",
                pod.main.iter().find(|c| c.name == container).map_or("", |c| &c.image)
            );
            return Ok(stream::iter([Ok(Bytes::from(text))]).boxed());
        }
        let reader = match self.read(&pod.uid, &container, options) {
            Ok(reader) => reader,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Status::bad_request(if options.previous {
                    format!(
                        "previous terminated container {container:?} in pod {:?} not found",
                        pod.name
                    )
                } else {
                    format!(
                        "container {container:?} in pod {:?} is waiting to start: {}",
                        pod.name,
                        waiting_reason(&pod, &container)
                    )
                }));
            }
            Err(error) => {
                return Err(Status::internal(format!("cannot read the log: {error}")));
            }
        };
        Ok(stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let statuses = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let mut all = statuses.iter().flat_map(|path| object::list(&pod.raw, path));
    let status = all.find(|status| object::text(status, "/name") == container);
    let reason = status.map(|s| object::text(s, "/state/waiting/reason")).unwrap_or_default();
    if reason.is_empty() { "ContainerCreating".to_owned() } else { reason.to_owned() }
}

fn choose_container(pod: &Pod, options: &LogOptions) -> Result<String, Status> {
    let names: Vec<&str> = pod.init.iter().chain(&pod.main).map(|c| c.name.as_str()).collect();
    let wanted = options.container.as_deref().filter(|name| !name.is_empty());
    let marked = object::annotation(&pod.raw, DEFAULT_CONTAINER).filter(|n| names.contains(n));
    match (wanted, marked, pod.main.as_slice()) {
        (Some(wanted), ..) if names.contains(&wanted) => Ok(wanted.to_owned()),
        (Some(wanted), ..) => Err(Status::bad_request(format!(
            "container {wanted} is not valid for pod {}",
            pod.name
        ))),
        (None, Some(marked), _) => Ok(marked.to_owned()),
        (None, None, [only]) => Ok(only.name.clone()),
        (None, None, _) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            pod.name,
            names.join(" ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [
            {"name": "c", "image": "portolan.dev/process"}]}})
    }

    async fn shown(logs: &Logs, options: LogOptions) -> String {
        let mut stream = logs.open(pod(), options).await.unwrap();
        let mut text = Vec::new();
        while let Some(piece) = stream.next().await {
            text.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    fn options(change: impl FnOnce(&mut LogOptions)) -> LogOptions {
        let mut options = LogOptions::default();
        change(&mut options);
        options
    }

    #[tokio::test]
    async fn what_was_printed_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned(), LOG_BYTES_DEFAULT);
        let mut writer = logs.create("u", "c").unwrap();
        writer.append(b"one\ntw").unwrap();
        writer.append(b"o\n\nfour").unwrap();
        assert_eq!(shown(&logs, LogOptions::default()).await, "one\ntwo\n\n");
        drop(writer);
        for (change, expected) in [
            (options(|_| {}), "one\ntwo\n\nfour"),
            (options(|o| o.tail_lines = Some(2)), "\nfour"),
            (options(|o| o.tail_lines = Some(9)), "one\ntwo\n\nfour"),
            (options(|o| o.tail_lines = Some(0)), ""),
            (options(|o| o.limit_bytes = Some(5)), "one\nt"),
            (options(|o| o.since = Some(Duration::from_secs(3600))), "one\ntwo\n\nfour"),
            (options(|o| o.since_unix_seconds = Some(4_000_000_000)), ""),
            (options(|o| o.container = Some("c".into())), "one\ntwo\n\nfour"),
            (options(|o| o.follow = true), "one\ntwo\n\nfour"),
        ] {
            assert_eq!(shown(&logs, change.clone()).await, expected, "{change:?}");
        }
        let stamped =
            shown(&logs, options(|o| (o.timestamps, o.tail_lines) = (true, Some(3)))).await;
        let (time, text) = stamped.lines().next().unwrap().split_once(' ').unwrap();
        assert_eq!((time.len(), text), ("2026-11-21T08:25:58.123456789Z".len(), "two"));
        assert_eq!(logs.tail("u", "c", 1), "four");
    }

    #[tokio::test]
    async fn runs_and_refusals() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned(), LOG_BYTES_DEFAULT);
        let refusal =
            |logs: &Logs, change: LogOptions| logs.open_now(pod(), &change).err().unwrap();
        let waiting = refusal(&logs, LogOptions::default());
        assert_eq!(
            waiting.message,
            "container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
        );
        for run in 0..4 {
            logs.create("u", "c").unwrap().append(format!("run {run}\n").as_bytes()).unwrap();
        }
        assert_eq!(shown(&logs, LogOptions::default()).await, "run 3\n");
        assert_eq!(shown(&logs, options(|o| o.previous = true)).await, "run 2\n");
        assert_eq!(runs(&logs.folder("u", "c")), [2, 3]);
        let strange = refusal(&logs, options(|o| o.container = Some("x".into())));
        assert_eq!(strange.message, "container x is not valid for pod p");
        logs.remove("u");
        assert_eq!(refusal(&logs, LogOptions::default()).code, 400);
        assert!(!folder.path().join("u/logs").exists());
    }

    #[tokio::test]
    async fn followed_through_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned(), 100);
        let mut writer = logs.create("u", "c").unwrap();
        let mut stream = logs.open(pod(), options(|o| o.follow = true)).await.unwrap();
        let mut expected = String::new();
        let mut text = String::new();
        for number in 0..20 {
            let line = format!("line {number}\n");
            writer.append(line.as_bytes()).unwrap();
            expected.push_str(&line);
            while text != expected {
                text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
            }
        }
        drop(writer);
        assert!(stream.next().await.is_none());
        assert!(rotated(&path_of(&logs.folder("u", "c"), 0)).exists());
        let tail = shown(&logs, options(|o| o.tail_lines = Some(5))).await;
        assert_eq!(tail, "line 15\nline 16\nline 17\nline 18\nline 19\n");
    }

    #[test]
    fn long_lines_are_cut_and_joined_again() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned(), LOG_BYTES_DEFAULT);
        let long = "x".repeat(3 * LINE_BYTES_MAX + 1);
        let mut writer = logs.create("u", "c").unwrap();
        writer.append(long.as_bytes()).unwrap();
        writer.append(b"\nend\n").unwrap();
        drop(writer);
        let stored = fs::read_to_string(path_of(&logs.folder("u", "c"), 0)).unwrap();
        assert_eq!(stored.lines().count(), 5);
        assert_eq!(logs.tail("u", "c", 100), format!("{long}\nend\n"));
    }

    #[test]
    fn names_stay_in_their_folder() {
        for (name, expected) in
            [("web-1", "web-1"), ("../x", "_.._x"), ("..", "_.."), ("", "_"), ("a/b", "a_b")]
        {
            assert_eq!(safe(name), expected);
        }
    }
}
