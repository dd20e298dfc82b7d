//! What a folder or a repository on the Hub says of its weights: timm's `config.json`, or transformers'.
//!
//! Pure text to values and back. Which program wrote a file shows in its fields ([`Form`]); what is written is timm's
//! form.

mod calibration;
mod preprocessor;
mod timm;
mod transformers;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::architecture::Architecture;
use crate::preprocess::Preprocessing;

pub(crate) use calibration::temperature_in;
pub use calibration::{TEMPERATURES, temperature};

/// What transformers says of photos, beside its `config.json`.
pub(crate) const PREPROCESSOR: &str = "preprocessor_config.json";

/// What a `config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The network's shape.
    pub architecture: Architecture,
    /// Outputs of the classifier; 0 where there is none.
    pub classes: usize,
    /// Names of the classes, where known; they may be synsets.
    pub label_names: Option<Vec<String>>,
    /// What classes are in words, by the names in `label_names`.
    pub label_descriptions: BTreeMap<String, String>,
    /// What happens to a photo before the network sees it.
    pub preprocessing: Preprocessing,
    /// How the network is thinned while it trains.
    pub drop_rates: DropRates,
    /// What logits are divided by for probabilities that mean what they say: `temperature` of the field `calibration` that
    /// `candle-finetune` writes, which is one of `extra` to [`to_json`](ModelConfig::to_json); else, and where that field is another
    /// program's, 1.
    pub temperature: f64,
    /// Licence of the weights.
    pub license: Option<String>,
    /// Where the weights come from.
    pub origin_url: Option<String>,
    /// Whatever else is to be recorded, under keys of its own outside `pretrained_cfg`.
    pub extra: Map<String, Value>,
}

/// How a network is thinned while it trains, each a fraction below 1; evaluation knows nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DropRates {
    /// Features that are left out before the classifier: timm's `drop_rate`.
    pub features: f64,
    /// Residual branches that are left out in the last block; the blocks before have less, the first none: timm's
    /// `drop_path_rate`.
    pub paths: f64,
}

/// Which program a `config.json` is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// timm: the file says what happens to photos.
    Timm,
    /// transformers: a `preprocessor_config.json` beside it says that.
    Transformers,
}

/// Why a `config.json` was not understood.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// Not JSON, or a field has another type.
    #[error("{0}")]
    Malformed(String),
    /// A field that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A network that this crate does not build.
    #[error("architecture `{0}` is not known")]
    UnknownArchitecture(String),
    /// Blocks, depths and widths as transformers states them, of a network that nobody has named.
    #[error("no known network has {0}")]
    UnknownShape(String),
    /// The network is built with an argument that changes it.
    #[error("`model_args` sets `{name}` to {value}, which is not supported")]
    UnsupportedArgument {
        /// Name of the argument.
        name: String,
        /// What stands there.
        value: String,
    },
    /// A value that does not make sense.
    #[error("`{field}` is {found}, expected {expected}")]
    BadValue {
        /// Name of the field.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// Labels and classes do not match.
    #[error("`label_names` has {labels} names for {classes} classes")]
    LabelCount {
        /// Names given.
        labels: usize,
        /// Classes given.
        classes: usize,
    },
}

impl ModelConfig {
    /// An architecture of so many outputs, of which nothing else is known.
    pub fn new(architecture: Architecture, classes: usize) -> ModelConfig {
        ModelConfig {
            architecture,
            classes,
            label_names: None,
            label_descriptions: BTreeMap::new(),
            preprocessing: architecture.default_preprocessing(),
            drop_rates: DropRates::default(),
            temperature: 1.0,
            license: None,
            origin_url: None,
            extra: Map::new(),
        }
    }

    /// Reads a `config.json` of either form.
    ///
    /// What transformers' form leaves open, the preprocessing, is the architecture's default until
    /// [`with_preprocessor`](ModelConfig::with_preprocessor) says better.
    ///
    /// # Errors
    /// If it is not JSON, lacks its architecture, or asks for something that this crate does not build.
    pub fn parse(text: &str) -> Result<ModelConfig, ConfigError> {
        let config = match Form::of(text)? {
            Form::Timm => timm::parse(text)?,
            Form::Transformers => transformers::parse(text)?,
        };
        let temperature = temperature_in(text).ok().flatten().unwrap_or(1.0);
        Ok(ModelConfig { temperature, ..config })
    }

    /// The same with what transformers' `preprocessor_config.json` says of photos.
    ///
    /// # Errors
    /// If it is not JSON or asks for something that this crate does not do to photos.
    pub fn with_preprocessor(self, text: &str) -> Result<ModelConfig, ConfigError> {
        Ok(ModelConfig { preprocessing: preprocessor::parse(text, self.architecture.in_channels)?, ..self })
    }

    /// The text of a `config.json` that timm loads: keys that timm does not know stand outside `pretrained_cfg`.
    pub fn to_json(&self) -> String {
        timm::write(self)
    }
}

/// timm names its architectures; transformers has one class for all ResNets.
#[derive(Deserialize)]
struct Signature {
    architecture: Option<Value>,
    model_type: Option<String>,
}

impl Form {
    /// Tells the form by the fields that the other does not have.
    ///
    /// # Errors
    /// If it is neither; another network of transformers is named.
    pub fn of(text: &str) -> Result<Form, ConfigError> {
        let Signature { architecture, model_type } = from_json(text)?;
        match (architecture, model_type.as_deref()) {
            (None, Some("resnet")) => Ok(Form::Transformers),
            (None, Some(other)) => Err(bad_value("model_type", format!("`{other}`"), "`resnet`")),
            _ => Ok(Form::Timm),
        }
    }
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ConfigError> {
    serde_json::from_str(text).map_err(|error| ConfigError::Malformed(error.to_string()))
}

fn bad_value(field: &'static str, found: impl ToString, expected: &'static str) -> ConfigError {
    ConfigError::BadValue { field, found: found.to_string(), expected }
}

/// Largest number of channels of an image; a wrong number must not ask for unbounded memory.
const MOST_CHANNELS: usize = 4096;

fn channel_count(field: &'static str, channels: usize) -> Result<usize, ConfigError> {
    match channels {
        1..=MOST_CHANNELS => Ok(channels),
        _ => Err(bad_value(field, channels, "1 to 4096 channels")),
    }
}

/// Largest number of outputs, for the same reason.
const MOST_CLASSES: usize = 1 << 20;

fn class_count(field: &'static str, classes: usize) -> Result<usize, ConfigError> {
    if classes <= MOST_CLASSES { Ok(classes) } else { Err(bad_value(field, classes, "at most 1048576")) }
}

/// Names of outputs in order, from a map that goes from output to name; outputs in a gap are named by their number.
fn names_by_output(field: &'static str, map: &Map<String, Value>, classes: usize) -> Result<Vec<String>, ConfigError> {
    let mut names: Vec<String> = (0..classes).map(|output| format!("class {output}")).collect();
    for (output, name) in map {
        let place = output.parse().ok().and_then(|output: usize| names.get_mut(output));
        match (place, name.as_str()) {
            (Some(place), Some(name)) => *place = name.to_owned(),
            _ => return Err(bad_value(field, format!("`{output}`: {name}"), "names of outputs under 0, 1, 2, …")),
        }
    }
    Ok(names)
}

/// A statistic of a photo's channels: one number for each, or else the mean of all numbers for all of them, as timm
/// takes it.
fn statistic(field: &'static str, values: &[f64]) -> Result<[f32; 3], ConfigError> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return Err(bad_value(field, format!("{values:?}"), "a number for each channel"));
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    Ok(<[f64; 3]>::try_from(values).unwrap_or([mean; 3]).map(|value| value as f32))
}

/// A statistic that is divided by.
fn deviation(field: &'static str, values: &[f64]) -> Result<[f32; 3], ConfigError> {
    let std = statistic(field, values)?;
    if std.iter().all(|&deviation| deviation > 0.0 && deviation.is_finite()) {
        return Ok(std);
    }
    Err(bad_value(field, format!("{values:?}"), "numbers above 0"))
}

#[cfg(test)]
mod tests;
