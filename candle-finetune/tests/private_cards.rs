//! Models that only their owner has cards of: `--models-dir`.

mod common;
#[path = "../../candle-resnet/tests/hub_server/mod.rs"]
mod hub_server;

use std::fs;

use common::{Bench, run, timm_files};
use hub_server::HubServer;
use serde_json::{Value, json};

/// A card of fresh weights for three animals.
fn card() -> Value {
    json!({
        "name": "animals", "architecture": "resnet20_cifar", "file": "weights/animals.safetensors", "classes": 3,
        "labels": ["cat", "dog", "fox"], "input_size": 32, "crop_pct": 1.0, "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "license": "cc-by-nc-4.0",
        "origin_url": "https://example.org/animals",
    })
}

fn weights() -> Vec<u8> {
    timm_files("resnet20_cifar", None, 3).1
}

/// With photos, and a card whose weights lie beside it.
fn bench() -> Bench {
    let bench = Bench::with_photos();
    bench.file("cards/animals.json", card().to_string());
    bench.file("cards/weights/animals.safetensors", weights());
    bench
}

const FROM: [&str; 2] = ["--models-dir", "cards"];
const PHOTO: &str = "photos/red/000.png";

#[test]
fn a_private_name_works_in_every_command() {
    let bench = bench();
    let run = |arguments: &[&str]| bench.run(&[arguments, &FROM[..]].concat()).succeeded();
    run(&["predict", PHOTO, "--model", "animals"]).printed(&["cat", "dog", "fox"]).said(&["no commercial use"]);
    run(&["embed", PHOTO, "--model", "animals", "--out", "f.safetensors"]).said(&["64 features each"]);
    run(&["verify", "--model", "animals"]).printed(&["pixels    equal to the last bit: ok"]);
    run(&["summary", "animals"]).printed(&["out_features=3"]);
    let fetched = run(&["fetch", "animals"]);
    assert!(bench.path(fetched.out.trim()).ends_with("cards/weights/animals.safetensors"), "{fetched:?}");
    run(&["models", "animals"]).printed(&["animals", "0.27 M", "cc-by-nc-4.0"]);
    run(&["train", "photos", "--model", "animals", "--epochs", "2", "--out", "bundle"]);
    let config = bench.json("bundle/config.json");
    assert_eq!(config["pretrained_cfg"]["license"], "cc-by-nc-4.0");
    assert_eq!(config["pretrained_from"]["model"], "animals");
    assert_eq!(config["pretrained_from"]["sha256"], hub_server::sha256(&weights()));
    bench.class("three/cat", common::RED, 1);
    bench.class("three/dog", common::BLUE, 1);
    run(&["eval", "three", "--model", "animals", "--json"]);
}

#[test]
fn the_environment_names_the_folder_too() {
    let bench = bench();
    let with = |folder: &str| {
        let mut command = bench.command(&["summary", "animals"]);
        command.env("FINETUNE_MODELS_DIR", folder);
        run(command)
    };
    with("cards").succeeded();
    with("").failed().said(&["no model named `animals`"]);
    with("nowhere").failed().said(&["error: nowhere: "]);
}

#[test]
fn without_the_folder_the_name_means_nothing() {
    let bench = bench();
    bench.run(&["predict", PHOTO, "--model", "animals"]).failed().said(&["no model named `animals`"]);
    let arguments = ["predict", PHOTO, "--model", "animols"];
    bench.run(&[&arguments[..], &FROM].concat()).failed().said(&["did you mean `animals`?"]);
}

#[test]
fn a_private_card_can_name_a_revision_on_the_hub() {
    let (bench, server) = (bench(), HubServer::start());
    let mut card = card();
    card["repository"] = json!("me/animals");
    card["revision"] = json!("refs/pr/1");
    card["file"] = json!("model.safetensors");
    bench.file("cards/animals.json", card.to_string());
    server.add_large("me/animals", "model.safetensors", weights());
    let mut command = bench.command(&["fetch", "animals", "--models-dir", "cards"]);
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", server.endpoint());
    run(command).succeeded();
    let asked: Vec<String> = server.take_requests().into_iter().map(|request| request.target).collect();
    assert_eq!(asked[0], "/me/animals/resolve/refs%2Fpr%2F1/model.safetensors");
    bench.run(&["predict", PHOTO, "--model", "animals", "--models-dir", "cards"]).succeeded().printed(&["fox"]);
    bench.run(&["cache", "remove", "animals", "--models-dir", "cards"]).succeeded().said(&["freed"]);
}

#[test]
fn a_mistake_is_told_with_file_card_and_field() {
    let bench = bench();
    let mut card = card();
    card["labels"] = json!(["cat"]);
    bench.file("cards/animals.json", card.to_string());
    bench.run(&["summary", "resnet18", "--models-dir", "cards"]).failed().said(&[
        "animals.json: card `animals`: `labels` are 1 names, `classes` is 3",
        "hint: `finetune models resnet18.tv_in1k --json` shows what a card holds",
    ]);
}

#[test]
fn a_private_card_cannot_take_a_known_name() {
    let bench = bench();
    let mut card = card();
    card["name"] = json!("resnet18");
    bench.file("cards/animals.json", card.to_string());
    let said = "card `resnet18`: `name` is taken: it stands for something else already";
    bench.run(&["summary", "resnet18", "--models-dir", "cards"]).failed().said(&[said]);
}

#[test]
fn weights_that_are_gone_are_named() {
    let bench = bench();
    fs::remove_file(bench.path("cards/weights/animals.safetensors")).unwrap();
    for arguments in [&["fetch", "animals"][..], &["predict", PHOTO, "--model", "animals"]] {
        bench.run(&[arguments, &FROM[..]].concat()).failed().said(&["animals.safetensors: "]);
    }
}
