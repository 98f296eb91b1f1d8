//! Checks the breaker as a table of steps, and over random ones.

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    Policy { threshold: 3, open_for: 10 * S, ..Policy::default() }
}

fn fail(circuit: &mut Circuit, times: u32, now: Instant, policy: &Policy) {
    for _ in 0..times {
        circuit.check(now, policy).unwrap();
        let pass = circuit.admit(now, policy);
        circuit.judge(pass, false, now, policy);
        circuit.leave(pass);
    }
}

#[test]
fn it_opens_after_failures_in_a_row_and_not_before() {
    let (now, policy) = (Instant::now(), policy());
    let mut circuit = Circuit::default();
    fail(&mut circuit, 2, now, &policy);
    let pass = circuit.admit(now, &policy);
    circuit.judge(pass, true, now, &policy);
    fail(&mut circuit, 2, now, &policy);
    assert_eq!(circuit.state(now, &policy), Breaker::Closed);
    fail(&mut circuit, 1, now, &policy);
    assert_eq!(circuit.state(now, &policy), Breaker::Open);
    assert_eq!(circuit.check(now + 4 * S, &policy), Err(6 * S));
}

#[test]
fn one_probe_at_a_time_and_its_verdict_decides() {
    let (start, policy) = (Instant::now(), policy());
    let mut circuit = Circuit::default();
    fail(&mut circuit, 3, start, &policy);
    let half = start + 10 * S;
    circuit.check(half, &policy).unwrap();
    let probe = circuit.admit(half, &policy);
    assert_eq!(circuit.check(half, &policy), Err(PROBE_WAIT));
    circuit.judge(probe, false, half, &policy);
    circuit.leave(probe);
    assert_eq!(circuit.check(half, &policy), Err(10 * S), "a bad probe opens it anew");
    let half = half + 10 * S;
    let probe = circuit.admit(half, &policy);
    circuit.judge(probe, true, half, &policy);
    assert_eq!(circuit.state(half, &policy), Breaker::Closed);
    assert_eq!(circuit.failures(), 0);
}

#[test]
fn a_probe_without_a_verdict_lets_the_next_one_go() {
    let (start, policy) = (Instant::now(), policy());
    let mut circuit = Circuit::default();
    fail(&mut circuit, 3, start, &policy);
    let half = start + 10 * S;
    for _ in 0..5 {
        circuit.check(half, &policy).unwrap();
        let probe = circuit.admit(half, &policy);
        circuit.check(half, &policy).unwrap_err();
        circuit.leave(probe);
    }
    assert_eq!(circuit.state(half, &policy), Breaker::HalfOpen);
}

#[test]
fn calls_from_before_say_nothing_after() {
    let (start, policy) = (Instant::now(), policy());
    let mut circuit = Circuit::default();
    let old: Vec<Pass> = (0..20).map(|_| circuit.admit(start, &policy)).collect();
    fail(&mut circuit, 3, start, &policy);
    for pass in &old {
        circuit.judge(*pass, false, start + 9 * S, &policy);
    }
    let half = start + 10 * S;
    circuit.check(half, &policy).expect("late failures do not keep it open");
    circuit.judge(old[0], true, half, &policy);
    assert_eq!(circuit.state(half, &policy), Breaker::HalfOpen, "a late success does not close it");
    let probe = circuit.admit(half, &policy);
    circuit.leave(old[1]);
    circuit.check(half, &policy).expect_err("only the probe itself releases the probe");
    circuit.judge(probe, true, half, &policy);
    for pass in &old {
        circuit.judge(*pass, false, half, &policy);
    }
    assert_eq!(circuit.failures(), 0, "what hung before the probe does not open it after");
}

#[test]
fn another_policy_is_in_force_at_once() {
    let (start, mut policy) = (Instant::now(), policy());
    let mut circuit = Circuit::default();
    fail(&mut circuit, 2, start, &policy);
    policy.threshold = 2;
    assert_eq!(circuit.state(start, &policy), Breaker::Open);
    policy.threshold = 3;
    assert_eq!(circuit.state(start, &policy), Breaker::Closed);
    fail(&mut circuit, 1, start, &policy);
    policy.open_for = S;
    assert_eq!(circuit.check(start, &policy), Err(S));
    circuit.check(start + S, &policy).unwrap();
    policy.open_for = 20 * S;
    assert_eq!(circuit.check(start + S, &policy), Err(19 * S));
    policy.threshold = 0;
    let mut fresh = Circuit::default();
    fresh.check(start, &policy).expect("no failures is never too many");
    fail(&mut fresh, 1, start, &policy);
    assert_eq!(fresh.state(start, &policy), Breaker::Open);
}

#[test]
fn an_operator_holds_it_until_it_is_let_go() {
    let (now, policy) = (Instant::now(), policy());
    let mut circuit = Circuit::default();
    circuit.force(Some(Breaker::Open));
    assert_eq!(circuit.check(now + 1000 * S, &policy), Err(policy.open_for));
    circuit.force(Some(Breaker::Closed));
    fail(&mut circuit, 10, now, &policy);
    assert!(circuit.is_forced());
    assert_eq!(circuit.state(now, &policy), Breaker::Closed);
    circuit.force(Some(Breaker::HalfOpen));
    let probe = circuit.admit(now, &policy);
    circuit.check(now, &policy).unwrap_err();
    circuit.judge(probe, true, now, &policy);
    circuit.leave(probe);
    assert_eq!(circuit.state(now, &policy), Breaker::HalfOpen, "held");
    circuit.check(now, &policy).unwrap();
    circuit.force(None);
    assert!(!circuit.is_forced());
    assert_eq!(circuit.state(now, &policy), Breaker::Closed);
    assert_eq!(circuit.failures(), 0);
}

#[test]
fn each_change_is_told_once() {
    let (start, policy) = (Instant::now(), policy());
    let mut circuit = Circuit::default();
    assert_eq!(circuit.news(start, &policy), None, "closed is how it begins");
    fail(&mut circuit, 3, start, &policy);
    assert_eq!(circuit.news(start, &policy), Some(Breaker::Open));
    assert_eq!(circuit.news(start, &policy), None);
    let half = start + 10 * S;
    assert_eq!(circuit.news(half, &policy), None, "nothing has happened yet");
    for told in [Some(Breaker::HalfOpen), None] {
        let probe = circuit.admit(half, &policy);
        assert_eq!(circuit.news(half, &policy), told);
        circuit.leave(probe);
        assert_eq!(circuit.news(half, &policy), None);
    }
    let probe = circuit.admit(half, &policy);
    circuit.judge(probe, true, half, &policy);
    assert_eq!(circuit.news(half, &policy), Some(Breaker::Closed));
    circuit.force(Some(Breaker::HalfOpen));
    assert_eq!(circuit.news(half, &policy), Some(Breaker::HalfOpen));
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Try,
    Judge(usize, bool),
    Leave(usize),
    Threshold(u32),
    OpenFor(u64),
    Force(Option<Breaker>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let breaker = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Breaker::Open)),
        1 => Just(Some(Breaker::Closed)),
        1 => Just(Some(Breaker::HalfOpen)),
    ];
    let step = prop_oneof![
        4 => (0u64..12).prop_map(Step::Wait),
        12 => Just(Step::Try),
        8 => (any::<usize>(), prop::bool::weighted(0.3)).prop_map(|(at, good)| Step::Judge(at, good)),
        6 => any::<usize>().prop_map(Step::Leave),
        1 => (0u32..6).prop_map(Step::Threshold),
        1 => (0u64..15).prop_map(Step::OpenFor),
        1 => breaker.prop_map(Step::Force),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever happens: an open breaker lets nothing through, a half-open one has one probe, a
    /// closed one lets everything through, and once nothing is under way and time has passed,
    /// something is.
    #[test]
    fn it_never_sticks_and_never_leaks(steps in steps()) {
        let (mut now, mut policy) = (Instant::now(), policy());
        let mut circuit = Circuit::default();
        let mut under_way: Vec<(Pass, Breaker)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Threshold(threshold) => policy.threshold = threshold,
                Step::OpenFor(seconds) => policy.open_for = Duration::from_secs(seconds),
                Step::Force(breaker) => {
                    circuit.force(breaker);
                    prop_assert_eq!(circuit.is_forced(), breaker.is_some());
                    prop_assert_eq!(circuit.state(now, &policy), breaker.unwrap_or(Breaker::Closed));
                }
                Step::Try => {
                    let state = circuit.state(now, &policy);
                    let is_let_through = circuit.check(now, &policy).is_ok();
                    match state {
                        Breaker::Closed => prop_assert!(is_let_through),
                        Breaker::Open => prop_assert!(!is_let_through),
                        Breaker::HalfOpen => {}
                    }
                    if is_let_through {
                        let pass = circuit.admit(now, &policy);
                        if state == Breaker::HalfOpen {
                            prop_assert!(circuit.check(now, &policy).is_err(), "a second probe");
                        }
                        under_way.push((pass, state));
                    }
                }
                Step::Judge(at, is_good) if !under_way.is_empty() => {
                    let (pass, _) = under_way[at % under_way.len()];
                    let before = circuit.state(now, &policy);
                    circuit.judge(pass, is_good, now, &policy);
                    if before == Breaker::Open && !pass.is_probe {
                        prop_assert_eq!(circuit.state(now, &policy), Breaker::Open);
                    }
                }
                Step::Leave(at) if !under_way.is_empty() => {
                    let (pass, _) = under_way.swap_remove(at % under_way.len());
                    circuit.leave(pass);
                }
                Step::Judge(..) | Step::Leave(_) => {}
            }
        }
        for (pass, _) in under_way.drain(..) {
            circuit.leave(pass);
        }
        if circuit.state(now, &policy) != Breaker::Open || !circuit.is_forced() {
            prop_assert!(circuit.check(now + policy.open_for, &policy).is_ok(), "stuck");
        }
    }
}
