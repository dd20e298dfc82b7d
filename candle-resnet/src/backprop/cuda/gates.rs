//! What weighs channels by their means: a small network on (N, C), which goes back through candle's graph.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var};

use super::variables::Variables;
use crate::blueprint::Attention;
use crate::figure::AttentionLayer;

/// Gates that were computed, and what they were computed from.
#[derive(Debug)]
pub(super) struct Gates {
    /// (N, C), f32.
    pub(super) values: Tensor,
    means: Var,
    /// Of the attention, by name.
    parameters: HashMap<String, Var>,
}

/// A parameter's name and its gradient.
type Gradient = (String, Tensor);

impl Gates {
    /// Of means (N, C) on the device.
    pub(super) fn new(attention: &Attention, variables: Variables<'_>, means: &Tensor) -> Result<Gates> {
        let mut parameters = HashMap::new();
        let layer = AttentionLayer::build(attention, &mut |name, shape| {
            let parameter = Var::from_tensor(&variables.tensor(name)?.detach().reshape(shape)?)?;
            let tensor = parameter.as_tensor().clone();
            parameters.insert(name.to_owned(), parameter);
            Ok(tensor)
        })?;
        let means = Var::from_tensor(means)?;
        Ok(Gates { values: layer.gates(&means)?, means, parameters })
    }

    /// The gradient of the gates → that of the means, both (N, C), and those of the parameters that `wanted` says.
    pub(super) fn backward(&self, gradient: &Tensor, wanted: &dyn Fn(&str) -> bool) -> Result<(Tensor, Vec<Gradient>)> {
        let mut gradients = (&self.values * gradient)?.sum_all()?.backward()?;
        let mut of = |variable: &Var, name: &str| {
            let found = gradients.remove(variable);
            found.ok_or_else(|| candle_core::Error::msg(format!("`{name}` has no gradient")))?.contiguous()
        };
        let of_means = of(&self.means, "the mean")?;
        let parameters = self.parameters.iter().filter(|(name, _)| wanted(name));
        let found = parameters.map(|(name, parameter)| Ok((name.clone(), of(parameter, name)?)));
        Ok((of_means, found.collect::<Result<_>>()?))
    }
}
