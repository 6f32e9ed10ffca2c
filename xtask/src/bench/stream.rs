//! One gRPC stream in both directions, on a connection of its own, as thin as the unary calls beside it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Request, Uri, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::Result;
use super::grpc::{PREFIX_BYTES, WINDOW_BYTES, check_status};
use super::words::HOST;

/// What is sent, as it comes.
struct Outgoing(mpsc::UnboundedReceiver<Bytes>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The sending half.
#[derive(Clone)]
pub(super) struct Sender(mpsc::UnboundedSender<Bytes>);

/// The receiving half.
pub(super) struct Receiver {
    incoming: Incoming,
    buffer: BytesMut,
}

/// Opens a stream and sends its first message.
pub(super) async fn open(
    address: SocketAddr,
    path: &'static str,
    first: &impl Message,
) -> Result<(Sender, Receiver)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut send, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // A broken connection shows in the stream.
    tokio::spawn(connection);
    let (sender, outgoing) = mpsc::unbounded_channel();
    let sender = Sender(sender);
    sender.send(first)?;
    let mut request = Request::new(Outgoing(outgoing));
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() =
        Uri::builder().scheme("http").authority(HOST).path_and_query(path).build()?;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let response = send.send_request(request).await?;
    check_status(response.headers(), false)?;
    Ok((sender, Receiver { incoming: response.into_body(), buffer: BytesMut::new() }))
}

impl Sender {
    /// Sends one message.
    pub fn send(&self, message: &impl Message) -> Result<()> {
        let length = message.encoded_len();
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(length)?);
        message.encode(&mut bytes)?;
        self.0.send(bytes.freeze()).map_err(|_| "the stream is over".into())
    }
}

impl Receiver {
    /// The next message.
    pub async fn next<M: Message + Default>(&mut self) -> Result<M> {
        loop {
            if let Some(length) = self.buffer.get(1..PREFIX_BYTES) {
                let length = u32::from_be_bytes(length.try_into()?) as usize;
                if self.buffer.len() >= PREFIX_BYTES + length {
                    self.buffer.advance(PREFIX_BYTES);
                    return Ok(M::decode(self.buffer.split_to(length))?);
                }
            }
            let frame = self.incoming.frame().await.ok_or("the stream has ended")??;
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.trailers_ref().ok_or("an unknown frame")?;
                    check_status(trailers, true)?;
                    return Err("the stream has ended".into());
                }
            }
        }
    }
}
