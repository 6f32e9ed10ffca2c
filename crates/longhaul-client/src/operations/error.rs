//! What can go wrong between a caller and a server: the argument, the transport, the server's
//! refusal, an unusable answer, or time.
//!
//! An operation that failed is not one of these: that is [`super::OperationError`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::Operation;
use crate::CredentialsError;

/// Why a call gave no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// The caller's own argument is malformed; nothing was sent.
    InvalidArgument(String),
    /// No token could be had; nothing was sent.
    Token(CredentialsError),
    /// No answer arrived.
    Transport(TransportError),
    /// The server refused.
    Status(Box<StatusError>),
    /// The server said yes, but not in a form that google.longrunning knows.
    Reply {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// The caller's own timeout ended before the operation did. The operation goes on.
    Timeout {
        /// As it was seen last; `None` when no poll was answered.
        last: Option<Box<Operation>>,
    },
    /// The wait was stopped by [`super::Handle::stop_waiting`]. The operation goes on.
    Detached {
        /// As it was seen last; `None` when no poll was answered.
        last: Option<Box<Operation>>,
    },
}

/// A call that got no answer.
#[derive(Clone, Debug, PartialEq)]
pub struct TransportError {
    /// What was asked.
    pub url: String,
    /// Which part failed.
    pub kind: TransportKind,
    /// Every cause, outermost first.
    pub message: String,
}

/// Which part of a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// No connection came about: name, address, TLS.
    Connect,
    /// The answer took longer than the client waits.
    Timeout,
    /// The connection broke.
    Broken,
}

/// An error answer, from Google's envelope where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusError {
    /// What was asked.
    pub url: String,
    /// The HTTP status.
    pub http: u16,
    /// Name of the google.rpc.Code, such as `NOT_FOUND`; told from the HTTP status without an envelope.
    pub status: String,
    /// For the developer who reads it.
    pub message: String,
    /// Machine-readable cause, where the server gave one.
    pub info: Option<ErrorInfo>,
    /// How long to wait before repeating, where the server said.
    pub retry_after: Option<Duration>,
    /// All details, each an object with `@type`.
    pub details: Vec<Value>,
    /// Whether the answer was Google's envelope. Without one the path or host may be wrong.
    pub envelope: bool,
}

/// Source: google/rpc/error_details.proto, ErrorInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorInfo {
    /// Upper-case cause, such as `OPERATION_NOT_FOUND`.
    pub reason: String,
    /// Who defines the reason.
    pub domain: String,
    /// The variable parts of the message.
    pub metadata: BTreeMap<String, String>,
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn transient(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Status(error) => matches!(error.http, 429 | 503) || error.status == "UNAVAILABLE",
            Self::InvalidArgument(_)
            | Self::Token(_)
            | Self::Reply { .. }
            | Self::Timeout { .. }
            | Self::Detached { .. } => false,
        }
    }

    /// The machine-readable reason, where the server gave one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Status(error) => error.info.as_ref().map(|info| info.reason.as_str()),
            Self::InvalidArgument(_)
            | Self::Token(_)
            | Self::Transport(_)
            | Self::Reply { .. }
            | Self::Timeout { .. }
            | Self::Detached { .. } => None,
        }
    }
}

impl StatusError {
    /// Reads an error answer; `body` may be anything.
    pub(super) fn read(url: &str, http: u16, content_type: &str, body: &[u8]) -> Self {
        let parsed: Option<Value> = serde_json::from_slice(body).ok();
        // A streaming method wraps its error in an array.
        let envelope = parsed
            .as_ref()
            .and_then(|value| value.get(0).unwrap_or(value).get("error")?.as_object());
        let Some(error) = envelope else {
            return Self::bare(url, http, content_type, body);
        };
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        let details = error.get("details").and_then(Value::as_array).cloned().unwrap_or_default();
        let status = match text("status") {
            "" => status_of_http(http).to_owned(),
            status => status.to_owned(),
        };
        Self {
            url: url.to_owned(),
            http,
            status,
            message: text("message").to_owned(),
            info: detail(&details, "google.rpc.ErrorInfo").map(error_info),
            retry_after: detail(&details, "google.rpc.RetryInfo")
                .and_then(|value| duration(value.get("retryDelay")?.as_str()?)),
            details,
            envelope: true,
        }
    }

    /// An answer that is no envelope: a proxy's page, another kind of server, an empty body.
    fn bare(url: &str, http: u16, content_type: &str, body: &[u8]) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let text = String::from_utf8_lossy(&body[..body.len().min(4096)]);
        let words = match kind {
            "text/plain" | "application/json" => {
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        };
        let message = match (words.is_empty(), kind) {
            (false, _) => words.chars().take(300).collect(),
            (true, "") => format!("the server answered HTTP {http} with no explanation"),
            (true, kind) => format!("the server answered HTTP {http} with a {kind} page"),
        };
        Self {
            url: url.to_owned(),
            http,
            status: status_of_http(http).to_owned(),
            message,
            info: None,
            retry_after: None,
            details: Vec::new(),
            envelope: false,
        }
    }
}

impl TransportError {
    /// Puts a failed request into words.
    pub(super) fn read(url: &str, error: &reqwest::Error) -> Self {
        let kind = if error.is_connect() {
            TransportKind::Connect
        } else if error.is_timeout() {
            TransportKind::Timeout
        } else {
            TransportKind::Broken
        };
        let mut message = String::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            let words = error.to_string();
            if !message.contains(&words) {
                if !message.is_empty() {
                    message.push_str(": ");
                }
                message.push_str(&words);
            }
            cause = error.source();
        }
        if message.is_empty() {
            message = error.to_string();
        }
        Self { url: url.to_owned(), kind, message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidArgument(message) => f.write_str(message),
            Self::Token(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
            Self::Status(error) => error.fmt(f),
            Self::Reply { url, message } => write!(f, "unusable answer from {url}: {message}"),
            Self::Timeout { last } => {
                let name = last.as_ref().map_or("the operation", |operation| operation.name());
                write!(f, "{name} was not done in time; it goes on")
            }
            Self::Detached { last } => {
                let name = last.as_ref().map_or("the operation", |operation| operation.name());
                write!(f, "nobody waits for {name} any more; it goes on")
            }
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            TransportKind::Connect => "cannot connect to",
            TransportKind::Timeout => "no answer in time from",
            TransportKind::Broken => "the connection broke at",
        };
        write!(f, "{what} {}: {}", self.url, self.message)
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = if self.message.is_empty() { "no message" } else { &self.message };
        write!(f, "{message} ({}", self.status)?;
        if let Some(info) = &self.info {
            write!(f, ", {}", info.reason)?;
        }
        write!(f, ", HTTP {})", self.http)
    }
}

/// The first detail of a type.
fn detail<'a>(details: &'a [Value], type_name: &str) -> Option<&'a Value> {
    details.iter().find(|value| {
        let url = value.get("@type").and_then(Value::as_str).unwrap_or_default();
        url.rsplit('/').next() == Some(type_name)
    })
}

fn error_info(value: &Value) -> ErrorInfo {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let metadata = value.get("metadata").and_then(Value::as_object);
    ErrorInfo {
        reason: text("reason"),
        domain: text("domain"),
        metadata: metadata
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
    }
}

/// Reads protobuf JSON's `"1.5s"`; nothing below zero or above an hour is believed.
fn duration(text: &str) -> Option<Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    (0.0..=3600.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// The code an HTTP status stands for. Source: google/rpc/code.proto.
fn status_of_http(http: u16) -> &'static str {
    match http {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        500 => "INTERNAL",
        501 => "UNIMPLEMENTED",
        502 | 503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNKNOWN",
    }
}
