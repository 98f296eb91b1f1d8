//! The log: one JSON object per line, to stdout or to a file, and for who sends it elsewhere.
//!
//! Owns the subscriber, from an event to a line in the queues of the sinks. Refuses to know what is
//! worth a line and at which level; ERROR means that a person must look.
//!
//! This is a layer of its own and not a formatter inside the subscriber crate's `fmt` layer:
//! there, span fields pass through a text buffer before the formatter sees them, and here nothing
//! is kept before it is redacted.

mod alias;
mod line;
mod sink;
mod text;

use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use types::Clock;

use crate::outbox::{Outbox, OutboxOptions};
use crate::{Error, trace};

pub use line::{CUT_MARK, Fields, VALUE_BYTES, format_line};
pub(crate) use line::{clean, push_json};
pub use sink::LogHandle;

/// The dependency that takes lines over HTTP. What is said about it is not sent to it.
pub const COLLECTOR: &str = "log_http";

/// Which events are logged, how, and where to.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The least severe level.
    pub level: Level,
    /// One JSON object a line; else text for people, with the same fields.
    pub is_structured: bool,
    /// The file that takes the lines; without it they go to stdout.
    pub file: Option<FileOptions>,
    /// Lines are kept to be sent elsewhere too.
    pub outbox: Option<OutboxOptions>,
}

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// Where it is. Its directories are made.
    pub path: PathBuf,
    /// Lines that are written together.
    pub buffer_lines: usize,
    /// How long a line may wait for others. A line of level ERROR waits for none.
    pub flush_interval: Duration,
}

/// Starts the log of the process, panics included. Keep the handle until the process ends; dropping
/// it waits for the lines that are queued.
///
/// # Errors
/// [`Error::LogFile`] where the file cannot be opened, [`Error::LogWriter`] where no thread can
/// be started, [`Error::LogInstalled`] where the process has a subscriber already.
pub fn init(options: &LogOptions, clock: Arc<dyn Clock>) -> Result<LogHandle, Error> {
    let (subscriber, handle) = subscriber(options, clock)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::LogInstalled)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(handle)
}

/// A panic is a line like any other: redacted, and in each sink. What it says may be a value that
/// nobody expected, and stderr would get it as it is.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let said = panic.payload_as_str().unwrap_or("without a text");
    tracing::error!(event = "panicked", place, "panicked: {said}");
}

/// What [`init`] installs, for callers that install it for themselves alone.
///
/// # Errors
/// As [`init`], without [`Error::LogInstalled`].
pub fn subscriber(
    options: &LogOptions,
    clock: Arc<dyn Clock>,
) -> Result<(impl Subscriber + Send + Sync + use<>, LogHandle), Error> {
    let mut handle = sink::start(options.file.as_ref(), options.is_structured)?;
    let outbox = options.outbox.map(Outbox::new);
    if let Some(outbox) = &outbox {
        handle.set_outbox(outbox.clone());
    }
    let layer = LineLayer { clock, queue: handle.queue(), outbox };
    let (filter, reload) = reload::Layer::new(LevelFilter::from_level(options.level));
    // A reload fails only when the subscriber is gone, and then nothing is logged at all.
    handle.on_level(Box::new(move |level| drop(reload.reload(LevelFilter::from_level(level)))));
    let subscriber = Registry::default().with(filter).with(layer);
    Ok((subscriber, handle))
}

struct LineLayer {
    clock: Arc<dyn Clock>,
    queue: sink::Queue,
    outbox: Option<Outbox>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, logger) = (*event.metadata().level(), event.metadata().target());
        let is_of_collector = fields.is_about(COLLECTOR);
        let mut line = line::Line::new(self.clock.now(), level, logger, fields);
        if let Some(context) = trace::current() {
            line.trace(&context);
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.span(fields);
            }
        }
        let line = line.finish();
        if let Some(outbox) = &self.outbox
            && !is_of_collector
        {
            outbox.push(line.clone());
        }
        self.queue.push(line, level == Level::ERROR);
    }
}

#[cfg(test)]
mod tests;
