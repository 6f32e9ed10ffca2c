//! One worker under watch: counts the points of its work, and disturbs it at the one that was chosen.
//!
//! The handler is watched from inside its task, its reports at the link. Owns when something happens;
//! what it means for the operation is `model`'s.

use std::any::Any as AnyValue;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Polling, Poll};
use std::time::Duration;

use async_trait::async_trait;
use longhaul_wire::v1::report_item::Action;
use longhaul_wire::v1::{
    Assignment, ClaimRequest, ClaimResponse, ReportItem, ReportRequest, ReportResponse, Stopped,
};
use parking_lot::Mutex;
use prost_types::Any;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::findings::{Disturbance, Point, Problem, Said};
use super::model::Model;
use crate::worker::{Context, Handler, Link, Unfinished};

/// How often a hanging claim looks again: work may become claimable just because time passes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where one run is disturbed, and how.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) number: usize,
    pub(super) disturbance: Disturbance,
}

/// The points of one run, over all its workers.
pub(super) struct Script {
    plan: Option<Plan>,
    points: Mutex<Vec<Point>>,
}

/// One worker and its way to the model.
pub(super) struct Stage {
    pub(super) model: Arc<Model>,
    pub(super) shutdown: CancellationToken,
    /// Told when the worker died.
    pub(super) died: Notify,
    script: Arc<Script>,
    dead: AtomicBool,
}

impl Script {
    pub(super) fn new(plan: Option<Plan>) -> Self {
        Self { plan, points: Mutex::default() }
    }

    pub(super) fn points(&self) -> Vec<Point> {
        self.points.lock().clone()
    }

    /// Counts a point. Answers with what is to happen there.
    fn reach(&self, said: Said) -> Option<Disturbance> {
        let mut points = self.points.lock();
        let number = points.len();
        points.push(Point { number, said });
        self.plan.filter(|plan| plan.number == number).map(|plan| plan.disturbance)
    }
}

impl Stage {
    pub(super) fn new(model: Arc<Model>, script: Arc<Script>) -> Self {
        Self {
            model,
            script,
            shutdown: CancellationToken::new(),
            died: Notify::new(),
            dead: AtomicBool::new(false),
        }
    }

    fn reach(&self, said: Said) {
        if self.dead() {
            return;
        }
        match self.script.reach(said) {
            None => {}
            Some(Disturbance::Cancel) => self.model.cancel(),
            Some(Disturbance::Crash) => self.die(),
            Some(Disturbance::CancelAndCrash) => {
                self.model.cancel();
                self.die();
            }
            Some(Disturbance::Shutdown) => self.shutdown.cancel(),
        }
    }

    fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.model.orphan();
        self.died.notify_one();
    }

    fn dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Never resolves once the worker is dead.
    async fn unless_dead(&self) {
        if self.dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// A worker's way to the model. What a dead worker sends does not arrive, and it hears nothing.
pub(super) struct StageLink(pub(super) Arc<Stage>);

#[async_trait]
impl Link for StageLink {
    async fn claim(&self, request: ClaimRequest, _: Duration) -> Result<ClaimResponse, Status> {
        let model = &self.0.model;
        let end = Instant::now() + span(request.wait.as_ref());
        loop {
            self.0.unless_dead().await;
            let changed = model.changed.notified();
            let assignments: Vec<_> = model.claim(&request).into_iter().collect();
            if !assignments.is_empty() || Instant::now() >= end {
                return Ok(ClaimResponse { assignments });
            }
            let look = end.min(Instant::now() + LOOK_EVERY);
            // Whichever comes first: both mean to look again.
            let _ = tokio::time::timeout_at(look, changed).await;
        }
    }

    async fn report(&self, request: ReportRequest, _: Duration) -> Result<ReportResponse, Status> {
        let stage = &self.0;
        let end = Instant::now() + span(request.wait.as_ref());
        for item in &request.items {
            if let Some((before, _)) = points(item) {
                stage.reach(before);
            }
        }
        stage.unless_dead().await;
        let mut changed = stage.model.changed.notified();
        let mut results: Vec<_> =
            request.items.iter().map(|item| stage.model.report(item)).collect();
        for item in &request.items {
            if let Some((_, after)) = points(item) {
                stage.reach(after);
            }
        }
        loop {
            stage.unless_dead().await;
            let calm = results.iter().all(Model::goes_on);
            if !calm || Instant::now() >= end {
                return Ok(ReportResponse { results });
            }
            let _ = tokio::time::timeout_at(end, changed).await;
            changed = stage.model.changed.notified();
            results = request.items.iter().map(|item| stage.model.look(item)).collect();
        }
    }
}

fn span(wire: Option<&prost_types::Duration>) -> Duration {
    wire.and_then(|span| Duration::try_from(*span).ok()).unwrap_or_default()
}

/// The points around one item; none around one that only renews.
fn points(item: &ReportItem) -> Option<(Said, Said)> {
    match &item.action {
        Some(Action::Gate(_)) => return Some((Said::BeforeGate, Said::AfterGate)),
        Some(
            Action::Response(_) | Action::Failure(_) | Action::Stopped(_) | Action::Release(_),
        ) => return Some((Said::BeforeEnd, Said::AfterEnd)),
        None => {}
    }
    if item.checkpoint.is_some() {
        Some((Said::BeforeCheckpoint, Said::AfterCheckpoint))
    } else if item.external_ref.is_some() {
        Some((Said::BeforeExternalRef, Said::AfterExternalRef))
    } else if item.progress.is_some() || item.metadata.is_some() {
        Some((Said::BeforeProgress, Said::AfterProgress))
    } else {
        None
    }
}

/// The handler under watch.
pub(super) struct Watched<H> {
    pub(super) inner: H,
    pub(super) stage: Arc<Stage>,
}

#[async_trait]
impl<H: Handler> Handler for Watched<H> {
    async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished> {
        Counted::over(self.inner.run(assignment, context), &self.stage).await
    }

    async fn clean_up(
        &self,
        assignment: Assignment,
        context: Context,
    ) -> Result<Stopped, Unfinished> {
        Counted::over(self.inner.clean_up(assignment, context), &self.stage).await
    }
}

/// A future whose every wait is a point.
struct Counted<'a, T> {
    inner: Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>,
    stage: &'a Stage,
    begun: bool,
}

impl<'a, T> Counted<'a, T> {
    fn over(inner: impl Future<Output = T> + Send + 'a, stage: &'a Stage) -> Self {
        Self { inner: Some(Box::pin(inner)), stage, begun: false }
    }
}

impl<T> Future for Counted<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<T> {
        let stage = self.stage;
        if !std::mem::replace(&mut self.begun, true) {
            stage.reach(Said::Begin);
        }
        let Some(inner) = self.inner.as_mut().filter(|_| !stage.dead()) else {
            return Poll::Pending;
        };
        match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(polling))) {
            Ok(Poll::Ready(output)) => Poll::Ready(output),
            Ok(Poll::Pending) => {
                stage.reach(Said::Await);
                Poll::Pending
            }
            Err(panic) => {
                stage.model.note(Problem::Panics(words(&*panic)));
                resume_unwind(panic)
            }
        }
    }
}

impl<T> Drop for Counted<'_, T> {
    /// A process that was killed runs no destructors.
    fn drop(&mut self) {
        if self.stage.dead() {
            std::mem::forget(self.inner.take());
        }
    }
}

fn words(panic: &(dyn AnyValue + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
