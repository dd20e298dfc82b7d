//! `finetune train --train-from`: what trains and what stays, plans, settings, records, and that a run can be repeated.

mod common;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use candle_finetune::Settings;
use candle_finetune::augment::ViewCount;
use candle_finetune::train::tail::{BatchNorm, TrainFrom};
use common::{BLUE, Bench, GREEN, RED, Ran};

/// `config.json` and `model.safetensors` of a small network whose norms know the maps that they are given.
fn pretrained() -> &'static [Vec<u8>; 2] {
    static FILES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    FILES.get_or_init(|| {
        let bench = Bench::new();
        bench.class("other/green", GREEN, 8);
        bench.class("other/grey", [90, 90, 90], 8);
        let options = ["--train-from", "all", "--epochs", "2", "--batch-size", "8", "--val-fraction", "0"];
        bench.train("other", &[&options[..], &["--out", "pretrained"]].concat()).succeeded();
        ["config.json", "model.safetensors"].map(|file| bytes(&bench, &format!("pretrained/{file}")))
    })
}

/// Photos and that network in `pretrained`.
fn bench() -> Bench {
    let bench = Bench::with_photos();
    let [config, weights] = pretrained();
    bench.file("pretrained/config.json", config);
    bench.file("pretrained/model.safetensors", weights);
    bench
}

/// Trains `pretrained` from a part on; shortly, unless other options say more.
fn unfreeze(bench: &Bench, from: &str, out: &str, further: &[&str]) -> Ran {
    let mut arguments = vec!["train", "photos", "--model", "pretrained", "--train-from", from, "--out", out];
    for short in [["--epochs", "2"], ["--batch-size", "5"], ["--freeze-epochs", "2"]] {
        if !further.contains(&short[0]) {
            arguments.extend(short);
        }
    }
    arguments.extend(further);
    bench.run(&arguments)
}

fn settings(bench: &Bench, bundle: &str) -> Settings {
    let record: toml::Table = bench.read(&format!("{bundle}/run.toml")).parse().unwrap();
    record["settings"].clone().try_into().unwrap()
}

/// Names of the tensors in which two bundles differ, but for the classifier's.
fn changed(bench: &Bench, before: &str, after: &str) -> Vec<String> {
    let tensors = |bundle: &str| bench.tensors(&format!("{bundle}/model.safetensors"));
    let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) = (tensors(before), tensors(after));
    assert!(before.keys().eq(after.keys()));
    let differ = before.keys().filter(|name| !name.starts_with("fc.") && before[*name] != after[*name]);
    differ.cloned().collect()
}

fn bytes(bench: &Bench, file: &str) -> Vec<u8> {
    std::fs::read(bench.path(file)).unwrap()
}

#[test]
fn parts_from_the_one_that_is_named_train_and_no_others() {
    let bench = bench();
    // Targets that nothing reaches, so that everything has a gradient.
    let ran = unfreeze(&bench, "layer3", "bundle", &["--label-smoothing", "0.3"]).succeeded();
    assert_eq!(ran.out, "bundle\n");
    ran.said(&["trained from layer3 on", "epoch 2/2", "val top-1", "after epoch"]);
    let changed = changed(&bench, "pretrained", "bundle");
    assert_eq!(changed.len(), 6 * 3, "six convolutions with scale and shift of their norms: {changed:?}");
    assert!(changed.iter().all(|name| name.starts_with("layer3.") && !name.contains("running")), "{changed:?}");
    let rows = bench.rows("bundle/metrics.csv");
    let phases: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(phases, ["head", "head", "fit", "fit"]);
    bench.run(&["eval", "photos", "--model", "bundle"]).succeeded();
}

#[test]
fn the_plan_says_of_each_part_what_becomes_of_it() {
    let bench = bench();
    let ran = unfreeze(&bench, "layer3", "bundle", &["--lr", "0.0002", "--layer-decay", "0.5"]).succeeded();
    let line = |part: &str| {
        let mut lines = ran.err.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.find(|line| line.starts_with(part)).unwrap_or_else(|| panic!("{part}: {ran:?}"))
    };
    assert_eq!(line("layer2"), "layer2 51.1 k frozen running statistics –");
    assert_eq!(line("layer3"), "layer3 203.5 k trains running statistics 1.00e-4");
    assert_eq!(line("fc"), "fc 130 trains 2.00e-4");
    assert!(line("norms").contains("--batch-norm train"));
    assert!(line("estimate").contains("an epoch") && line("estimate").contains("MB of memory"));
    assert!(line("epoch 1/2").ends_with("left") && !line("epoch 2/2").ends_with("left"));
}

#[test]
fn running_statistics_move_where_norms_follow_the_batch() {
    let bench = bench();
    unfreeze(&bench, "layer3", "stage", &["--batch-norm", "train"]).succeeded();
    let moved = changed(&bench, "pretrained", "stage");
    assert!(moved.iter().all(|name| name.starts_with("layer3.")), "{moved:?}");
    assert_eq!(moved.iter().filter(|name| name.contains("running")).count(), 2 * 6, "{moved:?}");
    unfreeze(&bench, "all", "all", &["--epochs", "1", "--label-smoothing", "0.3"])
        .succeeded()
        .said(&["follow the batch, as everything does"]);
    assert_eq!(changed(&bench, "pretrained", "all").len(), 19 * 5, "every tensor of the network");
}

#[test]
fn a_run_is_repeated_from_its_record_to_the_last_bit_whatever_the_threads() {
    let bench = bench();
    let options = [
        "--augment",
        "padcrop,flip,color",
        "--drop-rate",
        "0.1",
        "--drop-path",
        "0.2",
        "--seed",
        "4",
        "--lr",
        "0.0001",
    ];
    unfreeze(&bench, "layer3", "first", &options).succeeded();
    for (threads, out) in [("1", "second"), ("2", "third")] {
        bench.run(&["train", "--config", "first/run.toml", "--threads", threads, "--out", out]).succeeded();
        for file in ["model.safetensors", "config.json", "run.toml"] {
            let [ours, theirs] = ["first", out].map(|bundle| bytes(&bench, &format!("{bundle}/{file}")));
            assert!(ours == theirs, "{file} with {threads} threads");
        }
    }
}

#[test]
fn a_head_is_repeated_from_its_record_too() {
    let bench = bench();
    let arguments = ["train", "photos", "--model", "pretrained", "--epochs", "3", "--flip", "--precision", "bf16"];
    bench.run(&[&arguments[..], &["--out", "first"]].concat()).succeeded();
    bench.run(&["train", "--config", "first/run.toml", "--out", "second"]).succeeded();
    for file in ["model.safetensors", "config.json", "run.toml"] {
        assert!(bytes(&bench, &format!("first/{file}")) == bytes(&bench, &format!("second/{file}")), "{file}");
    }
}

#[test]
fn what_is_asked_for_beside_a_record_comes_first() {
    let bench = bench();
    unfreeze(&bench, "layer3", "first", &["--flip", "--label-smoothing", "0.1"]).succeeded();
    let override_with = |out: &str, options: &[&str]| {
        bench.run(&[&["train", "--config", "first/run.toml", "--out", out], options].concat()).succeeded();
        settings(&bench, out)
    };
    let shorter = override_with("shorter", &["--epochs", "1", "--optimizer", "adamw", "--views", "3"]);
    let tail = shorter.tail.unwrap();
    assert_eq!((tail.epochs, tail.warmup_epochs, tail.label_smoothing), (1, 0, 0.1));
    assert_eq!(shorter.augmentation.unwrap().views, ViewCount::Kept(3));
    let head = override_with("head", &["--train-from", "head", "--views", "1"]);
    assert_eq!((head.tail, head.head.label_smoothing), (None, 0.1));
    bench.class("other/green", RED, 4);
    bench.class("other/grey", [90, 90, 90], 4);
    bench.run(&["train", "other", "--config", "first/run.toml", "--out", "moved"]).succeeded().said(&["green, grey"]);
}

#[test]
fn a_record_that_cannot_be_read_names_the_file_and_the_place() {
    let bench = bench();
    bench.run(&["train", "--config", "gone.toml"]).failed().said(&["gone.toml"]);
    unfreeze(&bench, "layer3", "first", &["--epochs", "1"]).succeeded();
    let text = bench.read("first/run.toml");
    bench.file("typo.toml", text.replace("layer-decay", "layer-delay"));
    bench.run(&["train", "--config", "typo.toml"]).failed().said(&["typo.toml: ", "layer-delay"]);
    bench.file("range.toml", text.replace("layer-decay = 0.7", "layer-decay = 7.0"));
    bench.run(&["train", "--config", "range.toml"]).failed().said(&["`layer-decay` is 7"]);
}

#[test]
fn training_from_scratch_draws_everything_and_freezes_nothing() {
    let bench = Bench::with_photos();
    let ran = bench.train("photos", &["--train-from", "all", "--epochs", "2", "--batch-size", "8", "--out", "bundle"]);
    ran.succeeded().said(&["head as it is drawn", "follow the batch"]).did_not_say(&["head 60/60"]);
    let tail = settings(&bench, "bundle").tail.unwrap();
    assert_eq!((tail.head_first, tail.layer_decay, tail.batch_norm), (false, 1.0, BatchNorm::Train));
    assert_eq!(tail.train_from, TrainFrom::All);
    assert!(bench.rows("bundle/metrics.csv").iter().all(|row| row[0] == "fit"));
}

#[test]
fn the_tail_starts_from_a_head_that_was_trained_for_as_long_as_asked_for() {
    let bench = bench();
    unfreeze(&bench, "layer3", "three", &["--freeze-epochs", "3"]).succeeded().said(&["head 3/3"]);
    unfreeze(&bench, "layer3", "none", &["--freeze-epochs", "0"]).succeeded().said(&["head as it is drawn"]);
    let long = ["train", "photos", "--model", "pretrained", "--train-from", "layer3", "--epochs", "1"];
    bench.run(&long).succeeded().said(&["head 60/60"]);
    let phases =
        |bundle: &str| bench.rows(&format!("{bundle}/metrics.csv")).iter().filter(|row| row[0] == "head").count();
    assert_eq!((phases("three"), phases("none")), (3, 0));
}

#[test]
fn views_are_fresh_unless_a_number_says_otherwise_and_both_change_what_is_learned() {
    let bench = bench();
    let train = |out: &str, options: &[&str]| {
        unfreeze(&bench, "layer3", out, &[&["--augment", "crop,flip"], options].concat()).succeeded();
        settings(&bench, out).augmentation.unwrap().views
    };
    assert_eq!(train("fresh", &[]), ViewCount::Fresh);
    assert_eq!(train("one", &["--views", "1"]), ViewCount::Kept(1));
    assert!(bytes(&bench, "fresh/model.safetensors") != bytes(&bench, "one/model.safetensors"));
    let head = ["train", "photos", "--model", "pretrained", "--augment", "flip", "--views", "fresh"];
    bench.run(&head).failed().said(&["`views` is fresh", "hint: give a number of views"]);
}

#[test]
fn splits_of_their_own_choose_and_test() {
    let bench = bench();
    for (split, count) in [("train", 6), ("val", 3), ("test", 4)] {
        bench.two_colours(&format!("split/{split}"), count);
    }
    let arguments = ["train", "split", "--model", "pretrained", "--train-from", "layer3", "--epochs", "1"];
    let ran = bench.run(&[&arguments[..], &["--out", "bundle"]].concat()).succeeded();
    ran.said(&["of 6 images", "test top-1", "of 8 images"]);
    let metrics = bench.json("bundle/config.json")["metrics"].clone();
    assert_eq!((metrics["val_images"].as_u64(), metrics["test_images"].as_u64()), (Some(6), Some(8)));
    // What is measured at the end is what others will see.
    let evaluated = bench.run(&["eval", "split/test", "--model", "bundle", "--json"]).succeeded().json_lines();
    assert_eq!(evaluated[0]["top1"], metrics["test_top1"]);
}

#[test]
fn without_validation_the_last_epoch_is_kept() {
    let bench = bench();
    let ran = unfreeze(&bench, "layer3", "bundle", &["--val-fraction", "0"]).succeeded();
    ran.said(&["no validation"]).did_not_say(&["val top-1"]);
    let patient = unfreeze(&bench, "layer3", "other", &["--val-fraction", "0", "--patience", "3"]).failed();
    patient.said(&["`patience` needs validation images"]);
}

#[test]
fn images_that_cannot_be_read_are_skipped_once_and_for_all() {
    let bench = bench();
    bench.file("photos/red/broken.png", "not a picture");
    for options in [&["--freeze-epochs", "0"][..], &[]] {
        let ran = unfreeze(&bench, "layer3", "bundle", &[options, &["--overwrite"]].concat()).succeeded();
        assert_eq!(ran.err.matches("broken.png").count(), 1, "{ran:?}");
        ran.said(&["1 image could not be read"]);
    }
    unfreeze(&bench, "layer3", "strict", &["--strict"]).failed().said(&["broken.png"]);
    bench.file("lost/red/a.png", "not a picture");
    bench.class("lost/blue", RED, 4);
    let arguments = ["train", "lost", "--model", "pretrained", "--train-from", "layer3", "--freeze-epochs", "0"];
    bench.run(&arguments).failed().said(&["class `red` has no training image that could be read"]);
}

#[test]
fn options_that_do_not_go_together_say_so() {
    let bench = bench();
    unfreeze(&bench, "layer4", "b", &[])
        .failed()
        .said(&["`train-from` is layer4, must be head, layer3, layer2, layer1"]);
    unfreeze(&bench, "fc", "b", &[])
        .exited(2)
        .said(&["neither a stage, such as layer4, nor all, nor a pattern of names, nor head"]);
    for option in [
        ["--layer-decay", "0.5"],
        ["--batch-norm", "train"],
        ["--drop-path", "0.1"],
        ["--freeze-epochs", "2"],
        ["--checkpoint-minutes", "1"],
        ["--batch-size", "auto"],
    ] {
        let ran = bench.run(&[&["train", "photos", "--model", "pretrained"], &option[..]].concat());
        ran.failed().said(&[&format!("error: {}", option[0]), "belongs to --train-from"]);
    }
    unfreeze(&bench, "layer3", "b", &["--batch-size", "most"])
        .exited(2)
        .said(&["expected a number of images or `auto`"]);
    for (option, said) in [
        (["--layer-decay", "0"], "`layer-decay` is 0"),
        (["--drop-path", "1"], "`drop-path` is 1"),
        (["--batch-size", "0"], "`batch-size` is 0"),
        (["--lr", "-1"], "`lr` is -1"),
    ] {
        unfreeze(&bench, "layer3", "b", &option).failed().said(&[said]).did_not_say(&["trained from"]);
    }
    unfreeze(&bench, "layer3", "b", &["--lr", "1e30"]).failed().said(&["the loss became", "hint: try a lower"]);
    assert_eq!(bench.names(), ["cache", "photos", "pretrained"], "no bundle was written");
}

#[test]
fn a_batch_size_that_fits_is_found_told_and_recorded() {
    let bench = Bench::new();
    bench.class("photos/green", GREEN, 20);
    bench.class("photos/blue", BLUE, 20);
    let options = ["--train-from", "layer3", "--epochs", "1", "--batch-size", "auto"];
    let ran = bench.train("photos", &[&options[..], &["--out", "bundle"]].concat()).succeeded();
    // An epoch of 40 images is to have eight steps.
    ran.said(&["note: batches of 4 images", "4 images a step"]);
    assert_eq!(settings(&bench, "bundle").tail.unwrap().batch_size, 4);
}

#[test]
fn training_in_half_precision_learns_on_a_gpu() {
    if common::device::name() != "cuda" {
        return; // f16 is CUDA's alone, and in bf16 a CPU trains in f32
    }
    let bench = Bench::new();
    bench.class("photos/green", GREEN, 20);
    bench.class("photos/blue", BLUE, 20);
    for precision in ["bf16", "f16"] {
        let options =
            ["--train-from", "all", "--epochs", "4", "--batch-size", "8", "--precision", precision, "--out", precision];
        bench.train("photos", &options).succeeded();
        let ran = bench.run(&["eval", "photos", "--model", precision, "--precision", precision, "--json"]).succeeded();
        ran.printed(&["\"top1\":1.0"]);
    }
}

#[test]
fn every_part_of_a_recipe_is_told_recorded_and_repeated() {
    let bench = bench();
    let recipe: [(&[&str], &str); 6] = [
        (&["--accumulate", "2"], "2 batches a step"),
        (&["--sampler", "balanced"], "every class equally often"),
        (&["--clip-norm", "0.01"], "gradients clipped at 0.01"),
        (&["--ema", "0.9"], "weights averaged, decay 0.9"),
        (&["--mixup", "0.4"], "Mixup 0.4"),
        (&["--cutmix", "1"], "CutMix 1"),
    ];
    std::fs::remove_dir_all(bench.path("photos/blue")).unwrap();
    bench.class("photos/blue", BLUE, 3); // Fewer of one class, so that balance matters.
    unfreeze(&bench, "layer3", "plain", &["--val-fraction", "0"]).succeeded().did_not_say(&["recipe"]);
    let plain = bench.tensors("plain/model.safetensors");
    for (options, said) in recipe {
        let options = [options, &["--val-fraction", "0", "--overwrite"]].concat();
        unfreeze(&bench, "layer3", "b", &options).succeeded().said(&["recipe", said]);
        let tensors = bench.tensors("b/model.safetensors");
        assert!(tensors["fc.weight"] != plain["fc.weight"], "{options:?}");
        bench.run(&["train", "--config", "b/run.toml", "--out", "again", "--overwrite"]).succeeded().said(&[said]);
        assert!(bench.tensors("again/model.safetensors") == tensors, "{options:?}");
        bench
            .run(&[&["train", "photos", "--model", "pretrained"], &options[..2]].concat())
            .failed()
            .said(&[options[0], "belongs to --train-from"]);
    }
}

#[test]
fn patterns_train_exactly_what_they_fit() {
    let bench = bench();
    let patterns = "layer3.2.conv2.*,layer2.0.bn1.weight";
    let ran = unfreeze(&bench, patterns, "b", &["--val-fraction", "0"]).succeeded();
    ran.said(&["fc and layer3.2.conv2.*,layer2.0.bn1.weight train", "32 train", "36.9 k train"]);
    assert_eq!(changed(&bench, "pretrained", "b"), ["layer2.0.bn1.weight", "layer3.2.conv2.weight"]);
    bench.run(&["train", "--config", "b/run.toml", "--out", "again"]).succeeded();
    assert!(bench.tensors("again/model.safetensors") == bench.tensors("b/model.safetensors"));
    unfreeze(&bench, "layer9.*", "c", &[]).failed().said(&["`train-from` is layer9.*, must be a pattern that fits"]);
}

/// Memory of an emulated GPU is what the test says; that of another is not.
#[test]
fn what_a_gpu_without_room_says_would_fit_fits() {
    if std::env::var_os("EMULATED_GPU_ORDER").is_none() {
        return;
    }
    let bench = bench();
    let train = |images: &str, out: &str| {
        let arguments = ["train", "photos", "--model", "pretrained", "--train-from", "all", "--freeze-epochs", "0"];
        let further = ["--epochs", "1", "--val-fraction", "0", "--out", out, "--batch-size", images];
        let mut command = bench.command(&[&arguments[..], &further[..]].concat());
        command.env("EMULATED_GPU_MEMORY", "10000000");
        common::run(command)
    };
    let refused = train("16", "never").failed().said(&["the device has no room for a training step on 16 images"]);
    let (_, hint) = refused.err.split_once("give --batch-size ").unwrap();
    let fits: usize = hint.split(',').next().unwrap().parse().unwrap();
    assert!((1..16).contains(&fits));
    train(&fits.to_string(), "bundle").succeeded();
    assert!(!bench.path("never").exists());
}
