//! How a command ends: its exit code, and for failures what to print and what to do about it.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use longhaul_client::operations::{Error, State, StatusError, TransportKind};

/// How a command ended. The same for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command did what was asked; the operation, if one was waited for, succeeded.
    Done,
    /// The command or the operation failed.
    Failed,
    /// The command line or another input is wrong; nothing was done.
    Usage,
    /// The operation ended as cancelled.
    Cancelled,
    /// The operation was not done in time; it goes on.
    Deadline,
    /// The wait was ended from the keyboard; the operation goes on.
    Detached,
}

impl Exit {
    /// What the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Cancelled => 3,
            Self::Deadline => 4,
            Self::Detached => 130,
        }
    }

    /// How a wait ended that saw this state last.
    pub const fn of_state(state: State) -> Self {
        match state {
            State::Succeeded => Self::Done,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Running | State::Cancelling => Self::Deadline,
        }
    }

    /// The one to report for two: what needs attention most wins.
    pub fn and(self, other: Self) -> Self {
        let weight = |exit: Self| match exit {
            Self::Done => 0,
            Self::Cancelled => 1,
            Self::Deadline => 2,
            Self::Detached => 3,
            Self::Failed => 4,
            Self::Usage => 5,
        };
        if weight(other) > weight(self) { other } else { self }
    }
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What is wrong; empty when there is nothing to say.
    message: String,
    reason: Option<String>,
    help: Option<String>,
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), reason: None, help: None }
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// An end without words.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Adds the machine-readable reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Puts what it is about before the message.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        if !self.message.is_empty() {
            self.message = format!("{what}: {}", self.message);
        }
        self
    }

    /// As it is printed, line by line.
    pub fn text(&self) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let label = match self.exit {
            Exit::Done | Exit::Cancelled | Exit::Detached => "note",
            Exit::Failed | Exit::Usage | Exit::Deadline => "error",
        };
        let mut text = format!("{label}: {}\n", self.message);
        for (label, line) in [("reason", &self.reason), ("help", &self.help)] {
            if let Some(line) = line {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{label:>6}: {line}");
            }
        }
        text
    }

    /// Tells the person at the terminal.
    pub fn print(&self) {
        // Nobody is left to be told when this fails.
        let _ = io::stderr().write_all(self.text().as_bytes());
    }
}

impl From<io::Error> for Failure {
    /// Output that nobody reads any more, as in `longhaul … | head`, is an end and no failure.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(Exit::Done);
        }
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::InvalidArgument(message) => Self::usage(message),
            Error::Token(error) => Self::new(Exit::Failed, error.to_string()),
            Error::Transport(transport) => {
                let failure = Self::new(Exit::Failed, error.to_string());
                if let Some(help) = tls_help(&transport.message) {
                    return failure.help(help);
                }
                match transport.kind {
                    TransportKind::Connect => failure.help(
                        "is the server running there? Start one with \"longhaul dev\", or name another with --server",
                    ),
                    // A server that misses a certificate closes, and what it said may come too late.
                    TransportKind::Broken if transport.url.starts_with("https://") => failure.help(
                        "try again; if the server asks for certificates, show one with --cert FILE and --key FILE",
                    ),
                    TransportKind::Timeout | TransportKind::Broken => {
                        failure.help("try again; every command here is safe to repeat")
                    }
                }
            }
            Error::Status(status) => of_status(status),
            Error::Reply { .. } => Self::new(Exit::Failed, error.to_string())
                .help("check --server and --api: this does not look like an operations server"),
            Error::Timeout { last } => {
                let name = last.as_ref().map(|operation| operation.name().to_owned());
                let failure = Self::new(Exit::Deadline, error.to_string());
                match name {
                    Some(name) => {
                        failure.help(format!("wait again with: longhaul operations wait {name}"))
                    }
                    None => failure,
                }
            }
            Error::Detached { .. } => Self::new(Exit::Detached, error.to_string()),
        }
    }
}

/// What to do about a handshake that went wrong, by the words of those who know.
fn tls_help(message: &str) -> Option<&'static str> {
    let said = |word: &str| message.contains(word);
    if said("UnknownIssuer") || said("BadSignature") {
        Some("the authority of the server's certificate is not known here; name it with --ca FILE")
    } else if said("CertificateRequired") || said("certificate required") {
        Some("the server wants a certificate; show one with --cert FILE and --key FILE")
    } else if said("NotValidForName") {
        Some("the certificate is for other names; use one of them in --server")
    } else if said("Expired") && said("ertificate") {
        Some("a certificate is over; renew it")
    } else if said("InvalidContentType") || said("corrupt message") {
        Some("the server speaks no TLS there; begin the URL of --server with http://")
    } else if said("received fatal alert") {
        Some(
            "the server does not take the certificate that was shown, or speaks another TLS; its log says why",
        )
    } else {
        None
    }
}

fn of_status(status: &StatusError) -> Failure {
    let message = if status.message.is_empty() { "no message" } else { &status.message };
    let reason = match &status.info {
        Some(info) => format!("{} ({})", info.reason, status.status),
        None => status.status.clone(),
    };
    let failure = Failure::new(Exit::Failed, message).because(reason);
    match help(status) {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// What to do, by reason where it is known, else by code.
fn help(status: &StatusError) -> Option<String> {
    if !status.envelope {
        return Some(format!(
            "{} answered, but not as an operations server does; check --server and --api",
            status.url
        ));
    }
    let reason = status.info.as_ref().map(|info| info.reason.as_str()).unwrap_or_default();
    let help = match (reason, status.status.as_str()) {
        ("API_AMBIGUOUS", _) => {
            "say which API with --api NAME; \"longhaul apis list\" shows the names"
        }
        ("INVALID_FILTER", _) => {
            "filters are written as in AIP-160, for example: done = false AND metadata.verb = \"create\""
        }
        ("INVALID_NAME", _) => {
            "give the full name, as \"longhaul operations list -o name\" prints it"
        }
        ("CANCEL_UNSUPPORTED", _) => "the operation goes on; wait for it",
        (_, "NOT_FOUND") => {
            "it never existed, was deleted, or has outlived its retention; \"longhaul operations list\" shows what there is"
        }
        ("TLS_REQUIRED", _) => "begin the URL of --server with https://",
        ("ACCESS_TOKEN_EXPIRED", _) => "the token is over; \"longhaul auth token\" makes another",
        ("CREDENTIALS_MISSING", _) => {
            "give a token with --token-file or in LONGHAUL_TOKEN, or a certificate with --cert and --key"
        }
        ("ACCESS_TOKEN_SCOPE_INSUFFICIENT", _) => {
            "the token is good, but not for this; ask for one with the scope https://www.googleapis.com/auth/cloud-platform"
        }
        (_, "UNAUTHENTICATED") => {
            "the server does not take this token; \"longhaul auth whoami\" says what it says of itself"
        }
        (_, "PERMISSION_DENIED") => "the token's account lacks this permission on the parent",
        (_, "UNAVAILABLE") => "the server is stopping or overloaded; try again shortly",
        (_, "RESOURCE_EXHAUSTED") => "the server is at a limit; try again shortly",
        (_, "UNIMPLEMENTED") => "this API does not offer that",
        _ => return None,
    };
    Some(help.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Cancelled, 3),
            (Exit::Deadline, 4),
            (Exit::Detached, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code);
        }
    }

    #[test]
    fn the_state_seen_last_decides_how_a_wait_ends() {
        assert_eq!(Exit::of_state(State::Succeeded), Exit::Done);
        assert_eq!(Exit::of_state(State::Failed), Exit::Failed);
        assert_eq!(Exit::of_state(State::Cancelled), Exit::Cancelled);
        assert_eq!(Exit::of_state(State::Running), Exit::Deadline);
        assert_eq!(Exit::of_state(State::Cancelling), Exit::Deadline);
    }

    #[test]
    fn of_several_ends_the_worst_is_reported() {
        assert_eq!(Exit::Done.and(Exit::Cancelled), Exit::Cancelled);
        assert_eq!(Exit::Failed.and(Exit::Cancelled), Exit::Failed);
        assert_eq!(Exit::Cancelled.and(Exit::Deadline), Exit::Deadline);
        assert_eq!(Exit::Done.and(Exit::Done), Exit::Done);
    }

    #[test]
    fn a_failure_prints_message_reason_and_help() {
        let failure = Failure::usage("no such thing").because("GONE").help("look again").about("a");
        assert_eq!(failure.text(), "error: a: no such thing\nreason: GONE\n  help: look again\n");
        assert_eq!(Failure::silent(Exit::Cancelled).text(), "");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.text().as_str()), (Exit::Done, ""));
    }

    #[test]
    fn a_timeout_ends_with_its_own_code() {
        assert_eq!(Failure::from(Error::Timeout { last: None }).exit, Exit::Deadline);
        assert_eq!(Failure::from(Error::InvalidArgument("x".into())).exit, Exit::Usage);
    }
}
