//! Trying a channel on purpose.
//!
//! Owns: what a test says, and that its outcome is on record. Refuses to know: who may ask for one.
//!
//! It goes the way of every notice: the same courier, rate and deadline. It waits for none that is
//! on its way meanwhile, and no place of the channel moves.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use dialect::notify::{Notice, NoticeKind, Phase};
use governors::{Command, NoticeChange, TellOutcome};
use types::{Micros, ReceiptId};

use super::{short, stream, why};
use crate::act::{Engine, Request};
use crate::notify::{ChannelFacts, Delivery};

/// What came of a test.
#[derive(Debug, Clone)]
pub struct Tested {
    /// What the far side made of it.
    pub delivery: Delivery,
    /// The same in the words of receipts.
    pub outcome: TellOutcome,
    /// What stood in the way, in our own words.
    pub why: Option<&'static str>,
    /// How long it took.
    pub took: Duration,
    /// Its receipt, unless none could be kept.
    pub receipt: Option<ReceiptId>,
}

impl Engine {
    /// Whether a channel of that name is set up.
    #[must_use]
    pub fn has_channel(&self, name: &str) -> bool {
        self.facts_of(name).is_some()
    }

    fn facts_of(&self, name: &str) -> Option<ChannelFacts> {
        self.courier()?.channels().into_iter().find(|facts| facts.name == name)
    }

    /// Tells a channel a notice that is marked as a test; `None` where there is no such channel.
    /// Where the far side keeps what is open, the test is closed again; of a status page it is the
    /// closing alone, which shows the public nothing.
    pub async fn test_channel(&self, name: &str, actor: Cow<'static, str>) -> Option<Tested> {
        let (courier, facts) = (self.courier()?, self.facts_of(name)?);
        let (at, since) = (self.clock().now(), Instant::now());
        let news = NoticeKind::Update { phase: Phase::Testing };
        let kinds: &[NoticeKind] = match facts.kind {
            "statuspage" => &[NoticeKind::Resolved],
            "pagerduty" | "alertmanager" => &[news, NoticeKind::Resolved],
            _ => &[news],
        };
        let mut delivery = None;
        for kind in kinds {
            let made = courier.deliver(name, &notice(name, *kind, at)).await;
            // What may have been taken is closed as well.
            let is_left = matches!(made, Delivery::Delivered { .. } | Delivery::Unknown);
            if matches!(delivery, None | Some(Delivery::Delivered { .. })) {
                delivery = Some(made);
            }
            if !is_left {
                break;
            }
        }
        let delivery = delivery.unwrap_or(Delivery::Unknown);
        let (outcome, why) = (short(&delivery), why(&**courier, name, &delivery));
        let change =
            NoticeChange::Tested { channel: name.to_owned(), outcome, why: why.map(str::to_owned) };
        let request = Request {
            stream: stream(),
            command: Command::Notice(change),
            actor,
            may_register: false,
            key: None,
        };
        let receipt = match self.submit(request, None).await {
            Ok(decided) => decided.map(|decided| decided.receipt.id),
            Err(refused) => {
                tracing::warn!(event = "channel_test_unrecorded", channel = name, %refused, "the outcome of a test is not on record");
                None
            }
        };
        Some(Tested { delivery, outcome, why, took: since.elapsed(), receipt })
    }
}

/// A test, as nobody can take it for trouble.
fn notice(channel: &str, kind: NoticeKind, at: Micros) -> Notice {
    let text = format!(
        "TEST of the channel {channel}\n\nNothing is wrong, and nobody has to do anything.\n"
    );
    Notice {
        id: format!("test-{}-{}", at.0, kind.as_str()),
        incident: format!("TEST-{}", at.0),
        kind,
        severity: 4,
        title: format!("TEST of the channel {channel}: nobody has to do anything"),
        text,
        component: "test".to_owned(),
        at_us: at.0,
        opened_at_us: at.0,
        url: None,
        alerts: Vec::new(),
    }
}
