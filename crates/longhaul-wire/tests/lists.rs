//! Filters of lists, as one readable table over operations of real APIs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support/walk.rs"]
mod walk;

use std::collections::HashMap;
use std::sync::Arc;

use longhaul_core::{Code, Operation, Reason};
use longhaul_wire::api::Api;
use longhaul_wire::bundled;
use longhaul_wire::list::{Filter, page_size};
use walk::{cancelled, cancelling, failed, running, started, succeeded};

/// Six operations, named after where they are in their lives, oldest first.
fn operations(api: &Api) -> Vec<Operation> {
    let start = |id: &str| match &**api.name() {
        "dataproc.googleapis.com" => started(
            api,
            "CreateCluster",
            id,
            &format!(
                r#"{{"projectId":"p","region":"r","cluster":{{"clusterName":"{id}","labels":{{"env":"prod"}}}}}}"#
            ),
        ),
        _ => started(
            api,
            "CreateTarget",
            id,
            &format!(r#"{{"parent":"projects/p/locations/l","targetId":"{id}","target":{{}}}}"#),
        ),
    };
    vec![
        start("queued"),
        running(&start("running")),
        cancelling(&running(&start("cancelling"))),
        cancelled(&cancelling(&running(&start("cancelled")))),
        failed(&running(&start("failed")), Code::NotFound, "no such thing", Vec::new()),
        succeeded(api, &running(&start("succeeded"))),
    ]
}

#[test]
fn filters_mean_what_the_table_says() {
    let mut apis: HashMap<&str, (Arc<Api>, Vec<Operation>)> = HashMap::new();
    for name in ["clouddeploy", "dataproc"] {
        let api = bundled::load(name).unwrap();
        let operations = operations(&api);
        apis.insert(name, (api, operations));
    }
    let lines = include_str!("cases/filters.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut columns = line.splitn(3, '|');
        let [name, filter, expected] =
            [columns.next(), columns.next(), columns.next()].map(|part| part.expect(line).trim());
        let (api, operations) = &apis[name];
        check(api, operations, filter, expected);
    }
}

#[track_caller]
fn check(api: &Api, operations: &[Operation], text: &str, expected: &str) {
    let filter = match (Filter::parse(text, api), expected.strip_prefix('!')) {
        (Ok(filter), None) => filter,
        (Err(error), Some(words)) => {
            assert_eq!(error.reason, Reason::InvalidFilter, "{text}");
            assert!(error.message.contains(words), "{text}: {} lacks {words:?}", error.message);
            assert_eq!(error.violations[0].field, "filter");
            return;
        }
        (got, wanted) => panic!("{text}: {got:?}, expected {wanted:?}"),
    };
    let matching: Vec<&Operation> =
        operations.iter().filter(|operation| filter.matches(operation, api)).collect();
    let names: Vec<&str> = matching.iter().map(|operation| operation.name.id()).collect();
    assert_eq!(names.join(" "), expected, "{text}");
    let created = filter.created();
    assert!(
        matching.iter().all(|operation| {
            created.first.is_none_or(|first| operation.create_time >= first)
                && created.last.is_none_or(|last| operation.create_time <= last)
        }),
        "{text}: {created:?}"
    );
    if let Some(done) = filter.done_hint() {
        assert!(matching.iter().all(|op| op.outcome().is_some() == done), "{text}: hint {done}");
    }
}

#[test]
fn a_hint_says_when_only_done_operations_can_match() {
    let api = bundled::load("clouddeploy").unwrap();
    for (text, hint) in [
        ("", None),
        ("done=true", Some(true)),
        ("done=false AND metadata.verb=create", Some(false)),
        ("NOT done=true", Some(false)),
        ("error.code=1 OR state=SUCCEEDED", Some(true)),
        ("error.code=1 OR metadata.verb=create", None),
        ("state=RUNNING", Some(false)),
    ] {
        assert_eq!(Filter::parse(text, &api).unwrap().done_hint(), hint, "{text}");
    }
}

#[test]
fn a_filter_says_when_what_matches_was_created() {
    let api = bundled::load("clouddeploy").unwrap();
    let at = |seconds: i64| Some(longhaul_core::Timestamp::from_micros(seconds * 1_000_000));
    let after = "create_time > \"1970-01-01T00:00:10Z\"";
    let before = "createTime <= \"1970-01-01T00:00:20Z\"";
    for (text, first, last) in [
        ("done=true".to_owned(), None, None),
        (after.to_owned(), at(10), None),
        (format!("{after} AND {before} AND done=true"), at(10), at(20)),
        (format!("{after} AND create_time >= \"1970-01-01T00:00:15Z\""), at(15), None),
        (format!("{after} OR {before}"), None, None),
        (
            "create_time = \"1970-01-01T00:00:10Z\" OR create_time < \"1970-01-01T00:00:05Z\""
                .into(),
            None,
            at(10),
        ),
        (format!("NOT {after}"), None, None),
    ] {
        let created = Filter::parse(&text, &api).unwrap().created();
        assert_eq!((created.first, created.last), (first, last), "{text}");
    }
}

#[test]
fn hostile_filters_are_refused_quickly() {
    let api = bundled::load("dataproc").unwrap();
    let deep = format!("{}done=true{}", "(".repeat(5000), ")".repeat(5000));
    let long = vec!["done=true"; 201].join(" OR ");
    let nested = "[".repeat(10_000);
    for text in
        [&*deep, &*long, &"x".repeat(17 << 10), "\0", "a = \u{202e}", &format!("{{\"a\":{nested}")]
    {
        let error = Filter::parse(text, &api).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidFilter);
    }
    // Many stars against a long text end at once.
    let stars = format!("name = \"{}\"", "*a".repeat(2000));
    let filter = Filter::parse(&stars, &api).unwrap();
    assert!(operations(&api).iter().all(|operation| !filter.matches(operation, &api)));
}

/// CONTRACT 4.1: AIP-158.
#[test]
fn page_sizes_have_a_default_and_a_limit() {
    let api = bundled::load("clouddeploy").unwrap();
    let settings = &api.settings().operations;
    for (asked, given) in [(0, 100), (1, 1), (1000, 1000), (i32::MAX, 1000)] {
        assert_eq!(page_size(asked, settings).unwrap(), given);
    }
    assert_eq!(page_size(-1, settings).unwrap_err().reason, Reason::InvalidPageSize);
}
