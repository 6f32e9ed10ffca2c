//! What came back, in one shape for both wires.

use std::collections::BTreeMap;

use bytes::Bytes;
use longhaul_wire::longrunning::{ErrorInfo, Operation, OperationResult, Status, type_name};
use prost::Message;
use serde_json::Value;

/// Names of the codes, in the order of their numbers. Source: google/rpc/code.proto.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A refused call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The name of the canonical code.
    pub code: String,
    /// For people.
    pub message: String,
    /// `ErrorInfo.reason`; empty when the failure is not the server's own.
    pub reason: String,
    /// `ErrorInfo.domain`.
    pub domain: String,
    /// `ErrorInfo.metadata`.
    pub metadata: BTreeMap<String, String>,
}

impl Failure {
    /// Reads Google's envelope, all of which must be there.
    #[track_caller]
    pub fn from_envelope(json: &Value) -> Self {
        let error = &json["error"];
        assert!(error["code"].is_u64(), "no code in {json}");
        let details = error["details"].as_array().unwrap_or_else(|| panic!("no details in {json}"));
        let info = details
            .iter()
            .find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo")
            .unwrap_or_else(|| panic!("no ErrorInfo in {json}"));
        let metadata = info["metadata"].as_object().into_iter().flatten();
        Self {
            code: text(&error["status"]),
            message: text(&error["message"]),
            reason: text(&info["reason"]),
            domain: text(&info["domain"]),
            metadata: metadata.map(|(key, value)| (key.clone(), text(value))).collect(),
        }
    }

    /// Reads a gRPC status and the details that came with it.
    pub fn from_status(status: &tonic::Status) -> Self {
        let mut failure = Self {
            code: CODES[status.code() as usize].to_owned(),
            message: status.message().to_owned(),
            ..Self::default()
        };
        let Ok(details) = Status::decode(status.details()) else { return failure };
        let info =
            details.details.iter().find(|any| type_name(&any.type_url) == "google.rpc.ErrorInfo");
        if let Some(info) = info {
            let info = ErrorInfo::decode(&*info.value).expect("ErrorInfo is well-formed");
            failure.reason = info.reason;
            failure.domain = info.domain;
            failure.metadata = info.metadata;
        }
        failure
    }

    /// A failure of the line rather than of the server.
    pub fn unreachable(message: &str) -> Self {
        Self { code: "UNAVAILABLE".into(), message: message.into(), ..Self::default() }
    }

    /// Demands a reason; the code follows from it, so it is named too.
    #[track_caller]
    pub fn is(&self, code: &str, reason: &str) -> &Self {
        assert_eq!((&*self.code, &*self.reason), (code, reason), "{self:?}");
        self
    }

    /// Demands that the message has these words.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.message.contains(word), "no {word:?} in {:?}", self.message);
        }
        self
    }
}

/// An operation as a client saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Full name.
    pub name: String,
    /// Whether it has ended.
    pub done: bool,
    /// `error.code`.
    pub code: Option<i64>,
    /// `error.message`; empty without an error.
    pub message: String,
    /// Type of the response, when there is one.
    pub response: Option<String>,
    /// Type of the metadata; empty when there is none.
    pub metadata_type: String,
    /// What the metadata says about a request to cancel; `false` also where the type has no such field.
    pub requested_cancellation: bool,
    /// Everything, as it came: for comparing two looks at one operation.
    pub whole: Whole,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq)]
pub enum Whole {
    /// Over HTTP.
    Json(Value),
    /// Over gRPC.
    Binary(Bytes),
}

impl Seen {
    /// Reads the JSON form and demands what holds for every operation.
    #[track_caller]
    pub fn from_json(json: &Value) -> Self {
        assert!(!json["error"].is_null() || json.get("error").is_none(), "null in {json}");
        assert!(!json["response"].is_null() || json.get("response").is_none(), "null in {json}");
        let seen = Self {
            name: text(&json["name"]),
            done: json["done"].as_bool().unwrap_or(false),
            code: json["error"].get("code").map(|code| code.as_i64().unwrap()),
            message: text(&json["error"]["message"]),
            response: json.get("response").map(any_type),
            metadata_type: json.get("metadata").map(any_type).unwrap_or_default(),
            requested_cancellation: json["metadata"]["requestedCancellation"] == true,
            whole: Whole::Json(json.clone()),
        };
        seen.checked()
    }

    /// Reads the binary form and demands what holds for every operation.
    #[track_caller]
    pub fn from_message(operation: &Operation) -> Self {
        let metadata = operation.metadata.clone().unwrap_or_default();
        let metadata_type = type_name(&metadata.type_url).to_owned();
        let (code, message, response) = match &operation.result {
            None => (None, String::new(), None),
            Some(OperationResult::Error(status)) => {
                (Some(i64::from(status.code)), status.message.clone(), None)
            }
            Some(OperationResult::Response(any)) => {
                (None, String::new(), Some(type_name(&any.type_url).to_owned()))
            }
        };
        let seen = Self {
            name: operation.name.clone(),
            done: operation.done,
            code,
            message,
            response,
            requested_cancellation: requested_cancellation(&metadata_type, &metadata.value),
            metadata_type,
            whole: Whole::Binary(operation.encode_to_vec().into()),
        };
        seen.checked()
    }

    #[track_caller]
    fn checked(self) -> Self {
        let ends = usize::from(self.code.is_some()) + usize::from(self.response.is_some());
        assert_eq!(ends, usize::from(self.done), "done means exactly one of both: {self:?}");
        assert_ne!(self.code, Some(0), "an error is never OK: {self:?}");
        self
    }

    /// Demands the end that a cancel leads to.
    #[track_caller]
    pub fn is_cancelled(&self) -> &Self {
        assert!(self.done && self.code == Some(1) && self.response.is_none(), "{self:?}");
        self
    }

    /// Demands that it goes on.
    #[track_caller]
    pub fn is_running(&self) -> &Self {
        assert!(!self.done, "{self:?}");
        self
    }

    /// The last part of its name.
    pub fn id(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }

    /// The JSON form; only for what came over HTTP.
    #[track_caller]
    pub fn json(&self) -> &Value {
        match &self.whole {
            Whole::Json(json) => json,
            Whole::Binary(_) => panic!("{} came over gRPC", self.name),
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its operations.
    pub operations: Vec<Seen>,
    /// Where to go on; empty on the last one.
    pub next: String,
}

impl Page {
    /// Full names, in the order of the page.
    pub fn names(&self) -> Vec<&str> {
        self.operations.iter().map(|operation| &*operation.name).collect()
    }
}

/// The metadata of Cloud Deploy's family, as far as it matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct DeployMetadata {
    #[prost(bool, tag = "6")]
    requested_cancellation: bool,
}

/// The metadata of Storage Batch Operations, as far as it matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct BatchMetadata {
    #[prost(bool, tag = "7")]
    requested_cancellation: bool,
}

fn requested_cancellation(metadata_type: &str, bytes: &[u8]) -> bool {
    match metadata_type {
        "google.cloud.deploy.v1.OperationMetadata"
        | "google.cloud.security.privateca.v1.OperationMetadata"
        | "google.cloud.cloudaicompanion.v1.OperationMetadata"
        | "acme.video.v1.OperationMetadata" => {
            DeployMetadata::decode(bytes).unwrap().requested_cancellation
        }
        "google.cloud.storagebatchoperations.v1.OperationMetadata" => {
            BatchMetadata::decode(bytes).unwrap().requested_cancellation
        }
        _ => false,
    }
}

fn any_type(any: &Value) -> String {
    type_name(any["@type"].as_str().unwrap_or_default()).to_owned()
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

/// The detail of an error's envelope of this type of google.rpc, which must be there.
#[track_caller]
pub fn detail<'a>(json: &'a Value, of: &str) -> &'a Value {
    let kind = format!("type.googleapis.com/google.rpc.{of}");
    let details = json["error"]["details"].as_array().unwrap();
    let found = details.iter().find(|detail| detail["@type"] == *kind);
    found.unwrap_or_else(|| panic!("no {of} in {json}"))
}
