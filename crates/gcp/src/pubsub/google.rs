//! Google's client behind the seam.
//!
//! Owns: endpoints, credentials, the shape of Google's messages, and asking whether a subscription
//! can be reached, since the client retries by itself, without end and without a word. Refuses to
//! know: what becomes of a message, and when to connect again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use google_cloud_auth::credentials::{self, Credentials, anonymous};
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_pubsub::client::{Subscriber, SubscriptionAdmin};
use google_cloud_pubsub::model;
use google_cloud_pubsub::subscriber::handler::Handler;
use tokio::time::timeout;
use types::Micros;

use super::source::{DeadLetters, Delivery, Link, Source};
use super::{Message, Options};
use crate::Error;

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The least that Pub/Sub admits. Leases are extended while a message is in hand, so this is only
/// how long a message waits for its next delivery after a crash.
const LEASE: Duration = Duration::from_secs(10);

/// Pub/Sub, or its emulator.
#[derive(Debug)]
pub(crate) struct Google {
    project: String,
    emulator: Option<String>,
}

impl Google {
    pub(crate) fn new(options: &Options) -> Google {
        Google { project: options.project.clone(), emulator: options.emulator.clone() }
    }

    fn credentials(&self) -> Result<Credentials, Error> {
        if self.emulator.is_some() {
            return Ok(anonymous::Builder::new().build());
        }
        let built = credentials::Builder::default().build();
        built.map_err(|source| Error::Credentials(Box::new(source)))
    }

    async fn clients(&self) -> Result<(Subscriber, SubscriptionAdmin), Error> {
        let credentials = self.credentials()?;
        let mut pull = Subscriber::builder().with_credentials(credentials.clone());
        let mut admin = SubscriptionAdmin::builder()
            .with_credentials(credentials)
            .with_retry_policy(NeverRetry);
        if let Some(address) = &self.emulator {
            let endpoint = format!("http://{address}");
            pull = pull.with_endpoint(&endpoint);
            admin = admin.with_endpoint(endpoint);
        }
        let failed = |source| Error::Client(Box::new(source));
        Ok((pull.build().await.map_err(failed)?, admin.build().await.map_err(failed)?))
    }
}

impl Source for Google {
    fn connect<'a>(
        &'a self,
        subscription: &'a str,
        outstanding_max: usize,
    ) -> BoxFuture<'a, Result<Link, Error>> {
        let name: Arc<str> =
            format!("projects/{}/subscriptions/{subscription}", self.project).into();
        async move {
            // New clients for each connection: a channel whose peer went away without a word
            // notices only when the system gives up on it, after a quarter of an hour.
            let (pull, admin) = in_time(&name, self.clients()).await?;
            let dead_letters = in_time(&name, look(&admin, &name)).await?;
            let messages = pull
                .subscribe(&*name)
                .set_max_outstanding_messages(i64::try_from(outstanding_max).unwrap_or(i64::MAX))
                .set_max_lease_extension(LEASE)
                .build();
            let token = messages.shutdown_token();
            let of = Arc::clone(&name);
            // Not the client's own conversion, which is marked as unstable. The call that waits
            // must not be dropped between two messages, or the stream is opened anew for each.
            let deliveries = stream::unfold(messages, |mut messages| async move {
                messages.next().await.map(|next| (next, messages))
            });
            let deliveries = deliveries
                .map(move |next| next.map(delivery).map_err(|source| Error::of_call(&of, source)));
            Ok(Link {
                deliveries: deliveries.boxed(),
                check: Box::new(move || {
                    let (admin, name) = (admin.clone(), Arc::clone(&name));
                    async move { in_time(&name, look(&admin, &name)).await.map(drop) }.boxed()
                }),
                settled: async move { token.shutdown().await }.boxed(),
                dead_letters,
            })
        }
        .boxed()
    }
}

async fn in_time<T>(
    subscription: &str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = |_| Error::Timeout {
        subscription: subscription.to_owned(),
        timeout_s: ANSWER_TIMEOUT.as_secs(),
    };
    timeout(ANSWER_TIMEOUT, call).await.map_err(late)?
}

/// Asks for the subscription itself. `roles/pubsub.subscriber` permits pulling and not this; a
/// refusal is an answer too.
async fn look(admin: &SubscriptionAdmin, subscription: &str) -> Result<DeadLetters, Error> {
    match admin.get_subscription().set_subscription(subscription).send().await {
        Ok(found) => Ok(found
            .dead_letter_policy
            .map_or(DeadLetters::Nowhere, |policy| DeadLetters::Topic(policy.dead_letter_topic))),
        Err(error) if error.status().is_some_and(|it| it.code == Code::PermissionDenied) => {
            Ok(DeadLetters::Unknown)
        }
        Err(error) => Err(Error::of_call(subscription, error)),
    }
}

fn delivery((message, handler): (model::Message, Handler)) -> Delivery {
    let published = message.publish_time.map(|time| {
        let micros = i64::from(time.nanos() / 1_000);
        Micros(Micros::from_secs(time.seconds()).0.saturating_add(micros))
    });
    let message = Message {
        id: message.message_id,
        data: message.data,
        publish_time: published,
        delivery_attempt: handler.delivery_attempt().and_then(|it| u32::try_from(it).ok()),
        attributes: message.attributes.into_iter().collect(),
    };
    // Dropped without a call, the handler gives the message back.
    Delivery { message, ack: Box::new(move || handler.ack()) }
}
