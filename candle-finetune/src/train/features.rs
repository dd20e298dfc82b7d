//! Labelled features of one or several views of each image.
//!
//! Checks once that everything fits together, so that training need not.

use candle_core::{D, DType, Tensor};

use super::error::{Result, TrainError};

/// N images as features of V views each (say the image and its mirror image), with one label per image.
#[derive(Clone, Debug)]
pub struct FeatureSet {
    /// (N · V, D) f32; the views of an image follow one another.
    rows: Tensor,
    views: usize,
    labels: Vec<u32>,
    classes: usize,
}

impl FeatureSet {
    /// `features` (N, D) or (N, V, D), on any device, and a label below `classes` for each of the N images.
    ///
    /// # Errors
    /// Another shape, another number of labels, a label that is not below `classes`, features that are not finite.
    pub fn new(features: &Tensor, labels: Vec<u32>, classes: usize) -> Result<Self> {
        let (images, views, dimensions) = match *features.dims() {
            [images, dimensions] => (images, 1, dimensions),
            [images, views, dimensions] if views > 0 => (images, views, dimensions),
            _ => {
                return Err(wrong_shape(features, "(images, dimensions) or (images, views, dimensions)"));
            }
        };
        if u32::try_from(images * views).is_err() {
            return Err(wrong_shape(features, "fewer than 2³² rows")); // the order of an epoch is in u32
        }
        check_labels(&labels, images, classes)?;
        let rows = features.detach().to_dtype(DType::F32)?.reshape((images * views, dimensions))?.contiguous()?;
        check_finite(&rows, views)?;
        Ok(Self { rows, views, labels, classes })
    }

    /// Number of images, N.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// Number of views of each image, V.
    pub fn views(&self) -> usize {
        self.views
    }

    /// Width of the features, D.
    pub fn dimensions(&self) -> usize {
        self.rows.dim(D::Minus1).unwrap_or(0)
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// One label per image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// How many images each class has.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes];
        for &label in &self.labels {
            counts[label as usize] += 1;
        }
        counts
    }

    /// Every view of every image, (N · V, D).
    pub fn rows(&self) -> &Tensor {
        &self.rows
    }

    /// The first view of every image, (N, D).
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub fn plain(&self) -> Result<Tensor> {
        let by_image = self.rows.reshape((self.images(), self.views, self.dimensions()))?;
        Ok(by_image.narrow(1, 0, 1)?.squeeze(1)?)
    }

    /// The views numbered `rows`, each below N · V, and their labels: (B, D) and B.
    pub(super) fn batch(&self, rows: &[u32]) -> Result<(Tensor, Vec<u32>)> {
        let features = self.rows.index_select(&Tensor::new(rows, self.rows.device())?, 0)?;
        let labels = rows.iter().map(|&row| self.labels[row as usize / self.views]).collect();
        Ok((features, labels))
    }

    /// Whether a head trained on `self` can be asked about `other`.
    pub(super) fn check_compatible(&self, other: &Self) -> Result<()> {
        if (self.dimensions(), self.classes) == (other.dimensions(), other.classes) {
            return Ok(());
        }
        let expected = format!("{} dimensions and {} classes", self.dimensions(), self.classes);
        Err(TrainError::Shape { what: "other features", found: vec![other.dimensions(), other.classes], expected })
    }
}

fn wrong_shape(features: &Tensor, expected: &str) -> TrainError {
    TrainError::Shape { what: "features", found: features.dims().to_vec(), expected: expected.into() }
}

fn check_labels(labels: &[u32], images: usize, classes: usize) -> Result<()> {
    if labels.len() != images {
        return Err(TrainError::LabelCount { labels: labels.len(), images });
    }
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(index) => Err(TrainError::Label { index, label: labels[index], classes }),
        None => Ok(()),
    }
}

fn check_finite(rows: &Tensor, views: usize) -> Result<()> {
    // x · 0 is 0 unless x is infinite or not a number; a plain sum could overflow.
    let marks = (rows * 0.0)?.sum(D::Minus1)?.to_vec1::<f32>()?;
    match marks.iter().position(|mark| mark.is_nan()) {
        Some(row) => Err(TrainError::NonFiniteFeatures { index: row / views }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn ramp(images: usize, views: usize) -> Tensor {
        let count = (images * views * 2) as f32;
        Tensor::arange(0f32, count, &Device::Cpu).unwrap().reshape((images, views, 2)).unwrap()
    }

    #[test]
    fn views_share_the_label_of_their_image() {
        let set = FeatureSet::new(&ramp(3, 2), vec![2, 0, 1], 3).unwrap();
        let (features, labels) = set.batch(&[5, 0, 2]).unwrap();
        assert_eq!(labels, [1, 2, 0]);
        assert_eq!(features.to_vec2::<f32>().unwrap(), [[10., 11.], [0., 1.], [4., 5.]]);
        assert_eq!(set.plain().unwrap().to_vec2::<f32>().unwrap(), [[0., 1.], [4., 5.], [8., 9.]]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let new = |features: &Tensor, labels: &[u32]| FeatureSet::new(features, labels.to_vec(), 2).map(|_| ());
        let flat = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(new(&flat, &[0; 4]), Err(TrainError::Shape { what: "features", .. })));
        assert!(matches!(new(&ramp(2, 1), &[0]), Err(TrainError::LabelCount { labels: 1, images: 2 })));
        assert!(matches!(new(&ramp(2, 1), &[0, 2]), Err(TrainError::Label { index: 1, label: 2, classes: 2 })));
    }

    #[test]
    fn features_that_are_not_finite_name_their_image() {
        for bad in [f32::NAN, f32::INFINITY] {
            let features = Tensor::new(&[[[0f32, 1.], [3e38, 3e38]], [[0., 0.], [1., bad]]], &Device::Cpu).unwrap();
            let found = FeatureSet::new(&features, vec![0, 1], 2);
            assert!(matches!(found, Err(TrainError::NonFiniteFeatures { index: 1 })));
        }
    }
}
