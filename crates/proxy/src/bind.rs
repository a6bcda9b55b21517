//! Binding fronts, and what a refusal of the system means.

use std::io::{self, ErrorKind};

use portolan_model::{Code, Reason};
use socket2::{Domain, Protocol, Socket, Type};

use crate::plan::Front;

/// Connections that wait to be accepted; the kernel's own default limit
/// (net.core.somaxconn) is 4096.
pub(crate) const BACKLOG: i32 = 1024;

/// Binds a TCP front. It does not listen yet: a bound socket that does not
/// listen keeps the port, and the kernel refuses connections to it, which is
/// what a service without endpoints owes its clients.
pub(crate) fn tcp(front: Front) -> io::Result<Socket> {
    let socket = socket(front, Type::STREAM, Protocol::TCP)?;
    // Past connections in TIME_WAIT must not keep the port from us. Another
    // listener still does.
    socket.set_reuse_address(true)?;
    socket.bind(&front.address.into())?;
    Ok(socket)
}

/// Binds a UDP front.
pub(crate) fn udp(front: Front) -> io::Result<tokio::net::UdpSocket> {
    let socket = socket(front, Type::DGRAM, Protocol::UDP)?;
    socket.bind(&front.address.into())?;
    tokio::net::UdpSocket::from_std(socket.into())
}

fn socket(front: Front, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(front.address), kind, Some(protocol))?;
    if front.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Why a front could not be opened, for people.
pub(crate) fn reason(front: Front, error: &io::Error) -> Reason {
    let code = match error.kind() {
        ErrorKind::PermissionDenied => Code::PORT_PRIVILEGED,
        ErrorKind::AddrInUse => Code::PORT_TAKEN,
        // A machine without IPv6 refuses the family instead of the address.
        ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => Code::ADDRESS_NOT_LOCAL,
        _ => Code::PORT_FAILED,
    };
    let code = if is_family_missing(error) { Code::ADDRESS_NOT_LOCAL } else { code };
    Reason::new(code, format!("{front}: {error}."))
}

/// EAFNOSUPPORT, for which `ErrorKind` has no stable name.
fn is_family_missing(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    cfg!(target_os = "linux") && error.raw_os_error() == Some(EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use portolan_model::Transport;

    use super::*;

    #[test]
    fn refusals_have_codes() {
        let front = Front { address: ([127, 96, 0, 10], 53).into(), transport: Transport::Udp };
        for (error, expected) in [
            (io::Error::from_raw_os_error(13), Code::PORT_PRIVILEGED),
            (io::Error::from_raw_os_error(98), Code::PORT_TAKEN),
            (io::Error::from_raw_os_error(99), Code::ADDRESS_NOT_LOCAL),
            (io::Error::from_raw_os_error(97), Code::ADDRESS_NOT_LOCAL),
            (io::Error::from_raw_os_error(24), Code::PORT_FAILED),
        ] {
            let reason = reason(front, &error);
            assert_eq!(reason.code, expected, "{error}");
            assert!(reason.detail.starts_with("127.96.0.10:53 (UDP): "), "{}", reason.detail);
        }
    }
}
