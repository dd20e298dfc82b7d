//! `finetune train` from a folder to a bundle: layouts, seeds, places, settings.

mod common;

use candle_finetune::augment::{Augmentation, ViewCount};
use common::{BLUE, Bench, GREEN, RED, names_in, run};

/// What a bundle consists of.
const FILES: [&str; 8] = [
    "config.json",
    "metrics.csv",
    "model.safetensors",
    "neighbours.safetensors",
    "report-files",
    "report.html",
    "run.toml",
    "splits.csv",
];

/// Rows of splits.csv whose split is this.
fn in_split(bench: &Bench, bundle: &str, split: &str) -> usize {
    bench.rows(&format!("{bundle}/splits.csv")).iter().filter(|row| row[2] == split).count()
}

/// Bytes of a bundle's weights after a training with these arguments.
fn weights(bench: &Bench, out: &str, further: &[&str]) -> Vec<u8> {
    bench.train("photos", &[&["--out", out, "--epochs", "5"], further].concat()).succeeded();
    std::fs::read(bench.path(out).join("model.safetensors")).unwrap()
}

#[test]
fn class_folders_become_a_bundle() {
    let bench = Bench::with_photos();
    let ran = bench.train("photos", &["--out", "bundle"]).succeeded();
    assert_eq!(ran.out, "bundle\n", "stdout is the bundle's path and nothing else");
    let ran = ran.said(&["2 classes: blue, red", "16 to train, 20 % of them held out, 0 to test", "after epoch 60"]);
    ran.said(&["finetune predict PHOTO --model bundle"]);
    assert_eq!(names_in(&bench.path("bundle")), FILES);
    let config = bench.json("bundle/config.json");
    assert_eq!(config["architecture"], "resnet20_cifar");
    assert_eq!(config["num_classes"], 2);
    assert_eq!(config["num_features"], 64);
    assert_eq!(config["label_names"], serde_json::json!(["blue", "red"]));
    assert_eq!(config["pretrained_cfg"]["input_size"], serde_json::json!([3, 32, 32]));
    assert_eq!(config["metrics"]["val_images"], 4);
}

#[cfg(unix)]
#[test]
fn a_bundle_can_be_read_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::with_bundle();
    for path in [bench.path("bundle"), bench.path("bundle/model.safetensors")] {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o044, 0o044, "{mode:o} of {}", path.display());
    }
}

#[test]
fn the_held_out_part_is_stratified_and_recorded() {
    let bench = Bench::new();
    bench.class("photos/red", RED, 10);
    bench.class("photos/blue", BLUE, 20);
    bench.train("photos", &["--out", "bundle", "--epochs", "2", "--val-fraction", "0.3"]).succeeded();
    let rows = bench.rows("bundle/splits.csv");
    let held_out = |class: &str| rows.iter().filter(|row| row[1] == class && row[2] == "held out").count();
    assert_eq!((rows.len(), held_out("red"), held_out("blue")), (30, 3, 6));
    assert!(rows.iter().all(|row| bench.path(&row[0]).is_file()), "each row names a file: {rows:?}");
}

#[test]
fn without_validation_nothing_is_held_out() {
    let bench = Bench::with_photos();
    bench
        .train("photos", &["--out", "bundle", "--epochs", "3", "--val-fraction", "0"])
        .succeeded()
        .said(&["no validation"]);
    assert_eq!(in_split(&bench, "bundle", "held out"), 0);
    let rows = bench.rows("bundle/metrics.csv");
    assert_eq!(rows.iter().filter(|row| row[0] == "fit").count(), 3);
    assert!(bench.json("bundle/config.json")["metrics"]["val_top1"].is_null());
}

#[test]
fn patience_without_validation_is_refused() {
    let bench = Bench::with_photos();
    let ran = bench.train("photos", &["--out", "bundle", "--val-fraction", "0", "--patience", "3"]).failed();
    ran.said(&["`patience` needs validation images", "hint: hold a part"]);
}

#[test]
fn settings_of_another_optimizer_are_refused() {
    let bench = Bench::with_photos();
    let ran = bench.train("photos", &["--optimizer", "adamw", "--momentum", "0.5"]).failed();
    ran.said(&["--momentum and --no-nesterov belong to --optimizer sgd"]);
}

#[test]
fn a_bundle_never_lies_inside_the_data_set() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--out", "photos/bundle"]).failed().said(&["photos/bundle: lies inside the data set"]);
    assert_eq!(names_in(&bench.path("photos")), ["blue", "red"]);
    let mut inside = bench.command(&["train", ".", "--model", "resnet20_cifar", "--no-pretrained", "--epochs", "1"]);
    assert!(inside.current_dir(bench.path("photos")).output().unwrap().status.success());
    assert_eq!(bench.names(), ["photos", "photos-resnet20_cifar"]);
}

#[test]
fn splits_beside_another_folder_are_taken_as_classes_with_a_word() {
    let bench = Bench::new();
    for class in ["train", "val", "extra"] {
        bench.class(&format!("photos/{class}"), RED, 4);
    }
    bench.train("photos", &["--epochs", "1"]).succeeded().said(&[
        "3 classes: extra, train, val",
        "note: `train`, `val` were taken as classes, not as splits, because of `extra` beside them",
    ]);
}

#[test]
fn weights_that_were_drawn_come_from_nowhere() {
    let bench = Bench::with_bundle();
    assert!(bench.json("bundle/config.json")["pretrained_from"].is_null());
}

#[test]
fn a_validation_folder_is_used_as_it_is() {
    let bench = Bench::new();
    bench.two_colours("photos/train", 6);
    bench.two_colours("photos/val", 3);
    bench.train("photos", &["--out", "bundle"]).succeeded().said(&["12 to train, 6 to validate, 0 to test"]);
    assert_eq!(in_split(&bench, "bundle", "train"), 12);
    assert_eq!(in_split(&bench, "bundle", "held out"), 0);
    assert_eq!(bench.json("bundle/config.json")["metrics"]["val_images"], 6);
}

#[test]
fn test_images_choose_nothing() {
    let bench = Bench::new();
    bench.two_colours("photos/train", 8);
    bench.two_colours("photos/test", 3);
    bench.two_colours("alone/train", 8);
    let ran = bench.train("photos", &["--out", "with"]).succeeded();
    ran.said(&["16 to train, 20 % of them held out, 6 to test", "test top-1 100.00 % of 6 images"]);
    assert_eq!(bench.json("with/config.json")["metrics"]["test_top1"], 1.0);
    bench.train("alone", &["--out", "without"]).succeeded();
    assert_eq!(bench.tensors("with/model.safetensors"), bench.tensors("without/model.safetensors"));
}

#[test]
fn a_class_may_be_called_train() {
    let bench = Bench::new();
    bench.class("photos/train", RED, 6);
    bench.class("photos/bus", BLUE, 6);
    bench.train("photos", &["--out", "bundle", "--epochs", "2"]).succeeded().said(&["2 classes: bus, train"]);
    bench.class("only/train", RED, 6);
    bench.class("only/test", BLUE, 6);
    bench
        .train("only", &["--out", "other", "--epochs", "2"])
        .succeeded()
        .said(&["2 classes: test, train", "they are taken as classes"]);
}

#[test]
fn one_seed_gives_one_file_whatever_the_threads() {
    let bench = Bench::with_photos();
    let first = weights(&bench, "a", &["--threads", "1"]);
    assert!(first == weights(&bench, "b", &["--threads", "1"]), "two runs differ");
    assert!(first == weights(&bench, "c", &["--threads", "2"]), "one thread and two differ");
    assert_eq!(bench.read("a/splits.csv"), bench.read("c/splits.csv"));
}

#[test]
fn another_seed_gives_other_weights() {
    let bench = Bench::with_photos();
    bench.model_folder("pretrained", None, 5);
    let train = |seed: &str, out: &str| {
        bench.run(&["train", "photos", "--model", "pretrained", "--seed", seed, "--out", out]).succeeded();
        bench.tensors(&format!("{out}/model.safetensors"))
    };
    let (first, second) = (train("1", "a"), train("2", "b"));
    assert_ne!(first["fc.weight"], second["fc.weight"]);
    assert_eq!(first["layer3.0.conv1.weight"], second["layer3.0.conv1.weight"], "no seed changes what is frozen");
    assert_ne!(bench.read("a/splits.csv"), bench.read("b/splits.csv"));
}

#[test]
fn frozen_tensors_stay_as_they_were_bit_for_bit() {
    let bench = Bench::with_photos();
    bench.model_folder("pretrained", None, 2);
    bench.run(&["train", "photos", "--model", "pretrained", "--out", "bundle"]).succeeded();
    let (before, after) = (bench.tensors("pretrained/model.safetensors"), bench.tensors("bundle/model.safetensors"));
    assert!(before.keys().eq(after.keys()));
    let changed: Vec<&String> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    assert_eq!(changed, ["fc.bias", "fc.weight"]);
}

#[test]
fn weights_come_from_a_file_too() {
    let bench = Bench::with_photos();
    bench.model_folder("pretrained", None, 7);
    let arguments = ["--model", "resnet20_cifar", "--weights", "pretrained/model.safetensors", "--out", "bundle"];
    bench.run(&[&["train", "photos"], &arguments[..]].concat()).succeeded();
    let (before, after) = (bench.tensors("pretrained/model.safetensors"), bench.tensors("bundle/model.safetensors"));
    assert_eq!(before["layer1.0.conv1.weight"], after["layer1.0.conv1.weight"]);
    assert_eq!(after["fc.bias"].len(), 2);
    let from = &bench.json("bundle/config.json")["pretrained_from"];
    assert_eq!(from["file"], "model.safetensors");
    assert_eq!(from["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn weights_of_another_network_are_refused_by_name_and_shape() {
    let bench = Bench::with_photos();
    bench.model_folder("pretrained", None, 2);
    let arguments = ["--model", "resnet32_cifar", "--weights", "pretrained/model.safetensors", "--out", "bundle"];
    bench.run(&[&["train", "photos"], &arguments[..]].concat()).failed().said(&[
        "model.safetensors: the tensors do not fit `resnet32_cifar`",
        "60 missing:\n  layer1.3.conv1.weight [16, 16, 3, 3]\n",
        "and 55 more",
        "hint: check that the network named",
    ]);
    assert!(!bench.path("bundle").exists());
}

#[test]
fn weights_that_are_not_there_are_named() {
    let bench = Bench::with_photos();
    let ran = bench.run(&["train", "photos", "--model", "resnet20_cifar", "--weights", "gone.pth", "--out", "b"]);
    ran.failed().said(&["gone.pth"]);
    bench.train("photos", &["--weights", "gone.pth"]).exited(2).said(&["--no-pretrained"]);
}

#[test]
fn an_existing_folder_is_refused_before_any_work() {
    let bench = Bench::with_photos();
    bench.file("bundle/mine.txt", "mine");
    bench
        .train("photos", &["--out", "bundle"])
        .failed()
        .said(&["bundle: exists already", "hint:", "--overwrite"])
        .did_not_say(&["frozen", "epoch "]);
    assert_eq!(names_in(&bench.path("bundle")), ["mine.txt"]);
}

#[test]
fn overwriting_replaces_a_bundles_files_and_no_others() {
    let bench = Bench::with_bundle();
    bench.file("bundle/mine.txt", "mine");
    let before = bench.tensors("bundle/model.safetensors");
    bench.train("photos", &["--out", "bundle", "--overwrite", "--seed", "9", "--epochs", "2"]).succeeded();
    assert_ne!(before["fc.weight"], bench.tensors("bundle/model.safetensors")["fc.weight"]);
    assert_eq!(bench.read("bundle/mine.txt"), "mine");
    assert_eq!(names_in(&bench.path("bundle")).len(), FILES.len() + 1, "nothing else is left there");
    assert_eq!(bench.names(), ["bundle", "photos"]);
}

#[test]
fn a_bundle_whose_files_cannot_be_replaced_stays_whole_in_its_own_folder() {
    let bench = Bench::with_photos();
    bench.file("bundle/splits.csv/mine.txt", "mine");
    let ran = bench.train("photos", &["--out", "bundle", "--overwrite", "--epochs", "2"]).failed();
    let [kept, _] = <[String; 2]>::try_from(names_in(&bench.path("bundle"))).unwrap();
    ran.said(&["error: bundle/splits.csv: ", &format!("; what this run made is in bundle/{kept}\nhint: ")]);
    bench.run(&["predict", "photos/red/000.png", "--model", &format!("bundle/{kept}")]).succeeded().printed(&["red"]);
    assert_eq!(bench.read("bundle/splits.csv/mine.txt"), "mine");
}

#[test]
fn a_file_in_the_bundles_place_is_not_overwritten() {
    let bench = Bench::with_photos();
    bench.file("bundle", "a file");
    bench.train("photos", &["--out", "bundle", "--overwrite"]).failed().said(&["bundle: "]).did_not_say(&["epoch "]);
    assert_eq!(bench.read("bundle"), "a file");
}

#[test]
fn bundles_without_a_given_name_are_numbered() {
    let bench = Bench::with_photos();
    for expected in ["photos-resnet20_cifar", "photos-resnet20_cifar-2", "photos-resnet20_cifar-3"] {
        let ran = bench.train("photos", &["--epochs", "1"]).succeeded();
        assert_eq!(ran.out.trim(), expected);
    }
}

#[test]
fn missing_parents_of_the_bundle_are_made() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--epochs", "1", "--out", "runs/today/first"]).succeeded();
    assert!(bench.path("runs/today/first/config.json").is_file());
}

#[test]
fn a_bundle_is_a_model_to_train_from() {
    let bench = Bench::with_bundle();
    bench.class("more/red", RED, 5);
    bench.class("more/blue", BLUE, 5);
    bench.class("more/green", GREEN, 5);
    bench.run(&["train", "more", "--model", "bundle", "--out", "second"]).succeeded();
    assert_eq!(bench.json("second/config.json")["num_classes"], 3);
    let (first, second) = (bench.tensors("bundle/model.safetensors"), bench.tensors("second/model.safetensors"));
    assert_eq!(first["conv1.weight"], second["conv1.weight"]);
}

#[test]
fn one_epoch_is_enough() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--epochs", "1", "--out", "bundle"]).succeeded().said(&["1/1"]);
    let rows = bench.rows("bundle/metrics.csv");
    assert_eq!(rows.iter().map(|row| format!("{} {}", row[0], row[1])).collect::<Vec<_>>(), ["fit 1", "refit 1"]);
}

#[test]
fn metrics_have_a_row_for_each_epoch() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--epochs", "4", "--no-refit", "--out", "bundle"]).succeeded();
    let rows = bench.rows("bundle/metrics.csv");
    assert_eq!(rows.iter().map(|row| row[1].as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    let heading = bench.read("bundle/metrics.csv").lines().next().unwrap().to_string();
    assert_eq!(heading, "phase,epoch,lr,train_loss,train_top1,val_loss,val_top1,seconds");
    for row in &rows {
        let loss: f64 = row[3].parse().unwrap();
        let top1: f64 = row[6].parse().unwrap();
        assert!(loss.is_finite() && (0.0..=1.0).contains(&top1), "{row:?}");
    }
}

#[test]
fn the_run_is_recorded_with_the_settings_that_were_derived() {
    let bench = Bench::with_photos();
    let arguments = ["--epochs", "3", "--batch-size", "5", "--optimizer", "adamw", "--seed", "7", "--flip"];
    bench.train("photos", &[&["--out", "bundle"], &arguments[..]].concat()).succeeded();
    let record: toml::Table = bench.read("bundle/run.toml").parse().unwrap();
    assert_eq!(record["run"]["model"].as_str(), Some("resnet20_cifar"));
    assert_eq!(record["run"]["no-pretrained"].as_bool(), Some(true));
    assert!(record["run"]["data"].as_str().unwrap().ends_with("photos"));
    let settings: candle_finetune::Settings = record["settings"].clone().try_into().unwrap();
    assert_eq!((settings.head.epochs, settings.head.batch_size, settings.head.seed), (3, 5, 7));
    assert_eq!(settings.head.optimizer, candle_finetune::train::OptimizerSettings::ADAMW);
    assert!(settings.refit);
    assert_eq!(settings.augmentation, Some(Augmentation::mirror()));
    assert_eq!((settings.head.lr, settings.head.weight_decay), (None, None), "as they were given");
    let derived = |name: &str| record["derived"]["head"][name].as_float().unwrap();
    assert!(derived("lr") > 0.0 && derived("weight-decay") > 0.0, "{record}");
}

#[test]
fn augmented_views_are_trained_on_and_recorded() {
    let bench = Bench::with_photos();
    let policy = "color=0.2,crop=0.5,flip,randaugment,erase";
    bench.train("photos", &["--augment", policy, "--views", "2", "--out", "a", "--epochs", "2"]).succeeded();
    bench.train("photos", &["--augment", "trivial", "--out", "b", "--epochs", "2"]).succeeded();
    let settings = |bundle: &str| -> candle_finetune::Settings {
        let record: toml::Table = bench.read(&format!("{bundle}/run.toml")).parse().unwrap();
        record["settings"].clone().try_into().unwrap()
    };
    let first = settings("a").augmentation.unwrap();
    assert_eq!((first.policy, first.views), (policy.parse().unwrap(), ViewCount::Kept(2)));
    let second = settings("b").augmentation.unwrap();
    assert_eq!((second.policy, second.views), ("trivial".parse().unwrap(), ViewCount::Kept(4)));
}

#[test]
fn a_flip_that_is_certain_is_what_flip_does() {
    let bench = Bench::with_photos();
    let train = |options: &[&str]| bench.train("photos", &[&["--epochs", "3"], options].concat()).succeeded();
    train(&["--flip", "--out", "a"]);
    train(&["--augment", "flip=1", "--views", "1", "--out", "b"]);
    train(&["--out", "c"]);
    let weights = |bundle: &str| std::fs::read(bench.path(bundle).join("model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"));
    assert!(weights("a") != weights("c"));
}

#[test]
fn the_number_of_threads_changes_no_augmented_view() {
    let bench = Bench::with_photos();
    let options = ["--augment", "crop,flip,randaugment,color,erase", "--views", "3", "--epochs", "2"];
    for threads in ["1", "2", "5"] {
        bench.train("photos", &[&options[..], &["--threads", threads, "--out", threads]].concat()).succeeded();
    }
    let weights = |bundle: &str| std::fs::read(bench.path(bundle).join("model.safetensors")).unwrap();
    assert!(weights("1") == weights("2") && weights("1") == weights("5"));
}

#[test]
fn every_option_of_the_training_works_together() {
    let bench = Bench::with_photos();
    let options = "--lr 0.1 --momentum 0 --weight-decay 0 --label-smoothing 0.1 --class-weights balanced \
        --schedule constant --warmup-epochs 0 --patience 2 --no-standardise --no-nesterov --no-refit --epochs 6";
    let options: Vec<&str> = options.split_whitespace().collect();
    bench.train("photos", &[&["--out", "bundle"], &options[..]].concat()).succeeded();
    let record: toml::Table = bench.read("bundle/run.toml").parse().unwrap();
    let settings: candle_finetune::Settings = record["settings"].clone().try_into().unwrap();
    assert_eq!((settings.head.lr, settings.head.weight_decay), (Some(0.1), Some(0.0)));
    assert_eq!((settings.head.patience, settings.head.standardise), (Some(2), false));
}

#[test]
fn a_schedule_brings_its_own_warm_up_and_is_recorded() {
    let bench = Bench::with_photos();
    for (schedule, warmup) in [("one-cycle", 3), ("linear", 1), ("step=4:0.5", 1)] {
        bench.train("photos", &["--schedule", schedule, "--epochs", "10", "--out", schedule]).succeeded();
        let record: toml::Table = bench.read(&format!("{schedule}/run.toml")).parse().unwrap();
        let settings: candle_finetune::Settings = record["settings"].clone().try_into().unwrap();
        assert_eq!((settings.head.schedule.to_string().as_str(), settings.head.warmup_epochs), (schedule, warmup));
    }
}

#[test]
fn settings_out_of_range_are_refused_before_any_work() {
    let bench = Bench::with_photos();
    for (arguments, found) in [
        (["--lr", "nan"], "`lr` is NaN"),
        (["--lr", "-1"], "`lr` is -1"),
        (["--lr", "0"], "`lr` is 0"),
        (["--lr", "inf"], "`lr` is inf"),
        (["--weight-decay", "-0.1"], "`weight-decay` is -0.1"),
        (["--momentum", "1"], "`momentum` is 1"),
        (["--label-smoothing", "1"], "`label-smoothing` is 1"),
        (["--val-fraction", "1"], "`val-fraction` is 1"),
        (["--val-fraction", "-0.5"], "`val-fraction` is -0.5"),
        (["--val-fraction", "nan"], "`val-fraction` is NaN"),
        (["--epochs", "0"], "`epochs` is 0"),
        (["--batch-size", "0"], "`batch-size` is 0"),
        (["--patience", "0"], "`patience` is 0"),
    ] {
        let ran = bench.train("photos", &[&["--out", "bundle"], &arguments[..]].concat());
        ran.failed().said(&["error: ", found]).did_not_say(&["frozen"]);
    }
    for arguments in [
        ["--lr", "fast"],
        ["--epochs", "-3"],
        ["--seed", "1.5"],
        ["--optimizer", "lion"],
        ["--schedule", "step=0:1"],
        ["--views", "2"],
    ] {
        bench.train("photos", &arguments).exited(2);
    }
    bench
        .train("photos", &["--augment", "rotate"])
        .exited(2)
        .said(&["no augmentation is named `rotate`, expected crop"]);
    bench.train("photos", &["--augment", "flip", "--flip"]).exited(2).said(&["--flip"]);
    let none = bench.train("photos", &["--augment", "flip", "--views", "0", "--out", "bundle"]);
    none.failed().said(&["error: `views` is 0, expected 1 to 1000"]);
    bench.train("photos", &["--overwrite"]).exited(2).said(&["--out"]);
    assert_eq!(bench.names(), ["photos"], "nothing was written");
}

#[test]
fn a_rate_at_which_training_diverges_is_an_error() {
    let bench = Bench::with_photos();
    bench
        .train("photos", &["--out", "bundle", "--lr", "1e30", "--no-standardise"])
        .failed()
        .said(&["error: the loss became", "hint: try a lower learning rate"]);
    assert_eq!(bench.names(), ["photos"]);
}

#[test]
fn a_batch_larger_than_the_data_is_one_step() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--out", "bundle", "--batch-size", "4000000000", "--epochs", "2"]).succeeded();
}

#[test]
fn preprocessing_that_was_asked_for_goes_into_the_bundle() {
    let bench = Bench::with_photos();
    let further = ["--input-size", "40", "--resize", "50", "--interpolation", "bicubic", "--mean", "0.5,0.5,0.5"];
    bench.train("photos", &[&["--out", "bundle", "--epochs", "2"], &further[..]].concat()).succeeded();
    let config = bench.json("bundle/config.json")["pretrained_cfg"].clone();
    assert_eq!(config["input_size"], serde_json::json!([3, 40, 40]));
    assert_eq!(config["interpolation"], "bicubic");
    assert_eq!(config["mean"], serde_json::json!([0.5, 0.5, 0.5]));
    for bad in [["--mean", "0.5,0.5"], ["--std", "a,b,c"], ["--interpolation", "nearest"]] {
        bench.train("photos", &bad).exited(2);
    }
    for (bad, said) in [
        (["--input-size", "0"], "`resize` is 0"),
        (["--input-size", "5000"], "`input-size` is 5000"),
        (["--input-size", "18446744073709551615"], "error: "),
        (["--std", "0,1,1"], "`std` holds 0"),
        (["--resize", "16"], "`resize` is 16, expected at least the input size, 32"),
        (["--resize", "4000"], "`resize` is 4000"),
    ] {
        bench.train("photos", &bad).failed().said(&["error: ", said]);
    }
}

#[test]
fn nobody_reading_the_output_does_not_stop_a_training() {
    let bench = Bench::with_photos();
    let mut command = bench.command(&["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "b"]);
    // Pipes whose reading ends are closed at once.
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let mut child = child.unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().unwrap().success());
    assert_eq!(names_in(&bench.path("b")), FILES);
    run(bench.command(&["predict", "photos/red/000.png", "--model", "b"])).succeeded();
}

#[test]
fn dropout_is_recorded_and_taken_up_by_the_next_training() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--out", "first", "--drop-rate", "0.25", "--epochs", "2"]).succeeded();
    assert_eq!(bench.json("first/config.json")["model_args"]["drop_rate"], 0.25);
    assert!(bench.read("first/run.toml").contains("drop-rate = 0.25"));
    bench.run(&["train", "photos", "--model", "first", "--out", "second", "--epochs", "2"]).succeeded();
    assert!(bench.read("second/run.toml").contains("drop-rate = 0.25"));
    bench.run(&["train", "photos", "--model", "first", "--out", "third", "--drop-rate", "0"]).succeeded();
    assert_eq!(bench.json("third/config.json").get("model_args"), None);
    bench.train("photos", &["--out", "fourth", "--drop-rate", "1"]).failed().said(&["`drop-rate` is 1"]);
}
