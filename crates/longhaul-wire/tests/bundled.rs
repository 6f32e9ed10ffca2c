//! The five bundled APIs, as the contract has them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;

use longhaul_core::Reason;
use longhaul_wire::api::{Api, MethodKind};
use longhaul_wire::bundled;
use longhaul_wire::http_rule::HttpMethod;
use longhaul_wire::json;
use longhaul_wire::message::Message;
use longhaul_wire::settings::OperationsVerb;
use longhaul_wire::start::{StartFacts, start_facts};

fn api(name: &str) -> Arc<Api> {
    bundled::load(name).expect("a bundled API loads")
}

#[track_caller]
fn request(api: &Api, method: &str, text: &str) -> Message {
    let method = api.method(method).unwrap_or_else(|| panic!("no method {method}"));
    json::from_json(&method.input, text.as_bytes(), api).expect("the request parses")
}

#[track_caller]
fn facts(api: &Api, method: &str, text: &str) -> Result<StartFacts, longhaul_core::Error> {
    let request = request(api, method, text);
    start_facts(api, api.method(method).unwrap(), &request)
}

#[test]
fn every_start_method_has_parent_target_verb_and_types() {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let apis: HashMap<&str, Arc<Api>> = bundled::names().map(|name| (name, api(name))).collect();
    let lines = include_str!("cases/starts.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> = line.split(" | ").collect();
        let [name, method, text, parent, target, verb, response, metadata] = columns[..] else {
            panic!("eight columns: {line}");
        };
        let api = &apis[name];
        let found = facts(api, method, text).unwrap_or_else(|error| panic!("{method}: {error}"));
        assert_eq!(found.parent, parent, "{method}");
        assert_eq!(found.target, target, "{method}");
        assert_eq!(&*found.verb, verb, "{method}");
        let start = api.method(method).unwrap().start().expect("it starts an operation");
        assert_eq!(start.response_type.full_name(), response, "{method}");
        assert_eq!(start.metadata_type.full_name(), metadata, "{method}");
        assert_eq!(&*found.metadata.type_name, metadata, "{method}");
        *seen.entry(format!("{name} {method}")).or_default() += 1;
    }
    for (name, api) in &apis {
        for method in api.start_methods() {
            assert!(seen.contains_key(&format!("{name} {}", method.full_name)), "{method:?}");
        }
    }
    let count = |name: &str| apis[name].start_methods().count();
    assert_eq!(count("clouddeploy"), 17);
    assert_eq!(count("privateca"), 14);
    assert_eq!(count("storagebatchoperations"), 1);
    assert_eq!(count("dataproc"), 15);
    assert_eq!(count("cloudaicompanion"), 21);
}
