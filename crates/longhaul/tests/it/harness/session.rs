//! A hand-driven session: one stream over a socket of its own, which the test may cut.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use longhaul_wire::v1;
use longhaul_wire::v1::session_request::Request;
use longhaul_wire::v1::workers_client::WorkersClient;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::soon;
use super::view::Failure;
use super::worker::{
    Held, Item, Verdict, held_from_message, item_to_message, verdict_from_message,
};

/// Bytes that the server may send ahead of a worker that does not read; the least that HTTP/2 allows.
const WINDOW_BYTES: u32 = 65_535;

/// What the server said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// New work.
    Assigned(Held),
    /// What is wanted of an operation: name, epoch, all of it.
    Wanted(String, u64, v1::DesiredState),
    /// Everything held has been named.
    Complete,
    /// The answer to the report of this id.
    Answered(u64, Vec<Verdict>),
}

impl Said {
    /// The claim, if it is new work.
    pub fn assigned(&self) -> Option<Held> {
        if let Self::Assigned(held) = self { Some(held.clone()) } else { None }
    }
}

/// An open session.
pub struct Session {
    requests: Option<mpsc::Sender<v1::SessionRequest>>,
    answers: tonic::Streaming<v1::SessionResponse>,
    said: VecDeque<Said>,
    socket: std::net::TcpStream,
    reports: u64,
}

/// The request that opens a session of a worker called `worker`.
pub fn open(worker: &str, slots: u32) -> v1::SessionOpen {
    v1::SessionOpen { worker: worker.into(), slots, ..Default::default() }
}

impl Session {
    /// Connects, and sends these requests first.
    pub async fn begin(address: SocketAddr, first: Vec<Request>) -> Self {
        Self::try_begin(address, first).await.expect("a session is answered")
    }

    async fn try_begin(address: SocketAddr, first: Vec<Request>) -> Result<Self, Failure> {
        let begun = Self::begin_as(address, first, None).await;
        begun.map_err(|failure| Failure::unreachable(&failure.message))
    }

    /// The same with a token; whatever the server says to that is the failure.
    pub async fn begin_as(
        address: SocketAddr,
        first: Vec<Request>,
        token: Option<&str>,
    ) -> Result<Self, Failure> {
        let (client, socket) = connect(address).await;
        let (requests, receiver) = mpsc::channel(1);
        let sending = requests.clone();
        tokio::spawn(async move {
            for request in first {
                // The server may have refused the one before.
                let _ = sending.send(v1::SessionRequest { request: Some(request) }).await;
            }
        });
        let mut client =
            client.max_decoding_message_size(4 << 20).max_encoding_message_size(64 << 20);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        if let Some(token) = token {
            let header = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", header);
        }
        let answers = soon("a session", client.session(request)).await;
        let answers = answers.map_err(|status| Failure::from_status(&status))?.into_inner();
        Ok(Self { requests: Some(requests), answers, said: VecDeque::new(), socket, reports: 0 })
    }

    /// Opens a session and gives everything that is said before anything may be new.
    pub async fn open(address: SocketAddr, open: v1::SessionOpen) -> (Self, Vec<Said>) {
        let mut session = Self::begin(address, vec![Request::Open(open)]).await;
        let mut first = Vec::new();
        loop {
            match session.next().await {
                Said::Complete => return (session, first),
                said @ (Said::Assigned(_) | Said::Wanted(..) | Said::Answered(..)) => {
                    first.push(said)
                }
            }
        }
    }

    /// The same of a server that may end meanwhile; holds nothing.
    pub async fn try_open(address: SocketAddr, open: v1::SessionOpen) -> Result<Self, Failure> {
        let mut session = Self::try_begin(address, vec![Request::Open(open)]).await?;
        match session.try_next_said().await? {
            Said::Complete => Ok(session),
            said @ (Said::Assigned(_) | Said::Wanted(..) | Said::Answered(..)) => {
                panic!("{said:?} came first")
            }
        }
    }

    /// The first assignment, from a server that may end meanwhile.
    pub async fn try_assigned(&mut self) -> Result<Held, Failure> {
        loop {
            if let Some(held) = self.try_next_said().await?.assigned() {
                return Ok(held);
            }
        }
    }

    /// The first wish, from a server that may end meanwhile.
    pub async fn try_wanted(&mut self) -> Result<v1::DesiredState, Failure> {
        loop {
            if let Said::Wanted(_, _, desired) = self.try_next_said().await? {
                return Ok(desired);
            }
        }
    }

    async fn try_next_said(&mut self) -> Result<Said, Failure> {
        let said = self.try_next().await.map_err(|failure| match failure.reason.is_empty() {
            true => Failure::unreachable(&failure.message),
            false => failure,
        })?;
        said.ok_or_else(|| Failure::unreachable("the session has ended"))
    }

    /// The next thing said; `None` at an orderly end.
    pub async fn try_next(&mut self) -> Result<Option<Said>, Failure> {
        while self.said.is_empty() {
            let response = soon("something of a session", self.answers.message()).await;
            match response.map_err(|status| Failure::from_status(&status))? {
                Some(response) => self.take(response),
                None => return Ok(None),
            }
        }
        Ok(self.said.pop_front())
    }

    /// The next thing said, which must come.
    pub async fn next(&mut self) -> Said {
        self.try_next().await.expect("the session goes on").expect("the session goes on")
    }

    /// The first thing said that `wanted` gives something for; what else is said stays in line.
    pub async fn find<T>(&mut self, mut wanted: impl FnMut(&Said) -> Option<T>) -> T {
        let mut passed = VecDeque::new();
        loop {
            let said = self.next().await;
            if let Some(found) = wanted(&said) {
                passed.append(&mut self.said);
                self.said = passed;
                return found;
            }
            passed.push_back(said);
        }
    }

    /// The assignment of this operation.
    pub async fn assigned(&mut self, operation: &str) -> Held {
        self.find(|said| said.assigned().filter(|held| held.operation == operation)).await
    }

    /// Some assignment.
    pub async fn assigned_any(&mut self) -> Held {
        self.find(Said::assigned).await
    }

    /// What is newly wanted of a claim.
    pub async fn wanted(&mut self, held: &Held) -> v1::DesiredState {
        self.find(|said| {
            let Said::Wanted(name, epoch, desired) = said else { return None };
            (*name == held.operation && *epoch == held.epoch).then(|| desired.clone())
        })
        .await
    }

    /// Sends a request.
    pub async fn send(&mut self, request: Request) {
        let requests = self.requests.as_ref().expect("it still sends");
        let request = v1::SessionRequest { request: Some(request) };
        // A session that the server has ended takes nothing more; what it says shows that.
        let _ = soon("room for a request", requests.send(request)).await;
    }

    /// Sends a request if there is room for it within `patience`.
    pub async fn send_within(&mut self, request: Request, patience: Duration) -> bool {
        let requests = self.requests.as_ref().expect("it still sends");
        let request = v1::SessionRequest { request: Some(request) };
        tokio::time::timeout(patience, requests.send(request)).await.is_ok()
    }

    /// Sends a report; gives its id.
    pub async fn send_report(&mut self, items: Vec<Item>) -> u64 {
        self.reports += 1;
        let items = items.into_iter().map(item_to_message).collect();
        let id = self.reports;
        self.send(Request::Report(v1::SessionReport { id, items })).await;
        id
    }

    /// Reports one item and says how it was taken.
    pub async fn report(&mut self, item: Item) -> Verdict {
        let id = self.send_report(vec![item]).await;
        let mut verdicts = self
            .find(|said| {
                let Said::Answered(answered, verdicts) = said else { return None };
                (*answered == id).then(|| verdicts.clone())
            })
            .await;
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        verdicts.remove(0)
    }

    /// Says how many operations fit from now on, and waits until the server knows.
    pub async fn slots(&mut self, slots: u32) {
        self.send(Request::Slots(v1::SessionSlots { slots })).await;
        // Requests are taken in their order: an answer to an empty report means that this one was.
        let id = self.send_report(Vec::new()).await;
        self.find(|said| {
            matches!(said, Said::Answered(answered, _) if *answered == id).then_some(())
        })
        .await;
    }

    /// Sends nothing more.
    pub fn close_requests(&mut self) {
        self.requests = None;
    }

    /// Cuts the line: nothing goes either way any more.
    pub fn cut(self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }

    fn take(&mut self, response: v1::SessionResponse) {
        let v1::SessionResponse { assignments, desired, complete, results } = response;
        assert!(desired.len() <= 1000, "{} updates in one answer", desired.len());
        for assignment in assignments {
            self.said.push_back(Said::Assigned(held_from_message(assignment)));
        }
        for update in desired {
            let wanted = update.desired.expect("an update says what is wanted");
            self.said.push_back(Said::Wanted(update.operation, update.epoch, wanted));
        }
        if complete {
            self.said.push_back(Said::Complete);
        }
        if let Some(results) = results {
            let verdicts = results.results.into_iter().map(verdict_from_message).collect();
            self.said.push_back(Said::Answered(results.id, verdicts));
        }
    }
}

/// A client over one socket, and the socket.
async fn connect(address: SocketAddr) -> (WorkersClient<Channel>, std::net::TcpStream) {
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    let line = Line(Arc::new(Mutex::new(Some(stream.try_clone().unwrap()))));
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let channel = endpoint.connect_with_connector(line).await.unwrap();
    (WorkersClient::new(channel), stream)
}

/// Gives out its one socket, once.
#[derive(Clone)]
struct Line(Arc<Mutex<Option<std::net::TcpStream>>>);

impl tonic::codegen::Service<Uri> for Line {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let line = self.0.lock().unwrap().take();
        Box::pin(async move {
            let line = line.ok_or_else(|| io::Error::other("the line was cut"))?;
            Ok(TokioIo::new(TcpStream::from_std(line)?))
        })
    }
}
