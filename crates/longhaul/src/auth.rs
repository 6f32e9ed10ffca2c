//! `longhaul auth`: an identity of this machine's own, for local use and for tests.
//!
//! Owns the folder's layout, what is printed, and nothing about who may do what.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use longhaul_auth::Secret;
use longhaul_auth::identity::CLOUD_PLATFORM;
use longhaul_auth::local::{
    Account, IdentityFile, LocalIdentity, ServiceAccountFile, TOKEN_LIFE, Timestamp,
};
use longhaul_server::clock::{Clock as _, SystemClock};
use longhaul_server::config::parse_duration;
use longhaul_wire::bundled;
use serde_json::{Value, json};

use crate::env::shell_word;
use crate::failure::{Exit, Failure};
use crate::files::{self, NewFile, Readers};
use crate::output;

/// How long the token is good that a new folder has; `longhaul auth token` makes others.
pub const TOKEN_FILE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Examples of `longhaul auth`.
pub const EXAMPLES: &str = "\
Examples:
  longhaul auth init --project my-project       an account, its files, and the server's
  longhaul serve -c longhaul-auth/longhaul.toml
  eval \"$(longhaul env --auth-dir longhaul-auth)\"
  longhaul auth account ci                      one more account
  curl -H \"Authorization: Bearer $(longhaul auth token)\" …
  longhaul auth whoami";

/// `longhaul auth`.
#[derive(Args, Debug)]
pub struct AuthArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AuthCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Make a folder: a service account with its file, a token, a policy, what the server needs
    Init(InitArgs),
    /// Make one more account in a folder; the policy says what it may do
    Account(AccountArgs),
    /// Print a token of an account
    Token(TokenArgs),
    /// Say who the credentials in use are
    Whoami(WhoamiArgs),
}

/// Where the folder is.
#[derive(Args, Clone, Debug)]
pub struct DirArgs {
    /// The folder
    #[arg(long, value_name = "DIR", default_value = "longhaul-auth", env = "LONGHAUL_AUTH_DIR")]
    pub dir: PathBuf,
}

/// `longhaul auth init`.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// Where.
    #[command(flatten)]
    pub dir: DirArgs,
    /// The account's project
    #[arg(long, value_name = "ID", default_value = "my-project", env = "LONGHAUL_PROJECT")]
    pub project: String,
    /// The account's name, before the @
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub account: String,
    /// The server as clients will reach it
    #[arg(
        long,
        value_name = "URL",
        default_value = crate::cli::DEFAULT_SERVER,
        env = "LONGHAUL_SERVER"
    )]
    pub server: String,
    /// The authority of the server's certificate, PEM, for gcloud
    #[arg(long, value_name = "FILE", env = "LONGHAUL_CA_FILE")]
    pub ca: Option<PathBuf>,
}

/// `longhaul auth account`.
#[derive(Args, Debug)]
pub struct AccountArgs {
    /// The account's name, before the @
    pub name: String,
    /// Where.
    #[command(flatten)]
    pub dir: DirArgs,
}

/// `longhaul auth token`.
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// Where.
    #[command(flatten)]
    pub dir: DirArgs,
    /// A service-account file that signs for itself, instead of the folder's first account
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A scope; may be repeated
    #[arg(long, value_name = "SCOPE", default_value = CLOUD_PLATFORM)]
    pub scope: Vec<String>,
    /// How long it is good; with --key-file an hour at most
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub valid: Duration,
}

/// `longhaul auth whoami`.
#[derive(Args, Debug)]
pub struct WhoamiArgs {
    /// The folder; a token file or LONGHAUL_TOKEN wins over it
    #[command(flatten)]
    pub dir: DirArgs,
    /// File with a token
    #[arg(long, value_name = "FILE", env = "LONGHAUL_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// The files of a folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// This folder, by a path that means the same from everywhere.
    pub fn at(path: &Path) -> Result<Self, Failure> {
        Ok(Self(files::absolute(path)?))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The service-account file of the first account.
    pub fn service_account(&self) -> PathBuf {
        self.0.join("service-account.json")
    }

    /// The file with a token.
    pub fn token(&self) -> PathBuf {
        self.0.join("token")
    }

    /// The server's file.
    pub fn server(&self) -> PathBuf {
        self.0.join("server.json")
    }

    /// Who may do what.
    pub fn policy(&self) -> PathBuf {
        self.0.join("policy.json")
    }

    /// Makes all of it for one account and the server at a URL without a slash at its end. Gives the
    /// account's address.
    pub fn make(
        &self,
        account: &str,
        project: &str,
        server: &str,
        ca: Option<&Path>,
    ) -> Result<String, Failure> {
        check_id(account, "the account")?;
        check_id(project, "--project")?;
        let (account, file) =
            Account::generate(account, project, &format!("{server}/token")).map_err(unmade)?;
        let email = account.client_email.clone();
        let identity = pretty(&IdentityFile::new(account).map_err(unmade)?)?;
        let token = issued(&identity, "server.json", CLOUD_PLATFORM, TOKEN_FILE_LIFE)?;
        let secret = |path: PathBuf, text: String| NewFile { path, text, readers: Readers::Owner };
        let open = |path: PathBuf, text: String| NewFile { path, text, readers: Readers::All };
        files::make(&[
            secret(self.server(), identity),
            secret(self.service_account(), pretty(&file)?),
            secret(self.token(), token.expose().to_owned() + "\n"),
            open(self.policy(), policy(project, &email)?),
            open(self.path().join("longhaul.toml"), configuration(self, server)),
            open(self.path().join("gcloud/active_config"), "longhaul".to_owned()),
            open(
                self.path().join("gcloud/configurations/config_longhaul"),
                gcloud(self, server, project, ca),
            ),
        ])?;
        Ok(email)
    }

    /// Puts a fresh token in the place of the one there was; good for [`TOKEN_FILE_LIFE`].
    pub fn renew_token(&self) -> Result<(), Failure> {
        let file = self.server();
        let text = read_made(&file)?;
        let token = issued(&text, &file.display().to_string(), CLOUD_PLATFORM, TOKEN_FILE_LIFE)?;
        let text = token.expose().to_owned() + "\n";
        files::replace(&NewFile { path: self.token(), text, readers: Readers::Owner })
    }

    /// The first account's file, read.
    pub fn account(&self) -> Result<ServiceAccountFile, Failure> {
        read_account(&self.service_account())
    }
}

/// Does what was asked for.
pub fn run(args: AuthArgs) -> Result<Exit, Failure> {
    match args.command {
        AuthCommand::Init(args) => init(&args),
        AuthCommand::Account(args) => add(&args),
        AuthCommand::Token(args) => token(&args),
        AuthCommand::Whoami(args) => whoami(&args),
    }
}

fn init(args: &InitArgs) -> Result<Exit, Failure> {
    let folder = Folder::at(&args.dir.dir)?;
    let server = args.server.trim_end_matches('/');
    if !server.starts_with("http://") && !server.starts_with("https://") {
        return Err(Failure::usage("--server takes a URL such as http://127.0.0.1:7151"));
    }
    let ca = args.ca.as_deref().map(files::absolute).transpose()?;
    let email = folder.make(&args.account, &args.project, server, ca.as_deref())?;
    let shown = shell_word(&folder.path().display().to_string());
    let mut text = format!("{email} may do everything in {}.\n\n", args.project);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  longhaul serve -c {shown}/longhaul.toml");
    let believed = ca
        .map_or_else(String::new, |ca| format!(" --ca {}", shell_word(&ca.display().to_string())));
    let _ =
        writeln!(text, "  eval \"$(longhaul env --auth-dir {shown} --server {server}{believed})\"");
    let _ = writeln!(text, "  longhaul operations list\n");
    let _ = writeln!(text, "gcloud alone: export CLOUDSDK_CONFIG={shown}/gcloud");
    let _ = writeln!(text, "Keep server.json, service-account.json and token to yourself.");
    output::print(&text)?;
    Ok(Exit::Done)
}

fn add(args: &AccountArgs) -> Result<Exit, Failure> {
    let folder = Folder::at(&args.dir.dir)?;
    check_id(&args.name, "the account")?;
    let first = folder.account()?;
    let mut identity: IdentityFile = read_json(&folder.server())?;
    let (account, file) =
        Account::generate(&args.name, &first.project_id, &first.token_uri).map_err(unmade)?;
    let email = account.client_email.clone();
    if identity.accounts.iter().any(|known| known.client_email == email) {
        return Err(Failure::usage(format!("{email} is there already")));
    }
    let path = folder.path().join(format!("service-account-{}.json", args.name));
    let made = NewFile { path: path.clone(), text: pretty(&file)?, readers: Readers::Owner };
    files::make(&[made])?;
    identity.accounts.push(account);
    let text = pretty(&identity)?;
    files::replace(&NewFile { path: folder.server(), text, readers: Readers::Owner })?;
    output::print(&format!(
        "{email}: {}\nIt may do nothing until {} says so. A running server knows it within auth.reload_every, 5 seconds.\n",
        path.display(),
        folder.policy().display()
    ))?;
    Ok(Exit::Done)
}

fn token(args: &TokenArgs) -> Result<Exit, Failure> {
    let scopes = args.scope.join(" ");
    let token = match &args.key_file {
        Some(file) => {
            if args.valid > TOKEN_LIFE {
                return Err(Failure::usage(
                    "what an account signs for itself is good for an hour at most",
                )
                .help("leave --key-file out where the server's own key is at hand"));
            }
            read_account(file)?.self_signed(&scopes, now(), args.valid).map_err(unmade)?
        }
        None => {
            let file = Folder::at(&args.dir.dir)?.server();
            let text = read_made(&file)?;
            issued(&text, &file.display().to_string(), &scopes, args.valid)?
        }
    };
    output::print(&format!("{}\n", token.expose()))?;
    Ok(Exit::Done)
}

fn whoami(args: &WhoamiArgs) -> Result<Exit, Failure> {
    let held = std::env::var("LONGHAUL_TOKEN").ok().filter(|token| !token.trim().is_empty());
    let token = match (&args.token_file, held) {
        (Some(file), _) => Some(Secret::new(files::read(file)?.trim())),
        (None, Some(token)) => Some(Secret::new(token.trim())),
        (None, None) => None,
    };
    let text = match token {
        Some(token) => said_by(&token, now())?,
        None => format!("serviceAccount:{}\n", Folder::at(&args.dir.dir)?.account()?.client_email),
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

/// A token of the first account, signed with the server's own key.
fn issued(text: &str, origin: &str, scopes: &str, life: Duration) -> Result<Secret, Failure> {
    let identity = LocalIdentity::parse(text, origin).map_err(unmade)?;
    identity.access_token(identity.default_account(), scopes, now(), life).map_err(unmade)
}

/// What a token says about itself; nothing checks that it is true.
fn said_by(token: &Secret, now: Timestamp) -> Result<String, Failure> {
    use base64::Engine as _;
    let opaque = || {
        Failure::new(Exit::Failed, "the token does not say whose it is: it is no JWT")
            .help("its issuer can tell, for Google's: curl https://oauth2.googleapis.com/tokeninfo")
    };
    let middle = token.expose().split('.').nth(1).ok_or_else(opaque)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(middle);
    let claims: Value =
        bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(opaque)?;
    let says = |key: &str| claims[key].as_str().map(str::to_owned);
    let who = says("email").or_else(|| says("sub")).or_else(|| says("iss")).ok_or_else(opaque)?;
    let kind = if who.ends_with(".gserviceaccount.com") { "serviceAccount:" } else { "" };
    let mut text = format!("{kind}{}\n", output::printable(&who));
    if let Some(scope) = says("scope") {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "scopes   {}", output::printable(&scope));
    }
    if let Some(end) = claims["exp"].as_i64() {
        let left = end - now.seconds();
        let _ = match left {
            1.. => writeln!(text, "expires  in {} min", left / 60),
            _ => writeln!(text, "expired  {} min ago", -left / 60),
        };
    }
    Ok(text)
}

/// Everything in one project, and working, for one account, in the shape of IAM.
fn policy(project: &str, email: &str) -> Result<String, Failure> {
    let member = format!("serviceAccount:{email}");
    let binding = |role: &str| json!([{"role": role, "members": [member]}]);
    pretty(&json!({
        "bindings": binding("roles/longhaul.worker"),
        "policies": [
            {"resource": format!("projects/{project}"), "bindings": binding("roles/owner")},
        ],
    }))
}

fn configuration(folder: &Folder, server: &str) -> String {
    let mut text =
        "# Made by longhaul auth init. docs/configuration.md lists every key.\n\n".to_owned();
    // Writing to a String cannot fail.
    if let Some(port) = port_here(server) {
        let _ = writeln!(text, "listen = \"127.0.0.1:{port}\"");
    }
    let _ = write!(
        text,
        "data = {:?}\n\n[auth]\nmode = \"local\"\nlocal = {:?}\npolicy = {:?}\n",
        folder.path().join("data").display().to_string(),
        folder.server().display().to_string(),
        folder.policy().display().to_string(),
    );
    if server.starts_with("https://") {
        text.push_str(
            "\n# Clients come over TLS: add the [tls] that \"longhaul tls init\" prints.\n",
        );
    }
    text
}

/// The port of a server on this machine, which is where it has to listen.
fn port_here(server: &str) -> Option<u16> {
    let (_, place) = server.split_once("://")?;
    let (host, port) = place.split('/').next()?.rsplit_once(':')?;
    matches!(host, "127.0.0.1" | "localhost").then(|| port.parse().ok())?
}

fn gcloud(folder: &Folder, server: &str, project: &str, ca: Option<&Path>) -> String {
    let mut text = format!("[core]\nproject = {project}\ndisable_prompts = True\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "disable_usage_reporting = True");
    if let Some(ca) = ca {
        let _ = writeln!(text, "custom_ca_certs_file = {}", ca.display());
    }
    let _ = writeln!(text, "\n[auth]");
    let _ = writeln!(text, "credential_file_override = {}", folder.service_account().display());
    let _ = writeln!(text, "token_host = {server}/token");
    let _ = writeln!(text, "\n[component_manager]\ndisable_update_check = True");
    let _ = writeln!(text, "\n[api_endpoint_overrides]");
    for api in bundled::names() {
        let _ = writeln!(text, "{api} = {server}/{api}/");
    }
    text
}

fn read_account(file: &Path) -> Result<ServiceAccountFile, Failure> {
    let account: ServiceAccountFile = read_json(file)?;
    if account.kind != "service_account" {
        return Err(Failure::usage(format!("{} is no service-account file", file.display())));
    }
    Ok(account)
}

/// Reads JSON that may hold secrets: what is wrong with it is told without quoting it.
fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, Failure> {
    let text = read_made(file)?;
    serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let shown = file.display();
        Failure::usage(format!("{shown} is not what it should be (line {line}, column {column})"))
    })
}

fn read_made(file: &Path) -> Result<String, Failure> {
    files::read(file).map_err(|failure| {
        failure.help("\"longhaul auth init\" makes such a folder; --dir names it")
    })
}

fn pretty(value: &impl serde::Serialize) -> Result<String, Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure::new(Exit::Failed, format!("a file cannot be made: {error}"))),
    }
}

fn check_id(id: &str, what: &str) -> Result<(), Failure> {
    let fits = (1..=63).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        return Ok(());
    }
    Err(Failure::usage(format!("{what} takes small letters, digits and hyphens, at most 63")))
}

fn unmade(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_by_what_it_says_and_never_quoted() {
        let (_, file) = Account::generate("admin", "p", "http://127.0.0.1:1/token").unwrap();
        let began = Timestamp::from_micros(1_800_000_000_000_000);
        let token = file.self_signed(CLOUD_PLATFORM, began, Duration::from_secs(600)).unwrap();
        let text = said_by(&token, began).unwrap();
        assert!(text.starts_with("serviceAccount:admin@p.iam.gserviceaccount.com\n"), "{text}");
        assert!(text.contains("in 10 min") && text.contains(CLOUD_PLATFORM), "{text}");
        assert!(said_by(&token, began + Duration::from_secs(1200)).unwrap().contains("10 min ago"));
        for opaque in ["ya29.a0AfH6SM", "x", "", "a.b.c"] {
            let failure = said_by(&Secret::new(opaque), began).unwrap_err();
            assert!(opaque.is_empty() || !failure.text().contains(&format!("{opaque} ")));
        }
    }

    #[test]
    fn ids_that_no_address_can_carry_are_refused() {
        assert!(check_id("my-project-1", "x").is_ok());
        for wrong in ["", "A", "a b", "a@b", "a/b", &"a".repeat(64)] {
            assert_eq!(check_id(wrong, "x").unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn gcloud_and_the_server_are_told_the_same_place() {
        let folder = Folder("/a b".into());
        let text = gcloud(&folder, "https://localhost:1", "p", Some(Path::new("/ca.pem")));
        for part in [
            "custom_ca_certs_file = /ca.pem",
            "dataproc = https://localhost:1/dataproc/",
            "/a b/service-account.json",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for (server, listen) in [
            ("https://localhost:1", "127.0.0.1:1"),
            ("http://127.0.0.1:7152/", "127.0.0.1:7152"),
            ("https://build.example:9", "127.0.0.1:7151"),
            ("http://localhost", "127.0.0.1:7151"),
        ] {
            let toml = configuration(&folder, server);
            let config = longhaul_server::Config::parse(&toml, "longhaul.toml").unwrap();
            assert_eq!(config.auth.local.as_deref(), Some(Path::new("/a b/server.json")));
            assert_eq!(config.listen.to_string(), listen, "{server}");
        }
    }
}
