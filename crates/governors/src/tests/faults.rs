//! What must not fold, must not be read back, and must not grow.
//!
//! Owns: receipts and snapshots that no governor would write. Refuses to know: the right ones.

use types::{Reason, limits};

use super::*;

fn grant() -> Command {
    Command::Entitlement(change("ent-1", EntitlementAction::Grant))
}

#[test]
fn receipts_that_cannot_follow_are_refused_and_leave_no_trace() {
    let granted = || Chain::tenant().after(&[(0, grant())]);
    let flying = || granted().after(&[(0, signal(90, None))]);
    let unregistered = drafts(&Chain::tenant(), &grant());
    assert_eq!(fold(&mut Chain::tenant(), &unregistered[1]), Err(FoldError::Registration));
    assert_eq!(fold(&mut granted(), &unregistered[0]), Err(FoldError::Registration));
    // The same grant twice: the second starts from a phase that is no more.
    assert_eq!(fold(&mut granted(), &unregistered[1]), Err(FoldError::StateFrom));

    // INV-8: an attempt, or the decision to start one, while another is in flight.
    let started = drafts(&granted(), &signal(90, None));
    assert_eq!(fold(&mut flying(), &started[0]), Err(FoldError::SecondAttempt));
    assert_eq!(fold(&mut flying(), &started[1]), Err(FoldError::SecondAttempt));

    let chain = flying();
    let settled = drafts(&chain, &settle(&chain, OutcomeStatus::Success));
    assert_eq!(fold(&mut granted(), &settled[0]), Err(FoldError::NotInFlight));
    let mut stranger = settled[0].clone();
    stranger.intent = Some(ReceiptId([1; 16]));
    assert_eq!(fold(&mut flying(), &stranger), Err(FoldError::NotInFlight));
    let coalesced = drafts(&flying(), &signal(95, None));
    assert_eq!(fold(&mut granted(), &coalesced[0]), Err(FoldError::NotInFlight));

    for rule in ["tenant.unheard", "entitlement.unheard", "signal.unheard"] {
        let mut unheard = drafts(&granted(), &signal(10, None)).remove(0);
        unheard.entitlement_id = Some("ent-2".into());
        unheard.action = "grant".into();
        unheard.state_from = Some("unentitled".into());
        unheard.rule = Some(rule.into());
        assert_eq!(fold(&mut granted(), &unheard), Err(FoldError::UnknownRule), "{rule}");
        unheard.kind = ledger::Kind::Refusal;
        assert_eq!(fold(&mut granted(), &unheard), Ok(()), "a refusal changes nothing");
    }
    for (at, field) in ["metric", "value_milli", "signal_at"].into_iter().enumerate() {
        let mut lacking = drafts(&granted(), &signal(10, None)).remove(0);
        lacking.metadata.remove(at);
        assert_eq!(fold(&mut granted(), &lacking), Err(FoldError::Field { field }));
    }
}

#[test]
fn a_snapshot_that_does_not_fit_is_no_snapshot() {
    let chain = Chain::tenant().after(&[
        (0, grant()),
        (0, Command::Entitlement(change("ent-2", EntitlementAction::Grant))),
        (1, signal(90, None)),
        (2, signal(95, None)),
    ]);
    let ops = Chain::new("_ops");
    let bytes = chain.state.to_snapshot();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let read = |text: &str| StreamState::from_snapshot(&chain.stream, text.as_bytes());
    assert_eq!(read(&text), Some(chain.state.clone()));
    assert_eq!(StreamState::from_snapshot(&ops.stream, &bytes), None);
    assert_eq!(read(std::str::from_utf8(&ops.state.to_snapshot()).unwrap()), None);
    for (find, replace) in [
        ("\"format\":5", "\"format\":4"),
        ("\"registered\"", "\"registred\""),
        ("\"ent-1\"", "\"ent-3\""),
        ("\"ent-2\"", "\"ent-1\""),
        ("\"entitled\"", "\"unentitled\""),
        ("\"entitled\"", "\"owned\""),
        ("rcpt_", "rcpt-"),
    ] {
        let changed = text.replacen(find, replace, 1);
        assert_ne!(changed, text, "{find}");
        assert_eq!(read(&changed), None, "{find} as {replace}");
    }
    for end in 0..text.len() {
        assert_eq!(read(&text[..end]), None, "cut at {end}");
    }
}

#[test]
fn a_tenant_holds_no_more_than_the_limit_and_ticks_in_bounded_steps() {
    let end = START.plus_secs(100);
    let id = |at: usize| format!("ent-{at}");
    let lapsing = |at: usize| EntitlementChange {
        expires_at: Some(end),
        ..change(&id(at), EntitlementAction::Grant)
    };
    let mut chain = Chain::tenant();
    for at in 0..limits::ENTITLEMENTS_PER_TENANT {
        chain.act(START, &Command::Entitlement(lapsing(at)));
    }
    let one_more = Command::Entitlement(lapsing(limits::ENTITLEMENTS_PER_TENANT));
    let refused = drafts(&chain, &one_more);
    assert_eq!(refused[0].reason.as_deref(), Some(Reason::TooManyEntitlements.code()));
    // One that is held already may still be changed.
    let held = change(&id(0), EntitlementAction::Suspend);
    assert_eq!(drafts(&chain, &Command::Entitlement(held))[0].reason, None);

    let mut lapsed = 0;
    while let (Decision::Seal(sealing), _) = chain.act(end, &Command::Tick) {
        assert!(sealing.drafts.len() <= 64);
        lapsed += sealing.drafts.len();
    }
    assert_eq!(lapsed, limits::ENTITLEMENTS_PER_TENANT);
    assert_eq!(chain.state.next_due(), None);
    assert_eq!(drafts(&chain, &one_more)[0].reason, None, "what has lapsed takes no room");
}

#[test]
fn what_is_revoked_takes_no_room_and_is_never_forgotten() {
    let on = |at: usize, action| Command::Entitlement(change(&format!("ent-{at}"), action));
    let mut chain = Chain::tenant();
    for at in 0..limits::ENTITLEMENTS_PER_TENANT {
        chain.act(START, &on(at, EntitlementAction::Grant));
        chain.act(START, &on(at, EntitlementAction::Revoke));
    }
    let new = limits::ENTITLEMENTS_PER_TENANT;
    assert_eq!(drafts(&chain, &on(new, EntitlementAction::Grant))[0].reason, None);
    for at in [0, new / 2, new - 1] {
        let again = drafts(&chain, &on(at, EntitlementAction::Grant));
        assert_eq!(again[0].reason.as_deref(), Some(Reason::StateError.code()), "ent-{at}");
        assert_eq!(again[0].state_from.as_deref(), Some("revoked"));
    }
    let mut revived = drafts(&Chain::tenant(), &on(0, EntitlementAction::Grant)).remove(1);
    for state in ["unentitled", "revoked"] {
        revived.state_from = Some(state.into());
        assert_eq!(fold(&mut chain, &revived), Err(FoldError::Revoked), "from {state}");
    }
}

#[test]
fn the_revoked_are_bounded_and_revocation_is_not() {
    let on = |id: &str, action| Command::Entitlement(change(id, action));
    let mut chain = Chain::tenant().after(&[(0, on("held", EntitlementAction::Grant))]);
    let text = String::from_utf8(chain.state.to_snapshot()).unwrap();
    let with = |ids: &[String]| {
        let written = format!("\"revoked\":{}", serde_json::to_string(ids).unwrap());
        let changed = text.replacen("\"revoked\":null", &written, 1);
        StreamState::from_snapshot(&chain.stream, changed.as_bytes())
    };
    let ids: Vec<String> = (0..limits::REVOKED_PER_TENANT).map(|at| format!("r-{at:05}")).collect();
    let (full, almost) = (with(&ids).unwrap(), with(&ids[1..]).unwrap());
    // Out of order, twice, or held as well: no fold leads there.
    for wrong in [["b", "a"], ["a", "a"], ["a", "held"]] {
        assert_eq!(with(&wrong.map(str::to_owned)), None, "{wrong:?}");
    }

    chain.state = almost;
    assert_eq!(drafts(&chain, &on("new", EntitlementAction::Grant))[0].reason, None);
    chain.state = full;
    let refused = drafts(&chain, &on("new", EntitlementAction::Grant)).remove(0);
    assert_eq!(refused.reason.as_deref(), Some(Reason::TooManyEntitlements.code()));
    assert!(refused.detail.unwrap().contains("revoked"));
    assert_eq!(drafts(&chain, &on("held", EntitlementAction::Revoke))[0].reason, None);
}

#[test]
fn refusals_in_aggregate_change_nothing_but_the_chain() {
    let mut chain = Chain::tenant().after(&[(0, grant()), (1, signal(90, None))]);
    let (before, receipts) = (chain.state.clone(), chain.cores.len());
    let (reason, endpoint) = (Reason::RateLimitExceeded, "/pubsub");
    let refused = Command::Refused { reason, endpoint, count: 3, window_s: 10 };
    chain.act(START.plus_secs(2), &refused);
    assert_eq!(chain.cores.len(), receipts + 1);
    assert_eq!(chain.state, before);
    assert_eq!(touches(&View::scan(&chain.cores[receipts]).unwrap()), None);
}

#[test]
fn a_tick_takes_the_oldest_first() {
    let until = |id: &str, second| {
        let expires_at = Some(START.plus_secs(second));
        let change = EntitlementChange { expires_at, ..change(id, EntitlementAction::Grant) };
        (0, Command::Entitlement(change))
    };
    let chain = Chain::tenant().after(&[until("b", 30), until("a", 40), until("c", 20)]);
    assert_eq!(chain.state.next_due(), Some(START.plus_secs(20)));
    let Decision::Seal(sealing) = chain.decide(START.plus_secs(35), &Command::Tick) else {
        panic!("two are due");
    };
    let order: Vec<_> = sealing.drafts.iter().map(|d| d.entitlement_id.as_deref()).collect();
    assert_eq!(order, [Some("c"), Some("b")]);
}

#[test]
fn the_largest_change_that_is_accepted_still_fits_a_receipt() {
    let metadata = |chars: usize| -> Vec<(String, String)> {
        (0..limits::METADATA_ENTRIES).map(|at| (format!("k{at}"), "\"".repeat(chars))).collect()
    };
    let command = |chars| {
        let id = "e".repeat(limits::ENTITLEMENT_ID_CHARS);
        let change = change(&id, EntitlementAction::Grant);
        Command::Entitlement(EntitlementChange { metadata: metadata(chars), ..change })
    };
    let accepted =
        |chars| matches!(Chain::tenant().decide(START, &command(chars)), Decision::Seal(_));
    let most = (0..=limits::METADATA_VALUE_CHARS).rev().find(|chars| accepted(*chars)).unwrap();
    assert!(most < limits::METADATA_VALUE_CHARS, "the limit was never reached");
    Chain::new(&"t".repeat(limits::CUSTOMER_ID_CHARS)).act(START, &command(most));
}

/// A hundred thousand tenants are in memory at once: growth here is growth there.
#[test]
fn states_stay_small() {
    assert!(size_of::<crate::entitlement::Entitlement>() <= 64);
    assert!(size_of::<StreamState>() <= 128);
}
