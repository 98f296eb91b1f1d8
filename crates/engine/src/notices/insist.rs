//! How long a channel is insisted on.
//!
//! Owns: the pauses between tries, and what makes a notice needless: only such a one is ever given
//! up. Refuses to know: how a channel is asked, and how the end of an attempt is sealed.
//!
//! A page that is lost is worse than a channel that is asked for ever. So a page is tried until the
//! far side has taken it, unless something newer on the channel says it better, another page waits
//! behind it, or another channel that reaches people has taken the same step. What calls nobody is
//! news: for a day, and not once it may have been heard three times.

use std::time::Duration;

use governors::notices::NoticesState;
use ledger::View;
use tokio::time::Instant;

use super::{LOOK_MAX, Place, Teller, lists, names};
use crate::commit::Refused;
use crate::ports::Stored;

/// The first wait before a notice is tried again, doubled up to the last.
const AGAIN_FIRST: Duration = Duration::from_secs(2);
pub(super) const AGAIN_LAST: Duration = Duration::from_secs(60);
/// The wait before what may have been taken more than once is told again.
const AGAIN_UNSURE: Duration = Duration::from_secs(15 * 60);
/// Tries without success after which others are told in a channel's place; at once where it asks
/// for a wait longer than [`AGAIN_LAST`].
pub(super) const FAILURES_MAX: u32 = 3;
/// Tries after which a needless notice is given up: about five minutes after the first.
pub(super) const TRIES_MAX: u32 = 10;
/// The age from which on a needless notice is given up however often it was tried: a far side that
/// asks for long pauses, or a service that was down.
pub(super) const AGE_MAX_S: i64 = 15 * 60;
/// How long what calls nobody is news.
const NEWS_MAX_S: i64 = 24 * 60 * 60;
/// Pages of receipts that are looked through for what stands behind a notice. What is further away
/// makes nothing needless.
const PAGES_MAX: usize = 64;

/// The wait before the next try: what the far side asks for, but never less than a backoff, nor
/// past `left`, the time until the notice is old.
pub(super) fn wait(failures: u32, after: Option<Duration>, left: Duration) -> Duration {
    let backoff = AGAIN_FIRST.saturating_mul(1 << failures.min(8)).min(AGAIN_LAST);
    after.map_or(backoff, |after| after.min(left).max(backoff))
}

/// True for a receipt that calls people: an incident is there, or is worse than anybody was told,
/// or a step of its ladder is due.
fn is_page(view: &View<'_>) -> bool {
    let Some(rule) = view.rule else { return false };
    match &*rule.text() {
        "incident.open" | "incident.escalate" | "incident.reroute" => true,
        // With the step of a ladder that begins.
        "incident.join" | "incident.grade" => view.meta("step").is_some(),
        _ => false,
    }
}

/// A notice that waits though nobody says that it was not taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet {
    seq: u64,
    until: Instant,
}

impl Teller {
    /// From now on the notice is told again only after a long time.
    pub(super) fn be_quiet(&mut self, seq: u64) {
        self.quiet = Some(Quiet { seq, until: Instant::now() + AGAIN_UNSURE });
    }

    /// Whether the notice is not to be told again yet.
    pub(super) fn is_quiet(&self, seq: u64) -> bool {
        self.quiet.is_some_and(|quiet| quiet.seq == seq && Instant::now() < quiet.until)
    }

    /// Whether nobody needs the notice any more.
    pub(super) async fn is_needless(
        &self,
        place: &Place,
        stored: &Stored,
        is_unsure: bool,
    ) -> Result<bool, Refused> {
        let is_stale = View::scan(&stored.core).is_ok_and(|view| {
            let is_old = view.at.plus_secs(NEWS_MAX_S) <= self.engine.clock().now();
            !is_page(&view) && (is_unsure || is_old)
        });
        if is_stale {
            return Ok(true);
        }
        let state = self.notices(place).await?;
        Ok(self.is_taken(&state, stored)
            || self.stands_behind(place, stored, is_unsure, Some(&state)).await?)
    }

    /// Whether something newer on the channel says it better.
    pub(super) async fn is_outpaced(
        &self,
        place: &Place,
        stored: &Stored,
        is_unsure: bool,
    ) -> Result<bool, Refused> {
        self.stands_behind(place, stored, is_unsure, None).await
    }

    /// Looks through what stands behind a notice. A page is outpaced by another one of its
    /// incident, and by its end; anything else by all that is newer of its incident. Nothing holds
    /// up the pages of other incidents: whoever hears one of them looks. Where there is a `state`,
    /// it is enough that others were told in the place of the channel.
    async fn stands_behind(
        &self,
        place: &Place,
        stored: &Stored,
        is_unsure: bool,
        state: Option<&NoticesState>,
    ) -> Result<bool, Refused> {
        let Ok(notice) = View::scan(&stored.core) else { return Ok(false) };
        let subject = notice.subject.map(|subject| subject.text());
        let may_be_any = is_unsure || !is_page(&notice);
        let mut from = stored.seq + 1;
        for _ in 0..PAGES_MAX {
            let page = self.engine.incident_page(place.as_ref(), from, LOOK_MAX).await?;
            let is_enough = page.iter().any(|later| {
                let Ok(view) = View::scan(&later.core) else { return false };
                let is_its = view.subject.map(|subject| subject.text()) == subject;
                if !lists(&view, "tell", &self.facts.name) {
                    let is_instead =
                        view.meta_text("unreachable").as_deref() == Some(&*self.facts.name);
                    return is_its
                        && is_instead
                        && state.is_some_and(|state| self.is_taken(state, later));
                }
                let is_end = view.rule.is_some_and(|rule| rule.is("incident.resolve"));
                match is_its {
                    true => may_be_any || is_end || is_page(&view),
                    false => is_page(&view),
                }
            });
            let Some(last) = page.last().filter(|_| !is_enough && page.len() == LOOK_MAX) else {
                return Ok(is_enough);
            };
            from = last.seq + 1;
        }
        Ok(false)
    }

    /// Whether another channel that reaches people has taken what the receipt says.
    fn is_taken(&self, state: &NoticesState, stored: &Stored) -> bool {
        let channels = self.courier.channels();
        let others = channels.iter().filter(|facts| facts.name != self.facts.name);
        others.filter(|facts| !facts.shows_states()).any(|facts| {
            let held = state.channel(&facts.name);
            held.is_some_and(|held| held.has_taken(stored.seq))
                && names(stored, "tell", &facts.name)
        })
    }

    /// What is known of all channels in the chain or the lane.
    pub(super) async fn notices(&self, place: &Place) -> Result<NoticesState, Refused> {
        self.engine.notices_at(place).await
    }
}
