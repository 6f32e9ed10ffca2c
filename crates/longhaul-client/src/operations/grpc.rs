//! Calls over gRPC: what a client has no HTTP rule for.
//!
//! Owns the connection, the repeats, and how a gRPC status becomes this crate's error; refuses to know
//! what is called.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use longhaul_wire::status::{Code, http_code};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_types::StatusExt as _;

use super::client::{RETRY_FIRST, TRIES, retry_pause};
use super::{Client, Error, ErrorInfo, StatusError};
use crate::channel;

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Bytes that are a message already go out, messages come in.
struct Encoded<Answer>(PhantomData<fn() -> Answer>);

impl Client {
    /// One call of `/package.Service/Method`. `repeatable`: it may be sent again when the server is
    /// away, although the first may have arrived.
    pub(super) async fn grpc<Answer: Message + Default + 'static>(
        &self,
        path: &str,
        message: Bytes,
        repeatable: bool,
    ) -> Result<Answer, Error> {
        let mut pause = RETRY_FIRST;
        let mut tries = 1;
        loop {
            let error = match self.grpc_once(path, message.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let again = retry_pause(&error, pause).filter(|_| repeatable && tries < TRIES);
            let Some(wait) = again else { return Err(error) };
            tracing::debug!(%error, tries, "repeating a call");
            tokio::time::sleep(wait).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn grpc_once<Answer: Message + Default + 'static>(
        &self,
        path: &str,
        message: Bytes,
    ) -> Result<Answer, Error> {
        let (mut grpc, request) = self.prepare(message, Some(ANSWER_TIMEOUT)).await?;
        let path = self.path(path)?;
        let answer = grpc.unary(request, path, Encoded(PhantomData)).await;
        Ok(answer.map_err(|status| self.refused(&status))?.into_inner())
    }

    /// Opens one stream of answers.
    pub(super) async fn grpc_stream<Answer: Message + Default + 'static>(
        &self,
        path: &str,
        message: Bytes,
    ) -> Result<Streaming<Answer>, Error> {
        let (mut grpc, request) = self.prepare(message, None).await?;
        let path = self.path(path)?;
        let answers = grpc.server_streaming(request, path, Encoded(PhantomData)).await;
        Ok(answers.map_err(|status| self.refused(&status))?.into_inner())
    }

    async fn prepare(
        &self,
        message: Bytes,
        timeout: Option<Duration>,
    ) -> Result<(Grpc<Channel>, Request<Bytes>), Error> {
        let request = channel::request(message, timeout, self.token()).await;
        let request = request.map_err(|status| self.refused(&status))?;
        let mut grpc = Grpc::new(self.channel()?).max_decoding_message_size(ANSWER_BYTES_MAX);
        grpc.ready().await.map_err(|error| self.refused(&Status::from_error(error.into())))?;
        Ok((grpc, request))
    }

    fn path(&self, path: &str) -> Result<http::uri::PathAndQuery, Error> {
        path.parse().map_err(|_| Error::InvalidArgument(format!("{path:?} is not a gRPC method")))
    }

    /// A status as an error answer; the HTTP status is the one that means the same.
    pub(super) fn refused(&self, status: &Status) -> Error {
        let details = status.get_error_details();
        let info = details.error_info().map(|info| ErrorInfo {
            reason: info.reason.clone(),
            domain: info.domain.clone(),
            metadata: info.metadata.clone().into_iter().collect(),
        });
        let code = Code::from_number(status.code().into()).unwrap_or(Code::Unknown);
        Error::Status(Box::new(StatusError {
            url: self.url().to_owned(),
            http: http_code(code),
            status: code.name().to_owned(),
            message: status.message().to_owned(),
            info,
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            details: Vec::new(),
            envelope: true,
        }))
    }
}

impl<Answer: Message + Default + 'static> Codec for Encoded<Answer> {
    type Encode = Bytes;
    type Decode = Answer;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<Answer> Encoder for Encoded<Answer> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl<Answer: Message + Default> Decoder for Encoded<Answer> {
    type Item = Answer;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let answer = Answer::decode(bytes);
        answer
            .map(Some)
            .map_err(|error| Status::internal(format!("not what it should be: {error}")))
    }
}
