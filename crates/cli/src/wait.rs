//! `portolan wait`: block until a change is live, or gone, everywhere.

use std::time::{Duration, Instant};

use portolan_wire::Convergence;

use crate::{
    Failure,
    args::{Connection, Format, WaitArgs},
    client::Client,
    get::to_yaml,
    output::{Exit, Output},
    why::target_query,
};

/// One request waits at most this long at the server, so that a lost
/// connection is noticed.
const ROUND: Duration = Duration::from_secs(30);

pub(crate) async fn run(
    connection: &Connection,
    args: &WaitArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let client = Client::new(connection)?;
    let deadline = Instant::now() + args.timeout;
    let answer = loop {
        let patience = deadline.saturating_duration_since(Instant::now()).min(ROUND);
        let mut query = target_query(&args.target);
        query.push(("gone", args.gone.to_string()));
        query.push(("timeoutMs", patience.as_millis().to_string()));
        let answer: Convergence = client.get("/v1/convergence", &query, patience).await?;
        if answer.converged || Instant::now() >= deadline {
            break answer;
        }
    };
    if answer.converged && args.gone && answer.residue.ms > 0 {
        let residue = Duration::from_millis(answer.residue.ms);
        output.word(&format!(
            "gone on every face; waiting {residue:?} more for {}",
            answer.residue.because
        ));
        let left = deadline.saturating_duration_since(Instant::now());
        if residue > left {
            output.word("the timeout is shorter than that");
            tokio::time::sleep(left).await;
            return Ok(Exit::Problem);
        }
        tokio::time::sleep(residue).await;
    }
    print(&answer, args, output)?;
    Ok(if answer.converged { Exit::Fine } else { Exit::Problem })
}

fn print(answer: &Convergence, args: &WaitArgs, output: &mut Output) -> Result<(), Failure> {
    let state = if args.gone { "gone" } else { "live" };
    match args.output {
        Format::Json => output.line(&serde_json::to_string_pretty(answer)?)?,
        Format::Yaml => output.raw(to_yaml(answer)?.as_bytes())?,
        Format::Table | Format::Wide | Format::Name if answer.converged => {
            output.line(&format!(
                "{} is {state} on {} members (version {})",
                answer.target,
                answer.members.len(),
                answer.version
            ))?
        }
        Format::Table | Format::Wide | Format::Name => {
            let subject = &answer.target;
            if answer.present {
                let silent: Vec<String> = answer
                    .members
                    .iter()
                    .filter(|member| !member.reached)
                    .map(|member| match &member.version {
                        Some(version) => format!("{} serves {version}", member.id),
                        None => format!("{} serves nothing yet", member.id),
                    })
                    .collect();
                output
                    .word(&format!("timed out: {subject} is not {state} on {}", silent.join(", ")));
            } else {
                let known = if args.gone { "still" } else { "not" };
                output.word(&format!("timed out: {subject} is {known} in the catalog"));
                output.word(&format!("hint: portolan why {}", args.target.target));
            }
        }
    }
    Ok(())
}
