//! The lines of the query log.

use super::*;
use crate::{
    config::LOG_COMMON,
    message::{Edns, Head, Query},
    name::parse,
};

fn request() -> Request {
    let question = Question {
        name: parse("Web.Demo.svc.cluster.local").unwrap(),
        kind: domain::base::iana::Rtype::A,
        class: domain::base::iana::Class::IN,
    };
    let head = Head { id: 7, ..Head::default() };
    let edns = Some(Edns::new(1232, true));
    let request = Request::new(question.clone(), "fd00::1".parse().unwrap());
    Request {
        query: Query { head, question, edns, ..request.query },
        client_port: Some(4711),
        size: 55,
        ..request
    }
}

#[test]
fn lines_of_a_format() {
    let reply = [0, 7, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    for (format, reply, expected) in [
        (
            LOG_COMMON,
            &reply[..],
            "[fd00::1]:4711 - 7 \"A IN web.demo.svc.cluster.local. udp 55 true 1232\" NOERROR \
             qr,aa,rd,ra 12 0.25s",
        ),
        ("{name} {unknown} { {type} } }", &reply, "web.demo.svc.cluster.local. {unknown} { A } }"),
        ("no reply: {rcode} {rsize} {>rflags}", &[], "no reply: - 0 "),
        ("", &reply, ""),
    ] {
        assert_eq!(line(&request(), reply, Duration::from_millis(250), format), expected);
    }
}

#[test]
fn classes_of_replies() {
    for (rcode, answers, expected) in [
        (0, 1, LogClass::Success),
        (0, 0, LogClass::Denial),
        (3, 0, LogClass::Denial),
        (3, 1, LogClass::Denial),
        (2, 0, LogClass::Error),
        (5, 0, LogClass::Error),
    ] {
        let reply = [0, 7, 0x85, rcode, 0, 1, 0, answers, 0, 0, 0, 0];
        assert_eq!(class_of(&reply), expected, "{rcode} {answers}");
    }
}
