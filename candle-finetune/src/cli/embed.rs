//! `finetune embed`: photos → features in a safetensors file.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_finetune::dataset::Sample;
use candle_finetune::extract::{Extracted, Unreadable, Views, batch_size, extract};
use candle_finetune::finetuning::Findings;
use candle_resnet::features::{Boundary, MapPool, StageExtractor};
use candle_resnet::{FeatureExtractor, Model};
use clap::{Args, ValueEnum};

use super::Outcome;
use super::common::{FreshArgument, ModelArguments, ReadingArguments, check_can_write, is_special, write_whole};
use super::interrupt::Interrupt;
use super::photos::listed;
use super::progress::ImagePass;
use super::stdout::stdout;
use super::train::print_findings;

#[derive(Args)]
pub struct Arguments {
    /// Photos: files, folders, patterns in quotes, or - for a list on stdin (lines, or `find -print0`)
    #[arg(required = true, value_name = "PHOTO|DIR")]
    photos: Vec<PathBuf>,

    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    fresh: FreshArgument,

    /// Where to leave the network: stem, layer1, layer2, layer3 or layer4 [default: after the last]
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,

    /// What becomes of the map there [default: avg; the network's own pool without --stage]
    #[arg(long, value_enum)]
    pool: Option<PoolArgument>,

    /// File to write: `features` (N, D), or (N, C, H, W) with --pool none; the N paths are a JSON list under the
    /// metadata's `paths`
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,

    /// Replace the file where it exists
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    reading: ReadingArguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolArgument {
    /// Nothing: 4 bytes for every pixel of every channel of every photo
    None,
    /// The mean over all pixels
    Avg,
}

impl From<PoolArgument> for MapPool {
    fn from(argument: PoolArgument) -> MapPool {
        match argument {
            PoolArgument::None => MapPool::None,
            PoolArgument::Avg => MapPool::Average,
        }
    }
}

/// What features come from, and the shape of one photo's.
struct Source {
    extractor: Box<dyn FeatureExtractor>,
    shape: Vec<usize>,
}

impl Arguments {
    fn source(&self, model: &Model, photos: usize, device: &Device) -> anyhow::Result<Source> {
        let batch = batch_size(model.preprocessing.crop, device);
        let trunk = model.trunk_with(device, &self.reading.plan.options_for(device, model, photos, batch))?;
        if self.stage.is_none() && self.pool.is_none() {
            let shape = vec![trunk.feature_width()];
            return Ok(Source { extractor: Box::new(trunk), shape });
        }
        let boundary = self.boundary(model)?;
        let pool = self.pool.map_or(MapPool::Average, MapPool::from);
        let extractor = StageExtractor::new(trunk, &model.architecture, boundary, pool, model.preprocessing.crop);
        let shape = extractor.shape().to_vec();
        Ok(Source { extractor: Box::new(extractor), shape })
    }

    fn boundary(&self, model: &Model) -> candle_resnet::Result<Boundary> {
        let architecture = &model.architecture;
        let named = |name: &String| Boundary::named(architecture, name);
        Ok(self.stage.as_ref().map(named).transpose()?.unwrap_or_else(|| Boundary::last(architecture)))
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    check_can_write(&arguments.out, arguments.overwrite)?;
    let device = arguments.reading.open_device()?;
    let photos = listed(&arguments.photos)?;
    let samples: Vec<Sample> = photos.into_iter().map(|path| Sample { path, label: 0 }).collect();
    let model = arguments.model.load(arguments.fresh.no_pretrained.then_some(0))?;
    let model = arguments.reading.preprocessing.adapt(model)?;
    let interrupt = Interrupt::listen()?;
    let Source { extractor, shape } = arguments.source(&model, samples.len(), &device)?;

    let unreadable = Unreadable::strictly(arguments.reading.strict);
    let pass = ImagePass::new(samples.len(), interrupt);
    let extracted = pass.run(|observer| {
        extract(extractor.as_ref(), &model.preprocessing, &samples.as_slice(), Views::Plain, unreadable, observer)
    })?;
    write(&arguments.out, &extracted, &shape, &samples)?;
    let (images, shape) = (extracted.kept.len(), shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×"));
    if !is_special(&arguments.out) {
        writeln!(stdout(), "{}", arguments.out.display())?;
    }
    say!("{images} images, {shape} features each");
    print_findings(&Findings::new(extracted.skipped, extracted.notes));
    Ok(Outcome::Done)
}

/// Writes features, and the paths of their images.
fn write(out: &Path, extracted: &Extracted, shape: &[usize], samples: &[Sample]) -> anyhow::Result<()> {
    let paths: Vec<_> = extracted.kept.iter().map(|&index| samples[index].path.to_string_lossy()).collect();
    let metadata = HashMap::from([("paths".to_string(), serde_json::to_string(&paths)?)]);
    let shape = [&[extracted.kept.len()], shape].concat();
    // (N, 1, D) → (N, D) or (N, C, H, W)
    let features: Tensor = extracted.features.to_device(&Device::Cpu)?.reshape(shape)?;
    let content = safetensors::serialize([("features", features)], Some(metadata))?;
    write_whole(out, |file| file.write_all(&content))
}
