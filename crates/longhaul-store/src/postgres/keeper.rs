//! What a server says and reads every second: that it is here, who else is, what is due first, what is counted.
//!
//! A task of its own: however much there is to hear of other servers, they must go on knowing of this one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longhaul_core::{Error, Timestamp};

use super::core::Core;
use super::faults::damaged;
use super::session::Value;
use crate::{OUTAGE_MIN, Presence};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// How long rows of the table of changes are kept, in turns of this task.
const KEPT_TURNS: usize = 60;

/// Runs until the store is told to stop.
pub(super) async fn run(core: Arc<Core>) {
    let mut turns = VecDeque::new();
    while !core.is_stopped() {
        tokio::select! {
            () = core.stopping() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = keep_up(&core, &mut turns).await {
            tracing::warn!(%error, source = ?error.source, "this server cannot be kept known");
        }
    }
}

/// One turn. Before all else it says that this server is here.
async fn keep_up(core: &Core, turns: &mut VecDeque<i64>) -> Result<(), Error> {
    heartbeat(core).await?;
    super::tally::refresh(core).await?;
    first_due(core).await?;
    turns.push_back(core.batches.load(Ordering::Relaxed));
    let old = if turns.len() > KEPT_TURNS { turns.pop_front() } else { None };
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
