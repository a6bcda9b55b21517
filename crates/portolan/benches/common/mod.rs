//! A Portolan to measure, and figures as JSON lines.

#![allow(dead_code, clippy::print_stdout, clippy::unwrap_used)]

pub(crate) mod cluster;

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::{Child, Command},
    time::Duration,
};

use portolan_wire::Addresses;
use rustix::process::{Resource, getrlimit, setrlimit};

/// A Portolan at work.
pub(crate) struct Up {
    child: Child,
    pub(crate) addresses: Addresses,
    socket: UdpSocket,
    folder: tempfile::TempDir,
}

/// Starts one in memory, on free ports.
pub(crate) fn up() -> Up {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "up",
        "--ephemeral",
        "-o=json",
        "--api-listen=127.0.0.1:0",
        "--dns-listen=127.0.0.1:0",
        "--http-listen=127.0.0.1:0",
        "--xds-listen=127.0.0.1:0",
    ];
    let (child, addresses) =
        cluster::spawn(&[&args[..], &cluster::RANGES].concat(), &folder.path().join("data"));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(addresses.dns.as_deref().unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    Up { child, addresses, socket, folder }
}

impl Up {
    /// The IPv4 addresses behind a name, by one UDP query.
    pub(crate) fn lookup(&self, name: &str) -> Vec<Ipv4Addr> {
        lookup(&self.socket, name)
    }

    /// A kubectl command.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(args)
            .env("KUBECONFIG", self.addresses.kubeconfig.as_deref().unwrap())
            .env("HOME", self.folder.path());
        command
    }

    /// Resident memory of the process.
    pub(crate) fn resident_mib(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        self.child.wait().ok();
    }
}

/// The IPv4 addresses behind a name, by one UDP query.
pub(crate) fn lookup(socket: &UdpSocket, name: &str) -> Vec<Ipv4Addr> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&query).unwrap();
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).unwrap();
    let answer = &answer[..length];
    let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
    // Answers follow the question: a pointer, then type, class, TTL, length, address.
    answer[query.len()..]
        .chunks(16)
        .take(count)
        .filter(|record| record.len() == 16 && record[3] == 1)
        .map(|record| Ipv4Addr::new(record[12], record[13], record[14], record[15]))
        .collect()
}

/// One figure.
pub(crate) fn report(name: &str, value: f64, unit: &str) {
    println!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"}}");
}

/// The value that so many percent do not exceed.
pub(crate) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = (last as f64 * percent / 100.0).ceil() as usize;
    values[index.min(last)]
}

/// One socket each for thousands of processes.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
