//! A network's variables, read where they lie on the device.

use std::collections::HashMap;

use candle_core::{Result, Tensor};

use crate::cudnn::Values;

/// Every tensor of a network by its name, f32 on the device.
#[derive(Clone, Copy)]
pub(super) struct Variables<'a>(pub(super) &'a HashMap<String, Tensor>);

impl<'a> Variables<'a> {
    /// The values of the tensor `name`.
    pub(super) fn get(&self, name: &str) -> Result<Values<'a>> {
        Values::of(self.tensor(name)?)
    }

    /// The tensor `name`.
    pub(super) fn tensor(&self, name: &str) -> Result<&'a Tensor> {
        self.0.get(name).ok_or_else(|| candle_core::Error::msg(format!("the weights hold no tensor `{name}`")))
    }
}
