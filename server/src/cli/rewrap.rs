//! `deltadb rewrap`: the keyring of a stopped store under another root key.

use super::arguments::RewrapArguments;
use super::error::CliError;
use super::output::print_line;
use crate::config::{LogFormat, LogLevel, MASTER_KEY_FILE, Means, MeansKind, SecretSource, choose_secret};
use crate::{logging, start};
use std::path::{Path, PathBuf};

pub(super) fn run(arguments: RewrapArguments) -> Result<(), CliError> {
    // What the operator must know beside the result, such as a master.key that no longer opens the store.
    logging::start(LogFormat::Text, LogLevel::Warn);
    let present = present_key(&arguments, &|name| std::env::var(name).ok())?;
    let new = SecretSource::File {
        path: PathBuf::from(&arguments.new_master_key_file),
        means: Means::flag("--new-master-key-file"),
    };
    let key_id = start::rewrap(Path::new(&arguments.data_dir), &present, &new, arguments.key_id.as_deref())
        .map_err(|error| CliError::Ended { status: error.status, message: error.message })?;
    print_line(&key_id)
}

fn present_key(
    arguments: &RewrapArguments,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<SecretSource, CliError> {
    let file = |path: String, means: Means| SecretSource::File { path: path.into(), means };
    let mut sources: Vec<SecretSource> = arguments
        .master_key_file
        .clone()
        .map(|path| file(path, Means::flag("--master-key-file")))
        .into_iter()
        .collect();
    for name in ["MASTER_KEY_FILE", "DELTA_MASTER_KEY_FILE"] {
        sources.extend(variable(name).map(|path| file(path, Means::variable(name))));
    }
    for name in ["MASTER_KEY", "DELTA_MASTER_KEY"] {
        sources.extend(
            variable(name).map(|secret| SecretSource::Value { secret: secret.into(), means: Means::variable(name) }),
        );
    }
    let own = Path::new(&arguments.data_dir).join(MASTER_KEY_FILE);
    let own = SecretSource::File {
        path: own,
        means: Means { kind: MeansKind::Default, text: "the store's own key file".into() },
    };
    Ok(choose_secret("master key", sources)?.unwrap_or(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(file: Option<&str>) -> RewrapArguments {
        RewrapArguments {
            data_dir: "/data".into(),
            master_key_file: file.map(str::to_owned),
            new_master_key_file: "/new".into(),
            key_id: None,
        }
    }

    #[test]
    fn the_present_key_is_the_one_given_or_the_stores_own() {
        let own = present_key(&arguments(None), &|_| None).unwrap();
        assert!(matches!(own, SecretSource::File { path, .. } if path == Path::new("/data/master.key")));
        let given = present_key(&arguments(Some("/old")), &|_| None).unwrap();
        assert!(matches!(given, SecretSource::File { path, .. } if path == Path::new("/old")));
        let variable = |name: &str| (name == "MASTER_KEY").then(|| "00".to_owned());
        assert!(present_key(&arguments(Some("/old")), &variable).is_err());
        assert_eq!(present_key(&arguments(None), &variable).unwrap().means().text, "$MASTER_KEY");
    }
}
