//! Weighs the channels of a map by their means.

use candle_core::{Module, Result, Tensor};
use candle_nn::Linear;

use super::pool;
use crate::blueprint::Attention;

/// The layers of an [`Attention`].
#[derive(Debug, Clone)]
pub(crate) enum AttentionLayer {
    SqueezeExcite { fc1: Linear, fc2: Linear },
    EfficientChannel { kernel: Tensor }, // (1, 1, K)
}

impl AttentionLayer {
    /// With the tensors that `tensor` gives for a name and a shape.
    pub(crate) fn build(
        attention: &Attention,
        tensor: &mut impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<AttentionLayer> {
        Ok(match *attention {
            Attention::SqueezeExcite { ref name, channels, inner } => AttentionLayer::SqueezeExcite {
                fc1: dense(&format!("{name}.fc1"), channels, inner, tensor)?,
                fc2: dense(&format!("{name}.fc2"), inner, channels, tensor)?,
            },
            Attention::EfficientChannel { ref name, kernel } => {
                AttentionLayer::EfficientChannel { kernel: tensor(&format!("{name}.conv.weight"), &[1, 1, kernel])? }
            }
        })
    }

    /// (N, C, H, W) → (N, C, H, W)
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let means = pool::mean(x)?.to_dtype(x.dtype())?; // (N, C)
        x.broadcast_mul(&self.gates(&means)?.unsqueeze(2)?.unsqueeze(3)?)
    }

    /// What each channel is weighed by, (N, C), from 0 to 1, by its mean (N, C).
    pub(crate) fn gates(&self, means: &Tensor) -> Result<Tensor> {
        candle_nn::ops::sigmoid(&self.scores(means)?)
    }

    /// (N, C) → (N, C)
    fn scores(&self, means: &Tensor) -> Result<Tensor> {
        match self {
            AttentionLayer::SqueezeExcite { fc1, fc2 } => fc2.forward(&fc1.forward(means)?.relu()?),
            // As a product with what each tap sees: a gradient of a convolution along channels would add all of them in one place.
            AttentionLayer::EfficientChannel { kernel } => {
                let ((images, channels), taps) = (means.dims2()?, kernel.dim(2)?);
                let padded = means.pad_with_zeros(1, taps / 2, taps / 2)?;
                let seen = (0..taps).map(|tap| padded.narrow(1, tap, channels)).collect::<Result<Vec<_>>>()?;
                let seen = Tensor::stack(&seen, 2)?.reshape((images * channels, taps))?;
                seen.matmul(&kernel.reshape((taps, 1))?)?.reshape((images, channels))
            }
        }
    }
}

/// A 1×1 convolution on one pixel.
fn dense(
    name: &str,
    inputs: usize,
    outputs: usize,
    tensor: &mut impl FnMut(&str, &[usize]) -> Result<Tensor>,
) -> Result<Linear> {
    let weight = tensor(&format!("{name}.weight"), &[outputs, inputs, 1, 1])?;
    let bias = tensor(&format!("{name}.bias"), &[outputs])?;
    Ok(Linear::new(weight.reshape((outputs, inputs))?, Some(bias)))
}
