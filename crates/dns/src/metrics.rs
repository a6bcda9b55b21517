//! What is counted: our own names, and CoreDNS' where dashboards rely on them.
//!
//! Labels take few values (types that nobody uses are `other`), so the families
//! stay small whatever clients ask.

use std::{net::IpAddr, sync::Arc, time::Duration};

use domain::base::iana::Rtype;
use portolan_runtime::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::{
    askers::Askers,
    compiled::Replied,
    histogram::{Durations, SizeBatch, Sizes},
    name::text,
    names::Names,
    settings::Settings,
    wire::Rcode,
};

/// Record types that have a value of their own in labels, as in CoreDNS'
/// `plugin/metrics/vars`.
const TYPES: [(Rtype, &str); 16] = [
    (Rtype::A, "A"),
    (Rtype::AAAA, "AAAA"),
    (Rtype::CNAME, "CNAME"),
    (Rtype::SRV, "SRV"),
    (Rtype::PTR, "PTR"),
    (Rtype::TXT, "TXT"),
    (Rtype::SOA, "SOA"),
    (Rtype::NS, "NS"),
    (Rtype::MX, "MX"),
    (Rtype::HTTPS, "HTTPS"),
    (Rtype::SVCB, "SVCB"),
    (Rtype::NAPTR, "NAPTR"),
    (Rtype::DS, "DS"),
    (Rtype::DNSKEY, "DNSKEY"),
    (Rtype::ANY, "ANY"),
    (Rtype::AXFR, "AXFR"),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    server: &'static str,
    zone: String,
    view: &'static str,
    proto: &'static str,
    family: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    server: &'static str,
    zone: String,
    view: &'static str,
    rcode: &'static str,
    plugin: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    server: &'static str,
    zone: String,
    view: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Measured {
    server: &'static str,
    zone: String,
    view: &'static str,
    proto: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OwnAsked {
    proto: &'static str,
    family: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OwnAnswered {
    rcode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
}

/// The label that CoreDNS gives a server on port 53. Dashboards group by it, and
/// here is only one server.
pub(crate) const SERVER: &str = "dns://:53";

/// The zone label of queries that are in no zone of ours.
pub(crate) const OUTSIDE: &str = ".";

/// Which transport a query came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// A packet: the client says how long a reply may be.
    Udp,
    /// A stream, with TLS or without: a reply is as long as it is.
    Tcp,
}

impl Proto {
    fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// One answered query, as it is counted.
pub(crate) struct Seen<'a> {
    pub(crate) proto: Proto,
    pub(crate) client: IpAddr,
    pub(crate) kind: Option<Rtype>,
    /// The zone's name, or `.` outside all zones.
    pub(crate) zone: &'a str,
    pub(crate) rcode: &'static str,
    /// The stage that answered, by CoreDNS' name.
    pub(crate) plugin: &'static str,
    pub(crate) took: Duration,
    /// Bytes of the query.
    pub(crate) size: usize,
    /// Bytes of the reply; `None`: it is many messages, which are not measured.
    pub(crate) reply: Option<usize>,
}

/// The counters of one kind of query.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    counters: [Counter; 4],
    duration: Durations,
    request_sizes: Sizes,
    response_sizes: Sizes,
}

impl Tally {
    /// Counts so many queries that took equally long, with their sizes and those of
    /// the replies.
    fn count(&self, took: Duration, times: u64, requests: &SizeBatch, responses: &SizeBatch) {
        for counter in &self.counters {
            counter.inc_by(times);
        }
        self.duration.observe(took, times);
        self.request_sizes.add(requests);
        self.response_sizes.add(responses);
    }
}

/// The counters of the DNS face.
#[derive(Debug)]
pub(crate) struct DnsMetrics {
    /// By client: for people, as its addresses are too many for labels.
    pub(crate) askers: Askers,
    requests: Family<OwnAsked, Counter>,
    responses: Family<OwnAnswered, Counter>,
    dropped: Family<Dropped, Counter>,
    pub(crate) tcp_connections: Gauge,
    pub(crate) tcp_refused: Counter,
    coredns_requests: Family<Asked, Counter>,
    coredns_responses: Family<Answered, Counter>,
    coredns_duration: Family<Timed, Durations>,
    coredns_request_size: Family<Measured, Sizes>,
    coredns_response_size: Family<Measured, Sizes>,
}

impl DnsMetrics {
    /// Registers all of them.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            askers: Askers::default(),
            requests: Family::default(),
            responses: Family::default(),
            dropped: Family::default(),
            tcp_connections: Gauge::default(),
            tcp_refused: Counter::default(),
            coredns_requests: Family::default(),
            coredns_responses: Family::default(),
            coredns_duration: Family::default(),
            coredns_request_size: Family::default(),
            coredns_response_size: Family::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "portolan_dns_requests",
                "Queries that were read, by transport, family and type",
                own.requests.clone(),
            );
            registry.register(
                "portolan_dns_responses",
                "Replies that were sent, by result code",
                own.responses.clone(),
            );
            registry.register(
                "portolan_dns_dropped",
                "Packets that got no reply, by reason",
                own.dropped.clone(),
            );
            registry.register(
                "portolan_dns_tcp_connections",
                "Open TCP connections",
                own.tcp_connections.clone(),
            );
            registry.register(
                "portolan_dns_tcp_refused",
                "TCP connections closed at once, because a limit was reached",
                own.tcp_refused.clone(),
            );
            registry.register(
                "coredns_dns_requests",
                "Counter of DNS requests made per zone, protocol and family.",
                own.coredns_requests.clone(),
            );
            registry.register(
                "coredns_dns_responses",
                "Counter of response status codes.",
                own.coredns_responses.clone(),
            );
            registry.register(
                "coredns_dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone.",
                own.coredns_duration.clone(),
            );
            registry.register(
                "coredns_dns_request_size_bytes",
                "Histogram of the size of queries in bytes.",
                own.coredns_request_size.clone(),
            );
            registry.register(
                "coredns_dns_response_size_bytes",
                "Histogram of the size of replies in bytes.",
                own.coredns_response_size.clone(),
            );
        });
        own
    }

    /// Counts one query with its reply.
    pub(crate) fn seen(&self, seen: &Seen<'_>) {
        self.askers.note(seen.client, seen.rcode);
        let responses = seen.reply.map(SizeBatch::one).unwrap_or_default();
        self.tally(seen).count(seen.took, 1, &SizeBatch::one(seen.size), &responses);
    }

    /// The counters of a query and its reply. Looking them up costs more than all
    /// else, so [`Tallies`] keep them.
    fn tally(&self, seen: &Seen<'_>) -> Tally {
        let proto = seen.proto.as_str();
        let family = if seen.client.to_canonical().is_ipv4() { "1" } else { "2" };
        let kind = seen.kind.map_or("other", label_of);
        let zone = || seen.zone.to_owned();
        let (server, view) = (SERVER, "");
        let rcode = seen.rcode;
        let plugin = seen.plugin;
        let asked = Asked { server, zone: zone(), view, proto, family, r#type: kind };
        let answered = Answered { server, zone: zone(), view, rcode, plugin };
        let timed = Timed { server, zone: zone(), view, r#type: kind };
        let measured = Measured { server, zone: zone(), view, proto };
        let own = OwnAsked { proto, family, r#type: kind };
        Tally {
            counters: [
                self.requests.get_or_create(&own).clone(),
                self.responses.get_or_create(&OwnAnswered { rcode }).clone(),
                self.coredns_requests.get_or_create(&asked).clone(),
                self.coredns_responses.get_or_create(&answered).clone(),
            ],
            duration: self.coredns_duration.get_or_create(&timed).clone(),
            request_sizes: self.coredns_request_size.get_or_create(&measured).clone(),
            response_sizes: self.coredns_response_size.get_or_create(&measured).clone(),
        }
    }

    /// Counts packets that got no reply.
    pub(crate) fn dropped(&self, reason: &'static str, times: u64) {
        self.dropped.get_or_create(&Dropped { reason }).inc_by(times);
    }
}

/// What one worker or connection has replied from compiled answers: noted query by
/// query in a list of its own, and added to the shared counters batch by batch.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    /// Whose zones these are.
    settings: Option<Arc<Settings>>,
    noted: Vec<Noted>,
}

#[derive(Debug)]
struct Noted {
    zone: usize,
    kind: usize,
    rcode: Rcode,
    times: u64,
    requests: SizeBatch,
    responses: SizeBatch,
    tally: Option<Tally>,
}

impl Tallies {
    /// Notes one reply, with the bytes of the query and its own.
    pub(crate) fn note(&mut self, replied: Replied, size: usize, reply: usize) {
        let Replied { zone, rcode, .. } = replied;
        let kind = TYPES.iter().position(|(known, _)| *known == replied.kind);
        let kind = kind.unwrap_or(TYPES.len());
        let same = |one: &Noted| (one.zone, one.kind, one.rcode) == (zone, kind, rcode);
        let place = self.noted.iter().position(same).unwrap_or_else(|| {
            let (requests, responses) = Default::default();
            self.noted.push(Noted {
                zone,
                kind,
                rcode,
                times: 0,
                requests,
                responses,
                tally: None,
            });
            self.noted.len() - 1
        });
        if let Some(noted) = self.noted.get_mut(place) {
            noted.times += 1;
            noted.requests.observe(size);
            noted.responses.observe(reply);
        }
    }

    /// Adds what was noted since the last time.
    pub(crate) fn flush(
        &mut self,
        metrics: &DnsMetrics,
        names: &Names,
        (proto, client): (Proto, IpAddr),
        took: Duration,
    ) {
        let same = self.settings.as_ref().is_some_and(|one| Arc::ptr_eq(one, &names.settings));
        for noted in self.noted.iter_mut().filter(|noted| noted.times > 0) {
            let tally = noted.tally.take().filter(|_| same).unwrap_or_else(|| {
                let zone = names.settings.zones.get(noted.zone);
                let zone = zone.map_or_else(|| OUTSIDE.to_owned(), |zone| text(&zone.apex));
                metrics.tally(&Seen {
                    proto,
                    client,
                    kind: TYPES.get(noted.kind).map(|(kind, _)| *kind),
                    zone: &zone,
                    rcode: noted.rcode.as_str(),
                    plugin: "kubernetes",
                    took,
                    size: 0,
                    reply: None,
                })
            });
            tally.count(took, noted.times, &noted.requests, &noted.responses);
            noted.tally = Some(tally);
            noted.times = 0;
            (noted.requests, noted.responses) = Default::default();
        }
        if !same {
            self.noted.iter_mut().for_each(|noted| noted.tally = None);
            self.settings = Some(names.settings.clone());
        }
    }
}

fn label_of(kind: Rtype) -> &'static str {
    TYPES.iter().find(|(known, _)| *known == kind).map_or("other", |(_, label)| label)
}
