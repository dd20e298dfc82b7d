//! Photos, folders and disks that are not as they should be: each is named, nothing panics, nothing is half done.

mod common;

use std::fs;
use std::path::Path;

use common::{BLUE, Bench, RED, Ran, picture, run};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../candle-resnet/tests/data/photos");
    fs::read(folder.join(name)).unwrap()
}

/// The beginning of a JPEG.
fn truncated_jpeg() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(RED, 5).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    let bytes = bytes.into_inner();
    bytes[..bytes.len() / 2].to_vec()
}

/// A PNG that says it has so many pixels and ends there.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&chunk);
    png.extend(crc32(&chunk).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

/// Name, content, and what is said of it, of every kind of photo that cannot be read.
fn unreadable_photos() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("cut.jpg", truncated_jpeg(), "truncated JPEG"),
        ("text.jpg", b"Dear photo,\nI am a letter.\n".to_vec(), "not a photo"),
        ("page.png", b"<!DOCTYPE html><html><body>404</body></html>".to_vec(), "not a photo"),
        ("empty.png", Vec::new(), "is empty (0 bytes)"),
        ("huge.png", png_header(30_000, 30_000), "30000×30000 pixels take"),
        ("noise.jpg", vec![7; 999], "is in no known image format"),
        ("cut.gif", fixture("still.gif")[..60].to_vec(), "GIF"),
    ]
}

/// Photos as they come, that can be read all the same.
const UNUSUAL: [&str; 10] = [
    "cmyk.jpg",
    "ycck.jpg",
    "grey.png",
    "grey_alpha_16_bit.png",
    "palette_transparent.png",
    "one_bit.png",
    "rgba_16_bit.png",
    "exif_6.jpg",
    "animated.webp",
    "animated.gif",
];

fn short_training(bench: &Bench, further: &[&str]) -> Ran {
    bench.train("photos", &[&["--epochs", "2", "--out", "bundle"], further].concat())
}

#[test]
fn unreadable_photos_are_skipped_named_and_counted() {
    let bench = Bench::with_photos();
    let photos = unreadable_photos();
    for (name, content, _) in &photos {
        bench.file(&format!("photos/red/{name}"), content);
    }
    let ran = short_training(&bench, &[]).succeeded();
    for (name, _, reason) in &photos {
        let path = Path::new("photos/red").join(name).display().to_string();
        let line = ran.err.lines().find(|line| line.starts_with("skipped: ") && line.contains(&path));
        assert!(line.is_some_and(|line| line.contains(reason)), "{name}: {ran:#?}");
    }
    ran.said(&[&format!("skipped {} images could not be read", photos.len())]);
    assert_eq!(bench.rows("bundle/splits.csv").len(), 16, "only what was trained on");
}

#[test]
fn strict_ends_at_an_unreadable_photo() {
    for (name, content, reason) in unreadable_photos() {
        let bench = Bench::with_photos();
        bench.file(&format!("photos/red/{name}"), content);
        short_training(&bench, &["--strict"]).failed().said(&[name, reason, "hint: without --strict"]);
        assert_eq!(bench.names(), ["photos"], "nothing was written");
    }
}

#[test]
fn strict_holds_for_evaluation_and_prediction() {
    let bench = Bench::with_bundle();
    bench.file("photos/red/empty.jpg", "");
    let eval = bench.run(&["eval", "photos", "--model", "bundle", "--json"]).succeeded();
    assert_eq!(eval.json_lines()[0]["skipped"], 1);
    assert_eq!(eval.json_lines()[0]["images"], 16);
    let strict = bench.run(&["eval", "photos", "--model", "bundle", "--strict"]).failed();
    assert_eq!(strict.said(&["empty.jpg"]).out, "");
    let photos = ["photos/red/empty.jpg", "photos/red/000.png"];
    let strict = bench.run(&[&["predict", "--model", "bundle", "--strict"], &photos[..]].concat()).failed();
    assert_eq!(strict.said(&["error: ", "empty.jpg"]).out, "");
}

#[test]
fn photos_of_every_mode_are_used() {
    let bench = Bench::with_photos();
    for name in UNUSUAL {
        bench.file(&format!("photos/red/{name}"), fixture(name));
    }
    short_training(&bench, &["--strict"]).succeeded();
    assert_eq!(bench.rows("bundle/splits.csv").len(), 16 + UNUSUAL.len());
}

#[test]
fn a_gif_among_photos_is_used_with_a_word() {
    let bench = Bench::with_photos();
    bench.file("photos/red/moving.gif", fixture("animated.gif"));
    short_training(&bench, &[]).succeeded().said(&["note: GIFs among the photos, of which the first frame is used: 1"]);
    assert!(bench.read("bundle/splits.csv").contains("moving.gif"));
}

#[test]
fn a_picture_of_one_pixel_is_a_picture() {
    let bench = Bench::with_bundle();
    image::RgbImage::from_pixel(1, 1, image::Rgb(RED)).save(bench.path("dot.png")).unwrap();
    bench.run(&["predict", "dot.png", "--model", "bundle"]).succeeded().printed(&["dot.png", "red"]);
    image::RgbImage::from_pixel(3000, 1, image::Rgb(BLUE)).save(bench.path("line.png")).unwrap();
    bench.run(&["predict", "line.png", "--model", "bundle"]).succeeded().printed(&["line.png", "%"]);
}

#[test]
fn hidden_and_stray_files_are_passed_over_with_a_word() {
    let bench = Bench::with_photos();
    bench.file("photos/.DS_Store", "x");
    bench.file("photos/.git/config", "x");
    bench.file("photos/red/._000.png", "x");
    bench.file("photos/red/notes.txt", "x");
    bench.file("photos/README.md", "x");
    short_training(&bench, &["--strict"]).succeeded().said(&[
        "note: passed over hidden entries",
        "note: passed over files outside the class folders: 1",
        "README.md",
        "note: passed over files that are no images: 1",
        "notes.txt",
    ]);
    assert_eq!(bench.rows("bundle/splits.csv").len(), 16);
}

#[test]
fn names_with_spaces_and_of_every_script_work() {
    let bench = Bench::new();
    bench.class("my photos/röda äpplen", RED, 4);
    bench.class("my photos/蓝色 🫐", BLUE, 4);
    bench.picture("my photos/röda äpplen/hemma \"hos\" mig, idag.png", RED, 9);
    bench.train("my photos", &["--out", "a bundle ü", "--strict"]).succeeded().said(&["röda äpplen", "蓝色 🫐"]);
    assert_eq!(bench.json("a bundle ü/config.json")["label_names"], serde_json::json!(["röda äpplen", "蓝色 🫐"]));
    assert_eq!(bench.rows("a bundle ü/splits.csv").len(), 9, "commas and quotes do not break the table");
    let photo = "my photos/蓝色 🫐/000.png";
    let ran = bench.run(&["predict", photo, "--model", "a bundle ü", "--json"]).succeeded();
    assert_eq!(ran.json_lines()[0]["path"], photo);
    assert_eq!(ran.json_lines()[0]["predictions"][0]["label"], "蓝色 🫐");
    bench.run(&["eval", "my photos", "--model", "a bundle ü"]).succeeded().printed(&["0 of 9 images wrong"]);
}

/// A data set that is refused before any work, and what is said.
fn is_refused(bench: &Bench, said: &[&str]) {
    short_training(bench, &[]).failed().said(said).said(&["error: ", "hint: "]).did_not_say(&["frozen"]);
    assert!(!bench.path("bundle").exists());
}

#[test]
fn an_empty_class_folder_is_refused() {
    let bench = Bench::with_photos();
    fs::create_dir(bench.path("photos/green")).unwrap();
    is_refused(&bench, &["green: class folder holds no images"]);
}

#[test]
fn a_class_of_nothing_but_other_files_is_refused() {
    let bench = Bench::with_photos();
    bench.file("photos/green/a.heic", "x");
    is_refused(&bench, &["green: class folder holds no images that can be read, only 1 other files"]);
}

#[test]
fn a_single_class_is_refused() {
    let bench = Bench::new();
    bench.class("photos/red", RED, 3);
    is_refused(&bench, &["photos: holds one class only, `red`"]);
}

#[test]
fn a_folder_without_images_is_refused() {
    let bench = Bench::new();
    fs::create_dir(bench.path("photos")).unwrap();
    is_refused(&bench, &["photos: holds no images"]);
}

#[test]
fn images_without_class_folders_are_refused() {
    let bench = Bench::new();
    bench.class("photos", RED, 3);
    is_refused(&bench, &["photos: holds 3 images but no class folders"]);
}

#[test]
fn what_is_no_folder_is_refused() {
    let bench = Bench::new();
    is_refused(&bench, &["photos: no such folder"]);
    bench.file("photos", "a file");
    is_refused(&bench, &["photos: is a file, expected a folder"]);
}

#[test]
fn a_class_of_validation_that_training_lacks_is_refused() {
    let bench = Bench::new();
    bench.two_colours("photos/train", 3);
    bench.two_colours("photos/val", 2);
    bench.class("photos/val/green", RED, 1);
    is_refused(&bench, &["the val part has classes that train lacks: `green`"]);
}

#[test]
fn a_class_whose_photos_are_all_unreadable_is_an_error() {
    let bench = Bench::with_photos();
    bench.file("photos/green/a.jpg", "");
    let ran = short_training(&bench, &[]).failed();
    ran.said(&["error: class `green` has no training image that could be read", "hint: "]);
    assert_eq!(bench.names(), ["photos"]);
}

#[test]
fn photos_that_are_all_unreadable_are_an_error_that_names_the_first() {
    let bench = Bench::new();
    bench.file("photos/red/a.jpg", "");
    bench.file("photos/blue/b.jpg", "");
    let ran = short_training(&bench, &[]).failed();
    ran.said(&["none of the 2 images could be read; the first: photos", "b.jpg: is empty"]);
    assert_eq!(bench.names(), ["photos"]);
}

#[test]
fn one_photo_per_class_is_enough() {
    let bench = Bench::new();
    bench.two_colours("photos", 1);
    short_training(&bench, &[]).succeeded().said(&["2 to train, none held out (one of each class), 0 to test"]);
    assert_eq!(bench.rows("bundle/splits.csv").len(), 2);
}

#[test]
fn a_place_below_a_file_is_refused_before_any_work() {
    let bench = Bench::with_photos();
    bench.file("file", "");
    bench.train("photos", &["--out", "file/bundle"]).failed().said(&["error: file"]).did_not_say(&["frozen"]);
    bench
        .run(&["embed", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "gone/f.safetensors"])
        .failed()
        .said(&["error: gone: "]);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    fn forbid(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Modes bind everybody but the system's administrator.
    fn modes_bind(bench: &Bench) -> bool {
        let probe = bench.file("probe", "x");
        forbid(&probe, 0o000);
        let binds = fs::read(&probe).is_err();
        fs::remove_file(probe).unwrap();
        binds
    }

    #[test]
    fn a_pipe_is_written_to_and_not_replaced() {
        use std::os::unix::fs::FileTypeExt;

        let bench = Bench::with_bundle();
        let pipe = bench.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let is_pipe = || fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo();
        let model = ["--model", "resnet20_cifar", "--no-pretrained"];
        for (arguments, expected) in [
            ([&["embed", "photos", "--out", "pipe"], &model[..]].concat(), "__metadata__"),
            (vec!["doctor", "photos", "--list", "pipe"], "path,split,"),
            (vec!["predict", "photos", "--model", "bundle", "--output", "pipe", "--format", "csv"], "path,"),
        ] {
            let reader = std::thread::spawn({
                let pipe = pipe.clone();
                move || fs::read(pipe).unwrap()
            });
            bench.run(&arguments).succeeded();
            assert!(is_pipe(), "{arguments:?}");
            let read = reader.join().unwrap();
            assert!(String::from_utf8_lossy(&read).contains(expected), "{arguments:?}");
        }
        let ran = bench.run(&["eval", "photos", "--model", "bundle", "--report", "pipe", "--overwrite"]).failed();
        ran.said(&["error: pipe: is no file, and a report is a page with a folder beside it"]);
        bench.run(&["predict", "photos", "--model", "bundle", "--explain", "pipe"]).failed().said(&["not a directory"]);
        assert!(is_pipe());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_file_that_stdout_goes_to_is_not_replaced_under_it() {
        let bench = Bench::with_photos();
        let file = fs::OpenOptions::new().append(true).open(bench.file("kept", "first\n")).unwrap();
        let mut command = bench.command(&["doctor", "photos", "--list", "/dev/stdout", "--overwrite"]);
        let output = command.stdout(file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("/dev/stdout: is a file that is open already"), "{said}");
        assert_eq!(bench.read("kept"), "first\n");
    }

    #[test]
    fn a_link_to_a_file_stays_one() {
        let bench = Bench::with_photos();
        bench.file("elsewhere/features", "old");
        symlink("elsewhere/features", bench.path("link")).unwrap();
        let model = ["--model", "resnet20_cifar", "--no-pretrained"];
        bench.run(&[&["embed", "photos", "--out", "link", "--overwrite"], &model[..]].concat()).succeeded();
        assert_eq!(fs::read_link(bench.path("link")).unwrap(), Path::new("elsewhere/features"));
        assert!(fs::read(bench.path("elsewhere/features")).unwrap().len() > 100);
    }

    #[test]
    fn an_unreadable_photo_is_skipped_and_an_unreadable_folder_refused() {
        let bench = Bench::with_photos();
        if !modes_bind(&bench) {
            return;
        }
        forbid(&bench.path("photos/red/000.png"), 0o000);
        short_training(&bench, &[]).succeeded().said(&["000.png: permission denied", "1 image could not be read"]);
        forbid(&bench.path("photos/red"), 0o000);
        let ran = bench.train("photos", &["--out", "other"]).failed();
        forbid(&bench.path("photos/red"), 0o755);
        ran.said(&["red: cannot be read"]);
    }

    #[test]
    fn a_read_only_place_is_refused_before_any_work() {
        let bench = Bench::with_photos();
        if !modes_bind(&bench) {
            return;
        }
        fs::create_dir(bench.path("locked")).unwrap();
        forbid(&bench.path("locked"), 0o555);
        bench
            .train("photos", &["--out", "locked/bundle"])
            .failed()
            .said(&["error: locked: ", "hint: check owner and mode"])
            .did_not_say(&["frozen", ".bundle-"]);
        forbid(&bench.path("locked"), 0o755);
    }

    #[test]
    fn links_are_followed_and_broken_ones_passed_over() {
        let bench = Bench::with_photos();
        symlink(bench.path("photos/red/000.png"), bench.path("photos/red/linked.png")).unwrap();
        symlink("nowhere.png", bench.path("photos/red/broken.png")).unwrap();
        symlink(bench.path("photos"), bench.path("photos/red/circle")).unwrap();
        short_training(&bench, &["--strict"]).succeeded().said(&["note: passed over broken links", "broken.png"]);
    }

    #[test]
    fn a_pipe_named_like_a_photo_does_not_hang_the_program() {
        let bench = Bench::with_bundle();
        assert!(Command::new("mkfifo").arg(bench.path("photos/red/pipe.jpg")).status().unwrap().success());
        bench.train("photos", &["--out", "other", "--epochs", "2"]).succeeded();
        let ran = bench.run(&["predict", "photos/red/pipe.jpg", "--model", "bundle"]).failed();
        ran.said(&["pipe.jpg: is not a regular file"]);
    }

    /// The program, with files limited to 50 KiB: a write beyond fails as on a full disk.
    fn cramped(bench: &Bench, arguments: &[&str]) -> Ran {
        // Without the trap the signal would end the program before it can say anything.
        run(common::in_shell("trap '' XFSZ && ulimit -f 50", &bench.command(arguments)))
    }

    #[test]
    fn a_bundle_that_does_not_fit_is_named_and_leaves_nothing() {
        let bench = Bench::with_photos();
        let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "bundle"];
        cramped(&bench, &arguments).failed().said(&["error: bundle/model.safetensors: "]);
        assert_eq!(bench.names(), ["photos"]);
    }

    #[test]
    fn a_bundle_that_does_not_fit_leaves_the_one_it_was_to_replace() {
        let bench = Bench::with_bundle();
        let before = bench.tensors("bundle/model.safetensors");
        let names = common::names_in(&bench.path("bundle"));
        let arguments = ["train", "photos", "--model", "bundle", "--out", "bundle", "--overwrite", "--seed", "8"];
        cramped(&bench, &arguments).failed().said(&["error: bundle/model.safetensors: "]);
        assert_eq!(before, bench.tensors("bundle/model.safetensors"));
        assert_eq!(common::names_in(&bench.path("bundle")), names);
    }

    #[test]
    fn a_report_that_does_not_fit_is_named_and_leaves_nothing() {
        let bench = Bench::with_bundle();
        let names = bench.names();
        let arguments = ["eval", "photos", "--model", "bundle", "--report", "page.html"];
        cramped(&bench, &arguments).failed().said(&["error: page.html: "]);
        assert_eq!(bench.names(), names);
    }

    #[test]
    fn features_that_do_not_fit_are_named_and_leave_nothing() {
        let bench = Bench::new();
        bench.two_colours("photos", 120);
        let arguments = ["embed", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "f.safetensors"];
        cramped(&bench, &arguments).failed().said(&["error: f.safetensors: "]);
        assert_eq!(bench.names(), ["photos"]);
    }
}
