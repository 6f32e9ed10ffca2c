//! Writes `docs/errors.md`: one section for each reason in `longhaul-core`, and nothing by hand.
//!
//! Owns the page's layout. The words are those of `Reason::help`.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use longhaul_core::{Code, Reason};

/// Where the page lives, from the root of the repository.
pub const PAGE: &str = "docs/errors.md";

/// What `cargo xtask errors` takes.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Compare with the committed page instead of writing it; fails when they differ.
    #[arg(long)]
    pub check: bool,
}

/// Writes, or with `--check` compares, the page.
pub fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    let page = render();
    let mut out = std::io::stdout().lock();
    if args.check {
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if committed != page {
            return Err(format!("{PAGE} is out of date; run `cargo xtask errors`").into());
        }
        writeln!(out, "same    {PAGE}")?;
    } else {
        std::fs::write(&path, &page)?;
        writeln!(out, "wrote {PAGE}, {} reasons", Reason::ALL.len())?;
    }
    Ok(())
}

/// The whole page.
#[must_use]
pub fn render() -> String {
    let mut page = String::from(OPENING);
    page.push_str("| reason | code | HTTP |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let code = reason.code();
        let (name, anchor) = (reason.name(), reason.name().to_lowercase());
        line(
            &mut page,
            format_args!("| [`{name}`](#{anchor}) | {} | {} |", code.name(), http(code)),
        );
    }
    for reason in Reason::ALL {
        let code = reason.code();
        line(&mut page, format_args!("\n## {}\n", reason.name()));
        line(
            &mut page,
            format_args!("{} ({}), HTTP {}.\n", code.name(), code.number(), http(code)),
        );
        line(&mut page, format_args!("{}", reason.help()));
    }
    page
}

const OPENING: &str = "\
# Errors

<!-- Written by `cargo xtask errors` from longhaul-core's list of reasons. Change it there. -->

Every error says why in a `google.rpc.ErrorInfo`: over HTTP in `error.details` of the body, over gRPC in
`grpc-status-details-bin`. Match on its `reason` (they never change their meaning), not on the message, which
is for people.

```json
{
  \"error\": {
    \"code\": 404,
    \"message\": \"…\",
    \"status\": \"NOT_FOUND\",
    \"details\": [{\"@type\": \"type.googleapis.com/google.rpc.ErrorInfo\", \"reason\": \"OPERATION_NOT_FOUND\", …}]
  }
}
```

An operation that ended badly is not an error of the call: reading it is HTTP 200, and its own `error.code` is a
number of `google.rpc.Code` (1 for cancelled), not an HTTP status.

";

/// The HTTP status that a code travels under. Source: google/rpc/code.proto.
const fn http(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    }
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_section_with_its_help() {
        let page = render();
        for reason in Reason::ALL {
            assert!(page.contains(&format!("\n## {}\n", reason.name())), "{}", reason.name());
            assert!(page.contains(reason.help()), "{}", reason.name());
        }
    }

    #[test]
    fn statuses_are_those_of_code_proto() {
        assert_eq!(http(Code::Cancelled), 499);
        assert_eq!(http(Code::Aborted), 409);
        assert_eq!(http(Code::FailedPrecondition), 400);
    }
}
