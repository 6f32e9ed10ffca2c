//! Runs a command beside a PostgreSQL of its own.

use std::process::Command;

use super::pooler::Pooler;
use super::postgres::{Postgres, url_by};

/// The variable that says where it is.
const VARIABLE: &str = "LONGHAUL_TEST_POSTGRES";
/// The variable that says where the authorities of its certificate are.
const TLS_VARIABLE: &str = "LONGHAUL_TEST_POSTGRES_TLS";
/// The variable that says where the pooler is, when there is one.
const POOLER_VARIABLE: &str = "LONGHAUL_TEST_POOLER";

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also start a PgBouncer that gives connections to transactions, where that is installed; its address
    /// is in LONGHAUL_TEST_POOLER.
    #[arg(long)]
    pooler: bool,
    /// The command and its arguments. Gets the address of an empty database in LONGHAUL_TEST_POSTGRES.
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// Starts the database, runs the command, ends the database, and ends as the command did. Without
/// PostgreSQL nothing is run, which counts as one skipped.
#[allow(clippy::print_stdout, reason = "what this command is for")]
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = runtime.block_on(Postgres::begin());
    let Some(postgres) = begun.map_err(|error| -> Box<dyn std::error::Error> { error })? else {
        println!("SKIPPED: PostgreSQL is not installed");
        println!("0 passed, 0 failed, 1 skipped");
        return Ok(());
    };
    postgres.create("test").map_err(|error| -> Box<dyn std::error::Error> { error })?;
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]).env(VARIABLE, url_by(postgres.port(), "test"));
    command.env(TLS_VARIABLE, postgres.authorities());
    let pooler = if args.pooler {
        let begun = runtime.block_on(Pooler::begin(postgres.port()));
        begun.map_err(|error| -> Box<dyn std::error::Error> { error })?
    } else {
        None
    };
    if let Some(pooler) = &pooler {
        command.env(POOLER_VARIABLE, url_by(pooler.port(), "test"));
    }
    let status =
        command.status().map_err(|error| format!("cannot run {}: {error}", args.command[0]))?;
    drop(pooler);
    drop(postgres);
    match status.code() {
        Some(0) => Ok(()),
        code => std::process::exit(code.unwrap_or(1)),
    }
}
