//! Processes as Pods: where they listen, how they fail, what they may do.

use crate::harness::{eventually, expect, python_deployment, service, up};

/// A server on an address of our choice.
fn server(address: &str) -> String {
    format!(
        "import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (os.environ['POD_NAME'] + '\\n').encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): print('called', flush=True)
print('listening', flush=True)
http.server.HTTPServer(({address}, 9000), H).serve_forever()"
    )
}

#[test]
fn one_that_listens_elsewhere_is_not_ready_until_it_is_mended() {
    let up = up(&[]);
    up.apply(&python_deployment("web", 1, 9000, &server("'127.0.0.1'")));
    up.apply(&service("web", 9000));
    eventually("the reason", || {
        let ran = up.try_portolan(&["why", "svc/web"]);
        if ran.out.contains("PTL0201") && ran.out.contains("POD_IP") {
            Ok(())
        } else {
            Err(format!("{ran:?}"))
        }
    });
    let ready = up.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[0].status.conditions[?(@.type=='Ready')].status}",
    ]);
    assert_eq!(ready, "False");

    // The fix, word for word: listen on the address in POD_IP.
    up.apply(&python_deployment("web", 1, 9000, &server("os.environ['POD_IP']")));
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    eventually("nothing to explain", || {
        let ran = up.try_portolan(&["why", "svc/web"]);
        expect(ran.code, Some(0)).map_err(|_| ran.out)
    });
    let address = up.cluster_ip("default", "web");
    let body = eventually("an answer", || {
        up.curl(&format!("http://{address}:9000/")).ok_or("no answer".to_owned())
    });
    assert!(body.starts_with("web-"), "{body}");
    let log = up.kubectl(&["logs", "deployment/web"]);
    assert!(log.contains("listening") && log.contains("called"), "{log}");
}

#[test]
fn one_that_keeps_ending_is_restarted_and_explained() {
    let up = up(&["--without", "proxy"]);
    up.apply(&python_deployment(
        "crash",
        1,
        9000,
        "print('dying', flush=True)\nraise SystemExit(3)",
    ));
    up.apply(&service("crash", 9000));
    eventually("a crash loop", || {
        let pods = up.kubectl(&["get", "pods", "-l", "app=crash"]);
        if pods.contains("CrashLoopBackOff") { Ok(()) } else { Err(pods) }
    });
    eventually("its reason", || {
        let ran = up.try_portolan(&["why", "svc/crash"]);
        if ran.out.contains("PTL0203") { Ok(()) } else { Err(ran.out) }
    });
    let pod =
        up.kubectl(&["get", "pods", "-l", "app=crash", "-o", "jsonpath={.items[0].metadata.name}"]);
    let last = up.try_kubectl(&["logs", &pod, "--previous"]);
    assert!(last.out.contains("dying"), "{last:?}");
}

#[test]
fn a_pod_may_change_only_its_own_registration() {
    let up = up(&["--without", "proxy"]);
    let script = "
import json, os, ssl, time, urllib.request
token = open(os.environ['PORTOLAN_TOKEN_FILE']).read()
tls = ssl.create_default_context(cafile=os.environ['PORTOLAN_CA_FILE'])
def call(method, path, body=None, kind='application/merge-patch+json'):
    request = urllib.request.Request(os.environ['PORTOLAN_API'] + path, method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={'Authorization': 'Bearer ' + token, 'Content-Type': kind})
    try:
        return urllib.request.urlopen(request, context=tls).status
    except urllib.error.HTTPError as error:
        return error.code
own = '/api/v1/namespaces/' + os.environ['POD_NAMESPACE'] + '/pods/' + os.environ['POD_NAME']
other = '/api/v1/namespaces/default/pods/other'
print('list', call('GET', '/api/v1/namespaces/default/pods'))
print('own', call('PATCH', own, {'metadata': {'annotations': {'app.io/annotation': 'W10='}}}))
print('label', call('PATCH', own, {'metadata': {'labels': {'app.io/label': 'app.io-value'}}}))
print('foreign-key', call('PATCH', own, {'metadata': {'annotations': {'example.com/x': 'y'}}}))
print('spec', call('PATCH', own, {'spec': {'activeDeadlineSeconds': 5}}))
print('other', call('PATCH', other, {'metadata': {'annotations': {'app.io/annotation': 'W10='}}}))
print('delete', call('DELETE', own))
print('secret', call('POST', '/api/v1/namespaces/default/secrets', {'metadata': {'name': 'x'}}, 'application/json'))
print('done', 0, flush=True)
time.sleep(600)";
    up.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: other}\nspec: {containers: [{name: a, image: example.com/a}]}\n");
    up.apply(&python_deployment("probe", 1, 9000, script.trim()));
    let log = eventually("the probe's report", || {
        let log = up.try_kubectl(&["logs", "deployment/probe"]).out;
        if log.contains("done") { Ok(log) } else { Err(log) }
    });
    for (what, code) in [
        ("list", 200),
        ("own", 200),
        ("label", 200),
        ("foreign-key", 403),
        ("spec", 403),
        ("other", 403),
        ("delete", 403),
        ("secret", 403),
    ] {
        assert!(log.contains(&format!("{what} {code}\n")), "{what} should be {code}:\n{log}");
    }
}
