//! Images that deserve a look, as pictures with what can be said of them.

use std::collections::BTreeMap;

use candle_resnet::preprocess::{Photo, Preprocessing};
use image::RgbImage;

use super::page::{NearView, Picture, percent};
use super::pictures::{data_uri, prepared};
use crate::calibration::Judgement;
use crate::error::Result;
use crate::images::LabelledImages;

/// Says of pictures what a network makes of them.
pub trait Explainer {
    /// What is to be said of each photo, by its name and with the class that was the answer.
    ///
    /// # Errors
    /// If the network fails.
    fn explain(&self, photos: &[(&str, &Photo, usize)]) -> Result<Vec<Explained>>;
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

/// Photos that are held at a time, as large as they are.
const AT_ONCE: usize = 4;

/// Makes pictures of images.
pub(super) struct Illustrator<'a> {
    pub(super) images: &'a dyn LabelledImages,
    pub(super) preprocessing: &'a Preprocessing,
    /// C: channels that the network takes.
    pub(super) channels: usize,
    pub(super) explainer: Option<&'a dyn Explainer>,
    /// Name of a class.
    pub(super) class: &'a dyn Fn(usize) -> String,
}

impl Illustrator<'_> {
    /// A picture of each image, with what was said of it; images that cannot be read have none. Few photos are held at a time.
    pub(super) fn pictures(&self, judged: &BTreeMap<usize, Judgement>) -> Result<BTreeMap<usize, Picture>> {
        let judged: Vec<(usize, Judgement)> = judged.iter().map(|(&image, &judgement)| (image, judgement)).collect();
        let mut pictures = BTreeMap::new();
        for some in judged.chunks(AT_ONCE) {
            pictures.extend(self.some(some)?);
        }
        Ok(pictures)
    }

    fn some(&self, judged: &[(usize, Judgement)]) -> Result<Vec<(usize, Picture)>> {
        let read = judged.iter().filter_map(|&(image, judgement)| {
            Some((image, self.images.name(image), judgement, self.images.photo(image).ok()?))
        });
        let read: Vec<(usize, String, Judgement, Photo)> = read.collect();
        let asked: Vec<_> = read.iter().map(|(_, name, judgement, photo)| (&**name, photo, judgement.answer)).collect();
        let explained = match self.explainer {
            Some(explainer) => explainer.explain(&asked)?,
            None => Vec::new(),
        };
        let mut explained = explained.into_iter();
        let pictures = read.iter().map(|(image, name, judgement, photo)| {
            (*image, self.picture(name, judgement, photo, explained.next().unwrap_or_default()))
        });
        Ok(pictures.filter_map(|(image, picture)| Some((image, picture?))).collect())
    }

    fn picture(&self, name: &str, judgement: &Judgement, photo: &Photo, explained: Explained) -> Option<Picture> {
        let seen = prepared(photo, self.preprocessing, self.channels)?;
        Some(Picture {
            name: ending(name),
            photo: data_uri(&seen).ok()?,
            overlay: explained.overlay.and_then(|overlay| data_uri(&overlay).ok()),
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
