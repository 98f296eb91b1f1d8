//! What callers ask, from a seed alone.
//!
//! Owns: the mix of commands, the keys that come again, and when each is asked. Refuses to know:
//! what is answered. Every question follows from the seed and its number, so that whoever judges
//! can work it out again.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::Request;
use engine::keys::CallerKey;
use engine::ports::{Query, Store};
use governors::{
    Command, EntitlementAction, EntitlementChange, KeyChange, SettingChange, Signal, SourceChange,
};
use ledger::View;
use store::SqliteStore;
use testkit::dice::Dice;
use types::{EntitlementId, Hash, KeyId, Micros, Scope, Scopes, StreamName, TenantId, limits};

use crate::instance::{Instance, NEVER};

/// Where time begins, in unix seconds.
pub(crate) const START_S: i64 = 1_800_000_000;
/// Seconds between two questions.
const PACE_S: i64 = 2;
/// Tenants that ask.
const TENANTS: u64 = 5;
/// Different keys of one owner, so that most changes meet one that is held.
const KEYS: u64 = 6;

/// One question.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) nth: u64,
    pub(crate) stream: StreamName,
    pub(crate) command: Command,
    pub(crate) key: Option<Key>,
    /// The caller leaves before there is an answer.
    pub(crate) gives_up: bool,
}

/// An idempotency key and the body that it comes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) body: String,
}

impl Key {
    pub(crate) fn caller(&self) -> CallerKey<'_> {
        CallerKey { source: "sim", key: &self.text, body: self.body.as_bytes() }
    }
}

impl Ask {
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            stream: self.stream.clone(),
            command: self.command.clone(),
            actor: "sim".into(),
            may_register: true,
            key: self.key.as_ref().map(Key::caller),
        }
    }
}

/// All questions of one seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload(Dice);

impl Workload {
    pub(crate) fn new(seed: u64) -> Workload {
        Workload(Dice::new(seed))
    }

    /// The instant of a question.
    pub(crate) fn at(nth: u64) -> Micros {
        Micros((START_S + PACE_S * nth.cast_signed()) * 1_000_000)
    }

    /// The question of that number.
    pub(crate) fn ask(&self, nth: u64) -> Ask {
        let mut dice = self.0.part(nth);
        let gives_up = dice.percent(7);
        if nth > 0 && dice.percent(18) {
            // Most come soon again, some after a life or two.
            let back = if dice.percent(70) { 30 } else { nth };
            let earlier = self.ask(nth - 1 - dice.below(back.min(nth)));
            if let Some(key) = earlier.key {
                // With the body of that time in most cases.
                let body = if dice.percent(80) { key.body } else { format!("b{nth}") };
                let key = Some(Key { body, ..key });
                return Ask { nth, key, gives_up, ..earlier };
            }
        }
        let (stream, command) = command(nth, &mut dice);
        let keyed = !matches!(command, Command::Tick) && dice.percent(80);
        let key = keyed.then(|| Key { text: format!("k{nth}"), body: format!("b{nth}") });
        Ask { nth, stream, command, key, gives_up }
    }
}

fn command(nth: u64, dice: &mut Dice) -> (StreamName, Command) {
    // One is busy enough to have snapshots.
    let whose = tenant(if dice.percent(40) { 0 } else { dice.below(TENANTS) });
    match dice.below(100) {
        0..35 => (whose, entitlement(nth, dice)),
        35..50 => (whose, Command::Quote { charge: dice.percent(20) }),
        50..72 => (whose, signal(dice)),
        72..80 => {
            let service = dice.percent(30);
            let owner = if service { system(limits::STREAM_KEYS) } else { whose };
            (owner, key_change(nth, dice))
        }
        80..88 => (system(limits::STREAM_SETTINGS), live_change(dice)),
        88..92 => (system(limits::STREAM_SIGNALS), Command::Untenanted { signal: "stray".into() }),
        92..94 => {
            let detail = format!("fact {nth}");
            (system(limits::STREAM_OPS), Command::Note { event: "restart", detail })
        }
        94..97 => (system(limits::STREAM_SETTINGS), Command::Tick),
        _ => (whose, Command::Tick),
    }
}

pub(crate) fn tenant(n: u64) -> StreamName {
    StreamName::tenant(&TenantId::new(&format!("tenant-{n}")).unwrap())
}

fn system(name: &'static str) -> StreamName {
    StreamName::system(name)
}

fn key_change(nth: u64, dice: &mut Dice) -> Command {
    let fingerprint = |slot: u64| {
        let mut dice = Dice::new(slot);
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&dice.throw().to_le_bytes()));
        Hash(bytes)
    };
    let (held, other) = (fingerprint(dice.below(KEYS)), fingerprint(dice.below(KEYS)));
    Command::Key(match dice.below(4) {
        0 => KeyChange::Revoke { id: KeyId::of(held) },
        1 => KeyChange::Rotate { id: KeyId::of(held), fingerprint: other, overlap_s: 20 },
        _ => KeyChange::Issue {
            fingerprint: held,
            scopes: Scopes::of(&[Scope::ReceiptsRead]),
            label: dice.percent(30).then(|| "a label".to_owned()),
            expires_at: dice.percent(40).then(|| Workload::at(nth + 5 + dice.below(40))),
        },
    })
}

fn entitlement(nth: u64, dice: &mut Dice) -> Command {
    use EntitlementAction::{Grant, Resume, Revoke, Suspend};
    // A revocation is final, so that new ids come up now and then.
    let ids = ["base".to_owned(), "pro".to_owned(), format!("seat-{}", nth / 60)];
    let action = match dice.below(100) {
        0..45 => Grant,
        45..65 => Suspend,
        65..85 => Resume,
        _ => Revoke,
    };
    let later = |dice: &mut Dice, within: u64| Workload::at(nth + 1 + dice.below(within));
    let granted = action == Grant;
    Command::Entitlement(EntitlementChange {
        entitlement_id: EntitlementId::new(dice.pick::<String>(&ids)).unwrap(),
        action,
        effective_at: dice.percent(25).then(|| later(dice, 20)),
        expires_at: (granted && dice.percent(40)).then(|| later(dice, 60)),
        plan: (granted && dice.percent(30)).then(|| "starter".to_owned()),
        metadata: if dice.percent(20) { vec![("order".into(), nth.to_string())] } else { vec![] },
    })
}

fn signal(dice: &mut Dice) -> Command {
    Command::Signal(Signal {
        metric: (*dice.pick(&["load", "disk", "heat"])).to_owned(),
        value_milli: (dice.below(110) * 1000).cast_signed(),
        measured_at: None,
    })
}

fn live_change(dice: &mut Dice) -> Command {
    let name = (*dice.pick(&["LOG_LEVEL", "RATE_LIMIT", "POOL"])).to_owned();
    let source = (*dice.pick(&["10.0.0.1", "10.1.0.0/16"])).to_owned();
    let lease_s = 4 + dice.below(30).cast_signed();
    match dice.below(6) {
        0 => Command::Setting(SettingChange::Clear { name }),
        1 | 2 => Command::Setting(SettingChange::Set {
            name,
            value: dice.below(9).to_string(),
            lease_s: None,
        }),
        3 => Command::Setting(SettingChange::Set {
            name,
            value: dice.below(9).to_string(),
            lease_s: Some(lease_s),
        }),
        4 => Command::Source(SourceChange::Block { source, lease_s }),
        _ => Command::Source(SourceChange::Unblock { source }),
    }
}

/// A mix that misses a rule would prove nothing about it.
#[test]
fn every_rule_comes_up_and_a_snapshot_too() {
    const RULES: [&str; 27] = [
        "tenant.register",
        "entitlement.grant",
        "entitlement.suspend",
        "entitlement.resume",
        "entitlement.revoke",
        "entitlement.schedule",
        "entitlement.effective",
        "entitlement.lapse",
        "account.quote",
        "account.charge",
        "signal.gate",
        "signal.coalesce",
        "signal.intervene",
        "signal.warn",
        "signal.calm",
        "signal.settled",
        "action.settle",
        "throttle.lease",
        "key.issue",
        "key.end",
        "key.revoke",
        "settings.set",
        "settings.lease",
        "settings.clear",
        "settings.lease_end",
        "source.block",
        "source.unblock",
    ];
    let instance = Instance::start(Arc::new(SqliteStore::memory().unwrap()), NEVER);
    let workload = Workload::new(1);
    for first in (0..360).step_by(4) {
        instance.clock.set(Workload::at(first));
        let asks: Vec<Ask> = (first..first + 4).map(|nth| workload.ask(nth)).collect();
        instance.ask(&asks, |_, _| {});
    }
    let store = instance.drain();
    let all = store.query(&Query { scan_limit: usize::MAX, ..Query::default() }).unwrap();
    let seen: BTreeSet<String> = all
        .iter()
        .filter_map(|stored| View::scan(&stored.core).unwrap().rule)
        .map(|rule| rule.text().into_owned())
        .collect();
    let missing: Vec<_> = RULES.iter().filter(|rule| !seen.contains(**rule)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(store.snapshot(&tenant(0)).unwrap().is_some());
}
