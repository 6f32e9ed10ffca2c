//! What a server in `local` mode answers beside its APIs: the token endpoint and the metadata server.
//!
//! Owns their HTTP; what a token says is `longhaul-auth`'s. Neither is there in any other mode. Answers
//! here are those of Google's own endpoints, not of its APIs, so errors have another form.

mod metadata;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use longhaul_auth::local::{Grant, GrantError, LocalIdentity};
use longhaul_auth::{Mode, Secret};
use longhaul_core::{Error, Reason};
use serde_json::{Value, json};
use tonic::body::Body;

use crate::clock::Clock;
use crate::config::Config;
use crate::tls::Peer;

/// Where assertions are exchanged.
const TOKEN_PATH: &str = "/token";
/// Largest form that is read, in bytes: an assertion has one or two thousand.
const FORM_BYTES_MAX: usize = 32 << 10;
/// Source: RFC 7523, 2.1.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The identity as its file said last. Whoever watches the file puts the next one in its place.
pub(crate) type Current = Arc<ArcSwap<LocalIdentity>>;

/// The identity of the configuration, if it has one. Fails with `CONFIG_INVALID`.
pub(crate) fn load(config: &Config) -> Result<Option<Current>, Error> {
    let wrong = |message: String| Error::new(Reason::ConfigInvalid, message);
    let Some(file) = &config.auth.local else {
        return match config.auth.mode() {
            Mode::Local => Err(wrong(
                "auth.mode = \"local\" needs auth.local, the server.json that \"longhaul auth init\" makes".into(),
            )),
            Mode::Off | Mode::Jwt | Mode::Mtls | Mode::JwtAndMtls => Ok(None),
        };
    };
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| wrong(format!("auth.local = {shown:?} cannot be read: {error}")))?;
    Ok(Some(Arc::new(ArcSwap::from_pointee(LocalIdentity::parse(&text, &shown)?))))
}

/// The two services of a server in `local` mode.
pub(crate) struct Local {
    identity: Current,
    clock: Arc<dyn Clock>,
}

impl Local {
    /// None, unless the mode is `local`.
    pub(crate) fn new(
        config: &Config,
        identity: Option<Current>,
        clock: Arc<dyn Clock>,
    ) -> Option<Self> {
        let identity = identity.filter(|_| config.auth.mode() == Mode::Local)?;
        Some(Self { identity, clock })
    }

    /// Answers a request that is for one of them; gives back any other.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Request<Incoming>> {
        if request.uri().path() == TOKEN_PATH {
            return Ok(self.token(request).await);
        }
        let peer = request.extensions().get::<Arc<Peer>>();
        let is_near = peer.is_some_and(|peer| peer.address.ip().is_loopback());
        match metadata::Asked::of(&request, is_near) {
            Some(asked) => Ok(self.metadata(&asked)),
            None => Err(request),
        }
    }

    async fn token(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() != http::Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "send a POST");
        }
        let Ok(body) = Limited::new(request.into_body(), FORM_BYTES_MAX).collect().await else {
            return refuse(StatusCode::BAD_REQUEST, "invalid_request", "the form is too long");
        };
        let body = body.to_bytes();
        let form = String::from_utf8_lossy(&body);
        if field(&form, "grant_type").as_deref() != Some(JWT_BEARER) {
            let what =
                "only assertions of service accounts are taken, with the grant type jwt-bearer";
            return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", what);
        }
        let Some(assertion) = field(&form, "assertion") else {
            return refuse(StatusCode::BAD_REQUEST, "invalid_request", "assertion is missing");
        };
        let assertion = Secret::new(assertion);
        match self.identity.load().grant(assertion.expose(), self.clock.now()) {
            Ok(Grant::Access { token, expires_in }) => json_answer(
                StatusCode::OK,
                &json!({"access_token": token.expose(), "expires_in": expires_in, "token_type": "Bearer"}),
            ),
            Ok(Grant::Identity { token }) => {
                json_answer(StatusCode::OK, &json!({"id_token": token.expose()}))
            }
            Err(GrantError { error, description }) => {
                tracing::info!(error, description, "no token was given");
                refuse(StatusCode::BAD_REQUEST, error, &description)
            }
        }
    }
}

/// Source: RFC 6749, 5.2.
fn refuse(code: StatusCode, error: &str, description: &str) -> Response<Body> {
    json_answer(code, &json!({"error": error, "error_description": description}))
}

fn json_answer(code: StatusCode, value: &Value) -> Response<Body> {
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    let mut response = text_answer(code, value.to_string(), kind);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

fn text_answer(code: StatusCode, text: String, kind: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// One field of a form or a query.
fn field(form: &str, name: &str) -> Option<String> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    form.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}

/// Whether a header is there, whatever it says.
fn has(headers: &HeaderMap, name: &str) -> bool {
    headers.contains_key(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let form = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c&x=1+2%2B";
        assert_eq!(field(form, "grant_type").as_deref(), Some(JWT_BEARER));
        assert_eq!(field(form, "assertion").as_deref(), Some("a.b.c"));
        assert_eq!(field(form, "x").as_deref(), Some("1 2+"));
        assert_eq!(field(form, "y"), None);
        assert_eq!(field("recursive", "recursive").as_deref(), Some(""));
    }
}
