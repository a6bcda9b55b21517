//! What a Pod's containers find in their files: volumes, names, who they are.
//!
//! ```text
//!  Pod, objects ─▶ volumes ─┐
//!  dnsPolicy ─▶ resolv.conf ┼─▶ Enclosure ─▶ file ─▶ shim
//!  hostAliases ─▶ hosts ────┘
//! ```

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use portolan_apiserver::{kinds, registry::TokenSubject};

use super::{
    FOLDER_MODE,
    enclosure::{Enclosure, Mount},
    env::{self, Env, Facts},
    host::{Host, write_private},
    logs,
    netns::Node,
    pod::{Container, Pod},
    volumes::Origin,
};
use crate::object::{self, at, list, text};

/// `options ndots` of cluster-first Pods (`defaultDNSOptions` of the kubelet).
const NDOTS: &str = "ndots:5";

impl Host {
    /// Writes what a container runs in; the path of the file that says it.
    pub(super) fn enclosure(
        &self,
        node: &Arc<Node>,
        pod: &Pod,
        container: &Container,
        facts: &Facts,
        env: &Env,
        dir: &Path,
    ) -> Result<PathBuf, String> {
        let folder = self.folder(&pod.uid);
        let name = logs::safe(&container.name);
        let root = folder.join("roots").join(&name);
        let told = |error: io::Error| format!("{}: {error}", folder.display());
        let made = fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&root);
        made.map_err(told)?;
        let mut mounts = self.with_origin(pod, facts, |origin| origin.mounts(container, env))?;
        for (file, content) in [
            ("resolv.conf", (!pod.host_network).then(|| resolv_conf(pod, node)).flatten()),
            ("hosts", (!pod.host_network).then(|| hosts(pod, facts))),
        ] {
            let target = Path::new("/etc").join(file);
            if let Some(content) = content
                && !mounts.iter().any(|mount| mount.target == target)
            {
                let source = folder.join(file);
                fs::write(&source, content).map_err(told)?;
                mounts.insert(0, Mount { source, target, read_only: false });
            }
        }
        let holder = node.holder(&pod.uid);
        if holder.is_none() && !pod.host_network {
            return Err("the Pod has no network yet".to_owned());
        }
        let enclosure = Enclosure { holder, root, mounts, dir: dir.to_owned() };
        let file = folder.join(format!("{name}.enclosure"));
        let text = serde_json::to_vec(&enclosure).map_err(|error| error.to_string())?;
        write_private(&file, &text).map_err(told)?;
        Ok(file)
    }

    /// Brings a Pod's volumes up to date with the objects that they show.
    pub(super) fn refresh_volumes(&self, pod: &Pod, facts: &Facts) {
        self.with_origin(pod, facts, |origin| origin.refresh());
    }

    fn with_origin<T>(&self, pod: &Pod, facts: &Facts, act: impl FnOnce(&Origin<'_>) -> T) -> T {
        let name = match text(&pod.raw, "/spec/serviceAccountName") {
            "" => "default",
            name => name,
        };
        let account = self.registry.get(&kinds::SERVICE_ACCOUNTS, &pod.namespace, name).ok();
        let automount = account.as_ref().and_then(|account| {
            at(account, "/automountServiceAccountToken").and_then(serde_json::Value::as_bool)
        });
        let token = |audience: &str, seconds: u64| {
            let audiences = Some(audience).filter(|audience| !audience.is_empty());
            let subject = TokenSubject {
                namespace: pod.namespace.clone(),
                service_account: name.to_owned(),
                service_account_uid: account
                    .as_ref()
                    .map(|account| object::uid(account).to_owned())
                    .unwrap_or_default(),
                pod: Some((pod.name.clone(), pod.uid.clone())),
                audiences: audiences.map(str::to_owned).into_iter().collect(),
                ..TokenSubject::default()
            };
            self.registry.mint_token(&subject, seconds).0
        };
        let folder = self.folder(&pod.uid).join("volumes");
        act(&Origin {
            pod,
            facts,
            lookup: self,
            token: &token,
            automount: automount.unwrap_or(true),
            ca_pem: &self.api.ca_pem,
            folder: &folder,
        })
    }
}

/// The resolver's file; `None` leaves the machine's (dnsPolicy Default).
fn resolv_conf(pod: &Pod, node: &Node) -> Option<String> {
    resolver(pod, node.dns(), node.cluster_domain())
}

fn resolver(pod: &Pod, dns: IpAddr, domain: &str) -> Option<String> {
    let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    match text(&pod.raw, "/spec/dnsPolicy") {
        "Default" => return None,
        "None" => {}
        _ => {
            servers.push(dns.to_string());
            let namespace = &pod.namespace;
            search.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}")]);
            search.push(domain.to_owned());
            options.push(NDOTS.to_owned());
        }
    }
    let words = |path: &str| {
        let words = list(&pod.raw, path).iter().filter_map(|word| word.as_str());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    servers.extend(words("/spec/dnsConfig/nameservers"));
    search.extend(words("/spec/dnsConfig/searches"));
    for option in list(&pod.raw, "/spec/dnsConfig/options") {
        let (name, value) = (text(option, "/name"), text(option, "/value"));
        options.retain(|known| known.split(':').next() != Some(name));
        options.push(if value.is_empty() { name.to_owned() } else { format!("{name}:{value}") });
    }
    let mut file: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    if !search.is_empty() {
        file += &format!("search {}\n", search.join(" "));
    }
    if !options.is_empty() {
        file += &format!("options {}\n", options.join(" "));
    }
    Some(file)
}

/// As the kubelet manages `/etc/hosts`.
fn hosts(pod: &Pod, facts: &Facts) -> String {
    let mut file = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let name = env::hostname(pod);
    for address in &facts.addresses {
        file += &format!("{address}\t{name}\n");
    }
    for alias in list(&pod.raw, "/spec/hostAliases") {
        let names: Vec<&str> =
            list(alias, "/hostnames").iter().filter_map(|name| name.as_str()).collect();
        file += &format!("{}\t{}\n", text(alias, "/ip"), names.join("\t"));
    }
    file
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn resolvers() {
        let check = |spec: Value, expected: Option<&str>| {
            let pod = json!({"metadata": {"namespace": "shop"}, "spec": spec});
            let found = resolver(&Pod::of(Arc::new(pod)), [10, 96, 0, 10].into(), "cluster.local");
            assert_eq!(found.as_deref(), expected, "{spec}");
        };
        check(
            json!({}),
            Some(
                "nameserver 10.96.0.10\n\
                 search shop.svc.cluster.local svc.cluster.local cluster.local\n\
                 options ndots:5\n",
            ),
        );
        check(json!({"dnsPolicy": "Default"}), None);
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.96.0.9"]}}),
            Some("nameserver 10.96.0.9\n"),
        );
        check(
            json!({"dnsConfig": {"searches": ["corp"], "options": [
                {"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            Some(
                "nameserver 10.96.0.10\n\
                 search shop.svc.cluster.local svc.cluster.local cluster.local corp\n\
                 options ndots:2 edns0\n",
            ),
        );
    }

    #[test]
    fn names_of_the_pod() {
        let pod =
            Pod::of(Arc::new(json!({"metadata": {"name": "web-1"}, "spec": {"hostAliases": [
            {"ip": "10.96.0.9", "hostnames": ["db", "db.corp"]}]}})));
        let facts =
            Facts { addresses: vec![[10, 244, 0, 7].into()], host_ip: [10, 244, 0, 1].into() };
        let file = hosts(&pod, &facts);
        assert!(file.ends_with("\n10.244.0.7\tweb-1\n10.96.0.9\tdb\tdb.corp\n"), "{file}");
        assert!(file.starts_with("127.0.0.1\tlocalhost\n"), "{file}");
    }
}
