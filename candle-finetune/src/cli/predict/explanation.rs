//! Pictures of what speaks for the likeliest label of each photo.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use candle_finetune::explain::{activation_maps, seen_by};
use candle_finetune::{Error, Result};
use candle_resnet::preprocess;
use candle_resnet::{Classifier, FeatureExtractor, Prediction};
use image::{ImageError, RgbImage};
use rayon::prelude::*;

use super::Arguments;

/// Characters of a label that its part of a file's name has at most.
const LONGEST_LABEL: usize = 40;

/// Bytes of a photo's name in that of its picture, and of the label.
const LONGEST_STEM: usize = 120;
const LONGEST_NAMED: usize = 80;

/// The folder of pictures.
pub struct Explanations {
    folder: PathBuf,
    /// Whether files that this run did not write may be replaced.
    overwrite: bool,
    written: HashSet<PathBuf>,
}

/// A photo on its way to a picture.
struct Prepared {
    /// (C, H, W), normalised.
    pixels: Vec<f32>,
    picture: RgbImage,
}

impl Explanations {
    /// Makes the folder, where one was asked for. One that holds something is refused, unless it may be replaced or gone on with.
    pub fn open(arguments: &Arguments) -> Result<Option<Explanations>> {
        let Some(folder) = arguments.explain.clone() else { return Ok(None) };
        let failed = |source| Error::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        let holds_something = fs::read_dir(&folder).map_err(failed)?.next().is_some();
        if holds_something && !arguments.overwrite && !arguments.resume {
            return Err(Error::Exists(folder));
        }
        Ok(Some(Explanations { folder, overwrite: arguments.overwrite, written: HashSet::new() }))
    }

    /// Pictures written.
    pub fn count(&self) -> usize {
        self.written.len()
    }

    /// For messages.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a picture of each of `photos`, which is read once more, and its likeliest label; gives their paths.
    pub fn write(&mut self, classifier: &Classifier, photos: &[(&Path, Prediction)]) -> Result<Vec<PathBuf>> {
        if photos.is_empty() {
            return Ok(Vec::new());
        }
        let prepared = photos.par_iter().map(|(path, _)| prepare(classifier, path)).collect::<Result<Vec<_>>>()?;
        let (channels, side) = (classifier.trunk().in_channels(), classifier.preprocessing().crop);
        let pixels: Vec<f32> = prepared.iter().flat_map(|photo| &photo.pixels).copied().collect();
        let images = Tensor::from_vec(pixels, (photos.len(), channels, side, side), classifier.trunk().device())?;
        let classes: Vec<usize> = photos.iter().map(|(_, best)| best.index).collect();
        let maps = activation_maps(classifier, &images, &classes)?;
        let paths: Vec<PathBuf> = photos.iter().map(|(photo, best)| self.new_path(photo, &best.label)).collect();
        let pictures = prepared.par_iter().zip(&maps).zip(&paths);
        pictures.try_for_each(|((photo, map), path)| save(&map.panel(&photo.picture), path))?;
        Ok(paths)
    }

    /// `photo-label.png`, with a number where that is taken.
    fn new_path(&mut self, photo: &Path, label: &str) -> PathBuf {
        let stem = photo.file_stem().unwrap_or_default().to_string_lossy();
        let (stem, label) = (within(&stem, LONGEST_STEM), as_file_name(label));
        let name = format!("{stem}-{}", within(&label, LONGEST_NAMED));
        let numbered = (2..).map(|number| format!("{name}-{number}.png"));
        let mut names = std::iter::once(format!("{name}.png")).chain(numbered).map(|name| self.folder.join(name));
        let is_free = |path: &PathBuf| !self.written.contains(path) && (self.overwrite || !path.exists());
        let path = names.find(is_free).unwrap_or_default(); // There is always a next number.
        self.written.insert(path.clone());
        path
    }
}

/// As many whole characters as fit into so many bytes: file systems take 255 for a name.
fn within(text: &str, bytes: usize) -> &str {
    let ends = text.char_indices().map(|(start, character)| start + character.len_utf8());
    &text[..ends.take_while(|&end| end <= bytes).last().unwrap_or(0)]
}

fn prepare(classifier: &Classifier, path: &Path) -> Result<Prepared> {
    let photo = preprocess::decode(path).map_err(candle_resnet::Error::from)?;
    let pixels = classifier.preprocessing().input(&photo, classifier.trunk().in_channels());
    let pixels = pixels.map_err(candle_resnet::Error::from)?;
    Ok(Prepared { pixels, picture: seen_by(classifier, &photo)? })
}

fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    let failed = |error| match error {
        ImageError::IoError(source) => Error::Io { path: path.into(), source },
        other => Error::Io { path: path.into(), source: std::io::Error::other(other) },
    };
    picture.save(path).map_err(failed)
}

/// The first of a label's names, in letters and digits.
fn as_file_name(label: &str) -> String {
    let first = label.split(',').next().unwrap_or_default().trim();
    let plain = |character: char| if character.is_alphanumeric() { character } else { '_' };
    first.chars().take(LONGEST_LABEL).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_parts_of_names() {
        assert_eq!(as_file_name("tench, Tinca tinca"), "tench");
        assert_eq!(as_file_name("../great white shark"), "___great_white_shark");
        assert_eq!(as_file_name(&"ü".repeat(90)).chars().count(), LONGEST_LABEL);
    }

    #[test]
    fn photos_of_one_name_get_pictures_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a-red-2.png"), "mine").unwrap();
        let names = |overwrite| {
            let mut all = Explanations { folder: folder.path().into(), overwrite, written: HashSet::new() };
            let paths = ["x/a.jpg", "y/a.jpg", "y/a.png"].map(|photo| all.new_path(Path::new(photo), "red"));
            paths.map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        };
        assert_eq!(names(false), ["a-red.png", "a-red-3.png", "a-red-4.png"]);
        assert_eq!((within("äöü", 5), within("abc", 5)), ("äö", "abc"));
        assert_eq!(names(true), ["a-red.png", "a-red-2.png", "a-red-3.png"]);
    }
}
