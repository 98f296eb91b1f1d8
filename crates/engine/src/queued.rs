//! Signals that wait while the store is away.
//!
//! Owns: that each is durable before it is answered, and decided once the store is back, those of
//! one chain in the order of their arrival. Refuses to know: when that is ([`crate::outage`]).
//!
//! What if the process dies here? The next start finds every signal that waits. One that was
//! decided and not yet taken out is answered by the receipt of the first time.

use std::collections::BTreeMap;
use std::sync::Arc;

use dialect::JsonLimits;
use dialect::pubsub::{Push, parse_push};
use futures_util::future::join_all;
use types::{Blame, Reason, TenantId};

use crate::act::Engine;
use crate::commit::Refused;
use crate::intake::{Message, tenant_of};
use crate::outage::{Stage, away, away_because};
use crate::ports::Queued;
use crate::spool::{here, unread};

/// Signals that are decided at a time.
const TAKE_PAGE: usize = 64;

impl Engine {
    /// True when signals are kept instead of decided.
    #[must_use]
    pub fn queues_signals(&self) -> bool {
        self.stage() < Stage::Signals && self.outage().spools.inbox().is_some()
    }

    /// Keeps a signal until the store is back. Durable on return.
    ///
    /// # Errors
    /// [`Reason::FirestoreError`] when nothing durable is at hand, or too many wait.
    pub async fn queue(&self, push: Vec<u8>, actor: &str) -> Result<(), Refused> {
        let inbox = self.outage().spools.inbox().ok_or_else(away)?;
        if inbox.waiting() >= self.options().spool_max {
            return Err(away_because("the receipt store is away and too many signals wait"));
        }
        let queued = Queued { push, actor: actor.to_owned() };
        here(move || inbox.put(&[queued])).await.map_err(|error| unread(&error))?;
        self.show_spooled();
        Ok(())
    }

    /// Decides all signals that wait, those of one chain in the order of their arrival.
    pub(crate) async fn take_queued(&self) -> Result<(), String> {
        let Some(inbox) = self.outage().spools.inbox() else { return Ok(()) };
        let mut taken = 0_usize;
        while inbox.waiting() > 0 {
            let from = Arc::clone(&inbox);
            let page = here(move || from.first(TAKE_PAGE)).await?;
            if page.is_empty() {
                break;
            }
            let mut chains: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for (number, queued) in &page {
                chains.entry(chain_of(queued)).or_default().push((*number, queued));
            }
            let outcomes = join_all(chains.into_values().map(|chain| self.take_chain(chain))).await;
            let (mut decided, mut set_aside, mut failed) = (Vec::new(), Vec::new(), None);
            for outcome in outcomes {
                decided.extend(outcome.decided);
                set_aside.extend(outcome.set_aside);
                failed = failed.or(outcome.failed);
            }
            taken += decided.len();
            let of = Arc::clone(&inbox);
            here(move || of.settle(&decided, &set_aside)).await?;
            self.show_spooled();
            if let Some(refused) = failed {
                return Err(refused.to_string());
            }
        }
        if taken > 0 {
            tracing::warn!(event = "signals_taken", taken, "{taken} queued signals are decided");
        }
        Ok(())
    }

    /// Decides signals one after the other, until one has to wait.
    async fn take_chain(&self, chain: Vec<(i64, &Queued)>) -> Taken {
        let mut taken = Taken::default();
        for (number, queued) in chain {
            match self.take_one(queued).await {
                Ok(()) => taken.decided.push(number),
                // By a mistake of the caller or a defect of ours: those behind it must not wait for
                // ever, and nobody else would keep it.
                Err(refused)
                    if refused.reason.blame() == Blame::Caller
                        || refused.reason == Reason::InternalError =>
                {
                    let reason = refused.reason.code();
                    tracing::error!(
                        event = "signal_set_aside",
                        reason,
                        "a queued signal cannot be decided"
                    );
                    self.refused_at_edge(refused.reason, "/pubsub", None);
                    taken.set_aside.push((number, reason));
                }
                Err(refused) => {
                    taken.failed = Some(refused);
                    break;
                }
            }
        }
        taken
    }

    async fn take_one(&self, queued: &Queued) -> Result<(), Refused> {
        let Push { message_id, payload, data, delivery_attempt, .. } =
            parse_push(&queued.push, &JsonLimits::default())
                .map_err(|fault| Refused::new(fault.reason, fault.detail.as_str()))?;
        let message = Message {
            id: &message_id,
            data: &data,
            payload,
            delivery_attempt,
            actor: queued.actor.clone().into(),
            may_register: true,
        };
        self.take(message).await.map(drop)
    }
}

/// What became of the signals of one chain.
#[derive(Default)]
struct Taken {
    decided: Vec<i64>,
    set_aside: Vec<(i64, &'static str)>,
    failed: Option<Refused>,
}

/// Whose chain a signal belongs to; none for one that cannot be read.
fn chain_of(queued: &Queued) -> Option<TenantId> {
    let push = parse_push(&queued.push, &JsonLimits::default()).ok()?;
    tenant_of(&push.payload).cloned()
}
