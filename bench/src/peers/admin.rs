//! What a running server says of itself, and what it can be told, over its HTTP gateway.

use crate::driver::{Address, Stream, http_body};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::Write;

/// The administrator of one of our servers.
pub struct Admin {
    address: Address,
    credential: String,
}

impl Admin {
    pub(super) fn new(address: Address, credential: String) -> Self {
        Self { address, credential }
    }

    /// Its figures.
    pub fn stats(&self) -> Result<Stats> {
        let body = self.ask("GET", "/admin/stats")?;
        Ok(Stats(serde_json::from_slice(&body).context("figures that are not JSON")?))
    }

    /// Makes a new data key active; everything stored is sealed anew in the background.
    pub fn rotate_key(&self) -> Result<()> {
        self.ask("POST", "/admin/keys/rotate").map(drop)
    }

    fn ask(&self, method: &str, path: &str) -> Result<Vec<u8>> {
        let mut stream = Stream::connect(&self.address)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\n\r\n",
            self.address, self.credential
        );
        stream.write_all(request.as_bytes())?;
        let (status, body) = stream.receive(http_body)?;
        ensure!(status < 300, "{method} {path} was answered with {status}");
        Ok(body)
    }
}

/// Figures of a server at one moment.
pub struct Stats(Value);

impl Stats {
    /// A total over all shards.
    pub fn total(&self, name: &str) -> Result<f64> {
        self.0["totals"][name].as_f64().with_context(|| format!("the server has no figure '{name}'"))
    }

    /// Its resident memory.
    pub fn resident_bytes(&self) -> Result<f64> {
        self.0["process"]["resident_bytes"].as_f64().context("the server does not know its memory")
    }

    /// How much a total has grown since an earlier moment.
    pub fn growth(&self, before: &Stats, name: &str) -> Result<f64> {
        Ok(self.total(name)? - before.total(name)?)
    }
}
