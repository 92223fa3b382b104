//! Writers that remember what was acknowledged, so that a crash can be judged.

use crate::{ADMIN_KEY, HttpClient};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

/// What one writer knows of one key. Documents are `{"n": N}` with N rising; a deletion takes a number too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The newest write or deletion that was acknowledged.
    pub acknowledged: u64,
    /// The newest that was sent.
    pub sent: u64,
}

/// A crowd of writers over HTTP, each with keys of its own.
pub struct Load {
    writers: Vec<JoinHandle<BTreeMap<String, Known>>>,
    acknowledged: Arc<AtomicU64>,
}

/// The schema that the load writes to.
pub const SCHEMA: &str = "load";

/// Whether step `n` of a key deletes instead of writing.
pub fn deletes(n: u64) -> bool {
    n.is_multiple_of(7)
}

impl Load {
    /// Starts writers that go on until the server refuses or is gone. `known` continues an earlier load.
    pub fn start(address: SocketAddr, writers: usize, keys_each: usize, known: &BTreeMap<String, Known>) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..writers)
            .map(|writer| {
                let names = (0..keys_each).map(|key| format!("w{writer:02}k{key:03}"));
                let own = names.map(|name| (name.clone(), known.get(&name).copied().unwrap_or_default())).collect();
                let acknowledged = Arc::clone(&acknowledged);
                std::thread::spawn(move || write_until_refused(address, own, &acknowledged))
            })
            .collect();
        Self { writers, acknowledged }
    }

    /// Waits until so many writes were acknowledged.
    pub fn wait_for(&self, count: u64) {
        crate::eventually("enough writes are acknowledged", || self.acknowledged.load(SeqCst) >= count);
    }

    /// Collects what every writer knows. The server must have been stopped.
    pub fn finish(self) -> BTreeMap<String, Known> {
        self.writers.into_iter().flat_map(|writer| writer.join().expect("a writer does not panic")).collect()
    }
}

/// Reads every key back: nothing acknowledged may be missing, nothing may be newer than what was sent. Returns what
/// is now known for certain.
pub fn check(client: &mut HttpClient, known: &BTreeMap<String, Known>) -> BTreeMap<String, Known> {
    known.iter().map(|(key, known)| (key.clone(), check_key(client, key, *known))).collect()
}

fn check_key(client: &mut HttpClient, key: &str, known: Known) -> Known {
    let response = client.get(&format!("/entity/{SCHEMA}/{key}"));
    let possible = known.acknowledged..=known.sent;
    let found = match response.status {
        200 => response.json()["n"].as_u64().expect("the document has its number"),
        404 => possible
            .clone()
            .find(|n| deletes(*n))
            .unwrap_or_else(|| panic!("{key} is missing: acknowledged {}, sent {}", known.acknowledged, known.sent)),
        other => panic!("{key} cannot be read: {other} {}", response.text()),
    };
    assert!(possible.contains(&found), "{key} is at {found}, acknowledged {}, sent {}", known.acknowledged, known.sent);
    assert!(response.status == 404 || !deletes(found), "{key} shows {found}, which is a deletion");
    Known { acknowledged: found, sent: found.max(known.sent) }
}

fn write_until_refused(
    address: SocketAddr,
    mut own: BTreeMap<String, Known>,
    acknowledged: &AtomicU64,
) -> BTreeMap<String, Known> {
    let mut client = HttpClient::new(address, Some(ADMIN_KEY));
    loop {
        for (key, known) in &mut own {
            known.sent += 1;
            let absent = deletes(known.acknowledged);
            let path = format!("/entity/{SCHEMA}/{key}");
            let response = match deletes(known.sent) {
                true => client.send("DELETE", &path, &[], b""),
                false => {
                    let body = format!("{{\"n\":{},\"fill\":\"{}\"}}", known.sent, crate::filler(200, known.sent));
                    client.send("PUT", &path, &[("content-type", "application/json")], body.as_bytes())
                }
            };
            match response.map(|response| response.status) {
                Ok(200 | 201 | 204) => known.acknowledged = known.sent,
                // There was nothing to delete, which is right only where nothing was.
                Ok(404) if absent => known.acknowledged = known.sent,
                Ok(404) => panic!("{key} is gone: acknowledged {}", known.acknowledged),
                _ => return own,
            }
            acknowledged.fetch_add(1, SeqCst);
        }
    }
}
