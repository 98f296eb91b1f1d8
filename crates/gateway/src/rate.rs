//! How much one caller may ask: so many requests a second for each key, so many at a time for each
//! tenant, so many at a time for all.
//!
//! Owns: the counts, and who is refused first when there is too much. Refuses to know: who a caller
//! is and what it asks.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use telemetry::metrics::Metrics;
use types::{KeyId, Reason, TenantId};

use crate::answer::{Fault, fault};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The rate of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, sustained.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate of at least one request.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Rate {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Rate { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }

    fn quota(self) -> Quota {
        Quota::per_second(self.per_second).allow_burst(self.burst)
    }
}

type Keyed =
    RateLimiter<KeyId, DashMapStateStore<KeyId>, MonotonicClock, StateInformationMiddleware>;

/// The rates of all keys that were used. Only keys that were issued come here, so their number is
/// bounded by what the operator issued.
pub(crate) struct Rates {
    rate: Rate,
    keys: Keyed,
}

/// What a caller is told about its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    limit: u32,
    remaining: u32,
    reset_s: u32,
}

impl Rates {
    pub(crate) fn new(rate: Rate) -> Rates {
        let (state, clock) = (DashMapStateStore::default(), MonotonicClock);
        Rates { rate, keys: Keyed::new(rate.quota(), state, clock).with_middleware() }
    }

    /// Rates for `rate`; these, unless it changed.
    pub(crate) fn changed(self: &Arc<Rates>, rate: Rate) -> Arc<Rates> {
        if self.rate == rate { Arc::clone(self) } else { Arc::new(Rates::new(rate)) }
    }

    /// Takes one request from the key's allowance.
    pub(crate) fn take(&self, key: KeyId) -> Result<Allowance, (Fault, Allowance)> {
        let (limit, burst) = (self.rate.per_second.get(), self.rate.burst.get());
        match self.keys.check_key(&key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let reset_s = (burst - remaining.min(burst)).div_ceil(limit);
                Ok(Allowance { limit, remaining, reset_s })
            }
            Err(until) => {
                let wait = until.wait_time_from(MonotonicClock.now());
                let mut refusal =
                    fault(Reason::RateLimitExceeded, "the key's rate limit is reached");
                refusal.refused.retry_after_s = Some((wait.as_secs() as i64 + 1).max(1));
                let reset_s = burst.div_ceil(limit);
                Err((refusal, Allowance { limit, remaining: 0, reset_s }))
            }
        }
    }
}

impl Allowance {
    /// Writes the headers that tell it.
    pub(crate) fn onto(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset_s));
    }
}

/// Who goes first when there is too much. The refused are told to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Criticality {
    /// Looks that can wait: refused from three quarters of the limit on.
    Sheddable,
    /// What the service is for: refused at the limit.
    Normal,
    /// The operator's hands: a few more than the limit, since whoever mends must get in.
    Critical,
}

/// Places above the limit for what is critical.
const RESERVE: usize = 16;

impl Criticality {
    /// Requests in work up to which this class is served, where `max` is the limit.
    const fn limit(self, max: usize) -> usize {
        match self {
            Criticality::Sheddable => max - max / 4,
            Criticality::Normal => max,
            Criticality::Critical => max + RESERVE,
        }
    }
}

/// Requests in work, all together and of each tenant.
#[derive(Default)]
pub(crate) struct Places {
    all: AtomicUsize,
    /// As many entries as there are tenants with requests in work; `None` stands for all callers
    /// who have proved nothing yet.
    tenants: Mutex<HashMap<Option<TenantId>, usize>>,
}

/// A place among the requests in work, given back also when the caller hangs up and the future is
/// dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    number: usize,
}

impl Places {
    pub(crate) fn take(self: &Arc<Places>, metrics: &Arc<Metrics>) -> Place {
        metrics.http_requests_in_flight.inc();
        let number = self.all.fetch_add(1, Ordering::AcqRel) + 1;
        Place { places: Arc::clone(self), metrics: Arc::clone(metrics), number }
    }

    /// Requests in work now.
    pub(crate) fn in_work(&self) -> usize {
        self.all.load(Ordering::Acquire)
    }

    /// A place among the tenant's own requests, so that one tenant's flood never takes all places.
    pub(crate) fn of(
        self: &Arc<Places>,
        tenant: Option<TenantId>,
        max: usize,
    ) -> Result<TenantPlace, Fault> {
        let mut tenants = self.lock();
        let taken = tenants.entry(tenant.clone()).or_default();
        if *taken >= max {
            let detail = "the tenant has too many requests in work";
            let mut refusal = fault(Reason::RateLimitExceeded, detail);
            refusal.refused.retry_after_s = Some(1);
            return Err(refusal);
        }
        *taken += 1;
        drop(tenants);
        Ok(TenantPlace { places: Arc::clone(self), tenant })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<TenantId>, usize>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Refuses when there are too many requests in work for one of this class.
    pub(crate) fn admits(&self, class: Criticality, max: usize) -> Result<(), Fault> {
        if self.number <= class.limit(max) {
            return Ok(());
        }
        let mut refusal = fault(Reason::ServiceUnavailable, "too many requests are in work");
        refusal.refused.retry_after_s = Some(1);
        Err(refusal)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.all.fetch_sub(1, Ordering::AcqRel);
        self.metrics.http_requests_in_flight.dec();
    }
}

/// One of a tenant's places.
pub(crate) struct TenantPlace {
    places: Arc<Places>,
    tenant: Option<TenantId>,
}

impl Drop for TenantPlace {
    fn drop(&mut self) {
        let mut tenants = self.places.lock();
        if let Some(taken) = tenants.get_mut(&self.tenant) {
            *taken -= 1;
            if *taken == 0 {
                tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> KeyId {
        KeyId::of(types::Hash([number; 32]))
    }

    #[test]
    fn a_burst_is_served_and_what_follows_is_told_when_to_come() {
        let rates = Rates::new(Rate::new(1, 3));
        for remaining in [2, 1, 0] {
            let allowance = rates.take(key(1)).ok().unwrap();
            assert_eq!((allowance.limit, allowance.remaining), (1, remaining));
        }
        let (refusal, allowance) = rates.take(key(1)).err().unwrap();
        assert_eq!(refusal.refused.reason, Reason::RateLimitExceeded);
        assert!(matches!(refusal.refused.retry_after_s, Some(1..=2)));
        assert_eq!((allowance.remaining, allowance.reset_s), (0, 3));
        assert!(rates.take(key(2)).is_ok(), "another key has its own");
    }

    #[test]
    fn a_changed_rate_begins_anew_and_an_unchanged_one_goes_on() {
        let rates = Arc::new(Rates::new(Rate::new(1, 1)));
        assert!(rates.take(key(1)).is_ok());
        assert!(rates.changed(Rate::new(1, 1)).take(key(1)).is_err());
        assert!(rates.changed(Rate::new(1, 2)).take(key(1)).is_ok());
    }

    #[test]
    fn classes_are_refused_in_their_order() {
        let (places, metrics) = (Arc::<Places>::default(), Arc::new(Metrics::new().unwrap()));
        let served = |class: Criticality| {
            let held: Vec<_> = (0..1_000).map(|_| places.take(&metrics)).collect();
            held.iter().filter(|place| place.admits(class, 100).is_ok()).count()
        };
        assert_eq!(served(Criticality::Sheddable), 75);
        assert_eq!(served(Criticality::Normal), 100);
        assert_eq!(served(Criticality::Critical), 100 + RESERVE);
        assert_eq!((places.in_work(), metrics.http_requests_in_flight.get()), (0, 0));
        assert_eq!(Criticality::Sheddable.limit(1), 1, "the smallest limit serves every class");
    }

    #[test]
    fn a_tenant_has_its_places_and_leaves_nothing_behind() {
        let places = Arc::<Places>::default();
        let tenant = |name: &str| TenantId::new(name).ok();
        let held: Vec<_> = (0..2).map(|_| places.of(tenant("a"), 2).ok()).collect();
        let refusal = places.of(tenant("a"), 2).err().unwrap();
        assert_eq!(refusal.refused.reason, Reason::RateLimitExceeded);
        assert!(places.of(tenant("b"), 2).is_ok() && places.of(None, 2).is_ok());
        drop(held);
        assert!(places.of(tenant("a"), 2).is_ok());
        assert!(places.lock().is_empty());
    }
}
