//! `longhaul audit`: checks an audit log, and says which line is wrong.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use longhaul_server::audit::{Expect, Report, hex, unhex, verify_file, verify_lines};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::output::{self, Format};

/// Examples for the help.
pub const EXAMPLES: &str = "\
Examples:
  longhaul audit verify /var/log/longhaul/audit.jsonl       the file, and those it was rotated to
  longhaul audit verify audit.jsonl --contains 3f9a…        and a hash that was noted elsewhere
  kubectl logs longhaul | longhaul audit verify -           what standard output was collected to

Exit codes:
  0 every line is as it was written   1 something was changed, removed, inserted, moved or cut off";

/// `longhaul audit`.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with an audit log.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check that no line was changed, removed, inserted, moved or cut off
    #[command(after_help = EXAMPLES)]
    Verify(Verify),
}

/// `longhaul audit verify`.
#[derive(ClapArgs, Debug)]
pub struct Verify {
    /// The log as the configuration names it; - reads collected lines from standard input
    pub path: PathBuf,
    /// Hash of the last line of older files that were moved away
    #[arg(long, value_name = "HASH", value_parser = hash)]
    pub after: Option<[u8; 32]>,
    /// A hash noted elsewhere, which must be that of a line
    #[arg(long, value_name = "HASH", value_parser = hash)]
    pub contains: Option<[u8; 32]>,
    /// In which form to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

fn hash(text: &str) -> Result<[u8; 32], String> {
    unhex(text.as_bytes()).ok_or_else(|| "a hash has 64 digits, 0 to 9 and a to f".to_owned())
}

/// Checks, and says what was found.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let Command::Verify(args) = args.command;
    let expect = Expect { after: args.after, contains: args.contains };
    let report = if args.path == Path::new("-") {
        verify_lines(io::stdin().lock(), &expect)
    } else {
        verify_file(&args.path, &expect)
    };
    let report = report
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", args.path.display())))?;
    let printed = match args.output {
        Format::Json => output::json(&facts(&report))?,
        Format::Yaml => output::yaml(&facts(&report))?,
        Format::Name => report.findings.iter().map(|finding| format!("{finding}\n")).collect(),
        Format::Table => text(&report),
    };
    output::print(&printed)?;
    Ok(if report.findings.is_empty() { Exit::Done } else { Exit::Failed })
}

fn facts(report: &Report) -> Value {
    let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    json!({
        "sound": report.findings.is_empty(),
        "lines": report.lines,
        "lastSequence": report.last.sequence,
        "lastHash": hex(&report.last.hash),
        "tornBytes": report.torn_bytes,
        "findings": findings,
    })
}

fn text(report: &Report) -> String {
    let mut text: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    if report.torn_bytes > 0 {
        text += &format!(
            "note: the last line is torn ({} bytes): the server was killed while it wrote, and mends it when it starts again\n",
            report.torn_bytes
        );
    }
    let verdict = match report.findings.len() {
        0 => "sound".to_owned(),
        1 => "not sound, 1 finding".to_owned(),
        count => format!("not sound, {count} findings"),
    };
    let Report { lines, last, .. } = report;
    text + &format!(
        "{verdict}: {lines} lines, the last has sequence {} and hash {}\n",
        last.sequence,
        hex(&last.hash)
    )
}

#[cfg(test)]
mod tests {
    use longhaul_server::audit::{Finding, Link};

    use super::*;

    #[test]
    fn a_report_names_every_finding_and_the_last_hash() {
        let mut report = Report {
            lines: 7,
            last: Link { sequence: 7, hash: [0xab; 32] },
            torn_bytes: 12,
            findings: vec![Finding::Changed { line: 3, sequence: 3 }],
        };
        let said = text(&report);
        assert!(said.starts_with("line 3 (sequence 3) was changed"), "{said}");
        assert!(said.contains("torn (12 bytes)"), "{said}");
        assert!(said.contains("not sound, 1 finding: 7 lines"), "{said}");
        assert!(said.trim_end().ends_with(&"ab".repeat(32)), "{said}");
        assert_eq!(facts(&report)["sound"], false);
        report.findings.clear();
        assert!(text(&report).contains("\nsound: 7 lines"));
    }

    #[test]
    fn a_hash_is_64_digits() {
        assert_eq!(hash(&"ab".repeat(32)), Ok([0xab; 32]));
        for wrong in ["", "ab", &"AB".repeat(32), &"ag".repeat(32), &"a".repeat(65)] {
            assert!(hash(wrong).is_err(), "{wrong}");
        }
    }
}
