//! One operation in a caller's hands: ask, wait, stop waiting, cancel.
//!
//! Owns no state of the operation; every answer is the server's.

use super::{Client, Error, Operation, WaitOptions};

/// A started operation. Dropping it, or a wait of it, cancels nothing; only [`Handle::cancel`] does.
#[derive(Clone, Debug)]
pub struct Handle {
    client: Client,
    name: String,
}

impl Client {
    /// Takes up an operation by its name, such as one kept from before a restart. Makes no call.
    pub fn resume(&self, name: impl Into<String>) -> Handle {
        Handle { client: self.clone(), name: name.into() }
    }
}

impl Handle {
    /// The operation's full name; give it to [`Client::resume`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operation as it is now.
    pub async fn poll(&self) -> Result<Operation, Error> {
        self.client.get(&self.name).await
    }

    /// Waits until the operation is done, cancelled too: its state says which. Time that runs out is
    /// [`Error::Timeout`], and the operation goes on. To stop waiting, drop the future.
    pub async fn wait(&self, options: &WaitOptions) -> Result<Operation, Error> {
        self.client.wait(&self.name, options, &mut |_| {}).await
    }

    /// Asks the server to cancel the operation. Wait to learn how it ended.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.client.cancel(&self.name).await
    }
}
