//! Configurations in both spellings, grown from patterns whose placeholders stand for
//! good values and for bad ones, and then bent.
//!
//! What is refused is refused with a place in the text; what is accepted is run: a
//! configuration that is accepted and cannot be used is the bug that is looked for.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use portolan_dns::{
    StandIn,
    config::{AclAction, FaceConfig, Target, read_native},
    corefile::{self, Fault, Surroundings},
};
use portolan_testkit::fuzz::Choices;

use super::{
    faces, grow,
    judge::{self, Manners},
};

/// The variable of the environment by which configurations that run are printed.
const SHOW: &str = "PORTOLAN_FUZZ_SHOW";

/// Where the text stands, and what may be imported beside it.
const FOLDER: &str = "/none";
const COREFILE: &str = "/none/Corefile";
const FILES: [&str; 4] = ["/none/a", "/none/b", "/none/c.server", "/none/d/e.server"];

/// Reads of files that imports may come to: a limit on imports is a limit on these.
const READS_MAX: usize = 1000 * FILES.len();

const ZONES: [&str; 22] = [
    "cluster.local",
    "example.org",
    ".",
    "test",
    "demo.svc.cluster.local",
    "svc.cluster.local",
    "local",
    "Cluster.LOCAL.",
    "in-addr.arpa",
    "ip6.arpa",
    "10.0.0.0/8",
    "10.97.0.0/12",
    "fd00::/15",
    "0.0.0.0/0",
    "10.in-addr.arpa",
    "example.net",
    "old.test",
    "*.test",
    "a..b",
    "",
    "a\\.b",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.test",
];

const NUMBERS: [&str; 18] = [
    "5",
    "0",
    "1",
    "30",
    "60-90",
    "90-60",
    "3600",
    "3601",
    "512",
    "511",
    "4097",
    "65535",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "-1",
];

const SPANS: [&str; 12] = [
    "5s",
    "0",
    "1ns",
    "1m30s",
    "2s",
    "1h",
    "0.5s",
    "99999999h",
    "5000000000000000h",
    "9999999999999999999h",
    "-5s",
    "5",
];

const ADDRESSES: [&str; 18] = [
    "127.0.0.1:5353",
    "127.0.0.1",
    "10.0.0.9",
    "fd00::9",
    "[::1]:53",
    "0.0.0.0",
    "127.0.0.1:0",
    "224.0.0.1",
    ":8080",
    "localhost:9153",
    "dns://127.0.0.1",
    "tls://127.0.0.1",
    "tls://127.0.0.1%dns.test",
    "tls://127.0.0.1%-._",
    "https://127.0.0.1",
    "/none/resolv.conf",
    "10.0.0.9%eth0",
    "300.0.0.1",
];

const PATTERNS: [&str; 12] = [
    ".*",
    "^(.*)[.]test[.]$",
    "^ip-(?P<x>[0-9]+)[.]",
    "(a|b)+",
    "[.]local[.]$",
    "",
    "(",
    "a{1000}{1000}",
    "\\pL{500}",
    "(?i)WEB",
    "^$",
    "é",
];

const RECORDS: [&str; 16] = [
    "{{ .Name }} 60 IN A 10.0.0.1",
    "{{ .Name }} 60 IN CNAME www.example.org.",
    "{{ .Name }} 60 IN CNAME {{ .Name }}",
    "{{ .Zone }} 4294967295 IN SOA ns.test. hm.test. 1 2 3 4 4294967295",
    "{{ .Name }} 99999999999 IN A 10.0.0.1",
    "{{ .Name }} {{ .Type }} 10.0.0.{{ .Group.x }}",
    "{{ .Name }} 5 IN A 10.0.0.{{ index .Match 1 }}",
    "{{ .Name }} IN TXT {{ .Remote }}",
    "x.{{ .Name }} IN AAAA ::{{ parseInt .Group.x 16 8 }}",
    "{{ .Name }} IN SRV 0 0 80 {{ .Name }}",
    "{{ .Name }} IN MX 10 {{ index .Group \"9\" }}",
    "{{ .Name",
    "{{ if .Name }}",
    "nonsense",
    "",
    "{{ .Name }} IN TYPE65280 \\# 3 010203",
];

const TYPES: [&str; 10] =
    ["A", "AAAA", "ANY", "SRV", "PTR", "HINFO", "TYPE65280", "TYPE65536", "AXFR", "nonsense"];

const RCODES: [&str; 8] =
    ["NXDOMAIN", "NOERROR", "SERVFAIL", "REFUSED", "23", "16", "24", "nonsense"];

const SELECTORS: [&str; 5] = ["dns=yes", "a in (b, c)", "!a", "a==", "(("];

/// Words of no meaning in particular, and some that have one elsewhere.
const WORDS: [&str; 20] = [
    "x", "web", "demo", "node", "svc", "dns", "stop", "continue", "auto", "*", "{", "}", "{$ZONE}",
    "{%SELF%}", "{$", "\"", "#", ",", "\\", "é",
];

/// Directives of a Corefile, and lines between their braces.
const DIRECTIVES: [(&str, &[&str]); 37] = [
    (
        "kubernetes %z %z",
        &[
            "pods verified",
            "pods insecure",
            "ttl %n",
            "fallthrough",
            "fallthrough %z",
            "namespaces %w %w",
            "namespace_labels %s",
            "labels %s",
            "noendpoints",
            "endpoint_pod_names",
            "zonal",
            "ignore empty_service",
            "multicluster %z",
        ],
    ),
    ("kubernetes cluster.local", &[]),
    ("kubernetes cluster.local in-addr.arpa", &["fallthrough in-addr.arpa", "ttl %n"]),
    ("k8s_external %z", &["apex %w", "ttl %n", "headless", "fallthrough %z"]),
    ("k8s_external", &["apex %w"]),
    (
        "forward %z %a",
        &[
            "except %z",
            "force_tcp",
            "prefer_udp",
            "max_concurrent %n",
            "tls_servername %w",
            "source_address %a",
            "policy sequential",
            "policy random",
            "expire %d",
            "health_check %d",
        ],
    ),
    ("forward . %a %a", &[]),
    ("forward . 127.0.0.1:5353", &["except %z"]),
    (
        "cache %n %z",
        &[
            "success %n %n %n",
            "denial %n %n",
            "prefetch %n %d",
            "serve_stale %d verify",
            "serve_stale",
            "servfail %d",
            "disable denial %z",
            "keepttl",
        ],
    ),
    ("cache", &[]),
    ("rewrite name %z %z", &[]),
    ("rewrite name exact %z %z answer auto", &[]),
    ("rewrite name suffix %z .demo.svc.cluster.local answer auto", &[]),
    ("rewrite continue name prefix %w %w", &[]),
    ("rewrite name substring %w %z", &[]),
    (
        "rewrite name regex %p {1}.demo.svc.cluster.local answer name %p {0} answer value %p x{1}",
        &[],
    ),
    ("rewrite name regex %p web.demo.svc.cluster.local answer auto", &[]),
    ("rewrite continue ttl suffix %z %n", &[]),
    ("rewrite ttl regex %p %n", &[]),
    ("rewrite rcode %z %r %r", &[]),
    ("rewrite rcode regex %p %r %r", &[]),
    ("rewrite continue type %t %t", &[]),
    (
        "template IN %t %z",
        &[
            "match %p",
            "answer %m",
            "answer %m",
            "additional %m",
            "authority %m",
            "rcode %r",
            "ederror %n %w",
            "fallthrough",
            "fallthrough %z",
        ],
    ),
    (
        "hosts /none/hosts %z",
        &[
            "%a web.demo.svc.cluster.local",
            "%a %z",
            "ttl %n",
            "no_reverse",
            "reload %d",
            "fallthrough %z",
        ],
    ),
    ("hosts /none/hosts", &["%a *.%z", "fallthrough"]),
    ("autopath @kubernetes", &[]),
    (
        "acl %z",
        &[
            "allow type %t net %a",
            "block type %t",
            "filter net 10.0.0.0/8",
            "drop type %t",
            "block",
        ],
    ),
    ("header", &["response set ra", "response clear aa", "query set rd", "query clear rd", "%w"]),
    ("transfer %z", &["to %a", "to *"]),
    ("log %z", &["class denial %w"]),
    ("log . \"{remote} {name} {combined}\"", &[]),
    ("errors", &["consolidate %d %p"]),
    ("health %a", &["lameduck %d"]),
    ("reload %d %d", &[]),
    ("bufsize %n", &[]),
    ("nsid %w %w", &[]),
    ("%w %w", &["%w %w"]),
];

/// Directives without values.
const PLAIN: [&str; 10] = [
    "loadbalance",
    "minimal",
    "any",
    "local",
    "loop",
    "ready",
    "prometheus",
    "errors",
    "log",
    "debug",
];

/// Tables of the native spelling, and their keys.
const TABLES: [(&str, &[&str]); 21] = [
    (
        "",
        &[
            "zones = [\"%z\", \"%z\"]",
            "nsid = \"%w\"",
            "bufsize = %n",
            "local = true",
            "any = true",
            "minimal = true",
            "loadbalance = false",
            "loop = false",
            "errors = false",
            "port = %n",
            "bind = [\"%a\"]",
            "transport = \"tls\"",
        ],
    ),
    (
        "[server.kubernetes]",
        &[
            "zones = [\"%z\", \"%z\"]",
            "pods = \"verified\"",
            "ttl = %n",
            "negative_ttl = %n",
            "fallthrough = [\"%z\"]",
            "namespaces = [\"%w\"]",
            "labels = \"%s\"",
            "endpoints = false",
            "endpoint_pod_names = true",
            "empty_services = false",
            "zonal = true",
            "multicluster = [\"%z\"]",
        ],
    ),
    ("[server.kubernetes]", &[]),
    (
        "[server.k8s_external]",
        &["zones = [\"%z\"]", "ttl = %n", "apex = \"%w\"", "apex = \"%z\"", "headless = true"],
    ),
    (
        "[server.hosts]",
        &[
            "entries = [\"%a %z\", \"%a *.%z\"]",
            "zones = [\"%z\"]",
            "ttl = %n",
            "reverse = false",
            "reload = \"%d\"",
            "fallthrough = [\"%z\"]",
        ],
    ),
    (
        "[server.cache]",
        &[
            "bytes_max = %n",
            "prefetch = false",
            "success = { ttl_max = %n, ttl_min = %n }",
            "denial = { ttl_max = %n, except = [\"%z\"] }",
            "servfail = \"%d\"",
            "serve_stale = { duration = \"%d\", immediate = true }",
            "keepttl = true",
            "zones = [\"%z\"]",
        ],
    ),
    (
        "[[server.forward]]\nto = [\"%a\"]",
        &[
            "from = \"%z\"",
            "except = [\"%z\"]",
            "policy = \"sequential\"",
            "force_tcp = true",
            "max_concurrent = %n",
            "budget = \"%d\"",
            "source_address = \"%a\"",
            "tls = { servername = \"%w\" }",
            "tls = { cert = \"/none/cert\" }",
        ],
    ),
    ("[[server.forward]]\nto = [\"127.0.0.1:5353\"]", &["from = \"%z\""]),
    ("[server.limit]", &["queries_per_second = %n", "burst = %n", "except = [\"%a\"]"]),
    ("[[server.rewrite]]", &["continue = true"]),
    (
        "[[server.rewrite]]\nrule.name = { matches = { kind = \"regex\", from = '%p' }, to = \"{1}.%z\", answer_names = [['%p', \"{2}\"]], answer_values = [['%p', \"%z\"]] }",
        &["continue = true"],
    ),
    (
        "[[server.rewrite]]\nrule.name = { matches = { kind = \"suffix\", from = \"%z\" }, to = \".%z\", auto = true }",
        &["continue = true"],
    ),
    (
        "[[server.rewrite]]\nrule.name = { matches = { kind = \"prefix\", from = \"%w\" }, to = \"%z\" }",
        &["continue = true"],
    ),
    (
        "[[server.rewrite]]\nrule.ttl = { matches = { kind = \"suffix\", from = \"%z\" }, min = %n, max = %n }",
        &["continue = true"],
    ),
    ("[[server.rewrite]]\nrule.type = { from = \"%t\", to = \"%t\" }", &["continue = true"]),
    (
        "[[server.rewrite]]\nrule.rcode = { matches = { kind = \"substring\", from = \"%w\" }, from = \"%r\", to = \"%r\" }",
        &["continue = true"],
    ),
    (
        "[[server.template]]",
        &[
            "type = \"%t\"",
            "zones = [\"%z\"]",
            "match = ['%p', '%p']",
            "answer = ['%m', '%m']",
            "additional = ['%m']",
            "authority = ['%m']",
            "rcode = \"%r\"",
            "ederror = [%n, \"%w\"]",
            "fallthrough = [\"%z\"]",
        ],
    ),
    (
        "[[server.acl]]",
        &[
            "zones = [\"%z\"]",
            "rules = [{ action = \"block\", types = [\"%t\"] }, { action = \"drop\", networks = [\"%a\"] }]",
            "rules = [{ action = \"filter\", networks = [\"10.0.0.0/8\"] }]",
        ],
    ),
    ("[server.autopath]", &["zones = [\"%z\"]", "search = [\"%z\", \"%z\"]"]),
    (
        "[server.header]",
        &["response_set = [\"ra\"]", "response_clear = [\"aa\"]", "query_set = [\"rd\"]"],
    ),
    (
        "[[server.log]]",
        &[
            "sample = 0.%n",
            "sample = %n",
            "classes = [\"denial\"]",
            "format = \"{remote} {>id} {\"",
            "zones = [\"%z\"]",
        ],
    ),
];

/// Tables of the whole file.
const TOP: [&str; 5] = [
    "[health]\nlisten = \"%a\"\nlameduck = \"%d\"",
    "[ready]\nlisten = \"%a\"",
    "[prometheus]",
    "[reload]\ninterval = \"%d\"",
    "[nonsense]",
];

/// A pattern with its placeholders filled.
fn filled(choices: &mut Choices<'_>, pattern: &str, out: &mut String) {
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let mut chars = after.chars();
        let values: &[&str] = match chars.next() {
            Some('z') => &ZONES,
            Some('n') => &NUMBERS,
            Some('d') => &SPANS,
            Some('a') => &ADDRESSES,
            Some('p') => &PATTERNS,
            Some('m') => &RECORDS,
            Some('t') => &TYPES,
            Some('r') => &RCODES,
            Some('s') => &SELECTORS,
            _ => &WORDS,
        };
        // The first values are good ones.
        let most = if choices.rarely(3) { values.len() } else { values.len().min(4) };
        match choices.rarely(64) {
            true => out.push_str(&choices.text(8)),
            false => out.push_str(values[choices.below(most)]),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// Bends a text, seldom.
fn bent(choices: &mut Choices<'_>, text: String) -> String {
    if !choices.rarely(6) {
        return text;
    }
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    for _ in 0..=choices.below(3) {
        if lines.is_empty() {
            break;
        }
        let place = choices.below(lines.len());
        match choices.below(4) {
            0 => drop(lines.remove(place)),
            1 => lines.insert(place, lines[place].clone()),
            2 => lines.insert(place, choices.text(12)),
            _ => {
                let words: Vec<&str> = lines[place].split(' ').collect();
                let which = choices.below(words.len());
                let other = choices.one(&WORDS);
                let word = |(at, word)| if at == which { other } else { word };
                let words: Vec<&str> = words.into_iter().enumerate().map(word).collect();
                lines[place] = words.join(" ");
            }
        }
    }
    lines.join(choices.one(&["\n", "\r\n", "\n\n"]))
}

/// One directive with its block. In a Corefile, values with white space in them are quoted.
fn directive(choices: &mut Choices<'_>, out: &mut String) {
    if choices.rarely(3) {
        out.push_str(choices.one(&PLAIN));
        out.push('\n');
        return;
    }
    let (head, lines) = DIRECTIVES[choices.below(DIRECTIVES.len())];
    filled(choices, head, out);
    let count = choices.below(4).min(lines.len());
    if count > 0 {
        out.push_str(" {\n");
        for _ in 0..count {
            let line = lines[choices.below(lines.len())].replace("%m", "\"%m\"");
            out.push_str("  ");
            match choices.rarely(24) {
                true => out.push_str(choices.one(&["import s", "import a", "import ../none/b"])),
                false => filled(choices, &line, out),
            }
            out.push('\n');
        }
        out.push('}');
    }
    out.push('\n');
}

/// A Corefile, or a part of one.
fn grown(choices: &mut Choices<'_>) -> String {
    let mut text = String::new();
    if choices.rarely(5) {
        text.push_str("(s) {\n");
        for _ in 0..choices.below(3) {
            directive(choices, &mut text);
        }
        text.push_str("}\n");
    }
    for number in 0..=choices.below(3) {
        let key = match choices.rarely(3) {
            true => {
                choices.one(&["%z, %z", "dns://%z:%n", "tls://%z", "{$ZONE}:53", "%z:53 %z:53"])
            }
            false => [".", "cluster.local", "example.org:53"][number % 3],
        };
        filled(choices, key, &mut text);
        text.push_str(" {\n");
        if choices.rarely(2) {
            text.push_str("kubernetes cluster.local\n");
        }
        for _ in 0..choices.below(7) {
            match choices.rarely(12) {
                true => {
                    text.push_str(choices.one(&[
                        "import s\n",
                        "import a\n",
                        "import *.server\n",
                        "import d/?.server\n",
                        "import */*\n",
                        "import {$ZONE}\n",
                    ]));
                }
                false => directive(choices, &mut text),
            }
        }
        text.push_str("}\n");
    }
    bent(choices, text)
}

/// Files and variables of the bytes.
#[derive(Default)]
struct Fake {
    files: BTreeMap<PathBuf, String>,
    reads: Cell<usize>,
}

impl Surroundings for Fake {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.reads.set(self.reads.get() + 1);
        let plain = path.to_string_lossy().replace("/none/../none/", "/none/");
        self.files.get(Path::new(&plain)).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let children = self.files.keys().filter(|path| path.parent() == Some(folder));
        Ok(children.cloned().collect())
    }

    fn variable(&self, name: &str) -> String {
        match name {
            "ZONE" => "example.com".to_owned(),
            "SELF" => "{$SELF}".to_owned(),
            _ => String::new(),
        }
    }
}

/// A fault stands in a text that was read.
fn stands(fault: &Fault, text_of: impl Fn(&str) -> Option<String>) {
    let spot = &fault.spot;
    let text = text_of(&spot.file).unwrap_or_else(|| panic!("{fault}: no such file"));
    let line = spot.line.checked_sub(1).and_then(|line| text.split('\n').nth(line));
    let length = line.unwrap_or_else(|| panic!("{fault}: no such line")).chars().count();
    assert!((1..=length + 1).contains(&spot.column), "{fault}: no such column");
    assert!(!fault.text.is_empty());
}

/// Text as a Corefile: it is read, each time the same, or refused with a place in it; and
/// what is read can be run.
pub(crate) fn corefile(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let mut fake = Fake::default();
    if choices.rarely(4) {
        for file in FILES {
            let text = match choices.below(3) {
                0 => grown(choices),
                1 => "import a\nimport c.server\n".to_owned(),
                _ => choices.text(40),
            };
            fake.files.insert(file.into(), text);
        }
    }
    let text = if choices.rarely(12) { choices.text(400) } else { grown(choices) };
    let read = || corefile::read(&text, Path::new(COREFILE), &fake);
    let first = read();
    assert!(fake.reads.get() <= READS_MAX, "{} files are read", fake.reads.get());
    assert_eq!(first, read(), "read again");
    let text_of = |file: &str| match file {
        COREFILE => Some(text.clone()),
        other => fake.read(Path::new(other)).ok(),
    };
    match first {
        Err(fault) => stands(&fault, text_of),
        Ok(read) => {
            read.notes.iter().for_each(|note| stands(note, text_of));
            runs(&read.config, choices, &text);
        }
    }
}

/// Text in the native spelling: the same.
pub(crate) fn native(bytes: &[u8]) {
    let choices = &mut Choices::new(bytes);
    let mut text = String::new();
    if choices.rarely(6) {
        let table = choices.one(&TOP);
        filled(choices, table, &mut text);
        text.push('\n');
    }
    for _ in 0..=choices.below(2) {
        text.push_str("[[server]]\n");
        for round in 0..choices.one(&[3, 1, 2, 5]) {
            let place = if round == 0 { 0 } else { choices.below(TABLES.len()) };
            let (table, keys) = TABLES[place];
            filled(choices, table, &mut text);
            text.push('\n');
            for _ in 0..choices.below(4).min(keys.len()) {
                let key = choices.one(keys);
                filled(choices, key, &mut text);
                text.push('\n');
            }
        }
    }
    let text = if choices.rarely(24) { choices.text(400) } else { bent(choices, text) };
    let file = Path::new("/none/dns.toml");
    let first = read_native(&text, file);
    assert_eq!(first, read_native(&text, file), "read again");
    match first {
        Err(fault) => stands(&fault, |_| Some(text.clone())),
        Ok(config) => runs(&config, choices, &text),
    }
}

/// Whether a configuration names files that are not those of nobody.
fn reads_the_disk(config: &FaceConfig) -> bool {
    let foreign = |path: &String| !path.starts_with(FOLDER);
    config.servers.iter().any(|server| {
        let hosts = server.hosts.iter().filter_map(|hosts| hosts.file.as_ref());
        let forwards = server.forward.iter();
        let targets = forwards.clone().flat_map(|forward| &forward.to);
        let files = targets.filter_map(|target| match target {
            Target::File(path) => Some(path),
            _ => None,
        });
        let tls = forwards.map(|forward| &forward.tls);
        let tls = tls.flat_map(|tls| [&tls.ca, &tls.cert, &tls.key].into_iter().flatten());
        hosts.chain(files).chain(tls).any(foreign)
    })
}

/// Whether a refusal is about the machine: a file that is not there.
fn is_about_the_machine(why: &str) -> bool {
    why.contains(FOLDER) || why.starts_with("this system keeps no list")
}

/// What was accepted can be run, and answers.
#[allow(clippy::print_stdout, reason = "what a test says of itself")]
fn runs(config: &FaceConfig, choices: &mut Choices<'_>, text: &str) {
    if std::env::var_os(SHOW).is_some() {
        println!("{text}");
    }
    if reads_the_disk(config) {
        return;
    }
    let face = match faces::by_blocks(config, &StandIn::new(faces::upstream)) {
        Ok(face) => face,
        Err(why) if is_about_the_machine(&why) => return,
        Err(why) => panic!("accepted, and then: {why}\n{text}"),
    };
    let rules = config.servers.iter().flat_map(|server| &server.acl).flat_map(|set| &set.rules);
    let manners = Manners {
        drops: rules.into_iter().any(|rule| rule.action == AclAction::Drop),
        counts: config.servers.iter().any(|server| server.limit.is_some()),
        flags: config.servers.iter().any(|server| server.header.is_some()),
        ..Manners::default()
    };
    for _ in 0..6 {
        let packet = grow::packet(choices);
        judge::packet(&face, &packet, usize::from(choices.byte()), manners);
    }
}
