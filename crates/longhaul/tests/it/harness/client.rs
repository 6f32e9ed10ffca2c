//! A client of one API over one wire.

use std::net::SocketAddr;
use std::time::Duration;

use longhaul_wire::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest,
};

use super::grpc::Connection;
use super::http::{Answer, Ask};
use super::samples::{Asked, Sample};
use super::soon;
use super::view::{Failure, Page, Seen};

/// How a call travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1 and JSON.
    Http,
    /// gRPC.
    Grpc,
}

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Which operations.
    pub filter: String,
    /// How many at most; 0 for the default.
    pub page_size: i32,
    /// Where to go on.
    pub page_token: String,
}

/// A client of one API.
#[derive(Clone)]
pub struct Client {
    /// The server.
    pub address: SocketAddr,
    /// How it calls.
    pub wire: Wire,
    /// The API it calls, by host.
    pub sample: &'static Sample,
    /// Whose operations.
    pub project: String,
    grpc: Connection,
}

impl Client {
    /// Connects when first used.
    pub fn new(
        address: SocketAddr,
        wire: Wire,
        sample: &'static Sample,
        project: impl Into<String>,
    ) -> Self {
        let grpc = Connection::new(address, Some(sample.host));
        Self { address, wire, sample, project: project.into(), grpc }
    }

    /// The gRPC side of it, whichever wire it otherwise uses.
    pub fn grpc(&self) -> &Connection {
        &self.grpc
    }

    /// What its lists look under.
    pub fn parent(&self) -> String {
        self.sample.parent(&self.project)
    }

    /// Starts an operation that makes the resource `id`.
    #[track_caller]
    pub fn start(&self, id: &str) -> impl Future<Output = Seen> {
        let place = std::panic::Location::caller();
        let (client, id) = (self.clone(), id.to_owned());
        async move {
            let asked = Asked { id: &id, ..Asked::default() };
            client.try_start(asked).await.unwrap_or_else(|error| panic!("{error:?} at {place}"))
        }
    }

    /// Starts an operation, if the server lets it.
    pub async fn try_start(&self, asked: Asked<'_>) -> Result<Seen, Failure> {
        match self.wire {
            Wire::Http => {
                let path = self.sample.start_path(&self.project, asked);
                let body = self.sample.start_body(&self.project, asked);
                Ok(Seen::from_json(&self.http(Ask::post_json(path, &body)).await?.ok()))
            }
            Wire::Grpc => {
                let message = self.sample.start_message(&self.project, asked).into();
                let path = self.sample.grpc_path();
                let answer = soon("a start", self.grpc.call_bytes(&path, message, None)).await?;
                let operation: Operation = prost::Message::decode(answer).unwrap();
                Ok(Seen::from_message(&operation))
            }
        }
    }

    /// Reads an operation.
    pub async fn try_get(&self, name: &str) -> Result<Seen, Failure> {
        match self.wire {
            Wire::Http => {
                Ok(Seen::from_json(&self.http(Ask::get(format!("/v1/{name}"))).await?.ok()))
            }
            Wire::Grpc => {
                let request = GetOperationRequest { name: name.into() };
                let operation: Operation = self.operations("GetOperation", &request).await?;
                Ok(Seen::from_message(&operation))
            }
        }
    }

    /// Reads an operation that must be there.
    #[track_caller]
    pub fn get(&self, name: &str) -> impl Future<Output = Seen> {
        let place = std::panic::Location::caller();
        let (client, name) = (self.clone(), name.to_owned());
        async move { client.try_get(&name).await.unwrap_or_else(|error| panic!("{error:?} at {place}")) }
    }

    /// Asks for cancellation. Over HTTP: nothing in the body, no content type.
    pub async fn try_cancel(&self, name: &str) -> Result<(), Failure> {
        match self.wire {
            Wire::Http => {
                self.http(Ask::post(format!("/v1/{name}:cancel"))).await?.empty_object();
                Ok(())
            }
            Wire::Grpc => {
                let request = CancelOperationRequest { name: name.into() };
                self.operations("CancelOperation", &request).await
            }
        }
    }

    /// Asks for cancellation, which must be accepted.
    #[track_caller]
    pub fn cancel(&self, name: &str) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        let (client, name) = (self.clone(), name.to_owned());
        async move {
            client.try_cancel(&name).await.unwrap_or_else(|error| panic!("{error:?} at {place}"));
        }
    }

    /// Says that nobody is interested any more.
    pub async fn try_delete(&self, name: &str) -> Result<(), Failure> {
        match self.wire {
            Wire::Http => {
                self.http(Ask::delete(format!("/v1/{name}"))).await?.empty_object();
                Ok(())
            }
            Wire::Grpc => {
                let request = DeleteOperationRequest { name: name.into() };
                self.operations("DeleteOperation", &request).await
            }
        }
    }

    /// A page of the operations of its project.
    pub async fn try_list(&self, asked: &List) -> Result<Page, Failure> {
        let parent = self.parent();
        match self.wire {
            Wire::Http => {
                let query = [
                    ("filter", escape(&asked.filter)),
                    ("pageSize", asked.page_size.to_string()),
                    ("pageToken", escape(&asked.page_token)),
                ];
                let query: Vec<_> =
                    query.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let path = format!("{}?{}", self.sample.list_path(&parent), query.join("&"));
                let json = self.http(Ask::get(path)).await?.ok();
                let operations = json["operations"].as_array().cloned().unwrap_or_default();
                Ok(Page {
                    operations: operations.iter().map(Seen::from_json).collect(),
                    next: json["nextPageToken"].as_str().unwrap_or_default().to_owned(),
                })
            }
            Wire::Grpc => {
                let request = ListOperationsRequest {
                    name: self.sample.list_name(&parent),
                    filter: asked.filter.clone(),
                    page_size: asked.page_size,
                    page_token: asked.page_token.clone(),
                    ..Default::default()
                };
                let page: ListOperationsResponse =
                    self.operations("ListOperations", &request).await?;
                Ok(Page {
                    operations: page.operations.iter().map(Seen::from_message).collect(),
                    next: page.next_page_token,
                })
            }
        }
    }

    /// The first page of what a filter lets through.
    #[track_caller]
    pub fn list(&self, filter: &str) -> impl Future<Output = Page> {
        let place = std::panic::Location::caller();
        let (client, asked) = (self.clone(), List { filter: filter.to_owned(), ..List::default() });
        async move {
            client.try_list(&asked).await.unwrap_or_else(|error| panic!("{error:?} at {place}"))
        }
    }

    /// Waits until the operation is done, or for `timeout`. Over gRPC: none of the five APIs has an
    /// HTTP rule for it.
    pub async fn try_wait(
        &self,
        name: &str,
        timeout: Option<Duration>,
        deadline: Option<Duration>,
    ) -> Result<Seen, Failure> {
        let timeout = timeout.map(|timeout| timeout.try_into().unwrap());
        let request = WaitOperationRequest { name: name.into(), timeout };
        let path = "/google.longrunning.Operations/WaitOperation";
        let operation: Operation =
            soon("the end of a wait", self.grpc.call(path, &request, deadline)).await?;
        Ok(Seen::from_message(&operation))
    }

    /// The operation once it is done. Read over its own wire, so that both looks can be compared.
    #[track_caller]
    pub fn done(&self, name: &str) -> impl Future<Output = Seen> {
        let place = std::panic::Location::caller();
        let (client, name) = (self.clone(), name.to_owned());
        async move {
            let waited = client.try_wait(&name, None, None).await;
            let waited = waited.unwrap_or_else(|error| panic!("{error:?} at {place}"));
            assert!(waited.done, "{waited:?} at {place}");
            client.get(&name).await
        }
    }

    /// Sends a request with the API's host; a refusal is read from Google's envelope.
    /// Sends to its API over HTTP, whichever wire it otherwise uses.
    pub async fn http(&self, ask: Ask) -> Result<Answer, Failure> {
        let sent = soon("an HTTP answer", ask.host(self.sample.host).try_send(self.address)).await;
        let answer = sent.map_err(|error| Failure::unreachable(&error))?;
        if answer.code == 200 { Ok(answer) } else { Err(Failure::from_envelope(&answer.json())) }
    }

    async fn operations<Answered: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<Answered, Failure> {
        let path = format!("/google.longrunning.Operations/{method}");
        soon("a gRPC answer", self.grpc.call(&path, request, None)).await
    }
}

/// Escapes whatever is not a plain letter, digit or `-._~`.
pub fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(
            |byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") },
        )
        .collect()
}
