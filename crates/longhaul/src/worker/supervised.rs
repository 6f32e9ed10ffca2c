//! The worker's side of a supervisor: starts it, gives orders, hears what it tells.
//!
//! A supervisor that was itself killed leaves its command to the worker, which is a subreaper, too:
//! [`Supervisors::clear_away`] ends what such a one left behind.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::processes;
use super::words::{Notice, Order, SUPERVISOR, Start, line};

/// This program, even when its file has been replaced.
const MYSELF: &str = "/proc/self/exe";
/// Variables of the worker's own that would tell a command something wrong, or too much.
const NOT_PASSED_ON: [&str; 4] =
    ["LONGHAUL_CLEANUP", "LONGHAUL_EXTERNAL_REF", "LONGHAUL_TOKEN", "TRACEPARENT"];
/// Pauses between two rounds of clearing away.
const ROUNDS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// The supervisors that this worker knows to live.
#[derive(Clone, Debug, Default)]
pub struct Supervisors {
    living: Arc<Mutex<HashSet<Pid>>>,
}

/// One running supervisor. Dropping it kills the command.
pub struct Supervised {
    supervisors: Supervisors,
    /// `None` once somebody else waits for it.
    child: Option<Child>,
    orders: OwnedWriteHalf,
    notices: Lines<BufReader<OwnedReadHalf>>,
}

/// What a supervisor runs.
pub struct Run<'a> {
    /// Full name of the operation.
    pub operation: &'a str,
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// Its environment beyond the worker's own.
    pub environment: Vec<(&'static str, String)>,
    /// The checkpoint folder's lock, held for as long as anything of the command lives.
    pub lock: File,
    /// How to run it.
    pub start: Start,
}

impl Supervisors {
    /// Makes this process the parent of what a killed supervisor leaves behind.
    pub fn new() -> io::Result<Self> {
        processes::become_subreaper()?;
        if !Path::new(MYSELF).exists() {
            return Err(io::Error::other("there is no /proc, where processes are found"));
        }
        Ok(Self::default())
    }

    /// Starts a supervisor and its command.
    pub async fn start(&self, run: Run<'_>) -> io::Result<Supervised> {
        let (here, there) = UnixStream::pair()?;
        let there: OwnedFd = there.into_std()?.into();
        let mut command = Command::new(MYSELF);
        command.arg0("longhaul").arg(SUPERVISOR).arg(run.operation).args(run.command);
        for name in NOT_PASSED_ON {
            command.env_remove(name);
        }
        command.envs(run.environment);
        command.stdin(there).stdout(run.lock).stderr(Stdio::inherit());
        let child = self.spawn(&mut command)?;
        drop(command);
        let (notices, orders) = here.into_split();
        let notices = BufReader::new(notices).lines();
        let supervisors = self.clone();
        let child = Some(child);
        let mut supervised = Supervised { supervisors, child, orders, notices };
        supervised.order(&Order::Start(run.start)).await?;
        Ok(supervised)
    }

    /// Held together, so that nobody takes a newborn supervisor for something left behind.
    fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut living = self.living();
        let child = command.spawn()?;
        living.extend(pid(&child));
        Ok(child)
    }

    /// Waits for a supervisor's own end.
    async fn see_off(&self, mut child: Child) {
        let pid = pid(&child);
        if let Err(error) = child.wait().await {
            tracing::warn!(%error, "a supervisor's end could not be seen");
        }
        if let Some(pid) = pid {
            self.living().remove(&pid);
        }
    }

    fn living(&self) -> MutexGuard<'_, HashSet<Pid>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills what killed supervisors left behind, and returns when nothing of it is left.
    pub async fn clear_away(&self) {
        let mut pause = ROUNDS.0;
        while self.kill_round() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ROUNDS.1);
        }
    }

    /// True when something was found.
    fn kill_round(&self) -> bool {
        let living = self.living();
        let left = processes::below(getpid(), &living);
        for process in &left {
            if process.zombie {
                processes::reap_one(process.pid);
            } else {
                // What may not be killed is waited for.
                let _ = processes::signal(process, Signal::KILL);
            }
        }
        !left.is_empty()
    }
}

impl Supervised {
    /// Gives an order. Fails when the supervisor is gone.
    pub async fn order(&mut self, order: &Order) -> io::Result<()> {
        self.orders.write_all(&line(order)?).await
    }

    /// The next notice; `None` when the supervisor is gone. May be dropped and called again.
    pub async fn notice(&mut self) -> Option<Notice> {
        let line = self.notices.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Waits for the supervisor's own end.
    pub async fn ended(mut self) {
        if let Some(child) = self.child.take() {
            self.supervisors.see_off(child).await;
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        if let Ok(kill) = line(&Order::Kill) {
            // If it cannot be written, the end of the stream says the same, more slowly.
            let _ = self.orders.try_write(&kill);
        }
        // It lives until it has done its work. Without a runtime the worker is about to end, too.
        if let Ok(runtime) = Handle::try_current() {
            let supervisors = self.supervisors.clone();
            runtime.spawn(async move { supervisors.see_off(child).await });
        }
    }
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}
