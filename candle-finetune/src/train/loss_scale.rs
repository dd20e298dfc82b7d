//! What a loss is multiplied by before gradients are held in f16, whose range is small: so that few of them become 0.
//!
//! The schedule is that of PyTorch's `GradScaler`: twice as much after 2,000 steps that went well, half as much where a gradient was
//! infinite, and no step then.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::error::{Result, TrainError};
use super::state::named;

const FIRST: f32 = 65536.0;

/// Steps that go well before more is tried.
const PATIENCE: u32 = 2000;

/// Where it no longer serves: gradients are too large for f16 as they are.
const LEAST: f32 = 1.0 / 1024.0;

/// The name of its state.
const NAME: &str = "loss-scale";

#[derive(Debug, Clone, PartialEq)]
pub(super) struct LossScale {
    factor: f32,
    /// Steps that went well since it changed.
    steps: u32,
}

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale { factor: FIRST, steps: 0 }
    }
}

impl LossScale {
    #[cfg(test)]
    pub(super) fn of(factor: f32) -> LossScale {
        LossScale { factor, steps: 0 }
    }

    /// What the loss is multiplied by, and gradients are to be divided by.
    pub(super) fn factor(&self) -> f64 {
        f64::from(self.factor)
    }

    /// A step was taken.
    pub(super) fn worked(&mut self) {
        self.steps += 1;
        if self.steps == PATIENCE {
            *self = LossScale { factor: 2.0 * self.factor, steps: 0 };
        }
    }

    /// A gradient was not finite, and the step was left out.
    ///
    /// # Errors
    /// [`TrainError::BeyondF16`] if nothing is left to give way.
    pub(super) fn overflowed(&mut self) -> Result<()> {
        *self = LossScale { factor: self.factor / 2.0, steps: 0 };
        tracing::debug!("a gradient left the range of f16: a step is left out, and the loss scaled by {}", self.factor);
        if self.factor < LEAST { Err(TrainError::BeyondF16) } else { Ok(()) }
    }

    pub(super) fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let state = Tensor::new(&[self.factor, self.steps as f32], &Device::Cpu)?;
        Ok(BTreeMap::from([(NAME.into(), state)]))
    }

    /// From what [`state`](LossScale::state) gave, among other things; none where the loss was not scaled.
    pub(super) fn from_state(state: &BTreeMap<String, Tensor>) -> Result<Option<LossScale>> {
        if !state.contains_key(NAME) {
            return Ok(None);
        }
        let state = named(state, NAME, &[2])?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
        Ok(Some(LossScale { factor: state[0], steps: state[1] as u32 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_after_steps_that_went_well_and_halves_at_once() {
        let mut scale = LossScale::default();
        (0..PATIENCE - 1).for_each(|_| scale.worked());
        assert_eq!(scale.factor(), 65536.0);
        scale.overflowed().unwrap();
        assert_eq!(scale.factor(), 32768.0);
        (0..PATIENCE).for_each(|_| scale.worked());
        assert_eq!(scale.factor(), 65536.0);
    }

    #[test]
    fn gradients_that_no_scale_brings_into_range_end_the_training() {
        let mut scale = LossScale::default();
        let halvings = (0..100).take_while(|_| scale.overflowed().is_ok()).count();
        assert_eq!(halvings, 26); // from 2^16 down to 2^-10
    }

    #[test]
    fn its_state_is_all_there_is() {
        let mut scale = LossScale::default();
        scale.overflowed().unwrap();
        scale.worked();
        assert_eq!(LossScale::from_state(&scale.state().unwrap()).unwrap(), Some(scale));
        assert_eq!(LossScale::from_state(&BTreeMap::new()).unwrap(), None);
    }
}
