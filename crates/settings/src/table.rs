//! The settings that exist.
//!
//! Owns: one row per setting, from which the typed [`Settings`], the list for the documentation
//! and the reader are all made.
//! Refuses to know: how a value is found, and the code that a setting governs.

use core::net::IpAddr;
use std::path::PathBuf;

use crate::choices::{Backend, LogLevel, Synchronous};
use crate::knob::{Kind, Knob};
use crate::resolve::Reader;

/// Turns the rows into knobs, fields and reading code, so that none of them can be forgotten.
macro_rules! knobs {
    ($($name:ident => $field:ident: $type:ty, $kind:expr, $default:expr, $unit:literal,
       $help:literal;)+) => {
        /// Every setting, checked and typed. One field per row of [`table`].
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Settings { $(#[doc = $help] pub $field: $type,)+ }

        mod knob {
            use super::*;
            $(pub(super) const $name: Knob = Knob {
                name: stringify!($name),
                key: stringify!($field),
                kind: $kind,
                default: $default,
                unit: $unit,
                secret: false,
                live: false,
                help: $help,
            };)+
        }

        const TABLE: &[Knob] = &[$(knob::$name),+];

        impl Settings {
            /// `None` when any row has no usable value; `reader` then holds every reason. All
            /// rows are read before the first `?`, so that one start shows every mistake.
            pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
                $(let $field = reader.read::<$type>(&knob::$name);)+
                Some(Settings { $($field: $field?,)+ })
            }
        }
    };
}

/// Every setting, in the order in which they are documented.
#[must_use]
pub const fn table() -> &'static [Knob] {
    TABLE
}

const fn from_to(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

knobs! {
    PORT => port: u16, from_to(0, 65_535), Some("8080"), "",
        "TCP port of the HTTP server; 0 takes any free port.";
    BIND_ADDRESS => bind_address: IpAddr, Kind::Address, Some("127.0.0.1"), "",
        "Address of the HTTP server. A loopback address runs open, for development; any other is refused until keys exist.";
    REQUEST_TIMEOUT_MS => request_timeout_ms: u64, from_to(1, 600_000), Some("30000"),
        "milliseconds",
        "Time from the first byte of a request until it is answered with a timeout.";
    GRACEFUL_SHUTDOWN_MS => graceful_shutdown_ms: u64, from_to(100, 600_000), Some("30000"),
        "milliseconds",
        "Time that requests and actions in flight have to finish after SIGTERM.";
    MAX_CONCURRENT_REQUESTS => max_concurrent_requests: usize, from_to(1, 100_000), Some("1000"),
        "requests",
        "Requests in work at the same time; more are refused at once with a hint to retry.";
    MAX_CONNECTIONS => max_connections: usize, from_to(1, 1_000_000), Some("10000"),
        "connections",
        "Open client connections; more are not accepted until one closes.";
    MAX_BODY_BYTES => max_body_bytes: usize, from_to(1_024, 33_554_432), Some("1048576"),
        "bytes",
        "Size of a request body; a larger one is refused before it is read whole.";
    RECEIPT_LEDGER_BACKEND => receipt_ledger_backend: Backend, Kind::Choice(Backend::WORDS),
        Some("sqlite"), "",
        "Where receipts are kept; memory (also called ets) loses them when the process ends.";
    LEDGER_DIR => ledger_dir: PathBuf, Kind::Path, Some("tai-data"), "",
        "Directory of the ledger's files; created when it does not exist.";
    RECEIPT_BUFFER_SIZE => receipt_buffer_size: usize, from_to(64, 1_000_000), Some("10000"),
        "commands",
        "Commands that may wait for the committer; more are refused with a hint to retry.";
    RECEIPT_VERIFY_HASHES => receipt_verify_hashes: bool, Kind::Flag, Some("true"), "",
        "Whether reading a receipt checks its hash; false turns health yellow.";
    ERL_MAX_ETS_TABLES => erl_max_ets_tables: usize, from_to(100, 10_000_000), Some("100000"),
        "streams",
        "Stream states kept in memory; the rest are loaded from the ledger when needed.";
    SQLITE_SYNCHRONOUS => sqlite_synchronous: Synchronous, Kind::Choice(Synchronous::WORDS),
        Some("full"), "",
        "Whether a commit waits for the disk; off loses acknowledged receipts on power loss and turns health yellow.";
    ACTION_POOL_SIZE => action_pool_size: usize, from_to(1, 1_000), Some("10"), "actions",
        "Actions that run at the same time.";
    ACTION_QUEUE_SIZE => action_queue_size: usize, from_to(1, 1_000_000), Some("1000"), "actions",
        "Actions that may wait for a place in the pool; more are refused.";
    ACTION_TIMEOUT_MS => action_timeout_ms: u64, from_to(1, 3_600_000), Some("60000"),
        "milliseconds",
        "Time from the start of an action until it counts as failed.";
    GOVERNOR_STATE_CHECK_INTERVAL_MS => governor_state_check_interval_ms: u64,
        from_to(10, 60_000), Some("1000"), "milliseconds",
        "How often due timers and unsettled attempts are looked for.";
    CATALOGUE_FILE => catalogue_file: Option<PathBuf>, Kind::Path, None, "",
        "File of prices, plans and signal profiles; without it the built-in example is used.";
    LOG_LEVEL => log_level: LogLevel, Kind::Choice(LogLevel::WORDS), Some("info"), "",
        "The least severe event that is logged.";
    LOG_FILE => log_file: Option<PathBuf>, Kind::Path, None, "",
        "File that log lines are appended to; without it they go to standard output.";
    METRICS_ENABLED => metrics_enabled: bool, Kind::Flag, Some("true"), "",
        "Whether /metrics is served.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_well_formed() {
        for (index, row) in table().iter().enumerate() {
            assert_eq!(row.key, row.name.to_lowercase());
            assert!(!table()[..index].iter().any(|other| other.name == row.name), "{}", row.name);
            assert!(row.help.ends_with('.') && !row.help.contains('|'), "{}", row.name);
            assert!(row.default.is_none_or(|text| row.kind.accepts(text)), "{}", row.name);
            // A unit belongs to a quantity and, where the name carries one, agrees with it.
            assert!(row.unit.is_empty() || matches!(row.kind, Kind::Integer { .. }));
            assert_eq!(row.name.ends_with("_MS"), row.unit == "milliseconds", "{}", row.name);
            assert_eq!(row.name.ends_with("_BYTES"), row.unit == "bytes", "{}", row.name);
            if let Kind::Integer { min, max } = row.kind {
                assert!(min < max, "{}", row.name);
            }
        }
    }
}
