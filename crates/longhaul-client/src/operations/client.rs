//! The calls: one method each, all of them safe to repeat, so all are repeated when a server is
//! briefly unavailable.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longhaul_wire::message::Descriptors;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value;
use tonic::transport::Channel;

use super::name::to_path;
use super::wait::{WaitOptions, until_done};
use super::{Error, ListOptions, Operation, Page, StatusError, TransportError, TransportKind};
use crate::{Credentials, CredentialsError, Token, channel};

/// Longest wait for one answer. Servers may hold a get for some seconds on purpose.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes: a thousand large operations fit.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Calls in all for one request, the first included. Source: longrunning_grpc_service_config.json, 5.
pub(super) const TRIES: u32 = 5;
/// From the first try to the second; doubled each time.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(100);
/// A server that asks for a longer pause than this is not tried again.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A client of one server, for one of its APIs. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    version: String,
    host: Option<HeaderValue>,
    credentials: Credentials,
    /// The gRPC side, made when first used.
    channel: Arc<OnceLock<Channel>>,
    /// APIs of the caller's own.
    pub(super) known: Arc<Vec<Descriptors>>,
}

impl Client {
    /// A client of the server at `url`: `http` or `https`, with a path prefix if need be. For a loopback
    /// address the scheme may be left out. Connects only when a call is made.
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, &Credentials::default())
    }

    /// As [`Client::new`], showing and trusting what `credentials` say.
    pub fn connect_with(url: &str, credentials: &Credentials) -> Result<Self, Error> {
        let base = parse_base(url)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("longhaul/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // In HTTP/2 the URL's own host wins over the one of `with_host`.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        builder = tls(builder, credentials)?;
        let http = builder.build().map_err(|error| {
            Error::Transport(TransportError {
                kind: TransportKind::Connect,
                ..TransportError::read(base.as_str(), &error)
            })
        })?;
        Ok(Self {
            http,
            base,
            version: "v1".to_owned(),
            host: None,
            credentials: credentials.clone(),
            channel: Arc::default(),
            known: Arc::default(),
        })
    }

    /// Says which of the server's APIs is meant: by the prefix of its paths (`clouddeploy`) or, when
    /// `api` has a dot, by the name of its host (`clouddeploy.googleapis.com`).
    pub fn with_api(self, api: &str) -> Result<Self, Error> {
        if api.contains('.') {
            return self.with_host(api);
        }
        let prefix = to_path(api, "the API")?;
        let mut client = self;
        let path = format!("{}/{prefix}", client.base.path().trim_end_matches('/'));
        client.base.set_path(&path);
        Ok(client)
    }

    /// Sends this `Host` header (without a port) instead of the server's own name.
    pub fn with_host(mut self, host: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(host).ok().filter(|_| {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic() && !"/?#@".contains(c))
        });
        let Some(value) = value else {
            return Err(Error::InvalidArgument(format!(
                "{host:?} is not a host name; give one such as \"clouddeploy.googleapis.com\""
            )));
        };
        self.host = Some(value);
        Ok(self)
    }

    /// Sends this bearer token.
    pub fn with_token(mut self, token: &str) -> Result<Self, Error> {
        self.credentials.token = Some(Token::fixed(token).map_err(unusable)?);
        Ok(self)
    }

    /// Speaks this version of the API, `v1` unless said.
    pub fn with_version(mut self, version: &str) -> Result<Self, Error> {
        self.version = to_path(version, "the API version")?;
        Ok(self)
    }

    /// The server's URL, API prefix included.
    #[must_use]
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// The operation as it stands. Source: google/longrunning/operations.proto, GetOperation.
    pub async fn get(&self, name: &str) -> Result<Operation, Error> {
        let url = self.at(&to_path(name, "operation")?, &[]);
        let value = self.call(Method::GET, &url, None, ANSWER_TIMEOUT).await?;
        read_operation(&url, value)
    }

    /// One page of a list; `page_token` is empty for the first.
    /// Source: google/longrunning/operations.proto, ListOperations.
    pub async fn list_page(&self, options: &ListOptions, page_token: &str) -> Result<Page, Error> {
        let path = to_path(&options.collection(), "the collection")?;
        let url = self.at(&path, &options.query(page_token));
        let value = self.call(Method::GET, &url, None, ANSWER_TIMEOUT).await?;
        Page::read(url.as_str(), value)
    }

    /// All pages, up to `limit` operations; the token of the result is where a longer list would go on.
    pub async fn list(&self, options: &ListOptions, limit: usize) -> Result<Page, Error> {
        let mut all = Page::default();
        let mut options = options.clone();
        let asked = options.page_size;
        while all.operations.len() < limit {
            let missing = u32::try_from(limit - all.operations.len()).unwrap_or(u32::MAX);
            if limit != usize::MAX {
                options.page_size = if asked == 0 { missing.min(1000) } else { asked.min(missing) };
            }
            let page = self.list_page(&options, &all.next_page_token).await?;
            let repeated =
                !page.next_page_token.is_empty() && page.next_page_token == all.next_page_token;
            all.operations.extend(page.operations);
            all.unreachable.extend(page.unreachable);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                break;
            }
            if repeated {
                return Err(Error::Reply {
                    url: self.base.to_string(),
                    message: "the server gave the same page token twice".to_owned(),
                });
            }
        }
        all.operations.truncate(limit);
        all.unreachable.sort_unstable();
        all.unreachable.dedup();
        Ok(all)
    }

    /// Asks for cancellation; does not wait for it. Safe to repeat.
    /// Source: google/longrunning/operations.proto, CancelOperation.
    pub async fn cancel(&self, name: &str) -> Result<(), Error> {
        let url = self.at(&format!("{}:cancel", to_path(name, "operation")?), &[]);
        self.call(Method::POST, &url, Some("{}".to_owned()), ANSWER_TIMEOUT).await?;
        Ok(())
    }

    /// Forgets the operation; does not stop it.
    /// Source: google/longrunning/operations.proto, DeleteOperation.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let url = self.at(&to_path(name, "operation")?, &[]);
        self.call(Method::DELETE, &url, None, ANSWER_TIMEOUT).await?;
        Ok(())
    }

    /// Waits until the operation is done; `observe` sees every state on the way. Dropping the future
    /// cancels nothing. Fails with [`Error::Timeout`] when the time of `options` is over first.
    pub async fn wait(
        &self,
        name: &str,
        options: &WaitOptions,
        observe: &mut (dyn FnMut(&Operation) + Send),
    ) -> Result<Operation, Error> {
        let Some(hold) = options.hold else {
            return until_done(|| self.get(name), options, observe).await;
        };
        until_done(|| self.wait_once(name, hold), options, observe).await
    }

    /// One call that the server may hold until the operation is done or `hold` is over.
    /// Source: google/longrunning/operations.proto, WaitOperation.
    pub async fn wait_once(&self, name: &str, hold: Duration) -> Result<Operation, Error> {
        let url = self.at(&format!("{}:wait", to_path(name, "operation")?), &[]);
        let body = serde_json::json!({"timeout": format!("{:.3}s", hold.as_secs_f64())});
        let value =
            self.call(Method::POST, &url, Some(body.to_string()), hold + ANSWER_TIMEOUT).await?;
        read_operation(&url, value)
    }

    /// A call of Longhaul's own API, for what google.longrunning has no words for: `path` below `longhaul/v1/`,
    /// such as `NAME:describe`, as a GET or, with a body, a POST. Other servers answer that they have no such
    /// path. Source: proto/longhaul/v1/longhaul.yaml.
    pub async fn longhaul(&self, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let (name, verb) = path.rsplit_once(':').unwrap_or((path, ""));
        let mut url = self.base.clone();
        let prefix = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{prefix}/longhaul/v1/{}:{verb}", to_path(name, "operation")?));
        let method = if body.is_some() { Method::POST } else { Method::GET };
        self.call(method, &url, body.map(Value::to_string), ANSWER_TIMEOUT).await
    }

    /// One POST that starts an operation.
    pub(super) async fn post(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: &Value,
        repeatable: bool,
    ) -> Result<Operation, Error> {
        let url = self.at(&to_path(path, "the collection")?, query);
        let body = Some(body.to_string());
        let value = if repeatable {
            self.call(Method::POST, &url, body, ANSWER_TIMEOUT).await?
        } else {
            self.call_once(Method::POST, &url, body, ANSWER_TIMEOUT).await?
        };
        read_operation(&url, value)
    }

    pub(super) fn token(&self) -> Option<&Token> {
        self.credentials.token.as_ref()
    }

    /// The gRPC connection; what is called over it has a path of its own in every API, so no host is named.
    /// Within a Tokio runtime.
    pub(super) fn channel(&self) -> Result<Channel, Error> {
        if let Some(channel) = self.channel.get() {
            return Ok(channel.clone());
        }
        let server = self.base.origin().ascii_serialization();
        let endpoint = channel::endpoint(&server, &self.credentials)
            .map_err(|why| Error::InvalidArgument(format!("server URL {server:?} {why}")))?;
        Ok(self.channel.get_or_init(|| endpoint.connect_lazy()).clone())
    }

    /// A GET of any path below the server's URL, such as `readyz`: the HTTP status and the text.
    pub async fn probe(&self, path: &str) -> Result<(u16, String), Error> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        let (status, _, body) = self.send(Method::GET, &url, None, ANSWER_TIMEOUT).await?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn at(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        let prefix = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{prefix}/{}/{path}", self.version));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends until the answer is final, and reads it as JSON.
    async fn call(
        &self,
        method: Method,
        url: &Url,
        body: Option<String>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let mut pause = RETRY_FIRST;
        let mut tries = 1;
        loop {
            let error = match self.call_once(method.clone(), url, body.clone(), timeout).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let Some(wait) = retry_pause(&error, pause).filter(|_| tries < TRIES) else {
                return Err(error);
            };
            tracing::debug!(%error, tries, "repeating a call");
            tokio::time::sleep(wait).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn call_once(
        &self,
        method: Method,
        url: &Url,
        body: Option<String>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let (status, content_type, body) = self.send(method, url, body, timeout).await?;
        if !(200..300).contains(&status) {
            let error = StatusError::read(url.as_str(), status, &content_type, &body);
            return Err(Error::Status(Box::new(error)));
        }
        if body.is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_slice(&body).map_err(|error| Error::Reply {
            url: url.to_string(),
            message: format!("not JSON ({error}); is this a server of google.longrunning?"),
        })
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        body: Option<String>,
        timeout: Duration,
    ) -> Result<(u16, String, Vec<u8>), Error> {
        let broken = |error| Error::Transport(TransportError::read(url.as_str(), &error));
        let mut request = self.http.request(method, url.clone()).timeout(timeout);
        if let Some(host) = &self.host {
            request = request.header(HOST, host.clone());
        }
        if let Some(token) = self.token() {
            request = request.header(AUTHORIZATION, token.header().await.map_err(Error::Token)?);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type =
            content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::Reply {
                    url: url.to_string(),
                    message: format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"),
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((status, content_type, bytes))
    }
}

/// How long to pause before a repeat; `None` when repeating cannot help. A server that nobody listens
/// for is told at once: whoever typed the URL wants to know.
pub(super) fn retry_pause(error: &Error, pause: Duration) -> Option<Duration> {
    match error {
        Error::Transport(error) => match error.kind {
            TransportKind::Broken => Some(pause),
            TransportKind::Connect | TransportKind::Timeout => None,
        },
        Error::Status(status) if status.http == 503 || status.status == "UNAVAILABLE" => {
            let wait = status.retry_after.unwrap_or(pause);
            (wait <= RETRY_LONGEST).then_some(wait)
        }
        Error::Status(_)
        | Error::InvalidArgument(_)
        | Error::Token(_)
        | Error::Reply { .. }
        | Error::Timeout { .. }
        | Error::Detached { .. } => None,
    }
}

fn tls(
    mut builder: reqwest::ClientBuilder,
    credentials: &Credentials,
) -> Result<reqwest::ClientBuilder, Error> {
    let wrong = |error: reqwest::Error| {
        Error::InvalidArgument(format!("the certificates cannot be used: {error}"))
    };
    if let Some(ca) = &credentials.ca {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(ca).map_err(wrong)?);
    }
    if let Some(identity) = &credentials.identity {
        let identity = reqwest::Identity::from_pem(&identity.joined()).map_err(wrong)?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

fn unusable(error: CredentialsError) -> Error {
    Error::InvalidArgument(error.to_string())
}

fn read_operation(url: &Url, value: Value) -> Result<Operation, Error> {
    let operation = Operation::from_json(value);
    operation.ok().filter(|operation| !operation.name().is_empty()).ok_or_else(|| Error::Reply {
        url: url.to_string(),
        message: "not an operation: a JSON object with a name was expected".to_owned(),
    })
}

fn parse_base(text: &str) -> Result<Url, Error> {
    let wrong = |why: &str| {
        Error::InvalidArgument(format!(
            "server URL {text:?} {why}; give one such as http://127.0.0.1:7151 or https://clouddeploy.googleapis.com"
        ))
    };
    let url = if text.contains("://") {
        Url::parse(text).map_err(|error| wrong(&format!("is malformed ({error})")))?
    } else {
        let url = Url::parse(&format!("http://{text}"));
        let url = url.map_err(|error| wrong(&format!("is malformed ({error})")))?;
        if !is_loopback(&url) {
            return Err(wrong("has no scheme"));
        }
        url
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not carry a user or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must end with its path"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_url(text: &str, url: Option<&str>) {
        assert_eq!(Client::new(text).ok().as_ref().map(Client::url), url, "{text}");
    }

    #[test]
    fn server_urls_are_checked_before_anything_is_sent() {
        check_url("http://127.0.0.1:7151", Some("http://127.0.0.1:7151/"));
        check_url("127.0.0.1:7151", Some("http://127.0.0.1:7151/"));
        check_url("localhost:7151", Some("http://localhost:7151/"));
        check_url("[::1]:7151", Some("http://[::1]:7151/"));
        check_url("https://example.com/prefix", Some("https://example.com/prefix"));
        check_url("example.com", None);
        check_url("ftp://127.0.0.1", None);
        check_url("http://me:secret@127.0.0.1", None);
        check_url("http://127.0.0.1/?x=1", None);
        check_url("http://", None);
        check_url("", None);
    }

    #[test]
    fn an_api_is_a_path_prefix_or_a_host() {
        let client = Client::new("http://127.0.0.1:1/base/").unwrap();
        let by_prefix = client.clone().with_api("clouddeploy").unwrap();
        assert_eq!(by_prefix.url(), "http://127.0.0.1:1/base/clouddeploy");
        assert_eq!(
            by_prefix.at("operations/a%3Ab", &[]).as_str(),
            "http://127.0.0.1:1/base/clouddeploy/v1/operations/a%3Ab"
        );
        let by_host = client.clone().with_api("clouddeploy.googleapis.com").unwrap();
        assert_eq!(by_host.url(), client.url());
        assert_eq!(by_host.host.unwrap(), "clouddeploy.googleapis.com");
        assert!(client.clone().with_api("").is_err());
        assert!(client.clone().with_host("a b.c").is_err());
        assert!(client.with_token("a\nb").is_err());
    }
}
