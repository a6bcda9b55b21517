//! Registers a process that runs outside the cluster.
//!
//! The process gets a Pod of its own on the Node `external`, which no kubelet
//! runs; here is its kubelet. The Pod carries label and annotation as if the
//! process had written them; its address is the process's, and its Ready
//! condition says whether the process accepts connections. The Pod goes when the
//! registrar ends. Written is only what changed: a healthy process costs the API
//! server no writes.

mod check;
mod pod;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use portolan_dialects::{EncodeError, ListDialect, Registration, app::App};
use portolan_runtime::Shutdown;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::check::{Health, Judge};

/// The Node of processes that nobody in the cluster runs.
pub const NODE: &str = "external";
/// The image of their Pods: a marker, never pulled.
pub const IMAGE: &str = "portolan.dev/external";

/// A second is what people wait for after a start; the connection costs the
/// process next to nothing.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Of so many checks, one looks whether the Pod is still there.
const LOOK_EACH: u32 = 3;
/// Tries to delete the Pod at the end.
const DELETE_TRIES: u32 = 5;
/// Between them.
const DELETE_PAUSE: Duration = Duration::from_millis(200);

/// What to register.
#[derive(Clone, Debug)]
pub struct RegisterConfig {
    /// In which namespace.
    pub namespace: String,
    /// Name of the Pod; otherwise the first interface's, with a random end.
    pub pod: Option<String>,
    /// The services of the process, all at one address (of each family).
    pub registrations: Vec<Registration>,
    /// The dialect to write.
    pub app: App,
}

/// What happens, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The Pod is there.
    Created {
        /// Its name.
        pod: String,
    },
    /// The process accepts connections.
    Ready,
    /// It does not, and why.
    NotReady(String),
    /// The API could not be told; it is tried again.
    ApiTrouble(String),
    /// The Pod is gone, as asked.
    Deleted,
}

/// Why it was not registered, or is no longer.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// There is nothing to register.
    #[error("there is nothing to register")]
    Nothing,
    /// One process has one address.
    #[error("the registrations name several addresses ({0} and {1}); a process has one")]
    SeveralAddresses(IpAddr, IpAddr),
    /// An address on which nobody else could reach the process.
    #[error("{0} is no address that others can connect to")]
    Unspecified(IpAddr),
    /// A registration cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The name is taken.
    #[error("Pod {namespace}/{pod} exists already")]
    NameTaken {
        /// Where.
        namespace: String,
        /// Which.
        pod: String,
    },
    /// Somebody deleted the Pod while the process was registered.
    #[error("Pod {namespace}/{pod} was deleted; the process is no longer registered")]
    Removed {
        /// Where.
        namespace: String,
        /// Which.
        pod: String,
    },
    /// The API refused, or cannot be reached.
    #[error("cannot {what}: {source}")]
    Api {
        /// What was tried.
        what: &'static str,
        /// What came back.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Registers the process until `shutdown`, then takes it off again.
pub async fn run(
    config: RegisterConfig,
    client: Client,
    shutdown: &Shutdown,
    mut progress: impl FnMut(Progress),
) -> Result<(), RegisterError> {
    let addresses = addresses(&config.registrations)?;
    let pods: Api<Pod> = Api::namespaced(client, &config.namespace);
    // The first check before anything is written: a process that listens is
    // ready with the Pod's first status.
    let places = places(&config.registrations);
    let mut judge = Judge::new(check::check(&places).await);
    let created = create(&config, &pods).await?;
    progress(Progress::Created { pod: created.name.clone() });
    let mut registrar = Registrar { pods, created, addresses, config, told: None };
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = registrar.keep(&places, &mut judge, &mut progress) => Err(error),
    };
    match outcome {
        Ok(()) => {
            registrar.delete().await?;
            progress(Progress::Deleted);
            Ok(())
        }
        Err(error) => {
            // A Pod that is being deleted waits for its kubelet: that is us.
            registrar.delete().await.ok();
            Err(error)
        }
    }
}

/// The Pod that was made.
struct Created {
    name: String,
    uid: String,
}

struct Registrar {
    pods: Api<Pod>,
    created: Created,
    addresses: Vec<IpAddr>,
    config: RegisterConfig,
    /// The health that the API knows.
    told: Option<Health>,
}

impl Registrar {
    /// Checks and tells, until the Pod is taken away.
    async fn keep(
        &mut self,
        places: &[SocketAddr],
        judge: &mut Judge,
        progress: &mut impl FnMut(Progress),
    ) -> RegisterError {
        let mut ticks = interval(CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = 0u32;
        loop {
            if let Err(removed) = self.tell(judge.health(), progress).await {
                return removed;
            }
            // The first tick is at once; the first check has just been.
            ticks.tick().await;
            if round > 0 {
                judge.take(check::check(places).await);
            }
            round = round.wrapping_add(1);
            if round.is_multiple_of(LOOK_EACH)
                && let Err(removed) = self.look().await
            {
                return removed;
            }
        }
    }

    /// Writes the status when the health changed, or could not be told before.
    async fn tell(
        &mut self,
        health: &Health,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), RegisterError> {
        if self.told.as_ref() == Some(health) {
            return Ok(());
        }
        let status = pod::status(&self.addresses, health);
        let (params, patch) = (PatchParams::default(), Patch::Merge(&status));
        match self.pods.patch_status(&self.created.name, &params, &patch).await {
            Ok(_) => {
                self.told = Some(health.clone());
                progress(match health {
                    Health::Accepts => Progress::Ready,
                    Health::Refuses(why) => Progress::NotReady(why.clone()),
                });
                Ok(())
            }
            Err(error) if code(&error) == Some(404) => Err(self.removed()),
            Err(error) => {
                progress(Progress::ApiTrouble(error.to_string()));
                Ok(())
            }
        }
    }

    /// Whether the Pod is still ours. An API that does not answer proves nothing.
    async fn look(&self) -> Result<(), RegisterError> {
        match self.pods.get_opt(&self.created.name).await {
            Ok(Some(pod))
                if pod.metadata.uid.as_deref() == Some(&self.created.uid)
                    && pod.metadata.deletion_timestamp.is_none() =>
            {
                Ok(())
            }
            Ok(_) => Err(self.removed()),
            Err(_) => Ok(()),
        }
    }

    fn removed(&self) -> RegisterError {
        RegisterError::Removed {
            namespace: self.config.namespace.clone(),
            pod: self.created.name.clone(),
        }
    }

    /// Deletes the Pod at once, and no successor of the same name.
    async fn delete(&self) -> Result<(), RegisterError> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.created.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.pods.delete(&self.created.name, &params).await {
                Ok(_) => return Ok(()),
                // Gone already, or another Pod of the name.
                Err(error) if matches!(code(&error), Some(404 | 409)) => return Ok(()),
                Err(error) if tries == DELETE_TRIES => {
                    return Err(failed("delete the Pod")(error));
                }
                Err(_) => sleep(DELETE_PAUSE).await,
            }
        }
    }
}

async fn create(config: &RegisterConfig, pods: &Api<Pod>) -> Result<Created, RegisterError> {
    let dialect = ListDialect::App(config.app.clone());
    let annotation = dialect.update(None, &[], &config.registrations)?;
    let annotation = annotation.ok_or(RegisterError::Nothing)?;
    let name = config.pod.clone().unwrap_or_else(|| pod::name(&config.registrations));
    let object = pod::object(config, &name, &annotation);
    let created = pods.create(&PostParams::default(), &object).await.map_err(|error| {
        if code(&error) == Some(409) {
            return RegisterError::NameTaken { namespace: config.namespace.clone(), pod: name };
        }
        failed("create the Pod")(error)
    })?;
    Ok(Created {
        name: created.metadata.name.unwrap_or_default(),
        uid: created.metadata.uid.unwrap_or_default(),
    })
}

/// The addresses of the process: one, or one of each family.
fn addresses(registrations: &[Registration]) -> Result<Vec<IpAddr>, RegisterError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for registration in registrations {
        let address = registration.address;
        if address.is_unspecified() || address.is_multicast() {
            return Err(RegisterError::Unspecified(address));
        }
        if addresses.contains(&address) {
            continue;
        }
        if let Some(other) = addresses.iter().find(|known| known.is_ipv4() == address.is_ipv4()) {
            return Err(RegisterError::SeveralAddresses(*other, address));
        }
        addresses.push(address);
    }
    if addresses.is_empty() { Err(RegisterError::Nothing) } else { Ok(addresses) }
}

/// Where the process must accept connections. A datagram is answered or not;
/// nothing can be concluded from that.
fn places(registrations: &[Registration]) -> Vec<SocketAddr> {
    let mut places: Vec<SocketAddr> = registrations
        .iter()
        .filter(|registration| registration.protocol != "udp")
        .map(Registration::socket_address)
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

fn failed(what: &'static str) -> impl Fn(kube::Error) -> RegisterError {
    move |source| RegisterError::Api { what, source: Box::new(source) }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: &str) -> Registration {
        Registration::new("reviews", "http", place.parse().unwrap())
    }

    #[test]
    fn a_process_has_one_address() {
        for (places, expected) in [
            (&["10.0.0.1:1", "10.0.0.1:2"][..], Some(1)),
            (&["10.0.0.1:1", "[fd00::1]:1"], Some(2)),
            (&["10.0.0.1:1", "10.0.0.2:1"], None),
            (&["0.0.0.0:1"], None),
            (&["[::]:1"], None),
            (&[], None),
        ] {
            let registrations: Vec<_> = places.iter().map(|place| at(place)).collect();
            let found = addresses(&registrations).ok().map(|found| found.len());
            assert_eq!(found, expected, "{places:?}");
        }
    }

    #[test]
    fn datagrams_are_not_checked() {
        let udp = Registration { protocol: "udp".into(), ..at("10.0.0.1:9") };
        let all = [at("10.0.0.1:2"), udp, at("10.0.0.1:1"), at("10.0.0.1:2")];
        let expected = ["10.0.0.1:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap()];
        assert_eq!(places(&all), expected);
    }
}
