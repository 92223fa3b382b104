//! Many clients of both protocols at once, on few entities, that write everything into a history.
//!
//! A crowd knows nothing of what is done to the server meanwhile: clients go on until told to stop or until their
//! connection is lost, and a call that got no answer is recorded as what it is, of unknown outcome. Every document is
//! unique and made from its number, so that a read can be judged to the last byte.

mod documents;
mod http;
mod plan;
mod wire;

pub use documents::{Entities, document};
pub use plan::Dice;

use crate::TestServer;
use crate::history::{Answer, Call, History, Moment, NEVER, Operation, Summary};
use plan::{Action, Plan, Protocol};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// What one call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    /// It was answered.
    Answer(Answer),
    /// It was refused: nothing happened.
    Refused,
    /// The connection was lost before it was sent: nothing happened.
    Unsent,
    /// The connection was lost without an answer.
    Lost,
}

/// One connection of either protocol.
trait Connection: Send {
    /// Carries out an action; one reply a call, in order.
    fn carry_out(&mut self, entities: &Entities, action: &Action) -> Vec<Reply>;
}

/// Clients at work.
pub struct Crowd {
    clients: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Crowd {
    /// Connects so many clients, half over HTTP, half over the wire protocol, and lets them loose. The seed decides
    /// what they ask, not how their calls interleave.
    pub fn start(server: &TestServer, clients: usize, entities: Entities, history: &Arc<History>, seed: u64) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |place: usize| {
            let (connection, protocol) = connect(server, place);
            let number = history.next_client();
            let member = Member {
                connection,
                plan: Plan::new(entities, protocol, number, seed),
                entities,
                number,
                history: Arc::clone(history),
                stop: Arc::clone(&stop),
                answered: Arc::clone(&answered),
            };
            std::thread::spawn(move || member.run())
        };
        let clients = (0..clients).map(start).collect();
        Self { clients, stop, answered }
    }

    /// Calls answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    /// Waits until so many more calls were answered.
    pub fn wait_for(&self, count: u64) {
        let goal = self.answered() + count;
        crate::eventually("the crowd is answered", || self.answered() >= goal || self.has_lost_a_client());
    }

    /// Waits until so many more calls were answered, and ends.
    pub fn wait_for_and_finish(self, count: u64) {
        self.wait_for(count);
        self.finish();
    }

    /// Whether a client has ended: its connection was lost, or it saw something that must not be.
    pub fn has_lost_a_client(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Tells all to stop and waits until their calls are in the history.
    pub fn finish(self) {
        self.stop.store(true, SeqCst);
        self.clients.into_iter().for_each(|client| client.join().expect("a client saw what must not be"));
    }
}

/// Reads every entity over both protocols into the history.
pub fn read_all(server: &TestServer, entities: Entities, history: &History) {
    for place in 0..2 {
        let (mut connection, _) = connect(server, place);
        let number = history.next_client();
        let operations = (0..entities.count()).flat_map(|entity| {
            let action = Action::one(entity, Call::Get);
            perform(&mut *connection, &entities, &action, number, history)
        });
        let operations: Vec<Operation> = operations.filter_map(Result::ok).collect();
        assert_eq!(operations.len(), entities.count(), "not every entity can be read");
        history.extend(operations);
    }
}

/// Judges the history of a server's store; panics with the reason when it is refused.
#[track_caller]
pub fn judge(server: &TestServer, entities: Entities, history: &History) -> Summary {
    match verdict(server, entities, history) {
        Ok(summary) => {
            println!("{summary:?}");
            summary
        }
        Err(reason) => panic!("{reason}"),
    }
}

/// Judges the history of a store whose shard count has changed in between: versions are those of each entity, for no
/// two entities need have shared a shard all the time.
#[track_caller]
pub fn judge_without_shards(history: &History) -> Summary {
    history.judge(|entity| entity).unwrap_or_else(|reason| panic!("{reason}"))
}

/// Judges the history of a server's store; the error says why it is refused.
pub fn verdict(server: &TestServer, entities: Entities, history: &History) -> Result<Summary, String> {
    let client = server.wire_client();
    let welcome = client.welcome();
    history.judge(|entity| {
        let slot = delta_wire::slot_of(welcome.hash_seed, entities.schema(entity), &entities.key(entity));
        let owner = welcome.shards.iter().position(|range| (range.first_slot..=range.last_slot).contains(&slot));
        owner.expect("every slot has a shard")
    })
}

fn connect(server: &TestServer, place: usize) -> (Box<dyn Connection>, Protocol) {
    match place % 4 {
        0 | 2 => (Box::new(server.http().on_one_connection()), Protocol::Http),
        1 => (Box::new(wire::connect(server, true)), Protocol::Wire),
        _ => (Box::new(wire::connect(server, false)), Protocol::Wire),
    }
}

/// One client.
struct Member {
    connection: Box<dyn Connection>,
    plan: Plan,
    entities: Entities,
    number: usize,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Member {
    fn run(mut self) {
        let mut own = Vec::new();
        let mut is_connected = true;
        while is_connected && !self.stop.load(SeqCst) {
            let action = self.plan.next();
            let results = perform(&mut *self.connection, &self.entities, &action, self.number, &self.history);
            for result in results {
                match result {
                    Ok(operation) => {
                        self.plan.learn(&operation);
                        // It is not told apart whether the server or the connection failed: it asks no more.
                        is_connected &= operation.answer != Answer::Unknown;
                        self.answered.fetch_add(u64::from(operation.answer != Answer::Unknown), SeqCst);
                        own.push(operation);
                    }
                    Err(Unanswered::Disconnected) => is_connected = false,
                    // Told to come back, it does so after a moment.
                    Err(Unanswered::Refused) => std::thread::park_timeout(Duration::from_millis(1)),
                }
            }
        }
        self.history.extend(own);
    }
}

/// Why a call is not in the history.
enum Unanswered {
    Refused,
    Disconnected,
}

fn perform(
    connection: &mut dyn Connection,
    entities: &Entities,
    action: &Action,
    client: usize,
    history: &History,
) -> Vec<Result<Operation, Unanswered>> {
    let called: Moment = history.moment();
    let replies = connection.carry_out(entities, action);
    let answered = history.moment();
    assert_eq!(replies.len(), action.calls.len(), "one reply a call");
    let result = |(&(entity, call), reply): (&(usize, Call), Reply)| {
        let operation = |answer| Operation { entity, client, called, answered, call, answer };
        match reply {
            Reply::Answer(Answer::Unknown) => Ok(Operation { answered: NEVER, ..operation(Answer::Unknown) }),
            Reply::Answer(answer) => Ok(operation(answer)),
            Reply::Lost if call == Call::Get => Err(Unanswered::Disconnected),
            Reply::Lost => Ok(Operation { answered: NEVER, ..operation(Answer::Unknown) }),
            Reply::Unsent => Err(Unanswered::Disconnected),
            Reply::Refused => Err(Unanswered::Refused),
        }
    };
    action.calls.iter().zip(replies).map(result).collect()
}
