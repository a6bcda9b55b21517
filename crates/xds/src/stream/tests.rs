//! The protocol as a script: what the client says, what it is told.

use portolan_envoy_proto::config::cluster::v3::Cluster;
use portolan_model::name;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    store::{Change, Store},
    view::{Dialect, Place, Shelf, View},
};

/// What all streams here see.
fn view() -> View {
    View { dialect: Dialect::Grpc, namespace: None, place: Place::default() }
}

fn next(stream: &mut Stream, store: &Store) -> Option<Response> {
    stream.next(&store.show(&view()), 0)
}

fn shelf(kind: Kind) -> Shelf {
    view().shelf(kind)
}

fn set(kind: Kind, text: &str, content: u8) -> Change {
    let body =
        Cluster { name: text.into(), alt_stat_name: content.to_string(), ..Cluster::default() };
    Change::set(shelf(kind), name(text), &body)
}

fn names(list: &[&str]) -> Vec<Name> {
    list.iter().map(|text| name(text)).collect()
}

fn only(kind: Kind, list: &[&str]) -> Request {
    Request { kind, nonce: None, error: None, names: Names::Only(names(list)) }
}

fn delta(kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> Request {
    let (subscribe, unsubscribe) = (names(subscribe), names(unsubscribe));
    let names = Names::Differently { subscribe, unsubscribe, known: BTreeMap::new() };
    Request { kind, nonce: None, error: None, names }
}

fn answering(response: &Response, request: Request) -> Request {
    Request { nonce: Some(response.nonce), ..request }
}

/// `Cluster +a +b -c`, or `nothing`.
fn text(response: Option<&Response>) -> String {
    let Some(response) = response else { return "nothing".to_owned() };
    let there = response.resources.iter().map(|own| format!(" +{}", own.name));
    let gone = response.removed.iter().map(|own| format!(" -{own}"));
    format!("{:?}{}", response.kind, there.chain(gone).collect::<String>())
}

/// A stream that has asked, and what it was told.
fn asked(variant: Variant, store: &Store, request: Request, expected: &str) -> (Stream, Response) {
    let mut stream = Stream::new(variant);
    stream.take(request).unwrap();
    let response = next(&mut stream, store);
    assert_eq!(text(response.as_ref()), expected);
    (stream, response.unwrap())
}

fn store(changes: &[(Kind, &str)]) -> Store {
    let mut store = Store::default();
    store.commit(changes.iter().map(|(kind, text)| set(*kind, text, 1)));
    store
}

const SOTW: Variant = Variant::StateOfTheWorld;
const DELTA: Variant = Variant::Delta;

#[test]
fn everything_named_ones_and_missing_ones() {
    use Kind::{Cluster, Endpoints, Listener, Routes};
    for kind in [Cluster, Listener] {
        let store = store(&[(kind, "a"), (kind, "b")]);
        for list in [&[][..], &["*"]] {
            asked(SOTW, &store, only(kind, list), &format!("{kind:?} +a +b"));
            asked(DELTA, &store, delta(kind, list, &[]), &format!("{kind:?} +a +b"));
        }
        // Nothing is an answer, too: the client would wait for it.
        asked(SOTW, &Store::default(), only(kind, &[]), &format!("{kind:?}"));
        asked(DELTA, &Store::default(), delta(kind, &[], &[]), &format!("{kind:?}"));
    }
    for kind in [Cluster, Endpoints, Listener, Routes] {
        let store = store(&[(kind, "a"), (kind, "b")]);
        asked(SOTW, &store, only(kind, &["a", "x"]), &format!("{kind:?} +a"));
        asked(DELTA, &store, delta(kind, &["a", "x"], &[]), &format!("{kind:?} +a -x"));
    }
    let mut stream = Stream::new(SOTW);
    stream.take(only(Endpoints, &[])).unwrap();
    assert_eq!(next(&mut stream, &store(&[(Endpoints, "a")])), None, "endpoints have no wildcard");
}

#[test]
fn one_response_at_a_time_and_then_the_newest() {
    for variant in [SOTW, DELTA] {
        let request = || match variant {
            SOTW => only(Kind::Endpoints, &["a", "b"]),
            DELTA => delta(Kind::Endpoints, &[], &[]),
        };
        let first = match variant {
            SOTW => request(),
            DELTA => delta(Kind::Endpoints, &["a", "b"], &[]),
        };
        let mut store = store(&[(Kind::Endpoints, "a"), (Kind::Endpoints, "b")]);
        let (mut stream, response) = asked(variant, &store, first, "Endpoints +a +b");
        for content in 2..5 {
            store.commit([set(Kind::Endpoints, "a", content)]);
            assert_eq!(next(&mut stream, &store), None);
        }
        assert_eq!(stream.acknowledged(), Some(0));
        stream.take(answering(&response, request())).unwrap();
        assert_eq!(stream.acknowledged(), Some(2));
        let response = next(&mut stream, &store).unwrap();
        assert_eq!(text(Some(&response)), "Endpoints +a");
        assert_eq!(&response.resources[0], store.show(&view()).get(Kind::Endpoints, "a").unwrap());
        stream.take(answering(&response, request())).unwrap();
        assert_eq!(next(&mut stream, &store), None);
        assert_eq!(stream.acknowledged(), Some(store.revision()));
    }
}

#[test]
fn a_refusal_is_kept_and_not_answered_with_the_same_again() {
    let mut store = store(&[(Kind::Cluster, "a")]);
    let (mut stream, response) = asked(SOTW, &store, only(Kind::Cluster, &[]), "Cluster +a");
    let refuse = Request { error: Some("no".into()), ..only(Kind::Cluster, &[]) };
    stream.take(answering(&response, refuse)).unwrap();
    assert_eq!(stream.refusal(Kind::Cluster), Some("no"));
    assert_eq!(next(&mut stream, &store), None);
    assert_eq!(stream.acknowledged(), Some(0));
    store.commit([set(Kind::Cluster, "a", 2)]);
    let response = next(&mut stream, &store).unwrap();
    stream.take(answering(&response, only(Kind::Cluster, &[]))).unwrap();
    assert_eq!((stream.refusal(Kind::Cluster), stream.acknowledged()), (None, Some(3)));
}

#[test]
fn a_wrong_nonce_answers_nothing() {
    let store = store(&[(Kind::Cluster, "a"), (Kind::Cluster, "b")]);
    let (mut stream, response) = asked(SOTW, &store, only(Kind::Cluster, &["a"]), "Cluster +a");
    let wrong = Request { nonce: Some(99), ..only(Kind::Cluster, &["a", "b"]) };
    stream.take(wrong).unwrap();
    assert_eq!(next(&mut stream, &store), None);
    stream.take(answering(&response, only(Kind::Cluster, &["a", "b"]))).unwrap();
    assert_eq!(text(next(&mut stream, &store).as_ref()), "Cluster +a +b");
}

#[test]
fn what_is_wanted_no_more_is_told_no_more() {
    let mut store = store(&[(Kind::Cluster, "a"), (Kind::Cluster, "b")]);
    let (mut stream, response) =
        asked(SOTW, &store, only(Kind::Cluster, &["a", "b"]), "Cluster +a +b");
    // Once names were given, none means none.
    stream.take(answering(&response, only(Kind::Cluster, &[]))).unwrap();
    store.commit([set(Kind::Cluster, "a", 2)]);
    assert_eq!(next(&mut stream, &store), None);
    let (mut stream, response) =
        asked(DELTA, &store, delta(Kind::Cluster, &["*", "a"], &[]), "Cluster +a +b");
    // Of all that are wanted it is one still, and the client hears of it.
    stream.take(answering(&response, delta(Kind::Cluster, &[], &["a"]))).unwrap();
    let response = next(&mut stream, &store).unwrap();
    assert_eq!(text(Some(&response)), "Cluster +a");
    stream.take(answering(&response, delta(Kind::Cluster, &[], &["*"]))).unwrap();
    store.commit([set(Kind::Cluster, "b", 2)]);
    assert_eq!(next(&mut stream, &store), None);
}

#[test]
fn to_ask_again_is_to_want_again() {
    let store = store(&[(Kind::Endpoints, "a")]);
    let (mut stream, response) =
        asked(DELTA, &store, delta(Kind::Endpoints, &["a"], &[]), "Endpoints +a");
    stream.take(answering(&response, delta(Kind::Endpoints, &["a"], &[]))).unwrap();
    assert_eq!(text(next(&mut stream, &store).as_ref()), "Endpoints +a");
}

#[test]
fn a_cluster_that_changes_makes_its_endpoints_due() {
    let mut store = store(&[(Kind::Cluster, "a"), (Kind::Endpoints, "a")]);
    let (mut stream, clusters) = asked(DELTA, &store, delta(Kind::Cluster, &[], &[]), "Cluster +a");
    stream.take(answering(&clusters, delta(Kind::Cluster, &[], &[]))).unwrap();
    stream.take(delta(Kind::Endpoints, &["a"], &[])).unwrap();
    let endpoints = next(&mut stream, &store).unwrap();
    stream.take(answering(&endpoints, delta(Kind::Endpoints, &[], &[]))).unwrap();
    store.commit([set(Kind::Cluster, "a", 2)]);
    assert_eq!(text(next(&mut stream, &store).as_ref()), "Cluster +a");
    assert_eq!(text(next(&mut stream, &store).as_ref()), "Endpoints +a");
}

#[test]
fn what_a_client_holds_from_before_is_not_sent_again() {
    let store = store(&[(Kind::Cluster, "a"), (Kind::Cluster, "b"), (Kind::Endpoints, "a")]);
    let version = |kind, text: &str| store.show(&view()).get(kind, text).unwrap().version;
    let with = |kind, subscribe: &[&str], known| Request {
        names: Names::Differently { subscribe: names(subscribe), unsubscribe: vec![], known },
        ..delta(kind, &[], &[])
    };
    let known = BTreeMap::from([(name("a"), version(Kind::Cluster, "a")), (name("gone"), 7)]);
    let (mut stream, _) =
        asked(DELTA, &store, with(Kind::Cluster, &[], known.clone()), "Cluster +b -gone");
    let held = |kind, text: &str| BTreeMap::from([(name(text), version(kind, text))]);
    stream.take(with(Kind::Endpoints, &["a"], held(Kind::Endpoints, "a"))).unwrap();
    assert_eq!(next(&mut stream, &store), None, "its cluster was not sent");
    // Endpoints of a cluster that was sent are sent all the same: it waits for them.
    let (mut stream, _) = asked(DELTA, &store, delta(Kind::Cluster, &[], &[]), "Cluster +a +b");
    stream.take(with(Kind::Endpoints, &["a"], held(Kind::Endpoints, "a"))).unwrap();
    assert_eq!(text(next(&mut stream, &store).as_ref()), "Endpoints +a");
}

#[test]
fn routes_are_sent_again_to_who_was_sent_a_listener() {
    let store = store(&[(Kind::Listener, "l"), (Kind::Routes, "80")]);
    let version = store.show(&view()).get(Kind::Routes, "80").unwrap().version;
    let known = Request {
        names: Names::Differently {
            subscribe: names(&["80"]),
            unsubscribe: vec![],
            known: [(name("80"), version)].into(),
        },
        ..delta(Kind::Routes, &[], &[])
    };
    let mut stream = Stream::new(DELTA);
    stream.take(known.clone()).unwrap();
    assert_eq!(next(&mut stream, &store), None);
    let (mut stream, _) = asked(DELTA, &store, delta(Kind::Listener, &[], &[]), "Listener +l");
    stream.take(known).unwrap();
    assert_eq!(text(next(&mut stream, &store).as_ref()), "Routes +80");
}

#[test]
fn what_is_gone_does_not_wait_for_ever_for_a_client_that_does_not_answer() {
    let mut store = store(&[(Kind::Cluster, "a"), (Kind::Routes, "80")]);
    let (mut stream, clusters) = asked(DELTA, &store, delta(Kind::Cluster, &[], &[]), "Cluster +a");
    stream.take(answering(&clusters, delta(Kind::Cluster, &[], &[]))).unwrap();
    stream.take(delta(Kind::Routes, &["80"], &[])).unwrap();
    assert_eq!(text(next(&mut stream, &store).as_ref()), "Routes +80", "never answered");
    assert_eq!(stream.due_at_ms(), None);
    store.commit([Change::remove(shelf(Kind::Cluster), name("a"))]);
    let at = |stream: &mut Stream, now_ms| {
        let response = stream.next(&store.show(&view()), now_ms);
        text(response.as_ref())
    };
    assert_eq!(at(&mut stream, 1_000), "nothing");
    let due = 1_000 + REMOVE_AFTER_MS;
    assert_eq!(stream.due_at_ms(), Some(due));
    assert_eq!(at(&mut stream, due - 1), "nothing");
    assert_eq!(at(&mut stream, due), "Cluster -a");
    assert_eq!(stream.due_at_ms(), None);
}

#[test]
fn clusters_go_once_nothing_leads_to_them() {
    for variant in [SOTW, DELTA] {
        let mut store = store(&[(Kind::Cluster, "a"), (Kind::Cluster, "b"), (Kind::Routes, "80")]);
        let ask = |kind, list: &[&str]| match variant {
            SOTW => only(kind, list),
            DELTA => delta(kind, list, &[]),
        };
        let again = |kind, list: &[&str]| match variant {
            SOTW => only(kind, list),
            DELTA => delta(kind, &[], &[]),
        };
        let (mut stream, clusters) =
            asked(variant, &store, ask(Kind::Cluster, &[]), "Cluster +a +b");
        stream.take(answering(&clusters, again(Kind::Cluster, &[]))).unwrap();
        stream.take(ask(Kind::Routes, &["80"])).unwrap();
        let routes = next(&mut stream, &store).unwrap();
        stream.take(answering(&routes, again(Kind::Routes, &["80"]))).unwrap();
        let gone = Change::remove(shelf(Kind::Cluster), name("b"));
        store.commit([gone, set(Kind::Routes, "80", 2)]);
        let routes = next(&mut stream, &store).unwrap();
        assert_eq!(text(Some(&routes)), "Routes +80");
        assert_eq!(next(&mut stream, &store), None, "the client may still use the old routes");
        stream.take(answering(&routes, again(Kind::Routes, &["80"]))).unwrap();
        let expected = if variant == SOTW { "Cluster +a" } else { "Cluster -b" };
        assert_eq!(text(next(&mut stream, &store).as_ref()), expected);
    }
}

#[test]
fn a_long_answer_comes_in_pieces() {
    let mut store = Store::default();
    let big = |text: &str| {
        let body =
            Cluster { name: text.into(), alt_stat_name: "x".repeat(700_000), ..Cluster::default() };
        Change::set(shelf(Kind::Cluster), name(text), &body)
    };
    store.commit(["a", "b", "c"].map(big));
    let (mut stream, response) =
        asked(DELTA, &store, delta(Kind::Cluster, &[], &[]), "Cluster +a +b");
    stream.take(answering(&response, delta(Kind::Cluster, &[], &[]))).unwrap();
    assert_eq!(text(next(&mut stream, &store).as_ref()), "Cluster +c");
}

#[test]
fn a_stream_has_room_for_so_many_names() {
    let many: Vec<Name> = (0..=NAMES_MAX).map(|number| name(&number.to_string())).collect();
    let request = Request { names: Names::Only(many), ..only(Kind::Endpoints, &[]) };
    assert_eq!(Stream::new(SOTW).take(request), Err(TooManyNames));
}

/// What may happen, with few names so that things meet.
#[derive(Clone, Debug)]
enum Step {
    Set(Kind, u8, u8),
    Remove(Kind, u8),
    Want(Kind, u8),
    Forget(Kind, u8),
    Told,
    Answer(Kind, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || proptest::sample::select(Kind::ALL.to_vec());
    prop_oneof![
        (kind(), 0..3_u8, 0..3_u8).prop_map(|(kind, text, content)| Step::Set(kind, text, content)),
        (kind(), 0..3_u8).prop_map(|(kind, text)| Step::Remove(kind, text)),
        (kind(), 0..3_u8).prop_map(|(kind, text)| Step::Want(kind, text)),
        (kind(), 0..3_u8).prop_map(|(kind, text)| Step::Forget(kind, text)),
        Just(Step::Told),
        (kind(), any::<bool>()).prop_map(|(kind, fine)| Step::Answer(kind, fine)),
    ]
}

/// A client as simple as can be: it wants names, holds what it was told, and answers.
#[derive(Default)]
struct Client {
    wanted: BTreeMap<Kind, BTreeSet<Name>>,
    holds: BTreeMap<Kind, BTreeMap<Name, u64>>,
    unanswered: BTreeMap<Kind, u64>,
    last: BTreeMap<Kind, u64>,
}

impl Client {
    fn hear(&mut self, variant: Variant, response: Response) {
        let kind = response.kind;
        assert_eq!(self.unanswered.insert(kind, response.nonce), None, "two without an answer");
        self.last.insert(kind, response.nonce);
        let holds = self.holds.entry(kind).or_default();
        if variant == SOTW && is_complete(kind) {
            holds.clear();
        }
        holds.extend(response.resources.iter().map(|own| (own.name.clone(), own.version)));
        holds.retain(|own, _| !response.removed.contains(own));
    }

    fn say(&self, variant: Variant, kind: Kind, change: Option<(Name, bool)>) -> Names {
        match variant {
            SOTW => Names::Only(self.wanted.get(&kind).into_iter().flatten().cloned().collect()),
            DELTA => {
                let (mut subscribe, mut unsubscribe) = (vec![], vec![]);
                match change {
                    Some((text, true)) => subscribe.push(text),
                    Some((text, false)) => unsubscribe.push(text),
                    None => {}
                }
                Names::Differently { subscribe, unsubscribe, known: BTreeMap::new() }
            }
        }
    }

    fn answer(&mut self, variant: Variant, kind: Kind, error: Option<String>) -> Option<Request> {
        let nonce = Some(self.unanswered.remove(&kind)?);
        Some(Request { kind, nonce, error, names: self.say(variant, kind, None) })
    }

    fn change(&mut self, variant: Variant, kind: Kind, text: Name, want: bool) -> Option<Request> {
        let wanted = self.wanted.entry(kind).or_default();
        let changed = if want { wanted.insert(text.clone()) } else { wanted.remove(&text) };
        if !want {
            self.holds.entry(kind).or_default().remove(&text);
        }
        let names = self.say(variant, kind, Some((text, want)));
        let nonce = self.last.get(&kind).copied().filter(|_| variant == SOTW);
        // To speak with the nonce of a response is to answer it.
        if changed && nonce.is_some() {
            self.unanswered.remove(&kind);
        }
        changed.then_some(Request { kind, nonce, error: None, names })
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_client_ends_with_what_it_wants(
        steps in vec(step(), 0..60),
        is_delta in any::<bool>(),
        log_max in 1..8_usize,
    ) {
        let variant = if is_delta { DELTA } else { SOTW };
        let mut store = Store::remembering(log_max);
        let (mut stream, mut client) = (Stream::new(variant), Client::default());
        for step in steps {
            let request = match step {
                Step::Set(kind, text, content) => {
                    store.commit([set(kind, &text.to_string(), content)]);
                    None
                }
                Step::Remove(kind, text) => {
                    store.commit([Change::remove(shelf(kind), name(&text.to_string()))]);
                    None
                }
                Step::Want(kind, text) => client.change(variant, kind, name(&text.to_string()), true),
                Step::Forget(kind, text) => client.change(variant, kind, name(&text.to_string()), false),
                Step::Told => {
                    if let Some(response) = next(&mut stream, &store) {
                        client.hear(variant, response);
                    }
                    None
                }
                Step::Answer(kind, fine) => {
                    client.answer(variant, kind, (!fine).then(|| "no".to_owned()))
                }
            };
            if let Some(request) = request {
                stream.take(request).unwrap();
            }
        }
        // Then nothing happens any more, and everybody has the last word.
        for _ in 0..100 {
            for kind in Kind::ALL {
                if let Some(request) = client.answer(variant, kind, None) {
                    stream.take(request).unwrap();
                }
            }
            match next(&mut stream, &store) {
                Some(response) => client.hear(variant, response),
                None => break,
            }
        }
        prop_assert!(next(&mut stream, &store).is_none(), "it never comes to rest");
        for (kind, wanted) in &client.wanted {
            let held = client.holds.get(kind).cloned().unwrap_or_default();
            for text in wanted {
                let now = store.show(&view()).get(*kind, text).map(|own| own.version);
                // State of the world cannot say that endpoints or routes are gone.
                if now.is_some() || variant == DELTA || is_complete(*kind) {
                    prop_assert_eq!(held.get(text).copied(), now, "{:?} {}", kind, text);
                }
            }
        }
    }
}
