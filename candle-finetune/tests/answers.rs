//! Answers that can be relied on, and many of them: `eval --calibrate`, `predict --max-error`, lists, tables and `--resume`.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{BLUE, Bench, Ran, timm_files};
use serde_json::{Value, json};

/// A bundle that was calibrated on `count` photos of each colour that it has not seen, all of which it knows.
fn calibrated(count: usize) -> Bench {
    let bench = Bench::with_bundle();
    bench.two_colours("others", count);
    bench.run(&["eval", "others", "--model", "bundle", "--calibrate"]).succeeded();
    bench
}

fn predict(bench: &Bench, further: &[&str]) -> Ran {
    bench.run(&[&["predict", "--model", "bundle"], further].concat())
}

#[test]
fn training_calibrates_on_the_images_that_were_held_out() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--out", "bundle"]).succeeded();
    let calibration = bench.json("bundle/config.json")["calibration"].clone();
    let curve = calibration["risk_coverage"].as_str().unwrap();
    assert!(curve.ends_with(" 4 0"), "a fifth of 16 images are held out, at least one of each class: {curve}");
    assert!(calibration["temperature"].as_f64().unwrap() > 0.0);
    bench.train("photos", &["--out", "tail", "--train-from", "layer3", "--epochs", "2"]).succeeded();
    assert!(bench.json("tail/config.json")["calibration"]["temperature"].is_f64());
    bench.train("photos", &["--out", "all", "--val-fraction", "0"]).succeeded();
    assert_eq!(bench.json("all/config.json").get("calibration"), None, "nothing was held out");
}

#[test]
fn a_calibration_changes_probabilities_and_nothing_else() {
    let bench = Bench::with_bundle();
    bench.class("wrong/red", BLUE, 2);
    bench.class("wrong/blue", BLUE, 6);
    let before = bench.json("bundle/config.json");
    let best =
        || predict(&bench, &["photos/red/000.png", "--json"]).succeeded().json_lines()[0]["predictions"][0].clone();
    let sure = best();
    let ran = bench.run(&["eval", "wrong", "--model", "bundle", "--calibrate"]).succeeded();
    ran.said(&["calibrated bundle on 8 images"]).printed(&[
        "2 of 8 images wrong",
        "calibration error",
        "at temperature",
    ]);
    let less_sure = best();
    assert_eq!((&sure["label"], &less_sure["label"]), (&json!("red"), &json!("red")));
    assert!(less_sure["probability"].as_f64().unwrap() < sure["probability"].as_f64().unwrap());
    let (mut after, mut before) = (bench.json("bundle/config.json"), before);
    assert_ne!(after["calibration"], before["calibration"]);
    for config in [&mut before, &mut after] {
        config.as_object_mut().unwrap().remove("calibration");
    }
    assert_eq!(after, before);
}

#[test]
fn evaluation_says_how_far_confidence_is_from_accuracy() {
    let bench = Bench::new();
    bench.two_colours("photos", 4);
    bench.model_folder("model", Some(&["blue", "red"]), 2);
    bench.run(&["eval", "photos", "--model", "model"]).succeeded().printed(&["calibration error ", "not calibrated"]);
    let error = |ran: &Ran, place: &str| ran.json_lines()[0].pointer(place).and_then(Value::as_f64).unwrap();
    let ran = bench.run(&["eval", "photos", "--model", "model", "--calibrate", "--json"]).succeeded();
    assert!(error(&ran, "/calibrated/calibration_error") <= error(&ran, "/calibration_error"), "{ran:?}");
    assert!(error(&ran, "/calibrated/loss") <= error(&ran, "/loss") + 0.02, "{ran:?}");
}

#[test]
fn a_calibration_is_of_photos_as_the_bundle_takes_them() {
    let bench = Bench::with_bundle();
    let other = ["--input-size", "24"];
    let said = ["note: `bundle` was calibrated on photos as its config.json prepares them", "hint: `finetune eval`"];
    predict(&bench, &[&["photos"], &other[..]].concat()).succeeded().said(&said);
    predict(&bench, &["photos", "--input-size", "32", "--mean", "0.4"]).succeeded().said(&said);
    predict(&bench, &["photos", "--input-size", "32"]).succeeded().did_not_say(&["note: "]);
    let calibrate = ["eval", "photos", "--model", "bundle", "--calibrate"];
    let before = bench.read("bundle/config.json");
    let grey = ["--in-chans", "1"];
    for further in [other, grey] {
        bench
            .run(&[&calibrate, &further[..]].concat())
            .failed()
            .said(&["error: `bundle` cannot be calibrated on photos", "hint: "]);
        assert_eq!(bench.read("bundle/config.json"), before);
    }
    predict(&bench, &[&["photos"], &grey[..]].concat()).succeeded().said(&said);
    predict(&bench, &["photos", "--in-chans", "3"]).succeeded().did_not_say(&["note: "]);
    bench.run(&["eval", "photos", "--model", "bundle", "--input-size", "24"]).succeeded().printed(&["at temperature"]);
    bench.model_folder("model", Some(&["blue", "red"]), 2);
    let arguments = ["predict", "photos", "--model", "model", "--input-size", "24"];
    bench.run(&arguments).succeeded().did_not_say(&["note: "]);
}

#[test]
fn only_a_folder_can_be_calibrated() {
    let bench = Bench::with_photos();
    let ran = bench.run(&["eval", "photos", "--model", "resnet20_cifar.embedded", "--calibrate"]).failed();
    ran.said(&["error: `resnet20_cifar.embedded` is no folder: a calibration is stored in one"]);
}

#[test]
fn an_error_rate_is_kept_by_saying_not_sure() {
    let bench = calibrated(30);
    let photo = "photos/red/000.png";
    let ran = predict(&bench, &[photo, "--max-error", "0.05", "--json"]).succeeded();
    assert_eq!(ran.json_lines()[0]["sure"], true);
    ran.said(&["so that at most 5.0 % are wrong: 100.0 % of 60 validation images got one, 0 of them wrong"]);
    predict(&bench, &[photo, "--max-error", "0.0001"]).failed().said(&[
        "error: `bundle` is never sure enough for 0.0100 % of wrong answers, as far as its 60 validation images show",
        "hint: allow more, or calibrate on more photos: finetune eval DIR --model bundle --calibrate",
    ]);
    predict(&bench, &[photo, "--max-error", "5"]).exited(2);
}

#[test]
fn what_is_below_the_threshold_says_not_sure() {
    let bench = calibrated(30);
    let mut config = bench.json("bundle/config.json");
    config["calibration"]["risk_coverage"] = json!("0.999999 40 0, 0 60 30");
    bench.file("bundle/config.json", config.to_string());
    let ran = predict(&bench, &["photos/red/000.png", "--max-error", "0.05"]).succeeded();
    ran.printed(&["photos/red/000.png\n  not sure\n"]).said(&["answered 0 of 1 photos (0.0 %), not sure of 1"]);
}

#[test]
fn a_model_that_was_not_calibrated_promises_nothing() {
    let bench = Bench::with_photos();
    bench.model_folder("model", Some(&["blue", "red"]), 2);
    let ran = bench.run(&["predict", "photos", "--model", "model", "--max-error", "0.05"]).failed();
    ran.said(&["error: `model` was not calibrated", "hint: ", "finetune eval DIR --model model --calibrate"]);
    let ran = bench.run(&["predict", "photos", "--model", "resnet20_cifar.embedded", "--max-error", "0.05"]).failed();
    ran.said(&["was not calibrated", "hint: train a bundle from it"]);
}

#[test]
fn a_calibration_of_another_program_is_passed_over_with_a_word() {
    let bench = Bench::with_photos();
    bench.model_folder("model", Some(&["blue", "red"]), 2);
    let plain = bench.json("model/config.json");
    let eval = || bench.run(&["eval", "photos", "--model", "model"]).succeeded();
    let uncalibrated = eval().out;
    let others =
        [json!(3), json!("auto"), json!({"bins": 15}), json!({"temperature": null}), json!({"temperature": 1e-310})];
    for field in others {
        let mut config = plain.clone();
        config["calibration"] = field;
        bench.file("model/config.json", config.to_string());
        let passed_over =
            "model/config.json: `calibration` is passed over as another program's: `calibration.temperature` is";
        let ran = eval().said(&[passed_over]);
        assert_eq!(ran.out, uncalibrated);
        let predict = ["predict", "photos", "--model", "model"];
        bench.run(&predict).succeeded().said(&[passed_over]);
        bench.run(&[&predict[..], &["--max-error", "0.05"]].concat()).failed().said(&["`model` was not calibrated"]);
    }
}

#[test]
fn a_damaged_curve_is_an_error_where_it_is_asked_for() {
    let bench = Bench::with_bundle();
    let mut config = bench.json("bundle/config.json");
    config["calibration"]["risk_coverage"] = json!("0.9 many 0");
    bench.file("bundle/config.json", config.to_string());
    predict(&bench, &["photos"]).succeeded();
    predict(&bench, &["photos", "--max-error", "0.05"])
        .failed()
        .said(&["bundle/config.json: `calibration`: `0.9 many 0`"]);
    config["calibration"].as_object_mut().unwrap().remove("risk_coverage");
    bench.file("bundle/config.json", config.to_string());
    predict(&bench, &["photos", "--max-error", "0.05"])
        .failed()
        .said(&["`calibration` has no `risk_coverage`", "error: `bundle` was not calibrated"]);
}

#[test]
fn what_transformers_wrote_can_be_calibrated() {
    let bench = Bench::with_photos();
    bench.model_folder("model", Some(&["blue", "red"]), 2);
    let config = json!({"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512], "id2label": {"0": "blue", "1": "red"}});
    bench.file("model/config.json", config.to_string());
    let (_, weights) = timm_files("resnet18", None, 2);
    bench.file("model/model.safetensors", weights);
    bench.file(
        "model/preprocessor_config.json",
        r#"{"size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 3,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#,
    );
    let best = || {
        let ran = bench.run(&["predict", "photos/red/000.png", "--model", "model", "--json"]).succeeded();
        ran.json_lines()[0]["predictions"][0]["probability"].as_f64().unwrap()
    };
    let before = best();
    bench.run(&["eval", "photos", "--model", "model", "--calibrate"]).succeeded();
    assert_ne!(best(), before);
    bench.run(&["eval", "photos", "--model", "model"]).succeeded().printed(&["at temperature"]);
}

#[test]
fn photos_are_named_by_files_folders_and_patterns() {
    let bench = Bench::with_bundle();
    let paths = |further: &[&str]| -> Vec<String> {
        let ran = predict(&bench, &[further, &["--json"]].concat()).succeeded();
        ran.json_lines().iter().map(|row| row["path"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(paths(&["photos/red"]).len(), 8);
    assert_eq!(paths(&["photos"]).len(), 16);
    assert_eq!(
        paths(&["photos/*/00[01].png"]),
        ["photos/blue/000.png", "photos/blue/001.png", "photos/red/000.png", "photos/red/001.png"]
    );
    assert_eq!(paths(&["photos/red/003.png", "photos/blu?"])[..2], ["photos/red/003.png", "photos/blue/000.png"]);
    predict(&bench, &["photos/*.gif"]).failed().said(&["error: `photos/*.gif` matches nothing"]);
}

/// Rows of a table by their headings.
fn table(bench: &Bench, name: &str) -> Vec<std::collections::HashMap<String, String>> {
    csv::Reader::from_path(bench.path(name)).unwrap().into_deserialize().map(|row| row.unwrap()).collect()
}

#[test]
fn tables_hold_labels_truth_and_what_could_not_be_read() {
    let bench = calibrated(30);
    bench.file("truth.csv", "path,label\nphotos/red/000.png,red\nphotos/red/001.png,blue\n");
    let photos = ["./photos/red/000.png", "gone.png", "photos/red/001.png", "photos/blue/000.png"];
    let options = ["--labels", "truth.csv", "--max-error", "0.05", "--output", "rows.csv"];
    let ran = predict(&bench, &[&photos[..], &options[..]].concat()).failed();
    ran.said(&[
        "top-1 50.0 % of 2 labelled photos",
        "1 of 2 answers wrong (50.0 %)",
        "1 of 4 photos could not be read",
        "note: 2 of 4 photos have no label in truth.csv: gone.png, …",
    ]);
    let rows = table(&bench, "rows.csv");
    let column = |name: &str| -> Vec<&str> { rows.iter().map(|row| row[name].as_str()).collect() };
    assert_eq!(column("path"), photos);
    assert_eq!(column("label_1"), ["red", "", "red", "blue"]);
    assert_eq!(column("label_2"), ["blue", "", "blue", "red"]);
    assert_eq!(column("sure"), ["true", "", "true", "true"]);
    assert_eq!(column("truth"), ["red", "", "blue", ""]);
    assert_eq!(column("right"), ["true", "", "false", ""]);
    assert_eq!(column("error"), ["", "gone.png: no such file", "", ""]);
    bench.file("odd.csv", "path,label\nphotos/red/000.png,green\n");
    predict(&bench, &["photos", "--labels", "odd.csv"])
        .failed()
        .said(&["error: odd.csv: the model does not know 1 of the classes: green", "hint: it knows: "]);
    bench.file("semicolons.csv", "path;label\nphotos/red/000.png;red\n");
    let ran = predict(&bench, &["photos", "--labels", "semicolons.csv"]).failed();
    ran.said(&["semicolons.csv: no table of path,label: its first line is `path;label`"]);
    bench.file("none.csv", "photo\nx\n");
    predict(&bench, &["photos", "--labels", "none.csv"]).failed().said(&["none.csv: no table of path,label"]);
}

#[test]
fn a_table_that_is_not_of_these_photos_says_so() {
    let bench = Bench::with_bundle();
    let of = |table: &str, photos: &[&str]| {
        bench.file("tables/truth.csv", format!("path,label\n{table}"));
        predict(&bench, &[photos, &["--labels", "tables/truth.csv"]].concat())
    };
    let blue = bench.path("photos/blue/000.png");
    let photos = ["photos/red/000.png", "tables/../photos/red/001.png", "./photos/red/002.png", blue.to_str().unwrap()];
    of(
        "photos/red/000.png,red\n../photos/red/001.png,red\n./photos/red/002.png,red\nphotos/blue/000.png,red\n",
        &photos,
    )
    .succeeded()
    .said(&["top-1 75.0 % of 4 labelled photos"])
    .did_not_say(&["note: "]);
    of("photos/red/000.png,red\nred/1.png,red\nred/0.png,red\nred/1.png,red\n", &photos).succeeded().said(&[
        "note: 3 of 4 photos have no label in tables/truth.csv: tables/../photos/red/001.png, …",
        "note: 2 of 3 labels in tables/truth.csv are of no photo here: red/0.png, …",
        "top-1 100.0 % of 1 labelled photos",
    ]);
    of("red/000.png,red\n", &photos)
        .succeeded()
        .said(&["no accuracy: none of the photos that could be read has a label"]);
    of("a.png,red\n./a.png,blue\n", &photos)
        .failed()
        .said(&["error: tables/truth.csv: ./a.png is both `red` and `blue`"]);
    of("", &photos).failed().said(&["error: tables/truth.csv: no table of path,label: it has no rows"]);
    of(",red\n", &photos).failed().said(&["error: tables/truth.csv: "]);
}

#[test]
fn a_list_that_was_broken_off_anywhere_goes_on_to_the_same_file() {
    let bench = Bench::with_bundle();
    bench.file("photos/red/bad.png", "no picture");
    bench.file("truth.csv", "path,label\nphotos/red/000.png,red\nphotos/blue/001.png,red\n");
    let run = |file: &str, further: &[&str]| {
        predict(&bench, &[&["photos", "--labels", "truth.csv", "--output", file], further].concat()).failed()
    };
    for file in ["rows.csv", "rows.jsonl"] {
        let ran = run(file, &[]);
        let whole = bench.read(file);
        for length in [0, 1, 40, whole.len() / 2, whole.len() - 1, whole.len()] {
            bench.file(file, &whole[..length]);
            let resumed = run(file, &["--resume"]);
            assert_eq!(bench.read(file), whole, "{file} after {length} bytes");
            for said in ["top-1 50.0 % of 2 labelled photos", "1 of 17 photos could not be read"] {
                assert!(ran.err.contains(said) && resumed.err.contains(said), "{resumed:?}");
            }
        }
        run(file, &[]).said(&["exists already", "--resume", "--overwrite"]);
        run(file, &["--overwrite"]);
        assert_eq!(bench.read(file), whole);
    }
}

#[test]
fn rows_of_another_kind_are_not_gone_on_with() {
    let bench = Bench::with_bundle();
    bench.file("letter.jsonl", "Dear file\n");
    bench.file("letter.csv", "path,name\na.png,b\n");
    bench.file("config.json", r#"{"architecture": "resnet18"}"#);
    bench.file("open.jsonl", "Dear file");
    bench.file("open.csv", "path,name");
    for (file, said) in [
        ("letter.jsonl", "line 1 is no row"),
        ("letter.csv", "its columns are not path,label_1"),
        ("config.json", "its last line is no row"),
        ("open.jsonl", "its last line is no row"),
        ("open.csv", "its last line is no row"),
    ] {
        let before = bench.read(file);
        let ran = predict(&bench, &["photos", "--output", file, "--resume"]).failed();
        ran.said(&["cannot go on", said]);
        assert_eq!(bench.read(file), before);
    }
    predict(&bench, &["photos", "--output", "f", "--format", "text"]).failed().said(&["--output takes csv or jsonl"]);
}

#[test]
fn rows_of_another_model_or_of_other_options_are_not_gone_on_with() {
    let bench = calibrated(30);
    bench.model_folder("other", Some(&["blue", "red"]), 2);
    bench.model_folder("unnamed", None, 2);
    bench.file("truth.csv", "path,label\nphotos/red/000.png,red\n");
    bench.file("odd.csv", "path,label\nphotos/red/000.png,blue\n");
    let options = ["--labels", "truth.csv", "--max-error", "0.05"];
    for file in ["rows.csv", "rows.jsonl"] {
        let resume = |model: &str, further: &[&str]| {
            let arguments = ["predict", "photos", "--model", model, "--output", file, "--resume"];
            bench.run(&[&arguments, further].concat())
        };
        predict(&bench, &[&["photos", "--output", file], &options[..]].concat()).succeeded();
        let whole = bench.read(file);
        let begun = &whole[..whole.len() - 60];
        bench.file(file, begun);
        let refused = |ran: Ran, cause: &str| {
            let said = format!("error: {file}: cannot go on: ");
            ran.failed().said(&[&said, cause, "hint: go on with the model", "--overwrite"]);
            assert_eq!(bench.read(file), begun);
        };
        let csv = file == "rows.csv";
        let columns = |cause: &'static str| if csv { "its columns are not" } else { cause };
        let row = "its row of photos/red/000.png";
        refused(
            resume("bundle", &["--labels", "odd.csv", "--max-error", "0.05"]),
            &format!("{row} names `red` as true"),
        );
        if !csv {
            refused(resume("bundle", &options[2..]), &format!("{row} names `red` as true, --labels nothing"));
            let ran = resume("bundle", &[&options[..], &["--top-k", "1"]].concat());
            refused(ran, "its row of photos/blue/000.png has 2 labels, expected 1");
            refused(resume("bundle", &options[..2]), "says whether it is sure, and --max-error was not given");
        }
        resume("bundle", &["--labels", "truth.csv"]).failed().said(&[columns("--max-error")]);
        let config = bench.read("bundle/config.json");
        let mut sure_of_nothing = bench.json("bundle/config.json");
        sure_of_nothing["calibration"]["risk_coverage"] = json!("0.999999 40 0, 0 60 30");
        bench.file("bundle/config.json", sure_of_nothing.to_string());
        refused(resume("bundle", &options), "is of another --max-error or of another calibration");
        bench.file("bundle/config.json", config);
        resume("bundle", &options).succeeded();
        assert_eq!(bench.read(file), whole);

        predict(&bench, &["photos", "--output", file, "--overwrite"]).succeeded();
        let begun = bench.read(file)[..400].to_string();
        bench.file(file, &begun);
        let ran =
            resume("other", &[]).failed().said(&["cannot go on: `", "` has probability ", " in its row of photos/"]);
        assert!(ran.err.contains("hint: go on with the model"), "{ran:?}");
        resume("unnamed", &[]).failed().said(&["which this model does not know"]);
        assert_eq!(bench.read(file), begun);
    }
}

#[test]
fn rows_whose_photos_are_gone_are_gone_on_with_and_that_is_said() {
    let bench = Bench::with_bundle();
    let first = predict(&bench, &["photos/red", "--output", "rows.csv"]).succeeded();
    first.did_not_say(&["note: "]);
    std::fs::rename(bench.path("photos/red"), bench.path("done")).unwrap();
    predict(&bench, &["photos/blue", "--output", "rows.csv", "--resume"])
        .succeeded()
        .said(&["note: nobody can tell whether the rows in rows.csv are of this model", "8 rows kept, 8 photos left"]);
    assert_eq!(bench.rows("rows.csv").len(), 16);
}

#[test]
fn a_file_that_another_run_writes_to_is_left_alone() {
    let bench = Bench::with_bundle();
    bench.file("rows.csv", "Rows of which more are to come");
    let other = std::fs::File::open(bench.path("rows.csv")).unwrap();
    other.lock().unwrap();
    let run = |further: &str| predict(&bench, &["photos", "--output", "rows.csv", further]);
    for further in ["--resume", "--overwrite"] {
        run(further).failed().said(&["error: rows.csv: another run is writing to it"]);
    }
    assert_eq!(bench.read("rows.csv"), "Rows of which more are to come");
    bench.file("rows.csv", "");
    drop(other);
    run("--resume").succeeded();
    assert_eq!(bench.rows("rows.csv").len(), 16);
}

#[test]
fn a_file_that_another_run_made_meanwhile_is_left_alone() {
    let bench = Bench::with_bundle();
    let mut command = bench.command(&["predict", "-", "--model", "bundle", "--output", "rows.csv"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut list = child.stdin.take().unwrap();
    // More than a pipe holds: whoever reads it has looked for the file before.
    list.write_all(&[b'\n'; 1 << 18]).unwrap();
    bench.file("rows.csv", "theirs");
    list.write_all(b"photos/red/000.png\n").unwrap();
    drop(list);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("error: rows.csv: exists already"), "{said}");
    assert_eq!(bench.read("rows.csv"), "theirs");
}

#[test]
fn a_run_that_ends_before_its_first_row_leaves_no_file() {
    let bench = Bench::with_bundle();
    bench.file("why", "in the way");
    for further in [&[][..], &["--resume"], &["--overwrite"]] {
        let run = || predict(&bench, &[&["photos", "--output", "rows.csv", "--explain", "why"], further].concat());
        run().failed().said(&["error: why: "]);
        assert!(!bench.path("rows.csv").exists());
        bench.file("rows.csv", "");
        if !further.is_empty() {
            run().failed().said(&["error: why: "]);
        }
        assert_eq!(bench.read("rows.csv"), "", "what was there stays");
        std::fs::remove_file(bench.path("rows.csv")).unwrap();
    }
}

#[test]
fn a_list_comes_from_stdin() {
    let bench = Bench::with_bundle();
    let mut command = bench.command(&["predict", "-", "--model", "bundle", "--json"]);
    let list = bench.file("list.txt", "photos/red/000.png\n\nphotos/blue/000.png\n");
    let output = command.stdin(std::fs::File::open(list).unwrap()).output().unwrap();
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&lines[0]["path"], &lines[1]["path"]], ["photos/red/000.png", "photos/blue/000.png"]);
    predict(&bench, &["-"]).failed().said(&["error: stdin: names no photos"]);
}

#[test]
fn what_is_tested_on_is_not_calibrated_on() {
    let bench = Bench::with_bundle();
    for split in ["train", "test"] {
        bench.two_colours(&format!("split/{split}"), 3);
    }
    let calibrate = ["eval", "split", "--model", "bundle", "--calibrate"];
    bench.run(&calibrate).failed().said(&["split: has no such split, it has: train, test"]);
    bench.two_colours("split/val", 2);
    let ran = bench.run(&calibrate).succeeded();
    ran.said(&["calibrated bundle on 4 images"]).printed(&["fitted on these images"]);
}

#[test]
fn patterns_pass_hidden_files_over_and_names_with_brackets_are_names() {
    let bench = Bench::with_bundle();
    bench.file("photos/red/._000.png", "no picture");
    let rows = predict(&bench, &["photos/red/*.png", "--json"]).succeeded().json_lines();
    assert_eq!(rows.len(), 8);
    predict(&bench, &["gone[1].png"]).failed().said(&["gone[1].png: no such file"]);
}
