//! Ports that cannot be bound: told with a code, cleared when mended, and never
//! in the way of the rest.

use std::net::{IpAddr, SocketAddr};

use portolan_model::{Code, ServiceKey, Transport};
use portolan_runtime::FaceProblems;
use portolan_testkit::{World, cluster_ip, endpoint, port};
use tokio::{net::TcpListener, time::timeout};

use crate::bench::{Bench, PATIENCE, PORT, connect, echo, virtual_ip, web};

fn another(world: World, name: &str, ip: IpAddr, at: SocketAddr) -> World {
    let key = ServiceKey::kubernetes("demo", name);
    world
        .service(cluster_ip("demo", name, &[ip], vec![port("main", Transport::Tcp, PORT)]))
        .endpoints(name, &key, vec![endpoint(at.ip(), &[("main", Transport::Tcp, at.port())])])
}

fn told(problems: &dyn FaceProblems) -> Vec<(String, u16, Code)> {
    problems
        .problems()
        .into_iter()
        .map(|problem| (problem.service.to_string(), problem.port, problem.reason.code))
        .collect()
}

#[tokio::test]
async fn a_taken_port_is_told_and_served_once_it_is_free() {
    let (ip, fine) = (virtual_ip(), virtual_ip());
    let front: SocketAddr = (ip, PORT).into();
    let holder = TcpListener::bind(front).await.unwrap();
    let endpoint = echo("a").await;
    let world = another(web(ip, Transport::Tcp, &[endpoint]), "fine", fine, endpoint);
    let bench = Bench::start(&world).await;
    let problems = bench.running.face_problems();
    assert_eq!(told(&*problems), [("demo/web".to_owned(), PORT, Code::PORT_TAKEN)]);
    assert!(bench.metrics.encode().unwrap().contains("portolan_proxy_problems 1"));
    assert_eq!(connect((fine, PORT).into()).await.unwrap().1, 'a');

    drop(holder);
    timeout(PATIENCE, async {
        while connect(front).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        while !told(&*problems).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the port stays closed");
    bench.stop().await;
}

#[tokio::test]
async fn an_address_of_elsewhere_is_told() {
    // TEST-NET-1, which no machine has.
    let elsewhere: IpAddr = "192.0.2.7".parse().unwrap();
    let fine = virtual_ip();
    let endpoint = echo("a").await;
    let world = another(web(elsewhere, Transport::Tcp, &[endpoint]), "fine", fine, endpoint);
    let mut bench = Bench::start(&world).await;
    let problems = bench.running.face_problems();
    assert_eq!(told(&*problems), [("demo/web".to_owned(), PORT, Code::ADDRESS_NOT_LOCAL)]);
    assert_eq!(connect((fine, PORT).into()).await.unwrap().1, 'a');
    bench.set(&another(World::new(), "fine", fine, endpoint)).await;
    assert_eq!(told(&*problems), []);
    bench.stop().await;
}

#[tokio::test]
async fn of_two_services_on_one_front_the_first_has_it_until_it_goes() {
    let ip = virtual_ip();
    let (a, b) = (echo("a").await, echo("b").await);
    let second = another(World::new(), "b", ip, b);
    let both = another(second.clone(), "a", ip, a);
    let mut bench = Bench::start(&both).await;
    let problems = bench.running.face_problems();
    assert_eq!(told(&*problems), [("demo/b".to_owned(), PORT, Code::PORT_TAKEN)]);
    assert_eq!(connect((ip, PORT).into()).await.unwrap().1, 'a');
    bench.set(&second).await;
    assert_eq!(told(&*problems), []);
    assert_eq!(connect((ip, PORT).into()).await.unwrap().1, 'b');
    bench.stop().await;
}

#[tokio::test]
async fn sctp_is_told() {
    let ip = virtual_ip();
    let sctp = World::new().service(cluster_ip(
        "demo",
        "web",
        &[ip],
        vec![port("sig", Transport::Sctp, 2905)],
    ));
    let mut bench = Bench::start(&sctp).await;
    let problems = bench.running.face_problems();
    assert_eq!(told(&*problems), [("demo/web".to_owned(), 2905, Code::TRANSPORT_UNSUPPORTED)]);
    bench.set(&World::new()).await;
    assert_eq!(told(&*problems), []);
    bench.stop().await;
}
