//! The native spelling: TOML.

use std::{path::Path, sync::Arc};

use serde::Deserialize;
use toml::Spanned;

use super::{FaceConfig, ServerConfig};
use crate::corefile::{Fault, Spot};

/// The file with the places of its server blocks.
#[derive(Deserialize)]
struct Placed {
    #[serde(default, rename = "server")]
    servers: Vec<Spanned<ServerConfig>>,
}

/// Reads and checks a text.
pub fn read(text: &str, file: &Path) -> Result<FaceConfig, Fault> {
    let at = |offset: usize| spot(text, file, offset);
    let refused = |error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        Fault::new(&at(offset), error.message().trim_end().replace('\n', ", "))
    };
    let config: FaceConfig = toml::from_str(text).map_err(refused)?;
    let placed: Placed = toml::from_str(text).map_err(refused)?;
    let spots: Vec<Spot> = placed.servers.iter().map(|server| at(server.span().start)).collect();
    let first = at(0);
    config.check(|number| spots.get(number).unwrap_or(&first).clone())?;
    Ok(config)
}

/// The line and column of a byte.
fn spot(text: &str, file: &Path, offset: usize) -> Spot {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Spot { file: Arc::from(file.display().to_string()), line, column }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MatchKind, NameMatch, Policy, RewriteRule};

    const FULL: &str = r#"
[health]
listen = ":8080"
lameduck = "5s"

[[server]]
zones = ["."]
nsid = "here"

[[server.log]]
classes = ["error"]
sample = 0.1

[server.limit]
queries_per_second = 10

[server.kubernetes]
zones = ["cluster.local", "in-addr.arpa", "ip6.arpa"]
pods = "verified"
ttl = 30
fallthrough = ["in-addr.arpa", "ip6.arpa"]

[[server.rewrite]]
continue = true
[server.rewrite.rule.name]
matches = { kind = "suffix", from = "old.test" }
to = "new.test."
auto = true

[[server.template]]
type = "AAAA"
match = ["^a[.]"]
answer = ["{{ .Name }} 60 IN AAAA ::1"]

[server.hosts]
entries = ["10.0.0.1 a.test"]
fallthrough = ["."]

[server.cache]
success = { ttl_max = 30 }

[[server.forward]]
to = ["/etc/resolv.conf", "tls://9.9.9.9%dns.quad9.net"]
policy = "sequential"
except = ["a.test"]
"#;

    #[test]
    fn every_part_is_read() {
        let config = read(FULL, Path::new("dns.toml")).unwrap();
        let server = &config.servers[0];
        assert_eq!(server.forward[0].policy, Policy::Sequential);
        assert_eq!(server.kubernetes.as_ref().unwrap().ttl, 30);
        assert_eq!(server.limit.as_ref().unwrap().queries_per_second, 10);
        let RewriteRule::Name { matches, auto, .. } = &server.rewrite[0].rule else { panic!() };
        assert_eq!(*matches, NameMatch::Text(MatchKind::Suffix, "old.test.".into()));
        assert!(*auto && server.rewrite[0].goes_on && server.loadbalance);
    }

    #[test]
    fn what_is_wrong_and_where() {
        for (text, expected) in [
            ("[[server]]\nzone = []", "2:1: unknown field `zone`, expected one of"),
            ("[[server]]\nport = \"x\"", "2:8: invalid type: string \"x\", expected u16"),
            ("[[server]]\nport = 70000", "2:8: invalid value: integer `70000`, expected u16"),
            (
                "[[server]]\nzones = [\".\", \"a..b\"]",
                "2:9: expected a domain name, found \"a..b\"",
            ),
            ("[[server]]\n[server.kubernetes]\npods = \"some\"", "3:8: unknown variant `some`"),
            ("[[server]]\n[[server.forward]]\nto = [\"x\"]", "3:6: expected an address or a file"),
            ("[[server]]\n[[server.template]]\nmatch = [\"(\"]", "3:9: \"(\" is no regular"),
            ("[health]\nlameduck = \"5\"", "2:12: expected a time span"),
            (
                "[[server]]\n[[server.rewrite]]\n[server.rewrite.rule.ttl]\nmin = 5\nmax = 3\n\
                 matches = { kind = \"exact\", from = \"a.\" }",
                "1:1: a TTL cannot be at least 5 and at most 3",
            ),
            // What could only fail, or do harm, once it runs.
            (
                "[[server]]\n[[server.rewrite]]\n[server.rewrite.rule.name]\n\
                 matches = { kind = \"regex\", from = \"a\" }\nto = \"{1}\"",
                "1:1: \"{1}\" uses group 1, and \"a\" has 0",
            ),
            (
                "[[server]]\n[[server.template]]\nanswer = [\"{{ .Nome }}\"]",
                "1:1: {{ .Nome }} is not known",
            ),
            (
                "[[server]]\n[[server.forward]]\nto = [\"10.0.0.1:0\"]",
                "1:1: the upstream server 10.0.0.1:0 cannot be used: port 0",
            ),
            (
                "[[server]]\n[[server.forward]]\nto = [\"tls://10.0.0.1%-._\"]",
                "1:1: \"-._\" is no name of a TLS server",
            ),
            (
                "[[server]]\n[[server.forward]]\nto = [\"tls://10.0.0.1\"]\n\
                 tls = { cert = \"c.pem\" }",
                "1:1: forward .: a certificate needs its key",
            ),
            ("[reload]\ninterval = \"0\"", "1:1: a file is looked at every 2s at most"),
            (
                "[[server]]\n[server.hosts]\nfile = \"hosts\"\nreload = \"1ns\"",
                "1:1: a file is looked at every 2s at most",
            ),
            (
                "[[server]]\n[[server.forward]]\nto = [\"10.0.0.1\"]\nbudget = \"5000000000h\"",
                "4:10: expected a time span",
            ),
            (
                "[[server]]\nzones = [\"10.0.0.0/8\"]",
                "2:9: expected a domain name, found the range \"10.0.0.0/8\"",
            ),
            (
                "[[server]]\nzones = [\"a.test\"]\n[server.kubernetes]\n[server.k8s_external]",
                "1:1: the zone a.test. is one of kubernetes and of k8s_external",
            ),
            (
                "[[server]]\n\n[[server]]\nzones = [\".\"]",
                "3:1: the zone . is served by two blocks",
            ),
        ] {
            let fault = read(text, Path::new("dns.toml")).unwrap_err().to_string();
            let expected = format!("dns.toml:{expected}");
            assert!(fault.starts_with(&expected), "{text:?}: {fault}");
        }
        let long = format!("[[server]]\nnsid = \"{}\"", "x".repeat(129));
        let fault = read(&long, Path::new("dns.toml")).unwrap_err();
        assert_eq!(fault.text, "nsid has 129 bytes; there is room for 128");
    }
}
