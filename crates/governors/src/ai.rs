//! What is known of a tenant's calls to models, folded from its receipts.
//!
//! Owns: which calls are open and what is reserved for them, what settled ones used and cost, and
//! the tenant's own limits. Refuses to know: plans, prices, and what may be called.
//!
//! Limits belong to the catalogue, which no receipt holds. So the fold counts by day, by month and
//! without end whichever of them is in force, and each reservation repeats the limits that it was
//! granted under: by them INV-9 is checked again here.

use std::sync::Arc;

use ledger::{Kind, View};
use serde::{Deserialize, Serialize};
use types::limits::{CALL_TOKENS, INTEGER_MAX, MODEL_CHARS, MODELS_PER_TENANT};
use types::{Micros, Operation, ReceiptId, Usage, limits};

use crate::command::OutcomeStatus;
use crate::draft::{is_keepable, rule};
use crate::period::{Day, Period};
use crate::prices::{MILLION, PRICE_UNITS_MAX};
use crate::snapshot::word::{self, Word};
use crate::state::{FoldError, TenantState};
use crate::tally::{Level, Settled, Tally, count, sum};

/// The metadata entries of the buckets of [`Usage`], in their order.
pub(crate) const TOKENS: [&str; Usage::BUCKETS.len()] = [
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "image_tokens",
    "tool_tokens",
];

/// Where the use of models is added up that are too many to be told apart.
pub(crate) const OTHER: &str = "other";

/// The calls of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AiState {
    /// In ascending order of attempts.
    open: Vec<Reservation>,
    /// The day of the newest receipt of these: what is counted by a period that was over before
    /// then has begun anew.
    day: Day,
    of_day: Tally,
    of_month: Tally,
    ever: Tally,
    /// Of the month, in ascending order of names.
    models: Vec<ModelUse>,
    own: Option<Own>,
    level: Level,
}

/// One call that is open. Cloned with its state once in every commit of a busy tenant, hence the
/// shared text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reservation {
    #[serde(with = "word")]
    attempt: ReceiptId,
    #[serde(with = "word")]
    pub(crate) operation: Operation,
    /// The name that was asked for.
    #[serde(with = "shared")]
    pub(crate) model: Arc<str>,
    /// All that is set aside for it.
    pub(crate) micros: i64,
    /// Tokens of the answer among that.
    pub(crate) output: u64,
    /// What a further one would cost, in micros per million.
    pub(crate) output_price: u64,
}

/// What one model was used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelUse {
    #[serde(with = "shared")]
    pub(crate) name: Arc<str>,
    #[serde(with = "counts")]
    pub(crate) usage: Usage,
    pub(crate) calls: u64,
    pub(crate) micros: i64,
}

/// Limits that an operator set for this tenant alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Own {
    pub(crate) calls: Option<u64>,
    pub(crate) spend_micros: Option<i64>,
    #[serde(with = "word")]
    pub(crate) period: Period,
}

/// The states of a tenant's limits, as receipts spell them.
pub(crate) const OF_PLAN: &str = "plan";
pub(crate) const OWN: &str = "own";

impl AiState {
    /// The call that this attempt began, if it is open.
    pub(crate) fn reservation(&self, attempt: ReceiptId) -> Option<&Reservation> {
        self.find(attempt).ok().map(|at| &self.open[at])
    }

    pub(crate) fn open(&self) -> impl ExactSizeIterator<Item = ReceiptId> + '_ {
        self.open.iter().map(|held| held.attempt)
    }

    pub(crate) fn reserved_micros(&self) -> i64 {
        self.open.iter().fold(0, |all, held| all.saturating_add(held.micros))
    }

    pub(crate) fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }

    pub(crate) fn own_word(&self) -> &'static str {
        if self.own.is_some() { OWN } else { OF_PLAN }
    }

    /// What was settled in the period of that kind which holds `at`.
    pub(crate) fn tally(&self, period: Period, at: Micros) -> Tally {
        if period.is_over(self.day, Day::of(at)) {
            return Tally::default();
        }
        match period {
            Period::Day => self.of_day,
            Period::Month => self.of_month,
            Period::Ever => self.ever,
        }
    }

    /// What was last told of the limits in force in the period which holds `at`.
    pub(crate) fn level(&self, at: Micros) -> Level {
        if self.period().is_over(self.day, Day::of(at)) { Level::Ok } else { self.level }
    }

    /// The use of the month which holds `at`.
    pub(crate) fn models(&self, at: Micros) -> &[ModelUse] {
        if Period::Month.is_over(self.day, Day::of(at)) { &[] } else { &self.models }
    }

    /// By what limits are counted; plans know months only.
    fn period(&self) -> Period {
        self.own.map_or(Period::Month, |own| own.period)
    }

    fn find(&self, attempt: ReceiptId) -> Result<usize, usize> {
        self.open.binary_search_by(|held| held.attempt.cmp(&attempt))
    }

    /// Begins the periods that hold `at`. Only receipts move time on, so that what was decided and
    /// what is folded are of the same period.
    fn roll(&mut self, at: Micros) {
        self.level = self.level(at);
        if Period::Month.is_over(self.day, Day::of(at)) {
            self.models.clear();
        }
        self.of_day = self.tally(Period::Day, at);
        self.of_month = self.tally(Period::Month, at);
        self.day = self.day.max(Day::of(at));
    }

    /// INV-9, where it is read: what was granted does not pass the limits that it names.
    fn check(
        &self,
        receipt: &View<'_>,
        more_calls: u64,
        more_micros: i64,
    ) -> Result<(), FoldError> {
        let used = self.tally(self.period(), receipt.at);
        let calls = used.all_calls() + self.open.len() as u64 + more_calls;
        let micros = used.all_micros().saturating_add(self.reserved_micros());
        let over = |most: i64, of: i64| of > most;
        let calls_over = receipt
            .meta_int(CALLS_LIMIT)
            .is_some_and(|most| over(most, i64::try_from(calls).unwrap_or(i64::MAX)));
        // What costs nothing passes no limit, even one that is passed already.
        let micros_over = more_micros > 0
            && receipt
                .meta_int(SPEND_LIMIT)
                .is_some_and(|most| over(most, micros.saturating_add(more_micros)));
        if calls_over || micros_over { Err(FoldError::OverLimit) } else { Ok(()) }
    }

    fn reserve(&mut self, held: Reservation, receipt: &View<'_>) -> Result<(), FoldError> {
        self.check(receipt, 1, held.micros)?;
        let Err(at) = self.find(held.attempt) else { return Err(FoldError::SecondAttempt) };
        self.roll(receipt.at);
        self.open.insert(at, held);
        Ok(())
    }

    fn top_up(&mut self, receipt: &View<'_>) -> Result<(), FoldError> {
        let at = self.settled_by(receipt)?;
        let (micros, output) = (money(receipt, RESERVED)?, tokens(receipt, OUTPUT_MAX)?);
        let held = &self.open[at];
        if micros < held.micros || output <= held.output {
            return Err(FoldError::Field { field: OUTPUT_MAX });
        }
        self.check(receipt, 0, micros - held.micros)?;
        self.roll(receipt.at);
        let held = &mut self.open[at];
        (held.micros, held.output) = (micros, output);
        Ok(())
    }

    /// Where the call is open that this receipt is about.
    fn settled_by(&self, receipt: &View<'_>) -> Result<usize, FoldError> {
        let attempt = receipt.intent.ok_or(FoldError::Field { field: "intent" })?;
        self.find(attempt).map_err(|_| FoldError::NotReserved)
    }

    fn settle(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        let at = self.settled_by(receipt)?;
        let status = receipt
            .status
            .and_then(|raw| OutcomeStatus::ALL.into_iter().find(|status| raw.is(status.as_str())))
            .ok_or(FoldError::Field { field: "status" })?;
        let micros = money(receipt, COST)?;
        let settled = match (rule, status) {
            (rule::BUDGET_CHARGE, _) => Settled::Known { micros },
            (_, OutcomeStatus::Error) => Settled::Released,
            (_, OutcomeStatus::Success | OutcomeStatus::Timeout | OutcomeStatus::Unknown) => {
                Settled::Unknown { micros }
            }
        };
        let usage = usage(receipt)?;
        self.roll(receipt.at);
        let held = self.open.remove(at);
        for tally in [&mut self.of_day, &mut self.of_month, &mut self.ever] {
            *tally = tally.and(settled, held.micros);
        }
        if settled != Settled::Released {
            let priced = receipt.meta_text(PRICE);
            self.used(priced.as_deref().unwrap_or(&held.model), &usage, settled.micros());
        }
        Ok(())
    }

    fn used(&mut self, name: &str, usage: &Usage, micros: i64) {
        let find = |models: &[ModelUse], name: &str| {
            models.binary_search_by(|model| (*model.name).cmp(name))
        };
        let named = self.models.iter().filter(|model| &*model.name != OTHER).count();
        let place = match find(&self.models, name) {
            Err(_) if named >= MODELS_PER_TENANT => {
                find(&self.models, OTHER).map_err(|at| (at, OTHER))
            }
            place => place.map_err(|at| (at, name)),
        };
        let at = match place {
            Ok(at) => at,
            Err((at, name)) => {
                let (name, usage) = (Arc::from(name), Usage::default());
                self.models.insert(at, ModelUse { name, usage, calls: 0, micros: 0 });
                at
            }
        };
        let model = &mut self.models[at];
        model.usage = Usage::of(model.usage.plus(usage).counts().map(|tokens| count(tokens, 0)));
        model.calls = count(model.calls, 1);
        model.micros = sum(model.micros, micros);
    }

    fn set(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        if !receipt.state_from.is_some_and(|from| from.is(self.own_word())) {
            return Err(FoldError::StateFrom);
        }
        let own = if rule == rule::BUDGET_SET { Some(Own::read(receipt)?) } else { None };
        self.roll(receipt.at);
        self.own = own;
        Ok(())
    }

    /// Folds a crossing. It stands behind the result that it came of, so no time has passed: even
    /// where midnight lies between the two, it speaks of the period before.
    fn tell(&mut self, receipt: &View<'_>) -> Result<(), FoldError> {
        if !receipt.state_from.is_some_and(|from| from.is(self.level.as_str())) {
            return Err(FoldError::StateFrom);
        }
        let to = receipt.state_to;
        let to = to.and_then(|to| Level::ALL.into_iter().find(|level| to.is(level.as_str())));
        self.level = to.ok_or(FoldError::Field { field: "state_to" })?;
        Ok(())
    }

    /// True when a fold can lead to this state.
    pub(crate) fn is_folded(&self) -> bool {
        let calls = self.models.iter().fold(0, |all, model| count(all, model.calls));
        let named = self.models.iter().filter(|model| &*model.name != OTHER).count();
        self.open.is_sorted_by(|a, b| a.attempt < b.attempt)
            && self.open.len() <= limits::RESERVATIONS_PER_TENANT
            && self.open.iter().all(Reservation::is_folded)
            && self.day.is_shown()
            && self.ever.is_folded(None)
            && self.of_month.is_folded(Some(&self.ever))
            && self.of_day.is_folded(Some(&self.of_month))
            && self.models.is_sorted_by(|a, b| a.name < b.name)
            && named <= MODELS_PER_TENANT
            && self.models.iter().all(ModelUse::is_folded)
            && calls == count(self.of_month.all_calls(), 0)
            && self.own.is_none_or(|own| own.is_permitted())
    }
}

/// Entries of metadata that the fold reads; what the others say is for people.
pub(crate) const RESERVED: &str = "reserved_micros";
pub(crate) const OUTPUT_MAX: &str = "output_max";
pub(crate) const OUTPUT_PRICE: &str = "output_price";
pub(crate) const CALLS_LIMIT: &str = "calls_limit";
pub(crate) const SPEND_LIMIT: &str = "spend_limit_micros";
pub(crate) const COST: &str = "cost_micros";
pub(crate) const PRICE: &str = "price";

impl Reservation {
    fn read(receipt: &View<'_>) -> Result<Reservation, FoldError> {
        let operation = Operation::ALL.into_iter().find(|known| receipt.action.is(known.action()));
        let model = receipt.subject.ok_or(FoldError::Field { field: "subject" })?;
        let reservation = Reservation {
            attempt: receipt.id,
            operation: operation.ok_or(FoldError::Field { field: "action" })?,
            model: model.text().as_ref().into(),
            micros: money(receipt, RESERVED)?,
            output: tokens(receipt, OUTPUT_MAX)?,
            output_price: tokens(receipt, OUTPUT_PRICE)?,
        };
        if reservation.is_folded() {
            Ok(reservation)
        } else {
            Err(FoldError::Field { field: OUTPUT_MAX })
        }
    }

    fn is_folded(&self) -> bool {
        is_name(&self.model)
            && (0..=INTEGER_MAX).contains(&self.micros)
            && self.output <= CALL_TOKENS
            && u128::from(self.output_price) <= u128::from(PRICE_UNITS_MAX) * MILLION
    }
}

impl ModelUse {
    fn is_folded(&self) -> bool {
        let counts = self.usage.counts().into_iter().chain([self.calls]);
        is_name(&self.name)
            && self.calls > 0
            && (0..=INTEGER_MAX).contains(&self.micros)
            && counts.into_iter().all(|counted| counted <= INTEGER_MAX.unsigned_abs())
    }
}

impl Own {
    fn read(receipt: &View<'_>) -> Result<Own, FoldError> {
        let period = receipt.meta_text("period").and_then(|word| Period::from_word(&word));
        let calls = receipt.meta_int("calls");
        let own = Own {
            calls: calls.map(i64::unsigned_abs),
            spend_micros: receipt.meta_int("spend_micros"),
            period: period.ok_or(FoldError::Field { field: "period" })?,
        };
        if calls.is_some_and(|calls| calls < 0) || !own.is_permitted() {
            return Err(FoldError::Field { field: "calls" });
        }
        Ok(own)
    }

    /// True when a receipt can say it.
    pub(crate) fn is_permitted(&self) -> bool {
        self.calls.is_none_or(|calls| calls <= INTEGER_MAX.unsigned_abs())
            && self.spend_micros.is_none_or(|micros| (0..=INTEGER_MAX).contains(&micros))
    }
}

impl Word for Operation {
    fn to_word(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_word(word: &str) -> Option<Operation> {
        Operation::ALL.into_iter().find(|operation| operation.as_str() == word)
    }
}

impl TenantState {
    /// Folds a receipt by one of the rules `budget.*`.
    pub(crate) fn apply_budget(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        match (receipt.kind, rule) {
            (Kind::ActionAttempt, rule::BUDGET_RESERVE) => {
                let held = Reservation::read(receipt)?;
                self.ai_or_new(|ai| ai.reserve(held, receipt))
            }
            (Kind::Transition, rule::BUDGET_TOP_UP) => self.ai_of_call()?.top_up(receipt),
            (Kind::ActionResult, rule::BUDGET_CHARGE | rule::BUDGET_SETTLE) => {
                self.ai_of_call()?.settle(rule, receipt)
            }
            (Kind::Transition, rule::BUDGET_LEVEL) => self.ai_of_call()?.tell(receipt),
            (Kind::Transition, rule::BUDGET_SET | rule::BUDGET_CLEAR) => {
                self.ai_or_new(|ai| ai.set(rule, receipt))
            }
            // A refusal left everything as it was.
            (Kind::Refusal, _) => Ok(()),
            (Kind::Transition | Kind::ActionAttempt | Kind::ActionResult, _) => {
                Err(FoldError::UnknownRule)
            }
        }
    }

    fn ai_of_call(&mut self) -> Result<&mut AiState, FoldError> {
        self.ai.as_deref_mut().ok_or(FoldError::NotReserved)
    }

    /// Most tenants call no model, and one whose first receipt does not fold is among them still.
    fn ai_or_new(
        &mut self,
        fold: impl FnOnce(&mut AiState) -> Result<(), FoldError>,
    ) -> Result<(), FoldError> {
        match &mut self.ai {
            Some(ai) => fold(ai),
            None => {
                let mut ai = Box::default();
                fold(&mut ai)?;
                self.ai = Some(ai);
                Ok(())
            }
        }
    }
}

/// True for what may stand in a receipt as the name of a model, a price or a provider.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && is_keepable(text, MODEL_CHARS)
}

fn money(receipt: &View<'_>, field: &'static str) -> Result<i64, FoldError> {
    receipt.meta_int(field).filter(|micros| *micros >= 0).ok_or(FoldError::Field { field })
}

fn tokens(receipt: &View<'_>, field: &'static str) -> Result<u64, FoldError> {
    money(receipt, field).map(i64::unsigned_abs)
}

/// One walk through the metadata, because a busy tenant's receipts are folded a thousand times a
/// second and more.
fn usage(receipt: &View<'_>) -> Result<Usage, FoldError> {
    let mut counts = [0; TOKENS.len()];
    for (key, value) in receipt.metadata() {
        let Some(at) = TOKENS.iter().position(|name| *name == key) else { continue };
        counts[at] = match value {
            ledger::scan::MetaView::Int(tokens) if tokens >= 0 => tokens.unsigned_abs(),
            _ => return Err(FoldError::Field { field: TOKENS[at] }),
        };
    }
    Ok(Usage::of(counts))
}

/// Text that many own, as text.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}

/// Usage as the list of its counts.
mod counts {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use types::Usage;

    pub(super) fn serialize<S: Serializer>(usage: &Usage, to: S) -> Result<S::Ok, S::Error> {
        usage.counts().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Usage, D::Error> {
        <[u64; Usage::BUCKETS.len()]>::deserialize(from).map(Usage::of)
    }
}
