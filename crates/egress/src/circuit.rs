//! The breaker of one dependency.
//!
//! Owns: when calls are refused, the one probe, and what an operator holds. Refuses to know:
//! clocks, locks, what a failure is, and who is told of a change; time is an argument.
//!
//! The state is worked out and not kept: of failures in a row, of when the last one was, and of the
//! policy as it is now. So a change of the policy is in force with the next look.
//!
//! ```text
//!           failures in a row            open_for has passed
//!   closed ───────────────────▶ open ───────────────────────▶ half open ──┐ probe left without
//!     ▲                          ▲                              │    │  ▲ │ a verdict: next one
//!     │                          └──────── probe is bad ────────┘    │  └─┘
//!     └───────────────────────────────── probe is good ──────────────┘
//! ```

use std::time::{Duration, Instant};

use engine::outbound::Breaker;

use crate::Policy;

/// What a caller is told who comes while the one probe is under way: its end is not known, and
/// soon.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// The breaker.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    failures: u32,
    last_failure: Option<Instant>,
    is_probing: bool,
    /// Moves on with every opening, closing, probe and order of an operator. A verdict of an
    /// attempt that was let through before says nothing about now, such as that of a call which
    /// hung for a minute and comes back after the probe was good.
    generation: u64,
    forced: Option<Breaker>,
    /// The state that was last told.
    told: Option<Breaker>,
}

/// What an attempt was let through as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    generation: u64,
    is_probe: bool,
}

impl Circuit {
    pub(crate) fn state(&self, now: Instant, policy: &Policy) -> Breaker {
        if let Some(forced) = self.forced {
            return forced;
        }
        match self.last_failure {
            Some(last) if self.failures >= policy.threshold.max(1) => {
                if now.saturating_duration_since(last) < policy.open_for {
                    Breaker::Open
                } else {
                    Breaker::HalfOpen
                }
            }
            _ => Breaker::Closed,
        }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.forced.is_some()
    }

    /// Whether an attempt would be let through, or how long until one is.
    pub(crate) fn check(&self, now: Instant, policy: &Policy) -> Result<(), Duration> {
        match self.state(now, policy) {
            Breaker::Closed => Ok(()),
            Breaker::HalfOpen if !self.is_probing => Ok(()),
            Breaker::HalfOpen => Err(PROBE_WAIT.min(policy.open_for)),
            Breaker::Open => {
                let passed = match (self.forced, self.last_failure) {
                    (None, Some(last)) => now.saturating_duration_since(last),
                    // An operator says how long, and has not yet.
                    _ => Duration::ZERO,
                };
                Err(policy.open_for.saturating_sub(passed))
            }
        }
    }

    /// Lets an attempt through that [`Circuit::check`] has just agreed to.
    pub(crate) fn admit(&mut self, now: Instant, policy: &Policy) -> Pass {
        let is_probe = self.state(now, policy) == Breaker::HalfOpen;
        if is_probe {
            self.generation += 1;
            self.is_probing = true;
        }
        Pass { generation: self.generation, is_probe }
    }

    /// Takes note of how an attempt went.
    pub(crate) fn judge(&mut self, pass: Pass, is_good: bool, now: Instant, policy: &Policy) {
        let is_current = pass.generation == self.generation;
        let counts = pass.is_probe || self.state(now, policy) == Breaker::Closed;
        if !is_current || !counts || self.is_forced() {
            return;
        }
        if is_good {
            if pass.is_probe {
                self.generation += 1;
                self.is_probing = false;
            }
            self.failures = 0;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(now);
        if self.state(now, policy) != Breaker::Closed {
            self.generation += 1;
            self.is_probing = false;
        }
    }

    /// The attempt is over. If it was the probe and nobody has said how it went, the next may go.
    pub(crate) fn leave(&mut self, pass: Pass) {
        if pass.is_probe && pass.generation == self.generation {
            self.is_probing = false;
        }
    }

    /// Holds the breaker, or with `None` lets it go, closed: what was known before an operator took
    /// it is not known any more.
    pub(crate) fn force(&mut self, breaker: Option<Breaker>) {
        self.generation += 1;
        self.is_probing = false;
        self.failures = 0;
        self.last_failure = None;
        self.forced = breaker;
    }

    /// The state, if it is another than was told before.
    pub(crate) fn news(&mut self, now: Instant, policy: &Policy) -> Option<Breaker> {
        let state = self.state(now, policy);
        // Half open by the clock alone is told with its first probe: until then nothing happened.
        let state = match state {
            Breaker::HalfOpen if !self.is_probing && !self.is_forced() => self.told?,
            other => other,
        };
        (self.told.replace(state).unwrap_or(Breaker::Closed) != state).then_some(state)
    }
}

#[cfg(test)]
mod tests;
