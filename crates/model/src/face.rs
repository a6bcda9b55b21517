//! Faces and their clients: who shows the catalog, and to whom.

use std::{fmt, net::IpAddr};

use crate::{Name, ObjectName, Reason, ServiceKey};

/// The kinds of face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Face {
    /// Names.
    Dns,
    /// Proxies and proxyless clients.
    Xds,
    /// Virtual IPs.
    Proxy,
    /// HTTP and JSON.
    Api,
    /// Web pages.
    Console,
}

impl Face {
    /// All of them, in the order of tables.
    pub const ALL: [Face; 5] = [Face::Dns, Face::Xds, Face::Proxy, Face::Api, Face::Console];

    /// As flags and JSON write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Xds => "xds",
            Self::Proxy => "proxy",
            Self::Api => "api",
            Self::Console => "console",
        }
    }

    /// Reads it back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|face| face.as_str() == text)
    }
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One member of a face that acknowledges versions on its own: a DNS worker, a
/// node's proxy, an xDS client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaceId {
    /// The kind.
    pub face: Face,
    /// Its name among those of its kind.
    pub member: Name,
}

impl fmt::Display for FaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.face, self.member)
    }
}

/// Which dialect of a protocol a client speaks, where answers differ by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// No difference.
    #[default]
    Plain,
    /// Envoy over xDS.
    Envoy,
    /// Proxyless gRPC over xDS.
    Grpc,
}

/// Everything about a client that may change an answer, and nothing else. Two
/// clients with equal views get equal answers: what is not in here cannot leak
/// from one client to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientView {
    /// The client's namespace, for short names.
    pub namespace: Option<Name>,
    /// The client's zone.
    pub zone: Option<Name>,
    /// The client's node.
    pub node: Option<Name>,
    /// The client's dialect.
    pub flavour: Flavour,
}

/// A client of a DNS server, by how much it asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asker {
    /// Its address. `None`: all those that were too many to be told apart.
    pub client: Option<IpAddr>,
    /// Queries a second, over the last minute or two.
    pub queries_per_second: f64,
    /// The part of them that was answered NXDOMAIN, 0 to 1.
    pub denied: f64,
    /// The part of them that was answered SERVFAIL or REFUSED, 0 to 1.
    pub failed: f64,
}

/// How far a client is with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientStatus {
    /// Which client of which face.
    pub id: FaceId,
    /// The name that it gives itself; several may give the same.
    pub node: Name,
    /// What program it is, in its own words.
    pub agent: Name,
    /// The Pod that it runs in, as far as that is known.
    pub pod: Option<ObjectName>,
    /// Where it connects from.
    pub peer: Name,
    /// When it came, in milliseconds of Unix time.
    pub since_ms: u64,
    /// What it asked for, by type.
    pub types: Vec<(Name, ClientProgress)>,
}

/// How far a client is with one type of resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProgress {
    /// It has accepted all that there is.
    Synced,
    /// It has not answered yet to what it was told then, in milliseconds of Unix time.
    Stale {
        /// Since when.
        since_ms: u64,
    },
    /// It refused what it was told last.
    Error {
        /// In its own words.
        text: Name,
    },
    /// It is owed an answer that was not sent yet.
    NotSent,
}

/// Something that a face cannot show, though the catalog hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which face.
    pub face: Face,
    /// Of which service.
    pub service: ServiceKey,
    /// On which port.
    pub port: u16,
    /// Why, and what to do.
    pub reason: Reason,
}
