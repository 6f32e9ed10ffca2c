//! `longhaul worker`: any program becomes a cancellable operation.
//!
//! Owns the flags, the signals and the worker's own life. `handler.rs` is one run of the command,
//! `supervise.rs` the process that answers for it. See `docs/decisions/0007-command-worker.md`.

mod folders;
mod handler;
mod outcome;
mod pipes;
mod processes;
mod said;
mod served;
mod supervise;
mod supervised;
mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use longhaul_client::Credentials;
use longhaul_client::operations::Client;
use longhaul_client::worker::{Error, Grpc, Options, Worker};
use longhaul_server::config::parse_duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::credentials::CredentialArgs;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::serve::on_all_threads;

use folders::Folders;
use handler::Commanded;
use outcome::Judge;
use served::Served;
use supervised::Supervisors;

pub use supervise::entry;

/// Longest grace: beyond it, nobody would call that a stop.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Time beyond the grace in which a killed command's end is seen and reported.
const AFTER_GRACE: Duration = Duration::from_secs(5);

/// Examples in the help.
pub const EXAMPLES: &str = "\
Examples:
  longhaul worker --api clouddeploy --method CreateRelease -- ./release.sh
  longhaul worker --proto ./proto --method ImportBooks --slots 4 --grace 1m -- python3 import.py

The command reads the request as JSON from standard input and writes the response as JSON to
standard output; without one, a response is made of the request. Exit code 0 is success. Lines
on file descriptor 3 such as '40 copying' or 'step 2/10' are progress. To cancel, its process
group gets SIGTERM, and after the grace SIGKILL. LONGHAUL_OPERATION, LONGHAUL_CHECKPOINT_DIR
and others are in its environment.";

/// `longhaul worker`.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The API: its prefix (clouddeploy) or host; may be left out for one of your own
    #[arg(long, value_name = "NAME")]
    pub api: Option<String>,
    /// The method, such as CreateRelease or library.v1.Library/ImportBooks; may be repeated
    #[arg(long, value_name = "METHOD", required = true)]
    pub method: Vec<String>,
    /// Your own API: a folder of .proto files
    #[arg(long, value_name = "DIR", conflicts_with = "api_descriptor", help_heading = "Your API")]
    pub proto: Option<PathBuf>,
    /// Your own API: a FileDescriptorSet
    #[arg(long, value_name = "FILE", help_heading = "Your API")]
    pub api_descriptor: Option<PathBuf>,
    /// google.api.Service YAML of your own API
    #[arg(long, value_name = "FILE", help_heading = "Your API")]
    pub service_config: Option<PathBuf>,
    /// Only operations of this queue; may be repeated
    #[arg(long, value_name = "NAME")]
    pub queue: Vec<String>,
    /// Operations at once; each is a process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub slots: u16,
    /// Time from SIGTERM to SIGKILL
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = grace)]
    pub grace: Duration,
    /// Silence after which the server gives an operation to another worker
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub lease: Duration,
    /// Where checkpoint folders are [default: $STATE_DIRECTORY, $XDG_STATE_HOME/longhaul or ~/.local/state/longhaul]
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: Option<PathBuf>,
    /// Exit codes after which another attempt may succeed
    #[arg(long, value_name = "CODE", value_delimiter = ',', default_value = "75", value_parser = clap::value_parser!(i32).range(1..=255))]
    pub retryable_exit: Vec<i32>,
    /// The command also cleans up after lost attempts: it is run with LONGHAUL_CLEANUP=1
    #[arg(long)]
    pub cleanup: bool,
    /// The server
    #[arg(
        long,
        value_name = "URL",
        env = "LONGHAUL_SERVER",
        default_value = crate::cli::DEFAULT_SERVER,
        help_heading = "Server"
    )]
    pub server: String,
    /// Who we are to it.
    #[command(flatten)]
    pub credentials: CredentialArgs,
    /// The worker's name [default: the host's name and the process id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Works until a signal, or until the server refuses.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let served = served::find(&args)?;
    if let Some(program) = args.command.first() {
        served::check_program(program)?;
    }
    let folders = folders(args.checkpoint_dir.as_deref())?;
    let credentials = args.credentials.read()?;
    on_all_threads(async move {
        let options = options(&args, &served);
        let banner = banner(&args, &options, &served);
        let handler = Commanded {
            served: served.into_iter().map(|one| (one.full_name().to_owned(), one)).collect(),
            command: args.command,
            supervisors: Supervisors::new()
                .map_err(|error| Failure::new(Exit::Failed, format!("no worker here: {error}")))?,
            folders,
            judge: Judge { retryable: args.retryable_exit, cleanup: args.cleanup },
            grace: args.grace,
            lease: args.lease,
            mark: args.slots > 1,
            server: args.server.clone(),
        };
        let link = Grpc::connect_with(&args.server, &credentials).map_err(failed)?;
        let worker = Worker::new(options, link, handler).map_err(failed)?;
        output::print(&banner)?;
        tokio::spawn(say_if_away(args.server, credentials));
        work(worker).await
    })
}

fn grace(text: &str) -> Result<Duration, String> {
    let grace = parse_duration(text)?;
    if grace <= GRACE_MAX { Ok(grace) } else { Err("at most 24h are possible".to_owned()) }
}

/// The first signal lets the commands stop and gives their operations back, the second ends at once;
/// then the supervisors see to their commands.
async fn work(worker: Worker) -> Result<Exit, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = CancellationToken::new();
    let mut working = std::pin::pin!(worker.run(shutdown.clone()));
    loop {
        tokio::select! {
            ended = &mut working => return ended.map(|()| Exit::Done).map_err(failed),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if shutdown.is_cancelled() {
            return Err(Failure::new(Exit::Failed, "stopped at once, on a second signal"));
        }
        tracing::info!("stopping; a second signal stops at once");
        shutdown.cancel();
    }
}

fn options(args: &Args, served: &[Served]) -> Options {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let name = args.name.clone().unwrap_or_else(|| format!("{host}/{}", std::process::id()));
    Options {
        name,
        methods: served.iter().map(|one| one.full_name().to_owned()).collect(),
        queues: args.queue.clone(),
        slots: usize::from(args.slots),
        lease: args.lease,
        sessions: true,
        drain: Duration::ZERO,
        grace: args.grace + AFTER_GRACE,
    }
}

fn folders(given: Option<&Path>) -> Result<Folders, Failure> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = given.map(Path::to_owned).or_else(|| {
        let state = variable("XDG_STATE_HOME");
        let state = state.or_else(|| Some(variable("HOME")?.join(".local/state")));
        let state = variable("STATE_DIRECTORY").or_else(|| Some(state?.join("longhaul")));
        Some(state?.join("checkpoints"))
    });
    let root = root.ok_or_else(|| {
        Failure::usage("there is no home to keep checkpoints in")
            .help("say where: --checkpoint-dir DIR")
    })?;
    Folders::open(&root).map_err(|error| {
        Failure::usage(format!("cannot keep checkpoints in {}: {error}", root.display()))
    })
}

/// A worker goes on asking a server that is not there; somebody should know.
async fn say_if_away(server: String, credentials: Credentials) {
    let asked = async { Client::connect_with(&server, &credentials)?.probe("readyz").await };
    if let Err(error) = asked.await {
        tracing::warn!(server, %error, "the server does not answer; going on to ask it");
    }
}

fn banner(args: &Args, options: &Options, served: &[Served]) -> String {
    let methods: Vec<&str> = served.iter().map(Served::full_name).collect();
    let command: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
    format!(
        "  Worker   {} · {} at once · {}\n  Methods  {}\n  Command  {}\n",
        options.name,
        options.slots,
        args.server,
        methods.join(" · "),
        output::printable(&command.join(" "))
    )
}

fn failed(error: Error) -> Failure {
    let exit = match error {
        Error::InvalidArgument(_) => Exit::Usage,
        Error::Refused(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::try_parse_from(["worker"].into_iter().chain(line.split(' '))).unwrap().args
    }

    #[test]
    fn everything_behind_the_dashes_is_the_commands() {
        let args = args("--api clouddeploy --method CreateTarget -- ./work.sh --slots 7 -- x");
        assert_eq!(args.command, ["./work.sh", "--slots", "7", "--", "x"]);
        assert_eq!((args.slots, args.grace), (1, Duration::from_secs(30)));
        assert_eq!(args.retryable_exit, [75]);
    }

    #[test]
    fn a_method_may_be_said_in_many_ways() {
        for name in [
            "CreateTarget",
            "CloudDeploy.CreateTarget",
            "google.cloud.deploy.v1.CloudDeploy.CreateTarget",
            "google.cloud.deploy.v1.CloudDeploy/CreateTarget",
            "/google.cloud.deploy.v1.CloudDeploy/CreateTarget",
        ] {
            let found = served::find(&args(&format!("--api clouddeploy --method {name} -- true")));
            let names: Vec<_> =
                found.unwrap().iter().map(|one| one.full_name().to_owned()).collect();
            assert_eq!(names, ["google.cloud.deploy.v1.CloudDeploy.CreateTarget"]);
        }
        for name in ["Target", "GetTarget", "eploy.CreateTarget", ""] {
            let line = format!("--api clouddeploy --method {name} -- true");
            let failure = served::find(&args(&line)).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{name}");
            assert!(failure.text().contains("CreateTarget"), "{}", failure.text());
        }
    }
}
