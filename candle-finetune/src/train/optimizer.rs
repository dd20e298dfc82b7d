//! Gradients → new values of the variables: SGD and AdamW as PyTorch computes them.
//!
//! Knows neither the schedule nor the model: each step is told its learning rate. Every parameter carries its own scale
//! of the learning rate and its own weight decay, so that groups are no more than different values.

use candle_core::{Result, Tensor, Var, backprop::GradStore};
use candle_nn::VarMap;

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
    /// Only those of the tensor operations.
    fn step(&mut self, gradients: &GradStore, lr: f64) -> Result<()>;
}

/// Stochastic gradient descent with momentum; `torch.optim.SGD` with dampening 0.
///
/// Weight decay is coupled: it is part of the gradient, so the penalty is `weight_decay / 2 · ‖θ‖²`.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
    slots: Vec<(Parameter, Option<Tensor>)>,
}

impl Sgd {
    /// `momentum` in [0, 1); with `nesterov` the step looks ahead along it (Sutskever et al. 2013).
    pub fn new(parameters: Vec<Parameter>, momentum: f64, nesterov: bool) -> Self {
        let slots = parameters.into_iter().map(|parameter| (parameter, None)).collect();
        Self { momentum, nesterov, slots }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &GradStore, lr: f64) -> Result<()> {
        for (parameter, velocity) in &mut self.slots {
            let Some(gradient) = gradients.get(&parameter.var) else {
                continue;
            };
            let value = parameter.var.as_detached_tensor();
            let gradient = add_scaled(gradient, &value, parameter.weight_decay)?;
            let next = match velocity.take() {
                Some(velocity) => add_scaled(&gradient, &velocity, self.momentum)?,
                None => gradient.clone(), // the first velocity is the gradient itself
            };
            let direction = if self.nesterov { add_scaled(&gradient, &next, self.momentum)? } else { next.clone() };
            *velocity = Some(next);
            parameter.var.set(&add_scaled(&value, &direction, -lr * parameter.lr_scale)?)?;
        }
        Ok(())
    }
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019); `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamW {
    betas: [f64; 2],
    eps: f64,
    slots: Vec<AdamSlot>,
}

#[derive(Debug)]
struct AdamSlot {
    parameter: Parameter,
    /// Running means of the gradient and of its square.
    moments: [Tensor; 2],
    /// Steps taken by this parameter; the bias correction counts them.
    steps: i32,
}

impl AdamW {
    /// `betas` in [0, 1) are the memories of the gradient's mean and of its square; `eps` is added outside the root.
    ///
    /// # Errors
    /// Only those of allocating the moments.
    pub fn new(parameters: Vec<Parameter>, betas: [f64; 2], eps: f64) -> Result<Self> {
        let slot = |parameter: Parameter| {
            let zeros = parameter.var.as_detached_tensor().zeros_like()?;
            Ok(AdamSlot { parameter, moments: [zeros.clone(), zeros], steps: 0 })
        };
        Ok(Self { betas, eps, slots: parameters.into_iter().map(slot).collect::<Result<_>>()? })
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, gradients: &GradStore, lr: f64) -> Result<()> {
        for slot in &mut self.slots {
            if let Some(gradient) = gradients.get(&slot.parameter.var) {
                slot.remember(gradient, self.betas)?;
                slot.apply(self.betas, self.eps, lr * slot.parameter.lr_scale)?;
            }
        }
        Ok(())
    }
}

impl AdamSlot {
    fn remember(&mut self, gradient: &Tensor, betas: [f64; 2]) -> Result<()> {
        let [mean, square] = &self.moments;
        let mean = add_scaled(&(mean * betas[0])?, gradient, 1.0 - betas[0])?;
        let square = add_scaled(&(square * betas[1])?, &gradient.sqr()?, 1.0 - betas[1])?;
        self.moments = [mean, square];
        self.steps = self.steps.saturating_add(1);
        Ok(())
    }

    fn apply(&self, betas: [f64; 2], eps: f64, lr: f64) -> Result<()> {
        let [mean_share, square_share] = betas.map(|beta| 1.0 - beta.powi(self.steps));
        let [mean, square] = &self.moments;
        let scale = square.sqrt()?.affine(1.0 / square_share.sqrt(), eps)?;
        let kept = (self.parameter.var.as_detached_tensor() * (1.0 - lr * self.parameter.weight_decay))?;
        self.parameter.var.set(&add_scaled(&kept, &(mean / scale)?, -lr / mean_share)?)
    }
}

/// `a + scale · b`.
fn add_scaled(a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    if scale == 0.0 { Ok(a.clone()) } else { a + (b * scale)? }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// A variable at 1 whose loss is `slope · θ`, so whose gradient is `slope`.
    fn parameter(weight_decay: f64, lr_scale: f64) -> Parameter {
        let var = Var::new(&[1f64], &Device::Cpu).unwrap();
        Parameter { name: "x".into(), var, lr_scale, weight_decay }
    }

    fn steps(optimizer: &mut dyn Optimizer, parameter: &Parameter, slopes: &[f64], lr: f64) -> f64 {
        for &slope in slopes {
            let loss = (parameter.var.as_tensor() * slope).unwrap().sum_all().unwrap();
            optimizer.step(&loss.backward().unwrap(), lr).unwrap();
        }
        parameter.var.to_vec1::<f64>().unwrap()[0]
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} != {expected}");
    }

    #[test]
    fn sgd_steps_against_the_gradient() {
        let p = parameter(0.0, 1.0);
        close(steps(&mut Sgd::new(vec![p.clone()], 0.0, false), &p, &[2.0, 1.0], 0.1), 1.0 - 0.2 - 0.1);
    }

    #[test]
    fn sgd_momentum_starts_with_the_gradient_itself() {
        let p = parameter(0.0, 1.0);
        // velocities 2, 0.5 · 2 + 1 = 2
        close(steps(&mut Sgd::new(vec![p.clone()], 0.5, false), &p, &[2.0, 1.0], 0.1), 1.0 - 0.2 - 0.2);
    }

    #[test]
    fn nesterov_looks_ahead() {
        let p = parameter(0.0, 1.0);
        // directions 2 + 0.5 · 2 = 3, 1 + 0.5 · 2 = 2
        close(steps(&mut Sgd::new(vec![p.clone()], 0.5, true), &p, &[2.0, 1.0], 0.1), 1.0 - 0.3 - 0.2);
    }

    #[test]
    fn sgd_decay_is_part_of_the_gradient_and_of_the_velocity() {
        let p = parameter(0.5, 1.0);
        // g = 2 + 0.5 · 1 = 2.5, θ = 0.75; g = 1 + 0.375, v = 0.5 · 2.5 + 1.375 = 2.625
        close(steps(&mut Sgd::new(vec![p.clone()], 0.5, false), &p, &[2.0, 1.0], 0.1), 0.75 - 0.2625);
    }

    #[test]
    fn adamw_first_step_is_the_sign_of_the_gradient() {
        let p = parameter(0.5, 1.0);
        let mut adamw = AdamW::new(vec![p.clone()], [0.9, 0.999], 0.0).unwrap();
        // decoupled decay: 1 · (1 - 0.1 · 0.5), then 0.1 along the sign
        close(steps(&mut adamw, &p, &[3.0], 0.1), 0.95 - 0.1);
    }

    #[test]
    fn adamw_second_step_by_hand() {
        let p = parameter(0.0, 1.0);
        let mut adamw = AdamW::new(vec![p.clone()], [0.5, 0.5], 0.25).unwrap();
        // m: 1, 2.5 (÷ 0.75); v: 2, 9 (÷ 0.75); first step 2 / (2 + 0.25)
        let second = (2.5 / 0.75) / ((9.0f64 / 0.75).sqrt() + 0.25);
        close(steps(&mut adamw, &p, &[2.0, 4.0], 0.1), 1.0 - 0.1 * 2.0 / 2.25 - 0.1 * second);
    }

    #[test]
    fn each_parameter_has_its_own_rate() {
        let p = parameter(0.0, 0.1);
        close(steps(&mut Sgd::new(vec![p.clone()], 0.0, false), &p, &[2.0], 0.1), 0.98);
    }

    #[test]
    fn without_a_gradient_nothing_moves() {
        let (p, other) = (parameter(0.5, 1.0), parameter(0.5, 1.0));
        let mut sgd = Sgd::new(vec![p.clone(), other.clone()], 0.9, true);
        steps(&mut sgd, &p, &[1.0, 1.0], 0.1);
        assert_eq!(other.var.to_vec1::<f64>().unwrap(), [1.0]);
    }

    #[test]
    fn parameters_are_sorted_by_name() {
        let map = VarMap::new();
        for name in ["fc.weight", "a", "fc.bias", "z", "m"] {
            map.get(1, name, candle_nn::Init::Const(0.0), DType::F32, &Device::Cpu).unwrap();
        }
        let names: Vec<String> = parameters(&map, 0.0).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["a", "fc.bias", "fc.weight", "m", "z"]);
    }
}
