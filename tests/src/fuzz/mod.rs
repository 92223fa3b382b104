//! Fuzz targets as plain functions: bytes in, a panic when a property is broken.
//!
//! `tests/fuzz` gives them to libFuzzer, and `tests/tests/fuzz_corpus.rs` replays their corpora and mutates their
//! seeds in an ordinary test, so what was found once is found again without a fuzzer. A target asserts what must hold
//! of any input (verdicts that agree, exactly one reply, nothing served that was never written), not only that nothing
//! crashes. A target is repeatable: the same bytes make the same run.

pub mod input;

mod checkpoint_bodies;
mod config_layers;
mod entity_map;
mod http_requests;
mod index_operations;
mod json_text;
mod log_files;
mod schema_verdicts;
mod served_commands;
mod store_files;
mod wire_frames;
mod wire_gateway;

/// One fuzz target.
pub struct Target {
    /// Its name: of its binary in `tests/fuzz`, and of its directory in `tests/fuzz/corpus`.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
    /// Inputs made by the product's own encoders, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 12] = [
    Target { name: "checkpoint_bodies", run: checkpoint_bodies::run, seeds: checkpoint_bodies::seeds },
    Target { name: "config_layers", run: config_layers::run, seeds: config_layers::seeds },
    Target { name: "entity_map", run: entity_map::run, seeds: entity_map::seeds },
    Target { name: "http_requests", run: http_requests::run, seeds: http_requests::seeds },
    Target { name: "index_operations", run: index_operations::run, seeds: index_operations::seeds },
    Target { name: "json_text", run: json_text::run, seeds: json_text::seeds },
    Target { name: "log_files", run: log_files::run, seeds: log_files::seeds },
    Target { name: "schema_verdicts", run: schema_verdicts::run, seeds: schema_verdicts::seeds },
    Target { name: "served_commands", run: served_commands::run, seeds: served_commands::seeds },
    Target { name: "store_files", run: store_files::run, seeds: store_files::seeds },
    Target { name: "wire_frames", run: wire_frames::run, seeds: wire_frames::seeds },
    Target { name: "wire_gateway", run: wire_gateway::run, seeds: wire_gateway::seeds },
];

/// Runs one target by name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no fuzz target '{name}'")).run)(data);
}
