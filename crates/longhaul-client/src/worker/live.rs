//! One operation being worked on: what is to be reported, what was heard, how long the lease holds.
//!
//! Only state and its transitions; no task, no call. Every method returns at once.

use std::sync::Arc;

use longhaul_wire::v1::desired_state::Action as Wish;
use longhaul_wire::v1::{DesiredState, ReportItem};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::context::{Cancellation, ReportError, Why};

/// One operation, claimed by this worker under one epoch.
pub(super) struct Live {
    pub(super) operation: String,
    pub(super) epoch: u64,
    /// Fires when the handler should stop.
    told: CancellationToken,
    /// Fires when no report can matter any more: finished, or no longer ours.
    over: CancellationToken,
    state: Mutex<State>,
}

struct State {
    /// By then, at the latest, the server may give the operation away.
    fence: Instant,
    wish: Option<Cancellation>,
    outbox: Outbox,
    /// In line for a report, or in one that is under way.
    in_line: bool,
    /// The handler has returned and its end is being reported.
    ending: bool,
}

/// What is to be said in the next report.
#[derive(Default)]
pub(super) struct Outbox {
    /// Name, epoch and lease are filled in on the way out.
    pub(super) item: ReportItem,
    /// Who wants to know that it was kept.
    waiters: Vec<oneshot::Sender<Result<Answer, Refused>>>,
    /// Whether there is anything to send, be it only a sign of life.
    something: bool,
}

/// What the server said to an item that it accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) gate_passed: bool,
}

/// What the server said to an item that it refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) code: i32,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Live {
    pub(super) fn new(operation: String, epoch: u64, fence: Instant) -> Arc<Self> {
        Arc::new(Self {
            operation,
            epoch,
            told: CancellationToken::new(),
            over: CancellationToken::new(),
            state: Mutex::new(State {
                fence,
                wish: None,
                outbox: Outbox::default(),
                in_line: false,
                ending: false,
            }),
        })
    }

    pub(super) fn told(&self) -> &CancellationToken {
        &self.told
    }

    pub(super) fn over(&self) -> &CancellationToken {
        &self.over
    }

    pub(super) fn cancellation(&self) -> Option<Cancellation> {
        self.state.lock().wish.clone()
    }

    pub(super) fn fence(&self) -> Instant {
        self.state.lock().fence
    }

    /// The server answered a report that left at a moment from which the lease runs to `fence`.
    pub(super) fn renewed(&self, fence: Instant) {
        let mut state = self.state.lock();
        state.fence = state.fence.max(fence);
    }

    /// Whether a hanging report could tell anything new: not once the operation is stopping or ending,
    /// since the answer would come at once, again and again.
    pub(super) fn worth_hearing(&self) -> bool {
        if self.over.is_cancelled() {
            return false;
        }
        let state = self.state.lock();
        !state.ending && state.wish.as_ref().is_none_or(|wish| wish.why.gravity() < 1)
    }

    /// Passes on that the work is not wanted; a lighter reason than one already known is dropped.
    pub(super) fn tell(&self, wish: Cancellation) {
        let grave = wish.why.gravity() >= Why::LeaseLost.gravity();
        {
            let mut state = self.state.lock();
            let known = state.wish.as_ref().map(|known| known.why.gravity());
            if known.is_none_or(|known| known < wish.why.gravity()) {
                state.wish = Some(wish);
            }
        }
        self.told.cancel();
        if grave {
            self.end();
        }
    }

    /// Nothing more is to be reported; whoever waits for a report is told that it will not come.
    pub(super) fn end(&self) {
        let outbox = {
            let mut state = self.state.lock();
            self.over.cancel();
            std::mem::take(&mut state.outbox)
        };
        drop(outbox);
    }

    /// Heeds what the server wants. True when there is now something to report.
    pub(super) fn heed(&self, desired: &DesiredState) -> bool {
        match desired.action() {
            Wish::Unspecified | Wish::Continue => false,
            Wish::Cancel => {
                let first = self.state.lock().wish.as_ref().is_none_or(|w| w.why.gravity() == 0);
                self.tell(Cancellation::read(desired, Why::Unknown));
                first && self.change(|outbox| outbox.item.acknowledge_cancel = true)
            }
            Wish::Stop => {
                self.tell(Cancellation::read(desired, Why::LeaseLost));
                false
            }
        }
    }

    /// Notes something to report. True when the operation must be put in line.
    pub(super) fn change(&self, change: impl FnOnce(&mut Outbox)) -> bool {
        let mut state = self.state.lock();
        if self.over.is_cancelled() {
            return false;
        }
        change(&mut state.outbox);
        state.outbox.something = true;
        !std::mem::replace(&mut state.in_line, true)
    }

    /// Notes something to report and waits until the server has answered.
    pub(super) async fn ask(
        self: &Arc<Self>,
        shared: &Shared,
        change: impl FnOnce(&mut Outbox),
    ) -> Result<Answer, ReportError> {
        let (waiter, answer) = oneshot::channel();
        let put_in_line = self.change(|outbox| {
            change(outbox);
            outbox.waiters.push(waiter);
        });
        if put_in_line {
            shared.report(self);
        }
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Refused { code, reason, message })) => {
                Err(ReportError::Refused { code, reason, message })
            }
            Err(_) => Err(ReportError::Lost),
        }
    }

    /// From now on only the end is reported.
    pub(super) fn ending(&self) {
        self.state.lock().ending = true;
    }

    /// Hands out what is to be sent; `None` when there is nothing any more.
    pub(super) fn take(&self) -> Option<Outbox> {
        let mut state = self.state.lock();
        if self.over.is_cancelled() || !state.outbox.something {
            state.in_line = false;
            return None;
        }
        Some(std::mem::take(&mut state.outbox))
    }

    /// A report is through. True when there is more, and the operation must be put in line again.
    pub(super) fn through(&self) -> bool {
        let mut state = self.state.lock();
        state.in_line = state.outbox.something && !self.over.is_cancelled();
        state.in_line
    }
}

impl Outbox {
    /// Answers everybody who waits.
    pub(super) fn answer(self, answer: &Result<Answer, Refused>) {
        for waiter in self.waiters {
            // A handler that stopped waiting does not mind.
            let _ = waiter.send(answer.clone());
        }
    }
}
