//! Who calls, and whether they may: the one place that every call passes before anything is done for it.
//!
//! Owns the order (path and method known, then [`Server::identify`], then [`Server::authorise`], then
//! syntax, existence and state) and the seam for those who record and count calls, [`Oversight`]. The rules
//! are `longhaul-auth`'s.

mod class;
mod made;
mod wanted;

use std::any::Any;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, header};
use longhaul_auth::refusal::{self, Asked};
use longhaul_auth::{Identity, Mode};
use longhaul_core::{Error, Timestamp};
use longhaul_wire::api::{Api, Method, MethodKind};
use longhaul_wire::settings::OperationsVerb;

use crate::Server;
pub use crate::access::class::Class;
pub use crate::access::made::{CancelCame, Facts, Made};
pub use crate::access::wanted::Wanted;
use crate::call::Caller;
use crate::tls::Peer;

/// Who a connection's client certificate belongs to. The listener puts it into the extensions of each request
/// of such a connection.
#[derive(Clone, Debug)]
pub struct CertificateIdentity(pub Arc<Identity>);

/// What a server checks callers with.
pub(crate) struct Access {
    mode: Mode,
    anonymous: Arc<Identity>,
    oversight: Arc<[Arc<dyn Oversight>]>,
    calls: AtomicU64,
}

impl Access {
    pub(crate) fn new(mode: Mode, oversight: Vec<Arc<dyn Oversight>>) -> Self {
        let anonymous = Arc::new(Identity::anonymous());
        Self { mode, anonymous, oversight: oversight.into(), calls: AtomicU64::new(1) }
    }

    /// Whether anybody wants to know what a call is about.
    pub(crate) fn asks(&self) -> bool {
        self.mode != Mode::Off || self.is_overseen()
    }

    /// Whether anybody records or counts calls.
    pub(crate) fn is_overseen(&self) -> bool {
        !self.oversight.is_empty()
    }
}

/// What a call comes with to say who makes it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Credentials<'a> {
    /// `Authorization`, as it came.
    pub authorization: Option<&'a [u8]>,
    /// `access_token` or `oauth_token` of an HTTP call's query.
    pub query_token: Option<&'a str>,
    /// Who the connection's client certificate belongs to.
    pub certificate: Option<&'a Arc<Identity>>,
}

impl<'a> Credentials<'a> {
    /// Those of a request, the query apart.
    pub(crate) fn of(headers: &'a HeaderMap, extensions: &'a http::Extensions) -> Self {
        Self {
            authorization: headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes),
            query_token: None,
            certificate: extensions.get::<CertificateIdentity>().map(|found| &found.0),
        }
    }
}

/// One permission that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Such as `clouddeploy.operations.cancel`.
    pub permission: String,
    /// Whether the caller has it.
    pub granted: bool,
}

/// What was decided about one call.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Who calls.
    pub identity: Arc<Identity>,
    /// The API's host, such as `clouddeploy.googleapis.com`.
    pub service: Arc<str>,
    /// The method.
    pub method: Arc<Method>,
    /// What it is about, such as an operation's name or the parent of a list; may be empty.
    pub resource: String,
    /// The permissions looked at; empty where access control is off.
    pub permissions: Vec<Checked>,
    /// Whether the call goes on.
    pub granted: bool,
    /// When it was decided.
    pub at: Timestamp,
    /// What kind of call it is.
    pub class: Class,
    /// Where it came from.
    pub from: Origin,
    /// Counts calls, from the start of the server.
    pub call: u64,
    /// What it came to, once it has.
    pub made: Made,
}

impl Decision {
    /// Whether [`Self::resource`] is one operation.
    #[must_use]
    pub fn about_operation(&self) -> bool {
        match &self.method.kind {
            MethodKind::Operations(verb) => *verb != OperationsVerb::List,
            MethodKind::Native => {
                matches!(self.method.name(), "Describe" | "Explain" | "Cancel" | "Detach")
            }
            MethodKind::Start(_) | MethodKind::Other => false,
        }
    }
}

/// Where a call came from. Nothing is kept unless somebody records or counts calls.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The other end of the connection.
    pub address: Option<IpAddr>,
    /// The program, as it says.
    pub agent: Arc<str>,
}

/// Whoever records or counts calls: audit, fair shares.
///
/// Called on the way of every call, so it must be quick; it may be called from many threads at once.
pub trait Oversight: Send + Sync {
    /// Hears each decision, grants and refusals alike, before anything is done for the call. An error refuses
    /// a call that was granted (over its share, record not kept) and is its answer; for a call that is refused
    /// anyway it changes nothing. What is returned is dropped when the call is over.
    fn decided(&self, decision: &Decision) -> Result<Option<Box<dyn Any + Send + Sync>>, Error>;

    /// Hears of a granted call whose whole request has come, just before anything is done for it; streams
    /// apart. May take its time; `None` when there is nothing to wait for. An error is the call's answer.
    fn begin<'a>(&'a self, _decision: &'a Decision) -> Option<Beginning<'a>> {
        None
    }

    /// Whether the call is carried out even when its caller leaves meanwhile, so that its end is heard.
    fn must_hear(&self, _decision: &Decision) -> bool {
        false
    }

    /// Hears how a granted call ended, before its answer is sent. A stream or a held call ends late.
    fn answered(&self, decision: &Decision, answer: Result<(), &Error>);
}

/// What a call waits for before anything is done for it.
pub type Beginning<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// A call that may go on. Only [`Server::authorise`] makes one.
pub struct Granted {
    /// What was decided.
    pub decision: Arc<Decision>,
    oversight: Arc<[Arc<dyn Oversight>]>,
    _passes: Vec<Box<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Granted").field("decision", &self.decision).finish_non_exhaustive()
    }
}

impl Granted {
    /// Asks those who watch whether it may begin.
    pub(crate) async fn begin(&self) -> Result<(), Error> {
        for one in self.oversight.iter() {
            if let Some(beginning) = one.begin(&self.decision) {
                beginning.await?;
            }
        }
        Ok(())
    }

    /// Whether it is carried out even when its caller leaves.
    pub(crate) fn must_hear(&self) -> bool {
        self.oversight.iter().any(|one| one.must_hear(&self.decision))
    }

    /// Tells those who watch how it ended.
    pub(crate) fn end<T>(self, answer: Result<T, Error>) -> Result<T, Error> {
        for one in self.oversight.iter() {
            one.answered(&self.decision, answer.as_ref().map(|_| ()));
        }
        answer
    }
}

impl Server {
    /// Where a request came from, if anybody wants to know.
    pub(crate) fn origin(&self, headers: &HeaderMap, extensions: &http::Extensions) -> Origin {
        if !self.access.is_overseen() {
            return Origin::default();
        }
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        Origin {
            address: extensions.get::<Arc<Peer>>().map(|peer| peer.address.ip()),
            agent: agent.unwrap_or_default().into(),
        }
    }

    /// Who calls. Fails with one of the reasons of code `UNAUTHENTICATED`.
    ///
    /// `api` and `method` are those meant, as far as is known; errors name them.
    pub(crate) fn identify(
        &self,
        api: Option<&Api>,
        method: &Method,
        credentials: Credentials<'_>,
    ) -> Result<Arc<Identity>, Error> {
        let access = &self.access;
        if access.mode == Mode::Off {
            return Ok(access.anonymous.clone());
        }
        let service = api.map_or(crate::call::DOMAIN, |api| api.name());
        let asked = Asked { service, method: &method.full_name };
        if let Some(certificate) =
            credentials.certificate.filter(|_| access.mode.needs_certificates())
        {
            return Ok(certificate.clone());
        }
        if credentials.authorization.is_some() || credentials.query_token.is_some() {
            return Err(refusal::credentials_invalid(
                asked,
                "no key to check tokens with is configured",
            ));
        }
        Err(refusal::credentials_missing(asked))
    }

    /// Whether the caller may do what is wanted. Fails with `ACCESS_TOKEN_SCOPE_INSUFFICIENT` or
    /// `IAM_PERMISSION_DENIED`, whether or not the resource exists, or as [`Oversight::decided`] says.
    pub(crate) async fn authorise(
        &self,
        wanted: Wanted,
        caller: &Caller,
    ) -> Result<Granted, Error> {
        let service =
            wanted.api.as_ref().map_or(crate::call::DOMAIN.into(), |api| api.name().clone());
        let refused = match self.access.mode {
            Mode::Off => None,
            Mode::Local | Mode::Jwt | Mode::Mtls | Mode::JwtAndMtls => Some(
                refusal::permission_denied(&service, &wanted.method.full_name, &wanted.resource),
            ),
        };
        let class = Class::of(&wanted.method);
        let kept = class.changes() && self.access.is_overseen();
        let decision = Arc::new(Decision {
            identity: caller.identity.clone(),
            service,
            method: wanted.method,
            resource: wanted.resource,
            permissions: Vec::new(),
            granted: refused.is_none(),
            at: self.clock.now(),
            class,
            from: caller.from.clone(),
            call: self.access.calls.fetch_add(1, Ordering::Relaxed),
            made: if kept { Made::wanted() } else { Made::default() },
        });
        let mut passes = Vec::new();
        for one in self.access.oversight.iter() {
            let heard = one.decided(&decision);
            if decision.granted {
                passes.extend(heard?);
            }
        }
        match refused {
            Some(error) => Err(error),
            None => {
                Ok(Granted { decision, oversight: self.access.oversight.clone(), _passes: passes })
            }
        }
    }
}
