//! gRPC connections for both sides of this crate: keep-alive, TLS, and who is calling.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::{Credentials, Token};

/// How often an open connection is tried, and how long the answer to that may take: a connection that
/// died silently must be noticed well within a lease.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to connect: `http://` or `https://`. Fails with what is wrong with the URL or certificates.
pub(crate) fn endpoint(url: &str, credentials: &Credentials) -> Result<Endpoint, String> {
    let secure = url.starts_with("https://");
    if !secure && !url.starts_with("http://") {
        return Err("must begin with http:// or https://".to_owned());
    }
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| format!("is malformed ({error})"))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true);
    if !secure {
        return Ok(endpoint);
    }
    let endpoint = endpoint.tls_config(tls(credentials));
    endpoint.map_err(|error| format!("needs certificates that can be used ({error})"))
}

fn tls(credentials: &Credentials) -> ClientTlsConfig {
    let mut tls = match &credentials.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some(identity) = &credentials.identity {
        tls = tls.identity(Identity::from_pem(&identity.certificate, &identity.key));
    }
    tls
}

/// A call that carries the token. Fails as unavailable when none can be had at the moment.
pub(crate) async fn request<M>(
    message: M,
    timeout: Option<Duration>,
    token: Option<&Token>,
) -> Result<Request<M>, Status> {
    let mut request = Request::new(message);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    if let Some(token) = token {
        let header = token.header().await;
        let header = header.map_err(|error| {
            tracing::warn!(%error, "a call needs a token and there is none");
            Status::unavailable(error.to_string())
        })?;
        let value = MetadataValue::try_from(header.as_bytes());
        let mut value = value.map_err(|error| Status::internal(error.to_string()))?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
    }
    Ok(request)
}
