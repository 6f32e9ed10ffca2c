//! What other servers commit: heard of by `LISTEN`, read from the table of changes.
//!
//! A notification is only a hint to read at once; without any, the table is read every second. What was
//! read is remembered as a snapshot, so that a commit that was under way is neither missed nor told twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::poll_fn;
use longhaul_core::{Error, OperationName, Timestamp};
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Row};

use super::address::Address;
use super::core::Core;
use super::faults::{damaged, unavailable};
use super::session::{Value, configure};
use crate::{ClaimHint, OUTAGE_MIN, Presence};

/// Longest time until a commit of another server is heard of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long rows of the table of changes are kept, in looks of this server.
const KEPT_LOOKS: usize = 60;

/// A server that has not looked for so long, in microseconds, may have missed rows that are gone.
const MISSED_US: i64 = 45_000_000;

/// First and longest pause before connecting again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The channel of `NOTIFY`.
fn channel(core: &Core) -> String {
    format!("longhaul_{}", core.options.schema)
}

/// Tells other servers that there is something to read; commits that come together are told once.
pub(super) async fn run_bell(core: Arc<Core>) {
    let channel = channel(&core);
    while !core.is_stopped() {
        core.bell.notified().await;
        if !core.shared.load(Ordering::Relaxed) {
            continue;
        }
        let from = core.server.to_string();
        let limit = core.options.connect_timeout;
        if let Err(error) = core.ask(limit, &core.sql.notify, &[&channel, &from]).await {
            tracing::debug!(%error, "other servers were not told");
        }
    }
}

/// Keeps a connection that listens, and passes on what it hears.
pub(super) async fn run_ear(core: Arc<Core>, address: Address, heard: Arc<Notify>) {
    let mut pause = PAUSES.0;
    while !core.is_stopped() {
        match listen(&core, &address, &heard).await {
            Ok(()) => pause = PAUSES.0,
            Err(error) => {
                tracing::warn!(%error, source = ?error.source, "listening to the database ended");
            }
        }
        tokio::select! {
            () = core.stopping() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn listen(core: &Core, address: &Address, heard: &Notify) -> Result<(), Error> {
    let mut options = core.options.clone();
    options.transaction_pooler = false;
    let config = configure(address, &options);
    let connecting = config.connect(address.tls.clone());
    let connected = tokio::time::timeout(core.options.connect_timeout, connecting).await;
    let (client, mut connection) = connected.map_err(unavailable)?.map_err(unavailable)?;
    let mine = core.server.to_string();
    let hear = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(note) = message.map_err(unavailable)?
                && note.payload() != mine
            {
                heard.notify_one();
            }
        }
        Ok(())
    };
    let begin = async {
        let asked = client.batch_execute(&format!("LISTEN \"{}\"", channel(core))).await;
        asked.map_err(unavailable)?;
        // Whatever came before this connection listened.
        heard.notify_one();
        std::future::pending::<Result<(), Error>>().await
    };
    tokio::select! {
        ended = hear => ended,
        failed = begin => failed,
        () = core.stopping() => Ok(()),
    }
}

/// How far the table of changes was read.
struct Place {
    snapshot: String,
    at_us: i64,
}

/// Reads the table of changes, and keeps what else is only known for a second.
pub(super) async fn run_feed(core: Arc<Core>, heard: Arc<Notify>) {
    let mut place: Option<Place> = None;
    let mut looks = std::collections::VecDeque::new();
    while !core.is_stopped() {
        let tick = tokio::select! {
            () = core.stopping() => return,
            () = heard.notified() => false,
            () = tokio::time::sleep(LOOK_EVERY) => true,
        };
        if let Err(error) = look(&core, &mut place).await {
            tracing::warn!(%error, source = ?error.source, "changes of other servers cannot be read");
            continue;
        }
        if tick && let Err(error) = keep_up(&core, &mut looks).await {
            tracing::warn!(%error, source = ?error.source, "this server cannot be kept known");
        }
    }
}

/// One look at the table of changes.
async fn look(core: &Core, place: &mut Option<Place>) -> Result<(), Error> {
    let limit = core.patience();
    let rows = match place {
        Some(place) => core.ask(limit, &core.sql.changes, &[&core.server, &place.snapshot]).await?,
        None => core.ask(limit, &core.sql.changes_begin, &[]).await?,
    };
    let unknown = |row: &Row| {
        let kinds: Option<Vec<i32>> = row.get(4);
        kinds.unwrap_or_default().iter().any(|&kind| core.words.kind(kind).is_none())
    };
    if rows.iter().any(unknown) {
        core.words.take_in(&core.ask(limit, &core.sql.kinds, &[]).await?);
    }
    let first = rows.first().ok_or_else(|| damaged("change", "?", "no snapshot"))?;
    let next = Place { snapshot: first.get(0), at_us: first.get(1) };
    let missed = place.as_ref().is_none_or(|place| next.at_us - place.at_us > MISSED_US);
    for row in &rows {
        tell(core, row);
    }
    *place = Some(next);
    if missed {
        core.listener.missed();
    }
    Ok(())
}

/// Tells of one commit.
fn tell(core: &Core, row: &Row) {
    let Some(names): Option<Vec<&str>> = row.get(2) else { return };
    let (revisions, kinds): (Vec<i64>, Vec<i32>) = (row.get(3), row.get(4));
    let claimable: Vec<Option<i64>> = row.get(5);
    let mut later = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        if let (Ok(name), Some(revision)) = (OperationName::parse(name), revisions.get(at)) {
            core.tell_elsewhere(&name, revision.unsigned_abs());
        }
        if let (Some(Some(from)), Some(kind)) =
            (claimable.get(at), kinds.get(at).and_then(|&kind| core.words.kind(kind)))
        {
            later.push(*from);
            core.listener.claimable(&ClaimHint {
                api: kind.api,
                method: kind.method,
                queue: kind.queue,
                from: Timestamp::from_micros(*from),
            });
        }
    }
    core.hints.add(std::iter::empty(), later.into_iter());
}

/// Every second: says that this server is here, sees who else is, reads counts and what is due first, and
/// removes old rows.
async fn keep_up(core: &Core, looks: &mut std::collections::VecDeque<i64>) -> Result<(), Error> {
    super::tally::refresh(core).await?;
    first_due(core).await?;
    looks.push_back(core.batches.load(Ordering::Relaxed));
    let old = if looks.len() > KEPT_LOOKS { looks.pop_front() } else { None };
    heartbeat(core).await?;
    if let Some(old) = old {
        let limit = core.patience();
        core.ask(limit, &core.sql.prune, &[&core.server, &old]).await?;
        core.ask(limit, &core.sql.prune_dead, &[]).await?;
    }
    Ok(())
}

/// Reads what is due first.
pub(super) async fn first_due(core: &Core) -> Result<(), Error> {
    let mark = core.hints.mark();
    let rows = core.ask(core.patience(), &core.sql.first_due, &[]).await?;
    core.hints.found(mark, rows.first().map(|row| row.get(0)));
    Ok(())
}

/// Writes that this server is here, and sees whether others are.
pub(super) async fn heartbeat(core: &Core) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    let limit = core.options.connect_timeout;
    let rows = core.ask(limit, &core.sql.heartbeat, &[&core.server, &version]).await?;
    let others: i64 = rows.first().map_or(0, |row| row.get(0));
    core.shared.store(others > 0, Ordering::Relaxed);
    Ok(())
}

/// Says to all servers together that one is here, and hears of an outage.
pub(super) async fn present(core: &Core) -> Result<Presence, Error> {
    let outage_min = i64::try_from(OUTAGE_MIN.as_micros()).unwrap_or(i64::MAX);
    let rows = core.ask(core.options.connect_timeout, &core.sql.present, &[&outage_min]).await?;
    let row = rows.first().ok_or_else(|| damaged("fleet", "?", "it is missing"))?;
    let (outage, recovered): (i64, i64) = (row.get(0), row.get(1));
    Ok(Presence {
        outage: (outage > recovered).then_some(outage.unsigned_abs()),
        clock: Some(Timestamp::from_micros(row.get(2))),
    })
}

/// Notes that leases were given their time back.
pub(super) async fn recovered(core: &Core, outage: u64) -> Result<(), Error> {
    let values: [Value<'_>; 1] = [&super::rows::signed(outage)];
    core.ask(core.options.connect_timeout, &core.sql.recovered, &values).await.map(drop)
}

/// Says that this server is not here any more.
pub(super) async fn leave(core: &Core) {
    let left = core.ask(core.options.connect_timeout, &core.sql.leave, &[&core.server]).await;
    if let Err(error) = left {
        tracing::warn!(%error, "this server could not say that it leaves");
    }
}

/// Reads what becomes claimable later.
pub(super) async fn backing_off(core: &Core) -> Result<(), Error> {
    let kinds = core.words.kinds();
    let rows = core.ask(core.patience(), &core.sql.later, &[&kinds]).await?;
    core.hints.add(std::iter::empty(), rows.iter().map(|row| row.get(0)));
    Ok(())
}
