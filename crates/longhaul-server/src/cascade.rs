//! A parent's cancel on its way to its children.
//!
//! Keeps nothing: which children have yet to follow is asked of the rows, after each cancel, at the start,
//! and every second. So a crash between the commit of a parent's cancel and that of a child's is only a
//! late look. What a child makes of it is decided by the rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use longhaul_core::{Command, Error, Operation, OperationName, Refusal, apply};
use longhaul_store::{Failure, Key, Priority, Store};
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::clock::Clock;
use crate::watch::Watch;

/// Longest pause between two looks. A wake-up lost to a bug would cost this much, not a cancel.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Children asked at once; they share a commit. The rest follow in the next look.
const BATCH: usize = 256;

/// What the cascade works with.
pub struct Cascade {
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Who hears of cancels.
    pub watch: Arc<Watch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where cancels are recorded.
    pub audit: Option<Arc<Audit>>,
}

impl Cascade {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.look().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "a cancel cannot reach children; trying again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(LOOK_EVERY) => {}
                () = self.watch.cancelled() => {}
            }
        }
    }

    /// One look. True when something was done, so that there may be more.
    async fn look(&self) -> Result<bool, Error> {
        let behind = self.store.left_behind(BATCH).await?;
        let mut asked: HashMap<OperationName, Option<Command>> = HashMap::new();
        let mut followed = Vec::new();
        for (parent, child) in behind {
            let command = match asked.get(&parent) {
                Some(command) => command.clone(),
                None => {
                    let command = self.store.get(&parent).await?.and_then(|found| found.cascade());
                    asked.insert(parent.clone(), command.clone());
                    command
                }
            };
            followed.extend(command.map(|command| self.follow(parent, child, command)));
        }
        let mut any = false;
        for result in join_all(followed).await {
            match result {
                Ok(_) => any = true,
                // Done, cancelled or detached since it was looked for.
                Err(Failure::Refused(_)) => {}
                Err(Failure::Store(error)) => return Err(error),
            }
        }
        Ok(any)
    }

    async fn follow(
        &self,
        parent: OperationName,
        child: OperationName,
        command: Command,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let decide = Arc::new(move |operation: Option<&Operation>| {
            apply(operation.ok_or(Refusal::NotFound)?, command.clone(), now)
        });
        let applied = self.store.update(Key::Name(child), Priority::Urgent, decide).await?;
        if let Some(audit) = &self.audit {
            audit.note_carried(&applied, ("parent", &parent));
        }
        Ok(())
    }
}
