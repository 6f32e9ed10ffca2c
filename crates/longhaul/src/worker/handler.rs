//! The handler of a command worker: each operation is one run of the command.
//!
//! Owns how an attempt goes: its folder, its supervisor, what is passed on in between, and when the
//! command is told to stop. What its end means is `outcome.rs`'s.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use longhaul_client::worker::{
    Any, Assignment, Cancellation, Context, Effects, Handler, Progress, ReportError, Stopped,
    Unfinished, Why,
};
use tokio::time::{MissedTickBehavior, interval};

use super::folders::{Folder, Folders};
use super::outcome::{Ending, Heard, Judge};
use super::said::{self, Said};
use super::served::Served;
use super::supervised::{Run, Supervised, Supervisors};
use super::words::{Notice, Order, Start};

/// Questions of one command that may wait for the server; more are not read.
const QUESTIONS_MAX: usize = 8;
/// Longest time between two looks at the checkpoint.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs a command for each operation.
pub struct Commanded {
    /// The methods, by full name.
    pub served: HashMap<String, Served>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Its supervisors.
    pub supervisors: Supervisors,
    /// Its checkpoint folders.
    pub folders: Folders,
    /// How its ends are judged.
    pub judge: Judge,
    /// How long it may take to stop.
    pub grace: Duration,
    /// The worker's leases.
    pub lease: Duration,
    /// Whether lines of its standard error are marked with the operation's id.
    pub mark: bool,
    /// The server, for commands that talk to it themselves.
    pub server: String,
}

/// One run of the command.
struct Attempt<'a> {
    worker: &'a Commanded,
    served: &'a Served,
    context: &'a Context,
    /// Its metadata is kept as last reported.
    assignment: Assignment,
    progress: Progress,
    heard: Heard,
    folder: Option<Folder>,
    /// Answers that the server still owes the command, in order.
    questions: FuturesOrdered<BoxFuture<'static, String>>,
    /// Shortest grace that the supervisor was told.
    told: Option<Duration>,
    warned: bool,
}

#[async_trait]
impl Handler for Commanded {
    async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished> {
        let served = self.served(&assignment)?;
        let mut attempt = Attempt::new(self, served, &context, assignment);
        let ending = attempt.run(false).await;
        let wish = context.cancellation().map(|wish| wish.why);
        let (heard, assignment) = (&attempt.heard, &attempt.assignment);
        let outcome = self.judge.work(ending, heard, wish, served, assignment);
        attempt.leave(outcome.as_ref().err(), wish).await;
        outcome
    }

    async fn clean_up(
        &self,
        assignment: Assignment,
        context: Context,
    ) -> Result<Stopped, Unfinished> {
        if !self.judge.cleanup {
            return Ok(Stopped { effects: Effects::Unknown.into(), message: String::new() });
        }
        let served = self.served(&assignment)?;
        let mut attempt = Attempt::new(self, served, &context, assignment);
        let ending = attempt.run(true).await;
        let outcome = self.judge.cleanup(ending, &attempt.heard);
        attempt.leave(outcome.as_ref().err(), context.cancellation().map(|wish| wish.why)).await;
        outcome
    }
}

impl Commanded {
    fn served(&self, assignment: &Assignment) -> Result<&Served, Unfinished> {
        // The server was asked for these methods only.
        self.served.get(&assignment.method).ok_or(Unfinished::Released)
    }

    /// How long the command may take to stop, given why.
    fn grace(&self, wish: &Cancellation) -> Duration {
        match wish.why {
            Why::WorkerShutdown => self.grace,
            Why::ClientCancel | Why::Deadline | Why::Superseded | Why::Unknown => {
                // Killed a little before the server gives up, so that it hears how that went.
                let span = wish.deadline.zip(wish.asked_at);
                let span = span.and_then(|(until, from)| until.duration_since(from).ok());
                self.grace.min(span.map_or(self.grace, |span| span * 4 / 5))
            }
            // Somebody else may be at work soon.
            Why::LeaseLost | Why::Done | Why::Deleted => self.grace.min(self.lease / 12),
        }
    }
}

impl<'a> Attempt<'a> {
    fn new(
        worker: &'a Commanded,
        served: &'a Served,
        context: &'a Context,
        assignment: Assignment,
    ) -> Self {
        Self {
            worker,
            served,
            context,
            assignment,
            progress: Progress::default(),
            heard: Heard::default(),
            folder: None,
            questions: FuturesOrdered::new(),
            told: None,
            warned: false,
        }
    }

    /// Runs the command to its end; nothing of it is left then.
    async fn run(&mut self, cleanup: bool) -> Ending {
        let started = tokio::select! {
            biased;
            () = self.context.cancelled() => return Ending::NeverRan,
            started = self.start(cleanup) => started,
        };
        let mut supervised = match started {
            Ok(supervised) => supervised,
            Err(error) => return Ending::NotStarted(format!("the command: {error}")),
        };
        tracing::info!(
            operation = self.assignment.operation,
            epoch = self.assignment.epoch,
            attempt = self.assignment.attempt,
            cleanup,
            "started"
        );
        let last = self.follow(&mut supervised).await;
        supervised.ended().await;
        let operation = self.assignment.operation.as_str();
        match last {
            Some(Notice::Ended(ended)) => {
                let (end, told, killed) = (ended.end, ended.told, ended.killed);
                tracing::info!(operation, ?end, told, killed, "ended");
                Ending::Ended(ended)
            }
            Some(Notice::NotStarted(error)) => Ending::NotStarted(error),
            Some(Notice::Said(_)) | None => {
                tracing::warn!(operation, "the supervisor was killed; clearing away");
                self.worker.supervisors.clear_away().await;
                Ending::Lost
            }
        }
    }

    async fn start(&mut self, cleanup: bool) -> io::Result<Supervised> {
        let input = self.served.input(&self.assignment).map_err(io::Error::other)?;
        let (folder, lock) = self.worker.folders.take(&self.assignment).await?;
        let environment = self.environment(&folder, cleanup);
        self.folder = Some(folder);
        let id = self.assignment.operation.rsplit('/').next().unwrap_or_default();
        let start = Start {
            input,
            prefix: if self.worker.mark { format!("[{id}] ") } else { String::new() },
            grace_ms: millis(self.worker.grace),
            silence_ms: millis(self.worker.lease / 2),
            orphan_grace_ms: millis(self.worker.lease / 6),
        };
        let (operation, command) = (self.assignment.operation.as_str(), &*self.worker.command);
        self.worker.supervisors.start(Run { operation, command, environment, lock, start }).await
    }

    fn environment(&self, folder: &Folder, cleanup: bool) -> Vec<(&'static str, String)> {
        let assignment = &self.assignment;
        let mut environment = vec![
            ("LONGHAUL_SERVER", self.worker.server.clone()),
            ("LONGHAUL_OPERATION", assignment.operation.clone()),
            ("LONGHAUL_EPOCH", assignment.epoch.to_string()),
            ("LONGHAUL_ATTEMPT", assignment.attempt.to_string()),
            ("LONGHAUL_API", self.served.api_name().to_owned()),
            ("LONGHAUL_METHOD", assignment.method.clone()),
            ("LONGHAUL_TARGET", assignment.target.clone()),
            ("LONGHAUL_CHECKPOINT_DIR", folder.path().display().to_string()),
            ("LONGHAUL_CANCEL_FILE", folder.why().display().to_string()),
        ];
        let mut add = |name, value: &str| {
            if !value.is_empty() {
                environment.push((name, value.to_owned()));
            }
        };
        add("LONGHAUL_CLEANUP", if cleanup { "1" } else { "" });
        add("LONGHAUL_EXTERNAL_REF", &assignment.external_ref);
        add("TRACEPARENT", &assignment.traceparent);
        for (_, value) in &mut environment {
            // No variable can hold a zero byte.
            *value = value.replace('\0', "\u{fffd}");
        }
        environment
    }

    /// Follows the command until the supervisor's last word; `None` if it was killed before that.
    async fn follow(&mut self, supervised: &mut Supervised) -> Option<Notice> {
        let mut look = interval(LOOK_EVERY.min(self.worker.lease / 10));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saving: Option<BoxFuture<'static, ()>> = None;
        loop {
            let order = tokio::select! {
                biased;
                () = self.context.cancelled(), if self.told.is_none() => self.stop(),
                _ = look.tick() => {
                    let folder = self.folder.as_mut().filter(|_| saving.is_none());
                    if let Some(bytes) = folder.and_then(Folder::changed) {
                        saving = Some(save(self.context.clone(), bytes));
                    }
                    // A graver reason may have come meanwhile.
                    let order = if self.told.is_some() { self.stop() } else { None };
                    Some(order.unwrap_or(Order::Alive))
                }
                Some(answer) = self.questions.next() => Some(Order::Answer(answer)),
                () = done(&mut saving) => None,
                notice = supervised.notice(), if self.questions.len() < QUESTIONS_MAX => {
                    match notice {
                        Some(Notice::Said(line)) => self.hear(&line),
                        last => return last,
                    }
                    None
                }
            };
            if let Some(order) = order {
                // A supervisor that does not listen is gone, which the next notice says.
                let _ = supervised.order(&order).await;
            }
        }
    }

    /// The order to stop, unless one at least as strict was given.
    fn stop(&mut self) -> Option<Order> {
        let wish = self.context.cancellation()?;
        let grace = self.worker.grace(&wish);
        if self.told.is_some_and(|told| told <= grace) {
            return None;
        }
        self.told = Some(grace);
        if let Some(folder) = &self.folder
            && let Err(error) = folder.say_why(reason(wish.why), &wish.actor, &wish.message)
        {
            let operation = self.assignment.operation.as_str();
            tracing::warn!(operation, %error, "the command is not told why it is to stop");
        }
        tracing::info!(operation = self.assignment.operation, why = ?wish.why, ?grace, "stopping");
        Some(Order::Stop(millis(grace)))
    }

    fn hear(&mut self, line: &str) {
        match said::parse(line) {
            Said::Progress(progress, metadata) => {
                let explicit = metadata.map(|fields| {
                    let stored = self.assignment.metadata.as_ref();
                    let metadata = self.served.metadata(stored, fields);
                    if metadata.is_none() {
                        tracing::warn!(
                            operation = self.assignment.operation,
                            "metadata of another type"
                        );
                    }
                    metadata
                });
                self.progress(progress, explicit.is_none());
                self.metadata(explicit.flatten());
            }
            Said::Effects(effects) => self.heard.effects = Some(effects),
            Said::Failure(code, message) => self.heard.failure = Some((code, message)),
            Said::Gate => self.ask(|context| async move { context.gate().await }),
            Said::ExternalRef(reference) => {
                self.ask(|context| async move { context.external_ref(reference).await });
            }
            Said::Checkpoint => match self.folder.as_mut().and_then(Folder::changed) {
                Some(bytes) => self.ask(|context| async move { context.checkpoint(bytes).await }),
                None => self.ask(|_| async { Ok(()) }),
            },
            Said::Unknown(request) => {
                self.warn(&format!("an unknown request, {request:?}"));
                self.ask(move |_| async move {
                    Err(ReportError::Refused {
                        code: 3,
                        reason: "UNKNOWN_REQUEST".into(),
                        message: request,
                    })
                });
            }
        }
    }

    /// Once is enough: a command may say the same a thousand times.
    fn warn(&mut self, said: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(operation = self.assignment.operation, "the command said {said}");
        }
    }

    /// Words alone leave the numbers as they were.
    fn progress(&mut self, progress: Progress, in_metadata: bool) {
        let mut progress = progress;
        if progress == Progress::default() {
            return;
        }
        if progress.percent.is_none() && progress.step == 0 {
            let message = std::mem::take(&mut progress.message);
            progress = Progress { message, ..self.progress.clone() };
        }
        self.progress = progress.clone();
        let percent = progress.percent.or_else(|| {
            (progress.steps > 0).then(|| progress.step as f32 * 100.0 / progress.steps as f32)
        });
        if let Some(percent) = percent.filter(|_| in_metadata) {
            let percent = percent.clamp(0.0, 100.0);
            let assignment = &self.assignment;
            let metadata = self.served.progress(assignment, percent, &progress.message);
            self.metadata(metadata);
        }
        self.context.progress(progress);
    }

    fn metadata(&mut self, metadata: Option<Any>) {
        if let Some(metadata) = metadata {
            self.assignment.metadata = Some(metadata.clone());
            self.context.metadata(metadata);
        }
    }

    /// Asks the server on the command's behalf; the command reads the answer.
    fn ask<F>(&mut self, question: impl FnOnce(Context) -> F)
    where
        F: Future<Output = Result<(), ReportError>> + Send + 'static,
    {
        let asked = question(self.context.clone());
        self.questions.push_back(Box::pin(async move {
            match asked.await {
                Ok(()) => "ok".to_owned(),
                Err(ReportError::Lost) => "no LEASE_LOST".to_owned(),
                Err(ReportError::Refused { reason, message, .. }) => {
                    format!("no {reason} {}", said::tidy(&message))
                }
            }
        }));
    }

    /// Keeps the checkpoint for whoever goes on, and removes the folder if nobody does.
    async fn leave(mut self, unfinished: Option<&Unfinished>, wish: Option<Why>) {
        let Some(mut folder) = self.folder.take() else { return };
        let goes_on = match unfinished {
            Some(Unfinished::Failed(failure)) => failure.retryable,
            Some(Unfinished::Released) => true,
            Some(Unfinished::Stopped(_)) | None => false,
        };
        let gone = matches!(wish, Some(Why::Done | Why::Deleted));
        if !goes_on || gone {
            folder.remove().await;
        } else if let Some(bytes) = folder.changed() {
            save(self.context.clone(), bytes).await;
        }
    }
}

/// A reason as commands read it; those that the server gives have its names.
const fn reason(why: Why) -> &'static str {
    match why {
        Why::WorkerShutdown => "WORKER_SHUTDOWN",
        Why::ClientCancel => "CLIENT_CANCEL",
        Why::Deadline => "DEADLINE",
        Why::Superseded => "SUPERSEDED",
        Why::Unknown => "UNKNOWN",
        Why::LeaseLost => "LEASE_LOST",
        Why::Done => "DONE",
        Why::Deleted => "DELETED",
    }
}

/// Waits for what is being saved, if something is, and forgets it.
async fn done(saving: &mut Option<BoxFuture<'static, ()>>) {
    match saving {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
    *saving = None;
}

fn save(context: Context, bytes: Vec<u8>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        if let Err(error) = context.checkpoint(bytes).await {
            tracing::debug!(operation = context.operation(), %error, "a checkpoint was not kept");
        }
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
