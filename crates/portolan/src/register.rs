//! `portolan register`: a process outside the cluster, while this command runs.

use std::path::PathBuf;

use anyhow::{Result, bail};
use portolan_cli::{
    args::RegisterArgs,
    local_addresses,
    output::{Exit, Output},
};
use portolan_dialects::{Registration, app::App};
use portolan_runtime::Shutdown;
use portolan_writers::{
    connect,
    registrar::{self, Progress, RegisterConfig},
};

use crate::signals::Signals;

/// Registers until a signal asks it to end, then takes the process off again.
pub(crate) async fn run(args: RegisterArgs, output: &mut Output) -> Result<Exit> {
    let config = RegisterConfig {
        namespace: args.namespace.clone(),
        pod: None,
        registrations: vec![registration(&args)?],
        app: App::default(),
    };
    let mut signals = Signals::new()?;
    let kubeconfig = args.kubeconfig.clone().or_else(local_kubeconfig);
    let client = connect(kubeconfig.as_deref()).await?;
    let shutdown = Shutdown::new();
    let ending = shutdown.clone();
    tokio::spawn(async move {
        signals.wait(&ending).await;
        ending.cancel();
    });
    let address = args.address;
    registrar::run(config, client, &shutdown, |progress| match progress {
        Progress::Created { pod } => {
            output
                .word(&format!("registered as Pod {}/{pod}; Ctrl-C takes it off", args.namespace));
        }
        Progress::Ready => output.word(&format!("{address} accepts connections: ready")),
        Progress::NotReady(why) => output.word(&format!("not ready: {why}")),
        Progress::ApiTrouble(why) => output.word(&format!("the API is in trouble: {why}")),
        Progress::Deleted => output.word("taken off"),
    })
    .await?;
    Ok(Exit::Fine)
}

/// What the flags say of the process.
fn registration(args: &RegisterArgs) -> Result<Registration> {
    let mut registration = Registration {
        group: args.group.clone(),
        version: args.version.clone(),
        methods: args.methods.clone(),
        weight: args.weight,
        ..Registration::new(&args.interface, &args.protocol, args.address)
    };
    for pair in &args.metadata {
        let Some((key, value)) = pair.split_once('=') else {
            bail!("--meta {pair:?}: write KEY=VALUE");
        };
        registration.params.insert(key.to_owned(), value.to_owned());
    }
    Ok(registration)
}

/// The kubeconfig of the Portolan that runs from this folder, if one does.
fn local_kubeconfig() -> Option<PathBuf> {
    local_addresses()?.kubeconfig.map(PathBuf::from).filter(|path| path.is_file())
}
