//! The path of a request without kernel and sockets, for counting instructions: frame, validation, engine, sealing,
//! commit and reply, on a simulated machine whose disk is memory.
//!
//! Everything that counts happens in `measured_requests`, so that
//! `valgrind --tool=callgrind --toggle-collect='*measured_requests*'` counts nothing else. `bench/profile.py` does that.

use crate::RequestPathFlags;
use delta_bench::document::{Documents, Key, TEMPLATE};
use delta_wire::encode::{document, get, put, written};
use delta_wire::{Condition, FrameDecoder, HotRequest, read_hot_request};
use deltadb::cache::CacheOptions;
use deltadb::command::{Command, Condition as CommandCondition, Outcome, Ticket};
use deltadb::crypto::keyring::Keyring;
use deltadb::engine::Engine;
use deltadb::metrics::Metrics;
use deltadb::runtime::platform::Platform;
use deltadb::runtime::sim::{Sim, SimPlatform};
use deltadb::schema::{Checker, Template};
use deltadb::storage::log::{LogIdentity, LogOptions, LogSizes, LogStorage};
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

const KEYS: u64 = 2_000;
const VALUE_BYTES: usize = 400;
/// Requests that arrive together, and so share a commit.
const TOGETHER: usize = 50;
const STORE_ID: [u8; 16] = [7; 16];
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Answers so many requests.
pub fn answer(flags: &RequestPathFlags) -> anyhow::Result<()> {
    let mut server = Server::start()?;
    let mut out = Vec::new();
    // Every key is there, and everything that grows has grown, before anything counts.
    for turn in turns(false, KEYS * 2, 1)?.iter().chain(&turns(!flags.put, KEYS, KEYS * 2 + 1)?) {
        server.turn(turn, &mut out)?;
    }
    let turns = turns(!flags.put, flags.requests, KEYS * 4)?;
    let sent = measured_requests(&mut server, &turns, &mut out)?;
    println!("{} requests, {sent} bytes of replies", flags.requests);
    Ok(())
}

struct Server {
    sim: Sim,
    engine: Rc<Engine<SimPlatform, LogStorage<SimPlatform>>>,
    template: Template,
    checker: Checker,
    decoder: FrameDecoder,
    /// What the engine answered after a commit.
    answered: Rc<RefCell<Vec<(u64, Outcome)>>>,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let sim = Sim::new(1);
        sim.set_step_limit(u64::MAX);
        let platform = sim.platform();
        let metrics = Metrics::new(1);
        let options = LogOptions {
            directory: "/shard".into(),
            create: true,
            identity: LogIdentity { store_id: STORE_ID, generation: 1, shard: 0 },
            keyring: Arc::new(Keyring::create(platform.entropy(), STORE_ID, 0)),
            salvage: false,
            metrics: metrics.clone(),
            sizes: LogSizes::default(),
        };
        let opened = sim.run_until(LogStorage::open(platform.clone(), options));
        let storage = opened.map_err(|halt| anyhow::anyhow!("the simulation stopped: {halt:?}"))??;
        let answered = Rc::new(RefCell::new(Vec::new()));
        let sink = answered.clone();
        let cache = CacheOptions { bytes_max: 1 << 28, entries_max: usize::MAX, ttl_ms: 0 };
        let engine = Engine::start(
            platform,
            storage,
            cache,
            metrics,
            0,
            Rc::new(move |ticket, outcome| {
                if let Ticket::Task { slot } = ticket {
                    sink.borrow_mut().push((u64::from(slot), outcome));
                }
            }),
        );
        let template = Template::compile(TEMPLATE.as_bytes()).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self { sim, engine, template, checker: Checker::default(), decoder: FrameDecoder::new(), answered })
    }

    /// Answers every request of what one turn received.
    fn turn(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        let mut has_writes = false;
        while let Some(frame) = self.decoder.next(&mut input, FRAME_BYTES_MAX)? {
            let request = read_hot_request(frame);
            let (request_id, command) = match request.ok_or_else(|| anyhow::anyhow!("no hot request"))? {
                HotRequest::Get { request_id, schema, key } => {
                    (request_id, Command::Get { schema: Cow::Borrowed(schema), key: Cow::Borrowed(key) })
                }
                HotRequest::Put { request_id, schema, key, document, .. } => {
                    let judged = self.checker.check(Some(&self.template), document);
                    anyhow::ensure!(judged.is_ok(), "a document was refused");
                    has_writes = true;
                    let command = Command::Put {
                        schema: Cow::Borrowed(schema),
                        key: Cow::Borrowed(key),
                        document: Cow::Borrowed(document),
                        condition: CommandCondition::None,
                    };
                    (request_id, command)
                }
            };
            if let Some(outcome) = self.engine.execute(command, Ticket::Task { slot: request_id as u32 }) {
                reply(out, request_id, &outcome)?;
            }
        }
        if has_writes {
            let idle = self.sim.run_until_idle();
            idle.map_err(|halt| anyhow::anyhow!("the simulation stopped: {halt:?}"))?;
            for (request_id, outcome) in self.answered.borrow_mut().drain(..) {
                reply(out, request_id, &outcome)?;
            }
        }
        Ok(())
    }
}

fn reply(out: &mut Vec<u8>, request_id: u64, outcome: &Outcome) -> anyhow::Result<()> {
    match outcome {
        Outcome::Document { version, document: found } => document(out, request_id, *version, found.body()),
        Outcome::Written { version, created } => written(out, request_id, *version, *created),
        _ => anyhow::bail!("another outcome than was asked for"),
    }
    Ok(())
}

#[inline(never)]
fn measured_requests(server: &mut Server, turns: &[Vec<u8>], out: &mut Vec<u8>) -> anyhow::Result<usize> {
    let mut sent = 0;
    for turn in turns {
        out.clear();
        server.turn(turn, out)?;
        sent += out.len();
    }
    Ok(sent)
}

fn turns(is_read: bool, requests: u64, revision: u64) -> anyhow::Result<Vec<Vec<u8>>> {
    let documents = Documents::new(VALUE_BYTES)?;
    let mut content = Vec::new();
    let numbers: Vec<u64> = (0..requests).collect();
    let frames = |numbers: &[u64]| {
        let mut out = Vec::new();
        for number in numbers {
            let key = Key::new(number.wrapping_mul(7919) % KEYS);
            if is_read {
                get(&mut out, *number, "bench", key.as_str());
            } else {
                documents.write(number.wrapping_mul(7919) % KEYS, revision + number, &mut content);
                put(&mut out, *number, "bench", key.as_str(), &content, Condition::None);
            }
        }
        out
    };
    Ok(numbers.chunks(TOGETHER).map(frames).collect())
}
