//! The gRPC edge: bytes of a unary call in, bytes and a status out.
//!
//! Any method of any loaded API is served from its descriptors; nothing here is generated. Health and
//! reflection are tonic's own services.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use longhaul_auth::Identity;
use longhaul_auth::refusal::Asked;
use longhaul_core::{Error, Reason};
use longhaul_wire::api::{Api, Method, MethodKind};
use longhaul_wire::codec::BytesCodec;
use longhaul_wire::convert::Edge;
use longhaul_wire::{status, v1};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::{Code, Status};

use crate::access::{Credentials, Granted, Made, Origin, Wanted};
use crate::call::{self, Call, Caller, DOMAIN};
use crate::{Server, session};

/// The one stream in both directions; it begins with everything that a worker holds.
const SESSION: &str = "longhaul.v1.Workers.Session";

/// Answers one gRPC request. `listener_api` is the API that the port was given to.
pub(crate) async fn answer(
    server: Arc<Server>,
    listener_api: Option<Arc<Api>>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path();
    if path.starts_with("/grpc.health.v1.Health/") {
        return server.health.clone().answer(request).await;
    }
    if path.starts_with("/grpc.reflection.") {
        let asked = Asked { service: DOMAIN, method: path };
        let credentials = Credentials::of(request.headers(), request.extensions());
        if let Err(error) = server.access.identify(asked, credentials).await {
            return status::to_grpc(&error, DOMAIN).into_http();
        }
        return server.reflection.clone().answer(request).await;
    }
    let authority = request
        .uri()
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| request.headers().get(http::header::HOST)?.to_str().ok());
    let target = match server.grpc_target(listener_api, authority, path) {
        Ok(target) => target,
        Err(error) => return status::to_grpc(&error, DOMAIN).into_http(),
    };
    let credentials = Credentials::of(request.headers(), request.extensions());
    let known = target.api.as_deref();
    let from = server.origin(request.headers(), request.extensions());
    let identity = match server.identify(known, &target.method, credentials, &from).await {
        Ok(identity) => identity,
        Err(error) => {
            crate::log_failure(&error);
            return status::to_grpc(&error, DOMAIN).into_http();
        }
    };
    let mut limit = server.config.limits.body_bytes_max;
    if &*target.method.full_name == SESSION {
        limit = limit.max(session::REQUEST_BYTES_MAX);
    }
    let mut grpc = Grpc::new(BytesCodec)
        .apply_max_message_size_config(Some(limit), None)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    if target.method.client_streaming || target.method.server_streaming {
        grpc.streaming(Stream { server, target, identity, from }, request).await
    } else {
        grpc.unary(Unary { server, target, identity, from }, request).await
    }
}

/// The method a path names, and the API where that is known.
#[derive(Clone)]
struct Target {
    api: Option<Arc<Api>>,
    method: Arc<Method>,
}

impl Server {
    fn grpc_target(
        &self,
        listener_api: Option<Arc<Api>>,
        authority: Option<&str>,
        path: &str,
    ) -> Result<Target, Error> {
        let meant = listener_api.or_else(|| self.apis.by_host(authority?).cloned());
        let mut candidates = self.apis.candidates_grpc(path);
        let wanted = candidates
            .iter()
            .position(|(api, _)| meant.as_ref().is_some_and(|meant| meant.name() == api.name()));
        let found = (!candidates.is_empty()).then(|| candidates.swap_remove(wanted.unwrap_or(0)));
        let (api, method) = found.ok_or_else(|| {
            Error::new(
                Reason::MethodNotFound,
                format!("no API served here has the gRPC method \"{path}\"; reflection lists those that are"),
            )
            .with("method", path)
        })?;
        let api = match method.kind {
            // The mixin's path is the same for every API: without a sign the operation decides.
            MethodKind::Operations(_) if self.apis.all().len() > 1 => meant,
            MethodKind::Operations(_) => Some(api),
            MethodKind::Start(_)
            | MethodKind::Policy(_)
            | MethodKind::Native
            | MethodKind::Other => Some(api),
        };
        Ok(Target { api, method })
    }
}

struct Unary {
    server: Arc<Server>,
    target: Target,
    identity: Arc<Identity>,
    from: Origin,
}

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (server, target) = (self.server.clone(), self.target.clone());
        let (identity, from) = (self.identity.clone(), self.from.clone());
        Box::pin(async move {
            let (metadata, _, message) = request.into_parts();
            let headers = metadata.into_headers();
            let timeout = grpc_timeout(&headers)?;
            let deadline = timeout.map(|timeout| server.clock.now() + timeout);
            let domain = target.api.as_ref().map_or(DOMAIN.into(), |api| api.name().clone());
            let traceparent = text(&headers, "traceparent");
            let parent_operation = call::parent_operation(&headers);
            let authorization = headers.get(http::header::AUTHORIZATION);
            let authorization = authorization.map(http::HeaderValue::as_bytes);
            let shown = Credentials { authorization, ..Credentials::default() };
            let caller = Caller {
                identity,
                from,
                edge: Edge::Grpc,
                deadline,
                traceparent,
                parent_operation,
                authorization: server.for_cells(shown),
                made: Made::default(),
            };
            let (api, method) = (target.api, target.method);
            let call = Call { api, method, message, caller, granted: None };
            let answer = server.answer(call);
            let answered = match timeout {
                Some(timeout) => match tokio::time::timeout(timeout, answer).await {
                    Ok(answered) => answered,
                    Err(_) => Err(Error::new(
                        Reason::DeadlineExceeded,
                        "the call's deadline ran out before the answer was ready; read the operation before you repeat the call",
                    )),
                },
                None => answer.await,
            };
            match answered {
                Ok(bytes) => Ok(tonic::Response::new(bytes)),
                Err(error) => {
                    crate::log_failure(&error);
                    Err(status::to_grpc(&error, &domain))
                }
            }
        })
    }
}

/// A streaming method; only Longhaul's own API has any.
struct Stream {
    server: Arc<Server>,
    target: Target,
    identity: Arc<Identity>,
    from: Origin,
}

type Answers = Pin<Box<dyn futures_util::Stream<Item = Result<Bytes, Status>> + Send>>;

impl StreamingService<Bytes> for Stream {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<Bytes>>) -> Self::Future {
        let (server, target) = (self.server.clone(), self.target.clone());
        let caller = Caller {
            identity: self.identity.clone(),
            from: self.from.clone(),
            edge: Edge::Grpc,
            deadline: None,
            traceparent: "".into(),
            parent_operation: None,
            authorization: None,
            made: Made::default(),
        };
        Box::pin(async move {
            let wanted = Wanted::of_method(target.api.as_ref(), &target.method);
            let told = |error: Error| {
                crate::log_failure(&error);
                status::to_grpc(&error, DOMAIN)
            };
            match &*target.method.full_name {
                SESSION => {
                    let granted = server.authorise(wanted, &caller).await.map_err(told)?;
                    let requests = decoded(request.into_inner());
                    let session = server.workers.session(requests, caller);
                    Ok(tonic::Response::new(encoded(session, granted)))
                }
                "longhaul.v1.Operators.Watch" => {
                    let mut requests = decoded::<v1::WatchRequest>(request.into_inner());
                    let first = requests.next().await.unwrap_or_else(|| {
                        Err(Error::new(Reason::InvalidValue, "a watch needs a request"))
                    });
                    let first = first.map_err(told)?;
                    let wanted = wanted.with_message(first.encode_to_vec().into());
                    let granted = server.authorise(wanted, &caller).await.map_err(told)?;
                    let watching = server.operators.watch(first, &caller).await.map_err(told)?;
                    Ok(tonic::Response::new(encoded(watching, granted)))
                }
                other => Err(Status::unimplemented(format!(
                    "{other} is a stream, and this server serves no streams of this API"
                ))),
            }
        })
    }
}

/// The messages of a stream of bytes. A line that breaks is their end: nobody is left to be told why.
fn decoded<M: prost::Message + Default + 'static>(
    bytes: tonic::Streaming<Bytes>,
) -> Pin<Box<dyn futures_util::Stream<Item = Result<M, Error>> + Send>> {
    let messages = bytes.map(|item| match item {
        Ok(item) => Some(M::decode(item).map_err(|error| {
            let what = format!("the request is not the message it should be: {error}");
            Error::new(Reason::InvalidValue, what)
        })),
        Err(status) => unreadable(&status).map(Err),
    });
    Box::pin(
        messages
            .take_while(|item| std::future::ready(item.is_some()))
            .filter_map(std::future::ready),
    )
}

/// What the caller did wrong when its stream cannot be read on; `None` when the line broke.
fn unreadable(status: &Status) -> Option<Error> {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            let what = format!("a request of the stream is too large: {}", status.message());
            Some(Error::new(Reason::BodyTooLarge, what))
        }
        Code::Internal | Code::Unimplemented | Code::InvalidArgument => {
            let what = format!("the stream is not what gRPC sends: {}", status.message());
            Some(Error::new(Reason::InvalidValue, what))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => None,
    }
}

/// The bytes of a stream of messages, which keeps its grant until it ends.
fn encoded<M: prost::Message + 'static>(
    messages: mpsc::Receiver<Result<M, Error>>,
    granted: Granted,
) -> Answers {
    Box::pin(ReceiverStream::new(messages).map(move |item| {
        let _ = &granted;
        match item {
            Ok(message) => Ok(message.encode_to_vec().into()),
            Err(error) => Err(status::to_grpc(&error, DOMAIN)),
        }
    }))
}

fn text(headers: &HeaderMap, name: &str) -> Arc<str> {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().into()
}

/// Reads `grpc-timeout`: up to eight digits and a unit. Source: gRPC over HTTP/2, "Timeout".
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let wrong =
        || Status::invalid_argument("grpc-timeout is not a number of up to 8 digits with a unit");
    let text = value.to_str().map_err(|_| wrong())?;
    let unit = text.chars().last().ok_or_else(wrong)?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return Err(wrong()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, want: Option<Duration>) {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        assert_eq!(grpc_timeout(&headers).ok().flatten(), want, "{value}");
    }

    #[test]
    fn grpc_timeout_is_read_as_the_protocol_writes_it() {
        check("3S", Some(Duration::from_secs(3)));
        check("59983m", Some(Duration::from_millis(59_983)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        check("5u", Some(Duration::from_micros(5)));
        check("123456789S", None);
        check("S", None);
        check("1x", None);
        check("-1S", None);
        check("1é", None);
    }
}
