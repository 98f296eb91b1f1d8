//! `GET /receipts/{id}` and `GET /receipts`: what was decided, byte for byte.
//!
//! Owns: filters, pages and cursors. Refuses to know: how receipts are kept.

use std::collections::HashMap;

use engine::ports::{Query, Stored};
use http::StatusCode;
use ledger::public::public_bytes;
use ledger::scan::Raw;
use ledger::{Kind, View};
use types::{Reason, ReceiptId, StreamName};

use crate::Gateway;
use crate::answer::{Answer, Facts, Fault, Handled, fault, raw_json};

/// Receipts on a page unless the caller wants fewer, and at most.
const PAGE: usize = 100;
/// Receipts that one request looks at: a filter that matches little ends with a cursor, not late.
const SCAN_MAX: usize = 2_000;

/// One receipt.
pub(crate) async fn one(gateway: &Gateway, id: &str) -> Handled {
    let not_found = || fault(Reason::NotFound, "there is no such receipt");
    let id = ReceiptId::parse(id).ok_or_else(not_found)?;
    let stored = gateway.engine.find(id).await?.ok_or_else(not_found)?;
    let response = raw_json(StatusCode::OK, public(&stored)?);
    Ok(Answer { response, facts: Facts { receipt_id: Some(id), ..Facts::default() } })
}

fn public(stored: &Stored) -> Result<Vec<u8>, Fault> {
    public_bytes(&stored.core, stored.hash, stored.chain_hash)
        .map_err(|_| fault(Reason::InternalError, "the receipt cannot be shown"))
}

/// The filters of a search. All must hold.
#[derive(Debug, Default)]
struct Filter {
    stream: Option<StreamName>,
    kind: Option<Kind>,
    words: Vec<(Word, String)>,
    since: Option<i64>,
    until: Option<i64>,
    limit: usize,
    before_pos: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Word {
    Action,
    Reason,
    EntitlementId,
    StateFrom,
    StateTo,
}

impl Filter {
    fn parse(query: &HashMap<String, String>) -> Result<Filter, Fault> {
        let mut filter = Filter { limit: PAGE, ..Filter::default() };
        for (name, value) in query {
            let bad = |what: &str| fault(Reason::InvalidField, format!("{name} {what}"));
            let integer = || value.parse::<i64>().map_err(|_| bad("must be an integer"));
            match name.as_str() {
                "tenant_id" | "stream" => {
                    let stream = StreamName::parse(value).map_err(|e| bad(&e.to_string()))?;
                    filter.stream = Some(stream);
                }
                "type" => {
                    filter.kind = Some(Kind::parse(value).ok_or_else(|| bad("is not a type"))?);
                }
                "action" => filter.words.push((Word::Action, value.clone())),
                "reason" => filter.words.push((Word::Reason, value.clone())),
                "entitlement_id" => filter.words.push((Word::EntitlementId, value.clone())),
                "state_from" => filter.words.push((Word::StateFrom, value.clone())),
                "state_to" => filter.words.push((Word::StateTo, value.clone())),
                "since" => filter.since = Some(integer()?),
                "until" => filter.until = Some(integer()?),
                "limit" => {
                    let limit = usize::try_from(integer()?).ok();
                    let fits = limit.filter(|limit| (1..=PAGE).contains(limit));
                    filter.limit = fits.ok_or_else(|| bad("must be 1 to 100"))?;
                }
                "cursor" => {
                    let pos = u64::from_str_radix(value, 16).map_err(|_| bad("is not a cursor"))?;
                    filter.before_pos = Some(pos);
                }
                _ => return Err(fault(Reason::InvalidField, "unknown query parameter")),
            }
        }
        Ok(filter)
    }

    fn admits(&self, view: &View<'_>) -> bool {
        let word = |field: Option<Raw<'_>>, wanted: &str| field.is_some_and(|f| f.text() == wanted);
        self.kind.is_none_or(|kind| kind == view.kind)
            && self.since.is_none_or(|since| view.timestamp >= since)
            && self.until.is_none_or(|until| view.timestamp <= until)
            && self.words.iter().all(|(name, wanted)| match name {
                Word::Action => word(Some(view.action), wanted),
                Word::Reason => word(view.reason, wanted),
                Word::EntitlementId => word(view.entitlement_id, wanted),
                Word::StateFrom => word(view.state_from, wanted),
                Word::StateTo => word(view.state_to, wanted),
            })
    }
}

/// A page of receipts, newest first: `{"receipts":[…],"next":"<cursor>"}`; no `next` on the last.
pub(crate) async fn search(gateway: &Gateway, query: &HashMap<String, String>) -> Handled {
    let filter = Filter::parse(query)?;
    let stored = gateway
        .engine
        .search(Query {
            stream: filter.stream.clone(),
            before_pos: filter.before_pos,
            scan_limit: SCAN_MAX,
        })
        .await?;
    let mut next = (stored.len() == SCAN_MAX).then(|| stored.last().map(|s| s.pos)).flatten();
    let mut bytes = b"{\"receipts\":[".to_vec();
    let mut found = 0;
    for receipt in &stored {
        let unreadable = |_| fault(Reason::InternalError, "a receipt cannot be shown");
        if !filter.admits(&View::scan(&receipt.core).map_err(unreadable)?) {
            continue;
        }
        if found == filter.limit {
            // One more matches: the next page begins behind the last one shown.
            next = Some(receipt.pos + 1);
            break;
        }
        if found > 0 {
            bytes.push(b',');
        }
        bytes.extend(public(receipt)?);
        found += 1;
    }
    bytes.push(b']');
    if let Some(pos) = next {
        bytes.extend_from_slice(format!(",\"next\":\"{pos:x}\"").as_bytes());
    }
    bytes.push(b'}');
    Ok(Answer { response: raw_json(StatusCode::OK, bytes), facts: Facts::default() })
}
