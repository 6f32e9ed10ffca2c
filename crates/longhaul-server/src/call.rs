//! One call, whichever edge it came in by, and the way to its answer.
//!
//! From here on nobody knows about HTTP or gRPC, except that [`Caller::edge`] decides how an
//! operation's error details may travel.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_auth::{Identity, Secret};
use longhaul_core::{Error, OperationName, Reason, Timestamp};
use longhaul_wire::api::{Api, Method, MethodKind};
use longhaul_wire::convert::Edge;
use longhaul_wire::settings::OperationsVerb;

use crate::Server;
use crate::access::{Granted, Made, Origin, Wanted};

/// The `ErrorInfo.domain` of errors that belong to no API. Source: AIP-193.
pub(crate) const DOMAIN: &str = "longhaul";

/// Who calls, and until when they listen.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who they are, as far as was asked.
    pub identity: Arc<Identity>,
    /// Where from, as far as anybody wants to know.
    pub from: Origin,
    /// The wire the answer travels on.
    pub edge: Edge,
    /// The call's own deadline, if it has one.
    pub deadline: Option<Timestamp>,
    /// W3C trace context; empty when none came.
    pub traceparent: Arc<str>,
    /// The operation that a start names as its parent, as it came.
    pub parent_operation: Option<Arc<str>>,
    /// What a list shows other cells, where there are some: `Authorization`, as it would have come.
    pub authorization: Option<Arc<Secret>>,
    /// Told what the call came to.
    pub made: Made,
}

/// The HTTP header and gRPC metadata by which a start names its parent operation.
pub(crate) const PARENT_OPERATION: &str = "x-longhaul-parent-operation";

/// The parent that a call names, if it does.
pub(crate) fn parent_operation(headers: &http::HeaderMap) -> Option<Arc<str>> {
    let value = headers.get(PARENT_OPERATION)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into())
}

/// One call of one method with its whole request.
#[derive(Debug)]
pub struct Call {
    /// The API meant; `None` for an Operations method that named none: the operation then decides.
    pub api: Option<Arc<Api>>,
    /// The method.
    pub method: Arc<Method>,
    /// The request in binary form.
    pub message: Bytes,
    /// Who calls.
    pub caller: Caller,
    /// That the call may go on, where that was asked before the whole request was read.
    pub granted: Option<Granted>,
}

impl Server {
    /// The answer in binary form. Held calls may take as long as the limits allow; all others are quick.
    pub async fn answer(self: &Arc<Self>, mut call: Call) -> Result<Bytes, Error> {
        let granted = match call.granted.take() {
            Some(granted) => granted,
            None => {
                let wanted = match self.access.asks() {
                    true => Wanted::of_call(&call),
                    false => Wanted::of_method(call.api.as_ref(), &call.method),
                };
                self.authorise(wanted, &call.caller).await?
            }
        };
        granted.begin().await?;
        if !granted.must_hear() {
            return granted.end(self.work(call).await);
        }
        // On a task of its own: what is done is recorded also when the caller leaves meanwhile.
        call.caller.made = granted.decision.made.clone();
        let server = self.clone();
        let ending = self.finishing.spawn(async move { granted.end(server.work(call).await) });
        ending.await.unwrap_or_else(|failure| {
            Err(Error::new(
                Reason::Internal,
                "the call broke off; read the operation before you repeat it",
            )
            .caused_by(failure))
        })
    }

    async fn work(&self, call: Call) -> Result<Bytes, Error> {
        #[cfg(debug_assertions)]
        panic_where_asked(&call);
        let _place = self.admit(&call)?;
        match &call.method.kind {
            MethodKind::Operations(verb) => match verb {
                OperationsVerb::Get => self.operations.get(call).await,
                OperationsVerb::List => self.operations.list(call).await,
                OperationsVerb::Wait => self.operations.wait(call).await,
                OperationsVerb::Cancel => self.operations.cancel(call).await,
                OperationsVerb::Delete => self.operations.delete(call).await,
            },
            MethodKind::Start(start) => self.operations.start(&call, start).await,
            MethodKind::Policy(verb) => self.operations.policy(&call, *verb).await,
            MethodKind::Native if call.method.full_name.starts_with("longhaul.v1.Operators.") => {
                self.operators.answer(&call).await
            }
            MethodKind::Native => self.workers.answer(call).await,
            MethodKind::Other => Err(Error::new(
                Reason::MethodUnimplemented,
                format!(
                    "{} does not start an operation; this server runs operations and keeps no resources, \
                     so only methods that return an operation and the operations themselves are served",
                    call.method.full_name
                ),
            )
            .with("method", call.method.full_name.to_string())),
        }
    }

    /// Takes a place among the calls under way. Held calls have their own limit, and a cancel always
    /// finds a place: it is the last thing to be shed.
    fn admit(&self, call: &Call) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, Error> {
        let exempt = match &call.method.kind {
            MethodKind::Operations(OperationsVerb::Cancel | OperationsVerb::Wait)
            | MethodKind::Native => true,
            MethodKind::Operations(
                OperationsVerb::Get | OperationsVerb::List | OperationsVerb::Delete,
            )
            | MethodKind::Start(_)
            | MethodKind::Policy(_)
            | MethodKind::Other => false,
        };
        if exempt {
            return Ok(None);
        }
        match self.calls.clone().try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => Err(overloaded("too many calls are under way; repeat this one shortly")),
        }
    }
}

/// Ends a call as a bug of ours would, with all that is known of it: for tests of what a panic tells.
/// `LONGHAUL_PANIC` names the method; only in builds with debug assertions.
#[cfg(debug_assertions)]
fn panic_where_asked(call: &Call) {
    static METHOD: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let method = METHOD.get_or_init(|| std::env::var("LONGHAUL_PANIC").ok());
    assert!(method.as_deref() != Some(&*call.method.full_name), "as was asked: {call:?}");
}

/// The answer at a limit.
pub(crate) fn overloaded(message: &str) -> Error {
    Error::new(Reason::Overloaded, message).retry_after(std::time::Duration::from_secs(1))
}

/// The answer about an operation that does not exist, or not for this caller.
pub(crate) fn not_found(name: &OperationName) -> Error {
    longhaul_core::Refusal::NotFound.into_error(name)
}
