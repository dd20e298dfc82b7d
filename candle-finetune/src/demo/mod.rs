//! Pictures that the program draws itself, sorted into classes: something to train on where there are no photos yet.
//!
//! Five classes, none of them CIFAR-10's, alike and noisy enough to be mistaken for each other. Knows neither networks nor the
//! command line.

mod canvas;
mod draws;
mod scene;
mod things;

use std::fs;
use std::path::Path;

use image::{ImageError, RgbImage};
use rayon::prelude::*;

use crate::error::{Result, io_error};
use crate::random::keyed_generator;
use things::CLASSES;

/// Parts of the data set: name, pictures of each class.
const PARTS: [(&str, usize); 2] = [("train", 40), ("test", 20)];

/// Names of the classes, in alphabetical order.
pub fn classes() -> impl Iterator<Item = &'static str> {
    CLASSES.into_iter().map(|(name, _)| name)
}

/// Writes `folder/train/CLASS/000.png` and so on, and the same for `test`: the same pictures whenever it is called. What has
/// these names is replaced.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &Path) -> Result<()> {
    for (part, (part_name, count)) in PARTS.into_iter().enumerate() {
        for (class, (name, draw)) in CLASSES.into_iter().enumerate() {
            let folder = folder.join(part_name).join(name);
            fs::create_dir_all(&folder).map_err(io_error(&folder))?;
            let drawn = |number: usize| {
                let numbers = [part, class, number].map(|number| number as u64);
                scene::picture(draw, &mut keyed_generator(b"picture.", numbers))
            };
            (0..count).into_par_iter().try_for_each(|number| save(&drawn(number), &folder, number))?;
        }
    }
    Ok(())
}

fn save(picture: &RgbImage, folder: &Path, number: usize) -> Result<()> {
    let path = folder.join(format!("{number:03}.png"));
    picture.save(&path).map_err(|error| io_error(&path)(as_io(error)))
}

fn as_io(error: ImageError) -> std::io::Error {
    match error {
        ImageError::IoError(error) => error,
        other => std::io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use candle_resnet::labels::LabelSet;

    use super::*;

    #[test]
    fn no_class_is_one_of_the_embedded_weights() {
        let known = &LabelSet::named("cifar10").unwrap().names;
        assert!(classes().all(|class| !known.iter().any(|name| name == class)));
        assert!(classes().is_sorted(), "a data set's classes are sorted");
    }

    #[test]
    fn every_picture_is_another_and_the_same_each_time() {
        let draw = |numbers: [u64; 3]| {
            let (_, draw) = CLASSES[numbers[1] as usize];
            scene::picture(draw, &mut keyed_generator(b"picture.", numbers)).into_raw()
        };
        let all: Vec<Vec<u8>> =
            (0..2).flat_map(|part| (0..5).map(move |class| [part, class, 0])).chain([[0, 0, 1]]).map(draw).collect();
        for (index, picture) in all.iter().enumerate() {
            assert!(!all[..index].contains(picture), "picture {index} came before");
        }
        assert_eq!(draw([1, 3, 7]), draw([1, 3, 7]));
    }
}
