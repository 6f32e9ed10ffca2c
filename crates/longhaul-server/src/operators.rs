//! The operators' side: describe with a timeline, cancel with a reason, explain, watch.
//!
//! Sees what clients no longer can: a deleted operation is described until its row goes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use longhaul_auth::Identity;
use longhaul_auth::refusal::{self, Asked};
use longhaul_core::{
    Applied, Command, Error, EventKind, Operation, OperationName, Outcome, Payload, Policy, Reason,
    Refusal, RequestId, Start, State, apply,
};
use longhaul_store::{Key, ListQuery, OWN_API, ParentFilter, Priority, Recorded, Store};
use longhaul_wire::api::Api;
use longhaul_wire::apis::Apis;
use longhaul_wire::v1::cancel_response::Outcome as Came;
use longhaul_wire::{convert, start, v1};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::bulk::BulkCancels;
use crate::call::{Call, Caller, DOMAIN, not_found, overloaded};
use crate::clock::Clock;
use crate::config::Limits;
use crate::operations::draw;
use crate::watch::Watch;
use crate::workers;

/// Longest reason of a cancel, in bytes; it is kept with the operation and sent to its worker.
const REASON_BYTES_MAX: usize = 1024;
/// Most rows of a timeline in one answer, the oldest first.
const TIMELINE_MAX: usize = 2_000;
/// Most children in one answer, the oldest first.
const CHILDREN_MAX: usize = 1_000;
/// Operations that one watch may begin with; more would be a list.
const WATCHED_MAX: usize = 1_000;
/// Messages that may wait for a slow watcher before its watch ends.
const WAITING_MAX: usize = 256;

/// What the operators' side works with.
pub struct Operators {
    /// Those who cancel many at once.
    pub bulk: BulkCancels,
    /// The loaded APIs.
    pub apis: Arc<Apis>,
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Who hears of changes.
    pub watch: Arc<Watch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Limits.
    pub limits: Limits,
    /// Fires when the server begins to stop.
    pub draining: CancellationToken,
    /// Whether a watcher still may.
    pub access: Arc<Access>,
}

impl Operators {
    /// Answers a unary call of `longhaul.v1.Operators`.
    pub async fn answer(&self, call: &Call) -> Result<Bytes, Error> {
        let message = &*call.message;
        match call.method.name() {
            "Describe" => {
                let request = v1::DescribeRequest::decode(message).map_err(undecodable)?;
                let name = OperationName::parse(&request.name)?;
                Ok(self.describe(&name).await?.encode_to_vec().into())
            }
            "Cancel" => {
                let request = v1::CancelRequest::decode(message).map_err(undecodable)?;
                Ok(self.cancel(&request, &call.caller).await?.encode_to_vec().into())
            }
            "CancelByRequestId" => {
                let request = v1::CancelByRequestIdRequest::decode(message).map_err(undecodable)?;
                Ok(self.cancel_by_request_id(&request, &call.caller).await?.encode_to_vec().into())
            }
            "Explain" => {
                let request = v1::ExplainRequest::decode(message).map_err(undecodable)?;
                let operation = self.find(&OperationName::parse(&request.name)?).await?;
                Ok(crate::explain::explain(&operation, self.clock.now()).encode_to_vec().into())
            }
            "BulkCancel" => {
                let request = v1::BulkCancelRequest::decode(message).map_err(undecodable)?;
                checked_reason(&request.reason)?;
                let api = self.api(&request.api)?;
                Ok(self.bulk.start(request, api, &call.caller).await?.encode_to_vec().into())
            }
            "Detach" => {
                let request = v1::DetachRequest::decode(message).map_err(undecodable)?;
                Ok(self.detach(&request, &call.caller).await?.encode_to_vec().into())
            }
            other => Err(Error::new(
                Reason::MethodNotFound,
                format!("this server does not have the method {other}"),
            )),
        }
    }

    async fn find(&self, name: &OperationName) -> Result<Arc<Operation>, Error> {
        let found = self.store.get(name).await?.filter(|found| !found.is_tombstone());
        found.ok_or_else(|| not_found(name))
    }

    async fn describe(&self, name: &OperationName) -> Result<v1::OperationDetail, Error> {
        let operation = self.find(name).await?;
        let history = self.store.history(name, 0, TIMELINE_MAX).await?;
        let mut detail = detail(&operation, self.apis.get(&operation.api).map(|api| &**api));
        detail.timeline = history.iter().flat_map(timeline).collect();
        let children = self.store.children(name, CHILDREN_MAX).await?;
        detail.children = children.iter().map(ToString::to_string).collect();
        Ok(detail)
    }

    async fn cancel(
        &self,
        request: &v1::CancelRequest,
        caller: &Caller,
    ) -> Result<v1::CancelResponse, Error> {
        let actor = caller.identity.actor();
        let name = OperationName::parse(&request.name)?;
        let reason = checked_reason(&request.reason)?;
        let now = self.clock.now();
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let found = operation.ok_or(Refusal::NotFound)?;
            longhaul_core::cancel_as_operator(found, actor.clone(), reason.clone(), now)
        });
        let applied = self
            .store
            .update(Key::Name(name.clone()), Priority::Urgent, decide)
            .await
            .map_err(|failure| failure.into_error(&name))?;
        caller.made.note(&applied);
        Ok(came_of(&applied))
    }

    async fn detach(
        &self,
        request: &v1::DetachRequest,
        caller: &Caller,
    ) -> Result<v1::DetachResponse, Error> {
        let actor = caller.identity.actor();
        let name = OperationName::parse(&request.name)?;
        let now = self.clock.now();
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let found = operation.filter(|found| !found.is_tombstone());
            let detach = Command::Detach { actor: actor.clone() };
            apply(found.ok_or(Refusal::NotFound)?, detach, now)
        });
        let applied = self
            .store
            .update(Key::Name(name.clone()), Priority::Normal, decide)
            .await
            .map_err(|failure| failure.into_error(&name))?;
        caller.made.note(&applied);
        Ok(v1::DetachResponse { detached: !applied.events.is_empty() })
    }

    async fn cancel_by_request_id(
        &self,
        request: &v1::CancelByRequestIdRequest,
        caller: &Caller,
    ) -> Result<v1::CancelResponse, Error> {
        let api = self.api(&request.api)?;
        let reason = checked_reason(&request.reason)?;
        start::known_request_id(&api, &request.request_id)?;
        let parent = api.parent_of_list(&request.parent).ok_or_else(|| {
            invalid(
                "parent",
                "is no parent of operations of this API; give the parent of the start",
            )
        })?;
        let now = self.clock.now();
        let (uid, random) = draw(now)?;
        let id = start::operation_id(api.settings().operations.id, uid, now, random);
        let name = OperationName::parse(&format!("{parent}/operations/{id}"))?;
        let window = api.start_methods().filter_map(|method| method.start());
        let window = window.map(|start| start.request_id_window).max().unwrap_or_default();
        let nothing = Payload { type_name: "".into(), value: Arc::from([]) };
        let unborn = Start {
            name: name.clone(),
            uid,
            api: api.name().clone(),
            method: "".into(),
            queue: "".into(),
            parent: parent.into(),
            target: "".into(),
            actor: caller.identity.actor(),
            request: nothing.clone(),
            metadata: nothing,
            traceparent: "".into(),
            parent_operation: None,
            deadline: None,
            start_by: None,
            request_id: Some(RequestId {
                value: request.request_id.as_str().into(),
                until: now + window,
            }),
            policy: Policy::default(),
        };
        let key = Key::of_start(&unborn);
        let decide = Arc::new(move |existing: Option<&Operation>| {
            longhaul_core::cancel_by_request_id(existing, unborn.clone(), reason.clone(), now)
        });
        let applied = self
            .store
            .update(key, Priority::Urgent, decide)
            .await
            .map_err(|failure| failure.into_error(&name))?;
        caller.made.note(&applied);
        Ok(came_of(&applied))
    }

    fn api(&self, wanted: &str) -> Result<Arc<Api>, Error> {
        let fits = |api: &&Arc<Api>| &**api.name() == wanted || api.prefix() == wanted;
        self.apis.all().iter().find(fits).cloned().ok_or_else(|| {
            invalid(
                "api",
                "is no API of this server; give its host or its prefix, such as \"clouddeploy\"",
            )
        })
    }

    /// Streams the chosen operations and their changes until the caller goes or the server stops.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        request: v1::WatchRequest,
        caller: &Caller,
    ) -> Result<mpsc::Receiver<Result<v1::WatchResponse, Error>>, Error> {
        let names = self.chosen(&request).await?;
        let place = self
            .watch
            .hold(self.limits.held_calls_max)
            .ok_or_else(|| overloaded("too many calls are held open; watch again shortly"))?;
        let (send, receive) = mpsc::channel(WAITING_MAX);
        let changes = self.watch.operations(names.iter().cloned().collect());
        let (operators, identity) = (self.clone(), caller.identity.clone());
        tokio::spawn(async move {
            let _place = place;
            let mut changed = names;
            let mut told = HashMap::new();
            loop {
                for name in &changed {
                    let (revision, response) = match operators.look(name, &identity).await {
                        Ok(looked) => looked,
                        Err(error) => {
                            let _ = send.send(Err(error)).await;
                            return;
                        }
                    };
                    // Word of a change may come after what it changed was read.
                    if told.insert(name.clone(), revision) == Some(revision) {
                        continue;
                    }
                    if send.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
                let left = identity.expires_at.map(|over| over.since(operators.clock.now()));
                changed = tokio::select! {
                    changed = changes.changed() => changed,
                    () = operators.clock.sleep(left.unwrap_or_default()), if left.is_some() => {
                        // Whatever is watched, were it nothing.
                        let (service, method) = (DOMAIN, "longhaul.v1.Operators.Watch");
                        let over = refusal::credentials_expired(Asked { service, method });
                        let _ = send.send(Err(over)).await;
                        return;
                    }
                    () = send.closed() => return,
                    () = operators.draining.cancelled() => return,
                };
            }
        });
        Ok(receive)
    }

    /// One operation as a watcher sees it, if it still may, and its revision; none when it is gone.
    async fn look(
        &self,
        name: &OperationName,
        identity: &Arc<Identity>,
    ) -> Result<(Option<u64>, v1::WatchResponse), Error> {
        let found = self.store.get(name).await?;
        if let Some(found) = &found {
            self.access.may_read(identity, found)?;
        }
        let response = self.seen(name, found.as_deref());
        let revision = found.filter(|_| !response.gone).map(|found| found.revision);
        Ok((revision, response))
    }

    async fn chosen(&self, request: &v1::WatchRequest) -> Result<BTreeSet<OperationName>, Error> {
        if request.names.len() > WATCHED_MAX {
            return Err(invalid("names", "has more than 1000 entries"));
        }
        if !request.names.is_empty() {
            return request.names.iter().map(|name| OperationName::parse(name)).collect();
        }
        let api = self.api(&request.api)?;
        let parent = match request.parent.as_str() {
            "" => ParentFilter::Any,
            parent => ParentFilter::Matching(parent.into()),
        };
        let query = ListQuery {
            api: api.name().clone(),
            parent,
            after: None,
            done: None,
            limit: WATCHED_MAX,
        };
        let rows = self.store.list(query).await?;
        Ok(rows.into_iter().map(|(_, operation)| operation.name.clone()).collect())
    }

    fn seen(&self, name: &OperationName, found: Option<&Operation>) -> v1::WatchResponse {
        let now = self.clock.now();
        match found.filter(|found| found.visible(now)) {
            Some(operation) => {
                let api = self.apis.get(&operation.api).map(|api| &**api);
                v1::WatchResponse { operation: Some(detail(operation, api)), gone: false }
            }
            None => {
                let gone = v1::OperationDetail { name: name.to_string(), ..Default::default() };
                v1::WatchResponse { operation: Some(gone), gone: true }
            }
        }
    }
}

fn checked_reason(text: &str) -> Result<Arc<str>, Error> {
    if text.len() > REASON_BYTES_MAX {
        return Err(invalid("reason", "has more than 1024 bytes"));
    }
    Ok(text.into())
}

/// What came of asking, from the events of the decision.
pub(crate) fn came_of(applied: &Applied) -> v1::CancelResponse {
    let operation = &applied.operation;
    let accepted =
        applied.events.iter().any(|event| matches!(event.kind, EventKind::CancelRequested { .. }));
    let outcome = match (accepted, &operation.state) {
        (true, State::Done { .. }) => Came::Cancelled,
        (true, _) if operation.gate_passed.is_some() => Came::TooLate,
        (true, _) => Came::Requested,
        (false, State::Done { .. }) => Came::AlreadyDone,
        (false, _) => Came::AlreadyRequested,
    };
    v1::CancelResponse { outcome: outcome as i32, name: operation.name.to_string() }
}

pub(crate) fn state_number(state: &State) -> i32 {
    let state = match state {
        State::Queued { .. } => v1::State::Queued,
        State::Running { .. } => v1::State::Running,
        State::Cancelling { .. } => v1::State::Cancelling,
        State::CleaningUp { .. } => v1::State::CleaningUp,
        State::Done { .. } => v1::State::Done,
    };
    state as i32
}

fn detail(operation: &Operation, api: Option<&Api>) -> v1::OperationDetail {
    let (response, error) = match operation.outcome() {
        Some(Outcome::Response(response)) => (Some(convert::any(response)), None),
        Some(Outcome::Error(status)) => (
            None,
            Some(v1::OperationError {
                code: status.code.number(),
                message: status.message.clone(),
                details: status.details.iter().map(convert::any).collect(),
            }),
        ),
        None => (None, None),
    };
    let response_given = response.is_some();
    let metadata = match &*operation.api {
        OWN_API => Some(operation.metadata.clone()),
        _ => api.and_then(|api| convert::metadata(operation, api)),
    };
    v1::OperationDetail {
        name: operation.name.to_string(),
        uid: uuid::Uuid::from_u128(operation.uid).to_string(),
        api: operation.api.to_string(),
        method: operation.method.to_string(),
        queue: operation.queue.to_string(),
        parent: operation.parent.to_string(),
        target: operation.target.to_string(),
        actor: operation.actor.to_string(),
        state: state_number(&operation.state),
        epoch: operation.epoch,
        attempt: operation.attempt,
        revision: operation.revision,
        create_time: Some(convert::moment(operation.create_time)),
        start_time: operation.start_time.map(convert::moment),
        update_time: Some(convert::moment(operation.update_time)),
        end_time: operation.end_time().map(convert::moment),
        expire_time: operation.expire_time().map(convert::moment),
        deadline: operation.deadline.map(convert::moment),
        start_by: operation.start_by.map(convert::moment),
        delete_time: operation.deleted.map(convert::moment),
        gate_time: operation.gate_passed.map(convert::moment),
        request: Some(convert::any(&operation.request)),
        metadata: metadata.as_ref().map(convert::any),
        response,
        error,
        progress: operation.progress.as_ref().map(|progress| v1::Progress {
            percent: progress.percent,
            step: progress.step,
            steps: progress.steps,
            message: progress.message.to_string(),
        }),
        // What a success left behind is its response.
        effects: if response_given { 0 } else { workers::effects_number(operation.effects) },
        cancel: operation.cancel.as_ref().map(|cancel| v1::CancelDetail {
            cause: workers::cause_number(cancel.cause),
            actor: cancel.actor.to_string(),
            reason: cancel.reason.to_string(),
            request_time: Some(convert::moment(cancel.at)),
            delivered_time: cancel.delivered_at.map(convert::moment),
            acknowledged_time: cancel.acknowledged_at.map(convert::moment),
            stopped_time: operation.end_time().map(convert::moment),
            deadline: Some(convert::moment(cancel.deadline)),
            requested_by_client: cancel.client_asked,
        }),
        lease: operation.lease().map(|lease| v1::LeaseDetail {
            worker: lease.worker.to_string(),
            claim_time: Some(convert::moment(lease.claimed_at)),
            expire_time: Some(convert::moment(lease.expires_at)),
        }),
        external_ref: operation.external_ref.as_deref().unwrap_or_default().to_owned(),
        request_id: operation.request_id.as_ref().map_or(String::new(), |id| id.value.to_string()),
        traceparent: operation.traceparent.to_string(),
        parent_operation: operation
            .parent_operation
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        timeline: Vec::new(),
        children: Vec::new(),
    }
}

fn timeline(recorded: &Recorded) -> Vec<v1::TimelineEvent> {
    let event_of = |event: &longhaul_core::Event| {
        let (who, message) = words(&event.kind);
        v1::TimelineEvent {
            time: Some(convert::moment(event.at)),
            revision: recorded.revision,
            event: event.kind.name().to_owned(),
            who,
            message,
        }
    };
    recorded.events.iter().map(event_of).collect()
}

/// Who did it, and a word more.
fn words(kind: &EventKind) -> (String, String) {
    match kind {
        EventKind::Claimed { worker, epoch, cleanup } => {
            let what = if *cleanup { "cleanup" } else { "main work" };
            (worker.to_string(), format!("epoch {epoch}, {what}"))
        }
        EventKind::LeaseRegained { worker }
        | EventKind::Released { worker }
        | EventKind::LeaseExpired { worker } => (worker.to_string(), String::new()),
        EventKind::CancelRequested { actor, reason, .. }
        | EventKind::CancelRepeated { actor, reason } => (actor.to_string(), reason.to_string()),
        EventKind::Retrying { status, .. } => {
            (String::new(), format!("{}: {}", status.code.name(), status.message))
        }
        EventKind::Finished { outcome: Outcome::Error(status) } => {
            (String::new(), format!("{}: {}", status.code.name(), status.message))
        }
        EventKind::Finished { outcome: Outcome::Response(response) } => {
            (String::new(), response.type_name.to_string())
        }
        EventKind::Deleted { actor } => (actor.to_string(), String::new()),
        EventKind::Started
        | EventKind::Progressed
        | EventKind::GatePassed
        | EventKind::CancelDelivered
        | EventKind::CancelAcknowledged
        | EventKind::CleanupStarted
        | EventKind::Forgotten => (String::new(), String::new()),
        EventKind::Detached { parent, actor } => {
            (actor.to_string(), format!("no longer a child of {parent}"))
        }
    }
}

fn invalid(field: &str, what: &str) -> Error {
    Error::new(Reason::InvalidValue, format!("{field} {what}")).at_field(field, what)
}

fn undecodable(error: prost::DecodeError) -> Error {
    Error::new(
        Reason::InvalidValue,
        format!("the request is not the message it should be: {error}"),
    )
}
