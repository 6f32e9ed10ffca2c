//! The answers to callers who may not: Google's words, reasons and metadata.
//!
//! One function for each; both wires and every method use these. Source: google/api/error_reason.proto.

use longhaul_core::{Error, Reason};

/// The domain of reasons that all of Google's APIs share.
const SHARED_DOMAIN: &str = "googleapis.com";

const EXPECTED: &str = "Expected OAuth 2 access token, login cookie or other valid authentication credential. \
See https://developers.google.com/identity/sign-in/web/devconsole-project.";

/// What was asked for: the API's host and the method's full name.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Such as `clouddeploy.googleapis.com`.
    pub service: &'a str,
    /// Such as `google.longrunning.Operations.CancelOperation`.
    pub method: &'a str,
}

impl Asked<'_> {
    fn refuse(self, reason: Reason, message: impl Into<String>) -> Error {
        Error::new(reason, message)
            .from_domain(SHARED_DOMAIN)
            .with("service", self.service)
            .with("method", self.method)
    }
}

/// Nobody said who calls.
#[must_use]
pub fn credentials_missing(asked: Asked<'_>) -> Error {
    let message = format!("Request is missing required authentication credential. {EXPECTED}");
    asked.refuse(Reason::CredentialsMissing, message)
}

/// What was sent proves nothing. `why` is for our own log and must not quote the credential.
#[must_use]
pub fn credentials_invalid(asked: Asked<'_>, why: &'static str) -> Error {
    let message = format!("Request had invalid authentication credentials. {EXPECTED}");
    asked.refuse(Reason::CredentialsInvalid, message).caused_by(why)
}

/// It proved something once, and is over.
#[must_use]
pub fn credentials_expired(asked: Asked<'_>) -> Error {
    let message = format!("Request had invalid authentication credentials. {EXPECTED}");
    asked.refuse(Reason::AccessTokenExpired, message)
}

/// The token is good, but not for this method.
#[must_use]
pub fn scope_insufficient(asked: Asked<'_>) -> Error {
    let message = "Request had insufficient authentication scopes.";
    asked.refuse(Reason::AccessTokenScopeInsufficient, message)
}

/// The caller lacks the permission. Says the same whether or not the resource exists.
#[must_use]
pub fn permission_denied(service: &str, permission: &str, resource: &str) -> Error {
    let shown: String = resource.chars().take(1024).collect();
    Error::new(
        Reason::IamPermissionDenied,
        format!(
            "Permission '{permission}' denied on resource '//{service}/{shown}' (or it may not exist)."
        ),
    )
    .from_domain(service)
    .with("permission", permission)
    .with("resource", shown)
}
