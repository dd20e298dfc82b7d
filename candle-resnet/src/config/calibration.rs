//! The field `calibration` that `candle-finetune` writes into a `config.json`, of either form.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::Value;

use super::{ConfigError, bad_value, from_json};

/// Temperatures that logits are divided by.
pub const TEMPERATURES: RangeInclusive<f64> = 1e-3..=1e3;

#[derive(Deserialize)]
struct Calibrated {
    calibration: Option<Value>,
}

/// The `temperature` of a field `calibration`.
///
/// # Errors
/// If it has none within [`TEMPERATURES`]: then it is another program's.
pub fn temperature(calibration: &Value) -> Result<f64, ConfigError> {
    let stated = calibration.get("temperature").ok_or(ConfigError::Missing("calibration.temperature"))?;
    let ours = stated.as_f64().filter(|temperature| TEMPERATURES.contains(temperature));
    ours.ok_or_else(|| bad_value("calibration.temperature", stated, "a number from 0.001 to 1000"))
}

/// That of the text of a `config.json`; nothing where it holds no calibration, an error where that is another program's.
pub(crate) fn temperature_in(text: &str) -> Result<Option<f64>, ConfigError> {
    from_json::<Calibrated>(text)?.calibration.as_ref().map(temperature).transpose()
}
