//! `portolan agent`: the sidecar, from its start to the last registration taken back.

use std::{net::IpAddr, path::Path};

use anyhow::{Context, Result, anyhow};
use portolan_agent::{Config, Learn, Listen};
use portolan_cli::{
    args::{AgentArgs, RunOutput},
    local_addresses,
    output::{Exit, Output},
};
use portolan_runtime::{Shutdown, Tasks};
use portolan_wire::DEFAULT_SERVER;
use serde_json::json;

use crate::{faces::FINISH, signals::Signals};

/// Runs until a signal asks it to end, then drains.
pub(crate) async fn run(
    args: AgentArgs,
    server: Option<String>,
    output: &mut Output,
) -> Result<Exit> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let config = config(&args, server, &variable)?;
    let files = args.register.iter().map(|path| read(path));
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut signals = Signals::new()?;
    let tasks = Tasks::new(Shutdown::new());
    let agent = portolan_agent::start(config, &tasks).await?;
    for (path, text) in args.register.iter().zip(files) {
        let registered = async { agent.register(&text).await };
        tokio::select! {
            registered = registered => if let Err(error) = registered {
                tasks.shutdown().cancel();
                tasks.finish(FINISH).await;
                return Err(anyhow!("--register {}: {error}", path.display()));
            },
            _ = signals.wait(tasks.shutdown()) => break,
        }
    }
    let listen = agent.listen.to_string();
    if args.output == Some(RunOutput::Json) {
        output.line(&json!({"listen": listen, "pid": std::process::id()}).to_string())?;
    } else {
        output.line(&format!("the agent listens on {listen}"))?;
    }
    let fell_over = signals.wait(tasks.shutdown()).await;
    if !fell_over {
        tokio::select! {
            () = agent.drain() => {}
            // Who asks twice is in a hurry.
            _ = signals.wait(tasks.shutdown()) => {}
        }
    }
    tasks.shutdown().cancel();
    tasks.finish(FINISH).await;
    Ok(if fell_over { Exit::Problem } else { Exit::Fine })
}

fn config(
    args: &AgentArgs,
    server: Option<String>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Config> {
    let listen: Listen = args.listen.parse().map_err(|error| anyhow!("--listen {error}"))?;
    let learn = if args.direct {
        Learn::Direct
    } else {
        let local = || local_addresses().and_then(|addresses| addresses.http);
        let named = server.filter(|server| !server.is_empty()).or_else(local);
        Learn::Server(named.unwrap_or_else(|| DEFAULT_SERVER.to_owned()))
    };
    let addresses = variable("POD_IPS").or_else(|| variable("POD_IP")).unwrap_or_default();
    let pod_addresses =
        addresses.split(',').map(str::trim).filter(|text| !text.is_empty()).map(|text| {
            text.parse::<IpAddr>().with_context(|| {
                format!(
                    "POD_IP: {text:?} is no address; set it from the Downward API (status.podIP)"
                )
            })
        });
    Ok(Config {
        listen,
        learn,
        namespace: args
            .namespace
            .clone()
            .or_else(|| variable("NAMESPACE"))
            .or_else(|| variable("POD_NAMESPACE")),
        pod_addresses: pod_addresses.collect::<Result<_>>()?,
        drain: args.drain,
    })
}

/// A file as JSON; YAML is read too, of which JSON is a part.
fn read(path: &Path) -> Result<Vec<u8>> {
    let of = || format!("--register {}", path.display());
    let text = std::fs::read_to_string(path).with_context(of)?;
    let value: serde_json::Value = serde_norway::from_str(&text).with_context(of)?;
    serde_json::to_vec(&value).with_context(of)
}
