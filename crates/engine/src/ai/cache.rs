//! Answers that a tenant is given again when it asks for the very same again.
//!
//! Owns: what counts as the same, how long an answer is kept, and who may be told it. Refuses to
//! know: what an answer says, and how a cache outside the process is reached.
//!
//! Keys and values are behind keyed hashes of the ledger: what is kept outside the process shows
//! nobody whether a text was asked for, and whoever writes there puts no words into a model's
//! mouth.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dialect::ai::{Api, Finish};
use moka::Expiry;
use moka::sync::Cache;
use types::{Micros, Operation, ReceiptId, StreamName};

use crate::act::Engine;
use crate::ai::attempt::Opened;
use crate::ai::{Ask, Call};
use crate::commit::Decided;
use crate::keys::keyed;
use crate::outbound::Boxed;
use crate::ports::{Durability, Identity};

/// Bytes of the largest answer that is kept.
const ONE_MAX: usize = 1024 * 1024;
/// What an answer takes beside its bytes, about.
const OVERHEAD: usize = 256;
/// The form of a kept answer. Another version of the service may read the same cache.
const VERSION: u8 = 1;
/// Version, time, receipt, durability.
const HEAD_LEN: usize = 1 + 8 + 16 + 1;
const MAC_LEN: usize = 32;

/// A cache outside the process did not answer, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cache outside the process did not answer")]
pub struct Away;

/// A cache of answers outside the process. It may forget whatever it likes, and answers soon or not
/// at all.
pub trait AnswerStore: Send + Sync {
    /// What is kept under the key.
    fn find(&self, key: String) -> Boxed<'_, Result<Option<Bytes>, Away>>;

    /// Keeps a value for a time.
    fn keep(&self, key: String, value: Bytes, time: Duration) -> Boxed<'_, Result<(), Away>>;
}

/// What a caller wants of kept answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheWish {
    /// The answer may be kept.
    pub may_keep: bool,
    /// The greatest age in seconds of a kept answer that will do: 0 takes none, `None` any.
    pub age_max_s: Option<u64>,
}

impl CacheWish {
    /// Of a caller who says nothing.
    pub const NONE: CacheWish = CacheWish { may_keep: true, age_max_s: None };
}

/// What a cache has done for a call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cached {
    /// There is none, or it is not for calls of this kind.
    Off,
    /// The answer was not there, and is not kept.
    Not,
    /// The answer is kept for so many seconds.
    For(u64),
}

/// An answer that was given before, for which nothing was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// The attempt that it was given for.
    pub attempt: ReceiptId,
    /// What that receipt survived when it was given.
    pub durability: Durability,
    /// The answer, byte for byte.
    pub body: Bytes,
    /// How old it is.
    pub age_s: u64,
    /// How long it will be given yet.
    pub left_s: u64,
}

/// The place of a call's answer.
pub(crate) struct Slot {
    key: String,
    /// How long answers are kept.
    time: Duration,
    wish: CacheWish,
}

/// An answer in memory, and when it goes.
#[derive(Clone)]
pub(crate) struct Held(Bytes, Duration);

/// Each goes when its time is over, whatever the setting says by then.
struct ByItsOwnTime;

impl Expiry<String, Held> for ByItsOwnTime {
    fn expire_after_create(
        &self,
        _: &String,
        held: &Held,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(held.1)
    }

    fn expire_after_update(
        &self,
        _: &String,
        held: &Held,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(held.1)
    }
}

/// Where answers are kept: in one place, so that what one caller has renewed is new to all.
pub(crate) enum Answers {
    Memory(Cache<String, Held>),
    Outside(Arc<dyn AnswerStore>),
}

impl Answers {
    pub(crate) fn new(outside: Option<Arc<dyn AnswerStore>>, bytes_max: u64) -> Answers {
        if let Some(outside) = outside {
            return Answers::Outside(outside);
        }
        let weigher = |key: &String, held: &Held| {
            u32::try_from(key.len() + held.0.len() + OVERHEAD).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().max_capacity(bytes_max).weigher(weigher);
        Answers::Memory(cache.expire_after(ByItsOwnTime).build())
    }

    fn label(&self) -> &'static str {
        match self {
            Answers::Memory(_) => "memory",
            Answers::Outside(_) => "redis",
        }
    }

    async fn find(&self, key: &str) -> Result<Option<Bytes>, Away> {
        match self {
            Answers::Memory(cache) => Ok(cache.get(key).map(|held| held.0)),
            Answers::Outside(store) => store.find(key.to_owned()).await,
        }
    }

    async fn keep(&self, key: String, value: Bytes, time: Duration) -> Result<(), Away> {
        match self {
            Answers::Memory(cache) => {
                cache.insert(key, Held(value, time));
                Ok(())
            }
            Answers::Outside(store) => store.keep(key, value, time).await,
        }
    }

    /// Forgets what is in memory.
    pub(crate) fn clear(&self) {
        if let Answers::Memory(cache) = self {
            cache.invalidate_all();
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Answers::Memory(cache) => {
                cache.run_pending_tasks();
                cache.weighted_size()
            }
            Answers::Outside(_) => 0,
        }
    }
}

/// Whether an answer says all that was to be said.
pub(crate) fn is_complete(operation: Operation, opened: &Opened) -> bool {
    let Opened::Whole { answer, .. } = opened else { return false };
    let finish = answer.finish();
    operation == Operation::Embeddings
        || matches!(finish, Finish::Stop | Finish::StopSequence | Finish::ToolCalls)
}

impl Engine {
    /// The place of a call's answer; `None` where answers of its kind are not kept.
    pub(crate) fn slot(&self, call: &Call) -> Option<Slot> {
        let time = self.options().ai.cache_time;
        if time.is_zero() || call.ask.streams() {
            return None;
        }
        let mut wish = call.cache;
        if call.key.is_some() {
            // A key stands for a receipt of its own, and a kept answer leaves none.
            wish.age_max_s = Some(0);
        }
        let api: &[u8] = match &call.ask {
            Ask::Chat(request) => api_name(request.api()),
            Ask::Embeddings(_) => api_name(Api::OpenAi),
        };
        let operation = call.ask.operation().as_str().as_bytes();
        let parts = [call.tenant.as_str().as_bytes(), api, operation, &call.body];
        let key = keyed(&self.store().identity(), b"ai_cache", &parts);
        Some(Slot { key: format!("tai:ai:{VERSION}:{key}"), time, wish })
    }

    /// The kept answer, if there is one that will do and the tenant may be told it.
    pub(crate) async fn recall(&self, slot: &Slot, call: &Call) -> Option<Recalled> {
        let is_wanted = slot.wish.age_max_s != Some(0) && !self.is_draining() && !self.is_frozen();
        let (result, found) = if !is_wanted || !self.may_be_told(call).await {
            // Whoever may not is refused by the call itself, with a receipt.
            ("bypass", None)
        } else {
            match self.ai().answers.find(&slot.key).await {
                Ok(found) => {
                    let found = found.and_then(|value| self.opened(slot, &value));
                    (if found.is_some() { "hit" } else { "miss" }, found)
                }
                Err(Away) => ("error", None),
            }
        };
        let store = self.ai().answers.label();
        self.inner().common.metrics.ai_cache_requests.with([result, store]).inc();
        found
    }

    /// Keeps the answer of a call that was made.
    pub(crate) async fn keep(&self, slot: Slot, receipt: &Decided, body: &Bytes) -> Cached {
        if !slot.wish.may_keep || body.len() > ONE_MAX {
            return Cached::Not;
        }
        let now = self.clock().now();
        let (attempt, durability) = (receipt.receipt.id, receipt.durability);
        let identity = self.store().identity();
        let value = sealed(&identity, &slot.key, (now, attempt, durability), body);
        let answers = &self.ai().answers;
        match answers.keep(slot.key, value, slot.time).await {
            Ok(()) => Cached::For(slot.time.as_secs()),
            Err(Away) => Cached::Not,
        }
    }

    fn opened(&self, slot: &Slot, value: &Bytes) -> Option<Recalled> {
        let identity = self.store().identity();
        let ((at, attempt, durability), body) = open(&identity, &slot.key, value)?;
        let age_us = u64::try_from(self.clock().now().0.saturating_sub(at.0)).unwrap_or(0);
        let age = Duration::from_micros(age_us);
        let left = slot.time.checked_sub(age).filter(|left| !left.is_zero())?;
        let age_s = age.as_secs();
        let will_do = slot.wish.age_max_s.is_none_or(|most| age <= Duration::from_secs(most));
        will_do.then_some(Recalled { attempt, durability, body, age_s, left_s: left.as_secs() })
    }

    /// Whether the tenant is entitled and its plan holds the model, by what is durable of it.
    /// Memory is asked first: who answers from memory must not wait for the store.
    async fn may_be_told(&self, call: &Call) -> bool {
        let stream = StreamName::tenant(&call.tenant);
        let (rules, now) = (self.rules(), self.clock().now());
        let ledger = &self.inner().ledger;
        let known = {
            let mut states = ledger.states.lock();
            let durable =
                states.get(&stream).and_then(|live| live.durable(ledger.progress.committed()));
            // Nobody else writes to a store that is not shared.
            let is_fresh =
                |read: Duration| !self.store().is_shared() || read < self.options().fresh;
            durable
                .filter(|version| is_fresh(version.read_at.elapsed()))
                .map(|version| version.state.holds_model(rules, call.ask.model(), now))
        };
        match known {
            Some(known) => known,
            None => match self.state(&stream).await {
                Ok(state) => state.holds_model(rules, call.ask.model(), now),
                Err(_) => false,
            },
        }
    }

    /// Brings the bytes of kept answers to the metrics.
    pub fn observe_answers(&self) {
        let bytes = i64::try_from(self.ai().answers.bytes()).unwrap_or(i64::MAX);
        self.inner().common.metrics.ai_cache_bytes.set(bytes);
    }
}

fn api_name(api: Api) -> &'static [u8] {
    match api {
        Api::OpenAi => b"openai",
        Api::Anthropic => b"anthropic",
        Api::Gemini => b"gemini",
    }
}

/// When an answer was given, for which attempt, and what that survived.
type Given = (Micros, ReceiptId, Durability);

const DURABILITIES: [Durability; 3] =
    [Durability::Durable, Durability::Local, Durability::Volatile];

fn sealed(identity: &Identity, key: &str, given: Given, body: &Bytes) -> Bytes {
    let (at, attempt, durability) = given;
    let mut value = BytesMut::with_capacity(HEAD_LEN + MAC_LEN + body.len());
    value.put_u8(VERSION);
    value.put_i64(at.0);
    value.put_slice(&attempt.0);
    let place = DURABILITIES.iter().position(|known| *known == durability).unwrap_or_default();
    value.put_u8(u8::try_from(place).unwrap_or_default());
    let mac = keyed(identity, b"ai_answer", &[key.as_bytes(), &value, body]);
    value.put_slice(&mac.0);
    value.put_slice(body);
    value.freeze()
}

/// What was sealed under this key; `None` where it is of another version, or not as it was sealed.
fn open(identity: &Identity, key: &str, value: &Bytes) -> Option<(Given, Bytes)> {
    if value.len() < HEAD_LEN + MAC_LEN {
        return None;
    }
    let (head, mac) = (&value[..HEAD_LEN], &value[HEAD_LEN..HEAD_LEN + MAC_LEN]);
    let body = value.slice(HEAD_LEN + MAC_LEN..);
    let own = keyed(identity, b"ai_answer", &[key.as_bytes(), head, &body]);
    if head[0] != VERSION || own.0[..] != *mac {
        return None;
    }
    let at = i64::from_be_bytes(head[1..9].try_into().ok()?);
    let attempt = ReceiptId(head[9..25].try_into().ok()?);
    let durability = *DURABILITIES.get(usize::from(head[25]))?;
    Some(((Micros(at), attempt, durability), body))
}

#[cfg(test)]
mod tests {
    use ledger::LedgerId;

    use super::*;

    fn identity(secret: u8) -> Identity {
        Identity { ledger: LedgerId([7; 16]), secret: [secret; 32] }
    }

    #[test]
    fn what_was_kept_is_read_as_it_was_and_nothing_else_is() {
        let body = Bytes::from_static(b"{\"x\":1}");
        for durability in DURABILITIES {
            let given = (Micros(1_700_000_000_123_456), ReceiptId([9; 16]), durability);
            let value = sealed(&identity(1), "key", given, &body);
            assert_eq!(open(&identity(1), "key", &value), Some((given, body.clone())));
            assert_eq!(open(&identity(2), "key", &value), None, "of another ledger");
            assert_eq!(open(&identity(1), "other", &value), None, "of another call");
            for at in 0..value.len() {
                let mut altered = value.to_vec();
                altered[at] ^= 1;
                assert_eq!(open(&identity(1), "key", &altered.into()), None, "{at}");
                assert_eq!(open(&identity(1), "key", &value.slice(..at)), None, "{at}");
            }
        }
    }

    #[tokio::test]
    async fn memory_holds_no_more_than_its_bytes() {
        let answers = Answers::new(None, 10_000);
        for nth in 0..100 {
            let value = Bytes::from(vec![0; 1_000]);
            answers.keep(nth.to_string(), value, Duration::from_secs(60)).await.unwrap();
        }
        assert!((1_000..=10_000).contains(&answers.bytes()), "{}", answers.bytes());
        answers.clear();
        assert_eq!(answers.bytes(), 0);
    }
}
