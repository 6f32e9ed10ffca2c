//! Waiting for operations at the terminal: progress on standard error, Ctrl-C, and how each ended.

use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use futures_util::future::join_all;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use longhaul_client::operations::{Error, Operation, State, WaitOptions};

use super::args::WaitHow;
use super::facts::Facts;
use super::interrupt::{self, Choice};
use super::target::Named;
use crate::failure::{Exit, Failure};
use crate::output::printable;

/// Longest interval between two polls: a person is waiting.
const POLL_EVERY_MAX: Duration = Duration::from_secs(2);

/// One operation that was waited for.
pub struct Waited {
    /// As it was seen last.
    pub last: Option<Operation>,
    /// The API's short name, where it is known.
    pub api: Option<String>,
    /// How the wait ended.
    pub exit: Exit,
    /// What to tell beside the operation.
    pub failure: Option<Failure>,
}

/// Waits for all; Ctrl-C may end it early.
pub async fn until_done(named: &[Named], how: &WaitHow) -> Vec<Waited> {
    let progress = Progress::new(how.quiet);
    let mut shown: Vec<Shown> = named.iter().map(|one| progress.show(one)).collect();
    let options = WaitOptions {
        timeout: how.timeout,
        max_interval: POLL_EVERY_MAX,
        ..WaitOptions::default()
    };
    let detached = {
        let waits = named.iter().zip(&mut shown).map(|(one, shown)| wait(one, shown, &options));
        let mut waits = std::pin::pin!(join_all(waits));
        let mut interrupts = 0;
        loop {
            tokio::select! {
                _ = &mut waits => break false,
                pressed = tokio::signal::ctrl_c() => if pressed.is_err() { break true },
            }
            interrupts += 1;
            let choose = choose(how, interrupts, &progress, named.len());
            tokio::pin!(choose);
            let choice = tokio::select! {
                _ = &mut waits => break false,
                choice = &mut choose => choice,
                _ = tokio::signal::ctrl_c() => {
                    // The question stands on the line; the answer begins its own.
                    let _ = writeln!(std::io::stderr());
                    Choice::Detach
                }
            };
            match choice {
                Choice::Detach => break true,
                Choice::Cancel => cancel_all(named).await,
                Choice::Keep => {}
            }
        }
    };
    progress.end();
    named.iter().zip(shown).map(|(one, shown)| shown.ended(one, detached)).collect()
}

async fn choose(how: &WaitHow, interrupts: u32, progress: &Progress, running: usize) -> Choice {
    let terminal = interrupt::somebody_there();
    match interrupt::settled(how.cancel_on_interrupt, interrupts, terminal) {
        Some(choice) => choice,
        None => {
            progress.hide();
            let choice = interrupt::ask(running).await;
            progress.unhide();
            choice
        }
    }
}

/// Asks for cancellation of everything; one that is done already is not changed by it.
async fn cancel_all(named: &[Named]) {
    for one in named {
        if let Err(error) = one.client.cancel(&one.name).await {
            Failure::from(error).about(&one.name).print();
        }
    }
}

async fn wait(one: &Named, shown: &mut Shown, options: &WaitOptions) {
    let api = one.api.as_deref();
    let waited = {
        let mut observe = |operation: &Operation| shown.update(operation, api);
        one.client.wait(&one.name, options, &mut observe).await
    };
    shown.error = waited.err();
    shown.finish();
}

/// The bars, or lines where there is no terminal.
struct Progress {
    bars: MultiProgress,
    lines: bool,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let draw = if quiet || !terminal {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        Self { bars: MultiProgress::with_draw_target(draw), lines: !quiet && !terminal }
    }

    fn show(&self, one: &Named) -> Shown {
        let bar = self.bars.add(ProgressBar::new(100));
        let id = printable(one.name.rsplit('/').next().unwrap_or(&one.name));
        bar.set_message(id.clone());
        bar.set_style(spinner());
        bar.enable_steady_tick(Duration::from_millis(120));
        Shown { bar, id, lines: self.lines, said: String::new(), last: None, error: None }
    }

    fn hide(&self) {
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn unhide(&self) {
        self.bars.set_draw_target(ProgressDrawTarget::stderr());
    }

    /// Takes the bars off the screen: the result says what there is to know.
    fn end(&self) {
        // A screen that cannot be cleared is left as it is.
        let _ = self.bars.clear();
    }
}

/// Before the first percentage.
fn spinner() -> ProgressStyle {
    style("{spinner} {elapsed:>4}  {wide_msg}")
}

fn bar() -> ProgressStyle {
    style("{spinner} {elapsed:>4}  [{bar:24}] {percent:>3}%  {wide_msg}").progress_chars("=> ")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One operation on the screen.
struct Shown {
    bar: ProgressBar,
    id: String,
    lines: bool,
    said: String,
    last: Option<Operation>,
    error: Option<Error>,
}

impl Shown {
    fn update(&mut self, operation: &Operation, api: Option<&str>) {
        let facts = Facts::of(operation, api);
        let state = facts.state.name().to_lowercase();
        let message = match facts.message.as_str() {
            message if !message.is_empty() && !facts.state.done() => {
                format!("{state}, {}", printable(message))
            }
            _ => state,
        };
        if let Some(percent) = facts.percent {
            self.bar.set_style(bar());
            self.bar.set_position(percent as u64);
        }
        if self.lines && message != self.said {
            // Progress that cannot be written is not missed.
            let _ = writeln!(std::io::stderr(), "{}: {message}", printable(&facts.name));
            self.said.clone_from(&message);
        }
        self.bar.set_message(format!("{message}  {}", self.id));
        self.last = Some(operation.clone());
    }

    fn finish(&self) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
    }

    fn ended(self, one: &Named, detached: bool) -> Waited {
        let state = self.last.as_ref().map_or(State::Running, Operation::state);
        let api = one.api.clone();
        let (exit, failure) = match self.error {
            Some(error) => {
                let mut failure = Failure::from(error);
                if failure.exit != Exit::Deadline {
                    failure = failure.about(&one.name);
                }
                (failure.exit, Some(failure))
            }
            None if !state.done() && detached => (Exit::Detached, Some(left_running(one))),
            None => (Exit::of_state(state), None),
        };
        Waited { last: self.last, api, exit, failure }
    }
}

fn left_running(one: &Named) -> Failure {
    Failure::new(Exit::Detached, format!("detached; {} goes on", one.name))
        .help(format!("wait again with: longhaul operations wait {}", one.name))
}
