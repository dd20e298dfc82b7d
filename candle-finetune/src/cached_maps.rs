//! Maps that are computed once and read from disk in every epoch, and in later runs on the same photos.

use std::collections::HashMap;
use std::ops::ControlFlow;

use candle_core::Device;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::images::LabelledImages;
use crate::key::Key;
use crate::map_store::{MapShape, MapStore, MapWriter, StoredMaps};
use crate::maps::{ComputedMaps, Consumer, MapBatch, Maps};
use crate::reading::{Augmenter, Reader, Sight, Skipped, View, ahead};
use crate::staging::{Room, Staging};

/// Maps of some sights, on disk.
pub(crate) struct CachedMaps<'a> {
    /// For the reason why an image could not be read.
    reader: Reader<'a>,
    device: &'a Device,
    staging: Staging,
    stored: StoredMaps,
    rows: HashMap<Sight, usize>,
}

/// What maps are to be kept, and where.
pub(crate) struct Wanted<'a> {
    pub(crate) store: &'a MapStore,
    /// What maps depend on beside the images and how they are seen.
    pub(crate) key: Key,
    /// Of each map, and how it is kept.
    pub(crate) shape: MapShape,
    /// All sights that will be asked for.
    pub(crate) sights: Vec<Sight>,
    /// Sights that are computed together.
    pub(crate) batch_size: usize,
}

/// Is given each batch that has been written, and says whether to go on.
pub(crate) type FillObserver<'a> = dyn FnMut(MapBatch) -> ControlFlow<()> + 'a;

impl<'a> CachedMaps<'a> {
    /// Finds the maps, or computes and keeps them; breaks off where `observer` says so. Where they are found nobody reads the images, so that
    /// there is nothing to be told of them.
    ///
    /// # Errors
    /// Those of reading images, computing and keeping maps.
    pub(crate) fn prepare(
        computed: ComputedMaps<'a>,
        wanted: Wanted<'_>,
        observer: &mut FillObserver<'_>,
    ) -> Result<ControlFlow<(), CachedMaps<'a>>> {
        let key = key_of(&computed, wanted.key.clone(), &wanted.sights);
        let rows: HashMap<Sight, usize> = wanted.sights.iter().copied().zip(0..).collect();
        let found = wanted.store.find(&key).filter(|stored| stored.shape() == wanted.shape);
        let stored = match found {
            Some(stored) => stored,
            None => {
                let mut writer = wanted.store.create(&key, wanted.shape)?;
                if fill(&computed, &mut writer, (&wanted, &rows), observer)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                writer.finish()?
            }
        };
        let ComputedMaps { reader, device, staging, .. } = computed;
        Ok(ControlFlow::Continue(CachedMaps { reader, device, staging, stored, rows }))
    }

    /// Where the maps are.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.stored.path()
    }
}

/// `key` with the contents of all images and how they are seen.
pub(crate) fn key_of(computed: &ComputedMaps<'_>, key: Key, sights: &[Sight]) -> Key {
    let augmented = sights.iter().any(|sight| sight.view != View::Plain);
    let key = match computed.reader.augmentation.filter(|_| augmented) {
        Some(Augmenter { policy, seed }) => key.with("augmentation", format!("{policy:?} {seed}").as_bytes()),
        None => key,
    };
    let key = sights.iter().fold(key, |key, sight| match sight.view {
        View::Plain => key.with("plain", &sight.image.to_le_bytes()),
        View::Augmented(view) => key.with("view", &[sight.image.to_le_bytes(), view.to_le_bytes()].concat()),
    });
    key.with("images", &digest_of(computed.reader.images, sights))
}

/// Computes every map and writes it.
fn fill(
    computed: &ComputedMaps<'_>,
    writer: &mut MapWriter,
    (wanted, rows): (&Wanted<'_>, &HashMap<Sight, usize>),
    observer: &mut FillObserver<'_>,
) -> Result<ControlFlow<()>> {
    let batches = wanted.sights.chunks(wanted.batch_size.max(1)).map(<[Sight]>::to_vec).collect();
    computed.each(batches, &mut |batch| {
        if let Some(maps) = &batch.maps {
            let rows: Vec<usize> = batch.sights.iter().map(|sight| rows[sight]).collect();
            writer.write(&rows, maps)?;
        }
        Ok(observer(batch))
    })
}

/// Of the contents of all images among `sights`, in their order.
fn digest_of(images: &dyn LabelledImages, sights: &[Sight]) -> Vec<u8> {
    let mut indices: Vec<usize> = sights.iter().map(|sight| sight.image).collect();
    indices.dedup();
    let digests: Vec<[u8; 32]> = indices.par_iter().map(|&index| images.digest(index)).collect();
    Sha256::digest(digests.concat()).to_vec()
}

/// Maps of a batch on their way to the device.
struct Stored {
    values: Room,
    /// Those whose maps these are.
    sights: Vec<Sight>,
    skipped: Vec<Skipped>,
}

impl CachedMaps<'_> {
    fn read(&self, batch: Vec<Sight>) -> Result<Stored> {
        let (sights, missing): (Vec<Sight>, Vec<Sight>) =
            batch.into_iter().partition(|sight| self.rows.get(sight).is_some_and(|&row| self.stored.has(row)));
        // What could not be read when maps were computed is asked for once more, for the reason.
        let skipped = self.reader.read(&missing)?.skipped;
        let rows: Vec<usize> = sights.iter().map(|sight| self.rows[sight]).collect();
        let mut values = self.staging.room(rows.len() * self.stored.shape().values());
        self.stored.write_maps(&rows, values.values_mut()?);
        values.send()?;
        Ok(Stored { values, sights, skipped })
    }

    fn arrived(&self, Stored { values, sights, skipped }: Stored) -> Result<MapBatch> {
        let (channels, height, width) = self.stored.shape().map;
        let maps = || values.tensor((sights.len(), channels, height, width), self.device);
        let maps = (!sights.is_empty()).then(maps).transpose()?;
        Ok(MapBatch { maps, sights, skipped, notes: Vec::new() })
    }
}

impl Maps for CachedMaps<'_> {
    fn each(&self, batches: Vec<Vec<Sight>>, consume: &mut Consumer<'_>) -> Result<ControlFlow<()>> {
        ahead(
            batches.into_iter(),
            |batch| self.read(batch),
            |stored| {
                for stored in stored {
                    if consume(self.arrived(stored?)?)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            },
        )
    }
}
