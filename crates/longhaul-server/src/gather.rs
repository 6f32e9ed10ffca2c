//! Multiplexed connections that read and write once for many calls.
//!
//! Owns when a connection is driven, and nothing of what it does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Drives a connection after the calls that are ready, instead of after each of them.
///
/// A call that has its answer wakes its connection, and the runtime drives what was woken last first:
/// every answer would be a write of its own. One commit answers many calls at once, so an HTTP/2
/// connection lets those that are ready go before it and then writes all their answers together.
/// When nothing else is ready this costs one more poll and no time.
pub(crate) struct Gather<F> {
    connection: Pin<Box<F>>,
    multiplexed: Multiplexed,
    /// The connection has let others go first since it was driven last.
    waited: bool,
}

/// Whether a connection carries many calls at a time; known from the first of them.
#[derive(Clone, Default)]
pub(crate) struct Multiplexed(Arc<AtomicBool>);

impl Multiplexed {
    /// Learns from a call.
    pub(crate) fn note(&self, version: http::Version) {
        if version == http::Version::HTTP_2 && !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl<F: Future> Gather<F> {
    /// Drives `connection` so, once it turns out to be multiplexed.
    pub(crate) fn new(connection: F, multiplexed: Multiplexed) -> Self {
        Self { connection: Box::pin(connection), multiplexed, waited: false }
    }
}

impl<F: Future> Future for Gather<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if !self.waited && self.multiplexed.0.load(Ordering::Relaxed) {
            self.waited = true;
            // A task that wakes itself goes behind all that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        self.connection.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often it is driven; ends when told.
    struct Counted(Arc<std::sync::atomic::AtomicUsize>, tokio::sync::mpsc::Receiver<()>);

    impl Future for Counted {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            while let Poll::Ready(news) = self.1.poll_recv(context) {
                if news.is_none() {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        }
    }

    async fn drives(version: http::Version) -> usize {
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (answers, answered) = tokio::sync::mpsc::channel(16);
        let multiplexed = Multiplexed::default();
        multiplexed.note(version);
        let connection = Gather::new(Counted(count.clone(), answered), multiplexed);
        let connection = tokio::spawn(connection);
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let answers = answers.clone();
                tokio::spawn(async move { answers.send(()).await })
            })
            .collect();
        drop(answers);
        for call in calls {
            call.await.unwrap().unwrap();
        }
        connection.await.unwrap();
        count.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_multiplexed_connection_is_driven_once_for_all_that_are_ready() {
        assert_eq!(drives(http::Version::HTTP_2).await, 1);
    }

    #[tokio::test]
    async fn a_connection_of_one_call_at_a_time_is_driven_at_once() {
        assert!(drives(http::Version::HTTP_11).await > 1);
    }
}
