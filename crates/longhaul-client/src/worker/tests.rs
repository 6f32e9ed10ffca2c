//! The worker against a small model of the server, on simulated time.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use longhaul_wire::v1::desired_state::Reason;
use longhaul_wire::v1::report_item::Action;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::*;

mod model;
mod session;

use model::{LEASE, Server};

/// A handler made of a closure.
struct Do<F>(F);

#[async_trait]
impl<F, R> Handler for Do<F>
where
    F: Fn(Assignment, Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Any, Unfinished>> + Send,
{
    async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished> {
        (self.0)(assignment, context).await
    }
}

/// A worker that runs until the guard goes.
struct Running {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the worker does not panic").expect("the server never refuses");
    }
}

fn work<F, R>(server: &Server, handler: F) -> Running
where
    F: Fn(Assignment, Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Any, Unfinished>> + Send + 'static,
{
    let options = Options { lease: LEASE, slots: 10_000, ..Options::default() };
    let worker = Worker::new(options, server.clone(), Do(handler)).expect("good options");
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(worker.run(shutdown.clone()));
    Running { shutdown, task }
}

fn answer() -> Any {
    Any { type_url: "type.googleapis.com/test.Answer".into(), value: vec![1] }
}

async fn until_cancelled(context: &Context) -> Result<Any, Unfinished> {
    context.cancelled().await;
    Err(Unfinished::stopped(Effects::Undone))
}

fn is_failure(action: &Action, code: i32, retryable: bool) -> bool {
    matches!(action, Action::Failure(f) if f.code == code && f.retryable == retryable)
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_claimed_run_and_answered() {
    let server = Server::with(&["a", "b"]);
    let worker = work(&server, |_, _| async { Ok(answer()) });
    assert_eq!(server.ended("a").await, Action::Response(answer()));
    assert_eq!(server.ended("b").await, Action::Response(answer()));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_the_handler_through_the_hanging_report() {
    let server = Server::with(&["a"]);
    let worker = work(&server, |_, context| async move {
        context.cancelled().await;
        assert_eq!(context.cancellation().expect("heard").why, Why::ClientCancel);
        // The work of stopping: the server hears of the acknowledgement meanwhile.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Err(Unfinished::stopped(Effects::Undone))
    });
    server.until("listened for", |model| model.hanging == 1).await;
    let start = Instant::now();
    server.cancel("a");
    server.until("acknowledged", |model| model.rows["a"].acknowledged).await;
    assert!(start.elapsed() <= Duration::from_millis(20), "{:?}", start.elapsed());
    let end = server.ended("a").await;
    assert!(matches!(end, Action::Stopped(s) if s.effects() == Effects::Undone));
    assert!(start.elapsed() <= Duration::from_millis(550), "{:?}", start.elapsed());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_beside_a_handler_that_says_nothing() {
    let server = Server::with(&["a"]);
    let worker = work(&server, |_, _| async {
        tokio::time::sleep(Duration::from_secs(600)).await;
        Ok(answer())
    });
    assert_eq!(server.ended("a").await, Action::Response(answer()));
    assert_eq!(server.row("a", |row| row.epoch), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_while_a_handler_takes_long_to_stop() {
    let server = Server::with(&["a"]);
    let worker = work(&server, |_, context| async move {
        context.cancelled().await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        Err(Unfinished::stopped(Effects::None))
    });
    server.until("claimed", |model| model.rows["a"].epoch == 1).await;
    server.cancel("a");
    assert!(matches!(server.ended("a").await, Action::Stopped(_)));
    assert_eq!(server.row("a", |row| row.epoch), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_renew_stops_its_handler_before_the_lease_ends() {
    let server = Server::with(&["a"]);
    let (told, heard) = oneshot::channel();
    let told = Mutex::new(Some(told));
    let worker = work(&server, move |_, context| {
        let told = told.lock().take();
        async move {
            context.cancelled().await;
            let why = context.cancellation().expect("heard").why;
            told.expect("runs once").send((why, Instant::now())).expect("the test listens");
            // Goes on although it must not: it is dropped when the lease ends.
            std::future::pending().await
        }
    });
    server.until("listened for", |model| model.hanging == 1).await;
    let renewed = Instant::now();
    server.model.lock().cut = true;
    server.changed.notify_waiters();
    let (why, at) = heard.await.expect("the handler is told");
    assert_eq!(why, Why::LeaseLost);
    assert!(at < renewed + LEASE, "{:?}", at - renewed);
    assert!(at > renewed + LEASE / 2, "{:?}", at - renewed);
    worker.stop().await;
    assert!(Instant::now() <= renewed + LEASE + Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_short_loss_of_the_server_changes_nothing() {
    let server = Server::with(&["a"]);
    let worker = work(&server, |_, _| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(answer())
    });
    for second in [5, 30, 55] {
        tokio::time::sleep(Duration::from_secs(second) / 3).await;
        server.model.lock().cut = true;
        server.changed.notify_waiters();
        tokio::time::sleep(Duration::from_secs(8)).await;
        server.model.lock().cut = false;
    }
    assert_eq!(server.ended("a").await, Action::Response(answer()));
    assert_eq!(server.row("a", |row| row.epoch), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_went_to_another_is_dropped_without_a_word() {
    let server = Server::with(&["a"]);
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let seen = reasons.clone();
    let worker = work(&server, move |_, context| {
        let seen = seen.clone();
        async move {
            context.cancelled().await;
            seen.lock().push(context.cancellation().expect("heard").why);
            assert_eq!(context.checkpoint(vec![1]).await, Err(ReportError::Lost));
            Ok(answer())
        }
    });
    server.until("listened for", |model| model.hanging == 1).await;
    server.row("a", |row| {
        row.epoch += 1;
        row.lease_until = Some(Instant::now() + LEASE * 100);
    });
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(*reasons.lock(), [Why::LeaseLost]);
    assert!(server.row("a", |row| row.end.is_none() && row.checkpoint.is_empty()));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_claim_runs_the_operation_once() {
    let server = Server::with(&["a"]);
    server.model.lock().lose_claim_answers = 3;
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let worker = work(&server, move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(answer()) }
    });
    assert_eq!(server.ended("a").await, Action::Response(answer()));
    assert_eq!((runs.load(Ordering::Relaxed), server.row("a", |row| row.epoch)), (1, 1));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_handlers_and_gives_their_operations_back() {
    let server = Server::with(&["stops", "finishes", "stays"]);
    let worker = work(&server, |assignment, context| async move {
        context.cancelled().await;
        assert_eq!(context.cancellation().expect("heard").why, Why::WorkerShutdown);
        match assignment.operation.as_str() {
            "stops" => Err(Unfinished::stopped(Effects::None)),
            "finishes" => Ok(answer()),
            _ => std::future::pending().await,
        }
    });
    server.until("listened for", |model| model.hanging > 0).await;
    worker.stop().await;
    let end = |name: &str| server.row(name, |row| (row.end.clone(), row.releases));
    assert_eq!(end("stops"), (None, 1));
    assert_eq!(end("finishes"), (Some(Action::Response(answer())), 0));
    assert_eq!(end("stays"), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_claim_granted_during_the_shutdown_is_given_back() {
    let server = Server::with(&["a"]);
    server.model.lock().lose_claim_answers = usize::MAX;
    let worker = work(&server, |_, _| async { panic!("nothing was handed out") });
    server.until("granted", |model| model.rows["a"].epoch == 1).await;
    worker.shutdown.cancel();
    server.model.lock().lose_claim_answers = 0;
    worker.stop().await;
    assert_eq!(server.row("a", |row| row.releases), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_that_may_be_tried_again() {
    let server = Server::with(&["a"]);
    let worker = work(&server, |_, _| async { panic!("on purpose") });
    assert!(is_failure(&server.ended("a").await, 13, true));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_server_refuses_becomes_a_failure() {
    let server = Server::with(&["a", "b"]);
    server.model.lock().refuse_responses = true;
    let worker = work(&server, |assignment, _| async move {
        if assignment.operation == "a" {
            Ok(answer())
        } else {
            Err(Unfinished::stopped(Effects::None))
        }
    });
    assert!(is_failure(&server.ended("a").await, 13, false));
    assert!(is_failure(&server.ended("b").await, 10, false));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_gate_opens_before_a_cancel_and_not_after() {
    let server = Server::with(&["a"]);
    let worker = work(&server, |_, context| async move {
        context.gate().await.expect("nobody asked to cancel yet");
        context.cancelled().await;
        let refused = context.gate().await.expect_err("a cancel came first");
        assert!(matches!(refused, ReportError::Refused { reason, .. } if reason == "GATE_CLOSED"));
        Err(Unfinished::stopped(Effects::Partial))
    });
    server.until("gate passed", |model| model.rows["a"].gate_passed).await;
    server.cancel("a");
    assert!(
        matches!(server.ended("a").await, Action::Stopped(s) if s.effects() == Effects::Partial)
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn progress_arrives_in_order_and_a_checkpoint_is_kept_when_it_returns() {
    let server = Server::with(&["a"]);
    let model = server.clone();
    let worker = work(&server, move |_, context| {
        let model = model.clone();
        async move {
            for step in 1..=50 {
                context.progress(Progress { step, percent: Some(f32::NAN), ..Progress::default() });
                if step % 10 == 0 {
                    context.checkpoint(step.to_string().into_bytes()).await.expect("kept");
                    let kept = model.row("a", |row| row.checkpoint.clone());
                    assert_eq!(kept, step.to_string().into_bytes());
                }
            }
            Ok(answer())
        }
    });
    assert_eq!(server.ended("a").await, Action::Response(answer()));
    let progress = server.row("a", |row| row.progress.clone());
    assert!(progress.is_sorted() && progress.last() == Some(&50), "{progress:?}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn thousands_of_operations_hang_on_few_calls_and_all_hear_their_cancel() {
    let names: Vec<String> = (0..3000).map(|n| format!("operations/{n}")).collect();
    let server = Server::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let worker = work(&server, |_, context| async move { until_cancelled(&context).await });
    server.until("claimed", |model| model.rows.values().all(|row| row.epoch == 1)).await;
    tokio::time::sleep(LEASE).await;
    for name in &names {
        server.model.lock().rows.get_mut(name).expect("made above").cancelled =
            Some(Reason::ClientCancel);
    }
    server.changed.notify_waiters();
    server.until("all ended", |model| model.rows.values().all(|row| row.end.is_some())).await;
    worker.stop().await;
    let model = server.model.lock();
    assert!(model.hanging_max <= 50, "{}", model.hanging_max);
    assert!(model.rows.values().all(|row| matches!(row.end, Some(Action::Stopped(_)))));
}

#[tokio::test(start_paused = true)]
async fn options_out_of_range_are_refused() {
    let refused = |options: Options| {
        Worker::new(options, Server::default(), Do(|_, _| async { Ok(answer()) })).is_err()
    };
    assert!(refused(Options { slots: 0, ..Options::default() }));
    assert!(refused(Options { slots: SLOTS_MAX + 1, ..Options::default() }));
    assert!(refused(Options { name: String::new(), ..Options::default() }));
    assert!(refused(Options { lease: Duration::from_millis(10), ..Options::default() }));
    assert!(!refused(Options::default()));
}

#[tokio::test(start_paused = true)]
async fn typed_handlers_decode_answer_panic_and_clean_up() {
    let server = Server::with(&["good", "bad", "panics", "cleanup"]);
    let request = |value: Vec<u8>| Some(Any { type_url: String::new(), value });
    server.row("good", |row| row.request = request(vec![8, 1]));
    server.row("bad", |row| row.request = request(vec![255]));
    server.row("panics", |row| row.request = request(vec![8, 2]));
    server.row("cleanup", |row| row.cleanup = true);
    let worker = Worker::builder("http://unused")
        .handle("test.Do", |request: u32, _: Context| async move {
            assert_eq!(request, 1, "on purpose");
            Ok(request)
        })
        .cleanup("test.Do", |_: u32, cx: Context| async move {
            assert_eq!((cx.earlier_checkpoint(), cx.earlier_ref()), (&[][..], ""));
            Ok(Stopped { effects: Effects::Undone.into(), message: String::new() })
        })
        .build_on(server.clone())
        .expect("good options");
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(worker.run(shutdown.clone()));
    let typed = Any { type_url: answer().type_url, value: vec![8, 1] };
    assert_eq!(server.ended("good").await, Action::Response(typed));
    assert!(is_failure(&server.ended("bad").await, 3, false));
    assert!(is_failure(&server.ended("panics").await, 13, true));
    let end = server.ended("cleanup").await;
    assert!(matches!(end, Action::Stopped(s) if s.effects() == Effects::Undone));
    Running { shutdown, task }.stop().await;
}

#[test]
fn a_builder_refuses_a_method_given_twice_and_none_at_all() {
    let add = |builder: Builder| builder.handle("a.B", |_: (), _: Context| async { Ok(()) });
    let refused = |builder: Builder| builder.build_on(Server::default()).is_err();
    let empty = || Worker::builder("http://unused");
    assert!(refused(empty()) && refused(add(add(empty()))) && !refused(add(empty())));
    assert!(refused(
        add(empty()).cleanup("c.D", |_: (), _: Context| async { Ok(Stopped::default()) })
    ));
}
