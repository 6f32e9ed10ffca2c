//! The supervisor: a process of its own for each running command, which ends only when the command and
//! everything that came of it are gone.
//!
//! It is the command's subreaper, so nothing can slip away by forking twice or by taking a session of
//! its own; and it outlives the worker for as long as it takes to end the command. Owns the command's
//! pipes and signals. Knows no operation and no server: it hears orders and tells what it saw.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::pipes::{self, Pipes};
use super::processes;
use super::words::{End, Ended, Notice, Order, SUPERVISOR, Start, line};

/// Pauses between two rounds of killing, for what a round missed or could not kill.
const ROUNDS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// How often what outlives its command is asked to end.
const REMIND_EVERY: Duration = Duration::from_secs(1);
/// How long the ends of the pipes are waited for once every process is gone. Only a process that was
/// handed a pipe from outside can still hold one.
const PIPES_TIME: Duration = Duration::from_secs(1);
/// Notices that may wait for the worker before the command's descriptor 3 has to.
const NOTICES_MAX: usize = 16;

/// Runs as a supervisor if that is what the command line asks for.
pub fn entry() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != SUPERVISOR {
        return None;
    }
    let _operation = arguments.next();
    let program = arguments.next()?;
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(supervise(program, arguments.collect())));
    Some(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told when this fails.
            let _ = writeln!(io::stderr(), "longhaul: a command's supervisor broke: {error}");
            ExitCode::FAILURE
        }
    })
}

/// How far the command's end has got.
enum Stage {
    Running,
    /// SIGTERM was sent; SIGKILL follows at this moment.
    Stopping(Instant),
    /// SIGKILL is sent, in rounds; the next one at this moment, and the pause after it.
    Killing(Instant, Duration),
}

struct Supervisor {
    stage: Stage,
    start: Start,
    /// The command itself, until it has ended.
    command: Pid,
    end: Option<End>,
    told: bool,
    killed: bool,
    /// When what outlived the command is asked again to end.
    reminder: Option<Instant>,
    /// When the worker was last heard; `None` once it counts as dead.
    heard: Option<Instant>,
}

async fn supervise(program: OsString, arguments: Vec<OsString>) -> io::Result<()> {
    // Out of the worker's session, so that Ctrl-C there is the worker's to pass on. It fails only for the
    // leader of a group, which is out of it already.
    let _ = rustix::process::setsid();
    processes::become_subreaper()?;
    let stream = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    let (from_worker, to_worker) = UnixStream::from_std(stream)?.into_split();
    let mut orders = BufReader::new(from_worker).lines();
    // Whoever wants an end of this tells the worker; the command must never be left alone.
    let _deaf = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind));
    let mut children = signal(SignalKind::child())?;
    let Some(Order::Start(start)) = next_order(&mut orders).await else { return Ok(()) };
    let (notices, waiting) = mpsc::channel(NOTICES_MAX);
    let writer = tokio::spawn(write(to_worker, waiting));
    match pipes::spawn(&program, &arguments) {
        Err(error) => {
            let message = format!("{}: {error}", program.to_string_lossy());
            let _ = notices.send(Notice::NotStarted(message)).await;
        }
        Ok((command, pipes)) => {
            let ended = run(command, pipes, start, &mut orders, &mut children, &notices).await;
            let _ = notices.send(Notice::Ended(ended)).await;
        }
    }
    drop(notices);
    // Fails when the worker is gone, which is no reason to stay.
    let _ = writer.await;
    Ok(())
}

async fn next_order(orders: &mut Lines<BufReader<OwnedReadHalf>>) -> Option<Order> {
    let line = orders.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

/// Passes notices on for as long as somebody reads them.
async fn write(mut to_worker: OwnedWriteHalf, mut notices: mpsc::Receiver<Notice>) {
    let mut listening = true;
    while let Some(notice) = notices.recv().await {
        if listening && let Ok(line) = line(&notice) {
            listening = to_worker.write_all(&line).await.is_ok();
        }
    }
}

/// Runs the command to its end, whoever brings it about.
async fn run(
    command: Pid,
    pipes: Pipes,
    start: Start,
    orders: &mut Lines<BufReader<OwnedReadHalf>>,
    children: &mut tokio::signal::unix::Signal,
    notices: &mpsc::Sender<Notice>,
) -> Ended {
    let mut flow = pipes.flow(&start.input, &start.prefix, notices.clone());
    let mut supervisor = Supervisor {
        stage: Stage::Running,
        start,
        command,
        end: None,
        told: false,
        killed: false,
        reminder: None,
        heard: Some(Instant::now()),
    };
    // A child that ended before its signal was listened for is seen here.
    let mut gone = supervisor.look();
    while !gone {
        let due = supervisor.due();
        tokio::select! {
            biased;
            _ = children.recv() => gone = supervisor.look(),
            order = next_order(orders), if supervisor.heard.is_some() => match order {
                Some(Order::Answer(answer)) => flow.answer(&answer),
                Some(order) => supervisor.obey(&order),
                None => supervisor.orphaned(),
            },
            () = flow.too_much.notified() => supervisor.stop(supervisor.grace()),
            () = sleep_until(due) => {
                supervisor.come_due();
                gone = supervisor.look();
            }
        }
    }
    // Whoever still holds a pipe after that is no process of the command.
    let _ = timeout(PIPES_TIME, flow.closed()).await;
    let (output, errors) = flow.take();
    Ended {
        // Nothing is left, so the command has ended; how, only the system could have lost.
        end: supervisor.end.unwrap_or(End::Signalled(Signal::KILL.as_raw())),
        told: supervisor.told,
        killed: supervisor.killed,
        output,
        errors,
    }
}

impl Supervisor {
    fn grace(&self) -> Duration {
        Duration::from_millis(self.start.grace_ms)
    }

    /// Takes away what has ended; true when nothing is left.
    fn look(&mut self) -> bool {
        let reaped = processes::reap();
        let ended = reaped.ended.iter().find(|(pid, _)| *pid == self.command && self.end.is_none());
        let first = ended.is_some();
        self.end = self.end.or(ended.map(|(_, end)| *end));
        if reaped.none_left {
            return true;
        }
        match self.stage {
            // What the command left running is of no use to anybody.
            Stage::Running if first => {
                self.stage = Stage::Stopping(Instant::now() + self.grace());
                self.remind();
            }
            Stage::Stopping(_) if first => self.remind(),
            // A process that was killed may have left children that nobody has killed yet.
            Stage::Killing(..) => self.kill(),
            Stage::Running | Stage::Stopping(_) => {}
        }
        false
    }

    /// Asks what outlives the command to end, again and again: a shell's child that has not become another
    /// program yet takes a signal for its shell's and forgets it.
    fn remind(&mut self) {
        self.terminate();
        self.reminder = Some(Instant::now() + REMIND_EVERY);
    }

    /// When something has to be done though nothing is heard.
    fn due(&self) -> Instant {
        let silence = Duration::from_millis(self.start.silence_ms);
        let dead = self.heard.map(|heard| heard + silence);
        let next = match self.stage {
            Stage::Running => None,
            Stage::Stopping(until) => Some(until),
            Stage::Killing(next, _) => Some(next),
        };
        let far = Instant::now() + Duration::from_secs(3600);
        dead.into_iter().chain(next).chain(self.reminder).min().unwrap_or(far)
    }

    fn come_due(&mut self) {
        let now = Instant::now();
        let silence = Duration::from_millis(self.start.silence_ms);
        if self.heard.is_some_and(|heard| heard + silence <= now) {
            self.orphaned();
        }
        match self.stage {
            Stage::Stopping(until) if until <= now => {
                self.stage = Stage::Killing(now, ROUNDS.0);
                self.reminder = None;
                self.kill();
            }
            Stage::Stopping(_) if self.reminder.is_some_and(|next| next <= now) => self.remind(),
            Stage::Killing(next, pause) if next <= now => {
                self.kill();
                self.stage = Stage::Killing(now + pause, (pause * 2).min(ROUNDS.1));
            }
            Stage::Running | Stage::Stopping(_) | Stage::Killing(..) => {}
        }
    }

    fn obey(&mut self, order: &Order) {
        self.heard = Some(Instant::now());
        match order {
            Order::Stop(grace_ms) => self.stop(Duration::from_millis(*grace_ms)),
            Order::Kill => self.stop(Duration::ZERO),
            Order::Start(_) | Order::Alive | Order::Answer(_) => {}
        }
    }

    /// The worker is dead, or as good as dead: somebody else may soon be given the operation.
    fn orphaned(&mut self) {
        self.heard = None;
        self.stop(Duration::from_millis(self.start.orphan_grace_ms).min(self.grace()));
    }

    /// Asks everything to end, and sees to it when `grace` is over.
    fn stop(&mut self, grace: Duration) {
        let until = Instant::now() + grace;
        match &mut self.stage {
            Stage::Running => {
                self.told = self.end.is_none();
                self.terminate();
                self.stage = Stage::Stopping(until);
            }
            Stage::Stopping(earlier) => *earlier = until.min(*earlier),
            Stage::Killing(..) => {}
        }
    }

    /// SIGTERM to the command's group and to everything that has left it; SIGCONT, so that what is
    /// suspended can hear it.
    fn terminate(&self) {
        let group = self.command;
        // As long as it has not been taken away, no other group can have its number.
        let whole = self.end.is_none();
        if whole {
            let _ = kill_process_group(group, Signal::TERM);
            let _ = kill_process_group(group, Signal::CONT);
        }
        for process in processes::below(getpid(), &HashSet::new()) {
            let reached = whole && process.group == group.as_raw_nonzero().get();
            if !reached && !process.zombie {
                // What cannot be asked will be killed.
                let _ = processes::signal(&process, Signal::TERM);
                let _ = processes::signal(&process, Signal::CONT);
            }
        }
    }

    /// One round of SIGKILL.
    fn kill(&mut self) {
        let mut alive = processes::below(getpid(), &HashSet::new());
        alive.retain(|process| !process.zombie);
        self.killed |= !alive.is_empty();
        if self.end.is_none() {
            let _ = kill_process_group(self.command, Signal::KILL);
        }
        for process in alive {
            // What may not be killed, such as a command of another user, is waited for.
            let _ = processes::signal(&process, Signal::KILL);
        }
    }
}
