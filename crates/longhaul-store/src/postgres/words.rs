//! Kinds and scopes by number: what claims and lists choose by, kept in memory.
//!
//! Both are written once, in a transaction of their own, and never changed, so what is known stays true.
//! Another server may have added some: an unknown number is looked up.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio_postgres::Row;

use super::faults::Fault;
use super::rows;
use super::session::{Session, Value};
use super::sql::Statements;
use crate::ClaimFilter;

/// What claims choose by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub api: Arc<str>,
    pub method: Arc<str>,
    pub queue: Arc<str>,
}

/// What lists choose by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub api: Arc<str>,
    pub parent: Arc<str>,
}

struct Table<T> {
    by_id: HashMap<i32, T>,
    by_word: HashMap<T, i32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), by_word: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Table<T> {
    fn learn(&mut self, id: i32, word: T) {
        self.by_word.insert(word.clone(), id);
        self.by_id.insert(id, word);
    }
}

/// Everything known so far.
#[derive(Default)]
pub(super) struct Words {
    kinds: RwLock<Table<Kind>>,
    scopes: RwLock<Table<Scope>>,
}

impl Words {
    pub fn kind(&self, id: i32) -> Option<Kind> {
        self.kinds.read().by_id.get(&id).cloned()
    }

    pub fn scope(&self, id: i32) -> Option<Scope> {
        self.scopes.read().by_id.get(&id).cloned()
    }

    pub fn kind_id(&self, kind: &Kind) -> Option<i32> {
        self.kinds.read().by_word.get(kind).copied()
    }

    pub fn scope_id(&self, scope: &Scope) -> Option<i32> {
        self.scopes.read().by_word.get(scope).copied()
    }

    /// The numbers of all kinds.
    pub fn kinds(&self) -> Vec<i32> {
        self.kinds.read().by_id.keys().copied().collect()
    }

    /// The kinds that a claim accepts.
    pub fn accepted(&self, filter: &ClaimFilter) -> Vec<i32> {
        let kinds = self.kinds.read();
        let fits = kinds
            .by_id
            .iter()
            .filter(|(_, kind)| filter.accepts(&kind.api, &kind.method, &kind.queue));
        fits.map(|(id, _)| *id).collect()
    }

    /// Takes in what was read of the table of kinds.
    pub fn take_in(&self, rows: &[Row]) {
        let mut kinds = self.kinds.write();
        for row in rows {
            let kind = Kind { api: text(row, 1), method: text(row, 2), queue: text(row, 3) };
            kinds.learn(row.get(0), kind);
        }
    }

    /// Reads what is needed to read `rows`; most often nothing.
    pub async fn learn(
        &self,
        session: &Session,
        sql: &Statements,
        rows: &[Row],
    ) -> Result<(), Fault> {
        let ids = || rows.iter().map(rows::ids);
        let kinds = ids().any(|ids| self.kind(ids.kind).is_none());
        let mut scopes: Vec<i32> = {
            let known = self.scopes.read();
            ids().map(|ids| ids.scope).filter(|id| !known.by_id.contains_key(id)).collect()
        };
        scopes.sort_unstable();
        scopes.dedup();
        if kinds {
            self.take_in(&session.query(&sql.kinds, &[]).await?);
        }
        if !scopes.is_empty() {
            for row in session.query(&sql.scopes, &[&scopes]).await? {
                let scope = Scope { api: text(&row, 1), parent: text(&row, 2) };
                self.scopes.write().learn(row.get(0), scope);
            }
        }
        Ok(())
    }

    /// Gives numbers to those that have none, in transactions of their own: `session` must not be in one.
    pub async fn number(
        &self,
        session: &Session,
        sql: &Statements,
        kinds: Vec<Kind>,
        scopes: Vec<Scope>,
    ) -> Result<(), Fault> {
        for kind in kinds {
            let values: [Value<'_>; 3] = [&&*kind.api, &&*kind.method, &&*kind.queue];
            session.query(&sql.add_kind, &values).await?;
            for row in session.query(&sql.find_kind, &values).await? {
                self.kinds.write().learn(row.get(0), kind.clone());
            }
        }
        for scope in scopes {
            let values: [Value<'_>; 2] = [&&*scope.api, &&*scope.parent];
            session.query(&sql.add_scope, &values).await?;
            for row in session.query(&sql.find_scope, &values).await? {
                self.scopes.write().learn(row.get(0), scope.clone());
            }
        }
        Ok(())
    }
}

fn text(row: &Row, index: usize) -> Arc<str> {
    row.get::<_, &str>(index).into()
}
