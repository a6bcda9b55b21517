//! Lists: pages of stored bytes, spliced into one document.
//!
//! Without a selector, a Table or a partial form nothing is parsed: the items
//! of the answer are slices of the records, minus the type that every stored
//! object begins with. Chunks are consistent: the continue token carries the
//! revision of the first page, and the store answers later pages as of that
//! revision, or with 410 and a token that goes on without consistency.

use std::{collections::VecDeque, sync::Arc};

use base64::{DecodeError, Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::{
    filter::Filter,
    options::ListOptions,
    query::Query,
    respond::{self, Answer},
    table::Shape,
};
use crate::{
    Status,
    go::{self, JsonType},
    registry::{self, Registry, object},
    store::{Key, Record},
};

/// The version of continue tokens.
const VERSION: &str = "meta.k8s.io/v1";
/// Bytes per piece of a spliced list: a few TLS records.
const PIECE_BYTES: usize = 64 << 10;
/// Records looked at per step when a selector drops most of them.
const STEP_RECORDS: usize = 500;

/// Where and when a list continues.
#[derive(Debug, PartialEq)]
struct Continue {
    /// `None` goes on with the present: an inconsistent continuation.
    revision: Option<u64>,
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        let revision = self.revision.map_or(-1, |r| i64::try_from(r).unwrap_or(i64::MAX));
        // As upstream: the key right after the last one shown.
        let start = format!("/{}\0", self.after);
        BASE64.encode(json!({"v": VERSION, "rv": revision, "start": start}).to_string())
    }

    fn decode(token: &str) -> Result<Continue, Status> {
        let bad = |why: &str| {
            let why = format!("invalid continue token: continue key is not valid: {why}");
            Status::bad_request(why)
        };
        let bytes = BASE64.decode(token).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                // Go stops at the letters that make no byte.
                _ => token.len() - token.len() % 4,
            };
            bad(&format!("illegal base64 data at input byte {at}"))
        })?;
        let (value, _) = super::json::parse(&bytes).map_err(|why| bad(&why))?;
        let types = [("v", JsonType::String), ("rv", JsonType::Int64), ("start", JsonType::String)];
        go::check_struct("storage.continueToken", &types, &value).map_err(|why| bad(&why))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("v") != VERSION {
            let version = text("v");
            return Err(bad(&format!("server does not recognize this encoded version {version}")));
        }
        let revision = value.get("rv").and_then(Value::as_i64).unwrap_or(0);
        if revision == 0 {
            return Err(bad(&format!(
                "incorrect encoded start resourceVersion (version {VERSION})"
            )));
        }
        let start = text("start");
        if start.is_empty() {
            return Err(bad(&format!("encoded start key empty (version {VERSION})")));
        }
        let after = start.strip_prefix('/').unwrap_or(start);
        // A path that leaves its place is no key. All of it, `/`, is one (`path.Clean`).
        if !after.is_empty() && after.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad(start));
        }
        let after = after.strip_suffix('\0').unwrap_or(after).to_owned();
        Ok(Continue { revision: u64::try_from(revision).ok(), after })
    }
}

/// What a list request asks of time and amount.
struct Page {
    limit: Option<usize>,
    /// As of which revision; `None` is now.
    at: Option<u64>,
    after: Option<String>,
    consistent: bool,
}

/// `resourceVersion` and `resourceVersionMatch`, by the table of the API concepts page.
fn page(options: &ListOptions, current: u64) -> Result<Page, Status> {
    let limit = options.limit;
    let number = options
        .revision()
        .map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?;
    if !options.continues.is_empty() {
        let token = Continue::decode(&options.continues)?;
        if number != 0 {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let consistent = token.revision.is_some();
        return Ok(Page { limit, at: token.revision, after: Some(token.after), consistent });
    }
    let exact = match options.version_match.as_str() {
        "" => limit.is_some() && number > 0,
        matching => matching == "Exact",
    };
    if number > current {
        return Err(Status::revision_too_large(number, current));
    }
    Ok(Page { limit, at: exact.then_some(number), after: None, consistent: true })
}

/// The records of one page, and what goes into the list's metadata.
struct Found {
    records: Vec<Arc<Record>>,
    revision: u64,
    next: Option<String>,
    remaining: Option<usize>,
}

fn start_key(filter: &Filter, after: &str) -> Key {
    // Within one namespace the key does not repeat it.
    let (namespace, name) = match filter.scope() {
        Some(namespace) => (namespace, after),
        None => after.split_once('/').unwrap_or(("", after)),
    };
    registry::key(filter.kind, namespace, name)
}

fn expired(after: &str) -> Status {
    let token = Continue { revision: None, after: after.to_owned() }.encode();
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter, or use the continue token in this \
         response to retrieve the remainder of the results. Continuing with the provided token \
         results in an inconsistent list - objects that were created, modified, or deleted between \
         the time the first chunk was returned and now may show up in the list.",
    );
    status.details =
        Some(Box::new(crate::status::Details { continue_token: token, ..Default::default() }));
    status
}

fn collect(registry: &Registry, filter: &Filter, page: &Page) -> Result<Found, Status> {
    let mut after = page.after.as_deref().map(|a| start_key(filter, a));
    let (mut records, mut at, mut revision) = (Vec::new(), page.at, None);
    loop {
        let step = match (page.limit, filter.is_open()) {
            (Some(limit), true) => Some(limit),
            (Some(limit), false) => Some(limit.max(STEP_RECORDS)),
            (None, _) => None,
        };
        let listing = registry
            .store()
            .list(filter.kind.resource, filter.scope(), after.as_ref(), step, at)
            .map_err(|_| match &page.after {
                Some(after) => expired(after),
                None => Status::expired("The resourceVersion for the provided list is too old."),
            })?;
        let revision = *revision.get_or_insert(listing.revision);
        let mut seen = 0;
        for record in &listing.items {
            seen += 1;
            if !filter.shows(record) {
                continue;
            }
            records.push(record.clone());
            if Some(records.len()) == page.limit {
                break;
            }
        }
        let left = listing.remaining + (listing.items.len() - seen);
        let full = Some(records.len()) == page.limit;
        if full || left == 0 {
            let next = records.last().filter(|_| full && left > 0).map(|last| {
                let (namespace, name) = (&last.key.namespace, &last.key.name);
                let is_spread = filter.kind.namespaced && filter.scope().is_none();
                let after =
                    if is_spread { format!("{namespace}/{name}") } else { name.to_string() };
                Continue { revision: page.consistent.then_some(revision), after }.encode()
            });
            let remaining = next.is_some().then_some(left).filter(|_| filter.is_open());
            return Ok(Found { records, revision, next, remaining });
        }
        after = listing.items.last().map(|r| r.key.clone());
        // Later steps see what the first one saw.
        at = Some(revision);
    }
}

fn meta(found: &Found) -> Value {
    let mut meta = json!({"resourceVersion": found.revision.to_string()});
    if let Some(next) = &found.next {
        meta["continue"] = next.as_str().into();
    }
    if let Some(remaining) = found.remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    meta
}

/// Answers a list request.
pub(crate) fn answer(
    registry: &Registry,
    filter: &Filter,
    shape: &Shape,
    query: &Query,
) -> Result<Answer, Status> {
    let page = page(&ListOptions::read(query, false)?, registry.store().revision())?;
    let found = collect(registry, filter, &page)?;
    if shape.is_plain() {
        return Ok(spliced(filter, found));
    }
    let objects: Vec<Value> =
        found.records.iter().map(|r| object::parse(r)).collect::<Result<_, _>>()?;
    Ok(respond::json(200, &shape.many(meta(&found), objects.iter())))
}

fn spliced(filter: &Filter, found: Found) -> Answer {
    let kind = filter.kind;
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        kind.list_kind,
        kind.api_version,
        meta(&found)
    );
    let prefix = object::prefix(kind).into_bytes();
    if found.records.iter().map(|r| r.bytes.len()).sum::<usize>() < PIECE_BYTES {
        let mut whole = BytesMut::from(head.as_bytes());
        for (index, record) in found.records.iter().enumerate() {
            push_item(&mut whole, record, &prefix, index == 0);
        }
        whole.put_slice(b"]}");
        return respond::bytes(200, whole.freeze());
    }
    let mut records: VecDeque<Arc<Record>> = found.records.into();
    let mut head = Some(head);
    let mut first = true;
    let pieces = std::iter::from_fn(move || {
        if records.is_empty() {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES + (16 << 10));
        if let Some(head) = head.take() {
            piece.put_slice(head.as_bytes());
        }
        while piece.len() < PIECE_BYTES {
            let Some(record) = records.pop_front() else { break };
            push_item(&mut piece, &record, &prefix, std::mem::take(&mut first));
        }
        if records.is_empty() {
            piece.put_slice(b"]}");
        }
        Some(piece.freeze())
    });
    respond::pieces(pieces)
}

fn push_item(out: &mut BytesMut, record: &Record, prefix: &[u8], first: bool) {
    if !first {
        out.put_u8(b',');
    }
    match record.bytes.strip_prefix(prefix) {
        Some(rest) => {
            out.put_u8(b'{');
            out.put_slice(rest);
        }
        None => out.put_slice(&record.bytes),
    }
}

/// An empty list of a kind, for bodies that need one.
pub(crate) fn whole(kind: &crate::Kind, revision: u64, items: Vec<Value>) -> Bytes {
    let list = json!({
        "kind": kind.list_kind,
        "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": revision.to_string()},
        "items": items,
    });
    Bytes::from(list.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        let token = Continue { revision: Some(7), after: "ns/name".into() };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        let token = Continue { revision: None, after: "name".into() };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        for bad in ["x", "!!", "e30", ""] {
            assert_eq!(Continue::decode(bad).unwrap_err().code, 400, "{bad}");
        }
        for (text, why) in [
            ("[]", "json: cannot unmarshal array into Go value of type storage.continueToken"),
            (r#"{"v":"x""#, "unexpected end of JSON input"),
            (r#"{"rv":"5","start":1}"#, {
                "json: cannot unmarshal string into Go struct field continueToken.rv of type int64"
            }),
        ] {
            let refused = Continue::decode(&BASE64.encode(text)).unwrap_err();
            let expected = format!("invalid continue token: continue key is not valid: {why}");
            assert_eq!(refused.message, expected);
        }
        for start in ["..", "a/../b", "a//b", "/."] {
            let token = BASE64.encode(json!({"v": VERSION, "rv": 1, "start": start}).to_string());
            assert_eq!(Continue::decode(&token).unwrap_err().code, 400, "{start}");
        }
    }

    #[test]
    fn revisions() {
        for (query, expected) in [
            ("", Ok(None)),
            ("resourceVersion=0", Ok(None)),
            ("resourceVersion=5", Ok(None)),
            ("resourceVersion=5&limit=1", Ok(Some(5))),
            ("resourceVersion=5&resourceVersionMatch=Exact", Ok(Some(5))),
            ("resourceVersion=5&resourceVersionMatch=NotOlderThan&limit=1", Ok(None)),
            ("resourceVersion=0&resourceVersionMatch=Exact", Err(422)),
            ("resourceVersionMatch=NotOlderThan", Err(422)),
            ("resourceVersion=0&resourceVersionMatch=Nearly", Err(422)),
            ("resourceVersion=x", Err(400)),
            ("resourceVersion=11", Err(504)),
            ("continue=x", Err(400)),
        ] {
            let options = ListOptions::read(&Query::parse(query), false);
            let found = options.and_then(|options| page(&options, 10));
            assert_eq!(found.map(|p| p.at).map_err(|s| s.code), expected, "{query}");
        }
    }
}
