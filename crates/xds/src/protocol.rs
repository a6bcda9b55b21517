//! What a proxy does with the bytes of a port.
//!
//! The rules are Istio's (pkg/config/kube and pkg/config/protocol): UDP by the
//! transport, then `appProtocol`, then the port name's prefix before `-`. The model
//! has applied that order already; here its words become treatments. TCP that nobody
//! declared is looked at, except on ports whose server speaks first: looking would
//! wait for a client that waits for the server.

use portolan_model::{AppProtocol, ServicePort, Transport};

/// Ports whose protocol lets the server speak first: SMTP, DNS, MySQL, MongoDB
/// (Istio's list).
const SERVER_FIRST_PORTS: [u16; 4] = [25, 53, 3306, 27017];

/// How a proxy treats a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1, routed by request.
    Http,
    /// HTTP/2 and gRPC, routed by request; HTTP/2 to the endpoint, too.
    Http2,
    /// TLS, routed by the server name of its handshake.
    Tls,
    /// A connection, routed whole.
    Tcp,
    /// Decided by the first bytes of each connection.
    Sniffed,
}

impl Protocol {
    /// How the port of a service is treated. `None`: a proxy does not carry its
    /// transport.
    pub fn of(port: &ServicePort) -> Option<Self> {
        if port.transport != Transport::Tcp {
            return None;
        }
        let declared = match &port.app_protocol {
            AppProtocol::Udp => return None,
            AppProtocol::Http => Some(Self::Http),
            AppProtocol::Http2 | AppProtocol::Grpc => Some(Self::Http2),
            AppProtocol::Tls => Some(Self::Tls),
            AppProtocol::Tcp => Some(Self::Tcp),
            AppProtocol::Unknown => None,
            AppProtocol::Other(word) => Self::parse(word),
        };
        Some(declared.unwrap_or(match SERVER_FIRST_PORTS.contains(&port.port) {
            true => Self::Tcp,
            false => Self::Sniffed,
        }))
    }

    /// Reads a word that the model keeps as it was written.
    fn parse(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        // The one protocol whose name holds the separator.
        if word.starts_with("grpc-web") {
            return Some(Self::Http2);
        }
        match word.split('-').next().unwrap_or_default() {
            "http" | "http_proxy" => Some(Self::Http),
            "http2" | "grpc" => Some(Self::Http2),
            "https" | "tls" => Some(Self::Tls),
            "tcp" | "mongo" | "redis" | "mysql" => Some(Self::Tcp),
            _ => None,
        }
    }

    /// Whether requests are routed, rather than connections.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2)
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::name;

    use super::*;

    fn check(app: Option<&str>, port_name: &str, number: u16, expected: Option<Protocol>) {
        check_transport(app, port_name, number, Transport::Tcp, expected);
    }

    fn check_transport(
        app: Option<&str>,
        port_name: &str,
        number: u16,
        transport: Transport,
        expected: Option<Protocol>,
    ) {
        let port = ServicePort {
            name: name(port_name),
            transport,
            port: number,
            node_port: None,
            app_protocol: AppProtocol::of(app, port_name, transport),
        };
        assert_eq!(Protocol::of(&port), expected, "{app:?} {port_name:?} {number} {transport:?}");
    }

    #[test]
    fn the_name_of_a_port_says_its_protocol() {
        use Protocol::{Http, Http2, Sniffed, Tcp, Tls};
        for (port_name, expected) in [
            ("http", Http),
            ("HTTP-web", Http),
            ("http2", Http2),
            ("http2-web", Http2),
            ("grpc", Http2),
            ("grpc-web", Http2),
            ("grpc-web-x", Http2),
            ("https", Tls),
            ("tls-x", Tls),
            ("tcp", Tcp),
            ("mongo", Tcp),
            ("redis-x", Tcp),
            ("mysql", Tcp),
            ("", Sniffed),
            ("httpx", Sniffed),
            ("whatever-http", Sniffed),
        ] {
            check(None, port_name, 80, Some(expected));
        }
    }

    #[test]
    fn what_the_port_declares_comes_before_its_name() {
        use Protocol::{Http, Http2, Sniffed, Tcp, Tls};
        for (app, expected) in [
            ("kubernetes.io/h2c", Http2),
            ("kubernetes.io/ws", Http),
            ("kubernetes.io/wss", Tls),
            ("http-own", Http),
            ("http_proxy", Http),
            ("grpc-web", Http2),
            ("TCP", Tcp),
            ("example.com/own", Sniffed),
        ] {
            check(Some(app), "mongo", 80, Some(expected));
        }
        check(Some(""), "http", 80, Some(Http));
    }

    #[test]
    fn nobody_looks_at_connections_where_the_server_speaks_first() {
        for number in SERVER_FIRST_PORTS {
            check(None, "", number, Some(Protocol::Tcp));
            check(None, "http", number, Some(Protocol::Http));
        }
    }

    #[test]
    fn other_transports_are_not_carried() {
        check_transport(Some("http"), "http", 80, Transport::Udp, None);
        check_transport(None, "http", 80, Transport::Sctp, None);
    }
}
