//! gRPC as a client that expects the worst: each call says whether it was answered, refused, broken off,
//! or left hanging. Calls go round over a few connections, each of which a round robin may have given to
//! another server.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Uri, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use super::words::HOST;

/// Connections of one caller.
const CONNECTIONS: usize = 3;
/// Bytes before each message: a flag and its length.
const PREFIX_BYTES: usize = 5;
/// How long a call may take beyond what it hangs on purpose. A server that cannot serve has to say so
/// long before.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server says no.
    Refused { code: i32, message: String },
    /// The line broke: nobody knows whether it happened.
    Broken,
    /// Nothing came.
    Hung,
}

/// One caller's connections.
pub(super) struct Lines {
    address: SocketAddr,
    open: [Option<SendRequest<Full<Bytes>>>; CONNECTIONS],
    next: usize,
}

impl Lines {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, open: [const { None }; CONNECTIONS], next: 0 }
    }

    /// One unary call that may hang for `hang` on purpose.
    pub async fn call<Answer: Message + Default>(
        &mut self,
        path: &'static str,
        message: &impl Message,
        hang: Duration,
    ) -> Result<Answer, Fault> {
        self.next = (self.next + 1) % CONNECTIONS;
        let place = self.next;
        let answered = tokio::time::timeout(hang + PATIENCE, self.call_on(place, path, message));
        let answered = answered.await.unwrap_or(Err(Fault::Hung));
        match answered {
            Err(Fault::Broken | Fault::Hung) => self.open[place] = None,
            // Whoever cannot be served by one server asks another.
            Err(Fault::Refused { code: 14, .. }) => self.open[place] = None,
            Err(Fault::Refused { .. }) | Ok(_) => {}
        }
        Answer::decode(answered?).map_err(|_| Fault::Broken)
    }

    async fn call_on(
        &mut self,
        place: usize,
        path: &'static str,
        message: &impl Message,
    ) -> Result<Bytes, Fault> {
        if self.open[place].is_none() {
            self.open[place] = Some(open(self.address).await.map_err(|_| Fault::Broken)?);
        }
        let send = self.open[place].as_mut().expect("it was opened just above");
        send.ready().await.map_err(|_| Fault::Broken)?;
        let response = send.send_request(request(path, message)).await;
        let response = response.map_err(|_| Fault::Broken)?;
        let early = status(response.headers());
        let collected = response.into_body().collect().await.map_err(|_| Fault::Broken)?;
        match early.or_else(|| collected.trailers().and_then(status)) {
            Some((0, _)) => {}
            Some((code, message)) => return Err(Fault::Refused { code, message }),
            None => return Err(Fault::Broken),
        }
        let mut answer = collected.to_bytes();
        if answer.len() < PREFIX_BYTES || answer[0] != 0 {
            return Err(Fault::Broken);
        }
        Ok(answer.split_off(PREFIX_BYTES))
    }
}

async fn open(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, super::Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // A broken connection shows in the calls on it.
    tokio::spawn(connection);
    Ok(send)
}

fn request(path: &'static str, message: &impl Message) -> Request<Full<Bytes>> {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).expect("requests here are small"));
    message.encode(&mut body).expect("the buffer grows as needed");
    let mut request = Request::new(Full::new(body.freeze()));
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = http::Method::POST;
    let uri = Uri::builder().scheme("http").authority(HOST).path_and_query(path);
    *request.uri_mut() = uri.build().expect("the parts are constants");
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

fn status(headers: &HeaderMap) -> Option<(i32, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
    Some((code, String::from_utf8_lossy(message).into_owned()))
}
