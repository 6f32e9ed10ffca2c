//! Automation in Rust: one subcommand per task. Owns only the command line.

mod bench;
mod chaos;
mod codegen;
mod errors_page;
mod rig;
mod tidy;

use clap::Parser;

/// Automation for whoever works on Longhaul.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Checks what no compiler checks: arrows, sizes, headers, names in documents, tests' manners.
    Tidy,
    /// Writes docs/errors.md from the closed list of reasons.
    Errors(errors_page::Args),
    /// Makes the bundled descriptor sets again, byte for byte.
    Codegen(codegen::Args),
    /// Measures starts, round trips, gets and lists beside the disk's and the stack's ceilings.
    Bench(bench::Args),
    /// Breaks servers, database and connections under load, and judges what clients and workers saw.
    Chaos(chaos::Args),
    /// Measures how long a cancel takes from one server to a worker's session on another.
    CancelLatency(chaos::latency::Args),
    /// Runs a command beside a PostgreSQL of its own, whose address is in LONGHAUL_TEST_POSTGRES.
    Postgres(rig::command::Args),
    /// Runs `longhaul dev` on a PostgreSQL of its own, as several servers behind a round robin, until SIGTERM.
    Fleet(rig::fleet::Args),
    /// Serves the stack's ceiling for a benchmark.
    #[command(name = bench::HELLO_COMMAND, hide = true)]
    BenchHello,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Xtask::parse() {
        Xtask::Tidy => tidy::run(),
        Xtask::Errors(args) => errors_page::run(&args),
        Xtask::Codegen(args) => codegen::run(&args),
        Xtask::Bench(args) => bench::run(&args),
        Xtask::Chaos(args) => chaos::run(&args),
        Xtask::CancelLatency(args) => chaos::latency::run(&args),
        Xtask::Postgres(args) => rig::command::run(&args),
        Xtask::Fleet(args) => rig::fleet::run(&args),
        Xtask::BenchHello => bench::serve_hello(),
    }
}
