//! Descriptor sets, options and messages, also from hostile hands.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use longhaul_core::{Reason, Timestamp};
use longhaul_wire::json::{self, JsonOptions, UnknownAny};
use longhaul_wire::message::{
    Descriptors, FieldFormat, FieldValue, Kind, Message, NoTypes, SingularKind,
};
use proptest::prelude::*;
use support::{compile, compile_text, echo, echo_type};

#[track_caller]
fn read(short_name: &str, text: &str) -> Message {
    json::from_json(&echo_type(short_name), text.as_bytes(), &echo().descriptors)
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn write(message: &Message) -> String {
    let json = json::to_json(message, &echo().descriptors, &JsonOptions::default()).unwrap();
    String::from_utf8(json).unwrap()
}

#[test]
fn options_are_read_from_their_bytes() {
    let service = echo().descriptors.service("longhaul.test.v1.Echo").unwrap();
    assert_eq!(service.package(), "longhaul.test.v1");
    assert_eq!(service.default_host().as_deref(), Some("echo.example.com"));
    assert_eq!(
        service.oauth_scopes(),
        ["https://example.com/auth/all", "https://example.com/auth/read"]
    );
    assert_eq!(service.api_version().as_deref(), Some("2026-01-31"));

    let create = service.method("Create").unwrap();
    assert_eq!(create.full_name(), "longhaul.test.v1.Echo.Create");
    assert_eq!(create.grpc_path(), "/longhaul.test.v1.Echo/Create");
    let info = create.operation_info().unwrap();
    let scope = service.package();
    let resolve = |name: &str| echo().descriptors.resolve(name, scope).unwrap();
    assert_eq!(resolve(&info.response_type).full_name(), "longhaul.test.v1.Thing");
    assert_eq!(resolve(&info.metadata_type).full_name(), "google.protobuf.Empty");
    assert_eq!(resolve(".google.protobuf.Any").short_name(), "Any");
    assert!(echo().descriptors.resolve("Nothing", scope).is_none());

    let input = create.input();
    assert!(input.field("parent").unwrap().is_required());
    assert!(input.field("thing").unwrap().is_required());
    assert!(!input.field("thingId").unwrap().is_required());
    assert_eq!(input.field("request_id").unwrap().format(), Some(FieldFormat::Uuid4));
    let reference = input.field("parent").unwrap().resource_reference().unwrap();
    assert_eq!(reference.child_kind, "echo.example.com/Thing");
    assert!(input.field_at("thing.create_time").unwrap().is_output_only());
    let resource = echo_type("Thing").resource().unwrap();
    assert_eq!(resource.plural, "things");
    assert_eq!(resource.patterns, ["projects/{project}/locations/{location}/things/{thing}"]);

    let watch = service.method("Watch").unwrap();
    assert!(watch.client_streaming() && watch.server_streaming());
    assert!(watch.http_rules().unwrap().is_empty() && watch.operation_info().is_none());
    assert_eq!(service.method("All").unwrap().http_rules().unwrap().len(), 4);
}

#[test]
fn field_behavior_may_be_packed() {
    let set = compile_text(
        r#"
        syntax = "proto3";
        package t;
        import "google/protobuf/descriptor.proto";
        enum Behavior { NONE = 0; OPTIONAL = 1; REQUIRED = 2; }
        extend google.protobuf.FieldOptions { repeated Behavior behavior = 1052 [packed = true]; }
        message M { string a = 1 [(behavior) = OPTIONAL, (behavior) = REQUIRED]; string b = 2; }
        "#,
    );
    let ty = Descriptors::parse(&set).unwrap().message("t.M").unwrap();
    assert!(ty.field("a").unwrap().is_required());
    assert!(!ty.field("b").unwrap().is_required());
}

#[test]
fn options_are_read_without_the_file_that_declares_them() {
    use prost::Message as _;
    let mut set = prost_types::FileDescriptorSet::decode(compile("echo.proto").as_slice()).unwrap();
    // Decoding with types that do not know the extensions would drop them, so cut files by bytes.
    set.file.retain(|file| file.name().starts_with("google/protobuf/"));
    let mut bytes = set.encode_to_vec();
    bytes.extend_from_slice(&only_file(&compile("echo.proto"), "echo.proto"));
    let descriptors = Descriptors::parse(&bytes).unwrap();
    let service = descriptors.service("longhaul.test.v1.Echo").unwrap();
    assert_eq!(service.default_host().as_deref(), Some("echo.example.com"));
    assert_eq!(service.method("Cancel").unwrap().http_rules().unwrap().len(), 1);
}

/// The bytes of one file of a set, as an entry of a set.
fn only_file(set: &[u8], name: &str) -> Vec<u8> {
    let mut rest = set;
    while !rest.is_empty() {
        let entry = rest;
        let _tag = prost::encoding::decode_varint(&mut rest).unwrap();
        let length = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
        let file;
        (file, rest) = rest.split_at(length);
        let head = [&[0x0a, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
        if file.starts_with(&head) {
            return entry[..entry.len() - rest.len()].to_vec();
        }
    }
    panic!("no {name}");
}

#[test]
fn fields_say_what_they_hold() {
    let ty = echo_type("Everything");
    let kind = |name: &str| ty.field(name).unwrap().kind();
    assert_eq!(kind("signedSmall"), Kind::Single(SingularKind::Int32));
    assert_eq!(kind("numbers"), Kind::Repeated(SingularKind::Int32));
    assert_eq!(kind("labels"), Kind::Map(SingularKind::String, SingularKind::String));
    assert_eq!(kind("child"), Kind::Single(SingularKind::Message(ty.clone())));
    let Kind::Single(SingularKind::Enum(color)) = kind("color") else { panic!("an enum") };
    assert_eq!(
        color.values().collect::<Vec<_>>(),
        [("COLOR_UNSPECIFIED", 0), ("RED", 1), ("GREEN", 2)]
    );
    assert!(ty.field("maybe").unwrap().has_presence());
    assert!(!ty.field("small").unwrap().has_presence());
    assert!(ty.field("choice_text").unwrap().oneof().is_some());
    assert!(ty.field_at("child.child.time.seconds").is_some());
    assert!(ty.field_at("children.small").is_none());
    assert!(ty.field_at("labels.key").is_none());
    assert!(ty.field_at("").is_none());
}

#[test]
fn fields_are_read_and_written_by_path() {
    let mut message = Message::new(&echo_type("Everything"));
    message.set_string("child.child.text", "x").unwrap();
    message.set_bool("flag", true).unwrap();
    message.set_enum("child.color", "GREEN").unwrap();
    message.set_timestamp("time", Timestamp::from_micros(1_500_001)).unwrap();
    assert_eq!(
        write(&message),
        r#"{"flag":true,"child":{"color":"GREEN","child":{"text":"x"}},"time":"1970-01-01T00:00:01.500001Z"}"#
    );
    assert_eq!(message.get_str("child.child.text"), Some("x"));
    assert!(message.get_bool("flag") && !message.get_bool("child.flag"));
    assert_eq!(message.get_timestamp("time"), Some(Timestamp::from_micros(1_500_001)));
    assert_eq!(
        message.get("child.color"),
        Some(FieldValue::Enum { name: "GREEN".into(), number: 2 })
    );
    assert_eq!(message.get_message("child").unwrap().get_str("child.text"), Some("x"));
    assert!(!message.has("small") && !message.has("nope") && !message.has("text.deeper"));
    message.clear("child.child.text");
    assert!(message.has("child.child") && !message.has("child.child.text"));
    message.clear("child");
    message.clear("nope.nope");
    assert!(!message.has("child"));
    for path in ["nope", "text.nope", "children.text", "flag"] {
        let error = message.set_string(path, "x").unwrap_err();
        assert_eq!(error.reason, Reason::InvalidValue, "{path}");
    }
    assert!(message.set_enum("color", "PINK").is_err());
    assert!(message.set_timestamp("span", Timestamp::default()).is_err());
    assert!(message.set_message("child", Message::new(&echo_type("Thing"))).is_err());
}

#[test]
fn setting_one_member_of_a_oneof_unsets_the_other() {
    let mut message = read("Everything", r#"{"choiceNumber": 5}"#);
    message.set_string("choice_text", "x").unwrap();
    assert_eq!(write(&message), r#"{"choiceText":"x"}"#);
}

#[test]
fn the_same_message_always_gives_the_same_bytes() {
    let one = read("Thing", r#"{"labels": {"b": "2", "a": "1", "c": "3"}, "name": "x"}"#);
    let two = read("Thing", r#"{"name": "x", "labels": {"c": "3", "a": "1", "b": "2"}}"#);
    assert_eq!(one.encode(), two.encode());
    assert_eq!(one, two);
    // On the wire the entries may come in any order, and a default may be spelled out.
    let entries =
        [[0x12, 6, 0x0a, 1, b'b', 0x12, 1, b'2'], [0x12, 6, 0x0a, 1, b'a', 0x12, 1, b'1']];
    let bytes = [entries.concat(), vec![0x20, 0]].concat();
    let decoded = Message::decode(&echo_type("Thing"), &bytes).unwrap();
    assert_eq!(decoded, read("Thing", r#"{"labels": {"a": "1", "b": "2"}}"#));
    // Another load of the same set makes no difference.
    let again = Descriptors::parse(echo().descriptors.raw()).unwrap();
    let ty = again.message("longhaul.test.v1.Thing").unwrap();
    assert_eq!(Message::decode(&ty, &one.encode()).unwrap(), one);
}

#[test]
fn unknown_fields_survive_but_are_not_written_as_json() {
    let bytes = [0x0a, 1, b'x', 0xfa, 0x3e, 2, b'h', b'i'];
    let message = Message::decode(&echo_type("Thing"), &bytes).unwrap();
    assert_eq!(message.encode(), bytes);
    assert_eq!(write(&message), r#"{"name":"x"}"#);
}

/// A descriptor set of edition 2023, which the compiler of these tests does not know: one message
/// whose fields each override a feature.
fn edition_set() -> Vec<u8> {
    let number = |field: u32, value: u8| vec![u8::try_from(field << 3).unwrap(), value];
    let field = |name: &str, at: u8, label: u8, kind: u8, ty: &str, features: &[u8]| {
        let mut parts =
            vec![nest(1, name.as_bytes()), number(3, at), number(4, label), number(5, kind)];
        if !ty.is_empty() {
            parts.push(nest(6, ty.as_bytes()));
        }
        parts.push(nest(8, &nest(21, features)));
        nest(2, &parts.concat())
    };
    let (explicit, expanded, delimited, closed) = ([8, 1], [0x18, 2], [0x28, 2, 8, 1], [0x10, 2]);
    let message = [
        nest(1, b"M"),
        field("plain", 1, 1, 9, "", &[]),
        field("explicit", 2, 1, 5, "", &explicit),
        field("numbers", 3, 3, 5, "", &expanded),
        field("delimited", 4, 1, 11, ".t.M", &delimited),
        field("closed", 5, 1, 14, ".t.Closed", &explicit),
    ];
    let value = |name: &[u8], at: u8| nest(2, &[nest(1, name), number(2, at)].concat());
    let choice =
        [nest(1, b"Closed"), value(b"C_ZERO", 0), value(b"C_ONE", 1), nest(3, &nest(7, &closed))];
    let implicit = [8, 2];
    let file = [
        nest(1, b"test.proto"),
        nest(2, b"t"),
        nest(4, &message.concat()),
        nest(5, &choice.concat()),
        nest(8, &nest(50, &implicit)),
        nest(12, b"editions"),
        vec![14 << 3, 0xe8, 7],
    ];
    nest(1, &file.concat())
}

#[test]
fn editions_and_proto2_sets_are_read() {
    let descriptors = Descriptors::parse(&edition_set()).unwrap();
    let ty = descriptors.message("t.M").unwrap();
    let text = r#"{"explicit":0,"numbers":[1,2],"delimited":{"plain":"x"},"closed":"C_ONE"}"#;
    let message = json::from_json(&ty, text.as_bytes(), &descriptors).unwrap();
    assert_eq!(message.encode(), [0x10, 0, 0x18, 1, 0x18, 2, 0x23, 0x0a, 1, b'x', 0x24, 0x28, 1]);
    let again = Message::decode(&ty, &message.encode()).unwrap();
    let written = json::to_json(&again, &descriptors, &JsonOptions::default()).unwrap();
    assert_eq!(written, text.as_bytes());
    // A field without presence, and a closed enum that takes no number it does not declare.
    assert!(!ty.field("plain").unwrap().has_presence());
    assert!(json::from_json(&ty, br#"{"closed": 7}"#, &descriptors).is_err());

    let set = compile_text(
        r#"
        syntax = "proto2";
        package t;
        message M { required string name = 1; optional int32 n = 2 [default = 5]; optional group G = 3 { optional int32 x = 1; } }
        "#,
    );
    let descriptors = Descriptors::parse(&set).unwrap();
    let ty = descriptors.message("t.M").unwrap();
    let message = json::from_json(&ty, br#"{"name": "", "g": {"x": 1}}"#, &descriptors).unwrap();
    let written = json::to_json(&message, &descriptors, &JsonOptions::default()).unwrap();
    assert_eq!(written, br#"{"name":"","g":{"x":1}}"#);
}

#[test]
fn a_set_that_does_not_fit_together_is_refused_with_its_fault() {
    use prost::Message as _;
    #[track_caller]
    fn check(bytes: &[u8], part: &str) {
        let error = Descriptors::parse(bytes).unwrap_err();
        assert_eq!(error.reason, Reason::ApiInvalid);
        assert!(error.message.contains(part), "{}", error.message);
    }
    check(b"", "no file");
    check(b"not a descriptor set", "cannot be read");
    check(&vec![0; 64 << 20 | 1], "larger than");
    let full = prost_types::FileDescriptorSet::decode(compile("echo.proto").as_slice()).unwrap();
    let mut missing = full.clone();
    missing.file.retain(|file| !file.name().ends_with("timestamp.proto"));
    check(&missing.encode_to_vec(), "google.protobuf.Timestamp");
    let mut twice = full;
    let message = twice.file.last().unwrap().message_type[0].clone();
    twice.file.last_mut().unwrap().message_type.push(message);
    check(&twice.encode_to_vec(), "NameRequest");
}

#[test]
fn well_known_names_with_other_fields_are_errors_not_panics() {
    let mut text = String::from("syntax = \"proto3\"; package google.protobuf;\n");
    let names =
        ["Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value", "Int64Value"];
    for name in names {
        text += &format!(
            "message {name} {{ message Odd {{}} Odd a = 1; repeated string b = 2; map<int32, Odd> c = 3; \
             bool d = 4; string e = 5; string f = 6; }}\n"
        );
    }
    let descriptors = Descriptors::parse(&compile_text(&text)).unwrap();
    let bodies = [
        "{}",
        "[]",
        "[{}]",
        "1",
        "\"1s\"",
        "\"a\"",
        "true",
        "null",
        "{\"a\": {}}",
        "\"1970-01-01T00:00:01Z\"",
        "{\"@type\": \"x/google.protobuf.Any\", \"value\": {}}",
    ];
    for name in names {
        let ty = descriptors.message(&format!("google.protobuf.{name}")).unwrap();
        for body in bodies {
            let _ = json::from_json(&ty, body.as_bytes(), &descriptors);
        }
        for bytes in
            [&[0x0a, 0][..], &[0x12, 0], &[0x1a, 0], &[0x20, 1], &[0x2a, 0], &[0x32, 1, b'x']]
        {
            let message = Message::decode(&ty, bytes).unwrap();
            let _ = json::to_json(&message, &descriptors, &JsonOptions::default());
        }
    }
}

#[test]
fn deep_json_is_refused_and_never_overflows_the_stack() {
    let nested =
        |levels: usize| format!("{}{}{}", "{\"child\":".repeat(levels), "{}", "}".repeat(levels));
    assert!(write(&read("Everything", &nested(80))).len() > 80);
    for body in [
        nested(95),
        nested(100_000),
        format!("{{\"value\": {}", "[".repeat(1_000_000)),
        format!("{{\"nope\": {}", "[".repeat(1_000_000)),
        format!("{{\"nope\": {}", "{\"a\":".repeat(1_000_000)),
        format!("{{\"object\": {}", "{\"a\":".repeat(1_000_000)),
        format!(
            "{{\"any\": {}",
            "{\"@type\":\"type.googleapis.com/google.protobuf.Any\",\"value\":".repeat(10_000)
        ),
    ] {
        let error = json::from_json(&echo_type("Everything"), body.as_bytes(), &echo().descriptors);
        assert_eq!(error.unwrap_err().reason, Reason::InvalidJson);
    }
    // What was accepted can be decoded and written again, Struct's three levels for one included.
    for levels in 1..60 {
        let body = format!("{{\"value\":{}1{}}}", "{\"a\":[".repeat(levels), "]}".repeat(levels));
        let ty = echo_type("Everything");
        if let Ok(message) = json::from_json(&ty, body.as_bytes(), &echo().descriptors) {
            assert_eq!(write(&Message::decode(&ty, &message.encode()).unwrap()), body);
        }
    }
}

#[test]
fn deep_messages_are_refused_when_decoded_and_when_written() {
    let mut bytes = Vec::new();
    for _ in 0..150 {
        bytes = nest(24, &bytes);
    }
    let error = Message::decode(&echo_type("Everything"), &bytes).unwrap_err();
    assert_eq!(error.reason, Reason::InvalidValue);
    // Nesting through Any is opaque to a decoder, so the writer counts it.
    let mut any = Vec::new();
    for _ in 0..1_000 {
        let inner = nest(56, &any);
        let url = nest(1, b"type.googleapis.com/longhaul.test.v1.Everything");
        any = [url, nest(2, &inner)].concat();
    }
    let message = Message::decode(&echo_type("Everything"), &nest(56, &any)).unwrap();
    let error = json::to_json(&message, &echo().descriptors, &JsonOptions::default()).unwrap_err();
    assert!(error.message.contains("nested deeper"), "{}", error.message);
}

/// A length-delimited field.
fn nest(number: u32, inner: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(inner.len() + 8);
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut bytes);
    prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
    bytes.extend_from_slice(inner);
    bytes
}

#[test]
fn small_texts_cannot_become_huge_messages() {
    let ty = echo_type("Everything");
    for item in ["{}", "{\"child\":{}}"] {
        let body = format!("{{\"children\": [{}]}}", vec![item; 500_000].join(","));
        let error = json::from_json(&ty, body.as_bytes(), &echo().descriptors).unwrap_err();
        assert!(error.message.contains("More than"), "{}", error.message);
    }
    // Types that stand last make a reader look twice; a bound keeps that linear.
    let mut any = String::from("{}");
    for _ in 0..40 {
        any = format!(
            "{{\"value\":{any},\"pad\":\"{}\",\"@type\":\"x/google.protobuf.Any\"}}",
            "p".repeat(10_000)
        );
    }
    let body = format!("{{\"any\":{any}}}");
    let error = json::from_json(&ty, body.as_bytes(), &echo().descriptors).unwrap_err();
    assert!(error.message.contains("does not come first"), "{}", error.message);
    // Empty messages cost two bytes each on the wire.
    let bytes = nest(23, b"").repeat(2_000_000);
    assert!(Message::decode(&ty, &bytes).is_err());
    // Answers stay short although every item is at fault.
    let body = format!("{{\"words\": [{}]}}", vec!["5"; 10_000].join(","));
    let error = json::from_json(&ty, body.as_bytes(), &echo().descriptors).unwrap_err();
    assert_eq!(error.violations.len(), 20);
}

#[test]
fn an_undeclared_type_fails_or_is_shown_raw() {
    let ty = echo_type("Everything");
    let any = [nest(1, b"type.googleapis.com/a.B"), nest(2, &[1, 2, 3])].concat();
    let message = Message::decode(&ty, &nest(56, &any)).unwrap();
    let options = JsonOptions::default();
    assert_eq!(json::to_json(&message, &NoTypes, &options).unwrap_err().reason, Reason::Internal);
    let options = JsonOptions { unknown_any: UnknownAny::Raw, ..options };
    let written = json::to_json(&message, &NoTypes, &options).unwrap();
    assert_eq!(written, br#"{"any":{"@type":"type.googleapis.com/a.B","value":"AQID"}}"#);
    // A declared type whose bytes are damaged.
    let any = [nest(1, b"x/longhaul.test.v1.Thing"), nest(2, &[0xff])].concat();
    let message = Message::decode(&ty, &nest(56, &any)).unwrap();
    assert!(json::to_json(&message, &echo().descriptors, &JsonOptions::default()).is_err());
}

#[test]
fn moments_out_of_range_fail_to_be_written() {
    let ty = echo_type("Everything");
    for inner in [
        nest(50, &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        nest(51, &[0x08, 1, 0x10, 0x80, 0x94, 0xeb, 0xdc, 0x03]),
    ] {
        let message = Message::decode(&ty, &inner).unwrap();
        let written = json::to_json(&message, &echo().descriptors, &JsonOptions::default());
        assert_eq!(written.unwrap_err().reason, Reason::Internal);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn damaged_descriptor_sets_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut set = echo().descriptors.raw().to_vec();
        for (at, byte) in changes {
            let at = at.index(set.len());
            set[at] = byte;
        }
        if !whole {
            set.truncate(cut.index(set.len()));
        }
        if let Ok(descriptors) = Descriptors::parse(&set) {
            for service in descriptors.services() {
                let _ = (service.default_host(), service.oauth_scopes());
                for method in service.methods() {
                    if let Ok(rules) = method.http_rules() {
                        for rule in rules {
                            let _ = rule.check(&method.input(), &method.output());
                        }
                    }
                    let _ = method.operation_info();
                    for field in method.input().fields() {
                        let _ = (field.is_required(), field.format(), field.resource_reference());
                    }
                    let ty = method.input();
                    let message = Message::decode(&ty, b"\x0a\x00\x12\x00\x1a\x00\x20\x00");
                    if let Ok(message) = message {
                        let _ = json::to_json(&message, &descriptors, &JsonOptions::default());
                    }
                    let _ = json::from_json(&ty, br#"{"name": "", "thing": {}}"#, &descriptors);
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let ty = echo_type("Everything");
        if let Ok(message) = Message::decode(&ty, &bytes) {
            let encoded = message.encode();
            prop_assert_eq!(Message::decode(&ty, &encoded).unwrap().encode(), encoded);
            let _ = json::to_json(&message, &echo().descriptors, &JsonOptions::default());
        }
        let _ = json::from_json(&ty, &bytes, &echo().descriptors);
        let _ = Descriptors::parse(&bytes);
    }

    #[test]
    fn random_json_never_panics(
        text in r#"(\{|\}|\[|\]|"|:|,|1|-|\.|e|\\|u|d800|null|true|"child"|"any"|"@type"|"value"|"text"|"words"|"labels"|"x/google.protobuf.Any"| ){0,40}"#
    ) {
        let _ = json::from_json(&echo_type("Everything"), text.as_bytes(), &echo().descriptors);
    }
}
