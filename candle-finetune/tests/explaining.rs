//! `finetune predict --explain`: pictures of what speaks for a label.

mod common;

use common::{Bench, RED, names_in};

/// Runs `predict` on the photos of `bench` with further arguments.
fn predict(bench: &Bench, further: &[&str]) -> common::Ran {
    bench.run(&[&["predict", "--model", "bundle", "--json"], further].concat())
}

#[test]
fn each_photo_gets_a_picture_that_its_row_names() {
    let bench = Bench::with_bundle();
    bench.file("photos/red/not an image.jpg", "text");
    let plain = predict(&bench, &["photos"]).failed();
    let ran = predict(&bench, &["photos", "--explain", "why"]).failed().said(&["16 pictures in why"]);
    let (rows, plain) = (ran.json_lines(), plain.json_lines());
    assert_eq!(rows.len(), 17);
    for (mut row, plain) in rows.into_iter().zip(plain) {
        let explanation = row.as_object_mut().unwrap().remove("explanation");
        assert_eq!(row, plain, "rows are as they are without pictures");
        assert_eq!(explanation.is_some(), row.get("error").is_none());
        let Some(explanation) = explanation else { continue };
        let path = explanation.as_str().unwrap();
        let label = row["predictions"][0]["label"].as_str().unwrap();
        assert!(path.starts_with("why/0") && path.contains(label), "{path}");
        // Seven pixels for each of 32, twice, and a gap.
        assert_eq!(image::open(bench.path(path)).unwrap().to_rgb8().dimensions(), (456, 224));
    }
    // `red/000.png` and `blue/000.png` share their stem, and pictures are of one label each.
    assert_eq!(names_in(&bench.path("why")).len(), 16);
}

#[test]
fn the_left_half_is_what_the_network_saw() {
    let bench = Bench::with_bundle();
    predict(&bench, &["photos/red/000.png", "--explain", "why"]).succeeded();
    let (panel, photo) = (bench.path("why/000-red.png"), common::picture(RED, 0));
    let panel = image::open(panel).unwrap().to_rgb8();
    assert!((0..32).all(|at| panel.get_pixel(7 * at + 3, 7 * at + 3) == photo.get_pixel(at, at)));
    assert_ne!(panel.get_pixel(456 - 224 + 3, 3), photo.get_pixel(0, 0));
}

#[test]
fn pictures_of_an_earlier_run_are_not_replaced_unasked() {
    let bench = Bench::with_bundle();
    predict(&bench, &["photos/red", "--explain", "why"]).succeeded();
    predict(&bench, &["photos/red", "--explain", "why"]).failed().said(&[
        "error: why: exists already",
        "hint: ",
        "--overwrite",
    ]);
    bench.file("why/000-red.png", "old");
    predict(&bench, &["photos/red", "--explain", "why", "--overwrite"]).succeeded();
    assert_eq!(names_in(&bench.path("why")).len(), 8);
    assert!(image::open(bench.path("why/000-red.png")).is_ok());
}

#[test]
fn a_run_that_goes_on_adds_pictures() {
    let bench = Bench::with_bundle();
    let all = ["--explain", "why", "--output", "rows.jsonl", "--resume"];
    predict(&bench, &[&["photos/red"], &all[..]].concat()).succeeded();
    predict(&bench, &[&["photos/red", "photos/blue/000.png"], &all[..]].concat()).succeeded().said(&["1 pictures"]);
    assert_eq!(names_in(&bench.path("why")).len(), 9);
}

#[test]
fn a_place_for_pictures_that_is_a_file_is_an_error() {
    let bench = Bench::with_bundle();
    bench.file("why", "in the way");
    predict(&bench, &["photos/red", "--explain", "why"]).failed().said(&["error: why: "]);
    assert_eq!(bench.read("why"), "in the way");
}
