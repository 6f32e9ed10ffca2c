//! Workers as their authors write them, with the library of `longhaul-client`: it renews leases, hears
//! cancels and fences by itself. Here only when a handler was at work is noted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_client::worker::{
    Any, Assignment, Context, Effects, Grpc, Handler, Options, Stopped, Unfinished, Worker,
};
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::history::What;
use super::{LEASE, Result, Run, words};

/// Operations at once.
const SLOTS: usize = 6;

/// What the handlers share.
struct Work {
    who: String,
    run: Arc<Run>,
}

/// Notes from when to when a handler was at work, however it ends.
struct AtWork<'a> {
    work: &'a Work,
    began: u64,
    name: String,
    epoch: u64,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let ran = What::Ran { name: std::mem::take(&mut self.name), epoch: self.epoch };
        self.work.run.recorder.note(&self.work.who, self.began, ran);
    }
}

impl Work {
    fn at_work(&self, assignment: &Assignment) -> AtWork<'_> {
        let (name, epoch) = (assignment.operation.clone(), assignment.epoch);
        AtWork { work: self, began: self.run.recorder.now(), name, epoch }
    }

    fn dice(&self, assignment: &Assignment) -> Dice {
        let part = assignment.operation.bytes().map(u64::from).sum::<u64>();
        Dice::new(self.run.seed, part * 1_000 + assignment.epoch)
    }
}

#[async_trait]
impl Handler for Work {
    async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished> {
        let _at_work = self.at_work(&assignment);
        let mut dice = self.dice(&assignment);
        let longest = if dice.chance(10) { 4_000 } else { 400 };
        tokio::select! {
            () = context.cancelled() => return Err(Unfinished::stopped(Effects::None)),
            () = tokio::time::sleep(Duration::from_millis(dice.between(0, longest))) => {}
        }
        if dice.chance(8) {
            return Err(Unfinished::retryable(13, "it failed on purpose"));
        }
        Ok(words::made(&format!("{}#{}#{}", assignment.operation, assignment.epoch, self.who)))
    }

    async fn clean_up(
        &self,
        assignment: Assignment,
        context: Context,
    ) -> Result<Stopped, Unfinished> {
        let _at_work = self.at_work(&assignment);
        let span = Duration::from_millis(self.dice(&assignment).between(0, 300));
        tokio::select! {
            () = context.cancelled() => return Err(Unfinished::stopped(Effects::Partial)),
            () = tokio::time::sleep(span) => {}
        }
        Ok(Stopped { effects: Effects::Undone.into(), message: String::new() })
    }
}

/// Runs one such worker until `shutdown`.
pub(super) async fn live(number: u64, run: Arc<Run>, shutdown: CancellationToken) -> Result<()> {
    let who = format!("crew {number}");
    let link = Grpc::connect(&format!("http://{}", run.door))?;
    let options = Options { name: who.clone(), slots: SLOTS, lease: LEASE, ..Options::default() };
    Ok(Worker::new(options, link, Work { who, run })?.run(shutdown).await?)
}
