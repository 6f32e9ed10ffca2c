//! Every method of the five APIs that starts an operation, under every path it has and over gRPC: it
//! starts one of the declared types, and that one can be cancelled.

use longhaul_wire::api::{Api, Method, StartMethod};
use longhaul_wire::bundled;
use longhaul_wire::http_rule::{Body, HttpRule};
use longhaul_wire::longrunning::{GetOperationRequest, Operation};
use longhaul_wire::message::{Field, Kind, MessageType, SingularKind};
use longhaul_wire::query::{self, Parts};
use serde_json::{Map, Value, json};

use crate::harness::grpc::Connection;
use crate::harness::{Ask, Kept, Seen, Server};

/// How many starting methods each API has at least.
const STARTS: [(&str, usize); 5] = [
    ("clouddeploy", 17),
    ("privateca", 14),
    ("storagebatchoperations", 1),
    ("dataproc", 15),
    ("cloudaicompanion", 20),
];

/// A request that a method accepts, by one of its rules.
struct Request {
    verb: &'static str,
    path: String,
    variables: Vec<(String, String)>,
    query: Vec<(String, String)>,
    body: Option<Value>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_starting_method_starts_and_is_cancelled() {
    let server = Server::start(Kept::InMemory).await;
    for (name, least) in STARTS {
        let api = bundled::load(name).unwrap();
        let connection = Connection::new(server.address, Some(api.name()));
        let methods: Vec<_> = api.start_methods().collect();
        assert!(methods.len() >= least, "{name} has {}", methods.len());
        for method in methods {
            let start = method.start().unwrap();
            assert!(!method.rules.is_empty(), "{} has no path", method.full_name);
            for rule in &method.rules {
                let request = request(method, rule);
                let by_http = start_over_http(&server, &api, &request).await;
                let by_grpc = start_over_grpc(&connection, &api, method, rule, &request).await;
                for started in [by_http, by_grpc] {
                    check(&server, &api, &connection, start, &started).await;
                }
            }
        }
    }
    server.stop().await;
}

async fn start_over_http(server: &Server, api: &Api, request: &Request) -> Seen {
    let query: Vec<_> = request.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let path = format!("{}?{}", request.path, query.join("&"));
    let mut ask = Ask::new(request.verb, path).host(api.name());
    if let Some(body) = &request.body {
        ask = ask.header("content-type", "application/json").body(body.to_string());
    }
    Seen::from_json(&ask.send(server.address).await.ok())
}

async fn start_over_grpc(
    connection: &Connection,
    api: &Api,
    method: &Method,
    rule: &HttpRule,
    request: &Request,
) -> Seen {
    let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
    let parts =
        Parts { variables: &request.variables, query: &request.query, body: body.as_bytes() };
    let message = query::bind(rule, &method.input, parts, api).unwrap();
    let answer = connection.call_bytes(&method.grpc_path, message.encode().into(), None).await;
    let answer = answer.unwrap_or_else(|failure| panic!("{}: {failure:?}", method.full_name));
    let operation: Operation = prost::Message::decode(answer).unwrap();
    Seen::from_message(&operation)
}

async fn check(
    server: &Server,
    api: &Api,
    connection: &Connection,
    start: &StartMethod,
    started: &Seen,
) {
    started.is_running();
    assert_eq!(started.metadata_type, start.metadata_type.full_name());
    let cancel = Ask::post(format!("/v1/{}:cancel", started.name)).host(api.name());
    cancel.send(server.address).await.empty_object();
    let get = Ask::get(format!("/v1/{}", started.name)).host(api.name());
    Seen::from_json(&get.send(server.address).await.ok()).is_cancelled();
    let request = GetOperationRequest { name: started.name.clone() };
    let path = "/google.longrunning.Operations/GetOperation";
    let operation: Operation = connection.call(path, &request, None).await.unwrap();
    Seen::from_message(&operation).is_cancelled();
}

/// Fills the path with ids, and sets what the API marks as required.
fn request(method: &Method, rule: &HttpRule) -> Request {
    let verb = match rule.method.as_str() {
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "PUT" => "PUT",
        other => panic!("{} is called by {other}", method.full_name),
    };
    let variables: Vec<_> = rule
        .template
        .variables()
        .iter()
        .map(|variable| {
            (
                variable.field_path().to_owned(),
                variable.pattern().replace("**", "x").replace('*', "x"),
            )
        })
        .collect();
    let value = |path: &str| {
        variables.iter().find(|(field, _)| field == path).map(|(_, value)| value.clone())
    };
    let path = rule.template.expand_url(value).unwrap();
    let in_path = |field: &str| variables.iter().any(|(path, _)| path == field);
    let required = method.input.fields().filter(|field| field.is_required());
    let (mut query, mut all) = (Vec::new(), Map::new());
    for field in required.filter(|field| !in_path(field.name())) {
        let own_body = matches!(&rule.body, Body::Field(name) if name == field.name());
        match (&rule.body, field.message_type()) {
            _ if own_body => {}
            (Body::All, None) => {
                all.insert(field.json_name().into(), scalar(&field));
            }
            (Body::All, Some(inner)) => {
                all.insert(field.json_name().into(), filled(&inner));
            }
            (Body::Field(_) | Body::None, None) => {
                query.push((field.json_name().into(), "x".into()))
            }
            // An empty mask and the like cannot be written in a query; one path of it can.
            (Body::Field(_) | Body::None, Some(_)) => {
                query.push((field.json_name().into(), "name".into()));
            }
        }
    }
    let body = match &rule.body {
        Body::None => None,
        Body::All => Some(Value::Object(all)),
        Body::Field(name) => {
            let inner = method.input.field(name).and_then(|field| field.message_type()).unwrap();
            Some(filled(&inner))
        }
    };
    Request { verb, path, variables, query, body }
}

/// A value that fits a field of one number or text.
fn scalar(field: &Field<'_>) -> Value {
    match field.kind() {
        Kind::Single(SingularKind::String) => json!("x"),
        Kind::Single(_) | Kind::Repeated(_) | Kind::Map(_, _) => json!(1),
    }
}

/// A message whose own required texts are set.
fn filled(ty: &MessageType) -> Value {
    let required = ty.fields().filter(|field| field.is_required() && !field.is_output_only());
    let texts = required.filter(|field| field.kind() == Kind::Single(SingularKind::String));
    Value::Object(texts.map(|field| (field.json_name().to_owned(), json!("x"))).collect())
}
