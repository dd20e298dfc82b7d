//! Images in views → what the first part that trains is given: maps at its entry, or pixels where that is the stem.

use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;

use candle_core::{Device, Tensor};
use candle_resnet::Trunk;
use candle_resnet::features::Boundary;
use candle_resnet::preprocess::Note;

use crate::error::Result;
use crate::extract::batch_size;
use crate::halving::halved_where_memory_is_short;
use crate::reading::{Pixels, Reader, Sight, Skipped};
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

/// Computes every map when it is asked for, while the images of the next batch are read.
pub(crate) struct ComputedMaps<'a> {
    pub(crate) reader: Reader<'a>,
    /// The frozen network and where it is left; none where pixels are all that is asked for.
    pub(crate) trunk: Option<(&'a Trunk, Boundary)>,
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
        match self.trunk {
            Some((trunk, boundary)) => {
                Ok(halved_where_memory_is_short(images, &mut |images| trunk.map_at(images, boundary))?)
            }
            None => Ok(images.clone()),
        }
    }
}
