//! `portolan explain`: reason codes, at length.

use portolan_view as view;

use crate::{
    Failure,
    args::ExplainArgs,
    output::{Exit, Output},
    table::render,
};

pub(crate) fn run(args: &ExplainArgs, output: &mut Output) -> Result<Exit, Failure> {
    let Some(code) = &args.code else {
        let rows: Vec<Vec<String>> = view::all_codes()
            .map(|info| {
                vec![info.code, info.name.to_owned(), info.stage.to_owned(), info.text.to_owned()]
            })
            .collect();
        for line in render(&["CODE", "NAME", "STAGE", "MEANING"], &rows) {
            output.line(&line)?;
        }
        return Ok(Exit::Fine);
    };
    let Some(info) = view::explain(code) else {
        return Err(Failure::Usage(format!(
            "there is no code {code:?}; `portolan explain` lists all of them"
        )));
    };
    output.line(&format!("{} {}", info.code, info.name))?;
    output.line(&format!("stops at: {}", info.stage))?;
    output.line(&format!("meaning:  {}", info.text))?;
    output.line(&format!("fix:      {}", info.fix))?;
    Ok(Exit::Fine)
}
