//! gRPC as a client: unary calls on shared HTTP/2 connections, written straight onto hyper.
//!
//! As thin as it goes, for the clients share the cores with the server they measure.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Uri, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longhaul_wire::longrunning::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest, Operation,
    WaitOperationRequest,
};
use prost::Message;
use tokio::net::TcpStream;

use super::words::{self, HOST, PARENT};
use super::{Result, hello};

/// Calls that share one connection before the next is opened.
const CLIENTS_PER_CONNECTION: usize = 16;
const CONNECTIONS_MAX: usize = 8;
pub(super) const WINDOW_BYTES: u32 = 4 << 20;
/// Bytes before each message: a flag and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// One client's end of a connection that others use too.
#[derive(Clone)]
pub(super) struct Line {
    send: SendRequest<Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

/// Lines for `clients`, over as few connections as a careful client library would open.
pub(super) async fn connect(
    address: SocketAddr,
    clients: usize,
    authorization: Option<&HeaderValue>,
) -> Result<Vec<Line>> {
    let count = clients.div_ceil(CLIENTS_PER_CONNECTION).clamp(1, CONNECTIONS_MAX);
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(Line { authorization: authorization.cloned(), ..open(address).await? });
    }
    Ok((0..clients).map(|client| connections[client % count].clone()).collect())
}

async fn open(address: SocketAddr) -> Result<Line> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (send, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // A broken connection shows in the calls on it.
    tokio::spawn(gathered(connection, || true));
    Ok(Line { send, authorization: None })
}

/// Drives a connection behind the calls that are ready, as the server does: one write for many of
/// them, not one for each. Both ends of both servers measured do it, so that the works and the ceiling
/// compare.
pub(super) async fn gathered<F: Future>(
    connection: F,
    is_multiplexed: impl Fn() -> bool,
) -> F::Output {
    let mut connection = pin!(connection);
    let mut waited = false;
    poll_fn(|context| {
        if !waited && is_multiplexed() {
            waited = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        waited = false;
        connection.as_mut().poll(context)
    })
    .await
}

impl Line {
    /// Starts an operation; its name.
    pub async fn start(&mut self, id: &str) -> Result<String> {
        let answer = self.call(words::START_PATH, &words::start_request(id)).await?;
        Ok(Operation::decode(answer)?.name)
    }

    /// Asks an operation to stop.
    pub async fn cancel(&mut self, name: &str) -> Result<()> {
        let request = CancelOperationRequest { name: name.to_owned() };
        let path = "/google.longrunning.Operations/CancelOperation";
        self.call(path, &request).await.map(drop)
    }

    /// Gets an operation; the answer's size in bytes.
    pub async fn get(&mut self, name: &str) -> Result<usize> {
        let request = GetOperationRequest { name: name.to_owned() };
        let answer = self.call("/google.longrunning.Operations/GetOperation", &request).await?;
        Ok(answer.len())
    }

    /// Gets the newest page of 100; the answer's size in bytes.
    pub async fn list(&mut self) -> Result<usize> {
        let request = ListOperationsRequest {
            name: PARENT.to_owned(),
            page_size: words::PAGE_SIZE,
            ..Default::default()
        };
        let answer = self.call("/google.longrunning.Operations/ListOperations", &request).await?;
        Ok(answer.len())
    }

    /// Waits until an operation is done. Fails when it did not end well.
    pub async fn until_done(&mut self, name: &str) -> Result<()> {
        let timeout = Some(Duration::from_secs(10).try_into()?);
        let request = WaitOperationRequest { name: name.to_owned(), timeout };
        let answer = self.call("/google.longrunning.Operations/WaitOperation", &request).await?;
        words::check_done(&Operation::decode(answer)?)
    }

    /// Waits until an operation is done. Fails when it was not cancelled.
    pub async fn until_cancelled(&mut self, name: &str) -> Result<()> {
        let timeout = Some(Duration::from_secs(120).try_into()?);
        let request = WaitOperationRequest { name: name.to_owned(), timeout };
        let answer = self.call("/google.longrunning.Operations/WaitOperation", &request).await?;
        words::check_cancelled(&Operation::decode(answer)?)
    }

    /// Opens the connection before its calls are measured.
    pub async fn hello_there(&mut self, name: &str) -> Result<()> {
        self.get(name).await.map(drop)
    }

    /// The ceiling's call, with a request as large as a start's.
    pub async fn hello(&mut self) -> Result<()> {
        self.call(hello::GRPC_PATH, &words::start_request("hello")).await.map(drop)
    }

    /// One unary call: the answer's message.
    pub async fn call(&mut self, path: &'static str, message: &impl Message) -> Result<Bytes> {
        let length = message.encoded_len();
        let mut body = BytesMut::with_capacity(PREFIX_BYTES + length);
        body.put_u8(0);
        body.put_u32(u32::try_from(length)?);
        message.encode(&mut body)?;
        let mut request = Request::new(Full::new(body.freeze()));
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() =
            Uri::builder().scheme("http").authority(HOST).path_and_query(path).build()?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        self.send.ready().await?;
        let response = self.send.send_request(request).await?;
        check_status(response.headers(), false)?;
        let collected = response.into_body().collect().await?;
        check_status(collected.trailers().ok_or("the answer has no trailers")?, true)?;
        let mut answer = collected.to_bytes();
        if answer.len() < PREFIX_BYTES || answer[0] != 0 {
            return Err("the answer is not one uncompressed message".into());
        }
        Ok(answer.split_off(PREFIX_BYTES))
    }
}

/// A status in the headers is an early end; in the trailers it must be there.
pub(super) fn check_status(headers: &HeaderMap, required: bool) -> Result<()> {
    let status = headers.get("grpc-status").map(HeaderValue::as_bytes);
    match status {
        Some(b"0") => Ok(()),
        None if !required => Ok(()),
        other => {
            let code = other.map(String::from_utf8_lossy);
            let message = headers.get("grpc-message").map(HeaderValue::as_bytes);
            let message = message.map(String::from_utf8_lossy);
            Err(format!("gRPC status {code:?}: {message:?}").into())
        }
    }
}
