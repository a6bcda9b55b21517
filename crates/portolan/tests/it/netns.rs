//! Pods with namespaces of their own, in real ones. Needs root or user
//! namespaces: as root a skip would be a failure, so nothing is skipped then.

use std::process::{Command, Stdio};

use crate::harness::{self, Up, eventually, expect, is_alive};

/// Everything that the tests' Pods share.
const OBJECTS: &str = r##"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red, run.sh: "#!/bin/sh\necho from-script\n"}
binaryData: {dot: AAE=}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
data: {word: c2VzYW1l}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: scratch, emptyDir: {}}]
  containers:
    - name: main
      image: portolan.dev/process
      command: [python3, -u, -m, http.server, "8080", --directory, /srv/www/shared]
      ports: [{containerPort: 8080}]
      readinessProbe: {httpGet: {port: 8080, path: /hello}, periodSeconds: 1}
      volumeMounts: [{name: scratch, mountPath: /srv/www/shared}]
    - name: sidecar
      image: portolan.dev/process
      command: [sh, -c, "echo hello > /data/hello; exec sleep 1000"]
      volumeMounts: [{name: scratch, mountPath: /data}]
      readinessProbe:
        periodSeconds: 1
        exec:
          command:
            - python3
            - -c
            - |
              import urllib.request as u
              assert u.urlopen("http://127.0.0.1:8080/hello").read() == b"hello\n"
---
apiVersion: v1
kind: Pod
metadata: {name: hollow, labels: {app: hollow}}
spec:
  containers: [{name: main, image: nginx, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: hollow}
spec:
  selector: {app: hollow}
  ports: [{port: 80}]
"##;

/// The flags that put a Portolan on a network of its own. The ranges may be the
/// usual ones: each has a network to itself.
fn flags() -> Vec<String> {
    ["up", "--pod-network=netns", "--api-listen=127.0.0.1:0", "--dns-listen=127.0.0.1:0"]
        .into_iter()
        .chain(["--http-listen=127.0.0.1:0", "--xds-listen=127.0.0.1:0", "-o=json"])
        .map(str::to_owned)
        .collect()
}

/// Whether this machine lets us; says why not.
pub(crate) fn possible() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "--net", "true"]);
    let made = probe.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !made {
        eprintln!("NOT RUN: no root, and users may not make user namespaces here");
    }
    made
}

pub(crate) fn up() -> Up {
    harness::up_with(tempfile::tempdir().unwrap(), &flags(), &["--ephemeral"])
}

fn pod(name: &str, spec: &str, script: &str) -> String {
    let script: String = script.lines().map(|line| format!("          {line}\n")).collect();
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
{spec}
  containers:
    - name: main
      image: portolan.dev/process
      command: [sh, -c]
      args:
        - |
{script}"
    )
}

/// Runs a script as a Pod to its end; what it printed.
pub(crate) fn ran(up: &Up, name: &str, spec: &str, mounts: &str, script: &str) -> String {
    up.apply(&(pod(name, spec, script) + mounts));
    let phase = eventually("the end of the script", || {
        let phase = up.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]);
        if phase == "Succeeded" || phase == "Failed" { Ok(phase) } else { Err(phase) }
    });
    let log = up.kubectl(&["logs", name]);
    assert_eq!(phase, "Succeeded", "{name}: {log}");
    log
}

fn address_of(up: &Up, pod: &str) -> String {
    up.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

fn ready(up: &Up, pod: &str) {
    eventually(pod, || {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        expect(up.kubectl(&["get", "pod", pod, "-o", path]).as_str(), "True")
    });
}

#[test]
fn pods_reach_each_other_and_the_api() {
    if !possible() {
        return;
    }
    let up = up();
    up.apply(OBJECTS);
    // Ready: its sidecar has asked it at localhost, over a file that they share.
    ready(&up, "web");
    ready(&up, "hollow");
    let vip = up.cluster_ip("default", "web");
    assert!(vip.starts_with("10.96."), "{vip}");
    let web = address_of(&up, "web");
    assert!(web.starts_with("10.244."), "{web}");

    let log = ran(
        &up,
        "client",
        "",
        "",
        &format!(
            r#"set -e
grep -v '^#' /etc/resolv.conf
hostname
getent hosts web | tr -s ' '
getent ahostsv4 web.default.svc.cluster.local | head -1
get() {{ python3 -c "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode().strip())" $1; }}
get http://web/hello
get http://{vip}/hello
get http://{web}:8080/hello
get http://hollow/ | grep -q hollow && echo hollow answers
! get http://127.0.0.1:8080/hello 2>/dev/null && echo nobody at my localhost
ip -brief address show eth0 | grep -o '10[.]244[.][0-9]*[.][0-9]*'
echo $POD_IP"#
        ),
    );
    let lines: Vec<&str> = log.lines().collect();
    let own = lines.last().unwrap();
    assert!(own.starts_with("10.244."), "{log}");
    assert_eq!(lines[lines.len() - 2], *own, "{log}");
    for expected in [
        "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n\
         options ndots:5\nclient\n",
        &format!("{vip} web.default.svc.cluster.local\n"),
        "\nhello\nhello\nhello\nhollow answers\nnobody at my localhost\n",
    ] {
        assert!(log.contains(expected), "{expected:?} is not in:\n{log}");
    }

    // As client-go's rest.InClusterConfig goes about it.
    let log = ran(
        &up,
        "in-cluster",
        "",
        "",
        r#"exec python3 - <<'END'
import json, os, ssl, urllib.request as u
at = "/var/run/secrets/kubernetes.io/serviceaccount/"
read = lambda name: open(at + name).read()
api = "https://%s:%s" % (os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"])
def ask(url):
    request = u.Request(url, headers={"Authorization": "Bearer " + read("token")})
    with u.urlopen(request, context=ssl.create_default_context(cafile=at + "ca.crt")) as answer:
        return json.load(answer)
pods = ask("%s/api/v1/namespaces/%s/pods" % (api, read("namespace")))
print(api, sorted(pod["metadata"]["name"] for pod in pods["items"]))
print(ask("https://kubernetes.default.svc/version")["major"])
END"#,
    );
    assert_eq!(log, "https://10.96.0.1:443 ['client', 'hollow', 'in-cluster', 'web']\n1\n");

    // client-go itself, and kube-rs: neither finds a kubeconfig. The token may
    // read all and register its own Pod only, which shows whose it is.
    let log = ran(
        &up,
        "clients",
        "",
        "",
        r#"set -e
export HOME=/nowhere
kubectl get pods web hollow -o name
! $PORTOLAN_BIN register x --address 127.0.0.1:80 2>&1"#,
    );
    assert!(log.starts_with("pod/web\npod/hollow\n"), "{log}");
    assert!(log.contains("system:serviceaccount:default:default"), "{log}");
}

#[test]
fn the_demo_without_root() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(harness::binary());
    if rustix::process::geteuid().is_root() {
        // A user who can read neither this build's folder nor write into ours.
        let copy = folder.path().join("portolan");
        std::fs::copy(harness::binary(), &copy).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command = Command::new("setpriv");
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(copy);
    }
    let up = harness::up_by(command, folder, &flags(), &["--ephemeral", "--demo"]);
    let address = up.cluster_ip("demo", "productpage");
    let pid = up.pid().to_string();
    eventually("the page", || {
        let mut command = Command::new("nsenter");
        command.args(["-U", "--preserve-credentials", "-n", "-t", &pid, "curl", "-sS"]);
        command.args(["--max-time", "10", &format!("http://{address}:9080/productpage")]);
        let page = harness::run(command, None);
        let whole = page.fine && page.out.contains("\"details\":{\"service\":\"details\"");
        if whole && page.out.contains("\"reviews\":{\"service\"") {
            Ok(())
        } else {
            Err(format!("{page:?}"))
        }
    });
}

/// The user and the group that own nothing (Debian's `nobody`).
const NOBODY: u32 = 65_534;

#[test]
fn volumes() {
    if !possible() {
        return;
    }
    let up = up();
    let shared = up.folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("from-machine"), "m").unwrap();
    up.apply(OBJECTS);
    let spec = format!(
        "  volumes:
    - {{name: settings, configMap: {{name: settings, defaultMode: 0755}}}}
    - {{name: keys, secret: {{secretName: keys, defaultMode: 0400}}}}
    - {{name: host, hostPath: {{path: {shared}, type: Directory}}}}
    - {{name: scratch, emptyDir: {{}}}}
    - name: all
      projected:
        sources:
          - downwardAPI: {{items: [{{path: who, fieldRef: {{fieldPath: metadata.name}}}}]}}
          - configMap: {{name: settings, items: [{{key: colour, path: deep/colour}}]}}
          - serviceAccountToken: {{path: token, audience: vault}}
",
        shared = shared.display()
    );
    let mounts = "      volumeMounts:
        - {name: settings, mountPath: /config}
        - {name: settings, mountPath: /etc/one-file, subPath: colour}
        - {name: keys, mountPath: /usr/local/keys}
        - {name: host, mountPath: /host}
        - {name: scratch, mountPath: /var/cache/deep/scratch}
        - {name: all, mountPath: /all, readOnly: true}
";
    let log = ran(
        &up,
        "reader",
        &spec,
        mounts,
        r#"set -e
/config/run.sh
cat /etc/one-file /config/colour /usr/local/keys/word /all/who /all/deep/colour /host/from-machine
echo
stat -L -c %a /usr/local/keys/word
test $(cut -d. -f2 /all/token | tr _- /+ | base64 -d 2>/dev/null | grep -c vault) = 1
for file in /config/x /all/x; do ! touch $file 2>/dev/null; done
echo c > /host/from-container
echo s > /var/cache/deep/scratch/file
mkdir /made-here && echo fine"#,
    );
    assert_eq!(log, "from-script\nredredsesamereaderredm\n400\nfine\n");
    let written = std::fs::read_to_string(shared.join("from-container")).unwrap();
    assert_eq!(written, "c\n");
    for gone in ["/made-here", "/config/run.sh", "/etc/one-file", "/var/cache/deep/scratch"] {
        assert!(!std::path::Path::new(gone).exists(), "{gone} is on the machine");
    }

    // What is missing is said, and waited for.
    let spec = "  volumes: [{name: late, configMap: {name: late}}]";
    let mounts = "      volumeMounts: [{name: late, mountPath: /late}]\n";
    up.apply(&(pod("waiter", spec, "cat /late/key") + mounts));
    eventually("the reason", || {
        let path = "jsonpath={.status.containerStatuses[0].state.waiting}";
        let waiting = up.kubectl(&["get", "pod", "waiter", "-o", path]);
        let told = waiting.contains("configmap \\\"late\\\" not found");
        if told { Ok(()) } else { Err(waiting) }
    });
    up.kubectl(&["create", "configmap", "late", "--from-literal=key=at-last"]);
    eventually("the late one", || {
        let ran = up.try_kubectl(&["logs", "waiter"]);
        expect(ran.out.as_str(), "at-last")
    });
}

#[test]
fn nothing_stays() {
    if !possible() {
        return;
    }
    let up = up();
    up.apply(OBJECTS);
    ready(&up, "web");
    // As the node's network has them.
    let pid = up.pid().to_string();
    let mut inside = Command::new("nsenter");
    inside.args(["-n", "-t", &pid, "ip", "-brief", "link"]);
    let inside = harness::run(inside, None).out;
    assert!(inside.contains("portolan0") && inside.contains("pod0@"), "{inside}");
    assert!(links().is_empty(), "something of the Pods' network is on the machine's");
    let family = descendants(up.pid());
    assert!(family.len() > 4, "holders, shims and processes: {family:?}");
    let folder = up.sigkill();
    eventually("the end of all processes", || {
        let left: Vec<u32> = family.iter().copied().filter(|pid| is_alive(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} of {family:?}")) }
    });
    assert!(links().is_empty());
    // Another one finds its folder as a crash left it, and goes in peace.
    let up = harness::up_with(folder, &flags(), &["--ephemeral"]);
    up.apply(OBJECTS);
    ready(&up, "web");
    let family = descendants(up.pid());
    let (code, folder) = up.sigterm();
    assert_eq!(code, Some(0));
    eventually("the end of all processes", || {
        expect(family.iter().copied().filter(|pid| is_alive(*pid)).count(), 0)
    });
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.path().to_str().unwrap()));
}

#[test]
fn a_cluster_alone_serves_its_pods() {
    if !possible() {
        return;
    }
    let mut flags = flags();
    flags.push("--without=proxy".to_owned());
    let up = harness::up_with(tempfile::tempdir().unwrap(), &flags, &["--ephemeral"]);
    let log = ran(
        &up,
        "asks",
        "",
        "",
        r#"set -e
getent hosts kubernetes.default.svc
at=/var/run/secrets/kubernetes.io/serviceaccount
curl -sS --fail --cacert $at/ca.crt -H "Authorization: Bearer $(cat $at/token)" https://kubernetes.default.svc/readyz"#,
    );
    assert!(log.starts_with("10.96.0.1 ") && log.ends_with("ok"), "{log}");
}

/// Links of the machine that are named as ours are.
fn links() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("pod") || name.starts_with("portolan")).collect()
}

/// The processes beneath one, by the parents that /proc tells.
fn descendants(root: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let all: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(all.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        at += 1;
    }
    found.split_off(1)
}
