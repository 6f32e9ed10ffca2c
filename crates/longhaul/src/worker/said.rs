//! What a command says on file descriptor 3, line by line.
//!
//! Owns the grammar, which `docs/command-worker.md` describes. Never refuses a line: what is neither
//! progress nor a request is progress in words.

use longhaul_client::worker::{Effects, Progress};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest message of progress and of a failure, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// One line.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// How far it is, and metadata of the API's own if the line holds any.
    Progress(Progress, Option<Map<String, Value>>),
    /// What a stop leaves behind.
    Effects(Effects),
    /// How it will have failed, should it fail.
    Failure(i32, String),
    /// It wants to take an irreversible step.
    Gate,
    /// It is about to start work outside.
    ExternalRef(String),
    /// It wants its checkpoint kept now.
    Checkpoint,
    /// A request that nobody knows.
    Unknown(String),
}

/// A line of JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    percent: Option<f32>,
    step: Option<u32>,
    steps: Option<u32>,
    message: String,
    metadata: Option<Map<String, Value>>,
}

/// Reads one line.
pub fn parse(line: &str) -> Said {
    let line = line.trim();
    if let Some(request) = line.strip_prefix("::") {
        return request_of(request);
    }
    if line.starts_with('{')
        && let Ok(fields) = serde_json::from_str::<Fields>(line)
    {
        let progress = Progress {
            percent: fields.percent,
            step: fields.step.unwrap_or_default(),
            steps: fields.steps.unwrap_or_default(),
            message: tidy(&fields.message),
        };
        return Said::Progress(progress, fields.metadata);
    }
    Said::Progress(percent(line).or_else(|| steps(line)).unwrap_or_else(|| words(line)), None)
}

fn request_of(request: &str) -> Said {
    let (name, rest) = first_word(request);
    match (name, rest) {
        ("progress", line) if !line.starts_with("::") => parse(line.trim_end_matches(':')),
        ("effects", said) => effects(said).map_or_else(|| unknown(request), Said::Effects),
        ("error", said) => {
            let (code, message) = first_word(said);
            code_of(code)
                .map_or_else(|| unknown(request), |code| Said::Failure(code, tidy(message)))
        }
        ("gate", "") => Said::Gate,
        ("checkpoint", "") => Said::Checkpoint,
        ("external-ref", said) if !said.is_empty() => Said::ExternalRef(said.to_owned()),
        (_, _) => unknown(request),
    }
}

fn unknown(request: &str) -> Said {
    Said::Unknown(tidy(request))
}

/// `40`, `40%`, `40.5 message`.
fn percent(line: &str) -> Option<Progress> {
    let (number, message) = first_word(line);
    let number = number.strip_suffix('%').unwrap_or(number);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let percent = number.parse::<f32>().ok().filter(|percent| percent.is_finite())?;
    Some(Progress { percent: Some(percent), message: tidy(message), ..Progress::default() })
}

/// `step 2/10 message`, `step 2 of 10 message`, `step 2 message`.
fn steps(line: &str) -> Option<Progress> {
    let (word, rest) = first_word(line);
    if !word.eq_ignore_ascii_case("step") {
        return None;
    }
    let (count, mut message) = first_word(rest);
    let (step, mut steps) = match count.split_once('/') {
        Some((step, steps)) => (step, steps.parse().ok()?),
        None => (count, 0),
    };
    let (of, after) = first_word(message);
    if steps == 0
        && of == "of"
        && let (number, behind) = first_word(after)
        && let Ok(number) = number.parse()
    {
        (steps, message) = (number, behind);
    }
    Some(Progress { percent: None, step: step.parse().ok()?, steps, message: tidy(message) })
}

fn words(line: &str) -> Progress {
    Progress { message: tidy(line), ..Progress::default() }
}

fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn effects(said: &str) -> Option<Effects> {
    match said.to_ascii_lowercase().as_str() {
        "none" => Some(Effects::None),
        "undone" => Some(Effects::Undone),
        "partial" => Some(Effects::Partial),
        "unknown" => Some(Effects::Unknown),
        _ => None,
    }
}

/// A google.rpc.Code by name or number; neither OK nor CANCELLED, which are not for a command to say.
fn code_of(said: &str) -> Option<i32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let by_name = NAMES.iter().position(|name| name.eq_ignore_ascii_case(said));
    let code = by_name.or_else(|| said.parse().ok())?;
    i32::try_from(code).ok().filter(|code| (2..=16).contains(code))
}

/// One line that no terminal obeys, of bounded length.
pub fn tidy(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)];
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(percent: impl Into<Option<f32>>, step: u32, steps: u32, message: &str) -> Said {
        let (percent, message) = (percent.into(), message.to_owned());
        Said::Progress(Progress { percent, step, steps, message }, None)
    }

    #[test]
    fn progress_may_be_said_in_many_ways() {
        for (line, said) in [
            ("40", progress(40.0, 0, 0, "")),
            ("40%", progress(40.0, 0, 0, "")),
            ("  12.5 half of  a quarter \r", progress(12.5, 0, 0, "half of  a quarter")),
            ("40%\tdone", progress(40.0, 0, 0, "done")),
            ("step 2/10 reading", progress(None, 2, 10, "reading")),
            ("step 2 of 10 reading", progress(None, 2, 10, "reading")),
            ("Step 3", progress(None, 3, 0, "")),
            ("step of faith", progress(None, 0, 0, "step of faith")),
            ("step 1/x y", progress(None, 0, 0, "step 1/x y")),
            (r#"{"percent":7.5,"message":"m"}"#, progress(7.5, 0, 0, "m")),
            (r#"{"step":1,"steps":4,"more":true}"#, progress(None, 1, 4, "")),
            ("{broken", progress(None, 0, 0, "{broken")),
            (r#"{"percent":"x"}"#, progress(None, 0, 0, r#"{"percent":"x"}"#)),
            ("reading\u{1b}[31m", progress(None, 0, 0, "reading [31m")),
            ("inf", progress(None, 0, 0, "inf")),
            ("::progress 40::", progress(40.0, 0, 0, "")),
            ("", progress(None, 0, 0, "")),
        ] {
            assert_eq!(parse(line), said, "{line}");
        }
    }

    #[test]
    fn requests_begin_with_two_colons() {
        for (line, said) in [
            ("::effects undone", Said::Effects(Effects::Undone)),
            ("::effects NONE", Said::Effects(Effects::None)),
            ("::effects nothing", Said::Unknown("effects nothing".into())),
            ("::error NOT_FOUND no such bucket", Said::Failure(5, "no such bucket".into())),
            ("::error 14", Said::Failure(14, String::new())),
            ("::error CANCELLED x", Said::Unknown("error CANCELLED x".into())),
            ("::error 17 x", Said::Unknown("error 17 x".into())),
            ("::gate", Said::Gate),
            ("::gate now", Said::Unknown("gate now".into())),
            ("::checkpoint", Said::Checkpoint),
            ("::external-ref build/7", Said::ExternalRef("build/7".into())),
            ("::external-ref", Said::Unknown("external-ref".into())),
            ("::", Said::Unknown(String::new())),
        ] {
            assert_eq!(parse(line), said, "{line}");
        }
    }

    #[test]
    fn metadata_comes_as_json() {
        let Said::Progress(_, Some(metadata)) = parse(r#"{"metadata":{"framesDone":7}}"#) else {
            panic!("metadata")
        };
        assert_eq!(metadata["framesDone"], 7);
    }

    #[test]
    fn no_line_is_too_strange() {
        for line in ["::progress ::progress 4", "\u{0}\u{ffff}", "9".repeat(99_999).as_str()] {
            parse(line);
        }
        let Said::Progress(said, None) = parse(&"é".repeat(9999)) else { panic!("words") };
        assert!(said.message.len() <= MESSAGE_BYTES_MAX);
    }
}
