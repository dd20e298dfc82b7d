//! Features and labels → a trained head; maps and labels → a trained tail of a network.
//!
//! Takes tensors, settings and an observer; knows nothing of images, files or the command line, and of networks only in [`tail`].
//! The variables that train live in a `VarMap` of their own, from which alone the optimiser is built: for a head it holds
//! exactly `fc.weight` and `fc.bias`.
//!
//! ```
//! use std::ops::ControlFlow;
//! use candle_core::{Device, Tensor};
//! use candle_finetune::train::{FeatureSet, HeadSettings, fit};
//!
//! let features = Tensor::new(&[[1f32, 0.], [0.9, 0.2], [0., 1.], [0.1, 0.8]], &Device::Cpu)?;
//! let train = FeatureSet::new(&features, vec![0, 0, 1, 1], 2)?;
//! let trained = fit(&train, &train, &HeadSettings::default(), &mut |_epoch| ControlFlow::Continue(()))?;
//! assert_eq!(trained.best().val_top1, Some(1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(test)]
#[path = "../../../candle-resnet/tests/device/mod.rs"]
mod device;
mod elementwise;
pub mod ema;
mod error;
mod features;
mod fit;
mod gradients;
pub mod groups;
pub mod head;
pub mod loss;
mod loss_scale;
pub mod metrics;
pub mod mixup;
pub mod optimizer;
pub mod range_test;
pub mod sampler;
pub mod schedule;
mod settings;
pub mod standardise;
pub(crate) mod state;
pub mod tail;

pub use error::{Result, TrainError};
pub use features::FeatureSet;
pub(crate) use fit::better;
pub use fit::{Ended, EpochRecord, Observer, Trained, best, fit, range_test_head, refit};
pub use gradients::Gradients;
pub use head::Head;
pub use metrics::Metrics;
pub use settings::{ClassWeights, HeadSettings, OptimizerSettings};
