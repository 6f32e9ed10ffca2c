//! Flags by which every command that calls a server says who it is and whom it believes.

use std::path::PathBuf;

use clap::Args;
use longhaul_client::{Credentials, Token};

use crate::failure::Failure;

/// Who we are to the server, and which server we believe.
#[derive(Args, Clone, Debug, Default)]
pub struct CredentialArgs {
    /// File with a bearer token, read again when it changes; LONGHAUL_TOKEN may hold one, too
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LONGHAUL_TOKEN_FILE",
        help_heading = "Server"
    )]
    pub token_file: Option<PathBuf>,
    /// The authority of the server's certificate, PEM, in place of the system's
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LONGHAUL_CA_FILE",
        help_heading = "Server"
    )]
    pub ca: Option<PathBuf>,
    /// A certificate to show to the server, PEM; needs --key
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LONGHAUL_CLIENT_CERT_FILE",
        help_heading = "Server"
    )]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LONGHAUL_CLIENT_KEY_FILE",
        help_heading = "Server"
    )]
    pub key: Option<PathBuf>,
}

impl CredentialArgs {
    /// Reads the files, and `LONGHAUL_TOKEN` where no file has a token.
    pub fn read(&self) -> Result<Credentials, Failure> {
        let given =
            |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        let mut credentials = Credentials::from_files(
            given(&self.token_file).as_deref(),
            given(&self.ca).as_deref(),
            given(&self.cert).as_deref(),
            given(&self.key).as_deref(),
        )
        .map_err(|error| Failure::usage(error.to_string()))?;
        let held = std::env::var("LONGHAUL_TOKEN").unwrap_or_default();
        if credentials.token.is_none() && !held.trim().is_empty() {
            let token = Token::fixed(held.trim());
            credentials.token = Some(token.map_err(|error| Failure::usage(error.to_string()))?);
        }
        Ok(credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn what_cannot_be_read_is_wrong_usage_and_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            Some(folder.path().join(name))
        };
        let check = |args: CredentialArgs, word: &str| {
            let failure = args.read().unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.text().contains(word), "{}", failure.text());
            assert!(!failure.text().contains("SECRET"), "{}", failure.text());
        };
        let none = CredentialArgs::default;
        check(CredentialArgs { token_file: Some("/no/such".into()), ..none() }, "/no/such");
        check(CredentialArgs { ca: file("ca.pem", "SECRET"), ..none() }, "ca.pem");
        check(CredentialArgs { cert: file("c.pem", "x"), ..none() }, "has no key");
        let (cert, key) = (file("c.pem", "x"), file("k.pem", "SECRET"));
        check(CredentialArgs { cert, key, ..none() }, "k.pem");
        assert!(none().read().is_ok());
    }
}
