//! System parameters in the query and in headers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use http::{HeaderMap, HeaderValue};
use longhaul_core::Reason;
use longhaul_wire::http_rule::HttpMethod;
use longhaul_wire::status::ErrorFormat;
use longhaul_wire::system::{ResponseMask, SystemParameters, effective, extract, query_token};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect()
}

#[test]
fn a_plain_call_has_no_parameters_and_is_pretty() {
    let (parameters, rest) = extract("", &HeaderMap::new()).unwrap();
    assert_eq!(parameters, SystemParameters::default());
    assert!(parameters.pretty && rest.is_empty());
}

#[test]
fn every_parameter_is_taken_and_the_rest_is_left_in_order() {
    let query = "b=2&$alt=json;enum-encoding=int&prettyPrint=false&$outputDefaults=true&$.xgafv=1\
                 &key=k&access_token=t&quotaUser=q&$userProject=p&$apiVersion=v&fields=name&a=%2B+1&b=3";
    let (parameters, rest) = extract(query, &HeaderMap::new()).unwrap();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        parameters,
        SystemParameters {
            enums_as_ints: true,
            pretty: false,
            print_defaults: true,
            fields: Some(ResponseMask::parse("name").unwrap()),
            error_format: ErrorFormat::V1,
            key: some("k"),
            quota_user: some("q"),
            user_project: some("p"),
            api_version: some("v"),
        }
    );
    let rest: Vec<_> = rest.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(rest, [("b", "2"), ("a", "+ 1"), ("b", "3")]);
}

#[test]
fn a_token_in_the_query_is_read_apart_and_kept_nowhere_else() {
    let check = |query: &str, want: Option<&str>| {
        assert_eq!(query_token(query).as_deref(), want, "{query}");
    };
    check("a=1&access_token=x%2Ey&b=2", Some("x.y"));
    check("$oauth_token=t", Some("t"));
    check("access%5Ftoken=a&oauth_token=t", Some("t"));
    check("access_token", None);
    check("my_access_token=t", None);
    check("", None);
    let (parameters, rest) = extract("key=hush&access_token=hush", &HeaderMap::new()).unwrap();
    assert!(rest.is_empty());
    assert!(!format!("{parameters:?}").contains("hush"));
}

#[test]
fn headers_say_what_the_query_does_not() {
    let headers = headers(&[
        ("x-goog-api-key", "header"),
        ("x-goog-quota-user", "header"),
        ("x-goog-user-project", "header"),
        ("x-goog-api-version", "header"),
        ("x-goog-fieldmask", "name"),
    ]);
    let (parameters, _) = extract("key=query&fields=done", &headers).unwrap();
    assert_eq!(parameters.key.as_deref(), Some("query"));
    assert_eq!(parameters.quota_user.as_deref(), Some("header"));
    assert_eq!(parameters.user_project.as_deref(), Some("header"));
    assert_eq!(parameters.api_version.as_deref(), Some("header"));
    assert_eq!(parameters.fields, Some(ResponseMask::parse("done").unwrap()));
}

#[test]
fn values_that_are_not_offered_are_refused() {
    for query in [
        "alt=media",
        "alt=sse",
        "$alt=xml",
        "prettyPrint=maybe",
        "$.xgafv=3",
        "fields=a(",
        "fields=a)",
        "fields=,",
        "uploadType=multipart",
        "$ct=text/xml",
        "$req=x",
    ] {
        let error = extract(query, &HeaderMap::new()).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidSystemParameter, "{query}");
    }
    let long = "a=1&".repeat(10_001);
    assert_eq!(extract(&long, &HeaderMap::new()).unwrap_err().reason, Reason::InvalidValue);
    let deep = format!("fields={}", "a/".repeat(1_000) + "a");
    assert!(extract(&deep, &HeaderMap::new()).is_err());
    let open = format!("fields={}", "a(".repeat(1_000));
    assert!(extract(&open, &HeaderMap::new()).is_err());
}

#[test]
fn only_a_post_is_overridden_and_only_a_form_joins_the_query() {
    let form = headers(&[
        ("x-http-method-override", "GET"),
        ("content-type", "application/x-www-form-urlencoded"),
    ]);
    let meant = effective(&http::Method::POST, "a=1", &form, b"b=2").unwrap();
    assert_eq!((meant.method, &*meant.query, meant.body), (HttpMethod::Get, "a=1&b=2", &b""[..]));
    let json =
        headers(&[("x-http-method-override", "PATCH"), ("content-type", "application/json")]);
    let meant = effective(&http::Method::POST, "a=1", &json, b"{}").unwrap();
    assert_eq!((meant.method, &*meant.query, meant.body), (HttpMethod::Patch, "a=1", &b"{}"[..]));
    let meant = effective(&http::Method::PUT, "", &form, b"b=2").unwrap();
    assert_eq!((meant.method, &*meant.query, meant.body), (HttpMethod::Put, "", &b"b=2"[..]));
    assert!(effective(&http::Method::POST, "", &form, &[0xff]).is_err());
}
