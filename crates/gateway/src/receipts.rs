//! `GET /receipts/{id}` and `GET /receipts`: what was decided, byte for byte.
//!
//! Owns: how many searches run at once. Refuses to know: how receipts are kept, and what a page is.

use std::cmp::Reverse;
use std::sync::Arc;

use engine::ports::{Query, ReadError, Store, Stored};
use http::StatusCode;
use ledger::public::public_bytes;
use types::{Reason, ReceiptId, StreamName};

use crate::Gateway;
use crate::answer::{Answer, Facts, Fault, Handled, fault, raw_json};
use crate::caller::Caller;
use crate::search::{Filter, page};

/// One receipt.
pub(crate) async fn one(gateway: &Gateway, caller: &Caller, id: &str) -> Handled {
    let not_found = || fault(Reason::NotFound, "there is no such receipt");
    let id = ReceiptId::parse(id).ok_or_else(not_found)?;
    let stored = gateway.engine.find(id).await?.ok_or_else(not_found)?;
    // A receipt that is not for this caller is as good as none: whether it exists is not told.
    caller.may_see(&stored.stream).map_err(|_| not_found())?;
    let response = raw_json(StatusCode::OK, public(&stored)?);
    Ok(Answer { response, facts: Facts { receipt_id: Some(id), ..Facts::default() } })
}

fn public(stored: &Stored) -> Result<Vec<u8>, Fault> {
    public_bytes(&stored.core, stored.hash, stored.chain_hash)
        .map_err(|_| fault(Reason::InternalError, "the receipt cannot be shown"))
}

/// A page of receipts, newest first. Reading, checking and rendering a page is the work of
/// milliseconds and blocks, so it is done where it may, and for few callers at a time: the others
/// wait as long as their deadline lets them.
pub(crate) async fn search(
    gateway: &Gateway,
    caller: &Caller,
    query: Vec<(String, String)>,
) -> Handled {
    let filter = Filter::parse(&query)?.within(caller)?;
    let closed = |_| fault(Reason::ServiceUnavailable, "searches have ended");
    let turn = Arc::clone(&gateway.searches).acquire_owned().await.map_err(closed)?;
    let found = gateway.engine.scan(move |store, intact| {
        // Given back by the work itself: a caller who hangs up does not end it.
        let _turn = turn;
        let lanes = filter.tenant_chain().map(|chain| store.lanes(chain)).transpose()?;
        let lanes = lanes.unwrap_or_default();
        page(&filter, |query| with_lanes(store, query, &lanes), intact)
    });
    let bytes = found.await?;
    Ok(Answer { response: raw_json(StatusCode::OK, bytes), facts: Facts::default() })
}

/// A query of a chain and of the lanes beside it: the newest of all of them.
fn with_lanes(
    store: &dyn Store,
    query: &Query,
    lanes: &[StreamName],
) -> Result<Vec<Stored>, ReadError> {
    let mut rows = store.query(query)?;
    for lane in lanes {
        rows.extend(store.query(&Query { stream: Some(lane.clone()), ..query.clone() })?);
    }
    if !lanes.is_empty() {
        rows.sort_unstable_by_key(|row| Reverse(row.pos));
        rows.truncate(query.scan_limit);
    }
    Ok(rows)
}
