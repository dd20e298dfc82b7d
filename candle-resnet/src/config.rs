//! timm's `config.json`: what a folder or a repository on the Hub says of its weights.
//!
//! Pure text to values and back. Reads what timm writes, new and flat legacy forms; writes what
//! `timm.create_model("local-dir:…")` loads: keys that timm does not know stand outside `pretrained_cfg`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::architecture::Architecture;
use crate::blueprint::Blueprint;
use crate::card::{crop_fraction, resize_side};
use crate::preprocess::{Interpolation, Preprocessing};

/// What a `config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The network's shape.
    pub architecture: &'static Architecture,
    /// Outputs of the classifier.
    pub classes: usize,
    /// Names of the classes, where known.
    pub label_names: Option<Vec<String>>,
    /// What happens to a photo before the network sees it.
    pub preprocessing: Preprocessing,
    /// Licence of the weights.
    pub license: Option<String>,
    /// Where the weights come from.
    pub origin_url: Option<String>,
    /// Whatever else is to be recorded, under keys of its own outside `pretrained_cfg`.
    pub extra: Map<String, Value>,
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

/// The fields that are read, wherever they stand. As in timm, `model_args` win over the top level, and that over
/// `pretrained_cfg`.
#[derive(Deserialize)]
struct RawConfig {
    architecture: Option<String>,
    num_classes: Option<usize>,
    #[serde(alias = "labels")]
    label_names: Option<Labels>,
    model_args: Option<Map<String, Value>>,
    pretrained_cfg: Option<RawPretrained>,
    /// Legacy configs are flat.
    #[serde(flatten)]
    flat: RawPretrained,
}

#[derive(Deserialize, Default)]
struct RawPretrained {
    num_classes: Option<usize>,
    input_size: Option<Vec<usize>>,
    test_input_size: Option<Vec<usize>>,
    crop_pct: Option<f64>,
    test_crop_pct: Option<f64>,
    interpolation: Option<String>,
    crop_mode: Option<String>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    license: Option<String>,
    origin_url: Option<String>,
    label_names: Option<Labels>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Labels {
    List(Vec<String>),
    Map(Map<String, Value>),
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is not JSON, lacks its architecture, or asks for something that this crate does not build.
    pub fn parse(text: &str) -> Result<ModelConfig, ConfigError> {
        let raw: RawConfig = serde_json::from_str(text).map_err(|error| ConfigError::Malformed(error.to_string()))?;
        let arguments = raw.model_args.unwrap_or_default();
        refuse_arguments(&arguments)?;
        let name = raw.architecture.ok_or(ConfigError::Missing("architecture"))?;
        let architecture = Architecture::named(&name).ok_or(ConfigError::UnknownArchitecture(name))?;
        let pretrained = raw.pretrained_cfg.unwrap_or(raw.flat);
        let preprocessing = pretrained.preprocessing(architecture)?;
        let label_names = raw.label_names.or(pretrained.label_names).map(Labels::into_names).transpose()?;
        let argued = arguments.get("num_classes").and_then(Value::as_u64).map(|classes| classes as usize);
        let stated = argued.or(raw.num_classes).or(pretrained.num_classes);
        let classes = stated.or(label_names.as_ref().map(Vec::len)).ok_or(ConfigError::Missing("num_classes"))?;
        check_label_count(label_names.as_deref(), classes)?;
        Ok(ModelConfig {
            architecture,
            classes,
            label_names,
            preprocessing,
            license: pretrained.license,
            origin_url: pretrained.origin_url,
            extra: Map::new(),
        })
    }

    /// The text of a `config.json` that timm loads.
    pub fn to_json(&self) -> String {
        let mut config = Map::new();
        config.insert("architecture".into(), self.architecture.name.into());
        config.insert("num_classes".into(), self.classes.into());
        config.insert("num_features".into(), self.architecture.feature_width().into());
        config.insert("global_pool".into(), "avg".into());
        if let Some(labels) = &self.label_names {
            config.insert("label_names".into(), json!(labels));
        }
        config.insert("pretrained_cfg".into(), self.pretrained_cfg());
        config.extend(self.extra.clone());
        format!("{:#}\n", Value::Object(config))
    }

    fn pretrained_cfg(&self) -> Value {
        let Preprocessing { resize, crop, interpolation, mean, std } = &self.preprocessing;
        json!({
            "custom_load": false,
            "input_size": [3, crop, crop],
            "fixed_input_size": false,
            "interpolation": interpolation,
            "crop_pct": crop_fraction(*crop, *resize),
            "crop_mode": "center",
            "mean": shortest(mean),
            "std": shortest(std),
            "num_classes": self.classes,
            "pool_size": [crop.div_ceil(32), crop.div_ceil(32)],
            "first_conv": Blueprint::of(self.architecture).stem.convs.first().map(|first| &first.conv),
            "classifier": "fc",
            "license": self.license,
            "origin_url": self.origin_url,
        })
    }
}

impl RawPretrained {
    /// Values that are not stated are timm's defaults; sizes that the weights are evaluated with win.
    fn preprocessing(&self, architecture: &Architecture) -> Result<Preprocessing, ConfigError> {
        let default = architecture.default_preprocessing();
        let crop = match self.test_input_size.as_ref().or(self.input_size.as_ref()) {
            Some(size) => square_side(size)?,
            None => default.crop,
        };
        let default_fraction = default.crop as f64 / default.resize as f64;
        let crop_pct = self.test_crop_pct.or(self.crop_pct).unwrap_or(default_fraction);
        if !(crop_pct > 0.01 && crop_pct <= 1.0) {
            return Err(bad_value("crop_pct", crop_pct, "a fraction above 0.01 and at most 1"));
        }
        if let Some(mode) = self.crop_mode.as_deref().filter(|&mode| mode != "center") {
            return Err(bad_value("crop_mode", mode, "`center`"));
        }
        Ok(Preprocessing {
            resize: resize_side(crop, crop_pct),
            crop,
            // timm's default is another one than torchvision's.
            interpolation: self.interpolation.as_deref().map_or(Ok(Interpolation::Bicubic), interpolation)?,
            mean: self.mean.as_deref().map_or(Ok(default.mean), |mean| channels("mean", mean))?,
            std: self.std.as_deref().map_or(Ok(default.std), |std| channels("std", std).and_then(positive))?,
        })
    }
}

impl Labels {
    /// Names in the order of the outputs; a map goes from output to name.
    fn into_names(self) -> Result<Vec<String>, ConfigError> {
        match self {
            Labels::List(names) => Ok(names),
            Labels::Map(map) => (0..map.len())
                .map(|output| {
                    let name = map.get(&output.to_string()).and_then(Value::as_str);
                    name.map(str::to_owned).ok_or_else(|| bad_value("label_names", "a map", "names under 0, 1, 2, …"))
                })
                .collect(),
        }
    }
}

/// Refuses arguments that would build another network; those that timm always writes, and those that only matter while
/// training, are fine.
fn refuse_arguments(arguments: &Map<String, Value>) -> Result<(), ConfigError> {
    let harmless = |(name, value): &(&String, &Value)| match name.as_str() {
        "num_classes" => value.is_u64(),
        "in_chans" => **value == 3,
        "global_pool" => **value == "avg",
        "output_stride" => **value == 32,
        "drop_rate" | "drop_path_rate" | "drop_block_rate" => true,
        _ => false,
    };
    match arguments.iter().find(|argument| !harmless(argument)) {
        Some((name, value)) => Err(ConfigError::UnsupportedArgument { name: name.clone(), value: value.to_string() }),
        None => Ok(()),
    }
}

fn check_label_count(labels: Option<&[String]>, classes: usize) -> Result<(), ConfigError> {
    match labels {
        Some(labels) if labels.len() != classes => Err(ConfigError::LabelCount { labels: labels.len(), classes }),
        _ => Ok(()),
    }
}

/// Largest side of an input, in pixels; a wrong number must not ask for unbounded memory.
const LARGEST_SIDE: usize = 4096;

fn square_side(size: &[usize]) -> Result<usize, ConfigError> {
    match size {
        &[3, height, width] if height == width && (1..=LARGEST_SIDE).contains(&height) => Ok(height),
        _ => Err(bad_value("input_size", format!("{size:?}"), "[3, S, S] with S from 1 to 4096")),
    }
}

fn interpolation(name: &str) -> Result<Interpolation, ConfigError> {
    match name {
        "bilinear" => Ok(Interpolation::Bilinear),
        "bicubic" => Ok(Interpolation::Bicubic),
        other => Err(bad_value("interpolation", other, "`bilinear` or `bicubic`")),
    }
}

fn channels(field: &'static str, values: &[f32]) -> Result<[f32; 3], ConfigError> {
    let finite = values.iter().all(|value| value.is_finite());
    let three = <[f32; 3]>::try_from(values).ok().filter(|_| finite);
    three.ok_or_else(|| bad_value(field, format!("{values:?}"), "three numbers"))
}

fn positive(std: [f32; 3]) -> Result<[f32; 3], ConfigError> {
    if std.iter().all(|&deviation| deviation > 0.0) {
        return Ok(std);
    }
    Err(bad_value("std", format!("{std:?}"), "three numbers above 0"))
}

fn bad_value(field: &'static str, found: impl ToString, expected: &'static str) -> ConfigError {
    ConfigError::BadValue { field, found: found.to_string(), expected }
}

/// f32 values as the decimals that people wrote: 0.485, not 0.48500001430511475.
fn shortest(values: &[f32; 3]) -> [f64; 3] {
    values.map(|value| value.to_string().parse().unwrap_or(f64::from(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = r#"{"architecture": "resnet50", "num_classes": 1000, "num_features": 2048, "pretrained_cfg": {
        "tag": "tv2_in1k", "custom_load": false, "input_size": [3, 176, 176], "test_input_size": [3, 224, 224],
        "fixed_input_size": false, "interpolation": "bilinear", "crop_pct": 0.875, "test_crop_pct": 0.965,
        "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 1000,
        "pool_size": [6, 6], "first_conv": "conv1", "classifier": "fc", "license": "bsd-3-clause"}}"#;

    #[test]
    fn evaluation_sizes_win_over_training_sizes() {
        let config = ModelConfig::parse(HUB).unwrap();
        assert_eq!((config.preprocessing.resize, config.preprocessing.crop), (232, 224));
        assert_eq!(config.license.as_deref(), Some("bsd-3-clause"));
        assert_eq!(config.classes, 1000);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut config = ModelConfig::parse(HUB).unwrap();
        config.classes = 2;
        config.label_names = Some(vec!["ants".into(), "bees".into()]);
        config.origin_url = Some("https://example.org".into());
        assert_eq!(ModelConfig::parse(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn first_convolution_of_a_deep_stem_is_named() {
        let config = |name: &str| {
            let text = format!(r#"{{"architecture": "{name}", "num_classes": 2}}"#);
            ModelConfig::parse(&text).unwrap().to_json()
        };
        assert!(config("resnet50d").contains(r#""first_conv": "conv1.0""#));
        assert!(config("resnet50").contains(r#""first_conv": "conv1""#));
    }

    #[test]
    fn statistics_are_written_as_people_wrote_them() {
        let text = ModelConfig::parse(HUB).unwrap().to_json();
        assert!(text.contains("0.485,"), "{text}");
    }

    #[test]
    fn flat_legacy_configs_are_read() {
        let text = r#"{"architecture": "resnet18", "num_classes": 3, "input_size": [3, 160, 160], "crop_pct": 1.0,
            "interpolation": "bicubic", "labels": {"0": "a", "1": "b", "2": "c"}}"#;
        let config = ModelConfig::parse(text).unwrap();
        assert_eq!((config.preprocessing.resize, config.preprocessing.crop), (160, 160));
        assert_eq!(config.label_names.unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn arguments_that_timm_always_writes_are_fine() {
        let text = r#"{"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": {},
            "model_args": {"num_classes": 3, "in_chans": 3, "global_pool": "avg", "drop_rate": 0.1}}"#;
        assert_eq!(ModelConfig::parse(text).unwrap().classes, 3);
    }

    #[test]
    fn top_level_classes_win() {
        let text = r#"{"architecture": "resnet18", "num_classes": 7, "pretrained_cfg": {"num_classes": 1000}}"#;
        assert_eq!(ModelConfig::parse(text).unwrap().classes, 7);
    }

    #[test]
    fn bad_fields_say_what_was_found_and_expected() {
        let error = |text: &str| ModelConfig::parse(text).unwrap_err().to_string();
        assert!(error("{").contains("EOF"));
        assert_eq!(error("{}"), "`architecture` is missing");
        assert_eq!(error(r#"{"architecture": "vgg16"}"#), "architecture `vgg16` is not known");
        assert_eq!(error(r#"{"architecture": "resnet18"}"#), "`num_classes` is missing");
        let with = |rest: &str| error(&format!(r#"{{"architecture": "resnet18", "num_classes": 2, {rest}}}"#));
        assert!(with(r#""label_names": ["a"]"#).contains("1 names for 2 classes"));
        assert!(with(r#""std": [0.1, 0.0, 0.1]"#).contains("above 0"));
        assert!(with(r#""input_size": [3, 224, 100000]"#).contains("input_size"));
        assert!(with(r#""crop_pct": 0.0"#).contains("crop_pct"));
        assert!(with(r#""interpolation": "nearest""#).contains("nearest"));
        assert!(with(r#""crop_mode": "squash""#).contains("squash"));
        assert!(with(r#""model_args": {"in_chans": 1}"#).contains("in_chans"));
    }
}
