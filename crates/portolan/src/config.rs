//! Flags to configuration: everything is checked before any socket opens.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, bail};
use portolan_apiserver::registry::Cidr;
use portolan_cli::args::{ClusterFlags, FaceFlags, PodNetwork};
use portolan_dns::{ConfigFile, config::FaceConfig};
use portolan_model::Origin;

/// Addresses of Pods on the loopback network, and of Services in front of them
/// (DESIGN: all of 127.0.0.0/8 is this machine's on Linux, so no interface has
/// to be made).
const POD_CIDRS: [&str; 2] = ["127.10.0.0/16", "fd00:10::/64"];
const SERVICE_CIDRS: [&str; 2] = ["127.96.0.0/16", "fd00:96::/112"];

/// The same where Pods have networks of their own: what kubeadm users know
/// (its Service default, and flannel's of Pods).
const NETNS_POD_CIDRS: [&str; 1] = ["10.244.0.0/16"];
const NETNS_SERVICE_CIDRS: [&str; 1] = ["10.96.0.0/16"];

/// A static list that is a source of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StaticSource {
    /// Its origin.
    pub(crate) origin: Origin,
    /// The file.
    pub(crate) path: PathBuf,
}

/// Reads `NAME=FILE`.
pub(crate) fn static_source(text: &str) -> Result<StaticSource> {
    let Some((name, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
        bail!("--source-file {text:?}: write NAME=FILE");
    };
    let origin = Origin::configured(name).map_err(anyhow::Error::msg).context("--source-file")?;
    Ok(StaticSource { origin, path: path.into() })
}

/// The DNS face's configuration, and the file that it is in.
pub(crate) struct DnsConfig {
    /// Where it is, to be looked at again.
    pub(crate) file: ConfigFile,
    /// What it says.
    pub(crate) face: FaceConfig,
}

/// Reads the DNS face's configuration, if a flag names one.
pub(crate) fn dns(flags: &FaceFlags) -> Result<Option<DnsConfig>> {
    let file = match (&flags.corefile, &flags.dns_config) {
        (Some(path), _) => ConfigFile::Corefile(path.clone()),
        (None, Some(path)) => ConfigFile::Native(path.clone()),
        (None, None) => return Ok(None),
    };
    let (face, notes) = file.read()?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    Ok(Some(DnsConfig { file, face }))
}

/// The ranges of Pods and of Services.
pub(crate) fn ranges(flags: &ClusterFlags) -> Result<(Vec<Cidr>, Vec<Cidr>)> {
    let (pods, services): (&[&str], &[&str]) = match flags.pod_network {
        PodNetwork::Loopback => (&POD_CIDRS, &SERVICE_CIDRS),
        PodNetwork::Netns => (&NETNS_POD_CIDRS, &NETNS_SERVICE_CIDRS),
    };
    let pods = cidrs("--pod-cidr", &flags.pod_cidr, pods)?;
    let services = cidrs("--service-cidr", &flags.service_cidr, services)?;
    for pod_range in &pods {
        for service_range in &services {
            // Ranges of one family overlap when either holds the other's base.
            if pod_range.contains(service_range.base()) || service_range.contains(pod_range.base())
            {
                bail!(
                    "--pod-cidr {pod_range} and --service-cidr {service_range} overlap: one \
                     address would be given out twice"
                );
            }
        }
    }
    Ok((pods, services))
}

fn cidrs(flag: &str, given: &[String], default: &[&str]) -> Result<Vec<Cidr>> {
    let texts: Vec<&str> = match given {
        [] => default.to_vec(),
        given => given.iter().map(String::as_str).collect(),
    };
    if texts.len() > 2 {
        bail!("{flag}: give one range, or one IPv4 and one IPv6 range");
    }
    texts
        .iter()
        .map(|text| {
            text.parse::<Cidr>().map_err(|error| {
                anyhow::anyhow!(
                    "{flag} {text:?}: {error}; a range looks like {}",
                    default.join(",")
                )
            })
        })
        .collect()
}

/// Refuses to open the cluster's API to the network: its tokens are on disk for
/// one user of one machine.
pub(crate) fn loopback(flag: &str, address: SocketAddr) -> Result<()> {
    if !address.ip().is_loopback() {
        bail!("{flag} {address}: only loopback addresses are served yet, such as 127.0.0.1:0");
    }
    Ok(())
}
