//! Images in views → what the first part that trains is given: maps at its entry, or pixels where that is the stem.

use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;

use candle_core::{Device, Tensor};
use candle_resnet::Trunk;
use candle_resnet::features::Boundary;
use candle_resnet::preprocess::Note;

use crate::error::{Error, Result};
use crate::extract::{Collected, ExtractObserver, Extracted, FeatureBatch, batch_size};
use crate::halving::halved_where_memory_is_short;
use crate::images::LabelledImages;
use crate::reading::{Pixels, Reader, Sight, Skipped, Unreadable};
use crate::staging::Staging;

/// Where maps come from.
///
/// The map of a sight never changes: a source may keep it.
pub(crate) trait Maps {
    /// Hands the maps of each batch to `consume`, in order, until there are no more or it breaks off.
    ///
    /// # Errors
    /// Those of reading images and computing maps, and those of `consume`.
    fn each(&self, batches: Vec<Vec<Sight>>, consume: &mut Consumer<'_>) -> Result<ControlFlow<()>>;
}

/// Is given the maps of one batch after the other.
pub(crate) type Consumer<'a> = dyn FnMut(MapBatch) -> Result<ControlFlow<()>> + 'a;

/// Maps of the sights of a batch that could be read.
pub(crate) struct MapBatch {
    /// (N, C, H, W); none where nothing could be read.
    pub(crate) maps: Option<Tensor>,
    /// The N sights.
    pub(crate) sights: Vec<Sight>,
    /// Images that could not be read.
    pub(crate) skipped: Vec<Skipped>,
    /// What is worth knowing of images that were read.
    pub(crate) notes: Vec<(String, Note)>,
}

/// Maps of images as they are, and the network that they go on through.
#[derive(Clone, Copy)]
pub(crate) struct Onward<'a> {
    pub(crate) maps: &'a dyn Maps,
    pub(crate) trunk: &'a Trunk,
    pub(crate) boundary: Boundary,
    /// Maps that go through it together.
    pub(crate) batch_size: usize,
}

impl Onward<'_> {
    /// Computes the features of `images`, which are those at `indices`, and these ascend. `observer` is told how many images each batch had and may stop the
    /// run.
    ///
    /// # Errors
    /// As [`extract`](crate::extract::extract).
    pub(crate) fn extract(
        &self,
        images: &dyn LabelledImages,
        indices: &[usize],
        unreadable: Unreadable,
        observer: &mut ExtractObserver<'_>,
    ) -> Result<Extracted> {
        let plain = |images: &[usize]| images.iter().map(|&image| Sight::plain(image)).collect();
        let batches = indices.chunks(self.batch_size).map(plain).collect();
        let (mut collected, mut stopped) = (Collected::default(), false);
        let flow = self.maps.each(batches, &mut |batch| {
            // Whoever stops while the last batch is computed loses nothing.
            if stopped {
                return Ok(ControlFlow::Break(()));
            }
            let batch = self.features(batch, indices)?;
            let count = batch.images();
            collected.add(batch)?;
            stopped = observer(count).is_break();
            Ok(ControlFlow::Continue(()))
        })?;
        if flow.is_break() {
            return Err(Error::Interrupted);
        }
        collected.finish(self.trunk, 1, images, unreadable)
    }

    fn features(&self, MapBatch { maps, sights, skipped, notes }: MapBatch, indices: &[usize]) -> Result<FeatureBatch> {
        let onward =
            |maps| halved_where_memory_is_short(&maps, &mut |maps| self.trunk.features_of_maps(maps, self.boundary));
        let features = maps.map(onward).transpose()?;
        let kept = sights.iter().filter_map(|sight| indices.binary_search(&sight.image).ok()).collect();
        Ok(FeatureBatch { features, kept, skipped, notes })
    }
}

/// Computes every map when it is asked for, while the images of the next batch are read.
pub(crate) struct ComputedMaps<'a> {
    pub(crate) reader: Reader<'a>,
    /// The frozen network and where it is left; none where pixels are all that is asked for.
    pub(crate) trunk: Option<(Trunk, Boundary)>,
    pub(crate) device: &'a Device,
    pub(crate) staging: Staging,
}

impl Maps for ComputedMaps<'_> {
    fn each(&self, batches: Vec<Vec<Sight>>, consume: &mut Consumer<'_>) -> Result<ControlFlow<()>> {
        self.reader.ahead(&self.staging, batches.into_iter(), |pixels| self.consume_all(pixels, consume))
    }
}

impl ComputedMaps<'_> {
    /// Images that are best computed together.
    pub(crate) fn batch_size(&self) -> usize {
        batch_size(self.reader.preprocessing.crop, self.device)
    }

    fn consume_all(&self, batches: Receiver<Result<Pixels>>, consume: &mut Consumer<'_>) -> Result<ControlFlow<()>> {
        for pixels in batches {
            if consume(self.maps(pixels?)?)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn maps(&self, mut pixels: Pixels) -> Result<MapBatch> {
        let maps = self.images(&mut pixels)?.map(|images| self.of(&images)).transpose()?;
        Ok(MapBatch { maps, sights: pixels.sights, skipped: pixels.skipped, notes: pixels.notes })
    }

    /// (N, C, crop, crop); none where nothing could be read.
    pub(crate) fn images(&self, pixels: &mut Pixels) -> Result<Option<Tensor>> {
        pixels.tensor(self.reader.channels, self.reader.preprocessing.crop, self.device)
    }

    /// What images become.
    pub(crate) fn of(&self, images: &Tensor) -> Result<Tensor> {
        match &self.trunk {
            Some((trunk, boundary)) => {
                Ok(halved_where_memory_is_short(images, &mut |images| trunk.map_at(images, *boundary))?)
            }
            None => Ok(images.clone()),
        }
    }
}
