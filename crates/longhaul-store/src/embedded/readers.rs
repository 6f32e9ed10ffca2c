//! Reads that miss the memory: a few connections, used off the asynchronous threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhaul_core::{Error, Reason};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::open::reading_connection;
use super::rows::Reader;
use crate::trouble::unavailable;

pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    file: Arc<PathBuf>,
}

impl Readers {
    /// At most `limit` connections, each opened when it is first needed.
    pub fn new(file: &Path, limit: usize) -> Self {
        Self {
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(limit.max(1))),
            file: Arc::new(file.to_owned()),
        }
    }

    /// Runs `read` on a thread that may block.
    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.permits.clone().acquire_owned().await.map_err(unavailable)?;
        let (idle, file) = (self.idle.clone(), self.file.clone());
        let work = tokio::task::spawn_blocking(move || {
            let taken = idle.lock().pop();
            let connection = match taken {
                Some(connection) => connection,
                None => reading_connection(&file)?,
            };
            let result = read(&Reader::new(&connection, &file));
            idle.lock().push(connection);
            drop(permit);
            result
        });
        work.await.map_err(|error| {
            Error::new(Reason::Internal, "a read of the store ended early; its log has the details")
                .caused_by(error)
        })?
    }
}
