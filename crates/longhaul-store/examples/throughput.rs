//! How many operations a second the embedded store starts durably on this machine, beside the rate of plain
//! syncs of the same disk in the same run.
//!
//! `cargo run --release -p longhaul-store --example throughput -- [CLIENTS] [SECONDS] [FOLDER] [WORK]`
//! WORK is `start` (default), `life` (start, claim, finish), or `open` (store CLIENTS thousand operations, then
//! open them in a fresh process, which is this program with the work `opened`).
#![allow(clippy::disallowed_methods, reason = "a measuring driver reads the clock")]

mod load;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_store::embedded::Embedded;
use longhaul_store::{Deaf, Options, Store};

use self::load::{Load, Outcome, name_of, start_one};

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let clients: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let folder = arguments.next().unwrap_or_else(|| "target/throughput".into());
    let work = arguments.next().unwrap_or_else(|| "start".into());
    let folder = Path::new(&folder);
    if folder.exists() && work != "opened" {
        std::fs::remove_dir_all(folder)?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let span = Duration::from_secs(seconds.min(60));
    let said = runtime.block_on(async {
        match work.as_str() {
            "open" => filled(folder, clients * 1_000).await,
            "opened" => opened(folder, clients * 1_000).await,
            kind => measured(folder, clients, span, kind == "life").await,
        }
    })?;
    if work == "open" {
        let again = std::process::Command::new(std::env::current_exe()?)
            .args([&clients.to_string(), "1", &folder.display().to_string(), "opened"])
            .status()?;
        return if again.success() { Ok(()) } else { Err("the second process failed".into()) };
    }
    let syncs = plain_syncs(folder, Duration::from_secs(1))?;
    writeln!(std::io::stdout(), "{said}; plain syncs of 1 KiB: {syncs:.0}/s")?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

async fn measured(folder: &Path, clients: usize, span: Duration, life: bool) -> Outcome<String> {
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&Options::new(folder), Arc::new(Deaf))?);
    let warm_up = span / 4;
    let load = Load { clients, life, first: 0, warm_up, span: span - warm_up };
    let measured = load.run(&store).await?;
    let said = format!(
        "{clients} clients: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        measured.rate,
        measured.at(0.5),
        measured.at(0.99),
        measured.at(0.999),
        measured.at(1.0)
    );
    let kib = resident_kib();
    let stored = measured.waits.len() as u64;
    let cpu = cpu_seconds() * 1e6 / stored.max(1) as f64;
    let begun = Instant::now();
    store.close().await;
    drop(store);
    let size = std::fs::metadata(folder.join("operations.db"))?.len();
    Ok(format!(
        "{said}; {cpu:.1} µs of CPU each, clients included; {stored} stored, {} bytes each on disk, {kib} KiB resident, closed in {:.0} ms",
        size / stored.max(1),
        begun.elapsed().as_secs_f64() * 1e3
    ))
}

async fn filled(folder: &Path, operations: usize) -> Outcome<String> {
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&Options::new(folder), Arc::new(Deaf))?);
    let mut waiting = tokio::task::JoinSet::new();
    for id in 0..operations as u64 {
        let store = store.clone();
        waiting.spawn(async move { start_one(&*store, id).await });
        if waiting.len() >= 1_000
            && let Some(done) = waiting.join_next().await
        {
            done??;
        }
    }
    while let Some(done) = waiting.join_next().await {
        done??;
    }
    store.close().await;
    Ok("filled".into())
}

async fn opened(folder: &Path, operations: usize) -> Outcome<String> {
    let begun = Instant::now();
    let store = Embedded::open(&Options::new(folder), Arc::new(Deaf))?;
    let (opened, cpu, kib) = (begun.elapsed(), cpu_seconds(), resident_kib());
    let begun = Instant::now();
    let reads = 20_000_u64;
    for turn in 0..reads {
        let id = (turn * 7_919) % operations as u64;
        if store.get(&name_of(id)?).await?.is_none() {
            return Err("an operation is missing".into());
        }
    }
    let reads = reads as f64 / begun.elapsed().as_secs_f64();
    Ok(format!(
        "{operations} operations opened in {:.0} ms ({:.0} ms of CPU), {kib} KiB resident; \
         {reads:.0} cold gets/s by one client, then {} KiB",
        opened.as_secs_f64() * 1e3,
        cpu * 1e3,
        resident_kib()
    ))
}

/// Appends a KiB and syncs, over and over.
fn plain_syncs(folder: &Path, span: Duration) -> Outcome<f64> {
    let path = folder.join("plain");
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < span {
        file.write_all(&[7; 1024])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// CPU time of this process, all threads; 0 where the system does not tell. Counted in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Resident memory of this process; 0 where the system does not tell.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)).map_or(0, |kib| kib.parse().unwrap_or(0))
}
