//! Disks that are too full for a bundle, and those that become so while it is trained: small ones of their own, in memory, where the system
//! lets a test have them.

#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use candle_finetune::map_store::MapShape;
use candle_resnet::plan::Precision;
use common::{Bench, Ran};
use indicatif::DecimalBytes;
use serde_json::Value;

/// The program, which trains on photos, with a disk of `kilobytes` at `disk`, which goes with it; nothing where that is forbidden.
fn with_disk(bench: &Bench, kilobytes: u64, further: &[&str]) -> Option<Command> {
    let train = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained"];
    with_disk_after(bench, (kilobytes, "true"), &[&train[..], further].concat())
}

/// The program with such a disk, and what a shell does before on it.
fn with_disk_after(bench: &Bench, (kilobytes, before): (u64, &str), arguments: &[&str]) -> Option<Command> {
    fs::create_dir_all(bench.path("disk")).unwrap();
    let before = format!("mount -t tmpfs -o size={kilobytes}k,nr_inodes=100 tmpfs disk && {before}");
    let alone = |as_whom: &str, command: &Command| {
        let mut unshare = Command::new("unshare");
        unshare.arg(as_whom);
        common::behind(unshare, &common::in_shell(&before, command))
    };
    let mut trial = Command::new("true");
    trial.current_dir(bench.root());
    let may = |as_whom: &&str| alone(as_whom, &trial).output().is_ok_and(|output| output.status.success());
    // As root, or as root of a name space of one's own.
    let Some(as_whom) = ["-m", "-rm"].into_iter().find(may) else {
        eprintln!("no disk can be made here");
        return None;
    };
    Some(alone(as_whom, &bench.command(arguments)))
}

/// The program's disk, which can be looked at through this as long as it is open.
fn disk_of(child: &Child, bench: &Bench) -> (File, PathBuf) {
    let disk = bench.path("disk").canonicalize().unwrap();
    let disk = File::open(format!("/proc/{}/root{}", child.id(), disk.display())).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&disk));
    (disk, path.into())
}

/// Starts the program, which tells of its epochs as JSON, and leaves it at one of the first: it waits, as nobody reads on, and all epochs are
/// more than a pipe holds. Gives what it tells from then on.
fn at_an_epoch(command: &mut Command) -> (Child, impl Iterator<Item = Value>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert!(events.by_ref().any(|event| event["event"] == "epoch"), "no epoch");
    (child, events)
}

/// What is told beside epochs, to the end.
fn others(events: impl Iterator<Item = Value>) -> Vec<Value> {
    let (epochs, others): (Vec<Value>, Vec<Value>) = events.partition(|event| event["event"] == "epoch");
    let bytes: usize = epochs.iter().map(|event| event.to_string().len()).sum();
    assert!(bytes > 1 << 17, "a pipe may hold all epochs: {bytes} bytes");
    others
}

#[test]
fn a_disk_that_is_too_full_is_found_before_the_work() {
    let bench = Bench::with_photos();
    let Some(command) = with_disk(&bench, 1000, &["--no-report", "--out", "disk/bundle"]) else { return };
    let ran = common::run(command).failed().did_not_say(&["all frozen but"]);
    ran.said(&[
        "error: disk/bundle: the bundle takes about 1.2",
        &format!("MB, and {} are free: No space left on device", DecimalBytes(1000 << 10)),
        "hint: make room, or choose an --out",
    ]);
}

#[test]
fn a_run_that_would_go_on_where_the_disk_is_too_full_is_to_be_moved() {
    let bench = Bench::with_photos();
    bench.train("photos", &["--train-from", "layer3", "--epochs", "1", "--out", "bundle"]).succeeded();
    fs::create_dir(bench.path("half.unfinished")).unwrap();
    fs::rename(bench.path("bundle/run.toml"), bench.path("half.unfinished/run.toml")).unwrap();
    let (disk, resume) = ((1000, "cp -r half.unfinished disk"), ["train", "--resume", "disk/half.unfinished"]);
    let Some(command) = with_disk_after(&bench, disk, &resume) else { return };
    let ran = common::run(command).failed().did_not_say(&["--out"]);
    ran.said(&["error: disk/half: the bundle takes about", "hint: make room, or move the folder disk/half.unfinished"]);
}

#[test]
fn a_disk_that_someone_fills_meanwhile_has_room_for_the_bundle() {
    const KILOBYTES: u64 = 6000;
    let bench = Bench::with_photos();
    let options = ["--epochs", "700", "--log-format", "json", "--out", "disk/bundle"];
    let Some(mut command) = with_disk(&bench, KILOBYTES, &options) else { return };
    let (mut child, events) = at_an_epoch(&mut command);
    let (_open, disk) = disk_of(&child, &bench);
    let mut theirs = File::create(disk.join("theirs")).unwrap();
    while theirs.write_all(&[0; 4096]).is_ok() {}
    assert!(theirs.metadata().unwrap().len() < (KILOBYTES << 10) - 2_000_000, "the bundle's room is taken");
    let others = others(events);
    assert!(child.wait().unwrap().success(), "{others:#?}");
    assert!(disk.join("bundle/report.html").exists(), "{others:#?}");
    let bundle = disk.join("bundle").to_string_lossy().into_owned();
    bench.run(&["predict", "photos/red/000.png", "--model", &bundle]).succeeded().printed(&["red"]);
}

#[test]
fn a_tail_whose_bundle_lies_among_temporary_files_can_go_on() {
    let bench = Bench::with_photos();
    fs::create_dir(bench.path("tmp")).unwrap();
    let options = ["--train-from", "layer3", "--epochs", "2", "--freeze-epochs", "1000", "--checkpoint-minutes", "0"];
    let further = ["--log-format", "json", "--out", "disk", "--overwrite"];
    let Some(mut command) = with_disk(&bench, 6000, &[&options[..], &further].concat()) else { return };
    let (mut child, events) = at_an_epoch(command.env("TMPDIR", bench.path("tmp")));
    let (_open, disk) = disk_of(&child, &bench);
    // No folder can be made: files without content are too many.
    let filled = (0..).find(|number| File::create(disk.join(format!("theirs-{number}"))).is_err());
    assert!(filled.is_some());
    let others = others(events);
    assert_eq!(child.wait().unwrap().code(), Some(1), "{others:#?}");
    let [kept] = <[String; 1]>::try_from(common::names_in(&bench.path("tmp"))).unwrap();
    let [.., unfinished, error] = &others[..] else { panic!("{others:#?}") };
    assert_eq!(unfinished["folder"], "disk.unfinished");
    let (message, hint) = (error["message"].as_str().unwrap(), error["hint"].as_str().unwrap());
    assert!(message.ends_with(&format!("; what this run made is in tmp/{kept}")), "{message}");
    assert!(hint.contains("temporary files do not last"), "{hint}");
    bench.run(&["predict", "photos/red/000.png", "--model", &format!("tmp/{kept}")]).succeeded();
    bench.run(&["train", "--resume", "disk.unfinished"]).succeeded().said(&["resumed after epoch"]);
}

#[test]
fn a_file_longer_than_the_process_may_write_is_not_reserved() {
    let bench = Bench::with_photos();
    // More than the weights take; less than all files do, and than so many epochs would.
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "bundle"];
    let command = bench.command(&[&arguments[..], &["--epochs", "1000000", "--patience", "2"]].concat());
    common::run(common::in_shell("ulimit -f 1200", &command)).succeeded();
}

#[test]
fn maps_that_the_disk_has_no_room_for_are_told_of_and_computed_in_each_epoch() {
    const KILOBYTES: u64 = 320;
    let bench = Bench::with_photos();
    let Some(command) = with_disk(&bench, KILOBYTES, &OPTIONS) else { return };
    let ran = common::run(command).succeeded();
    assert_eq!(maps_to_compute(&ran), 0);
    let (maps, free) = (DecimalBytes(map_bytes(16)), DecimalBytes(KILOBYTES << 10));
    ran.said(&[
        &format!("disk/maps: the maps take {maps}, and {free} are free: maps at"),
        "computed anew in each epoch",
    ]);
}

#[test]
fn maps_to_validate_with_have_the_room_that_those_to_train_on_leave() {
    let bench = Bench::new();
    ["train", "val"].iter().for_each(|split| bench.two_colours(&format!("photos/{split}"), 8));
    let Some(command) = with_disk(&bench, (3 * map_bytes(16) / 2) >> 10, &OPTIONS) else { return };
    assert_eq!(maps_to_compute(&common::run(command).succeeded()), 16);
}

/// A tail whose maps are kept on the disk.
const OPTIONS: [&str; 8] =
    ["--train-from", "layer3", "--epochs", "1", "--map-cache", "disk/maps", "--log-format", "json"];

fn maps_to_compute(ran: &Ran) -> u64 {
    let estimate = ran.json_lines().into_iter().find(|event| event["event"] == "estimate").unwrap();
    estimate["maps"].as_u64().unwrap()
}

/// Of what the last stage is given of so many images.
fn map_bytes(images: usize) -> u64 {
    MapShape { rows: images, map: (32, 16, 16), precision: Precision::F32 }.bytes()
}
