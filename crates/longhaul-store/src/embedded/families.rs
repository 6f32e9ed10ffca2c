//! Who is whose child, and which children have yet to follow the cancel of their parent.
//!
//! An index in memory over rows, kept for children only: the link itself is in the child's record. What
//! a cancel means for a child is decided by the rules, not here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use longhaul_core::{Operation, OperationName};

use super::plan::Slot;
use crate::Cursor;

/// What a child's row says about its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub parent: OperationName,
    /// The child.
    pub name: OperationName,
    /// The child's age.
    pub cursor: Cursor,
    /// As [`Operation::would_follow_parent`] says.
    pub would_follow: bool,
}

impl Link {
    fn of(operation: &Operation) -> Option<Self> {
        operation.parent_operation.clone().map(|parent| Self {
            parent,
            name: operation.name.clone(),
            cursor: Cursor::of(operation),
            would_follow: operation.would_follow_parent(),
        })
    }
}

#[derive(Default)]
struct Family {
    children: BTreeMap<Cursor, OperationName>,
    /// Those that would follow.
    open: BTreeSet<Cursor>,
    /// The parent was asked to stop.
    cancelled: bool,
}

/// The families of all rows.
#[derive(Default)]
pub(super) struct Families {
    links: HashMap<Slot, Link>,
    by_parent: HashMap<OperationName, Family>,
    /// Parents that were asked to stop while some of their children were not.
    behind: BTreeSet<OperationName>,
}

impl Families {
    /// Takes in a committed value.
    pub fn put(&mut self, slot: Slot, operation: &Operation) {
        let link = Link::of(operation);
        if self.links.is_empty() && link.is_none() {
            return;
        }
        if self.links.get(&slot) != link.as_ref() {
            self.remove(slot);
            if let Some(link) = link {
                self.link(slot, link);
            }
        }
    }

    /// Adds a child that is not there yet.
    pub fn link(&mut self, slot: Slot, link: Link) {
        let family = self.by_parent.entry(link.parent.clone()).or_default();
        family.children.insert(link.cursor, link.name.clone());
        if link.would_follow {
            family.open.insert(link.cursor);
        }
        self.look(&link.parent);
        self.links.insert(slot, link);
    }

    /// Forgets a child, if it is one.
    pub fn remove(&mut self, slot: Slot) {
        let Some(link) = self.links.remove(&slot) else { return };
        if let Some(family) = self.by_parent.get_mut(&link.parent) {
            family.children.remove(&link.cursor);
            family.open.remove(&link.cursor);
            self.look(&link.parent);
            if self.by_parent.get(&link.parent).is_some_and(|family| family.children.is_empty()) {
                self.by_parent.remove(&link.parent);
            }
        }
    }

    /// Notes that an operation was asked to stop, if it is a parent.
    pub fn cancelled(&mut self, name: &OperationName) {
        if let Some(family) = self.by_parent.get_mut(name) {
            family.cancelled = true;
            self.look(name);
        }
    }

    fn look(&mut self, parent: &OperationName) {
        let behind =
            self.by_parent.get(parent).is_some_and(|it| it.cancelled && !it.open.is_empty());
        if !behind {
            self.behind.remove(parent);
        } else if !self.behind.contains(parent) {
            self.behind.insert(parent.clone());
        }
    }

    /// Parents with children that would follow.
    pub fn open_parents(&self) -> Vec<OperationName> {
        let open = self.by_parent.iter().filter(|(_, family)| !family.open.is_empty());
        open.map(|(parent, _)| parent.clone()).collect()
    }

    /// Whether children of this operation would follow it.
    pub fn has_open(&self, parent: &OperationName) -> bool {
        self.by_parent.get(parent).is_some_and(|family| !family.open.is_empty())
    }

    pub fn children(&self, parent: &OperationName, limit: usize) -> Vec<OperationName> {
        let family = self.by_parent.get(parent);
        family.into_iter().flat_map(|it| it.children.values()).take(limit).cloned().collect()
    }

    pub fn left_behind(&self, limit: usize) -> Vec<(OperationName, OperationName)> {
        let families = self.behind.iter().map(|parent| (parent, &self.by_parent[parent]));
        families
            .flat_map(|(parent, family)| {
                let child = |cursor| (parent.clone(), family.children[cursor].clone());
                family.open.iter().map(child)
            })
            .take(limit)
            .collect()
    }
}
