//! A small world, and faces that show it: with and without server blocks, before
//! everything is known, with and without upstream servers.

use std::{path::Path, sync::LazyLock};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, rdata},
};
use portolan_dns::{
    Offline, PodNames, Settings, StandIn, TransferTo, Zone, ZoneKind, config::FaceConfig, corefile,
};
use portolan_model::{Service, ServiceKey, TrafficDistribution, Transport};
use portolan_testkit::{World, cluster_ip, endpoint, external_name, headless, port};

/// Endpoints of the largest service: more addresses than fit into a packet.
const MANY: u8 = 90;

/// Services of every kind, and some whose names are trouble.
pub(super) fn world() -> World {
    let ports = || vec![port("http", Transport::Tcp, 80), port("dns", Transport::Udp, 53)];
    let list = |from: u8, count: u8| {
        (0..count)
            .map(|last| endpoint([10, 1, from, last].into(), &[("http", Transport::Tcp, 8080)]))
            .collect::<Vec<_>>()
    };
    let web = [[10, 0, 0, 1].into(), "fd00::7".parse().expect("an address")];
    let near = Service {
        distribution: TrafficDistribution::SameZone,
        ..headless("demo", "near", ports())
    };
    let of = |service: &str| ServiceKey::kubernetes("demo", service);
    World::new()
        .namespace("demo")
        .namespace("svc")
        .service(cluster_ip("demo", "web", &web, ports()))
        .service(cluster_ip("svc", "web", &[[10, 0, 1, 1].into()], vec![]))
        .service(headless("demo", "db", ports()))
        .service(headless("demo", "many", ports()))
        .service(near)
        .service(external_name("demo", "away", "www.example.org"))
        .service(external_name("demo", "here", "web.demo.svc.cluster.local"))
        .service(external_name("demo", "circle", "circle.demo.svc.cluster.local"))
        .endpoints("db-1", &of("db"), list(1, 3))
        .endpoints("many-1", &of("many"), list(2, MANY))
        .endpoints("near-1", &of("near"), list(3, 2))
        .registered("registry", "demo", "com.example.Api", list(4, 2))
        .registered("registry", "demo", "com.example.api", list(5, 1))
        .pod("demo", "client", CLIENT.into())
}

/// Who asks.
pub(super) const CLIENT: [u8; 4] = [10, 1, 9, 9];

/// kubeadm's blocks, which are direct: no stage but those two.
pub(super) const DIRECT: &str = ".:53 {\n errors\n kubernetes cluster.local in-addr.arpa ip6.arpa {\n \
     pods insecure\n fallthrough in-addr.arpa ip6.arpa\n }\n forward . 127.0.0.1:5353\n cache 30\n \
     loadbalance\n}\n";

/// A bit of every stage.
pub(super) const STAGES: &str = ". {\n nsid node 7\n bufsize 700\n local\n any\n minimal\n \
     rewrite name old.test web.demo.svc.cluster.local\n \
     rewrite name suffix .corp.test .demo.svc.cluster.local answer auto\n \
     rewrite name regex ^(.*)[.]plain[.]test[.]$ {1}.example.org\n \
     rewrite continue ttl suffix .example.org 7-90\n rewrite rcode gone.test NXDOMAIN NOERROR\n \
     autopath @kubernetes\n \
     acl blocked.test {\n block\n }\n \
     header {\n response set ra\n }\n \
     template IN A ip.test {\n match ^ip-(?P<x>[0-9]+)[.]ip[.]test[.]$\n \
     answer \"{{ .Name }} 60 IN A 10.0.0.{{ .Group.x }}\"\n fallthrough\n }\n \
     template IN ANY alias.test {\n answer \"{{ .Name }} 5 IN CNAME www.example.org.\"\n }\n \
     hosts none.hosts hosts.test {\n 10.0.0.9 a.hosts.test\n fd00::9 a.hosts.test\n fallthrough\n }\n \
     kubernetes cluster.local in-addr.arpa\n forward . 127.0.0.1:5353\n}\n";

/// Several blocks.
const BLOCKS: &str = "cluster.local example.net {\n kubernetes cluster.local {\n pods verified\n }\n \
     k8s_external example.net\n transfer {\n to *\n }\n loadbalance\n}\n\
     demo.svc.cluster.local {\n any\n forward . 127.0.0.1:5353\n}\n";

pub(super) fn configuration(corefile: &str) -> FaceConfig {
    let read = corefile::read(corefile, Path::new("Corefile"), &corefile::Disk);
    read.unwrap_or_else(|fault| panic!("{fault}")).config
}

/// A face by server blocks.
pub(super) fn by_blocks(config: &FaceConfig, upstream: &StandIn) -> Result<Offline, String> {
    static SNAPSHOT: LazyLock<std::sync::Arc<portolan_catalog::Snapshot>> =
        LazyLock::new(|| world().snapshot());
    Offline::new(Some(config), &Settings::default(), SNAPSHOT.clone(), upstream)
}

/// All of them.
pub(super) static ALL: LazyLock<Vec<Offline>> = LazyLock::new(|| {
    let zone = |text: &str, kind| Zone::of(text, kind).expect("a zone");
    let upstream = StandIn::new(upstream);
    let plain = |settings: &Settings| {
        Offline::new(None, settings, world().snapshot(), &upstream).expect("settings")
    };
    let own_addresses = vec!["10.0.0.1:53".parse().expect("an address")];
    vec![
        plain(&Settings::default()),
        by_blocks(&configuration(DIRECT), &upstream).expect("a face"),
        by_blocks(&configuration(STAGES), &upstream).expect("a face"),
        by_blocks(&configuration(BLOCKS), &upstream).expect("a face"),
        plain(&Settings {
            zones: vec![
                zone("cluster.local", ZoneKind::Cluster),
                zone("k8s.example.org", ZoneKind::Cluster),
                zone("10.in-addr.arpa", ZoneKind::Reverse),
            ],
            pods: PodNames::Disabled,
            endpoint_pod_names: true,
            zonal: true,
            own_addresses,
            transfer_to: TransferTo::Everybody,
            ..Settings::default()
        }),
        Offline::new(None, &Settings::default(), world().unsynced(), &upstream).expect("settings"),
    ]
});

/// What upstream servers say: by the first letter of the name.
pub(super) fn upstream(query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).expect("we ask what others can read");
    let question = query.queries.first().expect("with a question").clone();
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    let (name, kind) = (question.name.clone(), question.query_type);
    reply.add_query(question);
    let name_of = |text: &str| Name::from_ascii(text).expect("a name");
    let address = |owner: &Name, last| {
        Record::from_rdata(owner.clone(), 300, RData::A(rdata::A::new(192, 0, 2, last)))
    };
    let first = name.iter().next().and_then(|label| label.first().copied()).unwrap_or_default();
    match first.to_ascii_lowercase() {
        b's' => return None,
        b'm' => {
            reply.add_answers((0..200).map(|last| address(&name, last)));
        }
        b'n' => {
            let soa = rdata::SOA::new(name_of("ns.test."), name_of("hm.test."), 1, 2, 3, 4, 60);
            reply.add_authority(Record::from_rdata(name_of("test."), 60, RData::SOA(soa)));
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        b'f' => reply.metadata.response_code = ResponseCode::ServFail,
        b'c' => {
            let target = name_of("Real.Example.ORG.");
            let alias = RData::CNAME(rdata::CNAME(target.clone()));
            reply.add_answer(Record::from_rdata(name, 30, alias));
            reply.add_answer(address(&target, 1));
        }
        _ if u16::from(kind) == 1 => {
            reply.add_answer(address(&name, 1));
        }
        _ => {}
    }
    Some(reply.to_vec().expect("a reply"))
}
