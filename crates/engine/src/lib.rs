//! The engine: the one door through which every decision passes.
//!
//! Owns: `act` (decide, seal, do, seal), the ports, supervision, the action pool, due timers, the
//! reconciler, draining, and the copying of receipts from store to store. Refuses to know: HTTP,
//! SQL, and what any governor decides.
//!
//! ```text
//!   act ──queue──▶ decider ──group──▶ writer ──▶ store
//!    ▲               │ folds                │
//!    └── answer ─────┴──────────────────────┴──▶ action pool ──▶ act (Settle)
//! ```

pub mod access;
mod act;
pub mod actions;
pub mod ai;
mod alerts;
mod answers;
pub mod cache;
mod carry;
pub mod clock;
pub mod commit;
pub mod copy;
mod decider;
mod drain;
pub mod edge;
mod external;
pub mod incidents;
pub mod intake;
pub mod keys;
mod load;
mod notices;
pub mod notify;
mod outage;
pub mod outbound;
mod pipeline;
pub mod ports;
mod queued;
mod reads;
mod reconcile;
mod sight;
mod spool;
pub mod supervise;
mod wording;
mod writer;

pub use act::{Engine, Options, Parts, Request};
pub use commit::{Decided, Refused};
pub use external::{Heard, Sender};
pub use incidents::WatchParts;
pub use notices::Tested;
pub use outage::{SpoolUse, Stage, Writes};
pub use sight::{CaseView, ConditionView, RuleView, SliView};
