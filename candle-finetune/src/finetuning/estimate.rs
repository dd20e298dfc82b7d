//! What training a tail will take: time from a trial on a few images, memory from sizes.

use std::time::Instant;

use candle_core::Device;
use candle_resnet::FeatureExtractor;
use candle_resnet::architecture::Architecture;
use candle_resnet::blueprint::Blueprint;
use candle_resnet::part::Part;
use serde::Serialize;

use super::course::Course;
use crate::error::Result;
use crate::halving::halved_where_memory_is_short;
use crate::maps::ComputedMaps;
use crate::reading::Sight;
use crate::train::OptimizerSettings;
use crate::train::tail::{TailSettings, TailTrainer};

/// What a run will take, about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Estimate {
    /// Seconds before the first epoch.
    pub before: f64,
    /// Seconds of an epoch, validation included.
    pub epoch: f64,
    /// Seconds after the last.
    pub after: f64,
    /// Epochs, unless patience ends them.
    pub epochs: usize,
    /// Maps that are computed before the first one and kept on disk: without those that are there already.
    pub maps: usize,
    /// Bytes at the peak.
    pub memory: u64,
}

/// Bytes of a value.
const VALUE: u64 = 4;

/// How often a training step holds what a convolution puts out: beside itself what its norm makes of it, and the gradients.
/// Measured with resnet18 at two batch sizes.
const COPIES: u64 = 3;

/// The same where candle's graph computes. Measured with resnet18, resnet20_cifar and resnet50 at two batch sizes each: 10.4 to 11.5.
const COPIES_IN_GRAPH: u64 = 11;

/// How often the frozen form holds its parameters: Winograd's transformed weights are larger. Measured with resnet18 and
/// resnet50.
const FROZEN_COPIES: u64 = 3;

/// How often a parameter that trains is held: it, its gradient, the best so far, and what the optimiser makes of it.
const TRAINED_COPIES: u64 = 4;

/// What the program takes with nothing to do.
const PROGRAM: u64 = 90_000_000;

/// Images of a trial: few, as a step of a large network takes seconds.
const TRIAL_PIXELS: usize = 4 * 224 * 224;

/// Seconds that nobody minds.
const QUICK: f64 = 1.0;

/// How many images of side `crop` a trial looks at: on a GPU, where a few take as long as many, a batch.
pub(super) fn trial_images(crop: usize, batch_size: usize, device: &Device) -> usize {
    if !device.is_cpu() {
        return batch_size;
    }
    (TRIAL_PIXELS / (crop * crop).max(1)).clamp(1, 32).min(batch_size)
}

/// Which maps each epoch finds on disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    /// Those of the training images.
    pub(super) train: bool,
    /// Those of the images to validate with.
    pub(super) val: bool,
    /// How many of all these are still to be computed.
    pub(super) missing: usize,
}

/// Seconds for one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    read: f64,
    map: f64,
    step: f64,
    forward: f64,
    /// Of the whole network in its frozen form, where a head is trained first.
    features: f64,
    /// Whether images are read while others are computed, rather than by the same cores.
    apart: bool,
}

impl Trial {
    /// Reads `sights` and takes a step on them with `trainer`, which is not used afterwards; nothing if none can be read.
    ///
    /// Where that is quickly done it is done twice: the first time finds no memory and no cache at hand. On a GPU, too, whose libraries
    /// are only then loaded.
    pub(super) fn run(
        maps: &ComputedMaps<'_>,
        sights: &[Sight],
        mut trainer: TailTrainer,
        features: Option<&dyn FeatureExtractor>,
    ) -> Result<Option<Trial>> {
        let mut clock = Clock::start();
        let first = Trial::once(maps, sights, &mut trainer, features)?;
        let tells = clock.lap() > QUICK && maps.device.is_cpu();
        if tells { Ok(first) } else { Trial::once(maps, sights, &mut trainer, features) }
    }

    fn once(
        maps: &ComputedMaps<'_>,
        sights: &[Sight],
        trainer: &mut TailTrainer,
        features: Option<&dyn FeatureExtractor>,
    ) -> Result<Option<Trial>> {
        let mut clock = Clock::start();
        let mut pixels = maps.reader.read(sights)?;
        let read = clock.lap();
        let Some(images) = maps.images(&mut pixels)? else { return Ok(None) };
        clock.lap();
        let x = maps.of(&images)?;
        let map = clock.lap();
        trainer.step(&x, &vec![0; x.dim(0)?], 1e-6)?;
        let step = clock.lap();
        let tail = trainer.snapshot()?;
        halved_where_memory_is_short(&x, &mut |maps| trainer.logits(&tail, maps))?;
        drop(tail);
        let forward = clock.lap();
        if let Some(trunk) = features {
            halved_where_memory_is_short(&images, &mut |images| trunk.features(images))?;
        }
        let features = clock.lap();
        let count = images.dim(0)? as f64;
        let [read, map, step, forward, features] = [read, map, step, forward, features].map(|time| time / count);
        Ok(Some(Trial { read, map, step, forward, features, apart: !maps.device.is_cpu() }))
    }

    /// What a whole run takes: `course`'s epochs, each with `val` images to measure, after features of all of them where a
    /// head is trained first; at the end features of all images to train on. Maps that are `kept` are computed once, or were before.
    pub(super) fn estimate(&self, course: &Course, val: usize, kept: Kept, memory: u64) -> Estimate {
        let Trial { map, step, forward, features, .. } = self;
        let (images, val) = (course.images_seen() as f64, val as f64);
        let [train_of_maps, val_of_maps] = [kept.train, kept.val].map(|kept| kept && course.views.is_none());
        // Features are made of maps of the same images.
        let features = |of_maps| if of_maps { (features - map).max(0.0) } else { self.with_reading(*features) };
        let heads = images * features(train_of_maps) + val * features(val_of_maps);
        let unless = |kept: bool, behind: f64| if kept { behind } else { self.with_reading(map + behind) };
        Estimate {
            before: kept.missing as f64 * self.with_reading(*map)
                + if course.settings.head_first { heads } else { 0.0 },
            epoch: images * unless(kept.train, *step) + val * unless(kept.val, *forward),
            after: images * unless(train_of_maps, *forward),
            epochs: course.settings.epochs,
            maps: kept.missing,
            memory,
        }
    }

    /// An image that is read, and takes so long to compute.
    fn with_reading(&self, computed: f64) -> f64 {
        if self.apart { self.read.max(computed) } else { self.read + computed }
    }
}

/// Measures one time after the other.
struct Clock(Instant);

impl Clock {
    fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Seconds since the last time.
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.0).as_secs_f64();
        self.0 = now;
        seconds
    }
}

/// Bytes at the peak of a training, for images of side `crop`, on kernels of our own or through candle's graph.
pub(super) fn memory(
    architecture: &Architecture,
    classes: usize,
    crop: usize,
    (tail, kernels): (&TailSettings, bool),
) -> Result<u64> {
    let first = tail.train_from.part(architecture)?;
    let blueprint = Blueprint::of(architecture);
    let parts = Part::all(architecture);
    let trains = parts.zip(blueprint.costs(crop)).filter(|(part, _)| *part >= first);
    let activations: u64 = trains.map(|(_, cost)| cost.activations).sum();
    let all = blueprint.parameter_count(classes) as u64;
    let trained: usize = Part::tensors(architecture, classes)
        .iter()
        .filter(|(part, spec)| *part >= first && tail.train_from.trains(&spec.name))
        .map(|(_, spec)| spec.elements())
        .sum();
    let moments = match tail.optimizer {
        OptimizerSettings::Sgd { .. } => 1,
        OptimizerSettings::AdamW { .. } => 2,
    };
    let frozen = if tail.head_first || first > Part::Stem { FROZEN_COPIES } else { 0 };
    let pixels = (architecture.in_channels * crop * crop) as u64;
    let copies = if kernels { COPIES } else { COPIES_IN_GRAPH };
    let batch = tail.batch_size as u64 * (copies * activations + 4 * pixels);
    let more = u64::from(tail.ema.is_some()) + u64::from(tail.accumulate > 1);
    let weights = (1 + frozen) * all + (TRAINED_COPIES + moments + more) * trained as u64;
    Ok(PROGRAM + VALUE * (batch + weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::ViewCount;
    use crate::train::tail::TrainFrom;

    #[test]
    fn what_is_kept_is_computed_once_and_what_was_kept_not_at_all() {
        let trial = Trial { read: 1.0, map: 10.0, step: 100.0, forward: 30.0, features: 40.0, apart: false };
        let estimate = |views, [train, val]: [bool; 2], missing| {
            let settings = TailSettings { batch_size: 4, epochs: 5, ..TailSettings::pretrained(TrainFrom::Stage(3)) };
            let course = Course { settings, seed: 0, views, labels: vec![0; 8] };
            let Estimate { before, epoch, after, .. } = trial.estimate(&course, 2, Kept { train, val, missing }, 0);
            [before, epoch, after]
        };
        let (views, fresh) = (Some(ViewCount::Kept(3)), Some(ViewCount::Fresh));
        let computed = [10.0 * 41.0, 8.0 * 111.0 + 2.0 * 41.0, 8.0 * 41.0];
        assert_eq!(estimate(None, [false; 2], 0), computed);
        assert_eq!(estimate(fresh, [false; 2], 0), computed);
        let of_maps = |before| [before, 8.0 * 100.0 + 2.0 * 30.0, 8.0 * 30.0];
        assert_eq!(estimate(None, [true; 2], 10), of_maps(10.0 * 41.0));
        assert_eq!(estimate(None, [true; 2], 0), of_maps(10.0 * 30.0));
        let train_alone = [8.0 * 11.0 + 8.0 * 30.0 + 2.0 * 41.0, 8.0 * 100.0 + 2.0 * 41.0, 8.0 * 30.0];
        assert_eq!(estimate(None, [true, false], 8), train_alone);
        let of_views = |before| [before, 8.0 * 100.0 + 2.0 * 30.0, 8.0 * 41.0];
        assert_eq!(estimate(views, [true; 2], 26), of_views(10.0 * 41.0 + 26.0 * 11.0));
        assert_eq!(estimate(views, [true; 2], 2), of_views(10.0 * 41.0 + 2.0 * 11.0));
        let val_alone = [10.0 * 41.0 + 2.0 * 11.0, 8.0 * 111.0 + 2.0 * 30.0, 8.0 * 41.0];
        assert_eq!(estimate(fresh, [false, true], 2), val_alone);
    }

    /// What `/usr/bin/time` said of runs with frozen batch norms, from a head that was drawn.
    #[test]
    fn memory_is_about_what_was_measured() {
        let table = [
            ("resnet18", 224, TrainFrom::All, 8, 624),
            ("resnet18", 224, TrainFrom::All, 16, 880),
            ("resnet18", 224, TrainFrom::Stage(4), 8, 460),
            ("resnet50", 224, TrainFrom::Stage(4), 8, 702),
            ("resnet50", 224, TrainFrom::Stage(3), 4, 972),
            ("seresnet50", 224, TrainFrom::All, 8, 2266),
            ("ecaresnet26t", 224, TrainFrom::All, 8, 1608),
            ("resnet50_gn", 224, TrainFrom::All, 8, 1891),
            ("resnet20_cifar", 32, TrainFrom::All, 32, 249),
            ("resnet20_cifar", 32, TrainFrom::All, 128, 320),
        ];
        for (name, crop, train_from, batch_size, measured) in table {
            let tail = TailSettings { batch_size, head_first: false, ..TailSettings::pretrained(train_from.clone()) };
            let bytes = memory(Architecture::named(name).unwrap(), 2, crop, (&tail, true)).unwrap();
            let ratio = bytes as f64 / 1e6 / f64::from(measured);
            assert!((0.65..1.35).contains(&ratio), "{name} from {train_from}: {ratio} of {measured} MB");
        }
    }
}
