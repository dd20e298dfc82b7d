//! Reports: pages that open offline, and the numbers beside them.

mod common;

use common::{BLUE, Bench, RED, names_in};

/// What lies beside a page of what was measured.
const MEASURED: [&str; 7] = [
    "classes.csv",
    "confusion.csv",
    "confusion.svg",
    "predictions.csv",
    "reliability.csv",
    "reliability.svg",
    "risk-coverage.svg",
];

/// Every address that a page would fetch something from.
fn requests(page: &str) -> Vec<&str> {
    let sources = ["src=\"", "href=\"", "url("].into_iter().flat_map(|mark| page.split(mark).skip(1));
    sources
        .filter(|source| !source.starts_with("data:"))
        .map(|source| source.split(['"', ')']).next().unwrap())
        .collect()
}

#[test]
fn a_training_leaves_a_page_that_opens_offline() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--out", "bundle", "--epochs", "3"]).succeeded().said(&["see: bundle/report.html"]);
    let page = bench.read("bundle/report.html");
    assert_eq!(requests(&page), Vec::<&str>::new());
    for text in
        ["resnet20_cifar on photos", "4 images held out", "asked before the head was refitted", "run.toml", "red/"]
    {
        assert!(page.contains(text), "{text}");
    }
    let mut files = MEASURED.to_vec();
    files.extend(["loss.svg", "top1.svg"]);
    files.sort();
    assert_eq!(names_in(&bench.path("bundle/report-files")), files);
    for file in files.iter().filter(|file| file.ends_with(".svg")) {
        let svg = bench.read(&format!("bundle/report-files/{file}"));
        roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(page.contains(&svg), "{file} is in the page");
    }
}

#[test]
fn tables_say_what_eval_says() {
    let bench = Bench::with_bundle();
    // Half of the photos under the other label: 8 of 16 are wrong, and known to be.
    bench.class("mixed/red", RED, 5);
    bench.class("mixed/blue", BLUE, 3);
    for index in 0..8 {
        let (colour, other) = if index < 4 { (RED, "blue") } else { (BLUE, "red") };
        bench.picture(&format!("mixed/{other}/other{index}.png"), colour, index);
    }
    let ran = bench.run(&["eval", "mixed", "--model", "bundle", "--json", "--report", "out.html"]).succeeded();
    let top1 = ran.json_lines()[0]["top1"].as_f64().unwrap();
    assert_eq!(names_in(&bench.path("out-files")), MEASURED);
    let predictions = bench.rows("out-files/predictions.csv");
    let right = predictions.iter().filter(|row| row[1] == row[2]).count();
    assert_eq!(predictions.len(), 16);
    assert_eq!(right as f64 / 16.0, top1);
    let confusion = bench.rows("out-files/confusion.csv");
    let sum = |rows: Vec<&Vec<String>>| rows.iter().map(|row| row[2].parse::<usize>().unwrap()).sum::<usize>();
    assert_eq!(sum(confusion.iter().collect()), 16);
    assert_eq!(sum(confusion.iter().filter(|row| row[0] == row[1]).collect()), right);
    let bins = bench.rows("out-files/reliability.csv");
    assert_eq!(bins.len(), 15);
    assert_eq!(bins.iter().map(|row| row[3].parse::<usize>().unwrap()).sum::<usize>(), right);
    let classes = bench.rows("out-files/classes.csv");
    assert_eq!(classes.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["blue", "red"]);
    let recall: f64 = classes[0][7].parse().unwrap();
    assert_eq!(recall, classes[0][3].parse::<f64>().unwrap() / classes[0][1].parse::<f64>().unwrap());
}

#[test]
fn a_report_is_not_replaced_unasked_and_names_what_was_not_read() {
    let bench = Bench::with_bundle();
    bench.file("photos/red/broken.png", "text");
    let eval = ["eval", "photos", "--model", "bundle", "--report", "out.html"];
    bench.run(&eval).succeeded();
    assert!(bench.read("out.html").contains("not read: photos/red/broken.png"));
    bench.run(&eval).failed().said(&["out.html", "exists"]);
    bench.run(&[&eval[..], &["--overwrite"]].concat()).succeeded();
    bench.file("mine-files/predictions.csv", "mine");
    bench
        .run(&["eval", "photos", "--model", "bundle", "--report", "mine.html"])
        .failed()
        .said(&["mine-files", "exists"]);
    assert_eq!(bench.read("mine-files/predictions.csv"), "mine");
}

#[test]
fn a_tail_is_asked_about_what_it_was_held_out_of() {
    let bench = Bench::with_photos();
    let further = ["--out", "bundle", "--train-from", "layer3", "--epochs", "2", "--no-map-cache"];
    bench.train("photos", &further).succeeded();
    let held_out: Vec<String> =
        bench.rows("bundle/splits.csv").iter().filter(|row| row[2] == "held out").map(|row| row[0].clone()).collect();
    let judged = bench.rows("bundle/report-files/predictions.csv");
    assert!(judged.iter().map(|row| &row[0]).eq(&held_out));
    // What the tail said while it trained is what the bundle says.
    let photos: Vec<&str> = held_out.iter().map(String::as_str).collect();
    bench.run(&[&["predict", "--model", "bundle", "--output", "rows.csv"], &photos[..]].concat()).succeeded();
    for (judged, asked) in judged.iter().zip(bench.rows("rows.csv")) {
        assert_eq!([&judged[0], &judged[2]], [&asked[0], &asked[1]]);
        let [judged, asked] = [&judged[3], &asked[2]].map(|confidence| confidence.parse::<f64>().unwrap());
        assert!((judged - asked).abs() < 1e-4, "{judged} and {asked}");
    }
    let page = bench.read("bundle/report.html");
    assert!(page.contains("<td>layer3</td>") && page.contains("the training images that are most like it"));
}

#[test]
fn overwriting_a_bundle_replaces_its_report_and_no_report_is_none() {
    let bench = Bench::with_bundle();
    let old = bench.read("bundle/report.html");
    bench.file("bundle/report-files/mine.txt", "kept");
    bench.train("photos", &["--out", "bundle", "--overwrite", "--epochs", "2"]).succeeded();
    assert_ne!(bench.read("bundle/report.html"), old);
    assert!(!bench.read("bundle/report-files/predictions.csv").is_empty());
    assert_eq!(bench.read("bundle/report-files/mine.txt"), "kept");
    bench.train("photos", &["--out", "plain", "--epochs", "2", "--no-report"]).succeeded();
    assert!(!bench.path("plain/report.html").exists());
    bench.train("photos", &["--out", "bundle", "--overwrite", "--epochs", "2", "--no-report"]).succeeded();
    assert!(!bench.path("bundle/report.html").exists(), "that of another training");
}

#[test]
fn names_cannot_become_part_of_a_page() {
    let bench = Bench::new();
    bench.class("photos/<b>red & co", RED, 5);
    bench.class("photos/blue", BLUE, 5);
    bench.train("photos", &["--out", "bundle", "--epochs", "2"]).succeeded();
    let page = bench.read("bundle/report.html");
    assert!(!page.contains("<b>red") && page.contains("red &"), "names are escaped");
}

#[test]
fn the_doctors_page_shows_what_it_found() {
    let bench = Bench::with_photos();
    std::fs::copy(bench.path("photos/red/000.png"), bench.path("photos/blue/copy.png")).unwrap();
    bench.file("photos/blue/empty.png", "");
    bench.run(&["doctor", "photos", "--report", "doctor.html"]).succeeded().said(&["see: doctor.html"]);
    let page = bench.read("doctor.html");
    assert_eq!(requests(&page), Vec::<&str>::new());
    for text in ["blue/copy.png", "red/000.png", "blue/empty.png", "data:image/jpeg"] {
        assert!(page.contains(text), "{text}");
    }
    bench.run(&["doctor", "photos", "--report", "doctor.html"]).failed().said(&["doctor.html", "exists"]);
}
