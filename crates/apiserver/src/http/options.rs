//! ListOptions of lists and watches: read from the query, and refused where
//! they contradict each other. Counterpart of apimachinery's
//! `pkg/apis/meta/internalversion/validation`, in its order and words.

use serde_json::Value;

use super::query::Query;
use crate::{Cause, Status, go};

/// What a list or a watch asks for besides selectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    /// `None`: all.
    pub(crate) limit: Option<usize>,
    pub(crate) continues: String,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) version: String,
    pub(crate) version_match: String,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) bookmarks: bool,
}

impl ListOptions {
    pub(crate) fn read(query: &Query, is_watch: bool) -> Result<ListOptions, Status> {
        let text = |key: &str| query.get(key).unwrap_or_default().to_owned();
        let positive = |key: &str| Ok(query.integer(key)?.and_then(|n| u64::try_from(n).ok()));
        // The first that is no number is told.
        let timeout_seconds = positive("timeoutSeconds")?.filter(|s| *s > 0);
        let limit = positive("limit")?.filter(|l| *l > 0);
        let options = ListOptions {
            limit: limit.map(|l| usize::try_from(l).unwrap_or(usize::MAX)),
            continues: text("continue"),
            timeout_seconds,
            version: text("resourceVersion"),
            version_match: text("resourceVersionMatch"),
            send_initial_events: query.switch("sendInitialEvents"),
            bookmarks: query.flag("allowWatchBookmarks"),
        };
        let causes = if is_watch { options.watch_causes() } else { options.list_causes() };
        if causes.is_empty() {
            Ok(options)
        } else {
            Err(Status::invalid_options("ListOptions", causes))
        }
    }

    fn list_causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        let matching = self.version_match.as_str();
        let mut refuse = |why: &str| causes.push(Cause::forbidden("resourceVersionMatch", why));
        if !matching.is_empty() {
            if self.version.is_empty() {
                refuse("resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.continues.is_empty() {
                refuse("resourceVersionMatch is forbidden when continue is provided");
            }
            if matching == "Exact" && self.version == "0" {
                refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                let known = ["Exact", "NotOlderThan", ""];
                causes.push(Cause::not_supported(
                    "resourceVersionMatch",
                    &Value::from(matching),
                    &known,
                ));
            }
        }
        if self.send_initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            causes.push(Cause::forbidden("sendInitialEvents", why));
        }
        causes
    }

    fn watch_causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        let matching = self.version_match.as_str();
        let refusal = |why: &str| Cause::forbidden("resourceVersionMatch", why);
        if self.send_initial_events.is_some() && matching != "NotOlderThan" {
            causes.push(refusal(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if matching.is_empty() {
            return causes;
        }
        if self.send_initial_events.is_none() {
            causes.push(refusal(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if matching != "NotOlderThan" {
            let known = ["NotOlderThan"];
            causes.push(Cause::not_supported(
                "resourceVersionMatch",
                &Value::from(matching),
                &known,
            ));
        }
        if !self.continues.is_empty() {
            causes.push(refusal("resourceVersionMatch is forbidden when continue is provided"));
        }
        causes
    }

    /// The revision asked for; 0 for none, and for any.
    pub(crate) fn revision(&self) -> Result<u64, String> {
        revision(&self.version)
    }
}

/// A resourceVersion as a number; the words of upstream's parser.
pub(crate) fn revision(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    go::parse_uint(text)
        .map_err(|why| format!("resourceVersion: Invalid value: {}: {why}", go::quote(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        for (query, is_watch, causes) in [
            ("resourceVersion=1&resourceVersionMatch=Exact&limit=-1", false, 0),
            ("resourceVersion=0&resourceVersionMatch=Exact", false, 1),
            ("resourceVersionMatch=Perhaps&continue=x&sendInitialEvents=false", false, 4),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, 0),
            ("sendInitialEvents=true", true, 1),
            ("resourceVersionMatch=Exact&continue=x", true, 3),
        ] {
            let found = ListOptions::read(&Query::parse(query), is_watch);
            let found = found.map_or_else(|s| s.details.map_or(0, |d| d.causes.len()), |_| 0);
            assert_eq!(found, causes, "{query}");
        }
        let bad = ListOptions::read(&Query::parse("limit=x"), false).unwrap_err();
        assert_eq!(bad.message, "strconv.ParseInt: parsing \"x\": invalid syntax");
    }
}
