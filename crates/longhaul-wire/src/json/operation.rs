//! Writes operations as JSON without the detour over a message known only at run time.
//!
//! Every poll of every client comes through here. Gives the same text as [`super::to_json`] of
//! the same operation; a test holds the two together.

use longhaul_core::Error;

use super::JsonOptions;
use super::write::Writer;
use crate::longrunning::{Any, ListOperationsResponse, Operation, OperationResult, Status};
use crate::message::TypeResolver;

/// Writes one operation as JSON.
///
/// Fails as [`super::to_json`] does.
pub fn operation_to_json(
    operation: &Operation,
    resolver: &dyn TypeResolver,
    options: &JsonOptions,
) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new(resolver, *options);
    writer.operation(operation)?;
    Ok(writer.finish())
}

/// Writes a page of operations as JSON; an empty page is `{}`.
///
/// Fails as [`super::to_json`] does.
pub fn operations_to_json(
    page: &ListOperationsResponse,
    resolver: &dyn TypeResolver,
    options: &JsonOptions,
) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new(resolver, *options);
    writer.page(page)?;
    Ok(writer.finish())
}

impl Writer<'_> {
    fn page(&mut self, page: &ListOperationsResponse) -> Result<(), Error> {
        let defaults = self.options.always_print_defaults;
        self.open(b'{')?;
        if defaults || !page.operations.is_empty() {
            self.key("operations")?;
            self.open(b'[')?;
            for operation in &page.operations {
                self.item()?;
                self.operation(operation)?;
            }
            self.close(b']');
        }
        if defaults || !page.next_page_token.is_empty() {
            self.key("nextPageToken")?;
            self.string(&page.next_page_token);
        }
        if defaults || !page.unreachable.is_empty() {
            self.key("unreachable")?;
            self.open(b'[')?;
            for name in &page.unreachable {
                self.item()?;
                self.string(name);
            }
            self.close(b']');
        }
        self.close(b'}');
        Ok(())
    }

    fn operation(&mut self, operation: &Operation) -> Result<(), Error> {
        let defaults = self.options.always_print_defaults;
        self.open(b'{')?;
        if defaults || !operation.name.is_empty() {
            self.key("name")?;
            self.string(&operation.name);
        }
        if let Some(metadata) = &operation.metadata {
            self.key("metadata")?;
            self.any_of(metadata)?;
        }
        if defaults || operation.done {
            self.key("done")?;
            self.raw(if operation.done { b"true" } else { b"false" });
        }
        match &operation.result {
            None => {}
            Some(OperationResult::Error(status)) => {
                self.key("error")?;
                self.status(status)?;
            }
            Some(OperationResult::Response(response)) => {
                self.key("response")?;
                self.any_of(response)?;
            }
        }
        self.close(b'}');
        Ok(())
    }

    fn status(&mut self, status: &Status) -> Result<(), Error> {
        let defaults = self.options.always_print_defaults;
        self.open(b'{')?;
        if defaults || status.code != 0 {
            self.key("code")?;
            self.integer(i64::from(status.code));
        }
        if defaults || !status.message.is_empty() {
            self.key("message")?;
            self.string(&status.message);
        }
        if defaults || !status.details.is_empty() {
            self.key("details")?;
            self.open(b'[')?;
            for detail in &status.details {
                self.item()?;
                self.any_of(detail)?;
            }
            self.close(b']');
        }
        self.close(b'}');
        Ok(())
    }

    fn any_of(&mut self, any: &Any) -> Result<(), Error> {
        self.any(&any.type_url, &any.value)
    }
}
