//! `deltadb rewrap`: the keyring of a stopped store under another root key.

use super::arguments::RewrapArguments;
use super::error::CliError;
use super::output::print_line;
use super::root_key::present_key;
use crate::config::{LogFormat, LogLevel, Means, SecretSource};
use crate::{logging, start};
use std::path::{Path, PathBuf};

pub(super) fn run(arguments: RewrapArguments) -> Result<(), CliError> {
    // What the operator must know beside the result, such as a master.key that no longer opens the store.
    logging::start(LogFormat::Text, LogLevel::Warn);
    let data_dir = Path::new(&arguments.data_dir);
    let present = present_key(data_dir, arguments.master_key_file.as_deref(), &|name| std::env::var(name).ok())?;
    let new = SecretSource::File {
        path: PathBuf::from(&arguments.new_master_key_file),
        means: Means::flag("--new-master-key-file"),
    };
    let key_id = start::rewrap(data_dir, &present, &new, arguments.key_id.as_deref())
        .map_err(|error| CliError::Ended { status: error.status, message: error.message })?;
    print_line(&key_id)
}
