//! What Longhaul offers beyond google.longrunning: a cancel that says why and what came of it, a cancel
//! before the name is known, and a watch.
//!
//! Other servers answer `UNIMPLEMENTED`. Source: longhaul/v1/operators.proto.

use std::collections::HashMap;
use std::time::Duration;

use longhaul_wire::v1::cancel_response::Outcome;
use longhaul_wire::v1::{
    CancelByRequestIdRequest, CancelRequest, CancelResponse, WatchRequest, WatchResponse,
};
use prost::Message;
use tokio::time::Instant;
use tonic::Streaming;

use super::{Client, Error, Handle};

pub use longhaul_wire::v1::OperationDetail;

/// From the loss of a watch's line to the first try of another; doubled each time.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_LONGEST: Duration = Duration::from_secs(5);

/// What came of asking to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CancelOutcome {
    /// Accepted; the worker is being told.
    Requested,
    /// Accepted, and the operation is done with code 1 already.
    Cancelled,
    /// Somebody had asked before; nothing changed.
    AlreadyRequested,
    /// The operation was done already; nothing changed.
    AlreadyDone,
    /// Accepted past the gate: the work may be carried to its end.
    TooLate,
    /// The server said something that this version does not know.
    Unknown,
}

/// One change of an operation under watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// As it stands now.
    Now(Box<OperationDetail>),
    /// Deleted, or past its retention: its full name.
    Gone(String),
}

/// The chosen operations as they stand, then every change of them. Dropping it changes nothing.
///
/// When the line breaks it is opened again, and what was told before is left out, by revision. Changes
/// in between are told as the one that came last.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    request: WatchRequest,
    stream: Option<Streaming<WatchResponse>>,
    /// The revision that was told last, by name.
    told: HashMap<String, u64>,
    /// How long the server may be away.
    patience: Duration,
    away: Option<(Instant, Duration)>,
}

impl Client {
    /// Asks for cancellation and says why, in up to 1 KiB for the worker and the record; does not wait for
    /// it. Safe to repeat.
    pub async fn cancel_because(&self, name: &str, reason: &str) -> Result<CancelOutcome, Error> {
        let request = CancelRequest { name: name.to_owned(), reason: reason.to_owned() };
        let response: CancelResponse = self.operators("Cancel", &request).await?;
        Ok(outcome(&response))
    }

    /// Cancels the operation that a start under this `request_id` made, or will make: one that comes later
    /// finds itself cancelled. `api` is such as `clouddeploy`, `parent` the start's. Answers with the
    /// operation and what came of it.
    pub async fn cancel_by_request_id(
        &self,
        api: &str,
        parent: &str,
        request_id: &str,
        reason: &str,
    ) -> Result<(Handle, CancelOutcome), Error> {
        let request = CancelByRequestIdRequest {
            api: api.to_owned(),
            parent: parent.to_owned(),
            request_id: request_id.to_owned(),
            reason: reason.to_owned(),
        };
        let response: CancelResponse = self.operators("CancelByRequestId", &request).await?;
        let outcome = outcome(&response);
        Ok((self.resume(response.name), outcome))
    }

    /// Watches operations by their full names. The first answers say how they stand.
    pub async fn watch(&self, names: &[&str]) -> Result<Watch, Error> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Watch::open(self.clone(), WatchRequest { names, ..WatchRequest::default() }).await
    }

    /// Watches all operations of an API, such as `clouddeploy`, under a parent. A `-` segment of the
    /// parent stands for any; empty: every parent.
    pub async fn watch_under(&self, api: &str, parent: &str) -> Result<Watch, Error> {
        let (api, parent) = (api.to_owned(), parent.to_owned());
        Watch::open(self.clone(), WatchRequest { api, parent, ..WatchRequest::default() }).await
    }

    async fn operators<Answer: Message + Default + 'static>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Answer, Error> {
        let path = format!("/longhaul.v1.Operators/{method}");
        self.grpc(&path, request.encode_to_vec().into(), true).await
    }
}

impl Handle {
    /// As [`Client::cancel_because`].
    pub async fn cancel_because(&self, reason: &str) -> Result<CancelOutcome, Error> {
        self.client().cancel_because(self.name(), reason).await
    }

    /// As [`Client::watch`].
    pub async fn watch(&self) -> Result<Watch, Error> {
        self.client().watch(&[self.name()]).await
    }
}

impl Watch {
    async fn open(client: Client, request: WatchRequest) -> Result<Self, Error> {
        let stream = Some(stream(&client, &request).await?);
        let patience = Duration::from_secs(60);
        Ok(Self { client, request, stream, told: HashMap::new(), patience, away: None })
    }

    /// How long the server may be away before [`Watch::next`] fails; 60 s unless said.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The next change. Fails when the server refuses, or is away for longer than the patience; asked
    /// again, it tries again. May be dropped and asked again without losing a change.
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.open_again().await?;
                continue;
            };
            match stream.message().await {
                Ok(Some(response)) => {
                    self.away = None;
                    if let Some(change) = self.take_in(response) {
                        return Ok(change);
                    }
                }
                Ok(None) => self.stream = None,
                Err(status) => {
                    tracing::debug!(%status, "a watch broke; opening it again");
                    self.stream = None;
                }
            }
        }
    }

    async fn open_again(&mut self) -> Result<(), Error> {
        let (since, pause) = self.away.unwrap_or((Instant::now(), AGAIN_FIRST));
        self.away = Some((since, (pause * 2).min(AGAIN_LONGEST)));
        tokio::time::sleep(pause).await;
        match stream(&self.client, &self.request).await {
            Ok(stream) => self.stream = Some(stream),
            Err(error) if error.transient() && since.elapsed() < self.patience => {
                tracing::debug!(%error, "a watch could not be opened again");
            }
            Err(error) => {
                self.away = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// What is new in it.
    fn take_in(&mut self, response: WatchResponse) -> Option<Change> {
        let operation = response.operation?;
        if response.gone {
            self.told.remove(&operation.name);
            return Some(Change::Gone(operation.name));
        }
        if self.told.get(&operation.name).is_some_and(|told| *told >= operation.revision) {
            return None;
        }
        self.told.insert(operation.name.clone(), operation.revision);
        Some(Change::Now(Box::new(operation)))
    }
}

async fn stream(
    client: &Client,
    request: &WatchRequest,
) -> Result<Streaming<WatchResponse>, Error> {
    client.grpc_stream("/longhaul.v1.Operators/Watch", request.encode_to_vec().into()).await
}

fn outcome(response: &CancelResponse) -> CancelOutcome {
    match response.outcome() {
        Outcome::Requested => CancelOutcome::Requested,
        Outcome::Cancelled => CancelOutcome::Cancelled,
        Outcome::AlreadyRequested => CancelOutcome::AlreadyRequested,
        Outcome::AlreadyDone => CancelOutcome::AlreadyDone,
        Outcome::TooLate => CancelOutcome::TooLate,
        Outcome::Unspecified => CancelOutcome::Unknown,
    }
}
