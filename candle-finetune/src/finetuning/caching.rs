//! Which maps are kept on disk, and what they depend on.

use std::ops::ControlFlow;

use candle_core::Device;
use candle_resnet::Model;
use candle_resnet::blueprint::Blueprint;
use candle_resnet::features::Boundary;
use candle_resnet::part::Part;
use candle_resnet::plan::{PlanOptions, Precision};

use super::{Findings, Observer, Phase};
use crate::cached_maps::{CachedMaps, Wanted, key_of};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::map_store::{MapShape, MapStore};
use crate::maps::{ComputedMaps, MapBatch, Maps};
use crate::reading::Sight;

/// Changes when the same things would make other maps.
const VERSION: &str = "maps 1";

/// A network up to where its maps are taken.
pub(super) struct Origin<'a> {
    model: &'a Model,
    precision: Precision,
    /// The first part that trains.
    first: Part,
    boundary: Boundary,
    /// All of it that maps depend on.
    key: Key,
}

impl<'a> Origin<'a> {
    /// The parts of `model` before `first`, compiled with `options` for `device`.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub(super) fn new(
        model: &'a Model,
        (device, options): (&Device, &PlanOptions),
        (first, boundary): (Part, Boundary),
    ) -> Result<Origin<'a>> {
        let Model { architecture, preprocessing, weights, classes, .. } = model;
        let mut key = Key::new(VERSION)
            .with("architecture", format!("{architecture:?}").as_bytes())
            .with("preprocessing", format!("{preprocessing:?}").as_bytes())
            .with("boundary", boundary.to_string().as_bytes())
            .with("options", format!("{options:?}").as_bytes())
            .with("device", format!("{:?}", device.location()).as_bytes());
        let mut tensors = candle_resnet::weights::tensors(weights)?;
        let frozen = Part::tensors(architecture, *classes).into_iter().filter(|(part, _)| *part < first);
        for (_, spec) in frozen {
            let Some(tensor) = tensors.remove(&spec.name) else { continue };
            key = key.with_tensor(&spec.name, &tensor)?;
        }
        Ok(Origin { model, precision: options.precision, first, boundary, key })
    }

    /// How many maps of `sights` are still to be computed before they are on disk, beside those of as many images as are `kept`; nothing
    /// where they cannot be kept.
    pub(super) fn missing(
        &self,
        store: &MapStore,
        kept: usize,
        computed: &ComputedMaps<'_>,
        sights: &[Sight],
    ) -> Option<usize> {
        let shape = |maps| map_shape(self.model, self.precision, self.first, maps);
        let (beside, shape) = (shape(kept).bytes(), shape(sights.len()));
        if store.holds(shape, || key_of(computed, self.key.clone(), sights)) {
            return Some(0);
        }
        store.has_room(shape, beside).then_some(sights.len())
    }

    /// The maps of `sights` from disk, computed before where they are not there; maps that are computed anew in each epoch where they
    /// cannot be kept, with a warning.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the observer stops it, and those of reading images and computing maps.
    pub(super) fn keep<'b>(
        &self,
        store: &MapStore,
        computed: impl Fn() -> ComputedMaps<'b>,
        sights: Vec<Sight>,
        (findings, observer): (&mut Findings, &mut dyn Observer),
    ) -> Result<Box<dyn Maps + 'b>> {
        let (images, batch_size) = (sights.len(), computed().batch_size());
        observer.begin(Phase::Maps, images);
        let mut told = |batch: MapBatch| {
            observer.images(batch.sights.len() + batch.skipped.len());
            findings.add(batch.skipped, batch.notes);
            if observer.stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let wanted = Wanted {
            store,
            key: self.key.clone(),
            shape: map_shape(self.model, self.precision, self.first, images),
            sights,
            batch_size,
        };
        let kept = CachedMaps::prepare(computed(), wanted, &mut told);
        observer.end(Phase::Maps);
        match kept {
            Ok(ControlFlow::Continue(maps)) => {
                tracing::info!("maps at {} are kept in {}", self.boundary, maps.path().display());
                Ok(Box::new(maps))
            }
            Ok(ControlFlow::Break(())) => Err(Error::Interrupted),
            Err(Error::MapStore(error)) => {
                tracing::warn!("{error}: maps at {} are computed anew in each epoch", self.boundary);
                Ok(Box::new(computed()))
            }
            Err(error) => Err(error),
        }
    }
}

/// So many `rows` of what the part `first` of `model` is given, kept in what the frozen network computes in.
pub(super) fn map_shape(model: &Model, precision: Precision, first: Part, rows: usize) -> MapShape {
    let costs = Blueprint::of(&model.architecture).costs(model.preprocessing.crop).into_iter();
    let before = Part::all(&model.architecture).zip(costs).take_while(|(part, _)| *part < first).last();
    let map = before.map_or((0, 0, 0), |(_, cost)| (cost.channels, cost.size, cost.size));
    MapShape { rows, map, precision }
}
