//! Learning rates and weight decay by the names and shapes of parameters.

use candle_nn::VarMap;

use super::error::{Result, TrainError};
use super::optimizer::{Parameter, parameters};

/// What parameters have in common and in what they differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// Strength of the pull towards 0.
    pub weight_decay: f64,
    /// Whether norms and biases, which are the parameters of one dimension, are pulled as well.
    pub decay_vectors: bool,
    /// The last entry that fits a parameter's name scales its learning rate; 1 where none does.
    pub rates: Vec<Rate>,
}

/// A learning rate for some parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// A name in which `*` stands for any characters: `layer4.*`, `*.bn1.weight`.
    pub pattern: String,
    /// The learning rate is that of the step times this.
    pub scale: f64,
}

impl Groups {
    /// One group: the same rate and the same decay for all.
    pub fn one(weight_decay: f64) -> Groups {
        Groups { weight_decay, decay_vectors: true, rates: Vec::new() }
    }

    /// Every variable of `map`, sorted by name.
    ///
    /// # Errors
    /// [`TrainError::UnusedPattern`] if a pattern fits none of them.
    pub fn parameters(&self, map: &VarMap) -> Result<Vec<Parameter>> {
        let plain = parameters(map, self.weight_decay);
        match self.rates.iter().find(|rate| !plain.iter().any(|parameter| rate.fits(&parameter.name))) {
            Some(unused) => Err(TrainError::UnusedPattern { pattern: unused.pattern.clone() }),
            None => Ok(plain.into_iter().map(|parameter| self.apply(parameter)).collect()),
        }
    }

    fn apply(&self, parameter: Parameter) -> Parameter {
        let rate = self.rates.iter().rfind(|rate| rate.fits(&parameter.name));
        let decays = self.decay_vectors || parameter.var.rank() > 1;
        Parameter {
            lr_scale: rate.map_or(1.0, |rate| rate.scale),
            weight_decay: if decays { parameter.weight_decay } else { 0.0 },
            ..parameter
        }
    }
}

impl Rate {
    fn fits(&self, name: &str) -> bool {
        fits(&self.pattern, name)
    }
}

/// Whether `name` is `pattern`, in which `*` stands for any characters.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, pattern)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let rest = name.strip_prefix(start);
    rest.is_some_and(|rest| (0..=rest.len()).filter_map(|skipped| rest.get(skipped..)).any(|rest| fits(pattern, rest)))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::Init;

    use super::*;

    fn map() -> VarMap {
        let map = VarMap::new();
        let tensors = [("fc.bias", vec![1]), ("fc.weight", vec![1, 1]), ("layer4.0.bn1.weight", vec![1])];
        for (name, shape) in tensors.into_iter().chain([("layer4.0.conv1.weight", vec![1, 1, 1, 1])]) {
            map.get(shape, name, Init::Const(0.0), DType::F32, &Device::Cpu).unwrap();
        }
        map
    }

    fn rate(pattern: &str, scale: f64) -> Rate {
        Rate { pattern: pattern.into(), scale }
    }

    #[test]
    fn the_last_pattern_that_fits_sets_the_rate_and_vectors_may_go_without_decay() {
        let rates = vec![rate("layer4.*", 0.1), rate("*.bn1.*", 0.5)];
        let groups = Groups { weight_decay: 0.01, decay_vectors: false, rates };
        let parameters = groups.parameters(&map()).unwrap();
        let table: Vec<_> = parameters.iter().map(|p| (p.name.as_str(), p.lr_scale, p.weight_decay)).collect();
        let expected = [
            ("fc.bias", 1.0, 0.0),
            ("fc.weight", 1.0, 0.01),
            ("layer4.0.bn1.weight", 0.5, 0.0),
            ("layer4.0.conv1.weight", 0.1, 0.01),
        ];
        assert_eq!(table, expected);
        assert!(Groups::one(0.3).parameters(&map()).unwrap().iter().all(|p| p.weight_decay == 0.3));
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_named() {
        let groups = Groups { rates: vec![rate("layer5.*", 0.1)], ..Groups::one(0.0) };
        let message = groups.parameters(&map()).unwrap_err().to_string();
        assert_eq!(message, "`layer5.*` fits no parameter that trains");
    }

    #[test]
    fn stars_stand_for_any_characters() {
        let table = [
            ("fc.weight", "fc.weight", true),
            ("fc.weight", "fc.weights", false),
            ("*", "", true),
            ("layer4.*", "layer40.0", false),
            ("*.bn*.weight", "layer4.0.bn1.weight", true),
            ("*.bn*.weight", "layer4.0.bn1.bias", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(fits(pattern, name), expected, "{pattern} on {name}");
        }
    }
}
