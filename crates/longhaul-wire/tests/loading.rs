//! Users' own APIs: a folder of `.proto` files, a service configuration and settings through the same
//! door as the bundled ones, and what is said when they do not fit.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use longhaul_core::{Error, Reason};
use longhaul_wire::api::{Api, ApiSource, MethodKind};
use longhaul_wire::http_rule::HttpMethod;
use longhaul_wire::json;
use longhaul_wire::message::TypeResolver as _;
use longhaul_wire::protos::compile_protos;
use longhaul_wire::settings::OperationsVerb;
use longhaul_wire::start::start_facts;

/// A small API with annotations, as a user would write it; imports come with the program.
const LIBRARY: &str = r#"
syntax = "proto3";
package library.v1;
import "google/api/annotations.proto";
import "google/api/client.proto";
import "google/api/field_behavior.proto";
import "google/longrunning/operations.proto";
import "google/protobuf/timestamp.proto";
import "google/rpc/status.proto";
import "google/type/money.proto";

service Library {
  option (google.api.default_host) = "library.example.com";
  rpc ImportBooks(ImportBooksRequest) returns (google.longrunning.Operation) {
    option (google.api.http) = { post: "/v1/{parent=shelves/*}/books:import" body: "*" };
    option (google.longrunning.operation_info) = {
      response_type: "ImportBooksResponse"
      metadata_type: "library.v1.ImportMetadata"
    };
  }
  rpc DeleteShelf(DeleteShelfRequest) returns (google.longrunning.Operation) {
    option (google.api.http) = { delete: "/v1/{name=shelves/*}" };
    option (google.longrunning.operation_info) = {
      response_type: "google.protobuf.Empty"
      metadata_type: "ImportMetadata"
    };
  }
  rpc GetBook(GetBookRequest) returns (Book) {
    option (google.api.http) = { get: "/v1/{name=shelves/*/books/*}" };
  }
}
message ImportBooksRequest {
  string parent = 1 [(google.api.field_behavior) = REQUIRED];
  repeated string uris = 2 [(google.api.field_behavior) = REQUIRED];
}
message ImportBooksResponse { int32 imported = 1; google.type.Money price = 2; }
message ImportMetadata {
  google.protobuf.Timestamp create_time = 11;
  google.protobuf.Timestamp done_time = 12;
  bool cancel_requested = 13;
  string target = 14;
  google.rpc.Status partial_failure = 15;
}
message DeleteShelfRequest { string name = 1 [(google.api.field_behavior) = REQUIRED]; }
message GetBookRequest { string name = 1; }
message Book { string name = 1; }
"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn load(proto: &str, config: &str, settings: &str) -> Result<Arc<Api>, Error> {
    let folder = folder(&[("library/v1/library.proto", proto)]);
    let set = compile_protos(folder.path()).expect("the protos compile");
    Api::load(&ApiSource {
        descriptor_set: &set,
        descriptor_set_file: "library.binpb",
        service_config: config,
        service_config_file: "library.yaml",
        settings,
        settings_file: "library-settings.yaml",
        native: false,
    })
}

#[track_caller]
fn refuses(proto: &str, config: &str, settings: &str, parts: &[&str]) {
    let error = load(proto, config, settings).unwrap_err();
    assert_eq!(error.reason, Reason::ApiInvalid);
    for part in parts {
        assert!(error.message.contains(part), "{:?} lacks {part:?}", error.message);
    }
}

#[test]
fn a_folder_of_protos_is_an_api() {
    let api = load(LIBRARY, "", "").unwrap();
    assert_eq!(&**api.name(), "library.example.com");
    assert_eq!(api.prefix(), "library");
    assert_eq!(api.version(), "v1");
    assert_eq!(api.start_methods().count(), 2);
    let get = api.method("library.v1.Library.GetBook").unwrap();
    assert!(matches!(get.kind, MethodKind::Other));
    // Without a configuration the mixin's own annotations count.
    let path = "/v1/operations/o";
    let call = api.find_http(&HttpMethod::Get, path).unwrap();
    assert!(matches!(call.method.kind, MethodKind::Operations(OperationsVerb::Get)));
    let method = api.method("library.v1.Library.ImportBooks").unwrap();
    let text = br#"{"parent":"shelves/s","uris":["gs://b/o"]}"#;
    let request = json::from_json(&method.input, text, &*api).unwrap();
    let facts = start_facts(&api, method, &request).unwrap();
    assert_eq!(facts.operation_name("o").unwrap().as_str(), "operations/o");
    assert_eq!((facts.parent.as_str(), &*facts.verb), ("", "import"));
    assert_eq!(facts.target, "shelves/s/books");
    // Empty was imported by nobody, but every API may answer with it.
    let delete = api.method("library.v1.Library.DeleteShelf").unwrap();
    assert_eq!(delete.start().unwrap().response_type.full_name(), "google.protobuf.Empty");
    assert!(api.message("google.protobuf.Empty").is_some());
    assert!(api.message("google.rpc.ErrorInfo").is_none(), "never a type of another API");
}

const RULES: &str = "
type: google.api.Service
name: library.example.com
http:
  rules:
";

/// CONTRACT 1.2: shapes that real configurations have.
#[test]
fn operations_need_no_operations_segment() {
    for (rules, get, name, listed, list) in [
        ("get: '/v1/{name=operations/**}'", "/v1/operations/a", "operations/a", "operations", ""),
        ("get: '/v1/operations/{name=**}'", "/v1/operations/a", "a", "", ""),
        ("get: '/v1/{name=batches/*}'", "/v1/batches/a", "batches/a", "batches", ""),
        (
            "get: '/v1/{name=shelves/*/imports/*}'",
            "/v1/shelves/s/imports/a",
            "shelves/s/imports/a",
            "shelves/s/imports",
            "shelves/s",
        ),
        (
            "get: '/v1/{name=shelves/*/operations/reports/runs/*}'",
            "/v1/shelves/s/operations/reports/runs/a",
            "shelves/s/operations/reports/runs/a",
            "shelves/s",
            "shelves/s",
        ),
        (
            "get: '/v1/{name=*/*/operations/*/**}'",
            "/v1/shelves/s/operations/a",
            "shelves/s/operations/a",
            "shelves/s/operations",
            "shelves/s",
        ),
        ("get: '/v1/operations'", "/v1/operations", "operations/a", "operations", ""),
    ] {
        let config = format!(
            "{RULES}  - selector: google.longrunning.Operations.GetOperation\n    {rules}\n"
        );
        let api = load(LIBRARY, &config, "").unwrap_or_else(|error| panic!("{rules}: {error}"));
        let call = api.find_http(&HttpMethod::Get, get).unwrap_or_else(|| panic!("{rules}"));
        assert!(matches!(call.method.kind, MethodKind::Operations(OperationsVerb::Get)), "{rules}");
        let method = api.method("library.v1.Library.DeleteShelf").unwrap();
        let request = json::from_json(&method.input, br#"{"name":"shelves/s"}"#, &*api).unwrap();
        let facts = start_facts(&api, method, &request).unwrap();
        assert_eq!(facts.operation_name("a").unwrap().as_str(), name, "{rules}");
        assert_eq!(facts.parent, list, "{rules}");
        assert_eq!(api.parent_of_name(name), Some(list), "{rules}");
        assert_eq!(api.parent_of_list(listed), Some(list), "{rules}");
    }
}

#[test]
fn a_configuration_maps_only_what_it_lists_and_goes_before_annotations() {
    let config = format!(
        "{RULES}  - selector: google.longrunning.Operations.GetOperation
    get: '/v1/{{name=operations/*}}'
  - selector: google.longrunning.Operations.WaitOperation
    post: '/v1/{{name=operations/*}}:wait'
    body: '*'
  - selector: library.v1.Library.DeleteShelf
    post: '/v2/{{name=shelves/*}}:remove'
    body: '*'
  - selector: google.cloud.location.Locations.GetLocation
    get: '/v1/{{name=locations/*}}'
"
    );
    let api = load(LIBRARY, &config, "").unwrap();
    assert!(api.find_http(&HttpMethod::Post, "/v1/operations/o:wait").is_some());
    assert!(api.find_http(&HttpMethod::Post, "/v1/operations/o:cancel").is_none());
    assert!(api.find_http(&HttpMethod::Delete, "/v1/shelves/s").is_none());
    assert!(api.find_http(&HttpMethod::Post, "/v2/shelves/s:remove").is_some());
    assert!(api.find_http(&HttpMethod::Post, "/v1/shelves/s/books:import").is_some());
    assert!(api.find_grpc("/google.longrunning.Operations/CancelOperation").is_some());
}

#[test]
fn what_does_not_fit_is_refused_naming_file_rule_and_fix() {
    let no_info = LIBRARY.replace("metadata_type: \"ImportMetadata\"", "");
    refuses(
        &no_info,
        "",
        "",
        &["library.binpb", "library.v1.Library.DeleteShelf", "metadata_type", "operation_info"],
    );
    let no_type = LIBRARY.replace("\"library.v1.ImportMetadata\"", "\"ImportMeta\"");
    refuses(
        &no_type,
        "",
        "",
        &["library.binpb", "ImportBooks", "\"ImportMeta\"", "correct the name"],
    );
    refuses(
        LIBRARY,
        "apis: [{name: library.v1.Libary}]",
        "",
        &["library.yaml", "library.v1.Libary"],
    );
    let rule = |rule: &str| format!("{RULES}  - {rule}\n");
    refuses(
        LIBRARY,
        &rule("{selector: library.v1.Library.DeleteShelve, delete: '/v1/{name=shelves/*}'}"),
        "",
        &["library.yaml", "did you mean library.v1.Library.DeleteShelf?"],
    );
    refuses(
        LIBRARY,
        &rule("{selector: library.v1.Library.DeleteShelf, delete: '/v1/{nam=shelves/*}'}"),
        "",
        &["DeleteShelf", "\"nam\""],
    );
    refuses(
        LIBRARY,
        &rule("{selector: library.v1.Library.DeleteShelf, delete: '/v1/{name=shelves/**/x}'}"),
        "",
        &["library.yaml", "DeleteShelf", "**"],
    );
    refuses(
        LIBRARY,
        &rule("{selector: library.v1.Library.DeleteShelf, get: '/v1/{name=shelves/*/books/*}'}"),
        "",
        &["DeleteShelf", "GetBook", "same verb and path"],
    );
    refuses(
        LIBRARY,
        &rule(
            "{selector: google.longrunning.Operations.GetOperation, get: '/v1/{name=operations/*/x}'}",
        ),
        "",
        &["operations/*/x"],
    );
    refuses(LIBRARY, "http: [", "", &["library.yaml"]);
    refuses(
        LIBRARY,
        "",
        "methods: {library.v1.Library.DeleteShelve: {verb: x}}",
        &["library-settings.yaml", "did you mean library.v1.Library.DeleteShelf?"],
    );
    refuses(
        LIBRARY,
        "",
        "methods: {library.v1.Library.DeleteShelf: {resource_id: shelf_id}}",
        &["shelf_id"],
    );
    refuses(
        LIBRARY,
        "",
        "methods: {library.v1.Library.DeleteShelf: {request_id_window: 5m}}",
        &["60m"],
    );
    refuses(LIBRARY, "", "metadata: {library.v1.ImportMeta: {}}", &["library.v1.ImportMetadata"]);
    refuses(
        LIBRARY,
        "",
        "metadata: {library.v1.ImportMetadata: {fields: {nosuch: $verb}}}",
        &["nosuch"],
    );
    refuses(
        LIBRARY,
        "",
        "metadata: {library.v1.ImportMetadata: {fields: {target: request.nosuch}}}",
        &["request"],
    );
    refuses(
        LIBRARY,
        "",
        "metadata: {library.v1.ImportMetadata: {fields: {target: $nosuch}}}",
        &["$verb"],
    );
    refuses(
        LIBRARY,
        "",
        "metadata: {library.v1.ImportMetadata: {fields: {create_time: now}}}",
        &["create_time"],
    );
    refuses(
        LIBRARY,
        "",
        "metadata: {library.v1.ImportMetadata: {state: {field: target, names: {queued: A, running: B, done: C}}}}",
        &["no enum"],
    );
    refuses(LIBRARY, "", "prefix: a/b", &["single path segment"]);
    refuses(LIBRARY, "", "operations: {name: operations}", &["operations"]);
}

#[test]
fn hostile_descriptor_sets_and_texts_never_panic() {
    let folder = folder(&[("library.proto", LIBRARY)]);
    let set = compile_protos(folder.path()).unwrap();
    let load = |set: &[u8], config: &str, settings: &str| {
        Api::load(&ApiSource {
            descriptor_set: set,
            descriptor_set_file: "x.binpb",
            service_config: config,
            service_config_file: "x.yaml",
            settings,
            settings_file: "s.yaml",
            native: false,
        })
    };
    assert!(load(&set, "", "").is_ok());
    // Cut anywhere, and every byte changed in turn (in steps, for time).
    for length in (0..set.len()).step_by(97) {
        let _ = load(&set[..length], "", "");
    }
    for position in (0..set.len()).step_by(61) {
        let mut changed = set.clone();
        changed[position] ^= 0xff;
        let _ = load(&changed, "", "");
    }
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nhttp: *e\n";
    for text in
        [bomb, &"[".repeat(100_000), &"a: ".repeat(10_000), "\u{0}", "- - - -", "!!binary x"]
    {
        let _ = load(&set, text, "");
        let _ = load(&set, "", text);
    }
}

#[test]
fn protos_that_do_not_compile_say_where() {
    let check = |files: &[(&str, &str)], parts: &[&str]| {
        let error = compile_protos(folder(files).path()).unwrap_err();
        assert_eq!(error.reason, Reason::ApiInvalid);
        for part in parts {
            assert!(error.message.contains(part), "{:?} lacks {part:?}", error.message);
        }
    };
    check(&[], &["no .proto file"]);
    check(&[("a.proto", "syntax = \"proto3\";\nmessage {")], &["a.proto", "2"]);
    check(&[("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";")], &["b.proto"]);
    check(&[("a.proto", "syntax = \"proto3\";\nmessage A { B b = 1; }")], &["a.proto", "B"]);
    check(&[("x/a.proto", "edition = \"2024\";")], &["a.proto"]);
    let error = compile_protos(Path::new("/nonexistent/folder")).unwrap_err();
    assert!(error.message.contains("/nonexistent/folder"));
    // Google's files in the user's folder do no harm: the ones of the program are used.
    let own = [("google/api/http.proto", "not even a proto"), ("library.proto", LIBRARY)];
    assert!(compile_protos(folder(&own).path()).is_ok());
}

#[test]
fn our_own_api_comes_through_the_same_door() {
    let api = longhaul_wire::bundled::native().unwrap();
    assert!(api.is_native());
    assert_eq!(api.prefix(), "");
    let claim = api.find_grpc("/longhaul.v1.Workers/Claim").unwrap();
    assert!(matches!(claim.kind, MethodKind::Native));
    assert!(api.find_http(&HttpMethod::Post, "/longhaul/v1/leases:claim").is_some());
    assert!(api.find_grpc("/google.longrunning.Operations/GetOperation").is_none());
}
