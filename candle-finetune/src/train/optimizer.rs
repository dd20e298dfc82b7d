//! Gradients → new values of the variables: SGD and AdamW as PyTorch computes them.
//!
//! Knows neither the schedule nor the model: each step is told its learning rate. Every parameter carries its own scale
//! of the learning rate and its own weight decay, so that groups are no more than different values.

mod slots;

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;

use self::slots::Slots;
#[cfg(feature = "cuda")]
use super::elementwise::Kernel;
use super::elementwise::{Number, Rule};
use super::error::Result;
use super::gradients::Gradients;

/// A variable that trains.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in the `VarMap`.
    pub name: String,
    /// The variable; a step changes it in place.
    pub var: Var,
    /// Its learning rate is that of the step times this.
    pub lr_scale: f64,
    /// Strength of the pull towards 0.
    pub weight_decay: f64,
}

/// Every variable of `map`, sorted by name (a `VarMap` iterates in the order of a hash), all with `weight_decay`.
pub fn parameters(map: &VarMap, weight_decay: f64) -> Vec<Parameter> {
    let variables = map.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let parameter =
        |(name, var): (&String, &Var)| Parameter { name: name.clone(), var: var.clone(), lr_scale: 1.0, weight_decay };
    let mut all: Vec<Parameter> = variables.iter().map(parameter).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Applies gradients to the parameters it was built from.
pub trait Optimizer {
    /// One step at learning rate `lr`; a parameter without a gradient in `gradients` stays as it is.
    ///
    /// # Errors
    /// [`TrainError::TensorShape`](super::TrainError::TensorShape) for a gradient that is not of its parameter's shape, and
    /// those of the tensor operations.
    fn step(&mut self, gradients: &Gradients, lr: f64) -> Result<()>;

    /// What it remembers from step to step, under PyTorch's names behind those of the parameters: a copy.
    ///
    /// # Errors
    /// Only those of the copy.
    fn state(&self) -> Result<BTreeMap<String, Tensor>>;

    /// Goes on from what [`state`](Optimizer::state) gave, to the same bits; changes nothing if it does not fit.
    ///
    /// # Errors
    /// If a tensor is missing, belongs to no parameter, or is of another shape.
    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;
}

/// Stochastic gradient descent with momentum; `torch.optim.SGD` with dampening 0.
///
/// Weight decay is coupled: it is part of the gradient, so the penalty is `weight_decay / 2 · ‖θ‖²`.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
    slots: Slots<1>,
}

impl Sgd {
    /// `momentum` in [0, 1); with `nesterov` the step looks ahead along it (Sutskever et al. 2013).
    ///
    /// # Errors
    /// Only those of allocating the velocities.
    pub fn new(parameters: Vec<Parameter>, momentum: f64, nesterov: bool) -> Result<Self> {
        Ok(Self { momentum, nesterov, slots: Slots::new(parameters, ["momentum_buffer"])? })
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &Gradients, lr: f64) -> Result<()> {
        let (momentum, nesterov) = (self.momentum, self.nesterov);
        self.slots.step(gradients, |parameter, _| SgdRule {
            momentum,
            nesterov,
            weight_decay: parameter.weight_decay,
            lr: lr * parameter.lr_scale,
        })
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        self.slots.state()
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        self.slots.load_state(state)
    }
}

#[derive(Clone, Copy)]
struct SgdRule {
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    lr: f64,
}

impl Rule<1> for SgdRule {
    fn next<X: Number>(
        &self,
        value: &X,
        gradient: &X,
        [velocity]: [&X; 1],
    ) -> std::result::Result<(X, [X; 1]), X::Error> {
        let gradient = gradient.plus_scaled(value, self.weight_decay)?;
        let velocity = gradient.plus_scaled(velocity, self.momentum)?; // the first is the gradient itself
        let next = if self.nesterov {
            value.plus_scaled(&gradient.plus_scaled(&velocity, self.momentum)?, -self.lr)?
        } else {
            value.plus_scaled(&velocity, -self.lr)?
        };
        Ok((next, [velocity]))
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Kernel {
        let constants = [self.momentum, f64::from(u8::from(self.nesterov)), self.weight_decay, -self.lr];
        Kernel { name: "sgd", constants: constants.map(|constant| constant as f32).to_vec() }
    }
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019); `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamW {
    betas: [f64; 2],
    eps: f64,
    slots: Slots<2>,
}

impl AdamW {
    /// `betas` in [0, 1) are the memories of the gradient's mean and of its square; `eps` is added outside the root.
    ///
    /// # Errors
    /// Only those of allocating the moments.
    pub fn new(parameters: Vec<Parameter>, betas: [f64; 2], eps: f64) -> Result<Self> {
        Ok(Self { betas, eps, slots: Slots::new(parameters, ["exp_avg", "exp_avg_sq"])? })
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, gradients: &Gradients, lr: f64) -> Result<()> {
        let (betas, eps) = (self.betas, self.eps);
        self.slots.step(gradients, |parameter, steps| {
            let steps = i32::try_from(steps).unwrap_or(i32::MAX);
            AdamWRule {
                betas,
                eps,
                shares: betas.map(|beta| 1.0 - beta.powi(steps)),
                weight_decay: parameter.weight_decay,
                lr: lr * parameter.lr_scale,
            }
        })
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        self.slots.state()
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        self.slots.load_state(state)
    }
}

#[derive(Clone, Copy)]
struct AdamWRule {
    betas: [f64; 2],
    eps: f64,
    /// How much of the moments comes from gradients so far, and not from the zeros they began with.
    shares: [f64; 2],
    weight_decay: f64,
    lr: f64,
}

impl Rule<2> for AdamWRule {
    fn next<X: Number>(
        &self,
        value: &X,
        gradient: &X,
        [mean, square]: [&X; 2],
    ) -> std::result::Result<(X, [X; 2]), X::Error> {
        let mean = mean.scaled(self.betas[0])?.plus_scaled(gradient, 1.0 - self.betas[0])?;
        let square = square.scaled(self.betas[1])?.plus_scaled(&gradient.times(gradient)?, 1.0 - self.betas[1])?;
        let spread = square.root()?.scaled(1.0 / self.shares[1].sqrt())?.shifted(self.eps)?;
        let kept = value.scaled(1.0 - self.lr * self.weight_decay)?;
        let next = kept.plus_scaled(&mean.over(&spread)?, -self.lr / self.shares[0])?;
        Ok((next, [mean, square]))
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Kernel {
        let AdamWRule { betas: [mean, square], eps, shares, weight_decay, lr } = *self;
        let scales = [1.0 / shares[1].sqrt(), eps, 1.0 - lr * weight_decay, -lr / shares[0]];
        let constants = [mean, 1.0 - mean, square, 1.0 - square].into_iter().chain(scales);
        Kernel { name: "adamw", constants: constants.map(|constant| constant as f32).collect() }
    }
}

#[cfg(test)]
mod tests;
