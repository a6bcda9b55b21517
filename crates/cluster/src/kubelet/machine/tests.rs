//! The life of containers, table by table.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

const PACING: RestartPacing = RestartPacing { first_ms: 10_000, max_ms: 300_000 };

fn at(ms: u64) -> Moment {
    Moment { ms, unix_s: ms / 1000 }
}

fn machine(policy: &str, spec: Value) -> Machine {
    let mut object = json!({"spec": spec});
    object["spec"]["restartPolicy"] = policy.into();
    Machine::new(&Pod::of(Arc::new(object)), PACING)
}

fn plain(policy: &str) -> Machine {
    machine(policy, json!({"containers": [{"name": "a"}]}))
}

fn start(slot: Slot, run: u32) -> Action {
    Action::Start { slot, run }
}

fn run(machine: &mut Machine, slot: Slot, now: u64) {
    let number = machine.units[slot].run;
    machine.started(slot, number, format!("id{number}"), 7, at(now));
    machine.listens(slot, number, Listening::Fine, at(now));
}

fn exit(machine: &mut Machine, slot: Slot, code: i32, now: u64) {
    machine.exited(slot, machine.units[slot].run, code, String::new(), at(now));
}

#[test]
fn pauses_between_restarts() {
    // Each run ends as soon as it has started, but for the one that lasts.
    let mut machine = plain("Always");
    let mut now = 0;
    for (lasts, pause) in [
        (0, 0),
        (0, 10),
        (0, 20),
        (0, 40),
        (0, 80),
        (0, 160),
        (0, 300),
        (0, 300),
        (700, 0),
        (0, 10),
    ] {
        assert_eq!(machine.advance(at(now)).len(), 1, "starts at {now}");
        run(&mut machine, 0, now);
        assert_eq!(machine.phase(), "Running");
        now += lasts * 1000;
        exit(&mut machine, 0, 1, now);
        assert_eq!(machine.next_ms(), Some(now + pause * 1000).filter(|ms| *ms > 0));
        if pause > 0 {
            assert_eq!(machine.advance(at(now + pause * 1000 - 1)), []);
        }
        now += pause * 1000;
    }
    assert_eq!(machine.units[0].restarts, 9);
    assert_eq!(machine.phase(), "Running");
}

#[test]
fn what_becomes_of_an_exit() {
    for (policy, code, phase, again) in [
        ("Always", 0, "Running", true),
        ("Always", 1, "Running", true),
        ("OnFailure", 0, "Succeeded", false),
        ("OnFailure", 1, "Running", true),
        ("Never", 0, "Succeeded", false),
        ("Never", 1, "Failed", false),
    ] {
        let mut machine = plain(policy);
        assert_eq!(machine.phase(), "Pending");
        assert_eq!(machine.advance(at(1)), [start(0, 1)]);
        run(&mut machine, 0, 2);
        exit(&mut machine, 0, code, 3);
        assert_eq!(machine.phase(), phase, "{policy} {code}");
        let expected = if again { vec![start(0, 2)] } else { vec![] };
        assert_eq!(machine.advance(at(4)), expected, "{policy} {code}");
        assert_eq!(machine.is_over(), !again);
    }
}

#[test]
fn word_of_an_earlier_run_is_ignored() {
    let mut machine = plain("Always");
    machine.advance(at(1));
    run(&mut machine, 0, 1);
    exit(&mut machine, 0, 1, 2);
    machine.advance(at(2));
    machine.exited(0, 1, 1, String::new(), at(3));
    machine.started(0, 1, "old".into(), 7, at(3));
    assert!(machine.is_unsettled());
    machine.exited(9, 1, 1, String::new(), at(3));
}

#[test]
fn init_containers_come_first_and_in_order() {
    let mut machine = machine(
        "Always",
        json!({"initContainers": [{"name": "one"}, {"name": "side", "restartPolicy": "Always",
                "startupProbe": {"tcpSocket": {"port": 1}}}, {"name": "two"}],
            "containers": [{"name": "a"}, {"name": "b"}]}),
    );
    assert_eq!(machine.advance(at(1)), [start(0, 1)]);
    run(&mut machine, 0, 1);
    assert_eq!(machine.advance(at(2)), []);
    exit(&mut machine, 0, 3, 3);
    assert_eq!(machine.phase(), "Pending");
    assert_eq!(machine.advance(at(3)), [start(0, 2)], "a failed one again, at once");
    run(&mut machine, 0, 3);
    exit(&mut machine, 0, 0, 4);
    assert_eq!(machine.advance(at(4)), [start(1, 1)]);
    run(&mut machine, 1, 4);
    let probe = Action::Probe { slot: 1, run: 1, kind: ProbeKind::Startup };
    assert_eq!(machine.advance(at(5)), [probe], "the sidecar has not started yet");
    machine.probed(1, 1, ProbeKind::Startup, Ok(()), at(6));
    assert_eq!(machine.advance(at(6)), [start(2, 1)]);
    run(&mut machine, 2, 6);
    exit(&mut machine, 2, 0, 7);
    assert!(machine.is_initialised());
    assert_eq!(machine.advance(at(7)), [start(3, 1), start(4, 1)]);
    assert_eq!(machine.phase(), "Pending");
    run(&mut machine, 3, 8);
    run(&mut machine, 4, 8);
    assert_eq!(machine.phase(), "Running");
    assert!(machine.is_ready());
}

#[test]
fn a_failed_init_container_fails_the_pod_that_is_never_restarted() {
    let mut machine = machine(
        "Never",
        json!({"initContainers": [{"name": "one"}], "containers": [{"name": "a"}]}),
    );
    machine.advance(at(1));
    run(&mut machine, 0, 1);
    exit(&mut machine, 0, 1, 2);
    assert_eq!(machine.phase(), "Failed");
    assert_eq!(machine.advance(at(2)), []);
    assert!(machine.is_over());
}

#[test]
fn sidecars_go_when_the_work_is_done() {
    let mut machine = machine(
        "Never",
        json!({"initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}], "terminationGracePeriodSeconds": 5}),
    );
    machine.advance(at(1));
    run(&mut machine, 0, 1);
    assert_eq!(machine.advance(at(1)), [start(1, 1)]);
    run(&mut machine, 1, 1);
    exit(&mut machine, 1, 0, 2);
    assert_eq!(machine.phase(), "Running", "the sidecar still runs");
    let why = "has done its work".to_owned();
    assert_eq!(machine.advance(at(2)), [Action::Terminate { slot: 0, why }]);
    exit(&mut machine, 0, 143, 3);
    assert_eq!(machine.phase(), "Succeeded");
    assert!(machine.is_over());
}

#[test]
fn ends_in_two_steps() {
    let mut machine = plain("Always");
    machine.advance(at(1));
    run(&mut machine, 0, 1);
    machine.stop(5_000, at(10));
    let why = "is being deleted".to_owned();
    assert_eq!(machine.advance(at(10)), [Action::Terminate { slot: 0, why }]);
    assert_eq!(machine.advance(at(11)), []);
    assert_eq!(machine.next_ms(), Some(5_010));
    machine.stop(9_000, at(12));
    assert_eq!(machine.advance(at(5_010)), [Action::Kill { slot: 0 }]);
    assert_eq!(machine.advance(at(9_000)), []);
    assert!(!machine.is_over());
    exit(&mut machine, 0, 137, 5_020);
    assert!(machine.is_over());
    assert_eq!(machine.advance(at(9_999)), [], "no restart");
}

#[test]
fn a_start_under_way_is_ended_too() {
    let mut machine = plain("Always");
    machine.advance(at(1));
    machine.stop(0, at(2));
    assert_eq!(machine.advance(at(2)), []);
    assert!(!machine.is_over());
    run(&mut machine, 0, 3);
    let why = "is being deleted".to_owned();
    assert_eq!(
        machine.advance(at(3)),
        [Action::Terminate { slot: 0, why }, Action::Kill { slot: 0 }]
    );
}

#[test]
fn a_failed_liveness_probe_ends_in_a_restart() {
    let mut machine = machine(
        "Always",
        json!({"terminationGracePeriodSeconds": 3, "containers": [{"name": "a",
            "livenessProbe": {"tcpSocket": {"port": 1}, "failureThreshold": 2}}]}),
    );
    machine.advance(at(0));
    run(&mut machine, 0, 0);
    for (now, actions) in [(0, 1), (10_000, 1)] {
        assert_eq!(machine.advance(at(now)).len(), actions, "probe at {now}");
        machine.probed(0, 1, ProbeKind::Liveness, Err("no".into()), at(now));
    }
    let why = "failed liveness probe".to_owned();
    assert_eq!(machine.advance(at(10_001)), [Action::Terminate { slot: 0, why }]);
    assert_eq!(machine.advance(at(13_000)), [Action::Kill { slot: 0 }]);
    exit(&mut machine, 0, 137, 13_001);
    assert_eq!(machine.advance(at(13_001)), [start(0, 2)]);
    let reasons: Vec<_> = machine.take_notes().iter().map(|note| note.reason).collect();
    assert_eq!(reasons, ["Started", "Unhealthy", "Killing", "Unhealthy"]);
}

#[test]
fn readiness() {
    let web = json!({"name": "a", "ports": [{"containerPort": 80}]});
    let mut probed = web.clone();
    probed["readinessProbe"] = json!({"httpGet": {"port": 80}});
    let pod = "127.10.0.7".parse().unwrap();
    let elsewhere = Listening::Elsewhere("0.0.0.0:80".parse().unwrap());
    let not_yet = Listening::NotYet(vec![80]);
    let yes = Some(Ok(()));
    let no = || Some(Err("statuscode: 503".to_owned()));
    for (container, listening, answer, ready, code) in [
        (&web, Listening::Unknown, None, false, ""),
        (&web, Listening::Fine, None, true, ""),
        (&web, not_yet.clone(), None, false, "PTL0205"),
        (&web, elsewhere.clone(), None, false, "PTL0201"),
        (&probed, Listening::Fine, None, false, ""),
        (&probed, Listening::Fine, yes.clone(), true, ""),
        (&probed, Listening::Fine, no(), false, "PTL0202"),
        (&probed, not_yet, yes.clone(), true, ""),
        (&probed, elsewhere, yes, false, "PTL0201"),
    ] {
        let mut machine = machine("Always", json!({"containers": [container]}));
        machine.advance(at(1));
        machine.started(0, 1, "id".into(), 7, at(1));
        machine.listens(0, 1, listening.clone(), at(1));
        machine.advance(at(1));
        if let Some(answer) = answer.clone() {
            machine.probed(0, 1, ProbeKind::Readiness, answer, at(2));
        }
        assert_eq!(machine.is_ready(), ready, "{listening:?} {answer:?}");
        let problem = machine.explain(pod).map(|p| p.message[..7].to_owned());
        assert_eq!(problem.unwrap_or_default(), code, "{listening:?} {answer:?}");
    }
}

#[test]
fn crash_loops_and_start_errors_say_why() {
    let pod = "127.10.0.7".parse().unwrap();
    let mut machine = plain("Always");
    for now in [1, 2] {
        machine.advance(at(now));
        run(&mut machine, 0, now);
        exit(&mut machine, 0, 3, now);
    }
    assert_eq!(
        machine.explain(pod).unwrap().message,
        "PTL0203: container a ended with code 3, restarted 1 times, next try after a pause \
         of 10 s; fix: read its last words with kubectl logs --previous"
    );

    let mut machine = plain("Always");
    machine.advance(at(1));
    machine.cannot_start(0, 1, &Obstacle::Start("no such file".into()), at(1));
    assert_eq!(machine.explain(pod).unwrap().reason, "StartError");
    assert_eq!(machine.phase(), "Pending");
    assert_eq!(machine.next_ms(), Some(10_001));
    assert_eq!(machine.units[0].restarts, 0);

    let mut machine = plain("Never");
    machine.advance(at(1));
    machine.cannot_start(0, 1, &Obstacle::Config("configmap".into()), at(1));
    assert_eq!(machine.phase(), "Pending", "a missing ConfigMap may come");
    assert_eq!(machine.advance(at(2_001)), [start(0, 2)]);
    machine.cannot_start(0, 2, &Obstacle::Start("no such file".into()), at(2_001));
    assert_eq!(machine.phase(), "Failed");
}

#[test]
fn what_an_earlier_kubelet_left() {
    let lost = || Ended {
        code: EXIT_UNKNOWN,
        reason: "ContainerStatusUnknown",
        message: String::new(),
        id: "x".into(),
        started_unix_s: 1,
        finished_unix_s: 2,
    };
    let mut machine = plain("Always");
    machine.remember(0, 4, Some(lost()));
    assert_eq!(machine.advance(at(1)), [start(0, 1)]);
    assert_eq!(machine.units[0].restarts, 5);
    let mut machine = plain("Never");
    machine.remember(0, 0, Some(lost()));
    assert_eq!(machine.phase(), "Failed");
}
