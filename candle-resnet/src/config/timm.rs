//! timm's `config.json`, new and flat legacy forms, and what `timm.create_model("local-dir:…")` loads.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    ConfigError, DropRates, ModelConfig, bad_value, channel_count, class_count, deviation, from_json, names_by_output,
    statistic,
};
use crate::architecture::{Architecture, GlobalPool};
use crate::blueprint::Blueprint;
use crate::card::{crop_fraction, resize_side};
use crate::preprocess::{Interpolation, Preprocessing, decimal};

/// The fields that are read, wherever they stand. As in timm, `model_args` win over the top level, and that over
/// `pretrained_cfg`.
#[derive(Deserialize)]
struct RawConfig {
    architecture: Option<String>,
    /// transformers' classes, where it wrote the network of timm's.
    architectures: Option<Vec<String>>,
    num_classes: Option<usize>,
    label_names: Option<Labels>,
    /// What `label_names` was called before.
    labels: Option<Labels>,
    label_descriptions: Option<Map<String, Value>>,
    model_args: Option<Arguments>,
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
    mean: Option<Vec<f64>>,
    std: Option<Vec<f64>>,
    global_pool: Option<String>,
    license: Option<String>,
    origin_url: Option<String>,
    label_names: Option<Labels>,
    label_descriptions: Option<Map<String, Value>>,
}

/// What timm's constructor is called with beside the name.
#[derive(Deserialize, Default)]
struct Arguments {
    num_classes: Option<usize>,
    in_chans: Option<usize>,
    output_stride: Option<usize>,
    global_pool: Option<String>,
    drop_rate: Option<f64>,
    drop_path_rate: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Arguments that matter only while a network is drawn or trained.
const HARMLESS: [&str; 2] = ["drop_block_rate", "zero_init_last"];

#[derive(Deserialize)]
#[serde(untagged)]
enum Labels {
    List(Vec<String>),
    Map(Map<String, Value>),
}

pub(super) fn parse(text: &str) -> Result<ModelConfig, ConfigError> {
    let raw: RawConfig = from_json(text)?;
    let arguments = raw.model_args.unwrap_or_default();
    arguments.refuse_others()?;
    let pretrained = raw.pretrained_cfg.unwrap_or(raw.flat);
    let name = raw.architecture.ok_or(ConfigError::Missing("architecture"))?;
    let named = Architecture::named(&name).ok_or(ConfigError::UnknownArchitecture(name))?;
    let architecture = arguments.architecture(named, &pretrained)?;
    let preprocessing = pretrained.preprocessing(&architecture)?;
    let features_only = raw.architectures.is_some_and(|saved| saved.iter().any(|class| class == "TimmWrapperModel"));
    let labels = raw.label_names.or(raw.labels).or(pretrained.label_names).filter(|_| !features_only);
    let outputs = arguments.num_classes.or(raw.num_classes).or(pretrained.num_classes);
    let stated = if features_only { Some(0) } else { outputs };
    let classes = stated.or(labels.as_ref().map(Labels::len)).ok_or(ConfigError::Missing("num_classes"))?;
    let classes = class_count("num_classes", classes)?;
    Ok(ModelConfig {
        label_names: labels.map(|labels| labels.into_names(classes)).transpose()?,
        label_descriptions: texts(raw.label_descriptions.or(pretrained.label_descriptions)),
        preprocessing,
        drop_rates: arguments.drop_rates()?,
        license: pretrained.license,
        origin_url: pretrained.origin_url,
        ..ModelConfig::new(architecture, classes)
    })
}

impl Arguments {
    /// Refuses arguments that would build another network in a way that is not known here; timm passes over `null`.
    fn refuse_others(&self) -> Result<(), ConfigError> {
        let matters = |(name, value): &(&String, &Value)| !HARMLESS.contains(&name.as_str()) && !value.is_null();
        match self.others.iter().find(matters) {
            Some((name, value)) => {
                Err(ConfigError::UnsupportedArgument { name: name.clone(), value: value.to_string() })
            }
            None => Ok(()),
        }
    }

    /// The named network with what the arguments, and else `pretrained_cfg`, change of it.
    fn architecture(&self, named: &Architecture, pretrained: &RawPretrained) -> Result<Architecture, ConfigError> {
        let sizes = [&pretrained.input_size, &pretrained.test_input_size];
        let stated = sizes.into_iter().flatten().find_map(|size| size.first().copied());
        let pool = self.global_pool.as_deref().or(pretrained.global_pool.as_deref());
        Ok(Architecture {
            in_channels: channel_count("in_chans", self.in_chans.or(stated).unwrap_or(named.in_channels))?,
            output_stride: self.output_stride.map_or(Ok(named.output_stride), output_stride)?,
            global_pool: pool.map_or(Ok(named.global_pool), global_pool)?,
            ..*named
        })
    }

    fn drop_rates(&self) -> Result<DropRates, ConfigError> {
        Ok(DropRates {
            features: fraction("drop_rate", self.drop_rate)?,
            paths: fraction("drop_path_rate", self.drop_path_rate)?,
        })
    }
}

fn output_stride(stride: usize) -> Result<usize, ConfigError> {
    if matches!(stride, 8 | 16 | 32) { Ok(stride) } else { Err(bad_value("output_stride", stride, "8, 16 or 32")) }
}

fn global_pool(name: &str) -> Result<GlobalPool, ConfigError> {
    let expected = "`avg`, `max`, `avgmax` or `catavgmax`";
    GlobalPool::named(name).ok_or_else(|| bad_value("global_pool", format!("`{name}`"), expected))
}

fn fraction(field: &'static str, value: Option<f64>) -> Result<f64, ConfigError> {
    let value = value.unwrap_or(0.0);
    if (0.0..1.0).contains(&value) { Ok(value) } else { Err(bad_value(field, value, "from 0 up and below 1")) }
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
        let stated = Preprocessing {
            resize: resize_side(crop, crop_pct),
            crop,
            // timm's default is another one than torchvision's.
            interpolation: self.interpolation.as_deref().map_or(Ok(Interpolation::Bicubic), interpolation)?,
            mean: self.mean.as_deref().map_or(Ok(default.mean), |mean| statistic("mean", mean))?,
            std: self.std.as_deref().map_or(Ok(default.std), |std| deviation("std", std))?,
        };
        Ok(stated.for_channels(architecture.in_channels))
    }
}

/// Largest side of an input, in pixels; a wrong number must not ask for unbounded memory.
const LARGEST_SIDE: usize = 4096;

fn square_side(size: &[usize]) -> Result<usize, ConfigError> {
    match size {
        &[_, height, width] if height == width && (1..=LARGEST_SIDE).contains(&height) => Ok(height),
        _ => Err(bad_value("input_size", format!("{size:?}"), "[channels, S, S] with S from 1 to 4096")),
    }
}

fn interpolation(name: &str) -> Result<Interpolation, ConfigError> {
    match name {
        "bilinear" => Ok(Interpolation::Bilinear),
        "bicubic" => Ok(Interpolation::Bicubic),
        other => Err(bad_value("interpolation", other, "`bilinear` or `bicubic`")),
    }
}

impl Labels {
    fn len(&self) -> usize {
        match self {
            Labels::List(names) => names.len(),
            Labels::Map(map) => map.len(),
        }
    }

    /// Names in the order of the outputs; a map goes from output to name and may have gaps.
    fn into_names(self, classes: usize) -> Result<Vec<String>, ConfigError> {
        match self {
            Labels::List(names) if names.len() != classes => {
                Err(ConfigError::LabelCount { labels: names.len(), classes })
            }
            Labels::List(names) => Ok(names),
            Labels::Map(map) => names_by_output("label_names", &map, classes),
        }
    }
}

/// What of a map is text.
fn texts(map: Option<Map<String, Value>>) -> BTreeMap<String, String> {
    let text = |(key, value): (String, Value)| Some((key, value.as_str()?.to_owned()));
    map.unwrap_or_default().into_iter().filter_map(text).collect()
}

pub(super) fn write(config: &ModelConfig) -> String {
    let architecture = &config.architecture;
    let mut fields = Map::new();
    fields.insert("architecture".into(), architecture.name.into());
    fields.insert("num_classes".into(), config.classes.into());
    fields.insert("num_features".into(), architecture.feature_width().into());
    fields.insert("global_pool".into(), architecture.global_pool.name().into());
    if let Some(labels) = &config.label_names {
        fields.insert("label_names".into(), json!(labels));
    }
    if !config.label_descriptions.is_empty() {
        fields.insert("label_descriptions".into(), json!(config.label_descriptions));
    }
    let arguments = arguments(config);
    if !arguments.is_empty() {
        fields.insert("model_args".into(), Value::Object(arguments));
    }
    fields.insert("pretrained_cfg".into(), pretrained_cfg(config));
    fields.extend(config.extra.clone());
    format!("{:#}\n", Value::Object(fields))
}

/// Arguments without which timm would build another network.
fn arguments(config: &ModelConfig) -> Map<String, Value> {
    let (ours, rates) = (&config.architecture, &config.drop_rates);
    let named = Architecture::named(ours.name).unwrap_or(ours);
    let stated = [
        ("in_chans", ours.in_channels != named.in_channels, json!(ours.in_channels)),
        ("output_stride", ours.output_stride != named.output_stride, json!(ours.output_stride)),
        ("global_pool", ours.global_pool != named.global_pool, json!(ours.global_pool.name())),
        ("drop_rate", rates.features > 0.0, json!(rates.features)),
        ("drop_path_rate", rates.paths > 0.0, json!(rates.paths)),
    ];
    let changed = stated.into_iter().filter(|(_, differs, _)| *differs);
    changed.map(|(name, _, value)| (name.to_owned(), value)).collect()
}

fn pretrained_cfg(config: &ModelConfig) -> Value {
    let Preprocessing { resize, crop, interpolation, mean, std } = &config.preprocessing;
    let architecture = &config.architecture;
    json!({
        "custom_load": false,
        "input_size": [architecture.in_channels, crop, crop],
        "fixed_input_size": false,
        "interpolation": interpolation,
        "crop_pct": crop_fraction(*crop, *resize),
        "crop_mode": "center",
        "mean": of_each_channel(mean, architecture.in_channels),
        "std": of_each_channel(std, architecture.in_channels),
        "num_classes": config.classes,
        "pool_size": [crop.div_ceil(32), crop.div_ceil(32)],
        "first_conv": Blueprint::of(architecture).stem.convs.first().map(|first| &first.conv),
        "classifier": "fc",
        "license": config.license,
        "origin_url": config.origin_url,
    })
}

/// A statistic as people wrote it, for each channel of the network.
fn of_each_channel(values: &[f32; 3], channels: usize) -> Vec<f64> {
    (0..channels).map(|channel| decimal(values[channel % 3])).collect()
}
