//! Disks that are too full for a bundle, and those that become so while it is trained: small ones of their own, in memory, where the system
//! lets a test have them.

#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::Bench;

/// The program, which trains on photos, with a disk of `kilobytes` at `disk`, which goes with it; nothing where that is forbidden.
fn with_disk(bench: &Bench, kilobytes: usize, further: &[&str]) -> Option<Command> {
    fs::create_dir_all(bench.path("disk")).unwrap();
    let mount = format!("mount -t tmpfs -o size={kilobytes}k tmpfs disk");
    let alone = |command: Command| {
        let mut unshare = Command::new("unshare");
        unshare.arg("-rm");
        common::behind(unshare, &common::in_shell(&mount, &command))
    };
    let mut trial = Command::new("true");
    trial.current_dir(bench.root());
    if !alone(trial).status().is_ok_and(|status| status.success()) {
        eprintln!("no disk can be made here");
        return None;
    }
    let train = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained"];
    Some(alone(bench.command(&[&train[..], further].concat())))
}

/// The program's disk, which can be looked at through this as long as it is open.
fn disk_of(child: &Child, bench: &Bench) -> (File, PathBuf) {
    let disk = bench.path("disk").canonicalize().unwrap();
    let disk = File::open(format!("/proc/{}/root{}", child.id(), disk.display())).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&disk));
    (disk, path.into())
}

#[test]
fn a_disk_that_is_too_full_is_found_before_the_work() {
    let bench = Bench::with_photos();
    let Some(command) = with_disk(&bench, 1000, &["--out", "disk/bundle"]) else { return };
    let ran = common::run(command).failed().did_not_say(&["all frozen but"]);
    ran.said(&[
        "error: disk: the bundle takes about 1.1",
        "MB: No space left on device",
        "hint: make room, or choose an --out",
    ]);
}

#[test]
fn a_disk_that_someone_fills_meanwhile_has_room_for_the_bundle() {
    let bench = Bench::with_photos();
    let Some(mut command) = with_disk(&bench, 3000, &["--epochs", "1000000", "--out", "disk/bundle"]) else { return };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = lines.by_ref().find(|line| line.contains("train loss")).unwrap();
    let (_open, disk) = disk_of(&child, &bench);
    let mut theirs = File::create(disk.join("theirs")).unwrap();
    while theirs.write_all(&[0; 4096]).is_ok() {}
    assert!(theirs.metadata().unwrap().len() < 2_000_000, "the bundle's room is taken");
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    said.extend(lines);
    assert!(child.wait().unwrap().success(), "{said}");
    let bundle = disk.join("bundle").to_string_lossy().into_owned();
    bench.run(&["predict", "photos/red/000.png", "--model", &bundle]).succeeded().printed(&["red"]);
}

#[test]
fn maps_that_the_disk_has_no_room_for_are_told_of_and_computed_in_each_epoch() {
    let bench = Bench::with_photos();
    let options = ["--train-from", "layer3", "--epochs", "1", "--map-cache", "disk/maps", "--log-format", "json"];
    let Some(command) = with_disk(&bench, 300, &options) else { return };
    let ran = common::run(command).succeeded();
    let estimate = ran.json_lines().into_iter().find(|event| event["event"] == "estimate").unwrap();
    assert_eq!(estimate["maps"], 0);
    ran.said(&["disk/maps: the maps take 524.29 kB, and 307.20 kB are free: maps at", "computed anew in each epoch"]);
}
