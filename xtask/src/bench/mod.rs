//! Measures how fast the server is, beside what the disk and the stack could do at best.
//!
//! Owns the plan of a run: rounds of short cells, each on a fresh server process and a fresh folder.
//! Works, clients and ceilings are its rooms'. Nothing here asserts a time: figures are for reading.

mod cancels;
mod crash;
mod disk;
mod grpc;
mod hello;
mod http;
mod load;
mod process;
mod report;
mod setting;
mod stream;
mod turns;
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
use setting::Setting;
use worker::Worker;
use works::{Cancel, Complete, Get, Hello, Ids, List, Random, Start};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The hidden subcommand that serves the ceiling.
pub(crate) const HELLO_COMMAND: &str = "bench-hello";

const KIB: usize = 1024;
/// Operations of W3q.
const QUEUED: usize = 2_000;
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
    /// W1: durable starts. W2: start, claim, finish, result. W3: cancel running operations, then queued
    /// ones. W4: get and list. W5: kill -9 and a restart. Ceilings are always measured beside them. Access:
    /// get with tokens and policies, beside get without on a server that is sent the same token, and on one
    /// that is sent none: official clients send theirs to any server, so the former shows what
    /// authorisation itself costs. Audit: start and cancel with the audit log, beside the same without.
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
    #[value(name = "W3")]
    W3,
    #[value(name = "W4")]
    W4,
    #[value(name = "W5")]
    W5,
    Ceilings,
    Access,
    Audit,
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
    Echo,
    CancelPaced,
    CancelBurst,
    CancelQueued,
    Crash,
    Cancel,
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
            Self::Echo => "ceiling: stream echo + fdatasync",
            Self::CancelPaced => "W3 cancel running, paced",
            Self::CancelBurst => "W3 cancel running, burst",
            Self::CancelQueued => "W3q cancel queued",
            Self::Crash => "W5 kill -9",
            Self::Cancel => "start and cancel",
        })
    }
}

impl Work {
    /// Whether it is about cancels and crashes: their numbers are operations, and they go over gRPC.
    const fn is_of_streams(self) -> bool {
        match self {
            Self::Echo
            | Self::CancelPaced
            | Self::CancelBurst
            | Self::CancelQueued
            | Self::Crash => true,
            Self::Fdatasync
            | Self::Hello
            | Self::Start
            | Self::Complete
            | Self::Get
            | Self::List
            | Self::Cancel => false,
        }
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

/// A work on a server of some setting, over a wire, with a number of clients; of W3 and W5 it is the number
/// of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    work: Work,
    setting: Setting,
    wire: Option<Wire>,
    clients: usize,
}

impl Cell {
    /// Whether the two differ in their setting alone.
    fn is_beside(&self, other: &Self) -> bool {
        self.setting != other.setting && *self == Self { setting: self.setting, ..*other }
    }
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
        for together in cells(args).chunk_by(Cell::is_beside) {
            for &cell in together {
                report.progress(round, args.rounds, cell)?;
            }
            for sample in run.undisturbed(round, together).await? {
                report.add(sample)?;
            }
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
    let cancels = wanted(Choice::W3);
    let plain: &[Setting] = &[Setting::Plain];
    let works: [(bool, Work, &[Setting], &[u32]); 12] = [
        (true, Work::Hello, plain, &[64]),
        (wanted(Choice::W1), Work::Start, plain, &[1, 64, 256]),
        (wanted(Choice::W2), Work::Complete, plain, &[1, 64]),
        (wanted(Choice::W4), Work::Get, plain, &[64]),
        (wanted(Choice::W4), Work::List, plain, &[1, 64]),
        (cancels, Work::Echo, plain, &[1]),
        (cancels, Work::CancelPaced, plain, &[100, 1_000]),
        (cancels, Work::CancelBurst, plain, &[1_000]),
        (cancels, Work::CancelQueued, plain, &[64]),
        (wanted(Choice::W5), Work::Crash, plain, &[100_000]),
        (args.work == Choice::Access, Work::Get, &Setting::ACCESS, &[64]),
        (args.work == Choice::Audit, Work::Cancel, &Setting::AUDIT, &[64]),
    ];
    let mut cells =
        vec![Cell { work: Work::Fdatasync, setting: Setting::Plain, wire: None, clients: 1 }];
    for (_, work, settings, default) in works.into_iter().filter(|(wanted, ..)| *wanted) {
        for &wire in wires {
            // Sessions are streams, and streams are gRPC's.
            if wire == Wire::Http && work.is_of_streams() {
                continue;
            }
            let chosen = args.clients.iter().map(|&clients| usize::from(clients));
            let mut clients: Vec<_> = chosen.filter(|_| !work.is_of_streams()).collect();
            if clients.is_empty() {
                clients.extend(default.iter().map(|&count| count as usize));
            }
            // The settings of a work are measured side by side.
            for clients in clients {
                let cell = |&setting| Cell { work, setting, wire: Some(wire), clients };
                cells.extend(settings.iter().map(cell));
            }
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
    async fn undisturbed(&self, round: u32, together: &[Cell]) -> Result<Vec<Sample>> {
        let until = load::now() + Duration::from_secs(self.args.patience);
        let noise = |samples: &[Sample]| samples.first().map_or(f64::MAX, |first| first.others);
        let mut quietest: Option<Vec<Sample>> = None;
        loop {
            while load::now() < until && process::busy_others(LISTEN).await? > QUIET_CORES {}
            let samples = match together {
                [cell] => self.cell(round, *cell).await?,
                cells => self.side_by_side(round, cells).await?,
            };
            let quiet = noise(&samples) <= QUIET_CORES;
            if quietest.as_ref().is_none_or(|best| noise(&samples) < noise(best)) {
                quietest = Some(samples);
            }
            if (quiet || load::now() >= until)
                && let Some(samples) = quietest
            {
                return Ok(samples);
            }
        }
    }

    async fn cell(&self, round: u32, cell: Cell) -> Result<Vec<Sample>> {
        let folder = tempfile::tempdir_in(&self.args.folder)?;
        let of = (round, cell);
        let Some(wire) = cell.wire else {
            let meter = Meter::of_nobody();
            let before = meter.read()?;
            let latency = disk::fdatasync(folder.path(), self.span.measured)?;
            let measured = Measured::of(latency, meter.read()?.since(&before));
            return Ok(vec![Sample::of(of, "", self.span.measured, &measured, None)]);
        };
        let server = match cell.work {
            Work::Hello | Work::Echo => Server::hello()?,
            Work::Fdatasync
            | Work::Start
            | Work::Complete
            | Work::Get
            | Work::List
            | Work::Cancel
            | Work::CancelPaced
            | Work::CancelBurst
            | Work::CancelQueued
            | Work::Crash => Server::longhaul(&self.binary, folder.path(), cell.setting).await?,
        };
        let samples = match cell.work {
            Work::Echo | Work::CancelPaced | Work::CancelBurst | Work::CancelQueued => {
                self.cancels(of, &server, folder.path()).await
            }
            Work::Crash => self.crash(of, server, folder.path()).await,
            Work::Fdatasync
            | Work::Hello
            | Work::Start
            | Work::Complete
            | Work::Get
            | Work::Cancel
            | Work::List => match self.on(&server, cell.work, wire, cell.clients).await {
                Ok(measured) => {
                    let peak = Some(server.peak_kib()?);
                    Ok(vec![Sample::of(of, "", self.span.measured, &measured, peak)])
                }
                Err(error) => Err(error),
            },
        };
        samples.map_err(|error| {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            format!("{} over {wire}: {error}\n{log}", cell.work).into()
        })
    }

    /// W3, W3q and their ceiling.
    async fn cancels(
        &self,
        of: (u32, Cell),
        server: &Server,
        folder: &Path,
    ) -> Result<Vec<Sample>> {
        let (meter, address, count) = (server.meter(), server.address, of.1.clients);
        let before = meter.read()?;
        let begin = load::now();
        let sample = |point, span, latency| -> Result<Sample> {
            let measured = Measured::of(latency, meter.read()?.since(&before));
            Ok(Sample::of(of, point, span, &measured, Some(server.peak_kib()?)))
        };
        let pace = match of.1.work {
            Work::Echo => {
                let latency = cancels::echo(address, folder, self.span.measured).await?;
                return Ok(vec![sample("", load::now() - begin, latency)?]);
            }
            Work::CancelQueued => {
                let (latency, all) = cancels::queued(server, QUEUED).await?;
                return Ok(vec![sample("", all, latency)?]);
            }
            Work::CancelPaced if count < 1_000 => cancels::Pace::PerSecond(50),
            Work::CancelPaced => cancels::Pace::PerSecond(100),
            Work::CancelBurst
            | Work::Crash
            | Work::Fdatasync
            | Work::Hello
            | Work::Start
            | Work::Complete
            | Work::Get
            | Work::Cancel
            | Work::List => cancels::Pace::Burst,
        };
        let cancelled = cancels::running(server, count, pace).await?;
        let all = cancelled.all;
        let mut last = load::histogram()?;
        last.saturating_record(u64::try_from(all.as_nanos())?);
        Ok(vec![
            sample("answer", all, cancelled.answer)?,
            sample("handler", all, cancelled.handler)?,
            sample("waiter", all, cancelled.waiter)?,
            sample("the last is done", all, last)?,
        ])
    }

    /// W5.
    async fn crash(&self, of: (u32, Cell), server: Server, folder: &Path) -> Result<Vec<Sample>> {
        let crashed = crash::crash(&self.binary, folder, server, of.1.clients).await?;
        let (meter, peak) = (crashed.server.meter(), Some(crashed.server.peak_kib()?));
        let cpu = meter.read()?;
        let moments =
            [("first answer", crashed.first_answer), ("first start", crashed.first_start)];
        let samples = moments.into_iter().map(|(point, span)| {
            let mut once = load::histogram()?;
            once.saturating_record(u64::try_from(span.as_nanos())?);
            Ok(Sample::of(of, point, span, &Measured::of(once, cpu.since(&cpu)), peak))
        });
        samples.collect()
    }

    async fn on(&self, server: &Server, work: Work, wire: Wire, n: usize) -> Result<Measured> {
        let stored = usize::try_from(self.args.stored)?;
        let (worker, names) = match work {
            Work::Complete => (Some(Worker::begin(server.address).await?), Vec::new()),
            Work::Get | Work::List => (None, works::fill(server, stored).await?),
            Work::Fdatasync
            | Work::Hello
            | Work::Start
            | Work::Cancel
            | Work::Echo
            | Work::CancelPaced
            | Work::CancelBurst
            | Work::CancelQueued
            | Work::Crash => (None, Vec::new()),
        };
        let (names, lines) = (Arc::new(names), works::connect(wire, server, n).await?);
        let lines = lines.into_iter();
        let measured = match work {
            Work::Fdatasync
            | Work::Hello
            | Work::Echo
            | Work::CancelPaced
            | Work::CancelBurst
            | Work::CancelQueued
            | Work::Crash => self.drive(server, lines.map(Hello)).await,
            Work::Start => {
                let starts =
                    lines.enumerate().map(|(client, line)| Start { line, ids: Ids::of(client) });
                self.drive(server, starts).await
            }
            Work::Cancel => {
                let both =
                    lines.enumerate().map(|(client, line)| Cancel { line, ids: Ids::of(client) });
                self.drive(server, both).await
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
