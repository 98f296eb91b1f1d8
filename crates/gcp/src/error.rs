//! What can go wrong with Google Cloud.
//!
//! Owns: one enum, in words that an operator can act on. Refuses to know: when to try again.

/// Why a call to Google Cloud, or the connection, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no usable credentials.
    #[error("cannot load Google Cloud credentials")]
    Credentials(#[source] Box<google_cloud_auth::build_errors::Error>),
    /// The client does not accept its endpoint or its credentials.
    #[error("cannot make a Pub/Sub client")]
    Client(#[source] Box<google_cloud_gax::client_builder::Error>),
    /// Nobody has made the subscription, or it was deleted or lost with an emulator.
    #[error("the subscription {subscription} does not exist")]
    Missing {
        /// Its full name.
        subscription: String,
    },
    /// Pub/Sub answered, and not with what was asked for.
    #[error("Pub/Sub answers {code} for {subscription}")]
    Refused {
        /// The full name of the subscription.
        subscription: String,
        /// The gRPC status, such as `PERMISSION_DENIED`.
        code: &'static str,
        /// What Google's client says.
        source: Box<google_cloud_pubsub::Error>,
    },
    /// There was no answer.
    #[error("Pub/Sub cannot be reached for {subscription}")]
    Unreachable {
        /// The full name of the subscription.
        subscription: String,
        /// What Google's client says.
        source: Box<google_cloud_pubsub::Error>,
    },
    /// There was no answer in time.
    #[error("Pub/Sub does not answer for {subscription} within {timeout_s} s")]
    Timeout {
        /// The full name of the subscription.
        subscription: String,
        /// How long was waited.
        timeout_s: u64,
    },
    /// The stream of messages ended without a reason.
    #[error("the stream of messages has ended")]
    Ended,
    /// The system has no thread for the calls to Firestore.
    #[error("cannot start a runtime for Firestore")]
    Runtime(#[source] std::io::Error),
    /// There is no HTTP client, as when the system's certificates cannot be read.
    #[error("cannot make a client for Firestore")]
    Http(#[source] reqwest::Error),
    /// The system has no random bytes for the secret of a new ledger.
    #[error("there are no random bytes")]
    Random(#[source] getrandom::Error),
    /// Firestore refuses what opening a ledger needs, or cannot be reached.
    #[error("Firestore does not open the ledger: {0}")]
    Firestore(String),
    /// As above, for a read.
    #[error("Firestore does not open the ledger")]
    FirestoreRead(#[from] engine::ports::ReadError),
    /// Another version wrote the ledger.
    #[error("the ledger in Firestore has format {found}, this version knows {known}")]
    Format {
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// What stands where a ledger begins is none.
    #[error("the document meta/ledger in Firestore is not that of a ledger")]
    Foreign,
    /// Another ledger was asked for.
    #[error("there is another ledger in Firestore")]
    OtherLedger,
    /// There is no ledger to read.
    #[error("there is no ledger in Firestore")]
    NoLedger,
    /// One replay at a time, or two of them would hand each other's messages around.
    #[error("dead letters are being replayed already")]
    ReplayRunning,
}

impl Error {
    /// Sorts what Google's client says about a call for `subscription`.
    pub(crate) fn of_call(subscription: &str, source: google_cloud_pubsub::Error) -> Error {
        use google_cloud_gax::error::rpc::Code;

        let subscription = subscription.to_owned();
        match source.status().map(|status| status.code) {
            Some(Code::NotFound) => Error::Missing { subscription },
            Some(code) if code != Code::Unavailable => {
                Error::Refused { subscription, code: code.name(), source: Box::new(source) }
            }
            _ => Error::Unreachable { subscription, source: Box::new(source) },
        }
    }
}

#[cfg(test)]
mod tests {
    use google_cloud_gax::error::rpc::{Code, Status};

    use super::*;

    #[test]
    fn the_status_tells_missing_from_refused_from_unreachable() {
        let said = |code| {
            let source = google_cloud_pubsub::Error::service(Status::default().set_code(code));
            Error::of_call("projects/p/subscriptions/s", source).to_string()
        };
        assert_eq!(
            said(Code::NotFound),
            "the subscription projects/p/subscriptions/s does not exist"
        );
        assert_eq!(
            said(Code::PermissionDenied),
            "Pub/Sub answers PERMISSION_DENIED for projects/p/subscriptions/s"
        );
        assert_eq!(
            said(Code::Unavailable),
            "Pub/Sub cannot be reached for projects/p/subscriptions/s"
        );
    }
}
