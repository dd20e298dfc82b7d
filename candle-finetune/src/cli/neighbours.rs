//! `finetune neighbours`: photos → the training images most like them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use candle_core::Device;
use candle_finetune::dataset::{Sample, SplitName};
use candle_finetune::extract::{FeatureBatch, Unreadable, Views, batch_size, extract_each};
use candle_finetune::images::LabelledImages;
use candle_finetune::neighbours::{self, Chosen, Index, Neighbour, NeighboursError};
use candle_finetune::run_file::RunFile;
use candle_resnet::{FeatureExtractor, Model, Trunk};
use clap::Args;
use serde_json::{Value, json};

use super::Outcome;
use super::common::{ModelArguments, ReadingArguments, new_file, scan};
use super::interrupt::Interrupt;
use super::photos::listed;
use super::progress::ImagePass;
use super::stdout;
use super::train::print_findings;

#[derive(Args)]
pub struct Arguments {
    /// Photos to find the neighbours of: files, folders, patterns in quotes, or - for a list on stdin (lines, or `find -print0`)
    #[arg(required = true, value_name = "PHOTO")]
    photos: Vec<PathBuf>,

    #[command(flatten)]
    model: ModelArguments,

    /// Neighbours to show for each photo
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,

    /// Search this folder, one folder per class or splits of such, in the place of the images that the bundle was trained on
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,

    /// One JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ReadingArguments,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let device = arguments.reading.open_device()?;
    let photos = listed(&arguments.photos)?;
    let samples: Vec<Sample> = photos.into_iter().map(|path| Sample { path, label: 0 }).collect();
    let model = arguments.model.load(None)?;
    let preprocessing = model.preprocessing.clone();
    let model = arguments.reading.preprocessing.adapt(model)?;
    let stores = model.preprocessing == preprocessing;
    let interrupt = Interrupt::listen()?;
    let trunk = arguments.trunk(&model, &device)?;
    let search = Search { arguments, model: &model, trunk: &trunk, interrupt };
    let index = search.index(stores)?;
    if index.total() > index.len() {
        say!("note: {} of {} images are searched, drawn from all classes alike", index.len(), index.total());
    }
    let unreadable = search.all(&samples, &index)?;
    if unreadable == 0 {
        return Ok(Outcome::Done);
    }
    say!("{unreadable} of {} photos could not be read", samples.len());
    Ok(Outcome::Unsatisfied)
}

impl Arguments {
    fn trunk(&self, model: &Model, device: &Device) -> anyhow::Result<Trunk> {
        let batch = batch_size(model.preprocessing.crop, device);
        Ok(model.trunk_with(device, &self.reading.plan.options_for(device, model, batch, batch))?)
    }
}

/// A network, and what was asked for.
struct Search<'a> {
    arguments: &'a Arguments,
    model: &'a Model,
    trunk: &'a Trunk,
    interrupt: Interrupt,
}

impl Search<'_> {
    /// What is searched: the folder that was asked for, or the index of the bundle. Where it has none that fits, one is made, and kept if
    /// it `stores`.
    fn index(&self, stores: bool) -> anyhow::Result<Index> {
        if let Some(folder) = &self.arguments.images {
            let dataset = scan(folder)?;
            return self.index_of(dataset.splits.into_values().flatten().collect(), dataset.classes);
        }
        let name = &self.arguments.model.model;
        let Some(bundle) = self.arguments.model.bundle(self.model) else {
            bail!(
                "`{name}` is no bundle: nothing says what it was trained on\nhint: search a folder of photos with --images DIR"
            );
        };
        let (file, network) = (bundle.join(neighbours::FILE), neighbours::identity(self.model)?);
        match Index::read(&file, &network) {
            Ok(index) => return Ok(index),
            Err(error) if error.is_missing() => {}
            Err(error @ NeighboursError::OtherNetwork { .. }) => say!("note: {error}; it is made anew"),
            Err(error) => return Err(candle_finetune::Error::from(error).into()),
        }
        let index = self.index_of_training(bundle)?;
        if stores {
            match keep(&index, &file, &network) {
                Ok(()) => say!("{:>12} {}", "stored", file.display()),
                Err(error) => say!("note: the index was not stored: {error}"),
            }
        }
        Ok(index)
    }

    /// An index of the images that the bundle was trained on.
    fn index_of_training(&self, bundle: &Path) -> anyhow::Result<Index> {
        const WAY_OUT: &str = "hint: search another folder of photos with --images DIR";
        let file = bundle.join("run.toml");
        if !file.is_file() {
            bail!("{}: has no `run.toml` that says what it was trained on\n{WAY_OUT}", bundle.display());
        }
        let folder = RunFile::read(&file)?.run.seen_from_here().data;
        if !folder.is_dir() {
            bail!(
                "{}: the photos that it was trained on are no longer in {}\n{WAY_OUT}",
                bundle.display(),
                folder.display()
            );
        }
        let dataset = scan(&folder)?;
        self.index_of(dataset.split(SplitName::Train).to_vec(), dataset.classes)
    }

    fn index_of(&self, samples: Vec<Sample>, classes: Vec<String>) -> anyhow::Result<Index> {
        let unreadable = Unreadable::strictly(self.arguments.reading.strict);
        let eye = (self.trunk as _, &self.model.preprocessing);
        let chosen = Chosen::of(&samples, self.trunk.feature_width());
        let pass = ImagePass::new(chosen.len(), self.interrupt.clone());
        let (index, findings) = pass.run(|observer| Index::extract(eye, &chosen, classes, unreadable, observer))?;
        print_findings(&findings);
        Ok(index)
    }

    /// Prints the neighbours of all photos; gives how many could not be read.
    fn all(&self, samples: &[Sample], index: &Index) -> candle_finetune::Result<usize> {
        let pass = ImagePass::hidden(self.interrupt.clone());
        let unreadable = Unreadable::strictly(self.arguments.reading.strict);
        let (mut done, mut failed) = (0, 0);
        pass.run(|observer| {
            extract_each(self.trunk, &self.model.preprocessing, &samples, Views::Plain, unreadable, &mut |batch| {
                let images = batch.images();
                failed += self.print(&samples[done..], done, batch, index)?;
                done += images;
                Ok(observer(images))
            })
        })?;
        Ok(failed)
    }

    /// Prints the neighbours of the photos of a batch, which are the first of `samples` and from `first` on; gives how many could not be
    /// read.
    fn print(
        &self,
        samples: &[Sample],
        first: usize,
        batch: FeatureBatch,
        index: &Index,
    ) -> candle_finetune::Result<usize> {
        let top = self.arguments.top_k as usize;
        let found = batch.features.as_ref().map(|features| index.nearest(features, top)).transpose()?;
        let found = found.unwrap_or_default();
        let mut failed = 0;
        for (sample, row) in samples.iter().zip(batch.rows(first)) {
            let path = sample.path.to_string_lossy();
            let found = row.map(|row| &*found[row]).map_err(|skipped| {
                failed += 1;
                say!("skipped: {}", skipped.reason);
                skipped.reason.to_string()
            });
            let written = if self.arguments.json { format!("{}\n", as_json(&path, found)) } else { text(&path, found) };
            std::io::stdout().write_all(written.as_bytes()).map_err(stdout::error)?;
        }
        Ok(failed)
    }
}

/// Writes beside the file and renames, so that a half-written one never has its name.
fn keep(index: &Index, path: &Path, network: &candle_finetune::key::Key) -> anyhow::Result<()> {
    let file = new_file(path)?;
    index.write(file.path(), network)?;
    file.persist(path).map_err(|error| candle_finetune::Error::Io { path: path.into(), source: error.error })?;
    Ok(())
}

/// Nothing for a photo that could not be read: that is said elsewhere.
fn text(path: &str, found: Result<&[Neighbour<'_>], String>) -> String {
    let line = |near: &Neighbour<'_>| format!("  {:6.3}  {}  {}\n", near.similarity, near.class, near.name);
    found.map_or_else(|_| String::new(), |found| format!("{path}\n{}", found.iter().map(line).collect::<String>()))
}

fn as_json(path: &str, found: Result<&[Neighbour<'_>], String>) -> Value {
    let one = |near: &Neighbour<'_>| json!({"similarity": near.similarity, "label": near.class, "path": near.name});
    match found {
        Ok(found) => json!({"path": path, "neighbours": found.iter().map(one).collect::<Vec<_>>()}),
        Err(error) => json!({"path": path, "error": error}),
    }
}
