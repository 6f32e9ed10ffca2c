//! One operation in a caller's hands: ask, wait, stop waiting, cancel.
//!
//! Owns no state of the operation; every answer is the server's.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Client, Error, Operation, WaitOptions};

/// A started operation. Dropping it, or a wait of it, cancels nothing; only [`Handle::cancel`] does.
#[derive(Clone, Debug)]
pub struct Handle {
    client: Client,
    name: String,
    /// Fires when the waits that are under way are to end; replaced then.
    waits: Arc<Mutex<CancellationToken>>,
}

impl Client {
    /// Takes up an operation by its name, such as one kept from before a restart. Makes no call.
    pub fn resume(&self, name: impl Into<String>) -> Handle {
        Handle { client: self.clone(), name: name.into(), waits: Arc::default() }
    }
}

impl Handle {
    /// The operation's full name; give it to [`Client::resume`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client that it belongs to.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The operation as it is now.
    pub async fn poll(&self) -> Result<Operation, Error> {
        self.client.get(&self.name).await
    }

    /// Waits until the operation is done, cancelled too: its state says which. Time that runs out is
    /// [`Error::Timeout`], a wait that was stopped is [`Error::Detached`]; the operation goes on after both.
    pub async fn wait(&self, options: &WaitOptions) -> Result<Operation, Error> {
        let stop = self.waits.lock().clone();
        let last = Mutex::new(None);
        let mut observe = |seen: &Operation| *last.lock() = Some(Box::new(seen.clone()));
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            done = self.client.wait(&self.name, options, &mut observe) => return done,
        }
        Err(Error::Detached { last: last.lock().take() })
    }

    /// Ends the waits of this handle and its clones that are under way. The operation goes on, and can be
    /// waited for again. Nothing is sent.
    pub fn stop_waiting(&self) {
        std::mem::take(&mut *self.waits.lock()).cancel();
    }

    /// Asks the server to cancel the operation. Wait to learn how it ended.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.client.cancel(&self.name).await
    }
}
