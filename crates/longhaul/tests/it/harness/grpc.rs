//! gRPC without generated clients: any path, any message, any authority.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use longhaul_wire::codec::BytesCodec;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::tls::Dial;
use super::view::Failure;

/// A connection that says `authority` with each call.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
}

impl Connection {
    /// Connects when first used.
    pub fn new(address: SocketAddr, authority: Option<&str>) -> Self {
        let authority = authority.map_or_else(|| address.to_string(), str::to_owned);
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .origin(format!("http://{authority}").parse().unwrap())
            .tcp_nodelay(true);
        Self { channel: endpoint.connect_lazy() }
    }

    /// The same over TLS.
    pub fn over_tls(address: SocketAddr, authority: &str, dial: Dial) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .origin(format!("https://{authority}").parse().unwrap());
        let connector = tower::service_fn(move |_| {
            let dial = dial.clone();
            async move {
                let stream = dial.connect(address).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        Self { channel: endpoint.connect_with_connector_lazy(connector) }
    }

    /// Calls one method.
    pub async fn call<Answer: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let bytes = self.call_bytes(path, message.encode_to_vec().into(), deadline).await?;
        Ok(Answer::decode(bytes).expect("the server answers with the declared message"))
    }

    /// Calls one method with bytes that need not be a message.
    pub async fn call_bytes(
        &self,
        path: &str,
        message: Bytes,
        deadline: Option<Duration>,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        self.send(path, request).await
    }

    /// The same, with metadata.
    pub async fn call_with(
        &self,
        path: &str,
        message: Bytes,
        metadata: &[(&'static str, &str)],
    ) -> Result<Bytes, Failure> {
        let mut request = Request::new(message);
        for (key, value) in metadata {
            request.metadata_mut().insert(*key, value.parse().unwrap());
        }
        self.send(path, request).await
    }

    /// The status that a call which must fail is answered with.
    pub async fn status_of(&self, path: &str, message: Bytes) -> Status {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = PathAndQuery::try_from(path).unwrap();
        let answer = client.unary(Request::new(message), path, BytesCodec).await;
        answer.map(tonic::Response::into_inner).expect_err("the call fails")
    }

    async fn send(&self, path: &str, request: Request<Bytes>) -> Result<Bytes, Failure> {
        // Reads 4 MiB, as clients do that nobody has told otherwise.
        let mut client =
            tonic::client::Grpc::new(self.channel.clone()).max_encoding_message_size(usize::MAX);
        client.ready().await.map_err(|error| Failure::unreachable(&error.to_string()))?;
        let path = PathAndQuery::try_from(path).unwrap();
        let answer = client.unary(request, path, BytesCodec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::from_status(&status))
    }
}

impl Connection {
    /// Sends one message as a stream and collects what is streamed back.
    pub async fn stream(&self, path: &str, message: Bytes) -> Result<Vec<Bytes>, Failure> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| Failure::unreachable(&error.to_string()))?;
        let request = Request::new(tokio_stream::once(message));
        let path = PathAndQuery::try_from(path).unwrap();
        let answer = client.streaming(request, path, BytesCodec).await;
        let mut answers = answer.map_err(|status| Failure::from_status(&status))?.into_inner();
        let mut messages = Vec::new();
        while let Some(next) =
            answers.message().await.map_err(|status| Failure::from_status(&status))?
        {
            messages.push(next);
        }
        Ok(messages)
    }
}
