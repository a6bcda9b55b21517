//! Programs as they are written for a cluster, run as Pods of ours with network
//! and mount namespaces of their own: client-go's in-cluster configuration by
//! the program in `in-cluster/`, kube-rs's by `portolan register`.
//!
//! The reference has no kubelet, so that there is nothing to compare with: what
//! the programs must say is written here.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::{Call, Client},
    kubeconfig, run,
    servers::Server,
};

const NAMESPACE: &str = "in-cluster";
const PODS: &str = "/api/v1/namespaces/in-cluster/pods";
/// How long a program may take on a machine that compiles beside.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

pub(crate) async fn judge(program: &Path, portolan: &Path, folder: &Path) -> Result<()> {
    let server = Server::ours_with_pods(portolan, folder)?;
    let client = Client::new(&kubeconfig::read(&server.kubeconfig)?)?;
    run::make_namespace(&client, NAMESPACE).await?;
    client_go(&client, &program.canonicalize()?).await.context("client-go")?;
    kube_rs(&client).await.context("kube-rs")
}

/// Lists, and follows a Pod that comes and goes.
async fn client_go(client: &Client, program: &Path) -> Result<()> {
    make(client, "client-go", json!([program])).await?;
    said(client, "client-go", "synced\n").await?;
    make(client, "last", json!(["sleep", "1000"])).await?;
    said(client, "client-go", "last came\n").await?;
    send(client, "DELETE", &format!("{PODS}/last"), &json!({"gracePeriodSeconds": 0})).await?;
    let log = said(client, "client-go", "last went\n").await?;
    let expected = "https://10.96.0.1:443 in in-cluster sees client-go\n\
                    synced\nlast came\nlast went\n";
    ensure!(log == expected, "it said:\n{log}");
    phase(client, "client-go", "Succeeded").await
}

/// The token of a Pod may register that Pod only: the refusal tells whose it is.
async fn kube_rs(client: &Client) -> Result<()> {
    let command = "export HOME=/nowhere; $PORTOLAN_BIN register x --address 127.0.0.1:80 2>&1";
    make(client, "kube-rs", json!(["sh", "-c", command])).await?;
    phase(client, "kube-rs", "Failed").await?;
    said(client, "kube-rs", "system:serviceaccount:in-cluster:default").await?;
    Ok(())
}

async fn make(client: &Client, name: &str, command: Value) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [
            {"name": "main", "image": "portolan.dev/process", "command": command},
        ]},
    });
    send(client, "POST", PODS, &pod).await.map(drop)
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<String> {
    let call = Call {
        method: method.into(),
        path: path.into(),
        content_type: Some("application/json".into()),
        body: body.to_string().into(),
        ..Call::default()
    };
    let answer = client.call(&call).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(answer.code < 300, "{method} {path}: {text}");
    Ok(text)
}

/// Waits until a Pod has said something; what it has said.
async fn said(client: &Client, name: &str, text: &str) -> Result<String> {
    let path = format!("{PODS}/{name}/log");
    until(client, &path, |log| log.contains(text)).await
}

async fn phase(client: &Client, name: &str, phase: &str) -> Result<()> {
    let is_there = |pod: &str| {
        let pod: Value = serde_json::from_str(pod).unwrap_or_default();
        pod.pointer("/status/phase").and_then(Value::as_str) == Some(phase)
    };
    until(client, &format!("{PODS}/{name}"), is_there).await.map(drop)
}

async fn until(client: &Client, path: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let call = Call { method: "GET".into(), path: path.into(), ..Call::default() };
        let answer = client.call(&call).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.code == 200 && holds(&text) {
            return Ok(text);
        }
        if Instant::now() > deadline {
            bail!("{path} is still {text}");
        }
        sleep(POLL).await;
    }
}
