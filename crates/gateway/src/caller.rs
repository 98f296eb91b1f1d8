//! Who asks, and whether the route is for them.
//!
//! Owns: where a credential stands in a request, the open door, and what a caller may name.
//! Refuses to know: how a key is checked, and what a route does.

use std::borrow::Cow;
use std::net::IpAddr;

use engine::access::{Principal, chosen_key_id};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ledger::seal::sha256;
use subtle::ConstantTimeEq;
use types::access::KEY_PREFIX;
use types::{Hash, KeyOwner, Reason, Scope, Scopes, StreamName, TenantId};

use crate::answer::{Fault, fault};
use crate::signature::X_SIGNATURE;
use crate::table::{Access, Handler};
use crate::{Gateway, Options};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The parameter of the query that holds a key on `/pubsub`: a push subscription can set its
/// endpoint and no header.
const TOKEN: &str = "token";

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

    /// Whether the receipts of the service itself are for them: who has which keys and changed
    /// what.
    pub(crate) fn sees_service(&self) -> bool {
        match self {
            Caller::Key(principal) => principal.scopes.has(Scope::AdminRead),
            Caller::Local => true,
            Caller::Unproven => false,
        }
    }

    /// Refuses what [`Caller::may_name`] refuses, and the service's own receipts unless they may be
    /// seen.
    pub(crate) fn may_see(&self, stream: &StreamName) -> Result<(), Fault> {
        let tenant = stream.as_tenant();
        self.may_name(tenant.as_ref())?;
        if tenant.is_none() && !self.sees_service() {
            let detail = "the service's own receipts need the scope admin:read";
            return Err(fault(Reason::Forbidden, detail));
        }
        Ok(())
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
    let Some(text) = given(options, headers, uri, handler)? else {
        return without_key(options, handler, headers);
    };
    let principal = match chosen(options, &text) {
        Some(fingerprint) => Principal {
            owner: KeyOwner::Service,
            key: chosen_key_id(&gateway.engine.store().identity(), fingerprint),
            scopes: Scopes::ADMIN,
        },
        None => gateway.engine.authenticate(&text).await?,
    };
    Ok(Caller::Key(principal))
}

/// The key in a request. A bearer token that is no key of ours is left to the signature check
/// where there is one.
fn given<'a>(
    options: &Options,
    headers: &'a HeaderMap,
    uri: &'a Uri,
    handler: Handler,
) -> Result<Option<Cow<'a, str>>, Fault> {
    let bad = |_| fault(Reason::Unauthorized, "the credential cannot be read");
    if let Some(value) = headers.get(X_API_KEY) {
        return value.to_str().map(|text| Some(text.into())).map_err(bad);
    }
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value.to_str().map_err(bad)?;
        let token = match text.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim(),
            _ => return Err(fault(Reason::Unauthorized, "the scheme must be Bearer")),
        };
        let is_jwt = handler == Handler::Marketplace
            && options.signatures.is_required()
            && !token.starts_with(KEY_PREFIX)
            && chosen(options, token).is_none();
        return Ok((!is_jwt).then_some(token.into()));
    }
    let query = uri.query().filter(|_| handler == Handler::Pubsub).unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    Ok(pairs.find(|(name, _)| name == TOKEN).map(|(_, value)| value))
}

/// The fingerprint of the operator's key from the environment, if `text` is that key.
fn chosen(options: &Options, text: &str) -> Option<Hash> {
    let expected = options.admin_key?;
    let fingerprint = sha256(text.as_bytes());
    bool::from(fingerprint.0[..].ct_eq(&expected.0[..])).then_some(fingerprint)
}

fn without_key(options: &Options, handler: Handler, headers: &HeaderMap) -> Result<Caller, Fault> {
    if options.is_open {
        return local(headers);
    }
    if handler == Handler::Marketplace && options.signatures.is_required() {
        if !headers.contains_key(&X_SIGNATURE) && !headers.contains_key(AUTHORIZATION) {
            return Err(fault(Reason::SignatureInvalid, "the event needs a signature"));
        }
        return Ok(Caller::Unproven);
    }
    let is_signed = headers.contains_key(&X_SIGNATURE) && options.signatures.hmac.is_some();
    if matches!(handler, Handler::Heard(_)) && is_signed {
        return Ok(Caller::Unproven);
    }
    Err(fault(Reason::Unauthorized, "the request needs a key"))
}

/// Who needs no key while the door is open: programs on this machine, as far as a request can tell.
/// A proxy on this machine speaks for strangers, and a browser for whatever page it shows.
fn local(headers: &HeaderMap) -> Result<Caller, Fault> {
    let forwarded = ["x-forwarded-for", "forwarded", "via"];
    if forwarded.iter().any(|name| headers.contains_key(*name)) {
        return Err(fault(Reason::Forbidden, "what a proxy forwards needs a key"));
    }
    if !is_local(headers.get(HOST)) {
        let detail = "without keys only host names of loopback are answered";
        return Err(fault(Reason::Forbidden, detail));
    }
    if !is_own_page(headers) {
        return Err(fault(Reason::Forbidden, "the page of another site needs a key"));
    }
    Ok(Caller::Local)
}

/// Whether a request comes from no page at all, or from one that this machine serves. A page can
/// have a browser post to the open door without asking first, and its `Host` is then loopback's;
/// browsers say in these headers whose page it is.
fn is_own_page(headers: &HeaderMap) -> bool {
    let own = |value: &HeaderValue| {
        let origin = value.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
        origin.is_some_and(|origin| is_loopback(origin.host().unwrap_or_default()))
    };
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.get(ORIGIN).is_none_or(own) && matches!(site, None | Some(b"same-origin" | b"none"))
}

/// Whether a request was meant for this machine by its sender. A web page can have its own host
/// name resolve to loopback and then speak to the open door as to its own server; the name gives
/// it away. Only programs leave the name out.
fn is_local(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host else { return true };
    let Ok(host) = host.to_str() else { return false };
    let authority = host.parse::<Authority>().ok();
    authority.is_some_and(|authority| is_loopback(authority.host()))
}

fn is_loopback(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let address = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    address || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Rate, Signatures, Validation};

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    fn options(signed: bool) -> Options {
        Options {
            connections_max: 1,
            requests_max: 1,
            body_max_bytes: 1,
            ai_body_max_bytes: 1,
            request_timeout: Duration::from_secs(1),
            ai_timeout: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(1),
            metrics_enabled: true,
            relaxed: Vec::new(),
            is_open: true,
            serves_tenants: true,
            admin_key: Some(sha256(b"an.operators.key")),
            signatures: Signatures { required: signed, ..Signatures::default() },
            rate: Rate::new(1, 1),
            tenant_requests_max: 1,
            validation: Validation {
                strict: true,
                timeout: Duration::from_secs(1),
                log_failures: false,
            },
            trusted_proxies: 0,
        }
    }

    #[test]
    fn a_key_stands_in_one_of_three_places() {
        let plain = Uri::from_static("/x");
        let token = Uri::from_static("/pubsub?a=b&token=taik_a%40b.s");
        let bearer = |value| headers("authorization", value);
        for (headers, uri, handler, signed, key) in [
            (bearer("Bearer taik_a.s"), &plain, Handler::Receipts, false, Some("taik_a.s")),
            (bearer("bearer  taik_a.s "), &plain, Handler::Marketplace, true, Some("taik_a.s")),
            // A token may be a JWT where events are signed, which their check reads.
            (bearer("Bearer h.p.s"), &plain, Handler::Marketplace, true, None),
            (bearer("Bearer h.p.s"), &plain, Handler::Marketplace, false, Some("h.p.s")),
            (bearer("Bearer h.p.s"), &plain, Handler::Receipts, true, Some("h.p.s")),
            (
                bearer("Bearer an.operators.key"),
                &plain,
                Handler::Marketplace,
                true,
                Some("an.operators.key"),
            ),
            (headers("x-api-key", "taik_a.s"), &plain, Handler::Pubsub, false, Some("taik_a.s")),
            (HeaderMap::new(), &token, Handler::Pubsub, false, Some("taik_a@b.s")),
            (HeaderMap::new(), &token, Handler::Receipts, false, None),
            (HeaderMap::new(), &plain, Handler::Pubsub, false, None),
        ] {
            let given = given(&options(signed), &headers, uri, handler).ok().flatten();
            assert_eq!(given.as_deref(), key, "{headers:?} {uri}");
        }
        for value in ["Basic dTpw", "Bearer", "taik_a.s"] {
            let headers = bearer(value);
            let refused = given(&options(false), &headers, &plain, Handler::Receipts);
            assert_eq!(refused.unwrap_err().refused.reason, Reason::Unauthorized, "{value}");
        }
    }

    #[test]
    fn the_open_door_is_for_programs_on_this_machine() {
        let asked = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let headers = pairs.iter().map(pair).collect();
            let asked = |signed| without_key(&options(signed), Handler::Marketplace, &headers);
            // Whether events are signed is no other way in.
            let (plain, signed) = (asked(false), asked(true));
            assert_eq!(plain.as_ref().ok(), signed.as_ref().ok(), "{pairs:?}");
            signed
        };
        for pairs in [
            &[][..],
            &[("host", "localhost:8080")],
            &[("host", "[::1]"), ("origin", "http://localhost:3000")],
            &[("host", "127.0.0.1"), ("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(asked(pairs).ok(), Some(Caller::Local), "{pairs:?}");
        }
        for pairs in [
            &[("host", "evil.example")][..],
            &[("host", "localhost"), ("origin", "https://evil.example")],
            &[("host", "localhost"), ("origin", "null")],
            &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost"), ("x-forwarded-for", "203.0.113.9")],
            &[("host", "localhost"), ("forwarded", "for=203.0.113.9")],
            &[("host", "localhost"), ("via", "1.1 proxy")],
        ] {
            let refused = asked(pairs).unwrap_err();
            assert_eq!(refused.refused.reason, Reason::Forbidden, "{pairs:?}");
        }
    }

    // INV-12
    #[test]
    fn a_tenants_key_names_its_tenant_only() {
        let tenant = |name: &str| TenantId::new(name).unwrap();
        let key = |owner| {
            let key = types::KeyId::of(Hash::ZERO);
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
