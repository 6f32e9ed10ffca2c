//! HTTP/1.1 with every byte under control: nothing is added that the test did not ask for.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::soon;
use super::view::Failure;

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    verb: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// One answer, read to its end.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub code: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Ask {
    /// A request with a body of zero bytes and no content type.
    pub fn new(verb: &'static str, path: impl Into<String>) -> Self {
        Self { verb, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    /// A read.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    /// A `POST` with nothing in it.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new("POST", path)
    }

    /// A `POST` of JSON.
    pub fn post_json(path: impl Into<String>, body: &Value) -> Self {
        Self::post(path).header("content-type", "application/json").body(body.to_string())
    }

    /// A `DELETE` with nothing in it.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new("DELETE", path)
    }

    /// Names the host.
    pub fn host(self, host: &str) -> Self {
        self.header("host", host)
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it over a connection of its own.
    pub async fn try_send(self, address: SocketAddr) -> Result<Answer, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        self.try_send_over(stream, address).await
    }

    /// The same over a connection that is there, and that this is the last request of.
    pub async fn try_send_over(
        self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<Answer, String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        self.try_send_through(stream, address).await
    }

    /// The same over anything that carries bytes.
    pub async fn try_send_through(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
    ) -> Result<Answer, String> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(self.verb).uri(&self.path);
        let mut has_host = false;
        for (name, value) in &self.headers {
            has_host |= name.eq_ignore_ascii_case("host");
            request = request.header(*name, value);
        }
        if !has_host {
            request = request.header("host", address.to_string());
        }
        let request = request.body(Full::new(self.body)).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        connection.abort();
        Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Sends it over HTTP/2 without a word about it before; the host becomes `:authority`.
    pub async fn send_over_http_2(self, address: SocketAddr) -> Answer {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let is_host = |name: &str| name.eq_ignore_ascii_case("host");
        let host = self.headers.iter().find(|(name, _)| is_host(name));
        let host = host.map_or_else(|| address.to_string(), |(_, host)| host.clone());
        let uri = format!("http://{host}{}", self.path);
        let mut request = hyper::Request::builder().method(self.verb).uri(uri);
        for (name, value) in self.headers.iter().filter(|(name, _)| !is_host(name)) {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(self.body)).unwrap();
        let response = soon("an HTTP/2 answer", sender.send_request(request)).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Sends it to a server that must answer.
    #[track_caller]
    pub fn send(self, address: SocketAddr) -> impl Future<Output = Answer> {
        let place = std::panic::Location::caller();
        let shown = format!("{} {}", self.verb, self.path);
        async move {
            soon("an HTTP answer", self.try_send(address))
                .await
                .unwrap_or_else(|error| panic!("{shown} at {place}: {error}"))
        }
    }
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(json) => json,
            Err(error) => panic!("not JSON ({error}): {self:?}"),
        }
    }

    /// Demands 200 and gives the body.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.code, 200, "{self:?}");
        let kind = self.headers.get("content-type").map(|kind| kind.as_bytes());
        assert_eq!(kind, Some(&b"application/json; charset=UTF-8"[..]), "{self:?}");
        self.json()
    }

    /// Demands 200 and the two bytes of an empty object.
    #[track_caller]
    pub fn empty_object(&self) {
        assert_eq!((self.code, &*self.body), (200, &b"{}"[..]), "{self:?}");
    }

    /// Demands Google's error envelope under this status, and gives what it says.
    #[track_caller]
    pub fn failure(&self, code: u16) -> Failure {
        assert_eq!(self.code, code, "{self:?}");
        Failure::from_envelope(&self.json())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.body.slice(..self.body.len().min(2_000));
        write!(f, "{} {}", self.code, String::from_utf8_lossy(&shown))
    }
}

/// Sends bytes as they are and reads until the server closes.
pub async fn exchange_bytes(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    exchange(address, bytes, false).await
}

/// Sends bytes as they are, says that no more will come, and reads until the server closes.
pub async fn exchange_last_bytes(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    exchange(address, bytes, true).await
}

async fn exchange(address: SocketAddr, bytes: &[u8], last: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close before it has read everything; what it answered counts all the same.
    let _ = stream.write_all(bytes).await;
    if last {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
    answer
}
