//! The parts of a network that train, from one part on to the classifier, and the steps that train them.
//!
//! What trains is copied into a `VarMap` of its own, from which alone the optimiser is built; running statistics are copied
//! too, outside of it. The weights that a tail starts from stay as they are, and nothing before the tail is tracked.

mod settings;

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use candle_resnet::architecture::Architecture;
use candle_resnet::backprop::{Backward, BackwardOptions, backward};
use candle_resnet::blueprint::Role;
use candle_resnet::device_memory::is_out_of_memory;
use candle_resnet::network::Network;
use candle_resnet::part::Part;
use candle_resnet::plan::Precision;
use candle_resnet::training::{NormPolicy, TrainingMode};
use candle_resnet::weights;

use super::ema::{Ema, EmaSettings};
use super::error::{Result, TrainError};
use super::gradients::Gradients;
use super::groups::Groups;
use super::head::Head;
use super::loss::{CrossEntropy, Targets};
use super::loss_scale::LossScale;
use super::optimizer::Optimizer;
use super::settings::OptimizerSettings;
use super::state::{below, check_known, named, under};

pub use settings::{BatchNorm, Sampler, TailSettings, TrainFrom};

/// A network of which the parts from `first` on train.
#[derive(Clone)]
pub struct Tail {
    architecture: Architecture,
    network: Network,
    first: Part,
    tensors: HashMap<String, Tensor>,
    trained: VarMap,
    /// Every tensor that training may change: those that train, and running statistics of their parts.
    own: BTreeMap<String, Var>,
}

impl Tail {
    /// Copies what trains of `weights`, and `head` as the classifier, to `device`.
    ///
    /// `weights` are those of `architecture`; a classifier among them is not read. What the tail computes with is of the head's
    /// kind of numbers.
    ///
    /// # Errors
    /// If a tensor is missing, shapes do not fit, or `device` has no room.
    pub fn new(
        architecture: &Architecture,
        weights: &VarMap,
        head: &Head,
        first: Part,
        device: &Device,
    ) -> Result<Tail> {
        Tail::with_trained(architecture, weights, head, (first, &|_| true), device)
    }

    /// As [`new`](Tail::new), of which only those parameters train whose names `trains` says yes to.
    ///
    /// # Errors
    /// As [`new`](Tail::new).
    pub fn with_trained(
        architecture: &Architecture,
        weights: &VarMap,
        head: &Head,
        (first, trains): (Part, &dyn Fn(&str) -> bool),
        device: &Device,
    ) -> Result<Tail> {
        let mut stored = weights::tensors(weights)?;
        stored.insert("fc.weight".into(), head.weight().as_detached_tensor());
        stored.insert("fc.bias".into(), head.bias().as_detached_tensor());
        let dtype = head.weight().dtype();
        let (trained, mut tensors, mut own) = (VarMap::new(), HashMap::new(), BTreeMap::new());
        for (part, spec) in Part::tensors(architecture, head.classes()) {
            let tensor = stored.remove(&spec.name).ok_or_else(|| missing(&spec.name))?;
            let mut tensor = tensor.to_dtype(dtype)?.to_device(device)?;
            if part >= first && (!spec.role.is_parameter() || trains(&spec.name)) {
                let variable = own_copy(&spec.name, &tensor, spec.role, &trained)?;
                tensor = variable.as_tensor().clone();
                own.insert(spec.name.clone(), variable);
            }
            tensors.insert(spec.name, tensor);
        }
        let variables = VarBuilder::from_tensors(tensors.clone(), dtype, device);
        let network = Network::new(architecture, head.classes(), variables)?;
        Ok(Tail { architecture: *architecture, network, first, tensors, trained, own })
    }

    /// The first part that trains.
    pub fn first(&self) -> Part {
        self.first
    }

    /// The parameters that train, and nothing else.
    pub fn trained(&self) -> &VarMap {
        &self.trained
    }

    /// What [`first`](Tail::first) is given → logits (N, classes), in evaluation.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.network.forward_from(self.first, x)
    }

    /// What [`first`](Tail::first) is given → logits (N, classes), in a training step.
    ///
    /// # Errors
    /// As [`Network::forward_train`].
    pub fn forward_train(&self, x: &Tensor, mode: &mut TrainingMode) -> candle_core::Result<Tensor> {
        self.network.forward_train(self.first, x, mode)
    }

    fn device(&self) -> &Device {
        self.tensors["fc.bias"].device()
    }

    /// Whether the parameter `name` trains.
    fn trains(&self, name: &str) -> bool {
        self.trained.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner()).contains_key(name)
    }

    /// The way back on kernels of our own, where there is one.
    fn backward(&self, options: &BackwardOptions) -> Option<Box<dyn Backward>> {
        let device = self.device();
        let fits = self.tensors.values().all(|tensor| tensor.dtype() == DType::F32);
        fits.then(|| backward(&self.architecture, self.first, device, options)).flatten()
    }

    /// Every tensor that training may change as it is now, running statistics included, detached; a later step changes it.
    pub fn own_tensors(&self) -> BTreeMap<String, Tensor> {
        self.own.iter().map(|(name, variable)| (name.clone(), variable.as_detached_tensor())).collect()
    }

    /// Refuses what are not values of all that training may change.
    fn check_fits(&self, values: &BTreeMap<String, Tensor>) -> Result<()> {
        check_known(values, &self.own.keys().cloned().collect())?;
        self.own.iter().try_for_each(|(name, variable)| named(values, name, variable.dims()).map(drop))
    }

    /// Takes over such values.
    fn set(&self, values: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, variable) in &self.own {
            let value = named(values, name, variable.dims())?;
            variable.set(&value.to_dtype(variable.dtype())?.to_device(variable.device())?)?;
        }
        Ok(())
    }

    /// The tail with these values of all that training may change.
    fn with(&self, own: BTreeMap<String, Tensor>) -> Result<Snapshot> {
        let mut tensors = self.tensors.clone();
        tensors.extend(own.clone());
        let bias = &tensors["fc.bias"];
        let variables = VarBuilder::from_tensors(tensors.clone(), bias.dtype(), bias.device());
        let network = Network::new(&self.architecture, bias.dim(0)?, variables)?;
        Ok(Snapshot { network, tensors, own })
    }

    /// Every tensor of the whole network as it is now, detached; a later step changes those that train.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect()
    }
}

fn missing(name: &str) -> TrainError {
    candle_core::Error::msg(format!("the weights hold no tensor `{name}`")).into()
}

fn copies(tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.copy()?))).collect()
}

/// A variable of the tail's own with the values of `tensor`; parameters are put among those that train.
fn own_copy(name: &str, tensor: &Tensor, role: Role, trained: &VarMap) -> Result<Var> {
    let variable = Var::from_tensor(tensor)?;
    if role.is_parameter() {
        let mut trained = trained.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        trained.insert(name.into(), variable.clone());
    }
    Ok(variable)
}

/// A tail at one moment, in evaluation.
pub struct Snapshot {
    network: Network,
    tensors: HashMap<String, Tensor>,
    own: BTreeMap<String, Tensor>,
}

impl Snapshot {
    /// Every tensor that training may have changed, running statistics included.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.own
    }
}

/// Trains a tail step by step; knows neither epochs nor where batches come from.
pub struct TailTrainer {
    tail: Tail,
    /// What computes gradients before the classifier; candle's graph where there is none.
    backward: Option<Box<dyn Backward>>,
    mode: TrainingMode,
    loss: CrossEntropy,
    optimizer: Box<dyn Optimizer>,
    clip_norm: Option<f64>,
    ema: Option<Ema>,
    /// What gradients are scaled by on their way through f16; not at all elsewhere.
    loss_scale: Option<LossScale>,
    pending: Option<Pending>,
}

/// What was added to the step to come.
struct Pending {
    /// Their mean over images.
    gradients: Gradients,
    images: usize,
    /// Whether one of them was not finite for having been scaled.
    overflowed: bool,
}

impl TailTrainer {
    /// Builds the optimiser over the parameters of `tail`, as `groups` say.
    ///
    /// # Errors
    /// [`TrainError::UnusedPattern`], or those of allocating the optimiser's state.
    pub fn new(
        tail: Tail,
        mode: TrainingMode,
        loss: CrossEntropy,
        optimizer: &OptimizerSettings,
        groups: &Groups,
    ) -> Result<TailTrainer> {
        Ok(TailTrainer {
            optimizer: optimizer.build(groups.parameters(tail.trained())?)?,
            backward: tail.backward(&BackwardOptions::default()),
            tail,
            mode,
            loss,
            clip_norm: None,
            ema: None,
            loss_scale: None,
            pending: None,
        })
    }

    /// The same with gradients that are computed in another way; in f16 on a GPU the loss is scaled.
    pub fn with_backward(self, options: &BackwardOptions) -> TailTrainer {
        let backward = self.tail.backward(options);
        let in_f16 = options.precision == Precision::F16 && backward.is_some() && !self.tail.device().is_cpu();
        TailTrainer { loss_scale: in_f16.then(LossScale::default), backward, ..self }
    }

    /// The same with gradients scaled down where the norm of all of them is above `max_norm`.
    pub fn with_clip_norm(self, max_norm: f64) -> TailTrainer {
        TailTrainer { clip_norm: Some(max_norm), ..self }
    }

    /// The same with an average of weights and running statistics, which is then what is [delivered](TailTrainer::snapshot).
    ///
    /// # Errors
    /// As [`Ema::new`].
    pub fn with_ema(self, settings: EmaSettings) -> Result<TailTrainer> {
        Ok(TailTrainer { ema: Some(Ema::new(&self.tail.own_tensors(), settings)?), ..self })
    }

    /// Whether gradients come from kernels rather than from candle's graph, as [`backward`] says.
    pub fn has_kernels(&self) -> bool {
        self.backward.is_some()
    }

    /// Makes what the next step draws at random depend on the seeds and `step` alone, whatever was drawn before.
    pub fn at_step(&mut self, step: u64) {
        self.mode.at_step(step);
    }

    /// One step on what the tail's first part is given, at learning rate `lr`; gives the loss before it.
    ///
    /// A loss that is not finite moves no parameter.
    ///
    /// # Errors
    /// As [`add`](TailTrainer::add) and [`apply`](TailTrainer::apply).
    pub fn step(&mut self, x: &Tensor, labels: &[u32], lr: f64) -> Result<f64> {
        let loss = self.add(x, Targets::Labels(labels))?;
        self.apply(lr)?;
        Ok(loss)
    }

    /// Adds a part to the step to come: what the tail's first part is given, and what it is. Gives its loss; one that is not finite
    /// adds nothing.
    ///
    /// # Errors
    /// If shapes or devices do not fit, or a label names no class; [`TrainError::OutOfMemory`] if the device has no room.
    pub fn add(&mut self, x: &Tensor, targets: Targets<'_>) -> Result<f64> {
        match self.add_all(x, targets) {
            Err(TrainError::Tensor(error)) if is_out_of_memory(&error) => Err(self.out_of_memory(x)?),
            added => added,
        }
    }

    fn add_all(&mut self, x: &Tensor, targets: Targets<'_>) -> Result<f64> {
        let (loss, mut gradients) = self.gradients(x, targets)?;
        if loss.is_finite() {
            let overflowed = match &self.loss_scale {
                Some(scale) => !gradients.unscale(scale.factor())?,
                None => false,
            };
            let images = x.dim(0)?;
            self.pending = Some(match self.pending.take() {
                None => Pending { gradients, images, overflowed },
                Some(before) => Pending {
                    gradients: before.gradients.mean_with(before.images, gradients, images)?,
                    images: before.images + images,
                    overflowed: before.overflowed || overflowed,
                },
            });
        }
        Ok(loss)
    }

    /// What to say of a batch that the device has no room for, after a search for one that it has. This trainer is of no more use.
    fn out_of_memory(&mut self, x: &Tensor) -> Result<TrainError> {
        self.pending = None;
        let images = x.dim(0)?;
        let halves =
            std::iter::successors(Some(images / 2), |images| Some(images / 2)).take_while(|&images| images > 0);
        let mut fits = |images: &usize| {
            let part = x.narrow(0, 0, *images);
            part.is_ok_and(|part| self.gradients(&part, Targets::Labels(&vec![0; *images])).is_ok())
        };
        let room = halves.into_iter().find(|images| fits(images));
        Ok(TrainError::OutOfMemory { images, room })
    }

    /// Takes the step on the mean of what was added, at learning rate `lr`; none where nothing was, and none where gradients left the range
    /// of f16, which the loss is then scaled less for.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteGradient`] where gradients are clipped, and those of the tensor operations.
    pub fn apply(&mut self, lr: f64) -> Result<()> {
        let Some(Pending { mut gradients, overflowed, .. }) = self.pending.take() else { return Ok(()) };
        match &mut self.loss_scale {
            Some(scale) if overflowed => return scale.overflowed(),
            Some(scale) => scale.worked(),
            None => {}
        }
        if let Some(max_norm) = self.clip_norm {
            gradients.clip_norm(max_norm)?;
        }
        self.optimizer.step(&gradients, lr)?;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.tail.own_tensors())?;
        }
        Ok(())
    }

    /// The loss and its gradients, scaled where they are to be; none if it is not finite.
    fn gradients(&mut self, x: &Tensor, targets: Targets<'_>) -> Result<(f64, Gradients)> {
        let TailTrainer { tail, backward, mode, loss, loss_scale, .. } = self;
        let Some(backward) = backward else {
            let loss = loss.of(&tail.forward_train(x, mode)?, targets)?;
            let value = loss.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar()?; // Metal has no f64
            let gradients = if f64::is_finite(value) { Some(loss.backward()?) } else { None };
            return Ok((value, gradients.map(|found| Gradients::of(&found, &tail.trained)).unwrap_or_default()));
        };
        let features = Var::from_tensor(&backward.features(&tail.tensors, x, mode)?)?;
        let loss = loss.of(&tail.network.classify_train(&features, mode)?, targets)?;
        let value = f64::from(loss.to_device(&Device::Cpu)?.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Ok((value, Gradients::default()));
        }
        let scaled = loss_scale.as_ref().map_or_else(|| Ok(loss.clone()), |scale| &loss * scale.factor())?;
        let found = scaled.backward()?;
        let of_classifier = Gradients::of(&found, &tail.trained);
        let Some(of_features) = found.get(&features) else { return Ok((value, of_classifier)) };
        let before = backward.gradients(&tail.tensors, of_features, &|name| tail.trains(name))?;
        Ok((value, of_classifier.with(before)))
    }

    /// What the first part of `tail`, one of this trainer's, is given → logits (N, classes).
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn logits(&mut self, tail: &Snapshot, x: &Tensor) -> candle_core::Result<Tensor> {
        let Some(backward) = &mut self.backward else {
            return Ok(tail.network.forward_from(self.tail.first, x)?.detach());
        };
        // With frozen norms and nothing left out a training step computes what evaluation does.
        let mut evaluation = TrainingMode::new(NormPolicy::frozen());
        let features = backward.features(&tail.tensors, x, &mut evaluation)?;
        Ok(tail.network.classify_train(&features, &mut evaluation)?.detach())
    }

    /// The tail as it would be delivered now: a copy of it, or of the averages where they are kept.
    ///
    /// # Errors
    /// Only those of the copies.
    pub fn snapshot(&self) -> Result<Snapshot> {
        match &self.ema {
            Some(ema) => self.tail.with(copies(&ema.tensors())?),
            None => self.tail.with(copies(&self.tail.own_tensors())?),
        }
    }

    /// All that later steps depend on: the tail's own tensors as `weights/NAME`, what the optimiser remembers as `optimizer/NAME`, and
    /// averages as `ema/NAME`, copies; and what the loss is scaled by. What was added to a step that was not taken is not among it.
    ///
    /// # Errors
    /// Only those of the copies.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let (weights, ema) = (copies(&self.tail.own_tensors())?, self.ema.as_ref().map(Ema::state).transpose()?);
        let ema = ema.map_or_else(BTreeMap::new, |ema| under("ema/", &ema));
        let scale = self.loss_scale.as_ref().map_or_else(|| Ok(BTreeMap::new()), LossScale::state)?;
        let all = [under("weights/", &weights), under("optimizer/", &self.optimizer.state()?), ema, scale];
        Ok(all.into_iter().flatten().collect())
    }

    /// Goes on from what [`state`](TailTrainer::state) gave, to the same bits.
    ///
    /// # Errors
    /// If a tensor is missing, belongs to nothing that trains, or is of another shape.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let weights = below("weights/", state);
        self.tail.check_fits(&weights)?;
        if let Some(ema) = &mut self.ema {
            ema.load_state(&below("ema/", state))?;
        }
        if let Some(scale) = &mut self.loss_scale {
            *scale = LossScale::from_state(state)?.unwrap_or_default();
        }
        self.optimizer.load_state(&below("optimizer/", state))?;
        self.tail.set(&weights)
    }

    /// The tail as it is now.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }
}

#[cfg(test)]
mod tests {
    use candle_resnet::initialise::fresh_weights;

    use super::*;

    /// `fc` of resnet20_cifar on weights of another network and a head of another width.
    fn tail(weights_of: &str, width: usize) -> Result<Tail> {
        let [architecture, source] = ["resnet20_cifar", weights_of].map(|name| Architecture::named(name).unwrap());
        let weights = fresh_weights(source, 10, 0, &Device::Cpu).unwrap();
        let head = Head::new(2, width, 0, &Device::Cpu).unwrap();
        Tail::new(architecture, &weights, &head, Part::Classifier, &Device::Cpu)
    }

    #[test]
    fn a_loss_that_is_not_finite_moves_no_parameter() {
        let tail = tail("resnet20_cifar", 64).unwrap();
        let weight = tail.trained().data().lock().unwrap()["fc.weight"].clone();
        let before: Vec<Vec<f32>> = weight.to_vec2().unwrap();
        let mode = TrainingMode::new(NormPolicy::frozen());
        let (loss, groups) = (CrossEntropy::new(2), Groups::one(0.1));
        let mut trainer = TailTrainer::new(tail, mode, loss, &OptimizerSettings::SGD, &groups).unwrap();
        let mut step = |pixel: f32| {
            let map = Tensor::full(pixel, (1, 64, 8, 8), &Device::Cpu).unwrap();
            trainer.step(&map, &[0], 0.1).unwrap()
        };
        assert!(!step(f32::NAN).is_finite());
        assert_eq!(weight.to_vec2::<f32>().unwrap(), before);
        assert!(step(1.0).is_finite());
        assert_ne!(weight.to_vec2::<f32>().unwrap(), before);
    }

    fn trainer() -> TailTrainer {
        let (tail, mode) = (tail("resnet20_cifar", 64).unwrap(), TrainingMode::new(NormPolicy::frozen()));
        TailTrainer::new(tail, mode, CrossEntropy::new(2), &OptimizerSettings::SGD, &Groups::one(0.0)).unwrap()
    }

    /// A map whose features are `values`, in front of `fc`.
    fn maps(values: &[f32]) -> Tensor {
        let maps: Vec<f32> =
            values.iter().flat_map(|value| (0..64).map(move |index| value * index as f32 / 64.0)).collect();
        let maps = Tensor::from_vec(maps, (values.len(), 64, 1, 1), &Device::Cpu).unwrap();
        maps.broadcast_as((values.len(), 64, 8, 8)).unwrap().contiguous().unwrap()
    }

    fn weight(tensors: &BTreeMap<String, Tensor>) -> Vec<f32> {
        tensors["fc.weight"].flatten_all().unwrap().to_vec1().unwrap()
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn parts_of_a_step_make_the_step_of_the_whole() {
        let [mut whole, mut parts] = [trainer(), trainer()];
        for _ in 0..3 {
            whole.step(&maps(&[1.0, -2.0, 3.0]), &[0, 1, 1], 0.1).unwrap();
            parts.add(&maps(&[1.0, -2.0]), Targets::Labels(&[0, 1])).unwrap();
            let targets = Tensor::new(&[[0f32, 1.0]], &Device::Cpu).unwrap();
            parts.add(&maps(&[3.0]), Targets::Probabilities(&targets)).unwrap();
            parts.apply(0.1).unwrap();
        }
        let [whole, parts] = [whole, parts].map(|trainer| weight(&trainer.tail().own_tensors()));
        assert!(largest_difference(&whole, &parts) < 1e-6);
        assert!(largest_difference(&whole, &weight(&trainer().tail().own_tensors())) > 1e-3);
    }

    #[test]
    fn clipped_gradients_make_a_step_of_that_length() {
        let mut trainer = trainer().with_clip_norm(1e-3);
        let before = trainer.snapshot().unwrap();
        trainer.step(&maps(&[3.0]), &[0], 1.0).unwrap();
        let after = trainer.snapshot().unwrap();
        let change = |name: &str| -> f64 {
            let difference = (&after.tensors()[name] - &before.tensors()[name]).unwrap();
            difference.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().into()
        };
        let length = (change("fc.weight") + change("fc.bias")).sqrt();
        // The first step with Nesterov's momentum goes 1.9 gradients far.
        assert!((length - 1.9e-3).abs() < 1e-5, "{length}");
    }

    /// A trainer of all of resnet20_cifar, and images.
    fn whole_network() -> (TailTrainer, Tensor) {
        let architecture = Architecture::named("resnet20_cifar").unwrap();
        let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
        let head = Head::new(2, 64, 0, &Device::Cpu).unwrap();
        let tail = Tail::new(architecture, &weights, &head, Part::Stem, &Device::Cpu).unwrap();
        let mode = TrainingMode::new(Part::all(architecture).collect());
        let (loss, groups) = (CrossEntropy::new(2), Groups::one(1e-4));
        let trainer = TailTrainer::new(tail, mode, loss, &OptimizerSettings::SGD, &groups).unwrap();
        let images: Vec<f32> = (0..4 * 3 * 32 * 32).map(|value| ((value * 7919) % 101) as f32 / 50.0 - 1.0).collect();
        (trainer, Tensor::from_vec(images, (4, 3, 32, 32), &Device::Cpu).unwrap())
    }

    fn all_values(trainer: &TailTrainer) -> Vec<Vec<f32>> {
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
        trainer.tail().own_tensors().values().map(flat).collect()
    }

    #[test]
    fn a_scaled_loss_makes_the_same_steps() {
        let [(mut plain, images), (mut scaled, _)] = [whole_network(), whole_network()];
        scaled.loss_scale = Some(LossScale::default());
        for _ in 0..2 {
            let losses = [&mut plain, &mut scaled].map(|trainer| trainer.step(&images, &[0, 1, 1, 0], 0.1).unwrap());
            assert_eq!(losses[0], losses[1]);
        }
        // The scale is a power of two.
        assert_eq!(all_values(&plain), all_values(&scaled));
    }

    /// A device with room for so many images, on which all features are alike.
    struct Fake {
        room: usize,
        feature: f32,
    }

    impl Backward for Fake {
        fn features(
            &mut self,
            _: &HashMap<String, Tensor>,
            x: &Tensor,
            _: &mut TrainingMode,
        ) -> candle_core::Result<Tensor> {
            if x.dim(0)? > self.room {
                return Err(candle_core::Error::wrap("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
            }
            Tensor::full(self.feature, (x.dim(0)?, 64), &Device::Cpu)
        }

        fn gradients(
            &mut self,
            _: &HashMap<String, Tensor>,
            _: &Tensor,
            _: &dyn Fn(&str) -> bool,
        ) -> candle_core::Result<Vec<(String, Tensor)>> {
            Ok(Vec::new())
        }
    }

    /// The state but for what the loss is scaled by.
    fn moved_by_steps(trainer: &TailTrainer) -> BTreeMap<String, Vec<f32>> {
        let state = trainer.state().unwrap().into_iter().filter(|(name, _)| name != "loss-scale");
        let flat = |tensor: Tensor| tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        state.map(|(name, tensor)| (name, flat(tensor))).collect()
    }

    #[test]
    fn a_step_whose_gradients_overflow_is_left_out_and_the_loss_scaled_less() {
        let mut trainer = trainer().with_ema(EmaSettings { decay: 0.5, warmup: false }).unwrap();
        trainer.backward = Some(Box::new(Fake { room: 2, feature: 300.0 }));
        trainer.loss_scale = Some(LossScale::default());
        trainer.step(&maps(&[1.0]), &[0], 0.1).unwrap();
        let before = moved_by_steps(&trainer);
        // One part of the step overflows, the other does not. One of two equal images is wrong: a gradient is a feature times that.
        trainer.add(&maps(&[1.0, 1.0]), Targets::Labels(&[0, 1])).unwrap();
        trainer.loss_scale = Some(LossScale::of(f32::MAX));
        assert!(trainer.add(&maps(&[1.0, 1.0]), Targets::Labels(&[0, 1])).unwrap().is_finite());
        trainer.apply(0.1).unwrap();
        assert_eq!(moved_by_steps(&trainer), before);
        let halved = Some(LossScale::of(f32::MAX / 2.0));
        assert_eq!(trainer.loss_scale, halved);
        let state = trainer.state().unwrap();
        trainer.loss_scale = Some(LossScale::default());
        trainer.load_state(&state).unwrap();
        assert_eq!(trainer.loss_scale, halved);
        trainer.loss_scale = Some(LossScale::default());
        trainer.step(&maps(&[1.0, 1.0]), &[0, 1], 0.1).unwrap();
        assert_ne!(moved_by_steps(&trainer), before);
    }

    #[test]
    fn a_batch_without_room_says_how_many_images_would_fit() {
        for (room, found, hint) in [
            (3, Some(2), "give --batch-size 2, and 4 times the --accumulate"),
            (0, None, "train fewer parts with --train-from"),
        ] {
            let mut trainer = trainer();
            trainer.backward = Some(Box::new(Fake { room, feature: 1.0 }));
            let error = trainer.step(&maps(&[1.0; 8]), &[0; 8], 0.1).unwrap_err();
            assert!(matches!(error, TrainError::OutOfMemory { images: 8, room } if room == found), "{error:?}");
            assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
        }
        let mut trainer = trainer();
        trainer.backward = Some(Box::new(Fake { room: 8, feature: 1.0 }));
        assert!(trainer.step(&maps(&[1.0; 8]), &[0; 8], 0.1).unwrap().is_finite());
    }

    #[test]
    fn averages_are_delivered_where_they_are_kept() {
        let settings = EmaSettings { decay: 0.75, warmup: false };
        let mut trainer = trainer().with_ema(settings).unwrap();
        let mut expected = Vec::new();
        for step in 0..4 {
            trainer.step(&maps(&[1.0, -1.0]), &[0, 1], 0.1).unwrap();
            let now = weight(&trainer.tail().own_tensors());
            let kept = if step == 0 { 0.0 } else { 0.75 };
            let before = if step == 0 { now.clone() } else { expected };
            expected = before.iter().zip(&now).map(|(before, now)| kept * before + (1.0 - kept) * now).collect();
        }
        let delivered = trainer.snapshot().unwrap();
        assert!(largest_difference(&weight(delivered.tensors()), &expected) < 1e-6);
        let x = maps(&[1.0]);
        let logits = trainer.logits(&delivered, &x).unwrap().to_vec2::<f32>().unwrap();
        assert_ne!(logits, trainer.tail().forward(&x).unwrap().to_vec2::<f32>().unwrap());
    }

    #[test]
    fn weights_and_heads_of_another_network_are_refused() {
        let message = |weights_of, width| tail(weights_of, width).err().unwrap().to_string();
        assert!(message("resnet18", 64).starts_with("the weights hold no tensor `layer1.2.conv1.weight`"));
        let error = message("resnet20_cifar", 32);
        assert!(error.contains("fc.weight"), "{error}");
    }
}
