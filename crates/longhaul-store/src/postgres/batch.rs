//! One batch of commands over locked rows: what they see, what they change. No IO.
//!
//! A command sees the changes of those before it. The whole batch can be decided again from the same rows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use longhaul_core::{Applied, Error, Operation, OperationName, Refusal, meet};

use super::rows::{Chunk, Kept, alone_hash, next};
use crate::decision::{self, internal};
use crate::embedded::check_size;
use crate::trouble::again;
use crate::{Decide, Failure, Key};

/// Who started what under which key: API, parent, value.
pub(super) type RequestKey = (Arc<str>, Arc<str>, Arc<str>);

/// Locked rows, as they are in the database.
#[derive(Default)]
pub(super) struct Loaded {
    pub rows: HashMap<OperationName, Kept>,
    pub keys: HashMap<RequestKey, OperationName>,
    /// Rows that cannot be read.
    pub damaged: HashMap<OperationName, Error>,
    /// Of these it is known whether children would follow them.
    pub asked: HashSet<OperationName>,
    /// Those of them whose children would.
    pub open: HashSet<OperationName>,
    /// Who has a resource for itself, by its hash: of those resources that are locked.
    pub rivals: HashMap<i64, Vec<OperationName>>,
}

/// Why a command came to nothing.
pub(super) enum Miss {
    /// The rules say no.
    Refused(Refusal),
    /// Something is wrong with this command only.
    Command(Error),
    /// The batch must be decided again, knowing whether children of this operation would follow it.
    Ask(OperationName),
    /// The batch must be decided again, with the resource of this hash locked and its rivals known.
    Lock(i64),
}

impl From<Miss> for Failure {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Refused(refusal) => Self::Refused(refusal),
            Miss::Command(error) => Self::Store(error),
            Miss::Ask(_) | Miss::Lock(_) => Self::Store(internal("a decision was not taken again")),
        }
    }
}

/// What became of a row.
pub(super) struct Entry {
    pub now: Option<Kept>,
    /// What never changes otherwise changed: a tombstone became an operation.
    pub replaced: bool,
    pub chunks: Vec<Chunk>,
}

/// What a batch has decided so far.
pub(super) struct Batch<'l> {
    pub loaded: &'l Loaded,
    /// Rows that changed.
    pub entries: HashMap<OperationName, Entry>,
    /// Keys that were filed anew or given free.
    pub keys: HashMap<RequestKey, Option<OperationName>>,
    /// What the command just decided led to elsewhere; taken away by whoever tells of it.
    pub besides: Vec<Applied>,
    parents: HashSet<OperationName>,
    /// Who was started here to have a resource for itself.
    alone: HashMap<i64, Vec<OperationName>>,
}

impl<'l> Batch<'l> {
    pub fn new(loaded: &'l Loaded) -> Self {
        Self {
            loaded,
            entries: HashMap::new(),
            keys: HashMap::new(),
            besides: Vec::new(),
            parents: HashSet::new(),
            alone: HashMap::new(),
        }
    }

    fn now(&self, name: &OperationName) -> Option<&Kept> {
        match self.entries.get(name) {
            Some(entry) => entry.now.as_ref(),
            None => self.loaded.rows.get(name),
        }
    }

    fn filed(&self, key: &RequestKey) -> Option<&OperationName> {
        match self.keys.get(key) {
            Some(filed) => filed.as_ref(),
            None => self.loaded.keys.get(key),
        }
    }

    /// Decides one command of [`crate::Store::update`].
    pub fn update(&mut self, key: &Key, decide: &Decide) -> Result<Applied, Miss> {
        let (parent, key) = key.parts();
        let (found, name) = match key {
            Key::Child { key, .. } => return self.update(key, decide),
            Key::Name(name) => (name, name),
            Key::RequestId { api, parent, value, name } => {
                let filed = self.filed(&(api.clone(), parent.clone(), value.clone()));
                (filed.unwrap_or(name), name)
            }
        };
        for name in [found, name].into_iter().chain(parent) {
            if let Some(error) = self.loaded.damaged.get(name) {
                return Err(Miss::Command(again(error)));
            }
        }
        let mut before = self.now(found).cloned();
        let mut applied = run(decide, before.as_ref())?;
        if before.as_ref().is_some_and(|before| before.operation.name != applied.operation.name) {
            // A new operation under a key whose window is over: nobody may have its name.
            before = self.now(name).cloned();
            if before.is_some() {
                applied = run(decide, before.as_ref())?;
            }
        }
        let expected = before.as_ref().map_or(name, |before| &before.operation.name);
        if applied.operation.name != *expected {
            return Err(Miss::Command(internal("a decision was about another operation")));
        }
        if before.is_none()
            && let Some(parent) = parent
        {
            let parent = self.now(parent).map(|parent| &*parent.operation);
            decision::admit(parent, &applied).map_err(Miss::Refused)?;
        }
        let applied = self.settled(before.as_ref(), applied)?;
        if before.is_none() {
            self.make_way(&applied.operation)?;
        }
        self.put(before.as_ref(), &applied)?;
        Ok(applied)
    }

    /// Changes what acts on the resource of a new operation, as the rules say. Nothing, if not all.
    fn make_way(&mut self, new: &Operation) -> Result<(), Miss> {
        let Some(hash) = alone_hash(new) else { return Ok(()) };
        check_size(new).map_err(Miss::Command)?;
        let rivals = self.loaded.rivals.get(&hash).ok_or(Miss::Lock(hash))?;
        let mut met = Vec::new();
        for name in rivals.iter().chain(self.alone.get(&hash).into_iter().flatten()) {
            if let Some(error) = self.loaded.damaged.get(name) {
                return Err(Miss::Command(again(error)));
            }
            let Some(kept) = self.now(name) else { continue };
            let changed = meet(&kept.operation, new, new.create_time).map_err(Miss::Refused)?;
            if let Some(changed) = changed {
                check_size(&changed.operation).map_err(Miss::Command)?;
                met.push((kept.clone(), changed));
            }
        }
        for (kept, changed) in met {
            self.put(Some(&kept), &changed)?;
            self.besides.push(changed);
        }
        self.alone.entry(hash).or_default().push(new.name.clone());
        Ok(())
    }

    /// Decides about one locked row.
    pub fn update_row(&mut self, name: &OperationName, decide: &Decide) -> Result<Applied, Miss> {
        let before = self.now(name).cloned();
        let applied = run(decide, before.as_ref())?;
        if applied.operation.name != *name {
            return Err(Miss::Command(internal("a decision was about another operation")));
        }
        let applied = self.settled(before.as_ref(), applied)?;
        self.put(before.as_ref(), &applied)?;
        Ok(applied)
    }

    /// The decision, but for a row that cannot be forgotten yet.
    fn settled(&self, before: Option<&Kept>, applied: Applied) -> Result<Applied, Miss> {
        let Some(Kept { operation: before, .. }) = before else { return Ok(applied) };
        if !applied.forget || before.cancel.is_none() {
            return Ok(applied);
        }
        if !self.loaded.asked.contains(&before.name) {
            return Err(Miss::Ask(before.name.clone()));
        }
        if self.loaded.open.contains(&before.name) || self.parents.contains(&before.name) {
            return decision::keep_for_children(before, applied).map_err(Miss::Refused);
        }
        Ok(applied)
    }

    fn put(&mut self, before: Option<&Kept>, applied: &Applied) -> Result<(), Miss> {
        let operation = &applied.operation;
        match before {
            None if applied.forget => return Ok(()),
            Some(before) if before.operation.revision == operation.revision && !applied.forget => {
                return Ok(());
            }
            Some(_) | None => {}
        }
        if applied.forget {
            self.forget(operation);
            return Ok(());
        }
        check_size(operation).map_err(Miss::Command)?;
        if before.is_none() {
            if let Some(key) = request_key(operation) {
                self.keys.insert(key, Some(operation.name.clone()));
            }
            self.parents.extend(operation.parent_operation.clone());
        }
        let (kept, chunk) = next(before, operation, &applied.events);
        let entry = self.entry(&operation.name);
        entry.now = Some(kept);
        entry.replaced |= before.is_some_and(|before| before.operation.is_tombstone());
        entry.chunks.extend(chunk);
        Ok(())
    }

    fn entry(&mut self, name: &OperationName) -> &mut Entry {
        let empty = || Entry { now: None, replaced: false, chunks: Vec::new() };
        self.entries.entry(name.clone()).or_insert_with(empty)
    }

    fn forget(&mut self, operation: &Operation) {
        let entry = self.entry(&operation.name);
        entry.now = None;
        entry.chunks.clear();
        if let Some(key) = request_key(operation) {
            let filed = match self.keys.get(&key) {
                Some(filed) => filed.as_ref(),
                // When the key was not looked up, the row says whose it is.
                None => Some(self.loaded.keys.get(&key).unwrap_or(&operation.name)),
            };
            if filed == Some(&operation.name) {
                self.keys.insert(key, None);
            }
        }
    }
}

/// The idempotency key of an operation, if it has one.
pub(super) fn request_key(operation: &Operation) -> Option<RequestKey> {
    let id = operation.request_id.as_ref()?;
    Some((operation.api.clone(), operation.parent.clone(), id.value.clone()))
}

fn run(decide: &Decide, before: Option<&Kept>) -> Result<Applied, Miss> {
    decision::run(decide, before.map(|kept| &*kept.operation)).map_err(|failure| match failure {
        Failure::Refused(refusal) => Miss::Refused(refusal),
        Failure::Store(error) => Miss::Command(error),
    })
}
