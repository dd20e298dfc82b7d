//! `finetune find-lr`: what it tells and draws, that it changes nothing, and how it fails.

mod common;

use candle_core::Device;
use candle_finetune::train::range_test::RangeTest;
use candle_finetune::train::tail::{TailSettings, TrainFrom};
use candle_finetune::{Machine, Settings, Splits, dataset, find_lr as find_rate};
use candle_resnet::Model;
use candle_resnet::plan::PlanOptions;
use common::{Bench, GREEN, Ran, names_in};
use serde_json::Value;

/// A test of a small network with drawn weights: in few steps of few images, unless other options say more.
fn find_lr(bench: &Bench, further: &[&str]) -> Ran {
    let mut arguments = vec!["find-lr", "photos", "--model", "resnet20_cifar", "--no-pretrained"];
    for short in [["--steps", "40"], ["--batch-size", "4"]] {
        if !further.contains(&short[0]) {
            arguments.extend(short);
        }
    }
    arguments.extend(further);
    bench.run(&arguments)
}

/// All text in a drawing, which must be XML.
fn texts(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.map(|node| node.text().unwrap_or_default().trim().to_owned()).collect()
}

fn rates(curve: &Value) -> Vec<f64> {
    curve["points"].as_array().unwrap().iter().map(|point| point["lr"].as_f64().unwrap()).collect()
}

#[test]
fn a_rate_is_proposed_and_the_drawing_shows_it() {
    let bench = Bench::with_photos();
    let ran = find_lr(&bench, &["--train-from", "all"]).succeeded();
    let proposed: f64 = ran.out.trim().parse().unwrap();
    assert!((1e-7..10.0).contains(&proposed));
    let device = match common::device::name().as_str() {
        "cpu" => String::new(),
        name => format!(" --device {name}"),
    };
    let options = format!("--model resnet20_cifar --no-pretrained --batch-size 4 --train-from all{device}");
    let next = format!("try: finetune train photos {options} --lr {}", ran.out);
    ran.said(&[
        "range test 40 steps, 4 images each, at learning rates from 1e-7 to 1e1",
        "head as it is drawn",
        next.trim(),
    ]);
    let texts = texts(&bench.read("photos-resnet20_cifar-lr.svg"));
    for expected in ["learning rate", "training loss", "1e-7", "1e1", "each step", "smoothed"] {
        assert!(texts.iter().any(|text| text == expected), "{expected}: {texts:?}");
    }
    assert!(texts.contains(&format!("valley: {proposed:.2e}")), "{texts:?}");
    assert!(texts.contains(&"resnet20_cifar on photos, --train-from all".to_owned()), "{texts:?}");
}

#[test]
fn the_rate_that_is_proposed_trains() {
    let bench = Bench::with_photos();
    let lr = find_lr(&bench, &["--train-from", "all"]).succeeded().out;
    let options = ["--train-from", "all", "--batch-size", "4", "--epochs", "1", "--lr", lr.trim(), "--out", "bundle"];
    bench.train("photos", &options).succeeded();
}

#[test]
fn the_curve_is_the_same_for_any_number_of_threads() {
    let bench = Bench::with_photos();
    let fresh = ["--augment", "crop,flip"];
    let all = ["--train-from", "all", "--augment", "crop,flip", "--drop-path", "0.2"];
    let fitted_head = ["--train-from", "layer3", "--freeze-epochs", "2"];
    let recipe = ["--train-from", "layer3", "--accumulate", "2", "--mixup", "0.4", "--clip-norm", "1"];
    for options in [&fresh[..], &all, &fitted_head, &recipe] {
        let curve = |threads, out| {
            let further = ["--seed", "3", "--json", "--threads", threads, "--out", out, "--overwrite"];
            let ran = find_lr(&bench, &[options, &further].concat());
            (ran.json_lines()[0]["points"].clone(), bench.read(out))
        };
        assert!(curve("1", "one.svg") == curve("2", "two.svg"), "{options:?}");
    }
}

#[test]
fn steps_are_those_of_the_training() {
    let bench = Bench::with_photos();
    // The first step of both begins with the same loss; one step is an epoch of 12 images.
    let options = ["--train-from", "all", "--batch-size", "12", "--label-smoothing", "0.1", "--out"];
    let curve = find_lr(&bench, &[&options[..], &["a.svg", "--json"]].concat()).json_lines();
    bench.train("photos", &[&options[..], &["bundle", "--epochs", "1"]].concat()).succeeded();
    let trained: f64 = bench.rows("bundle/metrics.csv")[0][3].parse().unwrap();
    let tested = curve[0]["points"][0]["loss"].as_f64().unwrap();
    assert!((trained - tested).abs() <= common::device::tolerance(1e-12) * tested, "{trained} {tested}");
}

#[test]
fn a_step_of_several_batches_is_one_of_as_many_images() {
    let bench = Bench::with_photos();
    let points = |options: &[&str]| {
        let always = ["--train-from", "all", "--batch-norm", "frozen", "--steps", "10", "--highest", "1e-3", "--json"];
        find_lr(&bench, &[&always[..], options].concat()).json_lines()[0]["points"].as_array().unwrap().clone()
    };
    let (whole, halves) = (points(&["--batch-size", "12"]), points(&["--batch-size", "6", "--accumulate", "2"]));
    assert_eq!((whole.len(), halves.len()), (10, 10));
    for (whole, halves) in whole.iter().zip(&halves) {
        let [whole, halves] = [whole, halves].map(|point| point["loss"].as_f64().unwrap());
        assert!((whole - halves).abs() <= common::device::tolerance(1e-5) * whole, "{whole} {halves}");
    }
}

#[test]
fn json_holds_every_step_and_the_proposals() {
    let bench = Bench::with_photos();
    let ran = find_lr(&bench, &["--train-from", "all", "--lowest", "1e-4", "--highest", "0.01", "--json"]).succeeded();
    let curve = &ran.json_lines()[0];
    let rates = rates(curve);
    assert_eq!(rates.len(), 40);
    assert!((rates[0] - 1e-4).abs() < 1e-15 && (rates[20] / 1e-3 - 1.0).abs() < 1e-12);
    assert_eq!((&curve["lr"], &curve["diverged"]), (&curve["valley"], &Value::Bool(false)));
    assert!(rates.contains(&curve["lr"].as_f64().unwrap()));
    assert_eq!(curve["drawing"], "photos-resnet20_cifar-lr.svg");
}

#[test]
fn nothing_is_written_but_the_drawing() {
    let bench = Bench::with_photos();
    find_lr(&bench, &["--train-from", "all"]).succeeded();
    find_lr(&bench, &[]);
    assert_eq!(bench.names(), ["photos", "photos-resnet20_cifar-lr-2.svg", "photos-resnet20_cifar-lr.svg"]);
    assert_eq!(names_in(&bench.path("photos")), ["blue", "red"]);
}

#[test]
fn the_model_stays_as_it_is() {
    let bench = Bench::with_photos();
    let model = Model::fresh("resnet20_cifar", 0).unwrap();
    let weights = || {
        let tensors = candle_resnet::weights::tensors(&model.weights).unwrap();
        let values = |tensor: candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        tensors.into_iter().map(|(name, tensor)| (name, values(tensor))).collect::<Vec<_>>()
    };
    let before = weights();
    let dataset = dataset::scan(&bench.path("photos")).unwrap();
    let settings = Settings { tail: Some(TailSettings::from_scratch(TrainFrom::All)), ..Settings::default() };
    let test = RangeTest { lowest: 1e-3, highest: 1.0, steps: 10 };
    let options = PlanOptions::default();
    let machine = Machine { device: &Device::Cpu, options: &options, maps: None, checkpoints: None };
    let tested = find_rate(&model, machine, &Splits::of(&dataset), &settings, test, &mut ()).unwrap();
    assert_eq!(tested.curve.points.len(), 10);
    assert!(weights() == before);
}

#[test]
fn maps_are_kept_only_where_all_of_them_are_asked_for() {
    let bench = Bench::with_photos();
    let test = |steps| {
        find_lr(&bench, &["--train-from", "layer3", "--freeze-epochs", "0", "--steps", steps, "--batch-size", "1"])
    };
    test("10");
    assert!(!bench.path("cache").exists(), "12 images train");
    test("12");
    assert!(bench.path("cache").exists());
}

#[test]
fn a_drawing_that_is_there_stays_unless_it_may_be_replaced() {
    let bench = Bench::with_photos();
    bench.file("a.svg", "mine");
    find_lr(&bench, &["--out", "a.svg"]).failed().said(&["a.svg: exists already", "hint: choose another name"]);
    assert_eq!(bench.read("a.svg"), "mine");
    find_lr(&bench, &["--train-from", "all", "--out", "a.svg", "--overwrite"]).succeeded();
    assert!(bench.read("a.svg").starts_with("<svg"));
    find_lr(&bench, &["--out", "nowhere/a.svg"]).failed().said(&["nowhere"]);
}

#[test]
fn names_that_mean_something_in_xml_are_drawn_as_they_are() {
    let bench = Bench::with_photos();
    bench.two_colours("R&D <1>", 4);
    let arguments =
        ["find-lr", "R&D <1>", "--model", "resnet20_cifar", "--no-pretrained", "--steps", "20", "--out", "a.svg"];
    let ran = bench.run(&arguments);
    assert!(texts(&bench.read("a.svg")).contains(&"resnet20_cifar on R&D <1>, --train-from head".to_owned()));
    assert!(ran.out.is_empty() || ran.err.contains("try: finetune train 'R&D <1>' --model"), "{ran:?}");
}

#[test]
fn a_record_says_what_is_tested() {
    let bench = Bench::with_photos();
    let options =
        ["--train-from", "layer3", "--freeze-epochs", "0", "--epochs", "1", "--batch-size", "6", "--out", "bundle"];
    bench.train("photos", &options).succeeded();
    let ran = bench.run(&["find-lr", "--config", "bundle/run.toml", "--steps", "20", "--out", "a.svg"]);
    ran.said(&["trained from layer3 on", "20 steps, 6 images each"]);
}

#[test]
fn ranges_that_cannot_be_are_refused_before_anything_is_read() {
    let bench = Bench::new();
    let refused = |options: &[&str], said: &str| find_lr(&bench, options).failed().said(&[said]);
    refused(&["--lowest", "0"], "setting `lowest` is 0, must be a number above 0");
    refused(&["--lowest", "1", "--highest", "1"], "setting `highest` is 1, must be a number above `lowest`, 1");
    refused(&["--lowest", "-1"], "setting `lowest` is -1");
    refused(&["--highest", "inf"], "setting `highest` is inf");
    refused(&["--steps", "9"], "setting `steps` is 9, must be at least 10");
    refused(&["--lr", "0.1"], "--lr is what is looked for").said(&["hint: leave it out"]);
    refused(&["--overwrite", "--out", "a.svg"], "photos");
}

#[test]
fn arguments_that_are_missing_are_asked_for() {
    let bench = Bench::with_photos();
    bench.run(&["find-lr", "photos"]).exited(2).said(&["--model"]);
    bench.run(&["find-lr", "--model", "resnet20_cifar"]).exited(2).said(&["DIR"]);
    find_lr(&bench, &["--views", "3"]).exited(2);
    find_lr(&bench, &["--overwrite"]).exited(2).said(&["--out"]);
}

#[test]
fn too_few_images_are_named_as_in_a_training() {
    let bench = Bench::new();
    bench.class("photos/green", GREEN, 3);
    find_lr(&bench, &[]).failed().said(&["one class only"]);
    bench.file("photos/grey/a.png", "not a picture");
    find_lr(&bench, &["--train-from", "all", "--freeze-epochs", "3"])
        .failed()
        .said(&["class `grey` has no training image"]);
    bench.file("photos/green/000.png", "not a picture");
    bench.file("photos/green/001.png", "not a picture");
    bench.file("photos/green/002.png", "not a picture");
    let ran = find_lr(&bench, &["--train-from", "all", "--val-fraction", "0"]).failed();
    ran.said(&["none of the 4 images could be read"]);
    assert_eq!(bench.names(), ["photos"]);
}

#[test]
fn a_loss_that_rises_from_the_start_proposes_nothing_and_says_so() {
    let bench = Bench::with_photos();
    let ran = find_lr(&bench, &["--train-from", "all", "--lowest", "1e3", "--highest", "1e6"]).failed();
    ran.said(&["the loss rises beyond", "valley none", "steep none", "hint: begin lower with --lowest"])
        .did_not_say(&["try:"]);
    assert_eq!(bench.names(), ["photos", "photos-resnet20_cifar-lr.svg"]);
}
