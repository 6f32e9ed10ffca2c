//! Workers made of closures over prost messages.
//!
//! Owns which closure serves which method, and the decoding and encoding around it; refuses to own
//! anything about leases and reports.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;

use super::{Any, Assignment, Context, Error, Grpc, Handler, Link, Options};
use super::{Stopped, Unfinished, Worker};
use crate::Credentials;

type Doing<T> = Pin<Box<dyn Future<Output = Result<T, Unfinished>> + Send>>;
type Do<T> = Box<dyn Fn(Assignment, Context) -> Doing<T> + Send + Sync>;

/// Collects what a worker does. Made by [`Worker::builder`].
///
/// ```no_run
/// use longhaul_client::worker::{Context, Effects, Error, Worker};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example() -> Result<(), Error> {
/// let worker = Worker::builder("http://127.0.0.1:7151")
///     .name("host-7")
///     .slots(50)
///     .handle("library.v1.Library.ImportBooks", |books: u64, cx: Context| async move {
///         for _ in 0..books {
///             tokio::select! {
///                 () = cx.cancelled() => return Err(cx.cancelled_with(Effects::Partial, "half-way")),
///                 () = tokio::task::yield_now() => {}
///             }
///         }
///         Ok(books)
///     })
///     .build()?;
/// worker.run(CancellationToken::new()).await
/// # }
/// ```
pub struct Builder {
    url: String,
    credentials: Credentials,
    options: Options,
    methods: Methods,
    twice: Option<String>,
}

/// The handler that picks a closure by method.
#[derive(Default)]
struct Methods {
    run: HashMap<String, Do<Any>>,
    clean_up: HashMap<String, Do<Stopped>>,
}

impl Worker {
    /// Starts a worker made of closures, for the server at `url`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            credentials: Credentials::default(),
            options: Options::default(),
            methods: Methods::default(),
            twice: None,
        }
    }
}

impl Builder {
    /// What the worker shows to the server, and which servers it believes.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Who the worker is, as in [`Options::name`].
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Most operations at once.
    #[must_use]
    pub fn slots(mut self, slots: usize) -> Self {
        self.options.slots = slots;
        self
    }

    /// How long the server waits for a silent worker, as in [`Options::lease`].
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self
    }

    /// Serves one method, by its full name. A request that is not a `Req` fails with code 3; the
    /// response must be of the type that the method declares.
    #[must_use]
    pub fn handle<Req, Resp, F, R>(mut self, method: &str, work: F) -> Self
    where
        Req: Message + Default + 'static,
        Resp: Message + 'static,
        F: Fn(Req, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Resp, Unfinished>> + Send + 'static,
    {
        let run: Do<Any> = Box::new(move |assignment, context| {
            let doing = decode(&assignment).map(|request| work(request, context));
            Box::pin(async move {
                let value = doing?.await?.encode_to_vec();
                let type_url = format!("type.googleapis.com/{}", assignment.response_type);
                Ok(Any { type_url, value })
            })
        });
        if self.methods.run.insert(method.to_owned(), run).is_some() {
            self.twice = Some(method.to_owned());
        }
        self
    }

    /// Cleans up after attempts of one method; nobody cancels it. [`Context::earlier_ref`] says what
    /// the attempt had started outside.
    #[must_use]
    pub fn cleanup<Req, F, R>(mut self, method: &str, work: F) -> Self
    where
        Req: Message + Default + 'static,
        F: Fn(Req, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Stopped, Unfinished>> + Send + 'static,
    {
        let clean: Do<Stopped> = Box::new(move |assignment, context| {
            let doing = decode(&assignment).map(|request| work(request, context));
            Box::pin(async move { doing?.await })
        });
        if self.methods.clean_up.insert(method.to_owned(), clean).is_some() {
            self.twice = Some(method.to_owned());
        }
        self
    }

    /// The worker, which does not run yet. Fails when an option is wrong or a method is given twice.
    pub fn build(self) -> Result<Worker, Error> {
        let link = Grpc::connect_with(&self.url, &self.credentials)?;
        self.build_on(link)
    }

    /// As [`Builder::build`], over another way to the server than the URL.
    pub fn build_on(mut self, link: impl Link) -> Result<Worker, Error> {
        self.check()?;
        self.options.methods = self.methods.run.keys().cloned().collect();
        self.options.methods.sort();
        Worker::new(self.options, link, self.methods)
    }

    /// Only what the worker does, such as for a test harness. Fails as [`Builder::build`] does when a method
    /// is given twice.
    pub fn into_handler(self) -> Result<impl Handler, Error> {
        self.check()?;
        Ok(self.methods)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::InvalidArgument(message));
        if let Some(method) = &self.twice {
            return wrong(format!("method {method:?} is given twice; give it once"));
        }
        if self.methods.run.is_empty() {
            return wrong("a worker without methods; add one with handle()".to_owned());
        }
        let homeless = self.methods.clean_up.keys().find(|m| !self.methods.run.contains_key(*m));
        if let Some(method) = homeless {
            return wrong(format!("a cleanup of {method:?}, which has no handler; add one"));
        }
        Ok(())
    }
}

fn decode<Req: Message + Default>(assignment: &Assignment) -> Result<Req, Unfinished> {
    let bytes = assignment.request.as_ref().map_or(&[][..], |request| &request.value);
    Req::decode(bytes)
        .map_err(|error| Unfinished::failed(3, format!("the request cannot be read: {error}")))
}

#[async_trait]
impl Handler for Methods {
    async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished> {
        match self.run.get(&assignment.method) {
            Some(run) => run(assignment, context).await,
            None => Err(Unfinished::failed(
                12,
                format!("this worker does not serve {:?}", assignment.method),
            )),
        }
    }

    async fn clean_up(
        &self,
        assignment: Assignment,
        context: Context,
    ) -> Result<Stopped, Unfinished> {
        match self.clean_up.get(&assignment.method) {
            Some(clean_up) => clean_up(assignment, context).await,
            None => Ok(Stopped { effects: super::Effects::Unknown.into(), message: String::new() }),
        }
    }
}
