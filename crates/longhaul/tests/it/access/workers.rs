//! Workers: what they may take, and that they report on their own alone.

use longhaul_wire::v1;
use prost::Message as _;

use super::people::World;
use super::started;
use crate::harness::view::Failure;

const CLAIM: &str = "/longhaul.v1.Workers/Claim";
const REPORT: &str = "/longhaul.v1.Workers/Report";

async fn claim(
    world: &World,
    who: &str,
    methods: &[&str],
    claim_id: &str,
) -> Result<Vec<v1::Assignment>, Failure> {
    let request = v1::ClaimRequest {
        worker: "w".into(),
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        max: 10,
        claim_id: claim_id.into(),
        ..Default::default()
    };
    let answer = world.grpc(who, CLAIM, request.encode_to_vec().into()).await?;
    Ok(v1::ClaimResponse::decode(answer).unwrap().assignments)
}

async fn report(world: &World, who: &str, name: &str, epoch: u64) -> v1::ReportResult {
    let item = v1::ReportItem { operation: name.into(), epoch, ..Default::default() };
    let request = v1::ReportRequest { worker: "w".into(), items: vec![item], ..Default::default() };
    let answer = world.grpc(who, REPORT, request.encode_to_vec().into()).await.unwrap();
    v1::ReportResponse::decode(answer).unwrap().results.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_what_its_role_is_for_and_nothing_else() {
    let world = World::start(|_| {}).await;
    let name = started(&world, "p").await;
    for who in ["stranger", "operator", "admin"] {
        let refused = claim(&world, who, &[], "").await.unwrap_err();
        refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED").says(&["longhaul.workers.claim"]);
    }
    claim(&world, "nobody", &[], "")
        .await
        .unwrap_err()
        .is("UNAUTHENTICATED", "CREDENTIALS_MISSING");
    let foreign = ["google.cloud.dataproc.v1.ClusterController.CreateCluster"];
    let refused = claim(&world, "worker", &foreign, "").await.unwrap_err();
    refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED").says(&["dataproc"]);
    let taken = claim(&world, "worker", &[], "").await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].operation, name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_reports_on_what_its_credential_claimed_and_learns_nothing_of_the_rest() {
    let world = World::start(|_| {}).await;
    let name = started(&world, "p").await;
    let taken = claim(&world, "worker", &[], "c1").await.unwrap().remove(0);
    assert_eq!(report(&world, "worker", &name, taken.epoch).await.error, None);
    // Another credential with the worker's own name, the right epoch and the claim's id gets nothing.
    let denied = report(&world, "rival", &name, taken.epoch).await;
    assert_eq!(denied.error.as_ref().unwrap().reason, "IAM_PERMISSION_DENIED");
    assert_eq!(claim(&world, "rival", &[], "c1").await.unwrap(), []);
    assert_eq!(claim(&world, "worker", &[], "c1").await.unwrap().len(), 1);
    let absent = "projects/p/locations/here/operations/none";
    let mut other = report(&world, "rival", absent, taken.epoch).await;
    other.operation = name.clone();
    let error = other.error.as_mut().unwrap();
    error.message = error.message.replace(absent, &name);
    assert_eq!(other, denied);
    assert_eq!(report(&world, "worker", &name, taken.epoch).await.error, None);
}
