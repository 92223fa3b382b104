//! `deltadb put`: a document from a file or stdin; silent when it is durable, unless asked.

use super::arguments::PutArguments;
use super::connection::Connection;
use super::error::CliError;
use super::output::{print_line, read_input, remark};
use delta_wire::{Condition, Written};

pub(super) fn run(arguments: PutArguments) -> Result<(), CliError> {
    let document = read_input(&arguments.file)?;
    let condition = match (arguments.condition.if_version, arguments.condition.if_absent) {
        (Some(version), _) => Condition::IfVersion(version),
        (None, true) => Condition::IfAbsent,
        (None, false) => Condition::None,
    };
    let mut connection = Connection::open(&arguments.client)?;
    let Written { version, created } = connection.put(&arguments.schema, &arguments.key, &document, condition)?;
    let verb = if created { "created" } else { "replaced" };
    remark(arguments.client.verbose, &format!("{verb}, version {version}"));
    if arguments.json {
        print_line(&serde_json::json!({ "version": version, "created": created }).to_string())?;
    }
    Ok(())
}
