//! The operations as clients see them: start, get, list, wait, cancel, delete.
//!
//! Every write is one decision of `longhaul-core`, run by the store; nothing here has rules of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longhaul_core::{
    Cause, Command, Error, Operation, OperationName, Reason, Refusal, RequestId, Start, Timestamp,
    apply,
};
use longhaul_store::{Cursor, Failure, Key, ListQuery, ParentFilter, Priority, Store};
use longhaul_wire::api::{Api, StartMethod};
use longhaul_wire::apis::Apis;
use longhaul_wire::list::{self, Filter, ListArguments};
use longhaul_wire::message::Message;
use longhaul_wire::{convert, longrunning, respond, start};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::Access;
use crate::call::{Call, PARENT_OPERATION, not_found};
use crate::cells::{self, Cells};
use crate::clock::Clock;
use crate::config::Limits;
use crate::random;
use crate::watch::Watch;

/// How long before a caller's own deadline a wait ends, so that its answer still arrives.
const DEADLINE_MARGIN: Duration = Duration::from_millis(100);

/// Rows read at once for a filtered list.
const FILTERED_CHUNK: usize = 256;

/// What the operations work with.
pub struct Operations {
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
    /// What policies of single operations are read with.
    pub access: Arc<Access>,
    /// Where a list over all locations goes on.
    pub(crate) cells: Cells,
}

impl Operations {
    /// Starts an operation and returns it. Source: AIP-151, AIP-155, AIP-163.
    pub async fn start(&self, call: &Call, method: &StartMethod) -> Result<Bytes, Error> {
        let api = call.api.as_ref().ok_or_else(no_api)?;
        let message = Message::decode(&call.method.input, &call.message)?;
        let facts = start::start_facts(api, &call.method, &message)?;
        if facts.validate_only {
            return validated(method, &message, &facts);
        }
        let parent_operation =
            call.caller.parent_operation.as_deref().map(parent_name).transpose()?;
        let now = self.clock.now();
        let (uid, for_id) = draw(now)?;
        let id = start::operation_id(api.settings().operations.id, uid, now, for_id);
        let name = facts.operation_name(&id)?;
        let start = Start {
            name: name.clone(),
            uid,
            api: api.name().clone(),
            method: call.method.full_name.clone(),
            queue: method.queue.clone(),
            parent: facts.parent.into(),
            target: facts.target.into(),
            actor: call.caller.identity.actor(),
            request: facts.request,
            metadata: facts.metadata,
            traceparent: call.caller.traceparent.clone(),
            parent_operation: parent_operation.clone(),
            deadline: method.deadline.map(|span| now + span),
            start_by: method.start_by.map(|span| now + span),
            request_id: facts.request_id.map(|value| RequestId {
                value: value.into(),
                until: now + method.request_id_window,
            }),
            policy: method.policy.clone(),
        };
        let key = Key::of_start(&start);
        let bytes_max = self.limits.claim_bytes_max;
        let decide = Arc::new(move |existing: Option<&Operation>| {
            let applied = longhaul_core::start(existing, start.clone(), now)?;
            let new = existing.is_none_or(|it| it.revision != applied.operation.revision);
            let too_large = new && applied.operation.bytes_told() > bytes_max;
            if too_large { Err(Refusal::TooLarge) } else { Ok(applied) }
        });
        let applied = self
            .store
            .update(key, Priority::Normal, decide)
            .await
            .map_err(|failure| start_failure(failure, &name, parent_operation.as_ref()))?;
        call.caller.made.note(&applied);
        self.render(&applied.operation, call)
    }

    /// The operation as it stands.
    pub async fn get(&self, call: Call) -> Result<Bytes, Error> {
        let request =
            longrunning::GetOperationRequest::decode(&*call.message).map_err(undecodable)?;
        let name = self.name(&request.name, &call)?;
        let operation = self.find(&name, &call).await?;
        self.render(&operation, &call)
    }

    /// A page of operations of one API under one parent, newest first; over all locations those of other
    /// cells come after this server's own. Source: AIP-158, AIP-160, AIP-217.
    pub async fn list(&self, call: Call) -> Result<Bytes, Error> {
        let request =
            longrunning::ListOperationsRequest::decode(&*call.message).map_err(undecodable)?;
        let api = match &call.api {
            Some(api) => api.clone(),
            None => self.apis.only_for_list(&request.name)?.clone(),
        };
        let parent = list_parent(&api, &request.name)?;
        let everywhere = self.everywhere(&parent);
        if request.return_partial_success {
            self.allow_partial(everywhere.is_some())?;
        }
        let page_size = list::page_size(request.page_size, &api.settings().operations)? as usize;
        let filter = Filter::parse(&request.filter, &api)?;
        let now = self.clock.now();
        let seal = list::TokenKey::new(&self.store.token_key());
        let arguments =
            ListArguments { api: api.name(), parent: &request.name, filter: &request.filter };
        let place = match request.page_token.as_str() {
            "" => Place::Own(None),
            token => Place::read(&seal.open(token, &arguments, now)?, everywhere.is_some())?,
        };
        let mut page = longrunning::ListOperationsResponse::default();
        let mut next = match place {
            Place::Own(after) => {
                let own = Own { api: &api, parent: &parent, filter: &filter, page_size, now };
                let next = self.own(own, after, call.caller.edge, &mut page.operations).await?;
                match next {
                    Some(cursor) => Some(Place::Own(Some(cursor))),
                    None => everywhere.and_then(|_| self.cells.first()).map(Place::Cell),
                }
            }
            Place::Cell(at) => Some(Place::Cell(at)),
        };
        if let (Some(parent), Some(Place::Cell(at))) = (everywhere, next.take_if(Place::is_cell)) {
            let ask = cells::Ask {
                api: &api,
                parent,
                filter: &request.filter,
                page_size,
                partial: request.return_partial_success,
                edge: call.caller.edge,
                authorization: call.caller.authorization.as_deref(),
            };
            next = self.cells.fill(&ask, at, &mut page).await?.map(Place::Cell);
        }
        if let Some(place) = next {
            let bytes = place.bytes(everywhere.is_some());
            page.next_page_token = seal.seal(&bytes, &arguments, now)?;
        }
        Ok(page.encode_to_vec().into())
    }

    /// The parent whose operations are also in other cells: one over all locations.
    fn everywhere<'p>(&self, parent: &'p ParentFilter) -> Option<&'p str> {
        match parent {
            ParentFilter::Matching(parent) if !self.cells.is_empty() => {
                Some(&**parent).filter(|parent| parent.ends_with("/-"))
            }
            ParentFilter::Matching(_) | ParentFilter::Any => None,
        }
    }

    /// Fails unless a list may leave out what cannot be reached. Source: AIP-217.
    fn allow_partial(&self, everywhere: bool) -> Result<(), Error> {
        if self.cells.is_empty() {
            return Err(Error::new(
                Reason::PartialSuccessUnsupported,
                "return_partial_success is not supported by this API; leave it unset",
            ));
        }
        if !everywhere {
            let what = "is only for lists over all locations, such as \"projects/p/locations/-\"";
            return Err(Error::new(Reason::InvalidValue, format!("return_partial_success {what}"))
                .at_field("return_partial_success", what));
        }
        Ok(())
    }

    /// Adds to a page what this server's store has, newest first, and returns where to go on.
    async fn own(
        &self,
        own: Own<'_>,
        mut after: Option<Cursor>,
        edge: convert::Edge,
        operations: &mut Vec<longrunning::Operation>,
    ) -> Result<Option<Cursor>, Error> {
        let Own { api, filter, page_size, now, .. } = own;
        // Newest first: begin at the youngest that can match, and end at the oldest.
        let created = filter.created();
        if let Some(create_time) = created.last {
            let begin = Cursor { create_time, uid: u128::MAX };
            after = Some(after.map_or(begin, |after| after.min(begin)));
        }
        // A filter may drop most of what is read, so read more at once.
        let chunk = if filter.is_empty() { 0 } else { FILTERED_CHUNK };
        let mut scanned = 0;
        loop {
            let query = ListQuery {
                api: api.name().clone(),
                parent: own.parent.clone(),
                after,
                done: filter.done_hint(),
                limit: (page_size + 1 - operations.len())
                    .max(chunk)
                    .min(self.limits.list_scan_max.saturating_sub(scanned).max(1)),
            };
            let asked = query.limit;
            let rows = self.store.list(query).await?;
            let last_page = rows.len() < asked;
            for (place, operation) in rows {
                if operations.len() == page_size {
                    return Ok(after);
                }
                if created.first.is_some_and(|first| place.create_time < first) {
                    return Ok(None);
                }
                scanned += 1;
                after = Some(place);
                if operation.visible(now) && filter.matches(&operation, api) {
                    operations.push(convert::to_wire(&operation, api, edge));
                }
            }
            if last_page {
                return Ok(None);
            }
            if scanned >= self.limits.list_scan_max {
                return Ok(after);
            }
        }
    }

    /// The operation once it is done, or as it stands when the wait is over. Never `DEADLINE_EXCEEDED`.
    /// Source: google/longrunning/operations.proto, `WaitOperation`.
    pub async fn wait(&self, call: Call) -> Result<Bytes, Error> {
        let request =
            longrunning::WaitOperationRequest::decode(&*call.message).map_err(undecodable)?;
        let name = self.name(&request.name, &call)?;
        let until = self.wait_until(request.timeout.as_ref(), call.caller.deadline)?;
        let changes = self.watch.operations(vec![name.clone()]);
        // Without a place among the held calls the wait is as short as the contract allows.
        let place = self.watch.hold(self.limits.held_calls_max);
        loop {
            let operation = self.find(&name, &call).await?;
            let left = until.since(self.clock.now());
            let over = operation.outcome().is_some() || place.is_none() || left.is_zero();
            if over || self.draining.is_cancelled() {
                return self.render(&operation, &call);
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = self.clock.sleep(left) => {}
                () = self.draining.cancelled() => {}
            }
        }
    }

    /// Asks for cancellation; does not wait for it. Safe to repeat.
    /// Source: google/longrunning/operations.proto, `CancelOperation`.
    pub async fn cancel(&self, call: Call) -> Result<Bytes, Error> {
        let request =
            longrunning::CancelOperationRequest::decode(&*call.message).map_err(undecodable)?;
        let name = self.name(&request.name, &call)?;
        let actor = call.caller.identity.actor();
        let command = Command::Cancel { cause: Cause::Client, actor, reason: "".into() };
        self.change(name, &call, Priority::Urgent, command).await
    }

    /// Forgets the operation as far as clients can see; the work goes on.
    /// Source: google/longrunning/operations.proto, `DeleteOperation`.
    pub async fn delete(&self, call: Call) -> Result<Bytes, Error> {
        let request =
            longrunning::DeleteOperationRequest::decode(&*call.message).map_err(undecodable)?;
        let name = self.name(&request.name, &call)?;
        let actor = call.caller.identity.actor();
        self.change(name, &call, Priority::Normal, Command::Delete { actor }).await
    }

    async fn change(
        &self,
        name: OperationName,
        call: &Call,
        priority: Priority,
        command: Command,
    ) -> Result<Bytes, Error> {
        let now = self.clock.now();
        let api = call.api.clone();
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let operation = operation
                .filter(|operation| api.as_ref().is_none_or(|api| *api.name() == operation.api))
                .ok_or(Refusal::NotFound)?;
            apply(operation, command.clone(), now)
        });
        let applied = self
            .store
            .update(Key::Name(name.clone()), priority, decide)
            .await
            .map_err(|failure| failure.into_error(&name))?;
        call.caller.made.note(&applied);
        Ok(Bytes::new())
    }

    /// Checks that a name can be one of the API meant, or of any when none is.
    fn name(&self, text: &str, call: &Call) -> Result<OperationName, Error> {
        let name = OperationName::parse(text)?;
        let known = |api: &Arc<Api>| api.parent_of_name(text).is_some();
        let fits = match &call.api {
            Some(api) => known(api),
            None => self.apis.all().iter().any(known),
        };
        if !fits {
            let shown: String = text.chars().take(256).collect();
            return Err(Error::new(
                Reason::InvalidName,
                format!("{shown:?} is not the name of an operation of this API; give the full name, as a start or a list returned it"),
            )
            .with("name", shown)
            .at_field("name", "not the name of an operation"));
        }
        Ok(name)
    }

    async fn find(&self, name: &OperationName, call: &Call) -> Result<Arc<Operation>, Error> {
        let now = self.clock.now();
        self.store
            .get(name)
            .await?
            .filter(|operation| operation.visible(now))
            .filter(|operation| call.api.as_ref().is_none_or(|api| *api.name() == operation.api))
            .ok_or_else(|| not_found(name))
    }

    fn render(&self, operation: &Operation, call: &Call) -> Result<Bytes, Error> {
        let api = self.apis.get(&operation.api).ok_or_else(|| {
            Error::new(
                Reason::MethodNotFound,
                format!("API {} of operation \"{}\" is not served any more; configure it again to read its operations", operation.api, operation.name),
            )
        })?;
        Ok(convert::to_wire(operation, api, call.caller.edge).encode_to_vec().into())
    }

    /// The shortest of the asked timeout, the caller's deadline less a margin, and the server's cap.
    fn wait_until(
        &self,
        timeout: Option<&prost_types::Duration>,
        deadline: Option<Timestamp>,
    ) -> Result<Timestamp, Error> {
        let now = self.clock.now();
        let asked = match timeout {
            Some(timeout) => span(timeout).ok_or_else(|| {
                let what = "is not a span of zero or more seconds";
                Error::new(Reason::InvalidValue, format!("timeout {what}"))
                    .at_field("timeout", what)
            })?,
            None => self.limits.wait_max,
        };
        let until = now + asked.min(self.limits.wait_max);
        Ok(deadline.map_or(until, |deadline| until.min(deadline - DEADLINE_MARGIN)))
    }
}

/// Reads the name of the parent that a start names.
fn parent_name(text: &str) -> Result<OperationName, Error> {
    OperationName::parse(text).map_err(|error| {
        error.at_field(PARENT_OPERATION, "not the name of an operation; give its full name")
    })
}

/// Why a start failed: about its parent, or about itself, which has a name that nobody was told.
fn start_failure(failure: Failure, name: &OperationName, parent: Option<&OperationName>) -> Error {
    let unborn = matches!(&failure, Failure::Refused(Refusal::TargetBusy | Refusal::TooLarge));
    let about_parent = matches!(
        &failure,
        Failure::Refused(Refusal::ParentNotFound | Refusal::ParentCancelled | Refusal::ParentDone)
    );
    let mut error = failure.into_error(parent.filter(|_| about_parent).unwrap_or(name));
    if unborn {
        error.metadata.remove("operation");
    }
    error
}

/// A span on the wire as a span; `None` when it is negative or malformed.
pub(crate) fn span(wire: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(wire.seconds).ok()?;
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// The answer to a start that only wanted to know whether it would be accepted: done, with the response
/// it would have, and no name since nothing is kept. Source: AIP-163.
fn validated(
    method: &StartMethod,
    request: &Message,
    facts: &start::StartFacts,
) -> Result<Bytes, Error> {
    let response = respond::response_from_request(method, request, &facts.target)?;
    let any = |type_name: &str, value: Vec<u8>| longrunning::Any {
        type_url: longrunning::type_url(type_name),
        value,
    };
    let operation = longrunning::Operation {
        name: String::new(),
        metadata: Some(any(&facts.metadata.type_name, facts.metadata.value.to_vec())),
        done: true,
        result: Some(longrunning::OperationResult::Response(any(
            response.full_name(),
            response.encode(),
        ))),
    };
    Ok(operation.encode_to_vec().into())
}

pub(crate) fn list_parent(api: &Api, name: &str) -> Result<ParentFilter, Error> {
    match api.parent_of_list(name) {
        Some("") => Ok(ParentFilter::Any),
        Some(parent) => Ok(ParentFilter::Matching(parent.into())),
        None => {
            let shown: String = name.chars().take(256).collect();
            Err(Error::new(
                Reason::InvalidName,
                format!("{shown:?} is not a parent of operations of {}; give one such as \"projects/p/locations/l\"", api.name()),
            )
            .with("name", shown)
            .at_field("name", "not a parent of operations"))
        }
    }
}

/// What a list asks of this server's own store.
#[derive(Clone, Copy)]
struct Own<'a> {
    api: &'a Api,
    parent: &'a ParentFilter,
    filter: &'a Filter,
    page_size: usize,
    now: Timestamp,
}

/// Where a page begins.
enum Place {
    /// Behind an operation of this server; `None`: at the newest.
    Own(Option<Cursor>),
    /// In another cell.
    Cell(cells::At),
}

impl Place {
    const fn is_cell(&mut self) -> bool {
        matches!(self, Self::Cell(_))
    }

    /// As the bytes that a page token seals; their first says which it is, where there are both.
    fn bytes(&self, everywhere: bool) -> Vec<u8> {
        let bytes = match self {
            Self::Own(cursor) => cursor.map_or_else(Vec::new, |cursor| bytes_of(cursor).to_vec()),
            Self::Cell(at) => at.bytes(),
        };
        match everywhere {
            true => [&[u8::from(matches!(self, Self::Cell(_)))], &*bytes].concat(),
            false => bytes,
        }
    }

    fn read(bytes: &[u8], everywhere: bool) -> Result<Self, Error> {
        match (everywhere, bytes) {
            (true, [1, at @ ..]) => cells::At::read(at).map(Self::Cell).ok_or_else(other_token),
            (true, [_, own @ ..]) | (false, own) => cursor(own).map(|own| Self::Own(Some(own))),
            (true, []) => Err(other_token()),
        }
    }
}

fn other_token() -> Error {
    Error::new(
        Reason::InvalidPageToken,
        "the page token is not of this version; start again without it",
    )
}

/// A cursor as the bytes that a page token seals: moment and uid, both big-endian.
fn bytes_of(cursor: Cursor) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&cursor.create_time.as_micros().to_be_bytes());
    bytes[8..].copy_from_slice(&cursor.uid.to_be_bytes());
    bytes
}

fn cursor(bytes: &[u8]) -> Result<Cursor, Error> {
    let (micros, uid) = bytes.split_at_checked(8).ok_or_else(other_token)?;
    let micros = i64::from_be_bytes(micros.try_into().map_err(|_| other_token())?);
    let uid = u128::from_be_bytes(uid.try_into().map_err(|_| other_token())?);
    Ok(Cursor { create_time: Timestamp::from_micros(micros), uid })
}

/// A new identity: UUIDv7 of this moment, and bytes for the operation's id.
pub(crate) fn draw(now: Timestamp) -> Result<(u128, [u8; 8]), Error> {
    let millis = u64::try_from(now.as_micros() / 1000).unwrap_or(0);
    let uid = uuid::Builder::from_unix_timestamp_millis(millis, &random::bytes()?).into_uuid();
    Ok((Uuid::as_u128(&uid), random::bytes()?))
}

fn no_api() -> Error {
    Error::new(
        Reason::ApiAmbiguous,
        "several APIs fit; say which one by Host header (or :authority), by URL prefix such as /clouddeploy, or by a port given to one API",
    )
}

fn undecodable(error: prost::DecodeError) -> Error {
    Error::new(
        Reason::InvalidValue,
        format!("the request is not the message it should be: {error}"),
    )
}
