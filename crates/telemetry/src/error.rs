//! The errors of this crate. Refuses to know who shows them, and how.

/// Why telemetry could not be set up. Nothing here is raised once the service runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two rows of the table clash, or a name or label is not valid for Prometheus.
    #[error("metric {name} cannot be registered")]
    Metric {
        /// Name of the metric in the table.
        name: &'static str,
        /// What Prometheus refused.
        source: prometheus::Error,
    },
    /// The file, or the directory it lies in, cannot be created or opened for appending.
    #[error("the log file cannot be opened")]
    LogFile(#[source] std::io::Error),
    /// The operating system gave no thread for the writer.
    #[error("the log writer cannot be started")]
    LogWriter(#[source] std::io::Error),
    /// The process has a global subscriber already.
    #[error("a log subscriber is already installed")]
    LogInstalled,
}
