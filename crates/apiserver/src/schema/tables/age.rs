//! Ages as kubectl shows them: two or three significant figures.

use serde_json::Value;

use super::UNKNOWN;
use crate::registry::object::parse_timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// The age of something made at a time; `<unknown>` without one.
pub(super) fn since(time: Option<&Value>, now_unix_secs: u64) -> String {
    match time.and_then(Value::as_str).and_then(parse_timestamp) {
        Some(then) => human_duration(
            i64::try_from(now_unix_secs)
                .unwrap_or(i64::MAX)
                .saturating_sub(i64::try_from(then).unwrap_or(i64::MAX)),
        ),
        None => UNKNOWN.to_owned(),
    }
}

/// A span in the way of apimachinery's `duration.HumanDuration`: the larger, the coarser.
pub fn human_duration(seconds: i64) -> String {
    let pair = |large: i64, letter: char, small: i64, small_letter: char| match small {
        0 => format!("{large}{letter}"),
        _ => format!("{large}{letter}{small}{small_letter}"),
    };
    match seconds {
        // Clocks that differ by a second are forgiven.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => pair(seconds / MINUTE, 'm', seconds % MINUTE, 's'),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => pair(seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
        _ if seconds < 48 * HOUR => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => pair(seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => pair(seconds / YEAR, 'y', seconds % YEAR / DAY, 'd'),
        _ => format!("{}y", seconds / YEAR),
    }
}
