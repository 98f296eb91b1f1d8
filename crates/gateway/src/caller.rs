//! Who asks, and whether the route is for them.
//!
//! Owns: where a credential stands in a request, the open door, and what a caller may name.
//! Refuses to know: how a key is checked, and what a route does.

use std::borrow::Cow;
use std::net::IpAddr;

use engine::access::Principal;
use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ledger::seal::sha256;
use subtle::ConstantTimeEq;
use types::access::KEY_PREFIX;
use types::{KeyId, KeyOwner, Reason, Scopes, TenantId};

use crate::answer::{Fault, fault};
use crate::table::{Access, Handler};
use crate::{Gateway, Options};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The parameter of the query that holds a key on `/pubsub`: a push subscription can set its
/// endpoint and no header.
const TOKEN: &str = "token=";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The holder of a key.
    Key(Principal),
    /// Anybody on this machine, while the door is open.
    Local,
    /// Nobody yet: the event's own signature has to tell.
    Unproven,
}

impl Caller {
    /// For the receipt's `actor`: the key, or how the request came in.
    pub(crate) fn actor(&self, door: &'static str) -> Cow<'static, str> {
        match self {
            Caller::Key(principal) => principal.key.to_string().into(),
            Caller::Local | Caller::Unproven => door.into(),
        }
    }

    /// The tenant whose key it is.
    pub(crate) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Caller::Key(principal) => principal.owner.tenant(),
            Caller::Local | Caller::Unproven => None,
        }
    }

    /// Refuses a key without the scope that the route asks for.
    pub(crate) fn may_use(&self, access: Access) -> Result<(), Fault> {
        match (self, access) {
            (Caller::Key(principal), Access::Scope(scope)) if !principal.scopes.has(scope) => {
                let detail = format!("the key lacks the scope {}", scope.as_str());
                Err(fault(Reason::Forbidden, detail))
            }
            _ => Ok(()),
        }
    }

    /// INV-12: refuses a tenant's key that names another tenant; `named` is `None` for what belongs
    /// to no tenant.
    pub(crate) fn may_name(&self, named: Option<&TenantId>) -> Result<(), Fault> {
        match self.tenant() {
            Some(own) if named != Some(own) => {
                Err(fault(Reason::Forbidden, "the key belongs to another tenant"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Says who asks, or why nobody may. What the caller may do is asked of the caller.
pub(crate) async fn identify(
    gateway: &Gateway,
    options: &Options,
    route: (Access, Handler),
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Caller, Fault> {
    let (access, handler) = route;
    if access == Access::Open {
        return Ok(Caller::Local);
    }
    let Some(text) = given(headers, uri, handler)? else {
        return without_key(options, handler, headers);
    };
    let principal = match admin(options, text) {
        Some(principal) => principal,
        None => gateway.engine.authenticate(text).await?,
    };
    Ok(Caller::Key(principal))
}

/// The key in a request. A bearer token that is no key of ours is left to the signature check
/// where there is one.
fn given<'a>(
    headers: &'a HeaderMap,
    uri: &'a Uri,
    handler: Handler,
) -> Result<Option<&'a str>, Fault> {
    let bad = |_| fault(Reason::Unauthorized, "the credential cannot be read");
    if let Some(value) = headers.get(X_API_KEY) {
        return value.to_str().map(Some).map_err(bad);
    }
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value.to_str().map_err(bad)?;
        let token = match text.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim(),
            _ => return Err(fault(Reason::Unauthorized, "the scheme must be Bearer")),
        };
        let is_jwt = handler == Handler::Marketplace && !token.starts_with(KEY_PREFIX);
        return Ok((!is_jwt || !token.contains('.')).then_some(token));
    }
    let query = uri.query().filter(|_| handler == Handler::Pubsub).unwrap_or_default();
    Ok(query.split('&').find_map(|pair| pair.strip_prefix(TOKEN)))
}

/// The operator's key from the environment.
fn admin(options: &Options, text: &str) -> Option<Principal> {
    let expected = options.admin_key?;
    let fingerprint = sha256(text.as_bytes());
    let same = bool::from(fingerprint.0[..].ct_eq(&expected.0[..]));
    same.then(|| Principal {
        owner: KeyOwner::Service,
        key: KeyId::of(fingerprint),
        scopes: Scopes::ADMIN,
    })
}

fn without_key(options: &Options, handler: Handler, headers: &HeaderMap) -> Result<Caller, Fault> {
    if handler == Handler::Marketplace && options.signatures.is_required() {
        return Ok(Caller::Unproven);
    }
    if !options.is_open {
        return Err(fault(Reason::Unauthorized, "the request needs a key"));
    }
    if !is_local(headers.get(HOST)) {
        let detail = "without keys only host names of loopback are answered";
        return Err(fault(Reason::Forbidden, detail));
    }
    Ok(Caller::Local)
}

/// Whether a request was meant for this machine by its sender. A web page can have its own host
/// name resolve to loopback and then speak to the open door as to its own server; the name gives
/// it away. Only programs leave the name out.
fn is_local(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host else { return true };
    let Ok(host) = host.to_str() else { return false };
    let authority = host.parse::<Authority>().ok();
    authority.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        address || name.eq_ignore_ascii_case("localhost")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn a_key_stands_in_one_of_three_places() {
        let (plain, token) =
            (Uri::from_static("/x"), Uri::from_static("/pubsub?a=b&token=taik_t.s"));
        let bearer = |value| headers("authorization", value);
        for (headers, uri, handler, key) in [
            (bearer("Bearer taik_a.s"), &plain, Handler::Receipts, Some("taik_a.s")),
            (bearer("bearer  taik_a.s "), &plain, Handler::Marketplace, Some("taik_a.s")),
            // A token with dots may be a JWT, which the event's signature check reads.
            (bearer("Bearer h.p.s"), &plain, Handler::Marketplace, None),
            (bearer("Bearer h.p.s"), &plain, Handler::Receipts, Some("h.p.s")),
            (headers("x-api-key", "taik_a.s"), &plain, Handler::Pubsub, Some("taik_a.s")),
            (HeaderMap::new(), &token, Handler::Pubsub, Some("taik_t.s")),
            (HeaderMap::new(), &token, Handler::Receipts, None),
            (HeaderMap::new(), &plain, Handler::Pubsub, None),
        ] {
            assert_eq!(given(&headers, uri, handler).ok().flatten(), key, "{headers:?} {uri}");
        }
        for value in ["Basic dTpw", "Bearer", "taik_a.s"] {
            let fault = given(&bearer(value), &plain, Handler::Receipts).unwrap_err();
            assert_eq!(fault.refused.reason, Reason::Unauthorized, "{value}");
        }
    }

    // INV-12
    #[test]
    fn a_tenants_key_names_its_tenant_only() {
        let tenant = |name: &str| TenantId::new(name).unwrap();
        let key = |owner| {
            let key = KeyId::of(types::Hash::ZERO);
            Caller::Key(Principal { owner, key, scopes: Scopes::TENANT })
        };
        let (own, other) = (tenant("a"), tenant("b"));
        let of_a = key(KeyOwner::Tenant(own.clone()));
        assert!(of_a.may_name(Some(&own)).is_ok());
        assert!(of_a.may_name(Some(&other)).is_err() && of_a.may_name(None).is_err());
        for caller in [key(KeyOwner::Service), Caller::Local] {
            assert!(caller.may_name(Some(&other)).is_ok() && caller.may_name(None).is_ok());
        }
    }
}
