//! The way to the server: two calls and a stream, over gRPC or, in tests, over nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use longhaul_wire::v1::workers_client::WorkersClient;
use longhaul_wire::v1::{
    ClaimRequest, ClaimResponse, ReportRequest, ReportResponse, SessionRequest, SessionResponse,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::Error;
use crate::{Credentials, Token, channel};

/// Largest answer that is read, in bytes: a thousand assignments with large requests fit.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What the server says in one session; an error or the end is the end of the session.
pub type Answers = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

/// A way to a server of longhaul.v1.Workers. Calls may be dropped at any moment.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Takes waiting operations. Source: longhaul/v1/workers.proto, Claim.
    async fn claim(
        &self,
        request: ClaimRequest,
        timeout: Duration,
    ) -> Result<ClaimResponse, Status>;

    /// Says how operations go and hears what is wanted. Source: longhaul/v1/workers.proto, Report.
    async fn report(
        &self,
        request: ReportRequest,
        timeout: Duration,
    ) -> Result<ReportResponse, Status>;

    /// Opens a session that sends what `requests` yields; its end is the end of the worker's side.
    /// `UNIMPLEMENTED`: there are none, and the worker claims and reports instead.
    /// Source: longhaul/v1/workers.proto, Session.
    async fn session(&self, _requests: mpsc::Receiver<SessionRequest>) -> Result<Answers, Status> {
        Err(Status::unimplemented("this link has no sessions"))
    }
}

/// The link over gRPC.
#[derive(Clone, Debug)]
pub struct Grpc {
    client: WorkersClient<Channel>,
    /// Where to connect anew; `None` for a channel that the caller made.
    endpoint: Option<Endpoint>,
    token: Option<Token>,
    /// The server has answered a call of ours.
    known: Arc<AtomicBool>,
}

impl Grpc {
    /// A link to the server at `url`, such as `http://127.0.0.1:7151`. Connects when first used, and again
    /// whenever the connection is lost. Must be called within a Tokio runtime.
    pub fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, &Credentials::default())
    }

    /// As [`Grpc::connect`], showing and trusting what `credentials` say.
    pub fn connect_with(url: &str, credentials: &Credentials) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::InvalidArgument(format!(
                "worker URL {url:?} {why}; give one such as http://127.0.0.1:7151"
            ))
        };
        let endpoint = channel::endpoint(url, credentials).map_err(wrong)?;
        let link = Self::over(endpoint.connect_lazy());
        Ok(Self { endpoint: Some(endpoint), token: credentials.token.clone(), ..link })
    }

    /// A link over a channel that the caller made.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self { client: client(channel), endpoint: None, token: None, known: Arc::default() }
    }

    /// Sends this bearer token with every call.
    pub fn with_token(mut self, token: &str) -> Result<Self, Error> {
        let token = Token::fixed(token);
        self.token = Some(token.map_err(|error| Error::InvalidArgument(error.to_string()))?);
        Ok(self)
    }

    async fn request<M>(
        &self,
        message: M,
        timeout: Option<Duration>,
    ) -> Result<Request<M>, Status> {
        channel::request(message, timeout, self.token.as_ref()).await
    }

    /// A token that was good and is refused now has expired; where the next one comes by itself, the
    /// refusal is not for good.
    fn judge<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        match answer {
            Ok(answer) => {
                self.known.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(status)
                if status.code() == Code::Unauthenticated
                    && self.known.load(Ordering::Relaxed)
                    && self.token.as_ref().is_some_and(Token::renews) =>
            {
                tracing::warn!(%status, "the token is not accepted any more; waiting for another");
                Err(Status::unavailable(status.message()))
            }
            Err(status) => Err(status),
        }
    }
}

#[async_trait]
impl Link for Grpc {
    async fn claim(
        &self,
        request: ClaimRequest,
        timeout: Duration,
    ) -> Result<ClaimResponse, Status> {
        let request = self.request(request, Some(timeout)).await?;
        Ok(self.judge(self.client.clone().claim(request).await)?.into_inner())
    }

    async fn report(
        &self,
        request: ReportRequest,
        timeout: Duration,
    ) -> Result<ReportResponse, Status> {
        let request = self.request(request, Some(timeout)).await?;
        Ok(self.judge(self.client.clone().report(request).await)?.into_inner())
    }

    /// Over a connection of its own: when a session went silent, the connection is not trusted again.
    async fn session(&self, requests: mpsc::Receiver<SessionRequest>) -> Result<Answers, Status> {
        let mut client = match &self.endpoint {
            Some(endpoint) => {
                let channel = endpoint.connect().await;
                client(channel.map_err(|error| Status::unavailable(error.to_string()))?)
            }
            None => self.client.clone(),
        };
        let request = self.request(ReceiverStream::new(requests), None).await?;
        Ok(Box::pin(self.judge(client.session(request).await)?.into_inner()))
    }
}

fn client(channel: Channel) -> WorkersClient<Channel> {
    WorkersClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Whether the same call would be refused again, however often it is repeated.
pub(super) fn permanent(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}

/// One call with a limit of our own: a link that never answers is a lost one.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Growing pauses between tries, each cut by chance so that workers do not come back in step.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The pause before the next try.
    pub(super) fn pause(&mut self) -> Duration {
        use std::hash::{BuildHasher, Hasher};
        let chance = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let pause = self.next.mul_f64(0.5 + (chance % 1024) as f64 / 2048.0);
        self.next = (self.next * 2).min(Self::LONGEST);
        pause
    }
}

/// A span as the protocol writes it.
pub(super) fn to_wire(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default(),
    }
}
