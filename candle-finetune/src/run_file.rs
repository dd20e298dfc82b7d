//! `run.toml`: what a run was asked to do, so that it can be repeated, and what followed from that.

use std::fs;
use std::path::{Path, PathBuf};

use candle_resnet::preprocess::Preprocessing;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io_error};
use crate::finetuning::{Derived, Settings};

/// What a run was, beside its settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunRecord {
    /// The folder that relative paths are meant from; the current one if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The data set's folder.
    pub data: PathBuf,
    /// The model's name as it was asked for.
    pub model: String,
    /// The weights file that was given beside it.
    pub weights: Option<PathBuf>,
    /// The channels of images that were asked for.
    pub in_chans: Option<usize>,
    /// Whether weights were drawn rather than loaded.
    pub no_pretrained: bool,
    /// Where it ran.
    pub device: String,
    /// What the frozen form computed in.
    pub precision: String,
}

impl RunRecord {
    /// The same with paths that mean the same in the current folder.
    pub fn seen_from_here(self) -> RunRecord {
        let RunRecord { folder, data, model, weights, .. } = &self;
        let here = std::env::current_dir().ok();
        let Some(folder) = folder.as_ref().filter(|folder| here.as_ref() != Some(folder)) else {
            return RunRecord { folder: None, ..self };
        };
        let (data, weights) = (folder.join(data), weights.as_ref().map(|weights| folder.join(weights)));
        let model = match folder.join(model) {
            // A name is one anywhere.
            model_folder if model_folder.is_dir() => model_folder.to_string_lossy().into_owned(),
            _ => model.clone(),
        };
        RunRecord { folder: None, data, model, weights, ..self }
    }

    /// The same with relative paths meant from the current folder, wherever it is read.
    pub fn begun_here(self) -> RunRecord {
        RunRecord { folder: std::env::current_dir().ok(), ..self }
    }
}

/// The content of a `run.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunFile {
    /// Version of the program that wrote it.
    pub version: String,
    /// Data and model.
    pub run: RunRecord,
    /// What happened to a photo before the network saw it.
    pub preprocessing: Preprocessing,
    /// Everything else that was asked for.
    pub settings: Settings,
    /// What followed from it; told, and never read.
    #[serde(skip_deserializing)]
    pub derived: Derived,
}

impl RunFile {
    /// What this version of the program was asked to do.
    pub fn new(run: &RunRecord, preprocessing: &Preprocessing, settings: &Settings, derived: &Derived) -> RunFile {
        RunFile {
            version: env!("CARGO_PKG_VERSION").into(),
            run: run.clone(),
            preprocessing: preprocessing.clone(),
            settings: settings.clone(),
            derived: derived.clone(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or says what no run can be asked to do.
    pub fn read(path: &Path) -> Result<RunFile> {
        if path.is_dir() {
            let reason = "is a folder, expected the file `run.toml` of a bundle".into();
            return Err(Error::RunFile { path: path.into(), reason });
        }
        let text = fs::read_to_string(path).map_err(io_error(path))?;
        toml::from_str(&text).map_err(|error| Error::RunFile { path: path.into(), reason: error.to_string() })
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        // Plain values of these types always have a TOML form.
        toml::to_string_pretty(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tail::{TailSettings, TrainFrom};

    fn written() -> RunFile {
        let run =
            RunRecord { data: "photos".into(), model: "resnet18".into(), device: "cpu".into(), ..RunRecord::default() };
        let settings = Settings { tail: Some(TailSettings::from_scratch(TrainFrom::All)), ..Settings::default() };
        RunFile::new(&run, &Preprocessing::cifar(), &settings, &Derived::default())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        fs::write(&path, written().to_toml()).unwrap();
        assert_eq!(RunFile::read(&path).unwrap(), written());
    }

    #[test]
    fn what_cannot_be_meant_names_file_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        fs::write(&path, written().to_toml().replace("val-fraction", "val-part")).unwrap();
        let message = RunFile::read(&path).unwrap_err().to_string();
        assert!(message.contains("run.toml: ") && message.contains("unknown field `val-part`"), "{message}");
        assert!(matches!(RunFile::read(&folder.path().join("gone.toml")), Err(Error::Io { .. })));
        let message = RunFile::read(folder.path()).unwrap_err().to_string();
        assert!(message.ends_with("is a folder, expected the file `run.toml` of a bundle"), "{message}");
    }
}
