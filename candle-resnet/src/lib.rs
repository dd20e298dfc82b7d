//! Every ResNet by name: a name becomes verified weights, weights become a network, photos become features and logits.
//!
//! Fetch and predict:
//!
//! ```no_run
//! use candle_core::Device;
//! use candle_resnet::Model;
//!
//! let model = Model::named("resnet18")?;
//! let classifier = model.classifier(&Device::Cpu)?;
//! for prediction in classifier.predict("photo.jpg", 5)? {
//!     println!("{:5.1} %  {}", 100.0 * prediction.probability, prediction.label);
//! }
//! # Ok::<(), candle_resnet::Error>(())
//! ```
//!
//! The way of a name, each step a module that knows only its own: [`registry`] says what the name stands for in the
//! [`catalogue`], [`hub`] fetches files, [`checkpoint`] reads them, [`layout`] finds the network among their names,
//! [`weights`] matches it to the [`blueprint`] of an [`architecture`], and [`trunk`] or [`network`] computes. [`model`]
//! joins them. [`certificate`] compares networks and pixels with those of other programs. Nothing here trains; see the crate
//! `candle-finetune`.
//!
//! On NVIDIA GPUs, with the feature `cudnn`, the first use of a device ends the bookkeeping by which cudarc lets several streams wait for each
//! other's tensors (`CudaContext::disable_event_tracking`), unless further streams had been made by then: a program that makes streams of its
//! own afterwards orders them itself. Nothing changes for candle, whose tensors live on one stream in each thread.

pub mod architecture;
pub mod backprop;
pub mod blueprint;
pub mod card;
pub mod catalogue;
pub mod certificate;
pub mod checkpoint;
pub mod classifier;
pub mod config;
#[cfg(feature = "cudnn")]
mod cudnn;
#[cfg(test)]
#[path = "../tests/device/mod.rs"]
mod device;
pub mod device_memory;
pub mod drop_path;
pub mod dropout;
mod embedded;
mod error;
pub mod features;
mod figure;
pub mod hub;
pub mod initialise;
mod kernels;
pub mod labels;
pub mod layout;
pub mod model;
pub mod network;
mod ops;
pub mod part;
pub mod plan;
pub mod preprocess;
pub mod registry;
pub mod summary;
pub mod training;
pub mod trunk;
pub mod weights;

pub use classifier::{Classifier, Prediction};
pub use error::{Error, Result};
pub use features::FeatureExtractor;
pub use model::Model;
pub use trunk::Trunk;
