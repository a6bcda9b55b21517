//! What a process uses, by /proc.

use std::{collections::BTreeMap, fs, io, time::Duration};

/// Processor time, by the names of threads.
#[derive(Clone, Debug, Default)]
pub struct CpuTime(BTreeMap<String, Duration>);

impl CpuTime {
    /// What a process and its children have used until now: to the nanosecond, where
    /// `/proc/PID/stat` counts in hundredths of a second.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut time = Self::default();
        time.add(pid)?;
        Ok(time)
    }

    fn add(&mut self, pid: u32) -> io::Result<()> {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let read = |file: &str| fs::read_to_string(task.join(file));
            // A thread may end meanwhile.
            let (Ok(name), Ok(text)) = (read("comm"), read("schedstat")) else { continue };
            let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
            *self.0.entry(name.trim_end().to_owned()).or_default() +=
                Duration::from_nanos(ns.unwrap_or_default());
            let children = read("children").unwrap_or_default();
            for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
                self.add(child).ok();
            }
        }
        Ok(())
    }

    /// What was used since then.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (name, time) in &mut self.0 {
            *time = time.saturating_sub(before.thread(name));
        }
        self
    }

    /// Of all threads.
    pub fn total(&self) -> Duration {
        self.0.values().sum()
    }

    /// Of the threads of a name.
    pub fn thread(&self, name: &str) -> Duration {
        self.0.get(name).copied().unwrap_or_default()
    }
}

/// Processor time that a process and its children have used until now.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    Ok(CpuTime::of(pid)?.total())
}

/// Resident memory of a process: now, and at its highest.
pub fn resident_kib(pid: u32) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|kib| kib.parse().ok()).unwrap_or_default()
    };
    Ok((field("VmRSS:"), field("VmHWM:")))
}
