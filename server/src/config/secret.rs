//! A secret and the one means by which it was given.
//!
//! The value is zeroized on drop and shown by neither `Debug` nor an error. A file is read only when asked, once.

use super::ConfigError;
use secrecy::{ExposeSecret, SecretString};
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Longest secret file that is read.
const SECRET_BYTES_MAX: u64 = 4096;

/// Which kind of means gave a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeansKind {
    /// A flag.
    Flag,
    /// An environment variable.
    Variable,
    /// A key of the configuration file.
    ConfigFile,
    /// Nobody gave it: it is where the product keeps it.
    Default,
}

/// By what a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Means {
    /// The kind.
    pub kind: MeansKind,
    /// As an operator would write it: `--flag`, `$VARIABLE`, or key and file.
    pub text: String,
}

impl Means {
    /// A flag, with its dashes.
    pub fn flag(text: &str) -> Self {
        Self { kind: MeansKind::Flag, text: text.to_owned() }
    }

    /// A variable, without its dollar.
    pub fn variable(name: &str) -> Self {
        Self { kind: MeansKind::Variable, text: format!("${name}") }
    }
}

/// How a secret was given.
#[derive(Clone)]
pub enum SecretSource {
    /// The value itself.
    Value {
        /// The secret.
        secret: SecretString,
        /// The flag or variable.
        means: Means,
    },
    /// A file that holds it.
    File {
        /// Its path.
        path: PathBuf,
        /// The flag, variable or key that named it.
        means: Means,
    },
}

impl SecretSource {
    /// The flag, variable or key by which it was given, for the start block and errors.
    pub fn means(&self) -> &Means {
        match self {
            SecretSource::Value { means, .. } | SecretSource::File { means, .. } => means,
        }
    }

    /// The secret as text, without trailing line ends.
    pub fn read_text(&self) -> Result<SecretString, ConfigError> {
        let bytes = self.read_bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| self.error("the secret is not text (UTF-8)".into()))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(self.error("the secret is empty".into()));
        }
        Ok(SecretString::from(text))
    }

    /// The secret as a bearer credential: text that an HTTP header can carry.
    pub fn read_credential(&self) -> Result<SecretString, ConfigError> {
        let text = self.read_text()?;
        if text.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(text);
        }
        Err(self.error("the key holds a space, a control character or a letter beyond ASCII; choose another".into()))
    }

    /// The bytes as they are, for keys that may be raw.
    pub fn read_bytes(&self) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
        let path = match self {
            SecretSource::Value { secret, .. } => {
                return Ok(Zeroizing::new(secret.expose_secret().as_bytes().to_vec()));
            }
            SecretSource::File { path, .. } => path,
        };
        read_bounded(path).map_err(|reason| self.error(format!("{}: {reason}", path.display())))
    }

    fn error(&self, reason: String) -> ConfigError {
        ConfigError::Secret { means: self.means().text.clone(), reason }
    }
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SecretSource::Value { means, .. } => write!(formatter, "value by {}", means.text),
            SecretSource::File { path, means } => write!(formatter, "file {} by {}", path.display(), means.text),
        }
    }
}

/// Takes the one source of a secret; two are an error that names both means.
pub fn choose_secret(what: &str, sources: Vec<SecretSource>) -> Result<Option<SecretSource>, ConfigError> {
    let mut sources = sources.into_iter();
    let Some(first) = sources.next() else { return Ok(None) };
    if let Some(second) = sources.next() {
        return Err(ConfigError::SecretTwice {
            what: what.to_owned(),
            first: first.means().text.clone(),
            second: second.means().text.clone(),
        });
    }
    if let SecretSource::Value { secret, means } = &first
        && secret.expose_secret().is_empty()
    {
        return Err(ConfigError::Secret { means: means.text.clone(), reason: "the secret is empty".into() });
    }
    Ok(Some(first))
}

/// Reads a small file without leaving copies of it behind.
fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    // Room for all that may be read, so that the vector never moves and leaves its content in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX as usize + 1));
    let read = file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes);
    match read {
        Ok(count) if count as u64 <= SECRET_BYTES_MAX => Ok(bytes),
        Ok(_) => {
            bytes.zeroize();
            Err(format!("is longer than {SECRET_BYTES_MAX} bytes, which is no key"))
        }
        Err(error) => Err(error.to_string()),
    }
}
