//! The command line: argv to a configuration to a start, or to one request over the wire protocol.
//!
//! One file a subcommand. Results go to stdout and nothing else does, so that they pipe; everything said to a person
//! goes to stderr; the exit status says how it ended (`exit.rs`). No key is ever printed.

mod arguments;
mod check;
mod connection;
mod delete;
mod endpoint;
mod error;
mod get;
mod list;
mod output;
mod ping;
mod put;
mod rewrap;
mod root_key;
mod rotate_key;
mod schema;
mod serve;
mod stats;

use arguments::{Arguments, Subcommand};
use clap::Parser;
use error::CliError;
use std::process::ExitCode;

/// Runs what the command line asks for; the whole of `main`.
pub fn run() -> ExitCode {
    let result = match Arguments::parse().subcommand {
        Subcommand::Serve(flags) => serve::run(flags),
        Subcommand::Get(arguments) => get::run(arguments),
        Subcommand::Put(arguments) => put::run(arguments),
        Subcommand::Delete(arguments) => delete::run(arguments),
        Subcommand::List(arguments) => list::run(arguments),
        Subcommand::Schema(arguments) => schema::run(arguments),
        Subcommand::Stats(arguments) => stats::run(arguments),
        Subcommand::Ping(arguments) => ping::run(arguments),
        Subcommand::RotateKey(arguments) => rotate_key::run(arguments),
        Subcommand::Rewrap(arguments) => rewrap::run(arguments),
        Subcommand::Check(arguments) => check::run(arguments),
    };
    finish(result)
}

fn finish(result: Result<(), CliError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(text) = error.text() {
        // Nobody may be left to read this; the status tells all the same.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("deltadb: {text}\n").as_bytes());
    }
    error.status().into()
}
