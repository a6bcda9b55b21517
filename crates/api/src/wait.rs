//! `/v1/convergence`: one answer at once, or the answer once it is reached.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use portolan_view::{self as view, Wanted};
use portolan_wire as wire;

use crate::{
    Shared,
    problem::Refusal,
    routes::{Checked, TargetQuery, query},
};

/// The longest that one request may wait; clients ask again.
const TIMEOUT_MS_MAX: u64 = 300_000;

pub(crate) async fn convergence(
    State(shared): State<Arc<Shared>>,
    checked: Checked<TargetQuery>,
) -> Result<Json<wire::Convergence>, Refusal> {
    let query = query(checked)?;
    let target = query.target(&shared)?;
    let faces = query.faces()?;
    let wanted = if query.gone.unwrap_or(false) { Wanted::Gone } else { Wanted::There };
    let timeout = Duration::from_millis(query.timeout_ms.unwrap_or(0).min(TIMEOUT_MS_MAX));

    let ask = || {
        view::convergence(
            &shared.hub.snapshot(),
            shared.hub.board(),
            &target,
            wanted,
            &faces,
            shared.now_ms(),
        )
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
    let answer = tokio::time::timeout(timeout, reached).await.unwrap_or_else(|_| ask());
    Ok(Json(answer))
}
