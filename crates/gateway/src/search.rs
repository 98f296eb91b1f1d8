//! A search over receipts: its filters, its pages and its cursors.
//!
//! Owns: what a query means and how much of the ledger one request may look at. Refuses to know:
//! how receipts are kept, and how it is told that one was altered.

use engine::ports::{Query, ReadError, Stored};
use ledger::public::public_bytes;
use ledger::scan::Raw;
use ledger::{Kind, View};
use serde_json::json;
use types::{Reason, StreamName};

use crate::answer::{Fault, fault};
use crate::caller::Caller;

/// Receipts on a page unless the caller wants fewer, and at most.
const PAGE: usize = 100;
/// Receipts that one request looks at: a filter that matches little ends with a cursor, not late.
const SCAN_MAX: usize = 2_000;
/// Receipts read from the store at once. Few, so that a small page costs little.
const READ: usize = 200;

/// The filters of a search. All must hold.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    stream: Option<StreamName>,
    kind: Option<Kind>,
    words: Vec<(Word, String)>,
    since: Option<i64>,
    until: Option<i64>,
    limit: usize,
    before_pos: Option<u64>,
    /// Leaves out the receipts of the service itself.
    tenants_only: bool,
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
    /// Reads the parameters of a query, each at most once. Whose receipts is asked for by tenant
    /// or by stream, not both: one of them would be overruled.
    pub(crate) fn parse(query: &[(String, String)]) -> Result<Filter, Fault> {
        let mut filter = Filter { limit: PAGE, ..Filter::default() };
        for (at, (name, value)) in query.iter().enumerate() {
            filter.take(name, value)?;
            // After the name is known to be one of ours, and so may be quoted.
            let overruled = query[..at].iter().any(|(before, _)| match name.as_str() {
                "tenant_id" | "stream" => before == "tenant_id" || before == "stream",
                _ => before == name,
            });
            if overruled {
                let detail = format!("{name} cannot stand beside a parameter before it");
                return Err(fault(Reason::InvalidField, detail));
            }
        }
        Ok(filter)
    }

    /// What `caller` may see of it: a tenant its own receipts, which it need not name.
    pub(crate) fn within(mut self, caller: &Caller) -> Result<Filter, Fault> {
        match (&self.stream, caller.tenant()) {
            (None, Some(own)) => self.stream = Some(StreamName::tenant(own)),
            (Some(stream), _) => caller.may_see(stream)?,
            (None, None) => self.tenants_only = !caller.sees_service(),
        }
        Ok(self)
    }

    /// The chain of the one tenant that is asked for: all that is its own is in it and in the lanes
    /// beside it.
    pub(crate) fn tenant_chain(&self) -> Option<&StreamName> {
        self.stream.as_ref().filter(|stream| !stream.is_system() && !stream.is_lane())
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        let bad = |what: &str| fault(Reason::InvalidField, format!("{name} {what}"));
        let integer = || {
            let parsed = value.parse::<i64>().ok().filter(|_| !value.starts_with('+'));
            parsed.ok_or_else(|| bad("must be an integer"))
        };
        let mut word = |word: Word| self.words.push((word, value.to_owned()));
        match name {
            "tenant_id" | "stream" => {
                let stream = StreamName::parse(value).map_err(|e| bad(&e.to_string()))?;
                self.stream = Some(stream);
            }
            "type" => {
                self.kind = Some(Kind::parse(value).ok_or_else(|| bad("is not a type"))?);
            }
            "action" => word(Word::Action),
            "reason" => word(Word::Reason),
            "entitlement_id" => word(Word::EntitlementId),
            "state_from" => word(Word::StateFrom),
            "state_to" => word(Word::StateTo),
            "since" => self.since = Some(integer()?),
            "until" => self.until = Some(integer()?),
            "limit" => {
                let limit = usize::try_from(integer()?).ok();
                let fits = limit.filter(|limit| (1..=PAGE).contains(limit));
                self.limit = fits.ok_or_else(|| bad("must be 1 to 100"))?;
            }
            "cursor" => {
                self.before_pos = Some(cursor(value).ok_or_else(|| bad("is not a cursor"))?);
            }
            _ => return Err(fault(Reason::InvalidField, "unknown query parameter")),
        }
        Ok(())
    }

    fn reaches(&self, row: &Stored) -> bool {
        !self.tenants_only || row.stream.as_tenant().is_some()
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

/// A position as it was shown: lower-case hexadecimal without leading zeros, nothing else.
fn cursor(text: &str) -> Option<u64> {
    let pos = u64::from_str_radix(text, 16).ok()?;
    (format!("{pos:x}") == text && i64::try_from(pos).is_ok()).then_some(pos)
}

/// A page of receipts, newest first: `{"receipts":[…],"next":"<cursor>"}`; no `next` on the last.
///
/// `read` answers a query of the store, `intact` tells whether a receipt is as it was sealed; only
/// receipts that are shown are asked about. One that is not intact is named and not shown, since
/// one altered row must not hide the others: `{"id","stream","seq","failed_verification":true}`.
/// One that cannot be read cannot be filtered either, and is named whatever the filter is.
pub(crate) fn page(
    filter: &Filter,
    read: impl Fn(&Query) -> Result<Vec<Stored>, ReadError>,
    intact: &dyn Fn(&Stored) -> bool,
) -> Result<Vec<u8>, ReadError> {
    let mut query =
        Query { stream: filter.stream.clone(), before_pos: filter.before_pos, scan_limit: 0 };
    let mut bytes = b"{\"receipts\":[".to_vec();
    let (mut scanned, mut shown, mut shown_last) = (0, 0, None);
    let next = 'pages: loop {
        query.scan_limit = READ.min(SCAN_MAX - scanned);
        let rows = read(&query)?;
        for row in rows.iter().filter(|row| filter.reaches(row)) {
            let view = View::scan(&row.core).ok();
            if view.as_ref().is_some_and(|view| !filter.admits(view)) {
                continue;
            }
            if shown == filter.limit {
                // One more matches: the next page begins behind the last one shown.
                break 'pages shown_last;
            }
            if shown > 0 {
                bytes.push(b',');
            }
            bytes.extend(rendered(row, intact));
            (shown, shown_last) = (shown + 1, Some(row.pos));
        }
        scanned += rows.len();
        let older = rows.last().filter(|_| rows.len() >= query.scan_limit).map(|row| row.pos);
        if older.is_none() || shown == filter.limit || scanned >= SCAN_MAX {
            break older;
        }
        query.before_pos = older;
    };
    bytes.push(b']');
    if let Some(pos) = next {
        bytes.extend_from_slice(format!(",\"next\":\"{pos:x}\"").as_bytes());
    }
    bytes.push(b'}');
    Ok(bytes)
}

fn rendered(row: &Stored, intact: &dyn Fn(&Stored) -> bool) -> Vec<u8> {
    // Asked first, and of an unreadable one as well: asking is what raises the alarm.
    let public = intact(row).then(|| public_bytes(&row.core, row.hash, row.chain_hash));
    let Some(Ok(bytes)) = public else {
        let stub = json!({
            "id": row.id.to_string(),
            "stream": row.stream.as_str(),
            "seq": row.seq,
            "failed_verification": true,
        });
        return stub.to_string().into_bytes();
    };
    bytes
}

#[cfg(test)]
mod tests;
