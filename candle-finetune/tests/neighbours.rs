//! `finetune neighbours`: the training images most like a photo.

mod common;

use std::ops::ControlFlow;

use candle_core::Device;
use candle_finetune::extract::{Unreadable, Views, extract};
use candle_finetune::finetuning::{FineTuned, FineTunedModel, Machine, Observer, Phase, fine_tune_model};
use candle_finetune::images::ImageError;
use candle_finetune::neighbours::Index;
use candle_finetune::train::EpochRecord;
use candle_finetune::train::tail::{TailSettings, TrainFrom};
use candle_finetune::{LabelledImages, Settings, Splits};
use candle_resnet::plan::PlanOptions;
use candle_resnet::preprocess::Photo;
use candle_resnet::{Classifier, Model, weights};
use common::{Bench, GREEN, Ran};
use serde_json::Value;

const INDEX: &str = "bundle/neighbours.safetensors";

fn neighbours(bench: &Bench, further: &[&str]) -> Ran {
    bench.run(&[&["neighbours", "--model", "bundle"], further].concat())
}

/// Labels and paths of the neighbours of each photo.
fn found(ran: Ran) -> Vec<Vec<(String, String)>> {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let one = |near: &Value| (text(&near["label"]), text(&near["path"]));
    ran.json_lines().iter().map(|row| row["neighbours"].as_array().unwrap().iter().map(one).collect()).collect()
}

#[test]
fn a_training_image_finds_itself_and_those_of_its_class() {
    let bench = Bench::with_bundle();
    let ran = neighbours(&bench, &["photos/red/003.png", "photos/blue/001.png", "--json", "--top-k", "8"]).succeeded();
    let similarity = ran.json_lines()[0]["neighbours"][0]["similarity"].as_f64().unwrap();
    assert!((similarity - 1.0).abs() < 1e-3, "{similarity}");
    for (found, (label, photo)) in
        found(ran).iter().zip([("red", "photos/red/003.png"), ("blue", "photos/blue/001.png")])
    {
        assert_eq!(found.len(), 8);
        assert!(found.iter().all(|(found, _)| found == label), "{found:?}");
        // These pictures are so alike to a fresh network that f16 need not tell which of them is nearest.
        let own = bench.path(photo).canonicalize().unwrap();
        assert!(found.iter().any(|(_, path)| std::path::Path::new(path) == own), "{found:?}");
    }
    let ran = neighbours(&bench, &["photos/red/003.png", "--top-k", "1"]).succeeded();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], "photos/red/003.png");
    assert!(lines[1].starts_with("   1.000  red  /") && lines.len() == 2, "{lines:?}");
}

#[test]
fn an_index_made_later_is_that_of_the_training() {
    let bench = Bench::with_bundle();
    let ask = || neighbours(&bench, &["photos/blue/005.png", "--json"]).succeeded();
    let before = ask().did_not_say(&["stored"]);
    std::fs::remove_file(bench.path(INDEX)).unwrap();
    let after = ask().said(&["stored bundle/neighbours.safetensors"]);
    assert_eq!(found(after), found(before));
    ask().did_not_say(&["stored"]);
}

#[test]
fn an_index_of_other_weights_is_not_used() {
    let bench = Bench::with_bundle();
    let arguments =
        ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "other", "--seed", "7"];
    bench.run(&arguments).succeeded();
    let own = std::fs::read(bench.path(INDEX)).unwrap();
    std::fs::copy(bench.path("other/neighbours.safetensors"), bench.path(INDEX)).unwrap();
    neighbours(&bench, &["photos/red/000.png"])
        .succeeded()
        .said(&["is of other weights or another preprocessing", "stored"]);
    assert_eq!(std::fs::read(bench.path(INDEX)).unwrap().len(), own.len());
    neighbours(&bench, &["photos/red/000.png"]).succeeded().did_not_say(&["other weights"]);
}

#[test]
fn another_preprocessing_is_searched_by_but_not_kept() {
    let bench = Bench::with_bundle();
    let own = std::fs::read(bench.path(INDEX)).unwrap();
    let ran = neighbours(&bench, &["photos/red/000.png", "--input-size", "40"]).succeeded();
    ran.said(&["another preprocessing"]).did_not_say(&["stored"]).printed(&["1.000  red"]);
    assert_eq!(std::fs::read(bench.path(INDEX)).unwrap(), own);
}

#[test]
fn other_folders_are_searched_and_not_kept() {
    let bench = Bench::with_bundle();
    bench.class("others/train/green", GREEN, 2);
    bench.class("others/test/green", GREEN, 1);
    let own = std::fs::read(bench.path(INDEX)).unwrap();
    let ran = neighbours(&bench, &["photos/red/000.png", "--images", "others", "--json"]).succeeded();
    let found = found(ran);
    assert_eq!(found[0].len(), 3, "all splits, and no more than there are");
    assert!(found[0].iter().all(|(label, _)| label == "green"));
    assert_eq!(std::fs::read(bench.path(INDEX)).unwrap(), own);
    bench.model_folder("unnamed", None, 2);
    let ran = bench.run(&["neighbours", "photos/red/000.png", "--model", "unnamed", "--images", "others"]);
    ran.succeeded().printed(&["green"]);
}

#[test]
fn a_bundle_with_a_tail_has_the_index_that_is_made_later() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--out", "bundle", "--train-from", "layer3", "--epochs", "1", "--no-report"]).succeeded();
    let ask = || neighbours(&bench, &["photos/blue/005.png", "--json", "--top-k", "16"]).succeeded();
    let before = ask().did_not_say(&["stored", "other weights"]);
    std::fs::remove_file(bench.path(INDEX)).unwrap();
    let after = ask().said(&["stored"]);
    assert_eq!(found(after), found(before));
}

/// Stripes of two widths.
struct Stripes;

impl LabelledImages for Stripes {
    fn len(&self) -> usize {
        20
    }

    fn label(&self, index: usize) -> usize {
        index % 2
    }

    fn photo(&self, index: usize) -> Result<Photo, ImageError> {
        let shade = |x: usize| if (x / (2 + 5 * self.label(index))).is_multiple_of(2) { 20 + 9 * index } else { 230 };
        let pixels = (0..32 * 32).flat_map(|pixel| [shade(pixel % 32) as u8; 3]).collect();
        Photo::from_rgb8(32, 32, pixels).ok_or_else(|| "not 32×32 pixels".into())
    }

    fn name(&self, index: usize) -> String {
        format!("stripes {index}")
    }
}

/// Notes the images of each pass, and may stop after the first epoch.
#[derive(Default)]
struct Passes {
    stops: bool,
    epochs: usize,
    begun: Vec<(Phase, usize)>,
    seen: usize,
}

impl Observer for Passes {
    fn begin(&mut self, phase: Phase, total: usize) {
        self.begun.push((phase, total));
        self.seen = 0;
    }

    fn images(&mut self, count: usize) {
        self.seen += count;
    }

    fn epoch(&mut self, phase: Phase, _: &EpochRecord) {
        self.epochs += usize::from(phase == Phase::Fit);
    }

    fn end(&mut self, _: Phase) {}

    fn stop(&self) -> bool {
        self.stops && self.epochs > 0
    }
}

fn trained(model: &Model, settings: &Settings, observer: &mut Passes) -> FineTunedModel {
    let splits = Splits { classes: vec!["narrow".into(), "wide".into()], train: &Stripes, val: None, test: None };
    let machine = Machine { device: &Device::Cpu, options: &PlanOptions::default(), maps: None, checkpoints: None };
    fine_tune_model(model, machine, &splits, settings, observer).unwrap()
}

fn tail() -> Settings {
    let from: TrainFrom = "layer3".parse().unwrap();
    let tail = TailSettings { epochs: 2, batch_size: 4, lr: Some(0.001), ..TailSettings::pretrained(from) };
    Settings { tail: Some(tail), ..Settings::default() }
}

/// The model with the tensors that were trained.
fn delivered(model: &Model, tuned: &FineTuned) -> Model {
    let mut tensors = weights::tensors(&model.weights).unwrap();
    tensors.extend(tuned.trained.tensors.clone());
    let weights = weights::into_var_map(tensors, &Device::Cpu).unwrap();
    let temperature = tuned.trained.calibration.as_ref().unwrap().temperature;
    assert_ne!(temperature, 1.0);
    Model { weights, classes: tuned.classes.len(), label_names: tuned.classes.clone(), temperature, ..model.clone() }
}

#[test]
fn a_tail_leaves_an_index_of_its_new_features_unless_it_is_stopped() {
    let model = Model::fresh("resnet20_cifar", 0).unwrap();
    let mut passes = Passes::default();
    let tuned = trained(&model, &tail(), &mut passes).tuned;
    assert_eq!((passes.begun.last(), passes.seen), (Some(&(Phase::Index, 20)), 20));
    let index = tuned.neighbours.as_ref().unwrap();
    assert_eq!((index.len(), index.total()), (20, 20));

    // Similarities of all images to all of its index, by the features of a model.
    let similarities = |model: &Model, index: &Index| -> Vec<Vec<f32>> {
        let trunk = model.trunk(&Device::Cpu).unwrap();
        let skipped = Unreadable::Skipped;
        let extracted =
            extract(&trunk, &model.preprocessing, &Stripes, Views::Plain, skipped, &mut |_| ControlFlow::Continue(()));
        let found = index.nearest(&extracted.unwrap().features.squeeze(1).unwrap(), 20).unwrap();
        found.iter().map(|row| row.iter().map(|near| near.similarity).collect()).collect()
    };
    let own = similarities(&delivered(&model, &tuned), index);
    assert!(own.iter().all(|row| (row[0] - 1.0).abs() < 1e-3), "each finds itself: {own:?}");
    let before = similarities(&model, index);
    assert!(own.iter().zip(&before).all(|(own, before)| own[0] > before[0]), "features are new: {own:?} {before:?}");

    let mut stops = Passes { stops: true, ..Passes::default() };
    let stopped = trained(&model, &tail(), &mut stops).tuned;
    assert!(stopped.trained.interrupted && stopped.neighbours.is_none());
    assert_ne!(stops.begun.last().map(|(phase, _)| *phase), Some(Phase::Index));
}

#[test]
fn the_network_that_is_handed_on_is_the_delivered_one_to_the_bit() {
    let model = Model::fresh("resnet20_cifar", 0).unwrap();
    let photos: Vec<_> = (0..4).map(|index| Stripes.photo(index).unwrap()).collect();
    let answers =
        |classifier: &Classifier| photos.iter().map(|photo| classifier.predict_photo(photo, 2).unwrap()).collect();
    for settings in [Settings::default(), tail()] {
        let trained = trained(&model, &settings, &mut Passes::default());
        let handed_on: Vec<_> = answers(&trained.classifier(&model).unwrap().unwrap());
        let compiled: Vec<_> = answers(&delivered(&model, &trained.tuned).classifier(&Device::Cpu).unwrap());
        assert_eq!(handed_on, compiled);
        assert!(["narrow", "wide"].contains(&&*handed_on[0][0].label));
    }
    let stopped = trained(&model, &tail(), &mut Passes { stops: true, ..Passes::default() });
    assert!(stopped.classifier(&model).unwrap().is_none());
}

#[test]
fn evaluating_says_that_an_index_is_damaged_and_goes_on() {
    let bench = Bench::with_bundle();
    bench.file(INDEX, "damaged");
    let eval = |page: &str, further: &[&str]| {
        let arguments = ["eval", "photos", "--model", "bundle", "--report", page];
        bench.run(&[&arguments[..], further].concat()).succeeded()
    };
    eval("damaged.html", &[])
        .said(&["note: bundle/neighbours.safetensors: no index of neighbours: ", "hint: take the file away"]);
    std::fs::remove_file(bench.path(INDEX)).unwrap();
    eval("without.html", &[]).did_not_say(&["neighbours", "hint"]);
    neighbours(&bench, &["photos/red/000.png"]).succeeded().said(&["stored"]);
    eval("with.html", &[]).did_not_say(&["neighbours", "hint"]);
    eval("other.html", &["--input-size", "40"])
        .said(&["another preprocessing", "hint: ask without another input size"]);
    let near = ["damaged", "without", "with", "other"].map(|page| {
        let page = bench.read(&format!("{page}.html"));
        page.contains("training images that are most like it")
    });
    assert_eq!(near, [false, false, true, false]);
}

#[test]
fn what_is_not_known_is_said_with_a_way_out() {
    let bench = Bench::with_bundle();
    let ran = bench.run(&["neighbours", "photos/red/000.png", "--model", "resnet20_cifar.embedded"]).failed();
    ran.said(&["error: `resnet20_cifar.embedded` is no bundle", "hint: ", "--images DIR"]);
    bench.model_folder("foreign", None, 2);
    let ran = bench.run(&["neighbours", "photos/red/000.png", "--model", "foreign"]).failed();
    ran.said(&["foreign: has no `run.toml`", "--images DIR"]);
    bench.file(INDEX, "damaged");
    neighbours(&bench, &["photos/red/000.png"]).failed().said(&["no index of neighbours", "hint: take the file away"]);
    std::fs::remove_file(bench.path(INDEX)).unwrap();
    std::fs::rename(bench.path("photos"), bench.path("moved")).unwrap();
    neighbours(&bench, &["moved/red/000.png"]).failed().said(&["bundle: the photos", "no longer in", "--images DIR"]);
    neighbours(&bench, &["moved/red/000.png", "--images", "moved"]).succeeded();
}

#[test]
fn photos_that_cannot_be_read_are_rows_and_cost_the_exit_code() {
    let bench = Bench::with_bundle();
    bench.file("bad.jpg", "text");
    let ran = neighbours(&bench, &["photos/red/000.png", "bad.jpg", "photos/blue/000.png", "--json"]).failed();
    let rows = ran.said(&["1 of 3 photos could not be read"]).json_lines();
    assert!(rows[1]["error"].as_str().unwrap().contains("bad.jpg"));
    assert_eq!([&rows[0]["path"], &rows[2]["path"]], ["photos/red/000.png", "photos/blue/000.png"]);
    assert_eq!([&rows[0]["neighbours"][0]["label"], &rows[2]["neighbours"][0]["label"]], ["red", "blue"]);
}
