//! Keeps leases alive and hears what is wanted, through hanging reports.
//!
//! Operations are gathered into groups; one report of each group hangs at the server and comes back
//! when something changed or at the latest when the leases need renewing. Groups are small enough
//! that one change costs little, and few enough for one connection. Used where the server offers no
//! sessions; otherwise `session` is in this room's place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_wire::v1::{ReportItem, ReportRequest};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;

use super::Shared;
use super::link::{Backoff, to_wire, within};
use super::live::Live;
use super::send::{hear_result, item};

/// How long operations gather before they are listened for: short beside a person's patience, and
/// long enough that work which ends at once is never listened for.
const GATHER: Duration = Duration::from_millis(5);
/// Smallest and largest group. One connection carries about a hundred calls well.
const GROUP_MIN: usize = 32;
const GROUP_MAX: usize = 1000;
/// Aimed number of groups.
const GROUPS: usize = 32;

type GroupId = u64;

/// Hanging reports and what waits for one.
struct Hearing {
    shared: Arc<Shared>,
    calls: JoinSet<(GroupId, bool)>,
    groups: HashMap<GroupId, Group>,
    next_id: GroupId,
    /// Not listened for yet.
    gathered: Vec<Arc<Live>>,
    /// Stopping: only kept alive until they end.
    quiet: Vec<Arc<Live>>,
    /// When what is gathered is listened for.
    listen_at: Option<Instant>,
    /// Set while the server does not answer. The first report after that does not hang: whether the
    /// leases still hold must be known at once.
    away: Option<Backoff>,
}

struct Group {
    members: Vec<Arc<Live>>,
    call: AbortHandle,
}

/// Listens until the worker ends.
pub(super) async fn run(shared: Arc<Shared>, mut fresh: mpsc::UnboundedReceiver<Arc<Live>>) {
    let renew_every = shared.options.renew_every();
    let mut renewal = tokio::time::interval(renew_every);
    let mut hearing = Hearing {
        shared,
        calls: JoinSet::new(),
        groups: HashMap::new(),
        next_id: 0,
        gathered: Vec::new(),
        quiet: Vec::new(),
        listen_at: None,
        away: None,
    };
    loop {
        let listen_at = hearing.listen_at;
        tokio::select! {
            live = fresh.recv() => match live {
                Some(live) => hearing.gather([live], GATHER),
                None => return,
            },
            Some(ended) = hearing.calls.join_next() => hearing.ended(ended),
            () = sleep_until(listen_at) => hearing.listen(),
            _ = renewal.tick() => hearing.renew_quiet(),
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Hearing {
    /// Takes operations up, to be listened for after a pause unless that is due sooner.
    fn gather(&mut self, lives: impl IntoIterator<Item = Arc<Live>>, pause: Duration) {
        for live in lives {
            if live.worth_hearing() {
                self.gathered.push(live);
            } else if !live.over().is_cancelled() {
                self.quiet.push(live);
            }
        }
        if !self.gathered.is_empty() && self.listen_at.is_none() {
            self.listen_at = Some(Instant::now() + pause);
        }
    }

    /// A hanging report came back, or was given up.
    fn ended(&mut self, ended: Result<(GroupId, bool), JoinError>) {
        // A call that was aborted has had its group taken already.
        let Ok((id, answered)) = ended else { return };
        let Some(group) = self.groups.remove(&id) else { return };
        let pause = if answered {
            self.away = None;
            GATHER
        } else {
            self.away.get_or_insert_with(Backoff::new).pause()
        };
        self.gather(group.members, pause);
    }

    /// Starts hanging reports for everything gathered; small groups are taken back first, so that
    /// their number stays small however operations trickle in.
    fn listen(&mut self) {
        self.listen_at = None;
        let mut lives = std::mem::take(&mut self.gathered);
        let known: usize = self.groups.values().map(|group| group.members.len()).sum();
        let group_max = ((known + lives.len()) / GROUPS).clamp(GROUP_MIN, GROUP_MAX);
        let mut small: Vec<_> = self
            .groups
            .iter()
            .map(|(id, group)| (group.members.len(), *id))
            .filter(|(size, _)| *size < group_max)
            .collect();
        small.sort_unstable();
        for (size, id) in small {
            if size > lives.len() || size + lives.len() > group_max {
                break;
            }
            if let Some(group) = self.groups.remove(&id) {
                group.call.abort();
                lives.extend(group.members);
            }
        }
        lives.retain(|live| {
            let hear = live.worth_hearing();
            if !hear && !live.over().is_cancelled() {
                self.quiet.push(live.clone());
            }
            hear
        });
        for members in lives.chunks(group_max) {
            self.hang(members.to_vec());
        }
    }

    fn hang(&mut self, members: Vec<Arc<Live>>) {
        let id = self.next_id;
        self.next_id += 1;
        let wait =
            if self.away.is_some() { Duration::ZERO } else { self.shared.options.renew_every() };
        let call = hang(self.shared.clone(), id, members.clone(), wait);
        let call = self.calls.spawn(call);
        self.groups.insert(id, Group { members, call });
    }

    /// Signs of life of what is stopping; the answers may still say that it is lost.
    fn renew_quiet(&mut self) {
        self.quiet.retain(|live| !live.over().is_cancelled());
        for live in &self.quiet {
            if live.change(|_| {}) {
                self.shared.report(live);
            }
        }
    }
}

/// One hanging report. Answers whether the server did.
async fn hang(
    shared: Arc<Shared>,
    id: GroupId,
    members: Vec<Arc<Live>>,
    wait: Duration,
) -> (GroupId, bool) {
    let items = members.iter().map(|live| item(&shared, live, ReportItem::default())).collect();
    let request =
        ReportRequest { worker: shared.options.name.clone(), items, wait: Some(to_wire(wait)) };
    let timeout = wait + shared.options.call_timeout();
    let sent_at = Instant::now();
    let response = match within(timeout, shared.link.report(request, timeout)).await {
        Ok(response) if response.results.len() == members.len() => response,
        Ok(_) => {
            tracing::warn!("the server answered another number of items than were sent");
            return (id, false);
        }
        Err(status) => {
            tracing::debug!(%status, "a hanging report broke");
            return (id, false);
        }
    };
    for (live, result) in members.iter().zip(&response.results) {
        hear_result(&shared, live, result, sent_at);
    }
    (id, true)
}
