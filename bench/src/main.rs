//! The command line of `delta-bench`.

mod arguments;
mod compare;
mod run;

use arguments::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(flags) => run::run(&flags),
        Command::Compare(flags) => compare::run(&flags),
        Command::Limits(flags) => compare::run_limits(&flags),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("delta-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
