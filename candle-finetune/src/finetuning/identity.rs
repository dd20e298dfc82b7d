//! What decides what a run computes, as a digest: a checkpoint is of a run with the same one.
//!
//! Where it computes is no part of it: a run may go on on another device or processor, to other last bits.

use std::path::{Path, PathBuf};

use candle_resnet::plan::Precision;
use candle_resnet::{Model, weights};

use super::Settings;
use crate::error::Result;
use crate::images::{LabelledImages, Splits};
use crate::key::Key;

/// Changes when checkpoints of the same run would mean something else.
const VERSION: &str = "run 1";

/// Of a training of `model`. Images count by their names and labels, wherever their common folder lies.
///
/// # Errors
/// If the weights cannot be read.
pub(super) fn of(model: &Model, precision: Precision, splits: &Splits<'_>, settings: &Settings) -> Result<Key> {
    let settings = toml::to_string(settings).map_err(candle_core::Error::msg)?;
    let mut key = Key::new(VERSION)
        .with("settings", settings.as_bytes())
        .with("architecture", format!("{:?}", model.architecture).as_bytes())
        .with("preprocessing", format!("{:?}", model.preprocessing).as_bytes())
        .with("precision", format!("{precision:?}").as_bytes())
        .with("classes", splits.classes.join("\n").as_bytes());
    for images in [Some(splits.train), splits.val].into_iter().flatten() {
        key = with_images(key, images);
    }
    for (name, tensor) in weights::tensors(&model.weights)? {
        key = key.with_tensor(&name, &tensor)?;
    }
    Ok(key)
}

fn with_images(key: Key, images: &dyn LabelledImages) -> Key {
    let names: Vec<PathBuf> = (0..images.len()).map(|index| images.name(index).into()).collect();
    let names = without_common_folder(&names).map(|name| name.as_os_str().as_encoded_bytes());
    let key = key.with("images", &(images.len() as u64).to_le_bytes());
    names.enumerate().fold(key, |key, (index, name)| key.with(&images.label(index).to_string(), name))
}

/// The paths as seen from the deepest folder that all lie in.
fn without_common_folder(paths: &[PathBuf]) -> impl Iterator<Item = &Path> {
    let mut folders = paths.first().into_iter().flat_map(|path| path.ancestors().skip(1));
    let common = folders.find(|folder| paths.iter().all(|path| path.starts_with(folder))).unwrap_or(Path::new(""));
    paths.iter().map(move |path| path.strip_prefix(common).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_deepest_folder_that_all_lie_in() {
        let seen = |paths: &[&str]| -> Vec<String> {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            without_common_folder(&paths).map(|path| path.display().to_string()).collect()
        };
        assert_eq!(seen(&["a/b/red/1", "a/b/red/2", "a/b/blue/1"]), ["red/1", "red/2", "blue/1"]);
        assert_eq!(seen(&["/x/red/1", "/y/red/1"]), ["x/red/1", "y/red/1"]);
        assert_eq!(seen(&["shade 1", "shade 2"]), ["shade 1", "shade 2"]);
        assert!(seen(&[]).is_empty());
    }
}
