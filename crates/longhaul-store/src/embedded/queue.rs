//! Commands waiting for the writer: a bounded queue with a reserve for what must be shed last.

use std::collections::VecDeque;

use longhaul_core::{Applied, Error};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::batch::Sweep;
use crate::admission::Admission;
use crate::{Decide, Failure, Key, Priority};

/// One waiting command and where its answer goes.
pub(super) enum Waiting {
    One(Key, Decide, oneshot::Sender<Result<Applied, Failure>>),
    Due(Box<Sweep>, oneshot::Sender<Result<Vec<Applied>, Error>>),
    Probe(oneshot::Sender<Result<(), Error>>),
}

impl Waiting {
    /// Answers with an error.
    pub fn fail(self, error: Error) {
        // A caller that has gone away needs no answer.
        match self {
            Self::One(_, _, answer) => drop(answer.send(Err(Failure::Store(error)))),
            Self::Due(sweep, answer) => drop(answer.send(sweep.end(Some(error)))),
            Self::Probe(answer) => drop(answer.send(Err(error))),
        }
    }
}

pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    admission: Admission,
}

struct Inner {
    waiting: VecDeque<Waiting>,
    /// The writer sleeps: the next push must wake it.
    idle: bool,
    closed: bool,
}

impl Queue {
    pub fn new(normal_max: usize, reserve: usize) -> Self {
        let inner = Inner { waiting: VecDeque::new(), idle: false, closed: false };
        Self {
            inner: Mutex::new(inner),
            filled: Condvar::new(),
            admission: Admission::new(normal_max, reserve),
        }
    }

    /// Puts a command in line. Fails when its part of the queue is full, or after [`Self::close`].
    pub fn push(&self, priority: Priority, waiting: Waiting) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        self.admission.admit(priority, inner.waiting.len(), inner.closed)?;
        inner.waiting.push_back(waiting);
        if std::mem::take(&mut inner.idle) {
            drop(inner);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for commands and takes up to `limit`; `None` once the queue is closed and empty.
    pub fn take(&self, limit: usize) -> Option<VecDeque<Waiting>> {
        let mut inner = self.inner.lock();
        while inner.waiting.is_empty() {
            if inner.closed {
                return None;
            }
            inner.idle = true;
            self.filled.wait(&mut inner);
        }
        inner.idle = false;
        if inner.waiting.len() <= limit {
            return Some(std::mem::take(&mut inner.waiting));
        }
        Some(inner.waiting.drain(..limit).collect())
    }

    /// Puts back what a batch had no room for, in front.
    pub fn put_back(&self, rest: VecDeque<Waiting>) {
        let mut inner = self.inner.lock();
        for waiting in rest.into_iter().rev() {
            inner.waiting.push_front(waiting);
        }
    }

    /// Takes no more; what waits is still answered.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::Reason;

    use super::*;
    use crate::admission::RETRY_AFTER;

    fn probe() -> Waiting {
        Waiting::Probe(oneshot::channel().0)
    }

    #[test]
    fn a_full_queue_sheds_normal_commands_first_and_urgent_ones_last() {
        let queue = Queue::new(2, 1);
        for _ in 0..2 {
            queue.push(Priority::Normal, probe()).unwrap();
        }
        let refused = queue.push(Priority::Normal, probe()).unwrap_err();
        assert_eq!(refused.reason, Reason::Overloaded);
        assert_eq!(refused.retry_after, Some(RETRY_AFTER));
        queue.push(Priority::Urgent, probe()).unwrap();
        let refused = queue.push(Priority::Urgent, probe()).unwrap_err();
        assert_eq!(refused.reason, Reason::Overloaded);
        assert_eq!(queue.take(2).unwrap().len(), 2);
        queue.push(Priority::Normal, probe()).unwrap();
    }

    #[test]
    fn a_closed_queue_gives_out_what_waits_and_takes_no_more() {
        let queue = Queue::new(2, 1);
        queue.push(Priority::Normal, probe()).unwrap();
        queue.close();
        assert_eq!(queue.push(Priority::Urgent, probe()).unwrap_err().reason, Reason::ShuttingDown);
        assert_eq!(queue.take(10).unwrap().len(), 1);
        assert!(queue.take(10).is_none());
    }
}
