//! What can be said to `longhaul operations`.

use std::time::Duration;

use clap::{Args, Subcommand};
use longhaul_server::config::parse_duration;

use crate::cli::DEFAULT_SERVER;
use crate::credentials::CredentialArgs;
use crate::output::Format;

/// Examples of `longhaul operations`.
pub const EXAMPLES: &str = "\
Examples:
  longhaul operations list dataproc --filter 'done = false'
  longhaul operations wait projects/p/locations/l/operations/o --timeout 5m
  longhaul operations list -o name | longhaul operations cancel - --wait
  longhaul operations cancel --api clouddeploy --filter 'metadata.verb = \"create\"' --dry-run
  longhaul ops describe o --project p --location l -o yaml
  LONGHAUL_TOKEN=\"$(gcloud auth print-access-token)\" \\
    longhaul ops list --server https://clouddeploy.googleapis.com --project p --location us-central1

A NAME is a full name, an operation's id alone (then --project and --location say where it is, or
every place is searched), or - for names from standard input, one a line.";

/// `longhaul operations`.
#[derive(Args, Debug)]
pub struct OperationsArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: OperationsCommand,
    /// Whom to ask.
    #[command(flatten)]
    pub target: TargetArgs,
    /// In which form to print
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

/// Whom to ask, and where operations are.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// The server: http or https, with a path prefix if need be
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LONGHAUL_SERVER",
        default_value = DEFAULT_SERVER,
        help_heading = "Server"
    )]
    pub server: String,
    /// Which of the server's APIs: its prefix (clouddeploy) or host (clouddeploy.googleapis.com)
    #[arg(long, global = true, value_name = "NAME", env = "LONGHAUL_API", help_heading = "Server")]
    pub api: Option<String>,
    /// Version of the API in its paths
    #[arg(
        long,
        global = true,
        value_name = "VERSION",
        default_value = "v1",
        help_heading = "Server"
    )]
    pub api_version: String,
    /// Who we are to it.
    #[command(flatten)]
    pub credentials: CredentialArgs,
    /// Project of the operations; - means all
    #[arg(
        long,
        global = true,
        value_name = "ID",
        env = "LONGHAUL_PROJECT",
        help_heading = "Where"
    )]
    pub project: Option<String>,
    /// Location of the operations; - means all
    #[arg(
        long,
        global = true,
        value_name = "ID",
        env = "LONGHAUL_LOCATION",
        help_heading = "Where"
    )]
    pub location: Option<String>,
    /// Region of the operations, for APIs that call it so, such as Dataproc
    #[arg(
        long,
        global = true,
        value_name = "ID",
        conflicts_with = "location",
        help_heading = "Where"
    )]
    pub region: Option<String>,
}

/// What to do with operations.
#[derive(Debug, Subcommand)]
pub enum OperationsCommand {
    /// List operations, newest first
    List(ListArgs),
    /// Show one operation in full
    #[command(visible_alias = "get")]
    Describe(DescribeArgs),
    /// Wait until operations are done; the exit code says how they ended
    Wait(WaitArgs),
    /// Ask for cancellation
    Cancel(CancelArgs),
    /// Forget operations; does not stop them
    Delete(NamesArgs),
}

/// `longhaul operations list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// The API, as with --api
    #[arg(id = "list_api", value_name = "API")]
    pub api: Option<String>,
    /// Only what fits, as AIP-160 writes it, such as 'done = false'
    #[arg(long, default_value = "", hide_default_value = true)]
    pub filter: String,
    /// Most operations to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Operations to ask for at once; 0 leaves it to the server
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub page_size: u32,
    /// In a list over all locations, leave out those that cannot be reached, and name them
    #[arg(long)]
    pub partial: bool,
}

/// `longhaul operations describe`.
#[derive(Args, Debug)]
pub struct DescribeArgs {
    /// The operation
    pub name: String,
}

/// `longhaul operations delete`.
#[derive(Args, Debug)]
pub struct NamesArgs {
    /// The operations
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// `longhaul operations wait`.
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// The operations
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// How to wait.
    #[command(flatten)]
    pub how: WaitHow,
}

/// `longhaul operations cancel`.
#[derive(Args, Debug)]
pub struct CancelArgs {
    /// The operations
    #[arg(required_unless_present = "filter", conflicts_with = "filter", value_name = "NAME")]
    pub names: Vec<String>,
    /// Instead of names: every operation of --api that fits and is not done, as AIP-160 writes it, such as
    /// 'metadata.verb = "create"'; an empty text fits all. Needs a Longhaul server
    #[arg(long)]
    pub filter: Option<String>,
    /// Only operations under this parent, where - stands for any; else as --project and --location say
    #[arg(long, conflicts_with = "names")]
    pub parent: Option<String>,
    /// Only count and show what would be asked
    #[arg(long, conflicts_with_all = ["names", "wait"])]
    pub dry_run: bool,
    /// Why; workers and the record get to know it. Needs a Longhaul server
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Then wait until they are done
    #[arg(long)]
    pub wait: bool,
    /// How to wait.
    #[command(flatten)]
    pub how: WaitHow,
}

/// How to wait.
#[derive(Args, Clone, Debug)]
pub struct WaitHow {
    /// Give up after this long, with exit code 4; the operation goes on
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// On Ctrl-C ask for cancellation and wait on; a second Ctrl-C detaches
    #[arg(long)]
    pub cancel_on_interrupt: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}
