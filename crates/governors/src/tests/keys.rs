//! Keys: the table of their governor, its laws, and what must not fold.
//!
//! Owns: how each set of keys is reached. Refuses to know: the text of a key.

use std::collections::BTreeMap;

use ledger::Kind;
use proptest::prelude::*;
use types::{Hash, KeyId, Reason, Scope, Scopes, limits};

use super::*;

/// When the tables ask; states are reached before it.
const ASK: i64 = 50;

fn print(n: u8) -> Hash {
    Hash([n; 32])
}

fn id(n: u8) -> KeyId {
    KeyId::of(print(n))
}

fn issue_with(n: u8, scopes: Scopes, label: Option<&str>, expires: Option<i64>) -> Command {
    Command::Key(KeyChange::Issue {
        fingerprint: print(n),
        scopes,
        label: label.map(str::to_owned),
        expires_at: expires.map(|second| START.plus_secs(second)),
    })
}

pub(super) fn issue(n: u8) -> Command {
    issue_with(n, Scopes::TENANT, None, None)
}

fn issue_until(n: u8, second: i64) -> Command {
    issue_with(n, Scopes::of(&[Scope::SignalsWrite]), Some("nightly"), Some(second))
}

pub(super) fn rotate(old: u8, new: u8, overlap_s: i64) -> Command {
    Command::Key(KeyChange::Rotate { id: id(old), fingerprint: print(new), overlap_s })
}

pub(super) fn revoke(n: u8) -> Command {
    Command::Key(KeyChange::Revoke { id: id(n) })
}

fn quote() -> Command {
    Command::Quote { charge: false }
}

fn numbered(count: usize) -> Vec<(i64, Command)> {
    (0..count).map(|n| (0, issue(100 + n as u8))).collect()
}

/// Every way in which key 1 can stand, with what it takes to get there.
fn states() -> Vec<(&'static str, Vec<(i64, Command)>)> {
    let registered = (0, quote());
    let mut full = vec![(0, issue(1))];
    full.extend(numbered(limits::KEYS_PER_TENANT - 1));
    let mut full_but_one_expired = vec![(0, issue_until(1, 20))];
    full_but_one_expired.extend(numbered(limits::KEYS_PER_TENANT - 1));
    vec![
        ("no key", vec![registered]),
        ("valid", vec![(0, issue(1))]),
        ("valid until +100", vec![(0, issue_until(1, 100))]),
        ("expired", vec![(0, issue_until(1, 20))]),
        ("ending", vec![(0, issue(1)), (10, rotate(1, 3, 60))]),
        ("ended", vec![(0, issue(1)), (10, rotate(1, 3, 20))]),
        ("revoked", vec![(0, issue(1)), (10, revoke(1))]),
        ("one of as many as may be", full),
        ("expired beside as many as may be but one", full_but_one_expired),
    ]
}

fn changes() -> Vec<(&'static str, Command)> {
    vec![
        ("issue", issue(1)),
        ("issue another until +300", issue_until(2, 300)),
        ("issue another, of an operator", issue_with(2, Scopes::ADMIN, None, None)),
        ("rotate", rotate(1, 2, 0)),
        ("rotate with overlap", rotate(1, 2, 60)),
        ("rotate to itself", rotate(1, 1, 60)),
        ("revoke", revoke(1)),
        ("tick", Command::Tick),
    ]
}

#[test]
fn every_key_meets_every_change() {
    let mut out = String::new();
    for (name, command) in changes() {
        out += &format!("unregistered × {name}\n{}", Chain::tenant().show(ASK, &command));
    }
    let stranger = Chain { may_register: false, ..Chain::tenant() };
    out += &format!("unregistered × issue of a stranger\n{}", stranger.show(ASK, &issue(1)));
    for (name, steps) in states() {
        let chain = Chain::tenant().after(&steps);
        for (what, command) in changes() {
            out += &format!("{name} × {what}\n{}", chain.show(ASK, &command));
        }
    }
    for (name, steps) in [("no key", vec![]), ("valid", vec![(0, issue(1))])] {
        let service = Chain::new(limits::STREAM_KEYS).after(&steps);
        for (what, command) in changes() {
            out += &format!("service, {name} × {what}\n{}", service.show(ASK, &command));
        }
    }
    insta::assert_snapshot!("keys", out);
}

#[test]
fn the_form_of_a_change_to_keys() {
    let long = "é".repeat(limits::KEY_LABEL_CHARS + 1);
    let labelled = |label: &str| issue_with(2, Scopes::TENANT, Some(label), None);
    let mut out = String::new();
    for (name, command) in [
        ("no scope", issue_with(2, Scopes::default(), None, None)),
        ("the longest label", labelled(long.strip_prefix('é').unwrap())),
        ("a longer label", labelled(&long)),
        ("a label with a line break", labelled("a\nb")),
        ("a label with a control character that a receipt could hold", labelled("a\u{85}b")),
        ("a label that is a key", labelled("taik_tenant-123.abc")),
        ("a label that is a credential", labelled("Bearer abc")),
        ("expired", issue_until(2, ASK - 1)),
        ("expires in this second", issue_until(2, ASK)),
        ("expires in the next second", issue_until(2, ASK + 1)),
        ("overlap below 0", rotate(1, 2, -1)),
        ("the longest overlap", rotate(1, 2, limits::LEASE_S_MAX)),
        ("a longer overlap", rotate(1, 2, limits::LEASE_S_MAX + 1)),
    ] {
        let chain = Chain::tenant().after(&[(0, issue(1))]);
        out += &format!("{name}\n{}", chain.show(ASK, &command));
        let rejected = matches!(chain.decide(START, &command), Decision::Reject(_));
        let unregistered = Chain::tenant().decide(START, &command);
        assert!(!rejected || matches!(unregistered, Decision::Reject(_)), "{name} registers");
    }
    insta::assert_snapshot!("key_form", out);
}

#[test]
fn a_key_is_remembered_as_it_was_issued_and_no_longer_than_it_is_valid() {
    let mut chain = Chain::tenant().after(&[(1, issue_until(1, 100)), (2, issue(2))]);
    let first = HeldKey {
        fingerprint: print(1),
        scopes: Scopes::of(&[Scope::SignalsWrite]),
        label: Some("nightly".into()),
        expires_at: Some(START.plus_secs(100)),
        issued_at: START.plus_secs(1),
    };
    assert_eq!(chain.state.keys()[0], first);
    assert!(first.is_valid(Micros(START.plus_secs(100).0 - 1)));
    assert!(!first.is_valid(START.plus_secs(100)));
    assert_eq!(chain.state.next_due(), None, "no timer waits for a key");

    // Whatever changes keys next forgets it; what changes none leaves it.
    chain = chain.after(&[(100, quote()), (100, revoke(1))]);
    assert_eq!(chain.state.keys().len(), 2);
    chain = chain.after(&[(100, rotate(2, 3, 50))]);
    let held: Vec<_> = chain.state.keys().iter().map(|key| (key.id(), key.expires_at)).collect();
    assert_eq!(held, [(id(2), Some(START.plus_secs(150))), (id(3), None)]);
    chain = chain.after(&[(110, revoke(2)), (110, revoke(3))]);
    assert_eq!(chain.state.keys(), []);
    let never = Chain::tenant().after(&[(0, quote())]);
    let StreamState::Tenant(TenantState { keys, .. }) = &chain.state else { panic!("a tenant") };
    let StreamState::Tenant(TenantState { keys: none, .. }) = &never.state else {
        panic!("a tenant")
    };
    assert_eq!(keys, none, "as if there had never been one");
    assert_eq!(Chain::new("_ops").state.keys(), []);
}

#[test]
fn who_has_as_many_keys_as_may_be_can_still_replace_one() {
    for (stream, max) in
        [("tenant-123", limits::KEYS_PER_TENANT), ("_keys", limits::KEYS_OF_SERVICE)]
    {
        let issue = |n: usize| {
            let mut fingerprint = [0; 32];
            fingerprint[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let (scopes, label) = (Scopes::TENANT, None);
            let fingerprint = Hash(fingerprint);
            Command::Key(KeyChange::Issue { fingerprint, scopes, label, expires_at: None })
        };
        let mut chain = Chain::new(stream);
        for n in 0..max {
            chain.act(START, &issue(n));
        }
        assert_eq!(chain.state.keys().len(), max);
        let refused = drafts(&chain, &issue(max)).remove(0);
        assert_eq!(refused.reason.as_deref(), Some(Reason::TooManyKeys.code()));
        let old = chain.state.keys()[0].id();
        let replace = |overlap_s| {
            Command::Key(KeyChange::Rotate { id: old, fingerprint: print(0xee), overlap_s })
        };
        let refused = drafts(&chain, &replace(1)).remove(0);
        assert_eq!(refused.reason.as_deref(), Some(Reason::TooManyKeys.code()));
        chain.act(START, &replace(0));
        assert_eq!(chain.state.keys().len(), max);
        assert!(chain.state.keys().iter().all(|key| key.id() != old));
    }
}

#[test]
fn key_receipts_that_cannot_follow_are_refused_and_leave_no_trace() {
    let field = |field| Err(FoldError::Field { field });
    let held = || Chain::tenant().after(&[(0, quote()), (0, issue_until(1, 100))]);
    let issued = drafts(&held(), &issue_until(2, 100)).remove(0);
    assert_eq!(fold(&mut Chain::tenant(), &issued), Err(FoldError::Registration));
    assert_eq!(fold(&mut held().after(&[(0, issue(2))]), &issued), Err(FoldError::StateFrom));

    let changed = |draft: &Draft, key: &str, value: Option<&str>| {
        let mut draft = draft.clone();
        draft.metadata.retain(|(name, _)| name != key);
        draft
            .metadata
            .extend(value.map(|text| (key.to_owned().into(), Meta::Text(text.to_owned().into()))));
        draft
    };
    for (key, value) in [
        ("fingerprint", None),
        ("fingerprint", Some("0202")),
        ("scopes", None),
        ("scopes", Some("")),
        ("scopes", Some("signals:write everything")),
        ("scopes", Some("signals:write admin:read")),
    ] {
        let forged = changed(&issued, key, value);
        let name = if key == "scopes" { "scopes" } else { "fingerprint" };
        assert_eq!(fold(&mut held(), &forged), field(name), "{key} {value:?}");
    }
    let admin = changed(&issued, "scopes", Some("admin:write"));
    assert_eq!(fold(&mut Chain::new(limits::STREAM_KEYS), &admin), Ok(()), "a key of the service");
    for subject in [None, Some("key_02"), Some("key_0303030303030303")] {
        let subject = subject.map(Text::Borrowed);
        let forged = Draft { subject, ..issued.clone() };
        assert_eq!(fold(&mut held(), &forged), field("subject"));
    }

    let ended = drafts(&held(), &rotate(1, 2, 60)).remove(0);
    let revoked = drafts(&held(), &revoke(1)).remove(0);
    let none = || Chain::tenant().after(&[(0, quote())]);
    for draft in [&ended, &revoked] {
        assert_eq!(fold(&mut none(), draft), Err(FoldError::StateFrom));
        let from_absent = Draft { state_from: Some("absent".into()), ..draft.clone() };
        assert_eq!(fold(&mut none(), &from_absent), Err(FoldError::StateFrom));
        assert_eq!(fold(&mut held(), &from_absent), Err(FoldError::StateFrom));
    }
    for end in [None, Some(START.plus_secs(101))] {
        let longer = Draft { expires_at: end, ..ended.clone() };
        assert_eq!(fold(&mut held(), &longer), field("expires_at"), "an end makes nothing longer");
    }
    unheard_rules(&issued);
}

fn unheard_rules(issued: &Draft) {
    let held = || Chain::tenant().after(&[(0, quote())]);
    let service = || Chain::new(limits::STREAM_KEYS);
    for rule in ["key.unheard", "settings.set", "tenant.unheard"] {
        let mut unheard = Draft { rule: Some(rule.into()), ..issued.clone() };
        assert_eq!(fold(&mut held(), &unheard), Err(FoldError::UnknownRule), "{rule}");
        assert_eq!(fold(&mut service(), &unheard), Err(FoldError::UnknownRule), "{rule}");
        unheard.kind = Kind::Refusal;
        for mut chain in [held(), service()] {
            let before = chain.state.clone();
            assert_eq!(fold(&mut chain, &unheard), Ok(()));
            assert_eq!(chain.state, before, "a refusal changes nothing");
        }
    }
    for kind in [Kind::ActionAttempt, Kind::ActionResult] {
        let other = Draft { kind, ..issued.clone() };
        assert_eq!(fold(&mut held(), &other), Err(FoldError::UnknownRule));
        assert_eq!(fold(&mut service(), &other), Err(FoldError::UnknownRule));
    }
}

#[test]
fn a_snapshot_of_keys_that_does_not_fit_is_no_snapshot() {
    for stream in ["tenant-123", limits::STREAM_KEYS] {
        let chain = Chain::new(stream).after(&[(0, issue_until(1, 100)), (0, issue(2))]);
        let text = String::from_utf8(chain.state.to_snapshot()).unwrap();
        let read = |text: &str| StreamState::from_snapshot(&chain.stream, text.as_bytes());
        assert_eq!(read(&text), Some(chain.state.clone()));
        let (first, second) = (print(1).to_string(), print(2).to_string());
        for (find, replace) in [
            (first.as_str(), second.as_str()),
            (first.as_str(), &print(3).to_string()),
            (first.as_str(), &first[1..]),
            ("signals:write", "signals:all"),
            ("signals:write", ""),
            ("\"issued_at\"", "\"issued\""),
        ] {
            let changed = text.replacen(find, replace, 1);
            assert_ne!(changed, text, "{find}");
            assert_eq!(read(&changed), None, "{find} as {replace}");
        }
        let operator = text.replacen("signals:write", "admin:write", 1);
        assert_eq!(read(&operator).is_some(), stream == limits::STREAM_KEYS);
        let start = text.find("[{\"fingerprint").unwrap();
        let end = start + text[start..].find(']').unwrap();
        let empty = format!("{}[{}", &text[..start], &text[end..]);
        assert_eq!(read(&empty), None, "no keys have one form only");
    }
    let keys = Chain::new(limits::STREAM_KEYS);
    let settings = Chain::new(limits::STREAM_SETTINGS);
    let ops = Chain::new("_ops");
    for (own, others) in
        [(&keys, [&settings, &ops]), (&settings, [&keys, &ops]), (&ops, [&keys, &settings])]
    {
        let bytes = own.state.to_snapshot();
        assert_eq!(StreamState::from_snapshot(&own.stream, &bytes).as_ref(), Some(&own.state));
        for other in others {
            assert_eq!(StreamState::from_snapshot(&other.stream, &bytes), None);
        }
    }
}

#[test]
fn receipts_of_keys_say_what_they_touch() {
    let mut chain = Chain::tenant();
    let mut said = Vec::new();
    for command in [issue(1), rotate(1, 2, 60), revoke(2), revoke(2), quote()] {
        let before = chain.cores.len();
        chain.act(START, &command);
        for core in &chain.cores[before..] {
            let view = View::scan(core).unwrap();
            said.push((transition_labels(&view), touches(&view)));
        }
    }
    assert_eq!(
        said,
        [
            (Some(("tenant", "unregistered", "registered")), None),
            (Some(("keys", "absent", "valid")), Some(Touch::Keys)),
            (Some(("keys", "valid", "ending")), Some(Touch::Keys)),
            (Some(("keys", "absent", "valid")), Some(Touch::Keys)),
            (Some(("keys", "valid", "revoked")), Some(Touch::Keys)),
            (None, None),
            (None, None),
        ]
    );
}

/// What to ask, relative to the instant that it is asked at.
#[derive(Debug, Clone)]
enum Ask {
    Issue { n: u8, scopes: usize, expires_us: Option<i64> },
    Rotate { old: u8, new: u8, overlap_s: i64 },
    Revoke { n: u8 },
    Other,
}

impl Ask {
    fn command(&self, now: Micros) -> Command {
        match *self {
            Ask::Issue { n, scopes, expires_us } => Command::Key(KeyChange::Issue {
                fingerprint: print(n),
                scopes: [Scopes::TENANT, Scopes::of(&[Scope::ReceiptsRead]), Scopes::ADMIN][scopes],
                label: None,
                expires_at: expires_us.map(|us| Micros(now.0 + us)),
            }),
            Ask::Rotate { old, new, overlap_s } => rotate(old, new, overlap_s),
            Ask::Revoke { n } => revoke(n),
            Ask::Other => Command::Tick,
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let expiry = prop::option::weighted(0.5, -2_000_000..30_000_000_i64);
    prop_oneof![
        4 => (0..6_u8, 0..3_usize, expiry)
            .prop_map(|(n, scopes, expires_us)| Ask::Issue { n, scopes, expires_us }),
        3 => (0..6_u8, 0..6_u8, -1..20_i64)
            .prop_map(|(old, new, overlap_s)| Ask::Rotate { old, new, overlap_s }),
        1 => (0..6_u8).prop_map(|n| Ask::Revoke { n }),
        1 => Just(Ask::Other),
    ]
}

/// The keys that are valid, by the commands alone and not by the receipts: until when, in seconds.
#[derive(Debug, Default)]
struct Model(BTreeMap<KeyId, (Option<i64>, Scopes)>);

impl Model {
    fn take(&mut self, command: &Command, tenant: bool, now: Micros) {
        self.0.retain(|_, (end, _)| end.is_none_or(|end| end > now.secs()));
        match command {
            Command::Key(KeyChange::Issue { fingerprint, scopes, expires_at, .. }) => {
                let end = expires_at.map(|end| end.0.div_euclid(1_000_000));
                let permitted = scopes.within(Scopes::TENANT) || !tenant;
                let id = KeyId::of(*fingerprint);
                let lasts = end.is_none_or(|end| end > now.secs());
                if permitted && lasts && !self.0.contains_key(&id) {
                    self.0.insert(id, (end, *scopes));
                }
            }
            Command::Key(KeyChange::Rotate { id, fingerprint, overlap_s }) => {
                let new = KeyId::of(*fingerprint);
                let Some((end, scopes)) = self.0.get(id).copied() else { return };
                if *overlap_s < 0 || self.0.contains_key(&new) {
                    return;
                }
                let ends = now.secs() + overlap_s;
                self.0.insert(*id, (Some(end.map_or(ends, |end| end.min(ends))), scopes));
                self.0.insert(new, (end, scopes));
            }
            Command::Key(KeyChange::Revoke { id }) => {
                self.0.remove(id);
            }
            _ => {}
        }
        self.0.retain(|_, (end, _)| end.is_none_or(|end| end > now.secs()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn every_history_of_keys_keeps_the_laws(
        tenant in any::<bool>(),
        history in prop::collection::vec((0..6_000_000_i64, ask()), 1..60),
    ) {
        let mut chain = Chain::new(if tenant { "tenant-123" } else { limits::STREAM_KEYS });
        let mut model = Model::default();
        let mut now = START;
        for (step_us, ask) in &history {
            // Never before what was sealed, as the engine has it.
            now = Micros(now.0 + step_us + 10);
            let command = ask.command(now);
            prop_assert_eq!(chain.decide(now, &command), chain.decide(now, &command));
            chain.act(now, &command);
            model.take(&command, tenant, now);
            let valid: BTreeMap<KeyId, (Option<i64>, Scopes)> = chain
                .state
                .keys()
                .iter()
                .filter(|key| key.is_valid(now))
                .map(|key| (key.id(), (key.expires_at.map(Micros::secs), key.scopes)))
                .collect();
            prop_assert_eq!(&valid, &model.0);
            let read = StreamState::from_snapshot(&chain.stream, &chain.state.to_snapshot());
            prop_assert_eq!(read.as_ref(), Some(&chain.state));
            prop_assert_eq!(chain.state.next_due(), None);
        }
        let mut again = StreamState::empty(&chain.stream);
        for core in &chain.cores {
            again.apply(&View::scan(core).unwrap()).unwrap();
        }
        prop_assert_eq!(&again, &chain.state, "folding from the beginning");
    }
}
