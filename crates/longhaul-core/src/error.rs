//! The only list of errors: what can reach a caller, under which code, and what to do about it.
//!
//! Says nothing about any wire; `longhaul-wire` renders it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A canonical code. Source: google/rpc/code.proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of google.rpc.Code")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The number on the wire, 0 to 16.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The code with this number; `None` outside 0 to 16.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        usize::try_from(number).ok().and_then(|index| Self::ALL.get(index).copied())
    }

    /// The name as google.rpc.Code spells it, such as `NOT_FOUND`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// Declares [`Reason`] as one table: variant, printed name, code, help.
macro_rules! reasons {
    ($($variant:ident $name:literal $code:ident $help:literal;)+) => {
        /// Why a call failed. Closed: every error that can reach a caller is here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $help] $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name printed as `ErrorInfo.reason`. Source: AIP-193.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The canonical code it travels under.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)+ }
            }

            /// One line: the cause and what to do.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }
        }
    };
}

reasons! {
    MethodNotFound "METHOD_NOT_FOUND" NotFound "No method is served under this path or name. Check host, path and verb against the API's HTTP rules.";
    ApiAmbiguous "API_AMBIGUOUS" InvalidArgument "Several APIs fit the request. Say which: by Host header, by URL prefix, or by a port given to one API.";
    OperationNotFound "OPERATION_NOT_FOUND" NotFound "The operation never existed, was deleted, or has outlived its retention. List the parent to see what is kept.";
    InvalidName "INVALID_NAME" InvalidArgument "A resource name is malformed. Give the full name, as a start or a list returned it.";
    InvalidJson "INVALID_JSON" InvalidArgument "The body is not the JSON form of the request message. The message says where it went wrong.";
    UnknownField "UNKNOWN_FIELD" InvalidArgument "The body or the query names a field that the request message does not have. Check the spelling.";
    InvalidValue "INVALID_VALUE" InvalidArgument "A field's value is of the wrong type, out of range, or contradicts another place of the request.";
    RequiredFieldMissing "REQUIRED_FIELD_MISSING" InvalidArgument "A field that the API marks as required is absent or empty. Set it.";
    BodyNotEmpty "BODY_NOT_EMPTY" InvalidArgument "The request body must be empty (or an empty JSON object). Send nothing in it.";
    BodyTooLarge "BODY_TOO_LARGE" InvalidArgument "The request is larger than this server accepts. Send less, or raise the limit in its configuration.";
    InvalidSystemParameter "SYSTEM_PARAMETER_UNSUPPORTED" InvalidArgument "A system parameter such as alt or fields has a value this server does not support.";
    InvalidFilter "INVALID_FILTER" InvalidArgument "The list filter does not parse, or names a field that operations do not have. See AIP-160.";
    InvalidPageSize "INVALID_PAGE_SIZE" InvalidArgument "The page size is negative. Use 0 for the default.";
    InvalidPageToken "INVALID_PAGE_TOKEN" InvalidArgument "The page token is not of this server, or belongs to a list with other arguments. Start again without it.";
    PartialSuccessUnsupported "PARTIAL_SUCCESS_UNSUPPORTED" Unimplemented "This API does not support return_partial_success. Leave it unset.";
    CellUnreachable "CELL_UNREACHABLE" Unavailable "The servers of a location do not answer. List single locations, or set return_partial_success to get the others and be told which are missing.";
    RequestIdReused "REQUEST_ID_REUSED" InvalidArgument "This request_id was used for a different request. Use a new one, or repeat the first request unchanged.";
    CancelUnsupported "CANCEL_UNSUPPORTED" Unimplemented "This API or method does not support cancellation. The operation goes on; wait for it.";
    MethodUnimplemented "METHOD_UNIMPLEMENTED" Unimplemented "The API declares this method, but it does not start an operation and this server keeps no resources. Only methods that return an operation, and the operations themselves, are served.";
    OperationDone "OPERATION_DONE" FailedPrecondition "The operation is already done and this API is set to refuse a cancel then. Read it with GetOperation.";
    OperationNotDone "OPERATION_NOT_DONE" FailedPrecondition "The operation is still running and this API is set to refuse a delete then. Cancel it or wait first.";
    ParentCancelled "PARENT_CANCELLED" FailedPrecondition "The operation named as parent was asked to stop, so nothing more starts under it. Stop the work that the start was part of.";
    ParentDone "PARENT_DONE" FailedPrecondition "The operation named as parent is done, so nothing more starts under it. Start without a parent if the work is wanted all the same.";
    TargetBusy "TARGET_BUSY" Aborted "Another operation is under way on the same resource, and this method does not start beside it. Wait for that one or cancel it, then repeat.";
    LeaseLost "LEASE_LOST" Aborted "The report came from an epoch that no longer holds the operation. Stop the work; somebody else has it, or it is done.";
    GateClosed "GATE_CLOSED" Aborted "Cancellation was asked for before the gate. Do not take the irreversible step; stop and report cancelled.";
    CancelNotRequested "CANCEL_NOT_REQUESTED" FailedPrecondition "A worker reported cancelled, but nobody asked. Report success or a failure.";
    InvalidOutcome "INVALID_OUTCOME" InvalidArgument "A worker's outcome is not allowed: an error needs a code from 1 to 16.";
    TypeMismatch "TYPE_MISMATCH" InvalidArgument "A worker sent a response or metadata of another type than the method declares. Send the declared type.";
    ApiInvalid "API_INVALID" InvalidArgument "An API's descriptor set, service configuration or settings do not fit together. The message names file, rule and fix.";
    ConfigInvalid "CONFIG_INVALID" InvalidArgument "The server's configuration is wrong. The message names the key and what it takes.";
    TlsRequired "TLS_REQUIRED" FailedPrecondition "The port speaks TLS only. Use https:// or a channel with TLS credentials.";
    Overloaded "OVERLOADED" ResourceExhausted "A limit of the server is reached. Wait as long as RetryInfo says and repeat.";
    RateLimitExceeded "RATE_LIMIT_EXCEEDED" ResourceExhausted "The caller, or all callers of the API together, make more calls a second or hold more calls open than their share. Wait as long as RetryInfo says; docs/fair-shares.md says how shares are set.";
    ShuttingDown "SHUTTING_DOWN" Unavailable "The server is stopping. Repeat the call; another server or the restarted one answers.";
    CredentialsMissing "CREDENTIALS_MISSING" Unauthenticated "The call says nothing of who makes it. Send a token in the header Authorization: Bearer, or a client certificate where the server asks for one.";
    CredentialsInvalid "ACCESS_TOKEN_TYPE_UNSUPPORTED" Unauthenticated "The token is not one that this server can check: malformed, wrongly signed, from another issuer, for another audience, or not valid yet. The server's log says which.";
    AccessTokenExpired "ACCESS_TOKEN_EXPIRED" Unauthenticated "The token was good once and is over. Get a new one; client libraries do so by themselves.";
    AccessTokenScopeInsufficient "ACCESS_TOKEN_SCOPE_INSUFFICIENT" PermissionDenied "The token lacks the OAuth scope that the method needs. Ask for one with the scope https://www.googleapis.com/auth/cloud-platform.";
    IamPermissionDenied "IAM_PERMISSION_DENIED" PermissionDenied "The caller lacks a permission on the resource, or the resource does not exist. Have a role granted that contains the permission named in the message.";
    AuditUnavailable "AUDIT_UNAVAILABLE" Unavailable "The audit log cannot be written at the moment, and this server is set to change nothing that is not on record. Nothing was changed; repeat the call, and free the disk that holds the log.";
    PolicyChanged "CONCURRENT_POLICY_CHANGES" Aborted "Somebody else set the policy since it was read. Read it again, change that, and set it with its etag.";
    StoreUnavailable "STORE_UNAVAILABLE" Unavailable "The store cannot be written at the moment. Nothing was changed; repeat the call.";
    StoreDamaged "STORE_DAMAGED" DataLoss "Stored data is damaged. The server stops rather than guess; restore a copy of the data folder.";
    StoreTooNew "STORE_TOO_NEW" FailedPrecondition "The data folder was written by a newer Longhaul. Run that version or a newer one.";
    StoreInUse "STORE_IN_USE" FailedPrecondition "Another server has the data folder open. Stop it, or give this one another folder.";
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded "The call's own deadline ran out before the server could answer.";
    Internal "INTERNAL" Internal "The server met a state it does not expect. Its log has the details; please report it.";
}

/// One wrong field of a request. Source: google/rpc/error_details.proto, `BadRequest.FieldViolation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, as the caller would write it; may be empty for the whole body.
    pub field: String,
    /// What is wrong and what to do.
    pub description: String,
}

/// One limit that was exceeded. Source: google/rpc/error_details.proto, `QuotaFailure.Violation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaViolation {
    /// Whose limit, such as `principal:ann@example.com`.
    pub subject: String,
    /// Which limit, and how it was exceeded.
    pub description: String,
}

/// What few errors have.
#[derive(Debug, Default)]
struct Rare {
    /// `ErrorInfo.domain` where it is not the API's that was called.
    domain: Option<String>,
    /// The limits exceeded.
    quota: Vec<QuotaViolation>,
}

/// Everything that can reach an edge.
#[derive(Debug)]
pub struct Error {
    /// Why; decides code and help.
    pub reason: Reason,
    /// For the caller: lower case, no final stop, what was wrong and what to do.
    pub message: String,
    /// The variable parts of the message. Source: AIP-193, `ErrorInfo.metadata`.
    pub metadata: BTreeMap<&'static str, String>,
    /// The fields at fault, if any.
    pub violations: Vec<FieldViolation>,
    /// How long to wait before repeating, where repeating can help.
    pub retry_after: Option<Duration>,
    /// What few errors have; boxed, for every result makes room for an error.
    rare: Option<Box<Rare>>,
    /// For us: logged once, never sent.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with nothing but a reason and a message.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
            rare: None,
            source: None,
        }
    }

    /// Adds one variable part of the message.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.insert(key, value.into());
        self
    }

    /// Names a field at fault.
    #[must_use]
    pub fn at_field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations
            .push(FieldViolation { field: field.into(), description: description.into() });
        self
    }

    /// Names a limit that was exceeded.
    #[must_use]
    pub fn over_quota(mut self, violation: QuotaViolation) -> Self {
        self.rare.get_or_insert_default().quota.push(violation);
        self
    }

    /// Says when repeating may help.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Names whose reason it is, where it is not the API's that was called.
    #[must_use]
    pub fn from_domain(mut self, domain: impl Into<String>) -> Self {
        self.rare.get_or_insert_default().domain = Some(domain.into());
        self
    }

    /// Keeps the cause for our own log.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// `ErrorInfo.domain` where it is not the API's that was called.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.rare.as_ref()?.domain.as_deref()
    }

    /// The limits exceeded, if any.
    #[must_use]
    pub fn quota(&self) -> &[QuotaViolation] {
        self.rare.as_ref().map_or(&[], |rare| &rare.quota)
    }

    /// The canonical code of the reason.
    #[must_use]
    pub fn code(&self) -> Code {
        self.reason.code()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_prints_as_aip_193_demands() {
        for reason in Reason::ALL {
            let name = reason.name();
            assert!(name.len() <= 63, "{name}");
            assert!(
                name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'),
                "{name}"
            );
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            assert!(!name.ends_with('_'), "{name}");
            assert!(reason.help().ends_with('.'), "{name}");
        }
    }

    #[test]
    fn codes_have_their_wire_numbers() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, number);
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        assert_eq!(Code::from_number(17), None);
        assert_eq!(Code::from_number(-1), None);
    }
}
