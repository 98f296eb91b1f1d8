//! Readers of what an operator writes: the settings file, a live change, the catalogue.
//!
//! Owns: that a mistake is one line of bounded length, that no secret is shown, and that what is
//! taken can be worked with. Refuses to know: what a setting does and what a plan costs.

use governors::{Command, EntitlementAction, EntitlementChange, Rules, Signal, StreamState};
use settings::{Baseline, Change, Lease, Resolved, Settings, Source, check_change, table};
use types::{EntitlementId, Micros, StreamName, TenantId};

use super::chain::Chain;

/// Bytes of the longest message: a key of four parts of 64 escaped characters, and the sentence.
const MESSAGE_BYTES: usize = 4_096;

/// What is shown in place of a secret, or of one that is not set.
const UNSHOWN: [&str; 2] = ["(secret)", "(none)"];

/// The variables of an empty environment.
fn nothing(_: &str) -> Option<String> {
    None
}

fn check_message(message: &str) {
    assert!((1..=MESSAGE_BYTES).contains(&message.len()), "a message of {} bytes", message.len());
    assert!(!message.contains(char::is_control), "{message:?} is not one line");
}

fn check_resolved(resolved: &Resolved) {
    assert_eq!(resolved.provenance.len(), table().len());
    for (origin, knob) in resolved.provenance.iter().zip(table()) {
        assert_eq!(origin.name, knob.name);
        assert!(!knob.secret || UNSHOWN.contains(&origin.value.as_str()), "{}", knob.name);
        assert!(!origin.value.is_empty(), "{} is shown as nothing", knob.name);
    }
}

/// The settings file.
pub(super) fn settings_file(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let file = Some(("tai.toml", text));
    match Settings::resolve(&nothing, file) {
        Ok(resolved) => {
            check_resolved(&resolved);
            let own = |source: &Source| matches!(source, Source::File(_) | Source::Default);
            assert!(resolved.provenance.iter().all(|origin| own(&origin.source)));
            assert_eq!(Baseline::capture(&nothing, file).resolve(&[]), Ok(resolved));
            true
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a mistake");
            mistakes.iter().for_each(|mistake| check_message(&mistake.to_string()));
            false
        }
    }
}

/// The name of a setting on the first line, its value behind it: as a variable, as a change that
/// stays and as a lease.
pub(super) fn settings_change(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (name, value) = text.split_once('\n').unwrap_or((text, ""));
    let variable = |wanted: &str| (wanted == name).then(|| value.to_owned());
    let started = Settings::resolve(&variable, None);
    match &started {
        Ok(resolved) => check_resolved(resolved),
        Err(mistakes) => mistakes.iter().for_each(|found| check_message(&found.to_string())),
    }
    let [kept, leased] = [false, true].map(|leased| check_change(name, value, leased));
    assert!(kept.is_err() || leased.is_ok(), "a change that stays may also be leased");
    for refused in [&kept, &leased].into_iter().filter_map(|taken| taken.as_ref().err()) {
        check_message(&refused.to_string());
    }
    let lease = leased.is_ok().then(|| Lease { value: value.to_owned(), until_s: 1 });
    let change =
        Change { name: name.to_owned(), kept: kept.is_ok().then(|| value.to_owned()), lease };
    let Ok(changed) = Baseline::capture(&nothing, None).resolve(&[change]) else {
        assert!(leased.is_err(), "a change keeps the service from starting");
        return false;
    };
    check_resolved(&changed);
    assert!(changed.ignored.is_empty(), "what may be taken is ignored");
    let Ok(knob) = leased else { return started.is_ok_and(|resolved| is_set(&resolved)) };
    assert!(knob.name == name && knob.live && !knob.secret);
    let origin = changed.provenance.iter().find(|origin| origin.name == name);
    assert_eq!(origin.map(|origin| origin.value.as_str()), Some(value));
    assert!(value.is_empty() || started.is_ok(), "a live value that no start would take");
    true
}

/// True when the environment set anything.
fn is_set(resolved: &Resolved) -> bool {
    resolved.provenance.iter().any(|origin| origin.source == Source::Environment)
}

/// The operator's catalogue: whatever it may say, a tenant can be served by it.
pub(super) fn catalogue(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let rules = match Rules::parse(text) {
        Ok(rules) => rules,
        Err(why) => {
            check_message(&why.to_string());
            return false;
        }
    };
    let catalogue = &rules.catalogue;
    assert_eq!(catalogue.plan(&catalogue.default_plan().name), Some(catalogue.default_plan()));
    let texts = catalogue.plans().iter().flat_map(|plan| [&plan.aliases, &plan.features]).flatten();
    let names = catalogue.plans().iter().map(|plan| &plan.name);
    for word in texts.chain(names).chain([&catalogue.version, &catalogue.currency]) {
        assert!((1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    for plan in catalogue.plans() {
        for name in plan.aliases.iter().chain([&plan.name]) {
            assert_eq!(catalogue.plan(name), Some(plan), "a name of two plans");
        }
    }
    if let Ok(tenant) = TenantId::new("tenant-1") {
        let stream = StreamName::tenant(&tenant);
        let state = StreamState::empty(&stream);
        let mut chain = Chain { stream, state, now: Micros(1_764_000_000_000_000) };
        chain.decide(&rules, &Command::Quote { charge: false });
        for plan in catalogue.plans() {
            if let Some(grant) = grant(&plan.name) {
                chain.decide(&rules, &grant);
            }
        }
        for value_milli in [0, 1 << 30, 1 << 52] {
            let signal = Signal { metric: "cpu".into(), value_milli, measured_at: None };
            chain.clone().decide(&rules, &Command::Signal(signal));
        }
        chain.decide_each(&rules);
    }
    true
}

/// A grant of that plan.
fn grant(plan: &str) -> Option<Command> {
    Some(Command::Entitlement(EntitlementChange {
        entitlement_id: EntitlementId::new(plan).ok()?,
        action: EntitlementAction::Grant,
        effective_at: None,
        expires_at: None,
        plan: Some(plan.to_owned()),
        metadata: Vec::new(),
    }))
}
