//! The HTTP/JSON edge: a request in, JSON or Google's error envelope out.
//!
//! Transcoding itself is `longhaul-wire`'s; this room bounds what comes in, decides which API is meant,
//! and writes the answer.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use longhaul_core::{Error, OperationName, Reason};
use longhaul_wire::api::{Api, HttpCall, MethodKind};
use longhaul_wire::apis;
use longhaul_wire::convert::Edge;
use longhaul_wire::http_rule::HttpMethod;
use longhaul_wire::json::{self, JsonOptions};
use longhaul_wire::message::{Message, MessageType};
use longhaul_wire::settings::OperationsVerb;
use longhaul_wire::system::{self, SystemParameters};
use longhaul_wire::{query, status};
use tonic::body::Body;

use crate::Server;
use crate::access::{Credentials, Made, Wanted};
use crate::call::{self, Call, Caller, DOMAIN};
use crate::events;

/// Answers shorter than this are not worth compressing.
const GZIP_BYTES_MIN: usize = 1024;
/// Bytes of a refused request that are read, so that its connection can be used again.
const UNREAD_BYTES_MAX: usize = 64 << 10;
/// Longest wait for them.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(1);

/// Answers one HTTP request. `listener_api` is the API that the port was given to.
pub(crate) async fn answer(
    server: Arc<Server>,
    listener_api: Option<Arc<Api>>,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Some(response) = server.probe(request.uri().path()).await {
        return response;
    }
    let request = match &server.local {
        Some(local) => match local.answer(request).await {
            Ok(response) => return response,
            Err(request) => request,
        },
        None => request,
    };
    if request.method() == http::Method::GET && request.uri().path() == events::PATH {
        return watch(&server, request).await;
    }
    let (parts, mut body) = request.into_parts();
    let mut exchange = Exchange {
        server,
        listener_api,
        parts,
        system: SystemParameters::default(),
        domain: DOMAIN.to_owned(),
    };
    match exchange.run(&mut body).await {
        Ok(json) => exchange.write(StatusCode::OK, json),
        Err(error) => {
            leave_nothing_unread(&mut body).await;
            crate::log_failure(&error);
            let code = status::http_code(error.code());
            let system = &exchange.system;
            let json =
                status::to_http_body(&error, &exchange.domain, system.error_format, system.pretty);
            let mut response = exchange.write(
                StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                json,
            );
            if let Some(seconds) = status::retry_after_seconds(&error) {
                let seconds = HeaderValue::from(seconds);
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            demand(&mut response, &error, &exchange.domain);
            response
        }
    }
}

async fn watch(server: &Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    let (parts, _) = request.into_parts();
    server.watch_events(&parts).await.unwrap_or_else(|error| {
        crate::log_failure(&error);
        let json = status::to_http_body(&error, DOMAIN, Default::default(), true);
        let mut response = Response::new(Body::new(Full::new(Bytes::from(json))));
        let code = StatusCode::from_u16(status::http_code(error.code()));
        *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = HeaderValue::from_static("application/json; charset=UTF-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        demand(&mut response, &error, DOMAIN);
        response
    })
}

/// Says how to say who calls, on an answer that misses it. Source: RFC 6750, 3.
fn demand(response: &mut Response<Body>, error: &Error, host: &str) {
    let why = if error.reason == Reason::CredentialsMissing {
        ""
    } else if matches!(error.reason, Reason::CredentialsInvalid | Reason::AccessTokenExpired) {
        ", error=\"invalid_token\""
    } else if error.reason == Reason::AccessTokenScopeInsufficient {
        ", error=\"insufficient_scope\""
    } else {
        return;
    };
    let demand = format!("Bearer realm=\"https://{host}/\"{why}");
    if let Ok(demand) = HeaderValue::from_str(&demand) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, demand);
    }
}

/// Reads what a refused request still sends, within bounds: a connection with unread bytes is closed after
/// the answer, and clients that use it again then fail without one.
async fn leave_nothing_unread(body: &mut Incoming) {
    let rest = Limited::new(body, UNREAD_BYTES_MAX).collect();
    let _ = tokio::time::timeout(UNREAD_TIME_MAX, rest).await;
}

/// A method that the request may mean, of one API.
type Candidate = (Arc<Api>, HttpCall);

/// How it is known which API is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// The request says it.
    Named,
    /// The operation is there and belongs to it. A caller who may not must not learn that.
    Found,
    /// Any may be meant.
    Any,
}

/// One request on its way to its answer.
struct Exchange {
    server: Arc<Server>,
    listener_api: Option<Arc<Api>>,
    parts: http::request::Parts,
    system: SystemParameters,
    /// The API that errors speak for; ours until it is known.
    domain: String,
}

impl Exchange {
    async fn run(&mut self, body: &mut Incoming) -> Result<Vec<u8>, Error> {
        // The path comes first: an unknown one is 404 whatever else is wrong. A request that overrides
        // its verb says so in a header, so its path is looked up under the verb that is meant.
        let raw_query = self.parts.uri.query().unwrap_or_default().to_owned();
        let meant =
            system::effective(&self.parts.method, &raw_query, &self.parts.headers, &[])?.method;
        let candidates = self.candidates(&meant)?;
        let caller = self.caller(&candidates, &raw_query).await?;
        let (api, call, means) = self.choose(candidates).await?;
        let named = (means == Means::Named).then_some(&api);
        let granted = match Wanted::of_path(named, &call) {
            Some(wanted) => Some(self.server.authorise(wanted, &caller).await?),
            // The path does not say what the call is about; the whole request will.
            None => None,
        };
        let known = means != Means::Any;
        if known {
            self.domain = api.name().to_string();
        }
        let body = self.read(body).await?;
        let headers = &self.parts.headers;
        let effective = system::effective(&self.parts.method, &raw_query, headers, &body)?;
        let (parameters, fields) = system::extract(&effective.query, headers)?;
        self.system = parameters;
        if let Some(mask) = &self.system.fields {
            mask.check(&call.method.output)?;
        }
        let rule = call.rule();
        let variables = match &call.variables {
            Ok(variables) => variables,
            Err(error) => return Err(Error::new(error.reason, error.message.clone())),
        };
        let parts = query::Parts { variables, query: &fields, body: effective.body };
        let message = query::bind(rule, &call.method.input, parts, &*self.server.apis)?;
        let answer = self
            .server
            .answer(Call {
                api: known.then(|| api.clone()),
                method: call.method.clone(),
                message: message.encode_to_bytes(),
                caller,
                granted,
            })
            .await?;
        self.render(&api, &call.method.output, rule.response_body.as_deref(), &answer)
    }

    /// Every rule that fits: several when the request names no API and APIs share the path.
    fn candidates(&mut self, verb: &HttpMethod) -> Result<Vec<Candidate>, Error> {
        let path = self.parts.uri.path();
        let host = self
            .parts
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| self.parts.headers.get(header::HOST)?.to_str().ok());
        let listener = self.listener_api.as_ref().map(|api| &**api.name());
        let which = self.server.apis.which(listener, host, path);
        let candidates = match which.api {
            Some(api) => {
                self.domain = api.name().to_string();
                api.find_http(verb, which.path).map(|call| (api, call)).into_iter().collect()
            }
            None => self.server.apis.candidates_http(verb, which.path),
        };
        if candidates.is_empty() {
            let verb = &self.parts.method;
            let domain = &self.domain;
            return Err(Error::new(
                Reason::MethodNotFound,
                format!(
                    "no method of {domain} is served at {verb} {path}; check verb, path and host"
                ),
            )
            .with("method", verb.as_str())
            .with("path", path.chars().take(256).collect::<String>()));
        }
        Ok(candidates)
    }

    /// Settles which API is meant, and whether that is known: among several the operation itself decides,
    /// a list or a start only when the program that sent it is known to talk to one API.
    async fn choose(
        &mut self,
        mut candidates: Vec<Candidate>,
    ) -> Result<(Arc<Api>, HttpCall, Means), Error> {
        let mut means = Means::Named;
        if candidates.len() > 1 {
            let by_operation = candidates.iter().all(|(_, call)| match &call.method.kind {
                MethodKind::Operations(verb) => *verb != OperationsVerb::List,
                MethodKind::Start(_)
                | MethodKind::Policy(_)
                | MethodKind::Native
                | MethodKind::Other => false,
            });
            let index = if by_operation {
                let Some(index) = self.owner(&candidates).await? else {
                    let (api, call) = candidates.swap_remove(0);
                    return Ok((api, call, Means::Any));
                };
                means = Means::Found;
                index
            } else {
                let agent = self.header("user-agent");
                let told = candidates.iter().position(|(api, _)| apis::is_gcloud_of(api, agent));
                let apis: Vec<_> = candidates.iter().map(|(api, _)| api).collect();
                told.ok_or_else(|| apis::ambiguous(&apis))?
            };
            candidates.swap(0, index);
        }
        let (api, call) = candidates.swap_remove(0);
        Ok((api, call, means))
    }

    /// Which candidate's API has the operation that the path names.
    async fn owner(&self, candidates: &[Candidate]) -> Result<Option<usize>, Error> {
        let name = candidates.iter().find_map(|(_, call)| {
            let variables = call.variables.as_ref().ok()?;
            let (_, name) = variables.iter().find(|(field, _)| field == "name")?;
            OperationName::parse(name).ok()
        });
        let Some(name) = name else { return Ok(None) };
        let owner = self.server.operations.store.get(&name).await?;
        Ok(owner
            .and_then(|owner| candidates.iter().position(|(api, _)| **api.name() == *owner.api)))
    }

    async fn read<B>(&self, body: B) -> Result<Bytes, Error>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let limits = &self.server.config.limits;
        let max = limits.body_bytes_max;
        let reading = Limited::new(body, max).collect();
        match tokio::time::timeout(limits.read_timeout, reading).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Error::new(
                Reason::BodyTooLarge,
                format!("the request body has more than {max} bytes; send less"),
            )
            .with("bytesMax", max.to_string())),
            Ok(Err(error)) => Err(Error::new(
                Reason::InvalidJson,
                "the request body broke off before its end; send it again",
            )
            .caused_by(error)),
            Err(_) => Err(Error::new(
                Reason::DeadlineExceeded,
                format!(
                    "the request body did not arrive within {} s; send it faster",
                    limits.read_timeout.as_secs()
                ),
            )),
        }
    }

    /// Who calls, by header, query or certificate. The first candidate's method is named to those who are
    /// not known: all candidates have the same.
    async fn caller(&self, candidates: &[Candidate], raw_query: &str) -> Result<Caller, Error> {
        let (api, call) =
            candidates.first().expect("an empty list of candidates is an error before");
        let api = (candidates.len() == 1).then_some(&**api);
        let query_token = system::query_token(raw_query);
        let credentials = Credentials {
            query_token: query_token.as_deref(),
            ..Credentials::of(&self.parts.headers, &self.parts.extensions)
        };
        let from = self.server.origin(&self.parts.headers, &self.parts.extensions);
        Ok(Caller {
            identity: self.server.identify(api, &call.method, credentials, &from).await?,
            from,
            edge: Edge::Json,
            deadline: None,
            traceparent: self.header("traceparent").into(),
            parent_operation: call::parent_operation(&self.parts.headers),
            authorization: self.server.for_cells(credentials),
            made: Made::default(),
        })
    }

    fn header(&self, name: &str) -> &str {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn render(
        &self,
        api: &Api,
        output: &MessageType,
        response_body: Option<&str>,
        answer: &Bytes,
    ) -> Result<Vec<u8>, Error> {
        let message = Message::decode(output, answer)?;
        let options = JsonOptions {
            enums_as_ints: self.system.enums_as_ints,
            pretty: self.system.pretty,
            always_print_defaults: self.system.print_defaults
                || api.settings().operations.print_defaults,
            ..JsonOptions::default()
        };
        let types = &*self.server.apis;
        let written = match response_body {
            Some(field) => json::field_to_json(&message, field, types, &options)?,
            None => json::to_json(&message, types, &options)?,
        };
        match &self.system.fields {
            Some(mask) => mask.apply(&written, self.system.pretty),
            None => Ok(written),
        }
    }

    fn write(&self, code: StatusCode, json: Vec<u8>) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=UTF-8"),
        );
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        let json = if json.len() >= GZIP_BYTES_MIN && accepts_gzip(&self.parts.headers) {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
            gzip(&json)
        } else {
            json
        };
        *response.body_mut() = Body::new(Full::new(Bytes::from(json)));
        response
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let Some(accepted) = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    accepted.split(',').any(|part| {
        let mut pieces = part.split(';');
        let coding = pieces.next().unwrap_or_default().trim();
        let refused =
            pieces.any(|piece| matches!(piece.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
    })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing into a vector cannot fail");
    encoder.finish().expect("writing into a vector cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_only_where_it_is_accepted() {
        let check = |text: &str, want: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            assert_eq!(accepts_gzip(&headers), want, "{text}");
        };
        check("gzip", true);
        check("gzip, deflate", true);
        check("identity", false);
        check("gzip;q=0", false);
        check("deflate;q=0.5, GZIP;q=0.1", true);
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
