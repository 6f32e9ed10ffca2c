//! Works over one stream for as long as the worker lives: work comes in, wishes come in, reports go out.
//!
//! Owns the stream's life: opening it with everything held, noticing that it died, opening it again.
//! What a wish or an answer means belongs to `live` and `send`; losing the stream loses nothing, since
//! renewals go on without it and the next stream begins with the whole desired set.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use longhaul_wire::v1::session_request::Request;
use longhaul_wire::v1::{
    Assignment, DesiredUpdate, Held, SessionOpen, SessionReport, SessionRequest, SessionResponse,
    SessionSlots,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::claim::release;
use super::context::{Cancellation, Why};
use super::lane::Lane;
use super::link::{Answers, Backoff, permanent, to_wire, within};
use super::live::Live;
use super::supervise::supervise;
use super::{AbortOnDrop, Shared};

/// Requests that may wait for a slow connection: reports are few and large, so few wait.
const REQUESTS_MAX: usize = 64;

/// The worker's sessions, one after another.
pub(super) struct Session {
    task: Option<JoinHandle<Ended>>,
    _abort: AbortOnDrop,
    renewals: Option<AbortOnDrop>,
    take_no_more: CancellationToken,
    close: CancellationToken,
    shared: Arc<Shared>,
}

/// Why there will be no further session.
pub(super) enum Ended {
    /// The server does not know sessions.
    NotOffered,
    /// The server refuses this worker for good.
    Refused(Status),
    /// The worker is through.
    Closed,
}

/// Starts the sessions, and renewals beside them.
pub(super) fn start(shared: &Arc<Shared>, slots: &Arc<Semaphore>) -> Session {
    let (take_no_more, close) = (CancellationToken::new(), CancellationToken::new());
    let work = Work {
        shared: shared.clone(),
        slots: slots.clone(),
        take_no_more: take_no_more.clone(),
        close: close.clone(),
        waiting: VecDeque::new(),
        releasing: JoinSet::new(),
    };
    let task = tokio::spawn(work.run());
    let renewals = tokio::spawn(renew(shared.clone())).abort_handle();
    Session {
        _abort: AbortOnDrop(task.abort_handle()),
        task: Some(task),
        renewals: Some(AbortOnDrop(renewals)),
        take_no_more,
        close,
        shared: shared.clone(),
    }
}

/// Signs of life of everything held, by whichever way there is at the moment. Their answers carry the
/// desired state, so a cancel is heard within this interval even if no stream can be had.
async fn renew(shared: Arc<Shared>) {
    let mut renewal = tokio::time::interval(shared.options.renew_every());
    loop {
        renewal.tick().await;
        renew_now(&shared);
    }
}

fn renew_now(shared: &Shared) {
    let held: Vec<_> = shared.book.lock().values().cloned().collect();
    for live in held {
        if live.change(|_| {}) {
            shared.report(&live);
        }
    }
}

impl Session {
    /// Resolves when there will be no further session. Called once.
    pub(super) async fn ended(&mut self) -> Ended {
        let Some(task) = &mut self.task else { return Ended::Closed };
        let ended = task.await.unwrap_or(Ended::Closed);
        self.task = None;
        self.renewals = None;
        ended
    }

    /// From now on what is assigned is given back.
    pub(super) fn take_no_more(&self) {
        self.take_no_more.cancel();
    }

    /// Ends the session in order, so that nothing which was assigned at the last moment waits for its
    /// lease to run out.
    pub(super) async fn close(mut self) {
        self.close.cancel();
        let limit = self.shared.options.call_timeout() * 2;
        if let Some(task) = self.task.take() {
            // Whoever does not answer is left behind; the task ends with this value.
            let _ = tokio::time::timeout(limit, task).await;
        }
    }
}

/// What outlives a single stream.
struct Work {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    take_no_more: CancellationToken,
    close: CancellationToken,
    /// Assigned while the slot that they are for was still being freed on this side.
    waiting: VecDeque<(Arc<Live>, Assignment)>,
    releasing: JoinSet<()>,
}

/// How one stream ended.
enum Broke {
    /// Before the server had said anything.
    Unheard(Status),
    /// After it had named everything held.
    Later,
}

impl Work {
    async fn run(mut self) -> Ended {
        let mut backoff = Backoff::new();
        let ended = loop {
            match self.connect().await {
                _ if self.close.is_cancelled() => break Ended::Closed,
                Broke::Unheard(status) if status.code() == Code::Unimplemented => {
                    break Ended::NotOffered;
                }
                Broke::Unheard(status) if permanent(&status) => break Ended::Refused(status),
                Broke::Unheard(status) => tracing::debug!(%status, "no session came about"),
                Broke::Later => backoff = Backoff::new(),
            }
            tokio::select! {
                () = self.close.cancelled() => break Ended::Closed,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        };
        while self.releasing.join_next().await.is_some() {}
        ended
    }

    /// Opens one stream and works over it until it ends.
    async fn connect(&mut self) -> Broke {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let opened_at = Instant::now();
        let held: HashSet<_> = self.shared.book.lock().keys().cloned().collect();
        let open = self.open(&held);
        requests.try_send(open).expect("a channel that was just made has room");
        let opening = self.shared.link.session(queue);
        let answers = tokio::select! {
            () = self.close.cancelled() => Err(Status::cancelled("the worker ends")),
            opened = within(self.shared.options.call_timeout(), opening) => opened,
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(status) => return Broke::Unheard(status),
        };
        let mut stream = Stream {
            work: self,
            lane: Some(Lane::new(requests)),
            answers,
            unnamed: held,
            greeted: false,
            stopped: false,
            alive_at: opened_at,
            heard_at: Instant::now(),
            pulse: None,
            pulse_at: Instant::now(),
        };
        let broke = stream.serve().await;
        let lane = stream.lane.take();
        *self.shared.lane.lock() = None;
        if let Some(lane) = lane {
            lane.end();
        }
        broke
    }

    fn open(&self, held: &HashSet<(String, u64)>) -> SessionRequest {
        let options = &self.shared.options;
        let slots = if self.take_no_more.is_cancelled() { 0 } else { options.slots };
        let held = held.iter().map(|(operation, epoch)| (operation.clone(), *epoch));
        let open = SessionOpen {
            worker: options.name.clone(),
            methods: options.methods.clone(),
            queues: options.queues.clone(),
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            lease: Some(to_wire(options.lease)),
            held: held.map(|(operation, epoch)| Held { operation, epoch }).collect(),
        };
        SessionRequest { request: Some(Request::Open(open)) }
    }

    /// Takes up what was assigned; what cannot be worked on is given back. The leases began after
    /// `alive_at`.
    fn take_up(&mut self, assignments: Vec<Assignment>, alive_at: Instant) {
        let fence = alive_at + self.shared.options.lease;
        let too_late = Instant::now() + self.shared.options.margin() >= fence;
        let mut unwanted = Vec::new();
        for assignment in assignments {
            let key = (assignment.operation.clone(), assignment.epoch);
            if self.shared.book.lock().contains_key(&key) {
                continue;
            }
            if too_late || self.take_no_more.is_cancelled() {
                unwanted.push(key);
                continue;
            }
            let live = Live::new(key.0.clone(), key.1, fence);
            self.shared.book.lock().insert(key, live.clone());
            if assignment.desired.as_ref().is_some_and(|desired| live.heed(desired)) {
                self.shared.report(&live);
            }
            self.waiting.push_back((live, assignment));
        }
        self.give_back(unwanted);
        while !self.waiting.is_empty()
            && let Ok(slot) = self.slots.clone().try_acquire_owned()
        {
            self.begin(slot);
        }
    }

    fn begin(&mut self, slot: OwnedSemaphorePermit) {
        if let Some((live, assignment)) = self.waiting.pop_front() {
            tokio::spawn(supervise(self.shared.clone(), live, assignment, slot));
        }
    }

    /// Gives back what waits for a slot.
    fn clear_waiting(&mut self) {
        let mut keys = Vec::new();
        for (live, assignment) in self.waiting.drain(..) {
            live.end();
            let key = (assignment.operation, assignment.epoch);
            self.shared.book.lock().remove(&key);
            keys.push(key);
        }
        self.give_back(keys);
    }

    fn give_back(&mut self, keys: Vec<(String, u64)>) {
        if !keys.is_empty() {
            let shared = self.shared.clone();
            self.releasing.spawn(async move { release(&shared, keys).await });
        }
    }
}

/// One stream.
struct Stream<'a> {
    work: &'a mut Work,
    /// Where requests go; `None` once no more are to come.
    lane: Option<Lane>,
    answers: Answers,
    /// Held when the stream was opened, and not named by the server yet.
    unnamed: HashSet<(String, u64)>,
    greeted: bool,
    /// The server has been told to give no more.
    stopped: bool,
    /// When the latest request left that the server has answered here: what it says after that was
    /// decided after that.
    alive_at: Instant,
    heard_at: Instant,
    /// The report under way that only shows that both sides live, and when it left.
    pulse: Option<(u64, Instant)>,
    pulse_at: Instant,
}

impl Stream<'_> {
    async fn serve(&mut self) -> Broke {
        loop {
            let due = self.due();
            let taking = !self.work.waiting.is_empty();
            let open = self.lane.is_some();
            tokio::select! {
                biased;
                answer = self.answers.next() => match answer {
                    Some(Ok(response)) => self.hear(response),
                    Some(Err(status)) => return self.broke(status),
                    None => return self.broke(Status::unavailable("the server ended the session")),
                },
                slot = self.work.slots.clone().acquire_owned(), if taking => {
                    if let Ok(slot) = slot { self.work.begin(slot); }
                }
                () = self.work.close.cancelled(), if open => self.say_no_more(),
                () = self.work.take_no_more.cancelled(), if open && !self.stopped => self.stop(),
                () = tokio::time::sleep_until(due) => {
                    if self.dead() {
                        return self.broke(Status::deadline_exceeded("the session went silent"));
                    }
                    self.beat();
                }
            }
        }
    }

    fn broke(&self, status: Status) -> Broke {
        if !self.greeted {
            return Broke::Unheard(status);
        }
        tracing::debug!(%status, "the session broke; opening another");
        Broke::Later
    }

    /// When something must be done although nothing was heard.
    fn due(&self) -> Instant {
        match &self.pulse {
            Some((_, sent_at)) => (*sent_at).max(self.heard_at) + self.silence_max(),
            None => self.pulse_at,
        }
    }

    fn silence_max(&self) -> Duration {
        self.work.shared.options.call_timeout()
    }

    fn dead(&self) -> bool {
        self.pulse.is_some()
    }

    /// Takes no more work; what is running goes on.
    fn stop(&mut self) {
        self.stopped = true;
        self.work.clear_waiting();
        if let Some(lane) = &self.lane {
            lane.say(Request::Slots(SessionSlots { slots: 0 }));
        }
    }

    /// Sends a sign of life.
    fn beat(&mut self) {
        let now = Instant::now();
        self.pulse_at = now + self.work.shared.options.renew_every();
        let Some(lane) = &self.lane else { return };
        let id = lane.next_id();
        lane.say(Request::Report(SessionReport { id, items: Vec::new() }));
        self.pulse = Some((id, now));
    }

    /// Ends this side; the server then gives back what it has not handed over, and ends its own.
    fn say_no_more(&mut self) {
        *self.work.shared.lane.lock() = None;
        if let Some(lane) = self.lane.take() {
            lane.end();
        }
        self.pulse = Some((0, Instant::now()));
    }

    fn hear(&mut self, response: SessionResponse) {
        self.heard_at = Instant::now();
        if let Some(results) = response.results {
            match self.pulse {
                Some((id, sent_at)) if id == results.id => {
                    self.pulse = None;
                    self.alive_at = self.alive_at.max(sent_at);
                }
                Some(_) | None => {
                    if let Some(lane) = &self.lane {
                        lane.answered(results);
                    }
                }
            }
        }
        for update in response.desired {
            self.heed(update);
        }
        if response.complete && !self.greeted {
            self.greet();
        }
        if !response.assignments.is_empty() {
            self.work.take_up(response.assignments, self.alive_at);
        }
    }

    /// A wish counts only for the claim that it names: one that was meant for an earlier claim of the
    /// same operation finds nobody.
    fn heed(&mut self, update: DesiredUpdate) {
        let key = (update.operation, update.epoch);
        self.unnamed.remove(&key);
        let shared = &self.work.shared;
        let Some(live) = shared.book.lock().get(&key).cloned() else { return };
        if update.desired.as_ref().is_some_and(|desired| live.heed(desired)) {
            shared.report(&live);
        }
    }

    /// The server has named everything that is still ours.
    fn greet(&mut self) {
        self.greeted = true;
        let shared = &self.work.shared;
        for key in self.unnamed.drain() {
            if let Some(live) = shared.book.lock().get(&key) {
                live.tell(Cancellation::new(Why::LeaseLost));
            }
        }
        shared.lane.lock().clone_from(&self.lane);
        renew_now(shared);
    }
}
