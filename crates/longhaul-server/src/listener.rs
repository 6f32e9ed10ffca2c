//! Sockets: accept, bound, serve HTTP/1.1 and HTTP/2 alike, and end in order.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use longhaul_auth::token::Shown;
use longhaul_core::{Error, Reason};
use longhaul_wire::api::Api;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::gather::{Gather, Multiplexed};
use crate::tls::{Peer, Tls};
use crate::{Server, grpc, http as http_edge};

/// Pause after the system refused a connection (too many open files), instead of a busy loop.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// How often an idle HTTP/2 connection is asked whether its other end still lives.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Flow-control windows: a request of the largest size needs no second round trip.
const WINDOW_BYTES: u32 = 4 << 20;

impl Server {
    /// The API that a configuration calls by its name, its prefix or its first label.
    fn find_api(&self, wanted: &str) -> Option<Arc<Api>> {
        let fits = |api: &&Arc<Api>| {
            &**api.name() == wanted || api.prefix() == wanted || api.service_label() == wanted
        };
        self.apis.all().iter().find(fits).cloned()
    }
}

/// One bound address and its accept loop.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    accepting: JoinHandle<GracefulShutdown>,
}

impl Listening {
    /// Takes no more connections and waits for those there are, at most `timeout`.
    pub(crate) async fn stop(self, timeout: Duration) {
        self.stop.cancel();
        let Ok(graceful) = self.accepting.await else { return };
        if tokio::time::timeout(timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!(address = %self.address, "connections were cut: their calls did not end in time");
        }
    }
}

/// Binds every configured address, the main one unless it is bound already; that one comes first.
pub(crate) async fn listen(
    server: &Arc<Server>,
    mut main: Option<TcpListener>,
) -> Result<Vec<Listening>, Error> {
    let room = Arc::new(Semaphore::new(server.config.limits.connections_max));
    let tls = match &server.config.tls {
        Some(config) => Some(Arc::new(Tls::load(config, server.clock.clone())?)),
        None => None,
    };
    let mut wanted = vec![(server.config.listen, None)];
    for listener in &server.config.listeners {
        let api = server.find_api(&listener.api).ok_or_else(|| {
            Error::new(
                Reason::ConfigInvalid,
                format!(
                    "listener {} is for API {:?}, which is not loaded",
                    listener.listen, listener.api
                ),
            )
        })?;
        wanted.push((listener.listen, Some(api)));
    }
    let mut listening = Vec::with_capacity(wanted.len());
    for (address, api) in wanted {
        let stop = CancellationToken::new();
        let (server, room, tls) = (server.clone(), room.clone(), tls.clone());
        let socket = match main.take() {
            Some(socket) => socket,
            None => bind(address).await?,
        };
        listening.push(accept(Accept { server, room, api, tls, stop }, socket)?);
    }
    if let Some(tls) = tls {
        tokio::spawn(tls.keep_fresh(server.draining.clone()));
    }
    Ok(listening)
}

/// Binds an address. Fails with `CONFIG_INVALID`.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| unbound(address, &error))
}

fn unbound(address: SocketAddr, error: &std::io::Error) -> Error {
    Error::new(
        Reason::ConfigInvalid,
        format!(
            "cannot listen on {address}: {error}; free the port or choose another with --port (0 takes any)"
        ),
    )
}

fn accept(accept: Accept, socket: TcpListener) -> Result<Listening, Error> {
    let address = socket.local_addr();
    let address = address.map_err(|error| unbound(accept.server.config.listen, &error))?;
    let stop = accept.stop.clone();
    let accepting = tokio::spawn(accept.run(socket));
    Ok(Listening { address, stop, accepting })
}

struct Accept {
    server: Arc<Server>,
    room: Arc<Semaphore>,
    api: Option<Arc<Api>>,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
}

impl Accept {
    async fn run(self, socket: TcpListener) -> GracefulShutdown {
        let graceful = GracefulShutdown::new();
        loop {
            // A place first: connections over the limit wait in the system's own queue.
            let place = tokio::select! {
                () = self.stop.cancelled() => break,
                place = self.room.clone().acquire_owned() => place,
            };
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.take(stream, from, place, &graceful),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.server.clock.sleep(PAUSE_AFTER_REFUSAL).await;
                }
            }
        }
        graceful
    }

    /// Gives a connection a task of its own, so that a slow handshake keeps nobody else waiting.
    fn take(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        place: OwnedSemaphorePermit,
        graceful: &GracefulShutdown,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let (server, api, watcher) = (self.server.clone(), self.api.clone(), graceful.watcher());
        let mut peer = Peer {
            address: from,
            is_tls: self.tls.is_some(),
            certificate: None,
            shown: Shown::default(),
        };
        let Some(tls) = self.tls.clone() else {
            let serving = serve(server, api, Arc::new(peer), stream, watcher);
            tokio::spawn(async move {
                serving.await;
                drop(place);
            });
            return;
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let shaken = tokio::select! {
                () = stop.cancelled() => None,
                shaken = tls.accept(stream, from) => shaken,
            };
            if let Some(shaken) = shaken {
                peer.certificate = shaken.certificate;
                serve(server, api, Arc::new(peer), shaken.stream, watcher).await;
            }
            drop(place);
        });
    }
}

/// Serves one connection to its end, with or without TLS below it.
fn serve<S>(
    server: Arc<Server>,
    api: Option<Arc<Api>>,
    peer: Arc<Peer>,
    stream: S,
    watcher: Watcher,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &server.config.limits;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.read_timeout)
        .max_buf_size((limits.header_bytes_max as usize).max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection_max)
        .max_header_list_size(limits.header_bytes_max)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let multiplexed = Multiplexed::default();
    let noted = multiplexed.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        noted.note(request.version());
        request.extensions_mut().insert(peer.clone());
        dispatch(server.clone(), api.clone(), request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = Gather::new(watcher.watch(connection), multiplexed);
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    }
}

/// A call under way. Boxed: a connection that carries many then moves pointers, not kilobytes.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Tells gRPC from everything else by its content type.
fn dispatch(server: Arc<Server>, api: Option<Arc<Api>>, request: Request<Incoming>) -> Answering {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        Box::pin(async move { Ok(grpc::answer(server, api, request).await) })
    } else {
        Box::pin(async move { Ok(http_edge::answer(server, api, request).await) })
    }
}
