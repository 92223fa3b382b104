//! A blocking client: typed calls, pipelines, shard-aware routing, reconnecting with back-off.
//!
//! It never sends a write twice: when the reply to one is lost, [`ClientError::OutcomeUnknown`] says so. Reads, and
//! writes that never left whole, are tried again. It runs no thread; a client serves one caller at a time.

mod error;
mod link;
mod options;
mod pipeline;
mod rounds;
mod router;
mod socket;

pub use error::ClientError;
pub use options::{Address, ClientOptions, Credential, Reconnect};
pub use pipeline::Pipeline;

use crate::error_code::ErrorCode;
use crate::reply::{PageEntry, Reply, ServerError, Stored, Welcome, Written};
use crate::request::{Condition, Request};
use router::Router;

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries in key order.
    pub entries: Vec<PageEntry>,
    /// Pass it as `after` for the next page; none at the end.
    pub next: Option<String>,
}

/// Which entities to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListQuery<'a> {
    /// The schema.
    pub schema: &'a str,
    /// Only keys that start with this.
    pub prefix: &'a str,
    /// Only keys after this one.
    pub after: Option<&'a str>,
    /// Entries in the page at most; 0 for the server's default.
    pub limit: u32,
    /// With their documents.
    pub documents: bool,
}

/// A connection to a store, or several.
pub struct Client {
    router: Router,
}

impl Client {
    /// Connects and authenticates. One try: a wrong address or credential shows at once.
    pub fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        Ok(Self { router: Router::connect(options)? })
    }

    /// What the server said of itself when the client last connected.
    pub fn welcome(&self) -> &Welcome {
        self.router.welcome()
    }

    /// Requests to be sent together.
    pub fn pipeline<'client, 'data>(&'client mut self) -> Pipeline<'client, 'data> {
        Pipeline::new(&mut self.router)
    }

    /// Any request; an error reply is an error.
    pub fn call(&mut self, request: &Request<'_>) -> Result<Reply, ClientError> {
        let mut results = rounds::run(&mut self.router, std::slice::from_ref(request));
        results.pop().unwrap_or_else(|| Err(self.unexpected()))
    }

    /// One document, if there is one.
    pub fn get(&mut self, schema: &str, key: &str) -> Result<Option<Stored>, ClientError> {
        match found(self.call(&Request::Get { schema, key }))? {
            Some(Reply::Document(stored)) => Ok(Some(stored)),
            None => Ok(None),
            Some(_) => Err(self.unexpected()),
        }
    }

    /// Creates or replaces one document; durable when this returns.
    pub fn put(
        &mut self,
        schema: &str,
        key: &str,
        document: &[u8],
        condition: Condition,
    ) -> Result<Written, ClientError> {
        match self.call(&Request::Put { schema, key, document, condition })? {
            Reply::Written(written) => Ok(written),
            _ => Err(self.unexpected()),
        }
    }

    /// Removes one document and gives the version of the removal; an error when there is none.
    pub fn delete(&mut self, schema: &str, key: &str, condition: Condition) -> Result<u64, ClientError> {
        match self.call(&Request::Delete { schema, key, condition })? {
            Reply::Deleted { version } => Ok(version),
            _ => Err(self.unexpected()),
        }
    }

    /// Several documents of one schema: one result a key, in order.
    pub fn multi_get(&mut self, schema: &str, keys: &[&str]) -> Result<Vec<Result<Stored, ServerError>>, ClientError> {
        match self.call(&Request::MultiGet { schema, keys })? {
            Reply::Documents(results) => Ok(results),
            _ => Err(self.unexpected()),
        }
    }

    /// Writes several documents of one schema, each on its own: one result an item, in order.
    pub fn multi_put(
        &mut self,
        schema: &str,
        items: &[(&str, &[u8])],
    ) -> Result<Vec<Result<Written, ServerError>>, ClientError> {
        match self.call(&Request::MultiPut { schema, items })? {
            Reply::WrittenMany(results) => Ok(results),
            _ => Err(self.unexpected()),
        }
    }

    /// A page of a schema's entities in key order.
    pub fn list(&mut self, query: &ListQuery<'_>) -> Result<Page, ClientError> {
        let ListQuery { schema, prefix, after, limit, documents } = *query;
        match self.call(&Request::List { schema, prefix, after, limit, documents })? {
            Reply::Page { entries, next } => Ok(Page { entries, next }),
            _ => Err(self.unexpected()),
        }
    }

    /// Schemas that hold entities, and how many each.
    pub fn schemas(&mut self) -> Result<Vec<(String, u64)>, ClientError> {
        match self.call(&Request::Schemas)? {
            Reply::SchemaCounts(counts) => Ok(counts),
            _ => Err(self.unexpected()),
        }
    }

    /// A template's text, if there is one.
    pub fn schema_get(&mut self, id: &str) -> Result<Option<Vec<u8>>, ClientError> {
        match found(self.call(&Request::SchemaGet { id }))? {
            Some(Reply::Template(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(_) => Err(self.unexpected()),
        }
    }

    /// Stores a template; `true` when there was none.
    pub fn schema_put(&mut self, id: &str, template: &[u8]) -> Result<bool, ClientError> {
        match self.call(&Request::SchemaPut { id, template })? {
            Reply::TemplateChanged { created } => Ok(created),
            _ => Err(self.unexpected()),
        }
    }

    /// Removes a template; an error when there is none.
    pub fn schema_delete(&mut self, id: &str) -> Result<(), ClientError> {
        match self.call(&Request::SchemaDelete { id })? {
            Reply::TemplateChanged { .. } => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// Ids of all templates.
    pub fn schema_list(&mut self) -> Result<Vec<String>, ClientError> {
        match self.call(&Request::SchemaList)? {
            Reply::Templates(ids) => Ok(ids),
            _ => Err(self.unexpected()),
        }
    }

    /// Figures of the whole server, as JSON text.
    pub fn stats(&mut self) -> Result<String, ClientError> {
        match self.call(&Request::Stats)? {
            Reply::Figures(json) => Ok(json),
            _ => Err(self.unexpected()),
        }
    }

    /// Nothing but a round trip.
    pub fn ping(&mut self) -> Result<(), ClientError> {
        match self.call(&Request::Ping)? {
            Reply::Pong => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// Makes a new data key the active one; gives its id.
    pub fn rotate_key(&mut self) -> Result<String, ClientError> {
        match self.call(&Request::RotateKey)? {
            Reply::KeyRotated { key_id } => Ok(key_id),
            _ => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> ClientError {
        ClientError::Protocol {
            address: self.router.options().address.to_string(),
            reason: "the reply does not fit the request".into(),
        }
    }
}

/// Turns "not found" into `None`.
fn found(result: Result<Reply, ClientError>) -> Result<Option<Reply>, ClientError> {
    match result {
        Ok(reply) => Ok(Some(reply)),
        Err(ClientError::Server(error)) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
