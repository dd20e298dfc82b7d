//! Maps below what trains: computed once, kept, and found again; never another result.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Bench, GREEN, RED, Ran};

/// Trains from `layer3` on for two epochs.
fn train(bench: &Bench, out: &str, further: &[&str]) -> Ran {
    let options = ["--train-from", "layer3", "--epochs", "2", "--batch-size", "4", "--out", out];
    bench.train("photos", &[&options[..], further].concat())
}

/// Files of maps, by name.
fn kept(bench: &Bench) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(bench.path("cache/finetune/maps")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn weights(bench: &Bench, bundle: &str) -> Vec<u8> {
    fs::read(bench.path(&format!("{bundle}/model.safetensors"))).unwrap()
}

#[test]
fn maps_are_kept_and_found_again_and_change_no_bit() {
    let bench = Bench::with_photos();
    train(&bench, "computed", &["--no-map-cache"]).succeeded();
    assert!(kept(&bench).is_empty());
    train(&bench, "kept", &[]).succeeded();
    let files = kept(&bench);
    assert_eq!(files.len(), 1, "all photos, those that are held out among them");
    train(&bench, "found", &["--threads", "1"]).succeeded();
    let other = ["--train-from", "layer3", "--epochs", "3", "--batch-size", "5", "--lr", "0.01", "--out", "other"];
    bench.train("photos", &other).succeeded();
    assert_eq!(kept(&bench), files, "whatever maps do not depend on");
    let features = |bundle: &str| bench.tensors(&format!("{bundle}/neighbours.safetensors"));
    for bundle in ["kept", "found"] {
        assert!(weights(&bench, bundle) == weights(&bench, "computed"), "{bundle}");
        assert!(features(bundle) == features("computed"), "{bundle}");
    }
}

#[test]
fn photos_to_validate_with_and_their_views_have_maps_of_their_own() {
    let bench = Bench::with_photos();
    for (class, colour) in [("red", RED), ("blue", GREEN)] {
        bench.class(&format!("split/train/{class}"), colour, 4);
        bench.class(&format!("split/val/{class}"), colour, 3);
    }
    let run = |photos: &str, out: &str, further: &[&str]| {
        let options = ["--train-from", "layer3", "--epochs", "1", "--out", out];
        bench.train(photos, &[&options[..], further].concat()).succeeded();
        kept(&bench).len()
    };
    assert_eq!(run("split", "split-kept", &[]), 2);
    run("split", "split-computed", &["--no-map-cache"]);
    assert!(weights(&bench, "split-kept") == weights(&bench, "split-computed"));
    let views = ["--augment", "flip,color", "--views", "2"];
    assert_eq!(run("photos", "views-kept", &views), 4, "of views to train on, and of photos that are held out");
    run("photos", "views-computed", &[&views[..], &["--no-map-cache"]].concat());
    assert!(weights(&bench, "views-kept") == weights(&bench, "views-computed"));
}

#[test]
fn what_maps_depend_on_has_maps_of_its_own() {
    let bench = Bench::with_photos();
    let runs: [&[&str]; 5] = [
        &["--train-from", "layer3"],
        &["--train-from", "layer3", "--seed", "1"],
        &["--train-from", "layer2"],
        &["--train-from", "layer3", "--precision", "bf16"],
        &["--train-from", "layer3", "--augment", "flip", "--views", "2"],
    ];
    for (index, options) in runs.into_iter().enumerate() {
        let common = ["--epochs", "1", "--out", "bundle", "--overwrite", "--val-fraction", "0"];
        bench.train("photos", &[&common[..], options].concat()).succeeded();
        assert_eq!(kept(&bench).len(), index + 1, "{options:?}");
    }
    bench.class("photos/red", GREEN, 1);
    train(&bench, "bundle", &["--overwrite", "--val-fraction", "0"]).succeeded();
    assert_eq!(kept(&bench).len(), runs.len() + 1);
}

#[test]
fn views_that_are_new_in_every_epoch_are_not_kept() {
    let bench = Bench::with_photos();
    train(&bench, "bundle", &["--augment", "flip", "--val-fraction", "0"]).succeeded();
    assert!(kept(&bench).is_empty());
}

#[test]
fn maps_that_do_not_fit_are_computed_in_every_epoch() {
    let bench = Bench::with_photos();
    train(&bench, "computed", &["--no-map-cache"]).succeeded();
    let ran = train(&bench, "small", &["--map-cache-size", "0.0001"]).succeeded();
    ran.said(&["and may take 100.00 kB", "computed anew in each epoch"]);
    assert!(kept(&bench).is_empty());
    assert!(weights(&bench, "small") == weights(&bench, "computed"));
    bench.file("in-the-way", "a file");
    let ran = train(&bench, "nowhere", &["--map-cache", "in-the-way"]).succeeded();
    ran.said(&["in-the-way", "computed anew in each epoch"]);
    assert!(weights(&bench, "nowhere") == weights(&bench, "computed"));
}

#[test]
fn damaged_maps_are_computed_again() {
    let bench = Bench::with_photos();
    train(&bench, "kept", &[]).succeeded();
    for file in kept(&bench) {
        fs::write(file, "no maps").unwrap();
    }
    train(&bench, "again", &[]).succeeded().said(&["damaged", "computing them again"]);
    assert!(weights(&bench, "again") == weights(&bench, "kept"));
    assert_eq!(kept(&bench).len(), 1);
}

#[test]
fn photos_that_cannot_be_read_are_reported_from_kept_maps_too() {
    let bench = Bench::with_photos();
    bench.class("photos/blue", RED, 3);
    bench.file("photos/blue/broken.png", "not a picture");
    for bundle in ["kept", "found"] {
        let ran = train(&bench, bundle, &["--val-fraction", "0"]).succeeded();
        assert_eq!(ran.err.matches("broken.png").count(), 1, "{ran:?}");
        ran.said(&["1 image could not be read"]);
    }
    assert!(weights(&bench, "found") == weights(&bench, "kept"));
}

#[test]
fn an_estimate_counts_the_maps_that_are_still_to_be_computed() {
    let bench = Bench::with_photos();
    let to_compute = |further: &[&str]| {
        let options = [&["--overwrite", "--log-format", "json"], further].concat();
        let events = train(&bench, "bundle", &options).succeeded().json_lines();
        let estimate = events.into_iter().find(|event| event["event"] == "estimate").unwrap();
        estimate["maps"].as_u64().unwrap()
    };
    assert_eq!(to_compute(&["--no-map-cache"]), 0);
    assert_eq!(to_compute(&["--map-cache-size", "0.0001"]), 0, "there is no room for them");
    assert_eq!([to_compute(&[]), to_compute(&[])], [16, 0]);
    let views = ["--augment", "flip", "--views", "3"];
    let held_out = bench.rows("bundle/splits.csv").iter().filter(|row| row[2] == "held out").count() as u64;
    assert_eq!([to_compute(&views), to_compute(&views)], [3 * (16 - held_out) + held_out, 0]);
    assert_eq!(to_compute(&[&views[..], &["--seed", "1"]].concat()), 3 * (16 - held_out) + held_out, "other views");
    bench.class("photos/red", GREEN, 1);
    assert_eq!(to_compute(&[]), 16, "a photo of the same name and another content");
}
