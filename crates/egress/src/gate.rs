//! Whether an attempt may be made, and what is learnt from those that were.
//!
//! Owns: the order of pause, breaker, retry budget and bulkhead, and that one which is refused
//! leaves no trace. Refuses to know: locks, clocks, logs. All of it is one value behind one lock,
//! since an attempt needs all of it and holds it for less than a microsecond.

use std::time::Instant;

use engine::outbound::{Breaker, DependencyState, SendError, Verdict};

use crate::Policy;
use crate::budget::Budget;
use crate::circuit::{Circuit, Pass};
use crate::pause::Pause;

/// The gate before one dependency.
#[derive(Debug)]
pub(crate) struct Gate {
    circuit: Circuit,
    pause: Pause,
    budget: Budget,
    in_flight: usize,
    in_flight_max: usize,
}

/// An attempt that was let through. It has a place, and may be the probe, until [`Gate::leave`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pass: Pass,
    made: Instant,
}

impl Gate {
    pub(crate) fn new(in_flight_max: usize, now: Instant) -> Gate {
        Gate {
            circuit: Circuit::default(),
            pause: Pause::default(),
            budget: Budget::new(now),
            in_flight: 0,
            in_flight_max,
        }
    }

    /// Lets an attempt through or says why not. Everything is asked before anything is taken.
    pub(crate) fn admit(
        &mut self,
        is_retry: bool,
        now: Instant,
        policy: &Policy,
    ) -> Result<Ticket, SendError> {
        self.check_health(now, policy)?;
        if is_retry && !self.budget.allows(now, policy) {
            return Err(SendError::RetryBudget);
        }
        self.check_room()?;
        self.budget.count(now, is_retry);
        self.in_flight += 1;
        Ok(Ticket { pass: self.circuit.admit(now, policy), made: now })
    }

    /// Whether a first attempt would be let through.
    pub(crate) fn is_open(&self, now: Instant, policy: &Policy) -> bool {
        self.check_health(now, policy).and_then(|()| self.check_room()).is_ok()
    }

    fn check_health(&self, now: Instant, policy: &Policy) -> Result<(), SendError> {
        if let Some(retry_after) = self.pause.left(now) {
            return Err(SendError::Paused { retry_after });
        }
        self.circuit
            .check(now, policy)
            .map_err(|retry_after| SendError::BreakerOpen { retry_after })
    }

    fn check_room(&self) -> Result<(), SendError> {
        if self.in_flight >= self.in_flight_max { Err(SendError::Busy) } else { Ok(()) }
    }

    pub(crate) fn judge(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        now: Instant,
        policy: &Policy,
    ) {
        match verdict {
            Verdict::Good | Verdict::NotItsFault => {
                self.circuit.judge(ticket.pass, true, now, policy);
                self.pause.served(ticket.made);
            }
            Verdict::Bad => self.circuit.judge(ticket.pass, false, now, policy),
            Verdict::Throttled(asked) => self.pause.asked(asked, ticket.made, now),
        }
    }

    /// The attempt is over, whatever came of it.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.circuit.leave(ticket.pass);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(crate) fn force(&mut self, breaker: Option<Breaker>) {
        self.circuit.force(breaker);
    }

    /// The breaker's state if it has changed, and failures in a row.
    pub(crate) fn news(&mut self, now: Instant, policy: &Policy) -> Option<(Breaker, u32)> {
        self.circuit.news(now, policy).map(|state| (state, self.circuit.failures()))
    }

    pub(crate) fn state(
        &self,
        name: &'static str,
        now: Instant,
        policy: &Policy,
    ) -> DependencyState {
        DependencyState {
            name,
            breaker: self.circuit.state(now, policy),
            is_forced: self.circuit.is_forced(),
            failures: self.circuit.failures(),
            in_flight: self.in_flight,
            in_flight_max: self.in_flight_max,
            paused_for: self.pause.left(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn refusal(gate: &mut Gate, is_retry: bool, now: Instant) -> SendError {
        gate.admit(is_retry, now, &Policy::default()).unwrap_err()
    }

    #[test]
    fn the_order_is_pause_breaker_budget_room() {
        let now = Instant::now();
        let policy = Policy { threshold: 1, ..Policy::default() };
        let mut gate = Gate::new(crate::budget::FLOOR as usize + 2, now);
        let first = gate.admit(false, now, &policy).unwrap();
        let second = gate.admit(false, now, &policy).unwrap();
        for _ in 0..crate::budget::FLOOR {
            gate.admit(true, now, &policy).unwrap();
        }
        assert_eq!(refusal(&mut gate, false, now), SendError::Busy);
        assert_eq!(refusal(&mut gate, true, now), SendError::RetryBudget);
        assert!(!gate.is_open(now, &policy));
        gate.judge(first, Verdict::Bad, now, &policy);
        assert_eq!(
            gate.admit(true, now, &policy).unwrap_err(),
            SendError::BreakerOpen { retry_after: policy.open_for }
        );
        gate.judge(second, Verdict::Throttled(3 * S), now, &policy);
        assert_eq!(
            gate.admit(true, now, &policy).unwrap_err(),
            SendError::Paused { retry_after: 3 * S }
        );
    }

    #[test]
    fn a_refused_attempt_takes_neither_probe_nor_share_nor_place() {
        let start = Instant::now();
        let policy = Policy { threshold: 1, ..Policy::default() };
        let mut gate = Gate::new(1, start);
        let held = gate.admit(false, start, &policy).unwrap();
        gate.judge(held, Verdict::Bad, start, &policy);
        let later = start + policy.open_for;
        for _ in 0..100 {
            assert_eq!(gate.admit(true, later, &policy).unwrap_err(), SendError::Busy);
        }
        gate.leave(held);
        let probe = gate.admit(true, later, &policy).unwrap();
        gate.judge(probe, Verdict::Good, later, &policy);
        gate.leave(probe);
        let state = gate.state("x", later, &policy);
        assert_eq!((state.breaker, state.in_flight, state.failures), (Breaker::Closed, 0, 0));
    }

    #[test]
    fn only_a_bad_verdict_is_a_failure() {
        let now = Instant::now();
        let policy = Policy { threshold: 2, ..Policy::default() };
        let mut gate = Gate::new(1, now);
        let mut failures = |verdict: Option<Verdict>| {
            let ticket = gate.admit(false, now, &policy).unwrap();
            if let Some(verdict) = verdict {
                gate.judge(ticket, verdict, now, &policy);
            }
            assert_eq!(gate.admit(false, now, &policy).unwrap_err(), SendError::Busy);
            gate.leave(ticket);
            gate.state("x", now, &policy).failures
        };
        assert_eq!(failures(Some(Verdict::Bad)), 1);
        assert_eq!(failures(None), 1, "a caller that left says nothing");
        assert_eq!(failures(Some(Verdict::Throttled(Duration::ZERO))), 1);
        assert_eq!(failures(Some(Verdict::NotItsFault)), 0, "it works");
        assert_eq!(failures(Some(Verdict::Bad)), 1);
        assert_eq!(failures(Some(Verdict::Good)), 0);
    }

    #[test]
    fn a_throttled_probe_is_released_and_the_breaker_stays_half_open() {
        let start = Instant::now();
        let policy = Policy { threshold: 1, ..Policy::default() };
        let mut gate = Gate::new(4, start);
        let ticket = gate.admit(false, start, &policy).unwrap();
        gate.judge(ticket, Verdict::Bad, start, &policy);
        let later = start + policy.open_for;
        let probe = gate.admit(false, later, &policy).unwrap();
        gate.judge(probe, Verdict::Throttled(S), later, &policy);
        gate.leave(probe);
        assert_eq!(gate.state("x", later, &policy).breaker, Breaker::HalfOpen);
        gate.admit(false, later + S, &policy).unwrap();
    }
}
