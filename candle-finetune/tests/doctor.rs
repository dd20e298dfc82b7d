//! `finetune doctor` on folders with planted faults: each is named, nothing is changed, and training refuses leaks.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_finetune::demo;
use common::{BLUE, Bench, Ran};
use image::imageops::{FilterType, flip_horizontal, resize};
use image::{Rgb, RgbImage};
use serde_json::Value;

const MODEL: [&str; 2] = ["--model", "resnet20_cifar.embedded"];

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../candle-resnet/tests/data/photos");
    fs::read(folder.join(name)).unwrap()
}

/// The pictures of `finetune demo`: 40 of each class to train, 20 to test.
fn demo_pictures() -> Bench {
    let bench = Bench::new();
    demo::write(&bench.path("photos")).unwrap();
    bench
}

fn findings(ran: &Ran) -> Vec<Value> {
    ran.json_lines()
}

/// Files of the findings of a kind, each finding's last parts of paths.
fn of_kind(findings: &[Value], kind: &str) -> Vec<Vec<String>> {
    let names = |finding: &Value| -> Vec<String> {
        let files = finding["files"].as_array().unwrap().iter();
        files.map(|file| file["path"].as_str().unwrap().trim_start_matches("photos/").replace('\\', "/")).collect()
    };
    findings.iter().filter(|finding| finding["kind"] == kind).map(names).collect()
}

fn copy(bench: &Bench, from: &str, to: &str) {
    fs::copy(bench.path(from), bench.path(to)).unwrap();
}

fn changed(bench: &Bench, from: &str, to: &str, change: impl Fn(RgbImage) -> RgbImage) {
    let original = image::open(bench.path(from)).unwrap().into_rgb8();
    change(original).save(bench.path(to)).unwrap();
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let ran = demo_pictures().run(&["doctor", "photos"]).succeeded();
    ran.printed(&["nothing stands against training", "300 PNG RGB", "300 96×96", "umbrella"]);
}

#[test]
fn copies_across_splits_are_leaks_whatever_was_done_to_them() {
    let bench = demo_pictures();
    let original = |index: usize| format!("photos/train/tree/{index:03}.png");
    copy(&bench, &original(1), "photos/test/tree/same.png");
    changed(&bench, &original(2), "photos/test/tree/mirrored.png", |image| flip_horizontal(&image));
    changed(&bench, &original(3), "photos/test/tree/encoded.jpg", |image| image);
    changed(&bench, &original(4), "photos/test/tree/resized.png", |image| resize(&image, 60, 60, FilterType::Triangle));
    changed(&bench, &original(5), "photos/test/tree/darker.png", |image| {
        let darker = |pixel: &Rgb<u8>| Rgb(pixel.0.map(|value| (f32::from(value) * 0.9) as u8));
        RgbImage::from_fn(image.width(), image.height(), |x, y| darker(image.get_pixel(x, y)))
    });
    let ran = bench.run(&["doctor", "photos", "--json"]).failed();
    let mut leaks = of_kind(&findings(&ran), "leak");
    leaks.sort();
    let expected = [(1, "same.png"), (2, "mirrored.png"), (3, "encoded.jpg"), (4, "resized.png"), (5, "darker.png")];
    let expected =
        expected.map(|(index, name)| vec![format!("test/tree/{name}"), format!("train/tree/{index:03}.png")]);
    let sorted: Vec<Vec<String>> = leaks
        .into_iter()
        .map(|mut files| {
            files.sort();
            files
        })
        .collect();
    assert_eq!(sorted, expected);
    assert_eq!(findings(&ran)[0]["text"], "the same file in train and test", "equal files come first");
    assert_eq!(findings(&ran)[0]["severity"], "error");
}

#[test]
fn every_bad_file_is_named() {
    let bench = Bench::with_photos();
    let png = fs::read(bench.path("photos/red/000.png")).unwrap();
    bench.file("photos/red/empty.jpg", "");
    bench.file("photos/red/letter.jpg", "Dear photo,\nI am a letter.\n");
    bench.file("photos/red/cut.png", &png[..png.len() / 2]);
    bench.file("photos/red/lies.jpg", fs::read(bench.path("photos/red/001.png")).unwrap());
    bench.file("photos/blue/turned.jpg", fixture("exif_6.jpg"));
    bench.file("photos/blue/moving.gif", fixture("animated.gif"));
    bench.file("photos/blue/grey.png", fixture("grey.png"));
    let ran = bench.run(&["doctor", "photos", "--json"]).succeeded();
    let found = findings(&ran);
    let files = |kind| of_kind(&found, kind).concat();
    assert_eq!(files("empty-file"), ["red/empty.jpg"]);
    assert_eq!(files("unreadable"), ["red/cut.png", "red/letter.jpg"]);
    assert_eq!(files("wrong-extension"), ["red/lies.jpg"]);
    assert_eq!(files("turned"), ["blue/turned.jpg"]);
    assert_eq!(files("first-frame"), ["blue/moving.gif"]);
    assert_eq!(files("grey"), ["blue/grey.png"]);
    assert_eq!(of_kind(&found, "exact-copies"), [["red/001.png", "red/lies.jpg"]]);
    assert!(found.iter().all(|finding| !finding["advice"].as_str().unwrap().is_empty()));
}

#[test]
fn one_picture_under_two_labels_is_told() {
    let bench = Bench::with_photos();
    copy(&bench, "photos/red/003.png", "photos/blue/same.png");
    let ran = bench.run(&["doctor", "photos", "--json"]).succeeded();
    assert_eq!(of_kind(&findings(&ran), "two-labels"), [["blue/same.png", "red/003.png"]]);
}

#[test]
fn folders_that_training_refuses_are_looked_at_all_the_same() {
    let bench = Bench::new();
    bench.two_colours("photos/train", 8);
    bench.two_colours("photos/test", 4);
    bench.class("photos/test/green", common::GREEN, 2);
    bench.class("photos/train/red (1)", BLUE, 1);
    let ran = bench.run(&["doctor", "photos"]).failed();
    ran.printed(&[
        "the test part has classes that train lacks: `green`",
        "`red (1)` is taken as a class",
        "`red (1)` 1",
    ]);
}

#[test]
fn wrong_labels_are_ranked_first() {
    let bench = demo_pictures();
    for index in 0..8 {
        let (from, to) = (format!("photos/train/tree/{index:03}.png"), format!("photos/train/balloon/was_{index}.png"));
        fs::rename(bench.path(&from), bench.path(&to)).unwrap();
    }
    let arguments = [&["doctor", "photos", "--json", "--list", "list.csv"], &MODEL[..]].concat();
    let ran = bench.run(&arguments).succeeded();
    let found = findings(&ran);
    let wrong: Vec<&Value> = found.iter().filter(|finding| finding["kind"] == "mislabelled").collect();
    let planted = |finding: &&&Value| finding.to_string().contains("was_") && finding["proposed"] == "tree";
    assert!(wrong.iter().filter(planted).count() > 0, "{wrong:#?}");

    // The area under the ROC curve: how many pairs of a planted and another image the label's probability ranks rightly.
    let rows = bench.rows("list.csv");
    let (planted, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row[0].contains("was_"));
    let probability = |row: &Vec<String>| row[3].parse::<f64>().unwrap();
    let pairs = planted.iter().flat_map(|a| others.iter().map(move |b| probability(a) < probability(b)));
    let area = pairs.clone().filter(|right| *right).count() as f64 / pairs.count() as f64;
    assert_eq!(rows.len(), 300);
    assert!(area > 0.85, "{area}");
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path))
        } else {
            drop(found.insert(path.clone(), fs::read(&path).unwrap()))
        }
    }
    found
}

#[test]
fn nothing_is_changed() {
    let bench = demo_pictures();
    copy(&bench, "photos/train/tree/000.png", "photos/test/tree/same.png");
    bench.file("photos/train/tree/empty.png", "");
    let before = contents(bench.root());
    bench.run(&[&["doctor", "photos"], &MODEL[..]].concat()).failed();
    assert_eq!(contents(bench.root()), before);
}

#[test]
fn training_refuses_the_same_file_in_two_splits() {
    let bench = Bench::new();
    bench.two_colours("photos/train", 6);
    bench.two_colours("photos/test", 3);
    copy(&bench, "photos/train/red/002.png", "photos/test/red/again.png");
    let train = |further: &[&str]| bench.train("photos", &[&["--epochs", "1", "--out", "bundle"], further].concat());
    let refused = train(&[]).failed();
    refused.said(&[
        "error: images in more than one of train, val and test: 1",
        "again.png",
        "002.png",
        "hint: ",
        "--allow-leaks",
    ]);
    assert_eq!(bench.names(), ["photos"], "nothing was written");
    train(&["--allow-leaks"]).succeeded().said(&["note: files that are in more than one of train, val and test: 1"]);
}

#[test]
fn training_tells_of_files_that_are_there_twice() {
    let bench = Bench::with_photos();
    copy(&bench, "photos/red/003.png", "photos/blue/same.png");
    copy(&bench, "photos/red/004.png", "photos/red/again.png");
    let ran = bench.train("photos", &["--epochs", "1", "--out", "bundle"]).succeeded();
    ran.said(&["note: files that are under more than one label: 1", "note: files that are there several times: 1"]);
}

#[test]
fn files_of_zero_bytes_are_no_copies_of_each_other() {
    let bench = Bench::with_photos();
    bench.file("photos/red/a.png", "");
    bench.file("photos/blue/b.png", "");
    let found = findings(&bench.run(&["doctor", "photos", "--json"]).succeeded());
    assert_eq!(of_kind(&found, "empty-file").len(), 2);
    assert!(of_kind(&found, "two-labels").is_empty());
}

#[test]
fn what_training_refuses_is_an_error() {
    let bench = Bench::with_photos();
    bench.file("alone/train/red/a.png", fs::read(bench.path("photos/red/000.png")).unwrap());
    let ran = bench.run(&["doctor", "alone", "--json"]).failed();
    assert_eq!(findings(&ran)[0]["severity"], "error");
    for index in 0..8 {
        bench.file(&format!("photos/red/{index:03}.png"), format!("no picture {index}"));
    }
    let ran = bench.run(&["doctor", "photos", "--json"]).failed();
    assert_eq!(findings(&ran)[0]["text"], "no training image of class `red` can be read");
}

#[cfg(unix)]
#[test]
fn names_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::with_photos();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    fs::write(bench.path("photos/red").join(name), "").unwrap();
    let ran = bench.run(&["doctor", "photos", "--json"]).succeeded();
    assert_eq!(of_kind(&findings(&ran), "empty-file").concat(), ["red/caf\u{fffd}.png"]);
}
