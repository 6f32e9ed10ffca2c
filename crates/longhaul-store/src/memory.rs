//! Operations in memory, behind one mutex: for tests, simulations and servers that may forget.
//!
//! Owns no durability. Kept plain on purpose: the conformance suite checks the other back ends against
//! the same claims as this one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use async_trait::async_trait;
use longhaul_core::{Applied, Error, Operation, OperationName, Refusal, Timestamp, meet};
use parking_lot::Mutex;

use crate::admission::closed;
use crate::telling::tell;
use crate::{
    Count, Cursor, Decide, Due, Failure, Key, ListQuery, Listener, OUTAGE_MIN, Presence, Priority,
    Recorded, Store, decision, history,
};

/// Who started what under which key: API, parent, value.
type RequestKey = (Arc<str>, Arc<str>, Arc<str>);

/// Worker and claim id.
type ClaimKey = (Arc<str>, Arc<str>);
/// API and resource.
type TargetKey = (Arc<str>, Arc<str>);

/// Operations in memory. Open it with [`Memory::new`].
pub struct Memory {
    kept: Mutex<Kept>,
    listener: Arc<dyn Listener>,
    token_key: [u8; 32],
    /// What servers tell each other; `None` where there is one only.
    shared: Option<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    seen: Option<Timestamp>,
    outage: u64,
    recovered: u64,
}

#[derive(Default)]
struct Kept {
    operations: HashMap<OperationName, Arc<Operation>>,
    history: HashMap<OperationName, Vec<Recorded>>,
    request_ids: HashMap<RequestKey, OperationName>,
    /// By the moment it can be claimed, then by age.
    claimable: BTreeSet<(Timestamp, Cursor, OperationName)>,
    /// By the moment a tick is due.
    timers: BTreeSet<(Timestamp, OperationName)>,
    /// By parent, then by age.
    children: BTreeSet<(OperationName, Cursor, OperationName)>,
    /// By the resource that they have for themselves.
    alone: HashMap<TargetKey, BTreeSet<OperationName>>,
    /// By the claim that holds them.
    claimed: HashMap<ClaimKey, BTreeSet<OperationName>>,
    /// By age.
    listed: BTreeMap<(Cursor, OperationName), ()>,
    closed: bool,
}

impl Memory {
    /// An empty store; `token_key` is 32 random bytes.
    #[must_use]
    pub fn new(token_key: [u8; 32], listener: Arc<dyn Listener>) -> Self {
        Self { kept: Mutex::new(Kept::default()), listener, token_key, shared: None }
    }

    /// The same for several servers in one process, such as those of a simulation; `listener` must tell
    /// all of them.
    #[must_use]
    pub fn shared(token_key: [u8; 32], listener: Arc<dyn Listener>) -> Self {
        Self { shared: Some(Mutex::default()), ..Self::new(token_key, listener) }
    }

    fn publish(&self, change: &Applied) {
        tell(&*self.listener, change);
    }
}

impl Kept {
    /// What was decided, after what that led to elsewhere.
    fn decide(&mut self, key: &Key, decide: &Decide) -> Result<Vec<Applied>, Failure> {
        let (parent, key) = key.parts();
        let (found, name) = match key {
            Key::Child { key, .. } => return self.decide(key, decide),
            Key::Name(name) => (self.operations.get(name).cloned(), name),
            Key::RequestId { api, parent, value, name } => {
                let filed = self.request_ids.get(&(api.clone(), parent.clone(), value.clone()));
                let found = filed.unwrap_or(name);
                (self.operations.get(found).cloned(), name)
            }
        };
        let mut applied = decision::run(decide, found.as_deref())?;
        let mut before = found;
        if before.as_ref().is_some_and(|before| before.name != applied.operation.name) {
            // A new operation under an old key: nobody may have its name.
            before = self.operations.get(name).cloned();
            if before.is_some() {
                applied = decision::run(decide, before.as_deref())?;
            }
        }
        if before.is_none()
            && let Some(parent) = parent
        {
            let parent = self.operations.get(parent).map(|parent| &**parent);
            decision::admit(parent, &applied).map_err(Failure::Refused)?;
        }
        let mut all = match &before {
            None => self.make_way(&applied.operation).map_err(Failure::Refused)?,
            Some(_) => Vec::new(),
        };
        if let Some(before) = &before
            && applied.forget
            && before.cancel.is_some()
            && self.children_of(&before.name).any(Operation::would_follow_parent)
        {
            applied = decision::keep_for_children(before, applied).map_err(Failure::Refused)?;
        }
        self.put(before.as_deref(), &applied);
        all.push(applied);
        Ok(all)
    }

    /// What becomes of those that act on the resource of a new operation.
    fn make_way(&mut self, new: &Operation) -> Result<Vec<Applied>, Refusal> {
        let Some((api, target)) = new.claim_on() else { return Ok(Vec::new()) };
        let names = self.alone.get(&(api.clone(), target.clone())).cloned().unwrap_or_default();
        let rivals = names.iter().map(|name| self.operations[name].clone()).collect::<Vec<_>>();
        let met = rivals.iter().map(|rival| meet(rival, new, new.create_time));
        let met = met.collect::<Result<Vec<_>, _>>()?;
        for (rival, changed) in rivals.iter().zip(&met) {
            if let Some(changed) = changed {
                self.put(Some(rival), changed);
            }
        }
        Ok(met.into_iter().flatten().collect())
    }

    fn children_of(&self, parent: &OperationName) -> impl Iterator<Item = &Operation> {
        let first = (parent.clone(), Cursor::FIRST, parent.clone());
        self.children
            .range(first..)
            .take_while(move |(of, _, _)| of == parent)
            .map(|(_, _, name)| &*self.operations[name])
    }

    fn put(&mut self, before: Option<&Operation>, applied: &Applied) {
        let operation = &applied.operation;
        if let Some(before) = before {
            if before.revision == operation.revision && !applied.forget {
                return;
            }
            self.unlink(before);
        } else if applied.forget {
            return;
        }
        if applied.forget {
            self.forget(operation);
        } else {
            if before.is_none()
                && let Some(key) = request_key(operation)
            {
                self.request_ids.insert(key, operation.name.clone());
            }
            self.link(operation);
            self.operations.insert(operation.name.clone(), Arc::new(operation.clone()));
            let history = self.history.entry(operation.name.clone()).or_default();
            let events = history::worth_keeping(&applied.events, history.len());
            if !events.is_empty() {
                history.push(Recorded { revision: operation.revision, events });
            }
        }
    }

    fn forget(&mut self, operation: &Operation) {
        self.operations.remove(&operation.name);
        self.history.remove(&operation.name);
        if let Some(key) = request_key(operation)
            && self.request_ids.get(&key) == Some(&operation.name)
        {
            self.request_ids.remove(&key);
        }
    }

    fn link(&mut self, operation: &Operation) {
        let (name, cursor) = (&operation.name, Cursor::of(operation));
        if let Some(from) = operation.claimable_from() {
            self.claimable.insert((from, cursor, name.clone()));
        }
        if let Some(at) = operation.due_at() {
            self.timers.insert((at, name.clone()));
        }
        if let Some(parent) = &operation.parent_operation {
            self.children.insert((parent.clone(), cursor, name.clone()));
        }
        if let Some(key) = claim_key(operation) {
            self.claimed.entry(key).or_default().insert(name.clone());
        }
        if let Some((api, target)) = operation.claim_on() {
            let key = (api.clone(), target.clone());
            self.alone.entry(key).or_default().insert(name.clone());
        }
        if operation.deleted.is_none() {
            self.listed.insert((cursor, name.clone()), ());
        }
    }

    fn unlink(&mut self, operation: &Operation) {
        let (name, cursor) = (&operation.name, Cursor::of(operation));
        if let Some(from) = operation.claimable_from() {
            self.claimable.remove(&(from, cursor, name.clone()));
        }
        if let Some(at) = operation.due_at() {
            self.timers.remove(&(at, name.clone()));
        }
        if let Some(parent) = &operation.parent_operation {
            self.children.remove(&(parent.clone(), cursor, name.clone()));
        }
        if let Some(key) = claim_key(operation) {
            take_out(&mut self.claimed, &key, name);
        }
        if let Some((api, target)) = operation.claim_on() {
            take_out(&mut self.alone, &(api.clone(), target.clone()), name);
        }
        self.listed.remove(&(cursor, name.clone()));
    }

    fn due(&self, due: &Due, limit: usize, skip: &BTreeSet<OperationName>) -> Vec<OperationName> {
        let wanted = |name: &&OperationName| !skip.contains(*name);
        match due {
            Due::Claim { filter, now, .. } => self
                .claimable
                .iter()
                .take_while(|(from, _, _)| from <= now)
                .map(|(_, _, name)| name)
                .filter(wanted)
                .filter(|name| {
                    let operation = &self.operations[*name];
                    filter.accepts(&operation.api, &operation.method, &operation.queue)
                })
                .take(limit)
                .cloned()
                .collect(),
            Due::Timer { now } => self
                .timers
                .iter()
                .take_while(|(at, _)| at <= now)
                .map(|(_, name)| name)
                .filter(wanted)
                .take(limit)
                .cloned()
                .collect(),
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.closed { Err(closed()) } else { Ok(()) }
    }
}

fn request_key(operation: &Operation) -> Option<RequestKey> {
    operation
        .request_id
        .as_ref()
        .map(|id| (operation.api.clone(), operation.parent.clone(), id.value.clone()))
}

fn take_out<K: Hash + Eq>(
    index: &mut HashMap<K, BTreeSet<OperationName>>,
    key: &K,
    name: &OperationName,
) {
    let left = index.get_mut(key).is_some_and(|names| {
        names.remove(name);
        !names.is_empty()
    });
    if !left {
        index.remove(key);
    }
}

/// The claim that holds an operation, if that has an id.
fn claim_key(operation: &Operation) -> Option<ClaimKey> {
    let lease = operation.lease().filter(|lease| !lease.claim_id.is_empty())?;
    Some((lease.worker.clone(), lease.claim_id.clone()))
}

#[async_trait]
impl Store for Memory {
    async fn update(
        &self,
        key: Key,
        _priority: Priority,
        decide: Decide,
    ) -> Result<Applied, Failure> {
        let mut kept = self.kept.lock();
        kept.check_open().map_err(Failure::Store)?;
        let mut all = kept.decide(&key, &decide)?;
        all.iter().for_each(|applied| self.publish(applied));
        Ok(all.pop().expect("what was decided comes last"))
    }

    async fn update_due(
        &self,
        due: Due,
        limit: usize,
        decide: Decide,
    ) -> Result<Vec<Applied>, Error> {
        let mut kept = self.kept.lock();
        kept.check_open()?;
        let mut done = Vec::new();
        let (mut seen, mut bytes) = (BTreeSet::new(), 0);
        while done.len() < limit {
            let names = kept.due(&due, limit - done.len(), &seen);
            if names.is_empty() {
                break;
            }
            for name in names {
                let more = kept.operations[&name].bytes_told();
                if !done.is_empty() && bytes + more > due.bytes_max() {
                    return Ok(done);
                }
                seen.insert(name.clone());
                if let Ok(mut all) = kept.decide(&Key::Name(name), &decide) {
                    all.iter().for_each(|applied| self.publish(applied));
                    done.extend(all.pop());
                    bytes += more;
                }
            }
        }
        Ok(done)
    }

    async fn get(&self, name: &OperationName) -> Result<Option<Arc<Operation>>, Error> {
        Ok(self.kept.lock().operations.get(name).cloned())
    }

    async fn get_many(
        &self,
        names: &[OperationName],
    ) -> Result<Vec<Option<Arc<Operation>>>, Error> {
        let kept = self.kept.lock();
        Ok(names.iter().map(|name| kept.operations.get(name).cloned()).collect())
    }

    async fn claimed(&self, worker: &str, claim_id: &str) -> Result<Vec<Arc<Operation>>, Error> {
        let kept = self.kept.lock();
        let held = kept.claimed.get(&(worker.into(), claim_id.into()));
        Ok(held.into_iter().flatten().map(|name| kept.operations[name].clone()).collect())
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<(Cursor, Arc<Operation>)>, Error> {
        let kept = self.kept.lock();
        Ok(kept
            .listed
            .keys()
            .rev()
            .filter(|(cursor, _)| query.after.is_none_or(|after| *cursor < after))
            .map(|(cursor, name)| (*cursor, &kept.operations[name]))
            .filter(|(_, operation)| {
                operation.api == query.api
                    && query.parent.accepts(&operation.parent)
                    && query.done.is_none_or(|done| operation.outcome().is_some() == done)
            })
            .take(query.limit)
            .map(|(cursor, operation)| (cursor, operation.clone()))
            .collect())
    }

    async fn children(
        &self,
        parent: &OperationName,
        limit: usize,
    ) -> Result<Vec<OperationName>, Error> {
        let kept = self.kept.lock();
        Ok(kept.children_of(parent).take(limit).map(|child| child.name.clone()).collect())
    }

    async fn left_behind(
        &self,
        limit: usize,
    ) -> Result<Vec<(OperationName, OperationName)>, Error> {
        let kept = self.kept.lock();
        let cancelled = |name| {
            kept.operations.get(name).is_some_and(|parent: &Arc<Operation>| parent.cancel.is_some())
        };
        Ok(kept
            .children
            .iter()
            .filter(|(_, _, child)| kept.operations[child].would_follow_parent())
            .filter(|(parent, _, _)| cancelled(parent))
            .map(|(parent, _, child)| (parent.clone(), child.clone()))
            .take(limit)
            .collect())
    }

    async fn history(
        &self,
        name: &OperationName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, Error> {
        let kept = self.kept.lock();
        let recorded = kept.history.get(name).map(Vec::as_slice).unwrap_or_default();
        Ok(recorded.iter().filter(|r| r.revision > after).take(limit).cloned().collect())
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.kept.lock().timers.first().map(|(at, _)| *at)
    }

    fn next_claimable(&self, now: Timestamp) -> Option<Timestamp> {
        let kept = self.kept.lock();
        kept.claimable.iter().map(|(from, _, _)| *from).find(|from| *from > now)
    }

    fn counts(&self) -> Vec<Count> {
        let mut counts = BTreeMap::new();
        for operation in self.kept.lock().operations.values() {
            let key = (operation.api.clone(), operation.method.clone(), operation.state.name());
            *counts.entry(key).or_insert(0) += 1;
        }
        counts
            .into_iter()
            .map(|((api, method, state), operations)| Count { api, method, state, operations })
            .collect()
    }

    async fn ready(&self) -> Result<(), Error> {
        self.kept.lock().check_open()
    }

    fn token_key(&self) -> [u8; 32] {
        self.token_key
    }

    fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    async fn present(&self, now: Timestamp) -> Result<Presence, Error> {
        self.kept.lock().check_open()?;
        let Some(shared) = &self.shared else { return Ok(Presence::default()) };
        let mut shared = shared.lock();
        if shared.seen.is_none_or(|seen| now.since(seen) > OUTAGE_MIN) {
            shared.outage += 1;
        }
        shared.seen = shared.seen.max(Some(now));
        let outage = (shared.outage > shared.recovered).then_some(shared.outage);
        Ok(Presence { outage, clock: None })
    }

    async fn recovered(&self, outage: u64) -> Result<(), Error> {
        if let Some(shared) = &self.shared {
            let mut shared = shared.lock();
            shared.recovered = shared.recovered.max(outage);
        }
        Ok(())
    }

    async fn close(&self) {
        self.kept.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::conformance::conformance;

    fn open(_folder: &Path, listener: Arc<dyn Listener>) -> Arc<dyn Store> {
        Arc::new(Memory::new([7; 32], listener))
    }

    conformance!(open);
}
