//! Waiting by polling: when to ask again, when to give up, what to put up with meanwhile.
//!
//! Owns the rhythm only; who answers a poll is the caller's closure, so that time can be simulated.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::{Error, Operation};

/// How to wait.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitOptions {
    /// From the first poll to the second. Source: the official Python client, 1 s.
    pub first_interval: Duration,
    /// How much longer each interval is than the one before; at least 1.
    pub factor: f64,
    /// No interval is longer. Source: the official Python client, 20 s.
    pub max_interval: Duration,
    /// When to give up; `None`: never.
    pub timeout: Option<Duration>,
    /// How long the server may be away (transport errors, 503, 429) once it has answered a poll.
    pub patience: Duration,
    /// Ask with the `:wait` method, holding each call this long, instead of polling with get. Few APIs
    /// map it over HTTP.
    pub hold: Option<Duration>,
}

impl Default for WaitOptions {
    fn default() -> Self {
        Self {
            first_interval: Duration::from_secs(1),
            factor: 1.5,
            max_interval: Duration::from_secs(20),
            timeout: None,
            patience: Duration::from_secs(60),
            hold: None,
        }
    }
}

/// Polls until the operation is done. `observe` sees every answer, the last one too.
pub(super) async fn until_done<P, F>(
    mut poll: P,
    options: &WaitOptions,
    observe: &mut (dyn FnMut(&Operation) + Send),
) -> Result<Operation, Error>
where
    P: FnMut() -> F,
    F: Future<Output = Result<Operation, Error>>,
{
    let end = options.timeout.map(|timeout| Instant::now() + timeout);
    let mut interval = options.first_interval;
    let mut last: Option<Operation> = None;
    let mut away_since: Option<Instant> = None;
    loop {
        match before(end, poll()).await {
            None => return Err(Error::Timeout { last: last.map(Box::new) }),
            Some(Ok(operation)) => {
                observe(&operation);
                if operation.done() {
                    return Ok(operation);
                }
                last = Some(operation);
                away_since = None;
            }
            Some(Err(error)) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if last.is_none() || !error.transient() || since.elapsed() >= options.patience {
                    return Err(error);
                }
                tracing::debug!(%error, "poll failed; asking again");
            }
        }
        if before(end, tokio::time::sleep(interval)).await.is_none() {
            return Err(Error::Timeout { last: last.map(Box::new) });
        }
        interval = interval.mul_f64(options.factor.max(1.0)).min(options.max_interval);
    }
}

/// The future's output, unless the moment comes first.
async fn before<F: Future>(end: Option<Instant>, future: F) -> Option<F::Output> {
    match end {
        Some(end) => tokio::time::timeout_at(end, future).await.ok(),
        None => Some(future.await),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;

    use super::super::{StatusError, TransportError, TransportKind};
    use super::*;

    fn operation(done: bool) -> Operation {
        let json = serde_json::json!({"name": "operations/a", "done": done});
        Operation::from_json(json).unwrap()
    }

    fn broken() -> Error {
        let (url, message) = ("http://test/".to_owned(), "reset".to_owned());
        Error::Transport(TransportError { url, kind: TransportKind::Broken, message })
    }

    fn refused(http: u16) -> Error {
        Error::Status(Box::new(StatusError::read("http://test/", http, "", b"")))
    }

    /// Plays `answers` one by one (then "not done" for ever) and tells when each poll came, in ms.
    async fn play(
        answers: Vec<Result<Operation, Error>>,
        options: WaitOptions,
    ) -> (Result<Operation, Error>, Vec<u128>) {
        let start = Instant::now();
        let answers = Mutex::new(VecDeque::from(answers));
        let polls = Mutex::new(Vec::new());
        let poll = || {
            polls.lock().push(start.elapsed().as_millis());
            let answer = answers.lock().pop_front().unwrap_or_else(|| Ok(operation(false)));
            std::future::ready(answer)
        };
        let result = until_done(poll, &options, &mut |_| {}).await;
        let polls = polls.lock().clone();
        (result, polls)
    }

    fn running(count: usize) -> Vec<Result<Operation, Error>> {
        (0..count).map(|_| Ok(operation(false))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_poll_is_at_once_and_intervals_grow_to_the_bound() {
        let mut answers = running(4);
        answers.push(Ok(operation(true)));
        let options =
            WaitOptions { max_interval: Duration::from_secs(2), ..WaitOptions::default() };
        let (result, polls) = play(answers, options).await;
        assert!(result.unwrap().done());
        assert_eq!(polls, [0, 1000, 2500, 4500, 6500]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_ends_the_wait_at_its_moment_with_what_was_seen_last() {
        let options =
            WaitOptions { timeout: Some(Duration::from_millis(2600)), ..WaitOptions::default() };
        let start = Instant::now();
        let (result, polls) = play(Vec::new(), options).await;
        assert_eq!(result, Err(Error::Timeout { last: Some(Box::new(operation(false))) }));
        assert_eq!(start.elapsed().as_millis(), 2600);
        assert_eq!(polls, [0, 1000, 2500]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_that_hangs_is_cut_at_the_timeout() {
        let options =
            WaitOptions { timeout: Some(Duration::from_secs(3)), ..WaitOptions::default() };
        let result = until_done(std::future::pending, &options, &mut |_| {}).await;
        assert_eq!(result, Err(Error::Timeout { last: None }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_for_a_while_is_waited_for() {
        let answers =
            vec![Ok(operation(false)), Err(broken()), Err(refused(503)), Ok(operation(true))];
        let (result, polls) = play(answers, WaitOptions::default()).await;
        assert!(result.unwrap().done());
        assert_eq!(polls, [0, 1000, 2500, 4750]);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let answers =
            std::iter::once(Ok(operation(false))).chain((0..100).map(|_| Err(broken()))).collect();
        let options = WaitOptions { patience: Duration::from_secs(10), ..WaitOptions::default() };
        let start = Instant::now();
        let (result, _) = play(answers, options).await;
        assert_eq!(result, Err(broken()));
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_poll_that_fails_and_an_operation_that_vanishes_are_told_at_once() {
        let (result, polls) = play(vec![Err(broken())], WaitOptions::default()).await;
        assert_eq!((result, polls), (Err(broken()), vec![0]));
        let answers = vec![Ok(operation(false)), Err(refused(404))];
        let (result, polls) = play(answers, WaitOptions::default()).await;
        assert_eq!((result, polls), (Err(refused(404)), vec![0, 1000]));
    }
}
