//! Where operations are kept: the [`Store`] trait and its back ends.
//!
//! Owns durability, order and lookup. Refuses to own rules: what a command does is decided by the pure
//! function the caller hands in, and the back ends run it inside their transaction. Reads no clock:
//! every moment comes in as an argument or inside the decision.

mod admission;
mod check_sum;
mod codec;
#[cfg(test)]
mod conformance;
mod decision;
pub mod embedded;
mod history;
mod list;
pub mod memory;
pub mod postgres;
pub mod schema;
mod shared;
mod telling;
pub mod transfer;
mod trouble;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use longhaul_core::{Applied, Error, Event, Operation, OperationName, Refusal, Timestamp};

pub use embedded::{Durability, Options};
pub use list::{Cursor, ListQuery, ParentFilter};
pub use shared::{OUTAGE_MIN, Presence};

/// Decides what becomes of one operation, inside the transaction.
///
/// Gets the stored value, or `None` when there is none. Pure: it may run twice for one commit and must
/// not call the store, block, or keep anything. A result with an unchanged revision writes nothing.
pub type Decide = Arc<dyn Fn(Option<&Operation>) -> Result<Applied, Refusal> + Send + Sync>;

/// Which operation an [`Store::update`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The one with this name.
    Name(OperationName),
    /// The one that was started under this idempotency key; when there is none, the one called `name`,
    /// which is then the name of the operation about to be started. When the decision answers with
    /// another name than the operation found has (its window is over), the key is filed under the new
    /// operation. Source: AIP-155.
    RequestId {
        /// The API the key belongs to.
        api: Arc<str>,
        /// The parent the key belongs to.
        parent: Arc<str>,
        /// As the caller gave it.
        value: Arc<str>,
        /// The name of the operation to start.
        name: OperationName,
    },
    /// The same, for a child: when the decision makes a new operation, the parent is read in the same
    /// transaction, and what [`Operation::admits_child`] refuses is not started. An operation that is there
    /// already (a repeated start) is decided about as without a parent.
    Child {
        /// The parent.
        parent: OperationName,
        /// What it is about otherwise.
        key: Box<Key>,
    },
}

impl Key {
    /// The key of a start: by `request_id` where the caller gave one, else by name.
    #[must_use]
    pub fn of_start(start: &longhaul_core::Start) -> Self {
        let key = match &start.request_id {
            Some(id) => Self::RequestId {
                api: start.api.clone(),
                parent: start.parent.clone(),
                value: id.value.clone(),
                name: start.name.clone(),
            },
            None => Self::Name(start.name.clone()),
        };
        match &start.parent_operation {
            Some(parent) => Self::Child { parent: parent.clone(), key: Box::new(key) },
            None => key,
        }
    }

    /// The parent whose leave a new operation needs, and the key without it.
    pub(crate) fn parts(&self) -> (Option<&OperationName>, &Self) {
        match self {
            Self::Child { parent, key } => (Some(parent), key.parts().1),
            Self::Name(_) | Self::RequestId { .. } => (None, self),
        }
    }
}

/// What is shed first when the store cannot keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Refused with `OVERLOADED` as soon as the queue is full.
    #[default]
    Normal,
    /// May use the reserve of the queue: cancels.
    Urgent,
}

/// The API of Longhaul's own operations. Servers work on them; no worker is given one.
pub const OWN_API: &str = "longhaul.v1";

/// Which operations a worker takes. Empty lists and `None` mean any, but for those of [`OWN_API`], which
/// only a claim gets that names the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimFilter {
    /// Only of this API.
    pub api: Option<Arc<str>>,
    /// Only started by one of these methods, by full name.
    pub methods: Vec<Arc<str>>,
    /// Only from one of these queues.
    pub queues: Vec<Arc<str>>,
}

impl ClaimFilter {
    /// Whether an operation of this API, method and queue is wanted.
    #[must_use]
    pub fn accepts(&self, api: &str, method: &str, queue: &str) -> bool {
        fn any(wanted: &[Arc<str>], is: &str) -> bool {
            wanted.is_empty() || wanted.iter().any(|want| &**want == is)
        }
        self.api.as_deref().map_or(api != OWN_API, |want| want == api)
            && any(&self.methods, method)
            && any(&self.queues, queue)
    }
}

/// Which operations an [`Store::update_due`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Those that a worker may claim at `now`: first the one that could have been claimed longest, among
    /// equals the one created first.
    Claim {
        /// Whose.
        filter: ClaimFilter,
        /// The moment of the claim.
        now: Timestamp,
        /// No more than fit into so many bytes, by [`Operation::bytes_told`]; the first one always.
        bytes_max: usize,
    },
    /// Those whose [`Operation::due_at`] has come, the most overdue first. May use the queue's reserve,
    /// for accepted cancels must end in time.
    Timer {
        /// The moment of the sweep.
        now: Timestamp,
    },
}

impl Due {
    /// Bytes of operations that are enough for one update.
    pub(crate) const fn bytes_max(&self) -> usize {
        match self {
            Self::Claim { bytes_max, .. } => *bytes_max,
            Self::Timer { .. } => usize::MAX,
        }
    }
}

/// Why an update did not happen.
#[derive(Debug)]
pub enum Failure {
    /// The rules say no; nothing changed.
    Refused(Refusal),
    /// The store could not; nothing was acknowledged.
    Store(Error),
}

impl Failure {
    /// The failure as a caller hears it, about the operation called `name`.
    #[must_use]
    pub fn into_error(self, name: &OperationName) -> Error {
        match self {
            Self::Refused(refusal) => refusal.into_error(name),
            Self::Store(error) => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// One committed change, as the history keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The revision that the change made.
    pub revision: u64,
    /// What happened in it, in order.
    pub events: Vec<Event>,
}

/// How many operations of one method stand in one state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// The API.
    pub api: Arc<str>,
    /// The method that started them.
    pub method: Arc<str>,
    /// As [`longhaul_core::State::name`] gives it.
    pub state: &'static str,
    /// How many; at least 1.
    pub operations: u64,
}

/// Something may be claimed, now or at a moment to come: wakes waiting claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHint {
    /// Of which API.
    pub api: Arc<str>,
    /// Started by which method.
    pub method: Arc<str>,
    /// From which queue.
    pub queue: Arc<str>,
    /// From when.
    pub from: Timestamp,
}

impl ClaimHint {
    /// The hint that a change gives, if it gives one.
    #[must_use]
    pub fn of(operation: &Operation) -> Option<Self> {
        operation.claimable_from().map(|from| Self {
            api: operation.api.clone(),
            method: operation.method.clone(),
            queue: operation.queue.clone(),
            from,
        })
    }
}

/// Hears of every commit.
///
/// Called after the commit and before the caller's answer, for one operation in the order of its commits.
/// Must be quick, and must not call the store: it holds up the next commit.
pub trait Listener: Send + Sync {
    /// A decision was committed; its revision is the old one when nothing was written.
    fn committed(&self, change: &Applied);

    /// Something may be claimed. Only a hint: it may come twice, or for nothing; where several servers share
    /// a store, also for what another of them has committed.
    fn claimable(&self, hint: &ClaimHint);

    /// Another server on the same store committed a change that made this `revision`, or forgot the
    /// operation. Only a hint to read the row again: it comes after the commit, usually within milliseconds
    /// and at the latest after a second, perhaps twice, in any order, and once for several changes.
    fn changed_elsewhere(&self, name: &OperationName, revision: u64) {
        let _ = (name, revision);
    }

    /// Changes that other servers made may have been missed: whoever waits must look again.
    fn missed(&self) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deaf;

impl Listener for Deaf {
    fn committed(&self, _change: &Applied) {}

    fn claimable(&self, _hint: &ClaimHint) {}
}

/// Where operations are kept.
///
/// Two writes and a few reads. A write that returned is durable, and every read that begins afterwards
/// sees it. Dropping the future of a write does not undo it. Errors other than refusals are
/// `STORE_UNAVAILABLE` (nothing was acknowledged; repeat), `OVERLOADED` (the queue is full),
/// `STORE_DAMAGED` and, after [`Store::close`], `SHUTTING_DOWN`.
#[async_trait]
pub trait Store: Send + Sync {
    /// Decides about one operation and commits what was decided.
    ///
    /// The answer comes after the commit, also when it says that nothing changed.
    async fn update(
        &self,
        key: Key,
        priority: Priority,
        decide: Decide,
    ) -> Result<Applied, Failure>;

    /// Decides about up to `limit` operations that are due; those refused are skipped.
    ///
    /// Several servers on one store never get the same operation for the same revision.
    async fn update_due(
        &self,
        due: Due,
        limit: usize,
        decide: Decide,
    ) -> Result<Vec<Applied>, Error>;

    /// The operation of this name, deleted or not. Answers from memory where it can.
    async fn get(&self, name: &OperationName) -> Result<Option<Arc<Operation>>, Error>;

    /// The same for many names, in their order; `None` for each that is not there. One read where it can be
    /// one. Ask for no more at a time than may be in memory at once.
    async fn get_many(&self, names: &[OperationName])
    -> Result<Vec<Option<Arc<Operation>>>, Error>;

    /// The operations whose lease in force was claimed by `worker` under this id, which is not empty; in any
    /// order. Asked at every claim that has an id, so it must be cheap when there is none.
    async fn claimed(&self, worker: &str, claim_id: &str) -> Result<Vec<Arc<Operation>>, Error>;

    /// A page of operations that are not deleted, newest first by `(create_time, uid)`.
    ///
    /// Operations past their retention may be among them until they are swept.
    async fn list(&self, query: ListQuery) -> Result<Vec<(Cursor, Arc<Operation>)>, Error>;

    /// Children of an operation, oldest first; at most `limit`. Also of one that is not there any more, and
    /// deleted ones among them.
    async fn children(
        &self,
        parent: &OperationName,
        limit: usize,
    ) -> Result<Vec<OperationName>, Error>;

    /// Children that would follow the cancel of their parent but have not been asked, each after its
    /// parent; at most `limit`. Found from rows alone. Such a parent's row stays until none is left.
    async fn left_behind(&self, limit: usize)
    -> Result<Vec<(OperationName, OperationName)>, Error>;

    /// What happened to an operation, oldest first, with revisions above `after`; at most `limit`.
    ///
    /// Empty for an operation that does not exist.
    async fn history(
        &self,
        name: &OperationName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, Error>;

    /// The first moment at which [`Due::Timer`] has something to do; may be in the past.
    ///
    /// A hint: ask again after a commit, or at the latest after a second.
    fn next_due(&self) -> Option<Timestamp>;

    /// The first moment after `now` at which something becomes claimable that was not at `now`. A hint.
    fn next_claimable(&self, now: Timestamp) -> Option<Timestamp>;

    /// How many operations are kept, by API, method and state; deleted ones included.
    fn counts(&self) -> Vec<Count>;

    /// Whether no server had this store open just before this one opened it, so that workers could report to
    /// nobody. True for stores that belong to one server at a time.
    fn was_unattended(&self) -> bool {
        true
    }

    /// Whether a write can be accepted now: makes a small durable one.
    async fn ready(&self) -> Result<(), Error>;

    /// 32 random bytes that belong to this store for good: seals page tokens.
    fn token_key(&self) -> [u8; 32];

    /// Whether other servers may be on this store, too. Then the next two matter.
    fn is_shared(&self) -> bool {
        false
    }

    /// Says that this server is there at `now`, and hears what the servers know together.
    async fn present(&self, _now: Timestamp) -> Result<Presence, Error> {
        Ok(Presence::default())
    }

    /// Notes that leases were given back the time of this outage, and of all before it.
    async fn recovered(&self, _outage: u64) -> Result<(), Error> {
        Ok(())
    }

    /// Answers what is waiting, then takes nothing more. Reads go on. Safe to repeat.
    async fn close(&self);
}
