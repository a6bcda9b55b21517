//! DNS over TLS, with a client that checks the certificate.

use std::{path::Path, sync::Arc, time::Duration};

use domain::{
    base::{Rtype, iana::Rcode, opt::AllOptData},
    rdata::A,
};
use portolan_catalog::Hub;
use portolan_dns::{Config, Settings, StartError, Tls, config::Span, corefile, start};
use portolan_runtime::{Metrics, Readiness, Shutdown, SystemClock, Tasks};
use portolan_testkit::{Live, World, cluster_ip};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::{Ask, PATIENCE, Server, message, udp},
    upstream::Upstream,
};

/// Certificate and key of `dns.test` in a folder.
fn certificate(folder: &Path) -> Tls {
    let made = rcgen::generate_simple_self_signed(vec!["dns.test".to_owned()]).unwrap();
    let tls = Tls {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    tls
}

async fn started(
    tls: Tls,
    hub: Arc<Hub>,
    tasks: &Tasks,
) -> Result<std::net::SocketAddr, StartError> {
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls: vec![tls],
        settings: Settings::default(),
        ..Config::default()
    };
    let (metrics, readiness) = (Metrics::new(), Readiness::new());
    let running = start(config, hub, Arc::new(SystemClock), &metrics, &readiness, tasks).await?;
    Ok(running.tls_addresses()[0])
}

fn world() -> World {
    World::new().namespace("demo").service(cluster_ip(
        "demo",
        "web",
        &[[10, 0, 0, 1].into()],
        vec![],
    ))
}

#[tokio::test]
async fn queries_are_answered_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificate(folder.path());
    let tasks = Tasks::new(Shutdown::new());
    let live = Live::new(&world());
    let address = started(tls.clone(), live.hub().clone(), &tasks).await.unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&tls.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("dns.test").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let packet = Ask::new("web.demo.svc.cluster.local", Rtype::A).packet();
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    // Two at once: pipelined as over plain TCP.
    stream.write_all(&[&length[..], &packet, &length, &packet].concat()).await.unwrap();
    for _ in 0..2 {
        let read = async {
            let length = stream.read_u16().await.unwrap();
            let mut reply = vec![0; usize::from(length)];
            stream.read_exact(&mut reply).await.unwrap();
            message(reply)
        };
        let reply = timeout(PATIENCE, read).await.unwrap();
        assert_eq!(reply.header().rcode(), Rcode::NOERROR);
        assert_eq!(reply.header_counts().ancount(), 1);
    }

    // Who speaks no TLS is not answered, and harms nobody.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(&[&length[..], &packet].concat()).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, plain.read_to_end(&mut rest)).await.expect("closed").ok();
    assert!(!rest.windows(2).any(|two| two == [0x47, 0x11]), "a DNS reply in plain text");
    tasks.shutdown().cancel();
    tasks.finish(PATIENCE).await;
}

#[tokio::test]
async fn a_bad_certificate_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let live = Live::new(&world());
    let good = certificate(folder.path());
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let missing = folder.path().join("missing.pem");
    for (tls, named) in [
        (Tls { certificate: missing.clone(), ..good.clone() }, "missing.pem"),
        (Tls { certificate: empty.clone(), ..good.clone() }, "empty.pem"),
        (Tls { key: empty, ..good.clone() }, "empty.pem"),
        (Tls { key: good.certificate.clone(), ..good }, "tls.crt"),
    ] {
        let tasks = Tasks::new(Shutdown::new());
        let error = started(tls, live.hub().clone(), &tasks).await.unwrap_err();
        let StartError::Tls(inner) = &error else { panic!("{error:?}") };
        assert!(inner.to_string().contains(named), "{inner}");
        tasks.shutdown().cancel();
        tasks.finish(PATIENCE).await;
    }
}

/// Upstream servers behind TLS: the certificate has to be the right one, and another
/// server of the zone, plain or not, stands in.
#[tokio::test]
async fn upstream_servers_are_asked_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificate(folder.path());
    let tasks = Tasks::new(Shutdown::new());
    let live = Live::new(&world());
    let secure = started(tls.clone(), live.hub().clone(), &tasks).await.unwrap();
    let plain = Upstream::start(|heard| {
        Some(heard.records(&["web.demo.svc.cluster.local. 300 IN A 192.0.2.1"]))
    })
    .await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let ca = tls.certificate.display();
    for (servers, name, expected) in [
        (format!("tls://{secure}"), "dns.test", "NOERROR 10.0.0.1"),
        // The certificate is of another name.
        (format!("tls://{secure}"), "other.test", "SERVFAIL and why"),
        (format!("tls://{closed}"), "dns.test", "SERVFAIL and why"),
        (format!("tls://{secure} {}", plain.address), "dns.test", "NOERROR 10.0.0.1"),
        (format!("tls://{secure} {}", plain.address), "other.test", "NOERROR 192.0.2.1"),
        (format!("{closed} tls://{secure}"), "dns.test", "NOERROR 10.0.0.1"),
    ] {
        let text = format!(
            ". {{\n forward . {servers} {{\n policy sequential\n tls {ca}\n tls_servername {name}\n }}\n}}"
        );
        let read = corefile::read(&text, Path::new("Corefile"), &corefile::Disk);
        let mut face = read.unwrap_or_else(|fault| panic!("{fault}\n{text}")).config;
        // Those that fail do so for as long as they may.
        face.servers[0].forward[0].budget = Some(Span(Duration::from_millis(600)));
        let hub = Live::new(&World::new()).hub().clone();
        let server = Server::by(hub, Settings::default(), Some(face)).await;
        let mut ask = Ask::new("web.demo.svc.cluster.local", Rtype::A);
        ask.edns = Some((1232, 0));
        let reply = message(udp(server.address(), &ask.packet(), PATIENCE).await.expect("a reply"));
        let records = reply.answer().unwrap().limit_to::<A>();
        let mut told = reply.opt_rcode().to_string();
        for record in records {
            told = format!("{told} {}", record.unwrap().data());
        }
        let errors = reply.opt().unwrap();
        let mut errors = errors.opt().iter::<AllOptData<_, _>>();
        if errors.any(|one| matches!(one, Ok(AllOptData::ExtendedError(_)))) {
            told += " and why";
        }
        assert_eq!(told, expected, "{servers} as {name}");
        server.stop().await;
    }
    assert!(plain.heard().iter().all(|heard| !heard.tcp), "plain servers are asked in plain text");
    tasks.shutdown().cancel();
    tasks.finish(PATIENCE).await;
}
