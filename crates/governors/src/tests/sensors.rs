//! Several sensors of one tenant: none hides or outdates another.
//!
//! Owns: order and coalescing across metrics. Refuses to know: thresholds other than the shipped.

use super::*;

fn of(metric: &str, value: i64, second: i64) -> Command {
    let measured_at = Some(Millis(START.plus_secs(second).0 / 1000));
    Command::Signal(Signal { metric: metric.to_owned(), value_milli: value * 1000, measured_at })
}

fn granted() -> Chain {
    let grant = Command::Entitlement(change("ent-1", EntitlementAction::Grant));
    Chain::tenant().after(&[(0, grant)])
}

fn rule_of(chain: &Chain, second: i64, command: &Command) -> String {
    match chain.decide(START.plus_secs(second), command) {
        Decision::Seal(sealing) => sealing.drafts[0].rule.clone().unwrap().into_owned(),
        other => panic!("expected receipts, got {other:?}"),
    }
}

#[test]
fn order_is_kept_for_each_metric_alone() {
    let chain = granted().after(&[(20, of("memory", 10, 20))]);
    assert_eq!(rule_of(&chain, 21, &of("cpu", 70, 5)), "signal.warn", "an older clock, not stale");
    assert_eq!(rule_of(&chain, 21, &of("memory", 70, 5)), "signal.stale");
}

#[test]
fn the_longest_silent_metric_is_forgotten_first() {
    let mut chain = granted();
    for n in 0..40 {
        chain = chain.after(&[(100 + n, of(&format!("m{n}"), 10, 100 + n))]);
    }
    assert_eq!(rule_of(&chain, 200, &of("m39", 10, 50)), "signal.stale");
    assert_eq!(rule_of(&chain, 200, &of("m0", 10, 50)), "signal.calm", "bounded memory");
    let bytes = chain.state.to_snapshot().len();
    assert!(bytes < 1_500, "{bytes} bytes for a tenant with many sensors");
}

#[test]
fn a_calm_signal_of_another_metric_does_not_hide_a_bad_one_that_waits() {
    let flying = granted().after(&[(1, of("cpu", 90, 1))]);
    for (waiting, decided) in [
        (vec![of("cpu", 95, 2), of("memory", 10, 3)], "signal.intervene"),
        (vec![of("cpu", 95, 2), of("cpu", 10, 3)], "signal.calm"),
        (vec![of("memory", 70, 2), of("cpu", 95, 3)], "signal.intervene"),
        (vec![of("memory", 10, 2), of("cpu", 70, 3), of("disk", 10, 4)], "signal.warn"),
    ] {
        let mut chain = flying_copy(&flying);
        for (nth, signal) in waiting.iter().enumerate() {
            chain.act(START.plus_secs(2 + nth as i64), signal);
        }
        let command = settle(&chain, OutcomeStatus::Success);
        let Decision::Seal(sealing) = chain.decide(START.plus_secs(9), &command) else {
            panic!("a result is recorded");
        };
        let rule = sealing.drafts[1].rule.as_deref();
        assert_eq!(rule, Some(decided), "{waiting:?}");
    }
}

/// The same stream again, folded from its receipts.
fn flying_copy(chain: &Chain) -> Chain {
    let mut copy = Chain::tenant();
    copy.head = chain.head;
    for core in &chain.cores {
        copy.state.apply(&View::scan(core).unwrap()).unwrap();
        copy.cores.push(core.clone());
    }
    copy
}
