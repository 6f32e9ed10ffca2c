//! Sessions: what is said over the stream, what is refused, and that losing it loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_wire::v1;
use longhaul_wire::v1::desired_state::{Action, Reason};
use longhaul_wire::v1::session_request::Request;
use longhaul_wire::v1::{Effects, SessionOpen};
use prost::Message as _;
use tempfile::TempDir;

use crate::harness::client::Wire;
use crate::harness::grpc::Connection;
use crate::harness::process::Process;
use crate::harness::samples::DEPLOY;
use crate::harness::session::{Said, Session, open};
use crate::harness::{
    Claim, Client, Failure, Held, Item, Kept, Place, Say, Server, Worker, on_both_stores, soon,
};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

/// A session of the place's own worker.
async fn session(place: &Place, slots: u32) -> Session {
    Session::open(place.server.address, open("w", slots)).await.0
}

/// A session of a worker that says it holds these claims.
async fn again(place: &Place, held: &[(&str, u64)]) -> (Session, Vec<Said>) {
    Session::open(place.server.address, holding(held)).await
}

fn holding(held: &[(&str, u64)]) -> SessionOpen {
    let held = held
        .iter()
        .map(|(operation, epoch)| v1::Held { operation: (*operation).to_owned(), epoch: *epoch });
    SessionOpen { held: held.collect(), ..open("w", 0) }
}

fn success(held: &Held) -> Item {
    held.item(Say::Success(DEPLOY.response()))
}

fn is(desired: &v1::DesiredState, action: Action, reason: Reason) -> bool {
    (desired.action(), desired.reason()) == (action, reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_what_is_wanted_of_everything_held() {
    on_both_stores(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let mut claims = Vec::new();
        for id in ["running", "cancelling", "done", "released", "taken-over", "deleted"] {
            let name = client.start(id).await.name;
            claims.push(worker.claim(&name).await);
        }
        let [running, cancelling, done, released, taken_over, deleted] =
            <[Held; 6]>::try_from(claims).unwrap();
        client.cancel(&cancelling.operation).await;
        worker.report(success(&done)).await.wants("STOP");
        worker.report(released.item(Say::Release)).await.wants("STOP");
        worker.report(taken_over.item(Say::Release)).await.wants("STOP");
        let newer = worker.claim(&taken_over.operation).await;
        worker.report(success(&deleted)).await.wants("STOP");
        client.try_delete(&deleted.operation).await.unwrap();
        let gone = format!("{}/operations/gone", client.parent());

        let held: Vec<_> = [&running, &cancelling, &done, &released, &taken_over, &newer, &deleted]
            .map(|held| (&*held.operation, held.epoch))
            .into_iter()
            .chain([(&*gone, 1)])
            .collect();
        let (mut session, first) = again(&place, &held).await;
        let expected = [
            (Action::Continue, Reason::Unspecified),
            (Action::Cancel, Reason::ClientCancel),
            (Action::Stop, Reason::Done),
            (Action::Stop, Reason::LeaseLost),
            (Action::Stop, Reason::LeaseLost),
            (Action::Continue, Reason::Unspecified),
            (Action::Stop, Reason::Deleted),
            (Action::Stop, Reason::Deleted),
        ];
        assert_eq!(first.len(), expected.len(), "{first:?}");
        for (said, ((operation, epoch), (action, reason))) in
            first.iter().zip(held.into_iter().zip(expected))
        {
            let Said::Wanted(said_of, said_epoch, desired) = said else { panic!("{said:?}") };
            assert_eq!((&**said_of, *said_epoch), (operation, epoch));
            assert!(is(desired, action, reason), "{operation}: {desired:?}");
            let is_cancel = action == Action::Cancel;
            assert_eq!(desired.deadline.is_some() && desired.request_time.is_some(), is_cancel);
        }
        // Of two claims of one operation the one that counts is still told of changes.
        client.cancel(&newer.operation).await;
        let desired = session.wanted(&newer).await;
        assert!(is(&desired, Action::Cancel, Reason::ClientCancel), "{desired:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_holds_very_much_is_told_in_several_answers() {
    on_both_stores(async |place| {
        let names: Vec<_> = (0..50_000)
            .map(|number| {
                format!("projects/a-project-with-a-name/locations/here/operations/{number:040}")
            })
            .collect();
        let held: Vec<_> = names.iter().map(|name| (&**name, 1)).collect();
        // No answer is larger than what a gRPC client reads by default: the harness reads no more.
        let (_session, first) = again(&place, &held).await;
        let told: BTreeSet<_> = first
            .iter()
            .filter_map(|said| {
                let Said::Wanted(name, 1, desired) = said else { return None };
                is(desired, Action::Stop, Reason::Deleted).then_some(&**name)
            })
            .collect();
        assert_eq!(told.len(), names.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_comes_as_slots_allow_and_0_slots_take_no_more() {
    on_both_stores(async |place| {
        let (client, worker) = (place.client(), place.worker());
        for number in 0..5 {
            client.start(&format!("a{number}")).await;
        }
        let mut session = session(&place, 2).await;
        let mut held = vec![session.assigned_any().await, session.assigned_any().await];
        assert_eq!(worker.claim_now().await.len(), 3, "the rest was left to others");
        let late = client.start("late").await.name;
        assert_eq!(session.report(success(&held.remove(0))).await.wants("STOP").because, "DONE");
        held.push(session.assigned(&late).await);

        session.slots(3).await;
        let more = client.start("more").await.name;
        held.push(session.assigned(&more).await);
        session.slots(0).await;
        for held in &held {
            session.report(success(held)).await.wants("STOP");
        }
        let left = client.start("left").await.name;
        worker.claim(&left).await;
        session.slots(1).await;
        let last = client.start("last").await.name;
        session.assigned(&last).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_never_holds_more_than_its_slots() {
    on_both_stores(async |place| {
        const SLOTS: usize = 3;
        const OPERATIONS: usize = 60;
        let client = place.client();
        let mut names = BTreeSet::new();
        let mut session = session(&place, SLOTS as u32).await;
        for number in 0..OPERATIONS {
            names.insert(client.start(&format!("a{number}")).await.name);
        }
        // Some end by the session, some by another call, so that slots come free on both ways.
        let (mut holds, mut given) = (0, BTreeSet::new());
        let mut others = tokio::task::JoinSet::new();
        while given.len() < OPERATIONS {
            let held = session.assigned_any().await;
            holds += 1;
            assert!(holds <= SLOTS, "{holds} of {SLOTS} slots");
            assert!(given.insert(held.operation.clone()), "given twice: {held:?}");
            if given.len() % 3 == 0 {
                session.send_report(vec![success(&held)]).await;
            } else {
                let worker = place.worker();
                others.spawn(async move { worker.report(success(&held)).await });
            }
            holds -= 1;
        }
        for verdict in soon("the reports", others.join_all()).await {
            verdict.wants("STOP");
        }
        assert_eq!(given, names);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_02_a_cancel_is_pushed_without_any_report() {
    on_both_stores(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        let mut session = session(&place, 1).await;
        let held = session.assigned(&name).await;
        let asked = Instant::now();
        client.cancel(&name).await;
        let desired = session.wanted(&held).await;
        assert!(asked.elapsed() < 2 * SECOND, "{:?}", asked.elapsed());
        assert!(is(&desired, Action::Cancel, Reason::ClientCancel), "{desired:?}");
        let heard = Item { heard: true, ..held.item(Say::Alive) };
        session.report(heard).await.wants("CANCEL");
        session.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        client.get(&name).await.is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_running_operation_of_a_session_hears_its_own_cancel() {
    on_both_stores(async |place| {
        let client = place.client();
        let mut session = session(&place, 1000).await;
        let mut claims = BTreeMap::new();
        for number in 0..200 {
            let name = client.start(&format!("a{number}")).await.name;
            claims.insert(name.clone(), session.assigned(&name).await);
        }
        let mut cancels = tokio::task::JoinSet::new();
        for (number, name) in claims.keys().enumerate() {
            if number % 2 == 0 {
                let (client, name) = (client.clone(), name.clone());
                cancels.spawn(async move { client.try_cancel(&name).await });
            }
        }
        let asked: Vec<_> = soon("the cancels", cancels.join_all()).await;
        assert!(asked.iter().all(Result::is_ok), "{asked:?}");
        for (number, held) in claims.values().enumerate() {
            if number % 2 == 0 {
                let desired = session.wanted(held).await;
                assert!(is(&desired, Action::Cancel, Reason::ClientCancel), "{desired:?}");
            } else {
                session.report(held.item(Say::Alive)).await.wants("CONTINUE");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_word_about_a_cancelled_operation_is_cancel() {
    on_both_stores(async |place| {
        let client = place.client();
        let mut session = session(&place, 1000).await;
        for round in 0..40 {
            let name = client.start(&format!("a{round}")).await.name;
            let held = session.assigned(&name).await;
            let cancelling = {
                let (client, name) = (client.clone(), name.clone());
                tokio::spawn(async move { client.try_cancel(&name).await })
            };
            let id = session.send_report(vec![held.item(Say::Alive)]).await;
            let (mut answered, mut last) = (false, String::new());
            while !(answered && last == "CANCEL") {
                match session.next().await {
                    Said::Wanted(said_of, _, desired) if said_of == name => {
                        last = desired.action().as_str_name().to_owned();
                    }
                    Said::Answered(said_for, verdicts) if said_for == id => {
                        assert!(last.is_empty() || verdicts[0].desired == last, "taken back");
                        last = verdicts[0].wants(&verdicts[0].desired.clone()).desired.clone();
                        answered = true;
                    }
                    Said::Wanted(..) | Said::Answered(..) | Said::Assigned(_) | Said::Complete => {}
                }
            }
            assert_eq!(cancelling.await.unwrap(), Ok(()));
            session.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_report_is_answered_once_under_its_id() {
    on_both_stores(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        let mut session = session(&place, 1).await;
        let held = session.assigned(&name).await;
        let stale = Item { epoch: held.epoch + 7, ..held.item(Say::Alive) };
        let mut expected = BTreeMap::new();
        for number in 0..100 {
            let (item, refused) = match number % 2 {
                0 => (held.item(Say::Alive), None),
                _ => (stale.clone(), Some("LEASE_LOST")),
            };
            expected.insert(session.send_report(vec![item]).await, refused);
        }
        let two = session.send_report(vec![held.item(Say::Alive), stale.clone()]).await;
        while !expected.is_empty() {
            let Said::Answered(id, verdicts) = session.next().await else { continue };
            if id == two {
                assert_eq!(verdicts[0].refused, None);
                verdicts[1].refused_as("LEASE_LOST");
                continue;
            }
            let refused = expected.remove(&id).expect("each id is answered once");
            let given = verdicts[0].refused.as_ref().map(|(reason, _)| &**reason);
            assert_eq!((verdicts.len(), given), (1, refused), "{verdicts:?}");
        }
        session.report(success(&held)).await.wants("STOP");
    })
    .await;
}

/// What a session says that is refused.
async fn refusal(address: std::net::SocketAddr, first: Vec<Request>) -> Failure {
    let mut session = Session::begin(address, first).await;
    loop {
        match session.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(failure) => return failure,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_ends_the_session_with_the_reason() {
    on_both_stores(async |place| {
        let address = place.server.address;
        let opened = || Request::Open(open("w", 1));
        let opening = |change: fn(&mut SessionOpen)| {
            let mut wrong = open("w", 1);
            change(&mut wrong);
            vec![Request::Open(wrong)]
        };
        let report = |count| {
            let items = vec![v1::ReportItem::default(); count];
            Request::Report(v1::SessionReport { id: 1, items })
        };
        let slots = |slots| Request::Slots(v1::SessionSlots { slots });
        let many = |open: &mut SessionOpen, count| {
            open.held = vec![v1::Held { operation: "o/a".into(), epoch: 1 }; count];
        };
        let cases = [
            (vec![report(1)], "INVALID_VALUE", "open"),
            (vec![slots(1)], "INVALID_VALUE", "open"),
            (vec![opened(), opened()], "INVALID_VALUE", "once"),
            (vec![opened(), slots(100_001)], "INVALID_VALUE", "slots is 100001"),
            (vec![opened(), report(1001)], "INVALID_VALUE", "report.items is 1001"),
            (opening(|open| open.slots = u32::MAX), "INVALID_VALUE", "slots is 4294967295"),
            (opening(|open| open.worker.clear()), "INVALID_VALUE", "worker is empty"),
            (opening(|open| open.worker = "w".repeat(257)), "INVALID_VALUE", "worker has 257"),
            (
                opening(|open| open.lease = Some(Duration::ZERO.try_into().unwrap())),
                "INVALID_VALUE",
                "lease",
            ),
            (
                opening(|open| open.held = vec![v1::Held { operation: "/".into(), epoch: 1 }]),
                "INVALID_NAME",
                "",
            ),
        ];
        for (first, reason, says) in cases {
            let failure = refusal(address, first).await;
            failure.is("INVALID_ARGUMENT", reason).says(&[says]);
        }
        let mut full = open("w", 0);
        many(&mut full, 100_000);
        Session::open(address, full).await;
        let mut over = open("w", 0);
        many(&mut over, 100_001);
        let failure = refusal(address, vec![Request::Open(over)]).await;
        failure.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&["held", "100001", "100,000"]);
        let mut huge = open("w", 0);
        huge.held = vec![v1::Held { operation: "x".repeat(1 << 20), epoch: 1 }; 17];
        let failure = refusal(address, vec![Request::Open(huge)]).await;
        failure.is("INVALID_ARGUMENT", "BODY_TOO_LARGE").says(&["too large"]);
        place.client().start("a").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_a_session_is_refused_in_words() {
    on_both_stores(async |place| {
        let connection = Connection::new(place.server.address, None);
        let nothing = v1::SessionRequest { request: None }.encode_to_vec();
        for (bytes, says) in [(nothing, "open"), (vec![0xff; 40], "not the message")] {
            let failure =
                connection.stream("/longhaul.v1.Workers/Session", bytes.into()).await.unwrap_err();
            failure.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&[says]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_never_opened_is_ended() {
    let read_timeout = Duration::from_millis(200);
    let server =
        Server::with(Kept::InMemory, |config| config.limits.read_timeout = read_timeout).await;
    let mut silent = Session::begin(server.address, Vec::new()).await;
    let failure = silent.try_next().await.unwrap_err();
    failure.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&["in time"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_01_a_cut_session_loses_nothing() {
    on_both_stores(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let (stopping, going) = (client.start("a").await.name, client.start("b").await.name);
        let mut session = session(&place, 2).await;
        let stopping = session.assigned(&stopping).await;
        let going = session.assigned(&going).await;
        session.cut();
        client.cancel(&stopping.operation).await;
        assert!(worker.claim_now().await.is_empty(), "the leases go on");
        worker.report(going.item(Say::Alive)).await.wants("CONTINUE");

        let held = [&stopping, &going].map(|held| (&*held.operation, held.epoch));
        let (mut session, first) = again(&place, &held).await;
        let [Said::Wanted(_, _, cancel), Said::Wanted(_, _, goes_on)] = &*first else {
            panic!("{first:?}")
        };
        assert!(is(cancel, Action::Cancel, Reason::ClientCancel), "{cancel:?}");
        assert!(is(goes_on, Action::Continue, Reason::Unspecified), "{goes_on:?}");
        session.report(stopping.item(Say::Stopped(Effects::None))).await.wants("STOP");
        session.report(success(&going)).await.wants("STOP");
        client.get(&stopping.operation).await.is_cancelled();
        assert!(client.get(&going.operation).await.response.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_of_one_worker_both_hear() {
    on_both_stores(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        // As after a line that broke on one side only.
        let mut older = session(&place, 1).await;
        let held = older.assigned(&name).await;
        let (mut newer, _) = again(&place, &[(&held.operation, held.epoch)]).await;
        client.cancel(&name).await;
        for session in [&mut older, &mut newer] {
            assert!(is(&session.wanted(&held).await, Action::Cancel, Reason::ClientCancel));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_what_other_calls_report() {
    on_both_stores(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let (first, second) = (client.start("a").await.name, client.start("b").await.name);
        let mut session = session(&place, 1).await;
        let held = session.assigned(&first).await;
        client.cancel(&first).await;
        assert!(is(&session.wanted(&held).await, Action::Cancel, Reason::ClientCancel));
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        assert!(is(&session.wanted(&held).await, Action::Stop, Reason::Done));
        // Its slot is free, and a release by another call is news as well.
        let held = session.assigned(&second).await;
        session.slots(0).await;
        worker.report(held.item(Say::Release)).await.wants("STOP");
        assert!(is(&session.wanted(&held).await, Action::Stop, Reason::LeaseLost));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_session_gets_nothing_more_until_it_is_heard() {
    on_both_stores(async |place| {
        let (client, other) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let lease = Some(SECOND.try_into().unwrap());
        let opening = SessionOpen { lease, ..open("w", 2) };
        let (mut session, _) = Session::open(place.server.address, opening).await;
        let first = session.assigned(&name).await;
        // The worker says nothing, as if it were frozen: its lease runs out. Though its session has slots, what
        // there is goes to another worker, and no attempt is lost to the silent one.
        let second = other.claim(&name).await;
        assert_eq!((first.attempt, second.attempt), (1, 2));
        assert!(is(&session.wanted(&first).await, Action::Stop, Reason::LeaseLost));
        let newer = client.start("b").await.name;
        assert_eq!(other.claim(&newer).await.attempt, 1);
        session.report(success(&first)).await.refused_as("LEASE_LOST");
        // It has been heard.
        let newest = client.start("c").await.name;
        let third = session.assigned(&newest).await;
        session.report(success(&third)).await.wants("STOP");
        other.report(success(&second)).await.wants("STOP");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_heard_within_the_lease_gets_what_it_gave_up_again() {
    on_both_stores(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        let lease = Some(SECOND.try_into().unwrap());
        let opening = SessionOpen { lease, ..open("w", 2) };
        let (mut session, _) = Session::open(place.server.address, opening.clone()).await;
        let first = session.assigned(&name).await;
        session.cut();
        // It says once more that it holds the operation, and gives it up thereafter without a word.
        let again = SessionOpen { held: holding(&[(&name, first.epoch)]).held, ..opening };
        let (mut session, _) = Session::open(place.server.address, again).await;
        let second = session.assigned(&name).await;
        assert!(second.epoch > first.epoch, "{second:?}");
        session.report(success(&first)).await.refused_as("LEASE_LOST");
        session.report(success(&second)).await.wants("STOP");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_came_before_the_end_of_the_requests_are_answered() {
    on_both_stores(async |place| {
        let client = place.client();
        let mut session = session(&place, 50).await;
        let mut claims = Vec::new();
        for number in 0..50 {
            let name = client.start(&format!("a{number}")).await.name;
            claims.push(session.assigned(&name).await);
        }
        let mut ids = BTreeSet::new();
        for held in &claims {
            ids.insert(session.send_report(vec![success(held)]).await);
        }
        session.close_requests();
        while let Some(said) = session.try_next().await.unwrap() {
            if let Said::Answered(id, verdicts) = said {
                assert!(ids.remove(&id));
                verdicts[0].wants("STOP");
            }
        }
        assert_eq!(ids, BTreeSet::new(), "unanswered");
        for held in &claims {
            assert!(client.get(&held.operation).await.response.is_some());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_its_sessions_in_order() {
    for kept in [Kept::InMemory, Kept::OnDisk] {
        let server = Arc::new(Server::start(kept).await);
        let place = Place::on(server.clone(), Wire::Grpc);
        let name = place.client().start("a").await.name;
        let mut working = session(&place, 1).await;
        working.assigned(&name).await;
        let mut unopened = Session::begin(server.address, Vec::new()).await;
        let began = Instant::now();
        server.stop().await;
        assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
        assert_eq!(working.try_next().await, Ok(None));
        assert_eq!(unopened.try_next().await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_not_read_is_bounded_and_hurts_nobody() {
    on_both_stores(async |place| {
        let mut lazy = session(&place, 0).await;
        let item = v1::ReportItem {
            operation: "projects/p/locations/l/operations/gone".into(),
            progress: Some(v1::Progress { message: "x".repeat(8 << 10), ..Default::default() }),
            ..Default::default()
        };
        let report = |id| Request::Report(v1::SessionReport { id, items: vec![item.clone()] });
        let mut sent = 0;
        while lazy.send_within(report(sent), SECOND).await {
            sent += 1;
            assert!(sent < 20_000, "the server reads on for ever");
        }
        // Others are served meanwhile.
        let name = place.client().start("a").await.name;
        let mut brisk = session(&place, 1).await;
        let held = brisk.assigned(&name).await;
        brisk.report(success(&held)).await.wants("STOP");
        // Once it reads again, everything that the server took is answered.
        let mut answered = BTreeSet::new();
        while answered.len() < usize::try_from(sent).unwrap() {
            let Said::Answered(id, verdicts) = lazy.next().await else { continue };
            verdicts[0].refused_as("OPERATION_NOT_FOUND");
            assert!(answered.insert(id));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_not_read_does_not_hold_up_the_end_of_the_server() {
    let second = |config: &mut longhaul_server::Config| config.drain_timeout = SECOND;
    let server = Arc::new(Server::with(Kept::InMemory, second).await);
    let place = Place::on(server.clone(), Wire::Grpc);
    let mut lazy = session(&place, 0).await;
    let items = vec![v1::ReportItem { operation: "o/gone".into(), ..Default::default() }; 1000];
    let report = |id| Request::Report(v1::SessionReport { id, items: items.clone() });
    let mut sent = 0;
    while lazy.send_within(report(sent), SECOND).await {
        sent += 1;
    }
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn telling_a_worker_of_a_cancel_does_not_touch_its_lease() {
    on_both_stores(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let opening = SessionOpen { lease: Some(LONG.try_into().unwrap()), ..open("w", 1) };
        let (mut session, _) = Session::open(place.server.address, opening).await;
        let held = session.assigned(&name).await;
        let ends = async || describe(&place, &name).await.lease.unwrap().expire_time;
        let before = ends().await;
        client.cancel(&name).await;
        session.wanted(&held).await;
        soon("the note of the delivery", async {
            while describe(&place, &name).await.cancel.unwrap().delivered_time.is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(ends().await, before);
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
    })
    .await;
}

async fn describe(place: &Place, name: &str) -> v1::OperationDetail {
    let request = v1::DescribeRequest { name: name.into() };
    let client = place.client();
    let calling = client.grpc().call("/longhaul.v1.Operators/Describe", &request, None);
    soon("a description", calling).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_over_the_limit_of_held_calls_says_when_to_come_back() {
    let server = Server::with(Kept::InMemory, |config| config.limits.held_calls_max = 1).await;
    let (mut first, _) = Session::open(server.address, open("w", 0)).await;
    let failure = refusal(server.address, vec![Request::Open(open("w", 0))]).await;
    failure.is("RESOURCE_EXHAUSTED", "OVERLOADED");
    first.close_requests();
    assert_eq!(first.try_next().await, Ok(None));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_before_kill_9_is_the_first_thing_that_a_session_hears() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let text = format!("listen = \"127.0.0.1:0\"\ndata = {:?}\n", data.display().to_string());
    let process = Process::serve(&text).await;
    let client = Client::new(process.address, Wire::Grpc, &DEPLOY, "p");
    let mut claims = Vec::new();
    let (mut session, _) = Session::open(process.address, open("w", 20)).await;
    for number in 0..20 {
        let name = client.start(&format!("a{number}")).await.name;
        claims.push(session.assigned(&name).await);
    }
    for held in claims.iter().step_by(2) {
        client.cancel(&held.operation).await;
    }
    process.kill().await;

    let process = Process::serve(&text).await;
    let client = Client::new(process.address, Wire::Grpc, &DEPLOY, "p");
    let held: Vec<_> = claims.iter().map(|held| (&*held.operation, held.epoch)).collect();
    let (mut session, first) = Session::open(process.address, holding(&held)).await;
    assert_eq!(first.len(), claims.len());
    for (number, (said, held)) in first.iter().zip(&claims).enumerate() {
        let Said::Wanted(operation, epoch, desired) = said else { panic!("{said:?}") };
        assert_eq!((operation, *epoch), (&held.operation, held.epoch));
        let end = if number % 2 == 0 {
            assert!(is(desired, Action::Cancel, Reason::ClientCancel), "{desired:?}");
            held.item(Say::Stopped(Effects::None))
        } else {
            assert!(is(desired, Action::Continue, Reason::Unspecified), "{desired:?}");
            success(held)
        };
        session.report(end).await.wants("STOP");
        let seen = client.get(&held.operation).await;
        assert_eq!((seen.done, seen.code == Some(1)), (true, number % 2 == 0), "{seen:?}");
    }
    // A worker that never comes back has nothing to say in this.
    let worker = Worker::new(process.address, Wire::Http, "w2");
    assert_eq!(worker.try_claim(&Claim::default()).await.unwrap(), []);
    assert_eq!(process.terminate().await, Some(0));
}
