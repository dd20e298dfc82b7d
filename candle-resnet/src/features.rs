//! What fine-tuning asks of a frozen network: images in, features out.

use candle_core::{Device, Result, Tensor};

/// Anything frozen that turns images into one vector each.
///
/// Fine-tuning knows networks through this trait alone, so that it does not depend on what family they are of.
pub trait FeatureExtractor: Send + Sync {
    /// D: values per image.
    fn feature_width(&self) -> usize;

    /// C: channels of an image.
    fn in_channels(&self) -> usize {
        3
    }

    /// Where images must lie and features will.
    fn device(&self) -> &Device;

    /// (N, C, H, W) f32 → (N, D) f32, untracked.
    ///
    /// # Errors
    /// If shapes or devices do not fit, or the device runs out of memory.
    fn features(&self, images: &Tensor) -> Result<Tensor>;
}
