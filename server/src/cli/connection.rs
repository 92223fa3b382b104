//! The one file of the command line that knows the wire client.

use super::arguments::ClientFlags;
use super::endpoint::Endpoint;
use super::error::CliError;

/// What must hold for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteCondition {
    None,
    IfAbsent,
    IfVersion(u64),
}

/// One entry of a listing.
pub(super) struct Entry {
    pub key: String,
    pub version: u64,
    pub document: Option<Vec<u8>>,
}

/// A page of a listing.
pub(super) struct Page {
    pub entries: Vec<Entry>,
    pub next: Option<String>,
}

/// A connection that has said hello.
pub(super) struct Connection {
    _endpoint: Endpoint,
}

impl Connection {
    pub(super) fn open(flags: &ClientFlags) -> Result<Self, CliError> {
        let endpoint = Endpoint::resolve(flags, &|name| std::env::var(name).ok())?;
        Ok(Self { _endpoint: endpoint })
    }
    pub(super) fn get(&mut self, _schema: &str, _key: &str) -> Result<(u64, Vec<u8>), CliError> {
        Err(absent())
    }
    pub(super) fn put(
        &mut self,
        _schema: &str,
        _key: &str,
        _document: &[u8],
        _condition: WriteCondition,
    ) -> Result<(u64, bool), CliError> {
        Err(absent())
    }
    pub(super) fn delete(&mut self, _schema: &str, _key: &str, _condition: WriteCondition) -> Result<u64, CliError> {
        Err(absent())
    }
    pub(super) fn list(
        &mut self,
        _schema: &str,
        _prefix: &str,
        _after: Option<&str>,
        _limit: u32,
        _documents: bool,
    ) -> Result<Page, CliError> {
        Err(absent())
    }
    pub(super) fn schema_get(&mut self, _id: &str) -> Result<Vec<u8>, CliError> {
        Err(absent())
    }
    pub(super) fn schema_put(&mut self, _id: &str, _template: &[u8]) -> Result<bool, CliError> {
        Err(absent())
    }
    pub(super) fn schema_delete(&mut self, _id: &str) -> Result<(), CliError> {
        Err(absent())
    }
    pub(super) fn schema_list(&mut self) -> Result<Vec<String>, CliError> {
        Err(absent())
    }
    pub(super) fn stats(&mut self) -> Result<String, CliError> {
        Err(absent())
    }
    pub(super) fn ping(&mut self) -> Result<(), CliError> {
        Err(absent())
    }
    pub(super) fn rotate_key(&mut self) -> Result<String, CliError> {
        Err(absent())
    }
}

fn absent() -> CliError {
    CliError::Unreachable("the wire client is not part of this build".into())
}
