//! The workers' side: claim, which is `claims.rs`, and report.
//!
//! Level-triggered throughout: whatever woke a hanging call, its answer is read from the rows.

mod claims;
mod words;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longhaul_auth::Identity;
use longhaul_core::{
    Applied, Changes, Command, Desired, Effects, Epoch, Error, Finish, Operation, OperationName,
    Progress, Reason, Refusal, Timestamp, apply,
};
use longhaul_store::{Key, OWN_API, Priority, Store};
use longhaul_wire::apis::Apis;
use longhaul_wire::convert;
use longhaul_wire::v1;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

pub use self::claims::Turns;
pub(crate) use self::claims::{Claimant, filter};
pub(crate) use self::words::{cause_number, effects_number};
use self::words::{desired_state, effects, failed, news, not_yours};
use crate::access::Access;
use crate::call::{Call, not_found};
use crate::clock::Clock;
use crate::config;
use crate::operations::span;
use crate::sweeper::jitter;
use crate::watch::Watch;

/// Longest name a worker may give itself, in bytes; it is kept with every lease.
const WORKER_BYTES_MAX: usize = 256;

/// What the workers' side works with.
pub struct Workers {
    /// The loaded APIs.
    pub apis: Arc<Apis>,
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Who hears of changes.
    pub watch: Arc<Watch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Limits of held calls.
    pub limits: config::Limits,
    /// Leases and sizes.
    pub config: config::Workers,
    /// Fires when the server begins to stop.
    pub draining: CancellationToken,
    /// Whether a worker may.
    pub access: Arc<Access>,
    /// Claims with an id that are being made now.
    pub turns: Arc<Turns>,
}

impl Workers {
    /// Answers a call of `longhaul.v1.Workers`.
    pub async fn answer(self: &Arc<Self>, call: Call) -> Result<Bytes, Error> {
        match &*call.method.full_name {
            "longhaul.v1.Workers.Claim" => {
                let request = v1::ClaimRequest::decode(&*call.message).map_err(undecodable)?;
                Ok(self.claim(request, call.caller.identity).await?.encode_to_vec().into())
            }
            "longhaul.v1.Workers.Report" => {
                let request = v1::ReportRequest::decode(&*call.message).map_err(undecodable)?;
                Ok(self.report(request, &call.caller.identity).await?.encode_to_vec().into())
            }
            other => Err(Error::new(
                Reason::MethodNotFound,
                format!("this server does not have the method {other}"),
            )),
        }
    }

    async fn report(
        &self,
        request: v1::ReportRequest,
        identity: &Arc<Identity>,
    ) -> Result<v1::ReportResponse, Error> {
        worker_name(&request.worker)?;
        self.batch("items", i64::try_from(request.items.len()).unwrap_or(i64::MAX))?;
        let hang = self.hang("wait", request.wait.as_ref())?;
        let until = self.clock.now() + hang;
        let heard: Vec<_> = request.items.iter().map(|item| item.acknowledge_cancel).collect();
        let may_hang = !hang.is_zero() && request.items.iter().all(|item| item.action.is_none());
        let names: Vec<_> = request
            .items
            .iter()
            .filter_map(|item| OperationName::parse(&item.operation).ok())
            .collect();
        let changes = may_hang.then(|| self.watch.operations(names));
        let applying = request.items.into_iter().map(|item| self.apply_item(item, identity));
        let mut results = futures_util::future::join_all(applying).await;
        let Some(changes) = changes else { return Ok(v1::ReportResponse { results }) };
        let Some(_place) = self.watch.hold(self.limits.held_calls_max) else {
            return Ok(v1::ReportResponse { results });
        };
        while !news(&results, &heard) && !self.draining.is_cancelled() {
            let left = until.since(self.clock.now());
            if left.is_zero() {
                break;
            }
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                () = self.clock.sleep(left) => break,
                () = self.draining.cancelled() => break,
            };
            for result in &mut results {
                if changed.iter().any(|name| name.as_str() == result.operation) {
                    self.refresh(result).await?;
                }
            }
        }
        self.note_deliveries(&results);
        Ok(v1::ReportResponse { results })
    }

    /// Applies one item; its result carries either the refusal or what became of it, and in both cases
    /// what is wanted now.
    pub(crate) async fn apply_item(
        &self,
        item: v1::ReportItem,
        identity: &Arc<Identity>,
    ) -> v1::ReportResult {
        let (operation, epoch) = (item.operation.clone(), item.epoch);
        let asked_gate = matches!(item.action, Some(v1::report_item::Action::Gate(_)));
        let applied = self.try_item(item, identity).await;
        let mut result = v1::ReportResult { operation, epoch, ..v1::ReportResult::default() };
        match applied {
            Ok(applied) => {
                self.describe(&mut result, &applied.operation);
                result.gate_passed = asked_gate && applied.operation.gate_passed.is_some();
            }
            Err(error) => {
                crate::log_failure(&error);
                result.error = Some(v1::ReportError {
                    code: error.code().number(),
                    reason: error.reason.name().to_owned(),
                    message: error.message.clone(),
                });
                if error.reason == Reason::IamPermissionDenied {
                    // What it is to do about something that is not its own is the same for all of it.
                    result.desired = Some(not_yours());
                } else if let Err(error) = self.refresh(&mut result).await {
                    crate::log_failure(&error);
                }
            }
        }
        result
    }

    async fn try_item(
        &self,
        item: v1::ReportItem,
        identity: &Arc<Identity>,
    ) -> Result<Applied, Error> {
        let name = OperationName::parse(&item.operation)?;
        let current = self.store.get(&name).await?;
        self.access.may_report(identity, &item.operation, current.as_deref())?;
        // Longhaul's own operations have no workers outside.
        let current = current.filter(|current| &*current.api != OWN_API);
        let current = current.ok_or_else(|| not_found(&name))?;
        let command = self.command(item, &current)?;
        let now = self.clock.now();
        let bytes_max = self.limits.claim_bytes_max;
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let before = operation.ok_or(Refusal::NotFound)?;
            let applied = apply(before, command.clone(), now)?;
            let bytes = applied.operation.bytes_told();
            // What a later attempt could not be told must not be kept; what ends is told to nobody.
            let too_large = bytes > bytes_max && bytes > before.bytes_told();
            if too_large && applied.operation.outcome().is_none() {
                return Err(Refusal::TooLarge);
            }
            Ok(applied)
        });
        self.store
            .update(Key::Name(name.clone()), Priority::Normal, decide)
            .await
            .map_err(|failure| failure.into_error(&name))
    }

    /// The command that an item asks for, its messages checked against what the method declares.
    fn command(&self, item: v1::ReportItem, current: &Operation) -> Result<Command, Error> {
        let api = self.apis.get(&current.api).ok_or_else(|| not_found(&current.name))?;
        let method = api.method(&current.method).ok_or_else(|| not_found(&current.name))?;
        let epoch = item.epoch;
        let lease = self.lease(item.lease.as_ref())?;
        let metadata = match item.metadata {
            Some(any) => {
                let value = sized("metadata", any.value, self.config.progress_bytes_max)?;
                let current = &current.metadata;
                Some(convert::accept_metadata(api, method, current, &any.type_url, &value)?)
            }
            None => None,
        };
        let changes = Changes {
            metadata,
            progress: item.progress.map(|progress| self.progress(progress)).transpose()?,
            checkpoint: item
                .checkpoint
                .map(|bytes| sized("checkpoint", bytes, self.config.checkpoint_bytes_max))
                .transpose()?
                .map(Into::into),
            external_ref: item
                .external_ref
                .map(|text| sized("external_ref", text, 1024))
                .transpose()?
                .map(Into::into),
            acknowledged: item.acknowledge_cancel,
        };
        let jitter = jitter(current.uid, self.clock.now());
        Ok(match item.action {
            None => Command::Renew { epoch, lease, changes },
            Some(v1::report_item::Action::Gate(_)) => Command::PassGate { epoch, lease, changes },
            Some(v1::report_item::Action::Release(_)) => Command::Release { epoch, changes },
            Some(v1::report_item::Action::Response(any)) => {
                let response = convert::accept_response(method, &any.type_url, &any.value)?;
                Command::Finish { epoch, finish: Finish::Succeeded(response), changes, jitter }
            }
            Some(v1::report_item::Action::Failure(failure)) => {
                let finish = failed(failure)?;
                Command::Finish { epoch, finish, changes, jitter }
            }
            Some(v1::report_item::Action::Stopped(stopped)) => {
                let effects = effects(stopped.effects)?.unwrap_or(Effects::Unknown);
                let message = stopped.message;
                let finish = Finish::Cancelled { effects, message };
                Command::Finish { epoch, finish, changes, jitter }
            }
        })
    }

    fn progress(&self, progress: v1::Progress) -> Result<Progress, Error> {
        if progress.percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            return Err(invalid("progress.percent", "is not between 0 and 100".into()));
        }
        if progress.steps > 0 && progress.step > progress.steps {
            return Err(invalid("progress.step", "is above progress.steps".into()));
        }
        let message = sized("progress.message", progress.message, self.config.progress_bytes_max)?;
        Ok(Progress {
            percent: progress.percent,
            step: progress.step,
            steps: progress.steps,
            message: message.into(),
        })
    }

    /// What is wanted now of whoever claimed `name` as `epoch`.
    pub(crate) async fn desired(
        &self,
        name: &OperationName,
        epoch: Epoch,
    ) -> Result<v1::DesiredState, Error> {
        Ok(wanted(self.store.get(name).await?.as_deref(), epoch).0)
    }

    /// The same of a caller who may not hold `name` at all, of which `found` was read.
    pub(crate) fn wanted_of(
        &self,
        name: &OperationName,
        found: Option<&Operation>,
        epoch: Epoch,
        identity: &Arc<Identity>,
    ) -> Wanted {
        match self.access.may_report(identity, name.as_str(), found) {
            Ok(_) => wanted(found, epoch),
            Err(_) => (not_yours(), None),
        }
    }

    /// Reads what is wanted of the worker now into a result.
    pub(crate) async fn refresh(&self, result: &mut v1::ReportResult) -> Result<(), Error> {
        let Ok(name) = OperationName::parse(&result.operation) else { return Ok(()) };
        match self.store.get(&name).await? {
            Some(operation) => self.describe(result, &operation),
            None => {
                result.desired = Some(self.desired(&name, result.epoch).await?);
                result.lease_expire_time = None;
            }
        }
        Ok(())
    }

    fn describe(&self, result: &mut v1::ReportResult, operation: &Operation) {
        result.desired = Some(desired_state(&operation.desired(result.epoch)));
        let held = operation.lease().filter(|_| operation.epoch == result.epoch);
        result.lease_expire_time = held.map(|lease| convert::moment(lease.expires_at));
    }

    /// Records that cancels are on their way; after the answer, which must not wait for it.
    fn note_deliveries(&self, results: &[v1::ReportResult]) {
        for result in results.iter().filter(|result| result.error.is_none()) {
            if let Some(desired) = &result.desired {
                self.note_delivery(&result.operation, result.epoch, desired);
            }
        }
    }

    /// Records that the worker of `epoch` is being told, if what it is told is a cancel.
    pub(crate) fn note_delivery(&self, name: &str, epoch: Epoch, told: &v1::DesiredState) {
        let Ok(name) = OperationName::parse(name) else { return };
        if told.action != v1::desired_state::Action::Cancel as i32 {
            return;
        }
        let now = self.clock.now();
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let operation = operation.ok_or(Refusal::NotFound)?;
            let noted =
                operation.cancel.as_ref().is_none_or(|cancel| cancel.delivered_at.is_some());
            // Telling a worker something is no sign of life of it: its lease stays as it is.
            match operation.lease() {
                Some(held) if !noted => {
                    let lease = held.expires_at.since(now);
                    apply(
                        operation,
                        Command::Renew { epoch, lease, changes: Changes::default() },
                        now,
                    )
                }
                Some(_) | None => Err(Refusal::NotDue),
            }
        });
        let store = self.store.clone();
        tokio::spawn(async move {
            // A failure here loses a time stamp of the timeline, nothing else.
            let _ = store.update(Key::Name(name), Priority::Normal, decide).await;
        });
    }

    pub(crate) fn lease(&self, asked: Option<&prost_types::Duration>) -> Result<Duration, Error> {
        let Some(asked) = asked else { return Ok(self.config.lease) };
        let span = span(asked).ok_or_else(|| invalid("lease", "is not a span of time".into()))?;
        if span < Duration::from_secs(1) || span > self.config.lease_max {
            let max = self.config.lease_max.as_secs();
            return Err(invalid("lease", format!("is not between 1 s and {max} s")));
        }
        Ok(span)
    }

    fn hang(&self, field: &str, asked: Option<&prost_types::Duration>) -> Result<Duration, Error> {
        let Some(asked) = asked else { return Ok(Duration::ZERO) };
        let span = span(asked)
            .ok_or_else(|| invalid(field, "is not a span of zero or more seconds".into()))?;
        Ok(span.min(self.limits.hang_max))
    }

    pub(crate) fn batch(&self, field: &str, count: i64) -> Result<usize, Error> {
        let max = self.config.batch_max;
        match usize::try_from(count) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(invalid(field, format!("is {count}; between 0 and {max} are allowed"))),
        }
    }
}

/// What is wanted of a worker, and until when it holds its lease, if it does.
pub(crate) type Wanted = (v1::DesiredState, Option<Timestamp>);

/// What is wanted now of whoever claimed an operation as `epoch`; `None` when it is gone.
pub(crate) fn wanted(operation: Option<&Operation>, epoch: Epoch) -> Wanted {
    let Some(operation) = operation else {
        return (desired_state(&Desired::Stop(longhaul_core::StopReason::Deleted)), None);
    };
    let lease = operation.lease().filter(|_| operation.epoch == epoch);
    (desired_state(&operation.desired(epoch)), lease.map(|lease| lease.expires_at))
}

fn sized<T: AsRef<[u8]>>(field: &'static str, value: T, max: usize) -> Result<T, Error> {
    let bytes = value.as_ref().len();
    if bytes > max {
        return Err(invalid(field, format!("has {bytes} bytes; at most {max} are allowed")));
    }
    Ok(value)
}

pub(crate) fn worker_name(text: &str) -> Result<Arc<str>, Error> {
    match text.len() {
        0 => Err(invalid("worker", "is empty; name yourself, such as \"host-7/4711\"".into())),
        bytes if bytes > WORKER_BYTES_MAX => Err(invalid(
            "worker",
            format!("has {bytes} bytes; at most {WORKER_BYTES_MAX} are allowed"),
        )),
        _ => Ok(text.into()),
    }
}

fn invalid(field: &str, what: String) -> Error {
    Error::new(Reason::InvalidValue, format!("{field} {what}")).at_field(field, what)
}

fn undecodable(error: prost::DecodeError) -> Error {
    Error::new(
        Reason::InvalidValue,
        format!("the request is not the message it should be: {error}"),
    )
}
