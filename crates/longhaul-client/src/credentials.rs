//! Who a caller is and whom it trusts: a bearer token, a CA, a certificate of its own.
//!
//! One value for both sides of this crate. Owns where tokens come from and when they are read again;
//! refuses to know what a server makes of them.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use parking_lot::Mutex;

/// What a client or a worker shows to a server, and which servers it believes. The default shows
/// nothing and believes whatever the system's certificate authorities say.
///
/// ```no_run
/// use longhaul_client::{Credentials, Token};
///
/// # fn example() -> Result<(), longhaul_client::CredentialsError> {
/// let credentials = Credentials {
///     token: Some(Token::file("/var/run/secrets/longhaul/token")?),
///     ..Credentials::default()
/// }
/// .with_ca_file("/etc/longhaul/ca.pem")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Sent with every call as `authorization: Bearer …`.
    pub token: Option<Token>,
    /// Believed instead of the system's certificate authorities: one or more certificates, PEM. Means
    /// nothing for `http://`.
    pub ca: Option<Vec<u8>>,
    /// Shown to servers that ask for a client's certificate. Means nothing for `http://`.
    pub identity: Option<Identity>,
}

/// A certificate with its private key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate and those between it and the CA, PEM.
    pub certificate: Vec<u8>,
    /// The private key, PEM.
    pub key: Vec<u8>,
}

/// Where bearer tokens come from. Cheap to clone.
#[derive(Clone)]
pub struct Token(Source);

type Fetched = Pin<Box<dyn Future<Output = Result<String, Box<dyn Error + Send + Sync>>> + Send>>;

#[derive(Clone)]
enum Source {
    Fixed(HeaderValue),
    File(Arc<TokenFile>),
    Fetch(Arc<dyn Fn() -> Fetched + Send + Sync>),
}

struct TokenFile {
    path: PathBuf,
    /// The token as it was read last, and what the file looked like then.
    read: Mutex<Option<(Look, HeaderValue)>>,
}

/// By what a change of a file shows.
#[derive(Clone, Copy, PartialEq)]
struct Look {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// What is wrong with a token, a certificate or a file that should hold one. Never says what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsError(String);

impl Credentials {
    /// What the environment says: `LONGHAUL_TOKEN_FILE` or `LONGHAUL_TOKEN`, `LONGHAUL_CA_FILE`,
    /// `LONGHAUL_CLIENT_CERT_FILE` with `LONGHAUL_CLIENT_KEY_FILE`. A variable that is empty counts as
    /// absent. Reads the files.
    pub fn from_env() -> Result<Self, CredentialsError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let file = |name: &str| variable(name).map(PathBuf::from);
        let fixed = || {
            let token = variable("LONGHAUL_TOKEN")?;
            Some(Token::fixed(&token.to_string_lossy()))
        };
        let mut credentials = Self::from_files(
            file("LONGHAUL_TOKEN_FILE").as_deref(),
            file("LONGHAUL_CA_FILE").as_deref(),
            file("LONGHAUL_CLIENT_CERT_FILE").as_deref(),
            file("LONGHAUL_CLIENT_KEY_FILE").as_deref(),
        )?;
        if credentials.token.is_none() {
            credentials.token = fixed().transpose()?;
        }
        Ok(credentials)
    }

    /// What these files hold. A certificate needs its key and a key its certificate.
    pub fn from_files(
        token: Option<&Path>,
        ca: Option<&Path>,
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Self, CredentialsError> {
        let mut credentials =
            Self { token: token.map(Token::file).transpose()?, ..Self::default() };
        if let Some(ca) = ca {
            credentials = credentials.with_ca_file(ca)?;
        }
        match (certificate, key) {
            (Some(certificate), Some(key)) => credentials.with_identity_files(certificate, key),
            (None, None) => Ok(credentials),
            (Some(alone), None) => Err(CredentialsError(format!(
                "certificate {} has no key; give the file of its key, too",
                alone.display()
            ))),
            (None, Some(alone)) => Err(CredentialsError(format!(
                "key {} has no certificate; give the file of its certificate, too",
                alone.display()
            ))),
        }
    }

    /// With the token source.
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// With the certificates in a file in place of the system's authorities. Read once, now.
    pub fn with_ca_file(mut self, path: impl AsRef<Path>) -> Result<Self, CredentialsError> {
        let (path, pem) = (path.as_ref(), read(path.as_ref(), "certificates")?);
        let found = reqwest::Certificate::from_pem_bundle(&pem);
        if found.is_ok_and(|found| !found.is_empty()) {
            self.ca = Some(pem);
            return Ok(self);
        }
        Err(CredentialsError(format!("{} holds no certificate in PEM", path.display())))
    }

    /// With a certificate and its key. Read once, now.
    pub fn with_identity_files(
        mut self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, CredentialsError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let identity = Identity {
            certificate: read(certificate, "a certificate")?,
            key: read(key, "a private key")?,
        };
        reqwest::Identity::from_pem(&identity.joined()).map_err(|_| {
            CredentialsError(format!(
                "{} and {} hold no certificate and private key in PEM",
                certificate.display(),
                key.display()
            ))
        })?;
        self.identity = Some(identity);
        Ok(self)
    }
}

impl Identity {
    pub(crate) fn joined(&self) -> Vec<u8> {
        [&self.certificate[..], b"\n", &self.key].concat()
    }
}

impl Token {
    /// Always this one. Fails when it has characters that no header can carry.
    pub fn fixed(token: &str) -> Result<Self, CredentialsError> {
        Ok(Self(Source::Fixed(bearer(token)?)))
    }

    /// The one in a file, which is looked at before each call and read again when it has changed. Fails
    /// when there is none now; what becomes of the file later is a matter of the calls.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self, CredentialsError> {
        let file = TokenFile { path: path.into(), read: Mutex::new(None) };
        file.header()?;
        Ok(Self(Source::File(Arc::new(file))))
    }

    /// The one that `fetch` answers with. It is asked before every call, several times at once too, so
    /// it should keep a token for as long as that is good.
    pub fn from_fn<F, R, E>(fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self(Source::Fetch(Arc::new(move || {
            let fetching = fetch();
            Box::pin(async move { fetching.await.map_err(Into::into) })
        })))
    }

    /// Whether another token may come by itself.
    pub(crate) fn renews(&self) -> bool {
        match &self.0 {
            Source::Fixed(_) => false,
            Source::File(_) | Source::Fetch(_) => true,
        }
    }

    /// The value of the `authorization` header for one call.
    pub(crate) async fn header(&self) -> Result<HeaderValue, CredentialsError> {
        match &self.0 {
            Source::Fixed(value) => Ok(value.clone()),
            Source::File(file) => file.header(),
            Source::Fetch(fetch) => match fetch().await {
                Ok(token) => bearer(&token),
                Err(error) => Err(CredentialsError(format!("no token could be had: {error}"))),
            },
        }
    }
}

impl TokenFile {
    /// One look at the file's metadata, which takes microseconds, unless it has changed.
    fn header(&self) -> Result<HeaderValue, CredentialsError> {
        let look = Look::at(&self.path);
        let mut last = self.read.lock();
        if let (Some((then, value)), Ok(now)) = (&*last, &look)
            && then == now
        {
            return Ok(value.clone());
        }
        let text = read(&self.path, "a token")?;
        let text = String::from_utf8_lossy(&text);
        if text.trim().is_empty() {
            return Err(CredentialsError(format!("{} holds no token", self.path.display())));
        }
        let value = bearer(&text)?;
        *last = look.ok().map(|look| (look, value.clone()));
        Ok(value)
    }
}

impl Look {
    fn at(path: &Path) -> std::io::Result<Self> {
        let found = std::fs::metadata(path)?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&found);
        #[cfg(not(unix))]
        let inode = 0;
        Ok(Self { modified: found.modified().ok(), bytes: found.len(), inode })
    }
}

fn bearer(token: &str) -> Result<HeaderValue, CredentialsError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
        CredentialsError("the token has characters that no header can carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(path).map_err(|error| {
        CredentialsError(format!("cannot read {what} from {}: {error}", path.display()))
    })
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Fixed(_) => f.write_str("Token(fixed)"),
            Source::File(file) => write!(f, "Token({})", file.path.display()),
            Source::Fetch(_) => f.write_str("Token(fetched)"),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for CredentialsError {}

#[cfg(test)]
mod tests;
