//! Keys: how one is made, and whose a given text is.
//!
//! Owns: the text of a key, its tag, and the cache of owners' keys. Refuses to know: HTTP, what a
//! route needs, and how often a key may be used.
//!
//! A key names its owner, so no table leads from keys to tenants: the owner's chain holds the
//! fingerprints of its keys. A tag under the ledger's secret tells a text that was never issued
//! here before any chain is read, so that strangers cost no work on the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governors::state::HeldKey;
use ledger::seal::sha256;
use moka::sync::Cache;
use types::access::{KEY_PREFIX, split_key};
use types::hash::{hex_decode, hex_encode};
use types::{Hash, KeyId, KeyOwner, Micros, Reason, Scopes, StreamName};

use crate::act::Engine;
use crate::commit::Refused;
use crate::keys::keyed;
use crate::ports::Identity;

/// Bytes of chance in a key.
const RANDOM_BYTES: usize = 32;
/// Bytes of the tag behind them: one forged text in 2^64 leads to a look at a chain.
const TAG_BYTES: usize = 8;
/// Owners whose keys are remembered.
const OWNERS_CACHED: u64 = 100_000;
/// How long what was read of a shared store is taken for what holds: another process may have
/// revoked a key meanwhile, and that must hold everywhere within two seconds.
const FRESH: Duration = Duration::from_secs(1);
/// How long it is taken for it while the store does not answer. Then the door closes.
const BLIND_MAX: Duration = Duration::from_secs(30);

/// A key that was just made. The text is shown once and kept nowhere.
pub struct MadeKey {
    /// What its holder sends: `taik_<owner>.<80 hex digits>`.
    pub text: String,
    /// SHA-256 of the text: what the chain holds.
    pub fingerprint: Hash,
}

impl MadeKey {
    /// The public name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(self.fingerprint)
    }
}

/// Why no key could be made: the system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoEntropy(#[source] getrandom::Error);

/// Makes a key for `owner`. It is valid once [`governors::KeyChange::Issue`] is decided.
///
/// # Errors
/// [`NoEntropy`].
pub fn make_key(identity: &Identity, owner: &KeyOwner) -> Result<MadeKey, NoEntropy> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(NoEntropy)?;
    let stream = owner.stream();
    let mut secret = Vec::with_capacity(2 * (RANDOM_BYTES + TAG_BYTES));
    hex_encode(&random, &mut secret);
    hex_encode(&tag(identity, &stream, &random), &mut secret);
    let mut text = format!("{KEY_PREFIX}{stream}.");
    text.extend(secret.iter().map(|digit| char::from(*digit)));
    let fingerprint = sha256(text.as_bytes());
    Ok(MadeKey { text, fingerprint })
}

fn tag(identity: &Identity, stream: &StreamName, random: &[u8; RANDOM_BYTES]) -> [u8; TAG_BYTES] {
    let mac = keyed(identity, b"key", &[stream.as_str().as_bytes(), random]);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&mac.0[..TAG_BYTES]);
    tag
}

/// The public name of a key that the operator chose and no chain holds. Under the ledger's secret,
/// since a chosen key may be weak enough to be guessed from a plain hash.
#[must_use]
pub fn chosen_key_id(identity: &Identity, fingerprint: Hash) -> KeyId {
    KeyId::of(keyed(identity, b"chosen key", &[&fingerprint.0]))
}

/// Who asks, by a key that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose key it is.
    pub owner: KeyOwner,
    /// Which key.
    pub key: KeyId,
    /// What it permits.
    pub scopes: Scopes,
}

/// What is known of the keys of owners who were asked about.
pub(crate) struct Access {
    owners: Cache<StreamName, Known>,
    /// Counts changes: what was read before one must not be remembered after it. Held while owners
    /// are remembered or forgotten, so that nobody meets what is about to be forgotten.
    changes: Mutex<u64>,
}

/// The keys of an owner as they were at a moment.
#[derive(Clone)]
struct Known {
    keys: Arc<[HeldKey]>,
    read_at: Instant,
    /// When the store was asked, with or without an answer.
    asked_at: Instant,
}

impl Default for Access {
    fn default() -> Access {
        Access { owners: Cache::new(OWNERS_CACHED), changes: Mutex::default() }
    }
}

impl Access {
    /// Forgets an owner, because its keys have changed. Called before anybody is told of the
    /// change, so that a revoked key is refused from the answer on.
    pub(crate) fn forget(&self, stream: &StreamName) {
        let mut changes = self.changes();
        *changes += 1;
        self.owners.invalidate(stream);
    }

    /// Forgets everybody, where it is not known whose keys have changed.
    pub(crate) fn forget_all(&self) {
        let mut changes = self.changes();
        *changes += 1;
        self.owners.invalidate_all();
    }

    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One answer for everything that is wrong with a key: which part it was is nobody's business.
fn unauthorized() -> Refused {
    Refused::new(Reason::Unauthorized, "the key is not valid")
}

impl Engine {
    /// Whose key `text` is, and what it permits now.
    ///
    /// # Errors
    /// [`Reason::Unauthorized`] for any text that is no valid key; the reasons of a store that
    /// does not answer.
    pub async fn authenticate(&self, text: &str) -> Result<Principal, Refused> {
        let (owner, secret) = split_key(text).ok_or_else(unauthorized)?;
        let stream = owner.stream();
        let mut bytes = [0; RANDOM_BYTES + TAG_BYTES];
        hex_decode(secret.as_bytes(), &mut bytes).ok_or_else(unauthorized)?;
        let (random, given) = bytes.split_first_chunk().ok_or_else(unauthorized)?;
        let identity = self.store().identity();
        if !bool::from(subtle::ConstantTimeEq::ct_eq(&tag(&identity, &stream, random)[..], given)) {
            return Err(unauthorized());
        }
        let keys = self.keys_of(&stream).await?;
        let (fingerprint, now) = (sha256(text.as_bytes()), self.clock().now());
        let held = keys.iter().find(|key| key.fingerprint == fingerprint && key.is_valid(now));
        let held = held.ok_or_else(unauthorized)?;
        Ok(Principal { owner, key: held.id(), scopes: held.scopes })
    }

    async fn keys_of(&self, stream: &StreamName) -> Result<Arc<[HeldKey]>, Refused> {
        let access = self.access();
        let known = access.owners.get(stream);
        let is_shared = self.store().is_shared();
        let holds = |known: &&Known| {
            !is_shared || known.asked_at.elapsed() < FRESH && known.read_at.elapsed() < BLIND_MAX
        };
        if let Some(known) = known.as_ref().filter(holds) {
            return Ok(Arc::clone(&known.keys));
        }
        let (before, asked_at) = (*access.changes(), Instant::now());
        let state = self.state(stream).await;
        let changes = access.changes();
        let known = match (state, known) {
            (Ok(state), _) => Known { keys: state.keys().into(), read_at: asked_at, asked_at },
            // Not a store that found something wrong, and not what has changed meanwhile.
            (Err(refused), Some(known))
                if refused.reason == Reason::FirestoreError
                    && *changes == before
                    && !self.is_tampered()
                    && known.read_at.elapsed() < BLIND_MAX =>
            {
                Known { asked_at: Instant::now(), ..known }
            }
            (Err(refused), _) => return Err(refused),
        };
        if *changes == before {
            access.owners.insert(stream.clone(), known.clone());
        }
        Ok(known.keys)
    }

    /// True when the service has an operator's key that is valid now.
    ///
    /// # Errors
    /// The reasons of a store that does not answer.
    pub async fn has_admin_key(&self) -> Result<bool, Refused> {
        let now: Micros = self.clock().now();
        let keys = self.keys_of(&KeyOwner::Service.stream()).await?;
        let admin = |key: &HeldKey| key.is_valid(now) && key.scopes.has(types::Scope::AdminWrite);
        Ok(keys.iter().any(admin))
    }
}
