//! Runs a command beside a PostgreSQL of its own.

use std::process::Command;

use super::postgres::{Postgres, url_by};

/// The variable that says where it is.
const VARIABLE: &str = "LONGHAUL_TEST_POSTGRES";

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
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
    let url = url_by(postgres.port(), "test");
    let status = Command::new(&args.command[0])
        .args(&args.command[1..])
        .env(VARIABLE, url)
        .status()
        .map_err(|error| format!("cannot run {}: {error}", args.command[0]))?;
    drop(postgres);
    match status.code() {
        Some(0) => Ok(()),
        code => std::process::exit(code.unwrap_or(1)),
    }
}
