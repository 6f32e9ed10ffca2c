//! The practice worker under a real `Worker`, with a link that hands out one assignment and keeps
//! what is reported; on simulated time.

use std::sync::Mutex;

use longhaul_client::worker::{Link, Options, Worker};
use longhaul_wire::api::ApiSource;
use longhaul_wire::bundled;
use longhaul_wire::v1::desired_state::Action as Wish;
use longhaul_wire::v1::report_item::Action;
use longhaul_wire::v1::{
    ClaimRequest, ClaimResponse, DesiredState, ReportItem, ReportRequest, ReportResponse,
    ReportResult,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::*;

/// Hands out one assignment; asks for its cancellation when told to.
#[derive(Clone)]
struct Script {
    assignment: Arc<Mutex<Option<Assignment>>>,
    said: Arc<Mutex<Vec<ReportItem>>>,
    cancel_after: Option<Duration>,
    began: Instant,
    ended: CancellationToken,
}

#[async_trait]
impl Link for Script {
    async fn claim(&self, _: ClaimRequest, _: Duration) -> Result<ClaimResponse, Status> {
        let next = self.assignment.lock().unwrap().take();
        if next.is_none() {
            std::future::pending::<()>().await;
        }
        Ok(ClaimResponse { assignments: next.into_iter().collect() })
    }

    async fn report(&self, request: ReportRequest, _: Duration) -> Result<ReportResponse, Status> {
        let hang = request.wait.map_or(Duration::ZERO, |wait| wait.try_into().unwrap());
        let until = Instant::now() + hang;
        let cancel_at = self.cancel_after.map(|after| self.began + after);
        tokio::time::sleep_until(cancel_at.map_or(until, |at| until.min(at))).await;
        let cancelled = cancel_at.is_some_and(|at| Instant::now() >= at);
        let action = if cancelled { Wish::Cancel } else { Wish::Continue };
        let mut results = Vec::new();
        for item in request.items {
            results.push(ReportResult {
                operation: item.operation.clone(),
                desired: Some(DesiredState { action: action.into(), ..DesiredState::default() }),
                ..ReportResult::default()
            });
            let end = item.action.is_some();
            self.said.lock().unwrap().push(item);
            if end {
                self.ended.cancel();
            }
        }
        Ok(ReportResponse { results })
    }
}

/// Practises one assignment; gives what was reported and when it ended.
async fn practise(
    practice: Practice,
    assignment: Assignment,
    cancel_after: Option<Duration>,
) -> (Vec<ReportItem>, Duration) {
    let script = Script {
        assignment: Arc::new(Mutex::new(Some(assignment))),
        said: Arc::default(),
        cancel_after,
        began: Instant::now(),
        ended: CancellationToken::new(),
    };
    let worker = Worker::new(Options::default(), script.clone(), practice).unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));
    script.ended.cancelled().await;
    let took = script.began.elapsed();
    shutdown.cancel();
    running.await.unwrap().unwrap();
    let said = script.said.lock().unwrap().clone();
    (said, took)
}

/// How the work ended, as it was reported.
fn end_of(said: &[ReportItem]) -> Action {
    said.iter().find_map(|item| item.action.clone()).expect("an end was reported")
}

/// An assignment of a method, with a request in JSON.
fn assignment(api: &Api, method: &str, request: &str, target: &str) -> Assignment {
    let method = api.methods().iter().find(|known| known.name() == method).unwrap();
    let request = json::from_json(&method.input, request.as_bytes(), api).unwrap();
    let metadata = &method.start().unwrap().metadata_type;
    let any = |type_name: &str, value: Vec<u8>| Any {
        type_url: format!("type.googleapis.com/{type_name}"),
        value,
    };
    Assignment {
        operation: "operations/a".to_owned(),
        epoch: 1,
        api: api.name().to_string(),
        method: method.full_name.to_string(),
        target: target.to_owned(),
        request: Some(any(request.full_name(), request.encode())),
        metadata: Some(any(metadata.full_name(), Message::new(metadata).encode())),
        ..Assignment::default()
    }
}

/// The response to a request, as JSON without its `@type`.
#[track_caller]
fn check_response(api: &str, method: &str, request: &str, target: &str, response: &str) {
    let api = bundled::load(api).unwrap();
    let assignment = assignment(&api, method, request, target);
    let method = api.method(&assignment.method).unwrap();
    let any = super::response(method.start().unwrap(), &method.input, &assignment).unwrap();
    let ty = &method.start().unwrap().response_type;
    assert_eq!(any.type_url, format!("type.googleapis.com/{}", ty.full_name()));
    let message = Message::decode(ty, &any.value).unwrap();
    let text = json::to_json(&message, &*api, &JsonOptions::default()).unwrap();
    let got: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(got, serde_json::from_str::<Value>(response).unwrap());
}

#[test]
fn the_response_is_what_the_request_asked_for() {
    let pipeline = "projects/p/locations/l/deliveryPipelines/d";
    check_response(
        "clouddeploy",
        "CreateDeliveryPipeline",
        r#"{"parent":"projects/p/locations/l","deliveryPipelineId":"d","deliveryPipeline":{"description":"x"}}"#,
        pipeline,
        r#"{"name":"projects/p/locations/l/deliveryPipelines/d","description":"x"}"#,
    );
    let delete = r#"{"name":"projects/p/locations/l/deliveryPipelines/d"}"#;
    check_response("clouddeploy", "DeleteDeliveryPipeline", delete, pipeline, "{}");
    check_response(
        "dataproc",
        "StartCluster",
        r#"{"projectId":"p","region":"r","clusterName":"c"}"#,
        "",
        r#"{"projectId":"p","clusterName":"c"}"#,
    );
}

#[test]
fn every_bundled_method_has_a_response_even_to_an_empty_request() {
    for api in bundled::load_all().unwrap() {
        let names: Vec<String> =
            api.start_methods().map(|method| method.name().to_owned()).collect();
        for name in names {
            let assignment = assignment(&api, &name, "{}", "things/t");
            let method = api.method(&assignment.method).unwrap();
            let any = response(method.start().unwrap(), &method.input, &assignment).unwrap();
            assert!(Message::decode(&method.start().unwrap().response_type, &any.value).is_ok());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn work_takes_its_duration_and_tells_of_twenty_steps_at_most() {
    let api = bundled::load("dataproc").unwrap();
    let assignment = assignment(&api, "DeleteCluster", "{}", "c");
    let practice = Practice::new(&[api], Duration::from_secs(60), Duration::ZERO);
    let (said, took) = practise(practice, assignment, None).await;
    assert_eq!(took.as_secs(), 60);
    let steps: Vec<_> = said.iter().filter_map(|item| item.progress.as_ref()).collect();
    assert_eq!(steps.len(), 19);
    assert_eq!((steps[3].step, steps[3].steps, steps[3].percent), (4, 20, Some(20.0)));
    assert!(said.iter().filter(|item| item.progress.is_some()).all(|item| item.metadata.is_some()));
    assert!(matches!(end_of(&said), Action::Response(_)));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_operation_stops_as_soon_as_the_delay_is_over() {
    let api = bundled::load("clouddeploy").unwrap();
    let (second, delay) = (Duration::from_secs(1), Duration::from_millis(500));
    for (cancel_after, effects) in [(second / 100, Effects::None), (second * 7, Effects::Undone)] {
        let assignment = assignment(&api, "DeleteTarget", "{}", "t");
        let practice = Practice::new(std::slice::from_ref(&api), second * 60, delay);
        let (said, took) = practise(practice, assignment, Some(cancel_after)).await;
        let wanted = cancel_after + delay;
        assert!(took >= wanted && took < wanted + Duration::from_millis(50), "{took:?}");
        let end = end_of(&said);
        assert!(matches!(&end, Action::Stopped(s) if s.effects() == effects), "{end:?}");
        assert!(said.iter().any(|item| item.acknowledge_cancel));
    }
}

#[tokio::test(start_paused = true)]
async fn no_duration_ends_at_once() {
    let api = bundled::load("privateca").unwrap();
    let assignment = assignment(&api, "DeleteCaPool", "{}", "t");
    let practice = Practice::new(&[api], Duration::ZERO, Duration::ZERO);
    let (said, took) = practise(practice, assignment, None).await;
    assert!(took < Duration::from_millis(10), "{took:?}");
    assert!(said.iter().all(|item| item.progress.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_method_that_nobody_knows_fails_for_good() {
    let api = bundled::load("privateca").unwrap();
    let assignment =
        Assignment { method: "x.Y.Z".into(), ..assignment(&api, "DeleteCaPool", "{}", "t") };
    let practice = Practice::new(&[api], Duration::ZERO, Duration::ZERO);
    let (said, _) = practise(practice, assignment, None).await;
    let end = end_of(&said);
    assert!(matches!(&end, Action::Failure(f) if f.code == INTERNAL && !f.retryable), "{end:?}");
}

#[test]
fn metadata_with_a_field_for_it_carries_the_percentage() {
    let folder = tempfile::tempdir().unwrap();
    let proto = r#"
        syntax = "proto3";
        package t.v1;
        import "google/longrunning/operations.proto";
        service Things {
          rpc Make(Request) returns (google.longrunning.Operation) {
            option (google.longrunning.operation_info) = { response_type: "Thing" metadata_type: "Meta" };
          }
        }
        message Request { string parent = 1; Thing thing = 2; }
        message Thing { string name = 1; }
        message Meta { string verb = 1; int32 progress_percent = 2; }
    "#;
    std::fs::write(folder.path().join("t.proto"), proto).unwrap();
    let descriptor_set = longhaul_wire::protos::compile_protos(folder.path()).unwrap();
    let api = Api::load(&ApiSource {
        descriptor_set: &descriptor_set,
        descriptor_set_file: "t.proto",
        service_config: "type: google.api.Service\nname: t.example.com\napis:\n- name: t.v1.Things\n",
        service_config_file: "t.yaml",
        ..ApiSource::default()
    })
    .unwrap();
    let mut assignment = assignment(&api, "Make", "{}", "t");
    let start = api.method("t.v1.Things.Make").unwrap().start().unwrap();
    let mut stored = Message::new(&start.metadata_type);
    stored.set_string("verb", "create").unwrap();
    assignment.metadata.as_mut().unwrap().value = stored.encode();
    let any = told(&api, start, &assignment, 42.9, "step 1 of 2").unwrap();
    let message = Message::decode(&start.metadata_type, &any.value).unwrap();
    let text = json::to_json(&message, &*api, &JsonOptions::default()).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), r#"{"verb":"create","progressPercent":42}"#);
}
