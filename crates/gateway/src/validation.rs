//! Rules of the operator's for bodies: JSON Schema by route, from a file (seed 004,
//! VALIDATION_FAIL).
//!
//! Owns: that a body is checked before its handler sees it, within a time, and how a failure is
//! answered, counted and logged. Refuses to know: where the file is; what a body means, which is
//! the handler's.
//!
//! A rule comes on top: sizes, keys and what a route itself asks for hold whatever a rule says. A
//! body that breaks one is refused with `validation_failed`; the detail names places and keywords,
//! never a value.
//!
//! The check is work that nobody can interrupt. It runs on a thread that may block, in one of a few
//! places, and holds that place until it ends. Whoever waits for a place or for the end longer than
//! `VALIDATION_TIMEOUT_MS` is refused with `timeout`, and nothing has been decided: a body that
//! could not be checked is not let through. A schema that is too dear for its bodies thus closes
//! its routes, is counted as such, and never takes the threads of the other routes; new rules come
//! with places of their own.

mod file;
mod pointer;
mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dialect::JsonLimits;
use tokio::sync::Semaphore;
use types::{Reason, TenantId};

pub use file::{FILE_BYTES_MAX, Found, Mistake, read};
pub use rule::Rule;

use crate::Gateway;
use crate::answer::{Fault, fault};
use crate::table::Route;
use rule::{Class, Failure, Verdict};

/// Checks that run at once. A check takes microseconds; more places would only let dear ones take
/// threads that reads of the store need.
const CHECKS_MAX: usize = 2;

/// What the operator may change about checks while the service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validation {
    /// Checks as [`rule`] calls strict, else lenient.
    pub strict: bool,
    /// From a body that is read until its check has ended.
    pub timeout: Duration,
    /// A line for each failure.
    pub log_failures: bool,
}

/// The rules of one file.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Arc<Rule>>,
    places: Arc<Semaphore>,
}

impl Default for Rules {
    /// None.
    fn default() -> Rules {
        Rules { rules: Vec::new(), places: Arc::new(Semaphore::new(CHECKS_MAX)) }
    }
}

impl Rules {
    /// The rules of a file, if all of it is good.
    ///
    /// # Errors
    /// Every mistake.
    pub fn parse(text: &[u8]) -> Result<Rules, Vec<Mistake>> {
        let (mut rules, mut mistakes) = (Vec::new(), Vec::new());
        for found in read(text).map_err(|mistake| vec![mistake])? {
            match found.rule {
                Ok(rule) => rules.push(Arc::new(rule)),
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        if mistakes.is_empty() { Ok(Rules { rules, ..Rules::default() }) } else { Err(mistakes) }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn of(&self, route: &Route) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| rule.route().is(route))
    }
}

/// The request that a body came with.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) route: &'static Route,
    pub(crate) request_id: &'a str,
    pub(crate) tenant: Option<&'a TenantId>,
    /// How the route reads JSON.
    pub(crate) limits: JsonLimits,
}

/// Checks a body against the rule of its route, if there is one.
pub(crate) async fn check(
    gateway: &Gateway,
    options: Validation,
    about: About<'_>,
    body: &Bytes,
) -> Result<(), Fault> {
    let rules = gateway.validation_rules();
    let Some(rule) = rules.of(about.route) else { return Ok(()) };
    let verdict =
        judged(&rules.places, Arc::clone(rule), body.clone(), about.limits, options.strict);
    let count = |class: Class| {
        gateway.metrics.validation_errors.with([about.route.path, class.as_str()]).inc();
    };
    match tokio::time::timeout(options.timeout, verdict).await {
        Ok(Ok(Verdict::Passed)) => Ok(()),
        Ok(Ok(Verdict::Forgiven(failures))) => {
            // Each one: what is forgiven now is refused when the lease of leniency ends.
            failures.iter().for_each(|failure| log(about, failure, "validation forgiven"));
            Ok(())
        }
        Ok(Ok(Verdict::Failed(failures, more))) => {
            failures.iter().for_each(|failure| count(failure.class));
            if options.log_failures {
                failures.iter().for_each(|failure| log(about, failure, "validation failed"));
            }
            Err(fault(Reason::ValidationFailed, detail(&failures, more)))
        }
        Ok(Err(fault)) => Err(fault),
        Err(_) => {
            count(Class::Timeout);
            if options.log_failures {
                let keyword = Class::Timeout.as_str().to_owned();
                let failure = Failure { pointer: String::new(), keyword, class: Class::Timeout };
                log(about, &failure, "validation failed");
            }
            let detail =
                "the body was not checked within VALIDATION_TIMEOUT_MS; nothing was decided";
            Err(fault(Reason::Timeout, detail))
        }
    }
}

/// What a check finds, once there is a place for it.
async fn judged(
    places: &Arc<Semaphore>,
    rule: Arc<Rule>,
    body: Bytes,
    limits: JsonLimits,
    strict: bool,
) -> Result<Verdict, Fault> {
    let Ok(place) = Arc::clone(places).acquire_owned().await else {
        return Err(fault(Reason::ServiceUnavailable, "the body cannot be checked"));
    };
    let check = move || {
        let _until_it_ends = place;
        rule.check(&body, limits, strict)
    };
    match tokio::task::spawn_blocking(check).await {
        Ok(verdict) => Ok(verdict?),
        Err(error) => {
            tracing::error!(event = "validation_check", %error, "the check of a body broke");
            Err(fault(Reason::InternalError, "the body could not be checked"))
        }
    }
}

fn log(about: About<'_>, failure: &Failure, message: &'static str) {
    tracing::warn!(
        event = "validation",
        path = about.route.path,
        method = about.route.method,
        request_id = about.request_id,
        tenant_id = about.tenant.map(TenantId::as_str),
        pointer = failure.pointer,
        keyword = failure.keyword,
        "{message}"
    );
}

/// `body breaks the rule of this route: /plan enum, /seats maximum and more`.
fn detail(failures: &[Failure], more: bool) -> String {
    let told: Vec<String> = failures
        .iter()
        .map(|failure| match failure.pointer.as_str() {
            "" => format!("body {}", failure.keyword),
            pointer => format!("{pointer} {}", failure.keyword),
        })
        .collect();
    let more = if more { " and more" } else { "" };
    format!("body breaks the rule of this route: {}{more}", told.join(", "))
}
