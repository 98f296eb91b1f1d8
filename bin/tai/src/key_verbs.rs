//! `tai key …`: the first key, made while no service runs.
//!
//! Owns: when a key may be made without a service, and that its text is printed once. Refuses to
//! know: the form of a key and who may hold how many.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use engine::access::{MadeKey, make_key};
use engine::actions::Registry;
use engine::ai::AiParts;
use engine::clock::SystemClock;
use engine::{Engine, Parts, Request, WatchParts};
use governors::{Command, KeyChange};
use ledger::{Kind, View};
use settings::{Backend, Settings};
use store::OpenError;
use telemetry::metrics::Metrics;
use types::{KeyOwner, ReceiptId, Scopes};

use crate::cli::{CreateKey, EXIT_OK, Key, complain, say};
use crate::options::engine_options;
use crate::serve::catalogue;
use crate::stores::{self, Served};

/// Who asks, for the receipt: whoever may write the ledger's files.
const ACTOR: &str = "operator";
/// What the parts have to end in; nothing of a key waits for it.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Runs one verb on the ledger that the settings name.
pub(crate) fn run(verb: Key, settings: &Settings) -> anyhow::Result<ExitCode> {
    let Key::Create(CreateKey { admin: _, label }) = verb;
    if settings.receipt_ledger_backend == Backend::Memory {
        bail!("RECEIPT_LEDGER_BACKEND: a ledger in memory keeps no key");
    }
    let served = stores::open(settings).map_err(|error| match error.downcast_ref() {
        Some(OpenError::Locked) => anyhow!(
            "the service runs on this ledger: use `tai ctl key create --scope admin:read --scope \
             admin:write`"
        ),
        _ => error,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the runtime is entered: it blocks.
    let head = served.store.head().context("cannot read the ledger's head")?;
    let clock = SystemClock::not_before(head.at);
    let (key, receipt) = runtime.block_on(create(served, clock, settings, label))?;
    say(&key.text);
    complain(&format!("{}, receipt {receipt}; the key is not shown again", key.id()));
    Ok(ExitCode::from(EXIT_OK))
}

/// The key is printed only after its receipt is durable: a text that nobody vouches for is none.
async fn create(
    served: Served,
    clock: SystemClock,
    settings: &Settings,
    label: Option<String>,
) -> anyhow::Result<(MadeKey, ReceiptId)> {
    let Served { store, notes, workers } = served;
    let key = make_key(&store.identity(), &KeyOwner::Service)?;
    let parts = Parts {
        store,
        rules: Arc::new(catalogue(settings)?),
        clock: Arc::new(clock),
        registry: Registry::shipped(),
        metrics: Arc::new(Metrics::new()?),
        store_workers: workers,
        standby: None,
        ai: AiParts::none(),
        watch: WatchParts::default(),
        does_due: false,
    };
    let engine = Engine::start(parts, engine_options(settings));
    let issued = issue(&engine, &key, label, notes).await;
    engine.drain(DRAIN_LIMIT).await;
    Ok((key, issued?))
}

async fn issue(
    engine: &Engine,
    key: &MadeKey,
    label: Option<String>,
    notes: Vec<(&'static str, String)>,
) -> anyhow::Result<ReceiptId> {
    for (event, detail) in notes {
        engine.note(event, detail).await.context("cannot record what was found")?;
    }
    let request = Request {
        stream: KeyOwner::Service.stream(),
        command: Command::Key(KeyChange::Issue {
            fingerprint: key.fingerprint,
            scopes: Scopes::ADMIN,
            label,
            expires_at: None,
        }),
        actor: ACTOR.into(),
        may_register: false,
        key: None,
    };
    let decided = engine.act(request).await?.context("nothing was decided")?;
    let view = View::scan(&decided.receipt.core).context("the receipt cannot be read")?;
    if view.kind == Kind::Refusal {
        let detail = view.detail.map(|raw| raw.text().into_owned()).unwrap_or_default();
        bail!("no key was made: {detail}");
    }
    Ok(decided.receipt.id)
}
