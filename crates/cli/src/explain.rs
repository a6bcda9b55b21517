//! `portolan explain`: reason codes, at length.

use portolan_view::{self as view, Explanation};
use serde_json::{Value, json};

use crate::{
    Failure,
    args::{ExplainArgs, Format},
    get::to_yaml,
    output::{Exit, Output},
    table::render,
};

pub(crate) fn run(args: &ExplainArgs, output: &mut Output) -> Result<Exit, Failure> {
    let all: Vec<Explanation> = match &args.code {
        None => view::all_codes().collect(),
        Some(code) => vec![view::explain(code).ok_or_else(|| {
            Failure::Usage(format!(
                "there is no code {code:?}; `portolan explain` lists all of them"
            ))
        })?],
    };
    match (args.output, all.as_slice()) {
        (Format::Json, _) => output.line(&serde_json::to_string_pretty(&document(&all))?)?,
        (Format::Yaml, _) => output.raw(to_yaml(&document(&all))?.as_bytes())?,
        (Format::Name, _) => {
            for info in &all {
                output.line(&info.code)?;
            }
        }
        (_, [info]) if args.code.is_some() => {
            output.line(&format!("{} {}", info.code, info.name))?;
            output.line(&format!("stops at: {}", info.stage))?;
            output.line(&format!("meaning:  {}", info.text))?;
            output.line(&format!("fix:      {}", info.fix))?;
        }
        _ => {
            let rows: Vec<Vec<String>> = all
                .into_iter()
                .map(|info| vec![info.code, info.name.into(), info.stage.into(), info.text.into()])
                .collect();
            for line in render(&["CODE", "NAME", "STAGE", "MEANING"], &rows) {
                output.line(&line)?;
            }
        }
    }
    Ok(Exit::Fine)
}

fn document(all: &[Explanation]) -> Value {
    let item = |info: &Explanation| {
        json!({
            "code": info.code, "name": info.name, "stage": info.stage,
            "text": info.text, "fix": info.fix,
        })
    };
    json!({ "items": all.iter().map(item).collect::<Vec<_>>() })
}
