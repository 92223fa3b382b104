//! Where an operator gives the root key, and reading it from there: at most one place, files with a check of who can
//! read them. Runs once, before any executor, so it reads files directly.

use super::{RootKey, RootKeyError};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A key file has no reason to be larger.
const KEY_FILE_BYTES_MAX: usize = 4096;

/// Where a root key came from; its text form is fit for the start block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootKeySource {
    /// `--master-key`.
    CommandLine,
    /// `--master-key-file`.
    CommandLineFile(PathBuf),
    /// `$MASTER_KEY`.
    Environment,
    /// `$MASTER_KEY_FILE`.
    EnvironmentFile(PathBuf),
    /// `master-key-file` in the configuration file.
    ConfigurationFile(PathBuf),
    /// `master.key` in the data directory: the default for development.
    DataDirectory(PathBuf),
}

/// A key and how it came.
#[derive(Debug)]
pub struct LoadedRootKey {
    /// The key.
    pub key: RootKey,
    /// From where.
    pub source: RootKeySource,
    /// Whole sentences for the operator.
    pub warnings: Vec<String>,
}

/// Every place where a root key may be given, as configuration found them.
#[derive(Debug, Default)]
pub struct RootKeyInputs {
    /// `--master-key`.
    pub command_line: Option<SecretString>,
    /// `--master-key-file`.
    pub command_line_file: Option<PathBuf>,
    /// `$MASTER_KEY`.
    pub environment: Option<SecretString>,
    /// `$MASTER_KEY_FILE`.
    pub environment_file: Option<PathBuf>,
    /// `master-key-file` in the configuration file.
    pub configuration_file: Option<PathBuf>,
}

impl RootKeyInputs {
    /// Reads the one that is given; `None` when none is. Two are an error, even when they agree.
    pub fn load(self) -> Result<Option<LoadedRootKey>, RootKeyError> {
        let texts = [(self.command_line, RootKeySource::CommandLine), (self.environment, RootKeySource::Environment)];
        let files = [
            self.command_line_file.map(RootKeySource::CommandLineFile),
            self.environment_file.map(RootKeySource::EnvironmentFile),
            self.configuration_file.map(RootKeySource::ConfigurationFile),
        ];
        let texts = texts.into_iter().filter_map(|(text, source)| text.map(|text| (Some(text), source)));
        let files = files.into_iter().flatten().map(|source| (None, source));
        let mut given = texts.chain(files);
        let Some((text, source)) = given.next() else { return Ok(None) };
        if let Some((_, second)) = given.next() {
            return Err(RootKeyError::GivenTwice { first: source.origin().into(), second: second.origin().into() });
        }
        match text {
            Some(text) => from_text(&text, source).map(Some),
            None => from_file(source).map(Some),
        }
    }
}

impl RootKeySource {
    /// The flag, variable or file name, as an operator would type it.
    pub fn origin(&self) -> &'static str {
        match self {
            Self::CommandLine => "--master-key",
            Self::CommandLineFile(_) => "--master-key-file",
            Self::Environment => "$MASTER_KEY",
            Self::EnvironmentFile(_) => "$MASTER_KEY_FILE",
            Self::ConfigurationFile(_) => "master-key-file in the configuration file",
            Self::DataDirectory(_) => "master.key in the data directory",
        }
    }

    /// The file it came from, if it was one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::CommandLine | Self::Environment => None,
            Self::CommandLineFile(path)
            | Self::EnvironmentFile(path)
            | Self::ConfigurationFile(path)
            | Self::DataDirectory(path) => Some(path),
        }
    }
}

impl fmt::Display for RootKeySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => write!(formatter, "{} ({})", path.display(), self.origin()),
            None => formatter.write_str(self.origin()),
        }
    }
}

fn from_text(text: &SecretString, source: RootKeySource) -> Result<LoadedRootKey, RootKeyError> {
    let key = RootKey::parse(text.expose_secret(), source.origin())?;
    let mut warnings = Vec::new();
    if source == RootKeySource::CommandLine {
        warnings.push(
            "--master-key shows the root key to everyone who can list processes: use --master-key-file".to_owned(),
        );
    }
    Ok(LoadedRootKey { key, source, warnings })
}

fn from_file(source: RootKeySource) -> Result<LoadedRootKey, RootKeyError> {
    let path = source.path().unwrap_or(Path::new("")).to_owned();
    let (content, mode) = read_key_file(&path).map_err(|error| RootKeyError::File {
        path: path.clone(),
        origin: source.origin(),
        error,
    })?;
    let unreadable = || RootKeyError::Unreadable { origin: source.to_string() };
    let text = std::str::from_utf8(&content).map_err(|_| unreadable())?;
    let key = RootKey::parse(text, &source.to_string())?;
    let mut warnings = Vec::new();
    if mode & 0o077 != 0 {
        warnings.push(format!(
            "{} holds the root key and is open to other users (mode {:03o}): chmod 600 it",
            path.display(),
            mode & 0o777
        ));
    }
    Ok(LoadedRootKey { key, source, warnings })
}

/// The content in memory that is wiped, and the mode of the very file that was read.
fn read_key_file(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    // Reserved whole, so that growing leaves no copy of the key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX + 1));
    file.take(KEY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut content)?;
    if content.len() > KEY_FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large for a root key"));
    }
    Ok((content, mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn hex(byte: u8) -> String {
        hex::encode([byte; 32])
    }

    fn file(directory: &tempfile::TempDir, content: &str, mode: u32) -> PathBuf {
        let path = directory.path().join("root.key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn nothing_given_is_no_key() {
        assert!(RootKeyInputs::default().load().unwrap().is_none());
    }

    #[test]
    fn reads_each_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, &format!("{}\n", hex(5)), 0o600);
        let text = || Some(SecretString::from(hex(5)));
        let path = || Some(path.clone());
        let cases = [
            (RootKeyInputs { command_line: text(), ..Default::default() }, "--master-key", 1),
            (RootKeyInputs { environment: text(), ..Default::default() }, "$MASTER_KEY", 0),
            (RootKeyInputs { command_line_file: path(), ..Default::default() }, "--master-key-file", 0),
            (RootKeyInputs { environment_file: path(), ..Default::default() }, "$MASTER_KEY_FILE", 0),
            (RootKeyInputs { configuration_file: path(), ..Default::default() }, "master-key-file in the", 0),
        ];
        for (inputs, origin, warnings) in cases {
            let loaded = inputs.load().unwrap().unwrap();
            assert_eq!(loaded.key.id(), RootKey::from_bytes(&[5; 32]).id());
            assert!(loaded.source.origin().starts_with(origin));
            assert_eq!(loaded.warnings.len(), warnings, "{:?}", loaded.warnings);
            assert!(!format!("{loaded:?} {}", loaded.source).contains(&hex(5)));
        }
    }

    #[test]
    fn two_places_are_refused_by_name() {
        let inputs = RootKeyInputs {
            environment: Some(hex(1).into()),
            command_line_file: Some("/nowhere".into()),
            ..Default::default()
        };
        assert_eq!(
            inputs.load().unwrap_err().to_string(),
            "the root key is given twice, by $MASTER_KEY and by --master-key-file: keep one of them"
        );
    }

    #[test]
    fn a_file_open_to_others_is_warned_about() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, &hex(5), 0o640);
        let inputs = RootKeyInputs { command_line_file: Some(path), ..Default::default() };
        let warnings = inputs.load().unwrap().unwrap().warnings;
        assert!(warnings[0].contains("mode 640"), "{warnings:?}");
    }

    #[test]
    fn files_that_are_missing_huge_or_not_text_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let load = |path: PathBuf| RootKeyInputs { environment_file: Some(path), ..Default::default() }.load();
        let missing = load(directory.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none given by $MASTER_KEY_FILE"), "{missing}");
        let huge = load(file(&directory, &"0".repeat(KEY_FILE_BYTES_MAX + 1), 0o600)).unwrap_err().to_string();
        assert!(huge.contains("too large"), "{huge}");
        let path = file(&directory, "", 0o600);
        fs::write(&path, [0xff; 32]).unwrap();
        let raw = load(path).unwrap_err().to_string();
        assert!(raw.contains("root.key ($MASTER_KEY_FILE) holds no root key"), "{raw}");
    }
}
