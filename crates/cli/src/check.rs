//! `portolan check`: does everything work?
//!
//! Asks the server how it is, each source how it is, and, where the server is the
//! one of this directory, the DNS server a question.

use std::time::{Duration, Instant};

use portolan_wire::{Page, Source, Status};
use serde::Serialize;

use crate::{
    Failure,
    args::{CheckArgs, Connection, Format},
    client::{Client, local_addresses},
    dig,
    get::to_yaml,
    output::{Exit, Mark, Output},
    progress,
    table::age,
};

/// Pause between two tries of `--wait`.
const PAUSE: Duration = Duration::from_millis(100);

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    fine: bool,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

pub(crate) async fn run(
    connection: &Connection,
    args: &CheckArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let client = Client::new(connection)?;
    let deadline = args.wait.map(|wait| Instant::now() + wait);
    let tries = async {
        loop {
            let findings = look(&client, connection).await;
            let fine = matches!(&findings, Ok(findings) if findings.iter().all(|one| one.fine));
            if fine || deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return findings;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let findings = progress::shown("waiting until everything is fine".to_owned(), tries).await?;
    match args.output {
        Format::Json => output.line(&serde_json::to_string_pretty(&findings)?)?,
        Format::Yaml => output.raw(to_yaml(&findings)?.as_bytes())?,
        Format::Table | Format::Wide | Format::Name => {
            for one in &findings {
                let mark = output.mark(match (one.fine, one.hint.is_empty()) {
                    (false, _) => Mark::Bad,
                    (true, true) => Mark::Fine,
                    (true, false) => Mark::Beware,
                });
                output.line(&format!("{mark} {:<11} {}", one.check, one.detail))?;
                if !one.hint.is_empty() {
                    output.line(&format!("  hint: {}", one.hint))?;
                }
            }
        }
    }
    let fine = findings.iter().all(|one| one.fine);
    Ok(if fine { Exit::Fine } else { Exit::Problem })
}

async fn look(client: &Client, connection: &Connection) -> Result<Vec<Finding>, Failure> {
    let (ready, text) = client.text("/readyz").await?;
    let status: Status = client.get("/v1/status", &[], Duration::ZERO).await?;
    let sources: Page<Source> = client.get("/v1/sources", &[], Duration::ZERO).await?;
    let mut findings = vec![
        Finding {
            check: "ready",
            fine: ready,
            detail: text.trim().to_owned(),
            hint: String::new(),
        },
        Finding {
            check: "catalog",
            fine: status.synced,
            detail: format!(
                "version {}, {} old: {} services, {} of {} endpoints serving",
                status.version,
                age(status.age_ms),
                status.services,
                status.serving,
                status.endpoints
            ),
            hint: if status.synced { String::new() } else { "portolan get sources".to_owned() },
        },
    ];
    findings.extend(sources.items.into_iter().map(|source| Finding {
        check: "source",
        fine: source.state == "synced",
        detail: match &source.error {
            Some(error) => format!("{} is {}: {error}", source.name, source.state),
            None => format!("{} is {}", source.name, source.state),
        },
        hint: String::new(),
    }));
    findings.extend(dns(connection, &status.cluster_domain).await);
    // A port that one face cannot bind is worth a line and not a failure: the
    // rest of the cluster works.
    findings.extend(status.problems.into_iter().map(|problem| Finding {
        check: "face",
        fine: true,
        detail: format!("{} {}", problem.code, problem.text),
        hint: problem.fix,
    }));
    Ok(findings)
}

/// Whether the DNS server answers for its zone. Only `addresses.json` says where
/// it is: a server that was named by URL has its DNS elsewhere.
async fn dns(connection: &Connection, domain: &str) -> Option<Finding> {
    if connection.server.is_some() || domain.is_empty() {
        return None;
    }
    let server = local_addresses()?.dns?.parse().ok()?;
    let (fine, detail) = match dig::status(server, domain).await {
        Ok(status) => (status == "NOERROR", format!("{server} answers {status} for {domain}")),
        Err(failure) => (false, failure.to_string()),
    };
    let hint = if fine { String::new() } else { format!("portolan dig {domain} SOA") };
    Some(Finding { check: "dns", fine, detail, hint })
}
