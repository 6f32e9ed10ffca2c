//! The grammar of HTTP rules, and what becomes of rules that clash.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use longhaul_core::Reason;
use longhaul_wire::http_rule::{Body, HttpMethod, HttpRule, Router, Template};
use proptest::prelude::*;
use support::echo_type;

#[test]
fn paths_of_published_apis_parse_and_print_their_shape() {
    for (path, shape, variables) in [
        ("/v1/{name=operations/**}", "/v1/operations/**", "name=operations/**"),
        ("/v1/operations/{name=**}", "/v1/operations/**", "name=**"),
        ("/v1/operations", "/v1/operations", ""),
        ("/v1/{name=*/*/operations/*/**}", "/v1/*/*/operations/*/**", "name=*/*/operations/*/**"),
        (
            "/v1/{name=networks/*/operations/reports/runs/*}",
            "/v1/networks/*/operations/reports/runs/*",
            "name=networks/*/operations/reports/runs/*",
        ),
        (
            "/v1/{name=transferOperations/**}",
            "/v1/transferOperations/**",
            "name=transferOperations/**",
        ),
        (
            "/v1/{name=projects/*/locations/*/operations/*}:cancel",
            "/v1/projects/*/locations/*/operations/*:cancel",
            "name=projects/*/locations/*/operations/*",
        ),
        (
            "/v1/projects/{project_id}/regions/{region}/clusters/{cluster_name}:start",
            "/v1/projects/*/regions/*/clusters/*:start",
            "project_id=* region=* cluster_name=*",
        ),
        (
            "/v1/{delivery_pipeline.name=projects/*/deliveryPipelines/*}",
            "/v1/projects/*/deliveryPipelines/*",
            "delivery_pipeline.name=projects/*/deliveryPipelines/*",
        ),
        (
            "/compute/v1/projects/{project}/zones/{zone}",
            "/compute/v1/projects/*/zones/*",
            "project=* zone=*",
        ),
        ("/$discovery/rest", "/$discovery/rest", ""),
    ] {
        let template = Template::parse(path).unwrap();
        assert_eq!(template.to_string(), path);
        assert_eq!(template.shape(), shape);
        let printed: Vec<_> = template
            .variables()
            .iter()
            .map(|variable| format!("{}={}", variable.field_path(), variable.pattern()))
            .collect();
        assert_eq!(printed.join(" "), variables);
    }
}

#[test]
fn paths_outside_of_the_grammar_are_refused_with_the_place() {
    for (path, part) in [
        ("", "starts with a slash"),
        ("v1/x", "starts with a slash"),
        ("/", "never empty"),
        ("/v1//x", "never empty"),
        ("/v1/", "never empty"),
        ("/v1/{name", "closing brace"),
        ("/v1/{name=a/*", "closing brace"),
        ("/v1/{name={other=*}}", "do not nest"),
        ("/v1/{=*}", "names a field"),
        ("/v1/{a..b}", "names a field"),
        ("/v1/{1a}", "names a field"),
        ("/v1/{a}/{a}", "bound twice"),
        ("/v1/**/x", "only stand last"),
        ("/v1/{name=**}/x", "only stand last"),
        ("/v1/x{name}", "expected a slash"),
        ("/v1/{name}x", "expected a slash"),
        ("/v1/***", "expected a slash"),
        ("/v1/x:", "a verb is a word"),
        ("/v1/x:a/b", "a verb stands last"),
        ("/v1/x:a:b", "a verb stands last"),
        ("/v1/x?y=z", "expected a slash"),
        ("/v1/é", "never empty"),
    ] {
        let error = Template::parse(path).unwrap_err();
        assert_eq!(error.reason, Reason::ApiInvalid);
        assert!(error.message.contains(part), "{path}: {}", error.message);
    }
    assert!(Template::parse(&format!("/{}", "a".repeat(3_000))).is_err());
}

#[test]
fn a_template_is_filled_with_values_of_its_shape() {
    let template = Template::parse("/v1/{name=projects/*/operations/*}:cancel").unwrap();
    let fill = |value: &'static str| move |_: &str| Some(value.to_owned());
    assert_eq!(
        template.expand(fill("projects/p q/operations/a:b")).as_deref(),
        Some("/v1/projects/p q/operations/a:b:cancel")
    );
    assert_eq!(
        template.expand_url(fill("projects/p q/operations/a:b")).as_deref(),
        Some("/v1/projects/p%20q/operations/a%3Ab:cancel")
    );
    for wrong in [
        "",
        "projects/p",
        "projects//operations/o",
        "projects/p/operations/o/x",
        "x/p/operations/o",
    ] {
        assert_eq!(template.expand(fill(wrong)), None, "{wrong}");
    }
    assert_eq!(template.expand(|_| None), None);
    let open = Template::parse("/v1/operations/{name=**}").unwrap();
    assert_eq!(open.expand_url(fill("a/b c")).as_deref(), Some("/v1/operations/a/b%20c"));
    assert_eq!(open.expand(fill("")).as_deref(), Some("/v1/operations"));
    let single = Template::parse("/v1/{id}/x").unwrap();
    assert_eq!(single.expand_url(fill("a/b")).as_deref(), Some("/v1/a%2Fb/x"));
}

fn rule(selector: &str, verb: HttpMethod, path: &str) -> HttpRule {
    HttpRule::from_parts(selector, verb, path, "", "").unwrap()
}

#[test]
fn rules_of_one_shape_collide_and_the_error_names_both() {
    let mut router = Router::new();
    router.insert(&rule("a.One", HttpMethod::Get, "/v1/{name=things/*}"), 1).unwrap();
    router.insert(&rule("a.Two", HttpMethod::Post, "/v1/{name=things/*}"), 2).unwrap();
    router.insert(&rule("a.Three", HttpMethod::Get, "/v1/{name=things/*}:go"), 3).unwrap();
    let error = router.insert(&rule("a.Four", HttpMethod::Get, "/v1/things/{id}"), 4).unwrap_err();
    assert_eq!(error.reason, Reason::ApiInvalid);
    assert!(error.message.contains("a.Four") && error.message.contains("a.One"));
    let find = |verb: HttpMethod, path: &str| router.find(&verb, path).map(|found| *found.value);
    assert_eq!(find(HttpMethod::Get, "/v1/things/x"), Some(1));
    assert_eq!(find(HttpMethod::Post, "/v1/things/x"), Some(2));
    assert_eq!(find(HttpMethod::Get, "/v1/things/x:go"), Some(3));
    assert_eq!(find(HttpMethod::Put, "/v1/things/x"), None);
    assert_eq!(find(HttpMethod::Get, "v1/things/x"), None);
    assert_eq!(find(HttpMethod::Get, ""), None);
}

#[test]
fn a_less_specific_rule_serves_what_a_more_specific_one_does_not() {
    let mut router = Router::new();
    router.insert(&rule("a.One", HttpMethod::Get, "/v1/a/b"), "literal").unwrap();
    router.insert(&rule("a.Two", HttpMethod::Post, "/v1/{x}/b"), "star").unwrap();
    router.insert(&rule("a.Three", HttpMethod::Get, "/v1/{x=**}"), "stars").unwrap();
    router.insert(&rule("a.All", HttpMethod::Custom("*".into()), "/v1/a/{x}"), "every").unwrap();
    let find = |verb: HttpMethod, path: &str| router.find(&verb, path).map(|found| *found.value);
    assert_eq!(find(HttpMethod::Get, "/v1/a/b"), Some("literal"));
    assert_eq!(find(HttpMethod::Post, "/v1/a/b"), Some("every"));
    assert_eq!(find(HttpMethod::Post, "/v1/c/b"), Some("star"));
    assert_eq!(find(HttpMethod::Get, "/v1/c/b"), Some("stars"));
    assert_eq!(find(HttpMethod::Get, "/v1/a/b/c"), Some("stars"));
    assert_eq!(find(HttpMethod::Custom("TRACE".into()), "/v1/a/c"), Some("every"));
}

#[test]
fn a_rule_is_checked_against_its_messages() {
    let input = echo_type("UpdateRequest");
    let check = |path: &str, body: &str, response: &str| {
        let rule = HttpRule::from_parts("a.M", HttpMethod::Patch, path, body, response).unwrap();
        rule.check(&input, &input).map_err(|error| error.message)
    };
    assert_eq!(check("/v1/{thing.name}", "thing", "thing"), Ok(()));
    for (path, body, response, part) in [
        ("/v1/{nope}", "", "", "no field \"nope\""),
        ("/v1/{thing.nope}", "", "", "no field \"thing.nope\""),
        ("/v1/{thing}", "", "", "cannot stand in a path"),
        ("/v1/{thing.tags}", "", "", "cannot stand in a path"),
        ("/v1/x", "nope", "", "no field \"nope\""),
        ("/v1/x", "*", "nope", "no field \"nope\""),
    ] {
        let message = check(path, body, response).unwrap_err();
        assert!(message.contains(part) && message.contains("a.M"), "{message}");
    }
    let rule = HttpRule::from_parts("a.M", HttpMethod::parse("PATCH"), "/v1/x", "*", "").unwrap();
    assert_eq!((rule.body, rule.response_body), (Body::All, None));
}

#[test]
fn a_long_path_is_answered_at_once() {
    let mut router = Router::new();
    for (name, path) in
        [("a.A", "/v1/{x=**}"), ("a.B", "/{x}/{y}/z"), ("a.C", "/v1/a/a/a/{x=**}:go")]
    {
        router.insert(&rule(name, HttpMethod::Get, path), name).unwrap();
    }
    let path = format!("/v1{}", "/a".repeat(1_000_000));
    let found = router.find(&HttpMethod::Get, &path).unwrap();
    assert_eq!(found.variables().unwrap()[0].1.len(), 1_999_999);
}

proptest! {
    #[test]
    fn any_path_is_parsed_or_refused(path in "[/{}*=:.a-z]{0,30}") {
        if let Ok(template) = Template::parse(&path) {
            prop_assert_eq!(Template::parse(&template.to_string()).unwrap(), template);
        }
    }

    #[test]
    fn what_a_template_writes_its_router_reads(
        project in "\\PC{1,8}",
        id in "[^/]{1,8}",
        verb in any::<bool>(),
    ) {
        prop_assume!(!project.contains('/'));
        let path = if verb { "/v1/{name=projects/*/operations/*}:cancel" } else { "/v1/{name=projects/*/operations/*}" };
        let rule = rule("a.M", HttpMethod::Post, path);
        let mut router = Router::new();
        router.insert(&rule, ()).unwrap();
        let name = format!("projects/{project}/operations/{id}");
        let url = rule.template.expand_url(|_| Some(name.clone())).unwrap();
        let found = router.find(&HttpMethod::Post, &url).unwrap();
        prop_assert_eq!(found.variables().unwrap(), [("name".to_owned(), name)]);
    }
}
