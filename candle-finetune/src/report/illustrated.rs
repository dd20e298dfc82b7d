//! Images that deserve a look, as pictures with what can be said of them.

use std::collections::BTreeMap;

use candle_resnet::preprocess::Preprocessing;
use image::RgbImage;
use rayon::prelude::*;

use super::page::{NearView, Picture, percent};
use super::pictures::data_uri;
use crate::calibration::Judgement;
use crate::error::Result;
use crate::explain::square;
use crate::images::LabelledImages;

/// Says of pictures what a network makes of them.
pub trait Explainer: Sync {
    /// What is to be said of each.
    ///
    /// # Errors
    /// If the network fails.
    fn explain(&self, asked: &[Asked<'_>]) -> Result<Vec<Explained>>;
}

/// A picture of which something is to be said.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// What the network saw of it: a square of its side, before pixels are normalised.
    pub picture: &'a RgbImage,
    /// The class that was the answer.
    pub answer: usize,
}

/// What a network makes of a picture.
#[derive(Default)]
pub struct Explained {
    /// The picture as the network saw it, painted over where it spoke for the answer.
    pub overlay: Option<RgbImage>,
    /// Images that it learned from which are most like it, the nearest first.
    pub near: Vec<Near>,
}

/// An image that was learned from.
pub struct Near {
    /// Its path.
    pub name: String,
    /// Its label.
    pub label: String,
    /// Cosine between its features and those of the picture, from -1 to 1.
    pub similarity: f32,
    /// The image, made small, where it can be read.
    pub photo: Option<RgbImage>,
}

/// Pictures below this side are shown pixel by pixel.
const SMALL: usize = 100;

/// Makes pictures of images.
pub(super) struct Illustrator<'a> {
    pub(super) images: &'a dyn LabelledImages,
    pub(super) preprocessing: &'a Preprocessing,
    /// C: channels that the network takes.
    pub(super) channels: usize,
    pub(super) explainer: Option<&'a dyn Explainer>,
    /// Name of a class.
    pub(super) class: &'a (dyn Fn(usize) -> String + Sync),
}

/// An image, and what the network saw of it.
struct Seen {
    image: usize,
    name: String,
    judgement: Judgement,
    picture: RgbImage,
}

impl Illustrator<'_> {
    /// A picture of each image, with what was said of it; images that cannot be read have none. Each thread holds one photo at a time.
    pub(super) fn pictures(&self, judged: &BTreeMap<usize, Judgement>) -> Result<BTreeMap<usize, Picture>> {
        let seen: Vec<Seen> =
            judged.par_iter().filter_map(|(&image, &judgement)| self.seen(image, judgement)).collect();
        let explained = self.explained(&seen)?;
        let pictures = seen.par_iter().zip(&explained);
        let pictures = pictures.filter_map(|(seen, explained)| Some((seen.image, self.picture(seen, explained)?)));
        Ok(pictures.collect())
    }

    fn seen(&self, image: usize, judgement: Judgement) -> Option<Seen> {
        let photo = self.images.photo(image).ok()?;
        let picture = square(self.preprocessing, &photo, self.channels).ok()?;
        Some(Seen { image, name: self.images.name(image), judgement, picture })
    }

    /// As many as were `seen`; without an explainer there is nothing to say.
    fn explained(&self, seen: &[Seen]) -> Result<Vec<Explained>> {
        let asked = seen.iter();
        let asked =
            asked.map(|Seen { name, judgement, picture, .. }| Asked { name, picture, answer: judgement.answer });
        let asked: Vec<Asked<'_>> = asked.collect();
        let explained = self.explainer.map(|explainer| explainer.explain(&asked)).transpose()?;
        let mut explained = explained.unwrap_or_default();
        explained.resize_with(seen.len(), Explained::default);
        Ok(explained)
    }

    fn picture(&self, Seen { name, judgement, picture, .. }: &Seen, explained: &Explained) -> Option<Picture> {
        Some(Picture {
            name: ending(name),
            photo: data_uri(picture).ok()?,
            overlay: explained.overlay.as_ref().and_then(|overlay| data_uri(overlay).ok()),
            small: self.preprocessing.crop < SMALL,
            label: (self.class)(judgement.label),
            answer: (self.class)(judgement.answer),
            right: judgement.is_right(),
            confidence: percent(judgement.confidence),
            near: explained.near.iter().filter_map(near_view).collect(),
        })
    }
}

/// A file's name and that of its folder, which is its class.
fn ending(path: &str) -> String {
    let parts: Vec<&str> = path.rsplitn(3, ['/', '\\']).take(2).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn near_view(near: &Near) -> Option<NearView> {
    Some(NearView {
        name: ending(&near.name),
        photo: data_uri(near.photo.as_ref()?).ok()?,
        label: near.label.clone(),
        similarity: format!("{:.2}", near.similarity),
    })
}

#[cfg(test)]
mod tests {
    use super::ending;

    #[test]
    fn pictures_are_named_by_class_and_file() {
        let names = ["photos/train/ants/1.jpg", "ants/1.jpg", "1.jpg", r"photos\ants\1.jpg"].map(ending);
        assert_eq!(names, ["ants/1.jpg", "ants/1.jpg", "1.jpg", "ants/1.jpg"]);
    }
}
