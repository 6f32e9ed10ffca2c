//! What a command learns of why it is to stop.

use serde_json::json;

use super::rig::{Rig, Start};
use crate::harness::Ask;

/// Tells what the file says when the signal comes.
const SCRIPT: &str = r#"
    [[ ! -e $LONGHAUL_CANCEL_FILE ]] || exit 9
    trap 'cp "$LONGHAUL_CANCEL_FILE" "$HERE/why"; exit 143' TERM
    echo ready > "$HERE/ready"
    while :; do sleep 1000 & wait; done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn peers_23_a_command_reads_why_it_is_cancelled_before_it_is_signalled() {
    let rig = Rig::new().await;
    let _worker = rig.worker("Render", SCRIPT);
    let name = rig.start("render").await;
    rig.written("ready").await;
    let body = json!({ "reason": "the budget\nis spent" });
    let ask = Ask::post_json(format!("/longhaul/v1/{name}:cancel"), &body);
    assert_eq!(ask.send(rig.server.address).await.ok()["outcome"], "REQUESTED");
    rig.done(&name).await.is_cancelled();
    assert_eq!(rig.written("why").await, "CLIENT_CANCEL\n\nthe budget is spent\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_12_a_command_tells_a_restart_of_the_worker_from_a_cancel() {
    let rig = Rig::new().await;
    let first = rig.worker("Render", SCRIPT);
    let name = rig.start("render").await;
    rig.written("ready").await;
    assert_eq!(first.terminate().await, Some(0));
    assert_eq!(rig.written("why").await, "WORKER_SHUTDOWN\n\n\n");
    // The next attempt, in the same folder, is not told what concerned the last one.
    for file in ["ready", "why"] {
        std::fs::remove_file(rig.file(file)).unwrap();
    }
    let _second = rig.worker("Render", SCRIPT);
    rig.written("ready").await;
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    assert_eq!(rig.written("why").await, "CLIENT_CANCEL\n\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_12_a_command_is_told_that_its_deadline_passed() {
    let rig = Rig::new().await;
    let start = Start { methods: &["Preview"], flags: &[], script: SCRIPT };
    let _worker = rig.start_worker(&start);
    let name = rig.start("preview").await;
    rig.written("ready").await;
    let seen = rig.done(&name).await;
    assert_eq!(seen.code, Some(4), "{seen:?}");
    assert_eq!(rig.written("why").await, "DEADLINE\n\n\n");
}
