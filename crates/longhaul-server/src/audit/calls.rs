//! From calls to entries: which are recorded, in which log, and what an entry says of a call.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use longhaul_auth::refusal;
use longhaul_core::Error;

use crate::access::{Class, Decision, Facts, Origin, Oversight};
use crate::audit::{Asked, Audit, Entry, Log, OfOperation, OnFailure};

impl Oversight for Audit {
    fn decided(&self, decision: &Decision) -> Result<Option<Box<dyn Any + Send + Sync>>, Error> {
        if !decision.granted {
            if self.config().policy_denied {
                self.note_denied(self.entry(decision, Log::Policy));
            }
        } else if decision.class == Class::Watch && self.config().data_access {
            // A stream's end says nothing, and it may come days later.
            self.note(self.entry(decision, Log::DataAccess));
        }
        Ok(None)
    }

    fn unknown(&self, asked: refusal::Asked<'_>, from: &Origin, error: &Error) {
        if !self.config().policy_denied {
            return;
        }
        let (service, method) = (asked.service.into(), asked.method.into());
        let mut entry = Entry::new(Log::Policy, self.clock.now(), service, method);
        entry.status = Some((error.code().number(), error.message.as_str().into()));
        entry.caller_ip = from.address;
        entry.user_agent = from.agent.clone();
        entry.facts.push(("refused", error.reason.name().into()));
        self.note_denied(entry);
    }

    fn begin<'a>(
        &'a self,
        decision: &'a Decision,
    ) -> Option<Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>> {
        let asks = self.config().on_failure == OnFailure::Refuse;
        if !asks || !decision.class.changes() || !self.config().admin_activity {
            return None;
        }
        Some(Box::pin(async move {
            let mut entry = self.entry(decision, Log::Activity);
            entry.facts.push(("phase", "ASKED".into()));
            self.ask(entry, decision.class == Class::Cancel).await
        }))
    }

    fn must_hear(&self, decision: &Decision) -> bool {
        decision.class.changes() && self.config().admin_activity
    }

    fn answered(&self, decision: &Decision, answer: Result<(), &Error>) {
        let log = match decision.class {
            Class::Cancel | Class::Change if self.config().admin_activity => Log::Activity,
            Class::Read | Class::Wait if self.config().data_access => Log::DataAccess,
            Class::Cancel
            | Class::Change
            | Class::Read
            | Class::Wait
            | Class::Watch
            | Class::Work => return,
        };
        let mut entry = self.entry(decision, log);
        entry.at = self.clock.now();
        entry.status = Some(match answer {
            Ok(()) => (0, "".into()),
            Err(error) => (error.code().number(), error.message.as_str().into()),
        });
        entry.facts.push(("phase", "ANSWERED".into()));
        if let Some(facts) = decision.made.facts() {
            tell(&mut entry, facts);
        }
        self.note(entry);
    }
}

/// Adds what a commit came to.
fn tell(entry: &mut Entry, facts: Facts) {
    let id: Arc<str> = facts.operation.as_str().into();
    if entry.resource.is_empty() {
        entry.resource = id.clone();
    }
    entry.service = facts.api;
    entry.operation = Some(OfOperation { id, first: facts.started, last: false });
    if let Some(came) = facts.cancel {
        entry.facts.push(("cancel", came.name().into()));
    }
    if !facts.reason.is_empty() {
        entry.facts.push(("reason", facts.reason));
    }
}

impl Audit {
    fn entry(&self, decision: &Decision, log: Log) -> Entry {
        let resource: Arc<str> = decision.resource.as_str().into();
        let method = decision.method.full_name.clone();
        let mut entry = Entry::new(log, decision.at, decision.service.clone(), method);
        entry.principal = decision.identity.actor();
        entry.asked = decision
            .permissions
            .iter()
            .map(|checked| Asked {
                permission: checked.permission.as_str().into(),
                resource: resource.clone(),
                granted: checked.granted,
            })
            .collect();
        if !decision.granted {
            let code = longhaul_core::Code::PermissionDenied.number();
            entry.status = Some((code, "the call was not allowed".into()));
        }
        let about_operation = decision.about_operation() && !resource.is_empty();
        entry.operation = about_operation.then(|| OfOperation {
            id: resource.clone(),
            first: false,
            last: false,
        });
        entry.resource = resource;
        entry.caller_ip = decision.from.address;
        entry.user_agent = decision.from.agent.clone();
        entry.facts.push(("call", decision.call.to_string().into()));
        entry
    }
}
