//! The path of a cancel, with the server killed before and after every commit of it.
//!
//! A journey is a list of steps. When the server dies, it is started again on the same folder, the worker
//! connects anew and must hear what was acknowledged before, and the step is repeated as its caller
//! would repeat it. The failpoint moves on by one commit until a journey meets none.

use std::path::Path;

use longhaul_wire::v1::desired_state::Action;
use longhaul_wire::v1::{self, Effects, SessionOpen};
use tempfile::TempDir;

use crate::harness::client::Wire;
use crate::harness::operators::Operators;
use crate::harness::process::Process;
use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::session::{Said, Session, open};
use crate::harness::{Claim, Client, Failure, Held, Item, PATIENCE, Say, Seen, Worker};

/// One thing that somebody asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A client starts the operation.
    Start,
    /// A worker claims it.
    Claim,
    /// A worker claims it over a session.
    ClaimBySession,
    /// The worker notes what it is about to start outside.
    Note,
    /// The worker passes the gate.
    Gate,
    /// A client asks for cancellation.
    Cancel,
    /// The worker hears of the cancel with a report.
    Hear,
    /// The worker hears of the cancel over its session.
    HearBySession,
    /// The worker says that it has heard.
    Acknowledge,
    /// The worker gives the work up, so that another cleans up.
    GiveUp,
    /// A worker claims the cleanup.
    ClaimCleanup,
    /// The worker has stopped, or cleaned up.
    Stop,
    /// The worker has succeeded.
    Succeed,
}

/// What an unharmed journey ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Cancelled(Effects),
    Succeeded,
}

/// One server after the other on one folder, and everybody who talks to it.
struct Journey {
    configuration: String,
    process: Option<Process>,
    client: Client,
    operators: Operators,
    worker: Worker,
    session: Option<Session>,
    /// Whether the method has a cleanup.
    cleans_up: bool,
    crashes: u32,
    // What was acknowledged.
    name: String,
    held: Option<Held>,
    noted: bool,
    gated: bool,
    cancelled: bool,
    acknowledged: bool,
    given_up: bool,
    ended: Option<Seen>,
}

impl Journey {
    async fn begin(folder: &Path, cleans_up: bool, failpoint: &str) -> Self {
        let configuration = configuration(folder, cleans_up);
        let process = Process::serve_until(&configuration, failpoint).await;
        let (client, operators, worker) = callers(&process);
        Self {
            configuration,
            process: Some(process),
            client,
            operators,
            worker,
            session: None,
            cleans_up,
            crashes: 0,
            name: String::new(),
            held: None,
            noted: false,
            gated: false,
            cancelled: false,
            acknowledged: false,
            given_up: false,
            ended: None,
        }
    }

    /// Goes the whole way, through at most one crash.
    async fn travel(&mut self, steps: &[Step]) {
        for &step in steps {
            if let Err(failure) = self.take(step).await {
                assert_eq!(failure.reason, "", "{step:?}: only the line may fail: {failure:?}");
                self.restart(step).await;
                let again = self.take(step).await;
                again.unwrap_or_else(|failure| panic!("{step:?} after the crash: {failure:?}"));
            }
        }
    }

    /// Starts the server again; what was acknowledged must be so, and the worker must hear it.
    async fn restart(&mut self, broken: Step) {
        self.process.take().expect("it is started again each time").died().await;
        self.crashes += 1;
        let process = Process::serve(&self.configuration).await;
        (self.client, self.operators, self.worker) = callers(&process);
        self.process = Some(process);
        self.session = None;
        if !self.name.is_empty() {
            self.check_what_was_acknowledged().await;
        }
        if let Some(held) = self.held.clone() {
            self.reconnect(&held, broken).await;
        }
    }

    async fn check_what_was_acknowledged(&self) {
        let detail = self.operators.describe(&self.name).await;
        if self.noted {
            assert_eq!(detail.external_ref, "job-17");
        }
        assert!(!self.gated || detail.gate_time.is_some(), "{detail:?}");
        if self.cancelled {
            let cancel = detail.cancel.as_ref().expect("an acknowledged cancel is there");
            assert_eq!((&*cancel.reason, cancel.requested_by_client), ("enough", true));
            assert!(!self.acknowledged || cancel.acknowledged_time.is_some(), "{cancel:?}");
        }
        if let Some(ended) = &self.ended {
            assert_eq!(&self.seen().await, ended, "an end is final");
        }
    }

    /// What the first answer of a new session says of the claim follows from what was acknowledged, and
    /// from what the call that broke may have done.
    async fn reconnect(&mut self, held: &Held, broken: Step) {
        let claim = v1::Held { operation: held.operation.clone(), epoch: held.epoch };
        let opening = SessionOpen { held: vec![claim], ..open("w", 0) };
        let address = self.process.as_ref().expect("it runs").address;
        let (session, first) = Session::open(address, opening).await;
        let [Said::Wanted(_, _, desired)] = &*first else { panic!("{first:?}") };
        let wanted =
            if self.cancelled && !held.cleanup { Action::Cancel } else { Action::Continue };
        let or = match broken {
            Step::Cancel => Action::Cancel,
            Step::GiveUp | Step::Stop | Step::Succeed => Action::Stop,
            Step::Start
            | Step::Claim
            | Step::ClaimBySession
            | Step::Note
            | Step::Gate
            | Step::Hear
            | Step::HearBySession
            | Step::Acknowledge
            | Step::ClaimCleanup => wanted,
        };
        let over = self.ended.is_some() || self.given_up && !held.cleanup;
        let allowed = if over { [Action::Stop; 2] } else { [wanted, or] };
        assert!(allowed.contains(&desired.action()), "{broken:?}: {desired:?}");
        if desired.action() == Action::Cancel {
            assert_eq!(desired.message, "enough");
        }
        self.session = Some(session);
    }

    async fn take(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Start => self.name = self.start().await?,
            Step::Claim | Step::ClaimCleanup => {
                let held = self.claim().await?;
                assert_eq!(held.cleanup, step == Step::ClaimCleanup, "{held:?}");
                let reference = if self.noted { "job-17" } else { "" };
                assert_eq!(held.external_ref, reference);
                self.held = Some(held);
            }
            Step::ClaimBySession => {
                let address = self.process.as_ref().expect("it runs").address;
                let mut session = Session::try_open(address, open("w", 1)).await?;
                self.held = Some(session.try_assigned().await?);
                self.session = Some(session);
            }
            Step::Note => {
                let external_ref = Some("job-17".to_owned());
                self.report(Item { external_ref, ..self.item(Say::Alive) }, "CONTINUE").await?;
                self.noted = true;
            }
            Step::Gate => {
                self.report(self.item(Say::Gate), "CONTINUE").await?;
                self.gated = true;
            }
            Step::Cancel => {
                let outcome = self.operators.try_cancel(&self.name, "enough").await?.outcome;
                assert!(self.crashes > 0 || !outcome.starts_with("ALREADY"), "{outcome}");
                self.cancelled = true;
            }
            Step::Hear => self.report(self.item(Say::Alive), "CANCEL").await?,
            Step::HearBySession => {
                // After a crash it was heard in the first answer already.
                if self.crashes == 0 {
                    let session = self.session.as_mut().expect("it is open");
                    let desired = session.try_wanted().await?;
                    assert_eq!(desired.action(), Action::Cancel);
                }
            }
            Step::Acknowledge => {
                self.report(Item { heard: true, ..self.item(Say::Alive) }, "CANCEL").await?;
                self.acknowledged = true;
            }
            Step::GiveUp => {
                self.release().await?;
                self.given_up = true;
            }
            Step::Stop => {
                let effects = if self.given_up { Effects::Undone } else { Effects::None };
                self.report(self.item(Say::Stopped(effects)), "STOP").await?;
                self.ended = Some(self.try_seen().await?);
            }
            Step::Succeed => {
                self.report(self.item(Say::Success(DEPLOY.response())), "STOP").await?;
                self.ended = Some(self.try_seen().await?);
            }
        }
        Ok(())
    }

    async fn start(&self) -> Result<String, Failure> {
        if self.cleans_up {
            return start_cleanable(&self.client).await;
        }
        let request_id = "00000000-0000-4000-8000-000000000001";
        let asked = Asked { id: "a", request_id, ..Asked::default() };
        Ok(self.client.try_start(asked).await?.name)
    }

    /// A claim whose answer was lost is held by nobody who knows; its lease runs out.
    async fn claim(&self) -> Result<Held, Failure> {
        let claim = Claim { wait: PATIENCE / 2, max: 1, ..Claim::default() };
        let mut claimed = self.worker.try_claim(&claim).await?;
        assert_eq!(claimed.len(), 1, "{} did not come up", self.name);
        Ok(claimed.remove(0))
    }

    fn item(&self, say: Say) -> Item {
        self.held.as_ref().expect("it was claimed").item(say)
    }

    async fn report(&self, item: Item, wants: &str) -> Result<(), Failure> {
        let verdicts = self.worker.try_report(vec![item], std::time::Duration::ZERO).await?;
        verdicts[0].wants(wants);
        Ok(())
    }

    /// A release that was made already is refused, because its epoch is over.
    async fn release(&self) -> Result<(), Failure> {
        let item = self.item(Say::Release);
        let verdicts = self.worker.try_report(vec![item], std::time::Duration::ZERO).await?;
        let refused = verdicts[0].refused.as_ref().map(|(reason, _)| &**reason);
        assert!(refused.is_none() || (refused, self.crashes) == (Some("LEASE_LOST"), 1));
        Ok(())
    }

    async fn try_seen(&self) -> Result<Seen, Failure> {
        self.client.try_get(&self.name).await
    }

    async fn seen(&self) -> Seen {
        self.try_seen().await.unwrap()
    }

    /// Demands the end, and that neither late reports nor another crash change it.
    async fn arrive(mut self, end: End) {
        // Only a queued operation ends without a worker.
        let ended = match self.ended.take() {
            Some(ended) => ended,
            None => self.seen().await,
        };
        match end {
            End::Cancelled(effects) => {
                ended.is_cancelled();
                assert_eq!(self.operators.describe(&self.name).await.effects(), effects);
            }
            End::Succeeded => assert!(ended.response.is_some(), "{ended:?}"),
        }
        self.process.take().expect("it runs").kill().await;
        let process = Process::serve(&self.configuration).await;
        (self.client, self.operators, self.worker) = callers(&process);
        if let Some(held) = &self.held {
            let late = match end {
                End::Cancelled(_) => held.item(Say::Success(DEPLOY.response())),
                End::Succeeded => held.item(Say::Stopped(Effects::None)),
            };
            let late = if self.cleans_up { held.item(Say::Alive) } else { late };
            let verdicts = self.worker.try_report(vec![late], std::time::Duration::ZERO).await;
            verdicts.unwrap()[0].refused_as("LEASE_LOST");
        }
        assert_eq!(self.worker.claim_now().await, [], "nothing is run again");
        assert_eq!(self.seen().await, ended, "an end is final");
        process.kill().await;
    }
}

fn callers(process: &Process) -> (Client, Operators, Worker) {
    let client = Client::new(process.address, Wire::Grpc, &DEPLOY, "p");
    let worker = Worker::new(process.address, Wire::Grpc, "w");
    (client, Operators::new(process.address, Wire::Grpc), worker)
}

/// Cloud Deploy, with a cleanup for what it makes where that is asked for.
fn configuration(folder: &Path, cleans_up: bool) -> String {
    let data = folder.join("data").display().to_string();
    let api = if cleans_up {
        let acme = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/acme");
        format!(
            "proto = {:?}\nservice_config = {:?}\nsettings = {:?}",
            acme.display().to_string(),
            acme.join("service.yaml").display().to_string(),
            acme.join("settings.yaml").display().to_string()
        )
    } else {
        "bundle = \"clouddeploy\"".to_owned()
    };
    format!(
        "listen = \"127.0.0.1:0\"\ndata = {data:?}\n[workers]\nlease = \"4s\"\n[[api]]\n{api}\n"
    )
}

/// Starts a `render` once: what an unanswered start made is found in the list.
async fn start_cleanable(client: &Client) -> Result<String, Failure> {
    let ask =
        crate::harness::Ask::post_json("/v1/projects/p/clips/c:render", &serde_json::json!({}));
    let listed = crate::harness::Ask::get("/v1/projects/p/operations");
    let broken = |error: String| Failure::unreachable(&error);
    let listed = listed.try_send(client.address).await.map_err(broken)?.ok();
    if let Some(there) = listed["operations"].as_array().and_then(|all| all.first()) {
        return Ok(Seen::from_json(there).name);
    }
    let answer = ask.try_send(client.address).await.map_err(broken)?;
    Ok(Seen::from_json(&answer.ok()).name)
}

/// Goes the journey once for each commit and side. `commits` is how many there are at least.
async fn check(steps: &[Step], cleans_up: bool, end: End, commits: u32) {
    for side in ["before", "after"] {
        for number in 1_u32.. {
            let folder = TempDir::new().unwrap();
            let failpoint = format!("commit:{number}:{side}");
            let mut journey = Journey::begin(folder.path(), cleans_up, &failpoint).await;
            journey.travel(steps).await;
            let crashes = journey.crashes;
            println!("{failpoint}: {crashes} crashes");
            journey.arrive(end).await;
            if crashes == 0 {
                assert!(number > commits, "only {} commits were met", number - 1);
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_survives_a_crash_at_every_commit_of_its_path() {
    let steps = [Step::Start, Step::Claim, Step::Cancel, Step::Hear, Step::Acknowledge, Step::Stop];
    check(&steps, false, End::Cancelled(Effects::None), 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_pushed_to_a_session_survives_a_crash_at_every_commit_of_its_path() {
    let steps = [
        Step::Start,
        Step::ClaimBySession,
        Step::Cancel,
        Step::HearBySession,
        Step::Acknowledge,
        Step::Stop,
    ];
    check(&steps, false, End::Cancelled(Effects::None), 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_with_a_cleanup_survives_a_crash_at_every_commit_of_its_path() {
    let steps = [
        Step::Start,
        Step::Claim,
        Step::Note,
        Step::Cancel,
        Step::Hear,
        Step::GiveUp,
        Step::ClaimCleanup,
        Step::Stop,
    ];
    check(&steps, true, End::Cancelled(Effects::Undone), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_a_queued_operation_survives_a_crash_at_every_commit_of_its_path() {
    let steps = [Step::Start, Step::Cancel];
    check(&steps, false, End::Cancelled(Effects::NotStarted), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_past_the_gate_survives_a_crash_at_every_commit_of_its_path() {
    let steps = [Step::Start, Step::Claim, Step::Gate, Step::Cancel, Step::Hear, Step::Succeed];
    check(&steps, false, End::Succeeded, 6).await;
}
