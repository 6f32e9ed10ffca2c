//! Starting operations, and reading what is typed in them.
//!
//! A start is repeated only under a `request_id`, which makes the repeat find the first operation; where
//! the request has such a field and the caller left it empty, one is drawn.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use longhaul_wire::api::Api;
use longhaul_wire::bundled;
use longhaul_wire::longrunning::{self, GetOperationRequest, OperationResult};
use longhaul_wire::message::{Descriptors, Message as Dynamic, MessageType};
use prost::Message;
use serde_json::Value;
use uuid::Uuid;

use super::{Client, Error, Handle, OperationError, WaitOptions};

/// An operation whose metadata and response were decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Typed<Metadata, Response> {
    /// Full name.
    pub name: String,
    /// Whether it has ended.
    pub done: bool,
    /// The progress message, where there is one.
    pub metadata: Option<Metadata>,
    /// How it ended; `None` while it goes on, or when the server left an empty response out.
    pub result: Option<Result<Response, OperationError>>,
}

impl Client {
    /// Knows the methods of an API of your own, from its encoded `FileDescriptorSet`: starts of them get
    /// a `request_id`. The bundled APIs are known. Fails when the bytes are something else.
    pub fn with_descriptors(mut self, descriptor_set: &[u8]) -> Result<Self, Error> {
        let parsed = Descriptors::parse(descriptor_set);
        let parsed = parsed.map_err(|error| Error::InvalidArgument(error.message))?;
        Arc::make_mut(&mut self.known).push(parsed);
        Ok(self)
    }

    /// Starts an operation over gRPC. `method` is the full name, such as
    /// `google.cloud.deploy.v1.CloudDeploy.CreateRelease`, and `request` its request.
    ///
    /// When the method is known and its request has a `request_id` that was left empty, one is drawn, and
    /// the call is repeated while the server is briefly away: the repeat finds the first operation.
    /// A call without a `request_id` is made once.
    pub async fn start<Req: Message>(&self, method: &str, request: &Req) -> Result<Handle, Error> {
        let wrong = || {
            Error::InvalidArgument(format!(
                "{method:?} is not a method; give its full name, such as \"library.v1.Library.ImportBooks\""
            ))
        };
        let (service, name) = method.rsplit_once(['.', '/']).ok_or_else(wrong)?;
        let (message, repeatable) = self.with_request_id(service, name, request.encode_to_vec())?;
        let path = format!("/{service}/{name}");
        let operation: longrunning::Operation = self.grpc(&path, message, repeatable).await?;
        self.started(operation.name)
    }

    /// Starts an operation over HTTP: a POST to `path` below the API's version, such as
    /// `projects/p/locations/l/deliveryPipelines`, with this query and body.
    ///
    /// Unless query or body has a `requestId`, one is drawn, and the call is repeated while the server is
    /// briefly away. For a method without such a field give it empty: it is left out, and the call is made
    /// once.
    pub async fn start_json(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Result<Handle, Error> {
        let mut query: Vec<_> = query.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let named = |key: &str| matches!(key, "requestId" | "request_id");
        let given = query.iter().find(|(key, _)| named(key)).map(|(_, value)| value.clone());
        let in_body = body.get("requestId").or_else(|| body.get("request_id")).is_some();
        let repeatable = given.as_deref() != Some("");
        if given.is_none() && !in_body {
            query.push(("requestId", Uuid::new_v4().to_string()));
        }
        query.retain(|(key, value)| !(named(key) && value.is_empty()));
        let operation = self.post(path, &query, body, repeatable).await?;
        self.started(operation.name().to_owned())
    }

    /// The operation with its parts decoded, over gRPC. `Metadata` and `Response` must be what the method
    /// declares; `()` reads as nothing.
    pub async fn get_typed<Metadata, Response>(
        &self,
        name: &str,
    ) -> Result<Typed<Metadata, Response>, Error>
    where
        Metadata: Message + Default,
        Response: Message + Default,
    {
        let request = GetOperationRequest { name: name.to_owned() }.encode_to_vec().into();
        let path = "/google.longrunning.Operations/GetOperation";
        let found: longrunning::Operation = self.grpc(path, request, true).await?;
        let metadata = found.metadata.map(|any| self.decode("metadata", &any.value)).transpose()?;
        let result = match found.result {
            Some(OperationResult::Response(any)) => Some(Ok(self.decode("response", &any.value)?)),
            Some(OperationResult::Error(status)) => Some(Err(OperationError {
                code: i64::from(status.code),
                message: status.message,
                details: Vec::new(),
            })),
            None => None,
        };
        Ok(Typed { name: found.name, done: found.done, metadata, result })
    }

    fn decode<M: Message + Default>(&self, what: &str, bytes: &[u8]) -> Result<M, Error> {
        M::decode(bytes).map_err(|error| Error::Reply {
            url: self.url().to_owned(),
            message: format!("the {what} is of another type than was asked for ({error})"),
        })
    }

    fn started(&self, name: String) -> Result<Handle, Error> {
        if name.is_empty() {
            return Err(Error::Reply {
                url: self.url().to_owned(),
                message: "not an operation: it has no name; does this method start one?".to_owned(),
            });
        }
        Ok(self.resume(name))
    }

    /// The request with a `request_id` where it can have one, and whether it has.
    fn with_request_id(
        &self,
        service: &str,
        method: &str,
        bytes: Vec<u8>,
    ) -> Result<(Bytes, bool), Error> {
        const FIELD: &str = "request_id";
        let input = self.input_of(service, method).filter(|input| input.field(FIELD).is_some());
        let Some(input) = input else { return Ok((bytes.into(), false)) };
        let wrong = |why: &str| {
            Error::InvalidArgument(format!("not a request of {service}.{method}: {why}"))
        };
        let request = Dynamic::decode(&input, &bytes);
        let mut request = request.map_err(|error| wrong(&error.message))?;
        if request.get_str(FIELD).is_some_and(|id| !id.is_empty()) {
            return Ok((bytes.into(), true));
        }
        let drawn = request.set_string(FIELD, Uuid::new_v4().to_string());
        drawn.map_err(|error| wrong(&error.message))?;
        Ok((request.encode().into(), true))
    }

    fn input_of(&self, service: &str, method: &str) -> Option<MessageType> {
        let own = self.known.iter().find_map(|known| input(known, service, method));
        let bundled =
            || bundled_apis().iter().find_map(|api| input(api.descriptors(), service, method));
        own.or_else(|| service.starts_with("google.").then(bundled).flatten())
    }
}

impl Handle {
    /// Waits as [`Handle::wait`] does, and reads the end with its parts decoded.
    pub async fn wait_typed<Metadata, Response>(
        &self,
        options: &WaitOptions,
    ) -> Result<Typed<Metadata, Response>, Error>
    where
        Metadata: Message + Default,
        Response: Message + Default,
    {
        self.wait(options).await?;
        self.client().get_typed(self.name()).await
    }
}

fn input(known: &Descriptors, service: &str, method: &str) -> Option<MessageType> {
    Some(known.service(service)?.method(method)?.input())
}

/// Parsed once, when a method of Google's is started first.
fn bundled_apis() -> &'static [Arc<Api>] {
    static APIS: OnceLock<Vec<Arc<Api>>> = OnceLock::new();
    APIS.get_or_init(|| bundled::load_all().unwrap_or_default())
}
