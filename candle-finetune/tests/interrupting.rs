//! Ctrl-C, SIGTERM and SIGHUP: the best so far is kept, and before there is any, nothing is left behind.

#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use common::Bench;

/// Starts the program, waits until a line of stderr has `sign`, interrupts it, and gives exit code and stderr.
fn interrupted_at(sign: &str, command: &mut Command) -> (Option<i32>, String) {
    interrupted_after(sign, || {}, command)
}

/// The same after some `work` there.
fn interrupted_after(sign: &str, work: impl Fn(), command: &mut Command) -> (Option<i32>, String) {
    let work = |child: &Child| {
        work();
        interrupt(child);
    };
    watched(sign, work, command)
}

/// Starts the program, does some `work` when a line of stderr has `sign`, and gives exit code and stderr.
fn watched(sign: &str, work: impl Fn(&Child), command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut sent = false;
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        said += &(line.unwrap() + "\n");
        if !sent && said.contains(sign) {
            work(&child);
            sent = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(sent, "never said `{sign}`: {said}");
    assert!(!said.contains("panicked"), "{said}");
    (status.code(), said)
}

/// Heeds SIGHUP, though the tests themselves may run under `nohup`.
fn heeding(command: &mut Command) -> &mut Command {
    let heed = || {
        // SAFETY: between fork and exec, where this may be called.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: it calls nothing but that.
    unsafe { command.pre_exec(heed) }
}

fn interrupt(child: &Child) {
    send("-INT", child);
}

fn send(signal: &str, child: &Child) {
    let status = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

#[test]
fn interrupted_epochs_keep_the_best_so_far() {
    let bench = Bench::with_photos();
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "bundle"];
    let mut command = bench.command(&[&arguments[..], &["--epochs", "1000000"]].concat());
    let (code, said) = interrupted_at("train loss", &mut command);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stopped early; this is the best so far"), "{said}");
    let rows = bench.rows("bundle/metrics.csv").len();
    assert!((1..1_000_000).contains(&rows), "{rows}");
    bench.run(&["predict", "photos/red/000.png", "--model", "bundle"]).succeeded().printed(&["red"]);
}

#[test]
fn a_bundle_whose_place_was_taken_meanwhile_stays_beside_it() {
    let bench = Bench::with_photos();
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "out/bundle"];
    let mut command = bench.command(&[&arguments[..], &["--epochs", "1000000"]].concat());
    let take = || drop(bench.file("out/bundle/theirs", "in the way"));
    let (code, said) = interrupted_after("train loss", take, &mut command);
    assert_eq!(code, Some(1), "{said}");
    let [kept, _] = <[String; 2]>::try_from(common::names_in(&bench.path("out"))).unwrap();
    let error = "error: out/bundle: was made by somebody else meanwhile; what this run made is in ";
    assert!(said.contains(&format!("{error}out/{kept}\nhint: ")), "{said}");
    assert_eq!(common::names_in(&bench.path("out/bundle")), ["theirs"]);
    std::fs::rename(bench.path(&format!("out/{kept}")), bench.path("mine")).unwrap();
    bench.run(&["predict", "photos/red/000.png", "--model", "mine"]).succeeded().printed(&["red"]);
}

#[test]
fn a_bundle_whose_folder_went_meanwhile_is_kept_among_temporary_files() {
    let bench = Bench::with_photos();
    std::fs::create_dir(bench.path("tmp")).unwrap();
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "out/bundle"];
    let mut command = bench.command(&[&arguments[..], &["--epochs", "1000000"]].concat());
    let take = || {
        std::fs::remove_dir_all(bench.path("out")).unwrap();
        bench.file("out", "in the way");
    };
    let (code, said) = interrupted_after("train loss", take, command.env("TMPDIR", bench.path("tmp")));
    assert_eq!(code, Some(1), "{said}");
    let kept = common::names_in(&bench.path("tmp"));
    let [kept] = <[String; 1]>::try_from(kept).unwrap();
    assert!(
        said.contains("error: out: ") && said.contains(&format!("; what this run made is in tmp/{kept}\nhint: ")),
        "{said}"
    );
    bench.run(&["predict", "photos/red/000.png", "--model", &format!("tmp/{kept}")]).succeeded().printed(&["red"]);
}

#[test]
fn a_tail_whose_place_was_taken_meanwhile_goes_on_only_where_it_was_stopped_and_replaces_nothing() {
    let bench = Bench::new();
    bench.two_colours("photos", 40);
    let take = || drop(bench.file("out/bundle/config.json", "theirs"));
    let kept_beside = |said: &str| {
        let names = common::names_in(&bench.path("out"));
        let kept = names.iter().find(|name| name.starts_with(".bundle-")).unwrap();
        let error = "error: out/bundle: was made by somebody else meanwhile; what this run made is in ";
        assert!(said.contains(&format!("{error}out/{kept}\nhint: ")), "{said}");
        assert_eq!(bench.read("out/bundle/config.json"), "theirs");
        bench.run(&["predict", "photos/red/000.png", "--model", &format!("out/{kept}")]).succeeded();
        names
    };
    let tail = |epochs: &str| {
        let options = ["--batch-size", "8", "--checkpoint-minutes", "0", "--out", "out/bundle", "--epochs", epochs];
        let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--train-from", "layer3"];
        bench.command(&[&arguments[..], &["--freeze-epochs", "2"], &options].concat())
    };
    let (code, said) = watched("head 2/2", |_| take(), &mut tail("4"));
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("--resume"), "{said}");
    assert_eq!(kept_beside(&said).len(), 2, "no unfinished run");
    std::fs::remove_dir_all(bench.path("out")).unwrap();

    let (code, said) = interrupted_after("epoch      1/100000", take, &mut tail("100000"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--resume out/bundle.unfinished"), "{said}");
    assert_eq!(kept_beside(&said).len(), 3);
    let resumed = bench.run(&["train", "--resume", "out/bundle.unfinished"]).failed();
    resumed.said(&["error: out/bundle: was made by somebody else since the run began", "hint: give it another name"]);
    assert_eq!(bench.read("out/bundle/config.json"), "theirs");
}

/// Trains the last stage, with a batch for each image of an epoch that nobody has time for.
fn long_epochs(bench: &Bench) -> Command {
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--train-from", "layer3"];
    let options = ["--freeze-epochs", "2", "--epochs", "100000", "--batch-norm", "frozen", "--lr", "1e-9"];
    bench.command(&[&arguments[..], &options, &["--out", "bundle"]].concat())
}

#[test]
fn an_interrupted_tail_keeps_its_best_epoch() {
    let bench = Bench::with_photos();
    let (code, said) = interrupted_at("val loss", long_epochs(&bench).arg("--batch-size").arg("8"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stopped early; this is the best so far"), "{said}");
    assert!(!bench.path("bundle/neighbours.safetensors").exists(), "who wants an end waits for no index");
    bench.run(&["predict", "photos/red/000.png", "--model", "bundle"]).succeeded();
}

#[test]
fn a_tail_that_is_interrupted_in_its_first_epoch_leaves_the_head_that_it_started_from() {
    let bench = Bench::new();
    bench.two_colours("photos", 200);
    let (code, said) = interrupted_at("head 2/2", long_epochs(&bench).arg("--batch-size").arg("2"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("of the head alone") && !said.contains("epoch      1/"), "{said}");
    let phases: Vec<String> = bench.rows("bundle/metrics.csv").iter().map(|row| row[0].clone()).collect();
    assert_eq!(phases, ["head", "head"]);
}

#[test]
fn whoever_ends_the_process_gets_the_best_so_far_and_a_run_that_can_go_on() {
    for signal in ["-TERM", "-HUP"] {
        let bench = Bench::with_photos();
        // Behind the head, from which nothing goes on; `timeout` sends it twice.
        let end = |child: &Child| (0..2).for_each(|_| send(signal, child));
        let mut command = long_epochs(&bench);
        let (code, said) = watched("epoch      1/100000", end, heeding(command.arg("--batch-size").arg("8")));
        assert_eq!(code, Some(0), "{signal}: {said}");
        assert_eq!(said.matches("stopping\n").count(), 1, "{signal}: {said}");
        assert!(said.contains("stopped early; this is the best so far"), "{signal}: {said}");
        assert!(said.contains("go on with: finetune train --resume bundle.unfinished"), "{signal}: {said}");
        bench.run(&["predict", "photos/red/000.png", "--model", "bundle"]).succeeded();
    }
}

#[test]
fn a_terminal_that_closes_stops_nothing_under_nohup() {
    let bench = Bench::with_photos();
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--train-from", "layer3"];
    let nohup = bench.command(&[&arguments[..], &["--epochs", "200", "--out", "bundle"]].concat());
    let hang_up = |child: &Child| send("-HUP", child);
    let (code, said) = watched("val loss", hang_up, &mut common::in_shell("trap '' HUP", &nohup));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("epoch 200/200") && !said.contains("stopped early"), "{said}");
}

#[test]
fn interrupted_feature_extraction_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.two_colours("photos", 400);
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained"];
    let (code, said) = interrupted_at("all frozen but", &mut bench.command(&arguments));
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(bench.names(), ["photos"]);
}

#[test]
fn an_interrupted_evaluation_prints_no_numbers() {
    let bench = Bench::new();
    bench.two_colours("photos", 400);
    bench.model_folder("model", None, 2);
    let mut command = bench.command(&["eval", "photos", "--model", "model"]);
    let (code, said) = interrupted_at("folders are taken in alphabetical order", &mut command);
    assert_eq!(code, Some(130), "{said}");
}

#[test]
fn a_second_interrupt_stops_at_once_and_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.two_colours("photos", 400);
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained"];
    let mut command = bench.command(&arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("all frozen but") || line.contains("again to stop at once") {
            interrupt(&child);
        }
        said += &(line + "\n");
    }
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("again to stop at once"), "{said}");
    assert_eq!(bench.names(), ["photos"]);
}
