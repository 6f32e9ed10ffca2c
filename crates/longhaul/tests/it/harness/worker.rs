//! A worker driven by hand: nothing is claimed, reported or renewed unless the test says so.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use longhaul_wire::longrunning::{Any, type_name, type_url};
use longhaul_wire::v1;
use serde_json::{Value, json};

use super::client::Wire;
use super::grpc::Connection;
use super::http::Ask;
use super::samples::Typed;
use super::view::Failure;
use super::{PATIENCE, soon};

/// What a claim asks for.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Most operations to take.
    pub max: i32,
    /// How long to wait for the first.
    pub wait: Duration,
    /// For replay; empty for none.
    pub claim_id: String,
    /// Names of queues; empty for any.
    pub queues: Vec<String>,
    /// How long the worker may be silent; `None` for the default.
    pub lease: Option<Duration>,
}

impl Default for Claim {
    fn default() -> Self {
        let (claim_id, queues) = (String::new(), Vec::new());
        Self { max: 1000, wait: Duration::ZERO, claim_id, queues, lease: None }
    }
}

/// An operation given to the worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Full name.
    pub operation: String,
    /// The fencing token.
    pub epoch: u64,
    /// The API.
    pub api: String,
    /// The method that started it.
    pub method: String,
    /// Type of the request.
    pub request_type: String,
    /// Type that a response must have.
    pub response_type: String,
    /// Counted from 1.
    pub attempt: u32,
    /// Clean up instead of working.
    pub cleanup: bool,
    /// Where the last attempt stopped.
    pub checkpoint: Vec<u8>,
    /// Work outside that an earlier attempt started.
    pub external_ref: String,
    /// What is wanted.
    pub desired: String,
}

/// What an item asks beside renewing the lease.
#[derive(Clone, Debug, Default)]
pub enum Say {
    /// Nothing.
    #[default]
    Alive,
    /// May the irreversible step be taken?
    Gate,
    /// Given back.
    Release,
    /// Ended well.
    Success(Typed),
    /// Ended badly: code, message, whether another attempt may succeed.
    Failure(i32, String, bool),
    /// Stopped as asked, leaving this behind.
    Stopped(v1::Effects),
}

/// One item of a report.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// Which operation.
    pub operation: String,
    /// Under which claim.
    pub epoch: u64,
    /// What is said.
    pub say: Say,
    /// New metadata.
    pub metadata: Option<Typed>,
    /// New message of progress.
    pub progress: Option<String>,
    /// Where a later attempt should go on.
    pub checkpoint: Option<Vec<u8>>,
    /// Work outside, noted before it is started.
    pub external_ref: Option<String>,
    /// The cancel was heard.
    pub heard: bool,
    /// How long the worker may be silent from now.
    pub lease: Option<Duration>,
}

/// The answer to one item.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Reason and message of a refusal.
    pub refused: Option<(String, String)>,
    /// What is wanted: `CONTINUE`, `CANCEL` or `STOP`.
    pub desired: String,
    /// Why.
    pub because: String,
    /// What whoever wants it said.
    pub words: String,
    /// The step may be taken.
    pub gate_passed: bool,
}

impl Verdict {
    /// Demands acceptance and this wish.
    #[track_caller]
    pub fn wants(&self, desired: &str) -> &Self {
        assert_eq!((&self.refused, &*self.desired), (&None, desired), "{self:?}");
        self
    }

    /// Demands a refusal for this reason.
    #[track_caller]
    pub fn refused_as(&self, reason: &str) -> &Self {
        let given = self.refused.as_ref().map(|(given, _)| &**given);
        assert_eq!(given, Some(reason), "{self:?}");
        self
    }

    /// Demands that the refusal says these words.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        let message = self.refused.as_ref().map_or("", |(_, message)| message);
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message:?}");
        }
        self
    }
}

impl Held {
    /// An item about this operation, under this claim.
    pub fn item(&self, say: Say) -> Item {
        let (operation, epoch) = (self.operation.clone(), self.epoch);
        Item { operation, epoch, say, ..Item::default() }
    }
}

/// A worker.
#[derive(Clone)]
pub struct Worker {
    address: SocketAddr,
    wire: Wire,
    /// What it calls itself.
    pub name: String,
    grpc: Connection,
    /// What it claimed and nobody has asked it for.
    spare: Arc<Mutex<Vec<Held>>>,
}

impl Worker {
    /// Connects when first used.
    pub fn new(address: SocketAddr, wire: Wire, name: impl Into<String>) -> Self {
        let grpc = Connection::new(address, None);
        Self { address, wire, name: name.into(), grpc, spare: Arc::default() }
    }

    /// Claims, if the server lets it.
    pub async fn try_claim(&self, claim: &Claim) -> Result<Vec<Held>, Failure> {
        match self.wire {
            Wire::Http => {
                let mut body = json!({
                    "worker": self.name,
                    "max": claim.max,
                    "wait": span(claim.wait),
                    "claimId": claim.claim_id,
                    "queues": claim.queues,
                });
                if let Some(lease) = claim.lease {
                    body["lease"] = span(lease);
                }
                let answer = self.post("/longhaul/v1/leases:claim", &body).await?;
                let assignments = answer["assignments"].as_array().cloned().unwrap_or_default();
                Ok(assignments.iter().map(held_from_json).collect())
            }
            Wire::Grpc => {
                let request = v1::ClaimRequest {
                    worker: self.name.clone(),
                    max: claim.max,
                    wait: Some(claim.wait.try_into().unwrap()),
                    claim_id: claim.claim_id.clone(),
                    queues: claim.queues.clone(),
                    lease: claim.lease.map(|lease| lease.try_into().unwrap()),
                    ..Default::default()
                };
                let calling = self.grpc.call("/longhaul.v1.Workers/Claim", &request, None);
                let answer: v1::ClaimResponse = soon("a claim", calling).await?;
                Ok(answer.assignments.into_iter().map(held_from_message).collect())
            }
        }
    }

    /// Claims what there is now.
    pub async fn claim_now(&self) -> Vec<Held> {
        self.try_claim(&Claim::default()).await.expect("a claim is answered")
    }

    /// Claims until it has this operation; what else comes up is kept for later.
    pub async fn claim(&self, operation: &str) -> Held {
        self.claim_for(operation, None).await
    }

    /// The same with a lease of its own.
    pub async fn claim_for(&self, operation: &str, lease: Option<Duration>) -> Held {
        let claim = Claim { wait: PATIENCE / 2, lease, ..Claim::default() };
        for _ in 0..50 {
            if let Some(held) = self.take_spare(operation) {
                return held;
            }
            let claimed = self.try_claim(&claim).await.expect("a claim is answered");
            assert!(!claimed.is_empty(), "{operation} cannot be claimed");
            self.spare.lock().unwrap().extend(claimed);
        }
        panic!("{operation} did not come up");
    }

    fn take_spare(&self, operation: &str) -> Option<Held> {
        let mut spare = self.spare.lock().unwrap();
        let index = spare.iter().position(|held| held.operation == operation)?;
        Some(spare.remove(index))
    }

    /// Reports one item and says how it was taken.
    pub async fn report(&self, item: Item) -> Verdict {
        self.report_waiting(item, Duration::ZERO).await
    }

    /// Reports one item; the answer may hang for `wait`.
    pub async fn report_waiting(&self, item: Item, wait: Duration) -> Verdict {
        let mut verdicts = self.try_report(vec![item], wait).await.expect("a report is answered");
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        verdicts.remove(0)
    }

    /// Reports, if the server lets it.
    pub async fn try_report(
        &self,
        items: Vec<Item>,
        wait: Duration,
    ) -> Result<Vec<Verdict>, Failure> {
        match self.wire {
            Wire::Http => {
                let items: Vec<_> = items.iter().map(item_to_json).collect();
                let body = json!({ "worker": self.name, "items": items, "wait": span(wait) });
                let answer = self.post("/longhaul/v1/leases:report", &body).await?;
                let results = answer["results"].as_array().cloned().unwrap_or_default();
                Ok(results.iter().map(verdict_from_json).collect())
            }
            Wire::Grpc => {
                let request = v1::ReportRequest {
                    worker: self.name.clone(),
                    items: items.into_iter().map(item_to_message).collect(),
                    wait: Some(wait.try_into().unwrap()),
                };
                let calling = self.grpc.call("/longhaul.v1.Workers/Report", &request, None);
                let answer: v1::ReportResponse = soon("a report", calling).await?;
                Ok(answer.results.into_iter().map(verdict_from_message).collect())
            }
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let sent = soon("an answer to a worker", Ask::post_json(path, body).try_send(self.address));
        let answer = sent.await.map_err(|error| Failure::unreachable(&error))?;
        if answer.code == 200 {
            Ok(answer.json())
        } else {
            Err(Failure::from_envelope(&answer.json()))
        }
    }
}

/// A span as JSON writes it.
pub fn span(span: Duration) -> Value {
    json!(format!("{}.{:09}s", span.as_secs(), span.subsec_nanos()))
}

/// An `Any` as JSON writes it.
pub fn any_json(typed: &Typed) -> Value {
    let mut json = typed.json.clone();
    json["@type"] = json!(type_url(typed.type_name));
    json
}

fn any(typed: Typed) -> Any {
    Any { type_url: type_url(typed.type_name), value: typed.bytes }
}

fn item_to_json(item: &Item) -> Value {
    let mut json = json!({
        "operation": item.operation,
        "epoch": item.epoch.to_string(),
        "acknowledgeCancel": item.heard,
    });
    if let Some(lease) = item.lease {
        json["lease"] = span(lease);
    }
    if let Some(metadata) = &item.metadata {
        json["metadata"] = any_json(metadata);
    }
    if let Some(message) = &item.progress {
        json["progress"] = json!({ "message": message });
    }
    if let Some(checkpoint) = &item.checkpoint {
        json["checkpoint"] = json!(BASE64_STANDARD.encode(checkpoint));
    }
    if let Some(external_ref) = &item.external_ref {
        json["externalRef"] = json!(external_ref);
    }
    match &item.say {
        Say::Alive => {}
        Say::Gate => json["gate"] = json!({}),
        Say::Release => json["release"] = json!({}),
        Say::Success(response) => json["response"] = any_json(response),
        Say::Failure(code, message, retryable) => {
            json["failure"] = json!({ "code": code, "message": message, "retryable": retryable });
        }
        Say::Stopped(effects) => {
            json["stopped"] = json!({ "effects": effects.as_str_name() });
        }
    }
    json
}

pub(super) fn item_to_message(item: Item) -> v1::ReportItem {
    use v1::report_item::Action;
    v1::ReportItem {
        operation: item.operation,
        epoch: item.epoch,
        lease: item.lease.map(|lease| lease.try_into().unwrap()),
        metadata: item.metadata.map(any),
        progress: item.progress.map(|message| v1::Progress { message, ..Default::default() }),
        checkpoint: item.checkpoint,
        external_ref: item.external_ref,
        acknowledge_cancel: item.heard,
        action: match item.say {
            Say::Alive => None,
            Say::Gate => Some(Action::Gate(v1::Gate {})),
            Say::Release => Some(Action::Release(v1::Release {})),
            Say::Success(response) => Some(Action::Response(any(response))),
            Say::Failure(code, message, retryable) => {
                let (details, effects) = (Vec::new(), 0);
                Some(Action::Failure(v1::Failure { code, message, details, retryable, effects }))
            }
            Say::Stopped(effects) => {
                let (effects, message) = (effects as i32, String::new());
                Some(Action::Stopped(v1::Stopped { effects, message }))
            }
        },
    }
}

fn held_from_json(json: &Value) -> Held {
    Held {
        operation: text(&json["operation"]),
        epoch: text(&json["epoch"]).parse().expect("JSON writes 64 bits as text"),
        api: text(&json["api"]),
        method: text(&json["method"]),
        request_type: type_name(&text(&json["request"]["@type"])).to_owned(),
        response_type: text(&json["responseType"]),
        attempt: json["attempt"].as_u64().unwrap_or(0) as u32,
        cleanup: json["cleanup"] == true,
        checkpoint: BASE64_STANDARD.decode(text(&json["checkpoint"])).unwrap(),
        external_ref: text(&json["externalRef"]),
        desired: text(&json["desired"]["action"]),
    }
}

pub(super) fn held_from_message(assignment: v1::Assignment) -> Held {
    let request = assignment.request.unwrap_or_default();
    Held {
        operation: assignment.operation,
        epoch: assignment.epoch,
        api: assignment.api,
        method: assignment.method,
        request_type: type_name(&request.type_url).to_owned(),
        response_type: assignment.response_type,
        attempt: assignment.attempt,
        cleanup: assignment.cleanup,
        checkpoint: assignment.checkpoint,
        external_ref: assignment.external_ref,
        desired: assignment.desired.unwrap_or_default().action().as_str_name().to_owned(),
    }
}

fn verdict_from_json(json: &Value) -> Verdict {
    let error = json.get("error");
    Verdict {
        refused: error.map(|error| (text(&error["reason"]), text(&error["message"]))),
        desired: text(&json["desired"]["action"]),
        because: text(&json["desired"]["reason"]),
        words: text(&json["desired"]["message"]),
        gate_passed: json["gatePassed"] == true,
    }
}

pub(super) fn verdict_from_message(result: v1::ReportResult) -> Verdict {
    let desired = result.desired.unwrap_or_default();
    let no_reason = desired.reason() == v1::desired_state::Reason::Unspecified;
    let because = if no_reason { "" } else { desired.reason().as_str_name() };
    let known = desired.action() != v1::desired_state::Action::Unspecified;
    Verdict {
        refused: result.error.map(|error| (error.reason, error.message)),
        desired: if known { desired.action().as_str_name() } else { "" }.to_owned(),
        because: because.to_owned(),
        words: desired.message,
        gate_passed: result.gate_passed,
    }
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}
