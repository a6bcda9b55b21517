//! The environment of a container, and the words of its command.
//!
//! ```text
//!  parent's few ─▶ service links ─▶ portolan's own ─▶ envFrom ─▶ env ══▶ final
//!                                                       ▲          ▲
//!                             ConfigMaps, Secrets ──────┴──────────┤ fieldRef
//! ```
//!
//! Later entries win. `$(NAME)` in values of `env`, and in command and args, is
//! replaced by what was set before; `$$` is a dollar sign; an unknown name stays
//! as written (as `k8s.io/kubernetes/third_party/forked/golang/expansion` does).
//! All of it is pure: objects come through a [`Lookup`].

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use super::pod::{Container, Pod};
use crate::object::{self, at, flag, int, list, text};

/// Variables that a container inherits: where programs are, who runs them, in
/// which language. Anything else (credentials, say) stays out, so that a Pod
/// behaves the same wherever `portolan up` was started.
pub(crate) const INHERITED: &[&str] =
    &["PATH", "HOME", "LANG", "LANGUAGE", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR"];

/// Path when the parent has none: what POSIX `getconf PATH` gives on Linux, with the local folder.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Names and values, in the order of their names.
pub(crate) type Env = BTreeMap<String, String>;

/// What the container cannot start without. Upstream's reason for it is
/// `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{kind} {name:?} not found")]
    Missing { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {name}")]
    NoKey { kind: &'static str, name: String, key: String },
    #[error("{kind} {name}, key {key}: the value is not base64 of UTF-8 text")]
    NotText { kind: &'static str, name: String, key: String },
    #[error("env {name}: fieldRef {path:?} is not supported")]
    UnknownField { name: String, path: String },
    #[error("env {name}: resourceFieldRef {resource:?} is not supported")]
    UnknownResource { name: String, resource: String },
    #[error("env: an entry has no name")]
    Nameless,
}

/// Where ConfigMaps and Secrets come from.
pub(crate) trait Lookup {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<Value>>;
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Value>>;
}

/// What the Downward API may say about a Pod while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_ip: IpAddr,
}

/// What every container is told besides its own `env`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// The parent's environment, before it is narrowed to [`INHERITED`].
    pub(crate) parent: Env,
    /// Set for every Pod alike: the API's address, files, the binary.
    pub(crate) own: Env,
}

/// The whole environment of a container.
pub(crate) fn build(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    given: &Given,
    links: Env,
    lookup: &dyn Lookup,
) -> Result<Env, EnvError> {
    let mut env: Env =
        given.parent.iter().filter(|(name, _)| INHERITED.contains(&name.as_str())).fold(
            Env::from([("PATH".to_owned(), PATH_DEFAULT.to_owned())]),
            |mut env, (name, value)| {
                env.insert(name.clone(), value.clone());
                env
            },
        );
    env.extend(links);
    env.extend(given.own.clone());
    env.insert("HOSTNAME".into(), hostname(pod));
    env.insert("POD_NAME".into(), pod.name.clone());
    env.insert("POD_NAMESPACE".into(), pod.namespace.clone());
    if let Some(address) = facts.addresses.first() {
        env.insert("POD_IP".into(), address.to_string());
    }
    for source in list(&container.raw, "/envFrom") {
        add_all(&mut env, pod, source, lookup)?;
    }
    for entry in list(&container.raw, "/env") {
        let name = text(entry, "/name");
        if name.is_empty() {
            return Err(EnvError::Nameless);
        }
        let value = match at(entry, "/valueFrom") {
            Some(from) => value_from(name, from, pod, container, facts, lookup)?,
            None => Some(expand(text(entry, "/value"), &env)),
        };
        if let Some(value) = value {
            env.insert(name.to_owned(), value);
        }
    }
    // A NUL cannot be passed to a process; nor can a name with '='.
    env.retain(|name, value| !name.contains(['=', '\0']) && !value.contains('\0'));
    Ok(env)
}

pub(crate) fn hostname(pod: &Pod) -> String {
    let asked = text(&pod.raw, "/spec/hostname");
    if asked.is_empty() { pod.name.clone() } else { asked.to_owned() }
}

/// `envFrom`: every key of a ConfigMap or Secret.
fn add_all(env: &mut Env, pod: &Pod, source: &Value, lookup: &dyn Lookup) -> Result<(), EnvError> {
    let prefix = text(source, "/prefix");
    for (field, kind) in [("configMapRef", "configmap"), ("secretRef", "secret")] {
        let Some(reference) = at(source, &format!("/{field}")) else { continue };
        let name = text(reference, "/name");
        let Some(object) = find(kind, &pod.namespace, name, lookup) else {
            if flag(reference, "/optional") {
                continue;
            }
            return Err(EnvError::Missing { kind, name: name.to_owned() });
        };
        for (key, _) in object::texts(&object, "/data") {
            if let Some(value) = read_key(kind, name, &object, key)? {
                env.insert(format!("{prefix}{key}"), value);
            }
        }
    }
    Ok(())
}

fn find(kind: &str, namespace: &str, name: &str, lookup: &dyn Lookup) -> Option<Arc<Value>> {
    match kind {
        "secret" => lookup.secret(namespace, name),
        _ => lookup.config_map(namespace, name),
    }
}

fn read_key(
    kind: &'static str,
    name: &str,
    object: &Value,
    key: &str,
) -> Result<Option<String>, EnvError> {
    let Some(raw) = object.get("data").and_then(|d| d.get(key)).and_then(Value::as_str) else {
        return Ok(None);
    };
    if kind == "configmap" {
        return Ok(Some(raw.to_owned()));
    }
    let bad = || EnvError::NotText { kind, name: name.to_owned(), key: key.to_owned() };
    let bytes = BASE64_STANDARD.decode(raw).map_err(|_| bad())?;
    String::from_utf8(bytes).map(Some).map_err(|_| bad())
}

/// The value of one `valueFrom`; `None` when it is optional and absent.
fn value_from(
    name: &str,
    from: &Value,
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    lookup: &dyn Lookup,
) -> Result<Option<String>, EnvError> {
    if let Some(reference) = at(from, "/fieldRef") {
        let path = text(reference, "/fieldPath");
        return field(path, pod, facts).map(Some).ok_or_else(|| EnvError::UnknownField {
            name: name.to_owned(),
            path: path.to_owned(),
        });
    }
    if let Some(reference) = at(from, "/resourceFieldRef") {
        let resource = text(reference, "/resource");
        return resource_field(resource, container).map(Some).ok_or_else(|| {
            EnvError::UnknownResource { name: name.to_owned(), resource: resource.to_owned() }
        });
    }
    for (field, kind) in [("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")] {
        let Some(reference) = at(from, &format!("/{field}")) else { continue };
        let (object_name, key) = (text(reference, "/name"), text(reference, "/key"));
        let optional = flag(reference, "/optional");
        let object = find(kind, &pod.namespace, object_name, lookup);
        let value = match &object {
            Some(object) => read_key(kind, object_name, object, key)?,
            None => None,
        };
        return match (value, optional) {
            (Some(value), _) => Ok(Some(value)),
            (None, true) => Ok(None),
            (None, false) if object.is_none() => {
                Err(EnvError::Missing { kind, name: object_name.to_owned() })
            }
            (None, false) => {
                Err(EnvError::NoKey { kind, name: object_name.to_owned(), key: key.to_owned() })
            }
        };
    }
    Ok(Some(String::new()))
}

/// A `fieldPath` of the Downward API; `None` when there is no such path.
pub(crate) fn field(path: &str, pod: &Pod, facts: &Facts) -> Option<String> {
    if let Some((map, key)) = subscript(path) {
        let value = match map {
            "labels" => object::label(&pod.raw, key),
            "annotations" => object::annotation(&pod.raw, key),
            _ => return None,
        };
        return Some(value.unwrap_or_default().to_owned());
    }
    let first = facts.addresses.first().map(ToString::to_string).unwrap_or_default();
    Some(match path {
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "metadata.uid" => pod.uid.clone(),
        "spec.nodeName" => pod.node.clone(),
        "spec.serviceAccountName" => text(&pod.raw, "/spec/serviceAccountName").to_owned(),
        "status.podIP" => first,
        "status.podIPs" => {
            facts.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        "metadata.labels" | "metadata.annotations" => {
            let pointer = format!("/{}", path.replace('.', "/"));
            let pairs = object::texts(&pod.raw, &pointer);
            pairs.map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n")
        }
        _ => return None,
    })
}

/// `metadata.labels['x']` as `("labels", "x")`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.strip_prefix("metadata.")?.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let unquoted = |q: char| key.strip_prefix(q)?.strip_suffix(q);
    Some((map, unquoted('\'').or_else(|| unquoted('"'))?))
}

/// A plain number of `limits` or `requests`; cpu in whole cores, rounded up, as
/// with the default divisor. Quantities with suffixes other than `m` and the
/// powers of two and ten are not known here.
pub(crate) fn resource_field(resource: &str, container: &Container) -> Option<String> {
    let (side, name) = resource.split_once('.')?;
    let raw = container.raw.get("resources")?.get(side)?.get(name)?;
    let text = raw.as_str().map(str::to_owned).or_else(|| raw.as_i64().map(|n| n.to_string()))?;
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let scale: u64 = match suffix {
        "" => 1,
        "m" => return Some(number.div_ceil(1000).to_string()),
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(scale).map(|n| n.to_string())
}

/// Replaces `$(NAME)`; `$$` is a dollar sign.
pub(crate) fn expand(input: &str, env: &Env) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(dollar) = rest.find('$') {
        output.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            output.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.get(name) {
                Some(value) => output.push_str(value),
                None => output.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            output.push('$');
        }
    }
    output.push_str(rest);
    output
}

/// The variables by which Services announce themselves (`enableServiceLinks`):
/// those of the Pod's namespace that have a virtual IP.
/// Names and forms: k8s.io/kubernetes `pkg/kubelet/envvars`.
pub(crate) fn service_links<'a>(services: impl Iterator<Item = &'a Value>) -> Env {
    let mut env = Env::new();
    for service in services {
        let ip = text(service, "/spec/clusterIP");
        let ports = list(service, "/spec/ports");
        let (Some(first), false) = (ports.first(), matches!(ip, "" | "None")) else { continue };
        let prefix = link_name(text(service, "/metadata/name"));
        let number = |port: &Value| int(port, "/port").unwrap_or(0);
        env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        env.insert(format!("{prefix}_SERVICE_PORT"), number(first).to_string());
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (index, port) in ports.iter().enumerate() {
            let name = text(port, "/name");
            if !name.is_empty() {
                let key = format!("{prefix}_SERVICE_PORT_{}", link_name(name));
                env.insert(key, number(port).to_string());
            }
            let protocol = Some(text(port, "/protocol")).filter(|p| !p.is_empty());
            let protocol = protocol.unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), number(port));
            let port_prefix = format!("{prefix}_PORT_{}_{protocol}", number(port));
            if index == 0 {
                env.insert(format!("{prefix}_PORT"), url.clone());
            }
            env.insert(format!("{port_prefix}_PROTO"), protocol.to_lowercase());
            env.insert(format!("{port_prefix}_PORT"), number(port).to_string());
            env.insert(format!("{port_prefix}_ADDR"), ip.to_owned());
            env.insert(port_prefix, url);
        }
    }
    env
}

fn link_name(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Objects;

    impl Lookup for Objects {
        fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
            ((namespace, name) == ("shop", "settings"))
                .then(|| Arc::new(json!({"data": {"colour": "red", "size": "9"}})))
        }
        fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
            ((namespace, name) == ("shop", "keys"))
                .then(|| Arc::new(json!({"data": {"word": "c2VzYW1l", "odd": "!", "bin": "/w=="}})))
        }
    }

    fn pod(container: Value) -> Pod {
        Pod::of(Arc::new(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1",
                "labels": {"app": "web", "x.io/y": "z"}, "annotations": {"a": "b"}},
            "spec": {"nodeName": "portolan", "serviceAccountName": "robot",
                "containers": [container]}
        })))
    }

    fn env_of(container: Value) -> Result<Env, EnvError> {
        let pod = pod(container);
        let facts = Facts {
            addresses: vec!["127.10.0.7".parse().unwrap(), "fd00:10::7".parse().unwrap()],
            host_ip: "127.0.0.1".parse().unwrap(),
        };
        let given = Given {
            parent: Env::from([
                ("PATH".into(), "/opt/bin:/bin".into()),
                ("AWS_SECRET".into(), "no".into()),
            ]),
            own: Env::from([("PORTOLAN_API".into(), "https://127.0.0.1:7443".into())]),
        };
        build(&pod, &pod.main[0], &facts, &given, Env::new(), &Objects)
    }

    #[test]
    fn one_variable() {
        let check = |entry: Value, expected: Result<Option<&str>, &str>| {
            let env = env_of(json!({"env": [{"name": "BEFORE", "value": "b"}, entry]}));
            match (env, expected) {
                (Ok(env), Ok(value)) => {
                    assert_eq!(env.get("X").map(String::as_str), value, "{entry}");
                }
                (Err(error), Err(text)) => assert_eq!(error.to_string(), text, "{entry}"),
                (got, _) => panic!("{entry}: {got:?}"),
            }
        };
        let field =
            |path: &str| json!({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let from = |kind: &str, name: &str, key: &str, optional: bool| {
            json!({"name": "X", "valueFrom":
                {kind: {"name": name, "key": key, "optional": optional}}})
        };
        check(json!({"name": "X", "value": "v"}), Ok(Some("v")));
        check(json!({"name": "X"}), Ok(Some("")));
        check(
            json!({"name": "X", "value": "$(BEFORE)$$(BEFORE)$(NO)"}),
            Ok(Some("b$(BEFORE)$(NO)")),
        );
        check(json!({"name": "X", "value": "$(POD_IP):80"}), Ok(Some("127.10.0.7:80")));
        check(field("metadata.name"), Ok(Some("web-1")));
        check(field("metadata.namespace"), Ok(Some("shop")));
        check(field("metadata.uid"), Ok(Some("u-1")));
        check(field("metadata.labels['x.io/y']"), Ok(Some("z")));
        check(field("metadata.labels['none']"), Ok(Some("")));
        check(field("metadata.annotations[\"a\"]"), Ok(Some("b")));
        check(field("metadata.labels"), Ok(Some("app=\"web\"\nx.io/y=\"z\"")));
        check(field("status.podIP"), Ok(Some("127.10.0.7")));
        check(field("status.podIPs"), Ok(Some("127.10.0.7,fd00:10::7")));
        check(field("status.hostIP"), Ok(Some("127.0.0.1")));
        check(field("spec.nodeName"), Ok(Some("portolan")));
        check(field("spec.serviceAccountName"), Ok(Some("robot")));
        check(field("spec.no"), Err("env X: fieldRef \"spec.no\" is not supported"));
        check(
            field("metadata.labels['"),
            Err("env X: fieldRef \"metadata.labels['\" is not supported"),
        );
        check(from("configMapKeyRef", "settings", "colour", false), Ok(Some("red")));
        check(from("configMapKeyRef", "settings", "no", true), Ok(None));
        check(
            from("configMapKeyRef", "settings", "no", false),
            Err("couldn't find key no in configmap settings"),
        );
        check(from("configMapKeyRef", "no", "x", false), Err("configmap \"no\" not found"));
        check(from("secretKeyRef", "keys", "word", false), Ok(Some("sesame")));
        check(from("secretKeyRef", "no", "word", true), Ok(None));
        check(
            from("secretKeyRef", "keys", "bin", false),
            Err("secret keys, key bin: the value is not base64 of UTF-8 text"),
        );
        check(json!({"value": "x"}), Err("env: an entry has no name"));
        check(json!(7), Err("env: an entry has no name"));
    }

    #[test]
    fn what_every_container_gets() {
        let env = env_of(json!({"envFrom": [
            {"prefix": "S_", "configMapRef": {"name": "settings"}},
            {"secretRef": {"name": "none", "optional": true}}
        ]}))
        .unwrap();
        for (name, value) in [
            ("PATH", Some("/opt/bin:/bin")),
            ("AWS_SECRET", None),
            ("HOSTNAME", Some("web-1")),
            ("POD_IP", Some("127.10.0.7")),
            ("POD_NAME", Some("web-1")),
            ("POD_NAMESPACE", Some("shop")),
            ("PORTOLAN_API", Some("https://127.0.0.1:7443")),
            ("S_colour", Some("red")),
            ("S_size", Some("9")),
        ] {
            assert_eq!(env.get(name).map(String::as_str), value, "{name}");
        }
        let missing = env_of(json!({"envFrom": [{"secretRef": {"name": "none"}}]}));
        assert_eq!(missing.unwrap_err().to_string(), "secret \"none\" not found");
    }

    #[test]
    fn resources() {
        let container = Container::of(&json!({"resources": {
            "limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": 2}}}));
        for (resource, expected) in [
            ("limits.cpu", Some("2")),
            ("limits.memory", Some("67108864")),
            ("requests.cpu", Some("2")),
            ("requests.memory", None),
            ("x", None),
        ] {
            assert_eq!(resource_field(resource, &container).as_deref(), expected, "{resource}");
        }
    }

    #[test]
    fn services_announce_themselves() {
        let services = [
            json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "127.96.0.9",
                "ports": [{"name": "sql", "port": 5432}, {"name": "m", "port": 9, "protocol": "UDP"}]}}),
            json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None",
                "ports": [{"port": 1}]}}),
        ];
        let env = service_links(services.iter());
        for (name, value) in [
            ("MY_DB_SERVICE_HOST", "127.96.0.9"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT", "tcp://127.96.0.9:5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://127.96.0.9:5432"),
            ("MY_DB_PORT_9_UDP_PROTO", "udp"),
            ("MY_DB_PORT_9_UDP_ADDR", "127.96.0.9"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.keys().any(|name| name.starts_with("HEADLESS")));
    }
}
