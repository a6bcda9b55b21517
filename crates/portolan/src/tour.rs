//! What `up` prints for people: where everything is, and what to try.

use std::path::Path;

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
    row("xds", addresses.xds.as_deref());
    row("http", addresses.http.as_deref());
    row("data", Some(&addresses.data_dir));
    if temporary {
        lines.push("               (removed at exit)".to_owned());
    }
    lines.join("\n")
}

/// The short tour of the demo. `productpage` is where its Service answers;
/// `inside` goes before a command that is to run where it does.
pub(crate) fn demo(addresses: &Addresses, productpage: &str, inside: &str) -> String {
    let mut lines = vec![
        String::new(),
        "  the demo: productpage calls details, and reviews v1 v2 v3 in turn".to_owned(),
        String::new(),
    ];
    for preparation in preparations(addresses) {
        lines.push(format!("  first        {preparation}"));
    }
    for (what, command) in [
        ("call it", format!("{inside}curl {productpage}")),
        ("scale it", "kubectl -n demo scale deployment reviews-v1 --replicas=3".to_owned()),
        ("see it", "portolan get instances -n demo".to_owned()),
        ("follow it", "portolan watch -n demo".to_owned()),
        ("question it", "portolan why svc/reviews -n demo".to_owned()),
    ] {
        lines.push(format!("  {what:<12} {command}"));
    }
    lines.extend([String::new(), "  Ctrl-C ends it all.".to_owned()]);
    lines.join("\n")
}

/// What another terminal needs so that the tour's commands work as they stand.
fn preparations(addresses: &Addresses) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(kubeconfig) = &addresses.kubeconfig {
        lines.push(format!("export KUBECONFIG={kubeconfig}"));
    }
    if let Ok(executable) = std::env::current_exe()
        && !is_on_path(&executable)
    {
        lines.push(format!("alias portolan={}", executable.display()));
    }
    // From the folder above .portolan, commands find the server by themselves.
    let found = Path::new(portolan_cli::DATA_DIR_DEFAULT)
        .canonicalize()
        .is_ok_and(|path| path.display().to_string() == addresses.data_dir);
    if let Some(server) = addresses.http.as_ref().filter(|_| !found) {
        lines.push(format!("export PORTOLAN_SERVER={server}"));
    }
    lines
}

/// Whether typing `portolan` runs this very program.
fn is_on_path(executable: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("portolan"))
        .find(|file| file.is_file())
        .and_then(|file| file.canonicalize().ok())
        .is_some_and(|file| file == *executable)
}
