//! A bundle's calibration: a field of our own in its `config.json`, which timm passes over.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Calibration, RANGE};
use crate::error::{Error, Result, io_error};

/// The field's name.
pub const FIELD: &str = "calibration";

/// Where it is.
const CONFIG: &str = "config.json";

/// What the bundle `folder` says of its calibration; nothing where it says nothing, or is no folder.
///
/// # Errors
/// If its `config.json` cannot be read, or says it in another way.
pub fn read(folder: &Path) -> Result<Option<Calibration>> {
    let path = folder.join(CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let Some(field) = read_config(&path)?.remove(FIELD) else { return Ok(None) };
    let malformed = |reason: String| Error::Calibration { path: path.clone(), reason };
    let calibration: Calibration = serde_json::from_value(field).map_err(|error| malformed(error.to_string()))?;
    if !(RANGE.start() * 0.99..=RANGE.end() * 1.01).contains(&calibration.temperature) {
        return Err(malformed(format!("`temperature` is {}, expected from 0.001 to 1000", calibration.temperature)));
    }
    Ok(Some(calibration))
}

/// Writes it into the bundle `folder`; whatever else its `config.json` says stays. Beside the file first, then renamed.
///
/// # Errors
/// If there is no `config.json`, or it cannot be read or replaced.
pub fn write(folder: &Path, calibration: &Calibration) -> Result<()> {
    let path = folder.join(CONFIG);
    let mut config = read_config(&path)?;
    config.insert(FIELD.into(), to_value(calibration));
    let permissions = fs::metadata(&path).map_err(io_error(&path))?.permissions();
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io_error(folder))?;
    writeln!(file, "{:#}", Value::Object(config)).map_err(io_error(&path))?;
    file.as_file().set_permissions(permissions).map_err(io_error(&path))?;
    file.as_file().sync_all().map_err(io_error(&path))?;
    file.persist(&path).map_err(|error| io_error(&path)(error.error))?;
    Ok(())
}

/// As it stands in the file.
pub fn to_value(calibration: &Calibration) -> Value {
    serde_json::to_value(calibration).unwrap_or_default() // Numbers and lists always are JSON.
}

fn read_config(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read_to_string(path).map_err(io_error(path))?;
    serde_json::from_str(&text).map_err(|error| Error::Calibration { path: path.into(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::{Answer, RiskCoverage};

    fn bundle(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG), config).unwrap();
        folder
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_stays() {
        let answers = [(0.987654321, true), (0.5, false), (0.25, true)];
        let answers = answers.map(|(confidence, right)| Answer { confidence, right });
        let calibration = Calibration { temperature: 1.0 / 3.0, risk_coverage: RiskCoverage::of(answers.to_vec()) };
        let bundle = bundle(r#"{"z": 1, "architecture": "resnet18", "calibration": "old", "a": [2]}"#);
        write(bundle.path(), &calibration).unwrap();
        assert_eq!(read(bundle.path()).unwrap(), Some(calibration));
        let config = read_config(&bundle.path().join(CONFIG)).unwrap();
        assert_eq!(config.keys().collect::<Vec<_>>(), ["z", "architecture", "calibration", "a"]);
        assert_eq!(fs::read_dir(bundle.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bundle_without_it_has_none() {
        assert_eq!(read(bundle("{}").path()).unwrap(), None);
        assert_eq!(read(Path::new("gone")).unwrap(), None);
    }

    #[test]
    fn one_that_makes_no_sense_is_named() {
        let error = |config| read(bundle(config).path()).unwrap_err().to_string();
        assert!(error("no").contains("config.json: "));
        assert!(error(r#"{"calibration": 3}"#).contains("config.json: `calibration`"));
        let zero = r#"{"calibration": {"temperature": 0.0, "risk_coverage": ""}}"#;
        assert!(error(zero).contains("`temperature` is 0, expected"));
    }
}
