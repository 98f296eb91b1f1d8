//! Signatures of entitlement events: HMAC over the body, or a JWT that names the same event. And of
//! alerts, which the HMAC alone can be for.
//!
//! Owns: what is signed and how old it may be. Refuses to know: keys of callers, and what an event
//! does.

use std::fmt;

use dialect::marketplace::EntitlementEvent;
use hmac::{Hmac, KeyInit, Mac};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use sha2::Sha256;
use types::hash::hex_decode;
use types::{Micros, Reason};

use crate::answer::{Fault, fault};

pub(crate) const X_SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
/// The prefix that some senders put before the hex digits.
const SHA256: &str = "sha256=";

/// Seconds that the sender's clock may differ from ours.
const SKEW_S: i64 = 30;
/// Seconds after which a token is too old, whatever it says of its end.
const AGE_S_MAX: i64 = 3_600;

/// What signatures are checked with.
#[derive(Clone, Default)]
pub struct Signatures {
    /// Entitlement events need one.
    pub required: bool,
    /// The secret of `X-Signature`.
    pub hmac: Option<Vec<u8>>,
    /// The secret of tokens, HS256 only.
    pub jwt: Option<Vec<u8>>,
}

impl fmt::Debug for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signatures").field("required", &self.required).finish_non_exhaustive()
    }
}

/// What a token must say.
#[derive(Deserialize)]
struct Claims {
    tenant_id: String,
    entitlement_id: String,
    iat: i64,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
}

impl Signatures {
    pub(crate) fn is_required(&self) -> bool {
        self.required
    }

    /// Checks the signature of an event where one is required. Either form suffices.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        event: &EntitlementEvent,
        now: Micros,
    ) -> Result<(), Fault> {
        if !self.required {
            return Ok(());
        }
        let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if let (Some(secret), Some(given)) = (&self.hmac, header(&X_SIGNATURE)) {
            return hmac_matches(secret, given, body)
                .then_some(())
                .ok_or_else(|| invalid("the signature does not fit the body"));
        }
        let token = header(&AUTHORIZATION).and_then(|text| text.split_once(' '));
        if let (Some(secret), Some((_, token))) = (&self.jwt, token) {
            return token_fits(secret, token.trim(), event, now.secs());
        }
        Err(invalid("the event needs a signature"))
    }

    /// Checks that the body bears an HMAC, whether or not events need one.
    pub(crate) fn check_body(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Fault> {
        let given = headers.get(&X_SIGNATURE).and_then(|value| value.to_str().ok());
        let fits = match (&self.hmac, given) {
            (Some(secret), Some(given)) => hmac_matches(secret, given, body),
            _ => false,
        };
        fits.then_some(()).ok_or_else(|| invalid("the signature does not fit the body"))
    }
}

fn invalid(detail: &str) -> Fault {
    fault(Reason::SignatureInvalid, detail)
}

fn hmac_matches(secret: &[u8], given: &str, body: &[u8]) -> bool {
    let mut digest = [0; 32];
    let hex = given.strip_prefix(SHA256).unwrap_or(given).to_ascii_lowercase();
    if hex_decode(hex.as_bytes(), &mut digest).is_none() {
        return false;
    }
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
    mac.update(body);
    // In constant time.
    mac.verify_slice(&digest).is_ok()
}

fn token_fits(
    secret: &[u8],
    token: &str,
    event: &EntitlementEvent,
    now_s: i64,
) -> Result<(), Fault> {
    let mut validation = Validation::new(Algorithm::HS256);
    // Times are checked below, by the clock that decisions are made by.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let read = decode::<Claims>(token, &DecodingKey::from_secret(secret), &validation);
    let claims = read.map_err(|_| invalid("the token cannot be verified"))?.claims;
    let current = claims.exp > now_s - SKEW_S
        && claims.nbf.is_none_or(|nbf| nbf <= now_s + SKEW_S)
        && claims.iat <= now_s + SKEW_S
        && claims.iat >= now_s - AGE_S_MAX - SKEW_S;
    if !current {
        return Err(invalid("the token is too old, or not valid yet"));
    }
    let fits = claims.tenant_id == event.tenant_id.as_str()
        && claims.entitlement_id == event.entitlement_id.as_str();
    fits.then_some(()).ok_or_else(|| invalid("the token was made for another event"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialect::JsonLimits;
    use dialect::marketplace::{Call, parse};
    use http::HeaderValue;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    const NOW: Micros = Micros(1_800_000_000_000_000);
    /// Test vectors, not secrets.
    const SECRET: &[u8] = b"a test vector, never a secret";
    const BODY: &[u8] = br#"{"tenant_id":"a","entitlement_id":"e","action":"grant"}"#;

    fn event() -> EntitlementEvent {
        match parse(BODY, &JsonLimits::default()) {
            Ok(Call::Entitlement(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    fn signatures() -> Signatures {
        Signatures { required: true, hmac: Some(SECRET.into()), jwt: Some(SECRET.into()) }
    }

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn check(headers: &HeaderMap) -> Result<(), Reason> {
        let outcome = signatures().check(headers, BODY, &event(), NOW);
        outcome.map_err(|fault| fault.refused.reason)
    }

    #[test]
    fn an_hmac_covers_every_byte() {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
        mac.update(BODY);
        let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        for good in [hex.clone(), format!("sha256={hex}"), hex.to_uppercase()] {
            assert_eq!(check(&headers(X_SIGNATURE, &good)), Ok(()));
        }
        let zeros = "0".repeat(64);
        for bad in ["", "sha256=", &hex[1..], "zz", zeros.as_str()] {
            assert_eq!(check(&headers(X_SIGNATURE, bad)), Err(Reason::SignatureInvalid), "{bad}");
        }
        let given = headers(X_SIGNATURE, &hex);
        let other = signatures().check(&given, b"{}", &event(), NOW);
        assert!(other.is_err(), "another body");
    }

    #[test]
    fn a_body_is_signed_whether_or_not_events_have_to_be() {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
        mac.update(BODY);
        let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        let given = headers(X_SIGNATURE, &hex);
        let lax = Signatures { required: false, ..signatures() };
        assert!(lax.check_body(&given, BODY).is_ok());
        for (signatures, headers, body) in [
            (&lax, &given, &b"{}"[..]),
            (&lax, &HeaderMap::new(), BODY),
            (&Signatures::default(), &given, BODY),
        ] {
            let refused = signatures.check_body(headers, body).unwrap_err();
            assert_eq!(refused.refused.reason, Reason::SignatureInvalid);
        }
    }

    fn token(algorithm: Algorithm, secret: &[u8], change: Value) -> String {
        let mut claims = json!({
            "tenant_id": "a", "entitlement_id": "e", "iat": NOW.secs(), "exp": NOW.secs() + 60,
        });
        let (Value::Object(claims_), Value::Object(change)) = (&mut claims, change) else {
            panic!()
        };
        claims_.extend(change);
        claims_.retain(|_, value| !value.is_null());
        encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    #[test]
    fn a_token_names_the_event_and_is_fresh() {
        let at = |seconds: i64| NOW.secs() + seconds;
        for (change, fits) in [
            (json!({}), true),
            (json!({"exp": at(-29)}), true),
            (json!({"exp": at(-30)}), false),
            (json!({"nbf": at(30)}), true),
            (json!({"nbf": at(31)}), false),
            (json!({"iat": at(30)}), true),
            (json!({"iat": at(31)}), false),
            (json!({"iat": at(-3_631)}), false),
            (json!({"tenant_id": "b"}), false),
            (json!({"entitlement_id": "f"}), false),
            (json!({"exp": null}), false),
            (json!({"iat": null}), false),
        ] {
            let token = token(Algorithm::HS256, SECRET, change.clone());
            let given = headers(AUTHORIZATION, &format!("Bearer {token}"));
            assert_eq!(check(&given).is_ok(), fits, "{change}");
        }
        for (algorithm, secret) in [(Algorithm::HS512, SECRET), (Algorithm::HS256, &b"other"[..])] {
            let token = token(algorithm, secret, json!({}));
            let given = headers(AUTHORIZATION, &format!("Bearer {token}"));
            assert_eq!(check(&given), Err(Reason::SignatureInvalid), "{algorithm:?}");
        }
        let unsigned = "eyJhbGciOiJub25lIn0.eyJ0ZW5hbnRfaWQiOiJhIn0.";
        assert!(check(&headers(AUTHORIZATION, &format!("Bearer {unsigned}"))).is_err());
        assert_eq!(check(&HeaderMap::new()), Err(Reason::SignatureInvalid));
        assert!(Signatures::default().check(&HeaderMap::new(), BODY, &event(), NOW).is_ok());
    }
}
