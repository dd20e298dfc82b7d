//! Gradients under the names of their parameters, wherever they were computed.

use std::collections::BTreeMap;

use candle_core::{Tensor, backprop::GradStore};
use candle_nn::VarMap;

/// A gradient for each of some parameters.
#[derive(Clone, Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor>);

impl Gradients {
    /// Those that candle's autograd found for the variables of `map`.
    pub fn of(found: &GradStore, map: &VarMap) -> Gradients {
        let variables = map.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        variables.iter().filter_map(|(name, var)| Some((name.clone(), found.get(var)?.clone()))).collect()
    }

    /// These and others.
    pub fn with(mut self, others: impl IntoIterator<Item = (String, Tensor)>) -> Gradients {
        self.0.extend(others);
        self
    }

    /// That of the parameter `name`, if it has one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// All, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }
}

impl FromIterator<(String, Tensor)> for Gradients {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(named: I) -> Gradients {
        Gradients(named.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::Init;

    use super::*;

    #[test]
    fn gradients_of_a_map_have_its_names_and_leave_out_what_the_loss_does_not_see() {
        let map = VarMap::new();
        let [a, b, _] =
            ["a", "b", "unseen"].map(|name| map.get(1, name, Init::Const(3.0), DType::F32, &Device::Cpu).unwrap());
        let loss = (a.sqr().unwrap() + (b * 5.0).unwrap()).unwrap();
        let gradients = Gradients::of(&loss.backward().unwrap(), &map);
        let found: Vec<_> = gradients.iter().map(|(name, value)| (name, value.to_vec1::<f32>().unwrap()[0])).collect();
        assert_eq!(found, [("a", 6.0), ("b", 5.0)]);
    }
}
