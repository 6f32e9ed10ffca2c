//! Our JSON and binary forms against another library's, on random messages of one schema.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::OnceLock;

use longhaul_wire::json::{self, JsonOptions};
use longhaul_wire::message::Message;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MapKey, ReflectMessage as _, SerializeOptions, Value,
};
use support::{echo, echo_type};

const NAME: &str = "longhaul.test.v1.Everything";

fn oracle_pool() -> DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let decode = || DescriptorPool::decode(echo().descriptors.raw().clone()).unwrap();
    POOL.get_or_init(decode).clone()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,6}", "\\PC{0,4}", Just("\"\\/\u{8}\n\u{2028}\u{1F600}\0".to_owned())]
}

/// Doubles of few digits: the oracle's own reader is off by one in the last of many.
fn exact() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<i32>().prop_map(|number| f64::from(number) / 64.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(-0.0),
        Just(1e300),
        Just(5e-324),
    ]
}

/// A random message. The oracle cannot print a type that holds itself, so this one prints JSON.
struct Case(DynamicMessage);

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&oracle_json(&self.0, false)))
    }
}

/// Random messages of the oracle's kind.
fn everything() -> impl Strategy<Value = Case> {
    let mut level = fields(Just(Vec::new()).boxed());
    for _ in 0..2 {
        level = fields(prop::collection::vec(level, 0..3).boxed());
    }
    level.prop_map(Case)
}

fn fields(inner: BoxedStrategy<Vec<DynamicMessage>>) -> BoxedStrategy<DynamicMessage> {
    let scalars = (
        (
            any::<bool>(),
            any::<i32>(),
            any::<i64>(),
            any::<u32>(),
            any::<u64>(),
            any::<i16>().prop_map(|number| f32::from(number) / 8.0),
            exact(),
        ),
        (text(), prop::collection::vec(any::<u8>(), 0..5), 0..3_i32, any::<i32>(), any::<i64>()),
        (prop::option::of(any::<i32>()), prop::option::of(text())),
    );
    let many = (
        prop::collection::vec(any::<i32>(), 0..3),
        prop::collection::vec(text(), 0..3),
        prop::collection::vec(-1..3_i32, 0..3),
        prop::collection::btree_map(text(), text(), 0..3),
        prop::collection::btree_map(any::<i32>(), 0..3_i32, 0..3),
        prop::collection::btree_map(any::<bool>(), any::<i64>(), 0..3),
        0..3_u8,
    );
    let known = (
        prop::option::of((-62_135_596_800..=253_402_300_799_i64, 0..1_000_000_000_i32)),
        prop::option::of((0..=315_576_000_000_i64, 0..1_000_000_000_i32, any::<bool>())),
        prop::option::of(prop::collection::vec(
            "[a-z]{1,4}(_[a-z]{1,3}){0,2}(\\.[a-z]{1,3})?",
            0..3,
        )),
        prop::option::of(value_tree()),
        prop::option::of(text()),
        prop::option::of(any::<i64>()),
        any::<bool>(),
    );
    // Boxed, since a tree of plain tuples overflows the stack of a test's thread.
    (scalars.boxed(), many.boxed(), known.boxed(), inner)
        .prop_map(|(scalars, many, known, inner)| {
            let pool = oracle_pool();
            let mut message = DynamicMessage::new(pool.get_message_by_name(NAME).unwrap());
            set_scalars(&mut message, scalars);
            let choice = many.6;
            set_many(&mut message, many);
            set_known(&pool, &mut message, known);
            set_inner(&pool, &mut message, inner, choice);
            // Drop what a decoder would not keep, such as defaults without presence.
            let bytes = message.encode_to_vec();
            DynamicMessage::decode(message.descriptor(), bytes.as_slice()).unwrap()
        })
        .boxed()
}

type Scalars = (
    (bool, i32, i64, u32, u64, f32, f64),
    (String, Vec<u8>, i32, i32, i64),
    (Option<i32>, Option<String>),
);

fn set_scalars(message: &mut DynamicMessage, (numbers, rest, maybe): Scalars) {
    let (flag, small, large, count, huge, ratio, exact) = numbers;
    let mut set = |name: &str, value: Value| message.set_field_by_name(name, value);
    set("flag", Value::Bool(flag));
    set("small", Value::I32(small));
    set("large", Value::I64(large));
    set("count", Value::U32(count));
    set("huge", Value::U64(huge));
    set("ratio", Value::F32(ratio));
    set("exact", Value::F64(exact));
    let (text, data, color, signed, fixed) = rest;
    set("text", Value::String(text));
    set("data", Value::Bytes(data.into()));
    set("color", Value::EnumNumber(color));
    set("signed_small", Value::I32(signed));
    set("fixed_large", Value::I64(fixed));
    if let Some(maybe) = maybe.0 {
        set("maybe", Value::I32(maybe));
    }
    if let Some(text) = maybe.1 {
        set("maybe_text", Value::String(text));
    }
}

type Many = (
    Vec<i32>,
    Vec<String>,
    Vec<i32>,
    std::collections::BTreeMap<String, String>,
    std::collections::BTreeMap<i32, i32>,
    std::collections::BTreeMap<bool, i64>,
    u8,
);

fn set_many(message: &mut DynamicMessage, many: Many) {
    let (numbers, words, colors, labels, colors_by_number, by_flag, choice) = many;
    let list = |items: Vec<Value>| Value::List(items);
    message.set_field_by_name("numbers", list(numbers.into_iter().map(Value::I32).collect()));
    message.set_field_by_name("words", list(words.into_iter().map(Value::String).collect()));
    message.set_field_by_name("colors", list(colors.into_iter().map(Value::EnumNumber).collect()));
    let entries = labels.into_iter().map(|(k, v)| (MapKey::String(k), Value::String(v)));
    message.set_field_by_name("labels", Value::Map(entries.collect()));
    let entries = colors_by_number.into_iter().map(|(k, v)| (MapKey::I32(k), Value::EnumNumber(v)));
    message.set_field_by_name("color_by_number", Value::Map(entries.collect()));
    let entries = by_flag.into_iter().map(|(k, v)| (MapKey::Bool(k), Value::I64(v)));
    message.set_field_by_name("by_flag", Value::Map(entries.collect()));
    match choice {
        0 => message.set_field_by_name("choice_text", Value::String(String::new())),
        1 => message.set_field_by_name("choice_number", Value::I32(0)),
        _ => {}
    }
}

type Known = (
    Option<(i64, i32)>,
    Option<(i64, i32, bool)>,
    Option<Vec<String>>,
    Option<serde_json::Value>,
    Option<String>,
    Option<i64>,
    bool,
);

fn set_known(pool: &DescriptorPool, message: &mut DynamicMessage, known: Known) {
    let (time, span, mask, tree, wrapped_text, wrapped_large, nothing) = known;
    let new = |name: &str| {
        let name = format!("google.protobuf.{name}");
        DynamicMessage::new(pool.get_message_by_name(&name).unwrap())
    };
    let mut set = |name: &str, inner: DynamicMessage| {
        message.set_field_by_name(name, Value::Message(inner));
    };
    if let Some((seconds, nanos)) = time {
        let mut inner = new("Timestamp");
        inner.set_field_by_name("seconds", Value::I64(seconds));
        inner.set_field_by_name("nanos", Value::I32(nanos));
        set("time", inner);
    }
    if let Some((seconds, nanos, negative)) = span {
        let sign = if negative { -1 } else { 1 };
        let mut inner = new("Duration");
        inner.set_field_by_name("seconds", Value::I64(seconds * i64::from(sign)));
        // The longest span has no fraction beyond it.
        let nanos = if seconds == 315_576_000_000 { 0 } else { nanos };
        inner.set_field_by_name("nanos", Value::I32(nanos * sign));
        set("span", inner);
    }
    if let Some(paths) = mask {
        let mut inner = new("FieldMask");
        let paths = paths.into_iter().map(Value::String).collect();
        inner.set_field_by_name("paths", Value::List(paths));
        set("mask", inner);
    }
    if let Some(tree) = tree {
        let descriptor = pool.get_message_by_name("google.protobuf.Value").unwrap();
        let inner = DynamicMessage::deserialize(descriptor, tree).unwrap();
        set("value", inner);
    }
    if let Some(text) = wrapped_text {
        let mut inner = new("StringValue");
        inner.set_field_by_name("value", Value::String(text));
        set("wrapped_text", inner);
    }
    if let Some(large) = wrapped_large {
        let mut inner = new("Int64Value");
        inner.set_field_by_name("value", Value::I64(large));
        set("wrapped_large", inner);
    }
    if nothing {
        set("nothing", new("Empty"));
    }
}

fn set_inner(
    pool: &DescriptorPool,
    message: &mut DynamicMessage,
    inner: Vec<DynamicMessage>,
    choice: u8,
) {
    if let Some(first) = inner.first() {
        let mut any = DynamicMessage::new(pool.get_message_by_name("google.protobuf.Any").unwrap());
        let url = format!("type.googleapis.com/{NAME}");
        any.set_field_by_name("type_url", Value::String(url));
        any.set_field_by_name("value", Value::Bytes(first.encode_to_vec().into()));
        message.set_field_by_name("any", Value::Message(any));
        if choice == 2 {
            message.set_field_by_name("choice_child", Value::Message(first.clone()));
        }
        message.set_field_by_name("child", Value::Message(first.clone()));
        let entry = (MapKey::String("k".into()), Value::Message(first.clone()));
        message.set_field_by_name("child_by_name", Value::Map([entry].into_iter().collect()));
    }
    let children = inner.into_iter().map(Value::Message).collect();
    message.set_field_by_name("children", Value::List(children));
}

/// Random JSON for a `google.protobuf.Value`.
fn value_tree() -> BoxedStrategy<serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(|number| (f64::from(number) / 64.0).into()),
        "[a-z]{0,4}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            prop::collection::hash_map("[a-z]{1,3}", inner, 0..3)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
    .boxed()
}

/// JSON as a tree whose numbers and objects compare by value.
fn tree(text: &[u8]) -> serde_json::Value {
    fn even(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Number(number) => number.as_f64().unwrap().into(),
            serde_json::Value::Array(items) => items.into_iter().map(even).collect(),
            serde_json::Value::Object(entries) => {
                serde_json::Value::Object(entries.into_iter().map(|(k, v)| (k, even(v))).collect())
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::String(_) => {
                value
            }
        }
    }
    even(serde_json::from_slice(text).unwrap())
}

fn oracle_json(message: &DynamicMessage, enums_as_ints: bool) -> Vec<u8> {
    let options = SerializeOptions::new()
        .use_enum_numbers(enums_as_ints)
        .skip_default_fields(true)
        .stringify_64_bit_integers(true);
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut out);
    message.serialize_with_options(&mut serializer, &options).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_libraries_write_the_same_json(
        Case(oracle) in everything(),
        enums_as_ints in any::<bool>(),
        pretty in any::<bool>(),
    ) {
        let ours = Message::decode(&echo_type("Everything"), &oracle.encode_to_vec()).unwrap();
        let options = JsonOptions { enums_as_ints, pretty, ..JsonOptions::default() };
        let written = json::to_json(&ours, &echo().descriptors, &options).unwrap();
        prop_assert_eq!(tree(&written), tree(&oracle_json(&oracle, enums_as_ints)));
    }

    #[test]
    fn each_library_reads_what_the_other_wrote(Case(oracle) in everything()) {
        let ty = echo_type("Everything");
        let theirs = oracle_json(&oracle, false);
        let ours = json::from_json(&ty, &theirs, &echo().descriptors)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let expected = Message::decode(&ty, &oracle.encode_to_vec()).unwrap();
        prop_assert_eq!(same(&ours), same(&expected));
        let written = json::to_json(&ours, &echo().descriptors, &JsonOptions::default()).unwrap();
        let mut reader = serde_json::Deserializer::from_slice(&written);
        let again = DynamicMessage::deserialize(oracle.descriptor(), &mut reader).unwrap();
        let again = Message::decode(&ty, &again.encode_to_vec()).unwrap();
        prop_assert_eq!(same(&again), same(&expected));
    }
}

proptest! {
    #[test]
    fn every_double_and_float_reads_back_as_it_was(exact in any::<u64>(), ratio in any::<u32>()) {
        let (exact, ratio) = (f64::from_bits(exact), f32::from_bits(ratio));
        prop_assume!(!exact.is_nan() && !ratio.is_nan());
        let oracle = oracle_pool().get_message_by_name(NAME).unwrap();
        let mut oracle = DynamicMessage::new(oracle);
        oracle.set_field_by_name("exact", Value::F64(exact));
        oracle.set_field_by_name("ratio", Value::F32(ratio));
        let ty = echo_type("Everything");
        let ours = Message::decode(&ty, &oracle.encode_to_vec()).unwrap();
        let again = json::from_json(&ty, same(&ours).as_bytes(), &echo().descriptors).unwrap();
        prop_assert_eq!(again.encode(), ours.encode());
    }
}

/// A message for comparison: its JSON. The bytes inside an `Any` may be ordered otherwise, and a
/// NaN has many patterns.
fn same(message: &Message) -> String {
    let written = json::to_json(message, &echo().descriptors, &JsonOptions::default()).unwrap();
    String::from_utf8(written).unwrap()
}
