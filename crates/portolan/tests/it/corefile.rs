//! The DNS face run from Corefiles, as clusters have them, asked by dig.

use std::{fs, path::Path};

use crate::harness::{self, Up, binary, eventually, expect, free_port, run, service, up_in};

/// An `up` that runs a Corefile from a folder of its own.
fn up_from(corefile: &str, more: &[(&str, &str)]) -> Up {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Corefile"), corefile).unwrap();
    for (name, text) in more {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let path = folder.path().join("Corefile").display().to_string();
    up_in(folder, &["--ephemeral", "--corefile", &path])
}

/// What a Corefile is refused with; the process must end with exit code 2 before
/// anything starts.
fn refused(corefile: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Corefile");
    fs::write(&path, corefile).unwrap();
    let mut command = std::process::Command::new(binary());
    command.args(harness::apart()).arg("--ephemeral").arg("--corefile").arg(&path);
    let ran = run(command, None);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    ran.err.replace(&*path.to_string_lossy(), "Corefile").trim().to_owned()
}

/// The value of a metric with these labels in an OpenMetrics page.
fn metric(up: &Up, name: &str, labels: &str) -> Option<f64> {
    let page = up.curl(&format!("{}/metrics", up.http())).unwrap();
    let line = page.lines().find(|line| line.starts_with(name) && line.contains(labels))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The TTL of the first record that dig printed.
fn ttl(printed: &str) -> Option<&str> {
    printed.split_whitespace().nth(1)
}

#[test]
fn kubeadms_corefile() {
    let [health, ready, metrics] = [free_port(), free_port(), free_port()];
    let up = up_from(
        &format!(
            ".:53 {{
    errors
    health 127.0.0.1:{health} {{
       lameduck 1s
    }}
    ready 127.0.0.1:{ready}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus 127.0.0.1:{metrics}
    forward . 127.0.0.1:1 {{
       max_concurrent 1000
    }}
    cache 30
    loop
    reload
    loadbalance
}}
"
        ),
        &[],
    );
    up.apply(&service("web", 80));
    let address = up.cluster_ip("default", "web");
    let name = "web.default.svc.cluster.local";
    eventually("the Service's name", || expect(up.dig(name, "A"), vec![address.clone()]));
    assert_eq!(ttl(&up.dig_full(&["+noall", "+answer", name])), Some("30"));
    // A denial has the same TTL as CoreDNS gives it.
    let denied = up.dig_full(&["none.default.svc.cluster.local"]);
    assert!(denied.contains("NXDOMAIN"), "{denied}");
    let authority = up.dig_full(&["+noall", "+authority", "none.default.svc.cluster.local"]);
    assert_eq!(ttl(&authority), Some("30"), "{authority}");
    assert_eq!(up.dig("10-1-2-3.default.pod.cluster.local", "A"), ["10.1.2.3"]);
    let reverse = up.dig_full(&["+noall", "+answer", "-x", &address]);
    assert!(reverse.contains("web.default.svc.cluster.local."), "{reverse}");
    // Others are asked, and none is there: a failure with its reason.
    let outside = up.dig_full(&["example.org"]);
    assert!(outside.contains("SERVFAIL") && outside.contains("EDE: 23"), "{outside}");

    let page = |port: u16, path: &str| up.curl(&format!("http://127.0.0.1:{port}{path}"));
    assert_eq!(page(health, "/health").as_deref(), Some("OK"));
    eventually("readiness", || expect(page(ready, "/ready").as_deref(), Some("OK")));
    let numbers = page(metrics, "/metrics").unwrap();
    assert!(numbers.contains("coredns_dns_requests_total{server=\"dns://:53\""), "{numbers}");
    assert!(numbers.contains("coredns_build_info{version=\"portolan-"), "{numbers}");
    for plugin in ["errors", "kubernetes", "forward", "cache", "loop", "loadbalance"] {
        let line = format!(
            "coredns_plugin_enabled{{server=\"dns://:53\",zone=\".\",view=\"\",name=\"{plugin}\"}} 1"
        );
        assert!(numbers.contains(&line), "{plugin}: {numbers}");
    }
}

#[test]
fn a_lame_duck_answers_and_is_not_ready() {
    let [health, ready] = [free_port(), free_port()];
    let up = up_from(
        &format!(
            ". {{\n health 127.0.0.1:{health} {{\n lameduck 30s\n }}\n ready 127.0.0.1:{ready}\n \
             kubernetes cluster.local\n}}\n"
        ),
        &[],
    );
    let page = |port: u16, path: &str| up.curl(&format!("http://127.0.0.1:{port}{path}"));
    assert_eq!(page(ready, "/ready").as_deref(), Some("OK"));
    harness::terminate(up.pid());
    eventually("readiness ends", || expect(page(ready, "/ready"), None));
    assert_eq!(page(health, "/health").as_deref(), Some("OK"));
    let answer = up.dig_full(&["dns-version.cluster.local", "TXT"]);
    assert!(answer.contains("NOERROR"), "{answer}");
    // A second signal is heeded at once.
    let (code, _) = up.sigterm();
    assert_eq!(code, Some(0));
}

/// As AKS and k3s mount what their users add.
#[test]
fn imports_of_overrides_and_servers() {
    let corefile = "\
.:53 {
    errors
    kubernetes cluster.local {
       pods insecure
    }
    import custom/*.override
}
import custom/*.server
";
    let override_file = "hosts {
    10.9.8.7 legacy.example.org
    fallthrough
}
rewrite name exact old.example.org web.default.svc.cluster.local
template IN AAAA example.net {
    rcode NOERROR
}
";
    let server_file = "corp.example:53 {
    template IN A {
        match ^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)-(?P<c>[0-9]+)-(?P<d>[0-9]+)[.]corp[.]example[.]$
        answer \"{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}\"
        fallthrough
    }
    acl {
        block type TXT net 127.0.0.0/8
    }
    any
}
";
    let up = up_from(
        corefile,
        &[("custom/a.override", override_file), ("custom/corp.server", server_file)],
    );
    up.apply(&service("web", 80));
    let address = up.cluster_ip("default", "web");
    let name = "web.default.svc.cluster.local";
    eventually("the Service's name", || expect(up.dig(name, "A"), vec![address.clone()]));
    assert_eq!(up.dig("legacy.example.org", "A"), ["10.9.8.7"]);
    let pointer = up.dig_full(&["+noall", "+answer", "-x", "10.9.8.7"]);
    assert!(pointer.contains("legacy.example.org."), "{pointer}");
    // The question is kept, and the answer led back to it.
    let rewritten = up.dig_full(&["+noall", "+question", "+answer", "old.example.org"]);
    let lines: Vec<&str> = rewritten.lines().filter(|line| line.contains("old.example")).collect();
    assert_eq!(lines.len(), 2, "{rewritten}");
    assert!(rewritten.contains(&address), "{rewritten}");
    let empty = up.dig_full(&["x.example.net", "AAAA"]);
    assert!(empty.contains("NOERROR") && empty.contains("ANSWER: 0"), "{empty}");
    assert_eq!(up.dig("ip-10-1-2-3.corp.example", "A"), ["10.1.2.3"]);
    let blocked = up.dig_full(&["ip-10-1-2-3.corp.example", "TXT"]);
    assert!(blocked.contains("REFUSED") && blocked.contains("EDE: 15"), "{blocked}");
    assert_eq!(up.dig("ip-10-1-2-3.corp.example", "ANY"), ["\"ANY obsoleted\" \"See RFC 8482\""]);
    // No stage of that block has it, and none of the other is asked.
    assert!(up.dig_full(&["web.corp.example"]).contains("REFUSED"));
}

#[test]
fn broken_corefiles_are_refused_with_their_place() {
    for (corefile, expected) in [
        (". {\n    erors\n}\n", "error: Corefile:2:5: unknown directive \"erors\"; known are acl,"),
        (
            ". {\n    forward . dns.google\n}\n",
            "error: Corefile:2:15: expected an address or a file",
        ),
        (". {\n    cache 30\n", "error: Corefile:2:11: expected '}' that ends the server block"),
        (". {\n    dnssec\n}\n", "error: Corefile:2:5: dnssec: zones are not signed here"),
        (
            ". {\n}\n.:5353 {\n}\n",
            "error: Corefile:3:1: the zone . is served by two blocks, on ports",
        ),
        (". {\n    import none\n}\n", "error: Corefile:2:12: cannot import"),
        (
            ". {\n    forward . /none/resolv.conf\n}\n",
            "error: the DNS configuration cannot be used: /none/resolv.conf: No such file",
        ),
    ] {
        let said = refused(corefile);
        assert!(said.starts_with(expected), "{corefile}: {said}");
    }
}

#[test]
fn a_reload_takes_good_files_and_keeps_off_bad_ones() {
    let hosts = |address: &str| {
        format!(". {{\n reload 2s\n hosts none {{\n {address} a.test\n fallthrough\n }}\n}}\n")
    };
    let up = up_from(&hosts("10.0.0.1"), &[]);
    let write = |text: &str| fs::write(up.folder.path().join("Corefile"), text).unwrap();
    assert_eq!(up.dig("a.test", "A"), ["10.0.0.1"]);
    write(&hosts("10.0.0.2"));
    eventually("the change", || expect(up.dig("a.test", "A"), vec!["10.0.0.2".to_owned()]));
    write(". {\n nonsense\n}\n");
    eventually("the failure is counted", || {
        expect(metric(&up, "coredns_reload_failed_total", ""), Some(1.0))
    });
    assert_eq!(up.dig("a.test", "A"), ["10.0.0.2"]);
    assert!(up.curl(&format!("{}/readyz", up.http())).is_some());
    let said = fs::read_to_string(up.folder.path().join("stderr")).unwrap();
    assert!(said.contains(":2:2: unknown directive"), "{said}");
    write(&hosts("10.0.0.3"));
    eventually("the next change", || expect(up.dig("a.test", "A"), vec!["10.0.0.3".to_owned()]));
}

#[test]
fn the_native_spelling_limits_and_logs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dns.toml");
    fs::write(
        &path,
        "[[server]]
zones = [\".\"]
local = true
[[server.log]]
format = \"query {name} {type} {rcode}\"
classes = [\"denial\"]
[server.limit]
queries_per_second = 1
burst = 20
[server.kubernetes]
zones = [\"cluster.local\"]
",
    )
    .unwrap();
    let flag = path.display().to_string();
    let up = up_in(folder, &["--ephemeral", "--dns-config", &flag]);
    assert_eq!(up.dig("localhost", "A"), ["127.0.0.1"]);
    assert!(up.dig_full(&["none.default.svc.cluster.local"]).contains("NXDOMAIN"));
    let log = |path: &Path| fs::read_to_string(path.join("stderr")).unwrap();
    let said = log(up.folder.path());
    assert!(said.contains("query none.default.svc.cluster.local. A NXDOMAIN"), "{said}");
    assert!(!said.contains("query localhost."), "{said}");
    eventually("the limit is reached", || {
        let reply = up.dig_full(&["localhost"]);
        if reply.contains("REFUSED") && reply.contains("asks too much") {
            Ok(())
        } else {
            Err(reply)
        }
    });
}
