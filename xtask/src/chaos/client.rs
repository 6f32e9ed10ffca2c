//! Clients: start, cancel, wait and read, and try again whenever the line breaks, as the libraries do.

use std::sync::Arc;
use std::time::Duration;

use longhaul_wire::longrunning::{
    CancelOperationRequest, GetOperationRequest, Operation, WaitOperationRequest,
};
use prost::Message;

use super::Run;
use super::dice::Dice;
use super::history::{Seen, What};
use super::line::{Fault, Lines};
use super::words::{self, WorkRequest};

/// How long one wait asks to be held.
const WAIT: Duration = Duration::from_secs(3);
/// google.rpc.Code NOT_FOUND.
const NOT_FOUND: i32 = 5;

/// One client.
pub(super) struct Client {
    who: String,
    lines: Lines,
    dice: Dice,
    run: Arc<Run>,
}

impl Client {
    pub fn new(number: u64, run: Arc<Run>) -> Self {
        Self {
            who: format!("client {number}"),
            lines: Lines::new(run.door),
            dice: Dice::new(run.seed, 1_000 + number),
            run,
        }
    }

    /// Lives one operation after the other until the load is over.
    pub async fn live(mut self) {
        for number in 0_u64.. {
            if self.run.load_over.is_cancelled() {
                return;
            }
            let request_id = format!("{}-{number}", self.who);
            let path = if self.dice.chance(70) { words::WORK } else { words::BUILD };
            let Some(name) = self.start(path, request_id).await else { return };
            if self.dice.chance(60) {
                self.rest(0, 700).await;
                self.cancel(&name).await;
                if self.dice.chance(20) {
                    self.cancel(&name).await;
                }
            } else if self.dice.chance(30) {
                continue;
            }
            if self.dice.chance(30) {
                self.read(&name).await;
            }
            self.wait(&name).await;
        }
    }

    /// Starts until it is answered; every try is the same start.
    async fn start(&mut self, path: &'static str, request_id: String) -> Option<String> {
        let parent = words::PARENT.to_owned();
        let request = WorkRequest { parent, request_id: request_id.clone() };
        loop {
            let began = self.run.recorder.now();
            let answer: Option<Operation> = self.call("start", &request_id, path, &request).await;
            let name = answer.map(|operation| operation.name);
            let start = What::Start { request_id: request_id.clone(), name: name.clone() };
            self.run.recorder.note(&self.who, began, start);
            if name.is_some() || self.run.over.is_cancelled() {
                return name;
            }
            self.rest(20, 200).await;
        }
    }

    /// Asks until it is accepted.
    async fn cancel(&mut self, name: &str) {
        let request = CancelOperationRequest { name: name.to_owned() };
        while !self.run.over.is_cancelled() {
            let began = self.run.recorder.now();
            let answer: Option<()> = self.call("cancel", name, words::CANCEL, &request).await;
            let accepted = answer.is_some();
            let cancel = What::Cancel { name: name.to_owned(), accepted };
            self.run.recorder.note(&self.who, began, cancel);
            if accepted {
                return;
            }
            self.rest(20, 200).await;
        }
    }

    /// Reads once.
    pub async fn read(&mut self, name: &str) -> Option<Seen> {
        let began = self.run.recorder.now();
        let request = GetOperationRequest { name: name.to_owned() };
        let answer: Option<Operation> = self.call("get", name, words::GET, &request).await;
        self.note_read(began, name, &answer?)
    }

    /// Waits until it is seen done.
    async fn wait(&mut self, name: &str) {
        let timeout = Some(WAIT.try_into().expect("three seconds fit"));
        let request = WaitOperationRequest { name: name.to_owned(), timeout };
        while !self.run.over.is_cancelled() {
            let began = self.run.recorder.now();
            let answer: Option<Operation> = self.call("wait", name, words::WAIT, &request).await;
            match answer.and_then(|answer| self.note_read(began, name, &answer)) {
                Some(seen) if seen.done => return,
                Some(_) => {}
                None => self.rest(20, 200).await,
            }
        }
    }

    /// Reads an operation after everything else, until it is answered.
    pub async fn read_last(&mut self, name: &str) {
        while !self.run.over.is_cancelled() {
            let began = self.run.recorder.now();
            let request = GetOperationRequest { name: name.to_owned() };
            let answer: Option<Operation> = self.call("get", name, words::GET, &request).await;
            let Some(seen) = answer.and_then(|answer| words::seen(&answer).ok()) else {
                self.rest(20, 200).await;
                continue;
            };
            if seen.done {
                let last = What::Last { name: name.to_owned(), seen };
                self.run.recorder.note(&self.who, began, last);
                return;
            }
            self.note(began, What::Read { name: name.to_owned(), seen });
            self.rest(100, 300).await;
        }
    }

    fn note_read(&self, began: u64, name: &str, operation: &Operation) -> Option<Seen> {
        let seen = words::seen(operation).ok()?;
        self.note(began, What::Read { name: name.to_owned(), seen: seen.clone() });
        Some(seen)
    }

    async fn call<Answer: Message + Default>(
        &mut self,
        call: &str,
        name: &str,
        path: &'static str,
        request: &impl Message,
    ) -> Option<Answer> {
        let began = self.run.recorder.now();
        let hang = if path == words::WAIT { WAIT } else { Duration::ZERO };
        let (call, name) = (call.to_owned(), name.to_owned());
        match self.lines.call(path, request, hang).await {
            Ok(answer) => return Some(answer),
            Err(Fault::Broken) => {}
            Err(Fault::Hung) => self.note(began, What::Hung { call, name }),
            Err(Fault::Refused { code: NOT_FOUND, .. }) => self.note(began, What::Missing { name }),
            Err(Fault::Refused { code, message }) => {
                self.note(began, What::Refused { call, name, code, message });
            }
        }
        None
    }

    fn note(&self, began: u64, what: What) {
        self.run.recorder.note(&self.who, began, what);
    }

    async fn rest(&mut self, from_ms: u64, to_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.dice.between(from_ms, to_ms))).await;
    }
}
