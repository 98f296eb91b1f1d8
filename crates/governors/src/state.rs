//! What a stream amounts to, folded from its receipts one by one.
//!
//! Owns: the shape of a stream's state and the only way to change it. Refuses to know: how the
//! next receipt is decided. A hundred thousand of these are in memory at once, hence sorted
//! vectors and boxed text instead of maps and strings.

use ledger::{Kind, View};
use serde::{Deserialize, Serialize};
use types::{Micros, ReceiptId, StreamName, limits};

use crate::ai::AiState;
use crate::budget;
use crate::draft::{Secs, rule};
use crate::entitlement::Entitlement;
use crate::incident::IncidentsState;
use crate::keys::Owner;
use crate::notices::NoticesState;
use crate::rules::Rules;
use crate::signal::SignalState;

pub use crate::keys::{HeldKey, Keys};
pub use crate::live::{LiveState, LiveValue};

/// Why a receipt cannot follow the ones before it. Each is a defect or a damaged ledger: what a
/// governor decides always folds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// A rule that this version does not know; guessing its meaning could grant something.
    #[error("the receipt names a rule that this version does not know")]
    UnknownRule,
    /// A field that the rule needs is absent or holds no word of its table.
    #[error("the receipt lacks {field} in a form that its rule permits")]
    Field {
        /// The receipt field, or the metadata entry.
        field: &'static str,
    },
    /// A tenant's stream does not start with its registration, or holds a second one.
    #[error("the receipt does not agree with the registration of its tenant")]
    Registration,
    /// `state_from` is not the state that the earlier receipts lead to.
    #[error("the receipt starts from another state than the ones before it lead to")]
    StateFrom,
    /// A revocation is final.
    #[error("the receipt changes an entitlement that has been revoked")]
    Revoked,
    /// INV-8: at most one action of a tenant is in flight.
    #[error("the receipt starts an action while another is in flight")]
    SecondAttempt,
    /// A result without its attempt.
    #[error("the receipt settles an action that is not in flight")]
    NotInFlight,
    /// A call to a model that was never reserved for, or has a result already.
    #[error("the receipt settles a call that is not open")]
    NotReserved,
    /// INV-9: nothing is reserved beyond the limits.
    #[error("the receipt reserves more than the limit that it names")]
    OverLimit,
}

/// The state of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamState {
    /// The chain of one tenant.
    Tenant(TenantState),
    /// A chain of the service itself.
    System(SystemState),
}

/// What is known of one tenant. Opaque: governors read it, callers ask [`StreamState`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantState {
    pub(crate) registered: bool,
    /// In ascending order of ids. One that is unentitled and has nothing scheduled is not kept.
    pub(crate) entitlements: Vec<Entitlement>,
    pub(crate) revoked: Revoked,
    /// `at` of the newest quote or refused charge, in microseconds.
    pub(crate) last_call_at_us: Option<i64>,
    /// Few tenants are throttled at a time, hence the box.
    pub(crate) throttle: Option<Box<Throttle>>,
    pub(crate) signal: SignalState,
    pub(crate) keys: Keys,
    /// Most tenants call no model, and pay one pointer for it.
    pub(crate) ai: Option<Box<AiState>>,
}

/// The ids of revoked entitlements, in ascending order: revocation is final, so each is kept for
/// ever and takes no more than its id. Most tenants have none and pay one pointer for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Revoked(
    #[expect(clippy::box_collection, reason = "a vector of its own would take three words")]
    Option<Box<Vec<Box<str>>>>,
);

impl Revoked {
    pub(crate) fn ids(&self) -> &[Box<str>] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn len(&self) -> usize {
        self.ids().len()
    }

    pub(crate) fn holds(&self, id: &str) -> bool {
        self.find(id).is_ok()
    }

    fn find(&self, id: &str) -> Result<usize, usize> {
        self.ids().binary_search_by(|revoked| (**revoked).cmp(id))
    }

    fn insert(&mut self, id: &str) {
        if let Err(at) = self.find(id) {
            self.0.get_or_insert_default().insert(at, id.into());
        }
    }
}

/// A lease that keeps a tenant's calls apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Throttle {
    pub(crate) until: Secs,
    pub(crate) min_interval_ms: i64,
}

/// System streams take their own commands only. Most record and have nothing to fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemState {
    /// `_signals`: signals that name no tenant.
    Signals,
    /// `_edge`: refusals in aggregate.
    Edge,
    /// `_ops`: facts about the service.
    Ops,
    /// `_keys`: keys that belong to no tenant.
    Keys(Keys),
    /// `_settings`: live changes to settings, and blocked sources.
    Settings(Box<LiveState>),
    /// `_incidents`: alerts, silences and incidents.
    Incidents(Box<IncidentsState>),
    /// `_notices`: what was told over which channel.
    Notices(Box<NoticesState>),
    /// A system stream of another version, which takes nothing; or a lane read by itself, whose
    /// receipts go on from the state of the chain beside it.
    Unlisted,
}

/// An entitlement of a tenant, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub id: String,
    /// `unentitled`, `entitled`, `suspended`, `revoked`.
    pub state: &'static str,
    /// The plan that it was granted with.
    pub plan: Option<String>,
}

impl StreamState {
    /// The state before the first receipt.
    #[must_use]
    pub fn empty(stream: &StreamName) -> StreamState {
        if stream.is_lane() {
            return StreamState::System(SystemState::Unlisted);
        }
        if !stream.is_system() {
            return StreamState::Tenant(TenantState::default());
        }
        StreamState::System(match stream.as_str() {
            limits::STREAM_SIGNALS => SystemState::Signals,
            limits::STREAM_EDGE => SystemState::Edge,
            limits::STREAM_OPS => SystemState::Ops,
            limits::STREAM_KEYS => SystemState::Keys(Keys::default()),
            limits::STREAM_SETTINGS => SystemState::Settings(Box::default()),
            limits::STREAM_INCIDENTS => SystemState::Incidents(Box::default()),
            limits::STREAM_NOTICES => SystemState::Notices(Box::default()),
            _ => SystemState::Unlisted,
        })
    }

    /// Folds the next receipt of the stream. After an error the state is unchanged and must not
    /// be decided on.
    pub fn apply(&mut self, receipt: &View<'_>) -> Result<(), FoldError> {
        match self {
            StreamState::System(state) => state.apply(receipt),
            StreamState::Tenant(state) => state.apply(receipt),
        }
    }

    /// When [`crate::Command::Tick`] has something to do next, possibly in the past.
    #[must_use]
    pub fn next_due(&self) -> Option<Micros> {
        match self {
            StreamState::System(SystemState::Settings(state)) => {
                state.next_due().map(Secs::instant)
            }
            StreamState::System(SystemState::Incidents(state)) => state.next_due(),
            StreamState::System(_) => None,
            StreamState::Tenant(state) => state.next_due().map(Secs::instant),
        }
    }

    /// The keys that the stream holds, in ascending order of their ids; none in a stream that
    /// holds no keys. One that has expired may still be among them: ask [`HeldKey::is_valid`].
    #[must_use]
    pub fn keys(&self) -> &[HeldKey] {
        match self {
            StreamState::Tenant(state) => state.keys.held(),
            StreamState::System(SystemState::Keys(keys)) => keys.held(),
            StreamState::System(_) => &[],
        }
    }

    /// The live changes to settings and the blocked sources; `None` in every stream but
    /// `_settings`.
    #[must_use]
    pub fn live(&self) -> Option<&LiveState> {
        match self {
            StreamState::System(SystemState::Settings(state)) => Some(state),
            StreamState::System(_) | StreamState::Tenant(_) => None,
        }
    }

    /// Alerts, silences and incidents; `None` in every stream but `_incidents`.
    #[must_use]
    pub fn incidents(&self) -> Option<&IncidentsState> {
        match self {
            StreamState::System(SystemState::Incidents(state)) => Some(state),
            StreamState::System(_) | StreamState::Tenant(_) => None,
        }
    }

    /// What was told over which channel; `None` in every stream but `_notices`.
    #[must_use]
    pub fn notices(&self) -> Option<&NoticesState> {
        match self {
            StreamState::System(SystemState::Notices(state)) => Some(state),
            StreamState::System(_) | StreamState::Tenant(_) => None,
        }
    }

    /// True for a tenant that was registered.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        matches!(self, StreamState::Tenant(state) if state.registered)
    }

    /// Whether a tenant may be told at `now` what a model has answered it: the gates of a call
    /// before quota and budget. Who is not let through is refused by the call itself, with a
    /// receipt.
    #[must_use]
    pub fn holds_model(&self, rules: &Rules, model: &str, now: Micros) -> bool {
        match self {
            StreamState::Tenant(state) => budget::is_held(rules, state, model, now),
            StreamState::System(_) => false,
        }
    }

    /// What a tenant holds at `now`, as somebody who looks is told; ended ones are left out.
    pub fn entitlements(&self, now: Micros) -> impl Iterator<Item = Holding> + '_ {
        let held: &[Entitlement] = match self {
            StreamState::Tenant(state) => &state.entitlements,
            StreamState::System(_) => &[],
        };
        held.iter().map(move |held| {
            let held = held.at(now);
            let (id, plan) = (held.id().to_owned(), held.plan().map(str::to_owned));
            Holding { id, state: held.word(), plan }
        })
    }

    /// The calls to models that have no result yet, in ascending order of their attempts.
    pub fn reservations(&self) -> impl Iterator<Item = ReceiptId> + '_ {
        let ai = match self {
            StreamState::System(_) => None,
            StreamState::Tenant(state) => state.ai.as_deref(),
        };
        ai.into_iter().flat_map(AiState::open)
    }

    /// The attempt of an action that has no result yet (INV-8: there is at most one).
    #[must_use]
    pub fn in_flight(&self) -> Option<ReceiptId> {
        match self {
            StreamState::System(_) => None,
            StreamState::Tenant(state) => state.signal.flight().map(|flight| flight.attempt),
        }
    }
}

impl SystemState {
    fn apply(&mut self, receipt: &View<'_>) -> Result<(), FoldError> {
        let rule = receipt.rule.map(|raw| raw.text()).unwrap_or_default();
        match (self, receipt.kind) {
            // A refusal left everything as it was.
            (_, Kind::Refusal) => Ok(()),
            (SystemState::Keys(keys), Kind::Transition) => {
                keys.apply(&rule, receipt, Owner::SERVICE)
            }
            (SystemState::Settings(state), Kind::Transition) => state.apply(&rule, receipt),
            (SystemState::Incidents(state), Kind::Transition) => state.apply(&rule, receipt),
            (SystemState::Notices(state), _) => state.apply(&rule, receipt),
            (
                SystemState::Keys(_) | SystemState::Settings(_) | SystemState::Incidents(_),
                Kind::ActionAttempt | Kind::ActionResult,
            ) => Err(FoldError::UnknownRule),
            (
                SystemState::Signals | SystemState::Edge | SystemState::Ops | SystemState::Unlisted,
                _,
            ) => Ok(()),
        }
    }
}

impl TenantState {
    fn next_due(&self) -> Option<Secs> {
        let entitlements = self.entitlements.iter().filter_map(Entitlement::next_due);
        entitlements.chain(self.throttle.as_ref().map(|throttle| throttle.until)).min()
    }

    /// The entitlement of that id; one that was never granted is unentitled.
    pub(crate) fn entitlement(&self, id: &str) -> Entitlement {
        match self.find(id) {
            Ok(at) => self.entitlements[at].clone(),
            Err(_) if self.revoked.holds(id) => Entitlement::revoked(id),
            Err(_) => Entitlement::unentitled(id),
        }
    }

    pub(crate) fn find(&self, id: &str) -> Result<usize, usize> {
        self.entitlements.binary_search_by(|held| held.id().cmp(id))
    }

    /// True when the attempt is a call to a model that is open.
    pub(crate) fn has_reserved(&self, attempt: ReceiptId) -> bool {
        self.ai.as_deref().is_some_and(|ai| ai.reservation(attempt).is_some())
    }

    /// The gate: true when the tenant holds something active at `now`, whatever has been ticked.
    pub(crate) fn any_active(&self, now: Micros) -> bool {
        self.entitlements.iter().any(|held| held.at(now).is_entitled())
    }

    fn apply(&mut self, receipt: &View<'_>) -> Result<(), FoldError> {
        let rule = receipt.rule.map(|raw| raw.text()).unwrap_or_default();
        if self.registered == (rule == rule::REGISTER) {
            return Err(FoldError::Registration);
        }
        match (receipt.kind, &*rule) {
            (Kind::Transition, rule::REGISTER) => self.registered = true,
            (Kind::Transition, rule::QUOTE) | (Kind::Refusal, rule::CHARGE) => {
                self.last_call_at_us = Some(receipt.at.0);
            }
            (Kind::Transition, rule::THROTTLE_END) => self.throttle = None,
            (Kind::Transition, _) if rule.starts_with("entitlement.") => {
                self.apply_entitlement(&rule, receipt)?;
            }
            (Kind::Refusal, rule::EFFECTIVE) => self.apply_entitlement(&rule, receipt)?,
            (Kind::Transition, _) if rule.starts_with("signal.") => {
                self.signal.apply_transition(&rule, receipt)?;
            }
            (Kind::Transition, _) if rule.starts_with("key.") => {
                self.keys.apply(&rule, receipt, Owner::TENANT)?;
            }
            (_, _) if rule.starts_with(budget::RULES) => self.apply_budget(&rule, receipt)?,
            (Kind::Refusal, rule::GATE) => self.signal.refuse(),
            (Kind::ActionAttempt, rule::INTERVENE) => self.signal.start(receipt)?,
            (Kind::ActionResult, rule::SETTLE) => {
                if let Some(throttle) = self.signal.settle(receipt)? {
                    self.throttle = Some(Box::new(throttle));
                }
            }
            // A refusal of any other rule left everything as it was.
            (Kind::Refusal, _) => {}
            (Kind::Transition | Kind::ActionAttempt | Kind::ActionResult, _) => {
                return Err(FoldError::UnknownRule);
            }
        }
        Ok(())
    }

    fn apply_entitlement(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        let id = receipt.entitlement_id.ok_or(FoldError::Field { field: "entitlement_id" })?;
        let id = id.text();
        if self.revoked.holds(&id) {
            return Err(FoldError::Revoked);
        }
        let mut entitlement = self.entitlement(&id);
        entitlement.apply(rule, receipt)?;
        if entitlement.is_revoked() {
            self.revoked.insert(&id);
        }
        match (self.find(&id), entitlement.is_blank() || entitlement.is_revoked()) {
            (Ok(at), true) => {
                self.entitlements.remove(at);
            }
            (Ok(at), false) => self.entitlements[at] = entitlement,
            (Err(_), true) => {}
            (Err(at), false) => {
                // Most tenants hold one or two: growing by doubling would reserve four.
                if self.entitlements.len() < 4 {
                    self.entitlements.reserve_exact(1);
                }
                self.entitlements.insert(at, entitlement);
            }
        }
        Ok(())
    }
}
