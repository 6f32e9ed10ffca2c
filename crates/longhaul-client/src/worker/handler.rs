//! What a worker author writes.

use async_trait::async_trait;
use longhaul_wire::v1::{Assignment, Effects, Failure, Stopped};
use prost_types::Any;

use super::Context;

/// The work itself. One value serves every operation; calls run concurrently.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Does the work of one operation and answers with the method's declared response.
    ///
    /// Runs as a task of its own; leases are renewed beside it. When `context` says that the work is not
    /// wanted any more, it should stop soon and answer [`Unfinished::Stopped`]; a success is still
    /// accepted if it comes first. A panic is reported as a failure that may be tried again. May run
    /// again after a crash: `assignment.checkpoint` says where the last attempt was.
    async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished>;

    /// Cleans up after an attempt of any worker, for methods that have a cleanup. Nobody cancels it.
    ///
    /// Unless written, it says that nobody knows what was left behind.
    async fn clean_up(
        &self,
        _assignment: Assignment,
        _context: Context,
    ) -> Result<Stopped, Unfinished> {
        Ok(Stopped { effects: Effects::Unknown.into(), message: String::new() })
    }
}

/// How work ends without a response.
#[derive(Clone, Debug, PartialEq)]
pub enum Unfinished {
    /// It went wrong.
    Failed(Failure),
    /// It was stopped, as asked.
    Stopped(Stopped),
    /// It is given back as if it had not been claimed.
    Released,
}

impl Unfinished {
    /// A failure for good. `code` is a google.rpc.Code from 1 to 16.
    pub fn failed(code: i32, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Failed(Failure { code, message, ..Failure::default() })
    }

    /// A failure that another attempt may not meet. `code` is a google.rpc.Code from 1 to 16.
    pub fn retryable(code: i32, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Failed(Failure { code, message, retryable: true, ..Failure::default() })
    }

    /// Stopped as asked, and what was left behind.
    #[must_use]
    pub fn stopped(effects: Effects) -> Self {
        Self::Stopped(Stopped { effects: effects.into(), message: String::new() })
    }
}
