//! The one table of refusal reasons: code, HTTP status, whether a retry can help, whose fault.
//!
//! Source: seed 001 playbook 2 (the four classes) and the reference sheet's endpoint list.

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request was wrong.
    Caller,
    /// A dependency failed.
    Provider,
    /// The service itself.
    Us,
}

macro_rules! reasons {
    ($( $variant:ident, $code:literal, $status:literal, $retry:literal, $blame:ident, $doc:literal; )*) => {
        /// Why a request was refused. The code is part of the public API and of receipts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $( #[doc = $doc] $variant, )* }

        impl Reason {
            /// Every reason, in table order.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];

            /// The code as clients, logs and receipts show it.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $( Reason::$variant => $code, )* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $( Reason::$variant => $status, )* }
            }

            /// True when the same request may succeed later.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $( Reason::$variant => $retry, )* }
            }

            /// Who has to act.
            #[must_use]
            pub const fn blame(self) -> Blame {
                match self { $( Reason::$variant => Blame::$blame, )* }
            }

            /// One sentence for the documentation.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $( Reason::$variant => $doc, )* }
            }
        }
    };
}

reasons! {
    InvalidMessageFormat, "invalid_message_format", 400, false, Caller, "The body, its encoding or its JSON cannot be read.";
    MissingField, "missing_field", 400, false, Caller, "A required field is absent or null; the detail names it.";
    InvalidField, "invalid_field", 400, false, Caller, "A field has the wrong type or range; the detail names it.";
    InvalidTenantId, "invalid_tenant_id", 400, false, Caller, "`tenant_id` or `customer_id` is not a valid id.";
    InvalidEntitlementId, "invalid_entitlement_id", 400, false, Caller, "`entitlement_id` is not a valid id.";
    UnknownAction, "unknown_action", 400, false, Caller, "`action` is not grant, revoke, suspend or resume.";
    InvalidRequestId, "invalid_request_id", 400, false, Caller, "`X-Request-ID`, `Idempotency-Key` or `messageId` is not a valid key.";
    Unauthorized, "unauthorized", 401, false, Caller, "The request needs a key, and there is none or it is not valid.";
    SignatureInvalid, "signature_invalid", 401, false, Caller, "The signature of the event is absent, wrong or too old.";
    Forbidden, "forbidden", 403, false, Caller, "The key does not permit this, the source is blocked, or the open door was asked by another name than loopback's.";
    NotFound, "not_found", 404, false, Caller, "There is no such route or receipt.";
    MethodNotAllowed, "method_not_allowed", 405, false, Caller, "The route exists, but not for this method.";
    PayloadTooLarge, "payload_too_large", 413, false, Caller, "The body is larger than the limit.";
    UnsupportedMediaType, "unsupported_media_type", 415, false, Caller, "The content type is not application/json.";
    RequestTimeout, "request_timeout", 408, true, Caller, "The body did not arrive in time.";
    EntitlementAlreadyActive, "entitlement_already_active", 422, false, Caller, "A grant for an entitlement that is already active.";
    EntitlementInactive, "entitlement_inactive", 422, false, Caller, "The tenant holds no active entitlement for this.";
    StateError, "state_error", 422, false, Caller, "The action is not permitted in the present state.";
    DuplicateMessage, "duplicate_message", 422, false, Caller, "The idempotency key was used before with another body.";
    UnknownTenant, "unknown_tenant", 422, true, Caller, "The tenant is not registered yet; an entitlement event or customer call registers it.";
    TooManyEntitlements, "too_many_entitlements", 422, false, Caller, "The tenant holds as many entitlements as one tenant may.";
    TooManyKeys, "too_many_keys", 422, false, Caller, "The owner of the key holds as many valid keys as it may.";
    PaymentNotConfigured, "payment_not_configured", 422, false, Caller, "The call asks for a charge and no payment provider is configured.";
    BudgetExceeded, "budget_exceeded", 402, false, Caller, "The tenant's spend limit for this period does not cover the call.";
    QuotaExceeded, "quota_exceeded", 402, false, Caller, "The tenant has made all calls that its plan holds for this period.";
    PriceUnknown, "price_unknown", 422, false, Caller, "A spend limit applies to the tenant and the model has no price.";
    ModelNotFound, "model_not_found", 404, false, Caller, "There is no such model, or the tenant's plan does not hold it.";
    ValidationFailed, "validation_failed", 400, false, Caller, "The body breaks a rule of the operator's for this route; the detail names where.";
    UnsupportedFeature, "unsupported_feature", 400, false, Caller, "No target of the model can do what the request asks for.";
    ProviderRejected, "provider_rejected", 400, false, Caller, "The provider refused the request itself: too long, not permitted, not valid.";
    RequestInProgress, "request_in_progress", 409, true, Caller, "A request with this idempotency key is being answered.";
    AlreadyAnswered, "already_answered", 409, false, Caller, "A request with this idempotency key was answered and the answer is no longer kept; its receipt is.";
    RateLimitExceeded, "rate_limit_exceeded", 429, true, Caller, "More requests than the tenant's limit; retry after the stated seconds.";
    ActionQueueFull, "action_queue_full", 429, true, Us, "The action queue is full; the signal was not taken.";
    InternalError, "internal_error", 500, true, Us, "A defect of the service; the request id finds it in the log.";
    ProviderError, "provider_error", 502, true, Provider, "The providers failed, or answered what cannot be read.";
    ProviderBusy, "provider_busy", 503, true, Provider, "The providers take no more calls for now; retry after the stated seconds.";
    ProviderUnavailable, "provider_unavailable", 503, true, Provider, "No provider of the model can be reached.";
    ProviderTimeout, "provider_timeout", 504, true, Provider, "The provider did not answer before the deadline; the call costs the tenant nothing.";
    ServiceUnavailable, "service_unavailable", 503, true, Us, "The service is shedding load, draining or has lost a part.";
    FirestoreError, "firestore_error", 503, true, Provider, "The receipt store failed.";
    GovernorNotReady, "governor_not_ready", 503, true, Us, "The governor of this tenant cannot decide at the moment.";
    Timeout, "timeout", 504, true, Us, "No durable answer before the deadline; the outcome is unknown, retry with the same key.";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_the_seed_classes_hold() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        // Seed 001, playbook 2, categories 1 to 4.
        for (code, status) in [
            ("invalid_message_format", 400),
            ("missing_field", 400),
            ("invalid_tenant_id", 400),
            ("entitlement_already_active", 422),
            ("state_error", 422),
            ("duplicate_message", 422),
            ("service_unavailable", 503),
            ("firestore_error", 503),
            ("governor_not_ready", 503),
            ("timeout", 504),
        ] {
            let reason = Reason::ALL.iter().find(|r| r.code() == code);
            assert_eq!(reason.map(|r| r.status()), Some(status), "{code}");
        }
    }

    #[test]
    fn a_fault_of_the_caller_is_never_a_5xx() {
        for reason in Reason::ALL {
            let blames_caller = reason.blame() == Blame::Caller;
            assert!(!(blames_caller && reason.status() >= 500), "{reason}");
        }
    }
}
