//! Probabilities that mean what they say, and answers that are withheld where they would be wrong too often.
//!
//! Logits and labels of images that nothing was learned from → a temperature (Guo et al., "On Calibration of Modern Neural Networks",
//! 2017) and a risk–coverage curve (El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", 2010). Knows no
//! network and no image; only [`stored`] touches a file. A bundle's `Classifier` divides by the temperature itself where it gives
//! probabilities; its logits, which are measured here, are as the network gives them.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use candle_finetune::calibration::{Calibration, LabelledLogits, expected_calibration_error};
//!
//! // Sure of itself, and right three times out of four.
//! let logits = Tensor::new(&[[9f32, 0.], [0., 9.], [9., 0.], [0., 9.]], &Device::Cpu)?;
//! let validation = LabelledLogits::new(&logits, &[0, 1, 0, 0])?;
//! let calibration = Calibration::fit(&validation);
//! assert!(expected_calibration_error(&validation.answers(1.0)) > 0.2);
//! assert!(expected_calibration_error(&validation.answers(calibration.temperature)) < 0.1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod logits;
mod reliability;
mod selective;
pub mod stored;
mod temperature;

use serde::{Deserialize, Serialize};

pub use logits::{Judgement, LabelledLogits};
pub use reliability::{BINS, Bin, expected_calibration_error, reliability};
pub use selective::{RiskCoverage, Selection};
pub use temperature::{RANGE, fit_temperature};

/// What a model says of an image, and whether that is so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The largest probability.
    pub confidence: f64,
    /// Whether it is that of the label.
    pub right: bool,
}

impl From<&Judgement> for Answer {
    fn from(judgement: &Judgement) -> Answer {
        Answer { confidence: judgement.confidence, right: judgement.is_right() }
    }
}

/// What is known of a model's confidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Logits are divided by it.
    pub temperature: f64,
    /// How often it is wrong above which confidence, with that temperature.
    pub risk_coverage: RiskCoverage,
}

impl Calibration {
    /// Fitted on images that the model has not learned from.
    pub fn fit(validation: &LabelledLogits) -> Calibration {
        let temperature = fit_temperature(validation);
        Calibration { temperature, risk_coverage: RiskCoverage::of(validation.answers(temperature)) }
    }
}
