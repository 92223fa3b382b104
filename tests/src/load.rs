//! Writers that remember what was acknowledged, so that a crash can be judged.

use crate::{HttpClient, TestServer};
use delta_wire::client::{Client, ClientOptions, Reconnect};
use delta_wire::{Condition, ErrorCode};
use std::collections::BTreeMap;
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

/// A crowd of writers, half over HTTP and half over the wire protocol, each with keys of its own.
pub struct Load {
    writers: Vec<JoinHandle<BTreeMap<String, Known>>>,
    acknowledged: Arc<AtomicU64>,
}

/// How a write was answered.
enum Answer {
    /// It is durable.
    Done,
    /// There was nothing to delete.
    Absent,
    /// Anything else: it may be durable or not.
    Unknown,
}

/// One connection that writes and deletes.
trait Writer: Send {
    fn write(&mut self, key: &str, document: &str) -> Answer;
    fn delete(&mut self, key: &str) -> Answer;
}

/// The schema that the load writes to.
pub const SCHEMA: &str = "load";

/// Whether step `n` of a key deletes instead of writing.
pub fn deletes(n: u64) -> bool {
    n.is_multiple_of(7)
}

impl Load {
    /// Starts writers that go on until the server refuses or is gone. `known` continues an earlier load.
    pub fn start(server: &TestServer, writers: usize, keys_each: usize, known: &BTreeMap<String, Known>) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..writers)
            .map(|number| {
                let names = (0..keys_each).map(|key| format!("w{number:02}k{key:03}"));
                let own = names.map(|name| (name.clone(), known.get(&name).copied().unwrap_or_default())).collect();
                let acknowledged = Arc::clone(&acknowledged);
                let mut writer = writer(server, number);
                std::thread::spawn(move || write_until_refused(&mut *writer, own, &acknowledged))
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

fn writer(server: &TestServer, number: usize) -> Box<dyn Writer> {
    if number.is_multiple_of(2) {
        return Box::new(server.http());
    }
    let shard_aware = number % 4 == 1;
    let options = ClientOptions { shard_aware, reconnect: Reconnect::never(), ..server.wire_options() };
    Box::new(Client::connect(options).expect("the server welcomes the writer"))
}

fn write_until_refused(
    writer: &mut dyn Writer,
    mut own: BTreeMap<String, Known>,
    acknowledged: &AtomicU64,
) -> BTreeMap<String, Known> {
    loop {
        for (key, known) in &mut own {
            known.sent += 1;
            let absent = deletes(known.acknowledged);
            let answer = match deletes(known.sent) {
                true => writer.delete(key),
                false => {
                    let filler = crate::filler(200, known.sent);
                    writer.write(key, &format!("{{\"n\":{},\"fill\":\"{filler}\"}}", known.sent))
                }
            };
            match answer {
                Answer::Done => known.acknowledged = known.sent,
                // There was nothing to delete, which is right only where nothing was.
                Answer::Absent if absent => known.acknowledged = known.sent,
                Answer::Absent => panic!("{key} is gone: acknowledged {}", known.acknowledged),
                Answer::Unknown => return own,
            }
            acknowledged.fetch_add(1, SeqCst);
        }
    }
}

impl Writer for HttpClient {
    fn write(&mut self, key: &str, document: &str) -> Answer {
        let headers = [("content-type", "application/json")];
        http_answer(self.send("PUT", &format!("/entity/{SCHEMA}/{key}"), &headers, document.as_bytes()))
    }

    fn delete(&mut self, key: &str) -> Answer {
        http_answer(self.send("DELETE", &format!("/entity/{SCHEMA}/{key}"), &[], b""))
    }
}

impl Writer for Client {
    fn write(&mut self, key: &str, document: &str) -> Answer {
        match self.put(SCHEMA, key, document.as_bytes(), Condition::None) {
            Ok(_) => Answer::Done,
            Err(_) => Answer::Unknown,
        }
    }

    fn delete(&mut self, key: &str) -> Answer {
        match Client::delete(self, SCHEMA, key, Condition::None) {
            Ok(_) => Answer::Done,
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Answer::Absent,
            Err(_) => Answer::Unknown,
        }
    }
}

fn http_answer(response: std::io::Result<crate::Response>) -> Answer {
    match response.map(|response| response.status) {
        Ok(200 | 201 | 204) => Answer::Done,
        Ok(404) => Answer::Absent,
        _ => Answer::Unknown,
    }
}
