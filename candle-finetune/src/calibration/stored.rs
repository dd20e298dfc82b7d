//! A bundle's calibration: a field of our own in its `config.json`, which timm passes over.

use std::fs;
use std::io::Write;
use std::path::Path;

use candle_resnet::config::temperature;
use serde_json::{Map, Value};

use super::Calibration;
use crate::error::{Error, Result, io_error};

/// The field's name.
pub const FIELD: &str = "calibration";

/// Where it is.
const CONFIG: &str = "config.json";

/// The field of its curve.
const CURVE: &str = "risk_coverage";

/// What the bundle `folder` says of its calibration; nothing where it says nothing, or is no folder. A field without a temperature within
/// [`RANGE`](super::RANGE) is another program's and says nothing here, as where the model is loaded; nor does one without a curve.
///
/// # Errors
/// If its `config.json` cannot be read, or the curve of a calibration of ours makes no sense.
pub fn read(folder: &Path) -> Result<Option<Calibration>> {
    let path = folder.join(CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let Some(field) = read_config(&path)?.remove(FIELD) else { return Ok(None) };
    if temperature(&field).is_err() {
        return Ok(None);
    }
    if field.get(CURVE).is_none() {
        tracing::warn!("{}: `calibration` has no `{CURVE}`, so that nothing is known of wrong answers", path.display());
        return Ok(None);
    }
    serde_json::from_value(field).map(Some).map_err(|error| Error::Calibration { path, reason: error.to_string() })
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
    fn one_of_ours_that_makes_no_sense_is_named() {
        let error = |config: &str| read(bundle(config).path()).unwrap_err().to_string();
        assert!(error("no").contains("config.json: "));
        for curve in ["3", "null", "\"0.9 many 0\""] {
            let config = format!(r#"{{"calibration": {{"temperature": 1.5, "risk_coverage": {curve}}}}}"#);
            assert!(error(&config).contains("config.json: `calibration`: "));
        }
    }

    #[test]
    fn one_of_another_program_is_none() {
        let read = |field: &str| read(bundle(&format!(r#"{{"calibration": {field}}}"#)).path()).unwrap();
        for field in ["3", "\"auto\"", "[1.5]", r#"{"bins": 15}"#, r#"{"temperature": 1.5}"#] {
            assert_eq!(read(field), None);
        }
        for temperature in ["0.0", "1e-310", "1001", "null", "\"auto\""] {
            assert_eq!(read(&format!(r#"{{"risk_coverage": "0 4 0", "temperature": {temperature}}}"#)), None);
        }
    }
}
