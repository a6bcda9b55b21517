//! Why a Pod is not Ready, in words that the rest of Portolan understands: the
//! Ready condition's message begins with the code (`PTL0201: ...; fix: ...`).

use std::net::{IpAddr, SocketAddr};

/// One reason, with its case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// CamelCase: the condition's `reason`.
    pub(crate) reason: &'static str,
    /// `PTLnnnn: text; fix: ...`.
    pub(crate) message: String,
}

impl Problem {
    /// Whether it is one of the numbered reasons.
    pub(crate) fn has_code(&self) -> bool {
        self.message.starts_with("PTL")
    }
}

fn problem(code: u16, reason: &'static str, text: &str, fix: &str) -> Problem {
    Problem { reason, message: format!("PTL{code:04}: {text}; fix: {fix}") }
}

pub(crate) fn listens_elsewhere(container: &str, found: SocketAddr, pod: IpAddr) -> Problem {
    problem(
        201,
        "ListensElsewhere",
        &format!("container {container} listens on {found}, not on its Pod's address {pod}"),
        "listen on the address in the environment variable POD_IP",
    )
}

pub(crate) fn probe_failing(container: &str, what: &str, failure: &str) -> Problem {
    problem(
        202,
        "ProbeFailing",
        &format!("the {what} probe of container {container} fails: {failure}"),
        "make the probe's path or port answer, or correct the probe",
    )
}

pub(crate) fn crash_loop(container: &str, restarts: u32, code: i32, pause_s: u64) -> Problem {
    problem(
        203,
        "CrashLoopBackOff",
        &format!(
            "container {container} ended with code {code}, restarted {restarts} times, \
             next try after a pause of {pause_s} s"
        ),
        "read its last words with kubectl logs --previous",
    )
}

pub(crate) fn start_error(container: &str, failure: &str) -> Problem {
    problem(
        204,
        "StartError",
        &format!("container {container} could not be started: {failure}"),
        "check command, args and workingDir of the container",
    )
}

pub(crate) fn not_listening(container: &str, ports: &[u16], pod: IpAddr) -> Problem {
    let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    problem(
        205,
        "NotListening",
        &format!("container {container} does not listen yet on {pod}, port {ports}"),
        "listen on containerPort at POD_IP, or correct containerPort",
    )
}

pub(crate) fn addresses_exhausted(range: &str) -> Problem {
    problem(
        206,
        "AddressesExhausted",
        &format!("no address of {range} is left"),
        "delete Pods, or start with a larger --pod-cidr",
    )
}

pub(crate) fn responder_blocked(address: IpAddr, blocked: &[(u16, String)]) -> Problem {
    let ports = blocked.iter().map(|(port, why)| format!("{port} ({why})"));
    let ports = ports.collect::<Vec<_>>().join(", ");
    problem(
        207,
        "ResponderBlocked",
        &format!("the responder of this hollow Pod cannot bind on {address}: port {ports}"),
        "use a port above 1023, or run with the privilege to bind it",
    )
}
