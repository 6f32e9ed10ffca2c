//! What a call is about, read from its path or its message before anything else is looked at.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_wire::api::{Api, HttpCall, Method, MethodKind};
use longhaul_wire::message::Message;
use longhaul_wire::settings::OperationsVerb;
use longhaul_wire::{longrunning, start, v1};
use prost::Message as _;

use crate::call::Call;

/// What a call is about.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The API meant; `None` when the operation decides.
    pub api: Option<Arc<Api>>,
    /// The method.
    pub method: Arc<Method>,
    /// An operation's name, the parent of a list, the resource of a start; empty when the call names none
    /// or cannot be read.
    pub resource: String,
    /// The whole request, where more of it than the resource counts.
    pub(crate) message: Option<Bytes>,
}

impl Wanted {
    /// Read from a path; `None` when the path does not say what the call is about.
    pub(crate) fn of_path(api: Option<&Arc<Api>>, call: &HttpCall) -> Option<Self> {
        let resource = call.resource()?;
        Some(Self { api: api.cloned(), method: call.method.clone(), resource, message: None })
    }

    /// Read from the whole request.
    pub(crate) fn of_call(call: &Call) -> Self {
        let resource = match &call.method.kind {
            MethodKind::Operations(verb) => name(*verb, &call.message),
            // Its resource is field 1, as the name of a get is.
            MethodKind::Policy(_) => name(OperationsVerb::Get, &call.message),
            MethodKind::Native => native(call.method.name(), &call.message),
            MethodKind::Start(_) | MethodKind::Other => {
                let message = Message::decode(&call.method.input, &call.message);
                message.ok().and_then(|message| start::resource_of(&call.method, &message))
            }
        };
        let resource = resource.unwrap_or_default();
        let whole = matches!(call.method.kind, MethodKind::Native).then(|| call.message.clone());
        Self { api: call.api.clone(), method: call.method.clone(), resource, message: whole }
    }

    /// Of a method that is about no resource in particular.
    pub(crate) fn of_method(api: Option<&Arc<Api>>, method: &Arc<Method>) -> Self {
        Self { api: api.cloned(), method: method.clone(), resource: String::new(), message: None }
    }

    /// The same, with the request.
    pub(crate) fn with_message(self, message: Bytes) -> Self {
        Self { message: Some(message), ..self }
    }
}

/// Of the operators' methods: the operation, or the parent of those that are meant.
fn native(method: &str, message: &[u8]) -> Option<String> {
    Some(match method {
        "Describe" => v1::DescribeRequest::decode(message).ok()?.name,
        "Explain" => v1::ExplainRequest::decode(message).ok()?.name,
        "Cancel" => v1::CancelRequest::decode(message).ok()?.name,
        "Detach" => v1::DetachRequest::decode(message).ok()?.name,
        "CancelByRequestId" => v1::CancelByRequestIdRequest::decode(message).ok()?.parent,
        "BulkCancel" => v1::BulkCancelRequest::decode(message).ok()?.parent,
        _ => return None,
    })
}

fn name(verb: OperationsVerb, message: &[u8]) -> Option<String> {
    Some(match verb {
        OperationsVerb::List => longrunning::ListOperationsRequest::decode(message).ok()?.name,
        OperationsVerb::Get
        | OperationsVerb::Cancel
        | OperationsVerb::Delete
        | OperationsVerb::Wait => longrunning::GetOperationRequest::decode(message).ok()?.name,
    })
}
