//! Requests as clients send them: request text → message → response text.
//!
//! Each file of `tests/cases` is a claim with its cases. A case is a title, the request as it goes
//! over the line, the message that it means, and what a server that echoes the message answers:
//!
//! ```text
//! === title
//! POST /v1/all?$alt=json;enum-encoding=int
//! Content-Type: application/json
//!
//! {"color": "RED"}
//! --- message
//! longhaul.test.v1.Everything {"color":"RED"}
//! --- response
//! 200
//! {"color":1}
//! ```
//!
//! A refused request has `--- message` with the reason and every fault instead. Answers are
//! compared as the bytes they are; requests ask for one line unless they are about that.
//! `UPDATE_CASES=1` writes what is answered today into the files; read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};
use longhaul_core::{Error, Reason};
use longhaul_wire::json::{self, JsonOptions};
use longhaul_wire::message::Message;
use longhaul_wire::query::{self, Parts};
use longhaul_wire::{status, system};
use support::{echo, print_error};

/// Files that another test runs.
const ELSEWHERE: &[&str] = &["filters", "starts"];
/// The files of this test.
const FILES: &[&str] = &[
    "cancel_bodies",
    "system_parameters",
    "method_override",
    "paths",
    "unknown_fields",
    "bindings",
    "json_values",
    "any",
    "broken_json",
];

#[test]
fn cancel_bodies_arrive_in_four_shapes_and_others_are_refused() {
    check("cancel_bodies");
}

#[test]
fn system_parameters_are_known_in_every_escaping() {
    check("system_parameters");
}

#[test]
fn a_long_get_may_come_as_a_post_with_a_form() {
    check("method_override");
}

#[test]
fn paths_are_split_before_they_are_decoded() {
    check("paths");
}

#[test]
fn unknown_names_are_refused_in_the_words_of_google() {
    check("unknown_fields");
}

#[test]
fn fields_come_from_path_query_and_body_and_must_agree() {
    check("bindings");
}

#[test]
fn every_kind_of_value_is_read_and_written() {
    check("json_values");
}

#[test]
fn an_any_is_of_a_declared_type_and_empty_is_bare() {
    check("any");
}

#[test]
fn broken_json_is_refused_with_its_place() {
    check("broken_json");
}

#[test]
fn every_file_of_cases_is_run() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.trim_end_matches(".txt").to_owned())
        .filter(|name| !ELSEWHERE.contains(&name.as_str()))
        .collect();
    files.sort();
    let mut listed = FILES.to_vec();
    listed.sort_unstable();
    assert_eq!(files, listed);
}

struct Answer {
    message: String,
    code: u16,
    body: Vec<u8>,
}

/// Runs every case of one file.
#[track_caller]
fn check(file: &str) {
    let path = folder().join(file).with_extension("txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let mut written = String::new();
    let mut wrong = String::new();
    let (head, cases) = text.split_once("=== ").unwrap_or((&text, ""));
    written.push_str(head);
    for case in cases.split("\n=== ") {
        let (title, rest) = case.split_once('\n').unwrap();
        let (request, expected) = rest.split_once("--- message\n").unwrap_or((rest, ""));
        let answer = answer(request);
        let body = String::from_utf8(answer.body).unwrap();
        let got = format!("{}\n--- response\n{}\n{body}\n", answer.message, answer.code)
            .replace("\n\n", "\n");
        if got.trim_end() != expected.trim_end() {
            write!(wrong, "\n{file}: {title}\n--- expected\n{expected}\n--- got\n{got}").unwrap();
        }
        write!(written, "=== {title}\n{request}--- message\n{got}\n").unwrap();
    }
    if update {
        std::fs::write(&path, written.trim_end().to_owned() + "\n").unwrap();
    }
    assert!(wrong.is_empty() || update, "{wrong}");
}

/// What the echo server makes of one request.
fn answer(request: &str) -> Answer {
    let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end(), ""));
    let mut lines = head.lines();
    let (verb, target) = lines.next().unwrap().split_once(' ').unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let name: HeaderName = name.trim().parse().unwrap();
        headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    let (path, raw_query) = target.split_once('?').unwrap_or((target, ""));
    match serve(verb, path, raw_query, &headers, body.trim_end_matches('\n').as_bytes()) {
        Ok((message, body)) => Answer { message, code: 200, body },
        Err(error) => Answer {
            message: print_error(&error),
            code: status::http_code(error.code()),
            body: status::to_http_body(&error, "echo.example.com", format_of(raw_query), false),
        },
    }
}

fn format_of(raw_query: &str) -> status::ErrorFormat {
    match system::extract(raw_query, &HeaderMap::new()) {
        Ok((parameters, _)) => parameters.error_format,
        Err(_) => status::ErrorFormat::V2,
    }
}

fn serve(
    verb: &str,
    path: &str,
    raw_query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(String, Vec<u8>), Error> {
    let method: http::Method = verb.parse().unwrap();
    let meant = system::effective(&method, raw_query, headers, body)?;
    let (parameters, query) = system::extract(&meant.query, headers)?;
    let found = echo().router.find(&meant.method, path).ok_or_else(|| {
        let verbs: Vec<_> =
            echo().router.methods_at(path).iter().map(ToString::to_string).collect();
        let served = if verbs.is_empty() { "nothing".into() } else { verbs.join(", ") };
        Error::new(Reason::MethodNotFound, format!("this path serves {served}"))
    })?;
    let (rule, ty) = found.value;
    let variables = found.variables()?;
    let parts = Parts { variables: &variables, query: &query, body: meant.body };
    let message = query::bind(rule, ty, parts, &echo().descriptors)?;
    // What is stored is the binary form; a reply is made from it.
    let message = Message::decode(ty, &message.encode())?;
    let plain = JsonOptions::default();
    let shown = json::to_json(&message, &echo().descriptors, &plain)?;
    let options = JsonOptions {
        enums_as_ints: parameters.enums_as_ints,
        pretty: parameters.pretty && raw_query.contains("rettyPrint"),
        always_print_defaults: parameters.print_defaults,
        ..plain
    };
    let mut reply = match &rule.response_body {
        Some(field) => json::field_to_json(&message, field, &echo().descriptors, &options)?,
        None => json::to_json(&message, &echo().descriptors, &options)?,
    };
    if let Some(mask) = &parameters.fields {
        mask.check(ty)?;
        reply = mask.apply(&reply, options.pretty)?;
    }
    let shown = format!("{} {}", message.full_name(), String::from_utf8(shown).unwrap());
    Ok((shown, reply))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}
