//! The exponential moving average of a network's tensors; timm's `ModelEmaV3`.
//!
//! Running statistics are averaged like parameters. Knows no network: it is given tensors by name after every step.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use super::elementwise::Kernel;
use super::elementwise::{self, Memory, Move, Number, Rule};
use super::error::Result;
use super::settings::check;
use super::state::{check_known, named};

/// The name under which the number of updates is kept.
const UPDATES: &str = "num_updates";

/// How slowly the average follows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EmaSettings {
    /// What the average keeps of itself in an update, in [0, 1).
    pub decay: f64,
    /// Whether it keeps less in early ones: 1 - (1 + n)^(-2/3) in the one after n others.
    pub warmup: bool,
}

impl Default for EmaSettings {
    fn default() -> Self {
        Self { decay: 0.9998, warmup: false }
    }
}

impl EmaSettings {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// [`TrainError::Setting`](super::TrainError::Setting) if one is not.
    pub fn validate(&self) -> Result<()> {
        check("ema-decay", self.decay, (0.0..1.0).contains(&self.decay), "from 0 up and below 1")
    }

    /// What is kept in the update after `updates` others; nothing in the first.
    fn decay_after(&self, updates: u32) -> f64 {
        match (updates, self.warmup) {
            (0, _) => 0.0,
            (_, false) => self.decay,
            (_, true) => self.decay.min(1.0 - (1.0 + f64::from(updates)).powf(-2.0 / 3.0)),
        }
    }
}

/// Averages of tensors by name.
#[derive(Debug)]
pub struct Ema {
    settings: EmaSettings,
    averages: BTreeMap<String, Var>,
    updates: u32,
}

impl Ema {
    /// Averages of what these tensors will be, which are copied.
    ///
    /// # Errors
    /// [`TrainError::Setting`](super::TrainError::Setting), and those of the copies.
    pub fn new(tensors: &BTreeMap<String, Tensor>, settings: EmaSettings) -> Result<Ema> {
        settings.validate()?;
        let copy = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), Var::from_tensor(&tensor.detach())?));
        Ok(Ema { settings, averages: tensors.iter().map(copy).collect::<Result<_>>()?, updates: 0 })
    }

    /// Takes in what the tensors are after a step; names that are not averaged are left aside.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape than at first.
    pub fn update(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let weight = 1.0 - self.settings.decay_after(self.updates);
        let now = |(name, average): (&String, &Var)| Ok(named(tensors, name, average.dims())?.detach());
        let others = self.averages.iter().map(now).collect::<Result<Vec<Tensor>>>()?;
        let memories = self.averages.values().map(Memory::zeros).collect::<candle_core::Result<Vec<_>>>();
        let (mut memories, rule) = (memories?, Interpolation { weight });
        let moves = self.averages.values().zip(&others).zip(&mut memories);
        elementwise::step(moves.map(|((var, other), memory)| Move { var, other, memory, rule }).collect())?;
        self.updates = self.updates.saturating_add(1);
        Ok(())
    }

    /// The averages as they are now; a later update changes them.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.averages.iter().map(|(name, average)| (name.clone(), average.as_detached_tensor())).collect()
    }

    /// A copy of the averages, and the number of updates as `num_updates`.
    ///
    /// # Errors
    /// Only those of the copies.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let copy = |(name, average): (&String, &Var)| Ok((name.clone(), average.as_detached_tensor().copy()?));
        let mut state: BTreeMap<_, _> = self.averages.iter().map(copy).collect::<Result<_>>()?;
        state.insert(UPDATES.into(), Tensor::new(self.updates, &candle_core::Device::Cpu)?);
        Ok(state)
    }

    /// Goes on from what [`state`](Ema::state) gave, to the same bits; changes nothing if it does not fit.
    ///
    /// # Errors
    /// If a tensor is missing, is not averaged, or is of another shape.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let updates = named(state, UPDATES, &[])?.to_dtype(DType::U32)?.to_scalar()?;
        let known = self.averages.keys().cloned().chain([UPDATES.into()]);
        check_known(state, &known.collect())?;
        let restored = |(name, average): (&String, &Var)| {
            let tensor = named(state, name, average.dims())?.to_dtype(average.dtype())?.to_device(average.device())?;
            Ok((name.clone(), Var::from_tensor(&tensor)?))
        };
        self.averages = self.averages.iter().map(restored).collect::<Result<_>>()?;
        self.updates = updates;
        Ok(())
    }
}

/// `weight` of the way to the other number; `torch.lerp`, which is exact at both ends.
#[derive(Clone, Copy)]
struct Interpolation {
    weight: f64,
}

impl Rule<0> for Interpolation {
    fn next<X: Number>(&self, start: &X, end: &X, _: [&X; 0]) -> std::result::Result<(X, [X; 0]), X::Error> {
        let way = end.minus(start)?;
        let next = if self.weight < 0.5 {
            start.plus_scaled(&way, self.weight)?
        } else {
            end.plus_scaled(&way, self.weight - 1.0)?
        };
        Ok((next, []))
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Kernel {
        Kernel { name: "interpolate", constants: vec![self.weight as f32] }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensors(values: [f32; 2]) -> BTreeMap<String, Tensor> {
        let tensor = |value: f32| Tensor::new(&[value, 2.0 * value], &Device::Cpu).unwrap();
        [("a".into(), tensor(values[0])), ("b".into(), tensor(values[1]))].into()
    }

    fn values(tensors: &BTreeMap<String, Tensor>) -> Vec<Vec<f32>> {
        tensors.values().map(|tensor| tensor.to_vec1().unwrap()).collect()
    }

    fn ema(decay: f64) -> Ema {
        Ema::new(&tensors([1.0, 2.0]), EmaSettings { decay, warmup: true }).unwrap()
    }

    #[test]
    fn the_first_update_copies_and_the_warm_up_ends_at_the_decay() {
        let mut ema = ema(0.5);
        ema.update(&tensors([0.1, 0.3])).unwrap();
        assert_eq!(values(&ema.tensors()), values(&tensors([0.1, 0.3])));
        let decays = [0, 1, 2, 3].map(|updates| ema.settings.decay_after(updates));
        let first = 1.0 - 2f64.powf(-2.0 / 3.0);
        assert_eq!((decays[0], decays[2], decays[3]), (0.0, 0.5, 0.5));
        assert!((decays[1] - first).abs() < 1e-15 && first < 0.4);
    }

    #[test]
    fn what_it_was_made_of_does_not_follow_it() {
        let source = tensors([1.0, 2.0]);
        let mut ema = Ema::new(&source, EmaSettings::default()).unwrap();
        ema.update(&tensors([5.0, 6.0])).unwrap();
        assert_eq!(values(&source), values(&tensors([1.0, 2.0])));
    }

    #[test]
    fn a_run_that_goes_on_from_its_state_has_the_same_bits() {
        let mut whole = ema(0.9);
        (1..4).for_each(|step| whole.update(&tensors([step as f32, 0.1])).unwrap());
        let mut resumed = ema(0.9);
        resumed.load_state(&whole.state().unwrap()).unwrap();
        for ema in [&mut whole, &mut resumed] {
            (4..7).for_each(|step| ema.update(&tensors([step as f32, 0.1])).unwrap());
        }
        assert_eq!(values(&whole.tensors()), values(&resumed.tensors()));
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing() {
        let mut ema = ema(0.9);
        let with = |name: &str, values: Option<&[f32]>| {
            let mut state = ema.state().unwrap();
            match values {
                Some(values) => state.insert(name.into(), Tensor::new(values, &Device::Cpu).unwrap()),
                None => state.remove(name),
            };
            state
        };
        let table = [
            (with("b", None), "there is no tensor `b`"),
            (with("num_updates", None), "there is no tensor `num_updates`"),
            (with("c", Some(&[1.0])), "tensor `c` belongs to nothing that trains"),
            (with("b", Some(&[1.0])), "tensor `b` has shape [1], expected [2]"),
        ];
        for (state, expected) in table {
            assert_eq!(ema.load_state(&state).unwrap_err().to_string(), expected);
        }
        assert_eq!(values(&ema.tensors()), values(&tensors([1.0, 2.0])));
    }

    #[test]
    fn a_decay_out_of_range_is_refused() {
        for decay in [1.0, -0.1, f64::NAN] {
            let error = Ema::new(&tensors([1.0, 2.0]), EmaSettings { decay, warmup: false }).unwrap_err();
            assert!(error.to_string().starts_with("setting `ema-decay` is "), "{error}");
        }
    }
}
