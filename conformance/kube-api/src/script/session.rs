//! Runs scripts on one server.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout_at},
};

use super::{
    Script, Step, Take,
    kubelet::{ADDRESSES, Kubelet},
    terminal,
};
use crate::{
    client::{Call, Client},
    compare::Row,
    kubeconfig::Access,
    normal::Normal,
    run,
};

/// No command takes longer on a machine that is busy; one that does is ended.
const COMMAND_SECONDS: &str = "90";
/// What a controller does, it does within this, on a machine that compiles beside.
const SETTLE: Duration = Duration::from_secs(30);
/// Pause between two runs of a command that waits.
const POLL: Duration = Duration::from_millis(200);
/// What the kubeconfig calls everything: the same on both servers.
const CONTEXT: &str = "judge";
/// Where names come from that a server makes up.
const NAMED_BY_SERVER: [&str; 4] = [
    "/apis/apps/v1/{}/controllerrevisions",
    "/api/v1/{}/pods",
    "/apis/apps/v1/{}/replicasets",
    "/apis/discovery.k8s.io/v1/{}/endpointslices",
];

/// Runs all scripts; `folder` is emptied and becomes their home.
pub(crate) async fn all(
    scripts: &[Script],
    access: &Access,
    folder: &Path,
    only: &str,
) -> Result<Vec<Row>> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let home = folder.join("home");
    fs::create_dir_all(&home)?;
    let mut rows = Vec::new();
    for script in scripts.iter().filter(|s| prefix(&s.script).contains(only)) {
        let done = match Session::open(script, access, folder, &home).await {
            Ok(mut session) => session.steps(script, &mut rows).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            // Seen as a row that the other server does not have.
            eprintln!("{}: {error:#}", script.script);
            let id = format!("{}/broken off", prefix(&script.script));
            rows.push(Row { id, outcome: format!("{error:#}").into() });
        }
    }
    Ok(rows)
}

fn prefix(script: &str) -> String {
    format!("kubectl:{script}")
}

/// One script on one server.
struct Session {
    client: Client,
    namespace: String,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    normal: Normal,
    followed: BTreeMap<String, (Child, Lines<BufReader<ChildStdout>>)>,
    _kubelet: Kubelet,
}

impl Session {
    async fn open(script: &Script, access: &Access, folder: &Path, home: &Path) -> Result<Session> {
        let client = Client::new(access)?;
        // Scenarios have Namespaces too.
        let namespace = format!("kubectl-{}", script.script);
        run::make_namespace(&client, &namespace).await?;
        let folder = folder.join(&script.script);
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        for entry in fs::read_dir(super::folder().join("files"))? {
            let entry = entry?;
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        let kubeconfig = home.join(format!("{namespace}.kubeconfig"));
        fs::write(&kubeconfig, kubeconfig_text(access, &namespace).to_string())?;
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let environment = vec![
            ("HOME", shown(home)),
            ("KUBECONFIG", shown(&kubeconfig.canonicalize()?)),
            ("NS", namespace.clone()),
            ("TMPDIR", shown(&folder)),
            ("LC_ALL", "C".into()),
            ("TZ", "UTC".into()),
        ];
        let kubelet = Kubelet::start(Client::new(access)?, &namespace).await?;
        let mut normal = Normal::new(&access.authority);
        normal.learn(&shown(&folder), "<folder>");
        Ok(Session {
            client,
            namespace,
            folder,
            environment,
            normal,
            followed: BTreeMap::new(),
            _kubelet: kubelet,
        })
    }

    async fn steps(&mut self, script: &Script, rows: &mut Vec<Row>) -> Result<()> {
        for step in &script.steps {
            let outcome = self.step(step).await.with_context(|| step.id.clone())?;
            if let Some(outcome) = outcome {
                let id = format!("{}/{}", prefix(&script.script), step.id);
                rows.push(Row { id, outcome });
            }
        }
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        self.client.call(&Call { method: "DELETE".into(), path, ..Call::default() }).await?;
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<Option<Value>> {
        if let Some(take) = &step.take {
            return Ok(Some(self.take(take).await?));
        }
        if let Some(name) = &step.follow {
            self.follow(name, &step.run)?;
            return Ok(None);
        }
        let deadline = Instant::now() + SETTLE;
        let output = loop {
            let output = self.shell(&step.run).await?;
            let right_code = step.until_code.is_none_or(|code| output.status.code() == Some(code));
            let right_text = step.until.as_ref().is_none_or(|text| prints(&output, text));
            if (right_code && right_text) || Instant::now() > deadline {
                break output;
            }
            sleep(POLL).await;
        };
        self.learn().await?;
        if step.quiet {
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{}: {said}", output.status);
            return Ok(None);
        }
        Ok(Some(self.outcome(step, &output)))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn shell(&self, line: &str) -> Result<Output> {
        let mut command = self.command("timeout");
        command.args(["-k", "2", COMMAND_SECONDS, "sh", "-c", line]);
        command.output().await.context("timeout (coreutils)")
    }

    fn follow(&mut self, name: &str, line: &str) -> Result<()> {
        let mut command = self.command("sh");
        command.args(["-c", &format!("exec {line}")]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let output = child.stdout.take().context("no standard output")?;
        self.followed.insert(name.to_owned(), (child, BufReader::new(output).lines()));
        Ok(())
    }

    /// The next lines of a command that runs on; fewer when time is up.
    async fn take(&mut self, take: &Take) -> Result<Value> {
        let (_, lines) = self.followed.get_mut(&take.of).context("nothing is followed")?;
        let deadline = Instant::now() + SETTLE;
        let mut text = String::new();
        for _ in 0..take.count {
            match timeout_at(deadline, lines.next_line()).await {
                Ok(Ok(Some(line))) => text.push_str(&format!("{line}\n")),
                _ => break,
            }
        }
        self.learn().await?;
        Ok(json!({"out": terminal::printed(&text, false, &self.normal)}))
    }

    /// Takes the names that were made up since.
    async fn learn(&mut self) -> Result<()> {
        for path in NAMED_BY_SERVER {
            let path = path.replace("{}", &format!("namespaces/{}", self.namespace));
            let call = Call { method: "GET".into(), path, ..Call::default() };
            let list: Value = serde_json::from_slice(&self.client.call(&call).await?.body)?;
            self.normal.study(&list);
            for pod in list.get("items").and_then(Value::as_array).into_iter().flatten() {
                let address = pod.pointer("/status/podIP").and_then(Value::as_str);
                if let Some(address) = address.filter(|a| a.starts_with(ADDRESSES)) {
                    self.normal.learn(address, "<pod address>");
                }
            }
        }
        Ok(())
    }

    fn outcome(&self, step: &Step, output: &Output) -> Value {
        let mut outcome = Map::new();
        outcome.insert("exit".into(), output.status.code().into());
        for (name, bytes) in [("out", &output.stdout), ("err", &output.stderr)] {
            let text = String::from_utf8_lossy(bytes);
            let mut value = match terminal::structured(&text, asks_for_yaml(&step.run)) {
                Some(mut object) => {
                    for pointer in &step.drop {
                        run::remove(&mut object, &pointer.split('/').skip(1).collect::<Vec<_>>());
                    }
                    self.normal.value(&object)
                }
                None => terminal::printed(&text, false, &self.normal),
            };
            if let Value::Array(lines) = &mut value {
                lines.retain(|line| {
                    let line = line.as_str().unwrap_or_default();
                    !step.without.iter().any(|part| line.contains(part.as_str()))
                });
                if step.sorted {
                    lines.sort_by_key(ToString::to_string);
                }
            }
            if value != json!([]) {
                outcome.insert(name.into(), value);
            }
        }
        Value::Object(outcome)
    }
}

fn prints(output: &Output, text: &str) -> bool {
    String::from_utf8_lossy(&output.stdout).contains(text)
}

fn asks_for_yaml(line: &str) -> bool {
    ["-o yaml", "-oyaml", "--output=yaml", "view-last-applied"].iter().any(|t| line.contains(t))
}

/// JSON is YAML.
fn kubeconfig_text(access: &Access, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": {
            "server": format!("https://{}", access.authority),
            "certificate-authority-data": STANDARD.encode(&access.ca_pem),
        }}],
        "contexts": [{"name": CONTEXT, "context": {
            "cluster": CONTEXT, "user": "admin", "namespace": namespace,
        }}],
        "users": [{"name": "admin", "user": {"token": access.token}}],
    })
}
