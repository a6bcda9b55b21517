//! Rules on names and on records, by cases of CoreDNS' own documentation.

use domain::base::iana::Rtype;

use super::*;
use crate::{
    chain::{Body, record_text},
    config::{RecordType, ResultCode},
    corefile::{Disk, read},
    message::Question,
    name::line,
};

fn stage(lines: &str) -> Rewrite {
    let text = format!(". {{\n{lines}\n}}\n");
    let translated = read(&text, std::path::Path::new("Corefile"), &Disk).unwrap();
    Rewrite(translated.config.servers[0].rewrite.clone())
}

fn request(name: &str, kind: Rtype) -> Request {
    let question =
        Question { name: parse(name).unwrap(), kind, class: domain::base::iana::Class::IN };
    Request::new(question, [127, 0, 0, 1].into())
}

fn names() -> Names {
    let snapshot = portolan_testkit::World::new().snapshot();
    Names::new(std::sync::Arc::default(), snapshot)
}

/// What is asked instead.
fn asked(lines: &str, name: &str, kind: Rtype) -> String {
    let mut request = request(name, kind);
    match stage(lines).enter(&mut request, &names()) {
        Step::Next(_) => {}
        Step::Refuse(_) => return "SERVFAIL".to_owned(),
        _ => panic!("rewrite neither answers nor asks"),
    }
    format!("{} {}", text(&request.question.name), request.question.kind)
}

#[test]
fn questions_are_rewritten() {
    for (lines, name, expected) in [
        ("rewrite name a.test b.test", "a.test", "b.test. A"),
        ("rewrite name a.test b.test", "A.Test", "b.test. A"),
        ("rewrite name a.test b.test", "x.a.test", "x.a.test. A"),
        ("rewrite name prefix foo bar", "foo.test", "bar.test. A"),
        ("rewrite name prefix foo. bar.", "foo.test", "bar.test. A"),
        ("rewrite name prefix foo bar", "food.test", "food.test. A"),
        ("rewrite name suffix .a.test .b.test", "x.y.a.test", "x.y.b.test. A"),
        ("rewrite name substring .a. .b.", "x.a.y.a.test", "x.b.y.b.test. A"),
        (r"rewrite name regex (.*)-(.*)\.a\.test {2}.{1}.b.test", "x-y.a.test", "y.x.b.test. A"),
        (r"rewrite name regex ^x\.a {0}{0}", "x.a.test", "x.ax.a. A"),
        ("rewrite name regex ^x {0}..y", "x.test", "SERVFAIL"),
        ("rewrite type A AAAA", "a.test", "a.test. AAAA"),
        ("rewrite type MX AAAA", "a.test", "a.test. A"),
        ("rewrite name a.test b.test\nrewrite name b.test c.test", "a.test", "b.test. A"),
        ("rewrite continue name a.test b.test\nrewrite name b.test c.test", "a.test", "c.test. A"),
        ("rewrite ttl a.test 30\nrewrite name a.test b.test", "a.test", "a.test. A"),
        ("rewrite continue ttl a.test 30\nrewrite name a.test b.test", "a.test", "b.test. A"),
    ] {
        assert_eq!(asked(lines, name, Rtype::A), expected, "{lines} for {name}");
    }
}

/// The answer of the stages behind, and what the client gets of it.
fn answered(lines: &str, name: &str, records: &[&str], rcode: u16) -> String {
    let stage = stage(lines);
    let mut request = request(name, Rtype::A);
    stage.enter(&mut request, &names());
    let records = records.iter().map(|text| record_text::read(text).unwrap()).collect();
    let mut response = Response { rcode, ..Response::records("test", records) };
    stage.leave(&request, &mut response);
    let Body::Records { answer, .. } = &response.body else { panic!() };
    let lines: Vec<String> = answer
        .iter()
        .map(|record| line(record).split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    format!("{} {}", response.rcode, lines.join(" | "))
}

#[test]
fn answers_are_led_back() {
    let b = "b.test. 60 IN A 10.0.0.1";
    for (lines, name, records, expected) in [
        ("rewrite name a.test b.test", "a.test", &[b][..], "0 a.test. 60 IN A 10.0.0.1"),
        (
            "rewrite name a.test b.test",
            "a.test",
            &["b.test. 60 IN CNAME x.b.test.", "x.b.test. 5 IN A 10.0.0.1"],
            "0 a.test. 60 IN CNAME x.a.test. | x.a.test. 5 IN A 10.0.0.1",
        ),
        (
            "rewrite name suffix .a.test .b.test",
            "x.a.test",
            &["x.b.test. 60 IN A 10.0.0.1"],
            "0 x.b.test. 60 IN A 10.0.0.1",
        ),
        (
            "rewrite name suffix .a.test .b.test answer auto",
            "x.a.test",
            &["x.b.test. 60 IN SRV 0 1 80 y.b.test.", "other. 60 IN A 10.0.0.1"],
            "0 x.a.test. 60 IN SRV 0 1 80 y.a.test. | other. 60 IN A 10.0.0.1",
        ),
        (
            r"rewrite name regex (.*)\.a\.test {1}.b.test answer auto",
            "x.a.test",
            &["x.b.test. 60 IN A 10.0.0.1"],
            "0 x.a.test. 60 IN A 10.0.0.1",
        ),
        (
            r"rewrite name regex (.*)\.a\.test {1}.b.test answer name (.*)\.b\.test {1}.a.test",
            "x.a.test",
            &["x.b.test. 60 IN CNAME y.b.test."],
            "0 x.a.test. 60 IN CNAME y.b.test.",
        ),
        (
            r"rewrite stop {
 name regex (.*)\.a\.test {1}.b.test
 answer name (.*)\.b\.test {1}.a.test
 answer value (.*)\.b\.test {1}.a.test
}",
            "x.a.test",
            &["x.b.test. 60 IN CNAME y.b.test."],
            "0 x.a.test. 60 IN CNAME y.a.test.",
        ),
        ("rewrite ttl b.test 5", "b.test", &[b], "0 b.test. 5 IN A 10.0.0.1"),
        ("rewrite ttl b.test 90-", "b.test", &[b], "0 b.test. 90 IN A 10.0.0.1"),
        ("rewrite ttl b.test -30", "b.test", &[b], "0 b.test. 30 IN A 10.0.0.1"),
        ("rewrite ttl suffix .test 10-100", "b.test", &[b], "0 b.test. 60 IN A 10.0.0.1"),
        ("rewrite rcode b.test NOERROR NXDOMAIN", "b.test", &[b], "3 b.test. 60 IN A 10.0.0.1"),
        ("rewrite rcode b.test SERVFAIL NXDOMAIN", "b.test", &[], "0 "),
    ] {
        assert_eq!(answered(lines, name, records, 0), expected, "{lines} for {name}");
    }
    let lines = "rewrite rcode regex .* SERVFAIL NXDOMAIN";
    assert_eq!(answered(lines, "b.test", &[], 2), "3 ");
}

#[test]
fn types_and_codes_are_compared() {
    let rule = RewriteRule::Type { from: RecordType(Rtype::A), to: RecordType(Rtype::AAAA) };
    assert!(check(&RewriteConfig { goes_on: false, rule }).is_ok());
    let matches = NameMatch::new(MatchKind::Regex, "a").unwrap();
    let rule = RewriteRule::Rcode { matches, from: ResultCode(2), to: ResultCode(3) };
    assert!(check(&RewriteConfig { goes_on: false, rule }).is_ok());
}
