//! Watching over plain HTTP: server-sent events, one for each change, for browsers and curl.
//!
//! `GET /longhaul/v1/operations:watch?names=…` or `?api=clouddeploy&parent=projects/p/locations/-`.
//! Each event's data is a `longhaul.v1.WatchResponse` as JSON. Source: the HTML standard, 9.2.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Response, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use longhaul_core::{Error, Reason};
use longhaul_wire::convert::Edge;
use longhaul_wire::json::{self, JsonOptions};
use longhaul_wire::message::Message;
use longhaul_wire::{system, v1};
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;

use crate::Server;
use crate::access::{Credentials, Made, Wanted};
use crate::call::Caller;

/// Where the events are.
pub(crate) const PATH: &str = "/longhaul/v1/operations:watch";
/// How often a comment is sent when nothing happens, so that proxies keep the connection.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

impl Server {
    /// Begins the watch that a request asks for.
    pub(crate) async fn watch_events(
        self: &Arc<Self>,
        parts: &http::request::Parts,
    ) -> Result<Response<Body>, Error> {
        let raw_query = parts.uri.query().unwrap_or_default();
        let native = self.apis.native();
        let method = native.and_then(|api| api.method("longhaul.v1.Operators.Watch"));
        let method = method.ok_or_else(not_loaded)?;
        let query_token = system::query_token(raw_query);
        let credentials = Credentials {
            query_token: query_token.as_deref(),
            ..Credentials::of(&parts.headers, &parts.extensions)
        };
        let from = self.origin(&parts.headers, &parts.extensions);
        let caller = Caller {
            identity: self.identify(native.map(|api| &**api), method, credentials, &from).await?,
            from,
            edge: Edge::Json,
            deadline: None,
            traceparent: "".into(),
            parent_operation: None,
            authorization: None,
            made: Made::default(),
        };
        let (_, query) = system::extract(raw_query, &parts.headers)?;
        let mut request = v1::WatchRequest::default();
        for (key, value) in query {
            match key.as_str() {
                "names" => request.names.push(value),
                "api" => request.api = value,
                "parent" => request.parent = value,
                _ => {
                    let what =
                        format!("a watch has no parameter {key:?}; it takes names, api and parent");
                    return Err(Error::new(Reason::UnknownField, what).at_field(key, "unknown"));
                }
            }
        }
        let wanted = Wanted::of_method(native, method);
        let wanted = wanted.with_message(request.encode_to_vec().into());
        let granted = self.authorise(wanted, &caller).await?;
        let changes = ReceiverStream::new(self.operators.watch(request, &caller).await?);
        let server = self.clone();
        let events = changes.map(move |change| match change {
            Ok(change) => server.event(&change),
            Err(error) => Err(error),
        });
        let clock = self.clock.clone();
        let comments = futures_util::stream::unfold(clock, |clock| async move {
            clock.sleep(COMMENT_EVERY).await;
            Some((Ok(Bytes::from_static(b": still here\n\n")), clock))
        });
        let draining = self.draining.clone();
        // The stream keeps its grant until it ends.
        let comments = comments.map(move |comment| {
            let _ = &granted;
            comment
        });
        let both = futures_util::stream::select(events.map(Some).chain(end()), comments.map(Some));
        let frames = both
            .take_while(|item| std::future::ready(item.is_some()))
            .take_until(async move { draining.cancelled().await })
            .map(|item| {
                let bytes = match item {
                    Some(Ok(bytes)) => bytes,
                    Some(Err(error)) => failed(&error),
                    None => Bytes::new(),
                };
                Ok::<_, Infallible>(Frame::data(bytes))
            });
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    fn event(&self, change: &v1::WatchResponse) -> Result<Bytes, Error> {
        let native = self.apis.native();
        let ty = native.and_then(|api| api.descriptors().message("longhaul.v1.WatchResponse"));
        let ty = ty.ok_or_else(not_loaded)?;
        let message = Message::decode(&ty, &change.encode_to_vec())?;
        let options = JsonOptions { pretty: false, ..JsonOptions::default() };
        let data = json::to_json(&message, &*self.apis, &options)?;
        let revision = change.operation.as_ref().map_or(0, |operation| operation.revision);
        let mut event = format!("id: {revision}\nevent: operation\ndata: ").into_bytes();
        event.extend_from_slice(&data);
        event.extend_from_slice(b"\n\n");
        Ok(event.into())
    }
}

fn not_loaded() -> Error {
    Error::new(Reason::Internal, "longhaul.v1 is not loaded")
}

/// Ends the whole stream once the changes have ended.
fn end<T>() -> impl futures_util::Stream<Item = Option<T>> {
    futures_util::stream::once(std::future::ready(None))
}

fn failed(error: &Error) -> Bytes {
    crate::log_failure(error);
    // The reason is upper-case ASCII; the message may hold anything, and line ends would end the event.
    let message = error.message.replace(['\n', '\r'], " ");
    format!("event: error\ndata: {}: {message}\n\n", error.reason.name()).into()
}
