//! Channels that write down what they are told and answer as planned.
//!
//! Owns: the answers, and what of `_incidents` and `_notices` tests ask about. Refuses to know:
//! when anybody is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use dialect::notify::Notice;
use engine::WatchParts;
use engine::notify::{ChannelFacts, Courier, Delivery};
use engine::outbound::Boxed;
use engine::ports::{Query, Store, Stored};
use governors::{Command, Declared, IncidentChange, IncidentDeed};
use ledger::View;
use types::{Severity, StreamName};

pub(crate) const DELIVERED: Delivery = Delivery::Delivered { remote: None };
pub(crate) const LATER: Delivery = Delivery::Retry { after: None };
pub(crate) const NEVER: Delivery = Delivery::Refused { why: "it says so" };

/// Channels of a test.
#[derive(Default)]
pub(crate) struct Post {
    channels: Vec<ChannelFacts>,
    told: Mutex<Vec<(String, Notice)>>,
    planned: Mutex<BTreeMap<String, VecDeque<Delivery>>>,
    always: Mutex<BTreeMap<String, Delivery>>,
}

impl Post {
    /// Channels whose names are their kinds.
    pub(crate) fn new(kinds: &[&'static str]) -> Arc<Post> {
        let facts = |kind: &&'static str| ChannelFacts {
            name: (*kind).to_owned(),
            kind,
            repeats_are_known: *kind == "pagerduty",
        };
        Arc::new(Post { channels: kinds.iter().map(facts).collect(), ..Post::default() })
    }

    pub(crate) fn watch(self: &Arc<Post>) -> WatchParts {
        WatchParts { rules: None, courier: Some(Arc::clone(self) as Arc<dyn Courier>) }
    }

    /// What the channel answers from now on, once these are used up.
    pub(crate) fn answers(&self, channel: &str, next: &[Delivery], always: Delivery) {
        self.planned.lock().unwrap().insert(channel.to_owned(), next.iter().cloned().collect());
        self.always.lock().unwrap().insert(channel.to_owned(), always);
    }

    /// The titles or texts that a channel was told, in order.
    pub(crate) fn told(&self, channel: &str) -> Vec<Notice> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|(name, _)| name == channel).map(|(_, notice)| notice.clone()).collect()
    }
}

impl Courier for Post {
    fn channels(&self) -> Vec<ChannelFacts> {
        self.channels.clone()
    }

    fn why(&self, _: &str) -> Option<&'static str> {
        None
    }

    fn deliver<'a>(&'a self, channel: &'a str, notice: &'a Notice) -> Boxed<'a, Delivery> {
        self.told.lock().unwrap().push((channel.to_owned(), notice.clone()));
        let planned = self.planned.lock().unwrap().get_mut(channel).and_then(VecDeque::pop_front);
        let always = self.always.lock().unwrap().get(channel).cloned();
        Box::pin(async move {
            // Others have a turn, as while an answer comes over a wire.
            tokio::task::yield_now().await;
            planned.or(always).unwrap_or(DELIVERED)
        })
    }
}

pub(crate) fn declare(title: &str, component: &str) -> Command {
    Command::Incident(IncidentChange::Declare(Declared {
        title: title.to_owned(),
        severity: Severity::Sev1,
        component: component.to_owned(),
        text: String::new(),
    }))
}

pub(crate) fn say(incident: u64, text: &str) -> Command {
    let deed = IncidentDeed::Update { text: text.to_owned() };
    Command::Incident(IncidentChange::On { incident, deed })
}

/// Rule, status and subject of each receipt of a stream.
pub(crate) fn said(store: &dyn Store, stream: &StreamName) -> Vec<(String, String, String)> {
    let query = Query { stream: Some(stream.clone()), before_pos: None, scan_limit: 1_000 };
    let mut page: Vec<Stored> = store.query(&query).unwrap();
    page.reverse();
    let words = |stored: &Stored| {
        let view = View::scan(&stored.core).unwrap();
        let text = |raw: Option<ledger::scan::Raw<'_>>| {
            raw.map(|raw| raw.text().into_owned()).unwrap_or_default()
        };
        (text(view.rule), text(view.status), text(view.subject))
    };
    page.iter().map(words).collect()
}

/// What became of each attempt on a channel, in order.
pub(crate) fn outcomes(store: &dyn Store, channel: &str) -> Vec<String> {
    let notices = StreamName::system(types::limits::STREAM_NOTICES);
    let results = said(store, &notices).into_iter().filter(|(rule, ..)| rule == "notice.told");
    results.filter(|(.., subject)| subject == channel).map(|(_, status, _)| status).collect()
}

pub(crate) fn count(store: &dyn Store, rule: &str) -> usize {
    let all = said(store, &engine::incidents::stream());
    all.iter().filter(|(held, ..)| held == rule).count()
}
