//! How a machine asks whether the server lives, is ready, and what it serves.

use prost::Message as _;

use crate::harness::grpc::Connection;
use crate::harness::samples::ALL;
use crate::harness::{Ask, Kept, Server};

/// Source: grpc/health/v1/health.proto.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Source: grpc/reflection/v1/reflection.proto.
#[derive(Clone, PartialEq, prost::Message)]
struct ReflectionRequest {
    #[prost(string, tag = "4")]
    file_containing_symbol: String,
    #[prost(string, optional, tag = "7")]
    list_services: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReflectionResponse {
    #[prost(message, optional, tag = "4")]
    files: Option<Files>,
    #[prost(message, optional, tag = "6")]
    services: Option<Services>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file_descriptors: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    service: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn http_probes_answer_whatever_the_host() {
    for kept in [Kept::InMemory, Kept::OnDisk] {
        let server = Server::start(kept).await;
        for path in ["/livez", "/readyz", "/healthz"] {
            for host in ["localhost", "clouddeploy.googleapis.com", "10.0.0.1:80"] {
                assert_eq!(
                    Ask::get(path).host(host).send(server.address).await.code,
                    200,
                    "{path}"
                );
            }
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_health_knows_every_service() {
    let server = Server::start(Kept::InMemory).await;
    let connection = Connection::new(server.address, None);
    let check = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        connection.call::<HealthCheckResponse>("/grpc.health.v1.Health/Check", &request, None).await
    };
    assert_eq!(check("").await.unwrap().status, SERVING);
    assert_eq!(check("google.longrunning.Operations").await.unwrap().status, SERVING);
    assert_eq!(check("longhaul.v1.Workers").await.unwrap().status, SERVING);
    for sample in ALL {
        let (service, _) = sample.method.rsplit_once('.').unwrap();
        assert_eq!(check(service).await.unwrap().status, SERVING, "{service}");
    }
    assert_eq!(check("no.such.Service").await.unwrap_err().code, "NOT_FOUND");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service_in_both_versions() {
    let server = Server::start(Kept::InMemory).await;
    let connection = Connection::new(server.address, None);
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let ask = async |request: ReflectionRequest| {
            let answers = connection.stream(&path, request.encode_to_vec().into()).await.unwrap();
            ReflectionResponse::decode(answers[0].clone()).unwrap()
        };
        let all = ReflectionRequest { list_services: Some("*".into()), ..Default::default() };
        let services = ask(all).await.services.unwrap();
        let names: Vec<_> = services.service.iter().map(|service| &*service.name).collect();
        for sample in ALL {
            let (service, _) = sample.method.rsplit_once('.').unwrap();
            assert!(names.contains(&service), "{service} is not among {names:?}");
            let symbol = ReflectionRequest {
                file_containing_symbol: sample.method.into(),
                ..Default::default()
            };
            let files = ask(symbol).await.files.unwrap();
            assert!(!files.file_descriptors.is_empty(), "{}", sample.method);
        }
        assert!(names.contains(&"google.longrunning.Operations"), "{names:?}");
        assert!(names.contains(&"longhaul.v1.Workers"), "{names:?}");
    }
    server.stop().await;
}
