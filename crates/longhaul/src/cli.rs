//! The command line: every command and flag, with help that begins with examples.
//!
//! Only words; what a command does is in the module of its name.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use longhaul_server::config::parse_duration;

use crate::audit;
use crate::credentials::CredentialArgs;
use crate::failure::{Exit, Failure};
use crate::logs::LogArgs;
use crate::output::{self, Format};
use crate::{auth, env, operations, tls, worker};

/// Where `longhaul dev` answers when nothing else is said, and so where commands look.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7151";

/// Examples stand before everything else.
const TEMPLATE: &str = "{about}{after-help}\n\n{usage-heading} {usage}\n\n{all-args}";

const EXAMPLES: &str = "\
Examples:
  longhaul dev                                  a server to try things with, on this machine only
  longhaul serve -c longhaul.toml               a server that keeps its operations
  longhaul worker --method M -- ./work.sh       do the work of a method with a program of yours
  longhaul operations list                      what runs and what has run
  longhaul operations wait NAME --timeout 5m    a progress bar; the exit code says how it ended
  longhaul operations cancel NAME               ask for cancellation

Exit codes:
  0 done   1 failed   2 wrong usage   3 cancelled   4 not done in time   130 detached";

const DEV_EXAMPLES: &str = "\
Examples:
  longhaul dev                                  everything in memory, port 7151
  longhaul dev --data ./.longhaul               operations survive a restart
  longhaul dev --store postgres://me@db/test    operations in a database, several servers beside each other
  longhaul dev --duration 1m --cancel-delay 5s  slower work, slower to stop
  longhaul dev --port 0 --port-file port.txt    any free port, written to a file
  longhaul dev --auth local --tls               as in production: tokens, permissions and TLS
  longhaul dev --proto ./proto                  your own API beside the bundled ones";

const SERVE_EXAMPLES: &str = "\
Examples:
  longhaul serve -c longhaul.toml";

const STORE_EXAMPLES: &str = "\
Examples:
  longhaul store copy ./longhaul-data postgres://longhaul@db.internal/longhaul
  longhaul store copy postgres://longhaul@db.internal/longhaul ./longhaul-data

Stop the servers of both first. A copy that was interrupted goes on where it was when it is repeated; until
it says that it is complete, no server opens the target.";

/// Everything that can be said on the command line.
#[derive(Debug, Parser)]
#[command(name = "longhaul", version, about = "Starts, watches, waits for and cancels long-running operations", after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to log.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server on this machine to develop and test against, with a worker that practises
    #[command(after_help = DEV_EXAMPLES)]
    Dev(DevArgs),
    /// Run a server as a configuration file says
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Bring the database that a configuration file names up to this version
    #[command(
        after_help = "Safe to repeat, and to run from several machines at once: they take turns. A server does the\nsame when it starts.\n\nExamples:\n  longhaul migrate -c longhaul.toml"
    )]
    Migrate(MigrateArgs),
    /// Copy everything from one store to another while no server has them open
    Store(StoreArgs),
    /// List, describe, wait for, cancel and delete operations of any google.longrunning server
    #[command(visible_aliases = ["ops", "op"], after_help = operations::args::EXAMPLES)]
    Operations(operations::args::OperationsArgs),
    /// Run a command for each operation of a method: any program becomes a cancellable operation
    #[command(after_help = worker::EXAMPLES)]
    Worker(worker::Args),
    /// Make and show an identity of this machine's own: accounts, tokens, a policy
    #[command(after_help = auth::EXAMPLES)]
    Auth(auth::AuthArgs),
    /// Make an authority of this machine's own, and certificates by it
    #[command(after_help = tls::EXAMPLES)]
    Tls(tls::TlsArgs),
    /// Print the variables that point each client at a server
    #[command(after_help = env::EXAMPLES)]
    Env(env::EnvArgs),
    /// Check an audit log
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::Args),
    /// Show the APIs that come with Longhaul
    Apis(ApisArgs),
    /// Ask a server whether it is ready; exit code 0 when it is
    Health(HealthArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  longhaul completions bash > ~/.local/share/bash-completion/completions/longhaul"
    )]
    Completions(CompletionsArgs),
    /// Print the version
    Version(VersionArgs),
}

impl Command {
    /// Whether its own log lines are what people look at.
    pub const fn is_server(&self) -> bool {
        match self {
            Self::Serve(_) | Self::Worker(_) => true,
            Self::Dev(_)
            | Self::Migrate(_)
            | Self::Store(_)
            | Self::Operations(_)
            | Self::Auth(_)
            | Self::Tls(_)
            | Self::Env(_)
            | Self::Audit(_)
            | Self::Apis(_)
            | Self::Health(_)
            | Self::Completions(_)
            | Self::Version(_) => false,
        }
    }
}

/// `longhaul store`.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What to do with a store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy all operations with their histories, and compare both stores; safe to repeat
    #[command(after_help = STORE_EXAMPLES)]
    Copy(CopyArgs),
}

/// `longhaul store copy`.
#[derive(Args, Debug)]
pub struct CopyArgs {
    /// A data folder, or the address of a database
    pub from: String,
    /// Where to: empty, or what a copy from the same store was begun into
    pub to: String,
    /// The schema of a database
    #[arg(long, value_name = "NAME", default_value = "longhaul")]
    pub schema: String,
}

/// `longhaul migrate`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    /// The server's configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `longhaul dev`.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// Port on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 7151, env = "LONGHAUL_PORT")]
    pub port: u16,
    /// Write the port to this file as soon as the server is ready
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// Keep operations in this folder; without it they are gone at the end
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Keep operations in this PostgreSQL database, which other servers may share
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub store: Option<String>,
    /// Whether callers are asked who they are
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub auth: DevAuth,
    /// With --auth local: the folder of "longhaul auth init"; made when there is none
    #[arg(long, value_name = "DIR", default_value = "longhaul-auth", env = "LONGHAUL_AUTH_DIR")]
    pub auth_dir: PathBuf,
    /// Speak TLS, with a certificate of this machine's own authority
    #[arg(long)]
    pub tls: bool,
    /// With --tls: the folder of "longhaul tls init"; made when there is none
    #[arg(long, value_name = "DIR", default_value = "longhaul-tls", env = "LONGHAUL_TLS_DIR")]
    pub tls_dir: PathBuf,
    /// How long the practice worker takes for an operation
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long the practice worker takes to stop after a cancel
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    pub cancel_delay: Duration,
    /// No practice worker: operations wait for a worker of yours
    #[arg(long)]
    pub no_practice: bool,
    /// Also serve the API in this folder of .proto files; may be repeated
    #[arg(long, value_name = "DIR")]
    pub proto: Vec<PathBuf>,
    /// Also serve the API in this FileDescriptorSet; may be repeated
    #[arg(long, value_name = "FILE")]
    pub api_descriptor: Vec<PathBuf>,
    /// google.api.Service YAML of an added API; one for each, descriptor sets first
    #[arg(long, value_name = "FILE")]
    pub service_config: Vec<PathBuf>,
}

/// Whether callers of `longhaul dev` are asked who they are. The other modes need to be told whose tokens or
/// certificates count, so they take a configuration, and `longhaul serve`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DevAuth {
    /// Nobody is asked; everybody may do everything
    #[default]
    Off,
    /// Callers show tokens that this server gives to the accounts of a folder
    Local,
}

/// `longhaul serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// The configuration, TOML
    #[arg(short, long, value_name = "FILE", env = "LONGHAUL_CONFIG")]
    pub config: PathBuf,
    /// Write the port to this file as soon as the server is ready
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
}

/// `longhaul apis`.
#[derive(Args, Debug)]
pub struct ApisArgs {
    /// What to show.
    #[command(subcommand)]
    pub command: ApisCommand,
    /// In which form to print
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

/// What to show of APIs.
#[derive(Debug, Subcommand)]
pub enum ApisCommand {
    /// List the bundled APIs
    List,
}

/// `longhaul health`.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// The server
    #[arg(
        long,
        value_name = "URL",
        env = "LONGHAUL_SERVER",
        default_value = DEFAULT_SERVER
    )]
    pub server: String,
    /// Who we are to it.
    #[command(flatten)]
    pub credentials: CredentialArgs,
}

/// `longhaul completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `longhaul version`.
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// In which form to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Reads the command line; prints help or what is wrong and ends the process otherwise.
pub fn parse() -> Cli {
    let mut command = command();
    let matches = command.get_matches_mut();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// Prints a completion script.
pub fn completions(args: CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "longhaul", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn command() -> clap::Command {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let plain = no_color || !std::io::stdout().is_terminal();
    let color = if plain { ColorChoice::Never } else { ColorChoice::Auto };
    examples_first(Cli::command().color(color))
}

/// Gives every command that has examples the template that shows them first.
fn examples_first(command: clap::Command) -> clap::Command {
    let command =
        if command.get_after_help().is_some() { command.help_template(TEMPLATE) } else { command };
    command.mut_subcommands(examples_first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::args::OperationsCommand;

    #[track_caller]
    fn check(line: &str) -> Result<Cli, clap::Error> {
        let matches = command().try_get_matches_from(line.split(' '))?;
        Cli::from_arg_matches(&matches)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn durations_name_their_unit_and_say_so_otherwise() {
        let Ok(Cli { command: Command::Dev(dev), .. }) =
            check("longhaul dev --duration 2m --cancel-delay 500ms")
        else {
            panic!("dev")
        };
        assert_eq!(dev.duration, Duration::from_secs(120));
        assert_eq!(dev.cancel_delay, Duration::from_millis(500));
        for wrong in ["10", "ten", "-5s", "5 parsecs", ""] {
            let line = format!("longhaul|dev|--duration|{wrong}");
            let error = command().try_get_matches_from(line.split('|')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
        let error = check("longhaul dev --duration 10").unwrap_err().to_string();
        assert!(error.contains("10s") && error.contains("ms"), "{error}");
    }

    #[test]
    fn operations_have_short_names_and_flags_may_stand_anywhere() {
        for line in [
            "longhaul operations cancel a b --wait --server http://x --project p",
            "longhaul ops --server http://x cancel a b --wait --project p",
            "longhaul op --project p cancel --wait a --server http://x b",
        ] {
            let Ok(Cli { command: Command::Operations(args), .. }) = check(line) else {
                panic!("{line}")
            };
            assert_eq!(args.target.server, "http://x");
            assert_eq!(args.target.project.as_deref(), Some("p"));
            let OperationsCommand::Cancel(cancel) = args.command else { panic!("{line}") };
            assert_eq!(
                (cancel.names.as_slice(), cancel.wait),
                (&["a".into(), "b".into()][..], true)
            );
        }
    }

    #[test]
    fn the_api_of_a_list_may_be_said_either_way() {
        for (line, listed, chosen) in [
            ("longhaul ops list dataproc", Some("dataproc"), None),
            ("longhaul ops list --api dataproc", None, Some("dataproc")),
        ] {
            let Ok(Cli { command: Command::Operations(args), .. }) = check(line) else {
                panic!("{line}")
            };
            let OperationsCommand::List(list) = args.command else { panic!("{line}") };
            assert_eq!((list.api.as_deref(), args.target.api.as_deref()), (listed, chosen));
        }
    }

    #[test]
    fn help_begins_with_examples() {
        let mut command = command();
        let help = command.find_subcommand_mut("dev").expect("there is dev").render_help();
        let help = help.to_string();
        let (examples, usage) = (help.find("Examples:"), help.find("Usage:"));
        assert!(examples.is_some() && examples < usage, "{help}");
    }

    #[test]
    fn what_is_missing_or_unknown_is_wrong_usage() {
        for line in [
            "longhaul",
            "longhaul ops wait",
            "longhaul serve",
            "longhaul dev --prot 1",
            "longhaul dev --data a --store postgres://b",
            "longhaul ops list --limit 0",
            "longhaul ops cancel",
            "longhaul ops cancel a --filter b",
            "longhaul ops cancel a --dry-run",
            "longhaul ops cancel --filter a --dry-run --wait",
        ] {
            assert_eq!(check(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
