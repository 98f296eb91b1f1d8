//! Telling: what stands in `_incidents` with a `tell` goes out over its channels.
//!
//! Owns: the order on each channel, when one is asked again, and what is done about an attempt that
//! nobody knows the end of. Refuses to know: how a channel is spoken to, what a notice says, and
//! who is on call.
//!
//! While a shared store is away the same is done on the lane beside the chain; what a channel has
//! taken there is not told again when the lane is carried over. That is known when it is, but for
//! what the channel takes between two tries to carry it over: so the lane is asked again.
//!
//! What if the process dies here? Before the attempt is durable nothing was sent. After it the next
//! process settles it as unknown, and tells it again: to a far side that recognises repeats nothing
//! happens twice, and another is told that it may be hearing this again. A page that is lost is
//! worse than one that comes twice.

mod insist;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use dialect::notify::Notice;
use futures_util::future::join_all;
use governors::incident::incident_number;
use governors::notices::{Channel, NoticesState};
use governors::{Command, IncidentChange, IncidentDeed, NoticeChange, TellOutcome, Telling};
use ledger::View;
use tokio::sync::watch;
use types::{LaneId, Micros, Reason, ReceiptId, StreamName, limits};

use crate::act::{Engine, Request};
use crate::carry::is_told;
use crate::commit::Refused;
use crate::incidents;
use crate::notify::{ChannelFacts, Courier, Delivery};
use crate::ports::{Query, Stored};
use crate::spool::Spool;
use crate::supervise::Stop;
use crate::wording::notice;
use insist::{AGAIN_LAST, AGE_MAX_S, FAILURES_MAX, Quiet, TRIES_MAX, wait};

pub use trial::Tested;

/// The subsystem that tells.
pub(crate) const NOTICES: &str = "notices_sup";

/// How often a channel looks for what is new though nobody has said that there is.
const LOOK: Duration = Duration::from_secs(60);
/// The same where other instances write what this one may have to tell.
const LOOK_SHARED: Duration = Duration::from_secs(5);
/// The wait while somebody else tells the channel something.
const OTHERS: Duration = Duration::from_secs(2);
/// The wait after a failed look.
const FAILED_LOOK: Duration = Duration::from_secs(5);
/// What is said of an attempt that nobody has seen the end of.
const LEFT: &str = "whoever tried did not live to see the end";
/// Receipts of one look.
const LOOK_MAX: usize = 64;
/// Tells every channel what is for it, each on its own: none waits for another.
pub(crate) async fn tell(engine: Engine, courier: Arc<dyn Courier>, stop: Stop) {
    let channels = courier.channels();
    let each = channels.into_iter().map(|facts| {
        let teller = Teller {
            told: engine.inner().common.told.subscribe(),
            engine: engine.clone(),
            courier: Arc::clone(&courier),
            facts,
            chain: Cursor::default(),
            lane: None,
            owed: None,
            quiet: None,
        };
        teller.run(stop.clone())
    });
    join_all(each).await;
}

fn stream() -> StreamName {
    StreamName::system(limits::STREAM_NOTICES)
}

impl Engine {
    /// What was told over which channel; while a shared store is away, since it is.
    ///
    /// # Errors
    /// The reasons of a store that does not answer.
    pub async fn notices(&self) -> Result<NoticesState, Refused> {
        self.notices_at(&self.outage().spools.current()).await
    }

    async fn notices_at(&self, place: &Place) -> Result<NoticesState, Refused> {
        let loaded = match place {
            Some(spool) => self.load_lane(&stream().lane(spool.lane)).await?,
            None => self.load(&stream()).await?,
        };
        Ok(loaded.live.now.state.notices().cloned().unwrap_or_default())
    }
}

/// One channel.
struct Teller {
    engine: Engine,
    courier: Arc<dyn Courier>,
    facts: ChannelFacts,
    /// Changes when there is something to tell.
    told: watch::Receiver<u64>,
    chain: Cursor,
    lane: Option<(LaneId, Cursor)>,
    /// The end of an attempt that the store has not taken yet.
    owed: Option<(ReceiptId, TellOutcome, Option<&'static str>)>,
    /// What is not to be told again for a while.
    quiet: Option<Quiet>,
}

/// How far a chain or a lane has been looked through.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// Nothing before this place is for the channel.
    from: u64,
    /// It is known where the channel stands.
    is_begun: bool,
}

/// Where something is told: the lane of a spool, or the chain itself.
type Place = Option<Arc<Spool>>;

/// What comes after a turn.
enum Next {
    /// The next turn, at once.
    Turn,
    /// The next turn, after a wait that nothing cuts short.
    Wait(Duration),
    /// Nothing, until there is something to tell.
    Idle,
}

/// A receipt that is to be told.
struct Due {
    stored: Stored,
    /// Something behind it is for the channel and about the same incident.
    is_outdated: bool,
    /// Whether the channel has taken something that was said of its incident afterwards.
    has_heard_more: bool,
}

impl Teller {
    async fn run(mut self, mut stop: Stop) {
        self.orphan().await;
        loop {
            // Before the look: what comes meanwhile leads to one more turn, never to one less.
            self.told.mark_unchanged();
            // A notice that is on its way is brought to its end: it is bounded by the channel's own
            // deadline, and one that is cut off is one that nobody knows the end of.
            let next = self.turn().await;
            let idle = if self.engine.store().is_shared() { LOOK_SHARED } else { LOOK };
            let (wait, is_woken) = match next {
                Next::Turn => (Duration::ZERO, false),
                Next::Wait(wait) => (wait, false),
                Next::Idle => (idle, true),
            };
            tokio::select! {
                () = stop.asked() => return,
                _ = self.told.changed(), if is_woken => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// An attempt that an earlier process has left. Where others write beside this one it may be
    /// theirs, and is left to its age.
    async fn orphan(&self) {
        if self.engine.store().is_shared() {
            return;
        }
        let Ok(Some(channel)) = self.channel(&None).await else { return };
        if let Some(open) = channel.open {
            let _ = self.settle(&None, open.attempt, TellOutcome::Unknown, Some(LEFT)).await;
        }
    }

    /// How the channel stands in its chain or lane.
    async fn channel(&self, place: &Place) -> Result<Option<Channel>, Refused> {
        Ok(self.notices(place).await?.channel(&self.facts.name).cloned())
    }

    fn cursor(&mut self, place: &Place) -> &mut Cursor {
        let Some(lane) = place.as_ref().map(|spool| spool.lane) else { return &mut self.chain };
        if self.lane.is_none_or(|(held, _)| held != lane) {
            self.lane = None;
        }
        &mut self.lane.get_or_insert((lane, Cursor::default())).1
    }

    async fn turn(&mut self) -> Next {
        let place = self.engine.outage().spools.current();
        let next = match &place {
            // Held until the end of what is told is sealed: the lane is carried over after it.
            Some(spool) => match spool.telling.try_read() {
                Ok(_telling) => self.turn_at(&place).await,
                Err(_) => Ok(Next::Wait(OTHERS)),
            },
            None => match self.pay().await {
                Ok(()) => self.turn_at(&place).await,
                Err(refused) => Err(refused),
            },
        };
        next.unwrap_or_else(|refused| {
            tracing::warn!(event = "notice_waits", channel = %self.facts.name, %refused, "a notice cannot be recorded yet");
            Next::Wait(FAILED_LOOK)
        })
    }

    /// Seals the end of an attempt that the store has not taken before.
    async fn pay(&mut self) -> Result<(), Refused> {
        let Some((attempt, outcome, why)) = self.owed else { return Ok(()) };
        match self.settle(&None, attempt, outcome, why).await {
            Ok(()) => {}
            // Somebody took it for nobody's, and will tell it again.
            Err(refused) if refused.reason == Reason::StateError => {}
            Err(refused) => return Err(refused),
        }
        self.owed = None;
        Ok(())
    }

    /// Tells the next notice, if there is one.
    async fn turn_at(&mut self, place: &Place) -> Result<Next, Refused> {
        if !self.cursor(place).is_begun {
            let Some(channel) = self.channel(place).await? else {
                return self.begin(place).await;
            };
            let next = channel.next;
            let cursor = self.cursor(place);
            (cursor.from, cursor.is_begun) = (cursor.from.max(next), true);
        }
        // Who has nothing to do asks nothing else.
        let Some(due) = self.look(place).await? else { return Ok(Next::Idle) };
        let Some(channel) = self.channel(place).await? else {
            self.cursor(place).is_begun = false;
            return Ok(Next::Turn);
        };
        if let Some(open) = channel.open {
            if !open.is_nobodys(self.engine.clock().now()) {
                return Ok(Next::Wait(OTHERS));
            }
            self.settle(place, open.attempt, TellOutcome::Unknown, Some(LEFT)).await?;
            return Ok(Next::Turn);
        }
        if channel.next > due.stored.seq {
            // Another instance has told it.
            self.cursor(place).from = channel.next;
            return Ok(Next::Turn);
        }
        self.one(place, &channel, due).await
    }

    /// A channel that was never there is told what comes from now on; of a lane, all.
    async fn begin(&self, place: &Place) -> Result<Next, Refused> {
        let from = match place {
            Some(_) => 0,
            None => {
                let newest = |store: &dyn crate::ports::Store| {
                    let stream = Some(incidents::stream());
                    store.query(&Query { stream, scan_limit: 1, ..Query::default() })
                };
                let newest = self.engine.blocking(newest).await?;
                newest.first().map_or(0, |stored| stored.seq + 1)
            }
        };
        let channel = self.facts.name.clone();
        self.act(place, NoticeChange::Begin { channel, from }).await?;
        Ok(Next::Turn)
    }

    /// The first receipt from here on that is for the channel.
    async fn look(&mut self, place: &Place) -> Result<Option<Due>, Refused> {
        loop {
            let from = self.cursor(place).from;
            let page = self.engine.incident_page(place.as_ref(), from, LOOK_MAX).await?;
            let is_last = page.len() < LOOK_MAX;
            let name = &*self.facts.name;
            let mut wanted = page.iter().filter(|stored| names(stored, "tell", name));
            if let Some(stored) = wanted.next().cloned() {
                let subject = subject_of(&stored);
                let is_outdated = wanted.any(|later| subject_of(later) == subject);
                // While the store was away the channel has heard what came after it.
                let has_heard_more = page.iter().any(|later| {
                    let is_later = later.seq > stored.seq && names(later, "told", name);
                    is_later && subject_of(later) == subject
                });
                self.cursor(place).from = stored.seq;
                return Ok(Some(Due { stored, is_outdated, has_heard_more }));
            }
            if let Some(last) = page.last() {
                self.cursor(place).from = last.seq + 1;
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// Makes one attempt at a notice, between its two receipts.
    async fn one(&mut self, place: &Place, channel: &Channel, due: Due) -> Result<Next, Refused> {
        let Due { stored, is_outdated, has_heard_more } = due;
        let is_begun = channel.next == stored.seq;
        let failures = if is_begun { channel.failures } else { 0 };
        let may_double = !self.facts.repeats_are_known;
        let unknowns = if is_begun && may_double { channel.unknowns } else { 0 };
        let read = View::scan(&stored.core).ok();
        let Some(view) = read.filter(|view| stored.is_intact(view)) else {
            self.engine.inner().ledger.progress.mark_tampered();
            tracing::error!(event = "notice_unreadable", receipt_id = %stored.id, "a receipt that is to be told cannot be read");
            // What comes behind it must not wait for ever.
            self.cursor(place).from = stored.seq + 1;
            return Ok(Next::Turn);
        };
        let left = self.left(view.at);
        let is_old = failures >= TRIES_MAX || left.is_zero();
        let tried = Tried { failures, unknowns, may_double, is_old };
        let is_outpaced = (tried.is_old || tried.is_unsure())
            && self.is_outpaced(place, &stored, tried.is_unsure()).await?;
        if !is_outpaced && self.is_quiet(stored.seq) {
            return Ok(Next::Wait(AGAIN_LAST));
        }
        let notice = self.worded(&view, &stored, unknowns > 0).await;
        let (name, seq, incident) = (self.facts.name.clone(), stored.seq, notice.incident.clone());
        let telling = Telling { channel: name, seq, incident: incident.clone() };
        let has_heard = place.is_none() && self.has_heard_in_lane(&view).await;
        let Some(attempt) = self.act(place, NoticeChange::Tell(telling)).await? else {
            return Ok(Next::Wait(FAILED_LOOK));
        };
        let is_shown_later = failures > 0 && is_outdated && self.facts.shows_states();
        let mut why_not = None;
        let (outcome, after) = if has_heard_more || has_heard || is_shown_later || is_outpaced {
            (TellOutcome::Superseded, Duration::ZERO)
        } else {
            let delivery = self.courier.deliver(&self.facts.name, &notice).await;
            why_not = why(&*self.courier, &self.facts.name, &delivery);
            let tried = tried.once_more(&delivery);
            let is_left = matches!(delivery, Delivery::Retry { .. } | Delivery::Unknown);
            let is_needless = (is_left && (tried.is_old || tried.is_unsure()))
                && self.is_needless(place, &stored, tried.is_unsure()).await.unwrap_or(false);
            if tried.is_unsure() {
                self.be_quiet(seq);
            }
            self.outcome(&delivery, tried, is_needless, left, &incident)
        };
        self.engine.inner().common.metrics.notices.with([outcome.as_str()]).inc();
        let is_lost = matches!(outcome, TellOutcome::Refused | TellOutcome::GivenUp);
        let is_late = failures + 1 >= FAILURES_MAX || after > AGAIN_LAST;
        if is_lost || (!outcome.is_final() && is_late) {
            // Before the outcome is sealed: a death in between would leave it untold.
            self.have_others_told(&incident).await;
        }
        if let Err(refused) = self.settle(place, attempt, outcome, why_not).await {
            if place.is_none() {
                self.owed = Some((attempt, outcome, why_not));
            }
            return Err(refused);
        }
        if outcome.is_final() {
            self.cursor(place).from = seq + 1;
            return Ok(Next::Turn);
        }
        Ok(Next::Wait(after))
    }

    /// Whether the channel has heard in a lane what the receipt says again.
    async fn has_heard_in_lane(&self, view: &View<'_>) -> bool {
        let Some(first) = view.intent.filter(|_| view.meta("said_us").is_some()) else {
            return false;
        };
        let channel = self.facts.name.clone();
        let heard = self.engine.blocking(move |store| {
            let Some(first) = store.find(first)? else { return Ok(false) };
            let Some(lane) = first.stream.lane_id() else { return Ok(false) };
            is_told(store, &stream().lane(lane), &(channel, first.seq))
        });
        // Where nobody can say, it is told: once too often is better than not at all.
        heard.await.unwrap_or(false)
    }

    /// What the notice of a receipt says.
    async fn worded(&self, view: &View<'_>, stored: &Stored, is_repeat: bool) -> Notice {
        let is_end = view.rule.is_some_and(|rule| rule.is("incident.resolve"));
        let incident = subject_of(stored).unwrap_or_default();
        let story = match incident_number(&incident).filter(|_| is_end) {
            // Without its story an end is told all the same, without its cause.
            Some(number) => self.engine.incident_story(number).await.ok().flatten(),
            None => None,
        };
        notice(view, story.as_ref(), is_repeat, self.facts.kind == "statuspage")
    }

    /// The time until what was said at `at` is old.
    fn left(&self, at: Micros) -> Duration {
        let left_us = at.plus_secs(AGE_MAX_S).0.saturating_sub(self.engine.clock().now().0);
        Duration::from_micros(u64::try_from(left_us).unwrap_or(0))
    }

    /// What an attempt has come to, and the wait before the next one. `tried` counts it.
    fn outcome(
        &self,
        delivery: &Delivery,
        tried: Tried,
        is_needless: bool,
        left: Duration,
        incident: &str,
    ) -> (TellOutcome, Duration) {
        let (channel, tries) = (&*self.facts.name, tried.failures);
        let (outcome, after) = match *delivery {
            Delivery::Delivered { .. } => return (TellOutcome::Delivered, Duration::ZERO),
            Delivery::Refused { why } => {
                tracing::error!(
                    event = "notice_refused",
                    channel,
                    incident,
                    why,
                    "a channel does not take what it is told"
                );
                return (TellOutcome::Refused, Duration::ZERO);
            }
            Delivery::Retry { after } => (TellOutcome::Again, after),
            Delivery::Unknown => (TellOutcome::Unknown, None),
        };
        if is_needless {
            tracing::error!(
                event = "notice_given_up",
                channel,
                incident,
                tries,
                "a channel has not taken a notice for too long, and nobody needs it any more"
            );
            return (TellOutcome::GivenUp, Duration::ZERO);
        }
        match tries {
            FAILURES_MAX => tracing::warn!(
                event = "notice_late",
                channel,
                incident,
                tries,
                "a channel cannot be reached or does not take what it is told"
            ),
            TRIES_MAX => tracing::error!(
                event = "notice_stuck",
                channel,
                incident,
                tries,
                "a channel has not taken a notice for too long, and nobody else has: it is tried on"
            ),
            _ => {}
        }
        (outcome, wait(tries.saturating_sub(1), after, left))
    }

    /// The incident is told over other channels, once for this one.
    async fn have_others_told(&self, incident: &str) {
        let Some(number) = incident_number(incident) else { return };
        let deed = IncidentDeed::Unreachable { channel: self.facts.name.clone() };
        let command = Command::Incident(IncidentChange::On { incident: number, deed });
        let request = Request {
            stream: incidents::stream(),
            command,
            actor: "notices".into(),
            may_register: false,
            key: None,
        };
        if let Err(refused) = self.engine.submit(request, None).await {
            tracing::warn!(event = "reroute_waits", channel = %self.facts.name, %refused, "nobody else is told yet");
        }
    }

    /// Seals what came of an attempt.
    async fn settle(
        &self,
        place: &Place,
        attempt: ReceiptId,
        outcome: TellOutcome,
        why: Option<&'static str>,
    ) -> Result<(), Refused> {
        let why = why.map(str::to_owned);
        self.act(place, NoticeChange::Told { attempt, outcome, why }).await.map(drop)
    }

    /// The receipt of what was decided. Places mean nothing in another chain, and so this goes
    /// where they were read.
    async fn act(&self, place: &Place, change: NoticeChange) -> Result<Option<ReceiptId>, Refused> {
        let request = Request {
            stream: stream(),
            command: Command::Notice(change),
            actor: "notices".into(),
            may_register: false,
            key: None,
        };
        let decided = match place {
            Some(spool) => self.engine.act_in_spool(spool, request).await?,
            None => self.engine.act_in_ledger(request, None, None).await?,
        };
        Ok(decided.map(|decided| decided.receipt.id))
    }
}

/// What stood in the way of an attempt, in our own words.
fn why(courier: &dyn Courier, channel: &str, delivery: &Delivery) -> Option<&'static str> {
    match *delivery {
        Delivery::Delivered { .. } => None,
        Delivery::Refused { why } => Some(why),
        Delivery::Retry { .. } => Some(courier.why(channel).unwrap_or("it was not taken yet")),
        Delivery::Unknown => Some(courier.why(channel).unwrap_or("nobody knows what became of it")),
    }
}

/// What an attempt has come to by itself.
const fn short(delivery: &Delivery) -> TellOutcome {
    match delivery {
        Delivery::Delivered { .. } => TellOutcome::Delivered,
        Delivery::Refused { .. } => TellOutcome::Refused,
        Delivery::Retry { .. } => TellOutcome::Again,
        Delivery::Unknown => TellOutcome::Unknown,
    }
}

/// What is known of the tries of a notice.
#[derive(Clone, Copy)]
struct Tried {
    /// Those that came to nothing.
    failures: u32,
    /// Those of them that may have been taken.
    unknowns: u32,
    /// The far side does not recognise what it has taken already.
    may_double: bool,
    /// It was tried often, or was said long ago.
    is_old: bool,
}

impl Tried {
    /// The far side takes the notice, it seems, and never says so.
    fn is_unsure(self) -> bool {
        self.unknowns >= FAILURES_MAX
    }

    /// With one that has just come to an end.
    fn once_more(self, delivery: &Delivery) -> Tried {
        let failures = self.failures.saturating_add(1);
        Tried {
            failures,
            unknowns: self.unknowns + u32::from(self.may_double && *delivery == Delivery::Unknown),
            is_old: self.is_old || failures >= TRIES_MAX,
            ..self
        }
    }
}

/// Whether the channel is in a list of channels that the receipt has.
fn names(stored: &Stored, key: &str, channel: &str) -> bool {
    View::scan(&stored.core).is_ok_and(|view| lists(&view, key, channel))
}

fn lists(view: &View<'_>, key: &str, channel: &str) -> bool {
    let listed = view.meta_text(key);
    listed.is_some_and(|listed| listed.split(',').any(|name| name == channel))
}

/// The incident that a receipt is about.
fn subject_of(stored: &Stored) -> Option<String> {
    let view = View::scan(&stored.core).ok()?;
    view.subject.map(|subject| subject.text().into_owned())
}
