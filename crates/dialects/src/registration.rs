//! One service of one process, whatever dialect it was written in.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use portolan_model::{Code, Endpoint, Reason};

use crate::WRITE_BYTES_MAX;

/// Parameters that have a field of their own, so `params` may not hold them.
pub(crate) const OWN_PARAMS: [&str; 3] = ["methods", "weight", "zone"];

/// One service of one process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registration {
    /// Group, where the framework has such.
    pub group: Option<String>,
    /// The interface: the name of the service.
    pub interface: String,
    /// Version of the interface.
    pub version: Option<String>,
    /// What is spoken: `http`, `grpc`, `dubbo`, ...
    pub protocol: String,
    /// Where the process listens.
    pub address: IpAddr,
    /// On which port; never 0.
    pub port: u16,
    /// Path below the address; empty, or beginning with `/`.
    pub path: String,
    /// Methods that it offers.
    pub methods: Vec<String>,
    /// Share of traffic; 100 is the usual one, 0 takes none.
    pub weight: u32,
    /// Zone, where the process knows it.
    pub zone: Option<String>,
    /// What the process says of itself, or its container shows.
    pub standing: Standing,
    /// Anything else.
    pub params: BTreeMap<String, String>,
}

/// What is said of a process beside what the Pod says of itself: by its native record, its
/// container, or an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// As the Pod.
    #[default]
    Up,
    /// It will take calls later.
    Starting,
    /// It takes no new calls, and ends those that it has.
    Draining,
    /// It is out of service, by its own word.
    OutOfService,
    /// An operator has switched it off, whatever it and its Pod say.
    SwitchedOff,
    /// Its container does not run, or is another than the one that registered, or its health
    /// checks fail.
    Down,
}

/// Why registrations were not written. Nothing was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// One registration cannot be written so that it reads back the same.
    #[error("registration of {interface:?}: {problem}")]
    Invalid {
        /// Whose.
        interface: String,
        /// What is wrong.
        problem: String,
    },
    /// All together are more than one Pod may carry.
    #[error("the registrations take {bytes} bytes; a Pod may carry {WRITE_BYTES_MAX}")]
    TooLarge {
        /// What they take.
        bytes: usize,
    },
    /// The record of one owner is larger than its share of what a Pod may carry.
    #[error("the record takes {bytes} bytes; one owner may write {max}")]
    RecordTooLarge {
        /// What it takes.
        bytes: usize,
        /// What it may take.
        max: usize,
    },
}

impl Registration {
    /// The least that a registration says.
    pub fn new(interface: &str, protocol: &str, at: SocketAddr) -> Self {
        Self {
            group: None,
            interface: interface.to_owned(),
            version: None,
            protocol: protocol.to_owned(),
            address: at.ip(),
            port: at.port(),
            path: String::new(),
            methods: Vec::new(),
            weight: Endpoint::DEFAULT_WEIGHT,
            zone: None,
            standing: Standing::Up,
            params: BTreeMap::new(),
        }
    }

    /// Where the process listens.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// `group/version`, what tells apart the registrations of one process under
    /// one interface; `None` when it names neither.
    pub fn discriminator(&self) -> Option<String> {
        if self.group.is_none() && self.version.is_none() {
            return None;
        }
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        Some(format!("{}/{}", text(&self.group), text(&self.version)))
    }

    /// Which service it is, and where.
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            group: self.group.as_deref(),
            interface: &self.interface,
            version: self.version.as_deref(),
            protocol: &self.protocol,
            address: self.socket_address(),
        }
    }

    /// Whether both are the same service at the same place: then the later one
    /// replaces the earlier.
    pub fn replaces(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// Whether it says all that the other one says, and maybe more.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let Self { params, .. } = self;
        let same = Self { params: other.params.clone(), ..self.clone() };
        let mut has = other.params.iter().filter(|(_, value)| !value.is_empty());
        same == *other && has.all(|(key, value)| params.get(key) == Some(value))
    }

    /// All that it says beside address, port, weight and zone, as one map.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.params.clone();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                metadata.insert(key.to_owned(), value.to_owned());
            }
        };
        put("group", self.group.as_deref().unwrap_or_default());
        put("version", self.version.as_deref().unwrap_or_default());
        put("protocol", &self.protocol);
        put("path", &self.path);
        put("methods", &self.methods.join(","));
        metadata
    }

    /// Why a Pod with these addresses may not register it: a Pod can register
    /// only itself. A Pod whose status has no address yet cannot be ready
    /// either, so its claim waits for the status that will confirm it.
    pub fn foreign_to(&self, pod: &[IpAddr]) -> Option<Reason> {
        if pod.is_empty() || pod.contains(&self.address) {
            return None;
        }
        let own: Vec<String> = pod.iter().map(IpAddr::to_string).collect();
        let detail = format!(
            "{}: {} was registered; the Pod has {}.",
            self.interface,
            self.address,
            own.join(", ")
        );
        Some(Reason::new(Code::ADDRESS_FOREIGN, detail))
    }

    /// Refuses what would not read back the same.
    pub(crate) fn check(&self) -> Result<(), EncodeError> {
        match self.problem() {
            None => Ok(()),
            Some(reason) => Err(EncodeError::Invalid {
                interface: self.interface.clone(),
                problem: reason.detail.to_string(),
            }),
        }
    }

    /// Refuses what only native records can say.
    pub(crate) fn check_is_up(&self) -> Result<(), EncodeError> {
        match self.standing {
            Standing::Up => Ok(()),
            standing => Err(EncodeError::Invalid {
                interface: self.interface.clone(),
                problem: format!(
                    "this dialect has no word for {standing:?}; weight 0 takes no calls."
                ),
            }),
        }
    }

    /// What keeps it from being written and read back the same, if anything.
    pub fn problem(&self) -> Option<Reason> {
        let invalid = |detail: String| Some(Reason::new(Code::REGISTRATION_INVALID, detail));
        if let Err(detail) = check_interface(&self.interface) {
            return invalid(detail);
        }
        if let Err(detail) = check_protocol(&self.protocol) {
            return invalid(detail);
        }
        if self.port == 0 {
            return Some(Reason::new(Code::PORT_INVALID, "The port is 0."));
        }
        if self.group.as_deref() == Some("") || self.version.as_deref() == Some("") {
            return invalid("Group and version are absent or not empty.".into());
        }
        if !self.path.is_empty() && !self.path.starts_with('/') {
            return invalid(format!("The path {:?} does not begin with '/'.", self.path));
        }
        if self.zone.as_deref() == Some("") {
            return invalid("The zone is empty.".into());
        }
        if let Some(method) = self.methods.iter().find(|m| m.is_empty() || m.contains(',')) {
            return invalid(format!("The method {method:?} is empty or holds a ','."));
        }
        if let Some(key) =
            self.params.keys().find(|k| k.is_empty() || OWN_PARAMS.contains(&k.as_str()))
        {
            return invalid(format!("{key:?} is no name for a parameter."));
        }
        None
    }
}

/// An interface is any name without blanks and control characters.
pub(crate) fn check_interface(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("The interface is empty.".into());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("The interface {text:?} holds blanks or control characters."));
    }
    // The longest DNS name; a longer interface could not be asked for.
    if text.len() > 253 {
        return Err(format!("The interface has {} characters; 253 are the most.", text.len()));
    }
    Ok(())
}

/// A protocol is a URL scheme (RFC 3986, section 3.1).
pub(crate) fn check_protocol(text: &str) -> Result<(), String> {
    let scheme = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if scheme { Ok(()) } else { Err(format!("{text:?} is no name of a protocol.")) }
}

/// A service at a place: of two registrations for it one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place<'a> {
    group: Option<&'a str>,
    interface: &'a str,
    version: Option<&'a str>,
    protocol: &'a str,
    address: SocketAddr,
}

/// Each service at a place once: the later registration counts, at the place in
/// the order where the first one stood. Writers that append (a restarted
/// container in one Pod) leave such duplicates behind.
pub(crate) fn latest(all: Vec<Registration>) -> Vec<Registration> {
    let mut newest: Vec<usize> = Vec::with_capacity(all.len());
    let mut slots = HashMap::new();
    for (at, one) in all.iter().enumerate() {
        let slot = *slots.entry(one.place()).or_insert(newest.len());
        match newest.get_mut(slot) {
            Some(newest) => *newest = at,
            None => newest.push(at),
        }
    }
    let mut all: Vec<Option<Registration>> = all.into_iter().map(Some).collect();
    newest.into_iter().filter_map(|at| all.get_mut(at)?.take()).collect()
}
