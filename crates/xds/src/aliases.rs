//! Aliases: names of ExternalName services, standing with the service that they mean.
//!
//! An alias has no endpoints of its own. Where its target is a service of the
//! catalog, directly or through further aliases, its names join the target's; where
//! it leads out of the cluster, resolvers answer for it and this face has nothing to
//! add.

use std::collections::BTreeMap;

use portolan_catalog::Snapshot;
use portolan_model::{Exposure, ServiceKey};

use crate::names;

/// How many aliases may stand one behind the other. Resolvers give up after about as
/// many, and a circle ends here.
const CHAIN_MAX: usize = 8;

/// Which aliases mean a service, by the full name of that service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<String, Vec<ServiceKey>>);

impl Aliases {
    /// The aliases of a catalog, each with the service at the end of its chain.
    pub fn of(snapshot: &Snapshot, cluster_domain: &str) -> Self {
        let mut next = BTreeMap::new();
        let mut services = std::collections::BTreeSet::new();
        for entry in snapshot.services() {
            let Some(host) = names::host(&entry.service.key, cluster_domain) else { continue };
            match &entry.service.exposure {
                Exposure::ExternalName(target) => {
                    let target = target.trim_end_matches('.').to_ascii_lowercase();
                    next.insert(host, (entry.service.key.clone(), target));
                }
                _ => {
                    services.insert(host);
                }
            }
        }
        let mut aliases = Self::default();
        for (key, first) in next.values() {
            let chain = std::iter::successors(Some(first), |host| Some(&next.get(*host)?.1));
            if let Some(end) = chain.take(CHAIN_MAX).find(|host| services.contains(*host)) {
                aliases.0.entry(end.clone()).or_default().push(key.clone());
            }
        }
        aliases
    }

    /// The aliases that mean the service of this full name.
    pub fn of_host(&self, host: &str) -> &[ServiceKey] {
        self.0.get(host).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use portolan_testkit::{World, external_name, headless};

    use super::*;

    #[test]
    fn an_alias_stands_with_the_service_that_it_means() {
        let world = World::new()
            .service(headless("demo", "web", Vec::new()))
            .service(external_name("demo", "direct", "WEB.demo.svc.cluster.local."))
            .service(external_name("other", "chained", "direct.demo.svc.cluster.local"))
            .service(external_name("demo", "outside", "example.com"))
            .service(external_name("demo", "circle", "circle.demo.svc.cluster.local"));
        let aliases = Aliases::of(&world.snapshot(), "cluster.local");
        let of = |host| -> Vec<String> {
            aliases.of_host(host).iter().map(ToString::to_string).collect()
        };
        assert_eq!(of("web.demo.svc.cluster.local"), ["other/chained", "demo/direct"]);
        assert_eq!(of("example.com"), Vec::<String>::new());
        assert_eq!(of("circle.demo.svc.cluster.local"), Vec::<String>::new());
    }

    #[test]
    fn a_chain_that_is_too_long_means_nothing() {
        let mut world = World::new().service(headless("demo", "web", Vec::new()));
        let mut target = "web".to_owned();
        for number in 1..=CHAIN_MAX + 1 {
            let alias = format!("alias{number}");
            let full = format!("{target}.demo.svc.cluster.local");
            world = world.service(external_name("demo", &alias, &full));
            target = alias;
        }
        let aliases = Aliases::of(&world.snapshot(), "cluster.local");
        assert_eq!(aliases.of_host("web.demo.svc.cluster.local").len(), CHAIN_MAX);
    }
}
