//! What the clients, the driver and the checks of one run share.

use super::coverage::Coverage;
use super::durable::Places;
use super::model::{Broken, Model, Name};
use super::plan::step_of;
use super::setup::Setup;
use super::templates::TemplateModel;
use super::watch::Watch;
use deltadb::command::{Failure, Version};
use deltadb::runtime::signal::Signal;
use deltadb::runtime::sim::Sim;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

/// What may go wrong in this life without being a fault of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Licence {
    /// Writes, syncs and names may fail.
    pub writes: bool,
    /// Reads may fail.
    pub reads: bool,
    /// The disk may be full.
    pub space: bool,
    /// The disk may not answer for longer than anybody waits.
    pub stalls: bool,
    /// The server is being stopped.
    pub draining: bool,
}

impl Licence {
    /// Whether a read may be refused.
    pub fn excuses_reads(self) -> bool {
        self.reads || self.stalls || self.draining
    }

    /// Whether something that writes may be refused.
    pub fn excuses_writes(self) -> bool {
        self.writes || self.space || self.stalls || self.draining
    }

    /// Whether a start may fail.
    pub fn covers_starts(self) -> bool {
        self.writes || self.reads || self.space
    }
}

/// Where the records of a frame begin and end, and their versions.
pub type Layout = Vec<(usize, usize, u64)>;

/// The shared state.
pub struct World {
    /// The setting.
    pub setup: Setup,
    /// What the server may answer about entities.
    pub model: RefCell<Model>,
    /// And about templates.
    pub templates: RefCell<TemplateModel>,
    /// Counters.
    pub coverage: RefCell<Coverage>,
    /// The bytes that went out.
    pub watch: RefCell<Watch>,
    /// Where the records of this life were written.
    pub places: RefCell<Places>,
    /// Entities whose newest record rotted, with its version.
    pub rotten: RefCell<BTreeMap<Name, Version>>,
    /// Something on its disk rotted.
    pub has_rot: Cell<bool>,
    /// The frames of segments, by file and offset, each as it was before any of its bits flipped.
    pub layouts: RefCell<BTreeMap<(PathBuf, usize), Layout>>,
    /// It tries something out, and nothing further from there.
    pub is_branch: bool,
    /// What may go wrong now.
    pub licence: Cell<Licence>,
    /// Operations without an answer.
    pub in_flight: Cell<usize>,
    /// Raised when one is answered.
    pub answered: Signal,
    broken: RefCell<Option<(u32, Broken)>>,
    history: RefCell<Option<Vec<String>>>,
}

impl World {
    /// A fresh one.
    pub fn new(setup: Setup, keeps_history: bool) -> Rc<Self> {
        Rc::new(Self {
            setup,
            model: RefCell::default(),
            templates: RefCell::default(),
            coverage: RefCell::default(),
            watch: RefCell::default(),
            places: RefCell::default(),
            rotten: RefCell::default(),
            has_rot: Cell::new(false),
            layouts: RefCell::default(),
            is_branch: false,
            licence: Cell::default(),
            in_flight: Cell::new(0),
            answered: Signal::default(),
            broken: RefCell::new(None),
            history: RefCell::new(keeps_history.then(Vec::new)),
        })
    }

    /// Another world with the same past, for trying something out. It counts and tells for itself.
    pub fn branch(&self) -> Rc<Self> {
        Rc::new(Self {
            setup: self.setup,
            model: self.model.clone(),
            templates: self.templates.clone(),
            coverage: RefCell::default(),
            watch: self.watch.clone(),
            places: RefCell::default(),
            rotten: RefCell::default(),
            has_rot: Cell::new(false),
            layouts: RefCell::default(),
            is_branch: true,
            licence: Cell::default(),
            in_flight: Cell::new(0),
            answered: Signal::default(),
            broken: RefCell::new(None),
            history: RefCell::new(None),
        })
    }

    /// Sees everything that this machine writes from now on.
    pub fn watch(self: &Rc<Self>, sim: &Sim) {
        self.places.take();
        let world = self.clone();
        sim.watch(Rc::new(move |request| {
            let seen = world.watch.borrow_mut().see(request);
            world.places.borrow_mut().note(request, &seen);
        }));
    }

    /// Whether a request may be refused because too much waits; counts what waits.
    pub fn excuses_overload(&self, failure: &Failure) -> bool {
        const KINDS: [(&str, &str); 3] = [
            ("writes wait for the disk", "overload: writes refused"),
            ("reads wait for the disk", "overload: reads refused"),
            ("the shard that owns this key", "overload: errands refused"),
        ];
        let kind = KINDS.iter().find(|(words, _)| failure.message.contains(words));
        kind.iter().for_each(|(_, counted)| self.hit(*counted));
        self.setup.tight && kind.is_some()
    }

    /// Counts one.
    pub fn hit(&self, name: impl Into<String>) {
        self.coverage.borrow_mut().hit(name);
    }

    /// Notes that a rule was broken; the first one counts.
    pub fn note_broken(&self, step: u32, broken: Broken) {
        let step = step_of(step);
        self.tell(|| format!("{step:>5} BROKEN {}: {}", broken.rule, broken.detail));
        self.broken.borrow_mut().get_or_insert((step, broken));
    }

    /// Notes the outcome of a check.
    pub fn check(&self, step: u32, judged: Result<(), Broken>) {
        if let Err(broken) = judged {
            self.note_broken(step, broken);
        }
    }

    /// The rule broken first, and at which step.
    pub fn broken(&self) -> Option<(u32, Broken)> {
        self.broken.borrow().clone()
    }

    /// Adds a line to the history, if it is kept.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(history) = &mut *self.history.borrow_mut() {
            history.push(line());
        }
    }

    /// The history so far.
    pub fn take_history(&self) -> Vec<String> {
        self.history.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The schema of a number.
    pub fn schema(number: u64) -> Rc<str> {
        format!("s{number}").into()
    }

    /// The entity of two numbers. Some keys are long, some share prefixes.
    pub fn name(schema: u64, key: u64) -> Name {
        let key = match key % 4 {
            0 => format!("{key}"),
            1 => format!("k{key}"),
            2 => format!("key-with-a-longer-name-{key}"),
            _ => format!("k{key}é"),
        };
        (Self::schema(schema), key.into())
    }
}
