//! `longhaul tls`: an authority of this machine's own, and certificates by it.
//!
//! Owns the folder's layout and what is printed. The authority is for tests and for machines that its owner
//! controls: whoever has its key can be any server to those who believe it.

mod authority;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::failure::{Exit, Failure};
use crate::files::{self, NewFile, Readers};
use crate::output;
use crate::tls::authority::{Authority, Pair};

/// Examples of `longhaul tls`.
pub const EXAMPLES: &str = "\
Examples:
  longhaul tls init                             an authority and a certificate for localhost
  longhaul tls init --host build.example        for another name, too
  longhaul tls init --client ann@example.com    and a certificate for a client
  longhaul tls client worker-1                  one more client, by the same authority";

/// Names that every server certificate is good for.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// `longhaul tls`.
#[derive(Args, Debug)]
pub struct TlsArgs {
    /// What to make.
    #[command(subcommand)]
    pub command: TlsCommand,
}

/// What to make.
#[derive(Debug, Subcommand)]
pub enum TlsCommand {
    /// Make an authority and a server's certificate
    Init(InitArgs),
    /// Make a client's certificate by an authority that is there
    Client(ClientArgs),
}

/// `longhaul tls init`.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// Where
    #[arg(long, value_name = "DIR", default_value = "longhaul-tls", env = "LONGHAUL_TLS_DIR")]
    pub dir: PathBuf,
    /// Host name or address beside localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// Also a certificate for this client: an e-mail address, a URI or a plain name; may be repeated
    #[arg(long, value_name = "NAME")]
    pub client: Vec<String>,
}

/// `longhaul tls client`.
#[derive(Args, Debug)]
pub struct ClientArgs {
    /// An e-mail address, a URI or a plain name
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Where the authority is
    #[arg(long, value_name = "DIR", default_value = "longhaul-tls", env = "LONGHAUL_TLS_DIR")]
    pub dir: PathBuf,
}

/// The files of a folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// This folder, by a path that means the same from everywhere.
    pub fn at(path: &Path) -> Result<Self, Failure> {
        Ok(Self(files::absolute(path)?))
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    fn ca_key(&self) -> PathBuf {
        self.0.join("ca-key.pem")
    }

    /// The server's certificate.
    pub fn server(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    /// The server's key.
    pub fn server_key(&self) -> PathBuf {
        self.0.join("server-key.pem")
    }

    /// Whether everything is there that a server needs, and those who believe it.
    pub fn is_there(&self) -> bool {
        [self.ca(), self.server(), self.server_key()].iter().all(|file| file.exists())
    }

    /// A client's certificate and key.
    pub fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.@".contains(c) { c } else { '_' };
        let name: String = name.chars().map(plain).collect();
        let file = |end: &str| self.0.join(format!("client-{name}{end}.pem"));
        (file(""), file("-key"))
    }

    /// Makes authority, server and clients.
    pub fn init(&self, hosts: &[String], clients: &[String]) -> Result<(), Failure> {
        let authority = Authority::new()?;
        let hosts: Vec<&str> = HOSTS.into_iter().chain(hosts.iter().map(String::as_str)).collect();
        let mut made = vec![
            NewFile { path: self.ca(), text: authority.cert(), readers: Readers::All },
            NewFile { path: self.ca_key(), text: authority.key(), readers: Readers::Owner },
        ];
        made.extend(both((self.server(), self.server_key()), authority.server(&hosts)?));
        for client in clients {
            made.extend(both(self.client(client), authority.client(client)?));
        }
        files::make(&made)
    }
}

fn both((cert, key): (PathBuf, PathBuf), pair: Pair) -> [NewFile; 2] {
    [
        NewFile { path: cert, text: pair.cert, readers: Readers::All },
        NewFile { path: key, text: pair.key, readers: Readers::Owner },
    ]
}

/// Makes what was asked for.
pub fn run(args: TlsArgs) -> Result<Exit, Failure> {
    match args.command {
        TlsCommand::Init(args) => {
            let folder = Folder::at(&args.dir)?;
            folder.init(&args.host, &args.client)?;
            output::print(&told(&folder, &args.client))?;
        }
        TlsCommand::Client(args) => {
            let folder = Folder::at(&args.dir)?;
            let authority = Authority::read(&folder.ca(), &folder.ca_key())?;
            let mut made = Vec::new();
            for name in &args.names {
                made.extend(both(folder.client(name), authority.client(name)?));
            }
            files::make(&made)?;
            for name in &args.names {
                let (cert, key) = folder.client(name);
                output::print(&format!("{}\n{}\n", cert.display(), key.display()))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// What was made and what to set.
fn told(folder: &Folder, clients: &[String]) -> String {
    let ca = folder.ca().display().to_string();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "The server's configuration:\n\n  [tls]");
    let _ = writeln!(text, "  cert = {:?}", folder.server().display().to_string());
    let _ = writeln!(text, "  key = {:?}", folder.server_key().display().to_string());
    if !clients.is_empty() {
        let _ = writeln!(text, "  client_ca = {ca:?}\n  client_auth = \"required\"");
    }
    let _ = writeln!(text, "\nClients believe it with:\n");
    for (client, variable) in [
        ("longhaul", "LONGHAUL_CA_FILE"),
        ("curl", "CURL_CA_BUNDLE"),
        ("Python, REST", "REQUESTS_CA_BUNDLE"),
        ("Python, Node: gRPC", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
        ("Node, REST", "NODE_EXTRA_CA_CERTS"),
        ("Go, Rust, Ruby", "SSL_CERT_FILE"),
        ("gcloud", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"),
    ] {
        let _ = writeln!(text, "  export {variable}={}   # {client}", crate::env::shell_word(&ca));
    }
    let _ = writeln!(
        text,
        "  keytool -importcert -noprompt -alias longhaul -storepass changeit -keystore trust.jks -file {}   # Java",
        crate::env::shell_word(&ca)
    );
    for client in clients {
        let (cert, key) = folder.client(client);
        let _ = writeln!(text, "\n{client}: {} with {}", cert.display(), key.display());
    }
    let _ = writeln!(
        text,
        "\nKeep ca-key.pem to yourself: whoever has it can be any server to those who believe ca.pem."
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_name_stays_within_its_folder() {
        let folder = Folder("/d".into());
        let (cert, key) = folder.client("../../etc/x y");
        assert_eq!(cert.parent(), Some(Path::new("/d")));
        assert_eq!(key, Path::new("/d/client-.._.._etc_x_y-key.pem"));
    }

    #[test]
    fn what_to_set_is_told_for_each_language() {
        let text = told(&Folder("/a b".into()), &["ann".to_owned()]);
        for part in
            ["client_ca", "NODE_EXTRA_CA_CERTS='/a b/ca.pem'", "keytool", "client-ann-key.pem"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
