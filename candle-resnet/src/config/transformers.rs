//! transformers' `config.json` of `ResNetForImageClassification`, `ResNetModel` and `ResNetBackbone`.
//!
//! Source: `transformers/models/resnet/configuration_resnet.py` (5.24).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ConfigError, ModelConfig, bad_value, channel_count, class_count, from_json, names_by_output};
use crate::architecture::{Architecture, BlockKind};

/// Fields with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct RawConfig {
    architectures: Option<Vec<String>>,
    num_channels: usize,
    embedding_size: usize,
    hidden_sizes: Vec<usize>,
    depths: Vec<usize>,
    layer_type: String,
    hidden_act: String,
    downsample_in_first_stage: bool,
    downsample_in_bottleneck: bool,
    id2label: Option<Map<String, Value>>,
    num_labels: Option<usize>,
}

impl Default for RawConfig {
    fn default() -> RawConfig {
        RawConfig {
            architectures: None,
            num_channels: 3,
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            layer_type: "bottleneck".into(),
            hidden_act: "relu".into(),
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
            id2label: None,
            num_labels: None,
        }
    }
}

/// Outputs of a classifier of which nothing is said.
const DEFAULT_CLASSES: usize = 2;

pub(super) fn parse(text: &str) -> Result<ModelConfig, ConfigError> {
    let raw: RawConfig = from_json(text)?;
    let architecture =
        Architecture { in_channels: channel_count("num_channels", raw.num_channels)?, ..*raw.network()? };
    let classes = class_count("num_labels", raw.classes())?;
    let names = raw.id2label.as_ref().filter(|_| classes > 0);
    let config = ModelConfig::new(architecture, classes);
    Ok(ModelConfig {
        label_names: names.map(|names| names_by_output("id2label", names, classes)).transpose()?,
        preprocessing: config.preprocessing.for_channels(architecture.in_channels),
        ..config
    })
}

impl RawConfig {
    fn network(&self) -> Result<&'static Architecture, ConfigError> {
        let kind = match self.layer_type.as_str() {
            "basic" => BlockKind::Basic,
            "bottleneck" => BlockKind::Bottleneck,
            other => return Err(bad_value("layer_type", format!("`{other}`"), "`basic` or `bottleneck`")),
        };
        if self.hidden_act != "relu" {
            return Err(bad_value("hidden_act", format!("`{}`", self.hidden_act), "`relu`"));
        }
        if self.downsample_in_first_stage {
            return Err(bad_value("downsample_in_first_stage", true, "false"));
        }
        // Basic blocks take no notice of it.
        if self.downsample_in_bottleneck && kind == BlockKind::Bottleneck {
            return Err(bad_value("downsample_in_bottleneck", true, "false: the 3×3 convolution takes the stride"));
        }
        let plain = Architecture::plain(kind, &self.depths).filter(|architecture| self.has_widths_of(architecture));
        plain.ok_or_else(|| ConfigError::UnknownShape(self.shape()))
    }

    fn shape(&self) -> String {
        let RawConfig { layer_type, depths, hidden_sizes, embedding_size, .. } = self;
        let widths = format!("hidden sizes {hidden_sizes:?} and an embedding of {embedding_size}");
        format!("{layer_type} blocks, depths {depths:?}, {widths}")
    }

    fn has_widths_of(&self, architecture: &Architecture) -> bool {
        let stages = architecture.widths.iter().zip(architecture.blocks);
        let put_out = stages.map(|(width, kind)| width * kind.expansion());
        self.embedding_size == architecture.stem_width && put_out.eq(self.hidden_sizes.iter().copied())
    }

    /// Outputs; none where the class that was saved has no classifier.
    fn classes(&self) -> usize {
        let classifies = |class: &String| class.ends_with("ForImageClassification");
        if self.architectures.as_ref().is_some_and(|classes| !classes.iter().any(classifies)) {
            return 0;
        }
        self.id2label.as_ref().map(Map::len).or(self.num_labels).unwrap_or(DEFAULT_CLASSES)
    }
}
