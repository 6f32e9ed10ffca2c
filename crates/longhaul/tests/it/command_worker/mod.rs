//! `longhaul worker`: any program is a cancellable operation, and nothing of it outlives its end.

mod reasons;
mod rig;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use rig::{Rig, Start, left_of, nothing_left_of, refused, send_signal};

/// A grace that no test waits out.
const LONG: &str = "10m";

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_request_and_its_output_is_the_response() {
    let rig = Rig::new().await;
    let script = r#"
        cat > "$HERE/request"
        env > "$HERE/environment"
        echo '{"name": "'"$LONGHAUL_TARGET"'", "frames": 7}'
    "#;
    let _worker = rig.worker("Render", script);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let name = rig.start_traced("render", trace).await;
    let seen = rig.done(&name).await;
    let request: Value = serde_json::from_str(&rig.written("request").await).unwrap();
    let clip = request["name"].as_str().unwrap();
    assert_eq!(request, json!({ "name": clip, "codec": "av1" }));
    let response = &seen.json()["response"];
    assert_eq!(*response, json!({ "@type": response["@type"], "name": clip, "frames": "7" }));
    let environment = rig.written("environment").await;
    let has = |line: &str| environment.lines().any(|one| one == line);
    for line in [
        format!("LONGHAUL_OPERATION={name}"),
        "LONGHAUL_EPOCH=1".into(),
        "LONGHAUL_ATTEMPT=1".into(),
        "LONGHAUL_API=video.acme.example".into(),
        "LONGHAUL_METHOD=acme.video.v1.Video.Render".into(),
        format!("LONGHAUL_TARGET={clip}"),
        format!("TRACEPARENT={trace}"),
    ] {
        assert!(has(&line), "no {line} in {environment}");
    }
    assert!(environment.contains("LONGHAUL_CHECKPOINT_DIR=/"), "{environment}");
    assert!(!environment.contains("LONGHAUL_CLEANUP"), "{environment}");
    assert_eq!(std::fs::read_dir(rig.file("checkpoints")).unwrap().count(), 0, "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_writes_nothing_answers_with_what_was_asked_for() {
    let rig = Rig::new().await;
    // It does not take the worker's trace for its own either.
    let _worker = rig.worker("acme.video.v1.Video/Render", "[[ ! -v TRACEPARENT ]]");
    let name = rig.start("render").await;
    let seen = rig.done(&name).await;
    assert_eq!(seen.response.as_deref(), Some("acme.video.v1.Clip"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_command_says_why_in_the_error() {
    let rig = Rig::new().await;
    let script = "seq 1000 >&2; echo 'no such codec' >&2; exit 3";
    let _worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    let seen = rig.done(&name).await;
    assert_eq!(seen.code, Some(2), "{seen:?}");
    assert!(seen.message.starts_with("the command exited with code 3: "), "{seen:?}");
    assert!(seen.message.ends_with("\n1000\nno such codec"), "{seen:?}");
    assert!(seen.message.len() < 3_000, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_may_choose_its_error() {
    let rig = Rig::new().await;
    let script = "echo '::error NOT_FOUND no clip of that name' >&3; exit 1";
    let _worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    let seen = rig.done(&name).await;
    assert_eq!((seen.code, &*seen.message), (Some(5), "no clip of that name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_exit_codes_that_say_so_and_signals_from_outside_are_tried_again() {
    let rig = Rig::new().await;
    let script = r#"
        case $LONGHAUL_ATTEMPT in
            1) exit 75 ;;
            2) kill -SEGV $$ ;;
            3) exit 7 ;;
            *) echo "::error ABORTED attempt $LONGHAUL_ATTEMPT" >&3; exit 76 ;;
        esac
    "#;
    let flags = ["--retryable-exit", "75,7"];
    let _worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    let seen = rig.done(&name).await;
    assert_eq!((seen.code, &*seen.message), (Some(10), "attempt 4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_no_response_fails_the_operation() {
    let rig = Rig::new().await;
    for (script, says) in [
        (r#"echo '{"framez": 1}'"#, "framez"),
        ("echo hello", "is not a acme.video.v1.Clip"),
        (r"printf '\xff'", "not UTF-8"),
        ("yes", "more than 3145728 bytes"),
    ] {
        let worker = rig.worker("Render", script);
        let name = rig.start("render").await;
        let seen = rig.done(&name).await;
        assert_eq!(seen.code, Some(13), "{script}: {seen:?}");
        assert!(seen.message.contains(says), "{script}: {seen:?}");
        is_gone(&name);
        // In order, so that it does not take the next one's operation with it.
        assert_eq!(worker.terminate().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_metadata_are_seen_while_the_command_runs() {
    let rig = Rig::new().await;
    let script = r#"
        mkfifo "$HERE/go"
        echo 'step 2/10 decoding' >&3
        echo '{"metadata": {"framesDone": 7}}' >&3
        read -r _ < "$HERE/go"
    "#;
    let _worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    let decoding = |seen: &Value| seen["progress"]["message"] == "decoding";
    let seen =
        rig.described(&name, |seen| decoding(seen) && seen["metadata"]["framesDone"] == 7).await;
    assert_eq!((&seen["progress"]["step"], &seen["progress"]["steps"]), (&json!(2), &json!(10)));
    std::fs::write(rig.file("go"), "\n").unwrap();
    assert!(rig.done(&name).await.response.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_progress_neither_blocks_the_command_nor_reaches_the_server() {
    let rig = Rig::new().await;
    let script = "seq 200000 | sed 's/$/ of many/' >&3; head -c 1000000 /dev/zero >&3; echo 100 the last >&3";
    let _worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    assert!(rig.done(&name).await.response.is_some());
    let seen = rig.describe(&name).await;
    let revision: u64 = seen["revision"].as_str().unwrap().parse().unwrap();
    assert!(revision < 300, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_leaves_no_process_behind() {
    let rig = Rig::new().await;
    let script = r#"sleep 1000 & sleep 1000 & echo ready > "$HERE/ready"; wait"#;
    let flags = ["--grace", LONG];
    let _worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("ready").await;
    assert!(left_of(&name).len() >= 4, "supervisor, bash and two sleeps");
    let before = Instant::now();
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    is_gone(&name);
    assert!(before.elapsed() < Duration::from_secs(10), "not after the whole grace");
    assert_eq!(rig.describe(&name).await["effects"], "PARTIAL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_says_what_it_left_behind() {
    let rig = Rig::new().await;
    let script = r#"
        trap 'rm "$HERE/made"; echo "::effects undone" >&3; exit 0' TERM
        touch "$HERE/made"
        echo ready > "$HERE/ready"
        while :; do sleep 1000 & wait; done
    "#;
    let _worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    rig.written("ready").await;
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    assert_eq!(rig.describe(&name).await["effects"], "UNDONE");
    assert!(!rig.file("made").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_may_complete_although_it_was_cancelled() {
    let rig = Rig::new().await;
    let script = r#"
        trap 'echo "{\"frames\": 9}"; exit 0' TERM
        echo ready > "$HERE/ready"
        while :; do sleep 1000 & wait; done
    "#;
    let _worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    rig.written("ready").await;
    rig.cancel(&name).await;
    let seen = rig.done(&name).await;
    assert_eq!(seen.json()["response"]["frames"], "9", "{seen:?}");
    assert!(seen.requested_cancellation && left_of(&name).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_17_a_command_that_ignores_sigterm_is_killed_after_the_grace() {
    let rig = Rig::new().await;
    let script = r#"
        trap '' TERM
        bash -c 'trap "" TERM; while :; do sleep 1000; done' &
        echo ready > "$HERE/ready"
        while :; do sleep 1000; done
    "#;
    let flags = ["--grace", "300ms"];
    let _worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("ready").await;
    let before = Instant::now();
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    assert!(before.elapsed() >= Duration::from_millis(300));
    is_gone(&name);
    assert_eq!(rig.describe(&name).await["effects"], "UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_is_cut_where_the_server_would_give_up_sooner() {
    let rig = Rig::new().await;
    let script = r#"trap '' TERM; echo ready > "$HERE/ready"; sleep 1000; sleep 1000"#;
    let flags = ["--grace", LONG];
    // Its cancel_timeout is one second.
    let _worker = rig.start_worker(&Start { methods: &["Transcode"], flags: &flags, script });
    let name = rig.start("transcode").await;
    rig.written("ready").await;
    rig.cancel(&name).await;
    let seen = rig.done(&name).await;
    is_gone(&name);
    assert!(seen.is_cancelled().message.contains("had to be killed"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_forks_twice_into_a_session_of_its_own_does_not_escape() {
    let rig = Rig::new().await;
    // Both are orphans when the cancel comes: one dies of SIGTERM, the other must be killed.
    let script = r#"
        (setsid bash -c 'setsid sleep 1000 & echo $! > "$HERE/soft"' &)
        (setsid bash -c 'trap "" TERM; (setsid sleep 1000 & echo $! > "$HERE/hard")' &)
        (env -i setsid sleep 1000 & echo $! > "$HERE/bare")
        sleep 1000
    "#;
    let flags = ["--grace", "300ms"];
    let _worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    let mut escaped = Vec::new();
    for file in ["soft", "hard", "bare"] {
        escaped.push(rig.number(file).await);
    }
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    is_gone(&name);
    for pid in escaped {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_running_ends_with_it() {
    let rig = Rig::new().await;
    let script = "(setsid sleep 1000 &); sleep 1000 & echo '{\"frames\": 1}'";
    let flags = ["--grace", LONG];
    let _worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    let seen = rig.done(&name).await;
    assert_eq!(seen.json()["response"]["frames"], "1", "{seen:?}");
    is_gone(&name);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_missed_the_first_sigterm_gets_another() {
    let rig = Rig::new().await;
    let script = r#"
        bash -c 'trap "(( missed++ )) && exit" TERM; echo > "$HERE/child"
            while :; do sleep 1000 & wait $!; done' &
        trap 'exit 143' TERM
        echo ready > "$HERE/ready"
        while :; do wait; done
    "#;
    let flags = ["--grace", LONG];
    let _worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("ready").await;
    rig.written("child").await;
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    is_gone(&name);
    assert_eq!(rig.describe(&name).await["effects"], "PARTIAL", "nothing was killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_loses_the_server_ends_its_commands_before_the_lease_does() {
    let rig = Rig::new().await;
    let script = r#"trap '' TERM; echo ready > "$HERE/ready"; sleep 1000"#;
    let flags = ["--grace", LONG, "--lease", "2s"];
    let _worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("ready").await;
    let before = Instant::now();
    rig.server.stop().await;
    nothing_left_of(&name).await;
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_worker_that_was_killed() {
    let rig = Rig::new().await;
    let script = r#"
        trap '' TERM
        (setsid sleep 1000 &)
        echo ready > "$HERE/ready"
        while :; do sleep 1000; done
    "#;
    let flags = ["--grace", "300ms", "--lease", "2s"];
    let worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("ready").await;
    worker.kill().await;
    nothing_left_of(&name).await;
    // The operation goes to another worker.
    let _next = rig.worker("Render", "echo '{\"frames\": '\"$LONGHAUL_EPOCH\"'}'");
    assert_eq!(rig.done(&name).await.json()["response"]["frames"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_does_not_go_on_under_a_frozen_worker() {
    let rig = Rig::new().await;
    let script = r#"echo ready > "$HERE/ready"; sleep 1000"#;
    let flags = ["--lease", "2s"];
    let worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("ready").await;
    send_signal(worker.pid(), "STOP");
    rig.cancel(&name).await;
    nothing_left_of_the_command(&name, &worker.supervisors()).await;
    send_signal(worker.pid(), "CONT");
    rig.done(&name).await.is_cancelled();
    nothing_left_of(&name).await;
}

/// Demands that no process is left of an operation at this very moment.
#[track_caller]
fn is_gone(name: &str) {
    let left = left_of(name);
    assert!(left.is_empty(), "{left:?} are left");
}

/// The supervisor may wait for its worker to thaw.
async fn nothing_left_of_the_command(name: &str, supervisors: &[i32]) {
    let wait = async {
        while left_of(name).iter().any(|pid| !supervisors.contains(pid)) {
            // tidy: sleep: a pause between two looks at the processes; the wait has a deadline
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    crate::harness::soon("the end of the command", wait).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_leaves_nothing_behind() {
    let rig = Rig::new().await;
    let script = r#"
        (setsid sleep 1000 &)
        echo "$LONGHAUL_ATTEMPT" > "$HERE/attempt$LONGHAUL_ATTEMPT"
        [[ $LONGHAUL_ATTEMPT == 1 ]] && sleep 1000
        exit 0
    "#;
    let worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    rig.written("attempt1").await;
    let supervisors = worker.supervisors();
    assert_eq!(supervisors.len(), 1);
    send_signal(supervisors[0], "KILL");
    rig.written("attempt2").await;
    assert!(rig.done(&name).await.response.is_some());
    is_gone(&name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_gives_its_operation_back_with_its_checkpoint() {
    let rig = Rig::new().await;
    let script = r#"
        cd "$LONGHAUL_CHECKPOINT_DIR"
        if [[ -e checkpoint ]]; then
            echo '{"frames": '"$(< checkpoint)"'}'
            echo "$LONGHAUL_ATTEMPT" > "$HERE/attempt"
            exit 0
        fi
        trap 'echo 41 > new; mv new checkpoint; exit 143' TERM
        touch only-here
        echo ready > "$HERE/ready"
        while :; do sleep 1000 & wait; done
    "#;
    let flags = ["--grace", LONG];
    let first = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("ready").await;
    assert_eq!(first.terminate().await, Some(0));
    is_gone(&name);
    let seen = rig.describe(&name).await;
    assert_eq!((&seen["state"], seen["attempt"].as_u64().unwrap_or(0)), (&json!("QUEUED"), 0));
    // Another machine, as far as the folder is concerned.
    let elsewhere = rig.file("elsewhere");
    let flags = ["--checkpoint-dir", elsewhere.to_str().unwrap()];
    let _second = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    assert_eq!(rig.done(&name).await.json()["response"]["frames"], "41");
    assert_eq!(rig.number("attempt").await, 1, "no attempt was counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_kept_when_the_command_hears_that_it_is() {
    let rig = Rig::new().await;
    let script = r#"
        cd "$LONGHAUL_CHECKPOINT_DIR"
        if [[ -e checkpoint ]]; then echo '{"frames": '"$(< checkpoint)"'}'; exit 0; fi
        echo 17 > new; mv new checkpoint; touch only-here
        echo ::checkpoint >&3; read -r answer <&4
        echo "$answer" > "$HERE/answer"
        sleep 1000
    "#;
    let flags = ["--lease", "1s"];
    let worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    assert_eq!(rig.written("answer").await, "ok\n");
    worker.kill().await;
    let elsewhere = rig.file("elsewhere");
    let flags = ["--checkpoint-dir", elsewhere.to_str().unwrap()];
    let _second = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    assert_eq!(rig.done(&name).await.json()["response"]["frames"], "17");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_the_last_attempt_on_this_machine_is_as_it_was_left() {
    let rig = Rig::new().await;
    let script = r#"
        cd "$LONGHAUL_CHECKPOINT_DIR"
        [[ $LONGHAUL_ATTEMPT == 1 ]] && { echo big > part; exit 75; }
        [[ $(< part) == big ]]
    "#;
    let _worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    let seen = rig.done(&name).await;
    assert!(seen.response.is_some(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_is_open_before_a_cancel_and_closed_after_it() {
    let rig = Rig::new().await;
    let script = r#"
        ask() { echo "::gate" >&3; read -r answer <&4; echo "$answer" > "$HERE/$1"; }
        [[ $LONGHAUL_METHOD == *Preview ]] || ask before
        trap 'ask after; exit 1' TERM
        echo ready > "$HERE/ready"
        while :; do sleep 1000 & wait; done
    "#;
    let _worker = rig.worker("Render", script);
    let name = rig.start("render").await;
    assert_eq!(rig.written("before").await, "ok\n");
    rig.written("ready").await;
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    assert_eq!(rig.written("after").await, "ok\n", "a gate once passed stays open");
    std::fs::remove_file(rig.file("ready")).unwrap();
    std::fs::remove_file(rig.file("after")).unwrap();
    let _preview = rig.worker("Preview", script);
    let name = rig.start("preview").await;
    rig.written("ready").await;
    let after = rig.written("after").await;
    assert!(after.starts_with("no GATE_CLOSED "), "{after}");
    rig.done(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_work_is_cleaned_up_by_the_command_where_it_says_that_it_can() {
    let rig = Rig::new().await;
    let script = r#"
        if [[ -n $LONGHAUL_CLEANUP ]]; then
            echo "$LONGHAUL_EXTERNAL_REF" > "$HERE/cleaned"
            echo "::effects none" >&3
            exit 0
        fi
        echo "::external-ref build/7" >&3; read -r answer <&4
        trap '' TERM
        echo ready > "$HERE/ready"
        while :; do sleep 1000; done
    "#;
    let flags = ["--cleanup", "--grace", "100ms"];
    let _worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("ready").await;
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    assert_eq!(rig.written("cleaned").await, "build/7\n");
    assert_eq!(rig.describe(&name).await["effects"], "NONE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_cleanup_is_not_run_for_one() {
    let rig = Rig::new().await;
    let script = r#"echo run >> "$HERE/runs"; sleep 1000"#;
    let flags = ["--lease", "1s"];
    let worker = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    let name = rig.start("render").await;
    rig.written("runs").await;
    worker.kill().await;
    rig.cancel(&name).await;
    let _next = rig.start_worker(&Start { methods: &["Render"], flags: &flags, script });
    rig.done(&name).await.is_cancelled();
    assert_eq!(rig.written("runs").await, "run\n");
    assert_eq!(rig.describe(&name).await["effects"], "UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_as_many_at_once_as_it_has_slots() {
    let rig = Rig::new().await;
    let script = r#"
        mkfifo "$HERE/$LONGHAUL_EPOCH.$$"
        echo "$HERE/$LONGHAUL_EPOCH.$$" >> "$HERE/running"
        read -r _ < "$HERE/$LONGHAUL_EPOCH.$$"
    "#;
    let flags = ["--slots", "3"];
    let _worker =
        rig.start_worker(&Start { methods: &["Render", "Publish"], flags: &flags, script });
    let mut names = Vec::new();
    for verb in ["render", "publish", "render"] {
        names.push(rig.start(verb).await);
    }
    for name in &names {
        rig.described(name, |seen| seen["state"] == "RUNNING").await;
    }
    let running = async {
        loop {
            let running = rig.written("running").await;
            if running.lines().count() == 3 {
                return running;
            }
            tokio::task::yield_now().await;
        }
    };
    for fifo in crate::harness::soon("three at once", running).await.lines() {
        std::fs::write(fifo, "\n").unwrap();
    }
    for name in &names {
        assert!(rig.done(name).await.response.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_reports_stops_and_goes_on_where_it_was() {
    let rig = Rig::new().await;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/import.sh");
    let slow = format!("STEP_SECONDS=1000 exec '{example}'");
    let quick = format!("STEP_SECONDS=0 exec '{example}'");
    // The first stands at its first step; the second does them all.
    let worker = rig.worker("Render", &slow);
    let name = rig.start("render").await;
    rig.described(&name, |seen| seen["state"] == "RUNNING").await;
    assert_eq!(worker.terminate().await, Some(0));
    let worker = rig.worker("Render", &quick);
    assert!(rig.done(&name).await.response.is_some());
    let seen = rig.describe(&name).await;
    assert_eq!(seen["progress"]["message"], "importing", "{seen}");
    assert_eq!(worker.terminate().await, Some(0));
    let _worker = rig.worker("Render", &slow);
    let name = rig.start("render").await;
    rig.written_with("log", &format!("{name}, attempt 1, from step 1")).await;
    rig.cancel(&name).await;
    rig.done(&name).await.is_cancelled();
    is_gone(&name);
    assert_eq!(rig.describe(&name).await["effects"], "NONE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_is_refused_before_anything_is_claimed() {
    for (arguments, says) in [
        (&["--api", "clouddeploy", "--method", "Nothing", "--", "true"][..], "CreateRelease"),
        (&["--api", "nothing", "--method", "CreateRelease", "--", "true"], "clouddeploy"),
        (&["--method", "CreateRelease", "--", "true"], "--api"),
        (
            &["--api", "clouddeploy", "--method", "CreateRelease", "--", "no-such-program"],
            "no-such",
        ),
        (&["--api", "clouddeploy", "--method", "CreateRelease"], "COMMAND"),
        (
            &["--api", "clouddeploy", "--method", "CreateRelease", "--slots", "0", "--", "true"],
            "slots",
        ),
        (
            &[
                "--api",
                "clouddeploy",
                "--method",
                "CreateRelease",
                "--server",
                "ftp://x",
                "--",
                "true",
            ],
            "http://",
        ),
    ] {
        let (code, errors) = refused(arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(says), "{arguments:?}: {errors}");
    }
}
