//! What stands in for one `longhaul dev`: several of them on a PostgreSQL of their own, behind a plain TCP
//! round robin. Whoever uses it must not be able to tell.
//!
//! The practice worker sits on the first server only, so that most of what clients ask has to come from
//! another one. Owns processes and how they end, not what they do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::postgres::{Postgres, url_by};
use super::{RoundRobin, ready};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long a server may take until it listens. The first makes the schema.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a server may take to end.
const STOP_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Servers behind the round robin.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    servers: u8,
    /// Write the round robin's port to this file as soon as every server is ready.
    #[arg(long, value_name = "FILE")]
    port_file: PathBuf,
    /// The server; by default the build beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Flags of `longhaul dev`.
    #[arg(last = true)]
    flags: Vec<String>,
}

/// Serves until SIGTERM or SIGINT. Fails when a server does not become ready, ends before it is asked to,
/// or does not end in order. Without PostgreSQL nothing is run, which counts as one skipped.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(args));
    runtime.shutdown_background();
    served.map_err(|error| -> Box<dyn std::error::Error> { error })
}

#[allow(clippy::print_stdout, reason = "what this command is for")]
async fn serve(args: &Args) -> Result<(), Error> {
    // From here on a signal is not the end of this process, and so not of the database without us.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let Some(postgres) = Postgres::begin().await? else {
        println!("SKIPPED: PostgreSQL is not installed");
        println!("0 passed, 0 failed, 1 skipped");
        return Ok(());
    };
    postgres.create("dev")?;
    let mut servers = Vec::new();
    let served = tokio::select! {
        served = beside(args, &postgres, &mut servers) => served,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    let mut stopped = Ok(());
    for server in &mut servers {
        ask_to_end(server).await?;
    }
    for (number, server) in servers.iter_mut().enumerate() {
        stopped = stopped.and(ended(number, server).await);
    }
    served.and(stopped)
}

/// Starts the servers and the round robin, and returns only with what went wrong.
async fn beside(args: &Args, postgres: &Postgres, servers: &mut Vec<Child>) -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let beside = std::env::current_exe()?.with_file_name("longhaul");
    let binary = args.binary.clone().unwrap_or(beside);
    let mut addresses = Vec::new();
    for number in 0..usize::from(args.servers) {
        let port_file = folder.path().join(number.to_string());
        let mut command = Command::new(&binary);
        command.args(["dev", "--port", "0", "--store", &url_by(postgres.port(), "dev")]);
        command.arg("--port-file").arg(&port_file).args(&args.flags);
        if number > 0 {
            command.arg("--no-practice");
        }
        let spawned = command.stdin(Stdio::null()).kill_on_drop(true).spawn();
        servers.push(spawned.map_err(|error| format!("cannot run {}: {error}", binary.display()))?);
        let started = timeout(START_MAX, listening(&port_file, &mut servers[number])).await;
        let address = started.map_err(|_| format!("server {number} does not listen in time"))??;
        ready(address).await?;
        addresses.push(Some(address));
    }
    let door = RoundRobin::over(addresses).await;
    let half = args.port_file.with_extension("tmp");
    std::fs::write(&half, format!("{}\n", door.address.port()))?;
    std::fs::rename(&half, &args.port_file)?;
    loop {
        for (number, server) in servers.iter_mut().enumerate() {
            if let Some(status) = server.try_wait()? {
                return Err(format!("server {number} ended by itself: {status}").into());
            }
        }
        sleep(LOOK_EVERY * 10).await;
    }
}

/// Where a server listens.
async fn listening(port_file: &Path, server: &mut Child) -> Result<SocketAddr, Error> {
    loop {
        if let Ok(text) = std::fs::read_to_string(port_file) {
            return Ok(SocketAddr::from(([127, 0, 0, 1], text.trim().parse()?)));
        }
        if let Some(status) = server.try_wait()? {
            return Err(format!("a server ended before it listened: {status}").into());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// SIGTERM, as a service manager sends it; nothing when it has ended.
async fn ask_to_end(server: &Child) -> Result<(), Error> {
    let Some(id) = server.id() else { return Ok(()) };
    Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
    Ok(())
}

async fn ended(number: usize, server: &mut Child) -> Result<(), Error> {
    let waited = timeout(STOP_MAX, server.wait()).await;
    let Ok(status) = waited else {
        server.kill().await?;
        return Err(format!("server {number} still ran {STOP_MAX:?} after SIGTERM").into());
    };
    let status: ExitStatus = status?;
    if status.success() { Ok(()) } else { Err(format!("server {number} ended: {status}").into()) }
}
