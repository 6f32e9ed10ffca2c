//! Reports over a session: each goes out with a number, and its answer comes back under it.
//!
//! Only the matching; when a session is opened and what is reported belong elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use longhaul_wire::v1::session_request::Request;
use longhaul_wire::v1::{ReportItem, ReportResult, SessionReport, SessionRequest, SessionResults};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// The way out of one session. Clones are the same way.
#[derive(Clone)]
pub(super) struct Lane {
    requests: mpsc::Sender<SessionRequest>,
    asked: Arc<Mutex<Asked>>,
}

#[derive(Default)]
struct Asked {
    last_id: u64,
    over: bool,
    waiting: HashMap<u64, oneshot::Sender<Vec<ReportResult>>>,
}

impl Lane {
    pub(super) fn new(requests: mpsc::Sender<SessionRequest>) -> Self {
        Self { requests, asked: Arc::default() }
    }

    /// A number that no other report of this session has.
    pub(super) fn next_id(&self) -> u64 {
        let mut asked = self.asked.lock();
        asked.last_id += 1;
        asked.last_id
    }

    /// Sends without waiting. A queue that is full means a connection that is stuck, and the silence
    /// that follows is noticed.
    pub(super) fn say(&self, request: Request) {
        let _ = self.requests.try_send(SessionRequest { request: Some(request) });
    }

    /// One report and its answer. Fails as unavailable when the session ends first.
    pub(super) async fn report(&self, items: Vec<ReportItem>) -> Result<Vec<ReportResult>, Status> {
        let broken = || Status::unavailable("the session ended");
        let id = self.next_id();
        let (sender, answer) = oneshot::channel();
        {
            let mut asked = self.asked.lock();
            if asked.over {
                return Err(broken());
            }
            asked.waiting.insert(id, sender);
        }
        let report = Request::Report(SessionReport { id, items });
        let sent = self.requests.send(SessionRequest { request: Some(report) }).await;
        sent.map_err(|_| broken())?;
        answer.await.map_err(|_| broken())
    }

    /// Passes an answer to whoever waits for it.
    pub(super) fn answered(&self, results: SessionResults) {
        let waiting = self.asked.lock().waiting.remove(&results.id);
        if let Some(waiting) = waiting {
            // Whoever stopped waiting has sent the report again already.
            let _ = waiting.send(results.results);
        }
    }

    /// The session is over; nothing under way will be answered.
    pub(super) fn end(&self) {
        let mut asked = self.asked.lock();
        asked.over = true;
        asked.waiting.clear();
    }
}
