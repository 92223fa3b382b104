//! Checkpoints that authenticate and hold any bytes at all.
//!
//! Holds: such a checkpoint is loaded as a whole or reported as damage and forgotten; what is loaded is in order,
//! within the rules of versions, and as many as it says; what the encoder wrote comes back as it was.

use super::input::Input;
use super::log_files::{keyring, options};
use deltadb::limits::VERSION_MAX;
use deltadb::runtime::sim::Sim;
use deltadb::storage::log::fuzzing::{Loaded, chunk_body, load, tail_body};

/// Tries one input: what kind, then chunks.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => round_trip(&mut input),
        1 => {
            let bodies: Vec<&[u8]> = input.rest().split(|byte| *byte == 0xfe).collect();
            judge(&loaded(&bodies));
        }
        _ => {
            // A good checkpoint with a few bytes changed in clear.
            let entities = entities_of(&mut input);
            let named: Vec<_> = entities.iter().map(|(schema, key, version)| (&**schema, &**key, *version)).collect();
            let mut bodies = [chunk_body(&named), tail_body(named.len() as u64)];
            for _ in 0..input.below(6) {
                let (which, at, value) = (input.below(2), usize::from(input.u16()), input.byte());
                let body = &mut bodies[which];
                let len = body.len();
                body[at % len] = value;
            }
            for body in &mut bodies {
                let cut = input.below(64);
                body.truncate(body.len() - cut.saturating_sub(56).min(body.len()));
            }
            judge(&loaded(&bodies.each_ref().map(Vec::as_slice)));
        }
    }
}

/// Checkpoints of a few entities.
pub fn seeds() -> Vec<Vec<u8>> {
    let entities = [3, 1, 2, b'a', b'b', 9, 0, 1, b'c', 8, 1, 1, b'd', 7];
    let tail = tail_body(1);
    let chunk = chunk_body(&[("s", "k", 5)]);
    vec![
        [&[0][..], &entities].concat(),
        [&[2][..], &entities, &[2, 0, 4, 0, 1, 1, 8, 0, 2]].concat(),
        [&[3][..], &entities, &[1, 1, 0, 0, 255, 63, 63]].concat(),
        [&[1][..], &chunk, &[0xfe], &tail].concat(),
        [&[1][..], &tail].concat(),
        vec![1],
    ]
}

fn round_trip(input: &mut Input<'_>) {
    let entities = entities_of(input);
    let named: Vec<_> = entities.iter().map(|(schema, key, version)| (&**schema, &**key, *version)).collect();
    let chunks = input.below(3) + 1;
    let mut bodies: Vec<Vec<u8>> = named.chunks(named.len().div_ceil(chunks).max(1)).map(chunk_body).collect();
    bodies.push(tail_body(named.len() as u64));
    let mut found = loaded(&bodies.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(found.damage, None);
    found.entities.sort();
    assert_eq!(found.entities, entities);
}

/// Entities grouped by schema and in key order, each key once.
fn entities_of(input: &mut Input<'_>) -> Vec<(String, String, u64)> {
    let mut entities: Vec<(String, String, u64)> = (0..input.below(12))
        .map(|_| {
            let schema = format!("s{}", input.below(3));
            let key = String::from_utf8_lossy(input.short_bytes()).into_owned();
            (schema, key, u64::from(input.byte()) + 1)
        })
        .collect();
    entities.sort();
    entities.dedup_by(|one, other| (&one.0, &one.1) == (&other.0, &other.1));
    entities
}

fn loaded(bodies: &[&[u8]]) -> Loaded {
    let sim = Sim::new(5);
    let options = options(&keyring(), false);
    let platform = sim.platform();
    let made = deltadb::runtime::platform::Disk::create_dir_all(
        deltadb::runtime::platform::Platform::disk(&platform),
        &options.directory,
    );
    sim.run_until(made).expect("the machine runs").expect("a directory");
    let loading = load(&platform, &options, bodies);
    sim.run_until(loading).expect("the machine runs").expect("damage is reported, not an error")
}

fn judge(loaded: &Loaded) {
    if loaded.damage.is_some() {
        return assert!(loaded.entities.is_empty(), "part of a damaged checkpoint was taken");
    }
    assert!(loaded.entities.iter().all(|(_, _, version)| *version <= VERSION_MAX));
    let mut names: Vec<(&str, &str)> = loaded.entities.iter().map(|(schema, key, _)| (&**schema, &**key)).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "an entity was taken twice");
}
