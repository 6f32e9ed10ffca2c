//! What other servers commit: told by `NOTIFY`, and kept in the table of changes.
//!
//! Notifications are only hints. Most say what was changed; for the others the table is read at once, and for
//! those that were lost every second. What was read is remembered as a snapshot, so that a commit that was
//! under way is neither missed nor told twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::poll_fn;
use longhaul_core::{Error, OperationName, Timestamp};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{AsyncMessage, Row};

use super::address::Address;
use super::core::Core;
use super::faults::{damaged, unavailable};
use super::note::{self, Change, Note};
use super::session::configure;
use crate::ClaimHint;
use crate::telling::tell_elsewhere;

/// Longest time until a commit of another server is heard of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A server that has not looked for so long, in microseconds, may have missed rows that are gone.
const MISSED_US: i64 = 45_000_000;

/// First and longest pause before trying again. No longer than a commit may go unheard once the database is
/// back.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Commits, by server and number, that were told of by a note: not told again when they are read. Each is
/// kept for two looks, since a look may have begun before the commit.
#[derive(Default)]
pub(super) struct Told {
    now: HashSet<(i64, i64)>,
    before: HashSet<(i64, i64)>,
}

impl Told {
    fn contains(&self, commit: (i64, i64)) -> bool {
        self.now.contains(&commit) || self.before.contains(&commit)
    }

    fn looked(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

/// The channel of `NOTIFY`.
pub(super) fn channel(core: &Core) -> String {
    format!("longhaul_{}", core.options.schema)
}

/// Tells other servers that there is something to read, where the commit itself could not.
pub(super) async fn run_bell(core: Arc<Core>) {
    let (channel, text) = (channel(&core), note::look(core.server));
    let mut span = PAUSES.0;
    while !core.is_stopped() {
        core.bell.notified().await;
        let limit = core.options.connect_timeout;
        match core.ask(limit, &core.sql.notify, &[&channel, &text]).await {
            Ok(_) => span = PAUSES.0,
            Err(error) => {
                tracing::debug!(%error, "other servers were not told");
                if pause(&core, &mut span).await {
                    core.bell.notify_one();
                }
            }
        }
    }
}

/// Waits before another try, and longer the next time; false when there is to be none.
async fn pause(core: &Core, span: &mut Duration) -> bool {
    tokio::select! {
        () = core.stopping() => {}
        () = tokio::time::sleep(*span) => {}
    }
    *span = (*span * 2).min(PAUSES.1);
    !core.is_stopped()
}

/// Keeps a connection that listens, and passes on what it hears.
pub(super) async fn run_ear(core: Arc<Core>, address: Address, heard: Arc<Notify>) {
    let mut span = PAUSES.0;
    while !core.is_stopped() {
        let mut listened = false;
        if let Err(error) = listen(&core, &address, &heard, &mut listened).await {
            tracing::warn!(%error, source = ?error.source, "listening to the database ended");
        }
        if listened {
            span = PAUSES.0;
        }
        pause(&core, &mut span).await;
    }
}

async fn listen(
    core: &Core,
    address: &Address,
    heard: &Notify,
    listened: &mut bool,
) -> Result<(), Error> {
    let mut options = core.options.clone();
    options.transaction_pooler = false;
    let config = configure(address, &options);
    let connecting = config.connect(address.tls.clone());
    let connected = tokio::time::timeout(core.options.connect_timeout, connecting).await;
    let (client, mut connection) = connected.map_err(unavailable)?.map_err(unavailable)?;
    let hear = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(note) = message.map_err(unavailable)? {
                take_in(core, note.payload(), heard);
            }
        }
        Ok(())
    };
    let begin = async {
        let channel = channel(core);
        client.batch_execute(&format!("LISTEN \"{channel}\"")).await.map_err(unavailable)?;
        *listened = true;
        // Whatever came before this connection listened, here and there.
        heard.notify_one();
        core.bell.notify_one();
        std::future::pending::<Result<(), Error>>().await
    };
    tokio::select! {
        ended = hear => ended,
        failed = begin => failed,
        () = core.stopping() => Ok(()),
    }
}

/// Takes in a note of another server.
fn take_in(core: &Core, text: &str, heard: &Notify) {
    let Some(Note { server, commit }) = note::read(text) else { return heard.notify_one() };
    if server == core.server {
        return;
    }
    core.shared.store(true, Ordering::Relaxed);
    match commit {
        Some((batch, changes))
            if changes.iter().all(|change| core.words.kind(change.kind).is_some()) =>
        {
            core.told.lock().now.insert((server, batch));
            tell(core, &changes);
        }
        Some(_) | None => heard.notify_one(),
    }
}

/// How far the table of changes was read.
struct Place {
    snapshot: String,
    at_us: i64,
}

/// Reads the table of changes.
pub(super) async fn run_feed(core: Arc<Core>, heard: Arc<Notify>) {
    let mut place: Option<Place> = None;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut span = PAUSES.0;
    while !core.is_stopped() {
        tokio::select! {
            () = core.stopping() => return,
            () = heard.notified() => {}
            _ = ticks.tick() => {}
        }
        match look(&core, &mut place).await {
            Ok(()) => span = PAUSES.0,
            Err(error) => {
                tracing::warn!(%error, source = ?error.source, "changes of other servers cannot be read");
                // What was heard of is still to be read.
                if pause(&core, &mut span).await {
                    heard.notify_one();
                }
            }
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
    let untold = |row: &&Row| {
        let commit: (Option<i64>, Option<i64>) = (row.get(6), row.get(7));
        let (Some(server), Some(batch)) = commit else { return false };
        !core.told.lock().contains((server, batch))
    };
    for row in rows.iter().filter(untold) {
        tell(core, &changes(row));
    }
    core.told.lock().looked();
    *place = Some(next);
    if missed {
        core.listener.missed();
    }
    Ok(())
}

/// The changes of one commit.
fn changes(row: &Row) -> Vec<Change> {
    let names: Option<Vec<&str>> = row.get(2);
    let (revisions, kinds): (Option<Vec<i64>>, Option<Vec<i32>>) = (row.get(3), row.get(4));
    let claimable: Option<Vec<Option<i64>>> = row.get(5);
    let others = revisions.into_iter().flatten().zip(kinds.into_iter().flatten());
    let others = others.zip(claimable.into_iter().flatten());
    let change = |(name, ((revision, kind), claimable_us)): (&str, ((i64, i32), Option<i64>))| {
        let name = OperationName::parse(name).ok()?;
        Some(Change { name, revision, kind, claimable_us })
    };
    names.into_iter().flatten().zip(others).filter_map(change).collect()
}

/// Tells of one commit.
fn tell(core: &Core, changes: &[Change]) {
    for change in changes {
        tell_elsewhere(&*core.listener, &change.name, change.revision.unsigned_abs());
        if let (Some(from), Some(kind)) = (change.claimable_us, core.words.kind(change.kind)) {
            core.listener.claimable(&ClaimHint {
                api: kind.api,
                method: kind.method,
                queue: kind.queue,
                from: Timestamp::from_micros(from),
            });
        }
    }
    core.hints.add(std::iter::empty(), changes.iter().filter_map(|change| change.claimable_us));
}
