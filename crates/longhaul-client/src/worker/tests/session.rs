//! Sessions against the model: what goes over the stream, what its loss costs, and what ends it.

use async_trait::async_trait;
use longhaul_wire::v1::desired_state::Action as Wish;
use longhaul_wire::v1::session_request::Request;
use longhaul_wire::v1::{
    ClaimRequest, ClaimResponse, DesiredState, DesiredUpdate, ReportRequest, ReportResponse,
    SessionOpen, SessionRequest, SessionResponse, SessionResults,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::model::Row;
use super::*;

type Out = mpsc::Sender<Result<SessionResponse, Status>>;

/// What sessions do to the worker, and what they saw of it.
#[derive(Default)]
struct Line {
    opened: Vec<SessionOpen>,
    calls: usize,
    /// No session comes about; calls do.
    no_streams: bool,
    /// There never were sessions.
    unimplemented: bool,
    /// Sessions take everything in and say nothing any more.
    mute: bool,
    /// Leave these out of the greeting.
    unnamed: bool,
    /// The latest session.
    out: Option<Out>,
    /// Ends the latest session.
    hang_up: CancellationToken,
    /// When the last request said that no more slots are free, this goes out.
    last_moment: Option<Assignment>,
}

/// The model with sessions.
#[derive(Clone, Default)]
struct Streaming {
    server: Server,
    line: Arc<Mutex<Line>>,
}

impl Streaming {
    fn with(names: &[&str]) -> Self {
        Self { server: Server::with(names), line: Arc::default() }
    }

    fn hang_up(&self) {
        let mut line = self.line.lock();
        line.out = None;
        line.hang_up.cancel();
    }

    async fn push(&self, name: &str, epoch: u64, action: Wish) {
        let out = self.line.lock().out.clone().expect("a session is open");
        let desired = DesiredState { action: action.into(), ..DesiredState::default() };
        let update = DesiredUpdate { operation: name.into(), epoch, desired: Some(desired) };
        let response = SessionResponse { desired: vec![update], ..SessionResponse::default() };
        out.send(Ok(response)).await.expect("the worker listens");
    }

    async fn serve(self, mut requests: mpsc::Receiver<SessionRequest>, out: Out) {
        let hang_up = self.line.lock().hang_up.clone();
        let Some(Request::Open(open)) = requests.recv().await.and_then(|first| first.request)
        else {
            panic!("the first request opens");
        };
        self.line.lock().opened.push(open.clone());
        let mut slots = open.slots as usize;
        let mut told: HashMap<(String, u64), i32> =
            open.held.into_iter().map(|held| ((held.operation, held.epoch), -1)).collect();
        let mut complete = true;
        loop {
            let changed = self.server.changed.notified();
            let mut response = SessionResponse::default();
            if !self.line.lock().mute {
                response.complete = std::mem::take(&mut complete);
                self.look(&mut told, slots, &mut response);
            }
            if response != SessionResponse::default() && out.send(Ok(response)).await.is_err() {
                return;
            }
            let request = tokio::select! {
                () = hang_up.cancelled() => return,
                () = changed => continue,
                () = tokio::time::sleep(Duration::from_secs(1)) => continue,
                request = requests.recv() => request,
            };
            match request.map(|request| request.request.expect("requests name something")) {
                None => return,
                Some(Request::Open(_)) => panic!("a session is opened once"),
                Some(Request::Slots(new)) => {
                    slots = new.slots as usize;
                    let assignments: Vec<_> =
                        self.line.lock().last_moment.take().into_iter().collect();
                    let _ =
                        out.send(Ok(SessionResponse { assignments, ..Default::default() })).await;
                }
                Some(Request::Report(report)) => {
                    if self.line.lock().mute {
                        continue;
                    }
                    let results = {
                        let mut model = self.server.model.lock();
                        report.items.iter().map(|item| model.report(item)).collect()
                    };
                    self.server.changed.notify_waiters();
                    let results = Some(SessionResults { id: report.id, results });
                    let _ = out.send(Ok(SessionResponse { results, ..Default::default() })).await;
                }
            }
        }
    }

    /// What is new since the worker was last told.
    fn look(
        &self,
        told: &mut HashMap<(String, u64), i32>,
        slots: usize,
        response: &mut SessionResponse,
    ) {
        let mut model = self.server.model.lock();
        let silent = response.complete && self.line.lock().unnamed;
        told.retain(|(name, epoch), last| {
            let desired = model.rows[name].wanted(*epoch);
            if desired.action != *last && !silent {
                *last = desired.action;
                let (operation, epoch, desired) = (name.clone(), *epoch, Some(desired));
                response.desired.push(DesiredUpdate { operation, epoch, desired });
            }
            *last != i32::from(Wish::Stop)
        });
        if told.len() < slots {
            let claim_id = uuid::Uuid::now_v7().to_string();
            let max = i32::try_from(slots - told.len()).expect("few");
            let claim = ClaimRequest { max, claim_id, ..ClaimRequest::default() };
            response.assignments = model.claim(&claim);
            for one in &response.assignments {
                told.insert((one.operation.clone(), one.epoch), Wish::Continue.into());
            }
        }
    }
}

impl Row {
    fn wanted(&self, epoch: u64) -> DesiredState {
        let held = self.epoch == epoch && self.lease_until.is_some_and(|end| end > Instant::now());
        let (action, reason) = match (held && self.end.is_none(), self.cancelled) {
            (false, _) => (Wish::Stop, Reason::LeaseLost),
            (true, Some(reason)) => (Wish::Cancel, reason),
            (true, None) => (Wish::Continue, Reason::Unspecified),
        };
        DesiredState { action: action.into(), reason: reason.into(), ..DesiredState::default() }
    }
}

#[async_trait]
impl Link for Streaming {
    async fn claim(
        &self,
        request: ClaimRequest,
        timeout: Duration,
    ) -> Result<ClaimResponse, Status> {
        self.line.lock().calls += 1;
        self.server.claim(request, timeout).await
    }

    async fn report(
        &self,
        request: ReportRequest,
        timeout: Duration,
    ) -> Result<ReportResponse, Status> {
        self.line.lock().calls += 1;
        self.server.report(request, timeout).await
    }

    async fn session(&self, requests: mpsc::Receiver<SessionRequest>) -> Result<Answers, Status> {
        let (out, answers) = mpsc::channel(16);
        {
            let mut line = self.line.lock();
            if line.unimplemented {
                return Err(Status::unimplemented("never heard of it"));
            }
            if line.no_streams || self.server.model.lock().cut {
                return Err(Status::unavailable("cut"));
            }
            line.hang_up = CancellationToken::new();
            line.out = Some(out.clone());
        }
        tokio::spawn(self.clone().serve(requests, out));
        Ok(Box::pin(ReceiverStream::new(answers)))
    }
}

fn work_on<F, R>(streaming: &Streaming, handler: F) -> Running
where
    F: Fn(Assignment, Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Any, Unfinished>> + Send + 'static,
{
    let options = Options { lease: LEASE, slots: 1000, ..Options::default() };
    let worker = Worker::new(options, streaming.clone(), Do(handler)).expect("good options");
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(worker.run(shutdown.clone()));
    Running { shutdown, task }
}

/// Runs until told, and then tells when and why.
fn listener() -> (
    impl Fn(Assignment, Context) -> Doing + Send + Sync + 'static,
    mpsc::UnboundedReceiver<(Why, Instant)>,
) {
    let (told, heard) = mpsc::unbounded_channel();
    let handler = move |_: Assignment, context: Context| -> Doing {
        let told = told.clone();
        Box::pin(async move {
            context.cancelled().await;
            let why = context.cancellation().expect("heard").why;
            told.send((why, Instant::now())).expect("the test listens");
            Err(Unfinished::stopped(Effects::Undone))
        })
    };
    (handler, heard)
}

type Doing = std::pin::Pin<Box<dyn Future<Output = Result<Any, Unfinished>> + Send>>;

async fn claimed(streaming: &Streaming) {
    streaming.server.until("claimed", |model| model.rows.values().all(|row| row.epoch > 0)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn everything_goes_over_the_session_when_there_is_one() {
    let streaming = Streaming::with(&["a", "b"]);
    let worker = work_on(&streaming, |_, context| async move {
        context.step(1, 2);
        context.checkpoint(vec![7]).await.expect("kept");
        context.gate().await.expect("open");
        Ok(answer())
    });
    for name in ["a", "b"] {
        assert_eq!(streaming.server.ended(name).await, Action::Response(answer()));
        let kept = streaming.server.row(name, |row| (row.checkpoint.clone(), row.gate_passed));
        assert_eq!(kept, (vec![7], true));
    }
    worker.stop().await;
    let line = streaming.line.lock();
    assert_eq!((line.opened.len(), line.calls), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_operations_on_one_session_each_hear_their_cancel_at_once() {
    let names: Vec<String> = (0..1000).map(|n| format!("operations/{n}")).collect();
    let streaming = Streaming::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    claimed(&streaming).await;
    tokio::time::sleep(LEASE * 3).await;
    for name in &names {
        let asked = Instant::now();
        streaming.server.cancel(name);
        let (why, at) = heard.recv().await.expect("the handler is told");
        assert_eq!(why, Why::ClientCancel);
        assert!(at - asked <= Duration::from_millis(5), "{:?}", at - asked);
        streaming.server.ended(name).await;
    }
    assert!(streaming.server.model.lock().rows.values().all(|row| row.epoch == 1));
    worker.stop().await;
    let line = streaming.line.lock();
    assert_eq!((line.opened.len(), line.calls), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn peers_13_a_signal_for_another_epoch_is_dropped() {
    let streaming = Streaming::with(&["a"]);
    streaming.server.row("a", |row| row.epoch = 6);
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    claimed(&streaming).await;
    for epoch in [6, 8] {
        for action in [Wish::Cancel, Wish::Stop] {
            streaming.push("a", epoch, action).await;
        }
    }
    let deaf = tokio::time::timeout(LEASE, heard.recv()).await;
    assert!(deaf.is_err(), "{deaf:?}");
    streaming.push("a", 7, Wish::Cancel).await;
    assert_eq!(heard.recv().await.expect("the handler is told").0, Why::Unknown);
    streaming.server.cancel("a");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_during_a_cut_is_heard_with_the_next_session() {
    let streaming = Streaming::with(&["a", "b"]);
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    claimed(&streaming).await;
    streaming.server.model.lock().cut = true;
    streaming.hang_up();
    streaming.server.cancel("a");
    tokio::time::sleep(Duration::from_secs(7)).await;
    streaming.server.model.lock().cut = false;
    let back = Instant::now();
    let (why, at) = heard.recv().await.expect("the handler is told");
    assert_eq!(why, Why::ClientCancel);
    assert!(at - back <= Duration::from_secs(2), "{:?}", at - back);
    streaming.server.until("opened", |_| streaming.line.lock().opened.len() == 2).await;
    let reopened = streaming.line.lock().opened.last().cloned().expect("opened");
    assert!(reopened.held.iter().any(|held| held.operation == "b" && held.epoch == 1));
    assert!(streaming.server.model.lock().rows.values().all(|row| row.epoch == 1));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_any_stream_a_cancel_is_heard_with_the_next_renewal() {
    let streaming = Streaming::with(&["a"]);
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    claimed(&streaming).await;
    streaming.line.lock().no_streams = true;
    streaming.hang_up();
    let cut = Instant::now();
    streaming.server.cancel("a");
    let (_, at) = heard.recv().await.expect("the handler is told");
    assert!(at - cut <= LEASE / 5, "{:?}", at - cut);
    streaming.server.ended("a").await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_went_silent_is_replaced() {
    let streaming = Streaming::with(&["a"]);
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    claimed(&streaming).await;
    streaming.line.lock().mute = true;
    let muted = Instant::now();
    streaming.server.until("replaced", |_| streaming.line.lock().opened.len() == 2).await;
    assert!(muted.elapsed() <= LEASE / 5 + LEASE / 5, "{:?}", muted.elapsed());
    streaming.line.lock().mute = false;
    streaming.server.cancel("a");
    assert_eq!(heard.recv().await.expect("the handler is told").0, Why::ClientCancel);
    streaming.server.ended("a").await;
    assert_eq!(streaming.server.row("a", |row| row.epoch), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_cut_off_from_everything_stops_before_its_lease_ends() {
    let streaming = Streaming::with(&["a"]);
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    claimed(&streaming).await;
    streaming.server.model.lock().cut = true;
    streaming.hang_up();
    let until = streaming.server.row("a", |row| row.lease_until).expect("held");
    let (why, at) = heard.recv().await.expect("the handler is told");
    assert_eq!(why, Why::LeaseLost);
    assert!(at < until && until - at < LEASE / 2, "{:?} before", until - at);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_new_session_does_not_name_is_lost() {
    let streaming = Streaming::with(&["a"]);
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    claimed(&streaming).await;
    streaming.line.lock().unnamed = true;
    streaming.hang_up();
    assert_eq!(heard.recv().await.expect("the handler is told").0, Why::LeaseLost);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_without_sessions_is_served_by_claims_be_it_only_later() {
    let streaming = Streaming::with(&["a", "b"]);
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    claimed(&streaming).await;
    streaming.line.lock().unimplemented = true;
    streaming.hang_up();
    streaming.server.until("hanging", |model| model.hanging > 0).await;
    let asked = Instant::now();
    streaming.server.cancel("a");
    let (why, at) = heard.recv().await.expect("the handler is told");
    assert_eq!((why, at - asked <= Duration::from_millis(20)), (Why::ClientCancel, true));
    streaming.server.ended("a").await;
    let row = Row::default();
    streaming.server.model.lock().rows.insert("late".into(), row);
    streaming.server.changed.notify_waiters();
    streaming.server.until("claimed", |model| model.rows["late"].epoch == 1).await;
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_assigned_during_the_shutdown_is_given_back() {
    let streaming = Streaming::with(&["a", "late"]);
    streaming.server.row("late", |row| row.lease_until = Some(Instant::now() + LEASE * 100));
    let (handler, mut heard) = listener();
    let worker = work_on(&streaming, handler);
    streaming.server.until("claimed", |model| model.rows["a"].epoch == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let assignment = Assignment { operation: "late".into(), epoch: 0, ..Assignment::default() };
    streaming.line.lock().last_moment = Some(assignment);
    worker.stop().await;
    assert_eq!(heard.recv().await.expect("the handler is told").0, Why::WorkerShutdown);
    let releases = |name: &str| streaming.server.row(name, |row| row.releases);
    assert_eq!((releases("a"), releases("late")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_report_too_large_for_the_session_goes_beside_it() {
    let streaming = Streaming::with(&["a"]);
    let worker = work_on(&streaming, |_, _| async {
        Ok(Any { type_url: answer().type_url, value: vec![0; 3 << 20] })
    });
    streaming.server.ended("a").await;
    worker.stop().await;
    let line = streaming.line.lock();
    assert_eq!((line.opened.len(), line.calls), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_worker_may_do_without_sessions() {
    let streaming = Streaming::with(&["a"]);
    let options = Options { lease: LEASE, sessions: false, ..Options::default() };
    let handler = Do(|_, _| async { Ok(answer()) });
    let worker = Worker::new(options, streaming.clone(), handler).expect("good options");
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(worker.run(shutdown.clone()));
    streaming.server.ended("a").await;
    Running { shutdown, task }.stop().await;
    assert_eq!(streaming.line.lock().opened.len(), 0);
}
