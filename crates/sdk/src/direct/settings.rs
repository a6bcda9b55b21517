//! What a registry must know, from the builder or from the environment.
//!
//! Everything is found and checked here, before a connection is set up; the
//! environment comes in as a function, so that tests bring their own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use portolan_dialects::{Dialect, ListDialect, app::App, native::Owner};

use super::{Inner, Registry, api::Pods, connect, writer::Writer};
use crate::{Error, feed::Slot, kept::KeptFile};

/// The namespace of a Pod's ServiceAccount, as every Pod has it mounted.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Settings of a [`Registry`]. What is not set comes from the environment:
///
/// | setting | else |
/// |---|---|
/// | [`namespace`](Self::namespace) | `NAMESPACE`, `POD_NAMESPACE`, the ServiceAccount's, the kubeconfig's |
/// | [`pod`](Self::pod) | `POD_NAME`, `HOSTNAME`; only registering needs it |
/// | [`api`](Self::api), [`token_file`](Self::token_file), [`ca_file`](Self::ca_file) | `PORTOLAN_API`, `PORTOLAN_TOKEN_FILE`, `PORTOLAN_CA_FILE`; without `PORTOLAN_API` the Pod's ServiceAccount, else `KUBECONFIG` or `~/.kube/config` |
///
/// ```no_run
/// # async fn build() -> Result<(), portolan_sdk::Error> {
/// let registry = portolan_sdk::Registry::builder()
///     .namespace("shop")
///     .kubeconfig(".portolan/kubeconfig")
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    namespace: Option<String>,
    pod: Option<String>,
    api: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
    prefix: Option<String>,
    write_as: Option<ListDialect>,
    also_read: Vec<Dialect>,
    owner: Option<String>,
    keep_in: Option<PathBuf>,
}

/// Which API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A URL with the files that prove who is who.
    Url { api: http::Uri, token_file: Option<PathBuf>, ca_file: Option<PathBuf> },
    /// A kubeconfig.
    Kubeconfig(PathBuf),
    /// The Pod's ServiceAccount, else the user's kubeconfig.
    Infer,
}

/// Everything that is known before connecting.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) target: Target,
    /// `None`: the connection knows one, or nobody does.
    pub(super) namespace: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) list: ListDialect,
    pub(super) dialects: Vec<Dialect>,
    pub(super) owner: Option<Owner>,
}

impl Builder {
    /// The namespace in which to register and to look.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The name of the Pod that the process runs in.
    pub fn pod(mut self, pod: impl Into<String>) -> Self {
        self.pod = Some(pod.into());
        self
    }

    /// URL of the Kubernetes API: `https`, or `http` on loopback.
    pub fn api(mut self, url: impl Into<String>) -> Self {
        self.api = Some(url.into());
        self
    }

    /// File with the bearer token; it is read anew each minute.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// File with the certificates (PEM) that the API's own must go back to.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// A kubeconfig, in place of URL and files.
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// Another prefix than `app.io` for label and annotation. All processes
    /// that are to find each other must agree on it.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Writes in another dialect whose list all writers of a Pod share, and finds what is written
    /// in it. Processes that are not yet of this kind find this one then: for dubbo-go 1.5,
    /// `ListDialect::Dubbo(DubboGo::V1_5)`.
    pub fn write_as(mut self, dialect: ListDialect) -> Self {
        self.write_as = Some(dialect);
        self
    }

    /// Finds what was written in another dialect too. Then all Pods of the
    /// namespace are watched, as one label selector cannot find both.
    pub fn also_read(mut self, dialect: Dialect) -> Self {
        self.also_read.push(dialect);
        self
    }

    /// Writes natively, as this owner: a record of its own on the Pod
    /// (`registry.portolan.dev/OWNER`), which no other writer of the Pod can lose, in one write.
    /// The name of the container is a good one; two processes need two. Natively written records
    /// are then found too, in the namespace's Pods all of which are watched.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// A file for what subscriptions knew last: at a start without an API they begin with that,
    /// degraded and as old as it is. The file belongs to one process. One that is damaged, or of
    /// another namespace, is not used, and the log tells why.
    pub fn keep_in(mut self, path: impl Into<PathBuf>) -> Self {
        self.keep_in = Some(path.into());
        self
    }

    /// Checks the settings and prepares the connection; nothing is asked of the
    /// API yet.
    pub async fn build(self) -> Result<Registry, Error> {
        let environment = |name: &str| std::env::var(name).ok();
        let keep_in = self.keep_in.clone();
        let settings = self.resolve(&environment, Path::new(NAMESPACE_FILE))?;
        let (client, default_namespace) = connect::connect(&settings.target).await?;
        let namespace = settings.namespace.or(default_namespace).ok_or(Error::NamespaceUnknown)?;
        let Settings { pod, list, dialects, owner, .. } = settings;
        let selector = match dialects.as_slice() {
            [only] => only.selector(),
            _ => None,
        };
        let pods = Pods::new(client, &namespace, selector);
        let writer = pod
            .as_ref()
            .map(|pod| Arc::new(Writer::new(pods.clone(), &namespace, pod, list, owner)));
        let feed = Slot::default();
        let kept = keep_in.map(|path| KeptFile::new(path, &format!("namespace/{namespace}")));
        let inner = Inner { namespace, pod, pods, dialects, writer, feed, kept };
        Ok(Registry { inner: Arc::new(inner) })
    }

    fn resolve(
        self,
        environment: &dyn Fn(&str) -> Option<String>,
        namespace_file: &Path,
    ) -> Result<Settings, Error> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let target = self.target(&variable)?;
        // What was named for another cluster does not concern its namespaces.
        let mounted = || {
            let text = fs::read_to_string(namespace_file).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let namespace = self
            .namespace
            .or_else(|| variable("NAMESPACE"))
            .or_else(|| variable("POD_NAMESPACE"))
            .or_else(mounted);
        if let Some(namespace) = &namespace {
            check_name("NAMESPACE", namespace)?;
        }
        let pod = self.pod.or_else(|| variable("POD_NAME")).or_else(|| variable("HOSTNAME"));
        if let Some(pod) = &pod {
            check_name("POD_NAME", pod)?;
        }
        let app = match &self.prefix {
            None => App::default(),
            Some(prefix) => App::with_prefix(prefix).map_err(|problem| Error::Setting {
                name: "prefix",
                problem,
                fix: "give a DNS name such as corp.example",
            })?,
        };
        let owner = self.owner.as_deref().map(owner).transpose()?;
        let list = self.write_as.unwrap_or(ListDialect::App(app));
        let mut dialects = vec![list.reader()];
        let own = owner.is_some().then_some(Dialect::Native);
        for dialect in own.into_iter().chain(self.also_read) {
            if !dialects.contains(&dialect) {
                dialects.push(dialect);
            }
        }
        Ok(Settings { target, namespace, pod, list, dialects, owner })
    }

    /// What the builder names comes before what the environment names.
    fn target(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Target, Error> {
        if self.api.is_none()
            && let Some(path) = &self.kubeconfig
        {
            return Ok(Target::Kubeconfig(path.clone()));
        }
        let Some(text) = self.api.clone().or_else(|| variable("PORTOLAN_API")) else {
            return Ok(Target::Infer);
        };
        let file =
            |own: &Option<PathBuf>, name| own.clone().or_else(|| variable(name).map(PathBuf::from));
        let token_file = file(&self.token_file, "PORTOLAN_TOKEN_FILE");
        let ca_file = file(&self.ca_file, "PORTOLAN_CA_FILE");
        let api = parse_api(&text)?;
        let missing =
            |name, problem: &str, fix| Err(Error::Setting { name, problem: problem.into(), fix });
        if api.scheme_str() == Some("https") {
            if token_file.is_none() {
                return missing(
                    "PORTOLAN_TOKEN_FILE",
                    "not set, but PORTOLAN_API is",
                    "name the file with the bearer token for that API",
                );
            }
            if ca_file.is_none() {
                return missing(
                    "PORTOLAN_CA_FILE",
                    "not set, but PORTOLAN_API is",
                    "name the file with the CA certificate (PEM) of that API",
                );
            }
        }
        Ok(Target::Url { api, token_file, ca_file })
    }
}

/// The name of an owner.
pub(super) fn owner(name: &str) -> Result<Owner, Error> {
    Owner::new(name).map_err(|problem| {
        let fix = "give the name of the container";
        Error::Setting { name: "owner", problem, fix }
    })
}

/// A token must never leave the machine in the clear.
fn parse_api(text: &str) -> Result<http::Uri, Error> {
    let wrong = |problem: String| Error::Setting {
        name: "PORTOLAN_API",
        problem,
        fix: "give https://HOST:PORT, or http://HOST:PORT on loopback",
    };
    let uri: http::Uri =
        text.trim_end_matches('/').parse().map_err(|error| wrong(format!("{text:?}: {error}")))?;
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        _ if host.is_empty() => Err(wrong(format!("{text:?} is no URL"))),
        Some("https") => Ok(uri),
        Some("http") if is_loopback(host) => Ok(uri),
        Some("http") => Err(wrong(format!("{text:?} would send the token in the clear"))),
        _ => Err(wrong(format!("{text:?} is no URL"))),
    }
}

fn is_loopback(host: &str) -> bool {
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || plain.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Names become parts of paths, so nothing else than a name may pass.
fn check_name(name: &'static str, value: &str) -> Result<(), Error> {
    // RFC 1123 subdomains, as Pods and namespaces are named.
    let fine = value.len() <= 253
        && value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        && value
            .split('.')
            .all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'));
    if fine {
        return Ok(());
    }
    Err(Error::Setting {
        name,
        problem: format!("{value:?} is no name of a Kubernetes object"),
        fix: "set it from the Downward API (metadata.namespace, metadata.name)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves under an environment, with `filed` as the mounted namespace.
    fn resolve(builder: Builder, env: &[(&str, &str)], filed: &str) -> Result<Settings, Error> {
        let environment = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), filed).unwrap();
        builder.resolve(&environment, file.path())
    }

    #[test]
    fn names() {
        let own = || Builder::default().namespace("own").pod("mine");
        for (builder, env, filed, expected) in [
            (own(), &[("NAMESPACE", "n"), ("POD_NAME", "p")][..], "f", (Some("own"), Some("mine"))),
            (
                Builder::default(),
                &[("NAMESPACE", "n"), ("POD_NAMESPACE", "m"), ("HOSTNAME", "h"), ("POD_NAME", "p")],
                "f",
                (Some("n"), Some("p")),
            ),
            (
                Builder::default(),
                &[("NAMESPACE", ""), ("POD_NAMESPACE", "m"), ("HOSTNAME", "h")],
                "f",
                (Some("m"), Some("h")),
            ),
            (Builder::default(), &[], "f\n", (Some("f"), None)),
            (Builder::default(), &[], "\n", (None, None)),
        ] {
            let settings = resolve(builder, env, filed).unwrap();
            assert_eq!((settings.namespace.as_deref(), settings.pod.as_deref()), expected);
        }
    }

    #[test]
    fn targets() {
        let url = |api: &str, files: Option<&str>| Target::Url {
            api: api.parse().unwrap(),
            token_file: files.map(PathBuf::from),
            ca_file: files.map(PathBuf::from),
        };
        let files = [("PORTOLAN_TOKEN_FILE", "/f"), ("PORTOLAN_CA_FILE", "/f")];
        let with = |api| [&[("PORTOLAN_API", api)], &files[..]].concat();
        let kubeconfig = || Builder::default().kubeconfig("/k");
        for (builder, env, expected) in [
            (Builder::default(), vec![], Target::Infer),
            (Builder::default(), with("https://a:1/"), url("https://a:1", Some("/f"))),
            (kubeconfig(), with("https://a:1"), Target::Kubeconfig("/k".into())),
            (kubeconfig().api("https://b:1"), files.to_vec(), url("https://b:1", Some("/f"))),
            (
                Builder::default().api("http://127.0.0.1:8001"),
                vec![],
                url("http://127.0.0.1:8001", None),
            ),
            (Builder::default().api("http://[::1]:8001"), vec![], url("http://[::1]:8001", None)),
        ] {
            assert_eq!(resolve(builder, &env, "").unwrap().target, expected);
        }
    }

    #[test]
    fn errors_name_the_variable_and_the_fix() {
        let api = ("PORTOLAN_API", "https://a:1");
        let token = ("PORTOLAN_TOKEN_FILE", "/f");
        for (builder, env, expected) in [
            (Builder::default(), vec![api], "PORTOLAN_TOKEN_FILE: not set"),
            (Builder::default(), vec![api, token], "PORTOLAN_CA_FILE: not set"),
            (Builder::default(), vec![("PORTOLAN_API", "a:1")], "PORTOLAN_API: \"a:1\" is no URL"),
            (Builder::default().api("http://a.example:1"), vec![], "in the clear"),
            (Builder::default().api("ftp://127.0.0.1"), vec![], "is no URL"),
            (Builder::default(), vec![("NAMESPACE", "../x")], "NAMESPACE: \"../x\" is no name"),
            (Builder::default().pod("P"), vec![], "POD_NAME: \"P\" is no name"),
            (Builder::default().prefix("No!"), vec![], "prefix: \"No!\""),
        ] {
            let error = resolve(builder, &env, "").unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("fix: "), "{error}");
        }
    }

    #[test]
    fn another_dialect_is_read_beside() {
        let builder = Builder::default()
            .prefix("corp.example")
            .also_read(Dialect::Dubbo)
            .also_read(Dialect::Dubbo);
        let settings = resolve(builder, &[], "").unwrap();
        let app = App::with_prefix("corp.example").unwrap();
        assert_eq!(settings.dialects, [Dialect::App(app.clone()), Dialect::Dubbo]);
        assert_eq!(settings.list, ListDialect::App(app));
    }
}
