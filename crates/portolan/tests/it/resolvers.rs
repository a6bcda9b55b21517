//! The resolvers that programs have, in Pods with namespaces of their own: glibc's, musl's,
//! Go's and dig, each through the Pod's own `/etc/resolv.conf`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use crate::{
    harness::{Up, eventually, expect},
    netns::{possible, ran, up},
};

/// Prints each name with what `getaddrinfo` finds.
const C: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int count, char **names) {
    for (int at = 1; at < count; at++) {
        struct addrinfo hints, *found, *one;
        memset(&hints, 0, sizeof hints);
        hints.ai_socktype = SOCK_STREAM;
        printf("%s", names[at]);
        if (getaddrinfo(names[at], 0, &hints, &found) == 0) {
            for (one = found; one; one = one->ai_next) {
                char text[64];
                getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
                printf(" %s", text);
            }
            freeaddrinfo(found);
        }
        printf("\n");
    }
    return 0;
}
"#;

/// The same through Go's own resolver.
const GO: &str = r#"
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	resolver := &net.Resolver{PreferGo: true}
	for _, name := range os.Args[1:] {
		found, _ := resolver.LookupHost(context.Background(), name)
		fmt.Println(strings.TrimSpace(name + " " + strings.Join(found, " ")))
	}
}
"#;

/// Endpoints of the Service whose addresses fit into no datagram.
const MANY: u8 = 120;

/// A headless Service, one of its endpoints by name, and one with many.
fn objects() -> String {
    let endpoints: String = (1..=MANY)
        .map(|last| format!("- {{addresses: [10.250.0.{last}], conditions: {{ready: true}}}}\n"))
        .collect();
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, ports: [{{port: 5432}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: db-1, labels: {{kubernetes.io/service-name: db}}}}
addressType: IPv4
ports: [{{port: 5432}}]
endpoints:
- {{addresses: [10.250.1.1], hostname: db-0}}
- {{addresses: [10.250.1.2], hostname: db-1}}
---
apiVersion: v1
kind: Service
metadata: {{name: many}}
spec: {{clusterIP: None, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: many-1, labels: {{kubernetes.io/service-name: many}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints:
{endpoints}---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{ports: [{{port: 80}}]}}
"
    )
}

/// Builds a program; false where its compiler is not there, which is said.
fn built(what: &str, command: &mut Command) -> bool {
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{what} does not build: {said}");
            true
        }
        Err(error) => {
            eprintln!("NOT RUN: the resolver of {what} ({:?}: {error})", command.get_program());
            false
        }
    }
}

/// What a program found, by name.
fn found(up: &Up, pod: &str, command: &str, names: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let log = ran(up, pod, "", "", &format!("{command} {}", names.join(" ")));
    let lines = log.lines().map(|line| {
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap_or_default(), words.collect())
    });
    lines.collect()
}

#[test]
fn programs_resolve_through_their_resolv_conf() {
    if !possible() {
        return;
    }
    let up = up();
    up.apply(&objects());
    let vip = up.cluster_ip("default", "web");
    eventually("the last of the names", || {
        expect(up.dig("web.default.svc.cluster.local", "A"), vec![vip.clone()])
    });
    let set = |texts: &[&str]| -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    };
    let many: BTreeSet<String> = (1..=MANY).map(|last| format!("10.250.0.{last}")).collect();
    let expected: BTreeMap<&str, BTreeSet<String>> = BTreeMap::from([
        ("web", set(&[&vip])),
        ("web.default", set(&[&vip])),
        ("web.default.svc", set(&[&vip])),
        ("web.default.svc.cluster.local", set(&[&vip])),
        ("WEB.Default.svc.cluster.local.", set(&[&vip])),
        ("kubernetes.default", set(&["10.96.0.1"])),
        ("db", set(&["10.250.1.1", "10.250.1.2"])),
        ("db-0.db", set(&["10.250.1.1"])),
        ("nothing", set(&[])),
        ("nothing.default.svc.cluster.local", set(&[])),
        ("many", many.clone()),
    ]);
    let names: Vec<&str> = expected.keys().copied().collect();

    let folder = up.folder.path().to_owned();
    let source = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    let (c, go) = (source("resolve.c", C), source("resolve.go", GO));
    let compiler = |program: &str, out: &Path| {
        let mut command = Command::new(program);
        command.arg("-o").arg(out);
        command
    };
    let program = |name: &str| folder.join(name);

    let glibc = program("resolve-glibc");
    if built("glibc", compiler("cc", &glibc).arg(&c)) {
        let found = found(&up, "glibc", &glibc.display().to_string(), &names);
        for (name, addresses) in &expected {
            assert_eq!(found.get(*name), Some(addresses), "glibc: {name}");
        }
    }

    let musl = program("resolve-musl");
    if built("musl", compiler("musl-gcc", &musl).arg("-static").arg(&c)) {
        let found = found(&up, "musl", &musl.display().to_string(), &names);
        for (name, addresses) in &expected {
            let got = &found[*name];
            if *name == "many" {
                // It keeps 48 addresses at most, and before 1.2.4 it asks by datagram alone:
                // a reply that is cut has to be of use.
                assert!(got.len() > 20 && got.is_subset(addresses), "musl: {name}: {got:?}");
            } else {
                assert_eq!(got, addresses, "musl: {name}");
            }
        }
    }

    let golang = program("resolve-go");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&golang).arg(&go);
    command.env("CGO_ENABLED", "0").env("GO111MODULE", "off").current_dir(&folder);
    if built("Go", &mut command) {
        let found = found(&up, "go", &golang.display().to_string(), &names);
        for (name, addresses) in &expected {
            assert_eq!(found.get(*name), Some(addresses), "Go: {name}");
        }
    }

    let log = ran(
        &up,
        "tools",
        "",
        "",
        "getent ahostsv4 many | awk '{print $1}' | sort -u | wc -l\ndig +search +short web\n\
         dig +search +short many | wc -l\ndig +short -x 10.250.1.1",
    );
    let answers = format!("{MANY}\n{vip}\n{MANY}\ndb-0.db.default.svc.cluster.local.\n");
    assert_eq!(log, answers);
}
