//! What a process uses, by /proc.

use std::{fs, io, time::Duration};

/// CPU time of all threads of a process and of its children, now. In nanoseconds'
/// precision, where `/proc/PID/stat` counts in hundredths of a second.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut all = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task.join("schedstat")) else { continue };
        let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
        all += Duration::from_nanos(ns.unwrap_or_default());
        let children = fs::read_to_string(task.join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            all += cpu_time(child).unwrap_or_default();
        }
    }
    Ok(all)
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
