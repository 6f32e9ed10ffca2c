//! One operation as a server printed it, and the questions a caller asks of it.
//!
//! Keeps the JSON whole, so that nothing an API adds is lost; owns no API's types.

use std::fmt;

use longhaul_wire::status::Code;
use serde_json::Value;

/// An operation as the server sent it: a JSON object, with typed questions.
/// Source: google/longrunning/operations.proto, Operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    value: Value,
}

/// Where an operation stands, as far as google.longrunning shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not done, and nobody is known to have asked for its cancellation.
    Running,
    /// Not done, and its metadata says that cancellation was asked for.
    Cancelling,
    /// Done, with a response (or with neither: a server may leave an empty one out).
    Succeeded,
    /// Done, with an error other than `CANCELLED`.
    Failed,
    /// Done, with the error code 1.
    Cancelled,
}

/// How an operation failed. Source: google/rpc/status.proto.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationError {
    /// A google.rpc.Code; 1 is `CANCELLED`.
    pub code: i64,
    /// For the developer who reads it; may be empty.
    pub message: String,
    /// Typed details, each an object with `@type`.
    pub details: Vec<Value>,
}

impl Operation {
    /// Takes a JSON object; gives the value back when it is anything else.
    pub fn from_json(value: Value) -> Result<Self, Value> {
        if value.is_object() { Ok(Self { value }) } else { Err(value) }
    }

    /// The whole object, with whatever fields the server sent.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.value
    }

    /// The full name; empty when the server gave none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.value.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it has ended. Absent means no.
    #[must_use]
    pub fn done(&self) -> bool {
        self.value.get("done").and_then(Value::as_bool).unwrap_or_default()
    }

    /// How it failed, if it did.
    #[must_use]
    pub fn error(&self) -> Option<OperationError> {
        let error = self.value.get("error")?.as_object()?;
        Some(OperationError {
            code: error.get("code").and_then(Value::as_i64).unwrap_or(2),
            message: error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
            details: error.get("details").and_then(Value::as_array).cloned().unwrap_or_default(),
        })
    }

    /// The API's response, an object with `@type`.
    #[must_use]
    pub fn response(&self) -> Option<&Value> {
        self.value.get("response").filter(|value| !value.is_null())
    }

    /// The API's progress message, an object with `@type`.
    #[must_use]
    pub fn metadata(&self) -> Option<&Value> {
        self.value.get("metadata").filter(|value| !value.is_null())
    }

    /// Full type name of the metadata, without the URL before it.
    #[must_use]
    pub fn metadata_type(&self) -> Option<&str> {
        let url = self.metadata()?.get("@type")?.as_str()?;
        Some(url.rsplit('/').next().unwrap_or(url))
    }

    /// Whether the metadata says that somebody asked for cancellation, under either name in use.
    #[must_use]
    pub fn cancel_requested(&self) -> bool {
        const NAMES: [&str; 4] = [
            "requestedCancellation",
            "cancelRequested",
            "requested_cancellation",
            "cancel_requested",
        ];
        self.metadata().is_some_and(|metadata| {
            NAMES.iter().any(|name| metadata.get(name).and_then(Value::as_bool) == Some(true))
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.done(), self.error()) {
            (true, Some(error)) if error.code == 1 => State::Cancelled,
            (true, Some(_)) => State::Failed,
            (true, None) => State::Succeeded,
            (false, _) if self.cancel_requested() => State::Cancelling,
            (false, _) => State::Running,
        }
    }
}

impl State {
    /// The name people read, such as `RUNNING`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Cancelling => "CANCELLING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether it is an end.
    #[must_use]
    pub const fn done(self) -> bool {
        match self {
            Self::Running | Self::Cancelling => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

impl OperationError {
    /// The code's name, such as `NOT_FOUND`; `UNKNOWN` for a number that google.rpc.Code lacks.
    #[must_use]
    pub fn code_name(&self) -> &'static str {
        let known = i32::try_from(self.code).ok().and_then(Code::from_number);
        known.unwrap_or(Code::Unknown).name()
    }
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.code_name(), self.code)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl std::error::Error for OperationError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, state: State) {
        let operation = Operation::from_json(serde_json::from_str(text).expect("the case is JSON"))
            .expect("object");
        assert_eq!(operation.state(), state, "{text}");
    }

    #[test]
    fn state_comes_from_done_error_and_metadata() {
        check(r#"{"name":"operations/a"}"#, State::Running);
        check(r#"{"metadata":{"requestedCancellation":true}}"#, State::Cancelling);
        check(r#"{"metadata":{"requestedCancellation":false},"done":false}"#, State::Running);
        check(
            r#"{"metadata":{"cancelRequested":true},"done":true,"response":{}}"#,
            State::Succeeded,
        );
        check(r#"{"done":true}"#, State::Succeeded);
        check(r#"{"done":true,"error":{"code":1,"message":"stopped"}}"#, State::Cancelled);
        check(r#"{"done":true,"error":{"code":14}}"#, State::Failed);
        check(r#"{"done":true,"error":{}}"#, State::Failed);
        check(r#"{"done":true,"error":null,"response":{}}"#, State::Succeeded);
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for text in ["[]", "1", "null", "\"operations/a\""] {
            assert!(Operation::from_json(serde_json::from_str(text).unwrap()).is_err(), "{text}");
        }
    }
}
