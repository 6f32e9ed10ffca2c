//! Moving everything from one store to another, with either engine on either side.
//!
//! Owns the order of a copy and its proof. A copy goes through the target's ordinary writes: each commit of
//! an operation's history is written as it was, and the last one carries the whole value. So it can be
//! killed anywhere and begun again: what is there already is compared and left. Refuses to know how either
//! side keeps its rows.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use longhaul_core::{Applied, Error, Operation, Reason};

use crate::{Failure, Key, Priority, Recorded, Store, codec};

/// Operations read and written at once.
const PAGE: usize = 256;

/// A place in a scan; what it means is the store's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub i64, pub u128);

/// A store that can be read from end to end.
#[async_trait]
pub trait Scan: Store {
    /// Every operation, deleted ones too, each with the place after it; an operation comes after all that
    /// were started before it under the same idempotency key. At most `limit` after a place.
    async fn scan(
        &self,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<(Place, Arc<Operation>)>, Error>;
}

/// What is in a store: the same numbers mean the same contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Operations, deleted ones included.
    pub operations: u64,
    /// Commits in their histories.
    pub commits: u64,
    /// A digest over every field of every operation and event, whatever the order.
    pub digest: u64,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// What both stores hold now.
    pub contents: Contents,
    /// Operations written by this run; the others were there from a run before.
    pub written: u64,
}

/// Copies every operation from one store to another, and compares both afterwards. Neither may be served.
///
/// `progress` hears how many operations are there so far. Fails with either store's errors, and with
/// `STORE_DAMAGED` when the two are not the same in the end. Safe to repeat.
pub async fn copy(
    from: &dyn Scan,
    to: &dyn Scan,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Copied, Error> {
    let (mut place, mut seen, mut written) = (None, 0, 0);
    loop {
        let page = from.scan(place, PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        place = Some(*last);
        seen += page.len() as u64;
        for run in runs(page.into_iter().map(|(_, operation)| operation)) {
            let moved = try_join_all(run.iter().map(|one| carry(from, to, one))).await?;
            written += moved.into_iter().map(u64::from).sum::<u64>();
        }
        progress(seen);
    }
    let (expected, contents) = (contents(from).await?, contents(to).await?);
    if expected != contents {
        return Err(Error::new(
            Reason::StoreDamaged,
            format!(
                "the copy is not what was copied: {contents:?} instead of {expected:?}; copy again into an empty store"
            ),
        ));
    }
    Ok(Copied { contents, written })
}

/// What a store holds, by reading all of it.
pub async fn contents(store: &dyn Scan) -> Result<Contents, Error> {
    let (mut place, mut found) = (None, Contents::default());
    loop {
        let page = store.scan(place, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        place = Some(*last);
        let digests = page.iter().map(|(_, one)| digest(store, one));
        for (commits, digest) in try_join_all(digests).await? {
            found.operations += 1;
            found.commits += commits;
            found.digest = found.digest.wrapping_add(digest);
        }
    }
}

/// Parts of a page in which no idempotency key comes twice: within one the order does not matter.
fn runs(page: impl Iterator<Item = Arc<Operation>>) -> Vec<Vec<Arc<Operation>>> {
    let (mut runs, mut run, mut keys) = (Vec::new(), Vec::new(), HashSet::new());
    for operation in page {
        let key = operation.request_id.as_ref();
        let key = key.map(|id| (operation.api.clone(), operation.parent.clone(), id.value.clone()));
        if key.is_some_and(|key| !keys.insert(key)) {
            runs.push(std::mem::take(&mut run));
            keys.clear();
        }
        run.push(operation);
    }
    runs.push(run);
    runs
}

/// Writes what the target lacks of one operation. False when it lacks nothing.
async fn carry(from: &dyn Scan, to: &dyn Scan, operation: &Operation) -> Result<bool, Error> {
    let mut there = to.get(&operation.name).await?.map_or(0, |found| found.revision);
    if there == operation.revision {
        return Ok(false);
    }
    let mut commits = from.history(&operation.name, there, usize::MAX).await?;
    if commits.last().is_none_or(|last| last.revision < operation.revision) {
        // The last change left no event, or none that is kept.
        commits.push(Recorded { revision: operation.revision, events: Vec::new() });
    }
    for commit in commits {
        let key = match &operation.request_id {
            Some(id) if there == 0 => Key::RequestId {
                api: operation.api.clone(),
                parent: operation.parent.clone(),
                value: id.value.clone(),
                name: operation.name.clone(),
            },
            Some(_) | None => Key::Name(operation.name.clone()),
        };
        there = commit.revision;
        let whole = Operation { revision: there, ..operation.clone() };
        let decide = Arc::new(move |_: Option<&Operation>| {
            let (operation, events) = (whole.clone(), commit.events.clone());
            Ok(Applied { operation, events, forget: false })
        });
        to.update(key, Priority::Normal, decide).await.map_err(|failure| match failure {
            Failure::Store(error) => error,
            Failure::Refused(refusal) => refusal.into_error(&operation.name),
        })?;
    }
    Ok(true)
}

/// One operation with its history, as a number.
async fn digest(store: &dyn Scan, operation: &Operation) -> Result<(u64, u64), Error> {
    let history = store.history(&operation.name, 0, usize::MAX).await?;
    let mut hash = foldhash::quality::FixedState::default().build_hasher();
    let mut part = |bytes: &[u8]| {
        hash.write_usize(bytes.len());
        hash.write(bytes);
    };
    let texts = [&operation.api, &operation.method, &operation.queue, &operation.parent];
    texts.into_iter().for_each(|text| part(text.as_bytes()));
    part(operation.name.as_str().as_bytes());
    part(&operation.uid.to_be_bytes());
    part(&operation.create_time.as_micros().to_be_bytes());
    part(operation.request_id.as_ref().map_or("", |id| &id.value).as_bytes());
    part(operation.request.type_name.as_bytes());
    part(&operation.request.value);
    part(&codec::encode_operation(operation));
    for commit in &history {
        part(&commit.revision.to_be_bytes());
        part(&codec::encode_events(&commit.events));
    }
    Ok((history.len() as u64, hash.finish()))
}
