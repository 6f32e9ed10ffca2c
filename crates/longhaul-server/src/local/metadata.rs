//! The metadata server of a Compute Engine machine, as far as clients ask it who they are.
//!
//! Only for callers on this machine, only with `Metadata-Flavor: Google`, and never through a proxy: as on a
//! real machine, a token is worth whatever the account may do.
//! Source: cloud.google.com/compute/docs/metadata/querying-metadata.

use http::{HeaderValue, Request, Response, StatusCode};
use longhaul_auth::identity::CLOUD_PLATFORM;
use longhaul_auth::local::{Account, TOKEN_LIFE};
use longhaul_core::Error;
use serde_json::{Value, json};
use tonic::body::Body;

use super::{Local, field, has, json_answer, text_answer};

const FLAVOR: &str = "metadata-flavor";
const ROOT: &str = "/computeMetadata/v1";
const ACCOUNTS: &str = "instance/service-accounts";
/// A place that every client can parse; the machine has no other.
const ZONE: &str = "us-central1-a";

/// A request for the metadata server.
pub(super) enum Asked {
    /// May be answered: the path below the root, and the query.
    For(String, String),
    /// Whether there is a metadata server at all.
    Ping,
    /// Must not be answered, with the reason.
    Refused(&'static str),
}

impl Asked {
    /// `None` when the request is for something else.
    pub(super) fn of<B>(request: &Request<B>, is_near: bool) -> Option<Self> {
        let path = request.uri().path();
        let below =
            path.strip_prefix(ROOT).filter(|below| below.is_empty() || below.starts_with('/'));
        let flavored =
            request.headers().get(FLAVOR).is_some_and(|value| value.as_bytes() == b"Google");
        if below.is_none() {
            return (flavored && matches!(path, "/" | "/computeMetadata" | "/computeMetadata/"))
                .then_some(Self::Ping);
        }
        Some(if !is_near {
            Self::Refused("only callers on this machine are answered")
        } else if has(request.headers(), "x-forwarded-for") {
            Self::Refused("requests with X-Forwarded-For are not answered")
        } else if !flavored {
            Self::Refused("the header Metadata-Flavor: Google is missing")
        } else if request.method() != http::Method::GET {
            Self::Refused("only GET is answered")
        } else {
            let below = below.unwrap_or_default().trim_matches('/').to_owned();
            Self::For(below, request.uri().query().unwrap_or_default().to_owned())
        })
    }
}

impl Local {
    pub(super) fn metadata(&self, asked: &Asked) -> Response<Body> {
        let mut response = match asked {
            Asked::Refused(why) => text(StatusCode::FORBIDDEN, &format!("{why}\n")),
            Asked::Ping => text(StatusCode::OK, "computeMetadata/\n"),
            Asked::For(path, query) => self.look_up(path, query).unwrap_or_else(|error| {
                crate::log_failure(&error);
                text(StatusCode::SERVICE_UNAVAILABLE, "try again\n")
            }),
        };
        let headers = response.headers_mut();
        headers.insert(FLAVOR, HeaderValue::from_static("Google"));
        headers.insert("server", HeaderValue::from_static("Metadata Server for VM"));
        response
    }

    fn look_up(&self, path: &str, query: &str) -> Result<Response<Body>, Error> {
        let identity = self.identity.load();
        let account = identity.default_account();
        let number = &account.project_number;
        if let Some(below) = path.strip_prefix(ACCOUNTS) {
            return self.account(below.trim_start_matches('/'), query);
        }
        let found = match path {
            "" => "instance/\nproject/\nuniverse/\n",
            "project" => "numeric-project-id\nproject-id\n",
            "project/project-id" => &account.project_id,
            "project/numeric-project-id" => number,
            "instance" => "id\nservice-accounts/\nzone\n",
            "instance/id" => &account.client_id.chars().take(19).collect::<String>(),
            "instance/zone" => &format!("projects/{number}/zones/{ZONE}"),
            "universe/universe-domain" => "googleapis.com",
            _ => return Ok(not_found()),
        };
        Ok(text(StatusCode::OK, found))
    }

    fn account(&self, below: &str, query: &str) -> Result<Response<Body>, Error> {
        let identity = self.identity.load();
        let account = identity.default_account();
        let recursive = matches!(field(query, "recursive").as_deref(), Some("true" | "True" | ""));
        let email = &account.client_email;
        if below.is_empty() {
            if recursive {
                let all = json!({"default": about(account), email: about(account)});
                return Ok(json_answer(StatusCode::OK, &all));
            }
            return Ok(text(StatusCode::OK, &format!("default/\n{email}/\n")));
        }
        let (name, what) = below.split_once('/').unwrap_or((below, ""));
        if name != "default" && name != email {
            return Ok(not_found());
        }
        Ok(match what {
            "" if recursive => json_answer(StatusCode::OK, &about(account)),
            "" => text(StatusCode::OK, "aliases\nemail\nidentity\nscopes\ntoken\n"),
            "aliases" => text(StatusCode::OK, "default\n"),
            "email" => text(StatusCode::OK, email),
            "scopes" => text(StatusCode::OK, &format!("{CLOUD_PLATFORM}\n")),
            "token" => {
                let scopes = field(query, "scopes").filter(|scopes| !scopes.is_empty());
                let scopes = scopes.map_or(CLOUD_PLATFORM.to_owned(), |all| all.replace(',', " "));
                let now = self.clock.now();
                let token = identity.access_token(account, &scopes, now, TOKEN_LIFE)?;
                let life = TOKEN_LIFE.as_secs();
                let token = json!({"access_token": token.expose(), "expires_in": life, "token_type": "Bearer"});
                json_answer(StatusCode::OK, &token)
            }
            "identity" => match field(query, "audience").filter(|audience| !audience.is_empty()) {
                None => text(StatusCode::BAD_REQUEST, "non-empty audience parameter required\n"),
                Some(audience) => {
                    let now = self.clock.now();
                    let token = identity.identity_token(account, &audience, now)?;
                    text(StatusCode::OK, token.expose())
                }
            },
            _ => not_found(),
        })
    }
}

/// What `?recursive=true` says of an account.
fn about(account: &Account) -> Value {
    json!({"aliases": ["default"], "email": account.client_email, "scopes": [CLOUD_PLATFORM]})
}

fn text(code: StatusCode, text: &str) -> Response<Body> {
    text_answer(code, text.to_owned(), HeaderValue::from_static("application/text"))
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "there is no such metadata here\n")
}
