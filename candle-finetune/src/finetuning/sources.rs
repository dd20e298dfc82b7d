//! Where what a tail is given of images comes from: kept on disk where there is a place for it, or computed each time.

use candle_resnet::features::Boundary;
use candle_resnet::part::Part;
use candle_resnet::{Model, Trunk};

use super::caching::Origin;
use super::course::Course;
use super::estimate::Kept;
use super::start::Start;
use super::tail::{Frozen, Unfreezing};
use super::{Findings, Observer};
use crate::augment::Augmentation;
use crate::error::Result;
use crate::extract::batch_size;
use crate::images::{LabelledImages, Splits};
use crate::map_store::MapStore;
use crate::maps::{ComputedMaps, Maps, Onward};
use crate::reading::{Augmenter, Reader, Sight, Unreadable};
use crate::staging::Staging;

/// The frozen form of what does not train, and where it is left.
pub(super) type Below = (Trunk, Boundary);

/// Where maps are kept, and what they depend on.
pub(super) type Place<'a> = (&'a MapStore, Origin<'a>);

/// What a tail trains on and is measured on.
pub(super) struct Sources<'a> {
    train: Box<dyn Maps + 'a>,
    /// None where all images to validate with are among those to train on, seen as they are.
    val: Option<Box<dyn Maps + 'a>>,
}

impl<'a> Sources<'a> {
    pub(super) fn train(&self) -> &(dyn Maps + 'a) {
        &*self.train
    }

    pub(super) fn val(&self) -> &(dyn Maps + 'a) {
        self.val.as_deref().unwrap_or(&*self.train)
    }
}

/// Maps of all images to train on and to validate with, as they are.
pub(super) struct PlainMaps<'a> {
    pub(super) sources: Sources<'a>,
    boundary: Boundary,
    /// Maps that are best taken together.
    batch_size: usize,
}

impl PlainMaps<'_> {
    /// Those of the training images, on their way through the rest of `trunk`.
    pub(super) fn train_through<'b>(&'b self, trunk: &'b Trunk) -> Onward<'b> {
        self.through(self.sources.train(), trunk)
    }

    /// Those of the validation split.
    pub(super) fn val_through<'b>(&'b self, trunk: &'b Trunk) -> Onward<'b> {
        self.through(self.sources.val(), trunk)
    }

    fn through<'b>(&'b self, maps: &'b dyn Maps, trunk: &'b Trunk) -> Onward<'b> {
        Onward { maps, trunk, boundary: self.boundary, batch_size: self.batch_size }
    }
}

/// Images, and how they are seen.
type SightsOf<'a> = (&'a dyn LabelledImages, Vec<Sight>);

/// All images as they are.
fn plain_sights(images: &dyn LabelledImages) -> Vec<Sight> {
    (0..images.len()).map(Sight::plain).collect()
}

impl<'a> Unfreezing<'a> {
    /// Maps of all images, where there is a place to keep them and no training image is seen in another way: features of what is frozen and
    /// of what is delivered are then made of them too.
    ///
    /// # Errors
    /// Those of reading images and computing maps; [`Error::Interrupted`](crate::error::Error::Interrupted).
    pub(super) fn plain_maps(
        &self,
        first: Part,
        below: Option<&Below>,
        (findings, observer): (&mut Findings, &mut dyn Observer),
    ) -> Result<Option<PlainMaps<'_>>> {
        let Some((_, boundary)) = below.filter(|_| self.settings.augmentation.is_none()) else { return Ok(None) };
        let Some(place) = self.place(first, below)? else { return Ok(None) };
        let mut keep = |images: &'a dyn LabelledImages| {
            self.source((images, below), Some(&place), Some(plain_sights(images)), (&mut *findings, &mut *observer))
        };
        let sources = Sources { train: keep(self.splits.train)?, val: self.splits.val.map(keep).transpose()? };
        let Frozen { model, device, .. } = self.frozen;
        Ok(Some(PlainMaps { sources, boundary: *boundary, batch_size: batch_size(model.preprocessing.crop, device) }))
    }

    /// Maps of the images that `start` trains on, in the views of `course`, and of those that are to measure it as they are.
    ///
    /// # Errors
    /// As [`plain_maps`](Unfreezing::plain_maps).
    pub(super) fn sources(
        &self,
        (first, below): (Part, Option<&Below>),
        start: &Start,
        course: &Course,
        (findings, observer): (&mut Findings, &mut dyn Observer),
    ) -> Result<Sources<'_>> {
        let place = self.place(first, below)?;
        let mut source = |images: &'a dyn LabelledImages, sights: Option<Vec<Sight>>| {
            self.source((images, below), place.as_ref(), sights, (&mut *findings, &mut *observer))
        };
        let (of_train, of_val) = self.sights(start, course);
        let train = source(self.splits.train, of_train)?;
        let val = of_val.map(|(images, sights)| source(images, Some(sights))).transpose()?;
        Ok(Sources { train, val })
    }

    /// Which maps [`plain_maps`](Unfreezing::plain_maps) or [`sources`](Unfreezing::sources) will keep, if all images can be read.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub(super) fn kept(&self, (first, below): (Part, Option<&Below>), start: &Start, course: &Course) -> Result<Kept> {
        let Some((store, origin)) = self.place(first, below)? else { return Ok(Kept::default()) };
        let missing = |images, sights: &[Sight], kept| origin.missing(store, kept, &self.maps(images, below), sights);
        let (of_train, of_val) = self.sights(start, course);
        let train = of_train.as_deref().and_then(|sights| missing(self.splits.train, sights, 0));
        let kept = train.and(of_train.as_deref()).map_or(0, <[Sight]>::len);
        let val = of_val.map_or(train.map(|_| 0), |(images, sights)| missing(images, &sights, kept));
        Ok(Kept { train: train.is_some(), val: val.is_some(), missing: train.unwrap_or(0) + val.unwrap_or(0) })
    }

    /// All that is asked for of the training images, where it is known, and of images to validate with, unless it is among the former.
    fn sights(&self, start: &Start, course: &Course) -> (Option<Vec<Sight>>, Option<SightsOf<'a>>) {
        let Splits { train, val, .. } = *self.splits;
        let of_val = val.map(|images| (images, plain_sights(images)));
        if self.settings.augmentation.is_none() {
            return (Some(plain_sights(train)), of_val);
        }
        let held_out: Vec<Sight> = start.held_out.iter().map(|&image| Sight::plain(image)).collect();
        let held_out = (!held_out.is_empty()).then_some((train, held_out));
        (course.all_sights(&start.fit()), of_val.or(held_out))
    }

    /// Where maps at the entry of what trains are kept, and what they depend on.
    pub(super) fn place(&self, first: Part, below: Option<&Below>) -> Result<Option<Place<'_>>> {
        let Frozen { model, device, options } = self.frozen;
        let Some((store, (_, boundary))) = self.store.zip(below) else { return Ok(None) };
        Ok(Some((store, Origin::new(model, (device, options), (first, *boundary))?)))
    }

    /// Maps of `images`, kept where there is a `place` for them and it is known which `sights` will be asked for.
    ///
    /// # Errors
    /// As [`plain_maps`](Unfreezing::plain_maps).
    pub(super) fn source<'b>(
        &'b self,
        (images, below): (&'b dyn LabelledImages, Option<&Below>),
        place: Option<&Place<'_>>,
        sights: Option<Vec<Sight>>,
        told: (&mut Findings, &mut dyn Observer),
    ) -> Result<Box<dyn Maps + 'b>> {
        let computed = || self.maps(images, below);
        match (place, sights) {
            (Some((store, origin)), Some(sights)) => origin.keep(store, computed, sights, told),
            _ => Ok(Box::new(computed())),
        }
    }

    /// Maps of `images`, computed each time.
    pub(super) fn maps<'b>(&'b self, images: &'b dyn LabelledImages, below: Option<&Below>) -> ComputedMaps<'b> {
        let Model { architecture, preprocessing, .. } = self.frozen.model;
        let augmenter =
            |augmentation: &'b Augmentation| Augmenter { policy: &augmentation.policy, seed: self.settings.head.seed };
        let reader = Reader {
            images,
            preprocessing,
            channels: architecture.in_channels,
            augmentation: self.settings.augmentation.as_ref().map(augmenter),
            unreadable: Unreadable::strictly(self.settings.strict),
        };
        let device = self.frozen.device;
        ComputedMaps { reader, trunk: below.cloned(), device, staging: Staging::towards(device) }
    }
}
