//! How long a cancel takes from one server to a worker's session on another: measured, printed, and held
//! to its bound. The only place that demands a time, for a busy machine says nothing about the servers.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use longhaul_wire::longrunning::{CancelOperationRequest, Operation};
use longhaul_wire::v1::workers_client::WorkersClient;
use longhaul_wire::v1::{self, desired_state::Action, report_item, session_request::Request};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::fleet::Place;
use super::line::{Fault, Lines};
use super::words::{self, WorkRequest};
use super::{Result, database, on_postgres};
use crate::rig::ready;

/// What half, and all but one in a hundred, must stay within.
const BOUNDS: [(f64, Duration); 2] =
    [(50.0, Duration::from_millis(10)), (99.0, Duration::from_millis(50))];
/// Cancels before those that count.
const WARM_UP: u32 = 50;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Cancels, one after the other.
    #[arg(long, default_value_t = 1_000)]
    cancels: u32,
    /// The server; by default the build beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Measures.
pub(crate) fn run(args: &Args) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(args));
    runtime.shutdown_background();
    measured.map_err(|error| -> Box<dyn std::error::Error> { error })
}

#[allow(clippy::print_stdout, reason = "what this command is for")]
async fn measure(args: &Args) -> Result<()> {
    let Some(database) = database(2).await? else {
        println!("SKIPPED: PostgreSQL is not installed");
        println!("0 passed, 0 failed, 1 skipped");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let beside = std::env::current_exe()?.with_file_name("longhaul");
    let binary = args.binary.clone().unwrap_or(beside);
    let store = on_postgres(database.postgres.port());
    let mut servers = Vec::new();
    for number in 0..2 {
        let mut server = Place::new(&binary, folder.path(), number, &store)?;
        let address = server.start().await?;
        ready(address).await?;
        servers.push((server, address));
    }
    let mut client = Lines::new(servers[1].1);
    let mut worker = Session::open(&format!("http://{}", servers[0].1)).await?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for number in 0..WARM_UP + args.cancels {
        let took = one(&mut client, &mut worker, number).await?;
        if number >= WARM_UP {
            histogram.record(u64::try_from(took.as_micros())?)?;
        }
    }
    let millis = |percent: f64| histogram.value_at_percentile(percent) as f64 / 1_000.0;
    println!(
        "a cancel on one server, heard by a session on another, {} times: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
        args.cancels,
        millis(50.0),
        millis(90.0),
        millis(99.0),
        millis(100.0)
    );
    let broken =
        BOUNDS.iter().find(|(percent, bound)| millis(*percent) > bound.as_secs_f64() * 1e3);
    println!(
        "{} passed, {} failed, 0 skipped",
        i32::from(broken.is_none()),
        i32::from(broken.is_some())
    );
    match broken {
        None => Ok(()),
        Some((percent, bound)) => Err(format!("p{percent} is above {bound:?}").into()),
    }
}

/// Starts an operation on one server, has the worker on the other get it, and cancels it.
async fn one(client: &mut Lines, worker: &mut Session, number: u32) -> Result<Duration> {
    let parent = words::PARENT.to_owned();
    let start = WorkRequest { parent, request_id: format!("latency-{number}") };
    let started: Operation =
        client.call(words::WORK, &start, Duration::ZERO).await.map_err(refused)?;
    let given = worker.assigned(&started.name).await?;
    let cancel = CancelOperationRequest { name: started.name.clone() };
    let began = now();
    let asking = client.call::<()>(words::CANCEL, &cancel, Duration::ZERO);
    let hearing = async {
        worker.told_to_cancel(&started.name).await?;
        Ok(began.elapsed())
    };
    let (asked, heard): (_, Result<Duration>) = tokio::join!(asking, hearing);
    asked.map_err(refused)?;
    worker.stopped(started.name, given).await?;
    heard
}

fn refused(fault: Fault) -> super::Error {
    format!("a call failed: {fault:?}").into()
}

#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// A worker's session of one slot.
struct Session {
    requests: mpsc::Sender<v1::SessionRequest>,
    answers: tonic::Streaming<v1::SessionResponse>,
}

impl Session {
    async fn open(url: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).connect().await?;
        let mut client = WorkersClient::new(channel);
        let (requests, receiver) = mpsc::channel(4);
        let open = v1::SessionOpen { worker: "latency".into(), slots: 1, ..Default::default() };
        requests.send(v1::SessionRequest { request: Some(Request::Open(open)) }).await?;
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let answers = client.session(stream).await?.into_inner();
        Ok(Self { requests, answers })
    }

    async fn next(&mut self) -> Result<v1::SessionResponse> {
        Ok(self.answers.next().await.ok_or("the session ended")??)
    }

    /// The epoch under which an operation is given.
    async fn assigned(&mut self, name: &str) -> Result<u64> {
        loop {
            let given = self.next().await?.assignments.into_iter();
            if let Some(one) = given.into_iter().find(|one| one.operation == name) {
                return Ok(one.epoch);
            }
        }
    }

    async fn told_to_cancel(&mut self, name: &str) -> Result<()> {
        let cancel = |update: &v1::DesiredUpdate| {
            let action = update.desired.as_ref().map(v1::DesiredState::action);
            update.operation == name && action == Some(Action::Cancel)
        };
        while !self.next().await?.desired.iter().any(cancel) {}
        Ok(())
    }

    async fn stopped(&mut self, operation: String, epoch: u64) -> Result<()> {
        let action = Some(report_item::Action::Stopped(v1::Stopped::default()));
        let items = vec![v1::ReportItem { operation, epoch, action, ..Default::default() }];
        let report = Request::Report(v1::SessionReport { id: 1, items });
        self.requests.send(v1::SessionRequest { request: Some(report) }).await?;
        while self.next().await?.results.is_none() {}
        Ok(())
    }
}
