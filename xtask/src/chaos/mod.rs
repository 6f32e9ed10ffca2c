//! A run of chaos: clients and workers use the servers while these, the database and the connections are
//! broken again and again; afterwards a checker decides from what was asked and answered alone.
//!
//! Owns the order of a run. What is broken is `nemesis`, what is asked `client`, `worker` and `crew`, what
//! was promised `check`.

mod check;
mod client;
mod crew;
mod dice;
mod fleet;
mod history;
pub(crate) mod latency;
mod line;
mod nemesis;
mod words;
mod worker;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::rig::RoundRobin;
use crate::rig::postgres::{Postgres, url_by};
use check::{Bounds, Violation};
use client::Client;
use fleet::Place;
use history::{Record, Recorder, What};
use nemesis::{Database, Nemesis};
use worker::Worker;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// How long a worker may be silent.
const LEASE: Duration = Duration::from_secs(5);
/// As the settings of the API say: for the main work to stop, and for the cleanup.
const CANCEL: Duration = Duration::from_secs(8 + 8);
/// What a loaded machine may add to that until it is seen.
const SLACK: Duration = Duration::from_secs(4);
/// How long everything may take to come to its end after the last fault.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// How to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Minutes of load.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Where operations are kept: `embedded` has one server.
    #[arg(long, value_enum, default_value = "embedded")]
    store: Store,
    /// Servers on one PostgreSQL.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    servers: u8,
    /// Describes the run; drawn unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients at once.
    #[arg(long, default_value_t = 24)]
    clients: u64,
    /// Workers driven by hand; there are two more of the library's.
    #[arg(long, default_value_t = 16)]
    workers: u64,
    /// Where the history, the servers' logs and the embedded store go. Emptied first.
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// The server; by default the build beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Runs nothing: judges this history.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Store {
    Embedded,
    Postgres,
}

/// What everybody in a run shares.
struct Run {
    seed: u64,
    /// Where the servers are reached.
    door: SocketAddr,
    recorder: Recorder,
    /// No new operations, and no new faults.
    load_over: CancellationToken,
    /// Nothing any more.
    over: CancellationToken,
}

/// Runs, judges, and says what came of it.
pub(crate) fn run(args: &Args) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let ran = match &args.check {
        Some(file) => history::read(file).and_then(|records| judge(&records)),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let ran = runtime.block_on(rage(args));
            runtime.shutdown_background();
            ran
        }
    };
    ran.map_err(|error| -> Box<dyn std::error::Error> { error })
}

#[allow(clippy::print_stdout, reason = "what this command is for")]
async fn rage(args: &Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()));
    let folder = std::path::absolute(&args.folder)?;
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let count = if args.store == Store::Embedded { 1 } else { usize::from(args.servers) };
    let door = RoundRobin::over(vec![None; count]).await;
    let run = Arc::new(Run {
        seed,
        door: door.address,
        recorder: Recorder::new(),
        load_over: CancellationToken::new(),
        over: CancellationToken::new(),
    });
    let (database, servers) = match args.store {
        Store::Embedded => (None, vec![place(args, &folder, 0, &nemesis::embedded(&folder))?]),
        Store::Postgres => {
            let Some(database) = database(count).await? else {
                println!("SKIPPED: PostgreSQL is not installed");
                println!("0 passed, 0 failed, 1 skipped");
                return Ok(());
            };
            let stores = database.ways.iter().map(|way| on_postgres(way.address.port()));
            let places = stores.enumerate();
            let places = places.map(|(number, store)| place(args, &folder, number, &store));
            let places = places.collect::<Result<_>>()?;
            (Some(database), places)
        }
    };
    println!("{count} server(s), {} minute(s), seed {seed}", args.minutes);
    let mut nemesis = Nemesis::start(run.clone(), door, database, servers).await?;
    let raged = load(args, &run, &mut nemesis).await;
    let records = run.recorder.take();
    let file = folder.join("history.jsonl");
    history::write(&file, &records)?;
    raged?;
    let kills = nemesis.close()?;
    println!("{kills} kills; the history is {}", file.display());
    judge(&records)
}

/// Everybody at once; then no new work, no faults, and everything comes to its end and is read.
async fn load(args: &Args, run: &Arc<Run>, nemesis: &mut Nemesis) -> Result<()> {
    let shutdown = CancellationToken::new();
    let mut workers = JoinSet::new();
    for number in 0..args.workers {
        workers.spawn(Worker::new(number, run.clone()).live());
    }
    let mut crews = JoinSet::new();
    for number in 0..2 {
        crews.spawn(crew::live(number, run.clone(), shutdown.clone()));
    }
    let mut clients = JoinSet::new();
    for number in 0..args.clients {
        clients.spawn(Client::new(number, run.clone()).live());
    }
    let timer = run.clone();
    let span = Duration::from_secs_f64(args.minutes * 60.0);
    tokio::spawn(async move {
        sleep(span).await;
        timer.load_over.cancel();
    });
    let raged = nemesis.rage().await;
    run.load_over.cancel();
    if raged.is_ok() {
        let settling = async {
            while clients.join_next().await.is_some() {}
            read_all(run).await;
        };
        // What has not come to its end by then is the checker's to find.
        let _ = timeout(SETTLE_MAX, settling).await;
    }
    run.over.cancel();
    shutdown.cancel();
    while let Some(ended) = crews.join_next().await {
        ended??;
    }
    let _ = timeout(LEASE, async { while workers.join_next().await.is_some() {} }).await;
    raged
}

/// Reads every operation that is known to have been started until it is done.
async fn read_all(run: &Arc<Run>) {
    let records = run.recorder.take();
    let started = records.iter().filter_map(|record| match &record.what {
        What::Start { name, .. } => name.clone(),
        What::Read { .. }
        | What::Last { .. }
        | What::Missing { .. }
        | What::Cancel { .. }
        | What::Claim { .. }
        | What::Report { .. }
        | What::Ran { .. }
        | What::Refused { .. }
        | What::Hung { .. }
        | What::Fault { .. } => None,
    });
    let names: Vec<_> = started.collect::<BTreeSet<_>>().into_iter().collect();
    let readers = 8;
    let reading = (0..readers).map(|reader| {
        let names: Vec<_> = names.iter().skip(reader).step_by(readers).cloned().collect();
        let mut client = Client::new(10_000 + reader as u64, run.clone());
        async move {
            for name in names {
                client.read_last(&name).await;
            }
        }
    });
    join_all(reading).await;
}

async fn database(servers: usize) -> Result<Option<Database>> {
    let Some(postgres) = Postgres::begin().await? else { return Ok(None) };
    postgres.create("chaos")?;
    let there = SocketAddr::from(([127, 0, 0, 1], postgres.port()));
    let ways = join_all((0..servers).map(|_| RoundRobin::over(vec![Some(there)]))).await;
    Ok(Some(Database { postgres, ways }))
}

fn on_postgres(port: u16) -> String {
    format!("store = {:?}", url_by(port, "chaos"))
}

fn place(args: &Args, folder: &Path, number: usize, store: &str) -> Result<Place> {
    let beside = std::env::current_exe()?.with_file_name("longhaul");
    let binary = args.binary.clone().unwrap_or(beside);
    Place::new(&binary, folder, number, store)
}

#[allow(clippy::print_stdout, reason = "what this command is for")]
fn judge(records: &[Record]) -> Result<()> {
    let micros = |span: Duration| u64::try_from(span.as_micros()).expect("minutes fit");
    let bounds = Bounds { cancel: micros(CANCEL + LEASE + SLACK), outage: micros(LEASE + SLACK) };
    let found = check::check(records, bounds);
    let count = |fits: fn(&What) -> bool| records.iter().filter(|one| fits(&one.what)).count();
    println!(
        "{} started, {} cancels accepted, {} ends accepted, {} times at work, {} faults",
        count(|what| matches!(what, What::Start { name: Some(_), .. })),
        count(|what| matches!(what, What::Cancel { accepted: true, .. })),
        count(
            |what| matches!(what, What::Report { said, accepted: true, .. } if *said != history::Said::Alive)
        ),
        count(|what| matches!(what, What::Ran { .. })),
        count(|what| matches!(what, What::Fault { .. })),
    );
    for Violation { rule, about, what } in &found {
        println!("BROKEN {rule}: {about}: {what}");
    }
    println!("{} passed, {} failed, 0 skipped", usize::from(found.is_empty()), found.len());
    if found.is_empty() { Ok(()) } else { Err("promises were broken".into()) }
}
