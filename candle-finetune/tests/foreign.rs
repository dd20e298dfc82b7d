//! Weights and folders that other programs wrote.

mod common;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use candle_resnet::architecture::Architecture;
use candle_resnet::checkpoint;
use candle_resnet::initialise::fresh_weights;
use candle_resnet::weights;
use common::{Bench, RED};
use image::{Rgb, RgbImage};
use serde_json::json;

/// Tensors of a small network for ten classes, always the same.
fn tensors() -> BTreeMap<String, Tensor> {
    let architecture = Architecture::named("resnet20_cifar").unwrap();
    weights::tensors(&fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap()).unwrap()
}

fn save(bench: &Bench, name: &str, tensors: impl IntoIterator<Item = (String, Tensor)>) {
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    bench.file(name, safetensors::serialize(tensors, None).unwrap());
}

fn behind(prefix: &str, tensors: BTreeMap<String, Tensor>) -> impl Iterator<Item = (String, Tensor)> {
    tensors.into_iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
}

/// What `embed` makes of the photos with these weights, as bits.
fn features(bench: &Bench, weights: &str) -> Vec<u32> {
    let arguments = ["embed", "photos", "--model", "resnet20_cifar", "--weights", weights, "--out", "f", "--overwrite"];
    bench.run(&arguments).succeeded();
    bits(&checkpoint::read(&bench.path("f")).unwrap()["features"])
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_training_scripts_checkpoint_is_the_network_in_it() {
    let bench = Bench::with_photos();
    save(&bench, "bare", tensors());
    let expected = features(&bench, "bare");
    save(&bench, "parallel", behind("module.", tensors()));
    assert_eq!(features(&bench, "parallel"), expected);

    let linear = tensors().into_iter().map(|(name, tensor)| (name.replace("fc.", "linear."), tensor)).collect();
    let loss = ("loss.weight".to_string(), Tensor::new(&[1f32], &Device::Cpu).unwrap());
    save(&bench, "lightning", behind("model.", linear).chain([loss]));
    assert_eq!(features(&bench, "lightning"), expected);
    bench
        .run(&["predict", "photos/red/000.png", "--model", "resnet20_cifar", "--weights", "lightning"])
        .succeeded()
        .said(&["lightning: 1 tensors beside the network are left aside, such as `loss.weight`"])
        .printed(&["class "]);
}

#[test]
fn weights_without_a_classifier_give_features_and_train() {
    let bench = Bench::with_photos();
    save(&bench, "bare", tensors());
    let trunk = tensors().into_iter().filter(|(name, _)| !name.starts_with("fc."));
    save(&bench, "trunk", trunk);
    assert_eq!(features(&bench, "trunk"), features(&bench, "bare"));
    let arguments = ["--model", "resnet20_cifar", "--weights", "trunk"];
    bench.run(&[&["train", "photos", "--out", "bundle"], &arguments[..]].concat()).succeeded();
    bench
        .run(&[&["predict", "photos/red/000.png"], &arguments[..]].concat())
        .failed()
        .said(&["error: `resnet20_cifar` has no classifier, only features"]);
}

#[test]
fn the_trunk_in_a_sequential_gives_features_and_trains() {
    let bench = Bench::with_photos();
    save(&bench, "bare", tensors());
    // nn.Sequential(*list(model.children())[:-1]), and a head of the program's own beside it.
    let cut = tensors().into_iter().filter(|(name, _)| !name.starts_with("fc.")).map(|(name, tensor)| {
        let renamed = match name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) {
            Some((stage, rest)) => format!("0.{}.{rest}", 3 + stage.parse::<usize>().unwrap()),
            None => format!("0.{}", name.replace("conv1", "0").replace("bn1", "1")),
        };
        (renamed, tensor)
    });
    let head = ("1.8.weight".to_string(), Tensor::new(&[1f32], &Device::Cpu).unwrap());
    save(&bench, "sequential", cut.chain([head]));
    assert_eq!(features(&bench, "sequential"), features(&bench, "bare"));
    let arguments = ["train", "photos", "--out", "bundle", "--model", "resnet20_cifar", "--weights", "sequential"];
    bench
        .run(&arguments)
        .succeeded()
        .said(&["sequential: 1 tensors beside the network are left aside, such as `1.8.weight`"]);
}

#[test]
fn a_classifier_of_several_modules_is_its_only_layer_or_none() {
    let bench = Bench::with_photos();
    save(&bench, "bare", tensors());
    let predict = |weights: &str| {
        bench.run(&["predict", "photos/red/000.png", "--model", "resnet20_cifar", "--weights", weights, "--json"])
    };
    let expected = predict("bare").succeeded().json_lines();
    let rename = |to: &'static str| tensors().into_iter().map(move |(name, tensor)| (name.replace("fc.", to), tensor));
    save(&bench, "dropout", rename("fc.1."));
    assert_eq!(predict("dropout").succeeded().json_lines(), expected);

    let second = ("fc.3.weight".to_string(), Tensor::new(&[[1f32]], &Device::Cpu).unwrap());
    save(&bench, "layers", rename("fc.0.").chain([second]));
    assert_eq!(features(&bench, "layers"), features(&bench, "bare"));
    predict("layers").failed().said(&[
        "layers: 3 tensors beside the network are left aside, such as `fc.0.bias`",
        "error: `resnet20_cifar` has no classifier, only features",
    ]);
}

#[test]
fn stages_that_were_compiled_are_the_networks() {
    let bench = Bench::with_photos();
    save(&bench, "bare", tensors());
    let compiled = |(name, tensor): (String, Tensor)| (name.replace("layer1.", "layer1._orig_mod."), tensor);
    save(&bench, "compiled", tensors().into_iter().map(compiled));
    assert_eq!(features(&bench, "compiled"), features(&bench, "bare"));
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let bench = Bench::with_photos();
    let mut diverged = tensors();
    let kernel = diverged["layer2.0.conv1.weight"].affine(f64::NAN, 0.0).unwrap();
    diverged.insert("layer2.0.conv1.weight".into(), kernel);
    save(&bench, "diverged", diverged);
    let arguments = ["predict", "photos/red/000.png", "--model", "resnet20_cifar", "--weights", "diverged"];
    bench.run(&arguments).failed().said(&[
        "error: diverged: `layer2.0.conv1.weight` holds NaN or infinity",
        "hint: a training that diverged leaves such weights",
    ]);
}

#[test]
fn photos_whose_outputs_are_no_numbers_are_as_good_as_unreadable() {
    let bench = Bench::with_photos();
    let mut huge = tensors();
    let kernel = huge["layer3.2.conv2.weight"].affine(0.0, 3e38).unwrap();
    huge.insert("layer3.2.conv2.weight".into(), kernel);
    save(&bench, "huge", huge);
    let from = ["photos/red/000.png", "--model", "resnet20_cifar", "--weights", "huge"];
    let said = "photos/red/000.png: the network's outputs are not finite";
    let ran = bench.run(&[&["predict", "--json"], &from[..]].concat()).failed().said(&["skipped: ", said]);
    assert!(ran.out.contains(said) && !ran.out.contains("null"), "{ran:?}");
    bench.run(&[&["predict", "--strict"], &from[..]].concat()).failed().said(&["error: ", said]);
    bench.run(&[&["embed", "--out", "features"], &from[..]].concat()).failed().said(&["error: none of the 1 ", said]);
    assert!(!bench.path("features").exists());
    let doctor = ["doctor", "photos", "--model", "resnet20_cifar", "--weights", "huge"];
    let ran = bench.run(&doctor).succeeded();
    let (_, found) = ran.out.split_once("pictures unlike all others: 16\n").unwrap();
    assert!(found.trim_start().starts_with("blue/000.png: the network's outputs are not finite\n"), "{found}");
}

#[test]
fn weights_in_several_files_say_how_to_save_them_as_one() {
    let bench = Bench::with_photos();
    bench.model_folder("model", None, 2);
    std::fs::rename(bench.path("model/model.safetensors"), bench.path("model/model-00001-of-00001.safetensors"))
        .unwrap();
    bench.file("model/model.safetensors.index.json", "{}");
    bench.run(&["predict", "photos/red/000.png", "--model", "model"]).failed().said(&[
        "error: model: holds no model.safetensors and no pytorch_model.bin",
        "hint: `model.safetensors.index.json` is of weights in several files: save them as one, `save_pretrained(…, max_shard_size=",
    ]);
}

#[test]
fn photos_that_transformers_prepares_otherwise_leave_the_weights_to_a_name() {
    let bench = Bench::with_photos();
    bench.model_folder("model", None, 2);
    bench.file("model/config.json", json!({"model_type": "resnet"}).to_string());
    let squashed = json!({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}});
    bench.file("model/preprocessor_config.json", squashed.to_string());
    bench.run(&["predict", "photos/red/000.png", "--model", "model"]).failed().said(&[
        "error: model/preprocessor_config.json: `size` is 384, expected less than 384",
        "hint: `--model NAME --weights model/model.safetensors` takes the weights alone",
    ]);
}

#[test]
fn a_file_with_two_networks_is_refused() {
    let bench = Bench::with_photos();
    save(&bench, "two", behind("model.", tensors()).chain(behind("ema_model.", tensors())));
    let arguments = ["embed", "photos", "--model", "resnet20_cifar", "--weights", "two", "--out", "f"];
    bench.run(&arguments).failed().said(&[
        "error: two: holds 2 networks of this shape, behind `ema_model.` and `model.`",
        "hint: save the one that is meant in a file of its own",
    ]);
}

#[test]
fn weights_of_another_network_say_what_stood_out() {
    let bench = Bench::with_photos();
    save(&bench, "other", behind("encoder.", tensors()));
    let arguments = ["embed", "photos", "--model", "resnet18", "--weights", "other", "--out", "f"];
    bench.run(&arguments).failed().said(&[
        "error: other: the tensors do not fit `resnet18`",
        "nearest are torchvision's and timm's names behind `encoder.`: 67 of 102 found",
        "  encoder.layer2.0.downsample.0.weight [128, 64, 1, 1]",
        "  encoder.layer1.2.bn1.bias [16], most like encoder.layer",
        "  encoder.bn1.bias: found [16], expected [64]",
        "hint: check that the network named",
    ]);
}

#[test]
fn synsets_are_shown_in_words_and_both_name_a_class() {
    let bench = Bench::with_photos();
    bench.model_folder("model", Some(&["n01440764", "n01443537"]), 2);
    let mut config = bench.json("model/config.json");
    config["label_descriptions"] = json!({"n01440764": "tench, Tinca tinca", "n01443537": "goldfish"});
    bench.file("model/config.json", config.to_string());
    let arguments = ["predict", "photos/red/000.png", "--model", "model"];
    bench.run(&arguments).succeeded().printed(&["%  tench, Tinca tinca", "%  goldfish"]);
    bench.class("labelled/n01440764", RED, 1);
    bench.class("labelled/goldfish", RED, 1);
    bench.run(&["eval", "labelled", "--model", "model"]).succeeded().printed(&["of 2 images wrong"]);

    config["label_names"] = json!(["fish", "gold"]);
    config["label_descriptions"] = json!({"fish": "lives in water", "gold": "shines"});
    bench.file("model/config.json", config.to_string());
    bench.run(&arguments).succeeded().printed(&["%  fish", "%  gold"]);
}

#[test]
fn a_grey_network_is_trained_and_asked_in_grey() {
    let bench = Bench::with_photos();
    save(&bench, "weights", tensors());
    let arguments = ["--model", "resnet20_cifar", "--weights", "weights", "--in-chans", "1"];
    bench
        .run(&[&["train", "photos", "--out", "bundle"], &arguments[..]].concat())
        .succeeded()
        .said(&["resnet20_cifar, 32×32 pixels in grey"]);
    let config = bench.json("bundle/config.json");
    assert_eq!(config["model_args"], json!({"in_chans": 1}));
    let pretrained = &config["pretrained_cfg"];
    assert_eq!(
        (&pretrained["input_size"], &pretrained["mean"], &pretrained["std"]),
        (&json!([1, 32, 32]), &json!([0.449]), &json!([0.226]))
    );
    assert!(bench.read("bundle/run.toml").contains("in-chans = 1"));
    let kernel = checkpoint::read(&bench.path("bundle/model.safetensors")).unwrap()["conv1.weight"].clone();
    let expected = tensors()["conv1.weight"].sum_keepdim(1).unwrap();
    assert_eq!(bits(&kernel), bits(&expected));

    // A bundle needs no reminder; to it a colour is as bright as its luma: 69 for this red.
    bench.run(&["eval", "photos", "--model", "bundle"]).succeeded();
    let answer = |colour: [u8; 3]| {
        let path = bench.path("asked.png");
        RgbImage::from_pixel(32, 32, Rgb(colour)).save(path).unwrap();
        let ran = bench.run(&["predict", "asked.png", "--model", "bundle", "--json"]).succeeded();
        ran.json_lines()[0]["predictions"].clone()
    };
    assert_eq!(answer([230, 0, 0]), answer([69, 69, 69]));
    assert_ne!(answer([230, 0, 0]), answer([70, 70, 70]));
}

#[test]
fn weights_for_grey_tell_their_channels() {
    let bench = Bench::with_photos();
    let mut grey = tensors();
    let kernel = grey["conv1.weight"].sum_keepdim(1).unwrap();
    grey.insert("conv1.weight".into(), kernel);
    save(&bench, "grey", grey);
    save(&bench, "colour", tensors());
    let of_grey = features(&bench, "grey");
    let arguments = ["embed", "photos", "--model", "resnet20_cifar", "--weights", "colour", "--in-chans", "1"];
    bench.run(&[&arguments[..], &["--out", "f", "--overwrite"]].concat()).succeeded();
    assert_eq!(of_grey, bits(&checkpoint::read(&bench.path("f")).unwrap()["features"]));
}

#[test]
fn other_channels_have_no_photos() {
    let bench = Bench::with_photos();
    save(&bench, "weights", tensors());
    let arguments = ["--model", "resnet20_cifar", "--weights", "weights", "--in-chans", "4"];
    for command in
        [vec!["train", "photos"], vec!["embed", "photos", "--out", "f"], vec!["predict", "photos/red/000.png"]]
    {
        bench.run(&[&command[..], &arguments[..]].concat()).failed().said(&[
            "error: a photo has 3 channels, or 1 in grey, and the network takes 4",
            "hint: images of other channels go through the library, as tensors",
        ]);
    }
    bench
        .run(&["summary", "resnet50d", "--in-chans", "6"])
        .succeeded()
        .printed(&["(0): Conv2d(6, 32, kernel_size=(3, 3)", "input 6×288×288"]);
    bench.run(&["summary", "resnet50d", "--in-chans", "0"]).exited(2);
}
