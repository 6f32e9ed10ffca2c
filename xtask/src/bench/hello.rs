//! The stack's ceiling: a server of the same parts that does nothing but answer.
//!
//! hyper's own connections, tonic's codec over bytes for gRPC, fixed JSON for HTTP: what is left of a
//! call when there is neither a store nor a message to understand.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use longhaul_wire::codec::BytesCodec;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService, UnaryService};

use super::Result;
use super::grpc::gathered;

/// The gRPC path it answers at; so does every other.
pub(super) const GRPC_PATH: &str = "/hello.Greeter/SayHello";

/// The gRPC path of a stream whose messages all come back.
pub(super) const ECHO_PATH: &str = "/hello.Greeter/Echo";

/// `HelloReply { message: "hello, world" }`.
const REPLY: &[u8] = b"\x0a\x0chello, world";
const REPLY_JSON: &[u8] = b"{\"message\":\"hello, world\"}";
/// As the server's.
const WINDOW_BYTES: u32 = 4 << 20;

/// Listens on any port, prints it, and serves until its parent's end of the pipe closes.
pub(super) async fn serve() -> Result<()> {
    let socket = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", socket.local_addr()?.port())?;
    out.flush()?;
    std::thread::spawn(|| {
        // Whatever ends the parent closes the pipe, and this process with it.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    loop {
        let (stream, _) = socket.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http2()
                .max_concurrent_streams(1024)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES);
            let is_http2 = AtomicBool::new(false);
            let service = service_fn(|request: Request<Incoming>| {
                is_http2.store(request.version() == Version::HTTP_2, Ordering::Relaxed);
                answer(request)
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no news here.
            let _ = gathered(connection, || is_http2.load(Ordering::Relaxed)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc && request.uri().path() == ECHO_PATH {
        return Ok(Grpc::new(BytesCodec).streaming(Echo, request).await);
    }
    if is_grpc {
        return Ok(Grpc::new(BytesCodec).unary(Greeter, request).await);
    }
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(REPLY_JSON))));
    if request.into_body().collect().await.is_err() {
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
    }
    let json = HeaderValue::from_static("application/json; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

struct Echo;

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = tonic::Streaming<Bytes>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<Bytes>>) -> Self::Future {
        ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

struct Greeter;

impl UnaryService<Bytes> for Greeter {
    type Response = Bytes;
    type Future = Ready<Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, _request: tonic::Request<Bytes>) -> Self::Future {
        ready(Ok(tonic::Response::new(Bytes::from_static(REPLY))))
    }
}
