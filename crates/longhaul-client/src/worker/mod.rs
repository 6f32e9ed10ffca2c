//! Doing the work that Longhaul hands out.
//!
//! A [`Worker`] claims operations, runs a [`Handler`] for each, keeps their leases alive beside the
//! handlers, tells a handler when its work is no longer wanted, and reports how it ended. It owns no
//! rule about operations: the server's row decides, and everything here only asks and obeys.
//!
//! ```no_run
//! use longhaul_client::worker::{
//!     Any, Assignment, Context, Effects, Error, Grpc, Handler, Options, Unfinished, Worker,
//! };
//! use tokio_util::sync::CancellationToken;
//!
//! struct Import;
//!
//! #[async_trait::async_trait]
//! impl Handler for Import {
//!     async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished> {
//!         for book in 0..100 {
//!             tokio::select! {
//!                 () = context.cancelled() => return Err(Unfinished::stopped(Effects::Partial)),
//!                 () = import(book) => {}
//!             }
//!         }
//!         Ok(Any { type_url: format!("type.googleapis.com/{}", assignment.response_type), value: vec![] })
//!     }
//! }
//!
//! async fn import(_book: u32) {}
//!
//! # async fn example() -> Result<(), Error> {
//! let link = Grpc::connect("http://127.0.0.1:7151")?;
//! let options = Options { methods: vec!["library.v1.Library.ImportBooks".into()], ..Options::default() };
//! Worker::new(options, link, Import)?.run(CancellationToken::new()).await
//! # }
//! ```
//!
//! Rooms: `session` takes work and hears wishes over one stream, `claim` and `hear` do the same by calls
//! where the server offers no sessions; `supervise` runs one handler, `send` carries what handlers say
//! (by `lane` over a session), `live` is one operation being worked on, `link` is the way to the server.

mod builder;
mod claim;
mod context;
mod handler;
mod hear;
mod lane;
mod link;
mod live;
mod send;
mod session;
mod supervise;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

pub use builder::Builder;
pub use context::{Cancellation, Context, ReportError, Why};
pub use handler::{Handler, Unfinished};
pub use link::{Answers, Grpc, Link};
pub use longhaul_wire::v1::{Assignment, Effects, Failure, Progress, Stopped};
pub use prost_types::Any;

use lane::Lane;
use live::Live;

/// Most operations that one worker runs at once; what one process can renew comfortably.
pub const SLOTS_MAX: usize = 65_536;
/// How long an aborted handler may take to be gone.
const ABORT_TIME: Duration = Duration::from_secs(1);

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who it is, in its own words, 1 to 256 bytes, such as "host-7/4711".
    pub name: String,
    /// Full names of the methods it serves, such as `google.cloud.deploy.v1.CloudDeploy.CreateRelease`.
    /// Empty: any.
    pub methods: Vec<String>,
    /// Names of the queues it serves. Empty: any.
    pub queues: Vec<String>,
    /// Most operations at once, 1 to [`SLOTS_MAX`].
    pub slots: usize,
    /// How long the server waits for a silent worker before it gives its operations away, 1 s to 1 h.
    /// Leases are renewed five times as often.
    pub lease: Duration,
    /// Works over one stream where the server offers that. Otherwise, and on a way to the server that
    /// carries no streams, `false` here: by claims and hanging reports.
    pub sessions: bool,
    /// How long handlers may go on after a shutdown before they are told to stop.
    pub drain: Duration,
    /// How long a handler that is told that its work is not wanted any more (lease lost, deleted,
    /// worker shutting down) may take to return before it is dropped.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: format!("longhaul-client/{}", std::process::id()),
            methods: Vec::new(),
            queues: Vec::new(),
            slots: 100,
            lease: Duration::from_secs(30),
            sessions: true,
            drain: Duration::ZERO,
            grace: Duration::from_secs(5),
        }
    }
}

impl Options {
    /// The longest time without renewing. A renewal is known to have worked only when its hanging answer
    /// comes, so this must be well below half of what the lease leaves.
    fn renew_every(&self) -> Duration {
        self.lease / 5
    }

    /// How long a claim hangs. The lease may begin at any moment of it, so it must leave most of one.
    fn claim_wait(&self) -> Duration {
        (self.lease / 3).min(Duration::from_secs(20))
    }

    /// How long before the lease ends a handler is told, so that it has stopped by then.
    fn margin(&self) -> Duration {
        self.lease / 6
    }

    /// How long a call may take beyond what it hangs on purpose.
    fn call_timeout(&self) -> Duration {
        (self.lease / 6).clamp(Duration::from_millis(500), Duration::from_secs(10))
    }
}

/// Why a worker ended other than by its shutdown.
#[derive(Debug)]
pub enum Error {
    /// The options or the server's URL are wrong.
    InvalidArgument(String),
    /// The server refuses this worker's claims for good.
    Refused(Box<tonic::Status>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidArgument(message) => f.write_str(message),
            Self::Refused(status) => {
                write!(
                    f,
                    "the server refuses to give work: {} ({:?})",
                    status.message(),
                    status.code()
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// A worker: options, a way to the server, and what to do.
pub struct Worker {
    options: Options,
    link: Arc<dyn Link>,
    handler: Arc<dyn Handler>,
}

/// What the tasks of one worker share.
struct Shared {
    options: Options,
    link: Arc<dyn Link>,
    handler: Arc<dyn Handler>,
    /// What is being worked on, by name and epoch.
    book: Mutex<HashMap<(String, u64), Arc<Live>>>,
    /// Operations with something to report; each at most once.
    dirty: mpsc::UnboundedSender<Arc<Live>>,
    /// Operations newly claimed, to be listened for.
    fresh: mpsc::UnboundedSender<Arc<Live>>,
    /// The way out of the session; `None` while there is none.
    lane: Mutex<Option<Lane>>,
    /// Handlers are dropped now.
    stop_now: CancellationToken,
}

/// Ends a task together with its owner.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Worker {
    /// A worker that does not run yet. Fails when an option is out of its range.
    pub fn new(options: Options, link: impl Link, handler: impl Handler) -> Result<Self, Error> {
        let wrong = |message: String| Err(Error::InvalidArgument(message));
        if options.name.is_empty() || options.name.len() > 256 {
            return wrong(format!("worker name {:?} must have 1 to 256 bytes", options.name));
        }
        if !(1..=SLOTS_MAX).contains(&options.slots) {
            return wrong(format!("{} slots; 1 to {SLOTS_MAX} are possible", options.slots));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&options.lease) {
            return wrong(format!("a lease of {:?}; 1 s to 1 h are possible", options.lease));
        }
        Ok(Self { options, link: Arc::new(link), handler: Arc::new(handler) })
    }

    /// Claims and works until `shutdown` fires or the server refuses for good; then lets handlers finish
    /// for as long as the options say, gives back what is left, and returns. Dropping the future drops
    /// the handlers, too; their leases then run out.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let (dirty, dirty_queue) = mpsc::unbounded_channel();
        let (fresh, fresh_queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            options: self.options,
            link: self.link,
            handler: self.handler,
            book: Mutex::new(HashMap::new()),
            dirty,
            fresh,
            lane: Mutex::new(None),
            stop_now: CancellationToken::new(),
        });
        let _handlers = shared.stop_now.clone().drop_guard();
        let _sender =
            AbortOnDrop(tokio::spawn(send::run(shared.clone(), dirty_queue)).abort_handle());
        let slots = Arc::new(Semaphore::new(shared.options.slots));
        let mut session = shared.options.sessions.then(|| session::start(&shared, &slots));
        let ended = match &mut session {
            Some(session) => tokio::select! {
                biased;
                () = shutdown.cancelled() => session::Ended::Closed,
                ended = session.ended() => ended,
            },
            None => session::Ended::NotOffered,
        };
        let mut _hearer = None;
        let worked = match ended {
            session::Ended::Closed => Ok(()),
            session::Ended::Refused(status) => Err(Error::Refused(Box::new(status))),
            session::Ended::NotOffered => {
                shared.listen_for_all();
                let hearer = tokio::spawn(hear::run(shared.clone(), fresh_queue));
                _hearer = Some(AbortOnDrop(hearer.abort_handle()));
                claim::run(&shared, &slots, &shutdown).await
            }
        };
        if let Some(session) = &session {
            session.take_no_more();
        }
        drain(&shared, &slots).await;
        if let Some(session) = session {
            session.close().await;
        }
        worked
    }
}

impl Shared {
    /// Puts an operation in line for a report.
    fn report(&self, live: &Arc<Live>) {
        // The receiver ends only together with the worker; nobody reads reports then.
        let _ = self.dirty.send(live.clone());
    }

    /// Puts everything being worked on in line to be listened for.
    fn listen_for_all(&self) {
        for live in self.book.lock().values() {
            // As above.
            let _ = self.fresh.send(live.clone());
        }
    }
}

/// Lets handlers finish, then tells them to stop, then drops them; returns when none is left.
async fn drain(shared: &Shared, slots: &Semaphore) {
    let all = u32::try_from(shared.options.slots).unwrap_or(u32::MAX);
    let idle = |limit: Duration| async move {
        tokio::time::timeout(limit, slots.acquire_many(all)).await.is_ok()
    };
    if idle(shared.options.drain).await {
        return;
    }
    let running: Vec<_> = shared.book.lock().values().cloned().collect();
    for live in running {
        live.tell(Cancellation::new(Why::WorkerShutdown));
    }
    if idle(shared.options.grace).await {
        return;
    }
    shared.stop_now.cancel();
    if !idle(ABORT_TIME + shared.options.call_timeout()).await {
        tracing::warn!("the worker ends although some handlers do not");
    }
}

#[cfg(test)]
mod tests;
