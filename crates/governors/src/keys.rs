//! The key governor: which keys a tenant, or the service, holds.
//!
//! Owns: issue, rotation, end and revocation of keys, and the fold that remembers them. Refuses to
//! know: the text of any key (only its fingerprint comes here) and how one is checked.

use ledger::{Draft, Meta, View};
use serde::{Deserialize, Serialize};
use types::{Hash, KeyId, Micros, Reason, Scopes, limits};

use crate::command::KeyChange;
use crate::decision::{Context, Decision, Sealing};
use crate::draft::{Secs, is_keepable, refusal, registration, rule, transition};
use crate::snapshot::word;
use crate::state::{FoldError, TenantState};
use crate::{invalid_field, unknown_tenant};

/// The field `action` of every receipt about a key; `rule` says what was done.
const ACTION: &str = "key";

const ABSENT: &str = "absent";
const VALID: &str = "valid";
const ENDING: &str = "ending";
const REVOKED: &str = "revoked";

/// A key as its owner's chain remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldKey {
    /// SHA-256 of the key's text.
    #[serde(with = "word")]
    pub fingerprint: Hash,
    /// What it permits, at least one scope.
    #[serde(with = "word")]
    pub scopes: Scopes,
    /// What a person calls it.
    pub label: Option<Box<str>>,
    /// Until when it is valid, in whole seconds; absent means without end.
    #[serde(with = "optional_secs")]
    pub expires_at: Option<Micros>,
    /// Since when, in whole seconds.
    #[serde(with = "secs")]
    pub issued_at: Micros,
}

impl HeldKey {
    /// The public name of the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(self.fingerprint)
    }

    /// True when the key has not expired at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Micros) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// The key that a receipt of [`rule::KEY_ISSUE`] issues.
    fn read(receipt: &View<'_>, owner: Owner) -> Result<HeldKey, FoldError> {
        let field = |field| FoldError::Field { field };
        let fingerprint = receipt.meta_text("fingerprint").ok_or(field("fingerprint"))?;
        let scopes = receipt.meta_text("scopes").and_then(|text| Scopes::parse(&text));
        Ok(HeldKey {
            fingerprint: Hash::from_hex(fingerprint.as_bytes()).ok_or(field("fingerprint"))?,
            scopes: scopes.filter(|scopes| scopes.within(owner.widest)).ok_or(field("scopes"))?,
            label: receipt.meta_text("label").map(|label| label.as_ref().into()),
            expires_at: receipt.expires_at.map(Micros::from_secs),
            issued_at: Micros::from_secs(receipt.timestamp),
        })
    }

    /// The receipt to be that issues this key.
    fn issue(&self, actor: &str) -> Draft {
        let mut draft = named(transition(ACTION, rule::KEY_ISSUE, actor), self.id())
            .states(ABSENT, VALID)
            .with("fingerprint", Meta::Text(self.fingerprint.to_string().into()))
            .with("scopes", Meta::Text(self.scopes.to_string().into()));
        draft.expires_at = self.expires_at;
        match &self.label {
            Some(label) => draft.with("label", Meta::Text(label.to_string().into())),
            None => draft,
        }
    }
}

/// Whose keys they are, as far as it matters to what may be held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// The widest scopes that a key of this owner may have.
    widest: Scopes,
    /// Keys that may be valid at the same time.
    keys_max: usize,
}

impl Owner {
    pub(crate) const TENANT: Owner =
        Owner { widest: Scopes::TENANT, keys_max: limits::KEYS_PER_TENANT };
    pub(crate) const SERVICE: Owner =
        Owner { widest: Scopes::ADMIN, keys_max: limits::KEYS_OF_SERVICE };
}

/// The keys of one owner, in ascending order of their ids. Opaque: see
/// [`crate::StreamState::keys`]. Most tenants have none and pay one pointer for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Keys(
    #[expect(clippy::box_collection, reason = "a vector of its own would take three words")]
    Option<Box<Vec<HeldKey>>>,
);

impl Keys {
    pub(crate) fn held(&self) -> &[HeldKey] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The key of that id, unless it has expired: whether an expired one is still remembered
    /// depends on what else was receipted, and no answer may depend on that.
    fn valid(&self, id: KeyId, now: Micros) -> Option<&HeldKey> {
        let at = self.find(id).ok()?;
        self.held().get(at).filter(|key| key.is_valid(now))
    }

    fn find(&self, id: KeyId) -> Result<usize, usize> {
        self.held().binary_search_by_key(&id, HeldKey::id)
    }

    /// Folds one transition by a rule of keys. Whatever has expired by then drops out, which
    /// bounds the state without a timer.
    pub(crate) fn apply(
        &mut self,
        rule: &str,
        receipt: &View<'_>,
        owner: Owner,
    ) -> Result<(), FoldError> {
        if ![rule::KEY_ISSUE, rule::KEY_END, rule::KEY_REVOKE].contains(&rule) {
            return Err(FoldError::UnknownRule);
        }
        let subject = receipt.subject.map(|subject| subject.text());
        let id = subject.and_then(|subject| KeyId::parse(&subject));
        let id = id.ok_or(FoldError::Field { field: "subject" })?;
        let held = self.valid(id, receipt.at);
        let from = if held.is_some() { VALID } else { ABSENT };
        if !receipt.state_from.is_some_and(|word| word.is(from)) {
            return Err(FoldError::StateFrom);
        }
        match (rule, held) {
            (rule::KEY_ISSUE, None) => {
                let key = HeldKey::read(receipt, owner)?;
                if key.id() != id {
                    return Err(FoldError::Field { field: "subject" });
                }
                self.retain(|held| held.is_valid(receipt.at));
                if key.is_valid(receipt.at) {
                    self.insert(key);
                }
            }
            (rule::KEY_END, Some(held)) => {
                // An end may come earlier than was said before, never later.
                let end = receipt.expires_at.map(Micros::from_secs);
                let end = end.filter(|end| held.expires_at.is_none_or(|earlier| *end <= earlier));
                let end = end.ok_or(FoldError::Field { field: "expires_at" })?;
                self.end(id, end);
                self.retain(|held| held.is_valid(receipt.at));
            }
            (rule::KEY_REVOKE, Some(_)) => {
                self.retain(|held| held.id() != id && held.is_valid(receipt.at));
            }
            _ => return Err(FoldError::StateFrom),
        }
        Ok(())
    }

    fn insert(&mut self, key: HeldKey) {
        let (Ok(at) | Err(at)) = self.find(key.id());
        let keys = self.0.get_or_insert_default();
        // Most owners have one or two: growing by doubling would reserve four.
        if keys.len() < 4 {
            keys.reserve_exact(1);
        }
        keys.insert(at, key);
    }

    fn end(&mut self, id: KeyId, end: Micros) {
        let held = self.0.iter_mut().flat_map(|keys| keys.iter_mut());
        for key in held.filter(|key| key.id() == id) {
            key.expires_at = Some(end);
        }
    }

    fn retain(&mut self, keep: impl Fn(&HeldKey) -> bool) {
        if let Some(keys) = &mut self.0 {
            keys.retain(keep);
        }
        // No keys have one form, so that equal histories give equal states and snapshots.
        self.0.take_if(|keys| keys.is_empty());
    }

    /// True when a fold can lead to these keys of `owner`.
    pub(crate) fn is_folded(&self, owner: Owner) -> bool {
        let held = self.held();
        held.is_empty() == self.0.is_none()
            && held.is_sorted_by(|a, b| a.id() < b.id())
            && held.iter().all(|key| key.scopes.within(owner.widest))
    }
}

/// Decides a change to the keys of a tenant.
pub(crate) fn decide_tenant(state: &TenantState, change: &KeyChange, cx: &Context<'_>) -> Decision {
    if let Some(fault) = fault(change, cx.now) {
        return invalid_field(fault);
    }
    // Only a new key registers its tenant: of one that is unknown there is nothing to end.
    let first = match change {
        KeyChange::Issue { .. } => registration(state, cx),
        KeyChange::Rotate { .. } | KeyChange::Revoke { .. } => state.registered.then(Vec::new),
    };
    match first {
        Some(first) => seal(first, decided(&state.keys, Owner::TENANT, change, cx)),
        None => unknown_tenant(),
    }
}

/// Decides a change to the keys of the service.
pub(crate) fn decide_service(keys: &Keys, change: &KeyChange, cx: &Context<'_>) -> Decision {
    match fault(change, cx.now) {
        Some(fault) => invalid_field(fault),
        None => seal(Vec::new(), decided(keys, Owner::SERVICE, change, cx)),
    }
}

/// One unit; its last receipt answers the caller.
fn seal(mut drafts: Vec<Draft>, answer: Vec<Draft>) -> Decision {
    drafts.extend(answer);
    let primary = drafts.len().saturating_sub(1);
    Decision::Seal(Sealing { drafts, primary, effect: None })
}

/// Why the form of a change is wrong, whatever is held.
fn fault(change: &KeyChange, now: Micros) -> Option<&'static str> {
    match change {
        KeyChange::Issue { scopes, label, expires_at, .. } => {
            if *scopes == Scopes::default() {
                return Some("scopes must name at least one scope");
            }
            if label.as_deref().is_some_and(|text| !is_keepable(text, limits::KEY_LABEL_CHARS)) {
                return Some("label is too long, or holds a control character or a credential");
            }
            let over = expires_at.is_some_and(|end| Secs::floor(end).reached(now));
            over.then_some("expires_at must be after the present second")
        }
        KeyChange::Rotate { overlap_s, .. } => (!(0..=limits::LEASE_S_MAX).contains(overlap_s))
            .then_some("overlap_s is outside its range"),
        KeyChange::Revoke { .. } => None,
    }
}

fn decided(keys: &Keys, owner: Owner, change: &KeyChange, cx: &Context<'_>) -> Vec<Draft> {
    match change {
        KeyChange::Issue { fingerprint, scopes, label, expires_at } => {
            let key = HeldKey {
                fingerprint: *fingerprint,
                scopes: *scopes,
                label: label.as_deref().map(Into::into),
                expires_at: expires_at.map(|end| Secs::floor(end).instant()),
                issued_at: Secs::floor(cx.now).instant(),
            };
            let valid = keys.held().iter().filter(|held| held.is_valid(cx.now)).count();
            let answer = refused(keys, owner, &key, valid, cx);
            vec![answer.unwrap_or_else(|| key.issue(cx.actor))]
        }
        KeyChange::Rotate { id, fingerprint, overlap_s } => {
            rotated(keys, owner, *id, *fingerprint, *overlap_s, cx)
        }
        KeyChange::Revoke { id } if keys.valid(*id, cx.now).is_none() => {
            vec![no_such_key(rule::KEY_REVOKE, *id, cx.actor)]
        }
        KeyChange::Revoke { id } => {
            let draft = transition(ACTION, rule::KEY_REVOKE, cx.actor).states(VALID, REVOKED);
            vec![named(draft, *id)]
        }
    }
}

fn rotated(
    keys: &Keys,
    owner: Owner,
    id: KeyId,
    fingerprint: Hash,
    overlap_s: i64,
    cx: &Context<'_>,
) -> Vec<Draft> {
    let Some(old) = keys.valid(id, cx.now) else {
        return vec![no_such_key(rule::KEY_END, id, cx.actor)];
    };
    let new = HeldKey { fingerprint, issued_at: Secs::floor(cx.now).instant(), ..old.clone() };
    let end = Secs::floor(cx.now.plus_secs(overlap_s)).instant();
    let end = old.expires_at.map_or(end, |earlier| earlier.min(end));
    // Without overlap the old key makes room for the new one, so that an owner with as many keys
    // as it may have can always replace one that leaked.
    let beside = |held: &&HeldKey| held.is_valid(cx.now) && (held.id() != id || cx.now < end);
    let beside = keys.held().iter().filter(beside).count();
    if let Some(refused) = refused(keys, owner, &new, beside, cx) {
        return vec![refused];
    }
    let mut ending = transition(ACTION, rule::KEY_END, cx.actor).states(VALID, ENDING);
    ending.expires_at = Some(end);
    let issue = new.issue(cx.actor).with("replaces", Meta::Text(id.to_string().into()));
    vec![named(ending, id), issue]
}

/// The refusal of a new key, if there is a reason for one; `beside` others will be valid.
fn refused(
    keys: &Keys,
    owner: Owner,
    key: &HeldKey,
    beside: usize,
    cx: &Context<'_>,
) -> Option<Draft> {
    let taken = keys.valid(key.id(), cx.now).is_some();
    let (reason, detail) = if !key.scopes.within(owner.widest) {
        (Reason::Forbidden, "a key of a tenant may not have scopes of an operator")
    } else if taken {
        (Reason::StateError, "there is a key of this id already")
    } else if beside >= owner.keys_max {
        (Reason::TooManyKeys, "as many keys are valid as the owner may have; revoke one first")
    } else {
        return None;
    };
    let draft = refusal(ACTION, rule::KEY_ISSUE, cx.actor, reason, detail.to_owned());
    let from = if taken { VALID } else { ABSENT };
    Some(Draft { state_from: Some(from.into()), ..named(draft, key.id()) })
}

fn no_such_key(rule: &'static str, id: KeyId, actor: &str) -> Draft {
    let detail = "there is no such key".to_owned();
    let draft = refusal(ACTION, rule, actor, Reason::StateError, detail);
    Draft { state_from: Some(ABSENT.into()), ..named(draft, id) }
}

fn named(draft: Draft, id: KeyId) -> Draft {
    Draft { subject: Some(id.to_string().into()), ..draft }
}

/// Instants of a key as whole seconds.
mod secs {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use types::Micros;

    pub(super) fn serialize<S: Serializer>(instant: &Micros, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(instant.secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Micros, D::Error> {
        i64::deserialize(from).map(Micros::from_secs)
    }
}

/// The same where there may be none.
mod optional_secs {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use types::Micros;

    pub(super) fn serialize<S: Serializer>(
        instant: &Option<Micros>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        instant.map(Micros::secs).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Micros>, D::Error> {
        Ok(Option::deserialize(from)?.map(Micros::from_secs))
    }
}
