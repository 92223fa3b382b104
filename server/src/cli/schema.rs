//! `deltadb schema`: JSON Schema templates.

use super::arguments::{SchemaAction, SchemaArguments};
use super::connection::Connection;
use super::error::CliError;
use super::output::{lines, print_bytes, read_input, remark};
use std::io::Write;

pub(super) fn run(arguments: SchemaArguments) -> Result<(), CliError> {
    match arguments.action {
        SchemaAction::Put { id, file, client } => {
            let template = read_input(&file)?;
            let created = Connection::open(&client)?.schema_put(&id, &template)?;
            remark(client.verbose, if created { "created" } else { "replaced" });
            Ok(())
        }
        SchemaAction::Get { id, client } => print_bytes(&Connection::open(&client)?.schema_get(&id)?),
        SchemaAction::Delete { id, client } => {
            Connection::open(&client)?.schema_delete(&id)?;
            remark(client.verbose, "deleted");
            Ok(())
        }
        SchemaAction::List { client } => {
            let mut output = lines();
            for id in Connection::open(&client)?.schema_list()? {
                writeln!(output, "{id}").map_err(CliError::of_output)?;
            }
            output.flush().map_err(CliError::of_output)
        }
    }
}
