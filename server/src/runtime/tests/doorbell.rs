//! Shards that park and ring each other all the time: no wake-up may be lost.

use super::super::net::{NetEvent, Service};
use super::super::placement::Placement;
use super::super::platform::Doorbell;
use super::super::shard::{ShardContext, start};
use super::super::stop::StopSignal;
use super::SPIN;
use crate::metrics::Metrics;
use crossbeam_queue::SegQueue;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Passes a count to and fro between two shards until it has run out; each crossing finds the peer awake, about to
/// park or parked, as chance has it.
struct Player {
    queues: Arc<[SegQueue<u64>; 2]>,
    doorbell: super::super::doorbell::ShardDoorbell,
    index: usize,
    finished: StopSignal,
    received: Cell<u64>,
}

impl Service for Player {
    fn on_event(&self, _: NetEvent<'_>) {}

    fn on_turn(&self) -> bool {
        while let Some(left) = self.queues[self.index].pop() {
            self.received.set(self.received.get() + 1);
            if left == 0 {
                self.finished.raise();
                return false;
            }
            // Uneven pauses shift where in the other's parking the bell rings.
            (0..left * 7 % 900).for_each(|_| std::hint::spin_loop());
            self.queues[1 - self.index].push(left - 1);
            self.doorbell.ring(1 - self.index);
        }
        false
    }
}

fn play(spin: Duration, crossings: u64) {
    let queues = Arc::new([SegQueue::new(), SegQueue::new()]);
    let finished = StopSignal::default();
    let placement = Placement::detect().unwrap();
    let threads = start(&placement, 2, spin, Metrics::new(2), move |context: ShardContext| {
        let (queues, finished) = (queues.clone(), finished.clone());
        async move {
            let ShardContext { index, net, doorbell, .. } = context;
            net.attach(Rc::new(Player {
                queues: queues.clone(),
                doorbell: doorbell.clone(),
                index,
                finished: finished.clone(),
                received: Cell::new(0),
            }));
            if index == 0 {
                queues[1].push(crossings);
                doorbell.ring(1);
            }
            finished.raised().await;
        }
    });
    // A lost wake-up shows as a test that never ends.
    threads.unwrap().join().unwrap();
}

#[test]
fn no_wake_up_is_lost_when_shards_park_at_once() {
    play(Duration::ZERO, 20_000);
}

#[test]
fn no_wake_up_is_lost_when_shards_spin_first() {
    play(SPIN, 20_000);
}
