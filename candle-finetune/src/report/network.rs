//! A network that explains its own answers.

use candle_core::Tensor;
use candle_resnet::preprocess::Photo;
use candle_resnet::{Classifier, FeatureExtractor};

use super::illustrated::{Explained, Explainer, Near};
use super::pictures::small;
use crate::error::{Error, Result};
use crate::explain::{ActivationMap, activation_maps_of, last_maps, seen_by};
use crate::extract::batch_size;
use crate::neighbours::{Index, Neighbour};

/// Neighbours of each picture.
const NEIGHBOURS: usize = 3;

/// Where a network looks, and what it has learned from that is like a picture.
pub struct NetworkExplainer<'a> {
    /// The network.
    pub classifier: &'a Classifier,
    /// What it learned from, where that is known.
    pub index: Option<&'a Index>,
    /// Reads an image of the index by its name; nothing where that cannot be done.
    pub read: &'a dyn Fn(&str) -> Option<Photo>,
}

impl Explainer for NetworkExplainer<'_> {
    fn explain(&self, photos: &[(&str, &Photo, usize)]) -> Result<Vec<Explained>> {
        let batch = batch_size(self.classifier.preprocessing().crop, self.classifier.trunk().device());
        let mut explained = Vec::with_capacity(photos.len());
        for photos in photos.chunks(batch) {
            explained.extend(self.batch(photos)?);
        }
        Ok(explained)
    }
}

impl NetworkExplainer<'_> {
    fn batch(&self, photos: &[(&str, &Photo, usize)]) -> Result<Vec<Explained>> {
        let pixels = self.pixels(photos)?;
        let classes: Vec<usize> = photos.iter().map(|&(_, _, class)| class).collect();
        let last = last_maps(self.classifier, &pixels)?;
        let maps = activation_maps_of(self.classifier, &last, &classes)?;
        let near = match self.index {
            // One more than are shown: a picture may be among them itself.
            Some(index) => index.nearest(&self.classifier.pool(&last)?, NEIGHBOURS + 1)?,
            None => Vec::new(),
        };
        let mut near = near.into_iter();
        let one = |(&(name, photo, _), map): (&(&str, &Photo, usize), &ActivationMap)| {
            let overlay = map.paint_over(&seen_by(self.classifier, photo)?);
            Ok(Explained { overlay: Some(overlay), near: self.others(name, near.next().unwrap_or_default()) })
        };
        photos.iter().zip(&maps).map(one).collect()
    }

    /// (N, C, H, W) on the network's device.
    fn pixels(&self, photos: &[(&str, &Photo, usize)]) -> Result<Tensor> {
        let (trunk, preprocessing) = (self.classifier.trunk(), self.classifier.preprocessing());
        let (side, channels) = (preprocessing.crop, trunk.in_channels());
        let inputs = photos.iter().map(|(_, photo, _)| preprocessing.input(photo, channels));
        let inputs = inputs.collect::<std::result::Result<Vec<_>, _>>().map_err(candle_resnet::Error::from)?;
        let shape = (photos.len(), channels, side, side);
        Tensor::from_vec(inputs.concat(), shape, trunk.device()).map_err(Error::from)
    }

    /// Those that are not the image `name` itself, as pictures.
    fn others(&self, name: &str, near: Vec<Neighbour<'_>>) -> Vec<Near> {
        let place = |name: &str| std::fs::canonicalize(name).ok();
        let own = place(name);
        let is_own = |other: &str| other == name || (own.is_some() && place(other) == own);
        let others = near.into_iter().filter(|near| !is_own(near.name));
        let near = |near: Neighbour<'_>| Near {
            name: near.name.to_owned(),
            label: near.class.to_owned(),
            similarity: near.similarity,
            photo: (self.read)(near.name).as_ref().and_then(small),
        };
        others.take(NEIGHBOURS).map(near).collect()
    }
}
