//! The dialects from outside: round trips, what real writers emit, and noise.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::{collections::BTreeMap, net::IpAddr};

use portolan_dialects::{
    ContainerView, Dialect, DubboGo, EncodeError, ListDialect, PodView, Reading, Registration,
    Standing,
    app::{self, App},
    list,
};
use portolan_model::Code;
use proptest::prelude::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn read(dialects: &[Dialect], labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Reading {
    let addresses: [IpAddr; 1] = ["10.0.0.5".parse().unwrap()];
    Dialect::read_all(
        dialects,
        &PodView {
            labels: &map(labels),
            annotations: &map(annotations),
            addresses: &addresses,
            containers: &[],
        },
    )
}

fn one(k: &str, v: &str) -> Reading {
    app::decode(&list::write(&[list::item(k.into(), v.into())]))
}

fn full() -> Registration {
    Registration {
        group: Some("shop".into()),
        version: Some("1.0.0".into()),
        path: "/api".into(),
        methods: vec!["get".into(), "put".into()],
        weight: 50,
        zone: Some("a".into()),
        params: map(&[("retries", "2"), ("note", "a b&c=d")]),
        ..Registration::new("com.acme.Users", "dubbo", "10.0.0.5:20880".parse().unwrap())
    }
}

#[test]
fn the_default_dialect_to_the_byte() {
    let text = app::encode(&[
        Registration::new("reviews", "http", "10.0.0.5:9080".parse().unwrap()),
        full(),
    ])
    .unwrap();
    let items = list::read(&text).unwrap();
    assert_eq!(
        serde_json::to_string(&items).unwrap(),
        r#"[{"k":"reviews","v":"http://10.0.0.5:9080"},{"k":"shop/com.acme.Users:1.0.0","v":"dubbo://10.0.0.5:20880/api?methods=get,put&weight=50&zone=a&note=a%20b%26c%3Dd&retries=2"}]"#
    );
    assert!(text.starts_with("W3siayI6InJldmlld3MiLCJ2IjoiaHR0cDovLzEwLjAuMC41OjkwODAifSx7"));
}

#[test]
fn reads_keys_and_values() {
    let plain = Registration::new("reviews", "http", "10.0.0.5:9080".parse().unwrap());
    for (k, v, expected) in [
        ("reviews", "http://10.0.0.5:9080", plain.clone()),
        ("/reviews:", "http://10.0.0.5:9080?", plain.clone()),
        (
            "g/reviews:v1",
            "http://10.0.0.5:9080/",
            Registration {
                group: Some("g".into()),
                version: Some("v1".into()),
                path: "/".into(),
                ..plain.clone()
            },
        ),
        (
            "reviews",
            "grpc://[fd00::1]:9080?weight=0",
            Registration {
                protocol: "grpc".into(),
                address: "fd00::1".parse().unwrap(),
                weight: 0,
                ..plain.clone()
            },
        ),
        (
            // As Go's url.Values and URLSearchParams write queries.
            "reviews",
            "http://10.0.0.5:9080/a%2Bb+c?methods=get%2Cput&note=a+b&flag",
            Registration {
                path: "/a+b+c".into(),
                methods: vec!["get".into(), "put".into()],
                params: map(&[("note", "a b"), ("flag", "")]),
                ..plain.clone()
            },
        ),
        (
            "com.acme.Outer$Inner",
            "http://10.0.0.5:9080",
            Registration { interface: "com.acme.Outer$Inner".into(), ..plain },
        ),
    ] {
        let reading = one(k, v);
        assert_eq!(reading.registrations, [expected], "{k} {v} {:?}", reading.reasons);
        assert!(reading.reasons.is_empty(), "{k} {v}");
    }
}

#[test]
fn refuses_one_entry_with_its_reason() {
    for (k, v, code, text) in [
        ("", "http://10.0.0.5:1", Code::REGISTRATION_INVALID, "interface is empty"),
        ("a b", "http://10.0.0.5:1", Code::REGISTRATION_INVALID, "holds blanks"),
        ("a/b/c", "http://10.0.0.5:1", Code::REGISTRATION_INVALID, "more than one '/'"),
        ("a%zz", "http://10.0.0.5:1", Code::REGISTRATION_INVALID, "hexadecimal"),
        ("a", "10.0.0.5:1", Code::REGISTRATION_INVALID, "protocol://address:port"),
        ("a", "ht tp://10.0.0.5:1", Code::REGISTRATION_INVALID, "protocol"),
        ("a", "http://10.0.0.5", Code::REGISTRATION_INVALID, "address:port"),
        ("a", "http://web.example:80", Code::REGISTRATION_INVALID, "address:port"),
        ("a", "http://user@10.0.0.5:80", Code::REGISTRATION_INVALID, "address:port"),
        ("a", "http://fd00::1:80", Code::REGISTRATION_INVALID, "brackets"),
        ("a", "http://10.0.0.5:0", Code::PORT_INVALID, "no port"),
        ("a", "http://10.0.0.5:70000", Code::PORT_INVALID, "\"a\": \"70000\" is no port"),
        ("a", "http://10.0.0.5:+80", Code::PORT_INVALID, "no port"),
        ("a", "http://10.0.0.5:1?weight=-1", Code::REGISTRATION_INVALID, "weight"),
        ("a", "http://10.0.0.5:1?x=%", Code::REGISTRATION_INVALID, "hexadecimal"),
    ] {
        let reading = one(k, v);
        assert!(reading.registrations.is_empty(), "{k} {v}");
        assert_eq!(reading.reasons[0].code, code, "{k} {v}");
        assert!(reading.reasons[0].detail.contains(text), "{:?}", reading.reasons);
    }
}

#[test]
fn a_broken_entry_costs_only_itself() {
    let text = list::write(&[
        serde_json::json!({"k": "a"}),
        serde_json::json!(7),
        list::item("b".into(), "http://10.0.0.5:1".into()),
        list::item("c".into(), "nonsense".into()),
        // A restarted container appended itself once more: the later one counts.
        list::item("b".into(), "http://10.0.0.5:1?weight=7".into()),
    ]);
    let reading = app::decode(&text);
    assert_eq!(reading.registrations.len(), 1);
    assert_eq!(reading.registrations[0].weight, 7);
    assert_eq!(reading.reasons.len(), 3);
}

#[test]
fn reasons_of_one_pod_are_bounded() {
    let items: Vec<_> = (0..1000).map(|i| list::item(format!("s{i}"), "x".into())).collect();
    assert_eq!(app::decode(&list::write(&items)).reasons.len(), Reading::REASONS_MAX);
}

#[test]
fn writers_of_one_annotation_leave_each_other_alone() {
    let app = ListDialect::App(App::default());
    let place = "10.0.0.5:1".parse().unwrap();
    let (mine, theirs) =
        (Registration::new("mine", "http", place), Registration::new("theirs", "http", place));
    let strange = serde_json::json!({"k": "strange", "v": "?", "extra": [1, 2]});
    let current =
        list::write(&[strange.clone(), list::item("theirs".into(), "http://10.0.0.5:1".into())]);
    let both = app.update(Some(&current), &[], std::slice::from_ref(&mine)).unwrap().unwrap();
    assert_eq!(list::read(&both).unwrap()[0], strange);
    assert_eq!(app::decode(&both).registrations, [theirs.clone(), mine.clone()]);
    // Registering again replaces, it does not append.
    let again = app.update(Some(&both), &[], std::slice::from_ref(&mine)).unwrap().unwrap();
    assert_eq!(again, both);
    assert_eq!(
        app.update(Some(&both), std::slice::from_ref(&mine), &[]).unwrap().unwrap(),
        current
    );
    let only = app.update(None, &[], std::slice::from_ref(&mine)).unwrap().unwrap();
    assert_eq!(app.update(Some(&only), std::slice::from_ref(&mine), &[]).unwrap(), None);
    // What nobody can read is replaced.
    assert_eq!(app.update(Some("plain text"), &[], &[mine]).unwrap(), Some(only));
}

#[test]
fn refuses_to_write_what_would_not_read_back() {
    let place = "10.0.0.5:1".parse().unwrap();
    let good = Registration::new("a", "http", place);
    for bad in [
        Registration { interface: String::new(), ..good.clone() },
        Registration { port: 0, ..good.clone() },
        Registration { protocol: "a b".into(), ..good.clone() },
        Registration { path: "x".into(), ..good.clone() },
        Registration { methods: vec!["a,b".into()], ..good.clone() },
        Registration { params: map(&[("weight", "1")]), ..good.clone() },
        Registration { group: Some(String::new()), ..good.clone() },
    ] {
        assert!(matches!(app::encode(&[bad]), Err(EncodeError::Invalid { .. })));
    }
    let large = Registration { params: map(&[("x", &"y".repeat(200_000))]), ..good };
    assert!(matches!(app::encode(&[large]), Err(EncodeError::TooLarge { .. })));
}

#[test]
fn label_and_annotation_belong_together() {
    let text = app::encode(&[full()]).unwrap();
    let own = [Dialect::App(App::default())];
    let annotation = ("app.io/annotation", text.as_str());
    let found = read(&own, &[("app.io/label", "app.io-value")], &[annotation]);
    assert_eq!(found.registrations, [full()]);
    for labels in [&[][..], &[("app.io/label", "other")][..]] {
        let reading = read(&own, labels, &[annotation]);
        assert!(reading.registrations.is_empty());
        assert!(reading.reasons[0].detail.contains("app.io/label=app.io-value"));
    }
    // Another prefix is another dialect.
    let corp = [Dialect::App(App::with_prefix("corp.example").unwrap())];
    let labels = [("corp.example/label", "corp.example-value")];
    assert_eq!(read(&corp, &labels, &[annotation]), Reading::default());
    let reading = read(&corp, &labels, &[("corp.example/annotation", &text)]);
    assert_eq!(reading.registrations, [full()]);
}

/// Decoded texts of appendix G of the research notes, as dubbo-go 1.4 and 1.5
/// write them; encoded here in the alphabet that they use.
#[test]
fn dubbo_go_both_versions() {
    const B: &str = r#"[{"k":"/dubbo/com.ikurento.user.UserProvider/providers","v":""},{"k":"/dubbo/com.ikurento.user.UserProvider/providers/dubbo%3A%2F%2F10.0.0.5%3A20000%2Fcom.ikurento.user.UserProvider%3Fanyhost%3Dtrue%26application%3DBDTService%26bean.name%3DUserProvider%26interface%3Dcom.ikurento.user.UserProvider%26ip%3D10.0.0.5%26methods%3DGetUser%2CAddUser%26module%3Ddubbogo+user-info+server%26pid%3D7%26registry.role%3D3%26release%3Ddubbo-golang-1.5.8%26service.filter%3Decho%2Ctoken%2Caccesslog%26side%3Dprovider%26timestamp%3D1700000000%26version%3D1.0.0","v":""}]"#;
    const A: &str = r#"[{"k":"/dubbo/com.ikurento.user.UserProvider/providers","v":""},{"k":"/dubbo/com.ikurento.user.UserProvider/providers/dubbo%3A%2F%2F10.0.0.5%3A20000%2FUserProvider%3Fanyhost%3Dtrue%26application%3DBDTService%26bean.name%3DUserProvider%26category%3Dproviders%26dubbo%3Ddubbo-provider-golang-1.3.0%26group%3D%26interface%3Dcom.ikurento.user.UserProvider%26ip%3D10.0.0.5%26module%3Ddubbogo%2Buser-info%2Bserver%26pid%3D7%26registry.role%3D3%26release%3Ddubbo-golang-1.5.8%26service.filter%3Decho%252Ctoken%252Caccesslog%26side%3Dprovider%26side%3Dprovider%26timestamp%3D1700000000%26version%3D1.0.0","v":""}]"#;
    let methods = ["GetUser", "AddUser"];
    for (text, version, label, path, methods) in [
        (B, DubboGo::V1_5, "dubbo.io.provider", "/com.ikurento.user.UserProvider", &methods[..]),
        (A, DubboGo::V1_4, "dubbo.io-value", "/UserProvider", &[]),
    ] {
        let items: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
        let encoded = list::write(&items).replace('+', "-").replace('/', "_");
        let labels = [("dubbo.io/label", label)];
        let reading = read(&[Dialect::Dubbo], &labels, &[("dubbo.io/annotation", &encoded)]);
        assert_eq!(reading.reasons, []);
        let [found] = &reading.registrations[..] else { panic!("{reading:?}") };
        assert_eq!(found.interface, "com.ikurento.user.UserProvider");
        assert_eq!(found.version.as_deref(), Some("1.0.0"));
        assert_eq!(found.group, None);
        assert_eq!(found.socket_address(), "10.0.0.5:20000".parse().unwrap());
        assert_eq!(found.path, path);
        assert_eq!(found.methods, methods);
        assert_eq!(found.params["module"], "dubbogo user-info server");
        assert_eq!(found.params["service.filter"], "echo,token,accesslog");
        // Written again it is the same to the byte.
        let dialect = ListDialect::Dubbo(version);
        assert_eq!(dialect.label(), ("dubbo.io/label".to_owned(), label.to_owned()));
        let written = dialect.update(None, &[], std::slice::from_ref(found)).unwrap().unwrap();
        assert_eq!(written, encoded);
    }
}

#[test]
fn what_dubbo_go_is_told() {
    let place = "10.0.0.5:20000".parse().unwrap();
    let mut users = Registration::new("org.acme.Users", "dubbo", place);
    users.methods = vec!["Get".into(), "Put".into()];
    users.weight = 50;
    users.group = Some("eu west".into());
    let orders = Registration::new("org.acme.Orders$V2", "dubbo", place);
    for (version, url) in [
        (
            DubboGo::V1_4,
            "dubbo%3A%2F%2F10.0.0.5%3A20000%2Forg.acme.Users%3Fanyhost%3Dtrue%26category%3Dproviders%26group%3Deu%2Bwest%26interface%3Dorg.acme.Users%26methods%3DGet%252CPut%26registry.role%3D3%26side%3Dprovider%26side%3Dprovider%26version%3D%26weight%3D50",
        ),
        (
            DubboGo::V1_5,
            "dubbo%3A%2F%2F10.0.0.5%3A20000%2Forg.acme.Users%3Fanyhost%3Dtrue%26group%3Deu+west%26interface%3Dorg.acme.Users%26methods%3DGet%2CPut%26registry.role%3D3%26side%3Dprovider%26weight%3D50",
        ),
    ] {
        let dialect = ListDialect::Dubbo(version);
        let keys = |text: &str| -> Vec<String> {
            let items = list::read(text).unwrap();
            items.iter().map(|item| list::pair(item).unwrap().0.to_owned()).collect()
        };
        let text = dialect.update(None, &[], std::slice::from_ref(&users)).unwrap().unwrap();
        let folder = "/dubbo/org.acme.Users/providers".to_owned();
        assert_eq!(keys(&text), [folder.clone(), format!("{folder}/{url}")]);
        // Nothing is there twice, however often it is written.
        let both = [users.clone(), orders.clone()];
        let more = dialect.update(Some(&text), &[], &both).unwrap().unwrap();
        assert_eq!(keys(&more).len(), 4, "{:?}", keys(&more));
        let again = dialect.update(Some(&more), &[], &both).unwrap().unwrap();
        assert_eq!(keys(&again).len(), 4, "{:?}", keys(&again));
        assert_eq!(dialect.decode(&more).registrations.len(), 2);
        assert!(keys(&more)[2].starts_with("/dubbo/org.acme.Orders%24V2/providers"));
        // The last provider takes its folder along, and what others hold stays.
        let less = dialect.update(Some(&more), std::slice::from_ref(&orders), &[]).unwrap();
        assert_eq!(less.unwrap(), text);
        assert_eq!(dialect.update(Some(&text), std::slice::from_ref(&users), &[]).unwrap(), None);
        // What an old dubbo-go left behind twice leaves together.
        let mut items = list::read(&text).unwrap();
        items.extend(items.clone());
        let twice = list::write(&items);
        let gone = dialect.update(Some(&twice), std::slice::from_ref(&users), &[]).unwrap();
        assert_eq!(gone, None);
    }
    // The query of 1.5 is not escaped: what would read back as something else is refused.
    for value in ["a&b", "100%25", "a+b"] {
        let mut odd = orders.clone();
        odd.params.insert("note".into(), value.into());
        let one = std::slice::from_ref(&odd);
        assert!(ListDialect::Dubbo(DubboGo::V1_5).update(None, &[], one).is_err(), "{value}");
        let escaped = ListDialect::Dubbo(DubboGo::V1_4).update(None, &[], one).unwrap().unwrap();
        let read = ListDialect::Dubbo(DubboGo::V1_4).decode(&escaped);
        assert_eq!(read.registrations[0].params["note"], value);
    }
}

#[test]
fn the_other_dialects() {
    for (dialect, labels, annotation, expected) in [
        (
            Dialect::DubboJava,
            &[("app", "shop")][..],
            (
                "io.dubbo/metadata",
                r#"{"dubbo.endpoints":"[{\"port\":20880,\"protocol\":\"dubbo\"}]","dubbo.metadata.revision":"af"}"#,
            ),
            Ok("shop dubbo://10.0.0.5:20880 {\"dubbo.metadata.revision\": \"af\"}"),
        ),
        (
            Dialect::DubboJava,
            &[],
            (
                "io.dubbo/metadata",
                r#"{"dubbo.endpoints":"[{\"port\":20880,\"protocol\":\"dubbo\"}]"}"#,
            ),
            Err(Code::REGISTRATION_INVALID),
        ),
        (
            Dialect::DubboJava,
            &[("app", "shop")],
            (
                "io.dubbo/metadata",
                r#"{"dubbo.endpoints":"[{\"port\":70000,\"protocol\":\"dubbo\"}]"}"#,
            ),
            Err(Code::PORT_INVALID),
        ),
        (
            Dialect::Micro,
            &[],
            (
                "micro.mu/service-greeter",
                r#"{"name":"greeter","version":"1","metadata":null,"endpoints":[{"name":"Hello"}],"nodes":[{"id":"x","address":"10.0.0.5:80","metadata":{"protocol":"grpc"}}]}"#,
            ),
            Ok("greeter grpc://10.0.0.5:80 {}"),
        ),
        (Dialect::Micro, &[], ("micro.mu/service-x", "nonsense"), Err(Code::ANNOTATION_UNREADABLE)),
        (
            Dialect::Native,
            &[],
            (
                "registry.portolan.dev/main",
                r#"{"v":1,"inc":"a","start":"2026-01-01T00:00:00Z","services":[{"name":"users","protocol":"http","port":80,"tags":["x"]}]}"#,
            ),
            Ok("users http://10.0.0.5:80 {\"tags\": \"x\"}"),
        ),
        (
            Dialect::Native,
            &[],
            ("registry.portolan.dev/main", r#"{"v":9}"#),
            Err(Code::ANNOTATION_UNREADABLE),
        ),
    ] {
        let reading = read(std::slice::from_ref(&dialect), labels, &[annotation]);
        match expected {
            Ok(text) => {
                let [r] = &reading.registrations[..] else { panic!("{dialect} {reading:?}") };
                let shown = format!(
                    "{} {}://{} {:?}",
                    r.interface,
                    r.protocol,
                    r.socket_address(),
                    r.params
                );
                assert_eq!(shown, text, "{dialect}");
                assert_eq!(reading.reasons, [], "{dialect}");
            }
            Err(code) => {
                assert!(reading.registrations.is_empty(), "{dialect}");
                assert_eq!(reading.reasons[0].code, code, "{dialect}");
            }
        }
    }
}

/// Each kind of bad input that processes, people and clocks come up with: what is wrong costs
/// that instance alone, and says so by its code. Beside each stands a service that is fine.
#[test]
fn bad_input_has_a_code_and_costs_only_itself() {
    let fine = Registration::new("fine", "http", "10.0.0.5:1".parse().unwrap());
    let app = |items: &[serde_json::Value]| list::write(items);
    let item = |k: &str, v: &str| list::item(k.into(), v.into());
    let record = |services: &str| {
        format!(r#"{{"v":1,"start":"2026-01-01T00:00:10Z","services":[{services}]}}"#)
    };
    let reviews = r#"{"name":"reviews","protocol":"http","port":80}"#;
    let moved = r#"{"name":"reviews","protocol":"http","port":80,"address":"10.0.0.4"}"#;
    let huge = "A".repeat(300_000);
    let both = (record(reviews), record(reviews));
    type Case = (&'static str, Vec<(&'static str, String)>, usize, Code);
    let cases: [Case; 14] = [
        (
            "broken base64",
            vec![("app.io/annotation", "W3s*".into())],
            0,
            Code::ANNOTATION_UNREADABLE,
        ),
        (
            "cut off base64",
            vec![("app.io/annotation", "W3siayI".into())],
            0,
            Code::ANNOTATION_UNREADABLE,
        ),
        (
            "broken JSON",
            vec![("app.io/annotation", "W3siayI6".into())],
            0,
            Code::ANNOTATION_UNREADABLE,
        ),
        (
            "broken JSON of a record",
            vec![("registry.portolan.dev/a", "{\"v\":1".into())],
            0,
            Code::ANNOTATION_UNREADABLE,
        ),
        (
            "broken percent-encoding",
            vec![(
                "app.io/annotation",
                app(&[item("a%2", "http://10.0.0.5:80"), item("b", "http://10.0.0.5:80")]),
            )],
            1,
            Code::REGISTRATION_INVALID,
        ),
        ("oversize", vec![("app.io/annotation", huge.clone())], 0, Code::ANNOTATION_UNREADABLE),
        (
            "oversize record",
            vec![("registry.portolan.dev/a", huge)],
            0,
            Code::ANNOTATION_UNREADABLE,
        ),
        (
            "duplicate owners",
            vec![("registry.portolan.dev/a", both.0), ("registry.portolan.dev/b", both.1)],
            1,
            Code::DUPLICATE_ADDRESS,
        ),
        (
            "port 0",
            vec![(
                "app.io/annotation",
                app(&[item("a", "http://10.0.0.5:0"), item("b", "http://10.0.0.5:80")]),
            )],
            1,
            Code::PORT_INVALID,
        ),
        (
            "port 70000",
            vec![(
                "registry.portolan.dev/a",
                record(r#"{"name":"a","protocol":"http","port":70000}"#),
            )],
            0,
            Code::PORT_INVALID,
        ),
        // Written by a process whose clock stands before its container's: it counts as an earlier one.
        (
            "a clock set back",
            vec![("registry.portolan.dev/app", record(reviews))],
            1,
            Code::REGISTRATION_STALE,
        ),
        (
            "no time",
            vec![(
                "registry.portolan.dev/a",
                record(reviews).replace("2026-01-01T00:00:10Z", "10:00"),
            )],
            1,
            Code::REGISTRATION_INVALID,
        ),
        // The Pod of before had another address; the record came over with a template or a backup.
        (
            "a Pod that was replaced",
            vec![("registry.portolan.dev/a", record(moved))],
            1,
            Code::ADDRESS_FOREIGN,
        ),
        (
            "an override that means nothing",
            vec![("portolan.dev/override", "off".into())],
            0,
            Code::OVERRIDE_INVALID,
        ),
    ];
    for (what, annotations, usable, code) in cases {
        let other = Registration { path: "/x".into(), ..fine.clone() };
        let fine_text =
            r#"{"v":1,"services":[{"name":"fine","protocol":"http","port":1,"path":"/x"}]}"#;
        let mut all: Vec<(&str, &str)> =
            annotations.iter().map(|(key, text)| (*key, text.as_str())).collect();
        all.push(("registry.portolan.dev/zz", fine_text));
        let addresses: [IpAddr; 1] = ["10.0.0.5".parse().unwrap()];
        let containers = [ContainerView { name: "app", started: Some("2026-01-01T00:00:20Z") }];
        let mut reading = Dialect::read_all(
            &Dialect::all(),
            &PodView {
                labels: &map(&[("app.io/label", "app.io-value")]),
                annotations: &map(&all),
                addresses: &addresses,
                containers: &containers,
            },
        );
        // As every reader does.
        let foreign: Vec<_> =
            reading.registrations.iter().filter_map(|one| one.foreign_to(&addresses)).collect();
        foreign.into_iter().for_each(|reason| reading.refuse(reason));
        assert_eq!(reading.registrations.len(), usable + 1, "{what}: {reading:?}");
        assert!(reading.registrations.contains(&other), "{what}: {reading:?}");
        let codes: Vec<Code> = reading.reasons.iter().map(|reason| reason.code).collect();
        assert_eq!(codes, [code], "{what}: {:?}", reading.reasons);
    }
}

#[test]
fn an_operator_has_the_last_word() {
    let text = app::encode(&[
        Registration::new("a", "http", "10.0.0.5:1".parse().unwrap()),
        Registration::new("b=c", "http", "10.0.0.5:2".parse().unwrap()),
    ])
    .unwrap();
    for (said, a, b, reasons) in [
        ("", Standing::Up, Standing::Up, 0),
        ("disabled", Standing::SwitchedOff, Standing::SwitchedOff, 0),
        (" draining ", Standing::Draining, Standing::Draining, 0),
        ("a=disabled", Standing::SwitchedOff, Standing::Up, 0),
        ("a=draining, b=c=disabled", Standing::Draining, Standing::SwitchedOff, 0),
        ("up", Standing::Up, Standing::Up, 1),
        ("z=disabled,a=disabled", Standing::SwitchedOff, Standing::Up, 1),
    ] {
        let labels = [("app.io/label", "app.io-value")];
        let annotations = [("app.io/annotation", text.as_str()), ("portolan.dev/override", said)];
        let reading = read(&Dialect::all(), &labels, &annotations);
        let standings: Vec<Standing> =
            reading.registrations.iter().map(|one| one.standing).collect();
        assert_eq!((standings, reading.reasons.len()), (vec![a, b], reasons), "{said}");
    }
}

fn word() -> impl Strategy<Value = String> {
    "[^\\s\\p{C}]{1,12}"
}

prop_compose! {
    fn registration()(
        group in proptest::option::of("\\PC{1,8}"),
        interface in word(),
        version in proptest::option::of("\\PC{1,8}"),
        protocol in "[a-z][a-z0-9+.-]{0,7}",
        address in any::<IpAddr>(),
        port in 1u16..,
        path in proptest::option::of("/\\PC{0,12}"),
        methods in proptest::collection::vec("[^,\\s\\p{C}]{1,8}", 0..4),
        weight in any::<u32>(),
        zone in proptest::option::of("\\PC{1,8}"),
        params in proptest::collection::btree_map("x\\PC{0,8}", "\\PC{0,16}", 0..4),
    ) -> Registration {
        Registration {
            standing: Standing::Up,
            group, interface, version, protocol, address, port,
            path: path.unwrap_or_default(), methods, weight, zone, params,
        }
    }
}

proptest! {
    #[test]
    fn decode_undoes_encode(one in registration()) {
        let text = app::encode(std::slice::from_ref(&one)).unwrap();
        let reading = app::decode(&text);
        prop_assert_eq!(&reading.reasons, &[]);
        prop_assert_eq!(reading.registrations, vec![one]);
    }

    #[test]
    fn noise_never_panics(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        app::decode(&text);
        app::decode(&String::from_utf8_lossy(&bytes));
        one(&text, "http://10.0.0.5:1");
        one("a", &text);
        one("a", &format!("http://10.0.0.5:1{text}"));
        let encoded = list::write(&[list::item(format!("/dubbo/x/providers/{text}"), String::new())]);
        let labels = [("dubbo.io/label", "x"), ("app", "x")];
        for (key, value) in [
            ("dubbo.io/annotation", encoded.as_str()),
            ("io.dubbo/metadata", &text),
            ("micro.mu/service-x", &text),
            ("registry.portolan.dev/x", &text),
        ] {
            read(&Dialect::all(), &labels, &[(key, value)]);
        }
    }

    #[test]
    fn what_is_read_can_be_written(k in "[a-z/:%]{1,8}", v in "(http://10\\.0\\.0\\.5:1)?[a-z/?&=%+:,]{0,16}") {
        for registration in one(&k, &v).registrations {
            // Reading is more lenient than writing only where the text names no
            // place to put it back.
            if let Ok(text) = app::encode(std::slice::from_ref(&registration)) {
                prop_assert_eq!(app::decode(&text).registrations, vec![registration]);
            }
        }
    }
}
