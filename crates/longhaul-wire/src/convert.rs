//! Operations as clients see them: core values to `google.longrunning` messages.
//!
//! Owns which fields of an API's metadata the server keeps true by itself, under whatever names and
//! numbers the API gives them. Never adds a field or type that the API does not declare.

mod raw;
mod server_fields;

use longhaul_core as core;
use longhaul_core::{Error, Payload, Reason};

pub(crate) use server_fields::ServerFields;

use crate::api::{Api, Method, StartMethod};
use crate::longrunning::{self, Any, OperationResult, Status, type_name, type_url};
use crate::message::{Message, MessageType, TypeResolver};
use crate::settings::ErrorDetails;

/// Which wire an answer leaves by; some official clients cannot read every detail as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// gRPC: everything.
    Grpc,
    /// JSON over HTTP: details as the API's settings say.
    Json,
    /// Our own API and tools: everything.
    Native,
}

/// The operation as a client of its API sees it.
#[must_use]
pub fn to_wire(operation: &core::Operation, api: &Api, edge: Edge) -> longrunning::Operation {
    longrunning::Operation {
        name: operation.name.as_str().to_owned(),
        metadata: metadata(operation, api).map(|payload| any(&payload)),
        done: operation.outcome().is_some(),
        result: operation.outcome().map(|outcome| match outcome {
            core::Outcome::Response(response) => OperationResult::Response(any(response)),
            core::Outcome::Error(status) => OperationResult::Error(to_status(status, api, edge)),
        }),
    }
}

/// The whole metadata of an operation: the worker's part and what the server knows. `None` when the
/// operation has no metadata type.
#[must_use]
pub fn metadata(operation: &core::Operation, api: &Api) -> Option<Payload> {
    if operation.metadata.type_name.is_empty() {
        return None;
    }
    let Some(fields) = api.server_fields(&operation.metadata.type_name) else {
        return Some(operation.metadata.clone());
    };
    let verb = api.method(&operation.method).and_then(|method| method.start());
    let verb = verb.map_or("", |start| &*start.verb);
    let value = fields.complete(&operation.metadata.value, operation, verb, api.version());
    Some(Payload { type_name: operation.metadata.type_name.clone(), value: value.into() })
}

/// Checks metadata that a worker wrote and makes it ready to be stored: fields that the server keeps
/// by itself are dropped, and fields filled at the start come back from `current` where the worker
/// left them out.
///
/// `written_type` is a type name or an `Any`'s URL. Fails with `TYPE_MISMATCH` for another type than
/// the method declares, with `INVALID_VALUE` for bytes that are not such a message.
pub fn accept_metadata(
    api: &Api,
    method: &Method,
    current: &Payload,
    written_type: &str,
    written: &[u8],
) -> Result<Payload, Error> {
    let start = started_by(method)?;
    let declared = &start.metadata_type;
    check_type("metadata", method, declared, written_type)?;
    let mut message = Message::decode(declared, written)?;
    if let Some(fields) = api.server_fields(declared.full_name()) {
        fields.clear(&mut message);
    }
    let before = Message::decode(declared, &current.value).ok();
    for source in &start.metadata_sources {
        if let Some((_, value)) = before.as_ref().and_then(|before| before.find(source.field()))
            && !message.has(source.field())
        {
            message.set_value(source.field(), value.clone())?;
        }
    }
    Ok(Payload { type_name: declared.full_name().into(), value: message.encode().into() })
}

/// Checks a worker's response. `written_type` is a type name or an `Any`'s URL.
///
/// Fails with `TYPE_MISMATCH` for another type than the method declares, with `INVALID_VALUE` for
/// bytes that are not such a message.
pub fn accept_response(
    method: &Method,
    written_type: &str,
    written: &[u8],
) -> Result<Payload, Error> {
    let declared = &started_by(method)?.response_type;
    check_type("response", method, declared, written_type)?;
    let message = Message::decode(declared, written)?;
    Ok(Payload { type_name: declared.full_name().into(), value: message.encode().into() })
}

fn started_by(method: &Method) -> Result<&StartMethod, Error> {
    method.start().ok_or_else(|| {
        Error::new(Reason::Internal, format!("{} does not start an operation", method.full_name))
    })
}

fn check_type(
    role: &str,
    method: &Method,
    declared: &MessageType,
    written: &str,
) -> Result<(), Error> {
    let written = type_name(written);
    if written == declared.full_name() {
        return Ok(());
    }
    let shown: String = written.chars().take(256).collect();
    Err(Error::new(
        Reason::TypeMismatch,
        format!(
            "the {role} of {} must be a {}, not a {shown:?}; send the declared type",
            method.full_name,
            declared.full_name()
        ),
    )
    .with("method", &*method.full_name)
    .with("declared_type", declared.full_name())
    .with("type", shown))
}

fn to_status(status: &core::Status, api: &Api, edge: Edge) -> Status {
    let shown = |detail: &&Payload| is_shown(&detail.type_name, api, edge);
    Status {
        code: status.code.number(),
        message: status.message.clone(),
        details: status.details.iter().filter(shown).map(any).collect(),
    }
}

/// Takes from an operation as gRPC has it what may not leave by this edge.
pub fn for_edge(operation: &mut longrunning::Operation, api: &Api, edge: Edge) {
    match &mut operation.result {
        Some(OperationResult::Error(status)) => {
            status.details.retain(|detail| is_shown(type_name(&detail.type_url), api, edge));
        }
        Some(OperationResult::Response(_)) | None => {}
    }
}

/// Whether a detail of an error of this type leaves by this edge.
fn is_shown(detail: &str, api: &Api, edge: Edge) -> bool {
    match edge {
        Edge::Grpc | Edge::Native => true,
        Edge::Json => match api.settings().operations.error_details_in_json {
            ErrorDetails::Declared => api.descriptors().message(detail).is_some(),
            ErrorDetails::All => TypeResolver::message(api, detail).is_some() || is_common(detail),
            ErrorDetails::None => false,
        },
    }
}

/// Whether the type is one that all APIs share, such as `google.rpc.ErrorInfo`.
fn is_common(detail: &str) -> bool {
    crate::bundled::common().is_ok_and(|common| common.message(detail).is_some())
}

/// The message in an `Any`, without looking into it.
#[must_use]
pub fn payload(any: Any) -> Payload {
    Payload { type_name: type_name(&any.type_url).into(), value: any.value.into() }
}

/// A moment as the wire writes it.
#[must_use]
pub fn moment(at: core::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.seconds(), nanos: at.nanos() }
}

/// A message as an `Any`.
#[must_use]
pub fn any(payload: &Payload) -> Any {
    Any { type_url: type_url(&payload.type_name), value: payload.value.to_vec() }
}
