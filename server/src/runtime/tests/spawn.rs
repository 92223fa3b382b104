//! Tasks of a real executor keep to the promises of `Spawn`.

use super::*;
use crate::runtime::platform::{Clock, Platform, Spawn, TaskClass};
use std::cell::Cell;

#[test]
fn a_spawned_task_never_runs_within_the_call_that_spawned_it() {
    let (seen, results) = channel();
    let main = move |context: ShardContext| {
        let seen = seen.clone();
        async move {
            let spawn = context.platform.spawn();
            for class in [TaskClass::Foreground, TaskClass::Background] {
                let ran = Rc::new(Cell::new(false));
                let task = ran.clone();
                spawn.spawn(class, async move { task.set(true) });
                seen.send(ran.get()).unwrap();
                while !ran.get() {
                    context.platform.clock().sleep(Duration::from_millis(1)).await;
                }
            }
        }
    };
    let threads = start(&Placement::detect().unwrap(), 1, SPIN, Metrics::new(1), main).unwrap();
    threads.join().unwrap();
    assert_eq!(results.iter().collect::<Vec<_>>(), [false, false]);
}
