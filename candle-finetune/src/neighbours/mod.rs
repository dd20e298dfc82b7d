//! Which of the images that a model learned from are most like a new one: those with the most similar features.
//!
//! Similarity is the cosine of pooled features, from 1, the same direction, to −1; the search is exact. An [`Index`] holds features 1
//! long in f16, with a name and a label for each image, in a file that says what network they are of. Decides nothing by them.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use candle_finetune::neighbours::{Index, Known};
//!
//! let features = Tensor::new(&[[2f32, 0.0], [0.0, 1.0], [3.0, 3.0]], &Device::Cpu)?;
//! let images = ["east", "north", "between"].into_iter().zip([0, 1, 1]);
//! let images = images.map(|(name, label)| Known { name: name.into(), label }).collect();
//! let index = Index::new(&features, images, vec!["flat".into(), "steep".into()])?;
//! let found = index.nearest(&Tensor::new(&[[5f32, 1.0]], &Device::Cpu)?, 2)?;
//! assert_eq!((found[0][0].name, found[0][0].class), ("east", "flat"));
//! assert_eq!(found[0][1].name, "between");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod sample;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_resnet::preprocess::Preprocessing;
use candle_resnet::{FeatureExtractor, Model, weights};

use crate::error::Result;
use crate::extract::{ExtractObserver, Extracted, Unreadable, Views, extract};
use crate::finetuning::Findings;
use crate::images::LabelledImages;
use crate::key::Key;
use crate::pairs::{BLOCK, directions, nearest};

pub use file::NeighboursError;
pub use sample::Chosen;

/// The index's name in a bundle.
pub const FILE: &str = "neighbours.safetensors";

/// Most bytes that features and names take, but for quotes in names: beyond it, images of each class are drawn.
pub const MAX_BYTES: usize = 64_000_000;

/// Changes when the same images and network would make another index.
const VERSION: &str = "neighbours 1";

/// Images that are found by their features.
#[derive(Debug, Clone)]
pub struct Index {
    /// (N, D) f16 on the CPU, rows 1 long.
    features: Tensor,
    /// The N images.
    images: Vec<Known>,
    classes: Vec<String>,
    total: usize,
}

/// An image of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What [`LabelledImages`] calls it: the whole path of a file.
    pub name: String,
    /// Its class, an index.
    pub label: usize,
}

/// An image that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour<'a> {
    /// Its name.
    pub name: &'a str,
    /// Name of its class.
    pub class: &'a str,
    /// The cosine of its features and those that were asked for, to three digits: it is kept in f16.
    pub similarity: f32,
}

/// What features depend on beside the images: all tensors but those of the classifier, how they are put together and how photos are prepared.
///
/// # Errors
/// If the weights cannot be read.
pub fn identity(model: &Model) -> Result<Key> {
    identity_with(model, &weights::tensors(&model.weights)?)
}

/// The same of the model with `tensors` in the place of its own.
pub(crate) fn identity_with(model: &Model, tensors: &BTreeMap<String, Tensor>) -> Result<Key> {
    let key = Key::new(VERSION)
        .with("architecture", format!("{:?}", model.architecture).as_bytes())
        .with("preprocessing", format!("{:?}", model.preprocessing).as_bytes());
    let mut frozen = tensors.iter().filter(|(name, _)| !name.starts_with("fc."));
    Ok(frozen.try_fold(key, |key, (name, tensor)| key.with_tensor(name, tensor))?)
}

impl Index {
    /// Of `images`, whose `features` (N, D) f32 are on any device and whose labels are below the number of `classes`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn new(features: &Tensor, images: Vec<Known>, classes: Vec<String>) -> Result<Index> {
        let (total, width) = features.dims2()?;
        let labels: Vec<usize> = images.iter().map(|image| image.label).collect();
        let kept = sample::balanced(&labels, sample::limit(width, images.iter().map(|image| image.name.as_str())));
        let rows = Tensor::from_iter(kept.iter().map(|&row| row as u32), features.device())?;
        let features = directions(&features.contiguous()?.index_select(&rows, 0)?.to_device(&Device::Cpu)?)?
            .to_dtype(DType::F16)?;
        let images = kept.into_iter().map(|row| images[row].clone()).collect();
        Ok(Index { features, images, classes, total })
    }

    /// Sends the `chosen` images through `trunk`; gives what reading them brought to light as well.
    ///
    /// # Errors
    /// Those of [`extract`].
    pub fn extract(
        (trunk, preprocessing): (&dyn FeatureExtractor, &Preprocessing),
        chosen: &Chosen<'_>,
        classes: Vec<String>,
        unreadable: Unreadable,
        observer: &mut ExtractObserver<'_>,
    ) -> Result<(Index, Findings)> {
        let extracted = extract(trunk, preprocessing, chosen, Views::Plain, unreadable, observer)?;
        Index::of_extracted(extracted, chosen, classes)
    }

    /// The same from features of the `chosen` images.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(crate) fn of_extracted(
        extracted: Extracted,
        chosen: &Chosen<'_>,
        classes: Vec<String>,
    ) -> Result<(Index, Findings)> {
        let known = extracted.kept.iter().map(|&index| Known::of(chosen, index)).collect();
        // (N, 1, D) → (N, D)
        let index = Index::new(&extracted.features.squeeze(1)?, known, classes)?;
        let total = chosen.total() - extracted.skipped.len();
        Ok((Index { total, ..index }, Findings::new(extracted.skipped, extracted.notes)))
    }

    /// Images that it holds.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Images that those were drawn from: more than [`len`](Index::len) where all would have been too many.
    pub fn total(&self) -> usize {
        self.total
    }

    /// D: the width of the features.
    pub fn feature_width(&self) -> usize {
        self.features.dim(1).unwrap_or(0)
    }

    /// The `count` images most like each of `features` (Q, D) f32, on any device; the most similar first.
    ///
    /// # Errors
    /// Features of another width.
    pub fn nearest(&self, features: &Tensor, count: usize) -> Result<Vec<Vec<Neighbour<'_>>>> {
        let queries = directions(&features.to_device(&Device::Cpu)?)?;
        let total = queries.dim(0)?;
        let mut found = Vec::with_capacity(total);
        for start in (0..total).step_by(BLOCK) {
            let block = queries.narrow(0, start, BLOCK.min(total - start))?;
            let rows = nearest(&block, &self.features, count, None)?.into_iter();
            found.extend(rows.map(|row| row.into_iter().map(|near| self.neighbour(near.row, near.cosine)).collect()));
        }
        Ok(found)
    }

    fn neighbour(&self, row: usize, similarity: f32) -> Neighbour<'_> {
        let Known { name, label } = &self.images[row];
        Neighbour { name, class: self.classes.get(*label).map_or("", String::as_str), similarity }
    }
}

impl Known {
    /// An image of a data set; where its name is that of a file, it becomes one that means the same in any folder.
    pub fn of(images: &dyn LabelledImages, index: usize) -> Known {
        let name = images.name(index);
        let file = Path::new(&name).is_file().then(|| std::path::absolute(&name).ok()).flatten();
        Known { name: file.map_or(name, |file| file.display().to_string()), label: images.label(index) }
    }
}

#[cfg(test)]
mod tests {
    use candle_resnet::certificate::formula;

    use super::*;

    #[test]
    fn similarities_are_those_of_f64_to_three_digits() {
        let (count, width) = (50, 64);
        let values = formula::image_batch("neighbours", &[count, width]);
        let row = |row: usize| values[row * width..][..width].iter().map(|&value| f64::from(value));
        let cosine = |a: usize, b: usize| {
            let product = |a: usize, b: usize| row(a).zip(row(b)).map(|(a, b)| a * b).sum::<f64>();
            product(a, b) / (product(a, a) * product(b, b)).sqrt()
        };
        let features = Tensor::from_slice(&values, (count, width), &Device::Cpu).unwrap();
        let images = (0..count).map(|index| Known { name: index.to_string(), label: index % 2 }).collect();
        let index = Index::new(&features, images, vec!["even".into(), "odd".into()]).unwrap();
        for (query, found) in index.nearest(&features, count).unwrap().iter().enumerate() {
            assert_eq!((found.len(), found[0].name), (count, query.to_string().as_str()));
            assert!(found.is_sorted_by(|a, b| a.similarity >= b.similarity));
            for neighbour in found {
                let other: usize = neighbour.name.parse().unwrap();
                // f16 rounds each value to 11 bits; errors of a row's values average out.
                assert!((f64::from(neighbour.similarity) - cosine(query, other)).abs() < 5e-4);
                assert_eq!(neighbour.class, ["even", "odd"][other % 2]);
            }
        }
    }

    #[test]
    fn features_may_be_one_view_of_several() {
        let views = Tensor::new(&[[[3f32, 4.0], [9.0, 9.0]], [[0.0, 2.0], [9.0, 9.0]]], &Device::Cpu).unwrap();
        let plain = views.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
        let images = ["a", "b"].map(|name| Known { name: name.into(), label: 0 }).to_vec();
        let index = Index::new(&plain, images, vec!["all".into()]).unwrap();
        let found = index.nearest(&Tensor::new(&[[0f32, 1.0]], &Device::Cpu).unwrap(), 2).unwrap();
        assert_eq!(found[0].iter().map(|near| near.name).collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn the_identity_depends_on_frozen_weights_and_preprocessing_alone() {
        let model = |classes| {
            let model = Model::fresh("resnet20_cifar", 0).unwrap();
            let weights =
                candle_resnet::initialise::fresh_weights(&model.architecture, classes, 0, &Device::Cpu).unwrap();
            Model { weights, classes, ..model }
        };
        let of = |model: &Model| identity(model).unwrap().to_string();
        let own = of(&model(2));
        assert_eq!(of(&model(5)), own, "another head");
        assert_ne!(of(&Model::fresh("resnet20_cifar", 1).unwrap()), own, "other weights");
        let preprocessing = Preprocessing { resize: 40, ..Preprocessing::cifar() };
        assert_ne!(of(&Model { preprocessing, ..model(2) }), own, "another preprocessing");
    }
}
