//! Which root key opens the store that an offline command works on.

use super::error::CliError;
use crate::config::{MASTER_KEY_FILE, Means, MeansKind, SecretSource, choose_secret};
use std::path::Path;

/// The key given by flag or variable, else the store's own `master.key`. Two means are an error.
pub(super) fn present_key(
    data_dir: &Path,
    master_key_file: Option<&str>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<SecretSource, CliError> {
    let file = |path: String, means: Means| SecretSource::File { path: path.into(), means };
    let mut sources: Vec<SecretSource> =
        master_key_file.map(|path| file(path.to_owned(), Means::flag("--master-key-file"))).into_iter().collect();
    for name in ["MASTER_KEY_FILE", "DELTA_MASTER_KEY_FILE"] {
        sources.extend(variable(name).map(|path| file(path, Means::variable(name))));
    }
    for name in ["MASTER_KEY", "DELTA_MASTER_KEY"] {
        sources.extend(
            variable(name).map(|secret| SecretSource::Value { secret: secret.into(), means: Means::variable(name) }),
        );
    }
    let means = Means { kind: MeansKind::Default, text: "the store's own key file".into() };
    let own = SecretSource::File { path: data_dir.join(MASTER_KEY_FILE), means };
    Ok(choose_secret("master key", sources)?.unwrap_or(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_key_is_the_one_given_or_the_stores_own() {
        let data_dir = Path::new("/data");
        let own = present_key(data_dir, None, &|_| None).unwrap();
        assert!(matches!(own, SecretSource::File { path, .. } if path == Path::new("/data/master.key")));
        let given = present_key(data_dir, Some("/old"), &|_| None).unwrap();
        assert!(matches!(given, SecretSource::File { path, .. } if path == Path::new("/old")));
        let variable = |name: &str| (name == "MASTER_KEY").then(|| "00".to_owned());
        assert!(present_key(data_dir, Some("/old"), &variable).is_err());
        assert_eq!(present_key(data_dir, None, &variable).unwrap().means().text, "$MASTER_KEY");
    }
}
