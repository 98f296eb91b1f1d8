//! Who may do what: scopes, the names of keys, and the text of a key.
//!
//! Owns: the closed list of scopes and the parts of a key's text. Refuses to know: how a key is
//! made, checked or kept; no secret is compared here.

use std::fmt;

use crate::hash::{Hash, hex_decode};
use crate::ids::{StreamName, TenantId};
use crate::limits;

macro_rules! scopes {
    ($($variant:ident = $bit:literal, $word:literal, $doc:literal;)+) => {
        /// One thing that a key may permit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Scope { $(#[doc = $doc] $variant,)+ }

        impl Scope {
            /// Every scope, in the order in which sets of them are written.
            pub const ALL: &'static [Scope] = &[$(Scope::$variant,)+];

            /// The word in requests and receipts.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Scope::$variant => $word,)+ }
            }

            /// What it permits, in one sentence.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Scope::$variant => $doc,)+ }
            }

            const fn bit(self) -> u8 {
                match self { $(Scope::$variant => 1 << $bit,)+ }
            }
        }
    };
}

scopes! {
    MarketplaceWrite = 0, "marketplace:write", "Entitlement events and customer calls.";
    SignalsWrite = 1, "signals:write", "Signals, pushed or posted.";
    ReceiptsRead = 2, "receipts:read", "Receipts, one by one and by search.";
    AdminRead = 3, "admin:read", "Everything that the operator sees.";
    AdminWrite = 4, "admin:write", "Everything that the operator does, and sees.";
    AiInvoke = 5, "ai:invoke", "Models: calls on the tenant's budget, and what it has used.";
}

/// A set of scopes. Written as words with a blank between them, in table order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// What a tenant may do with its own data.
    pub const TENANT: Scopes = Scopes::of(&[
        Scope::MarketplaceWrite,
        Scope::SignalsWrite,
        Scope::ReceiptsRead,
        Scope::AiInvoke,
    ]);

    /// What an operator may do.
    pub const ADMIN: Scopes = Scopes::of(Scope::ALL);

    /// The set of these.
    #[must_use]
    pub const fn of(scopes: &[Scope]) -> Scopes {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= scopes[at].bit();
            at += 1;
        }
        Scopes(bits)
    }

    /// Reads words with a blank between them, at least one; `None` for an unknown word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Scopes> {
        let find = |word: &str| Scope::ALL.iter().find(|scope| scope.as_str() == word);
        let scopes: Vec<Scope> =
            text.split(' ').map(|word| find(word).copied()).collect::<Option<_>>()?;
        Some(Scopes::of(&scopes))
    }

    /// True when the set permits `scope`. Who may change everything may see everything.
    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        let implied = matches!(scope, Scope::AdminRead) && self.0 & Scope::AdminWrite.bit() != 0;
        self.0 & scope.bit() != 0 || implied
    }

    /// True when every scope of this set is in `other` too.
    #[must_use]
    pub const fn within(self, other: Scopes) -> bool {
        self.0 & !other.0 == 0
    }

    /// The scopes, in table order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.0 & scope.bit() != 0)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, scope) in self.iter().enumerate() {
            let blank = if nth == 0 { "" } else { " " };
            write!(f, "{blank}{}", scope.as_str())?;
        }
        Ok(())
    }
}

/// The public name of a key: `key_` and 16 hex digits, the first 64 bits of its fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// What every key id starts with.
    pub const PREFIX: &'static str = "key_";

    /// The id of the key with this fingerprint.
    #[must_use]
    pub fn of(fingerprint: Hash) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&fingerprint.0[..8]);
        KeyId(id)
    }

    /// Reads `key_` and 16 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<KeyId> {
        let mut id = [0; 8];
        hex_decode(text.strip_prefix(Self::PREFIX)?.as_bytes(), &mut id)?;
        Some(KeyId(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whose key it is. The chain of the owner holds the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyOwner {
    /// A tenant: the key speaks for this tenant and no other.
    Tenant(TenantId),
    /// The service: the key may name any tenant, as far as its scopes reach.
    Service,
}

impl KeyOwner {
    /// The chain that holds the owner's keys.
    #[must_use]
    pub fn stream(&self) -> StreamName {
        match self {
            KeyOwner::Tenant(tenant) => StreamName::tenant(tenant),
            KeyOwner::Service => StreamName::system(limits::STREAM_KEYS),
        }
    }

    /// The tenant, if it is one.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            KeyOwner::Tenant(tenant) => Some(tenant),
            KeyOwner::Service => None,
        }
    }
}

/// What every key starts with, so that scanners find one that leaked.
pub const KEY_PREFIX: &str = "taik_";

/// The owner and the secret part of a key's text: `taik_<owner>.<secret>`, where the owner is a
/// tenant id or `_keys`. The secret is not looked at. `None` when it is no such text.
#[must_use]
pub fn split_key(text: &str) -> Option<(KeyOwner, &str)> {
    let (owner, secret) = text.strip_prefix(KEY_PREFIX)?.rsplit_once('.')?;
    let owner = match owner {
        limits::STREAM_KEYS => KeyOwner::Service,
        tenant => KeyOwner::Tenant(TenantId::new(tenant).ok()?),
    };
    Some((owner, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_round_trip_and_imply_only_what_is_said() {
        for set in [Scopes::TENANT, Scopes::ADMIN, Scopes::of(&[Scope::SignalsWrite])] {
            assert_eq!(Scopes::parse(&set.to_string()), Some(set));
        }
        assert_eq!(
            Scopes::TENANT.to_string(),
            "marketplace:write signals:write receipts:read ai:invoke"
        );
        for bad in ["", " ", "admin", "admin:read  admin:write", "Admin:read", "signals:write "] {
            assert_eq!(Scopes::parse(bad), None, "{bad:?}");
        }
        let write = Scopes::of(&[Scope::AdminWrite]);
        assert!(write.has(Scope::AdminRead) && !write.has(Scope::ReceiptsRead));
        assert!(!Scopes::of(&[Scope::AdminRead]).has(Scope::AdminWrite));
        assert!(Scopes::TENANT.within(Scopes::ADMIN) && !Scopes::ADMIN.within(Scopes::TENANT));
    }

    #[test]
    fn key_texts_name_their_owner() {
        let tenant = TenantId::new("a.b:c@d").unwrap();
        let (owner, secret) = split_key("taik_a.b:c@d.s3cret").unwrap();
        assert_eq!((owner, secret), (KeyOwner::Tenant(tenant), "s3cret"));
        assert_eq!(split_key("taik__keys.s").map(|(owner, _)| owner), Some(KeyOwner::Service));
        for bad in ["", "taik_", "taik_a", "taik_.s", "taik__ops.s", "tai_a.s", "taik_a b.s"] {
            assert!(split_key(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn key_ids_round_trip() {
        let id = KeyId::of(Hash([0xab; 32]));
        assert_eq!(id.to_string(), "key_abababababababab");
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        assert_eq!(KeyId::parse("key_ABABABABABABABAB"), None);
    }
}
