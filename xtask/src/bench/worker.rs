//! W2's worker: claims many, finishes all of them at once in one report, and goes on claiming
//! meanwhile. Speaks `longhaul.v1` over gRPC like any worker.

use std::net::SocketAddr;
use std::time::Duration;

use longhaul_wire::v1;
use prost::Message as _;
use tokio::task::{JoinHandle, JoinSet};

use super::grpc::{self, Line};
use super::{Result, words};

const NAME: &str = "bench/1";
const BATCH_MAX: i32 = 1000;
const CLAIM_PATH: &str = "/longhaul.v1.Workers/Claim";
const REPORT_PATH: &str = "/longhaul.v1.Workers/Report";

/// A worker at work. Stopped when dropped.
pub(super) struct Worker(JoinHandle<Result<()>>);

impl Worker {
    /// Connects and begins to claim.
    pub async fn begin(address: SocketAddr) -> Result<Self> {
        let line = grpc::connect(address, 1, None).await?.remove(0);
        Ok(Self(tokio::spawn(work(line))))
    }

    /// What made the worker stop by itself, if something did.
    pub async fn end(mut self) -> Result<()> {
        if self.0.is_finished() {
            return (&mut self.0).await?;
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn work(mut line: Line) -> Result<()> {
    let mut reports: JoinSet<Result<()>> = JoinSet::new();
    for number in 0_u64.. {
        let claim = v1::ClaimRequest {
            worker: NAME.to_owned(),
            max: BATCH_MAX,
            wait: Some(Duration::from_secs(10).try_into()?),
            claim_id: number.to_string(),
            ..Default::default()
        };
        let claimed = v1::ClaimResponse::decode(line.call(CLAIM_PATH, &claim).await?)?;
        while let Some(ended) = reports.try_join_next() {
            ended??;
        }
        if !claimed.assignments.is_empty() {
            reports.spawn(finish(line.clone(), claimed.assignments));
        }
    }
    Ok(())
}

async fn finish(mut line: Line, assignments: Vec<v1::Assignment>) -> Result<()> {
    let items = assignments.into_iter().map(|assignment| v1::ReportItem {
        operation: assignment.operation,
        epoch: assignment.epoch,
        action: Some(v1::report_item::Action::Response(words::result())),
        ..Default::default()
    });
    let report = v1::ReportRequest { worker: NAME.to_owned(), items: items.collect(), wait: None };
    let answer = v1::ReportResponse::decode(line.call(REPORT_PATH, &report).await?)?;
    match answer.results.into_iter().find_map(|result| result.error) {
        Some(error) => Err(format!("a finish was refused: {error:?}").into()),
        None => Ok(()),
    }
}
