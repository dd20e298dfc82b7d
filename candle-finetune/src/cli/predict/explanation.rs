//! Pictures of what speaks for the likeliest label of each photo.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use candle_finetune::explain::{ActivationMap, activation_maps, seen_by};
use candle_finetune::extract::Skipped;
use candle_finetune::{Error, Result, whole_file};
use candle_resnet::preprocess;
use candle_resnet::{Classifier, FeatureExtractor, Prediction};
use image::{ImageFormat, RgbImage};
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

/// A photo that could be read once more, and what it was said to be.
struct Seen<'a> {
    prepared: &'a Prepared,
    path: &'a Path,
    best: &'a Prediction,
}

impl Explanations {
    /// Makes the folder, where one was asked for. One that holds something is refused, unless it may be replaced or gone on with.
    pub fn open(arguments: &Arguments) -> Result<Option<Explanations>> {
        let Some(folder) = arguments.explain.clone() else { return Ok(None) };
        let failed = |source| Error::Io { path: folder.clone(), source };
        if folder.exists() && !folder.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
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

    /// Writes a picture of each of `photos`, which is read once more, and its likeliest label; gives the picture's path, or why the photo
    /// cannot be read any more.
    pub fn write(
        &mut self,
        classifier: &Classifier,
        photos: &[(&Path, Prediction)],
    ) -> Result<Vec<std::result::Result<PathBuf, Skipped>>> {
        let read = photos.par_iter().map(|(path, _)| prepare(classifier, path)).collect::<Result<Vec<_>>>()?;
        let seen: Vec<Seen> = read
            .iter()
            .zip(photos)
            .filter_map(|(read, (path, best))| read.as_ref().ok().map(|prepared| Seen { prepared, path, best }))
            .collect();
        let paths: Vec<PathBuf> = seen.iter().map(|seen| self.new_path(seen.path, &seen.best.label)).collect();
        let maps = maps(classifier, &seen)?;
        let pictures = seen.par_iter().zip(&maps).zip(&paths);
        pictures.try_for_each(|((seen, map), path)| save(&map.panel(&seen.prepared.picture), path))?;
        let mut paths = paths.into_iter();
        Ok(read.into_iter().map(|read| read.map(|_| paths.next().unwrap_or_default())).collect())
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

/// A photo as the network takes it, or why it cannot be read.
fn prepare(classifier: &Classifier, path: &Path) -> Result<std::result::Result<Prepared, Skipped>> {
    let photo = match preprocess::decode(path) {
        Ok(photo) => photo,
        Err(error) => return Ok(Err(Skipped { name: path.to_string_lossy().into_owned(), reason: error.into() })),
    };
    let pixels = classifier.preprocessing().input(&photo, classifier.trunk().in_channels());
    let pixels = pixels.map_err(candle_resnet::Error::from)?;
    Ok(Ok(Prepared { pixels, picture: seen_by(classifier, &photo)? }))
}

/// What speaks in each photo for its likeliest label.
fn maps(classifier: &Classifier, seen: &[Seen<'_>]) -> Result<Vec<ActivationMap>> {
    if seen.is_empty() {
        return Ok(Vec::new());
    }
    let (channels, side) = (classifier.trunk().in_channels(), classifier.preprocessing().crop);
    let pixels: Vec<f32> = seen.iter().flat_map(|seen| &seen.prepared.pixels).copied().collect();
    let images = Tensor::from_vec(pixels, (seen.len(), channels, side, side), classifier.trunk().device())?;
    let classes: Vec<usize> = seen.iter().map(|seen| seen.best.index).collect();
    activation_maps(classifier, &images, &classes)
}

fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    let mut png = Cursor::new(Vec::new());
    let written = picture.write_to(&mut png, ImageFormat::Png);
    written.map_err(|error| Error::Io { path: path.into(), source: io::Error::other(error) })?;
    whole_file::write(path, png.get_ref())
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
    fn a_photo_that_is_gone_has_no_picture_and_the_others_have_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let photo = |name: &str| folder.path().join(name);
        for name in ["a.png", "c.png"] {
            RgbImage::from_pixel(32, 32, image::Rgb([90; 3])).save(photo(name)).unwrap();
        }
        let model = candle_resnet::Model::named("resnet20_cifar.embedded").unwrap();
        let classifier = model.classifier(&candle_core::Device::Cpu).unwrap();
        let mut all = Explanations { folder: photo("why"), overwrite: false, written: HashSet::new() };
        fs::create_dir(&all.folder).unwrap();
        let best = Prediction { index: 3, label: "cat".into(), probability: 1.0 };
        let of = |names: &[&str], all: &mut Explanations| {
            let paths: Vec<PathBuf> = names.iter().map(|name| photo(name)).collect();
            let photos: Vec<_> = paths.iter().map(|path| (path.as_path(), best.clone())).collect();
            all.write(&classifier, &photos).unwrap()
        };
        let written = of(&["a.png", "b.png", "c.png"], &mut all);
        let names = [0, 2].map(|photo| written[photo].as_ref().unwrap().file_name().unwrap().to_str().unwrap());
        assert_eq!(names, ["a-cat.png", "c-cat.png"]);
        assert!(written[1].as_ref().unwrap_err().reason.to_string().contains("b.png"));
        assert_eq!((all.count(), fs::read_dir(photo("why")).unwrap().count()), (2, 2));
        assert!(of(&["b.png"], &mut all)[0].is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_picture_that_cannot_be_opened_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a-red.png");
        std::os::unix::fs::symlink("gone/a.png", &path).unwrap();
        let error = save(&RgbImage::new(1, 1), &path).unwrap_err();
        assert!(error.to_string().contains("a-red.png: "), "{error}");
        assert!(path.is_symlink());
    }

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
