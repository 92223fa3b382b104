//! Where values come from: flags over variables over the configuration file, each value with its place.

use super::secret::{Means, MeansKind, SecretSource, choose_secret};
use super::{ConfigError, parse};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// One thing that can be set, by any of the three means.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes, and the key in the file.
    pub name: &'static str,
    /// Other names of the same thing.
    pub aliases: &'static [&'static str],
    /// Variables beside `DELTA_<NAME>`.
    pub variables: &'static [&'static str],
    /// Whether the value itself is a secret.
    pub secret: bool,
}

/// Everything `deltadb serve` can be told, but `--config` itself.
pub const SETTINGS: [Setting; 20] = [
    Setting { aliases: &["shared-fs"], ..plain("data-dir") },
    plain("rest-addr"),
    plain("wire-addr"),
    plain("wire-socket"),
    plain("wire-shard-base-port"),
    plain("shards"),
    plain("cache-bytes"),
    plain("cache-size"),
    plain("cache-ttl"),
    Setting { variables: &["ADMIN_KEY"], secret: true, ..plain("admin-key") },
    plain("admin-key-file"),
    Setting { variables: &["MASTER_KEY"], secret: true, ..plain("master-key") },
    Setting { variables: &["MASTER_KEY_FILE"], ..plain("master-key-file") },
    plain("key-id"),
    plain("rest-max-body-size"),
    plain("log-format"),
    plain("log-level"),
    plain("spin-us"),
    plain("salvage"),
    // Kept last: it only says where the file is, and never comes from it.
    plain("config"),
];

/// What the names of variables begin with.
const VARIABLE_PREFIX: &str = "DELTA_";
/// Variables that only the client subcommands hear.
pub const CLIENT_VARIABLES: [&str; 4] = ["DELTA_ADDR", "DELTA_KEY", "DELTA_KEY_FILE", "DELTA_TIMEOUT"];

impl Setting {
    /// Every variable that sets it.
    pub fn variable_names(&self) -> Vec<String> {
        let own = std::iter::once(&self.name).chain(self.aliases).map(|name| variable_name(name));
        own.chain(self.variables.iter().map(|name| (*name).to_owned())).collect()
    }
}

/// A value and its place.
struct Given {
    value: Zeroizing<String>,
    means: Means,
}

/// All values of all means; the first of a name is the one that counts.
pub(super) struct Layers {
    given: BTreeMap<&'static str, Vec<Given>>,
}

impl Layers {
    /// Collects from the three means, most telling first.
    pub(super) fn collect(
        flags: Vec<(&'static str, String)>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Self { given: BTreeMap::new() };
        for (name, value) in flags {
            layers.add(name, value, Means::flag(&format!("--{name}")));
        }
        for setting in &SETTINGS {
            for name in setting.variable_names() {
                let Some(value) = variable(&name) else { continue };
                let means = Means::variable(&name);
                let value = value.into_string().map_err(|_| ConfigError::Value {
                    place: means.text.clone(),
                    reason: "the value is not text (UTF-8)".into(),
                })?;
                layers.add(setting.name, value, means);
            }
        }
        if let Some(path) = layers.parsed("config", parse::parse_path)? {
            layers.add_file(&path)?;
        }
        Ok(layers)
    }

    /// The value of a setting, parsed; an error names its place.
    pub(super) fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.given.get(name).and_then(|all| all.first()) else { return Ok(None) };
        match parse(&given.value) {
            Ok(value) => Ok(Some(value)),
            Err(reason) => Err(ConfigError::Value { place: given.means.text.clone(), reason }),
        }
    }

    /// The value of a setting or its default, parsed alike.
    pub(super) fn parsed_or<T>(
        &self,
        name: &'static str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        match self.parsed(name, &parse)? {
            Some(value) => Ok(value),
            None => {
                parse(default).map_err(|reason| ConfigError::Value { place: format!("default of --{name}"), reason })
            }
        }
    }

    /// The one source of a secret that may be given as a value or as a file.
    pub(super) fn secret(
        &self,
        value_name: &'static str,
        file_name: &'static str,
    ) -> Result<Option<SecretSource>, ConfigError> {
        let values = self.all(value_name).map(|given| SecretSource::Value {
            secret: SecretString::from(given.value.as_str()),
            means: given.means.clone(),
        });
        let files = self
            .all(file_name)
            .map(|given| SecretSource::File { path: given.value.as_str().into(), means: given.means.clone() });
        choose_secret(&value_name.replace('-', " "), values.chain(files).collect())
    }

    fn all(&self, name: &'static str) -> impl Iterator<Item = &Given> {
        self.given.get(name).into_iter().flatten()
    }

    fn add(&mut self, name: &'static str, value: String, means: Means) {
        self.given.entry(name).or_default().push(Given { value: Zeroizing::new(value), means });
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let text = Zeroizing::new(text);
        // The parser's full message quotes the line, which may hold a secret that does not belong there.
        let table = text
            .parse::<toml::Table>()
            .map_err(|error| failed(format!("{}{}", error.message(), line_of(&text, error.span()))))?;
        let mut seen: BTreeMap<&'static str, String> = BTreeMap::new();
        for (key, value) in table {
            let setting = known_key(&key, path)?;
            if setting.secret {
                return Err(ConfigError::SecretInFile { key: setting.name.into(), path: path.to_owned() });
            }
            let place = format!("{key} in {}", path.display());
            if let Some(other) = seen.insert(setting.name, key.clone()) {
                return Err(ConfigError::Value {
                    place,
                    reason: format!("is the same setting as '{other}'; keep one"),
                });
            }
            let value = scalar(value).ok_or_else(|| ConfigError::Value {
                place: place.clone(),
                reason: "a string, a whole number or a boolean is expected".into(),
            })?;
            self.add(setting.name, value, Means { kind: MeansKind::ConfigFile, text: place });
        }
        Ok(())
    }
}

/// Of these variables, those that look like settings of this program and are none: most likely misspelt.
pub fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = SETTINGS.iter().flat_map(Setting::variable_names).collect();
    let of_clients = |name: &str| CLIENT_VARIABLES.contains(&name);
    let texts = names.filter_map(|name| name.into_string().ok());
    texts.filter(|name| name.starts_with(VARIABLE_PREFIX) && !known.contains(name) && !of_clients(name)).collect()
}

const fn plain(name: &'static str) -> Setting {
    Setting { name, aliases: &[], variables: &[], secret: false }
}

fn variable_name(name: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", name.replace('-', "_").to_ascii_uppercase())
}

fn known_key(key: &str, path: &Path) -> Result<&'static Setting, ConfigError> {
    let name = key.replace('_', "-");
    let known = SETTINGS.iter().filter(|setting| setting.name != "config");
    let mut known = known.filter(|setting| setting.name == name || setting.aliases.contains(&name.as_str()));
    known.next().ok_or_else(|| ConfigError::UnknownKey {
        key: key.to_owned(),
        path: PathBuf::from(path),
        hint: "keys are the flags of 'deltadb serve --help' without their dashes".into(),
    })
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else { return String::new() };
    format!(" (line {})", before.matches('\n').count() + 1)
}
