//! `deltadb ping`: one round trip after the handshake, timed.

use super::arguments::PlainArguments;
use super::connection::Connection;
use super::error::CliError;
use super::output::print_line;
use std::time::Instant;

pub(super) fn run(arguments: PlainArguments) -> Result<(), CliError> {
    let mut connection = Connection::open(&arguments.client)?;
    let sent = Instant::now();
    connection.ping()?;
    print_line(&format!("pong from {} in {:.3} ms", arguments.client.addr, sent.elapsed().as_secs_f64() * 1e3))
}
