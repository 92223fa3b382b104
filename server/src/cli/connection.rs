//! The one file of the command line that knows the wire client.

use super::arguments::ClientFlags;
use super::endpoint::{Address, Endpoint};
use super::error::CliError;
use delta_wire::client::{self, Client, ClientError, ClientOptions, Credential, ListQuery, Page, Reconnect};
use delta_wire::{Condition, Reply, Request, Stored, Written};
use secrecy::ExposeSecret;

/// A connection that has been welcomed.
pub(super) struct Connection {
    client: Client,
}

impl Connection {
    /// Connects as flags and variables say. A host's addresses are tried in turn; each is tried once.
    pub(super) fn open(flags: &ClientFlags) -> Result<Self, CliError> {
        let endpoint = Endpoint::resolve(flags, &|name| std::env::var(name).ok())?;
        let mut addresses = addresses(&endpoint.address).into_iter().peekable();
        while let Some(address) = addresses.next() {
            match Client::connect(options(&endpoint, address)) {
                Ok(client) => return Ok(Self { client }),
                Err(ClientError::Connection { .. }) if addresses.peek().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CliError::Unreachable(format!("--addr {}: the host has no address", flags.addr)))
    }

    /// A document and its version.
    pub(super) fn get(&mut self, schema: &str, key: &str) -> Result<Stored, CliError> {
        match self.client.call(&Request::Get { schema, key })? {
            Reply::Document(stored) => Ok(stored),
            _ => Err(misfit()),
        }
    }

    /// A durable write.
    pub(super) fn put(
        &mut self,
        schema: &str,
        key: &str,
        document: &[u8],
        condition: Condition,
    ) -> Result<Written, CliError> {
        Ok(self.client.put(schema, key, document, condition)?)
    }

    /// A durable deletion and its version.
    pub(super) fn delete(&mut self, schema: &str, key: &str, condition: Condition) -> Result<u64, CliError> {
        Ok(self.client.delete(schema, key, condition)?)
    }

    /// A page of a listing.
    pub(super) fn list(&mut self, query: &ListQuery<'_>) -> Result<Page, CliError> {
        Ok(self.client.list(query)?)
    }

    /// A template's text.
    pub(super) fn schema_get(&mut self, id: &str) -> Result<Vec<u8>, CliError> {
        match self.client.call(&Request::SchemaGet { id })? {
            Reply::Template(text) => Ok(text),
            _ => Err(misfit()),
        }
    }

    /// Stores a template; whether there was none.
    pub(super) fn schema_put(&mut self, id: &str, template: &[u8]) -> Result<bool, CliError> {
        Ok(self.client.schema_put(id, template)?)
    }

    /// Removes a template.
    pub(super) fn schema_delete(&mut self, id: &str) -> Result<(), CliError> {
        Ok(self.client.schema_delete(id)?)
    }

    /// Ids of all templates.
    pub(super) fn schema_list(&mut self) -> Result<Vec<String>, CliError> {
        Ok(self.client.schema_list()?)
    }

    /// The server's figures, as JSON.
    pub(super) fn stats(&mut self) -> Result<String, CliError> {
        Ok(self.client.stats()?)
    }

    /// A round trip.
    pub(super) fn ping(&mut self) -> Result<(), CliError> {
        Ok(self.client.ping()?)
    }

    /// The id of the data key now active.
    pub(super) fn rotate_key(&mut self) -> Result<String, CliError> {
        Ok(self.client.rotate_key()?)
    }
}

fn addresses(address: &Address) -> Vec<client::Address> {
    match address {
        Address::Tcp(addresses) => addresses.iter().copied().map(client::Address::Tcp).collect(),
        Address::Unix(path) => vec![client::Address::Unix(path.clone())],
    }
}

fn options(endpoint: &Endpoint, address: client::Address) -> ClientOptions {
    ClientOptions {
        credential: Some(Credential::new(endpoint.credential.expose_secret())),
        connect_timeout: endpoint.timeout,
        request_timeout: endpoint.timeout,
        reconnect: Reconnect::never(),
        ..ClientOptions::new(address)
    }
}

fn misfit() -> CliError {
    CliError::Local("the server's reply does not fit the request: are client and server of the same version?".into())
}
