//! A run that was stopped, at any moment and in any way, goes on to the same bits; and nothing older is lost when something goes wrong.

#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::Bench;

/// Everything that a training draws, in steps that are saved one by one.
const OPTIONS: [&str; 28] = [
    "--train-from",
    "layer3",
    "--freeze-epochs",
    "2",
    "--epochs",
    "5",
    "--batch-size",
    "4",
    "--accumulate",
    "2",
    "--sampler",
    "balanced",
    "--clip-norm",
    "1",
    "--ema",
    "0.9",
    "--mixup",
    "0.2",
    "--batch-norm",
    "train",
    "--augment",
    "flip,color",
    "--drop-path",
    "0.2",
    "--drop-rate",
    "0.2",
    "--checkpoint-minutes",
    "0",
];

/// Longer than a step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn bench() -> Bench {
    let bench = Bench::new();
    bench.two_colours("photos", 20);
    bench
}

fn command(bench: &Bench, out: &str, further: &[&str]) -> Command {
    let model = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", out];
    bench.command(&[&model[..], &OPTIONS, further].concat())
}

fn train(bench: &Bench, out: &str) {
    let output = command(bench, out, &[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Checkpoints of the run for `bundle`, the oldest first.
fn checkpoints(bench: &Bench, bundle: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(bench.path(&format!("{bundle}.unfinished"))) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("epoch-");
    files.retain(named);
    files.sort();
    files
}

/// All that a bundle says of a training but how long it took.
fn content(bench: &Bench, bundle: &str) -> (Vec<u8>, Vec<Vec<String>>, String, String) {
    let mut metrics = bench.rows(&format!("{bundle}/metrics.csv"));
    metrics.iter_mut().for_each(|row| drop(row.pop()));
    let read = |name: &str| bench.read(&format!("{bundle}/{name}"));
    let weights = fs::read(bench.path(&format!("{bundle}/model.safetensors"))).unwrap();
    (weights, metrics, read("splits.csv"), read("config.json"))
}

#[track_caller]
fn assert_same(bench: &Bench, bundle: &str, whole: &str) {
    let [(weights, metrics, splits, config), other] = [bundle, whole].map(|name| content(bench, name));
    assert_eq!((metrics, splits, config), (other.1, other.2, other.3));
    assert!(weights == other.0, "weights differ");
    let left = fs::read_dir(bench.path(&format!("{bundle}.unfinished"))).map(|entries| entries.collect::<Vec<_>>());
    assert!(left.is_err(), "what belongs to the run is gone with it: {left:?}");
}

/// Waits until `count` more checkpoints were written, or the process ended.
fn wait_for_checkpoints(bench: &Bench, child: &mut Child, count: usize) {
    let (start, mut newest) = (Instant::now(), checkpoints(bench, "cut").pop());
    let mut left = count;
    while left > 0 && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(1));
        let now = checkpoints(bench, "cut").pop();
        left -= usize::from(now > newest);
        newest = now.max(newest);
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_goes_on_to_the_same_bits() {
    let bench = bench();
    train(&bench, "whole");
    let mut kills = 0;
    for life in 0.. {
        let goes_on = bench.path("cut.unfinished/run.toml").exists();
        let mut command = if goes_on {
            bench.command(&["train", "--resume", "cut.unfinished", "--checkpoint-minutes", "0"])
        } else {
            command(&bench, "cut", &[])
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        match life {
            // Before the first checkpoint there is no sign to wait for.
            0..4 => std::thread::sleep(Duration::from_millis(40 * life)),
            _ => wait_for_checkpoints(&bench, &mut child, 1 + life as usize % 2),
        }
        std::thread::sleep(Duration::from_millis(life % 7)); // between one checkpoint and the next, and while it is written
        let _ = child.kill();
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(9), "{status:?}");
        kills += 1;
    }
    assert!(kills >= 6, "killed {kills} times only");
    assert_same(&bench, "cut", "whole");
}

#[test]
fn a_run_that_someone_stopped_goes_on_to_the_same_bits() {
    let bench = bench();
    train(&bench, "whole");
    let mut child = command(&bench, "cut", &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_checkpoints(&bench, &mut child, 2);
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("go on with: finetune train --resume cut.unfinished"), "{said}");
    assert!(bench.path("cut/model.safetensors").exists(), "the best so far");
    bench.run(&["train", "--resume", "cut.unfinished"]).succeeded().said(&["resumed after epoch"]);
    assert_same(&bench, "cut", "whole");
}

/// A run that was stopped with three checkpoints.
fn stopped() -> Bench {
    let bench = bench();
    let mut child = command(&bench, "cut", &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_checkpoints(&bench, &mut child, 4);
    child.kill().unwrap();
    child.wait().unwrap();
    // The last few, and one more that they were to be without.
    assert!((3..=4).contains(&checkpoints(&bench, "cut").len()));
    bench
}

#[test]
fn a_damaged_checkpoint_gives_way_to_an_older_one_and_without_any_nothing_is_lost() {
    let bench = stopped();
    let files = checkpoints(&bench, "cut");
    let whole = fs::read(&files[files.len() - 1]).unwrap();
    fs::write(&files[files.len() - 1], &whole[..whole.len() / 2]).unwrap();
    fs::copy(bench.path("cut.unfinished/run.toml"), bench.path("kept.toml")).unwrap();
    let newest = files[files.len() - 1].file_name().unwrap().to_string_lossy().into_owned();
    bench.run(&["train", "--resume", "cut.unfinished"]).succeeded().said(&[&newest, "damaged", "the one before it"]);
    train(&bench, "whole");
    assert_same(&bench, "cut", "whole");

    let bench = stopped();
    let files = checkpoints(&bench, "cut");
    files.iter().for_each(|file| fs::write(file, "no checkpoint").unwrap());
    let ran = bench.run(&["train", "--resume", "cut.unfinished"]).failed();
    ran.said(&["no checkpoint can be read", "hint: begin anew: finetune train --config cut.unfinished/run.toml"]);
    assert_eq!(checkpoints(&bench, "cut"), files);
}

#[test]
fn a_checkpoint_that_does_not_fit_on_the_disk_ends_the_run_and_leaves_the_others() {
    let bench = bench();
    train(&bench, "whole");
    // Weights, their averages and momentum fit below this size, with a copy of the best weights besides they do not.
    let limited = command(&bench, "cut", &["--no-map-cache"]);
    let output = common::in_shell("trap '' XFSZ && ulimit -f 2900", &limited).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected = ["the checkpoint cannot be written", "make room", "--resume cut.unfinished"];
    assert!(expected.iter().all(|text| said.contains(text)), "{said}");
    assert!(!checkpoints(&bench, "cut").is_empty());
    bench.run(&["train", "--resume", "cut.unfinished"]).succeeded();
    assert_same(&bench, "cut", "whole");
}

#[test]
fn a_run_goes_on_as_it_was_asked_for_or_not_at_all() {
    let bench = stopped();
    let files = checkpoints(&bench, "cut");
    let resume = |further: &[&str]| bench.run(&[&["train", "--resume", "cut.unfinished"], further].concat());
    resume(&["--lr", "0.5"]).failed().said(&["are of a run with other settings", "hint: give --resume without"]);
    resume(&["--out", "elsewhere"]).exited(2);
    bench.picture("photos/red/more.png", common::RED, 40);
    resume(&[]).failed().said(&["other settings, images, classes or weights"]);
    fs::remove_file(bench.path("photos/red/more.png")).unwrap();
    let lock = fs::File::create(bench.path("cut.unfinished/lock")).unwrap();
    lock.try_lock().unwrap();
    resume(&[]).failed().said(&["another process is training this run"]);
    drop(lock);
    assert_eq!(checkpoints(&bench, "cut"), files, "nothing of it is lost");
    let mut from_elsewhere = bench.command(&["train", "--resume", "../cut.unfinished", "--threads", "1"]);
    let output = from_elsewhere.current_dir(bench.path("photos")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    bench.run(&["train", "--resume", "photos"]).failed().said(&["photos: holds no stopped run"]);
}

#[test]
fn a_stopped_run_is_in_the_way_of_another_for_the_same_bundle() {
    let bench = stopped();
    let output = command(&bench, "cut", &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("holds a run that was stopped"), "{said}");
    assert!(said.contains("--resume cut.unfinished") && said.contains("--overwrite"), "{said}");
    let lock = fs::File::create(bench.path("cut.unfinished/lock")).unwrap();
    lock.try_lock().unwrap();
    let said = String::from_utf8(command(&bench, "cut", &[]).output().unwrap().stderr).unwrap();
    assert!(said.contains("another process is training this run") && !said.contains("--resume"), "{said}");
    drop(lock);
    assert!(!checkpoints(&bench, "cut").is_empty());
    let output = command(&bench, "cut", &["--overwrite"]).output().unwrap();
    assert!(output.status.success());
    train(&bench, "whole");
    assert_same(&bench, "cut", "whole");
}
