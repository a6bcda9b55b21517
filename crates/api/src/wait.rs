//! `/v1/convergence`: one answer at once, or the answer once it is reached.
//!
//! ```text
//!   catalog or board changes --wake--> ask view::convergence again --converged or late--> answer
//! ```

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use portolan_model::Version;
use portolan_view::{self as view, Wanted};
use portolan_wire as wire;

use crate::{
    Shared, WAITS_MAX,
    problem::Refusal,
    query::{Checked, ConvergenceQuery, query},
};

/// The longest that one request may wait; clients ask again.
const TIMEOUT_MS_MAX: u64 = 300_000;

pub(crate) async fn convergence(
    State(shared): State<Arc<Shared>>,
    checked: Checked<ConvergenceQuery>,
) -> Result<Json<wire::Convergence>, Refusal> {
    let query = query(checked)?;
    let mut target = query.target(&shared)?;
    let faces = query.faces()?;
    let wanted = if query.gone { Wanted::Gone } else { Wanted::There };
    let timeout = Duration::from_millis(query.timeout_ms.min(TIMEOUT_MS_MAX));
    let _permit = shared.waits.try_acquire().map_err(|_| {
        Refusal::too_many(format!("{WAITS_MAX} requests wait already")).hint("ask again later")
    })?;

    // The version that is waited for: it stays while the target is as wanted, so
    // that a busy catalog does not move the goal away for ever.
    let mut since: Option<Version> = None;
    let mut ask = || {
        let answer = view::convergence(
            &shared.hub.snapshot(),
            shared.hub.board(),
            &target,
            wanted,
            &faces,
            since,
            shared.now_ms(),
        );
        since = if answer.present { answer.version.parse().ok() } else { None };
        if wanted == Wanted::There && !answer.present {
            // What is not there yet may come up in another namespace than the
            // one it was looked for in. What is to go is not looked for anew.
            target = query.target(&shared).unwrap_or_else(|_| target.clone());
        }
        answer
    };
    // Subscribe before asking, so that no change falls between the two.
    let mut catalog = shared.hub.subscribe();
    let mut board = shared.hub.board().watch();
    let reached = async {
        loop {
            catalog.poll();
            board.borrow_and_update();
            let answer = ask();
            if answer.converged {
                return answer;
            }
            tokio::select! {
                update = catalog.next() => if update.is_none() { return answer },
                changed = board.changed() => if changed.is_err() { return answer },
                () = shared.shutdown.cancelled() => return answer,
            }
        }
    };
    let answer = match tokio::time::timeout(timeout, reached).await {
        Ok(answer) => answer,
        Err(_) => ask(),
    };
    Ok(Json(answer))
}
