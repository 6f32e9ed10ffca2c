//! How many operations a second the PostgreSQL store carries, beside `pgbench` with as many clients doing
//! plain statements on the same database in the same run; and what reads and claims take as rows grow.
//!
//! `cargo run --release -p longhaul-store --example postgres_throughput -- URL [CLIENTS] [SECONDS] [WORK]`
//! WORK is `start` (default), `life` (start, claim, finish), or `sizes` (CLIENTS thousand operations). Makes
//! the schema `throughput` and the table `plain`, and removes both. `WRITERS` in the environment: as many
//! transactions at a time; `OTHERS`: as many other servers that hear of every commit.
#![allow(clippy::disallowed_methods, reason = "a measuring driver reads the clock")]

mod load;

use std::io::Write;
use std::process::Command as Process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_core::{Applied, Cause, Changes, Command, Operation, Refusal, apply};
use longhaul_store::postgres::{Options, Postgres};
use longhaul_store::{Deaf, Due, ListQuery, ParentFilter, Store};

use self::load::{API, Load, Outcome, PARENT, change, claim_one, name_of, now, start_one};

/// What `pgbench` runs for one operation's start: one row of about the same size.
const PLAIN_START: &str = "INSERT INTO plain (record) VALUES (repeat('x', 600));\n";

/// And for its whole life: the start, the claim of the oldest that nobody holds, the end.
const PLAIN_LIFE: &str = "INSERT INTO plain (record) VALUES (repeat('x', 600));\n\
     UPDATE plain SET state = 1, epoch = epoch + 1, lease = now() + interval '30 s' WHERE id = (\
     SELECT id FROM plain WHERE state = 0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) \
     RETURNING id \\gset\n\
     UPDATE plain SET state = 2, response = repeat('y', 100) WHERE id = :id;\n";

const PLAIN_TABLE: &str = "DROP TABLE IF EXISTS plain; \
     CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
     state smallint NOT NULL DEFAULT 0, epoch bigint NOT NULL DEFAULT 0, lease timestamptz, \
     record text NOT NULL, response text); \
     CREATE INDEX plain_queued ON plain (id) WHERE state = 0";

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("the address of a database is missing")?;
    let clients: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let work = arguments.next().unwrap_or_else(|| "start".into());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let client = connect(&url).await?;
        client.batch_execute("DROP SCHEMA IF EXISTS throughput CASCADE").await?;
        let mut options = Options { schema: "throughput".into(), ..Options::new(&url) };
        if let Some(writers) = std::env::var("WRITERS").ok().and_then(|text| text.parse().ok()) {
            options.writers = writers;
        }
        let others = std::env::var("OTHERS").ok().and_then(|text| text.parse().ok());
        let mut listening = Vec::new();
        for _ in 0..others.unwrap_or(0) {
            listening.push(Postgres::open(&options, Arc::new(Deaf)).await?);
        }
        let store: Arc<dyn Store> = Arc::new(Postgres::open(&options, Arc::new(Deaf)).await?);
        if work == "sizes" {
            sizes(&store, clients * 1_000).await?;
        } else {
            let span = Duration::from_secs(seconds.min(60));
            rounds(&store, &client, &url, clients, span, work == "life").await?;
        }
        store.close().await;
        client.batch_execute("DROP SCHEMA throughput CASCADE; DROP TABLE IF EXISTS plain").await?;
        Ok(())
    })
}

async fn connect(url: &str) -> Outcome<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn say(text: &str) -> Outcome<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Three rounds of each, one after the other; the median of each.
async fn rounds(
    store: &Arc<dyn Store>,
    client: &tokio_postgres::Client,
    url: &str,
    clients: usize,
    span: Duration,
    life: bool,
) -> Outcome<()> {
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let load = Load { clients, life, first: round << 40, warm_up: span / 5, span };
        let store_now = load.run(store).await?;
        client.batch_execute(PLAIN_TABLE).await?;
        let plainly = pgbench(url, clients, span, life)?;
        say(&format!(
            "round {round}: store {:.0}/s (p50 {:.2} ms, p99 {:.2} ms), pgbench {plainly:.0}/s",
            store_now.rate,
            store_now.at(0.5),
            store_now.at(0.99)
        ))?;
        ours.push(store_now.rate);
        plain.push(plainly);
    }
    ours.sort_by(f64::total_cmp);
    plain.sort_by(f64::total_cmp);
    say(&format!(
        "medians: store {:.0}/s, pgbench {:.0}/s: {:.2} times",
        ours[1],
        plain[1],
        ours[1] / plain[1]
    ))
}

fn pgbench(url: &str, clients: usize, span: Duration, life: bool) -> Outcome<f64> {
    let script = std::env::temp_dir().join(format!("throughput-{}.sql", std::process::id()));
    std::fs::write(&script, if life { PLAIN_LIFE } else { PLAIN_START })?;
    let program = std::env::var("PGBENCH").unwrap_or_else(|_| "pgbench".into());
    let run = Process::new(program)
        .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string()])
        .args(["-T", &span.as_secs().to_string(), "-f"])
        .arg(&script)
        .arg(url)
        .output()?;
    std::fs::remove_file(&script)?;
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = line.and_then(|line| line.split(' ').next());
    match tps {
        Some(tps) => Ok(tps.parse()?),
        None => Err(String::from_utf8_lossy(&run.stderr).into_owned().into()),
    }
}

/// What single calls take with 10,000 operations, and with many: nearly all done, 2,000 queued.
async fn sizes(store: &Arc<dyn Store>, most: usize) -> Outcome<()> {
    let mut stored = 0;
    for size in [10_000, most] {
        let begun = Instant::now();
        fill(store, stored..size as u64).await?;
        stored = size as u64;
        say(&format!("{size} operations, filled in {:.1} s", begun.elapsed().as_secs_f64()))?;
        // Once for the caches.
        let fresh = (size as u64) << 24;
        single_calls(store, size, 100, fresh).await?;
        say(&single_calls(store, size, 500, fresh + (1 << 20)).await?)?;
    }
    let begun = Instant::now();
    let swept = expire(store).await?;
    say(&format!("{swept} expired in {:.1} s", begun.elapsed().as_secs_f64()))
}

async fn fill(store: &Arc<dyn Store>, ids: std::ops::Range<u64>) -> Outcome<()> {
    let mut waiting = tokio::task::JoinSet::new();
    for id in ids {
        let store = store.clone();
        waiting.spawn(async move {
            start_one(&*store, id).await?;
            if id >= 2_000 {
                cancel_one(&*store, id).await?;
            }
            Outcome::Ok(())
        });
        if waiting.len() >= 2_000
            && let Some(done) = waiting.join_next().await
        {
            done??;
        }
    }
    while let Some(done) = waiting.join_next().await {
        done??;
    }
    Ok(())
}

async fn single_calls(
    store: &Arc<dyn Store>,
    size: usize,
    turns: u64,
    fresh: u64,
) -> Outcome<String> {
    let mut times: [Vec<Duration>; 4] = Default::default();
    for turn in 0..turns {
        let begun = Instant::now();
        let query = ListQuery {
            api: API.into(),
            parent: ParentFilter::Matching(PARENT.into()),
            after: None,
            done: None,
            limit: 100,
        };
        if store.list(query).await?.len() != 100 {
            return Err("a page is short".into());
        }
        times[0].push(begun.elapsed());
        let id = (turn * 7_919_777) % size as u64;
        let begun = Instant::now();
        if store.get(&name_of(id)?).await?.is_none() {
            return Err("an operation is missing".into());
        }
        times[1].push(begun.elapsed());
        start_one(&**store, fresh + turn).await?;
        let begun = Instant::now();
        cancel_one(&**store, fresh + turn).await?;
        times[2].push(begun.elapsed());
        let begun = Instant::now();
        let claimed = claim_one(&**store).await?;
        times[3].push(begun.elapsed());
        if let [claimed] = &claimed[..] {
            release(&**store, claimed).await?;
        }
    }
    let mut said = String::from("p50 (p99) ms:");
    for (what, mut took) in ["list", "get", "cancel", "claim"].into_iter().zip(times) {
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        said.push_str(&format!(" {what} {:.2} ({:.2})", at(0.5), at(0.99)));
    }
    Ok(said)
}

/// Lets the retention of everything be over.
async fn expire(store: &Arc<dyn Store>) -> Outcome<usize> {
    let now = now() + Duration::from_secs(365 * 24 * 3_600);
    let decide = Arc::new(move |operation: Option<&Operation>| {
        apply(operation.ok_or(Refusal::NotFound)?, Command::Tick { jitter: 0 }, now)
    });
    Ok(store.update_due(Due::Timer { now }, usize::MAX, decide).await?.len())
}

async fn cancel_one(store: &dyn Store, id: u64) -> Outcome<()> {
    let cancel =
        Command::Cancel { cause: Cause::Client, actor: "someone".into(), reason: "".into() };
    change(store, name_of(id)?, cancel).await.map(drop)
}

async fn release(store: &dyn Store, claimed: &Applied) -> Outcome<()> {
    let release = Command::Release { epoch: claimed.operation.epoch, changes: Changes::default() };
    change(store, claimed.operation.name.clone(), release).await.map(drop)
}
