//! Copying everything from one store to another, with no server on either: opens both ends, marks the target
//! for as long as it is half filled, and reports.

use std::path::PathBuf;
use std::sync::Arc;

use longhaul_core::{Error, Reason};
use longhaul_store::transfer::{self, Scan};
use longhaul_store::{Deaf, embedded, postgres};

pub use longhaul_store::transfer::{Contents, Copied};

/// One end of a copy.
#[derive(Clone, Debug)]
pub enum End {
    /// The folder of an embedded store.
    Folder(PathBuf),
    /// A PostgreSQL database and the schema in it.
    Database {
        /// `postgres://user@host/database`.
        url: String,
        /// The schema that holds the tables.
        schema: String,
    },
}

impl End {
    /// What a caller's word means: an address of PostgreSQL, else a folder.
    #[must_use]
    pub fn of(word: &str, schema: &str) -> Self {
        if word.starts_with("postgres://") || word.starts_with("postgresql://") {
            return Self::Database { url: word.to_owned(), schema: schema.to_owned() };
        }
        Self::Folder(word.into())
    }

    fn database(&self) -> Option<postgres::Options> {
        match self {
            Self::Folder(_) => None,
            Self::Database { url, schema } => Some(postgres::Options {
                schema: schema.clone(),
                moving: true,
                ..postgres::Options::new(url.as_str())
            }),
        }
    }
}

/// Copies everything from one end to the other and compares both afterwards. Safe to repeat after it was
/// interrupted: what is there already is left.
///
/// `progress` hears how many operations are there so far. Fails with `CONFIG_INVALID` when the target has
/// contents of its own or the source does not exist, with `STORE_IN_USE` while a server has either open, and
/// with the stores' errors.
pub async fn copy(
    from: &End,
    to: &End,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Copied, Error> {
    let source = open_source(from).await?;
    let token_key = source.token_key();
    let target = open_target(to, token_key).await?;
    let copied = transfer::copy(&*source, &*target, progress).await;
    target.close().await;
    drop(target);
    source.close().await;
    if let Some(options) = from.database() {
        postgres::end_scan(&options).await?;
    }
    let copied = copied?;
    match to.database() {
        Some(options) => postgres::end_move(&options).await?,
        None => embedded::end_move(&folder_of(to))?,
    }
    Ok(copied)
}

async fn open_source(from: &End) -> Result<Arc<dyn Scan>, Error> {
    let Some(options) = from.database() else {
        let options = folder_of(from);
        if !options.folder.is_dir() {
            let folder = options.folder.display();
            return Err(Error::new(Reason::ConfigInvalid, format!("there is no folder {folder}")));
        }
        return Ok(Arc::new(open_folder(embedded::Options { moving: false, ..options }).await?));
    };
    let options = postgres::Options { moving: false, ..options };
    postgres::begin_scan(&options).await?;
    Ok(Arc::new(postgres::Postgres::open(&options, Arc::new(Deaf)).await?))
}

async fn open_target(to: &End, token_key: [u8; 32]) -> Result<Arc<dyn Scan>, Error> {
    if let Some(options) = to.database() {
        postgres::begin_move(&options, token_key).await?;
        return Ok(Arc::new(postgres::Postgres::open(&options, Arc::new(Deaf)).await?));
    }
    let options = folder_of(to);
    embedded::begin_move(&options, token_key)?;
    Ok(Arc::new(open_folder(options).await?))
}

fn folder_of(end: &End) -> embedded::Options {
    let folder = match end {
        End::Folder(folder) => folder.clone(),
        End::Database { .. } => PathBuf::new(),
    };
    embedded::Options { moving: true, ..embedded::Options::new(folder) }
}

async fn open_folder(options: embedded::Options) -> Result<embedded::Embedded, Error> {
    let opening =
        tokio::task::spawn_blocking(move || embedded::Embedded::open(&options, Arc::new(Deaf)));
    opening.await.map_err(|error| {
        Error::new(Reason::Internal, "opening the store did not end").caused_by(error)
    })?
}
