//! `portolan why`: the ladder of each instance.

use std::time::Duration;

use portolan_wire::{self as wire, StepState};

use crate::{
    Failure,
    args::{Connection, Format, TargetArgs, WhyArgs},
    client::{Client, Query},
    get::to_yaml,
    output::{Exit, Mark, Output},
    table::age,
};

/// What a target means as a query.
pub(crate) fn target_query(args: &TargetArgs) -> Query {
    let mut query = vec![("target", args.target.clone())];
    query.extend(args.namespace.iter().map(|namespace| ("namespace", namespace.clone())));
    query.extend(args.on.iter().map(|faces| ("on", faces.clone())));
    query
}

pub(crate) async fn run(
    connection: &Connection,
    args: &WhyArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let client = Client::new(connection)?;
    let mut query = target_query(&args.target);
    query.extend(args.from.iter().map(|pod| ("from", pod.clone())));
    let why: wire::Why = client.get("/v1/why", &query, Duration::ZERO).await?;
    match args.output {
        Format::Json => output.line(&serde_json::to_string_pretty(&why)?)?,
        Format::Yaml => output.raw(to_yaml(&why)?.as_bytes())?,
        Format::Name => {
            for ladder in &why.ladders {
                output.line(&ladder.subject)?;
            }
        }
        Format::Table | Format::Wide => print(&why, output)?,
    }
    Ok(if why.fine { Exit::Fine } else { Exit::Problem })
}

fn print(why: &wire::Why, output: &mut Output) -> Result<(), Failure> {
    for ladder in &why.ladders {
        output.line(&format!("{}  {}", ladder.subject, ladder.address))?;
        for step in &ladder.steps {
            let mark = match step.state {
                StepState::Passed => Mark::Fine,
                StepState::Stopped => Mark::Bad,
                StepState::NotReached => Mark::NotReached,
            };
            let text = match (&step.reason, step.state) {
                (Some(reason), _) => format!("{} {}", reason.code, reason.text),
                (None, StepState::NotReached) => "not reached".to_owned(),
                (None, _) => step.detail.clone(),
            };
            let line = format!("  {:<13} {} {text}", step.stage, output.mark(mark));
            output.line(line.trim_end())?;
            if let Some(reason) = &step.reason {
                output.line(&format!("  {:<13}   fix: {}", "", reason.fix))?;
            }
        }
        output.line("")?;
    }
    for reason in &why.reasons {
        output.line(&format!("{} {} {}", output.mark(Mark::Bad), reason.code, reason.text))?;
        output.line(&format!("  fix: {}", reason.fix))?;
    }
    if let Some(resolution) = &why.resolution {
        output.line(&format!("{} {}", resolution.name, resolution.record_type))?;
        for step in &resolution.steps {
            output.line(&format!("  {:<13} {}", step.stage, step.text))?;
        }
        output.line("")?;
    }
    let mark = output.mark(if why.fine { Mark::Fine } else { Mark::Bad });
    output.line(&format!("{mark} {}  ({}, {} old)", why.summary, why.version, age(why.age_ms)))?;
    for name in &why.nearest {
        output.line(&format!("  did you mean {name}?"))?;
    }
    Ok(())
}
