//! Who may still wait for a writer: so many, and a reserve for what must be shed last.

use std::time::Duration;

use longhaul_core::{Error, Reason};

use crate::Priority;

/// What a caller is told to wait when the queue is full: about as long as some batches take.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How many commands may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    normal_max: usize,
    urgent_max: usize,
}

impl Admission {
    /// `reserve` more than `normal_max` for urgent ones.
    pub fn new(normal_max: usize, reserve: usize) -> Self {
        Self { normal_max, urgent_max: normal_max.saturating_add(reserve) }
    }

    /// Whether one more may wait in a queue that is open or closed, where so many are waiting. Fails with
    /// `SHUTTING_DOWN` or `OVERLOADED`.
    pub fn admit(self, priority: Priority, waiting: usize, is_closed: bool) -> Result<(), Error> {
        let bound = match priority {
            Priority::Normal => self.normal_max,
            Priority::Urgent => self.urgent_max,
        };
        if is_closed {
            return Err(closed());
        }
        if waiting >= bound {
            return Err(full());
        }
        Ok(())
    }
}

/// What a closed store says.
pub(crate) fn closed() -> Error {
    Error::new(Reason::ShuttingDown, "the server is stopping; repeat the call")
}

fn full() -> Error {
    Error::new(
        Reason::Overloaded,
        "too many changes wait for the store; repeat the call a little later",
    )
    .retry_after(RETRY_AFTER)
}
