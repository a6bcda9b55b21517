//! The Pod network of namespaces: a small machine inside the machine.
//!
//! ```text
//!  machine                 node (a network namespace of this process)
//!  127.0.0.1:7443 ──────▶  the API, DNS and proxy: everything of `up`
//!                          virtual IPs, all local    portolan0 (a bridge, first Pod address)
//!                                                       │ veth        │ veth
//!                                                    Pod: eth0     Pod: eth0   (its own
//!                                                    containers    containers   namespaces)
//! ```
//!
//! [`enter`] moves the whole process into a namespace of its own before it has
//! a second thread, so every socket that it opens later is the node's. Nothing
//! of the Pod network exists in the machine's own namespace: no bridge, no
//! route, no address. What people reach from outside are sockets that were
//! bound before and that pass connections on (the binary does that).
//!
//! A Pod's namespaces belong to its *holder*, a process that does nothing but
//! wait for the kubelet's end. No namespace has a name in a file system, and
//! links live in them: when the kubelet ends, however it ends, holders and
//! containers end with it, and the kernel takes away all that was made.
//!
//! Rejected: threads that enter the node one by one (each socket would have to
//! know which thread may open it), and named namespaces (they outlive us).

use std::{
    collections::HashMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use portolan_apiserver::registry::Cidr;
use rustix::{
    process::{getgid, getuid},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use super::{
    enclosure::{self, unshare},
    process::Shim,
    supervise::HOLD_WORD,
};
use crate::fixed::{API_ADDRESS_OFFSET, DNS_ADDRESS_OFFSET};

/// The bridge that Pods are on.
const BRIDGE: &str = "portolan0";

/// Where the node is in the range of Pods.
const NODE_ADDRESS_OFFSET: u128 = 1;

/// The tool that makes links, addresses and routes (iproute2).
const IP: &str = "ip";

/// Why there is no such network.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The kernel refuses.
    #[error(
        "cannot make a network namespace (run as root, or where users may make user \
         namespaces, see user_namespaces(7), or leave out --pod-network netns)"
    )]
    Refused(#[source] io::Error),
    /// A step of the setup failed.
    #[error("cannot set up the network of Pods")]
    SetUp(#[source] io::Error),
    /// No IPv4 range.
    #[error("--pod-network netns needs an IPv4 range of Pods and one of Services")]
    NoRange,
}

/// The ranges and names of the node's network.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses of Pods.
    pub pods: Vec<Cidr>,
    /// Virtual IPs.
    pub services: Vec<Cidr>,
    /// The domain of cluster names.
    pub cluster_domain: String,
}

/// Moves the process into a network namespace of its own, as root or as the
/// root of a new user namespace, and makes the node there. Must be called
/// before the process has a second thread.
pub fn enter(plan: Plan) -> Result<Arc<Node>, NetnsError> {
    let node = plan.pods.first().and_then(|range| range.nth(NODE_ADDRESS_OFFSET));
    let (Some(address), Some(services)) = (node, plan.services.first()) else {
        return Err(NetnsError::NoRange);
    };
    let (Some(api), Some(dns)) =
        (services.nth(API_ADDRESS_OFFSET), services.nth(DNS_ADDRESS_OFFSET))
    else {
        return Err(NetnsError::NoRange);
    };
    let users = unshare(UnshareFlags::NEWNET).is_err();
    if users {
        become_root_of_user_namespace().map_err(NetnsError::Refused)?;
    }
    let mut script = format!("link set lo up\nlink add {BRIDGE} type bridge\n");
    for range in &plan.pods {
        if let Some(gateway) = range.nth(NODE_ADDRESS_OFFSET) {
            script += &format!("addr add {gateway}/{} dev {BRIDGE}", range.prefix());
            script += if gateway.is_ipv6() { " nodad\n" } else { "\n" };
        }
    }
    script += &format!("link set {BRIDGE} up\n");
    for range in &plan.services {
        let family = if range.base().is_ipv6() { "-6 " } else { "" };
        // All of the range is this machine's, so that the proxy may bind any of it.
        script += &format!("{family}route add local {range} dev lo\n");
    }
    ip(None, &script).map_err(NetnsError::SetUp)?;
    let (pods, links) = (Mutex::default(), AtomicU32::new(0));
    Ok(Arc::new(Node { plan, users, address, api, dns, pods, links }))
}

/// Without privilege: the user becomes root in a user namespace, over
/// namespaces that are made with it.
fn become_root_of_user_namespace() -> io::Result<()> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
    // Without this the kernel lets nobody map groups (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Runs `ip` commands, one a line, in our namespace or in that of a process.
fn ip(of: Option<u32>, script: &str) -> io::Result<()> {
    let mut command = match of {
        None => Command::new(IP),
        Some(holder) => {
            let mut command = Command::new(NSENTER);
            command.arg(format!("--net=/proc/{holder}/ns/net")).arg(IP);
            command
        }
    };
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| {
            let program = command.get_program().to_string_lossy();
            let text = format!("{program}: {error}; it comes with iproute2 (nsenter: util-linux)");
            io::Error::new(error.kind(), text)
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip: {} (of {script:?})", said.trim())))
}

/// What a Pod has of the network.
#[derive(Debug)]
enum Attachment {
    /// Namespaces of its own.
    Held(Child),
    /// Addresses at which the node answers for it.
    Local(Vec<IpAddr>),
}

/// What is asked of the network for one Pod.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) uid: String,
    pub(crate) hostname: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it has processes, which need namespaces.
    pub(crate) processes: bool,
}

/// Longest wait for a port of a Pod. Its localhost is on this machine.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The tool that enters a namespace (util-linux).
const NSENTER: &str = "nsenter";

/// The node: this process's network namespace and the Pods attached to it.
#[derive(Debug)]
pub struct Node {
    plan: Plan,
    /// Whether it is in a user namespace of its own.
    users: bool,
    address: IpAddr,
    api: IpAddr,
    dns: IpAddr,
    pods: Mutex<HashMap<String, Attachment>>,
    links: AtomicU32,
}

impl Node {
    /// Whether the process had to become root of a user namespace.
    pub fn has_users(&self) -> bool {
        self.users
    }

    /// The node's address among those of Pods.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The virtual IP of the API.
    pub fn api(&self) -> IpAddr {
        self.api
    }

    /// The virtual IP of the DNS server.
    pub fn dns(&self) -> IpAddr {
        self.dns
    }

    /// The domain of cluster names.
    pub(crate) fn cluster_domain(&self) -> &str {
        &self.plan.cluster_domain
    }

    /// Addresses among those of Pods that are the node's.
    pub(crate) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.plan.pods.iter().filter_map(|range| range.nth(NODE_ADDRESS_OFFSET))
    }

    /// The process that holds a Pod's namespaces.
    pub(crate) fn holder(&self, uid: &str) -> Option<u32> {
        match self.pods().get(uid) {
            Some(Attachment::Held(holder)) => Some(holder.id()),
            _ => None,
        }
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<String, Attachment>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attach(&self, wanted: &Wanted, shim: &Shim) -> io::Result<()> {
        if self.pods().contains_key(&wanted.uid) {
            return Ok(());
        }
        let attachment = if wanted.processes {
            Attachment::Held(self.hold(wanted, shim)?)
        } else {
            ip(None, &local_routes("replace", &wanted.addresses))?;
            Attachment::Local(wanted.addresses.clone())
        };
        self.pods().insert(wanted.uid.clone(), attachment);
        Ok(())
    }

    /// Makes the namespaces of a Pod and connects them.
    fn hold(&self, wanted: &Wanted, shim: &Shim) -> io::Result<Child> {
        let mut holder = Command::new(&shim.program)
            .args(&shim.args)
            .arg(HOLD_WORD)
            .arg(&wanted.hostname)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let made = self.connect(&mut holder, &wanted.addresses);
        if made.is_err() {
            end(holder);
            return made.and(Err(io::ErrorKind::Other.into()));
        }
        Ok(holder)
    }

    fn connect(&self, holder: &mut Child, addresses: &[IpAddr]) -> io::Result<()> {
        let mut word = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut word)?;
        }
        if word.trim_end() != READY {
            return Err(io::Error::other(format!("namespaces of a Pod: {}", word.trim_end())));
        }
        let pid = holder.id();
        let link = format!("pod{}", self.links.fetch_add(1, Ordering::Relaxed));
        ip(
            None,
            &format!(
                "link add {link} type veth peer name eth0 netns {pid}\n\
                 link set {link} master {BRIDGE} up\n"
            ),
        )?;
        let mut script = "link set lo up\nlink set eth0 up\n".to_owned();
        for address in addresses {
            let range = self.plan.pods.iter().find(|range| range.contains(*address));
            let Some(range) = range else { continue };
            let Some(gateway) = range.nth(NODE_ADDRESS_OFFSET) else { continue };
            let (nodad, family) = if address.is_ipv6() { (" nodad", "-6 ") } else { ("", "") };
            script += &format!("addr add {address}/{} dev eth0{nodad}\n", range.prefix());
            script += &format!("{family}route add default via {gateway}\n");
        }
        ip(Some(pid), &script)
    }

    pub(crate) fn detach(&self, uid: &str) {
        let attachment = self.pods().remove(uid);
        match attachment {
            Some(Attachment::Held(holder)) => end(holder),
            Some(Attachment::Local(addresses)) => {
                if let Err(error) = ip(None, &local_routes("del", &addresses)) {
                    tracing::warn!(%error, "the address of a Pod stays behind");
                }
            }
            None => {}
        }
    }
}

/// Connects to a port of a Pod's localhost. A network namespace is a thread's
/// own: one is started for this, and ends with it.
pub(crate) fn connect(holder: u32, port: u16) -> io::Result<TcpStream> {
    let inside = move || {
        let link = fs::File::open(format!("/proc/{holder}/ns/net"))?;
        move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))?;
        let at = |ip: IpAddr| TcpStream::connect_timeout(&(ip, port).into(), CONNECT_MAX);
        at(Ipv4Addr::LOCALHOST.into()).or_else(|first| {
            // Where there is no IPv6, what IPv4 said is what people want to know.
            at(Ipv6Addr::LOCALHOST.into()).map_err(|_| first)
        })
    };
    let thread = std::thread::Builder::new().name("port-forward".to_owned()).spawn(inside)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

fn local_routes(verb: &str, addresses: &[IpAddr]) -> String {
    let line = |address: &IpAddr| {
        let (family, width) = if address.is_ipv6() { ("-6 ", 128) } else { ("", 32) };
        format!("{family}route {verb} local {address}/{width} dev lo\n")
    };
    addresses.iter().map(line).collect()
}

/// Ends a holder: the end of its standard input is its sign.
fn end(mut holder: Child) {
    drop(holder.stdin.take());
    if let Err(error) = holder.wait() {
        tracing::warn!(%error, "the holder of a Pod's namespaces");
    }
}

/// What a holder says when its namespaces are there.
const READY: &str = "ready";

/// The holder: makes the namespaces, then waits until the kubelet closes its
/// standard input or ends.
pub(crate) fn hold(hostname: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    let made = enclosure::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWUTS)
        .and_then(|()| Ok(rustix::system::sethostname(hostname.as_bytes())?));
    match made {
        Ok(()) => writeln!(stdout, "{READY}")?,
        Err(error) => writeln!(stdout, "{error}")?,
    }
    stdout.flush()?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_pods_without_processes() {
        let addresses = ["10.244.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(
            local_routes("replace", &addresses),
            "route replace local 10.244.0.7/32 dev lo\n-6 route replace local fd00::7/128 dev lo\n"
        );
    }
}
