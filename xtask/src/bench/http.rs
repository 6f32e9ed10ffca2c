//! HTTP/JSON as a client: one kept-alive HTTP/1.1 connection for each.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::words::{self, HOST, PARENT};
use super::{Error, Result};

/// Between two looks at an unfinished operation: no API here waits over HTTP.
const POLL_EVERY: Duration = Duration::from_millis(2);

/// One client's own connection.
pub(super) struct Line {
    send: SendRequest<Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

/// As much of an operation as a client reads.
#[derive(Deserialize)]
struct Operation {
    name: String,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

/// A connection for each of `clients`.
pub(super) async fn connect(
    address: SocketAddr,
    clients: usize,
    authorization: Option<&HeaderValue>,
) -> Result<Vec<Line>> {
    let mut lines = Vec::with_capacity(clients);
    for _ in 0..clients {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // A broken connection shows in the calls on it.
        tokio::spawn(connection);
        lines.push(Line { send, authorization: authorization.cloned() });
    }
    Ok(lines)
}

impl Line {
    /// Starts an operation; its name.
    pub async fn start(&mut self, id: &str) -> Result<String> {
        let path = format!("/v1/{PARENT}/deliveryPipelines?deliveryPipelineId={id}");
        let answer = self.call(Method::POST, &path, words::start_json(id)).await?;
        Ok(serde_json::from_slice::<Operation>(&answer)?.name)
    }

    /// Asks an operation to stop.
    pub async fn cancel(&mut self, name: &str) -> Result<()> {
        self.call(Method::POST, &format!("/v1/{name}:cancel"), Bytes::new()).await.map(drop)
    }

    /// Gets an operation; the answer's size in bytes.
    pub async fn get(&mut self, name: &str) -> Result<usize> {
        Ok(self.call(Method::GET, &format!("/v1/{name}"), Bytes::new()).await?.len())
    }

    /// Gets the newest page of 100; the answer's size in bytes.
    pub async fn list(&mut self) -> Result<usize> {
        let path = format!("/v1/{PARENT}/operations?pageSize={}", words::PAGE_SIZE);
        Ok(self.call(Method::GET, &path, Bytes::new()).await?.len())
    }

    /// Polls until an operation is done. Fails when it did not end well.
    pub async fn until_done(&mut self, name: &str) -> Result<()> {
        let path = format!("/v1/{name}");
        loop {
            let answer = self.call(Method::GET, &path, Bytes::new()).await?;
            let operation: Operation = serde_json::from_slice(&answer)?;
            if let Some(error) = operation.error {
                return Err(format!("{name} failed: {error}").into());
            }
            if operation.done {
                return Ok(());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// The ceiling's call, with a request as large as a start's.
    pub async fn hello(&mut self) -> Result<()> {
        self.call(Method::POST, "/hello", words::start_json("hello")).await.map(drop)
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse()?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static(HOST));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        self.send.ready().await?;
        let response = self.send.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        if status != http::StatusCode::OK {
            let text = String::from_utf8_lossy(&answer);
            return Err(Error::from(format!("HTTP {status} at {path}: {text}")));
        }
        Ok(answer)
    }
}
