//! The program on real photos and real weights; run by `scripts/check_real_data.sh`, which unpacks them.
//!
//! `REAL_DATA` holds `cifar10-test`, `cifar100-20`, `hymenoptera`; `REAL_WEIGHTS` the CIFAR-10 weights of ResNet-20 and
//! ResNet-32 by akamaster (PyTorch pickles of the legacy form).

use std::path::PathBuf;
use std::process::Command;

const NEEDED: &str = "needs real data: scripts/check_real_data.sh";

fn folder(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(variable).expect(NEEDED))
}

fn weights(layers: u32) -> PathBuf {
    let file = match layers {
        20 => "resnet20-12fca82f.th",
        _ => "resnet32-d509ac18.th",
    };
    folder("REAL_WEIGHTS").join(file)
}

/// Runs the program and gives what it printed.
fn finetune(change: impl FnOnce(&mut Command) -> &mut Command) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finetune"));
    command.env("HF_HUB_OFFLINE", "1");
    let output = change(&mut command).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    println!("{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn top1(evaluation: &str) -> f64 {
    let evaluation: serde_json::Value = serde_json::from_str(evaluation).unwrap();
    println!("{evaluation}");
    evaluation["top1"].as_f64().unwrap()
}

/// Errors of published weights on CIFAR-10's 10,000 test images.
fn cifar10_errors(layers: u32, precision: &str) -> i64 {
    let images = folder("REAL_DATA").join("cifar10-test");
    let model = format!("resnet{layers}_cifar");
    let evaluation = finetune(|command| {
        command.arg("eval").arg(images).args(["--model", &model, "--json", "--precision", precision]);
        command.arg("--weights").arg(weights(layers))
    });
    ((1.0 - top1(&evaluation)) * 10_000.0).round() as i64
}

#[test]
#[ignore = "needs real data: scripts/check_real_data.sh"]
fn published_cifar10_weights_make_the_published_errors() {
    for (layers, published) in [(20, 827), (32, 737)] {
        let errors = cifar10_errors(layers, "f32");
        assert!((errors - published).abs() <= 3, "ResNet-{layers}: {errors} errors, published {published}");
        let errors = cifar10_errors(layers, "bf16");
        assert!((errors - published).abs() <= 10, "ResNet-{layers} in bf16: {errors} errors, published {published}");
    }
}

#[test]
#[ignore = "needs real data: scripts/check_real_data.sh"]
fn built_in_weights_reach_what_their_card_says() {
    let images = folder("REAL_DATA").join("cifar10-test");
    let model = "resnet20_cifar.embedded";
    let evaluation = finetune(|command| command.arg("eval").arg(images).args(["--model", model, "--json"]));
    let card: serde_json::Value =
        serde_json::from_str(&finetune(|command| command.args(["models", model, "--json"]))).unwrap();
    let stated = card["top1"].as_f64().unwrap();
    // Another instruction set may decide one image or the other differently.
    assert!((top1(&evaluation) - stated).abs() <= 3e-4 && stated >= 0.9, "the card says {stated}");
}

/// Top-1 on the test images of 20 CIFAR-100 classes of a head trained with default options on ResNet-20's features.
fn cifar100_top1(options: &[&str]) -> f64 {
    let data = folder("REAL_DATA").join("cifar100-20");
    let out = tempfile::tempdir().unwrap();
    let bundle = out.path().join("bundle");
    finetune(|command| {
        command.arg("train").arg(&data).args(["--model", "resnet20_cifar", "--weights"]).arg(weights(20));
        command.args(options).arg("--out").arg(&bundle)
    });
    top1(&finetune(|command| command.arg("eval").arg(&data).args(["--json", "--model"]).arg(&bundle)))
}

#[test]
#[ignore = "needs real data: scripts/check_real_data.sh"]
fn a_new_head_learns_cifar100_classes_from_cifar10_features() {
    let plain = cifar100_top1(&[]);
    assert!(plain >= 0.54, "{plain}");
    let mirrored = cifar100_top1(&["--flip"]);
    assert!(mirrored >= 0.56, "{mirrored}");
}

#[test]
#[ignore = "needs real data: scripts/check_real_data.sh"]
fn ants_and_bees_run_end_to_end() {
    let data = folder("REAL_DATA").join("hymenoptera");
    let out = tempfile::tempdir().unwrap();
    let bundle = out.path().join("bundle");
    finetune(|command| {
        command.arg("train").arg(&data).args(["--model", "resnet18", "--no-pretrained", "--out"]).arg(&bundle)
    });
    let photo = data.join("val/bees/1032546534_06907fe3b3.jpg");
    let line = finetune(|command| command.arg("predict").arg(photo).args(["--json", "--model"]).arg(&bundle));
    let prediction: serde_json::Value = serde_json::from_str(&line).unwrap();
    let labels = prediction["predictions"].as_array().unwrap().iter().map(|p| p["label"].as_str().unwrap());
    let mut labels: Vec<&str> = labels.collect();
    labels.sort_unstable();
    assert_eq!(labels, ["ants", "bees"]);
}
