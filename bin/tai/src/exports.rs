//! What the service sends elsewhere about itself: its log, and spans.
//!
//! Owns: from settings to who is sent what, and that the end waits a moment for the last of it.
//! Refuses to know: how anything is sent, and what a line or a span says.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use egress::{Cargo, Collector, Dependency, Egress, Shipper};
use engine::clock::SystemClock;
use engine::outbound::Outbound;
use engine::supervise::Worker;
use futures_util::future::join_all;
use settings::{Secret, Settings, header_pairs};
use telemetry::LogHandle;
use telemetry::trace::{self, Tracer};

use crate::providers::leak;

/// How long the end waits for the last lines to arrive where they are sent.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Where a collector takes spans, behind its own address.
const TRACES: &str = "/v1/traces";
/// What stands around the lines of one request.
const LOGS: (&str, &str) = ("{\"logs\":[", "]}");

/// Who collects, if somebody does.
pub(crate) struct Collectors {
    log: Option<Collector>,
    spans: Option<Collector>,
}

impl Collectors {
    /// The collectors that the settings name. A mistake names the setting, never its value.
    pub(crate) fn read(settings: &Settings) -> anyhow::Result<Collectors> {
        let collector = |cargo, name, url: &Option<Secret>, path: &str| {
            if url.as_ref().is_some_and(|url| !path.is_empty() && url.expose().contains('?')) {
                bail!("{name}: it has a query");
            }
            let url = url.as_ref().map(|url| match path {
                "" => url.expose().to_owned(),
                path => [url.expose().trim_end_matches('/'), path].concat(),
            });
            url.map(|url| Collector::new(cargo, &url)).transpose().context(name)
        };
        let (log, spans) = (&settings.log_http_endpoint, &settings.otel_exporter_otlp_endpoint);
        Ok(Collectors {
            log: collector(Cargo::Lines, "LOG_HTTP_ENDPOINT", log, "")?,
            spans: collector(Cargo::Spans, "OTEL_EXPORTER_OTLP_ENDPOINT", spans, TRACES)?,
        })
    }

    /// What they are registered as.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = Dependency> {
        self.log.iter().chain(&self.spans).map(Collector::dependency)
    }

    /// Makes ready what sends to them; `egress` knows them already.
    pub(crate) fn begin(
        self,
        settings: &Settings,
        log: &LogHandle,
        egress: &Arc<Egress>,
    ) -> Exports {
        let outbound = || Arc::clone(egress) as Arc<dyn Outbound>;
        let lines = self.log.zip(log.outbox()).map(|(collector, outbox)| {
            let key = settings.log_http_auth_header.as_ref();
            let headers = key.map(|key| ("authorization", key.expose().to_owned()));
            let (headers, around) = (headers.into_iter().collect(), (LOGS.0.to_owned(), LOGS.1));
            Shipper::new(outbound(), outbox.clone(), collector, headers, around)
        });
        let mut tracer = None;
        let spans = self.spans.map(|collector| {
            let share = settings.tracing_sample_rate.billionths();
            let made = Tracer::new(Arc::new(SystemClock::default()), share);
            // One for the life of the process: a context that is copied with each poll can then
            // hold it.
            let made: &'static Tracer = Box::leak(Box::new(made));
            tracer = Some(made);
            let pairs = settings.otel_exporter_otlp_headers.as_ref();
            let pairs = pairs.and_then(|pairs| header_pairs(pairs.expose())).unwrap_or_default();
            let headers = pairs.into_iter().map(|(name, value)| (leak(&name), value)).collect();
            let instance = format!("{:032x}", random());
            let version = env!("CARGO_PKG_VERSION");
            let around = trace::envelope(&settings.otel_service_name, version, &instance);
            Shipper::new(outbound(), made.outbox().clone(), collector, headers, around)
        });
        Exports { shippers: lines.into_iter().chain(spans).collect(), tracer }
    }
}

/// Names this life of the process; without randomness it is not named apart.
fn random() -> u128 {
    let mut bytes = [0; 16];
    let _ = getrandom::fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

/// What sends, while the service runs.
#[derive(Clone)]
pub(crate) struct Exports {
    shippers: Vec<Arc<Shipper>>,
    tracer: Option<&'static Tracer>,
}

impl Exports {
    /// What sends in the background.
    pub(crate) fn workers(&self) -> impl Iterator<Item = Worker> {
        self.shippers.iter().map(Shipper::worker)
    }

    /// Where spans of requests go.
    pub(crate) fn tracer(&self) -> Option<&'static Tracer> {
        self.tracer
    }

    /// Spans that were lost so far.
    pub(crate) fn spans_dropped(&self) -> u64 {
        self.tracer.map_or(0, |tracer| tracer.outbox().dropped())
    }

    /// Puts live settings in force.
    pub(crate) fn reconfigure(&self, settings: &Settings) {
        if let Some(tracer) = self.tracer {
            tracer.set_share(settings.tracing_sample_rate.billionths());
        }
    }

    /// Sends what waits. What is left when the time is up goes with the process.
    pub(crate) async fn finish(&self) {
        join_all(self.shippers.iter().map(|shipper| shipper.finish(LAST_LINES))).await;
    }
}
