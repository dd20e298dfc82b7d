//! An index on disk: a safetensors file of `features` (N, D) f16 and `labels` (N) u32; in its metadata are the N paths, the classes, how
//! many images there were, and which network the features are of.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;

use super::{Index, Known};
use crate::error::safetensors_io;
use crate::key::Key;

/// Names of tensors and of metadata's entries.
const FEATURES: &str = "features";
const LABELS: &str = "labels";
const PATHS: &str = "paths";
const CLASSES: &str = "classes";
const TOTAL: &str = "images";
const NETWORK: &str = "network";

/// Why an index cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// What the system said.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// What is there is no index.
    #[error("{}: no index of neighbours: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Its features are not comparable with the model's.
    #[error("{}: is of other weights or another preprocessing", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
    },
}

impl NeighboursError {
    /// The way out, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            NeighboursError::Io { .. } => None,
            NeighboursError::Damaged { .. } => Some("take the file away: `finetune neighbours` makes it anew".into()),
            NeighboursError::OtherNetwork { .. } => {
                Some("ask without another input size, crop or mean, or let `finetune neighbours` make it anew".into())
            }
        }
    }

    /// Whether there is no file.
    pub fn is_missing(&self) -> bool {
        matches!(self, NeighboursError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Index {
    /// Writes the index as one of the network `of`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path, of: &Key) -> Result<(), NeighboursError> {
        let write = || fs::write(path, self.to_bytes(of)?);
        write().map_err(|source| NeighboursError::Io { path: path.into(), source })
    }

    fn to_bytes(&self, of: &Key) -> io::Result<Vec<u8>> {
        let labels = Tensor::from_iter(self.images.iter().map(|image| image.label as u32), &Device::Cpu);
        let tensors = [(FEATURES, self.features.clone()), (LABELS, labels.map_err(io::Error::other)?)];
        let paths: Vec<&str> = self.images.iter().map(|image| image.name.as_str()).collect();
        let metadata = HashMap::from([
            (PATHS.to_string(), serde_json::to_string(&paths)?),
            (CLASSES.to_string(), serde_json::to_string(&self.classes)?),
            (TOTAL.to_string(), self.total.to_string()),
            (NETWORK.to_string(), of.to_string()),
        ]);
        safetensors::serialize(tensors, Some(metadata)).map_err(safetensors_io)
    }

    /// Reads an index of the network `of`.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or is of another network.
    pub fn read(path: &Path, of: &Key) -> Result<Index, NeighboursError> {
        let bytes = fs::read(path).map_err(|source| NeighboursError::Io { path: path.into(), source })?;
        let (index, network) =
            Index::from_bytes(&bytes).map_err(|reason| NeighboursError::Damaged { path: path.into(), reason })?;
        if network == of.to_string() { Ok(index) } else { Err(NeighboursError::OtherNetwork { path: path.into() }) }
    }

    /// An index and what network it is of; the error says what is wrong.
    fn from_bytes(bytes: &[u8]) -> Result<(Index, String), String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let mut tensors =
            candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|error| error.to_string())?;
        let mut take = |name: &str| tensors.remove(name).ok_or_else(|| format!("it has no `{name}`"));
        let (features, labels) = (take(FEATURES)?, take(LABELS)?);
        let (paths, classes): (Vec<String>, Vec<String>) = (entry(&metadata, PATHS)?, entry(&metadata, CLASSES)?);
        let images = images(paths, &labels, classes.len())?;
        if features.dtype() != DType::F16 || features.dims2().map_or(true, |(rows, _)| rows != images.len()) {
            return Err(format!("`{FEATURES}` are {:?} {:?}", features.dtype(), features.dims()));
        }
        let network = metadata.get(NETWORK).cloned().unwrap_or_default();
        Ok((Index { features, images, classes, total: entry(&metadata, TOTAL)? }, network))
    }
}

fn images(paths: Vec<String>, labels: &Tensor, classes: usize) -> Result<Vec<Known>, String> {
    let labels: Vec<u32> = labels.to_vec1().map_err(|error| format!("`{LABELS}`: {error}"))?;
    if labels.len() != paths.len() {
        return Err(format!("it has {} labels for {} images", labels.len(), paths.len()));
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        return Err(format!("it has a label {label} of {classes} classes"));
    }
    Ok(paths.into_iter().zip(labels).map(|(name, label)| Known { name, label: label as usize }).collect())
}

fn entry<T: DeserializeOwned>(metadata: &HashMap<String, String>, name: &str) -> Result<T, String> {
    let text = metadata.get(name).ok_or_else(|| format!("it has no `{name}`"))?;
    serde_json::from_str(text).map_err(|error| format!("`{name}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let features = Tensor::new(&[[1f32, 0.0], [0.6, 0.8], [0.0, -2.0]], &Device::Cpu).unwrap();
        let names = ["a \"b\", ü.jpg", "b/1.png", ""];
        let images = names.iter().zip([0, 1, 1]).map(|(name, label)| Known { name: name.to_string(), label });
        let index = Index::new(&features, images.collect(), vec!["x".into(), "y\nz".into()]).unwrap();
        Index { total: 7, ..index }
    }

    fn values(index: &Index) -> Vec<Vec<f32>> {
        index.features.to_dtype(DType::F32).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = (folder.path().join("index"), Key::new("test"));
        index().write(&path, &key).unwrap();
        let found = Index::read(&path, &key).unwrap();
        assert_eq!((&found.images, &found.classes, found.total), (&index().images, &index().classes, 7));
        assert_eq!(values(&found), values(&index()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_of_another_network_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        index().write(&path, &Key::new("one")).unwrap();
        let error = Index::read(&path, &Key::new("another")).unwrap_err();
        assert!(matches!(error, NeighboursError::OtherNetwork { .. }), "{error}");
        assert!(error.to_string().contains("index: is of other weights"));
        assert!(Index::read(&folder.path().join("none"), &Key::new("one")).unwrap_err().is_missing());
    }

    #[test]
    fn no_flipped_bit_makes_reading_or_searching_panic() {
        let whole = index().to_bytes(&Key::new("one")).unwrap();
        let query = Tensor::new(&[[1f32, 2.0]], &Device::Cpu).unwrap();
        let mut read = 0;
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok((index, _)) = Index::from_bytes(&bytes) else { continue };
            let _ = index.nearest(&query, 9); // Features of another width are refused.
            read += 1;
        }
        assert!(read > 100, "what was searched: {read} of {} files", 8 * whole.len());
    }

    #[test]
    fn damaged_files_say_what_is_wrong() {
        let with = |change: &dyn Fn(&mut HashMap<String, String>), features: &[&str], labels: &[u32]| {
            let bytes = index().to_bytes(&Key::new("one")).unwrap();
            let mut metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
            change(&mut metadata);
            let labels = Tensor::new(labels, &Device::Cpu).unwrap();
            let tensors = features.iter().map(|&name| (name, index().features)).chain([(LABELS, labels)]);
            safetensors::serialize(tensors, Some(metadata)).unwrap()
        };
        let wrong = |bytes: &[u8], what: &str| {
            let reason = Index::from_bytes(bytes).unwrap_err();
            assert!(reason.contains(what), "{reason}");
        };
        let whole = with(&|_| (), &[FEATURES], &[0, 1, 1]);
        assert!(Index::from_bytes(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(Index::from_bytes(&whole[..length]).is_err(), "the first {length} bytes");
        }
        wrong(&with(&|_| (), &[], &[0, 1, 1]), "it has no `features`");
        wrong(&with(&|_| (), &[FEATURES], &[0, 1]), "2 labels for 3 images");
        wrong(&with(&|_| (), &[FEATURES], &[0, 1, 2]), "a label 2 of 2 classes");
        let two = |metadata: &mut HashMap<String, String>| drop(metadata.insert(PATHS.into(), "[\"a\", \"b\"]".into()));
        wrong(&with(&two, &[FEATURES], &[0, 1]), "`features` are F16 [3, 2]");
        wrong(&with(&|metadata| drop(metadata.remove(CLASSES)), &[FEATURES], &[0, 1, 1]), "it has no `classes`");
        wrong(
            &with(&|metadata| drop(metadata.insert(TOTAL.into(), "-1".into())), &[FEATURES], &[0, 1, 1]),
            "`images`: ",
        );
    }
}
