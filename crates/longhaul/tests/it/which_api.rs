//! Which API a call means: by port, host, prefix or the operation itself.

use std::net::SocketAddr;

use longhaul_server::config::ApiListener;
use longhaul_wire::longrunning::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation,
};

use crate::harness::client::Wire;
use crate::harness::grpc::Connection;
use crate::harness::samples::{ALL, Asked, CAS, DATAPROC, DEPLOY};
use crate::harness::{Ask, Client, Kept, Server};

const OPERATIONS: &str = "/google.longrunning.Operations";

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_host_means_its_api() {
    let server = Server::start(Kept::InMemory).await;
    for sample in ALL {
        let name = Client::new(server.address, Wire::Http, sample, "p").start("a").await.name;
        let service = sample.prefix;
        let hosts = [
            sample.host.to_owned(),
            format!("{}:443", sample.host),
            format!("{}:7151", sample.host),
            sample.host.to_uppercase(),
            format!("us-central1-{service}.googleapis.com"),
            format!("{service}.us-central1.rep.googleapis.com"),
            format!("{service}.mtls.googleapis.com"),
        ];
        for host in hosts {
            let list = Ask::get(sample.list_path(&sample.parent("p"))).host(&host);
            let json = list.send(server.address).await.ok();
            assert_eq!(json["operations"][0]["name"], name, "{host}");
            let get = Ask::get(format!("/v1/{name}")).host(&host);
            assert_eq!(get.send(server.address).await.ok()["name"], name, "{host}");

            let connection = Connection::new(server.address, Some(&host));
            let request = ListOperationsRequest {
                name: sample.list_name(&sample.parent("p")),
                ..Default::default()
            };
            let path = format!("{OPERATIONS}/ListOperations");
            let page: ListOperationsResponse =
                connection.call(&path, &request, None).await.unwrap();
            assert_eq!(page.operations[0].name, name, "{host}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_means_its_api_whatever_the_host() {
    let server = Server::start(Kept::InMemory).await;
    for sample in ALL {
        for host in ["localhost", "127.0.0.1:9", "example.com"] {
            let project = format!("p-{}", host.len());
            let asked = Asked { id: "a", ..Asked::default() };
            let prefixed = |path: &str| format!("/{}{path}", sample.prefix);
            let start = prefixed(&sample.start_path(&project, asked));
            let body = sample.start_body(&project, asked);
            let json = Ask::post_json(start, &body).host(host).send(server.address).await.ok();
            let name = json["name"].as_str().unwrap().to_owned();
            let list = prefixed(&sample.list_path(&sample.parent(&project)));
            let json = Ask::get(list).host(host).send(server.address).await.ok();
            assert_eq!(json["operations"][0]["name"], *name);
            let cancel = prefixed(&format!("/v1/{name}:cancel"));
            Ask::post(cancel).host(host).send(server.address).await.empty_object();
            let get = prefixed(&format!("/v1/{name}"));
            let json = Ask::get(get).host(host).send(server.address).await.ok();
            assert_eq!(json["error"]["code"], 1);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_list_names_the_three_ways_to_say_it() {
    let server = Server::start(Kept::InMemory).await;
    let parent = DEPLOY.parent("p");
    let answer = Ask::get(DEPLOY.list_path(&parent)).host("localhost").send(server.address).await;
    let failure = answer.failure(400);
    failure.is("INVALID_ARGUMENT", "API_AMBIGUOUS").says(&["Host", "prefix", "port"]);

    let connection = Connection::new(server.address, None);
    let request = ListOperationsRequest { name: parent, ..Default::default() };
    let path = format!("{OPERATIONS}/ListOperations");
    let answer: Result<ListOperationsResponse, _> = connection.call(&path, &request, None).await;
    let failure = answer.unwrap_err();
    failure.is("INVALID_ARGUMENT", "API_AMBIGUOUS").says(&["authority", "prefix", "port"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_only_one_api_can_mean_needs_no_host() {
    let server = Server::start(Kept::InMemory).await;
    let name = Client::new(server.address, Wire::Http, &DATAPROC, "p").start("a").await.name;
    let parent = DATAPROC.parent("p");
    let ask = Ask::get(DATAPROC.list_path(&parent)).host("localhost");
    assert_eq!(ask.send(server.address).await.ok()["operations"][0]["name"], name);

    let connection = Connection::new(server.address, None);
    let request = ListOperationsRequest { name: DATAPROC.list_name(&parent), ..Default::default() };
    let path = format!("{OPERATIONS}/ListOperations");
    let page: ListOperationsResponse = connection.call(&path, &request, None).await.unwrap();
    assert_eq!(page.operations[0].name, name);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_found_by_its_id_without_any_sign() {
    let server = Server::start(Kept::OnDisk).await;
    let connection = Connection::new(server.address, None);
    for sample in ALL {
        let client = Client::new(server.address, Wire::Http, sample, "p");
        let name = client.start("a").await.name;
        let path = format!("/v1/{name}");
        let json = Ask::get(&path).host("localhost").send(server.address).await.ok();
        assert_eq!(
            json["metadata"]["@type"],
            format!("type.googleapis.com/{}", sample.metadata_type)
        );
        let request = GetOperationRequest { name: name.clone() };
        let operation: Operation =
            connection.call(&format!("{OPERATIONS}/GetOperation"), &request, None).await.unwrap();
        assert!(operation.metadata.unwrap().type_url.ends_with(sample.metadata_type));

        Ask::post(format!("{path}:cancel"))
            .host("localhost")
            .send(server.address)
            .await
            .empty_object();
        let request = CancelOperationRequest { name: name.clone() };
        connection
            .call::<()>(&format!("{OPERATIONS}/CancelOperation"), &request, None)
            .await
            .unwrap();
        client.get(&name).await.is_cancelled();
        Ask::delete(&path).host("localhost").send(server.address).await.empty_object();
        let gone = Ask::get(&path).host("localhost").send(server.address).await;
        gone.failure(404).is("NOT_FOUND", "OPERATION_NOT_FOUND");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_given_to_one_api_needs_no_other_sign() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::with(Kept::InMemory, |config| {
        config.listeners = ALL
            .iter()
            .map(|sample| ApiListener { listen: any, api: sample.prefix.into() })
            .collect();
    })
    .await;
    let addresses = server.further_addresses().await;
    assert_eq!(addresses.len(), ALL.len());
    for (sample, address) in ALL.iter().zip(addresses) {
        let name = Client::new(server.address, Wire::Http, sample, "p").start("a").await.name;
        // Even another API's host does not change what the port means.
        for host in ["localhost", CAS.host, DEPLOY.host] {
            let list = Ask::get(sample.list_path(&sample.parent("p"))).host(host);
            assert_eq!(list.send(address).await.ok()["operations"][0]["name"], name, "{host}");
        }
        let connection = Connection::new(address, None);
        let request = ListOperationsRequest {
            name: sample.list_name(&sample.parent("p")),
            ..Default::default()
        };
        let path = format!("{OPERATIONS}/ListOperations");
        let page: ListOperationsResponse = connection.call(&path, &request, None).await.unwrap();
        assert_eq!(page.operations.len(), 1);
        assert_eq!(page.operations[0].name, name);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_host_is_found_by_its_path() {
    let server = Server::start(Kept::InMemory).await;
    for sample in ALL {
        let asked = Asked { id: "a", ..Asked::default() };
        let body = sample.start_body("p", asked);
        let ask = Ask::post_json(sample.start_path("p", asked), &body).host("localhost");
        let json = ask.send(server.address).await.ok();
        assert!(json["metadata"]["@type"].as_str().unwrap().ends_with(sample.metadata_type));
    }
    server.stop().await;
}
