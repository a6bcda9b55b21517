//! Asks one server everything and writes down what it says.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use portolan_conformance_kube_api::kubeconfig::Access;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    client::{Answer, Call, Client, Watch},
    compare::Row,
    normal::Normal,
    scenario::{self, Scenario, Step, Suite},
};

/// What a controller does, it does within this, on a machine that compiles beside.
const SETTLE: Duration = Duration::from_secs(20);
/// Pause between two questions of a step that waits.
const POLL: Duration = Duration::from_millis(50);
/// History is thrown away within this: twice the interval of the reference, and some.
const EXPIRE: Duration = Duration::from_secs(40);
/// How long events that are due may take.
const EVENTS: Duration = Duration::from_secs(8);

pub(crate) async fn all(suite: &Suite, access: &Access, only: &str) -> Result<Vec<Row>> {
    let client = Client::new(access)?;
    let mut rows = Vec::new();
    for scenario in suite.scenarios.iter().filter(|s| s.scenario.contains(only)) {
        let mut run = Run {
            client: &client,
            suite,
            name: &scenario.scenario,
            prefix: scenario.scenario.clone(),
            variables: BTreeMap::new(),
            normal: Normal::new(&access.authority),
            watches: BTreeMap::new(),
            rows: &mut rows,
        };
        if let Err(error) = run.scenario(scenario).await {
            // Seen as a row that the other server does not have.
            eprintln!("{}: {error:#}", scenario.scenario);
            let id = format!("{}/broken off", scenario.scenario);
            rows.push(Row { id, outcome: format!("{error:#}").into() });
        }
    }
    Ok(rows)
}

struct Run<'a> {
    client: &'a Client,
    suite: &'a Suite,
    name: &'a str,
    prefix: String,
    variables: BTreeMap<String, Value>,
    normal: Normal,
    watches: BTreeMap<String, Watch>,
    rows: &'a mut Vec<Row>,
}

impl Run<'_> {
    async fn scenario(&mut self, scenario: &Scenario) -> Result<()> {
        self.variables.insert("ns".into(), self.name.into());
        if !scenario.bare {
            make_namespace(self.client, self.name).await?;
        }
        let once = vec![BTreeMap::new()];
        let each = if scenario.each.is_empty() { &once } else { &scenario.each };
        for values in each {
            for (name, value) in values {
                let value = scenario::fill(value, &self.variables);
                self.variables.insert(name.clone(), value);
            }
            if let Some(name) = values.get("as").and_then(Value::as_str) {
                self.prefix = format!("{}/{name}", self.name);
            }
            for step in scenario.steps.iter().flat_map(scenario::expand) {
                let id = step.id.clone();
                self.step(&step).await.with_context(|| format!("{}/{id}", self.prefix))?;
            }
        }
        self.watches.clear();
        if !scenario.bare {
            let path = format!("/api/v1/namespaces/{}", self.name);
            self.client.call(&Call { method: "DELETE".into(), path, ..Call::default() }).await?;
        }
        Ok(())
    }

    fn call(&self, step: &Step) -> Result<Call> {
        let text = |t: &str| scenario::fill_text(t, &self.variables);
        let line = text(&step.call);
        let (method, path) = line.split_once(' ').context("call: METHOD /path")?;
        let body = self.body(step)?;
        let default_type = body.as_ref().map(|_| match method {
            "PATCH" => "application/merge-patch+json".to_owned(),
            _ => "application/json".to_owned(),
        });
        Ok(Call {
            method: method.to_owned(),
            path: path.to_owned(),
            content_type: step.content_type.clone().or(default_type),
            accept: step.accept.clone(),
            headers: step.headers.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
            token: step.token.as_deref().map(text),
            body: body.unwrap_or_default(),
        })
    }

    fn body(&self, step: &Step) -> Result<Option<Bytes>> {
        if let Some(raw) = &step.raw {
            return Ok(Some(scenario::fill_text(raw, &self.variables).into()));
        }
        if let Some(bytes) = &step.bytes {
            return Ok(Some(STANDARD.decode(bytes)?.into()));
        }
        let found = match (&step.base, &step.body) {
            (Some(name), _) => {
                let name = scenario::fill_text(name, &self.variables);
                let base = self.suite.bases.get(&name);
                Some(base.with_context(|| format!("no base {name}"))?.clone())
            }
            (None, body) => body.clone(),
        };
        let Some(mut value) = found else { return Ok(None) };
        for (pointer, field) in &step.set {
            scenario::set(&mut value, pointer, field)?;
        }
        value = scenario::fill(&value, &self.variables);
        if let Some(count) = step.fill {
            let text = "x".repeat(count);
            value = serde_json::from_str(&value.to_string().replace("FILL", &text))?;
        }
        Ok(Some(value.to_string().into()))
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        if let Some(events) = &step.events {
            let Some(watch) = self.watches.get_mut(&events.of) else {
                self.write(step, json!("no such stream"));
                return Ok(());
            };
            let within = if events.end { EVENTS * 2 } else { EVENTS };
            let count = if events.end { usize::MAX } else { events.count };
            let (found, ended) = watch.next(count, &events.skip, within).await;
            for event in &found {
                if let Some(object) = event.get("object") {
                    self.save(step, object);
                }
            }
            let mut outcome = json!({"events": found});
            if events.end {
                outcome["ended"] = ended.into();
            }
            self.normal.study(&outcome);
            let kept = trim(&outcome, step);
            self.write(step, kept);
            return Ok(());
        }
        let call = self.call(step)?;
        if let Some(name) = &step.watch {
            let watch = self.client.watch(&call).await?;
            let code = watch.code;
            self.watches.insert(name.clone(), watch);
            self.write(step, json!({"code": code}));
            return Ok(());
        }
        for turn in 1..step.times.unwrap_or(1) {
            self.variables.insert("turn".into(), turn.into());
            let call = self.call(step)?;
            self.client.call(&call).await?;
        }
        let deadline = Instant::now() + if step.until_code == Some(410) { EXPIRE } else { SETTLE };
        let (answer, body) = loop {
            let answer = match self.client.call(&call).await {
                Ok(answer) => answer,
                Err(error) => {
                    // A connection that is closed without an answer is an outcome.
                    eprintln!("{}/{}: {error:#}", self.prefix, step.id);
                    self.write(step, json!("no answer"));
                    return Ok(());
                }
            };
            let body = parse(&answer);
            let right_code = step.until_code.is_none_or(|code| code == answer.code);
            if (right_code && self.holds(step, &body)) || Instant::now() > deadline {
                break (answer, body);
            }
            sleep(POLL).await;
        };
        self.save(step, &body);
        self.normal.study(&body);
        let body = match &step.claims {
            Some(pointer) => claims(body.pointer(pointer)).unwrap_or_else(|| "no JWT".into()),
            None => body,
        };
        let outcome = outcome(&answer, trim(&body, step));
        self.write(step, outcome);
        if let Some(path) = &step.settle {
            self.settle(path).await?;
        }
        Ok(())
    }

    /// Waits until a Deployment's status is that of its newest generation, and says so.
    async fn settle(&self, path: &str) -> Result<()> {
        let path = scenario::fill_text(path, &self.variables);
        let look = Call { method: "GET".into(), path, ..Call::default() };
        let deadline = Instant::now() + SETTLE;
        loop {
            let seen = parse(&self.client.call(&look).await?);
            if is_settled(&seen) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "not settled: {seen}");
            sleep(POLL).await;
        }
    }

    fn save(&mut self, step: &Step, body: &Value) {
        for (name, pointer) in &step.save {
            if let Some(found) = body.pointer(pointer) {
                self.variables.insert(name.clone(), found.clone());
            }
        }
    }

    fn holds(&self, step: &Step, body: &Value) -> bool {
        step.until.iter().all(|(pointer, expected)| {
            let expected = scenario::fill(expected, &self.variables);
            let (pointer, counts) = match pointer.strip_suffix('#') {
                Some(pointer) => (pointer, true),
                None => (pointer.as_str(), false),
            };
            let found = body.pointer(pointer);
            if counts {
                let count = found.and_then(Value::as_array).map_or(0, Vec::len);
                return expected == json!(count);
            }
            found.unwrap_or(&Value::Null) == &expected
        })
    }

    fn write(&mut self, step: &Step, outcome: Value) {
        if !step.quiet {
            let id = format!("{}/{}", self.prefix, step.id);
            self.rows.push(Row { id, outcome: self.normal.value(&outcome) });
        }
    }
}

/// Makes a Namespace and waits until Pods can be made in it.
pub(crate) async fn make_namespace(client: &Client, name: &str) -> Result<()> {
    let body = json!({"metadata": {"name": name}}).to_string();
    let call = Call {
        method: "POST".into(),
        path: "/api/v1/namespaces".into(),
        content_type: Some("application/json".into()),
        body: body.into(),
        ..Call::default()
    };
    let made = client.call(&call).await?;
    anyhow::ensure!(made.code == 201, "namespace: {}", String::from_utf8_lossy(&made.body));
    let path = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    let look = Call { method: "GET".into(), path, ..Call::default() };
    let deadline = Instant::now() + SETTLE;
    while client.call(&look).await?.code != 200 {
        anyhow::ensure!(Instant::now() < deadline, "no ServiceAccount");
        sleep(POLL).await;
    }
    Ok(())
}

fn is_settled(deployment: &Value) -> bool {
    let at = |pointer: &str| deployment.pointer(pointer).unwrap_or(&Value::Null);
    let conditions = at("/status/conditions").as_array();
    let progressing = conditions.into_iter().flatten().find(|c| c["type"] == "Progressing");
    at("/status/observedGeneration") == at("/metadata/generation")
        && progressing.is_some_and(|c| c["reason"] == "NewReplicaSetAvailable")
}

/// What a JWT says; moments are all "now" or later.
fn claims(token: Option<&Value>) -> Option<Value> {
    let body = token?.as_str()?.split('.').nth(1)?;
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
    let issued = claims.get("iat")?.as_i64()?;
    for moment in ["iat", "nbf", "exp"] {
        let after = claims.get(moment)?.as_i64()? - issued;
        claims[moment] = format!("<iat> + {after}").into();
    }
    Some(claims)
}

fn parse(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&answer.body).into_owned()))
}

fn outcome(answer: &Answer, body: Value) -> Value {
    let header = |name: &str| -> Vec<String> {
        let values = answer.headers.get_all(name).iter();
        values.filter_map(|v| v.to_str().ok().map(ToOwned::to_owned)).collect()
    };
    let mut outcome = Map::new();
    outcome.insert("code".into(), answer.code.into());
    outcome.insert("type".into(), header("content-type").join(" ").into());
    for name in ["warning", "retry-after", "allow", "location"] {
        let values = header(name);
        if !values.is_empty() {
            outcome.insert(name.into(), values.into());
        }
    }
    outcome.insert("body".into(), body);
    Value::Object(outcome)
}

/// The part of an answer that is written down. Times and revisions stay where
/// they are; [`Normal`] takes care of them.
fn trim(body: &Value, step: &Step) -> Value {
    let mut kept = if step.keep.is_empty() {
        body.clone()
    } else {
        let mut parts = Map::new();
        for pointer in &step.keep {
            if let Some(found) = body.pointer(pointer) {
                parts.insert(pointer.clone(), found.clone());
            }
        }
        Value::Object(parts)
    };
    for (pointer, fields) in &step.pick {
        if let Some(Value::Array(list)) = kept.pointer_mut(pointer) {
            let has = |member: &Value, (field, values): (&String, &Vec<Value>)| {
                member.get(field).is_some_and(|value| values.contains(value))
            };
            list.retain(|member| fields.iter().all(|wanted| has(member, wanted)));
        }
    }
    for pointer in &step.drop {
        remove(&mut kept, &pointer.split('/').skip(1).collect::<Vec<_>>());
    }
    kept
}

/// Removes a field; `*` is any member.
pub(crate) fn remove(value: &mut Value, path: &[&str]) {
    let Some((key, rest)) = path.split_first() else { return };
    let unescaped = key.replace("~1", "/").replace("~0", "~");
    match value {
        Value::Object(map) if rest.is_empty() => {
            map.shift_remove(&unescaped);
        }
        Value::Object(map) => {
            for (name, member) in map.iter_mut() {
                if *key == "*" || *name == unescaped {
                    remove(member, rest);
                }
            }
        }
        Value::Array(list) => {
            for (index, member) in list.iter_mut().enumerate() {
                if *key == "*" || index.to_string() == unescaped {
                    remove(member, rest);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_removed() {
        let mut object = json!({"items": [{"a": 1, "b": 2}, {"a": 3}], "c": {"d/e": 1}});
        remove(&mut object, &["items", "*", "a"]);
        remove(&mut object, &["c", "d~1e"]);
        assert_eq!(object, json!({"items": [{"b": 2}, {}], "c": {}}));
    }
}
