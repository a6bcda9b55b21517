//! `autopath`: the search path of a Pod, walked for it.
//!
//! With `ndots:5` a Pod asks for `example.org.NAMESPACE.svc.cluster.local` first, and
//! for three more names that do not exist before the one that it means. Who asks is
//! known from the catalog by its address, so all of them can be tried here at the
//! first question, and the answer given by an alias. Where the address is nobody's,
//! the question is answered as it is; clients then walk by themselves.

use domain::rdata::Cname;

use super::{Request, Response, Stage, Step, bearing_of};
use crate::{
    bearing::Bearing,
    config::{ZoneName, zone_of},
    name::{DnsName, depth, join, record},
    names::Names,
};

/// The stage.
#[derive(Debug)]
pub(crate) struct Autopath {
    pub(crate) zones: Vec<ZoneName>,
    /// The zones of Services, in which search paths of Pods lie.
    pub(crate) cluster: Vec<ZoneName>,
    /// Fixed; none: that of the client's Pod.
    pub(crate) search: Vec<DnsName>,
    /// What the host's own resolv.conf has behind the cluster's names.
    pub(crate) host_search: Vec<DnsName>,
}

impl Stage for Autopath {
    fn name(&self) -> &'static str {
        "autopath"
    }

    fn bearing(&self, apex: &DnsName) -> Bearing {
        // A name that exists is the first of the path, and found as it was asked.
        match bearing_of(&self.zones, apex) {
            Bearing::NOTHING => Bearing::NOTHING,
            _ => Bearing::DENIALS,
        }
    }

    fn enter(&self, request: &mut Request, names: &Names) -> Step {
        let name = &request.question.name;
        if zone_of(&self.zones, name).is_none() {
            return Step::Next("in no zone of search paths");
        }
        let search = match &self.search[..] {
            [] => match self.of_client(request, names) {
                Some(search) => search,
                None => return Step::Next("the client is no Pod that is known"),
            },
            fixed => fixed.to_vec(),
        };
        let Some(base) = search.first().and_then(|first| base(name, first)) else {
            return Step::Next("not below the first name of the search path");
        };
        let root = DnsName::root_bytes();
        let tried = search.iter().chain([&root]);
        let list: Vec<DnsName> = tried
            .filter_map(|suffix| {
                let labels: Vec<&str> = base.iter().map(String::as_str).collect();
                join(&labels, suffix)
            })
            // The first is what was asked for, in the case in which it was.
            .map(|tried| if tried == *name { name.clone() } else { tried })
            .collect();
        Step::Search(list)
    }
}

impl Autopath {
    /// The search path that the kubelet writes for the Pods of a namespace.
    fn of_client(&self, request: &Request, names: &Names) -> Option<Vec<DnsName>> {
        let zone = &zone_of(&self.cluster, &request.question.name)?.0;
        let pod = names.snapshot().workload_at(request.client.to_canonical())?;
        let own = [join(&[&pod.name.namespace, "svc"], zone)?, join(&["svc"], zone)?, zone.clone()];
        Some(own.into_iter().chain(self.host_search.iter().cloned()).collect())
    }
}

/// The labels of a name that stand before a suffix; at least one.
fn base(name: &DnsName, suffix: &DnsName) -> Option<Vec<String>> {
    if !name.ends_with(suffix) || name == suffix {
        return None;
    }
    let labels = name.iter().take(depth(name) - depth(suffix));
    // A label with a dot in it is none that anybody searches for.
    labels
        .map(|label| {
            let text = std::str::from_utf8(label.as_slice()).ok()?;
            (!text.contains('.')).then(|| text.to_owned())
        })
        .collect()
}

/// Puts an alias before an answer, from the name that was asked for to the one that
/// exists.
pub(super) fn alias(asked: &DnsName, found: &DnsName, response: &mut Response) {
    let Some([answer, ..]) = response.parts() else { return };
    let Some(ttl) = answer.first().map(|record| record.ttl().as_secs()) else { return };
    answer.insert(0, record(asked, ttl, Cname::new(found.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::parse;

    #[test]
    fn what_stands_before_the_first_name() {
        for (name, expected) in [
            ("a.b.demo.svc.cluster.local", Some("a b")),
            ("a.Demo.svc.cluster.local", Some("a")),
            ("demo.svc.cluster.local", None),
            ("a.other.svc.cluster.local", None),
            ("a\\.b.demo.svc.cluster.local", None),
        ] {
            let found = base(&parse(name).unwrap(), &parse("demo.svc.cluster.local").unwrap());
            let found = found.map(|labels| labels.join(" "));
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
