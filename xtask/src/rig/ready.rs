//! When a server can be used: asked of its own probe, over a bare socket.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long a server may take.
const READY_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the server says that it can take an operation.
pub(crate) async fn ready(address: SocketAddr) -> Result<(), Error> {
    let until = now() + READY_MAX;
    loop {
        let probe = tokio::time::timeout(Duration::from_secs(2), probe(address)).await;
        if matches!(probe, Ok(Ok(true))) {
            return Ok(());
        }
        if now() > until {
            return Err(format!("the server at {address} does not become ready").into());
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn probe(address: SocketAddr) -> Result<bool, Error> {
    let mut stream = TcpStream::connect(address).await?;
    let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

#[allow(clippy::disallowed_methods, reason = "a server's start takes real time")]
fn now() -> Instant {
    Instant::now()
}
