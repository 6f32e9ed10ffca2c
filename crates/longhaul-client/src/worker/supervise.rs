//! Runs one handler: beside its lease, up to its fence, and reports its end.

use std::sync::Arc;

use longhaul_wire::v1::{Assignment, Effects, Failure, Release, Stopped, report_item::Action};
use prost_types::Any;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::context::{Cancellation, Context, ReportError, Why};
use super::handler::Unfinished;
use super::live::Live;
use super::{ABORT_TIME, Shared};

/// google.rpc.Code ABORTED and INTERNAL.
const ABORTED: i32 = 10;
const INTERNAL: i32 = 13;

/// Runs the handler of one assignment to its end, and frees the slot.
pub(super) async fn supervise(
    shared: Arc<Shared>,
    live: Arc<Live>,
    assignment: Assignment,
    slot: OwnedSemaphorePermit,
) {
    let key = (assignment.operation.clone(), assignment.epoch);
    let earlier = (assignment.checkpoint.clone(), assignment.external_ref.clone());
    let context =
        Context { live: live.clone(), shared: shared.clone(), earlier: Arc::new(earlier) };
    let handler = shared.handler.clone();
    let mut work = tokio::spawn(async move {
        if assignment.cleanup {
            let done = handler.clean_up(assignment, context).await;
            done.map(Action::Stopped).unwrap_or_else(action_of)
        } else {
            let done = handler.run(assignment, context).await;
            done.map(Action::Response).unwrap_or_else(action_of)
        }
    });
    let action = tokio::select! {
        biased;
        ended = &mut work => Some(ended.unwrap_or_else(|error| crashed(&error))),
        () = unwanted(&shared, &live) => {
            work.abort();
            let gone = tokio::time::timeout(ABORT_TIME, work).await.is_ok();
            if !gone {
                tracing::warn!(operation = live.operation, "a handler does not end when dropped");
            }
            gone.then_some(Action::Release(Release {}))
        }
    };
    if let Some(action) = action {
        live.ending();
        finish(&shared, &live, action).await;
    }
    live.end();
    shared.book.lock().remove(&key);
    drop(slot);
}

fn action_of(unfinished: Unfinished) -> Action {
    match unfinished {
        Unfinished::Failed(failure) => Action::Failure(failure),
        Unfinished::Stopped(stopped) => Action::Stopped(stopped),
        Unfinished::Released => Action::Release(Release {}),
    }
}

/// A handler that panicked failed in a way that another attempt may not.
fn crashed(error: &JoinError) -> Action {
    let message = if error.is_panic() {
        "the worker's handler panicked; its log says where"
    } else {
        "the worker's handler was dropped"
    };
    Action::Failure(Failure {
        code: INTERNAL,
        message: message.to_owned(),
        retryable: true,
        effects: Effects::Unknown.into(),
        ..Failure::default()
    })
}

/// Resolves when the handler must go: some time after it was told that nobody listens any more, at
/// the end of its lease at the latest, or when the worker ends.
async fn unwanted(shared: &Shared, live: &Live) {
    loop {
        let tell_at = live.fence() - shared.options.margin();
        tokio::select! {
            () = shared.stop_now.cancelled() => return,
            () = live.over().cancelled() => break,
            () = tokio::time::sleep_until(tell_at) => {}
        }
        if live.fence() - shared.options.margin() <= Instant::now() {
            tracing::warn!(operation = live.operation, "no renewal got through; giving it up");
            live.tell(Cancellation::new(Why::LeaseLost));
            break;
        }
    }
    let last = (Instant::now() + shared.options.grace).min(live.fence().max(Instant::now()));
    tokio::select! {
        () = shared.stop_now.cancelled() => {}
        () = tokio::time::sleep_until(last) => {}
    }
}

/// Reports the end until the server has taken it, in the best form that it takes.
async fn finish(shared: &Arc<Shared>, live: &Arc<Live>, action: Action) {
    let shutting_down = || live.cancellation().is_some_and(|wish| wish.why == Why::WorkerShutdown);
    let stopped = matches!(action, Action::Stopped(_));
    let action = if stopped && shutting_down() { Action::Release(Release {}) } else { action };
    // What was said before may be at fault, so the end gets a second chance alone.
    let mut refused = String::new();
    for _ in 0..2 {
        match say(shared, live, action.clone()).await {
            Ok(()) | Err(ReportError::Lost) => return,
            Err(ReportError::Refused { message, .. }) => refused = message,
        }
    }
    tracing::warn!(operation = live.operation, refused, "the server refused how the work ended");
    if let Err(ReportError::Refused { message, .. }) =
        say(shared, live, instead(&action, &refused)).await
    {
        tracing::error!(
            operation = live.operation,
            message,
            "no end could be reported; the lease will run out"
        );
    }
}

async fn say(shared: &Shared, live: &Arc<Live>, action: Action) -> Result<(), ReportError> {
    live.ask(shared, |outbox| outbox.item.action = Some(action)).await.map(|_| ())
}

/// What is reported in place of an end that the server refused.
fn instead(action: &Action, refused: &str) -> Action {
    let (code, message, effects) = match action {
        Action::Stopped(Stopped { effects, .. }) => {
            (ABORTED, format!("the worker stopped, but: {refused}"), *effects)
        }
        Action::Failure(Failure { effects, .. }) => {
            (INTERNAL, format!("the worker failed, but: {refused}"), *effects)
        }
        Action::Response(Any { type_url, .. }) => {
            let message = format!("the worker answered with {type_url:?}, but: {refused}");
            (INTERNAL, message, Effects::Unknown.into())
        }
        Action::Gate(_) | Action::Release(_) => {
            (INTERNAL, format!("the worker gave up, but: {refused}"), Effects::Unknown.into())
        }
    };
    Action::Failure(Failure { code, message, effects, ..Failure::default() })
}
