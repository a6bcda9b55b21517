//! `portolan serve`: faces for a cluster that runs already.
//!
//! ```text
//!   kubeconfig, or the cluster that we run in ─▶ sources ─▶ catalog ─▶ faces
//!                      │  it does not answer
//!                      └─▶ what it told last (data directory), marked stale
//! ```

use anyhow::Result;
use portolan_cli::{
    args::{Role, RunOutput, ServeArgs},
    output::{Exit, Output},
};
use portolan_dns::config::{FaceConfig, PodMode};
use portolan_sources::kubernetes::{self, Kinds};
use portolan_wire::Addresses;

use crate::{
    data_dir::DataDir,
    faces::{self, Chosen, FINISH, Files, Shared},
    signals::Signals,
    tour,
};

/// Where in the data directory the last listings are.
const LAST_KNOWN: &str = "last-known";

/// Runs until a signal asks it to end.
pub(crate) async fn run(args: ServeArgs, output: &mut Output) -> Result<Exit> {
    let files = Files::read(&args.faces).await?;
    let client = kubernetes::connect(args.kubeconfig.as_deref()).await?;
    let data_dir = DataDir::take(args.data_dir.as_deref(), args.data_dir.is_none())?;
    let mut signals = Signals::new()?;
    let shared = Shared::new();
    let lameduck = faces::lameduck(files.dns.as_ref());
    let started = start(&args, &shared, client, &data_dir, files);
    let started = tokio::select! {
        started = started => started,
        // Whoever changes their mind need not wait until everything is up.
        _ = signals.wait(shared.tasks.shutdown()) => {
            shared.tasks.shutdown().cancel();
            shared.tasks.finish(FINISH).await;
            return Ok(Exit::Fine);
        }
    };
    let addresses = match started {
        Ok(addresses) => addresses,
        Err(error) => {
            shared.tasks.shutdown().cancel();
            shared.tasks.finish(FINISH).await;
            return Err(error);
        }
    };
    if args.output == Some(RunOutput::Json) {
        output.line(&serde_json::to_string(&addresses)?)?;
    } else {
        output.line(&tour::greeting(&addresses, data_dir.is_temporary()))?;
    }
    let fell_over = signals.wait(shared.tasks.shutdown()).await;
    if !fell_over && !lameduck.is_zero() {
        // Whoever asks readiness sends nothing new, and what still comes is answered.
        let _going = shared.readiness.block("the process was asked to end");
        tokio::time::timeout(lameduck, signals.wait(shared.tasks.shutdown())).await.ok();
    }
    data_dir.withdraw();
    shared.tasks.shutdown().cancel();
    shared.tasks.finish(FINISH).await;
    Ok(if fell_over { Exit::Problem } else { Exit::Fine })
}

async fn start(
    args: &ServeArgs,
    shared: &Shared,
    client: kubernetes::Client,
    data_dir: &DataDir,
    files: Files,
) -> Result<Addresses> {
    let mut addresses = Addresses {
        data_dir: data_dir.path().display().to_string(),
        kubeconfig: args.kubeconfig.as_ref().map(|path| path.display().to_string()),
        pid: std::process::id(),
        version: portolan_cli::VERSION.to_owned(),
        ..Addresses::default()
    };
    let chosen = Chosen {
        dns: args.roles.contains(&Role::Dns),
        xds: args.roles.contains(&Role::Xds),
        api: args.roles.contains(&Role::Api),
        proxy: false,
    };
    let face = files.dns.as_ref().map(|dns| &dns.face);
    let mut config =
        kubernetes::Config { kinds: kinds(chosen, face), ..kubernetes::Config::new(client) };
    config.last_known = (!data_dir.is_temporary()).then(|| data_dir.path().join(LAST_KNOWN));
    if !chosen.api {
        let (hub, clock) = (shared.hub.clone(), shared.clock.clone());
        portolan_api::register_metrics(&shared.metrics, hub, clock);
    }
    faces::start(chosen, &args.faces, shared, &[], files.dns, &mut addresses).await?;
    // Probes find us from now on; they hear that we are not ready.
    data_dir.publish(&addresses)?;
    faces::start_sources(shared, config, files.statics).await?;
    faces::synced(shared).await;
    Ok(addresses)
}

/// What has to be watched. Names alone need what CoreDNS' ClusterRole allows, and Pods only
/// where a stage asks about them.
fn kinds(chosen: Chosen, face: Option<&FaceConfig>) -> Kinds {
    let servers = || face.into_iter().flat_map(|face| &face.servers);
    let kubernetes = || servers().filter_map(|server| server.kubernetes.as_ref());
    let verified = kubernetes().any(|config| config.pods == PodMode::Verified);
    let by_pod = verified || servers().any(|server| server.autopath.is_some());
    let service_imports = kubernetes().any(|config| !config.multicluster.is_empty());
    if chosen.api || chosen.xds {
        return Kinds { service_imports, ..Kinds::ALL };
    }
    Kinds {
        namespaces: true,
        services: true,
        endpoint_slices: true,
        pods: by_pod,
        service_imports,
        ..Kinds::NONE
    }
}
