//! `portolan check`: does everything work?

use std::time::{Duration, Instant};

use portolan_wire::{Page, Source, Status};
use serde::Serialize;

use crate::{
    Failure,
    args::{CheckArgs, Connection, Format},
    client::Client,
    get::to_yaml,
    output::{Exit, Mark, Output},
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
    let findings = loop {
        let findings = look(&client).await;
        let fine = matches!(&findings, Ok(findings) if findings.iter().all(|one| one.fine));
        if fine || deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            break findings?;
        }
        tokio::time::sleep(PAUSE).await;
    };
    match args.output {
        Format::Json => output.line(&serde_json::to_string_pretty(&findings)?)?,
        Format::Yaml => output.raw(to_yaml(&findings)?.as_bytes())?,
        Format::Table | Format::Wide | Format::Name => {
            for one in &findings {
                let mark = output.mark(if one.fine { Mark::Fine } else { Mark::Bad });
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

async fn look(client: &Client) -> Result<Vec<Finding>, Failure> {
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
