//! Lists of operations: which ones a caller wants, and where the next page begins.
//!
//! Owns filters and page tokens; the store pages. Source: AIP-158, AIP-160; CONTRACT 4.1 and 4.2.

mod created;
mod dataproc;
mod filter;
mod subject;
mod token;
mod values;

pub use created::Created;
pub use filter::Filter;
pub use token::{ListArguments, TokenKey};

use longhaul_core::{Error, Reason};

use crate::settings::Operations;

/// The size of the page that a list asks for: 0 gives the API's default, too much its maximum.
///
/// Fails with `INVALID_PAGE_SIZE` when it is negative. Source: AIP-158.
pub fn page_size(asked: i32, settings: &Operations) -> Result<u32, Error> {
    match u32::try_from(asked) {
        Ok(0) => Ok(settings.page_size),
        Ok(size) => Ok(size.min(settings.page_size_max)),
        Err(_) => Err(Error::new(
            Reason::InvalidPageSize,
            format!(
                "page_size {asked} is negative; give 0 for the default of {}",
                settings.page_size
            ),
        )
        .with("page_size", asked.to_string())
        .at_field("page_size", "must not be negative")),
    }
}
