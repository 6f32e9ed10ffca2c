//! Measures how fast the server is, beside what the disk and the stack could do at best.
//!
//! Owns the plan of a run: rounds of short cells, each on a fresh server process and a fresh folder.
//! Works, clients and ceilings are its rooms'. Nothing here asserts a time: figures are for reading.

mod disk;
mod grpc;
mod hello;
mod http;
mod load;
mod process;
mod report;
mod words;
mod worker;
mod works;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use load::{Client, Measured, Span};
use process::{Meter, Server};
use report::{Report, Sample};
use worker::Worker;
use works::{Complete, Get, Hello, Ids, List, Random, Start};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The hidden subcommand that serves the ceiling.
pub(crate) const HELLO_COMMAND: &str = "bench-hello";

const KIB: usize = 1024;
const WARM_UP: Duration = Duration::from_secs(1);
/// Cores that other programs may use beside an undisturbed run.
const QUIET_CORES: f64 = 0.15;
/// How long to listen for other programs before a run.
const LISTEN: Duration = Duration::from_millis(500);

/// As the longhaul binary, so that both stacks are the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What to measure, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// W1: durable starts. W2: start, claim, finish, result. W4: get and list. Ceilings are always
    /// measured beside them.
    #[arg(value_enum, ignore_case = true, default_value = "all")]
    work: Choice,
    /// Seconds measured in each cell, after one second of warm-up.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds; every cell is run once in each, and the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Over which wire.
    #[arg(long, value_enum, default_value = "both")]
    wire: Wires,
    /// Closed-loop clients; several numbers make several cells. Each work has its own default.
    #[arg(long, num_args = 1.., value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: Vec<u16>,
    /// Operations stored before W4.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    stored: u32,
    /// Seconds that each cell may take longer to be undisturbed: it waits for other programs to be
    /// quiet, and is repeated when they were not. The quietest counts.
    #[arg(long, default_value_t = 0)]
    patience: u64,
    /// Where data is written while it runs; must be on the disk that is meant.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Adds every cell of every round to this file, a JSON object on a line each.
    #[arg(long)]
    raw: Option<PathBuf>,
    /// The server; by default the release build beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    #[value(name = "W1")]
    W1,
    #[value(name = "W2")]
    W2,
    #[value(name = "W4")]
    W4,
    Ceilings,
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wires {
    Grpc,
    Http,
    Both,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Grpc,
    Http,
}

/// One thing measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Fdatasync,
    Hello,
    Start,
    Complete,
    Get,
    List,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fdatasync => "ceiling: fdatasync",
            Self::Hello => "ceiling: hello-world",
            Self::Start => "W1 start",
            Self::Complete => "W2 start to result",
            Self::Get => "W4 get",
            Self::List => "W4 list 100",
        })
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
        })
    }
}

/// A work, over a wire, with a number of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    work: Work,
    wire: Option<Wire>,
    clients: usize,
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    if cfg!(debug_assertions) {
        return run_released();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(args)).map_err(|error| error as _)
}

/// Serves the ceiling, as a child of a benchmark.
pub(crate) fn serve_hello() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(hello::serve()).map_err(|error| error as _)
}

/// An unoptimised build would measure itself: builds the optimised ones and hands over to them.
fn run_released() -> Result<(), Box<dyn std::error::Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--release", "-p", "longhaul", "-p", "xtask"];
    let built = Command::new(cargo).args(build).status()?;
    if !built.success() {
        return Err("the release build failed".into());
    }
    let debug = std::env::current_exe()?;
    let target = debug.parent().and_then(Path::parent).ok_or("this program is in no folder")?;
    let ended =
        Command::new(target.join("release/xtask")).args(std::env::args_os().skip(1)).status()?;
    if !ended.success() {
        return Err("the benchmark failed".into());
    }
    Ok(())
}

async fn measure(args: &Args) -> Result<()> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("longhaul"),
    };
    std::fs::create_dir_all(&args.folder)?;
    let span = Span { warm_up: WARM_UP, measured: Duration::from_secs(args.seconds) };
    let run = Run { binary, args, span };
    let mut report = Report::new(args.raw.as_deref())?;
    for round in 1..=args.rounds {
        for cell in cells(args) {
            report.progress(round, args.rounds, cell)?;
            report.add(run.undisturbed(round, cell).await?)?;
        }
    }
    report.print()
}

/// Every cell of a round: ceilings first, beside what they are compared with.
fn cells(args: &Args) -> Vec<Cell> {
    let wires: &[Wire] = match args.wire {
        Wires::Grpc => &[Wire::Grpc],
        Wires::Http => &[Wire::Http],
        Wires::Both => &[Wire::Grpc, Wire::Http],
    };
    let wanted = |choice| args.work == choice || args.work == Choice::All;
    let works: [(bool, Work, &[u16]); 5] = [
        (true, Work::Hello, &[64]),
        (wanted(Choice::W1), Work::Start, &[1, 64, 256]),
        (wanted(Choice::W2), Work::Complete, &[1, 64]),
        (wanted(Choice::W4), Work::Get, &[64]),
        (wanted(Choice::W4), Work::List, &[1, 64]),
    ];
    let mut cells = vec![Cell { work: Work::Fdatasync, wire: None, clients: 1 }];
    for (_, work, default) in works.into_iter().filter(|(wanted, ..)| *wanted) {
        for &wire in wires {
            let clients = if args.clients.is_empty() { default } else { &args.clients };
            cells.extend(clients.iter().map(|&clients| Cell {
                work,
                wire: Some(wire),
                clients: usize::from(clients),
            }));
        }
    }
    cells
}

/// What all cells of a run share.
struct Run<'a> {
    binary: PathBuf,
    args: &'a Args,
    span: Span,
}

impl Run<'_> {
    /// The quietest of as many runs as patience allows; the first quiet one ends it.
    async fn undisturbed(&self, round: u32, cell: Cell) -> Result<Sample> {
        let until = load::now() + Duration::from_secs(self.args.patience);
        let mut quietest: Option<Sample> = None;
        loop {
            while load::now() < until && process::busy_others(LISTEN).await? > QUIET_CORES {}
            let sample = self.cell(round, cell).await?;
            let quiet = sample.others <= QUIET_CORES;
            if quietest.as_ref().is_none_or(|best| sample.others < best.others) {
                quietest = Some(sample);
            }
            if (quiet || load::now() >= until)
                && let Some(sample) = quietest
            {
                return Ok(sample);
            }
        }
    }

    async fn cell(&self, round: u32, cell: Cell) -> Result<Sample> {
        let folder = tempfile::tempdir_in(&self.args.folder)?;
        let Some(wire) = cell.wire else {
            let meter = Meter::of_nobody();
            let before = meter.read()?;
            let latency = disk::fdatasync(folder.path(), self.span.measured)?;
            let measured =
                Measured { calls: latency.len(), latency, cpu: meter.read()?.since(&before) };
            return Ok(Sample::of(round, cell, self.span, &measured, None));
        };
        let server = match cell.work {
            Work::Hello => Server::hello()?,
            Work::Fdatasync | Work::Start | Work::Complete | Work::Get | Work::List => {
                Server::longhaul(&self.binary, folder.path()).await?
            }
        };
        let measured = match self.on(&server, cell.work, wire, cell.clients).await {
            Ok(measured) => measured,
            Err(error) => {
                let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                return Err(format!("{} over {wire}: {error}\n{log}", cell.work).into());
            }
        };
        Ok(Sample::of(round, cell, self.span, &measured, Some(server.peak_kib()?)))
    }

    async fn on(&self, server: &Server, work: Work, wire: Wire, n: usize) -> Result<Measured> {
        let stored = usize::try_from(self.args.stored)?;
        let (worker, names) = match work {
            Work::Complete => (Some(Worker::begin(server.address).await?), Vec::new()),
            Work::Get | Work::List => (None, works::fill(server.address, stored).await?),
            Work::Fdatasync | Work::Hello | Work::Start => (None, Vec::new()),
        };
        let (names, lines) = (Arc::new(names), works::connect(wire, server.address, n).await?);
        let lines = lines.into_iter();
        let measured = match work {
            Work::Fdatasync | Work::Hello => self.drive(server, lines.map(Hello)).await,
            Work::Start => {
                let starts =
                    lines.enumerate().map(|(client, line)| Start { line, ids: Ids::of(client) });
                self.drive(server, starts).await
            }
            Work::Complete => {
                let loops =
                    lines.enumerate().map(|(client, line)| Complete { line, ids: Ids::of(client) });
                self.drive(server, loops).await
            }
            Work::Get => {
                let gets = lines.enumerate().map(|(client, line)| Get {
                    line,
                    names: names.clone(),
                    random: Random(client as u64),
                });
                self.drive(server, gets).await
            }
            Work::List => {
                let page = stored.min(usize::try_from(words::PAGE_SIZE)?);
                let bytes_min = names.iter().take(page).map(String::len).sum();
                self.drive(server, lines.map(|line| List { line, bytes_min })).await
            }
        };
        if let Some(worker) = worker {
            worker.end().await?;
        }
        measured
    }

    async fn drive<C: Client>(
        &self,
        server: &Server,
        clients: impl Iterator<Item = C>,
    ) -> Result<Measured> {
        load::drive(clients.collect(), self.span, &server.meter()).await
    }
}
