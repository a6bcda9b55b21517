//! `portolan wait`: block until a change is live, or gone, everywhere.

use std::time::{Duration, Instant};

use portolan_wire::Convergence;

use crate::{
    Failure,
    args::{Connection, Format, WaitArgs},
    client::Client,
    get::to_yaml,
    output::{Exit, Output},
    progress,
    why::target_query,
};

/// One request waits at most this long: as long as the server lets it. The server
/// keeps the goal of one request in place; each request sets it anew.
const ROUND: Duration = Duration::from_secs(300);

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
        let what = format!("waiting for {} on every face", args.target.target);
        let answer = client.get("/v1/convergence", &query, patience);
        let answer: Convergence = progress::shown(what, answer).await?;
        if answer.converged || Instant::now() >= deadline {
            break answer;
        }
    };
    let mut late = false;
    if answer.converged && args.gone && answer.residue.ms > 0 {
        let residue = Duration::from_millis(answer.residue.ms);
        let left = deadline.saturating_duration_since(Instant::now());
        output.word(&format!(
            "gone on every face; waiting {residue:?} more for {}",
            answer.residue.because
        ));
        late = residue > left;
        tokio::time::sleep(residue.min(left)).await;
    }
    print(&answer, late, args, output)?;
    Ok(if answer.converged && !late { Exit::Fine } else { Exit::Problem })
}

fn print(
    answer: &Convergence,
    late: bool,
    args: &WaitArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    match args.output {
        Format::Json => output.line(&serde_json::to_string_pretty(answer)?)?,
        Format::Yaml => output.raw(to_yaml(answer)?.as_bytes())?,
        Format::Table | Format::Wide | Format::Name if answer.converged && !late => {
            let state = if args.gone { "gone" } else { "live" };
            output.line(&format!(
                "{} is {state} on {} members (version {})",
                answer.target,
                answer.members.len(),
                answer.version
            ))?;
        }
        Format::Table | Format::Wide | Format::Name => {}
    }
    if late || !answer.converged {
        for line in trouble(answer, late, args) {
            output.word(&line);
        }
    }
    Ok(())
}

/// Why the wait ended without what was waited for.
fn trouble(answer: &Convergence, late: bool, args: &WaitArgs) -> Vec<String> {
    let subject = &answer.target;
    if late {
        return vec![format!(
            "timed out: {subject} is gone on every face, but clients may go on with {} for some \
             of {} ms; give a longer --timeout",
            answer.residue.because, answer.residue.ms
        )];
    }
    let mut lines = Vec::new();
    if answer.present {
        let state = if args.gone { "gone" } else { "live" };
        let silent: Vec<String> = answer
            .members
            .iter()
            .filter(|member| !member.reached)
            .map(|member| match &member.version {
                Some(version) => format!("{} serves {version}", member.id),
                None => format!("{} serves nothing yet", member.id),
            })
            .collect();
        if !silent.is_empty() {
            lines.push(format!(
                "timed out: {subject} is not {state} on {}, which is asked to serve {}",
                silent.join(", "),
                answer.version
            ));
        }
    } else {
        let known = if args.gone { "still" } else { "not" };
        lines.push(format!("timed out: {subject} is {known} in the catalog"));
        let namespace = args.target.namespace.as_deref();
        let place = namespace.map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
        lines.push(format!("hint: portolan why {}{place}", args.target.target));
    }
    for reason in &answer.reasons {
        lines.push(format!("{} {}", reason.code, reason.text));
        lines.push(format!("hint: {}", reason.fix));
    }
    lines
}
