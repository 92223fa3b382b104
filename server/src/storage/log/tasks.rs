//! Background tasks of one shard: preparation, the tail frame, checkpoints and compaction, and the scrub. A task waits on a signal
//! without keeping the shard alive, and ends when the shard is gone or closing.

use super::batch::{FrameBuilder, FrameMemory};
use super::format::BLOCK_BYTES_MAX;
use super::manifest::Interrupt;
use super::segment::SegmentState;
use super::signal::Signal;
use super::state::{LogStorage, SegmentOf, Signals};
use crate::runtime::platform::{Clock, Platform, Spawn, TaskClass};
use crate::sabotage::{Sabotage, is_on};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::time::Duration;

impl<P: Platform> LogStorage<P> {
    /// Starts the tasks of a shard that takes writes.
    pub(super) fn start_tasks(&self) {
        self.start(|signals| &signals.prepare, Self::preparation_pass);
        self.start(|signals| &signals.tail, Self::tail_pass);
        self.start(|signals| &signals.maintain, Self::maintenance_pass);
        if self.sizes.scrub_bytes_per_s > 0 {
            self.start(|signals| &signals.scrub, Self::scrub_pass);
        }
    }

    /// Runs a pass each time the signal was given; the pass says after how long it wants to run again by itself.
    fn start<R>(&self, signal: fn(&Signals) -> &Signal, pass: fn(Rc<Self>) -> R)
    where
        R: Future<Output = Option<Duration>> + 'static,
    {
        let signals = self.signals.clone();
        let this: Weak<Self> = self.this.clone();
        let clock = self.platform.clock().clone();
        self.platform.spawn().spawn(TaskClass::Background, async move {
            let signal = signal(&signals);
            loop {
                let seen = signal.epoch();
                let Some(strong) = this.upgrade().filter(|this| !this.closing.get()) else { return };
                strong.jobs.set(strong.jobs.get() + 1);
                let again = pass(strong.clone()).await;
                strong.end_job();
                drop(strong);
                match again {
                    None => signal.changed(seen).await,
                    Some(delay) => futures_lite::future::or(signal.changed(seen), clock.sleep(delay)).await,
                }
            }
        });
    }

    /// Counts a background job while it runs; none begins once the shard is closing.
    pub(super) async fn run_job(&self, job: impl Future<Output = ()>) {
        if self.closing.get() {
            return;
        }
        self.jobs.set(self.jobs.get() + 1);
        job.await;
        self.end_job();
    }

    fn end_job(&self) {
        self.jobs.set(self.jobs.get() - 1);
        self.signals.idle.notify();
    }

    async fn preparation_pass(self: Rc<Self>) -> Option<Duration> {
        match self.prepare_segments().await {
            Err(Interrupt::OutOfSpace) => Some(Duration::from_millis(self.sizes.space_poll_ms)),
            Ok(()) | Err(Interrupt::Stopped) => None,
        }
    }

    /// Writes the empty frame that lets damage to the last frame be told from a torn one.
    async fn tail_pass(self: Rc<Self>) -> Option<Duration> {
        let delay = Duration::from_millis(self.sizes.tail_delay_ms);
        {
            let mut state = self.state.borrow_mut();
            let elapsed_ns = self.platform.clock().now_ns().saturating_sub(state.last_write_ns);
            let wanted = state.tail_open && !is_on(Sabotage::NoTailFrame);
            state.tail_armed = wanted && state.check_writable().is_ok();
            if !state.tail_armed {
                return None;
            }
            let left = delay.saturating_sub(Duration::from_nanos(elapsed_ns));
            if !left.is_zero() {
                return Some(left);
            }
            state.tail_armed = false;
        }
        self.write_tail().await;
        self.update_gauges();
        None
    }

    async fn write_tail(&self) {
        let Some(_guard) = self.commit_lock.try_lock() else { return };
        let (segment, memory, first_sequence) = {
            let mut state = self.state.borrow_mut();
            if !state.open.frames.is_empty() {
                // A batch is about to follow the last frame, and its sequences come before the next one.
                return;
            }
            let ready = |segment: &SegmentOf<P>| state.tail_open && segment.state.get() == SegmentState::Ready;
            let Some(segment) = state.lineage.front().filter(|segment| ready(segment)).cloned() else { return };
            if segment.room() < BLOCK_BYTES_MAX as u64 {
                state.tail_open = false;
                let unbound = segment.bound.get() == 0;
                drop(state);
                // The footer says as much as an empty frame; where frames are bound here, they will.
                if unbound {
                    self.pass_front();
                }
                return;
            }
            let memory = state.memories.pop();
            (segment, memory.unwrap_or_else(|| FrameMemory::new(self.frame_capacity())), state.next_sequence)
        };
        let mut frame = FrameBuilder::new(segment.clone(), first_sequence, memory);
        if self.write_frame(&mut frame).await.is_ok() {
            self.apply(&frame);
        }
        let mut state = self.state.borrow_mut();
        self.recycle(&mut state, frame);
    }

    async fn maintenance_pass(self: Rc<Self>) -> Option<Duration> {
        match self.maintain().await {
            Err(Interrupt::OutOfSpace) => Some(Duration::from_millis(self.sizes.space_poll_ms)),
            Ok(()) | Err(Interrupt::Stopped) => None,
        }
    }
}
