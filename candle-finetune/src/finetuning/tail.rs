//! All parts of a network from a boundary on, trained above what is frozen before it.
//!
//! A head is fitted on features first, unless the settings say otherwise; the tail starts from it. Then every step takes what
//! images become at the boundary.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use candle_resnet::backprop::BackwardOptions;
use candle_resnet::drop_path::StochasticDepth;
use candle_resnet::dropout::Dropout;
use candle_resnet::part::Part;
use candle_resnet::plan::{PlanOptions, Precision};
use candle_resnet::preprocess::check_photo_channels;
use candle_resnet::training::TrainingMode;
use candle_resnet::{FeatureExtractor, Model, Trunk, weights};

use super::course::Course;
use super::epochs::{Best, Ended, Progress, Run, Source};
use super::estimate::{Trial, memory, trial_images};
use super::head::{self, Parts};
use super::identity;
use super::resuming::{Journal, Left};
use super::sources::{Below, PlainMaps};
use super::start::{Fitted, Start};
use super::{
    Derived, Findings, FineTuned, FineTunedModel, Observer, Phase, Rates, Settings, Stage, TrainedWeights, Validation,
    assignments, check_classes, fine_tune,
};
use crate::checkpoints::Checkpoints;
use crate::dataset;
use crate::error::{Error, Result};
use crate::extract::Views;
use crate::images::{Digested, LabelledImages, Splits};
use crate::map_store::MapStore;
use crate::maps::Onward;
use crate::neighbours::Index;
use crate::reading::{Sight, Skipped};
use crate::train::tail::{Tail, TailSettings, TailTrainer};
use crate::train::{self, Head, Metrics};

/// What random draws of a training step are made from, beside the seed.
const LEFT_OUT: u64 = u64::from_le_bytes(*b"left out");

/// Where and how a training computes.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// Where.
    pub device: &'a Device,
    /// How the frozen form is compiled.
    pub options: &'a PlanOptions,
    /// Where maps that every epoch asks for are kept; without it they are computed in every epoch.
    pub maps: Option<&'a MapStore>,
    /// Where the state of a tail's training is kept; where there is one already, training goes on from the newest.
    pub checkpoints: Option<&'a Checkpoints>,
}

/// Trains what `settings` name of `model` on the images of `splits`.
///
/// # Errors
/// As [`fine_tune`]; if the network has no such part; if a checkpoint cannot be written, or those that are there cannot be read or
/// are of another run.
pub fn fine_tune_model(
    model: &Model,
    machine: Machine<'_>,
    splits: &Splits<'_>,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<FineTunedModel> {
    settings.validate()?;
    match &settings.tail {
        None => {
            let trunk = Frozen::new(model, machine).trunk(None)?;
            let tuned = fine_tune(&trunk, &model.preprocessing, splits, settings, observer)?;
            Ok(FineTunedModel { tuned, trunk: Some(trunk) })
        }
        Some(tail) => {
            let (train, val) = (Digested::new(splits.train), splits.val.map(Digested::new));
            let val = val.as_ref().map(|images| images as &dyn LabelledImages);
            let splits = Splits { classes: splits.classes.clone(), train: &train, val, test: splits.test };
            Unfreezing::new(model, machine, &splits, (settings, tail))?.run(observer)
        }
    }
}

/// The network before anything trains, and how its frozen form is compiled.
#[derive(Clone, Copy)]
pub(super) struct Frozen<'a> {
    pub(super) model: &'a Model,
    pub(super) device: &'a Device,
    pub(super) options: &'a PlanOptions,
}

impl<'a> Frozen<'a> {
    pub(super) fn new(model: &'a Model, machine: Machine<'a>) -> Frozen<'a> {
        Frozen { model, device: machine.device, options: machine.options }
    }
}

impl Frozen<'_> {
    /// The frozen form, with `tensors` in the place of the model's own where there are any.
    pub(super) fn trunk(&self, tensors: Option<&BTreeMap<String, Tensor>>) -> Result<Trunk> {
        let Some(tensors) = tensors else { return Ok(self.model.trunk_with(self.device, self.options)?) };
        let mut all = weights::tensors(&self.model.weights)?;
        all.extend(tensors.clone());
        let weights = weights::into_var_map(all, &Device::Cpu)?;
        Ok(Trunk::compile_with(&self.model.architecture, &weights, self.device, self.options)?)
    }
}

/// What a tail is trained with.
pub(super) struct Unfreezing<'a> {
    pub(super) frozen: Frozen<'a>,
    /// Where maps are kept.
    pub(super) store: Option<&'a MapStore>,
    /// Where the run's state is kept.
    pub(super) checkpoints: Option<&'a Checkpoints>,
    pub(super) splits: &'a Splits<'a>,
    pub(super) settings: &'a Settings,
    /// With derived values filled in.
    pub(super) tail: TailSettings,
}

/// What a network that was trained makes of images.
#[derive(Default)]
struct Delivered {
    /// Its frozen form.
    trunk: Option<Trunk>,
    /// What it reaches on the test images.
    test: Option<Metrics>,
    /// The training images by their features.
    neighbours: Option<Index>,
}

/// What a trainer remembers.
type TrainerState = BTreeMap<String, Tensor>;

impl<'a> Unfreezing<'a> {
    /// `tail` is that of the settings.
    ///
    /// # Errors
    /// If photos cannot have as many channels as the network takes.
    pub(super) fn new(
        model: &'a Model,
        machine: Machine<'a>,
        splits: &'a Splits<'a>,
        (settings, tail): (&'a Settings, &TailSettings),
    ) -> Result<Unfreezing<'a>> {
        check_photo_channels(model.architecture.in_channels).map_err(candle_resnet::Error::from)?;
        let Machine { maps: store, checkpoints, .. } = machine;
        let tail = tail.resolved(model.provenance.file.is_none());
        Ok(Unfreezing { frozen: Frozen::new(model, machine), store, checkpoints, splits, settings, tail })
    }
}

impl Unfreezing<'_> {
    fn run(&self, observer: &mut dyn Observer) -> Result<FineTunedModel> {
        let architecture = &self.frozen.model.architecture;
        let first = self.tail.train_from.part(architecture)?;
        let mut findings = Findings::default();
        let journal = self.checkpoints.map(|checkpoints| self.journal(checkpoints)).transpose()?;
        let left = journal.as_ref().map(|journal| journal.left(self.frozen.device)).transpose()?.flatten();
        let resumed = left.is_some();
        let (head_first, entry) = (self.tail.head_first && !resumed, first.entry(architecture));
        let needs_trunk = head_first || entry.is_some();
        let trunk = needs_trunk.then(|| self.frozen.trunk(None)).transpose()?;
        let below = trunk.clone().zip(entry);
        let (drawn, left) = match left {
            Some(left) => self.go_on(left, &mut findings, observer),
            None => (self.draw_and_estimate((first, below.as_ref()), trunk.as_ref(), observer)?, None),
        };
        let plain = self.plain_maps(first, below.as_ref(), (&mut findings, observer))?;
        let features = trunk.filter(|_| head_first); // not needed any more where pixels are all that is asked for
        let start = self.start(drawn, features, plain.as_ref(), (&mut findings, observer))?;
        let ended = match &start.fitted {
            Some(fitted) if fitted.interrupted => Ended::with_head(&start.head, fitted.val)?,
            // Stopped before there was an epoch: what there is, is the head. What a run had that goes on is in its checkpoints.
            fitted => {
                let from = (first, below, plain.as_ref());
                match (self.train(from, &start, (journal, left), (&mut findings, observer)), fitted) {
                    (Err(Error::Interrupted), Some(fitted)) if !resumed => Ended::with_head(&start.head, fitted.val)?,
                    (ended, _) => ended?,
                }
            }
        };
        let Delivered { trunk, test, neighbours } = self.delivered(&ended, plain, (&mut findings, observer))?;
        let tuned = FineTuned {
            classes: self.splits.classes.clone(),
            assignments: assignments(self.splits.train, &start.kept, &start.held_out),
            test,
            judged: ended.judged.clone(),
            findings,
            neighbours,
            trained: self.trained(start.fitted, ended),
        };
        Ok(FineTunedModel { tuned, trunk })
    }

    fn journal<'b>(&self, checkpoints: &'b Checkpoints) -> Result<Journal<'b>> {
        let Frozen { model, options, .. } = self.frozen;
        Ok(Journal::new(checkpoints, identity::of(model, options.precision, self.splits, self.settings)?))
    }

    /// A head as it is drawn, after an estimate of what is to come.
    fn draw_and_estimate(
        &self,
        (first, below): (Part, Option<&Below>),
        trunk: Option<&Trunk>,
        observer: &mut dyn Observer,
    ) -> Result<Start> {
        let drawn = self.draw_head()?;
        self.estimate((first, below), &drawn, trunk, observer)?;
        Ok(drawn)
    }

    /// A head that is fitted on features of `trunk` where there is one, or else the one that was `drawn`.
    pub(super) fn start(
        &self,
        drawn: Start,
        trunk: Option<Trunk>,
        plain: Option<&PlainMaps<'_>>,
        (findings, observer): (&mut Findings, &mut dyn Observer),
    ) -> Result<Start> {
        match trunk {
            Some(trunk) => self.fit_head(&trunk, plain, (findings, observer)),
            None => Ok(drawn),
        }
    }

    /// What a run that was stopped had started from, and where it was.
    fn go_on(
        &self,
        Left { start, progress, state, skipped }: Left,
        findings: &mut Findings,
        observer: &mut dyn Observer,
    ) -> (Start, Option<(Progress, TrainerState)>) {
        observer.resumed(&progress.history, progress.batches());
        let splits = [Some(self.splits.train), self.splits.val].into_iter().flatten();
        let all = splits.flat_map(|images| (0..images.len()).map(move |index| (images, index)));
        let named = all.map(|(images, index)| (images, index, images.name(index)));
        // Read once more: a checkpoint holds no more than their names.
        let again = named
            .filter(|(_, _, name)| skipped.contains(name))
            .filter_map(|(images, index, name)| images.photo(index).err().map(|reason| Skipped { name, reason }));
        findings.add(again.collect(), Vec::new());
        (start, Some((progress, state)))
    }

    /// Tells the observer what is to come, from a trial on the first images.
    fn estimate(
        &self,
        (first, below): (Part, Option<&Below>),
        start: &Start,
        trunk: Option<&Trunk>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let Model { architecture, preprocessing, .. } = self.frozen.model;
        let maps = self.maps(self.splits.train, below);
        let source = Source { maps: &maps, images: self.splits.train, indices: start.fit() };
        let images = trial_images(preprocessing.crop, self.tail.batch_size, self.frozen.device);
        let course = self.course(&source.indices);
        let sights: Vec<Sight> = course.sights(1, &source.indices).take(images).collect();
        let trainer = self.trainer(first, &start.head, &source)?;
        let kernels = trainer.has_kernels();
        let features = trunk.filter(|_| self.tail.head_first).map(|trunk| trunk as &dyn FeatureExtractor);
        if let Some(trial) = Trial::run(&maps, &sights, trainer, features)? {
            let val = self.splits.val.map_or(start.held_out.len(), LabelledImages::len);
            let memory = memory(architecture, self.splits.classes.len(), preprocessing.crop, (&self.tail, kernels))?;
            let kept = self.kept((first, below), start, &course)?;
            observer.estimate(&trial.estimate(&course, val, kept, memory));
        }
        Ok(())
    }

    pub(super) fn course(&self, images: &[usize]) -> Course {
        Course {
            settings: self.tail.clone(),
            seed: self.settings.head.seed,
            views: self.settings.augmentation.as_ref().map(|augmentation| augmentation.views),
            labels: images.iter().map(|&image| self.splits.train.label(image) as u32).collect(),
        }
    }

    /// A head on features of the frozen network.
    fn fit_head(
        &self,
        trunk: &Trunk,
        plain: Option<&PlainMaps<'_>>,
        (findings, observer): (&mut Findings, &mut dyn Observer),
    ) -> Result<Start> {
        let mut reader = self.feature_reader(trunk);
        let mut features = |phase, images, onward: Option<Onward<'_>>| match onward {
            Some(onward) => reader.features_of_maps(phase, images, onward, observer),
            None => reader.features(phase, images, Views::Plain, observer),
        };
        let train = self.splits.train;
        let train = features(Phase::TrainFeatures, train, plain.map(|plain| plain.train_through(trunk)))?;
        check_classes(self.splits.train, &train.kept, &self.splits.classes)?;
        let val = self.splits.val;
        let val = val.map(|images| features(Phase::ValFeatures, images, plain.map(|plain| plain.val_through(trunk))));
        let parts = Parts::divide(&train, val.transpose()?.as_ref(), self.splits.classes.len(), self.settings)?;
        let trained = parts.fit(Phase::Head, &self.settings.head, observer)?;
        let val = head::validation(&trained.history, trained.best_epoch, parts.val_images());
        findings.append(reader.findings);
        Ok(Start {
            held_out: parts.held_out(&train),
            kept: train.kept,
            fitted: Some(Fitted {
                rates: Rates::of(trained.settings.lr, trained.settings.weight_decay),
                history: trained.history,
                val: val.map(|val| Validation { epoch: 0, ..val }),
                interrupted: trained.ended == train::Ended::Observer,
            }),
            head: trained.head,
        })
    }

    /// A head as it is drawn, and all images.
    pub(super) fn draw_head(&self) -> Result<Start> {
        let Splits { classes, train, val, .. } = self.splits;
        let head = &self.settings.head;
        let labels: Vec<usize> = (0..train.len()).map(|index| train.label(index)).collect();
        let all: Vec<usize> = (0..train.len()).collect();
        check_classes(*train, &all, classes)?;
        let held_out = match val {
            Some(_) => Vec::new(),
            None => dataset::hold_out(&labels, classes.len(), self.settings.val_fraction, head.seed).1,
        };
        let width = self.frozen.model.architecture.feature_width();
        let head = Head::new(classes.len(), width, head.seed, self.frozen.device)?;
        Ok(Start { head, fitted: None, kept: all, held_out })
    }

    /// Trains the tail from `start` on, or from where a run that was stopped had come.
    fn train(
        &self,
        (first, below, plain): (Part, Option<Below>, Option<&PlainMaps<'_>>),
        start: &Start,
        (journal, left): (Option<Journal<'_>>, Option<(Progress, TrainerState)>),
        (findings, observer): (&mut Findings, &mut dyn Observer),
    ) -> Result<Ended> {
        let fit = start.fit();
        let course = self.course(&fit);
        let held_out = match self.splits.val {
            Some(images) => Some((images, (0..images.len()).collect())),
            None if start.held_out.is_empty() => None,
            None => Some((self.splits.train, start.held_out.clone())),
        };
        if held_out.is_none() && self.tail.patience.is_some() {
            return Err(Error::PatienceWithoutValidation);
        }
        let viewed;
        let sources = match plain {
            Some(plain) => &plain.sources,
            None => {
                viewed = self.sources((first, below.as_ref()), start, &course, (&mut *findings, &mut *observer))?;
                &viewed
            }
        };
        let train = Source { maps: sources.train(), images: self.splits.train, indices: fit };
        let val = held_out.map(|(images, indices)| Source { maps: sources.val(), images, indices });
        let mut trainer = self.trainer(first, &start.head, &train)?;
        self.tell_of_precision(&trainer);
        let val_of_head = start.fitted.as_ref().and_then(|fitted| fitted.val);
        let head = |val| Ok::<_, Error>(Best::unasked(val, trainer.snapshot()?.tensors().clone()));
        let fallback = val_of_head.map(head).transpose()?;
        let (progress, state) = left.unzip();
        state.map_or(Ok(()), |state| trainer.load_state(&state))?;
        let (progress, classes) = (progress.unwrap_or_default(), self.splits.classes.as_slice());
        Run { course, trainer, train, val, fallback, progress, start, journal, findings, classes }.run(observer)
    }

    pub(super) fn trainer(&self, first: Part, head: &Head, train: &Source<'_>) -> Result<TailTrainer> {
        let Model { architecture, weights, .. } = self.frozen.model;
        let trains = |name: &str| self.tail.train_from.trains(name);
        let tail = Tail::with_trained(architecture, weights, head, (first, &trains), self.frozen.device)?;
        let seed = self.settings.head.seed ^ LEFT_OUT;
        let mode = TrainingMode {
            depth: StochasticDepth::new(self.tail.drop_path, seed)?,
            dropout: Dropout::new(self.tail.drop_rate, seed)?,
            norms: self.tail.norms(architecture)?,
        };
        let loss = self.tail.loss(&train.class_counts(self.splits.classes.len()))?;
        let trainer = TailTrainer::new(tail, mode, loss, &self.tail.optimizer, &self.tail.groups(architecture)?)?;
        let PlanOptions { instruction_set, precision, .. } = *self.frozen.options;
        let trainer = trainer.with_backward(&BackwardOptions { instruction_set, precision });
        let trainer = self.tail.clip_norm.into_iter().fold(trainer, TailTrainer::with_clip_norm);
        Ok(match self.tail.ema {
            Some(ema) => trainer.with_ema(ema)?,
            None => trainer,
        })
    }

    /// Says where training computes in another precision than was asked for.
    fn tell_of_precision(&self, trainer: &TailTrainer) {
        let Frozen { device, options, model } = self.frozen;
        if options.precision != Precision::F32 && !device.is_cpu() && !trainer.has_kernels() {
            tracing::warn!(
                "`{}` trains through candle's operations here, in f32: only what is frozen computes in {}",
                model.architecture.name,
                options.precision
            );
        }
    }

    /// What the delivered weights make of images, in the frozen form that others will use. Who stopped the training waits for no index.
    fn delivered(
        &self,
        Ended { tensors, interrupted, .. }: &Ended,
        plain: Option<PlainMaps<'_>>,
        (findings, observer): (&mut Findings, &mut dyn Observer),
    ) -> Result<Delivered> {
        if *interrupted && self.splits.test.is_none() {
            return Ok(Delivered::default());
        }
        let trunk = self.frozen.trunk(Some(tensors))?;
        let head = Head::from_tensors(&tensors["fc.weight"], &tensors["fc.bias"])?;
        let mut reader = self.feature_reader(&trunk);
        let test = reader.test(&head, self.splits, observer)?;
        let onward = plain.as_ref().map(|plain| plain.train_through(&trunk));
        let neighbours = if *interrupted { None } else { reader.index(self.splits, onward, observer)? };
        findings.append(reader.findings);
        Ok(Delivered { trunk: Some(trunk), test, neighbours })
    }

    fn feature_reader<'b>(&'b self, trunk: &'b Trunk) -> head::Reader<'b> {
        let preprocessing = &self.frozen.model.preprocessing;
        head::Reader { trunk, preprocessing, strict: self.settings.strict, findings: Findings::default() }
    }

    fn trained(&self, fitted: Option<Fitted>, ended: Ended) -> TrainedWeights {
        let tail = Some(Rates::of(self.tail.lr, self.tail.weight_decay));
        let derived = Derived { head: fitted.as_ref().map(|fitted| fitted.rates), tail };
        let head = fitted.map_or_else(Vec::new, |fitted| fitted.history);
        let stages = [(Phase::Head, head), (Phase::Fit, ended.history)];
        let stages = stages.into_iter().filter(|(_, epochs)| !epochs.is_empty());
        TrainedWeights {
            tensors: ended.tensors,
            derived,
            stages: stages.map(|(phase, epochs)| Stage { phase, epochs }).collect(),
            val: ended.val,
            calibration: ended.calibration,
            interrupted: ended.interrupted,
        }
    }
}

impl Ended {
    /// A training that was stopped before anything but `head` was trained.
    fn with_head(head: &Head, val: Option<Validation>) -> Result<Ended> {
        let tensors = weights::tensors(head.var_map())?;
        Ok(Ended { tensors, val, calibration: None, judged: None, history: Vec::new(), interrupted: true })
    }
}
