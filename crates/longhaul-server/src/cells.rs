//! Cells: servers of other locations, each with a store of its own, whose operations a list over all
//! locations shows as well.
//!
//! Owns whom to ask, in which order, and what is said of those who do not answer. Refuses to pass on anything
//! but lists: an operation is at home in one cell, and its name says in which.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use longhaul_auth::Secret;
use longhaul_core::{Error, Reason};
use longhaul_wire::api::Api;
use longhaul_wire::apis::Apis;
use longhaul_wire::codec::BytesCodec;
use longhaul_wire::convert::{self, Edge};
use longhaul_wire::longrunning::{ListOperationsRequest, ListOperationsResponse};
use prost::Message as _;
use serde::Deserialize;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::config::{duration, invalid};

const LIST: &str = "/google.longrunning.Operations/ListOperations";

/// Largest page of a cell that is read, in bytes: as many operations as a page has, most of them small.
const PAGE_BYTES_MAX: usize = 64 << 20;

/// When a call that needed a silent cell is worth repeating.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One cell to ask when a list goes over all locations.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellConfig {
    /// Its location as it stands in names, such as `europe-west1`.
    pub location: String,
    /// Where its servers, or what stands in front of them, take gRPC: `http://` or `https://`.
    pub url: String,
    /// The authority of its certificate, PEM; absent: those that the system trusts.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Longest wait for a page of it, so that a cell that is down does not hold up the others for long.
    #[serde(default = "timeout", deserialize_with = "duration")]
    pub timeout: Duration,
}

fn timeout() -> Duration {
    Duration::from_secs(2)
}

/// All cells, in the order in which they are asked.
#[derive(Debug, Default)]
pub(crate) struct Cells(Vec<Cell>);

#[derive(Debug)]
struct Cell {
    location: String,
    timeout: Duration,
    /// One for each API, by its name: the API that is meant goes as `:authority`.
    channels: BTreeMap<Arc<str>, Channel>,
}

/// Where in a cell a page begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct At {
    location: String,
    /// The cell's own page token; empty at its beginning.
    token: String,
}

/// What is asked of each cell.
pub(crate) struct Ask<'a> {
    pub api: &'a Api,
    /// Ends in `/-`.
    pub parent: &'a str,
    pub filter: &'a str,
    pub page_size: usize,
    /// Whether silent cells are named instead of being an error.
    pub partial: bool,
    pub edge: Edge,
    /// What the caller showed: each cell decides for itself what they may see.
    pub authorization: Option<&'a Secret>,
}

impl Cells {
    /// Prepares the connections; they are made when they are needed. Fails with `CONFIG_INVALID`.
    pub(crate) fn new(configs: &[CellConfig], apis: &Apis) -> Result<Self, Error> {
        let mut cells: Vec<Cell> = Vec::with_capacity(configs.len());
        for config in configs {
            let location = &config.location;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if location.is_empty() || location == "-" || !location.chars().all(plain) {
                return Err(invalid(format!(
                    "[[cell]] location = {location:?} is not the name of a location, such as \"europe-west1\""
                )));
            }
            if cells.iter().any(|cell| cell.location == *location) {
                return Err(invalid(format!("two [[cell]] have the location \"{location}\"")));
            }
            if config.timeout.is_zero() {
                return Err(invalid(format!("[[cell]] {location}: timeout must be above zero")));
            }
            let endpoint = endpoint(config)?;
            let channel = |api: &Arc<Api>| {
                let origin = format!("{}://{}", endpoint.uri().scheme_str()?, api.name());
                let endpoint = endpoint.clone().origin(origin.parse().ok()?);
                Some((api.name().clone(), endpoint.connect_lazy()))
            };
            let channels = apis.all().iter().filter_map(channel).collect();
            cells.push(Cell { location: location.clone(), timeout: config.timeout, channels });
        }
        Ok(Self(cells))
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where to go on when this server's own operations are told.
    pub(crate) fn first(&self) -> Option<At> {
        self.0.first().map(Cell::beginning)
    }

    /// Adds to a page what the cells have from `at` on, until it is full. Returns where the next one begins.
    ///
    /// Fails with `CELL_UNREACHABLE` for a cell that does not answer, unless such are to be named; with
    /// `IAM_PERMISSION_DENIED` and `INVALID_VALUE` where a cell says so, and with `INVALID_PAGE_TOKEN` for a
    /// place in a cell that is configured no more.
    pub(crate) async fn fill(
        &self,
        ask: &Ask<'_>,
        at: At,
        page: &mut ListOperationsResponse,
    ) -> Result<Option<At>, Error> {
        let place = self.0.iter().position(|cell| cell.location == at.location);
        let place = place.ok_or_else(|| {
            let what = "names a location that is not asked any more; start again without it";
            Error::new(Reason::InvalidPageToken, format!("the page token {what}"))
                .at_field("page_token", what)
        })?;
        let mut token = at.token;
        for cell in &self.0[place..] {
            let left = ask.page_size.saturating_sub(page.operations.len());
            if left == 0 {
                return Ok(Some(At { location: cell.location.clone(), token }));
            }
            let parent = cell.parent(ask.parent);
            match cell.page(ask, &parent, left, std::mem::take(&mut token)).await {
                Ok(mut found) => {
                    for operation in &mut found.operations {
                        convert::for_edge(operation, ask.api, ask.edge);
                    }
                    page.operations.append(&mut found.operations);
                    if !found.next_page_token.is_empty() {
                        let (location, token) = (cell.location.clone(), found.next_page_token);
                        return Ok(Some(At { location, token }));
                    }
                }
                Err(status) => {
                    let error = cell.refused(&status);
                    if error.reason != Reason::CellUnreachable || !ask.partial {
                        return Err(error);
                    }
                    tracing::warn!(location = %cell.location, %status, "a cell does not answer");
                    page.unreachable.push(parent);
                }
            }
        }
        Ok(None)
    }
}

impl Cell {
    fn beginning(&self) -> At {
        At { location: self.location.clone(), token: String::new() }
    }

    /// A parent over all locations, in this one.
    fn parent(&self, everywhere: &str) -> String {
        let before = everywhere.strip_suffix('-').unwrap_or(everywhere);
        format!("{before}{}", self.location)
    }

    async fn page(
        &self,
        ask: &Ask<'_>,
        parent: &str,
        size: usize,
        token: String,
    ) -> Result<ListOperationsResponse, Status> {
        let Some(channel) = self.channels.get(ask.api.name()) else {
            return Err(Status::unavailable("no connection can name this API"));
        };
        let message = ListOperationsRequest {
            name: parent.to_owned(),
            filter: ask.filter.to_owned(),
            page_size: i32::try_from(size).unwrap_or(i32::MAX),
            page_token: token,
            return_partial_success: false,
        };
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        request.set_timeout(self.timeout);
        if let Some(shown) = ask.authorization {
            let value = MetadataValue::try_from(shown.expose().as_bytes());
            let mut value = value.map_err(|_| Status::unauthenticated("no token can be told"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        let answer = async {
            let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(PAGE_BYTES_MAX);
            let away = |error: tonic::transport::Error| Status::from_error(error.into());
            grpc.ready().await.map_err(away)?;
            grpc.unary(request, PathAndQuery::from_static(LIST), BytesCodec).await
        };
        let answer = tokio::time::timeout(self.timeout, answer).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??;
        ListOperationsResponse::decode(answer.into_inner())
            .map_err(|error| Status::internal(format!("the answer is no list: {error}")))
    }

    /// What the caller hears of a cell's refusal.
    fn refused(&self, status: &Status) -> Error {
        let said = |what: &str| format!("location {}: {what}", self.location);
        let error = match status.code() {
            Code::PermissionDenied => {
                Error::new(Reason::IamPermissionDenied, said(status.message()))
            }
            Code::Unauthenticated => Error::new(
                Reason::IamPermissionDenied,
                said("its servers do not know the caller; only tokens are passed on, and they must be good there too"),
            ),
            Code::InvalidArgument => Error::new(Reason::InvalidValue, said(status.message())),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Error::new(
                Reason::CellUnreachable,
                said("its servers do not answer; list single locations, or set return_partial_success to be told the others"),
            )
            .retry_after(RETRY_AFTER)
            .caused_by(status.to_string()),
        };
        error.with("location", self.location.clone())
    }
}

impl At {
    /// As the bytes that a page token seals.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.location.as_bytes(), &[0], self.token.as_bytes()].concat()
    }

    /// The place that the bytes say; `None` when they are of another kind.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (location, token) = std::str::from_utf8(bytes).ok()?.split_once('\0')?;
        Some(Self { location: location.to_owned(), token: token.to_owned() })
    }
}

fn endpoint(config: &CellConfig) -> Result<Endpoint, Error> {
    let wrong = |why: String| invalid(format!("[[cell]] {}: {why}", config.location));
    let secure = config.url.starts_with("https://");
    if !secure && !config.url.starts_with("http://") {
        return Err(wrong(format!("url = {:?} must begin with http:// or https://", config.url)));
    }
    let endpoint = Endpoint::from_shared(config.url.clone());
    let endpoint = endpoint
        .map_err(|error| wrong(format!("url = {:?} is malformed ({error})", config.url)))?
        .tcp_nodelay(true)
        .connect_timeout(config.timeout)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(config.timeout);
    if !secure {
        return Ok(endpoint);
    }
    let tls = match &config.ca {
        Some(file) => {
            let pem = std::fs::read(file)
                .map_err(|error| wrong(format!("ca = {}: {error}", file.display())))?;
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
        }
        None => ClientTlsConfig::new().with_native_roots(),
    };
    endpoint
        .tls_config(tls)
        .map_err(|error| wrong(format!("its certificates cannot be checked ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn cells(text: &str) -> Result<Cells, Error> {
        let config = Config::parse(&format!("[auth]\nmode = \"off\"\n{text}"), "test.toml")?;
        let apis: Result<Vec<_>, _> = config.apis.iter().map(crate::config::load_api).collect();
        Cells::new(&config.cells, &Apis::new(apis?)?)
    }

    #[track_caller]
    fn check_refused(text: &str, word: &str) {
        let error = cells(text).unwrap_err();
        assert_eq!(error.reason, Reason::ConfigInvalid);
        assert!(error.message.contains(word), "{}", error.message);
    }

    #[tokio::test]
    async fn cells_have_a_location_of_their_own_and_a_url() {
        let one = "[[cell]]\nlocation = \"eu\"\nurl = \"http://127.0.0.1:1\"\n";
        assert_eq!(cells(one).unwrap().first().unwrap().location, "eu");
        assert!(cells("").unwrap().is_empty());
        check_refused(&format!("{one}{one}"), "two [[cell]]");
        check_refused(&one.replace("\"eu\"", "\"-\""), "not the name of a location");
        check_refused(&one.replace("\"eu\"", "\"a/b\""), "not the name of a location");
        check_refused(&one.replace("http://", ""), "must begin with");
        check_refused(&format!("{one}timeout = \"0s\""), "above zero");
        let secure = one.replace("http:", "https:");
        check_refused(&format!("{secure}ca = \"/nowhere/ca.pem\""), "/nowhere/ca.pem");
    }

    #[test]
    fn a_place_reads_back() {
        for (location, token) in [("eu", ""), ("europe-west1", "AbC_-")] {
            let at = At { location: location.into(), token: token.into() };
            assert_eq!(At::read(&at.bytes()), Some(at));
        }
        assert_eq!(At::read(b"no end"), None);
        assert_eq!(At::read(&[0xff, 0, 1]), None);
    }
}
