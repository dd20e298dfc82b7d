//! Fine-tuning: a folder of labelled photos and the name of a network become a bundle that predicts.
//!
//! The trunk below the new `fc` is frozen and seen through one small trait,
//! [`FeatureExtractor`](candle_resnet::FeatureExtractor); nothing here knows what family the network is of.
//!
//! Fine-tune on a folder with one subfolder per class, and use what comes out:
//!
//! ```
//! use candle_core::Device;
//! use candle_finetune::bundle::{Draft, RunRecord};
//! use candle_finetune::{Settings, Splits, dataset, fine_tune};
//! use candle_resnet::Model;
//!
//! # let place = tempfile::tempdir()?;
//! # for (class, colour) in [("ants", [200, 40, 30]), ("bees", [30, 50, 210])] {
//! #     let folder = place.path().join("photos").join(class);
//! #     std::fs::create_dir_all(&folder)?;
//! #     for shade in 0..5 {
//! #         let picture = image::RgbImage::from_pixel(32, 32, image::Rgb(colour.map(|value| value + shade)));
//! #         picture.save(folder.join(format!("{shade}.png")))?;
//! #     }
//! # }
//! # let (photos, bundle) = (place.path().join("photos"), place.path().join("bundle"));
//! let model = Model::fresh("resnet20_cifar", 0)?; // with pretrained weights: Model::named("resnet18")?
//! let dataset = dataset::scan(&photos)?;
//! let settings = Settings::default();
//! let trunk = model.trunk(&Device::Cpu)?;
//! let tuned = fine_tune(&trunk, &model.preprocessing, &Splits::of(&dataset), &settings, &mut ())?;
//! let draft = Draft::new(&bundle, false)?.write(&model, &tuned, &settings, &RunRecord::default())?;
//! draft.publish()?;
//!
//! let classifier = Model::named(&bundle.to_string_lossy())?.classifier(&Device::Cpu)?;
//! let best = &classifier.predict(photos.join("bees/0.png"), 1)?[0];
//! assert_eq!(best.label, "bees");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! For data that is no folder, see [`LabelledImages`].

pub mod augment;
pub mod bundle;
mod cached_maps;
pub mod calibration;
pub mod checkpoints;
pub mod dataset;
pub mod demo;
pub mod doctor;
mod error;
pub mod evaluate;
pub mod explain;
pub mod extract;
pub mod finetuning;
mod halving;
pub mod images;
pub mod key;
pub mod map_store;
mod maps;
pub mod neighbours;
mod pairs;
mod random;
mod reading;
pub mod report;
mod reservation;
pub mod run_file;
mod staging;
mod table;
pub mod train;
pub mod whole_file;

pub use error::{Error, Result};
pub use finetuning::{FineTuned, FineTunedModel, Machine, Settings, find_lr, fine_tune, fine_tune_model};
pub use images::{LabelledImages, Splits};
