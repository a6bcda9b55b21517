//! N processes, each in a Pod of its own: it offers one of the services and calls ten.

use std::{net::Ipv4Addr, time::Duration};

use futures_util::{StreamExt, stream};
use portolan_sdk::{Discovery, Registration, Registry, Subscription};

use crate::world::{NAMESPACE, World};

const SERVICES: usize = 100;
const CALLED: usize = 10;
/// One in so many restarts at the same moment: the `maxUnavailable` of Deployments that say
/// nothing, 25 %.
const AT_ONCE: usize = 4;
/// Of a restart: the old Pod marked as ending, then deleted, the new one created, and three words
/// of its kubelet: containers being made, running, ready.
pub(crate) const WRITES_OF_THE_PLATFORM: u64 = 6;
const PATIENCE: Duration = Duration::from_secs(600);

/// How processes register and find each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Label, annotation, and a watch of all Pods.
    Founding,
    /// One record, and a stream of one's services.
    Ours,
}

/// What a restart of all took.
pub(crate) struct Delivered {
    pub(crate) bytes: u64,
    pub(crate) events: u64,
    /// Of the processes, without what the platform writes.
    pub(crate) writes: u64,
    pub(crate) took: Duration,
}

/// A running process: what it follows.
type Follows = Vec<Subscription>;

pub(crate) struct Crowd<'a> {
    world: &'a World,
    way: Way,
    running: Vec<Follows>,
    count: usize,
}

fn pod(number: usize, life: usize) -> String {
    format!("checkout-7d9c5b6f4-{number:05}-{life}")
}

fn service(number: usize) -> String {
    format!("com.example.shop.Service{:02}", number % SERVICES)
}

/// The services that a process calls: the ten after its own.
fn called(number: usize) -> impl Iterator<Item = usize> {
    (1..=CALLED).map(move |next| (number + next) % SERVICES)
}

fn address(number: usize) -> Ipv4Addr {
    let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
    Ipv4Addr::new(10, 200, high, low)
}

impl<'a> Crowd<'a> {
    pub(crate) fn new(world: &'a World, count: usize, way: Way) -> Self {
        Self { world, way, running: Vec::new(), count }
    }

    /// Every process starts, in the Pod of its next life; the one of before ends. Returns when
    /// everybody knows everybody that they asked for.
    pub(crate) async fn start(&mut self, life: usize) {
        let before: Vec<Option<Follows>> = match life {
            0 => (0..self.count).map(|_| None).collect(),
            _ => self.running.drain(..).map(Some).collect(),
        };
        let (world, way) = (self.world, self.way);
        let starts = before.into_iter().enumerate();
        let starts = starts.map(|(number, before)| start(world, way, number, life, before));
        let started = stream::iter(starts).buffered((self.count / AT_ONCE).max(1)).collect();
        self.running = tokio::time::timeout(PATIENCE, started).await.expect("all start in time");
        let all_know = async {
            while !self.all_know(life) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all_know).await.expect("all know each other in time");
    }

    fn all_know(&self, life: usize) -> bool {
        let expected: Vec<usize> = (0..SERVICES)
            .map(|service| (0..self.count).filter(|number| number % SERVICES == service).count())
            .collect();
        let suffix = format!("-{life}");
        self.running.iter().enumerate().all(|(number, follows)| {
            called(number).zip(follows).all(|(service, subscription)| {
                let now = subscription.current();
                now.available().len() == expected[service]
                    && now.instances().iter().all(|one| one.pod.ends_with(&suffix))
            })
        })
    }
}

async fn start(
    world: &World,
    way: Way,
    number: usize,
    life: usize,
    before: Option<Follows>,
) -> Follows {
    if before.is_some() {
        drop(before);
        world.delete(&pod(number, life - 1)).await;
    }
    let (name, ip) = (pod(number, life), address(number));
    world.pod(&name, ip).await;
    let builder = Registry::builder().namespace(NAMESPACE).pod(&name).kubeconfig(&world.kubeconfig);
    let builder = match way {
        Way::Founding => builder,
        Way::Ours => builder.owner("main"),
    };
    let registry = builder.build().await.unwrap();
    let offered = Registration {
        version: Some("1.0.0".into()),
        methods: ["Get", "List", "Put"].map(str::to_owned).into(),
        ..Registration::new(&service(number), "grpc", (ip, 80).into())
    };
    again("register", async || registry.register(offered.clone()).await).await.keep();
    world.ready(&name, ip).await;
    let names: Vec<String> = called(number).map(service).collect();
    match way {
        Way::Founding => {
            let mut follows = Vec::new();
            for name in &names {
                follows.push(again("subscribe", async || registry.subscribe(name).await).await);
            }
            follows
        }
        Way::Ours => {
            let discovery = Discovery::connect(&world.http).unwrap();
            let all = names.iter().map(|name| {
                let discovery = &discovery;
                again("subscribe", async move || discovery.subscribe(NAMESPACE, name).await)
            });
            futures_util::future::join_all(all).await
        }
    }
}

/// Tries until it works: in a crowd, the API sheds load and answers late.
async fn again<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, portolan_sdk::Error>) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => eprintln!("{what} again: {error}"),
        }
    }
}
