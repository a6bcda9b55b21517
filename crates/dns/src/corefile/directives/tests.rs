//! Corefiles as configuration, and what is wrong with others.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{
    config::{AclAction, LogClass, MatchKind, NameMatch, PodMode, Policy, RewriteRule, Target},
    corefile::Disk,
};

fn config(text: &str) -> FaceConfig {
    read(text, Path::new("Corefile"), &Disk).unwrap_or_else(|fault| panic!("{fault}")).config
}

/// A block for all names with these lines.
fn block(lines: &str) -> ServerConfig {
    config(&format!(". {{\n{lines}\n}}\n")).servers.remove(0)
}

const KUBEADM: &str = "\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

#[test]
fn the_corefile_of_kubeadm() {
    let config = config(KUBEADM);
    assert_eq!(config.health.unwrap().lameduck.0.as_secs(), 5);
    assert_eq!(config.health.unwrap().listen.0.port(), 8080);
    assert_eq!(config.ready.unwrap().listen.0.port(), 8181);
    assert_eq!(config.prometheus.unwrap().listen.0.port(), 9153);
    assert_eq!(config.reload.unwrap().interval.0.as_secs(), 30);
    let [server] = &config.servers[..] else { panic!() };
    assert!(server.errors && server.r#loop && server.loadbalance);
    let kubernetes = server.kubernetes.as_ref().unwrap();
    assert_eq!((kubernetes.ttl, kubernetes.negative_ttl), (30, 30));
    assert_eq!(kubernetes.pods, PodMode::Insecure);
    assert_eq!(kubernetes.zones.len(), 3);
    assert_eq!(kubernetes.fallthrough.zones.len(), 2);
    let cache = server.cache.as_ref().unwrap();
    assert_eq!((cache.success.ttl_max, cache.denial.ttl_max), (30, 30));
    assert_eq!(cache.denial.except.len(), 1);
    assert_eq!(server.forward[0].max_concurrent, 1000);
    assert_eq!(server.forward[0].to, [Target::File("/etc/resolv.conf".into())]);
}

#[test]
fn keys_of_blocks() {
    for (keys, expected) in [
        (".:53", ". 53"),
        ("Example.ORG", "example.org. 53"),
        ("a.test b.test:53", "a.test. b.test. 53"),
        ("dns://a.test:5300", "a.test. 5300"),
        (":5300", ". 5300"),
        ("10.0.0.0/8", "10.in-addr.arpa. 53"),
        ("10.96.0.0/15:53", "96.10.in-addr.arpa. 97.10.in-addr.arpa. 53"),
    ] {
        let config = config(&format!("{keys} {{\n}}"));
        let server = &config.servers[0];
        let zones: Vec<String> = server.zones.iter().map(ToString::to_string).collect();
        assert_eq!(format!("{} {}", zones.join(" "), server.port), expected);
    }
}

#[test]
fn what_directives_say() {
    let server = block(
        "log a.test b.test \"{remote} {name}\" {\n class denial error\n}\nbufsize\nnsid one two\n\
         acl a.test {\n block type A AAAA net 10.0.0.0/8 fd00::1\n allow net *\n}\n\
         hosts none a.test {\n 10.0.0.1 x.a.test\n ttl 60\n no_reverse\n fallthrough\n}\n\
         autopath cluster.local @kubernetes\nkubernetes cluster.local\n\
         forward corp.test 10.0.0.9 10.0.0.10:5300 {\n except a.corp.test\n policy sequential\n \
         force_tcp\n}\nheader {\n response set ra\n response clear aa\n}",
    );
    assert_eq!(server.log[0].zones.len(), 2);
    assert_eq!(server.log[0].format, "{remote} {name}");
    assert_eq!(server.log[0].classes, [LogClass::Denial, LogClass::Error]);
    assert_eq!((server.bufsize, server.nsid.as_deref()), (Some(1232), Some("one two")));
    let [block, allow] = &server.acl[0].rules[..] else { panic!() };
    assert_eq!((block.action, allow.action), (AclAction::Block, AclAction::Allow));
    assert_eq!((block.types.len(), block.networks.len(), allow.networks.len()), (2, 2, 0));
    let hosts = server.hosts.as_ref().unwrap();
    assert_eq!((hosts.ttl, hosts.reverse), (60, false));
    assert_eq!(hosts.entries, ["10.0.0.1 x.a.test"]);
    assert_eq!(server.forward[0].policy, Policy::Sequential);
    assert!(server.forward[0].force_tcp);
    assert_eq!(server.kubernetes.as_ref().unwrap().pods, PodMode::Disabled);
    assert!(!server.loadbalance && !server.errors);
}

#[test]
fn rewrite_rules() {
    let name = |line: &str| match block(line).rewrite.remove(0).rule {
        RewriteRule::Name { matches, to, auto, answer_names, .. } => {
            (matches, to, auto, answer_names.len())
        }
        other => panic!("{other:?}"),
    };
    let exact = NameMatch::Text(MatchKind::Exact, "a.test.".into());
    assert_eq!(name("rewrite name a.test b.test"), (exact, "b.test".into(), false, 0));
    let (_, to, auto, answers) = name(
        "rewrite name regex (.*)\\.a\\.test {1}.b.test answer name (.*)\\.b\\.test {1}.a.test",
    );
    assert_eq!((to.as_str(), auto, answers), ("{1}.b.test", false, 1));
    let (matches, _, auto, _) = name("rewrite stop {\n name suffix .a.test .b.test answer auto\n}");
    assert_eq!(matches, NameMatch::Text(MatchKind::Suffix, ".a.test.".into()));
    assert!(auto);
    assert!(block("rewrite continue ttl regex .* 10-20").rewrite[0].goes_on);
}

#[test]
fn what_is_wrong_and_where() {
    for (lines, expected) in [
        ("fobar", "2:1: unknown directive \"fobar\"; known are acl, any, autopath, bind,"),
        ("dnssec", "2:1: dnssec: zones are not signed here"),
        ("proxy . 10.0.0.1", "2:1: proxy: CoreDNS has dropped it; write forward"),
        ("errors x", "2:8: expected stdout or nothing, found \"x\""),
        ("health {\n lameduck\n}", "3:2: expected a time span behind \"lameduck\""),
        ("health {\n lameduck 5\n}", "3:11: expected a time span such as 30s"),
        ("ready 8181", "2:7: expected an address such as"),
        ("kubernetes {\n pods some\n}", "3:7: expected disabled, insecure or verified, found"),
        ("kubernetes {\n ttl 4000\n}", "3:6: expected a number from 0 to 3600, found \"4000\""),
        (
            "kubernetes {\n resyncperiod 5s\n}",
            "3:2: unknown option \"resyncperiod\" of kubernetes; kn",
        ),
        ("kubernetes {\n endpoint http://a\n}", "3:2: endpoint: the connection to the API is"),
        ("kubernetes in-addr.arpa", "1:1: kubernetes needs a zone that is no reverse zone"),
        ("kubernetes a\nkubernetes b", "3:1: kubernetes is given twice in this block"),
        ("forward .", "2:1: expected an address behind \"forward\""),
        ("forward . dns.google", "2:11: expected an address or a file such as"),
        ("forward . 1.1.1.1 {\n policy best\n}", "3:9: expected random, round_robin or sequential"),
        ("forward . https://1.1.1.1", "2:11: https:// is not supported"),
        ("cache 0", "2:7: expected a number from 1 to"),
        ("cache {\n success\n}", "3:2: expected a number from 0 to"),
        ("cache {\n servfail 10m\n}", "3:11: a failure may be kept for 5m at most"),
        ("rewrite name a.test b..c", "2:9: \"b..c\" is no domain name"),
        ("rewrite name regex (a b", "2:20: \"(a\" is no regular expression: unclosed group"),
        ("rewrite name regex (a) {2}", "2:9: \"{2}\" uses group 2, and \"(a)\" has 1"),
        ("rewrite ttl a.test 20-10", "2:20: expected a TTL or MIN-MAX, found"),
        ("rewrite edns0 local set 1 2", "2:9: edns0 rules are not supported"),
        ("template IN A {\n answer \"{{ .Nome }} A 1.1.1.1\"\n}", "3:9: {{ .Nome }} is not known"),
        ("template CH A", "2:10: expected IN or ANY, found \"CH\""),
        ("template IN AAAAA", "2:13: expected a type of record"),
        ("acl {\n deny\n}", "3:2: unknown option \"deny\" of acl; known are allow, block, drop"),
        ("acl {\n block net 10.0.0\n}", "3:12: expected a range such as 10.0.0.0/8"),
        ("hosts {\n 10.0.0 a\n}", "3:2: unknown option \"10.0.0\" of hosts; known are an address"),
        ("autopath @kubernetes", "1:1: autopath of Pods needs kubernetes in the same block"),
        ("autopath /etc/resolv.conf", "2:10: autopath takes the search path of Pods"),
        ("loadbalance weighted f", "2:13: the policy \"weighted\" is not supported"),
        ("bind eth0", "2:6: expected an address, found \"eth0\""),
        ("log . {\n class some\n}", "3:8: expected all, success, denial or error"),
        ("transfer", "2:1: transfer needs to: who may have the zone"),
        ("reload 1s", "2:8: expected at least 2s"),
        ("health :1\n}\na.test {\nhealth :2", "5:1: health differs from that of a block above"),
        ("\n}\n.:54 {\n", "4:1: the zone . is served by two blocks, on ports 53 and 54"),
        ("\n}\nhttps://a.test {\n", "4:1: https:// is not supported; there are dns:// and tls://"),
        ("\n}\na.test b.test:54 {\n", "4:8: all addresses of a block must have one scheme and"),
        ("\n}\na.test: {\n", "4:1: expected a port behind \"a.test:\""),
        ("\n}\ntls://a.test {\n", "4:1: tls:// needs a certificate"),
    ] {
        let text = format!(". {{\n{lines}\n}}\n");
        let fault = read(&text, Path::new("Corefile"), &Disk).unwrap_err().to_string();
        let expected = format!("Corefile:{expected}");
        assert!(fault.starts_with(&expected), "{lines:?}:\n {fault}\n {expected}");
    }
}

#[test]
fn what_changes_nothing_is_noted() {
    let text = ". {\n debug\n errors {\n  consolidate 5m \".*\"\n }\n forward . 10.0.0.1 {\n  \
                health_check 5s\n  expire 10s\n }\n}";
    let notes = read(text, Path::new("Corefile"), &Disk).unwrap().notes;
    let lines: Vec<usize> = notes.iter().map(|note| note.spot.line).collect();
    assert_eq!(lines, [2, 4, 7, 8]);
}

#[test]
fn every_directive_of_coredns_is_known() {
    let mut names: Vec<&str> = DIRECTIVES.iter().map(|(name, _)| *name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a directive stands in the table twice");
    assert!(known().contains("kubernetes") && !known().contains("erratic"));
}

proptest! {
    /// Whatever a block says: a configuration, or a fault with its place.
    #[test]
    fn any_directives(lines in prop::collection::vec(
        (0..DIRECTIVES.len(), prop::collection::vec(
            prop::sample::select(vec![
                "a.test", ".", "5s", "0", "30", "IN", "A", "name", "regex", "(a)", "{1}", "{", "}",
                "\n", "answer", "auto", "type", "net", "*", "10.0.0.0/8", "1.1.1.1", "stop", "ttl",
                "class", "all", "match", "\"{{ .Name }}\"", "fallthrough", "success", "policy",
                "tls", "@kubernetes", "to", "pods", "labels", "a in (b)", "set", "response", "aa",
            ]),
            0..8,
        )),
        0..5,
    )) {
        let lines: Vec<String> = lines
            .iter()
            .map(|(place, words)| format!("{} {}", DIRECTIVES[*place].0, words.join(" ")))
            .collect();
        let text = format!(". {{\n{}\n}}\n", lines.join("\n"));
        if let Err(fault) = read(&text, Path::new("Corefile"), &Disk) {
            prop_assert!(fault.spot.line >= 1 && !fault.text.is_empty());
        }
    }
}
