//! Lists: order, pages, filters, and tokens that nobody can bend.

use crate::harness::client::{List, Wire, escape};
use serde_json::json;

use crate::harness::samples::{ALL, DATAPROC, DEPLOY, GEMINI};
use crate::harness::{Ask, Client, Kept, Say, Seen, Server, everywhere, over_both_wires};

fn page(filter: &str, page_size: i32, page_token: &str) -> List {
    List { filter: filter.into(), page_size, page_token: page_token.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_comes_first() {
    everywhere(async |place| {
        for sample in ALL {
            let client = place.client_of(sample);
            let mut names = Vec::new();
            for id in ["a", "b", "c"] {
                names.insert(0, client.start(id).await.name);
            }
            assert_eq!(client.list("").await.names(), names, "{}", sample.host);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_each_operation_once_while_others_come_and_go() {
    everywhere(async |place| {
        let client = place.client();
        let mut names = Vec::new();
        for number in 0..10 {
            names.insert(0, client.start(&format!("a{number}")).await.name);
        }
        let (mut seen, mut token) = (Vec::new(), String::new());
        for round in 0.. {
            let page = client.try_list(&page("", 3, &token)).await.unwrap();
            assert!(page.operations.len() <= 3);
            seen.extend(page.operations.into_iter().map(|operation| operation.name));
            client.start(&format!("b{round}")).await;
            if round == 0 {
                client.try_delete(&names[0]).await.unwrap();
            }
            token = page.next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, names);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_may_change_between_pages() {
    over_both_wires(async |place| {
        let client = place.client();
        for number in 0..5 {
            client.start(&format!("a{number}")).await;
        }
        let first = client.try_list(&page("", 1, "")).await.unwrap();
        assert_eq!(first.operations.len(), 1);
        let rest = client.try_list(&page("", 100_000, &first.next)).await.unwrap();
        assert_eq!(
            (rest.operations.len(), &*rest.next),
            (4, ""),
            "too large a size is cut, not refused"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_page_size_is_refused() {
    over_both_wires(async |place| {
        for size in [-1, i32::MIN] {
            let failure = place.client().try_list(&page("", size, "")).await.unwrap_err();
            failure.is("INVALID_ARGUMENT", "INVALID_PAGE_SIZE");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bent_or_foreign_page_token_is_refused() {
    everywhere(async |place| {
        let client = place.client();
        for number in 0..4 {
            client.start(&format!("a{number}")).await;
        }
        let token = client.try_list(&page("", 2, "")).await.unwrap().next;
        assert!(!token.is_empty());
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte)));

        let refused = async |client: &Client, asked: List| {
            let failure = client.try_list(&asked).await.unwrap_err();
            failure.is("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN");
        };
        refused(&client, page("", 2, "x")).await;
        refused(&client, page("", 2, &token[1..])).await;
        refused(&client, page("", 2, &format!("{token}A"))).await;
        for index in 0..token.len() {
            let mut bent: Vec<u8> = token.clone().into();
            bent[index] = if bent[index] == b'A' { b'B' } else { b'A' };
            let bent = String::from_utf8(bent).unwrap();
            match client.try_list(&page("", 2, &bent)).await {
                Err(failure) => {
                    failure.is("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN");
                }
                // The last character may carry bits that mean nothing.
                Ok(page) => assert!(index + 1 == token.len() && page.operations.len() == 2),
            }
        }
        refused(&client, page("done=true", 2, &token)).await;
        let elsewhere = Client::new(client.address, client.wire, &DEPLOY, "elsewhere");
        refused(&elsewhere, page("", 2, &token)).await;
        refused(&place.client_of(ALL[1]), page("", 2, &token)).await;
        assert_eq!(client.try_list(&page("", 2, &token)).await.unwrap().operations.len(), 2);
    })
    .await;
}

/// One operation in each state: queued, running, cancelling, done well, failed, cancelled.
async fn one_of_each(place: &crate::harness::Place) -> [Seen; 6] {
    let (client, worker) = (place.client(), place.worker());
    let mut started = Vec::new();
    for id in ["queued", "running", "cancelling", "done", "failed", "cancelled"] {
        started.push(client.start(id).await.name);
    }
    let [queued, running, cancelling, done, failed, cancelled] =
        <[String; 6]>::try_from(started).unwrap();
    client.cancel(&cancelled).await;
    worker.claim(&running).await;
    worker.claim(&cancelling).await;
    client.cancel(&cancelling).await;
    let held = worker.claim(&done).await;
    worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
    let held = worker.claim(&failed).await;
    worker.report(held.item(Say::Failure(9, "no".into(), false))).await.wants("STOP");
    let mut seen = Vec::new();
    for name in [queued, running, cancelling, done, failed, cancelled] {
        seen.push(client.get(&name).await);
    }
    seen.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_let_through_what_they_say() {
    everywhere(async |place| {
        let states = ["queued", "running", "cancelling", "done", "failed", "cancelled"];
        let seen = one_of_each(&place).await;
        let by_name = format!("name=\"{}\"", seen[3].name);
        let cases = [
            ("", &states[..]),
            ("done=true", &["done", "failed", "cancelled"]),
            ("done:true", &["done", "failed", "cancelled"]),
            ("done = false", &["queued", "running", "cancelling"]),
            ("NOT done=true", &["queued", "running", "cancelling"]),
            ("-done=true", &["queued", "running", "cancelling"]),
            ("error.code=1", &["cancelled"]),
            ("error.code=1 OR error.code=9", &["failed", "cancelled"]),
            ("done=true AND NOT error:*", &["done"]),
            ("metadata.requested_cancellation=true", &["cancelling", "cancelled"]),
            ("metadata.requestedCancellation=true AND done=false", &["cancelling"]),
            ("metadata.target=\"*/targets/running\"", &["running"]),
            ("metadata.verb=create", &states),
            ("metadata.verb=delete", &[]),
            (&*by_name, &["done"]),
        ];
        for (filter, wanted) in cases {
            let page = place.client().list(filter).await;
            let mut wanted: Vec<_> = wanted
                .iter()
                .map(|state| {
                    let index = states.iter().position(|other| other == state).unwrap();
                    &*seen[index].name
                })
                .collect();
            wanted.reverse();
            assert_eq!(page.names(), wanted, "{filter}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_holds_across_pages() {
    everywhere(async |place| {
        let client = place.client();
        for number in 0..12 {
            let name = client.start(&format!("a{number}")).await.name;
            if number % 3 == 0 {
                client.cancel(&name).await;
            }
        }
        let (mut count, mut token) = (0, String::new());
        loop {
            let page = client.try_list(&page("error.code=1", 1, &token)).await.unwrap();
            page.operations.iter().for_each(|operation| {
                operation.is_cancelled();
            });
            count += page.operations.len();
            token = page.next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(count, 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_filter_is_refused() {
    over_both_wires(async |place| {
        place.client().start("a").await;
        let nested = "(".repeat(10_000);
        let long = format!("done=true{}", " AND done=true".repeat(50_000));
        for filter in [
            "done=",
            "colour=red",
            "metadata.colour=red",
            "done=perhaps",
            "AND",
            "((",
            "\"",
            &nested,
            &long,
        ] {
            let asked = page(filter, 0, "");
            let Err(failure) = place.client().try_list(&asked).await else {
                panic!("{:?} was accepted", &filter[..filter.len().min(40)]);
            };
            if filter.len() < 1000 {
                failure.is("INVALID_ARGUMENT", "INVALID_FILTER");
            }
        }
        assert_eq!(place.client().list("").await.operations.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dataproc_takes_the_filters_that_its_command_line_sends() {
    over_both_wires(async |place| {
        let client = place.client_of(&DATAPROC);
        let (active, over) = (client.start("one").await.name, client.start("two").await.name);
        client.cancel(&over).await;
        let cases = [
            ("{}", vec![&over, &active]),
            (r#"{"operation_state_matcher": "ACTIVE"}"#, vec![&active]),
            (r#"{"operation_state_matcher": "NON_ACTIVE"}"#, vec![&over]),
            (r#"{"operation_state_matcher": "ALL"}"#, vec![&over, &active]),
            (r#"{"cluster_name": "one"}"#, vec![&active]),
            (r#"{"cluster_name": "two", "operation_state_matcher": "ACTIVE"}"#, vec![]),
            ("status.state = ACTIVE", vec![&active]),
            ("clusterName = two", vec![&over]),
            ("done=true", vec![&over]),
        ];
        for (filter, wanted) in cases {
            assert_eq!(client.list(filter).await.names(), wanted, "{filter}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_has_no_operations_and_no_token() {
    let server = Server::start(Kept::InMemory).await;
    for sample in ALL {
        let path = sample.list_path(&sample.parent("nobody"));
        let answer = Ask::get(path).host(sample.host).send(server.address).await;
        let json = answer.ok();
        // Gemini's family prints what is unset, the others leave it out.
        if sample.host == GEMINI.host {
            assert_eq!((&json["operations"], &json["nextPageToken"]), (&json!([]), &json!("")));
        } else {
            answer.empty_object();
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_success_is_not_supported() {
    let server = Server::start(Kept::InMemory).await;
    let path = format!("{}?returnPartialSuccess=true", DEPLOY.list_path(&DEPLOY.parent("p")));
    let answer = Ask::get(path).host(DEPLOY.host).send(server.address).await;
    answer.failure(501).is("UNIMPLEMENTED", "PARTIAL_SUCCESS_UNSUPPORTED");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unset_field_may_be_sent() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let name = client.start("a").await.name;
    let unset = "filter=&pageSize=0&pageToken=&returnPartialSuccess=false";
    for query in
        [unset.to_owned(), format!("{unset}&%24alt=json%3Benum-encoding%3Dint"), String::new()]
    {
        let path = format!("{}?{query}", DEPLOY.list_path(&DEPLOY.parent("p")));
        let json = Ask::get(path).host(DEPLOY.host).send(server.address).await.ok();
        assert_eq!(json["operations"][0]["name"], name, "{query}");
        assert!(json.get("nextPageToken").is_none_or(|token| token == ""));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snake_case_and_plus_for_space_are_understood() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    client.start("a").await;
    client.cancel(&client.start("b").await.name).await;
    let list = DEPLOY.list_path(&DEPLOY.parent("p"));
    for query in [
        "filter=done+%3D+true&page_size=5".to_owned(),
        format!("filter={}&pageSize=5", escape("done = true")),
    ] {
        let json = Ask::get(format!("{list}?{query}")).host(DEPLOY.host).send(server.address).await;
        assert_eq!(json.ok()["operations"].as_array().unwrap().len(), 1, "{query}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_found_nothing_yet_still_leads_on() {
    for kept in [Kept::InMemory, Kept::OnDisk] {
        let server = Server::with(kept, |config| config.limits.list_scan_max = 3).await;
        for wire in [Wire::Http, Wire::Grpc] {
            let client =
                Client::new(server.address, wire, &DEPLOY, format!("{wire:?}").to_lowercase());
            let wanted = client.start("wanted").await.name;
            for number in 0..10 {
                client.start(&format!("a{number}")).await;
            }
            let (mut found, mut pages, mut token) = (Vec::new(), 0, String::new());
            loop {
                let asked = page("metadata.target=\"*/wanted\"", 2, &token);
                let page = client.try_list(&asked).await.unwrap();
                found.extend(page.operations.into_iter().map(|seen| seen.name));
                pages += 1;
                token = page.next;
                if token.is_empty() {
                    break;
                }
                assert!(pages < 20, "a list must come to its end");
            }
            assert_eq!(found, [wanted]);
            assert!(pages > 2, "{pages}");
        }
        server.stop().await;
    }
}
