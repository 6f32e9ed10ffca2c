//! Who may call a server of `longhaul dev`, and what its port speaks.
//!
//! Owns nothing that lasts: the folders are those of `longhaul auth init` and `longhaul tls init`, used where
//! they are there, and made by the same code where they are not.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use longhaul_auth::Mode;
use longhaul_client::{Credentials, Token};
use longhaul_server::Config;
use longhaul_server::config::Auth;
use longhaul_server::tls::TlsConfig;

use crate::cli::{DevArgs, DevAuth};
use crate::env::shell_word;
use crate::failure::{Exit, Failure};
use crate::{auth, tls};

/// The project of hints, and of an account that is made here.
const PROJECT: &str = "demo";
/// How often the folder's token is renewed; long before it ends.
const RENEW_EVERY: Duration = auth::TOKEN_FILE_LIFE.checked_div(2).expect("two is not zero");

/// A server's address with all that its callers need to know.
pub struct Access {
    /// As clients reach it, without a slash at its end.
    pub url: String,
    /// A project in which the hints work.
    pub project: String,
    auth: Option<auth::Folder>,
    tls: Option<tls::Folder>,
}

impl Access {
    /// Finds or makes the folders that the flags ask for.
    pub fn prepare(args: &DevArgs, address: SocketAddr) -> Result<Self, Failure> {
        let scheme = if args.tls { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        let tls = args.tls.then(|| tls_folder(args)).transpose()?;
        let mut access = Self { url, project: PROJECT.to_owned(), auth: None, tls };
        match args.auth {
            DevAuth::Off => {}
            DevAuth::Local => access.ask(auth::Folder::at(&args.auth_dir)?)?,
        }
        Ok(access)
    }

    /// Asks callers who they are, by the accounts of this folder.
    fn ask(&mut self, folder: auth::Folder) -> Result<(), Failure> {
        if !folder.server().exists() {
            folder.make("admin", PROJECT, &self.url, self.ca().as_deref())?;
        }
        let account = folder.account()?;
        let theirs = account.token_uri.trim_end_matches("/token");
        if theirs != self.url {
            let shown = folder.path().display();
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "the accounts in {shown} ask {theirs} for tokens, and this server is at {}",
                    self.url
                ),
            )
            .help("choose that address with --port and --tls, or another folder with --auth-dir"));
        }
        folder.renew_token()?;
        self.project = account.project_id;
        self.auth = Some(folder);
        Ok(())
    }

    /// Says so to the server.
    pub fn configure(&self, config: &mut Config) {
        if let Some(folder) = &self.tls {
            let (cert, key) = (folder.server(), folder.server_key());
            config.tls = Some(TlsConfig { cert, key, ..TlsConfig::default() });
        }
        if let Some(folder) = &self.auth {
            config.auth = Auth {
                mode: Some(Mode::Local),
                local: Some(folder.server()),
                policy: Some(folder.policy()),
                ..Auth::default()
            };
        }
    }

    /// What the practice worker shows and believes.
    pub fn credentials(&self) -> Result<Credentials, Failure> {
        let wrong = |error: longhaul_client::CredentialsError| {
            Failure::new(Exit::Failed, error.to_string())
        };
        let mut credentials = Credentials::default();
        if let Some(ca) = self.ca() {
            credentials = credentials.with_ca_file(ca).map_err(wrong)?;
        }
        if let Some(folder) = &self.auth {
            credentials = credentials.with_token(Token::file(folder.token()).map_err(wrong)?);
        }
        Ok(credentials)
    }

    /// Keeps the folder's token good for as long as this is polled.
    pub async fn keep_token(&self) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            if let Some(folder) = &self.auth
                && let Err(failure) = folder.renew_token()
            {
                tracing::error!("the token cannot be renewed: {}", failure.text());
            }
        }
    }

    /// The authority that clients have to be told of.
    fn ca(&self) -> Option<PathBuf> {
        self.tls.as_ref().map(tls::Folder::ca)
    }

    /// Whether clients have to show or believe something.
    pub const fn is_open(&self) -> bool {
        self.auth.is_none() && self.tls.is_none()
    }

    /// What to know of it, a line each: a word and the rest.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(folder) = &self.auth {
            let (shown, policy) = (folder.path().display(), folder.policy());
            let what =
                format!("tokens for the accounts in {shown}; {} says who may", policy.display());
            lines.push(("Access", what));
        }
        if let Some(ca) = self.ca() {
            lines.push(("TLS", format!("clients have to believe {}", ca.display())));
        }
        lines
    }

    /// `longhaul env` for this server.
    pub fn env_command(&self) -> String {
        let word = |path: PathBuf| shell_word(&path.display().to_string());
        let mut text = format!("eval \"$(longhaul env --server {}", self.url);
        if let Some(folder) = &self.auth {
            text = format!("{text} --auth-dir {}", word(folder.path().to_owned()));
        }
        if let Some(ca) = self.ca() {
            text = format!("{text} --ca {}", word(ca));
        }
        text + ")\""
    }

    /// What curl needs beside a body and a URL.
    pub fn curl_flags(&self) -> String {
        let word = |path: PathBuf| shell_word(&path.display().to_string());
        let ca = self.ca().map(|ca| format!("--cacert {} ", word(ca)));
        let token = self
            .auth
            .as_ref()
            .map(|folder| format!("-H \"Authorization: Bearer $(cat {})\" ", word(folder.token())));
        ca.unwrap_or_default() + &token.unwrap_or_default()
    }
}

fn tls_folder(args: &DevArgs) -> Result<tls::Folder, Failure> {
    let folder = tls::Folder::at(&args.tls_dir)?;
    if !folder.is_there() {
        folder.init(&[], &[])?;
    }
    Ok(folder)
}
