//! The longhaul command: a server, and a client of any operations server.
//!
//! Owns flags, what is printed, and exit codes. Everything else is asked of `longhaul-server` and
//! `longhaul-client`; this crate knows no rule about operations.

mod apis;
mod audit;
mod auth;
mod cli;
mod credentials;
mod dev;
mod env;
mod failure;
mod files;
mod health;
mod logs;
mod migrate;
mod operations;
mod output;
mod practice;
mod serve;
mod store;
mod tls;
mod version;
mod worker;

use std::process::ExitCode;

use crate::cli::Command;
use crate::failure::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(exit) = worker::entry() {
        return exit;
    }
    let cli = cli::parse();
    logs::start(&cli.logs, cli.command.is_server());
    let result = match cli.command {
        Command::Dev(args) => dev::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Store(args) => store::run(args),
        Command::Operations(args) => operations::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Auth(args) => auth::run(args),
        Command::Tls(args) => tls::run(args),
        Command::Env(args) => env::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Apis(args) => apis::run(args),
        Command::Health(args) => health::run(args),
        Command::Completions(args) => cli::completions(args),
        Command::Version(args) => version::run(args),
    };
    let exit = result.unwrap_or_else(|failure| {
        failure.print();
        failure.exit
    });
    exit.into()
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
