//! What a request to another shard costs beside the work itself: credit, queue, reply slot and back. The document of a
//! Get's answer is copied once on its way, as between threads.

use criterion::{Criterion, criterion_group, criterion_main};
use deltadb::command::{Command, Document, EntityRef, Outcome, Ticket};
use deltadb::mailbox::{Answer, Errand, Mailboxes};
use deltadb::runtime::platform::Doorbell;
use std::borrow::Cow;
use std::hint::black_box;

/// Both ends are awake: nobody has to be woken.
#[derive(Clone)]
struct Awake;

impl Doorbell for Awake {
    fn ring(&self, _: usize) {}
}

fn hop(criterion: &mut Criterion) {
    let boxes = Mailboxes::new(2);
    let (asking, owning) = (boxes.end(0, Awake), boxes.end(1, Awake));
    let document = Document::new(EntityRef { schema: "users", key: "user-00000001" }, &[b'7'; 400]);
    let ask = |command: Command<'_>, answer: Outcome| {
        let errand = Errand::Execute(command.into_owned());
        asking.request(1, errand, Ticket::Task { slot: 0 }).expect("there are credits");
        let (ticket, errand) = owning.take_request().expect("it was sent");
        black_box(errand);
        let Ticket::Peer { shard, slot } = ticket else { unreachable!("it came from the other end") };
        owning.reply(shard, slot, Answer::Outcome(answer));
        asking.take_reply().expect("it was answered")
    };
    criterion.bench_function("mailbox_hop_ping", |bencher| bencher.iter(|| ask(Command::Ping, Outcome::Pong)));
    criterion.bench_function("mailbox_hop_get_400", |bencher| {
        bencher.iter(|| {
            let get = Command::Get { schema: Cow::Borrowed("users"), key: Cow::Borrowed("user-00000001") };
            ask(get, Outcome::Document { version: 1, document: document.clone() })
        });
    });
}

criterion_group!(benches, hop);
criterion_main!(benches);
