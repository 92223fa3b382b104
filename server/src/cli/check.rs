//! `deltadb check`: everything a stopped store holds, read and authenticated.

use super::arguments::CheckArguments;
use super::error::CliError;
use super::output::lines;
use super::root_key::present_key;
use crate::config::{LogFormat, LogLevel};
use crate::exit::ExitStatus;
use crate::{logging, start};
use std::io::{self, Write};
use std::path::Path;

pub(super) fn run(arguments: CheckArguments) -> Result<(), CliError> {
    logging::start(LogFormat::Text, LogLevel::Warn);
    let data_dir = Path::new(&arguments.data_dir);
    let present = present_key(data_dir, arguments.master_key_file.as_deref(), &|name| std::env::var(name).ok())?;
    let report = start::check(data_dir, &present, arguments.key_id.as_deref())
        .map_err(|error| CliError::Ended { status: error.status, message: error.message })?;
    for remark in &report.remarks {
        tracing::warn!("{remark}");
    }
    print(&report).map_err(CliError::of_output)?;
    match report.damage.len() {
        0 => Ok(()),
        places => {
            let message = format!(
                "{places} damaged {}: restore from a backup, or read what is intact with serve --salvage",
                if places == 1 { "place" } else { "places" }
            );
            Err(CliError::Ended { status: ExitStatus::StoreDamaged, message })
        }
    }
}

fn print(report: &start::CheckReport) -> io::Result<()> {
    let mut output = lines();
    for damage in &report.damage {
        writeln!(output, "{damage}")?;
    }
    let start::CheckReport { shards, files, bytes, frames, records, documents, .. } = report;
    writeln!(
        output,
        "{}: {shards} shards, {files} files, {bytes} bytes, {frames} frames, {records} records, {documents} documents",
        if report.damage.is_empty() { "sound" } else { "damaged" }
    )?;
    output.flush()
}
