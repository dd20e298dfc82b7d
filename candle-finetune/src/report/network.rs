//! A network that explains its own answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use candle_core::Tensor;
use candle_resnet::preprocess::Photo;
use candle_resnet::{Classifier, FeatureExtractor};
use image::RgbImage;
use rayon::prelude::*;

use super::illustrated::{Asked, Explained, Explainer, Near};
use super::pictures::small;
use crate::error::{Error, Result};
use crate::explain::{ActivationMap, activation_maps_of, enlarged, last_maps};
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
    pub read: &'a (dyn Fn(&str) -> Option<Photo> + Sync),
}

/// What the network says of one picture.
type Found<'a> = (ActivationMap, Vec<Neighbour<'a>>);

impl Explainer for NetworkExplainer<'_> {
    fn explain(&self, asked: &[Asked<'_>]) -> Result<Vec<Explained>> {
        let found = self.found(asked)?;
        let photos = self.photos(&found);
        let near = |neighbour: &Neighbour<'_>| Near {
            name: neighbour.name.to_owned(),
            label: neighbour.class.to_owned(),
            similarity: neighbour.similarity,
            photo: photos.get(neighbour.name).cloned(),
        };
        let one = |(asked, (map, neighbours)): (&Asked<'_>, &Found<'_>)| Explained {
            overlay: Some(map.paint_over(&enlarged(asked.picture))),
            near: neighbours.iter().map(near).collect(),
        };
        Ok(asked.par_iter().zip(&found).map(one).collect())
    }
}

impl<'a> NetworkExplainer<'a> {
    /// As many pictures go through the network at once as when features are extracted.
    fn found(&self, asked: &[Asked<'_>]) -> Result<Vec<Found<'a>>> {
        let batch = batch_size(self.classifier.preprocessing().crop, self.classifier.trunk().device());
        let mut found = Vec::with_capacity(asked.len());
        for asked in asked.chunks(batch) {
            found.extend(self.batch(asked)?);
        }
        Ok(found)
    }

    fn batch(&self, asked: &[Asked<'_>]) -> Result<Vec<Found<'a>>> {
        let classes: Vec<usize> = asked.iter().map(|asked| asked.answer).collect();
        let last = last_maps(self.classifier, &self.pixels(asked)?)?;
        let maps = activation_maps_of(self.classifier, &last, &classes)?;
        let near = match self.index {
            // One more than are shown: a picture may be among them itself.
            Some(index) => index.nearest(&self.classifier.pool(&last)?, NEIGHBOURS + 1)?,
            None => vec![Vec::new(); asked.len()],
        };
        let near = asked.iter().zip(near).map(|(asked, near)| others(asked.name, near));
        Ok(maps.into_iter().zip(near).collect())
    }

    /// (N, C, H, W) on the network's device.
    fn pixels(&self, asked: &[Asked<'_>]) -> Result<Tensor> {
        let (trunk, preprocessing) = (self.classifier.trunk(), self.classifier.preprocessing());
        let (side, channels) = (preprocessing.crop, trunk.in_channels());
        let planes: Vec<f32> =
            asked.iter().flat_map(|asked| preprocessing.planes(asked.picture.as_raw(), channels)).collect();
        Tensor::from_vec(planes, (asked.len(), channels, side, side), trunk.device()).map_err(Error::from)
    }

    /// Neighbours by name, as pictures, each read once; without those that cannot be read any more.
    fn photos<'b>(&self, found: &[Found<'b>]) -> BTreeMap<&'b str, RgbImage> {
        let names: BTreeSet<&str> = found.iter().flat_map(|(_, near)| near).map(|near| near.name).collect();
        names.into_par_iter().filter_map(|name| Some((name, small(&(self.read)(name)?)?))).collect()
    }
}

/// Those that are shown: not the image `name` itself.
fn others<'a>(name: &str, near: Vec<Neighbour<'a>>) -> Vec<Neighbour<'a>> {
    let place = |name: &str| fs::canonicalize(name).ok();
    let own = place(name);
    let is_own = |other: &str| other == name || (own.is_some() && place(other) == own);
    near.into_iter().filter(|near| !is_own(near.name)).take(NEIGHBOURS).collect()
}
