//! What `up` prints for people: where everything is, and what to try.

use portolan_wire::Addresses;

/// The lines that greet a person.
pub(crate) fn greeting(addresses: &Addresses, temporary: bool) -> String {
    let mut lines = vec![format!("portolan {} is up", addresses.version), String::new()];
    let mut row = |what: &str, value: Option<&str>| {
        if let Some(value) = value {
            lines.push(format!("  {what:<12} {value}"));
        }
    };
    row("kubeconfig", addresses.kubeconfig.as_deref());
    row("kubernetes", addresses.api.as_deref());
    row("dns", addresses.dns.as_deref());
    row("http", addresses.http.as_deref());
    row("data", Some(&addresses.data_dir));
    if temporary {
        lines.push("               (removed at exit)".to_owned());
    }
    lines.join("\n")
}

/// The short tour of the demo. `productpage` is where its Service answers.
pub(crate) fn demo(addresses: &Addresses, productpage: &str) -> String {
    let kubeconfig = addresses.kubeconfig.as_deref().unwrap_or_default();
    let server = addresses.http.as_deref().unwrap_or_default();
    let data = &addresses.data_dir;
    // Commands find the server by themselves from the folder above .portolan.
    let find = if std::env::current_dir().is_ok_and(|here| {
        here.join(".portolan").canonicalize().is_ok_and(|path| path.display().to_string() == *data)
    }) {
        String::new()
    } else {
        format!("\n  first        export PORTOLAN_SERVER={server}")
    };
    format!(
        "
  the demo: productpage calls details, and reviews v1 v2 v3 in turn
{find}
  first        export KUBECONFIG={kubeconfig}
  call it      curl {productpage}
  scale it     kubectl -n demo scale deployment reviews-v1 --replicas=3
  see it       portolan get instances -n demo
  follow it    portolan watch -n demo
  question it  portolan why svc/reviews -n demo

  Ctrl-C ends it all."
    )
}
