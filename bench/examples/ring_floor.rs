//! The floor under every request: the shard's sockets alone, answering each 14 bytes with `+PONG\r\n`.
//!
//! `cargo run --release -p delta-bench --example ring_floor -- SHARDS SPIN_US [PORT]`, then
//! `redis-benchmark -p PORT -t ping_mbulk -c 50`; server CPU per request from `/proc/PID/stat`.

use deltadb::metrics::Metrics;
use deltadb::runtime::net::{ListenAddress, ListenerId, Net, NetEvent, Service};
use deltadb::runtime::placement::Placement;
use deltadb::runtime::shard::{ShardContext, start};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const REQUEST_BYTES: usize = 14;
const REPLY: &[u8] = b"+PONG\r\n";

struct Pong {
    net: Net,
    /// Bytes of a request that has not wholly arrived; good enough for one client at a time being cut short.
    rest: Cell<usize>,
}

impl Service for Pong {
    fn on_event(&self, event: NetEvent<'_>) {
        match event {
            NetEvent::Received { connection, bytes } => {
                let arrived = self.rest.get() + bytes.len();
                self.rest.set(arrived % REQUEST_BYTES);
                self.net.output(connection, |output| {
                    (0..arrived / REQUEST_BYTES).for_each(|_| output.extend_from_slice(REPLY));
                });
            }
            NetEvent::EndOfInput { connection } => self.net.close(connection),
            _ => {}
        }
    }

    fn on_turn(&self) -> bool {
        false
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let shards = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let spin = Duration::from_micros(arguments.next().map_or(Ok(20), |text| text.parse())?);
    let port = arguments.next().map_or(Ok(0), |text| text.parse::<u16>())?;
    let main = move |context: ShardContext| async move {
        let net = &context.net;
        net.attach(Rc::new(Pong { net: net.clone(), rest: Cell::new(0) }));
        match net.listen(ListenerId(0), ListenAddress::Tcp(([127, 0, 0, 1], port).into())) {
            Ok(address) => println!("shard {} of {} listens on {address:?}", context.index, context.shards),
            Err(error) => eprintln!("shard {} cannot listen: {error}", context.index),
        }
        context.stop.raised().await;
    };
    start(&Placement::detect()?, shards, spin, Metrics::new(shards), main)?.join()?;
    Ok(())
}
