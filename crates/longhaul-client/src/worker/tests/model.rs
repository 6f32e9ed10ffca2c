//! A small model of the server, in memory: operations, leases and what a worker may say of them.

use std::collections::HashMap;

use async_trait::async_trait;
use longhaul_wire::v1::desired_state::{Action as Wish, Reason};
use longhaul_wire::v1::report_item::Action;
use longhaul_wire::v1::{
    ClaimRequest, ClaimResponse, DesiredState, ReportError as ItemError, ReportItem, ReportRequest,
    ReportResponse, ReportResult,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use super::super::*;

pub(super) const LEASE: Duration = Duration::from_secs(30);

/// One operation of the model.
#[derive(Default)]
pub(super) struct Row {
    pub(super) epoch: u64,
    pub(super) lease_until: Option<Instant>,
    pub(super) cancelled: Option<Reason>,
    pub(super) end: Option<Action>,
    pub(super) releases: usize,
    pub(super) acknowledged: bool,
    pub(super) progress: Vec<u32>,
    pub(super) checkpoint: Vec<u8>,
    pub(super) gate_passed: bool,
    pub(super) request: Option<Any>,
    pub(super) cleanup: bool,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) rows: HashMap<String, Row>,
    pub(super) claims: HashMap<String, Vec<Assignment>>,
    /// What to do to calls, before they reach the model or after.
    pub(super) cut: bool,
    pub(super) lose_claim_answers: usize,
    pub(super) refuse_responses: bool,
    pub(super) hanging: usize,
    pub(super) hanging_max: usize,
}

/// A server that lives in memory. Clones are the same server.
#[derive(Clone, Default)]
pub(super) struct Server {
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) changed: Arc<Notify>,
}

impl Server {
    pub(super) fn with(names: &[&str]) -> Self {
        let server = Self::default();
        for name in names {
            server.model.lock().rows.insert((*name).to_owned(), Row::default());
        }
        server
    }

    pub(super) fn row<T>(&self, name: &str, read: impl FnOnce(&mut Row) -> T) -> T {
        let answer = read(self.model.lock().rows.get_mut(name).expect("the test made the row"));
        self.changed.notify_waiters();
        answer
    }

    pub(super) fn cancel(&self, name: &str) {
        self.row(name, |row| row.cancelled = Some(Reason::ClientCancel));
    }

    /// Waits, on simulated time, until the model looks as wanted.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&Model) -> bool) {
        let reached = async {
            while !wanted(&self.model.lock()) {
                // tidy: sleep: a step of simulated time between two looks
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let limit = Duration::from_secs(3600);
        assert!(tokio::time::timeout(limit, reached).await.is_ok(), "never: {what}");
    }

    pub(super) async fn ended(&self, name: &str) -> Action {
        self.until("ended", |model| model.rows[name].end.is_some()).await;
        self.row(name, |row| row.end.clone().expect("waited for"))
    }
}

impl Model {
    pub(super) fn claim(&mut self, request: &ClaimRequest) -> Vec<Assignment> {
        if let Some(known) = self.claims.get(&request.claim_id) {
            return known.clone();
        }
        let now = Instant::now();
        let mut granted = Vec::new();
        let free = |row: &Row| row.end.is_none() && row.lease_until.is_none_or(|end| end <= now);
        for (name, row) in self.rows.iter_mut().filter(|(_, row)| free(row)) {
            if granted.len() >= request.max as usize {
                break;
            }
            row.epoch += 1;
            row.lease_until = Some(now + LEASE);
            let (operation, epoch) = (name.clone(), row.epoch);
            let (method, request) = (request.methods.first().cloned(), row.request.clone());
            let (method, response_type) = (method.unwrap_or_default(), "test.Answer".to_owned());
            let assignment = Assignment { operation, epoch, method, ..Assignment::default() };
            granted.push(Assignment { request, response_type, cleanup: row.cleanup, ..assignment });
        }
        if !granted.is_empty() {
            self.claims.insert(request.claim_id.clone(), granted.clone());
        }
        granted
    }

    pub(super) fn report(&mut self, item: &ReportItem) -> ReportResult {
        let refuse = self.refuse_responses;
        let mut result = ReportResult { operation: item.operation.clone(), ..Default::default() };
        let refused = |code, reason: &str| {
            Some(ItemError { code, reason: reason.to_owned(), message: "the model says no".into() })
        };
        let row = self.rows.get_mut(&item.operation).expect("reports are of known operations");
        let now = Instant::now();
        let held = row.epoch == item.epoch && row.lease_until.is_some_and(|end| end > now);
        if !held || row.end.is_some() {
            result.error = refused(10, "LEASE_LOST");
            return result;
        }
        match &item.action {
            Some(Action::Response(_)) if refuse => {
                result.error = refused(3, "TYPE_MISMATCH");
                return result;
            }
            Some(Action::Stopped(_)) if row.cancelled.is_none() && !row.cleanup => {
                result.error = refused(9, "CANCEL_NOT_REQUESTED");
                return result;
            }
            Some(Action::Gate(_)) if row.cancelled.is_some() => {
                result.error = refused(10, "GATE_CLOSED");
            }
            Some(Action::Gate(_)) => {
                row.gate_passed = true;
                result.gate_passed = true;
            }
            Some(Action::Release(_)) => {
                row.releases += 1;
                row.lease_until = None;
                return result;
            }
            Some(end) => row.end = Some(end.clone()),
            None => {}
        }
        row.lease_until = Some(now + LEASE);
        row.acknowledged |= item.acknowledge_cancel;
        row.progress.extend(item.progress.as_ref().map(|progress| progress.step));
        if let Some(checkpoint) = &item.checkpoint {
            row.checkpoint.clone_from(checkpoint);
        }
        let (action, reason) = match (&row.end, row.cancelled) {
            (Some(_), _) => (Wish::Stop, Reason::Done),
            (None, Some(reason)) => (Wish::Cancel, reason),
            (None, None) => (Wish::Continue, Reason::Unspecified),
        };
        result.desired = Some(DesiredState {
            action: action.into(),
            reason: reason.into(),
            ..DesiredState::default()
        });
        result
    }
}

#[async_trait]
impl Link for Server {
    async fn claim(&self, request: ClaimRequest, _: Duration) -> Result<ClaimResponse, Status> {
        let end = Instant::now()
            + request.wait.map_or(Duration::ZERO, |wait| wait.try_into().expect("positive"));
        loop {
            let changed = self.changed.notified();
            {
                let mut model = self.model.lock();
                if model.cut {
                    return Err(Status::unavailable("cut"));
                }
                let assignments = model.claim(&request);
                if !assignments.is_empty() || Instant::now() >= end {
                    if model.lose_claim_answers > 0 && !assignments.is_empty() {
                        model.lose_claim_answers -= 1;
                        return Err(Status::unavailable("the answer is lost"));
                    }
                    return Ok(ClaimResponse { assignments });
                }
            }
            let _ = tokio::time::timeout_at(end, changed).await;
        }
    }

    async fn report(&self, request: ReportRequest, _: Duration) -> Result<ReportResponse, Status> {
        let wait = request.wait.map_or(Duration::ZERO, |wait| wait.try_into().expect("positive"));
        let end = Instant::now() + wait;
        let _hanging = (wait > Duration::ZERO).then(|| Hanging::new(self.clone()));
        loop {
            let changed = self.changed.notified();
            {
                let mut model = self.model.lock();
                if model.cut {
                    return Err(Status::unavailable("cut"));
                }
                let results: Vec<_> = request.items.iter().map(|item| model.report(item)).collect();
                let calm = results.iter().all(|result| {
                    result.desired.as_ref().is_some_and(|d| d.action() == Wish::Continue)
                });
                if !calm || Instant::now() >= end {
                    drop(model);
                    if wait.is_zero() {
                        self.changed.notify_waiters();
                    }
                    return Ok(ReportResponse { results });
                }
            }
            let _ = tokio::time::timeout_at(end, changed).await;
        }
    }
}

/// Counts calls that hang, also when they are dropped.
struct Hanging(Server);

impl Hanging {
    fn new(server: Server) -> Self {
        let mut model = server.model.lock();
        model.hanging += 1;
        model.hanging_max = model.hanging_max.max(model.hanging);
        drop(model);
        Self(server)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.model.lock().hanging -= 1;
    }
}
