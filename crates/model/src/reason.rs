//! Reason codes: why something is not served, and how to mend it.
//!
//! One table holds every code that Portolan can give. A code is never reused;
//! its number says where on the ladder it belongs: 00 the object, 01 the
//! service and its endpoints, 02 the process, 03 the faces, 04 the cluster.

use std::{fmt, sync::Arc};

use crate::Name;

/// The rungs that an instance climbs until programs can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// A source has told of it.
    Seen,
    /// What it says of itself could be read.
    Parsed,
    /// It belongs to a service.
    Matched,
    /// It is ready to take traffic.
    Ready,
    /// The catalog hands it out.
    Published,
    /// Every face has acknowledged that.
    Acknowledged,
}

impl Stage {
    /// From first to last.
    pub const LADDER: [Stage; 6] = [
        Stage::Seen,
        Stage::Parsed,
        Stage::Matched,
        Stage::Ready,
        Stage::Published,
        Stage::Acknowledged,
    ];

    /// As `why` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Parsed => "parsed",
            Self::Matched => "matched",
            Self::Ready => "ready",
            Self::Published => "published",
            Self::Acknowledged => "acknowledged",
        }
    }
}

/// A code, `PTLnnnn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

/// What is always true of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// The code.
    pub code: Code,
    /// One CamelCase word, as Kubernetes conditions use.
    pub name: &'static str,
    /// The rung that it stops at.
    pub stage: Stage,
    /// What it means, in one sentence.
    pub text: &'static str,
    /// What to do.
    pub fix: &'static str,
}

macro_rules! codes {
    ($($constant:ident = $number:literal, $name:literal, $stage:ident, $text:literal, $fix:literal;)*) => {
        impl Code {
            $(#[doc = $text] pub const $constant: Code = Code($number);)*
        }

        /// Every code, in order.
        pub const CODES: &[CodeInfo] = &[
            $(CodeInfo {
                code: Code($number), name: $name, stage: Stage::$stage, text: $text, fix: $fix,
            },)*
        ];
    };
}

codes! {
    ANNOTATION_UNREADABLE = 1, "AnnotationUnreadable", Parsed,
        "The registration annotation does not decode.",
        "Write base64 of a JSON array of {\"k\":...,\"v\":...}, or let the SDK write it.";
    REGISTRATION_INVALID = 2, "RegistrationInvalid", Parsed,
        "One entry of the registration is not usable.",
        "Write k as [group/]interface[:version] and v as protocol://address:port[/path][?key=value].";
    ADDRESS_FOREIGN = 3, "AddressForeign", Parsed,
        "The registered address is not an address of the Pod.",
        "Register the address that the Pod was given (POD_IP).";
    NAME_INVALID = 4, "NameInvalid", Parsed,
        "The name is no DNS name.",
        "Use lower-case letters, digits, '-' and '.', at most 63 characters a label.";
    PORT_INVALID = 5, "PortInvalid", Parsed,
        "A port is not between 1 and 65535.",
        "Give a port between 1 and 65535.";
    ADDRESS_INVALID = 6, "AddressInvalid", Parsed,
        "An address is no IP address of the slice's address type.",
        "Give an IP address of the family that the EndpointSlice names.";
    FILE_UNREADABLE = 7, "FileUnreadable", Parsed,
        "A static list could not be read; its last good state is kept.",
        "Mend the file; it is read again when it changes.";
    NAME_FOLDS = 8, "NameFolds", Matched,
        "Two services differ only in the case of their names, so DNS cannot tell them apart.",
        "Rename one of them.";
    OBJECT_UNREADABLE = 9, "ObjectUnreadable", Parsed,
        "The object does not have the shape of its kind.",
        "Correct the field that the message names.";
    NO_SERVICE = 101, "NoService", Matched,
        "No service lists this Pod: no selector matches its labels and it registered nothing.",
        "Create a Service whose selector matches the Pod's labels, or register the process.";
    SERVICE_MISSING = 102, "ServiceMissing", Matched,
        "Endpoints name a service that does not exist.",
        "Create the Service, or delete the EndpointSlice.";
    NOT_READY = 103, "NotReady", Ready,
        "The Pod is not ready.",
        "Look at the Pod's Ready condition and its readiness probe: kubectl describe pod.";
    TERMINATING = 104, "Terminating", Ready,
        "The Pod is being deleted; it finishes what it has and takes nothing new.",
        "Nothing to mend: wait for its replacement.";
    NO_ENDPOINTS = 105, "NoEndpoints", Matched,
        "The service has no endpoints.",
        "Check that Pods exist whose labels match the selector: kubectl get pods -l SELECTOR.";
    WEIGHT_ZERO = 106, "WeightZero", Published,
        "The instance asked for no traffic (weight 0).",
        "Register it with a weight above 0.";
    DUPLICATE_ADDRESS = 107, "DuplicateAddress", Published,
        "Another endpoint of the service has the same address and ports.",
        "Remove one of the two.";
    PHASE_ENDED = 108, "PhaseEnded", Ready,
        "The Pod has ended (phase Succeeded or Failed).",
        "Start it again: its owner does so when restartPolicy is Always.";
    DECLARED_TWICE = 109, "DeclaredTwice", Matched,
        "Another source declares the same service; the first by name counts.",
        "Give the source a name of its own, or remove one declaration.";
    PORT_UNKNOWN = 110, "PortUnknown", Matched,
        "Nothing is offered on this port.",
        "Use one of the ports that are offered, or add the port to the Service.";
    NO_LOCAL_ENDPOINT = 111, "NoLocalEndpoint", Published,
        "The service keeps traffic on the client's node (policy Local), and has no endpoint there.",
        "Run a Pod of the service on that node, or set internalTrafficPolicy: Cluster.";
    REGISTRATION_STALE = 112, "RegistrationStale", Ready,
        "The container does not run, or was started again after the process had registered.",
        "Nothing, if the process registers when it is up again; else see why it ended: kubectl logs POD --previous.";
    SWITCHED_OFF = 113, "SwitchedOff", Ready,
        "An operator switched the instance off (annotation portolan.dev/override on its Pod).",
        "Take the annotation away: kubectl annotate pod POD portolan.dev/override-";
    OVERRIDE_INVALID = 114, "OverrideInvalid", Parsed,
        "The annotation portolan.dev/override says nothing that can be done.",
        "Write disabled or draining for all that the Pod registered, or SERVICE=disabled,SERVICE=draining.";
    LISTENS_ELSEWHERE = 201, "ListensElsewhere", Ready,
        "The process listens on another address than its Pod's.",
        "Listen on the address in the environment variable POD_IP.";
    PROBE_FAILING = 202, "ProbeFailing", Ready,
        "The readiness probe fails.",
        "Make the probe's path or port answer, or correct the probe.";
    CRASH_LOOP = 203, "CrashLoopBackOff", Ready,
        "The process keeps ending and is restarted with growing pauses.",
        "Read its last words: kubectl logs POD --previous.";
    START_ERROR = 204, "StartError", Ready,
        "The process could not be started.",
        "Check command, args and workingDir of the container.";
    NOT_LISTENING = 205, "NotListening", Ready,
        "The process does not listen on its declared port yet.",
        "Listen on containerPort at POD_IP, or correct containerPort.";
    ADDRESSES_EXHAUSTED = 206, "AddressesExhausted", Seen,
        "No Pod address is left.",
        "Delete Pods, or start with a larger --pod-cidr.";
    RESPONDER_BLOCKED = 207, "ResponderBlocked", Ready,
        "The responder of a hollow Pod cannot bind one of its ports.",
        "Use a port above 1023, or run with the privilege to bind it.";
    PORT_PRIVILEGED = 301, "PortPrivileged", Acknowledged,
        "The virtual IP's port needs a privilege to be bound.",
        "Use a port above 1023, grant CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start.";
    PORT_TAKEN = 302, "PortTaken", Acknowledged,
        "The virtual IP's port is taken by another process.",
        "Stop the process that holds it: ss -ltnp 'sport = :PORT'.";
    ADDRESS_NOT_LOCAL = 303, "AddressNotLocal", Acknowledged,
        "The virtual IP cannot be bound on this machine.",
        "Choose a --service-cidr inside 127.0.0.0/8, or run without the proxy.";
    TRANSPORT_UNSUPPORTED = 304, "TransportUnsupported", Acknowledged,
        "The proxy does not carry this transport.",
        "Use TCP or UDP.";
    PORT_FAILED = 305, "PortFailed", Acknowledged,
        "The virtual IP's port could not be opened.",
        "Mend what the system says; for too many open files, raise the limit (ulimit -n) and start again.";
    FACE_ABSENT = 306, "FaceAbsent", Acknowledged,
        "No member of this face is at work.",
        "Start the face, or ask without it: leave it out of --on.";
    LISTENER_CONFLICT = 307, "ListenerConflict", Acknowledged,
        "Proxies that bind ports on their own address have one listener for the number, and another service has it.",
        "Name the protocol of both ports (HTTP services share a port, TLS services too), give one another number, or let proxies intercept.";
}

impl Code {
    /// The number behind `PTL`.
    pub fn number(self) -> u16 {
        self.0
    }

    /// What is always true of it.
    pub fn info(self) -> &'static CodeInfo {
        // Every Code is made by the table or by `parse`, which looks it up.
        CODES.iter().find(|info| info.code == self).unwrap_or(&CODES[0])
    }

    /// Reads `PTLnnnn`; `None` when no such code exists.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("PTL").or_else(|| text.strip_prefix("ptl"))?;
        if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: u16 = digits.parse().ok()?;
        CODES.iter().map(|info| info.code).find(|code| code.0 == number)
    }

    /// The code that a message begins with, as conditions of the embedded
    /// cluster's Pods do: `PTL0201: ...`.
    pub fn leading(message: &str) -> Option<Self> {
        message.get(..7).and_then(Self::parse)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTL{:04}", self.0)
    }
}

/// A code, with what is special about this case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The code.
    pub code: Code,
    /// The case: a decoder's message, a condition's text. May be empty.
    pub detail: Name,
}

impl Reason {
    /// A code in this case.
    pub fn new(code: Code, detail: impl AsRef<str>) -> Self {
        Self { code, detail: Arc::from(detail.as_ref()) }
    }

    /// The code alone.
    pub fn plain(code: Code) -> Self {
        Self::new(code, "")
    }

    /// What it means here, in one sentence and the case.
    pub fn text(&self) -> String {
        let text = self.code.info().text;
        if self.detail.is_empty() { text.to_owned() } else { format!("{} {}", text, self.detail) }
    }

    /// What to do.
    pub fn fix(&self) -> &'static str {
        self.code.info().fix
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ordered_and_unique() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        let mut names: Vec<_> = CODES.iter().map(|info| info.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn text_and_back() {
        for info in CODES {
            assert_eq!(Code::parse(&info.code.to_string()), Some(info.code));
            assert_eq!(info.code.info(), info);
        }
        assert_eq!(Code::parse("PTL9999"), None);
        assert_eq!(Code::parse("PTL1"), None);
        assert_eq!(Code::parse("PTL+001"), None);
        assert_eq!(Code::leading("PTL0201: listens"), Some(Code::LISTENS_ELSEWHERE));
        assert_eq!(Code::leading("no"), None);
    }
}
