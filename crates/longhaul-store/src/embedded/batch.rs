//! One batch of commands: what they see, what they change, and how it is undone.
//!
//! A command sees the changes of those before it. Rows are written as they are decided, inside one
//! transaction; the shared view changes only when the commit has succeeded.

use std::sync::Arc;

use longhaul_core::{Applied, Error, Operation, OperationName, Refusal, meet};
use rusqlite::{Connection, Statement};

use super::failpoint::Failpoint;
use super::faults::failed;
use super::hash::{Map, Set};
use super::plan::{Scheduled, Slot, Turn};
use super::rows::{Kept, Reader, Writer, check_size};
use super::writer::Work;
use crate::decision::{self, internal};
use crate::{Decide, Due, Failure, Key, Recorded, history};

/// Rows shown to readers in one go; the readers wait meanwhile.
const SHOWN_AT_ONCE: usize = 64;

/// The writing connection, with statements kept ready.
pub(super) struct Tables<'c> {
    pub connection: &'c Connection,
    pub begin: Statement<'c>,
    pub commit: Statement<'c>,
    pub probe: Statement<'c>,
    pub writer: Writer<'c>,
    pub failpoint: Failpoint,
}

/// Most due operations decided in one batch: a sweep over very many lets others commit in between.
const DUE_AT_ONCE: usize = 1_024;

/// A command of [`crate::Store::update_due`], perhaps in the middle.
pub(super) struct Sweep {
    pub due: Due,
    pub limit: usize,
    pub decide: Decide,
    /// What was decided and committed so far.
    pub done: Vec<Applied>,
    /// How far it has come.
    after: Option<Turn>,
    /// What it has changed, which is not changed again.
    seen: Set<Slot>,
    /// Bytes of what it has changed.
    bytes: usize,
}

impl Sweep {
    pub fn new(due: Due, limit: usize, decide: Decide) -> Self {
        Self { due, limit, decide, done: Vec::new(), after: None, seen: Set::default(), bytes: 0 }
    }

    /// The answer. What was committed before an error is told rather than the error.
    pub fn end(self, error: Option<Error>) -> Result<Vec<Applied>, Error> {
        match error {
            Some(error) if self.done.is_empty() => Err(error),
            Some(_) | None => Ok(self.done),
        }
    }
}

/// Why a command came to nothing.
pub(super) enum Miss {
    /// The rules say no.
    Refused(Refusal),
    /// Something is wrong with this command's operation only.
    Command(Error),
    /// The transaction is broken, and with it every command of the batch.
    Batch(Error),
}

/// The value of a row as this batch has made it.
struct Pending {
    id: i64,
    /// `None` once it is forgotten.
    kept: Option<Kept>,
    /// The row did not exist before this batch.
    new: bool,
}

pub(super) struct Batch<'w> {
    work: &'w mut Work,
    pending: Map<Slot, Pending>,
    started: Map<OperationName, Slot>,
    /// Parents of the children started here.
    parents: Set<OperationName>,
    undo: Vec<(Slot, Option<Scheduled>)>,
    /// What the command just decided led to elsewhere; taken away by whoever tells of it.
    pub besides: Vec<Applied>,
    first_id: i64,
    /// Bytes of records written so far.
    pub bytes: usize,
    /// A transaction has begun.
    pub begun: bool,
}

impl<'w> Batch<'w> {
    pub fn new(work: &'w mut Work) -> Self {
        let first_id = work.next_id;
        Self {
            work,
            pending: Map::default(),
            started: Map::default(),
            parents: Set::default(),
            undo: Vec::new(),
            besides: Vec::new(),
            first_id,
            bytes: 0,
            begun: false,
        }
    }

    /// Decides one command of [`crate::Store::update`].
    pub fn update(
        &mut self,
        tables: &mut Tables<'_>,
        key: &Key,
        decide: &Decide,
    ) -> Result<Applied, Miss> {
        let (parent, key) = key.parts();
        let (mut before, name) = match key {
            Key::Child { key, .. } => return self.update(tables, key, decide),
            Key::Name(name) => (self.named(tables, name)?, name),
            Key::RequestId { api, parent, value, name } => {
                let filed = self.filed(tables, api, parent, value)?;
                (if filed.is_some() { filed } else { self.named(tables, name)? }, name)
            }
        };
        let mut applied = run(decide, before.as_ref().map(|(_, kept)| kept))?;
        if before.as_ref().is_some_and(|(_, kept)| kept.operation.name != applied.operation.name) {
            // A new operation under a key whose window is over: nobody may have its name.
            before = self.named(tables, name)?;
            if before.is_some() {
                applied = run(decide, before.as_ref().map(|(_, kept)| kept))?;
            }
        }
        let expected = before.as_ref().map_or(name, |(_, kept)| &kept.operation.name);
        if applied.operation.name != *expected {
            return Err(Miss::Command(internal("a decision was about another operation")));
        }
        if before.is_none()
            && let Some(parent) = parent
        {
            let parent = self.named(tables, parent)?;
            let parent = parent.as_ref().map(|(_, kept)| &*kept.operation);
            decision::admit(parent, &applied).map_err(Miss::Refused)?;
        }
        let applied = self.settled(before.as_ref().map(|(_, kept)| kept), applied)?;
        if before.is_none() {
            self.make_way(tables, &applied.operation)?;
        }
        self.write(tables, before, &applied)?;
        Ok(applied)
    }

    /// Changes what acts on the resource of a new operation, as the rules say.
    fn make_way(&mut self, tables: &mut Tables<'_>, new: &Operation) -> Result<(), Miss> {
        let Some((api, target)) = new.claim_on() else { return Ok(()) };
        check_size(new).map_err(Miss::Command)?;
        let slots = {
            let plan = self.work.plan.lock();
            plan.alone(plan.alone_hash(api, target))
        };
        let mut met = Vec::new();
        for slot in slots {
            let Some(kept) = self.at(tables, slot)? else { continue };
            let changed = meet(&kept.operation, new, new.create_time).map_err(Miss::Refused)?;
            met.extend(changed.map(|changed| (slot, kept, changed)));
        }
        for (slot, kept, changed) in met {
            self.change(tables, slot, &kept, &changed)?;
            self.besides.push(changed);
        }
        Ok(())
    }

    /// The decision, but for a row that cannot be forgotten yet.
    fn settled(&self, before: Option<&Kept>, applied: Applied) -> Result<Applied, Miss> {
        match before {
            Some(Kept { operation, .. })
                if applied.forget
                    && operation.cancel.is_some()
                    && (self.parents.contains(&operation.name)
                        || self.work.view.read().families.has_open(&operation.name)) =>
            {
                decision::keep_for_children(operation, applied).map_err(Miss::Refused)
            }
            Some(_) | None => Ok(applied),
        }
    }

    /// Goes on with one command of [`crate::Store::update_due`]; true when it is finished.
    pub fn update_due(
        &mut self,
        tables: &mut Tables<'_>,
        sweep: &mut Sweep,
        done: &mut Vec<Applied>,
    ) -> Result<bool, Miss> {
        let wanted = DUE_AT_ONCE.min(sweep.limit - sweep.done.len());
        let turns = self.work.plan.lock().due(&sweep.due, sweep.after, wanted);
        let last = turns.len() < wanted;
        for turn @ (_, _, slot) in turns {
            sweep.after = Some(turn);
            if sweep.seen.contains(&slot) {
                continue;
            }
            let room = match (&sweep.done[..], &done[..]) {
                ([], []) => usize::MAX,
                (_, _) => sweep.due.bytes_max().saturating_sub(sweep.bytes),
            };
            match self.update_slot(tables, slot, room, &sweep.decide) {
                Ok(None) => return Ok(true),
                Ok(Some(applied)) => {
                    sweep.seen.insert(slot);
                    sweep.bytes = sweep.bytes.saturating_add(applied.operation.bytes_told());
                    done.push(applied);
                }
                Err(Miss::Refused(_)) => {}
                Err(Miss::Command(error)) => {
                    tracing::error!(error = %error, "a due operation cannot be changed");
                }
                Err(Miss::Batch(error)) => return Err(Miss::Batch(error)),
            }
        }
        Ok(last || sweep.done.len() + done.len() >= sweep.limit)
    }

    /// `None` when the operation has more bytes than there is room for.
    fn update_slot(
        &mut self,
        tables: &mut Tables<'_>,
        slot: Slot,
        room: usize,
        decide: &Decide,
    ) -> Result<Option<Applied>, Miss> {
        let before = self.at(tables, slot)?;
        let Some(kept) = &before else {
            return Err(Miss::Command(internal("a scheduled operation has no row")));
        };
        if room < usize::MAX && kept.operation.bytes_told() > room {
            return Ok(None);
        }
        let applied = run(decide, Some(kept))?;
        if applied.operation.name != kept.operation.name {
            return Err(Miss::Command(internal("a decision was about another operation")));
        }
        let applied = self.settled(before.as_ref(), applied)?;
        self.write(tables, before.map(|kept| (slot, kept)), &applied)?;
        Ok(Some(applied))
    }

    /// Writes something, so that the commit proves that writing works.
    pub fn probe(&mut self, tables: &mut Tables<'_>) -> Result<(), Miss> {
        self.begin(tables)?;
        let written = tables.probe.execute([]).map(drop);
        self.or_broken(written)
    }

    /// The operation of this name, as the commands before have left it.
    fn named(
        &self,
        tables: &Tables<'_>,
        name: &OperationName,
    ) -> Result<Option<(Slot, Kept)>, Miss> {
        if let Some(slot) = self.started.get(name)
            && let Some(kept) = &self.pending[slot].kept
        {
            return Ok(Some((*slot, kept.clone())));
        }
        let candidates = self.work.view.read().find(name);
        for found in candidates {
            let kept = match (found.kept, self.pending.get(&found.slot)) {
                (Some(kept), None) => Some(kept),
                (None, _) | (_, Some(_)) => self.at(tables, found.slot)?,
            };
            if let Some(kept) = kept
                && kept.operation.name == *name
            {
                return Ok(Some((found.slot, kept)));
            }
        }
        Ok(None)
    }

    /// The operation that this idempotency key is filed under.
    fn filed(
        &self,
        tables: &Tables<'_>,
        api: &str,
        parent: &str,
        value: &str,
    ) -> Result<Option<(Slot, Kept)>, Miss> {
        let slots = {
            let plan = self.work.plan.lock();
            plan.filed(plan.key_hash(api, parent, value))
        };
        for slot in slots {
            let Some(kept) = self.at(tables, slot)? else { continue };
            let operation = &kept.operation;
            let same = operation.request_id.as_ref().is_some_and(|id| &*id.value == value);
            if same && &*operation.api == api && &*operation.parent == parent {
                return Ok(Some((slot, kept)));
            }
        }
        Ok(None)
    }

    /// The operation in a slot, as the commands before have left it.
    fn at(&self, tables: &Tables<'_>, slot: Slot) -> Result<Option<Kept>, Miss> {
        if let Some(pending) = self.pending.get(&slot) {
            return Ok(pending.kept.clone());
        }
        let found = self.work.view.read().at(slot);
        match found.kept {
            Some(kept) => Ok(Some(kept)),
            None => Reader::new(tables.connection, &self.work.file)
                .operation(found.id)
                .map_err(Miss::Command),
        }
    }

    /// Writes what was decided, if anything was.
    fn write(
        &mut self,
        tables: &mut Tables<'_>,
        before: Option<(Slot, Kept)>,
        applied: &Applied,
    ) -> Result<(), Miss> {
        match before {
            Some((slot, _)) if applied.forget => self.forget(tables, slot),
            Some((_, kept)) if kept.operation.revision == applied.operation.revision => Ok(()),
            Some((slot, kept)) if kept.operation.is_tombstone() => {
                self.embody(tables, slot, &kept, applied)
            }
            Some((slot, kept)) => self.change(tables, slot, &kept, applied),
            None if applied.forget => Ok(()),
            None => self.start(tables, Vec::new(), applied),
        }
    }

    /// Makes a tombstone the operation that met it. What never changes otherwise changes here, so it gets
    /// a row of its own, with the history of the tombstone.
    fn embody(
        &mut self,
        tables: &mut Tables<'_>,
        slot: Slot,
        tombstone: &Kept,
        applied: &Applied,
    ) -> Result<(), Miss> {
        check_size(&applied.operation).map_err(Miss::Command)?;
        let earlier = Reader::new(tables.connection, &self.work.file)
            .history(self.id(slot), 0, u64::MAX, usize::MAX, tombstone.operation.outcome())
            .map_err(Miss::Command)?;
        self.forget(tables, slot)?;
        self.start(tables, earlier, applied)
    }

    fn start(
        &mut self,
        tables: &mut Tables<'_>,
        earlier: Vec<Recorded>,
        applied: &Applied,
    ) -> Result<(), Miss> {
        let operation = &applied.operation;
        check_size(operation).map_err(Miss::Command)?;
        let key = match &operation.request_id {
            Some(id) => {
                let (api, parent, value) = (&operation.api, &operation.parent, &id.value);
                if let Some((older, _)) = self.filed(tables, api, parent, value)? {
                    let was = self.work.plan.lock().unfile(older);
                    self.undo.push((older, was));
                }
                self.work.plan.lock().key_hash(api, parent, value)
            }
            None => 0,
        };
        self.begin(tables)?;
        let id = self.work.next_id;
        self.work.next_id += 1;
        let slot = self.work.slots.take();
        for recorded in &earlier {
            let written = tables.writer.record(id, recorded);
            self.bytes += self.or_broken(written)?;
        }
        let history_rows = u16::try_from(earlier.len()).unwrap_or(u16::MAX);
        let kept = self.record(tables, id, history_rows, applied)?;
        let written = tables.writer.insert(id, &kept);
        self.bytes += self.or_broken(written)?;
        let scheduled = self.work.plan.lock().schedule(operation, key);
        self.set(slot, Some(scheduled));
        self.started.insert(operation.name.clone(), slot);
        self.parents.extend(operation.parent_operation.clone());
        self.pending.insert(slot, Pending { id, kept: Some(kept), new: true });
        Ok(())
    }

    fn change(
        &mut self,
        tables: &mut Tables<'_>,
        slot: Slot,
        before: &Kept,
        applied: &Applied,
    ) -> Result<(), Miss> {
        check_size(&applied.operation).map_err(Miss::Command)?;
        self.begin(tables)?;
        let id = self.id(slot);
        let kept = self.record(tables, id, before.history_rows, applied)?;
        let written = tables.writer.update(id, &kept);
        self.bytes += self.or_broken(written)?;
        let scheduled = {
            let mut plan = self.work.plan.lock();
            let key = plan.key(slot);
            plan.schedule(&applied.operation, key)
        };
        self.set(slot, Some(scheduled));
        let new = self.pending.get(&slot).is_some_and(|pending| pending.new);
        self.pending.insert(slot, Pending { id, kept: Some(kept), new });
        Ok(())
    }

    fn forget(&mut self, tables: &mut Tables<'_>, slot: Slot) -> Result<(), Miss> {
        self.begin(tables)?;
        let id = self.id(slot);
        let written = tables.writer.forget(id);
        self.or_broken(written)?;
        self.set(slot, None);
        let new = self.pending.get(&slot).is_some_and(|pending| pending.new);
        self.pending.insert(slot, Pending { id, kept: None, new });
        Ok(())
    }

    /// Writes the history of a change; returns the value to keep.
    fn record(
        &mut self,
        tables: &mut Tables<'_>,
        id: i64,
        history_rows: u16,
        applied: &Applied,
    ) -> Result<Kept, Miss> {
        let events = history::worth_keeping(&applied.events, usize::from(history_rows));
        let mut kept = Kept { operation: Arc::new(applied.operation.clone()), history_rows };
        if !events.is_empty() {
            let recorded = Recorded { revision: applied.operation.revision, events };
            let written = tables.writer.record(id, &recorded);
            self.bytes += self.or_broken(written)?;
            kept.history_rows = history_rows.saturating_add(1);
        }
        Ok(kept)
    }

    fn id(&self, slot: Slot) -> i64 {
        match self.pending.get(&slot) {
            Some(pending) => pending.id,
            None => self.work.view.read().id(slot),
        }
    }

    fn set(&mut self, slot: Slot, next: Option<Scheduled>) {
        let was = self.work.plan.lock().set(slot, next);
        self.undo.push((slot, was));
    }

    fn begin(&mut self, tables: &mut Tables<'_>) -> Result<(), Miss> {
        if self.begun {
            return Ok(());
        }
        let begun = tables.begin.execute([]).map(drop);
        self.or_broken(begun)?;
        self.begun = true;
        Ok(())
    }

    fn or_broken<T>(&self, result: rusqlite::Result<T>) -> Result<T, Miss> {
        result.map_err(|error| Miss::Batch(failed(&self.work.file, error)))
    }

    /// Makes the commit, if there is something to commit.
    pub fn commit(&mut self, tables: &mut Tables<'_>) -> Result<(), Error> {
        if !self.begun {
            return Ok(());
        }
        tables.failpoint.before();
        tables.commit.execute([]).map_err(|error| failed(&self.work.file, error))?;
        tables.failpoint.after();
        Ok(())
    }

    /// Takes everything back after a failed transaction.
    pub fn undo(self, tables: &Tables<'_>) {
        if !tables.connection.is_autocommit()
            && let Err(error) = tables.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(error = %error, "a transaction could not be rolled back");
        }
        let mut plan = self.work.plan.lock();
        for (slot, was) in self.undo.into_iter().rev() {
            plan.set(slot, was);
        }
        drop(plan);
        let new = self.pending.iter().filter(|(_, pending)| pending.new).map(|(slot, _)| *slot);
        self.work.slots.give_back(new);
        self.work.next_id = self.first_id;
    }

    /// Shows everything to readers after the commit.
    pub fn publish(self) {
        let mut gone = Vec::new();
        let mut cancelled = Vec::new();
        let mut rows = self.pending.into_iter().peekable();
        while rows.peek().is_some() {
            let mut view = self.work.view.write();
            for (slot, pending) in rows.by_ref().take(SHOWN_AT_ONCE) {
                match pending.kept {
                    Some(kept) => {
                        if kept.operation.cancel.is_some() {
                            cancelled.push(kept.operation.name.clone());
                        }
                        view.put(slot, pending.id, kept);
                    }
                    None => {
                        gone.push(slot);
                        if !pending.new {
                            view.forget(slot);
                        }
                    }
                }
            }
        }
        if !cancelled.is_empty() {
            // Last, because a child of the same batch may have been shown after its parent.
            let families = &mut self.work.view.write().families;
            cancelled.iter().for_each(|name| families.cancelled(name));
        }
        self.work.slots.give_back(gone);
    }
}

fn run(decide: &Decide, before: Option<&Kept>) -> Result<Applied, Miss> {
    decision::run(decide, before.map(|kept| &*kept.operation)).map_err(|failure| match failure {
        Failure::Refused(refusal) => Miss::Refused(refusal),
        Failure::Store(error) => Miss::Command(error),
    })
}
