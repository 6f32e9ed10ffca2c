//! The access policy that one operation has of its own, kept with it.
//!
//! Owns that two writers do not overwrite each other unawares. What the policy says is not ours to read.

use std::sync::Arc;

use crate::{Applied, Operation, Refusal, Timestamp};

/// An operation's own access policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// The policy, as its writer encoded it.
    pub policy: Arc<[u8]>,
    /// The operation's revision that set it: what a writer must have read.
    pub etag: u64,
}

/// Gives an operation another policy of its own. `expected` is the etag of the policy that its writer read, 0
/// for none; `None` does not care.
///
/// Refused with [`Refusal::PolicyChanged`] when another one was set since.
pub fn set_grants(
    operation: &Operation,
    policy: Arc<[u8]>,
    expected: Option<u64>,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let current = operation.grants.as_ref().map_or(0, |grants| grants.etag);
    if expected.is_some_and(|expected| expected != current) {
        return Err(Refusal::PolicyChanged);
    }
    let mut operation = operation.clone();
    operation.revision += 1;
    operation.update_time = now;
    operation.grants = Some(Grants { policy, etag: operation.revision });
    Ok(Applied { operation, events: Vec::new(), forget: false })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{OperationName, Payload, Policy, RequestId, Start, start};

    fn operation() -> Operation {
        let nothing = Payload { type_name: "".into(), value: Arc::from([]) };
        let now = Timestamp::from_micros(0);
        let request_id = RequestId { value: "r".into(), until: now + Duration::from_secs(1) };
        let start_of = Start {
            name: OperationName::parse("operations/a").unwrap(),
            uid: 1,
            api: "a".into(),
            method: "m".into(),
            queue: "q".into(),
            parent: "".into(),
            target: "".into(),
            actor: "".into(),
            request: nothing.clone(),
            metadata: nothing,
            traceparent: "".into(),
            parent_operation: None,
            deadline: None,
            start_by: None,
            request_id: Some(request_id),
            policy: Policy::default(),
        };
        start(None, start_of, now).unwrap().operation
    }

    #[test]
    fn a_policy_is_set_by_whoever_read_the_one_before() {
        let now = Timestamp::from_micros(1);
        let first = set_grants(&operation(), Arc::from([1]), Some(0), now).unwrap().operation;
        let etag = first.grants.as_ref().unwrap().etag;
        assert_eq!(etag, first.revision);
        let late = set_grants(&first, Arc::from([2]), Some(0), now);
        assert_eq!(late, Err(Refusal::PolicyChanged));
        let second = set_grants(&first, Arc::from([2]), Some(etag), now).unwrap().operation;
        assert!(second.grants.as_ref().unwrap().etag > etag);
        let careless = set_grants(&second, Arc::from([3]), None, now).unwrap().operation;
        assert_eq!(&*careless.grants.unwrap().policy, [3]);
    }
}
