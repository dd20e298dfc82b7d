use serde_json::json;

use super::*;
use crate::architecture::GlobalPool;
use crate::preprocess::Interpolation;

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
    assert!(!config.to_json().contains("model_args"), "the network is what its name says");
    config.architecture.in_channels = 4;
    config.architecture.output_stride = 16;
    config.architecture.global_pool = GlobalPool::AverageMax;
    config.preprocessing = config.preprocessing.for_channels(4);
    config.drop_rates = DropRates { features: 0.2, paths: 0.05 };
    assert_eq!(ModelConfig::parse(&config.to_json()).unwrap(), config);
}

#[test]
fn a_temperature_is_that_of_our_calibration() {
    for form in [r#""architecture": "resnet18", "num_classes": 2"#, r#""model_type": "resnet""#] {
        let temperature = |calibration: &str| {
            ModelConfig::parse(&format!(r#"{{{form}, "calibration": {calibration}}}"#)).unwrap().temperature
        };
        for ours in [0.001, 1.25, 1000.0] {
            assert_eq!(temperature(&format!(r#"{{"temperature": {ours}, "risk_coverage": ""}}"#)), ours);
        }
        for others in ["null", "3", "\"auto\"", r#"{"bins": 15}"#] {
            assert_eq!(temperature(others), 1.0);
        }
        for others in ["0", "-1.5", "1e-310", "1000.1", "\"auto\"", "null"] {
            assert_eq!(temperature(&format!(r#"{{"temperature": {others}}}"#)), 1.0);
        }
    }
}

#[test]
fn why_a_calibration_is_not_ours_is_said() {
    let reason = |calibration: Value| temperature(&calibration).unwrap_err().to_string();
    assert_eq!(reason(json!({"bins": 15})), "`calibration.temperature` is missing");
    assert_eq!(reason(json!(3)), "`calibration.temperature` is missing");
    let expected = "`calibration.temperature` is \"auto\", expected a number from 0.001 to 1000";
    assert_eq!(reason(json!({"temperature": "auto"})), expected);
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
fn a_network_that_transformers_wraps_without_a_classifier_has_none() {
    let text = |class: &str| {
        let fields =
            r#""architecture": "resnet18", "model_type": "timm_wrapper", "num_classes": 2, "label_names": ["a", "b"]"#;
        ModelConfig::parse(&format!(r#"{{{fields}, "architectures": ["{class}"], "model_args": null}}"#)).unwrap()
    };
    let whole = text("TimmWrapperForImageClassification");
    assert_eq!((whole.classes, whole.label_names.map(|names| names.len())), (2, Some(2)));
    let trunk = text("TimmWrapperModel");
    assert_eq!((trunk.classes, trunk.label_names), (0, None));
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
        "model_args": {"num_classes": 3, "in_chans": 3, "global_pool": "avg", "act_layer": null, "zero_init_last": true}}"#;
    assert_eq!(ModelConfig::parse(text).unwrap().classes, 3);
}

/// A config of resnet18 for two classes, with these fields beside.
fn with(rest: &str) -> Result<ModelConfig, ConfigError> {
    ModelConfig::parse(&format!(r#"{{"architecture": "resnet18", "num_classes": 2, {rest}}}"#))
}

#[test]
fn arguments_make_another_network_of_the_same_name() {
    let config = with(
        r#""pretrained_cfg": {"input_size": [3, 64, 64], "global_pool": "max", "num_classes": 9}, "model_args": {"in_chans": 5,
        "output_stride": 8, "global_pool": "catavgmax", "num_classes": 4, "drop_rate": 0.25, "drop_path_rate": 0.1}"#,
    )
    .unwrap();
    let resnet18 = Architecture::named("resnet18").unwrap();
    let expected =
        Architecture { in_channels: 5, output_stride: 8, global_pool: GlobalPool::AverageThenMax, ..*resnet18 };
    assert_eq!((config.architecture, config.classes), (expected, 4));
    assert_eq!(config.drop_rates, DropRates { features: 0.25, paths: 0.1 });
}

#[test]
fn channels_and_pool_are_taken_from_the_pretrained_part_as_timm_takes_them() {
    let architecture =
        with(r#""pretrained_cfg": {"input_size": [1, 64, 64], "global_pool": "max"}"#).unwrap().architecture;
    assert_eq!((architecture.in_channels, architecture.global_pool), (1, GlobalPool::Max));
    // At the top of a new config the pool only informs; in a flat one it is part of what timm builds from.
    let informs = with(r#""pretrained_cfg": {}, "global_pool": "max""#).unwrap().architecture;
    assert_eq!(informs.global_pool, GlobalPool::Average);
    assert_eq!(with(r#""global_pool": "max""#).unwrap().architecture.global_pool, GlobalPool::Max);
}

#[test]
fn statistics_are_one_number_for_each_channel_or_their_mean() {
    let mean = |channels: usize, mean: &str| {
        with(&format!(r#""input_size": [{channels}, 64, 64], "mean": {mean}"#)).unwrap().preprocessing.mean
    };
    assert_eq!(mean(3, "[0.485, 0.456, 0.406]"), [0.485, 0.456, 0.406]);
    assert_eq!(mean(3, "[0.5]"), [0.5; 3]);
    assert_eq!(mean(1, "[0.485, 0.456, 0.406]"), [0.449; 3]);
    assert_eq!(mean(1, "[0.5]"), [0.5; 3]);
    assert_eq!(mean(4, "[0.1, 0.2, 0.3, 0.4]"), [0.25; 3]);
}

#[test]
fn labels_go_by_any_of_their_names_and_may_have_gaps() {
    let labels = |rest: &str| with(rest).unwrap().label_names.unwrap();
    assert_eq!(labels(r#""label_names": ["a", "b"]"#), ["a", "b"]);
    assert_eq!(labels(r#""labels": ["a", "b"]"#), ["a", "b"]);
    assert_eq!(labels(r#""labels": ["x", "y"], "label_names": ["a", "b"]"#), ["a", "b"]);
    assert_eq!(labels(r#""pretrained_cfg": {"label_names": {"1": "b"}}"#), ["class 0", "b"]);
    let error = with(r#""label_names": {"2": "c"}"#).unwrap_err().to_string();
    assert!(error.contains("`label_names` is `2`: \"c\""), "{error}");
}

#[test]
fn descriptions_are_kept_beside_the_names() {
    let text = r#""label_names": ["n01440764", "n01443537"], "label_descriptions": {"n01440764": "tench", "other": 3}"#;
    let config = with(text).unwrap();
    assert_eq!(config.label_descriptions, BTreeMap::from([("n01440764".to_string(), "tench".to_string())]));
    assert_eq!(ModelConfig::parse(&config.to_json()).unwrap(), config);
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
    let with = |rest: &str| with(rest).unwrap_err().to_string();
    assert!(with(r#""label_names": ["a"]"#).contains("1 names for 2 classes"));
    assert!(with(r#""std": [0.1, 0.0, 0.1]"#).contains("above 0"));
    assert!(with(r#""mean": []"#).contains("`mean` is []"));
    assert!(with(r#""input_size": [3, 224, 100000]"#).contains("input_size"));
    assert!(with(r#""input_size": [0, 224, 224]"#).contains("`in_chans` is 0"));
    assert!(with(r#""crop_pct": 0.0"#).contains("crop_pct"));
    assert!(with(r#""interpolation": "nearest""#).contains("nearest"));
    assert!(with(r#""crop_mode": "squash""#).contains("squash"));
    let argument = |argument: &str| with(&format!(r#""model_args": {{{argument}}}"#));
    assert_eq!(argument(r#""stem_width": 32"#), "`model_args` sets `stem_width` to 32, which is not supported");
    assert_eq!(argument(r#""in_chans": 5000"#), "`in_chans` is 5000, expected 1 to 4096 channels");
    assert_eq!(argument(r#""output_stride": 4"#), "`output_stride` is 4, expected 8, 16 or 32");
    assert!(argument(r#""global_pool": "fast""#).starts_with("`global_pool` is `fast`, expected `avg`"));
    assert_eq!(argument(r#""drop_rate": 1.0"#), "`drop_rate` is 1, expected from 0 up and below 1");
    assert!(argument(r#""num_classes": 2000000"#).contains("at most 1048576"));
}

/// transformers' config of a ResNet-18 for two classes, with these fields before.
fn transformers(fields: &str) -> Result<ModelConfig, ConfigError> {
    ModelConfig::parse(&format!(
        r#"{{{fields} "model_type": "resnet", "architectures": ["ResNetForImageClassification"], "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512], "embedding_size": 64, "layer_type": "basic", "hidden_act": "relu",
        "num_channels": 3, "id2label": {{"0": "ant", "1": "bee"}}, "label2id": {{"ant": 0, "bee": 1}}}}"#
    ))
}

#[test]
fn transformers_networks_are_found_by_their_shape() {
    let config = transformers("").unwrap();
    assert_eq!((config.architecture.name, config.classes), ("resnet18", 2));
    assert_eq!(config.label_names.unwrap(), ["ant", "bee"]);
    // microsoft/resnet-50 leaves most of its fields at transformers' defaults.
    let resnet50 = ModelConfig::parse(r#"{"model_type": "resnet", "num_labels": 7}"#).unwrap();
    assert_eq!((resnet50.architecture.name, resnet50.classes), ("resnet50", 7));
    let trunk = ModelConfig::parse(r#"{"model_type": "resnet", "architectures": ["ResNetModel"]}"#).unwrap();
    assert_eq!(trunk.classes, 0);
    let grey = ModelConfig::parse(r#"{"model_type": "resnet", "num_channels": 1}"#).unwrap();
    assert_eq!((grey.architecture.in_channels, grey.preprocessing.mean), (1, [0.449; 3]));
}

#[test]
fn transformers_networks_that_are_not_built_say_what_is_different() {
    let error = |text: &str| ModelConfig::parse(text).unwrap_err().to_string();
    assert_eq!(error(r#"{"model_type": "vit"}"#), "`model_type` is `vit`, expected `resnet`");
    let with = |rest: &str| error(&format!(r#"{{"model_type": "resnet", {rest}}}"#));
    assert_eq!(with(r#""hidden_act": "gelu""#), "`hidden_act` is `gelu`, expected `relu`");
    assert!(with(r#""downsample_in_first_stage": true"#).contains("`downsample_in_first_stage` is true"));
    assert!(with(r#""downsample_in_bottleneck": true"#).contains("the 3×3 convolution takes the stride"));
    assert!(with(r#""layer_type": "conv""#).contains("`layer_type` is `conv`"));
    assert_eq!(
        with(r#""depths": [1, 2, 3, 4]"#),
        "no known network has bottleneck blocks, depths [1, 2, 3, 4], hidden sizes [256, 512, 1024, 2048] and an embedding of 64"
    );
    for wrong in [r#""hidden_sizes": [256, 512, 1024]"#, r#""embedding_size": 32"#] {
        assert!(with(wrong).starts_with("no known network"), "{wrong}");
    }
    assert!(with(r#""id2label": {"0": "a", "2": "c"}"#).contains("`id2label` is `2`"));
    assert!(with(r#""num_channels": 0"#).contains("`num_channels` is 0"));
    // Basic blocks take no notice of it.
    assert!(transformers(r#""downsample_in_bottleneck": true,"#).is_ok());
}

/// What `preprocessor_config.json` makes of a resnet18's preprocessing.
fn preprocessor(text: &str) -> Result<Preprocessing, ConfigError> {
    transformers("").unwrap().with_preprocessor(text).map(|config| config.preprocessing)
}

const STATISTICS: &str = r#""image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3"#;

#[test]
fn transformers_preprocessing_is_a_resize_and_a_cut() {
    // As microsoft/resnet-50 has it, and as it is written now.
    for size in ["224", r#"{"shortest_edge": 224}"#] {
        let text = format!(
            r#"{{"crop_pct": 0.875, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "ConvNextFeatureExtractor", "size": {size}, {STATISTICS}}}"#
        );
        let expected = Preprocessing { interpolation: Interpolation::Bicubic, ..Preprocessing::imagenet(256, 224) };
        assert_eq!(preprocessor(&text), Ok(expected));
    }
    let centre = format!(
        r#"{{"image_processor_type": "BitImageProcessor", "size": {{"shortest_edge": 232}}, "do_center_crop": true,
        "crop_size": {{"height": 224, "width": 224}}, "rescale_factor": 0.00392156862745098, {STATISTICS}}}"#
    );
    let found = preprocessor(&centre).unwrap();
    assert_eq!((found.resize, found.crop), (232, 224));
    let plain = preprocessor(r#"{"size": 96, "crop_pct": 1.0, "do_normalize": false, "resample": 2}"#).unwrap();
    assert_eq!((plain.resize, plain.crop, plain.mean, plain.std), (96, 96, [0.0; 3], [1.0; 3]));
    assert_eq!(plain.interpolation, Interpolation::Bilinear);
}

#[test]
fn transformers_preprocessing_that_is_not_done_says_so() {
    let error = |fields: &str| preprocessor(&format!("{{{fields} {STATISTICS}}}")).unwrap_err().to_string();
    assert_eq!(error(""), "`size` is missing");
    assert!(error(r#""size": 384,"#).contains("squashed"));
    assert!(error(r#""size": {"height": 224, "width": 224},"#).contains("shortest edge"));
    assert!(error(r#""size": 224, "do_resize": false,"#).contains("`do_resize` is false"));
    assert!(error(r#""size": 224, "do_rescale": false,"#).contains("`do_rescale` is false"));
    assert!(error(r#""size": 224, "rescale_factor": 0.00784,"#).contains("1/255"));
    assert!(error(r#""size": 224, "crop_pct": 0,"#).contains("crop_pct"));
    assert!(error(r#""size": 0,"#).contains("1 to 4096"));
    assert!(error(r#""size": 224, "image_processor_type": "BitImageProcessor","#).contains("crop_size"));
    let bare = |fields: &str| preprocessor(&format!(r#"{{"size": 224, {fields}}}"#)).unwrap_err().to_string();
    assert_eq!(bare(r#""image_mean": 0.5, "image_std": 0.5"#), "`resample` is missing");
    assert_eq!(bare(r#""resample": 3, "image_std": 0.5"#), "`image_mean` is missing");
    assert!(bare(r#""resample": 1, "image_mean": 0.5, "image_std": 0.5"#).contains("`resample` is 1"));
    assert!(bare(r#""resample": 3, "image_mean": 0.5, "image_std": [0.5, 0.0, 0.5]"#).contains("above 0"));
}
