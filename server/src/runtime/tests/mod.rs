//! Whole shards under test: real rings, real sockets on loopback, real files.

mod disk;
mod doorbell;
mod net;
/// That of the whole-server tests.
#[path = "../../../../tests/src/skips.rs"]
mod skips;
mod spawn;
mod tasks;

use super::net::{ListenAddress, ListenerId, Net, NetEvent, Service};
use super::placement::Placement;
use super::shard::{ShardContext, ShardThreads, start};
use super::stop::StopSignal;
use crate::metrics::Metrics;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

const SPIN: Duration = Duration::from_micros(20);

/// A service made of a closure.
struct Handler<F>(Net, F);

impl<F: Fn(&Net, NetEvent<'_>) + 'static> Service for Handler<F> {
    fn on_event(&self, event: NetEvent<'_>) {
        (self.1)(&self.0, event);
    }
    fn on_turn(&self) -> bool {
        false
    }
}

/// One shard that serves a TCP listener; stopped and joined when dropped.
struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    threads: Option<ShardThreads>,
}

impl Server {
    fn start<H: Fn(&Net, NetEvent<'_>) + 'static>(make: impl Fn(&Net) -> H + Send + Clone + 'static) -> Self {
        let metrics = Metrics::new(1);
        let (bound, address) = channel();
        let placement = Placement::detect().unwrap();
        let threads = start(&placement, 1, SPIN, metrics.clone(), move |context: ShardContext| {
            let (bound, make) = (bound.clone(), make.clone());
            async move {
                let net = &context.net;
                net.attach(Rc::new(Handler(net.clone(), make(net))));
                let any = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
                bound.send(net.listen(ListenerId(7), any).unwrap().unwrap()).unwrap();
                context.stop.raised().await;
            }
        });
        Self { address: address.recv().unwrap(), metrics, threads: Some(threads.unwrap()) }
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.stop_signal().raise();
            threads.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs one future on one shard and waits for its result.
fn on_shard<T: Send + 'static, Running: Future<Output = T> + 'static>(
    main: impl Fn(ShardContext) -> Running + Send + Clone + 'static,
) -> T {
    let (sender, receiver) = channel();
    let placement = Placement::detect().unwrap();
    let threads = start(&placement, 1, SPIN, Metrics::new(1), move |context| {
        let (sender, running) = (sender.clone(), main(context));
        async move { sender.send(running.await).unwrap() }
    });
    let value = receiver.recv().unwrap();
    threads.unwrap().join().unwrap();
    value
}

#[test]
fn a_stop_signal_ends_idle_shards_and_may_be_raised_twice() {
    let placement = Placement::detect().unwrap();
    let main = |context: ShardContext| async move { context.stop.raised().await };
    let threads = start(&placement, 3, SPIN, Metrics::new(3), main).unwrap();
    let stop: StopSignal = threads.stop_signal();
    assert!(!stop.is_raised());
    stop.raise();
    stop.raise();
    threads.join().unwrap();
}
