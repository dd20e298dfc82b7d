//! What in a photo speaks for a class: Grad-CAM of the last stage, and its picture.
//!
//! Grad-CAM weighs each channel of a map by the mean, over its pixels, of the gradient of the class's logit. Behind the last stage there
//! are but a global pool and one linear layer. Whatever that pool is, mean or largest value, what it hands back to the pixels of a
//! channel adds up to the weights of the channel's features in the linear layer: no backward pass is needed, and the frozen network is
//! enough. Writes no file. Source: Selvaraju et al. 2017 (arXiv 1610.02391); for means it is CAM, Zhou et al. 2015 (arXiv 1512.04150).
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use candle_finetune::explain::{activation_maps, seen_by};
//! use candle_resnet::Model;
//! use candle_resnet::preprocess::Photo;
//!
//! let classifier = Model::named("resnet20_cifar.embedded")?.classifier(&Device::Cpu)?;
//! let photo = Photo::from_rgb8(40, 32, vec![90; 40 * 32 * 3]).ok_or("not 40×32 pixels")?;
//! let pixels = classifier.preprocessing().input(&photo, 3)?;
//! let images = Tensor::from_vec(pixels, (1, 3, 32, 32), &Device::Cpu)?;
//! let map = &activation_maps(&classifier, &images, &[0])?[0];
//! assert_eq!((map.width, map.height), (8, 8));
//! let picture = map.paint_over(&seen_by(&classifier, &photo)?);
//! assert_eq!(picture.dimensions(), (224, 224));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod painting;

use candle_core::{Device, Tensor};
use candle_resnet::Classifier;
use candle_resnet::architecture::Architecture;
use candle_resnet::features::Boundary;

use crate::error::{Error, Result};

pub use painting::seen_by;
pub(crate) use painting::{enlarged, square};

/// How much each pixel of the last map speaks for a class.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivationMap {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row, from 0 to 1, the largest; all are 0 where nothing speaks for the class.
    pub values: Vec<f32>,
}

/// What speaks in each image of `images` (N, C, H, W) for its class of `classes` (N).
///
/// # Errors
/// [`Error::ExplainedClass`] where the network has no such class, another number of classes than images, and what candle says.
pub fn activation_maps(classifier: &Classifier, images: &Tensor, classes: &[usize]) -> Result<Vec<ActivationMap>> {
    activation_maps_of(classifier, &last_maps(classifier, images)?, classes)
}

/// (N, C, H, W) images → (N, C', H', W'): the maps behind the last stage, of which [`activation_maps_of`] makes what is shown and
/// [`Classifier::pool`] features.
///
/// # Errors
/// What candle says.
pub fn last_maps(classifier: &Classifier, images: &Tensor) -> Result<Tensor> {
    Ok(classifier.trunk().map_at(images, Boundary::last(classifier.architecture()))?)
}

/// As [`activation_maps`], of [`last_maps`] (N, C, H, W) in the place of images.
///
/// # Errors
/// As [`activation_maps`].
pub fn activation_maps_of(classifier: &Classifier, maps: &Tensor, classes: &[usize]) -> Result<Vec<ActivationMap>> {
    let (_, channels, height, width) = maps.dims4()?;
    let weights = channel_weights(classifier, classes, channels)?; // (N, 1, C)
    let sums = weights.matmul(&maps.flatten_from(2)?)?.squeeze(1)?; // (N, C, H · W) → (N, H · W)
    let maps = sums.to_device(&Device::Cpu)?.to_vec2()?.into_iter();
    Ok(maps.map(|sums| ActivationMap { width, height, values: normalised(sums) }).collect())
}

/// (N, 1, C): of each class, what the features of each channel count for it together. A pool that gives a channel several features
/// gives all channels one, then all the next.
fn channel_weights(classifier: &Classifier, classes: &[usize], channels: usize) -> Result<Tensor> {
    let weights = classifier.class_weights();
    let known = weights.dim(0)?;
    if let Some(&class) = classes.iter().find(|&&class| class >= known) {
        return Err(Error::ExplainedClass { class, known });
    }
    let Architecture { global_pool, .. } = classifier.architecture();
    let indices = Tensor::from_iter(classes.iter().map(|&class| class as u32), weights.device())?;
    let rows = weights.index_select(&indices, 0)?;
    Ok(rows.reshape((classes.len(), global_pool.features_per_channel(), channels))?.sum_keepdim(1)?)
}

/// What speaks against the class is cut; the rest is divided by the largest value.
fn normalised(sums: Vec<f32>) -> Vec<f32> {
    let largest = sums.iter().copied().fold(0.0, f32::max);
    let scale = if largest > 0.0 { largest.recip() } else { 0.0 };
    sums.into_iter().map(|sum| sum.max(0.0) * scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_against_a_class_is_cut() {
        assert_eq!(normalised(vec![-4.0, 0.5, 2.0, 0.0]), [0.0, 0.25, 1.0, 0.0]);
        assert_eq!(normalised(vec![-4.0, -1.0]), [0.0, 0.0]);
    }
}
