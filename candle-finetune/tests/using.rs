//! What a bundle is good for: `predict`, `eval`, `embed`, `verify`.

mod common;

use std::collections::HashMap;
use std::fs;

use candle_core::{Device, Tensor};
use candle_resnet::catalogue::Catalogue;
use candle_resnet::hub::{Hub, HubSettings};
use candle_resnet::model::{Loader, Model, ModelRequest};
use candle_resnet::{FeatureExtractor, checkpoint, preprocess};
use common::{BLUE, Bench, GREEN, RED};
use safetensors::SafeTensors;
use serde_json::json;

#[test]
fn a_bundle_knows_what_it_was_trained_on() {
    let bench = Bench::with_bundle();
    bench.two_colours("others", 20);
    let ran = bench.run(&["eval", "others", "--model", "bundle", "--json"]).succeeded();
    let result = &ran.json_lines()[0];
    assert_eq!((&result["top1"], &result["images"]), (&json!(1.0), &json!(40)));
    for (folder, label) in [("red", "red"), ("blue", "blue")] {
        let photo = format!("others/{folder}/019.png");
        let ran = bench.run(&["predict", &photo, "--model", "bundle", "--json"]).succeeded();
        let best = &ran.json_lines()[0]["predictions"][0];
        assert_eq!(best["label"], label);
        // Four held-out images that are all right are calibrated to (4 + 1/2) / 5.
        assert!(best["probability"].as_f64().unwrap() > 0.85, "{best}");
    }
}

#[test]
fn evaluation_prints_fractions_as_json_and_percent_as_text() {
    let bench = Bench::with_bundle();
    let ran = bench.run(&["eval", "photos", "--model", "bundle", "--json"]).succeeded();
    let result = ran.json_lines();
    assert_eq!(result.len(), 1, "{ran:?}");
    let keys: Vec<&String> = result[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["top1", "top5", "loss", "images", "skipped", "calibration_error", "calibrated"]);
    assert_eq!((&result[0]["top5"], &result[0]["skipped"]), (&json!(1.0), &json!(0)));
    bench.run(&["eval", "photos", "--model", "bundle"]).succeeded().printed(&[
        "top-1 100.00 %",
        "top-5 100.00 %",
        "loss 0.",
        "0 of 16 images wrong",
    ]);
}

#[test]
fn evaluation_counts_what_is_wrong() {
    let bench = Bench::with_bundle();
    bench.class("wrong/red", BLUE, 1);
    bench.class("wrong/blue", BLUE, 3);
    let ran = bench.run(&["eval", "wrong", "--model", "bundle", "--json"]).succeeded();
    assert_eq!(ran.json_lines()[0]["top1"], 0.75);
    bench.run(&["eval", "wrong", "--model", "bundle"]).succeeded().printed(&["1 of 4 images wrong"]);
}

#[test]
fn evaluation_takes_the_split_that_is_asked_for_and_test_first() {
    let bench = Bench::with_bundle();
    for (split, count) in [("train", 5), ("val", 3), ("test", 2)] {
        bench.two_colours(&format!("splits/{split}"), count);
    }
    let images = |further: &[&str]| {
        let arguments = [&["eval", "splits", "--model", "bundle", "--json"], further].concat();
        bench.run(&arguments).succeeded().json_lines()[0]["images"].as_u64().unwrap()
    };
    assert_eq!(images(&[]), 4);
    assert_eq!(images(&["--split", "test"]), 4);
    assert_eq!(images(&["--split", "val"]), 6);
    assert_eq!(images(&["--split", "train"]), 10);
    bench.run(&["eval", "photos", "--model", "bundle", "--split", "val"]).failed().said(&["photos: has no such split"]);
    bench.run(&["eval", "photos", "--model", "bundle", "--split", "dev"]).exited(2);
}

#[test]
fn one_class_can_be_evaluated() {
    let bench = Bench::with_bundle();
    bench.class("only/red", RED, 3);
    let ran = bench.run(&["eval", "only", "--model", "bundle", "--json"]).succeeded();
    assert_eq!(ran.json_lines()[0]["top1"], 1.0);
}

#[test]
fn outputs_without_names_are_matched_by_order_with_a_word() {
    let bench = Bench::with_photos();
    bench.model_folder("unnamed", None, 2);
    bench
        .run(&["eval", "photos", "--model", "unnamed"])
        .succeeded()
        .said(&["note: the model does not name its classes"]);
    bench.model_folder("three", None, 3);
    bench
        .run(&["eval", "photos", "--model", "three"])
        .failed()
        .said(&["the data set has 2 classes, the model has 3 outputs without names", "hint: "]);
    let ran = bench.run(&["predict", "photos/red/000.png", "--model", "three"]).succeeded();
    ran.printed(&["class 0", "class 1", "class 2"]);
}

#[test]
fn classes_that_the_model_does_not_know_are_named() {
    let bench = Bench::with_bundle();
    bench.class("others/red", RED, 1);
    bench.class("others/green", GREEN, 1);
    bench
        .run(&["eval", "others", "--model", "bundle"])
        .failed()
        .said(&["error: the model does not know 1 of the classes: green", "hint: it knows: blue, red"]);
}

#[test]
fn the_library_is_as_sure_as_the_program() {
    let bench = Bench::with_bundle();
    let model = load(&bench, "bundle");
    assert_eq!(Some(model.temperature), bench.json("bundle/config.json")["calibration"]["temperature"].as_f64());
    assert_ne!(model.temperature, 1.0);
    let classifier = model.classifier(&Device::Cpu).unwrap();
    let ours = classifier.predict(bench.path("photos/red/000.png"), 2).unwrap();
    let ran =
        bench.run(&["predict", "photos/red/000.png", "--model", "bundle", "--json", "--device", "cpu"]).succeeded();
    let theirs = ran.json_lines()[0]["predictions"].as_array().unwrap().clone();
    for (ours, theirs) in ours.iter().zip(theirs) {
        let difference = f64::from(ours.probability) - theirs["probability"].as_f64().unwrap();
        assert!(theirs["label"] == *ours.label && difference.abs() < 1e-6, "{ours:?} {theirs}");
    }
}

#[test]
fn the_likeliest_labels_come_first() {
    let bench = Bench::with_bundle();
    let ran = bench.run(&["predict", "photos/red/000.png", "--model", "bundle"]).succeeded();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert_eq!(lines[0], "photos/red/000.png");
    assert!(lines[1].ends_with(" %  red") && lines[2].ends_with(" %  blue"), "{ran:?}");
    let one = bench.run(&["predict", "photos/red/000.png", "--model", "bundle", "--top-k", "1"]).succeeded();
    assert_eq!(one.out.lines().count(), 2);
    bench.run(&["predict", "photos/red/000.png", "--model", "bundle", "--top-k", "0"]).exited(2);
}

#[test]
fn probabilities_add_up_to_one() {
    let bench = Bench::new();
    bench.model_folder("model", Some(&["a", "b", "c", "d", "e", "f", "g"]), 7);
    bench.picture("photo.png", RED, 0);
    let ran = bench.run(&["predict", "photo.png", "--model", "model", "--json", "--top-k", "100"]).succeeded();
    let predictions = ran.json_lines()[0]["predictions"].as_array().unwrap().clone();
    let probabilities: Vec<f64> = predictions.iter().map(|one| one["probability"].as_f64().unwrap()).collect();
    assert_eq!(predictions.len(), 7);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{probabilities:?}");
    assert!(probabilities.is_sorted_by(|a, b| a >= b), "{probabilities:?}");
    let default = bench.run(&["predict", "photo.png", "--model", "model", "--json"]).succeeded();
    assert_eq!(default.json_lines()[0]["predictions"].as_array().unwrap().len(), 5);
}

#[test]
fn json_is_one_object_a_line_in_the_order_of_the_photos() {
    let bench = Bench::with_bundle();
    let photos = ["photos/red/001.png", "photos/blue/001.png", "photos/red/000.png"];
    let ran = bench.run(&[&["predict", "--model", "bundle", "--json"], &photos[..]].concat()).succeeded();
    let lines = ran.json_lines();
    assert_eq!(lines.iter().map(|line| line["path"].as_str().unwrap()).collect::<Vec<_>>(), photos);
    let best: Vec<_> = lines.iter().map(|line| &line["predictions"][0]).collect();
    assert_eq!(best.iter().map(|best| best["label"].as_str().unwrap()).collect::<Vec<_>>(), ["red", "blue", "red"]);
    assert_eq!(best[0]["index"], 1);
}

#[test]
fn a_bad_photo_among_good_ones_costs_the_exit_code_and_no_result() {
    let bench = Bench::with_bundle();
    bench.file("letter.jpg", "Dear photo");
    let photos = ["photos/red/000.png", "letter.jpg", "gone.jpg", "photos/blue/000.png"];
    let ran = bench.run(&[&["predict", "--model", "bundle", "--json"], &photos[..]].concat()).failed();
    let failed: Vec<bool> = ran.json_lines().iter().map(|line| line["error"].is_string()).collect();
    assert_eq!(failed, [false, true, true, false]);
    ran.said(&["skipped: letter.jpg: ", "skipped: gone.jpg: no such file", "2 of 4 photos could not be read"]);
    let ran = bench.run(&[&["predict", "--model", "bundle", "--json", "--strict"], &photos[..]].concat()).failed();
    assert_eq!(ran.json_lines().len(), 1, "what came before it is there: {ran:?}");
    ran.said(&["error: letter.jpg: ", "hint: without --strict"]);
}

#[test]
fn features_are_written_with_the_paths_they_belong_to() {
    let bench = Bench::with_photos();
    bench.model_folder("model", None, 2);
    bench.file("photos/red/empty.jpg", "");
    let arguments = ["embed", "photos/red", "photos/blue/003.png", "--model", "model", "--out", "f.safetensors"];
    let ran = bench.run(&arguments).succeeded().said(&["9 images, 64 features each", "empty.jpg", "1 image could not"]);
    assert_eq!(ran.out, "f.safetensors\n");
    let bytes = std::fs::read(bench.path("f.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let paths: Vec<String> = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["paths"]).unwrap();
    assert_eq!((paths.len(), paths[0].as_str(), paths[8].as_str()), (9, "photos/red/000.png", "photos/blue/003.png"));
    let features = checkpoint::read(&bench.path("f.safetensors")).unwrap()["features"].clone();
    assert_eq!(features.dims(), [9, 64]);
    let (model, image) = (load(&bench, "model"), bench.path("photos/blue/003.png"));
    let expected = model.trunk(&Device::Cpu).unwrap().features(&input(&model, &[image])).unwrap();
    let difference = (features.narrow(0, 8, 1).unwrap() - expected).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_scalar::<f32>().unwrap() < 1e-5, "{difference}");
}

#[test]
fn what_is_passed_over_in_a_folder_is_told() {
    let bench = Bench::with_bundle();
    bench.file("photos/red/list.txt", "no photo");
    bench.file("photos/red/raw.cr2", "no photo either");
    let said = [
        "note: passed over files that are no images: 1 (photos/red/list.txt)",
        "note: passed over images in formats that are not supported: 1 (photos/red/raw.cr2)",
    ];
    bench.run(&["embed", "photos", "--model", "bundle", "--out", "f.safetensors"]).succeeded().said(&said);
    bench.run(&["predict", "photos", "--model", "bundle"]).succeeded().said(&said);
    bench.run(&["predict", "photos/red/000.png", "--model", "bundle"]).succeeded().did_not_say(&["passed over"]);
}

#[test]
fn features_can_be_taken_behind_any_stage() {
    let bench = Bench::with_photos();
    bench.model_folder("model", None, 4);
    let embed = |further: &[&str]| {
        let arguments = ["embed", "photos/blue", "--model", "model", "--out", "f", "--overwrite"];
        bench.run(&[&arguments[..], further].concat())
    };
    let features = |further: &[&str]| {
        embed(further).succeeded();
        checkpoint::read(&bench.path("f")).unwrap()["features"].clone()
    };
    for (stage, channels, side) in [("stem", 16, 32), ("layer1", 16, 32), ("layer2", 32, 16), ("layer3", 64, 8)] {
        let map = features(&["--stage", stage, "--pool", "none"]);
        assert_eq!(map.dims(), [8, channels, side, side], "{stage}");
        let means = features(&["--stage", stage]);
        assert_eq!(means.dims(), [8, channels]);
        let difference = (map.mean((2, 3)).unwrap() - means).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-6, "{stage}: {difference}");
    }
    embed(&["--stage", "layer2", "--pool", "none"]).said(&["8 images, 32×16×16 features each"]);
    assert_eq!(features(&["--pool", "none"]).dims(), [8, 64, 8, 8], "the last stage");
    let difference = (features(&["--pool", "avg"]) - features(&[])).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_scalar::<f32>().unwrap() < 1e-6, "the network's own pool is the mean: {difference}");
    embed(&["--stage", "layer4"])
        .failed()
        .said(&["error: `resnet20_cifar` has no `layer4`, expected stem, layer1, layer2, layer3"]);
}

#[test]
fn features_are_overwritten_only_if_asked() {
    let bench = Bench::with_photos();
    let arguments = ["embed", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "f.safetensors"];
    bench.file("f.safetensors", "mine");
    bench.run(&arguments).failed().said(&["f.safetensors: exists already", "--overwrite"]);
    assert_eq!(bench.read("f.safetensors"), "mine");
    bench.run(&[&arguments[..], &["--overwrite"]].concat()).succeeded();
    assert_eq!(checkpoint::read(&bench.path("f.safetensors")).unwrap()["features"].dims(), [16, 64]);
    assert_eq!(bench.names(), ["f.safetensors", "photos"]);
    let onto_a_folder = [&arguments[..arguments.len() - 1], &["photos", "--overwrite"]].concat();
    bench.run(&onto_a_folder).failed().said(&["error: photos: is a folder, expected a file to write"]);
    bench
        .run(&["embed", "gone", "--model", "resnet20_cifar", "--no-pretrained", "--out", "g"])
        .failed()
        .said(&["gone"]);
    assert!(!bench.path("g").exists());
}

#[test]
fn what_is_no_place_for_a_file_is_refused_before_the_work() {
    let bench = Bench::with_bundle();
    let folder = format!("new{}", std::path::MAIN_SEPARATOR);
    let commands: [&[&str]; 6] = [
        &["embed", "photos", "--model", "bundle", "--out"],
        &["predict", "photos", "--model", "bundle", "--output"],
        &["eval", "photos", "--model", "bundle", "--report"],
        &["doctor", "photos", "--list"],
        &["doctor", "photos", "--report"],
        &["find-lr", "photos", "--model", "bundle", "--out"],
    ];
    for command in commands {
        let with = |place: &str| bench.run(&[command, &[place]].concat()).failed();
        for place in ["photos", folder.as_str()] {
            with(place).printed(&[]).said(&[&format!("error: {place}: is a folder, expected a file to write")]);
        }
        with("gone/file.csv").said(&["error: gone: no such folder", "hint: make it"]);
    }
    assert!(!bench.path("new-files").exists());
}

#[test]
fn accents_are_the_same_in_either_form() {
    let bench = Bench::new();
    bench.class("photos/caf\u{e9}", RED, 8);
    bench.class("photos/blue", BLUE, 8);
    bench.train("photos", &["--out", "bundle"]).succeeded();
    bench.class("others/cafe\u{301}", RED, 2);
    bench.class("others/blue", BLUE, 2);
    let ran = bench.run(&["eval", "others", "--model", "bundle", "--json"]).succeeded();
    assert_eq!(ran.json_lines()[0]["top1"], 1.0);
}

#[test]
fn a_calibration_that_cannot_be_kept_is_refused_before_the_work() {
    let bench = Bench::with_bundle();
    fs::rename(bench.path("bundle/config.json"), bench.path("config.json")).unwrap();
    fs::create_dir(bench.path("bundle/config.json")).unwrap();
    bench.run(&["eval", "photos", "--model", "bundle", "--calibrate"]).failed().printed(&[]);
}

fn load(bench: &Bench, name: &str) -> Model {
    let hub = Hub::new(HubSettings::from_lookup(|_| None)).unwrap();
    let request = ModelRequest::named(bench.path(name).to_str().unwrap());
    Loader { hub: &hub, catalogue: &Catalogue::built_in(), progress: &() }.load(&request).unwrap()
}

/// Photos as the network sees them, (N, 3, H, W).
fn input(model: &Model, photos: &[std::path::PathBuf]) -> Tensor {
    let side = model.preprocessing.crop;
    let pixels: Vec<f32> = photos.iter().flat_map(|photo| model.preprocessing.load(photo).unwrap().0).collect();
    Tensor::from_vec(pixels, (photos.len(), 3, side, side), &Device::Cpu).unwrap()
}

/// Writes what `verify` compares with, after a change to it.
fn reference(bench: &Bench, name: &str, change: impl FnOnce(&mut HashMap<&'static str, Tensor>)) {
    let model = load(bench, "model");
    let input = input(&model, &[bench.path("photos/red/000.png"), bench.path("photos/blue/000.png")]);
    let classifier = model.classifier(&Device::Cpu).unwrap();
    let features = classifier.trunk().features(&input).unwrap();
    let logits = classifier.classify(&features).unwrap();
    let mut tensors = HashMap::from([("input", input), ("features", features), ("logits", logits)]);
    change(&mut tensors);
    safetensors::serialize_to_file(tensors, None, &bench.path(name)).unwrap();
}

fn verifiable() -> Bench {
    let bench = Bench::with_photos();
    bench.model_folder("model", None, 4);
    bench
}

#[test]
fn a_model_is_verified_without_weights_or_network() {
    let bench = verifiable();
    let ran = bench.run(&["verify", "--model", "model"]).succeeded().said(&["trained weights were not compared"]);
    let ran = ran.printed(&[
        "resnet20_cifar with formula weights, 2×3×32×32, beside the paper's network, PyTorch 2.15",
        "built-in photo, resize 32 bilinear, crop 32, beside torchvision 0.29.2, Pillow 13.0.0",
        "pixels    equal to the last bit: ok",
        "input     equal to the last bit after normalisation: ok",
    ]);
    assert_eq!(ran.out.matches(": ok").count(), 6, "{ran:?}");
    for name in ["test_resnet.r160_in1k", "resnet20_cifar", "resnet10t"] {
        bench.run(&["verify", "--model", name]).succeeded();
    }
}

#[test]
fn a_network_that_differs_too_much_fails() {
    let bench = Bench::new();
    let ran = bench.run(&["verify", "--model", "test_resnet", "--tolerance=-1"]).failed();
    ran.printed(&["frozen: FAILED", "pixels    equal to the last bit: ok"]);
}

#[test]
fn what_changes_nothing_in_a_comparison_is_refused() {
    let bench = verifiable();
    for option in [["--weights", "gone.pth"], ["--in-chans", "1"]] {
        let verify =
            |further: &[&str]| bench.run(&[&["verify", "--model", "resnet20_cifar"][..], &option, further].concat());
        let said = format!("error: {} changes nothing where networks with formula weights are compared", option[0]);
        verify(&[]).failed().said(&[&said, "hint: ", "--reference"]);
    }
    reference(&bench, "r.safetensors", |_| {});
    bench.run(&[&VERIFY[..], &["--in-chans", "1"]].concat()).failed().said(&["`input` has 3 channels, expected 1"]);
}

#[test]
fn sizes_without_a_stored_photo_say_that_they_were_not_compared() {
    let bench = Bench::with_photos();
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--input-size", "24"];
    bench.run(&[&arguments[..], &["--out", "odd"]].concat()).succeeded();
    let ran = bench.run(&["verify", "--model", "odd"]).succeeded();
    ran.printed(&["resize 24 bilinear, crop 24\npixels    not compared: no reference of these sizes is stored"]);
}

/// A reference with a photo, and the pixels or the tensor that came of it.
fn photo_reference(bench: &Bench, photo: &str, change: impl FnOnce(&mut HashMap<&'static str, Tensor>)) {
    let model = load(bench, "model");
    let bytes = std::fs::read(bench.path(photo)).unwrap();
    let side = model.preprocessing.crop;
    let pixels = model.preprocessing.pixels(&preprocess::decode(&bench.path(photo)).unwrap());
    reference(bench, "r.safetensors", |tensors| {
        let length = bytes.len();
        tensors.insert("photo", Tensor::from_vec(bytes, length, &Device::Cpu).unwrap());
        tensors.insert("pixels", Tensor::from_vec(pixels, (side, side, 3), &Device::Cpu).unwrap());
        tensors.insert("input", input(&model, &[bench.path(photo)]));
        for name in ["features", "logits"] {
            let first = tensors[name].narrow(0, 0, 1).unwrap().contiguous().unwrap();
            tensors.insert(name, first);
        }
        change(tensors);
    });
}

const VERIFY: [&str; 5] = ["verify", "--model", "model", "--reference", "r.safetensors"];

#[test]
fn a_reference_with_a_photo_covers_its_pixels() {
    let bench = verifiable();
    let photo = "photos/red/000.png";
    photo_reference(&bench, photo, |_| {});
    bench.run(&VERIFY).succeeded().printed(&["pixels    largest difference 0 levels of 255: ok"]);
    photo_reference(&bench, photo, |tensors| drop(tensors.remove("pixels")));
    bench.run(&VERIFY).succeeded().printed(&["input     largest difference 0 after normalisation: ok"]);
    photo_reference(&bench, photo, |tensors| {
        let brighter = (&tensors["pixels"] + 1.0).unwrap();
        tensors.insert("pixels", brighter);
    });
    bench.run(&VERIFY).failed().printed(&["pixels    largest difference 1 levels of 255: FAILED"]);
}

#[test]
fn a_photo_that_is_stored_wrongly_is_an_error() {
    let bench = verifiable();
    let error = |said: &str, change: fn(&mut HashMap<&'static str, Tensor>)| {
        photo_reference(&bench, "photos/red/000.png", change);
        bench.run(&VERIFY).failed().said(&["error: ", said]);
    };
    error("`photo` holds F32, expected U8", |tensors| {
        let photo = tensors["photo"].to_dtype(candle_core::DType::F32).unwrap();
        tensors.insert("photo", photo);
    });
    error("`pixels` has shape [32, 32, 3], the reference [31, 32, 3]", |tensors| {
        let pixels = tensors["pixels"].narrow(0, 0, 31).unwrap().contiguous().unwrap();
        tensors.insert("pixels", pixels);
    });
    error("r.safetensors: is in no known image format", |tensors| {
        tensors.insert("photo", Tensor::new(&[1u8, 2, 3], &Device::Cpu).unwrap());
    });
}

#[test]
fn outputs_that_agree_pass() {
    let bench = verifiable();
    reference(&bench, "r.safetensors", |_| {});
    let ran = bench.run(&["verify", "--model", "model", "--reference", "r.safetensors"]).succeeded();
    ran.printed(&["logits    largest difference", "features  largest difference", ": ok"]);
    for missing in ["features", "logits"] {
        reference(&bench, "r.safetensors", |tensors| drop(tensors.remove(missing)));
        let ran = bench.run(&["verify", "--model", "model", "--reference", "r.safetensors"]).succeeded();
        assert_eq!(ran.out.lines().count(), 1);
    }
}

#[test]
fn features_of_a_model_without_classes_are_compared() {
    let bench = Bench::with_photos();
    bench.model_folder("model", None, 0);
    let model = load(&bench, "model");
    let input = input(&model, &[bench.path("photos/red/000.png")]);
    let features = model.trunk(&Device::Cpu).unwrap().features(&input).unwrap();
    let tensors = HashMap::from([("input", input), ("features", features)]);
    safetensors::serialize_to_file(tensors, None, &bench.path("r.safetensors")).unwrap();
    bench.run(&VERIFY).succeeded().printed(&["features  largest difference"]);
}

#[test]
fn outputs_that_differ_fail_up_to_the_tolerance() {
    let bench = verifiable();
    reference(&bench, "r.safetensors", |tensors| {
        let features = tensors["features"].affine(1.01, 0.0).unwrap();
        tensors.insert("features", features);
    });
    let arguments = ["verify", "--model", "model", "--reference", "r.safetensors"];
    let ran = bench.run(&arguments).failed();
    let verdicts: Vec<&str> = ran.out.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
    assert_eq!(verdicts, ["ok", "FAILED"]);
    bench.run(&[&arguments[..], &["--tolerance", "0.02"]].concat()).succeeded();
}

#[test]
fn not_a_number_is_no_agreement() {
    let bench = verifiable();
    reference(&bench, "r.safetensors", |tensors| {
        let logits = tensors["logits"].affine(f64::NAN, 0.0).unwrap();
        tensors.insert("logits", logits);
    });
    bench.run(&["verify", "--model", "model", "--reference", "r.safetensors"]).failed().printed(&["FAILED"]);
}

#[test]
fn a_reference_of_another_shape_is_an_error() {
    let bench = verifiable();
    let error = |said: &str, change: fn(&mut HashMap<&'static str, Tensor>)| {
        reference(&bench, "r.safetensors", change);
        let ran = bench.run(&["verify", "--model", "model", "--reference", "r.safetensors"]).failed();
        ran.said(&["error: ", said]);
    };
    error("`logits` has shape [2, 4], the reference [2, 3]", |tensors| {
        let logits = tensors["logits"].narrow(1, 0, 3).unwrap().contiguous().unwrap();
        tensors.insert("logits", logits);
    });
    error("r.safetensors: `input` has shape [2, 3072], expected 4 dimensions", |tensors| {
        let flat = tensors["input"].flatten_from(1).unwrap();
        tensors.insert("input", flat);
    });
    error("r.safetensors: holds no `logits` and no `features`", |tensors| tensors.retain(|name, _| *name == "input"));
    error("r.safetensors: `input` has 1 channels, expected 3", |tensors| {
        let grey = tensors["input"].narrow(1, 0, 1).unwrap().contiguous().unwrap();
        tensors.insert("input", grey);
    });
    error("r.safetensors: `input` holds no images", |tensors| {
        let none = tensors["input"].narrow(0, 0, 0).unwrap().contiguous().unwrap();
        tensors.insert("input", none);
    });
    bench.run(&["verify", "--model", "model", "--reference", "gone"]).failed().said(&["gone"]);
    bench.file("letter.safetensors", "Dear file");
    bench.run(&["verify", "--model", "model", "--reference", "letter.safetensors"]).failed().said(&["letter"]);
}

#[test]
fn errors_have_no_backtrace_unless_it_is_asked_for_by_its_own_name() {
    let bench = verifiable();
    reference(&bench, "r.safetensors", |tensors| {
        let empty = tensors["input"].narrow(3, 0, 0).unwrap().contiguous().unwrap();
        tensors.insert("input", empty);
    });
    let verify = |name: &str| {
        let mut command = bench.command(&VERIFY);
        command.env(name, "1");
        common::run(command).failed().said(&["error: images of shape (3, 32, 0) where (3, H, W) is expected"])
    };
    assert_eq!(verify("RUST_BACKTRACE").err.lines().count(), 1);
    assert!(verify("RUST_LIB_BACKTRACE").err.lines().count() > 1);
}
