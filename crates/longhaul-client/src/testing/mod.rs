//! Finds out what a handler does when it is cancelled, or dies, at every moment of its work.
//!
//! A [`Harness`] runs a handler once undisturbed and notes every point at which something could happen:
//! each await, and each report before it arrives and before its answer does, gates and the end among
//! them. Then it runs the handler again for every point and every [`Disturbance`]: a client cancels, the
//! worker dies, both at once, the worker shuts down. Each run has an operation of its own under the
//! server's own rules (`longhaul-core`), real workers, and simulated time; no network, no waiting, and
//! the same every time. What is wrong is told with the point at which it happened.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use std::time::Duration;
//!
//! use longhaul_client::testing::Harness;
//! use longhaul_client::worker::{Context, Effects, Stopped, Worker};
//!
//! /// The outside world: what the handler changes.
//! #[derive(Default)]
//! struct Cloud { machine: AtomicBool }
//!
//! let harness = Harness::new(|cloud: Arc<Cloud>| {
//!     let (work, clean) = (cloud.clone(), cloud);
//!     Worker::builder("http://unused")
//!         .handle("a.v1.A.Make", move |(): (), cx: Context| {
//!             let cloud = work.clone();
//!             async move {
//!                 cloud.machine.store(true, Ordering::Relaxed);
//!                 tokio::select! {
//!                     () = tokio::time::sleep(Duration::from_secs(300)) => Ok(()),
//!                     () = cx.cancelled() => {
//!                         // The bug: the machine stays, though nothing is said to be left.
//!                         Err(cx.cancelled_with(Effects::Undone, "stopped"))
//!                     }
//!                 }
//!             }
//!         })
//!         .cleanup("a.v1.A.Make", move |(): (), _: Context| {
//!             let cloud = clean.clone();
//!             async move {
//!                 cloud.machine.store(false, Ordering::Relaxed);
//!                 Ok(Stopped { effects: Effects::Undone.into(), message: String::new() })
//!             }
//!         })
//!         .into_handler()
//!         .expect("every method has one handler")
//! })
//! .method("a.v1.A.Make")
//! .holds("nothing is left behind unsaid", |cloud: &Cloud, end| {
//!     end.succeeded() || !end.says_clean() || !cloud.machine.load(Ordering::Relaxed)
//! });
//!
//! let findings = harness.run();
//! assert!(findings.problems.iter().any(|found| found.to_string().contains("left behind")));
//! ```
//!
//! What a handler spawns by itself is not stopped when its worker dies here, and [`Drop`]s of a handler
//! that died do not run, as in a process that was killed.
//!
//! Rooms: `model` is the server, `stage` watches one worker and disturbs it, `findings` is what comes out.

mod findings;
mod model;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use tokio::time::Instant;

use crate::worker::{Handler, Options, Worker};

pub use findings::{Disturbance, End, Finding, Findings, Point, Problem, Said};

use model::{Model, Setting};
use stage::{Plan, Script, Stage, StageLink, Watched};

/// How long a run may take, in simulated time.
const RUN_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long it goes on after the end, so that what still speaks is heard.
const AFTERMATH: Duration = Duration::from_secs(120);
/// Most workers of one run: each serves until it dies or shuts down.
const WORKERS_MAX: usize = 10;

type Make<W, H> = Box<dyn Fn(Arc<W>) -> H + Send + Sync>;
type Holds<W> = Box<dyn Fn(&W, &End) -> bool + Send + Sync>;

/// Runs a handler again and again, disturbed at every point. `W` is the outside world that the handler
/// changes; each run has a new one.
pub struct Harness<W, H> {
    make: Make<W, H>,
    holds: Vec<(String, Holds<W>)>,
    setting: Setting,
    points_max: usize,
}

impl<W, H> Harness<W, H>
where
    W: Default + Send + Sync + 'static,
    H: Handler,
{
    /// A harness for the handlers that `make` makes: one for each worker, all of one run with the same
    /// world.
    pub fn new(make: impl Fn(Arc<W>) -> H + Send + Sync + 'static) -> Self {
        let setting = Setting {
            method: "test.v1.Test.Work".to_owned(),
            request: Any::default(),
            response_type: String::new(),
            cleanup: true,
            stops_within: Duration::from_secs(60),
        };
        Self { make: Box::new(make), holds: Vec::new(), setting, points_max: 1000 }
    }

    /// The method that the operation was started by, as the handler knows it.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.setting.method = method.to_owned();
        self
    }

    /// The request of the start.
    #[must_use]
    pub fn request<Req: Message>(mut self, request: &Req) -> Self {
        self.setting.request.value = request.encode_to_vec();
        self
    }

    /// Full name of the type that a response must have; unless said, any is taken.
    #[must_use]
    pub fn response_type(mut self, name: &str) -> Self {
        self.setting.response_type = name.to_owned();
        self
    }

    /// The method has no cleanup: what a lost worker leaves behind stays.
    #[must_use]
    pub fn without_cleanup(mut self) -> Self {
        self.setting.cleanup = false;
        self
    }

    /// How soon after a cancel the handler must have ended; 60 s unless said.
    #[must_use]
    pub fn stops_within(mut self, span: Duration) -> Self {
        self.setting.stops_within = span;
        self
    }

    /// Most points at which the handler is disturbed; 1000 unless said. Further ones are left out, and
    /// [`Findings::left_out`] says how many.
    #[must_use]
    pub fn points_max(mut self, points: usize) -> Self {
        self.points_max = points;
        self
    }

    /// Something that must be true at the end of every run, of the world and of how the operation ended.
    #[must_use]
    pub fn holds(
        mut self,
        what: &str,
        check: impl Fn(&W, &End) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.holds.push((what.to_owned(), Box::new(check)));
        self
    }

    /// Runs everything; returns what was found. Blocks the thread, and needs no runtime around it.
    pub fn run(&self) -> Findings {
        // A thread of its own, since a runtime cannot be entered within another.
        let run = std::thread::scope(|scope| scope.spawn(|| self.run_here()).join());
        run.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn run_here(&self) -> Findings {
        let (points, problems) = self.play(None);
        let ends = !problems.contains(&Problem::NeverEnds);
        let left_out = points.len().saturating_sub(self.points_max);
        let mut findings = Findings { runs: 1, points, left_out, problems: Vec::new() };
        findings.add(None, problems);
        if !ends {
            // Nothing can be learnt from disturbing that, and each run would take a day.
            return findings;
        }
        for number in 0..findings.points.len().min(self.points_max) {
            for disturbance in Disturbance::ALL {
                let (_, problems) = self.play(Some(Plan { number, disturbance }));
                let said = findings.points[number].said;
                findings.add(Some((Point { number, said }, disturbance)), problems);
                findings.runs += 1;
            }
        }
        findings
    }

    /// One run, on a runtime whose clock moves only when everybody waits.
    fn play(&self, plan: Option<Plan>) -> (Vec<Point>, Vec<Problem>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without IO needs nothing but memory");
        runtime.block_on(self.play_through(plan))
    }

    async fn play_through(&self, plan: Option<Plan>) -> (Vec<Point>, Vec<Problem>) {
        let world = Arc::new(W::default());
        let model = Arc::new(Model::new(&self.setting));
        let script = Arc::new(Script::new(plan));
        let end = Instant::now() + RUN_MAX;
        for number in 1..=WORKERS_MAX {
            let stage = Arc::new(Stage::new(model.clone(), script.clone()));
            let handler = Watched { inner: (self.make)(world.clone()), stage: stage.clone() };
            serve(&stage, handler, number, end).await;
            if model.done() || Instant::now() >= end {
                break;
            }
        }
        let Some(ended) = model.end(plan.map(|plan| plan.disturbance)) else {
            return (script.points(), vec![Problem::NeverEnds]);
        };
        let mut problems = model.problems();
        for (what, check) in &self.holds {
            if !check(&world, &ended) {
                problems.push(Problem::Broken(what.clone()));
            }
        }
        (script.points(), problems)
    }
}

/// One worker, until it died, has shut down, or the operation has been over for a while.
async fn serve<H: Handler>(stage: &Arc<Stage>, handler: Watched<H>, number: usize, end: Instant) {
    let options = Options {
        name: format!("worker-{number}"),
        slots: 1,
        sessions: false,
        ..Options::default()
    };
    let worker = Worker::new(options, StageLink(stage.clone()), handler);
    let worker = worker.expect("these options are in their ranges");
    let mut working = std::pin::pin!(worker.run(stage.shutdown.clone()));
    let model = stage.model.clone();
    let mut over: Option<Instant> = None;
    loop {
        let changed = model.changed.notified();
        if model.done() {
            over.get_or_insert_with(|| Instant::now() + AFTERMATH);
        }
        let due = over.unwrap_or_else(|| model.due().min(end));
        tokio::select! {
            biased;
            () = stage.died.notified() => return,
            _ = &mut working => return,
            () = changed => {}
            () = tokio::time::sleep_until(due) => {
                if over.is_some() || Instant::now() >= end {
                    break;
                }
                model.tick();
            }
        }
    }
    stage.shutdown.cancel();
    // One that does not end even now is dropped.
    let _ = tokio::time::timeout(AFTERMATH, working).await;
}

#[cfg(test)]
mod tests;
