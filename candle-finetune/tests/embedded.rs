//! Weights that are built into the program: no network, no cache.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_resnet::Model;
use common::Bench;

const NAME: &str = "resnet20_cifar.embedded";
const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/resnet20_cifar.embedded.safetensors")
}

#[test]
fn they_work_in_every_command_without_network_or_cache() {
    let bench = Bench::with_photos();
    let photo = "photos/red/000.png";
    bench.run(&["predict", photo, "--model", NAME, "--top-k", "10"]).succeeded().printed(&CLASSES);
    bench.run(&["embed", photo, "--model", NAME, "--out", "f.safetensors"]).succeeded().said(&["64 features each"]);
    bench.run(&["summary", NAME]).succeeded().printed(&["out_features=10"]);
    bench.run(&["verify", "--model", NAME]).succeeded();
    bench.run(&["bench", "--model", NAME, "--repeat", "1"]).succeeded().printed(&["ms per image"]);
    bench.run(&["models", NAME]).succeeded().printed(&["0.27 M", "mit or apache-2.0, built in: no network"]);
    let fetched = bench.run(&["fetch", NAME]).succeeded().said(&["built into the program, there is nothing to fetch"]);
    assert_eq!(fetched.out, "");
    bench.class("two/cat", common::RED, 1);
    bench.class("two/dog", common::BLUE, 1);
    bench.run(&["eval", "two", "--model", NAME]).succeeded().printed(&["top-1"]).did_not_say(&["alphabetical"]);
    bench.run(&["train", "photos", "--model", NAME, "--epochs", "2", "--out", "bundle"]).succeeded();
    let from = &bench.json("bundle/config.json")["pretrained_from"];
    assert_eq!(from["model"], NAME);
    assert_eq!(from["sha256"], candle_resnet::hub::sha256_of(&file()).unwrap());
    assert!(!bench.path("hf").exists(), "the cache was touched");
}

#[test]
fn grey_photos_have_a_network_of_them_too() {
    let bench = Bench::with_photos();
    let arguments = ["predict", "photos/red/000.png", "--model", NAME, "--in-chans", "1"];
    bench.run(&arguments).succeeded();
}

#[test]
fn their_logits_are_those_of_a_bundle_of_the_file() {
    let bench = Bench::new();
    bench.model_folder("bundle", Some(&CLASSES), 10);
    fs::copy(file(), bench.path("bundle/model.safetensors")).unwrap();
    let images = Tensor::randn(0f32, 1.0, (2, 3, 32, 32), &Device::Cpu).unwrap();
    let logits = |model: &Model| -> Vec<Vec<f32>> {
        model.classifier(&Device::Cpu).unwrap().logits(&images).unwrap().to_vec2().unwrap()
    };
    let embedded = Model::named(NAME).unwrap();
    let bundle = Model::named(&bench.path("bundle").to_string_lossy()).unwrap();
    assert_eq!(logits(&embedded), logits(&bundle));
    assert_eq!(embedded.label_names, bundle.label_names);
    assert_eq!(embedded.preprocessing, bundle.preprocessing);
}
