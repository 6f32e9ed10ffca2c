//! Telling the listener about each operation in the order of its commits, though several writers commit.
//!
//! A writer files the names it is about to commit while it holds their row locks, so the places in line
//! are in the order of the commits; it tells once it is first in line for all of them.

use std::collections::{HashMap, VecDeque};

use longhaul_core::OperationName;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Who stands in line for which operation.
#[derive(Default)]
pub(super) struct Order {
    lines: Mutex<HashMap<OperationName, VecDeque<u64>>>,
    moved: Notify,
}

impl Order {
    /// Takes a place in each line. To be called before the commit is sent.
    pub fn file(&self, ticket: u64, names: &[OperationName]) {
        let mut lines = self.lines.lock();
        for name in names {
            lines.entry(name.clone()).or_default().push_back(ticket);
        }
    }

    /// Waits until `ticket` is first in all its lines.
    pub async fn turn(&self, ticket: u64, names: &[OperationName]) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.first(ticket, names) {
                return;
            }
            moved.await;
        }
    }

    fn first(&self, ticket: u64, names: &[OperationName]) -> bool {
        let lines = self.lines.lock();
        names.iter().all(|name| lines.get(name).and_then(VecDeque::front) == Some(&ticket))
    }

    /// Leaves all lines.
    pub fn leave(&self, ticket: u64, names: &[OperationName]) {
        let mut lines = self.lines.lock();
        for name in names {
            if let Some(line) = lines.get_mut(name) {
                line.retain(|other| *other != ticket);
                if line.is_empty() {
                    lines.remove(name);
                }
            }
        }
        drop(lines);
        self.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_second_to_commit_tells_second() {
        let name = |id: &str| OperationName::parse(id).unwrap();
        let (a, b) = ([name("x"), name("y")], [name("y"), name("z")]);
        let order = Arc::new(Order::default());
        order.file(1, &a);
        order.file(2, &b);
        let waiting = {
            let (order, b) = (order.clone(), b.clone());
            tokio::spawn(async move { order.turn(2, &b).await })
        };
        order.turn(1, &a).await;
        assert!(!order.first(2, &b));
        order.leave(1, &a);
        waiting.await.unwrap();
        order.leave(2, &b);
        assert!(order.lines.lock().is_empty());
    }
}
