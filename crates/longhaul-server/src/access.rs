//! Who calls, and whether they may: the one place that every call passes before anything is done for it.
//!
//! Owns the order (path and method known, then [`Server::identify`], then [`Server::authorise`], then
//! syntax, existence and state) and the seam for those who record and count calls, [`Oversight`]. The rules
//! are `longhaul-auth`'s.

mod certificates;
mod class;
mod made;
mod rules;
mod setup;
mod sources;
mod wanted;

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, header};
use longhaul_auth::policy::Decider;
use longhaul_auth::refusal::{self, Asked};
use longhaul_auth::token::{Fault, Shown, Verifier};
use longhaul_auth::{Identity, Mode, Secret};
use longhaul_core::{Error, Timestamp};
use longhaul_store::Store;
use longhaul_wire::api::{Api, Method, MethodKind};
use longhaul_wire::apis::Apis;
use longhaul_wire::settings::OperationsVerb;

use crate::Server;
use crate::access::certificates::Certificates;
pub use crate::access::class::Class;
pub use crate::access::made::{CancelCame, Facts, Made};
use crate::access::setup::Needs;
pub(crate) use crate::access::sources::Sources;
pub use crate::access::wanted::Wanted;
use crate::call::Caller;
use crate::clock::Clock;
use crate::tls::{ClientCertificate, Peer};

/// What a server checks callers with.
pub struct Access {
    mode: Mode,
    owners_cancel: bool,
    anonymous: Arc<Identity>,
    verifier: Arc<Verifier>,
    decider: Arc<Decider>,
    sources: Arc<Sources>,
    certificates: Certificates,
    needs: HashMap<Arc<str>, Needs, foldhash::fast::RandomState>,
    apis: Arc<Apis>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    oversight: Arc<[Arc<dyn Oversight>]>,
    /// Whether any of them keeps records.
    recorded: bool,
    calls: AtomicU64,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Access {
    /// Whether anybody wants to know what a call is about.
    pub(crate) fn asks(&self) -> bool {
        self.mode != Mode::Off || self.is_overseen()
    }

    /// Whether anybody records or counts calls.
    pub(crate) fn is_overseen(&self) -> bool {
        !self.oversight.is_empty()
    }

    /// Whether callers are asked at all.
    pub(crate) fn is_off(&self) -> bool {
        self.mode == Mode::Off
    }

    /// The permissions that every operation of an API needs for a verb.
    fn all(&self, api: &Api, verb: OperationsVerb) -> &[String] {
        self.needs.get(api.name()).map_or(&[], |needs| &needs.all[verb as usize])
    }

    /// Those that some of them need beside.
    fn further(&self, api: &Api, verb: OperationsVerb) -> &[String] {
        self.needs.get(api.name()).map_or(&[], |needs| &needs.further[verb as usize])
    }

    /// Where keys and policies come from.
    pub(crate) fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }
}

/// What a call comes with to say who makes it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Credentials<'a> {
    /// `Authorization`, as it came.
    pub authorization: Option<&'a [u8]>,
    /// `access_token` or `oauth_token` of an HTTP call's query.
    pub query_token: Option<&'a str>,
    /// The connection's client certificate.
    pub certificate: Option<&'a ClientCertificate>,
    /// The token of the connection's last call.
    pub shown: Option<&'a Shown>,
}

impl<'a> Credentials<'a> {
    /// Those of a request, the query apart.
    pub(crate) fn of(headers: &'a HeaderMap, extensions: &'a http::Extensions) -> Self {
        let peer = extensions.get::<Arc<Peer>>();
        Self {
            authorization: headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes),
            query_token: None,
            certificate: peer.and_then(|peer| peer.certificate.as_deref()),
            shown: peer.map(|peer| &peer.shown),
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
    /// The permissions looked at; empty where access control is off, or nobody keeps records.
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
            MethodKind::Policy(_) => true,
            MethodKind::Native => {
                matches!(self.method.name(), "Describe" | "Explain" | "Cancel" | "Detach")
            }
            MethodKind::Start(_) | MethodKind::Other => false,
        }
    }
}

/// Where a call came from. Nothing is kept unless somebody counts or records calls.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The other end of the connection.
    pub address: Option<IpAddr>,
    /// The program, as it says; empty unless somebody keeps records.
    pub agent: Arc<str>,
}

/// Whoever records or counts calls: audit, fair shares.
///
/// Called on the way of every call, so it must be quick; it may be called from many threads at once.
pub trait Oversight: Send + Sync {
    /// Whether it keeps records of calls. Where nobody does, decisions come without what only records say: the
    /// permissions looked at, and the caller's program.
    fn records(&self) -> bool {
        true
    }

    /// Hears each decision, grants and refusals alike, before anything is done for the call. An error refuses
    /// a call that was granted (over its share, record not kept) and is its answer; for a call that is refused
    /// anyway it changes nothing. What is returned is dropped when the call is over.
    fn decided(&self, decision: &Decision) -> Result<Option<Box<dyn Any + Send + Sync>>, Error>;

    /// Hears of a call whose caller did not prove who it is.
    fn unknown(&self, _asked: Asked<'_>, _from: &Origin, _error: &Error) {}

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
        let agent = headers.get(header::USER_AGENT).filter(|_| self.access.recorded);
        let agent = agent.and_then(|agent| agent.to_str().ok());
        Origin {
            address: extensions.get::<Arc<Peer>>().map(|peer| peer.address.ip()),
            agent: agent.map(Arc::from).unwrap_or_default(),
        }
    }

    /// Who calls. Fails with one of the reasons of code `UNAUTHENTICATED`.
    ///
    /// `api` and `method` are those meant, as far as is known; errors name them.
    pub(crate) async fn identify(
        &self,
        api: Option<&Api>,
        method: &Method,
        credentials: Credentials<'_>,
        from: &Origin,
    ) -> Result<Arc<Identity>, Error> {
        let service = api.map_or(crate::call::DOMAIN, |api| api.name());
        let asked = Asked { service, method: &method.full_name };
        let identified = self.access.identify(asked, credentials).await;
        if let Err(error) = &identified {
            for one in self.access.oversight.iter() {
                one.unknown(asked, from, error);
            }
        }
        identified
    }

    /// What a list shows the servers of other locations; nothing where there are none.
    pub(crate) fn for_cells(&self, credentials: Credentials<'_>) -> Option<Arc<Secret>> {
        if self.operations.cells.is_empty() {
            return None;
        }
        let shown = match (credentials.authorization, credentials.query_token) {
            (Some(header), _) => std::str::from_utf8(header).ok()?.to_owned(),
            (None, Some(token)) => format!("Bearer {token}"),
            (None, None) => return None,
        };
        Some(Arc::new(Secret::new(shown)))
    }

    /// Whether the caller may do what is wanted. Fails with `ACCESS_TOKEN_SCOPE_INSUFFICIENT` or
    /// `IAM_PERMISSION_DENIED`, whether or not the resource exists, or as [`Oversight::decided`] says.
    pub(crate) async fn authorise(
        &self,
        wanted: Wanted,
        caller: &Caller,
    ) -> Result<Granted, Error> {
        let access = &self.access;
        let now = self.clock.now();
        let (permissions, refused) = match access.mode {
            Mode::Off => (Vec::new(), None),
            Mode::Local | Mode::Jwt | Mode::Mtls | Mode::JwtAndMtls => {
                let judged = access.judge(&wanted, caller, now).await?;
                (judged.checked, judged.refused)
            }
        };
        let service = wanted.api.as_ref();
        let class = Class::of(&wanted.method);
        let kept = class.changes() && self.access.is_overseen();
        let decision = Arc::new(Decision {
            identity: caller.identity.clone(),
            service: service.map_or(crate::call::DOMAIN.into(), |api| api.name().clone()),
            method: wanted.method,
            resource: wanted.resource,
            permissions,
            granted: refused.is_none(),
            at: now,
            class,
            from: caller.from.clone(),
            call: self.access.calls.fetch_add(1, Ordering::Relaxed),
            made: if kept { Made::wanted() } else { Made::default() },
        });
        let mut passes = Vec::new();
        for one in access.oversight.iter() {
            let heard = one.decided(&decision);
            if decision.granted {
                passes.extend(heard?);
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(Granted { decision, oversight: access.oversight.clone(), _passes: passes }),
        }
    }
}

impl Access {
    /// Who calls. A token goes before a certificate: whoever shows both speaks for the token's holder.
    pub(crate) async fn identify(
        &self,
        asked: Asked<'_>,
        credentials: Credentials<'_>,
    ) -> Result<Arc<Identity>, Error> {
        if self.mode == Mode::Off {
            return Ok(self.anonymous.clone());
        }
        let certificate = match credentials.certificate {
            Some(certificate) if self.mode.needs_certificates() => {
                Some(self.certificates.identity(certificate))
            }
            Some(_) | None => None,
        };
        if self.mode.needs_certificates() && certificate.is_none() {
            return Err(refusal::credentials_missing(asked));
        }
        let token = match (credentials.authorization, credentials.query_token) {
            (Some(header), _) if self.mode.takes_tokens() => {
                Some(bearer(header).ok_or_else(|| {
                    refusal::credentials_invalid(asked, "the header is not Bearer and a token")
                })?)
            }
            (None, Some(token)) if self.mode.takes_tokens() => Some(token),
            (_, _) => None,
        };
        if let Some(token) = token {
            return self.verified(token, credentials.shown, asked).await;
        }
        let identity = certificate.ok_or_else(|| refusal::credentials_missing(asked))?;
        if identity.expired(self.clock.now()) {
            return Err(refusal::credentials_expired(asked));
        }
        Ok(identity)
    }

    /// Whose token this is, at this moment.
    async fn verified(
        &self,
        token: &str,
        shown: Option<&Shown>,
        asked: Asked<'_>,
    ) -> Result<Arc<Identity>, Error> {
        let now = self.clock.now();
        let mut found = match shown {
            Some(shown) => self.verifier.verify_shown(token, shown, now),
            None => self.verifier.verify(token, now),
        };
        if let Err(Fault::UnknownKey(place)) = found
            && self.sources.refetch(place).await
        {
            found = self.verifier.verify(token, self.clock.now());
        }
        found.map_err(|fault| match fault {
            Fault::Invalid(why) => refusal::credentials_invalid(asked, why),
            Fault::Expired => refusal::credentials_expired(asked),
            Fault::UnknownKey(_) => {
                refusal::credentials_invalid(asked, "the token's issuer has no such key")
            }
        })
    }
}

/// The token of an `Authorization` header. Source: RFC 6750, 2.1; the scheme's case does not count.
fn bearer(header: &[u8]) -> Option<&str> {
    let (scheme, token) = header.split_at_checked("bearer ".len())?;
    let fits = scheme.eq_ignore_ascii_case(b"bearer ");
    Some(std::str::from_utf8(token).ok().filter(|_| fits)?.trim())
}
