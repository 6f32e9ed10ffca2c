//! `longhaul env`: the variables that point each client at a server, in the words of each shell.
//!
//! Owns which variables those are and their quoting; it asks no server.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use longhaul_wire::bundled;
use serde_json::{Map, Value};

use crate::auth::Folder;
use crate::failure::{Exit, Failure};
use crate::{files, output};

/// Examples of `longhaul env`.
pub const EXAMPLES: &str = "\
Examples:
  eval \"$(longhaul env)\"                        gcloud and longhaul use the server of this machine
  eval \"$(longhaul env --auth-dir auth)\"        with the credentials that \"longhaul auth init\" made
  longhaul env --ca longhaul-tls/ca.pem --server https://localhost:7151
  longhaul env --shell github >> \"$GITHUB_ENV\"
  eval \"$(longhaul env --unset)\"                and back";

/// `longhaul env`.
#[derive(Args, Debug)]
pub struct EnvArgs {
    /// The server
    #[arg(
        long,
        value_name = "URL",
        env = "LONGHAUL_SERVER",
        default_value = crate::cli::DEFAULT_SERVER
    )]
    pub server: String,
    /// In whose words; by default those of $SHELL
    #[arg(long, value_enum)]
    pub shell: Option<Shell>,
    /// The folder that "longhaul auth init" made; without it clients send no credentials
    #[arg(long, value_name = "DIR", env = "LONGHAUL_AUTH_DIR")]
    pub auth_dir: Option<PathBuf>,
    /// The authority of the server's certificate, PEM. It takes the place of the public ones
    #[arg(long, value_name = "FILE", env = "LONGHAUL_CA_FILE")]
    pub ca: Option<PathBuf>,
    /// The project that clients use when none is said: the account's, or what LONGHAUL_PROJECT says
    #[arg(long, value_name = "ID")]
    pub project: Option<String>,
    /// Take all of them away again
    #[arg(long)]
    pub unset: bool,
}

/// In whose words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// And every shell of POSIX.
    Bash,
    /// The same words.
    Zsh,
    /// fish.
    Fish,
    /// PowerShell.
    Powershell,
    /// One JSON object.
    Json,
    /// A file for tools that read `.env`.
    Dotenv,
    /// Lines for `$GITHUB_ENV`.
    Github,
}

/// Prints the variables.
pub fn run(args: EnvArgs) -> Result<Exit, Failure> {
    let shell = args.shell.unwrap_or_else(own_shell);
    let text =
        if args.unset { unset(shell, &every_name()) } else { set(shell, &variables(&args)?) };
    output::print(&text)?;
    Ok(Exit::Done)
}

type Variables = Vec<(String, String)>;

fn variables(args: &EnvArgs) -> Result<Variables, Failure> {
    let server = args.server.trim_end_matches('/');
    let Some((scheme, authority)) = server.split_once("://") else {
        return Err(Failure::usage("--server takes a URL such as http://127.0.0.1:7151"));
    };
    let mut all: Variables = Vec::new();
    let mut put = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    put("LONGHAUL_SERVER", server);
    for api in bundled::names() {
        put(&endpoint_override(api), &format!("{server}/{api}/"));
    }
    put("CLOUDSDK_CORE_DISABLE_PROMPTS", "1");
    put("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "1");
    put("CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", "1");
    put("GOOGLE_API_USE_CLIENT_CERTIFICATE", "false");
    let mut project = args.project.clone();
    match &args.auth_dir {
        None => put("CLOUDSDK_AUTH_DISABLE_CREDENTIALS", "true"),
        Some(folder) => {
            let folder = Folder::at(folder)?;
            let account = folder.account()?;
            let file = folder.service_account().display().to_string();
            put("LONGHAUL_AUTH_DIR", &folder.path().display().to_string());
            put("LONGHAUL_TOKEN_FILE", &folder.token().display().to_string());
            put("GOOGLE_APPLICATION_CREDENTIALS", &file);
            put("CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE", &file);
            // gcloud asks Google for tokens, whatever the account's file says.
            put("CLOUDSDK_AUTH_TOKEN_HOST", &account.token_uri);
            project = project.or(Some(account.project_id));
            if scheme == "http" {
                // Python wants HOST and IP, Node, Go and Rust HOST, gcloud ROOT.
                for name in METADATA {
                    put(name, authority);
                }
            }
        }
    }
    // What an older call has set counts least: the folder may be another one now.
    let project = project.or_else(|| std::env::var("LONGHAUL_PROJECT").ok());
    if let Some(project) = project.as_ref().filter(|project| !project.is_empty()) {
        put("LONGHAUL_PROJECT", project);
        put("GOOGLE_CLOUD_PROJECT", project);
        put("CLOUDSDK_CORE_PROJECT", project);
    }
    if let Some(ca) = &args.ca {
        let ca = files::absolute(ca)?.display().to_string();
        for name in AUTHORITIES {
            put(name, &ca);
        }
    }
    Ok(all)
}

const METADATA: [&str; 3] = ["GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"];

/// longhaul; curl; Python over REST; gRPC of C, Python and Node; Node over REST; Go, Rust, Ruby; gcloud.
const AUTHORITIES: [&str; 7] = [
    "LONGHAUL_CA_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
];

fn endpoint_override(api: &str) -> String {
    format!("CLOUDSDK_API_ENDPOINT_OVERRIDES_{}", api.to_ascii_uppercase())
}

/// All that may have been set.
fn every_name() -> Vec<String> {
    let fixed = [
        "LONGHAUL_SERVER",
        "CLOUDSDK_CORE_DISABLE_PROMPTS",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK",
        "GOOGLE_API_USE_CLIENT_CERTIFICATE",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS",
        "LONGHAUL_AUTH_DIR",
        "LONGHAUL_TOKEN_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE",
        "CLOUDSDK_AUTH_TOKEN_HOST",
        "LONGHAUL_PROJECT",
        "GOOGLE_CLOUD_PROJECT",
        "CLOUDSDK_CORE_PROJECT",
    ];
    let overrides = bundled::names().map(endpoint_override);
    let rest = fixed.iter().chain(&METADATA).chain(&AUTHORITIES).map(|name| (*name).to_owned());
    overrides.chain(rest).collect()
}

fn set(shell: Shell, variables: &Variables) -> String {
    let lines = |line: fn(&str, &str) -> String| {
        variables.iter().map(|(name, value)| line(name, value) + "\n").collect::<String>()
    };
    match shell {
        Shell::Bash | Shell::Zsh => {
            lines(|name, value| format!("export {name}={}", shell_word(value)))
                + "# eval \"$(longhaul env)\" sets them\n"
        }
        Shell::Fish => {
            lines(|name, value| format!("set -gx {name} {}", fish_word(value)))
                + "# longhaul env --shell fish | source\n"
        }
        Shell::Powershell => {
            lines(|name, value| format!("$env:{name} = '{}'", value.replace('\'', "''")))
                + "# longhaul env --shell powershell | Out-String | Invoke-Expression\n"
        }
        Shell::Dotenv => lines(|name, value| format!("{name}={}", dotenv_word(value))),
        Shell::Github => lines(github_line),
        Shell::Json => {
            json(variables.iter().map(|(name, value)| (name, Value::String(value.clone()))))
        }
    }
}

fn unset(shell: Shell, names: &[String]) -> String {
    let lines = |before: &str, after: &str| {
        names.iter().fold(String::new(), |mut text, name| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{before}{name}{after}");
            text
        })
    };
    match shell {
        Shell::Bash | Shell::Zsh => lines("unset ", ""),
        Shell::Fish => lines("set -e ", ""),
        Shell::Powershell => lines("Remove-Item Env:", " -ErrorAction SilentlyContinue"),
        Shell::Dotenv | Shell::Github => lines("", "="),
        Shell::Json => json(names.iter().map(|name| (name, Value::Null))),
    }
}

fn json<'a>(pairs: impl Iterator<Item = (&'a String, Value)>) -> String {
    let map: Map<String, Value> = pairs.map(|(name, value)| (name.clone(), value)).collect();
    format!("{:#}\n", Value::Object(map))
}

/// A text as one word of a POSIX shell.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn fish_word(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn dotenv_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    let mut word = String::from("\"");
    for c in text.chars() {
        match c {
            '\n' => word.push_str("\\n"),
            '"' | '\\' | '$' | '`' => word.extend(['\\', c]),
            c => word.push(c),
        }
    }
    word + "\""
}

fn github_line(name: &str, value: &str) -> String {
    if !value.contains(['\n', '\r']) {
        return format!("{name}={value}");
    }
    let mut end = String::from("LONGHAUL_END");
    while value.contains(&end) {
        end.push('_');
    }
    format!("{name}<<{end}\n{value}\n{end}")
}

fn own_shell() -> Shell {
    let shell = std::env::var("SHELL").unwrap_or_default();
    match shell.rsplit('/').next() {
        Some("fish") => Shell::Fish,
        Some("zsh") => Shell::Zsh,
        Some("pwsh") => Shell::Powershell,
        _ => Shell::Bash,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NASTY: [&str; 9] = [
        "plain",
        "",
        "two words",
        "it's",
        "$HOME `id` $(id) \\",
        "a\"b",
        "line\nline",
        "; rm -rf / #",
        "ü*?[!~",
    ];

    /// What a real shell makes of the lines.
    fn evaluated(lines: &str, name: &str) -> String {
        let script = format!("{lines}\nprintf '%s' \"${{{name}-unset}}\"");
        let run = |shell: &str| Command::new(shell).arg("-c").arg(&script).output();
        let output = run("bash").or_else(|_| run("sh")).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_shell_gets_every_value_as_it_is_and_loses_it_again() {
        for value in NASTY {
            let lines = set(Shell::Bash, &vec![("LONGHAUL_TRY".to_owned(), value.to_owned())]);
            assert_eq!(evaluated(&lines, "LONGHAUL_TRY"), value);
            let both = lines + &unset(Shell::Bash, &["LONGHAUL_TRY".to_owned()]);
            assert_eq!(evaluated(&both, "LONGHAUL_TRY"), "unset");
        }
    }

    #[test]
    fn other_words_are_quoted_as_their_readers_expect() {
        assert_eq!(fish_word("it's \\"), "'it\\'s \\\\'");
        let line = set(Shell::Powershell, &vec![("A".into(), "it's $x".into())]);
        assert!(line.starts_with("$env:A = 'it''s $x'\n"), "{line}");
        assert_eq!(dotenv_word("a b\n$x\"\\"), "\"a b\\n\\$x\\\"\\\\\"");
        assert_eq!(dotenv_word("http://127.0.0.1:1/"), "http://127.0.0.1:1/");
        assert_eq!(github_line("A", "b=c d"), "A=b=c d");
        assert_eq!(
            github_line("A", "b\nLONGHAUL_END"),
            "A<<LONGHAUL_END_\nb\nLONGHAUL_END\nLONGHAUL_END_"
        );
        let all = set(Shell::Json, &vec![("A".into(), "\"".into())]);
        assert_eq!(serde_json::from_str::<Value>(&all).unwrap()["A"], "\"");
    }

    #[test]
    fn whatever_may_be_set_is_unset() {
        let args = EnvArgs {
            server: "http://127.0.0.1:4711/".into(),
            shell: None,
            auth_dir: None,
            ca: Some("ca.pem".into()),
            project: Some("p".into()),
            unset: false,
        };
        let variables = variables(&args).unwrap();
        let names = every_name();
        for (name, _) in &variables {
            assert!(names.contains(name), "{name}");
        }
        let value = |name: &str| &variables.iter().find(|(found, _)| found == name).unwrap().1;
        assert_eq!(
            value("CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAPROC"),
            "http://127.0.0.1:4711/dataproc/"
        );
        assert!(value("NODE_EXTRA_CA_CERTS").starts_with('/'));
        assert_eq!(value("CLOUDSDK_AUTH_DISABLE_CREDENTIALS"), "true");
    }
}
