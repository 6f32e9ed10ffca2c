//! Shares under a clock that is moved by hand.

use super::*;

const API: &str = "library.example.com";

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + (seconds * 1e6) as i64)
}

fn share(per_second: u32, burst: u32) -> Share {
    Share { calls_per_second: per_second, calls_burst: burst, ..Share::default() }
}

fn shares(per_principal: Share) -> Shares {
    Shares::new(&SharesConfig { per_principal, ..SharesConfig::default() })
}

fn call(shares: &Shares, who: &str, now: Timestamp) -> Result<Place, Error> {
    shares.take(Payer::Principal(who), API, Kind::Call, false, now)
}

/// How many calls in a row get through.
fn calls(shares: &Shares, who: &str, now: Timestamp) -> usize {
    (0..1000).take_while(|_| call(shares, who, now).is_ok()).count()
}

#[test]
fn a_burst_is_taken_at_once_and_comes_back_at_the_rate() {
    let shares = shares(share(10, 30));
    assert_eq!(calls(&shares, "ann", at(0.0)), 30);
    assert_eq!(calls(&shares, "ann", at(0.0)), 0);
    assert_eq!(calls(&shares, "ann", at(0.1)), 1);
    assert_eq!(calls(&shares, "ann", at(1.1)), 10);
    assert_eq!(calls(&shares, "ann", at(1000.0)), 30);
}

#[test]
fn without_a_burst_it_is_as_many_as_in_a_second() {
    let shares = shares(share(7, 0));
    assert_eq!(calls(&shares, "ann", at(0.0)), 7);
}

#[test]
fn a_refusal_says_when_and_what_in_googles_form() {
    let shares = shares(share(4, 1));
    call(&shares, "ann", at(0.0)).unwrap();
    let error = call(&shares, "ann", at(0.05)).unwrap_err();
    assert_eq!(error.reason, Reason::RateLimitExceeded);
    assert_eq!(error.retry_after, Some(Duration::from_millis(200)));
    assert_eq!(error.domain(), Some("googleapis.com"));
    assert_eq!(error.metadata["quota_metric"], "library.example.com/calls");
    assert_eq!(error.metadata["quota_limit"], "callsPerPrincipal");
    assert_eq!(error.metadata["quota_limit_value"], "4");
    assert_eq!(error.quota()[0].subject, "principal:ann");
    // Waiting as long as was said is enough, and less is not.
    assert!(call(&shares, "ann", at(0.249)).is_err());
    assert!(call(&shares, "ann", at(0.25)).is_ok());
}

#[test]
fn one_caller_does_not_take_from_another_nor_one_api_from_another() {
    let shares = shares(share(5, 5));
    assert_eq!(calls(&shares, "greedy", at(0.0)), 5);
    assert_eq!(calls(&shares, "ann", at(0.0)), 5);
    let other = shares.take(Payer::Principal("greedy"), "other", Kind::Call, false, at(0.0));
    assert!(other.is_ok());
}

#[test]
fn cancels_do_not_pay_for_calls() {
    let per = Share { cancels_per_second: 3, ..share(2, 2) };
    let shares = shares(per);
    assert_eq!(calls(&shares, "ann", at(0.0)), 2);
    let cancel = || shares.take(Payer::Principal("ann"), API, Kind::Cancel, false, at(0.0));
    assert_eq!((0..10).filter(|_| cancel().is_ok()).count(), 3);
    assert_eq!(cancel().unwrap_err().metadata["quota_limit"], "cancelsPerPrincipal");
}

#[test]
fn a_held_call_counts_until_it_ends() {
    let shares = shares(Share { held_max: 2, ..Share::default() });
    let hold = || shares.take(Payer::Principal("ann"), API, Kind::Call, true, at(0.0));
    let (first, _second) = (hold().unwrap(), hold().unwrap());
    let error = hold().unwrap_err();
    assert_eq!(error.metadata["quota_limit"], "held_callsPerPrincipal");
    assert!(error.retry_after.is_some());
    assert!(shares.take(Payer::Principal("bob"), API, Kind::Call, true, at(0.0)).is_ok());
    drop(first);
    assert!(hold().is_ok());
}

#[test]
fn what_the_whole_api_refuses_costs_the_caller_nothing() {
    let shares = Shares::new(&SharesConfig {
        per_principal: share(1, 3),
        per_api: share(1, 4),
        ..SharesConfig::default()
    });
    assert_eq!(calls(&shares, "greedy", at(0.0)), 3);
    assert_eq!(calls(&shares, "ann", at(0.0)), 1);
    let error = call(&shares, "ann", at(0.0)).unwrap_err();
    assert_eq!(error.quota()[0].subject, "api:library.example.com");
    // Two of ann's three are left, and the API gains one each second.
    assert_eq!(calls(&shares, "ann", at(2.0)), 2);
}

#[test]
fn single_callers_and_apis_may_have_shares_of_their_own() {
    let own = |principal: Option<&str>, api: Option<&str>, calls_per_second| ShareOf {
        principal: principal.map(str::to_owned),
        api: api.map(str::to_owned),
        calls_per_second,
        ..ShareOf::default()
    };
    let shares = Shares::new(&SharesConfig {
        per_principal: share(5, 5),
        shares: vec![
            own(Some("ci"), Some(API), 20),
            own(Some("ci"), None, 1),
            ShareOf { total: true, ..own(None, Some(API), 22) },
        ],
        ..SharesConfig::default()
    });
    assert_eq!(calls(&shares, "ci", at(0.0)), 20);
    assert_eq!(calls(&shares, "ann", at(0.0)), 2, "the API's total is reached first");
    let ci = || shares.take(Payer::Principal("ci"), "other", Kind::Call, false, at(0.0));
    assert!(ci().is_ok());
    assert!(ci().is_err());
}

#[test]
fn peers_are_counted_by_address_and_networks_of_one_customer_together() {
    let config = SharesConfig { per_peer: share(1, 2), ..SharesConfig::default() };
    let shares = Shares::new(&config);
    let take = |address: &str| {
        let address = address.parse().unwrap();
        shares.take(Payer::Peer(address), API, Kind::Call, false, at(0.0)).is_ok()
    };
    assert!(take("10.0.0.1") && take("::ffff:10.0.0.1") && !take("10.0.0.1"));
    assert!(take("10.0.0.2"));
    assert!(take("2001:db8:0:1::1") && take("2001:db8:0:1::2") && !take("2001:db8:0:1::3"));
    assert!(take("2001:db8:0:2::1"));
    assert!(!Shares::new(&SharesConfig::default()).counts(Payer::Peer([10, 0, 0, 1].into())));
}

#[test]
fn making_up_callers_resets_nobody_and_takes_no_memory() {
    let config = SharesConfig {
        per_principal: Share { held_max: 1, ..share(1, 10) },
        principals_max: 160,
        ..SharesConfig::default()
    };
    let shares = Shares::new(&config);
    assert_eq!(calls(&shares, "greedy", at(0.0)), 10);
    let held = shares.take(Payer::Principal("waiter"), API, Kind::Call, true, at(0.0)).unwrap();
    for number in 0..10_000 {
        let _ = call(&shares, &format!("made up {number}"), at(0.5));
    }
    assert!(shares.principals.callers() <= 160 + 16, "{}", shares.principals.callers());
    assert_eq!(calls(&shares, "greedy", at(0.5)), 0, "the greedy one got nothing by it");
    assert!(shares.take(Payer::Principal("waiter"), API, Kind::Call, true, at(100.0)).is_err());
    // Once they are quiet, those made up are forgotten, and new callers have shares of their own again.
    assert_eq!(calls(&shares, "new", at(200.0)), 10);
    assert_eq!(calls(&shares, "newer", at(200.0)), 10);
    drop(held);
    assert!(shares.take(Payer::Principal("waiter"), API, Kind::Call, true, at(300.0)).is_ok());
}

#[test]
fn zero_means_no_limit_and_nothing_is_kept() {
    let shares = shares(Share::default());
    assert_eq!(calls(&shares, "ann", at(0.0)), 1000);
    assert_eq!(shares.principals.callers(), 0);
    assert!(!shares.counts(Payer::Principal("ann")));
}
