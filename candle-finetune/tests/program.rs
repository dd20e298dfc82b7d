//! The program's manners: names, summaries, devices, wrong arguments, closed pipes.

mod common;

use std::process::{Command, Stdio};

use common::{Bench, RED, run};
use serde_json::json;

#[test]
fn models_are_listed_with_their_size_and_licence() {
    let bench = Bench::new();
    let ran = bench.run(&["models"]).succeeded();
    let line = |name: &str| ran.out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    for text in ["11.69 M", "224", "69.7", "= resnet18"] {
        assert!(line("resnet18.tv_in1k ").contains(text), "{}", line("resnet18.tv_in1k "));
    }
    assert!(line("resnet20_cifar ").contains("0.27 M"), "{}", line("resnet20_cifar "));
    assert!(line("name").contains("licence"));
}

#[test]
fn models_without_commercial_use_say_so() {
    let bench = Bench::new();
    let listed = bench.run(&["models", "swsl"]).succeeded();
    assert!(listed.out.lines().skip(1).all(|line| line.contains("cc-by-nc-4.0, non-commercial")), "{listed:?}");
    bench.run(&["models", "bamboo"]).succeeded().printed(&["not stated, features only: no classifier"]);
}

#[test]
fn models_as_json_hold_every_field_of_their_card() {
    let bench = Bench::new();
    let lines = bench.run(&["models", "--json"]).succeeded().json_lines();
    let named = |name: &str| lines.iter().find(|line| line["name"] == name).unwrap();
    let card = named("resnet50.tv_in1k");
    for (field, value) in [
        ("repository", json!("timm/resnet50.tv_in1k")),
        ("revision", json!(null)),
        ("input_size", json!(224)),
        ("mean", json!([0.485, 0.456, 0.406])),
        ("parameters", json!(25_557_032)),
        ("macs", json!(4_089_184_256_u64)),
        ("top1", json!(0.7613)),
        ("top1_source", json!("torchvision 0.29.2")),
        ("aliases", json!(["resnet50", "ResNet50_Weights.IMAGENET1K_V1", "tv_resnet50"])),
        ("default", json!(true)),
        ("non_commercial", json!(false)),
    ] {
        assert_eq!(card[field], value, "{field}");
    }
    assert_eq!(named("resnet18.fb_ssl_yfcc100m_ft_in1k")["non_commercial"], true);
    assert_eq!(named("microsoft/resnet-50")["stands_for"], "hf-hub:microsoft/resnet-50");
    assert_eq!(named("resnet20_cifar")["parameters"], 269_722);
    let cards = lines.iter().filter(|line| line["file"] == "model.safetensors").count();
    assert_eq!(cards, 151);
}

#[test]
fn models_are_found_by_their_other_names() {
    let bench = Bench::new();
    let names = bench.run(&["models", "--names", "gluon_resnet50_v1d"]).succeeded();
    assert_eq!(names.out, "resnet50d.gluon_in1k\n");
}

#[test]
fn verified_models_say_by_what_and_how_near() {
    let bench = Bench::new();
    let ran = bench.run(&["models", "--verified", "resnet50.tv2"]).succeeded();
    ran.printed(&["equal  timm 1.0.31, PyTorch 2.15; torchvision 0.29.2, PyTorch 2.15"])
        .said(&["weights by formula; pixels beside torchvision 0.29.2, Pillow 13.0.0"]);
    let proofs = bench.run(&["models", "--verified", "--json"]).succeeded().json_lines();
    let of = |name: &str| proofs.iter().filter(|proof| proof["name"] == name).collect::<Vec<_>>();
    assert_eq!(of("senet154.gluon_in1k").len(), 1);
    let proof = of("resnet50.tv2_in1k")[0];
    assert_eq!(proof["reference"], "timm 1.0.31, PyTorch 2.15, formula weights");
    assert!(proof["trainable"].as_f64().unwrap() < 1e-5 && proof["frozen"].as_f64().unwrap() < 1e-5, "{proof}");
    // What only the Hub can tell is not listed.
    assert!(of("microsoft/resnet-50").is_empty());
}

#[test]
fn every_listed_name_has_a_summary() {
    let bench = Bench::new();
    let names = bench.run(&["models", "--names", "cifar"]).succeeded().out;
    assert_eq!(names.lines().count(), 6);
    for name in names.lines().chain(["resnet18", "resnext50_32x4d.tv_in1k", "timm/resnet34.tv_in1k"]) {
        bench.run(&["summary", name]).succeeded().printed(&["ResNet(\n"]);
    }
}

#[test]
fn a_summary_begins_as_torchvision_prints_the_network() {
    let bench = Bench::new();
    let ran = bench.run(&["summary", "resnet18"]).succeeded();
    // What `print(torchvision.models.resnet18())` shows.
    let expected = include_str!("../../candle-resnet/tests/data/resnet18_tree.txt");
    assert!(ran.out.starts_with(expected), "{}", ran.out);
    let five = bench.run(&["summary", "resnet18", "--classes", "5", "--input-size", "64"]).succeeded();
    five.printed(&["(fc): Linear(in_features=512, out_features=5, bias=True)"]);
    bench.run(&["summary", "resnet18", "--classes", "0"]).exited(2);
}

#[test]
fn a_bundle_has_a_summary_with_its_own_classes() {
    let bench = Bench::with_bundle();
    bench.run(&["summary", "bundle"]).succeeded().printed(&["(fc): Linear(in_features=64, out_features=2, bias=True)"]);
}

#[test]
fn an_unknown_name_suggests_the_nearest() {
    let bench = Bench::with_photos();
    bench.run(&["train", "photos", "--model", "resnet-50"]).failed().said(&[
        "error: no model named `resnet-50`",
        "hint: did you mean `resnet50`",
        "`finetune models` lists them all",
    ]);
    bench.run(&["predict", "photos/red/000.png", "--model", "zebra"]).failed().said(&["hint: `finetune models` lists"]);
    bench.run(&["fetch", "hf-hub:nonsense"]).failed().said(&["no model named `hf-hub:nonsense`"]);
    bench.run(&["summary", "resnet188"]).failed().said(&["did you mean `resnet18`"]);
}

#[test]
fn a_network_that_nobody_trained_says_what_to_do() {
    let bench = Bench::with_photos();
    bench.run(&["train", "photos", "--model", "resnet20_cifar"]).failed().said(&[
        "error: there are no pretrained weights named `resnet20_cifar`",
        "hint: there is `resnet20_cifar.embedded`; or give a file of them with --weights FILE",
    ]);
    assert_eq!(bench.names(), ["photos"]);
}

#[test]
fn a_weights_file_beside_a_folder_is_one_too_many() {
    let bench = Bench::with_bundle();
    let weights = ["--weights", "bundle/model.safetensors"];
    bench.run(&[&["eval", "photos", "--model", "bundle"], &weights[..]].concat()).failed().said(&[
        "error: `bundle` brings its own weights: it takes neither a weights file nor fresh weights",
        "hint: name an architecture, such as",
    ]);
    bench.run(&[&["eval", "photos", "--model", "resnet20_cifar"], &weights[..]].concat()).succeeded();
}

#[test]
fn a_folder_that_is_no_model_says_what_it_lacks() {
    let bench = Bench::with_photos();
    let arguments = ["predict", "photos/red/000.png", "--model", "photos"];
    bench.run(&arguments).failed().said(&["error: photos: holds no config.json", "hint: a model is a `config.json`"]);
    bench.file("photos/config.json", "{");
    bench.run(&arguments).failed().said(&["error: photos: holds no model.safetensors"]);
    bench.file("photos/model.safetensors", "not a tensor");
    bench.run(&arguments).failed().said(&["config.json: "]);
    bench.model_folder("photos", None, 2);
    bench.file("photos/model.safetensors", "not a tensor");
    bench.run(&arguments).failed().said(&["model.safetensors`: is no known weights format"]);
}

#[cfg(not(any(feature = "cuda", feature = "metal")))]
#[test]
fn a_device_that_was_not_built_in_says_so() {
    let bench = Bench::with_bundle();
    for (device, feature) in [("cuda", "cuda"), ("cuda:1", "cuda"), ("metal", "metal")] {
        let ran = bench.run(&["eval", "photos", "--model", "bundle", "--device", device]).failed();
        ran.said(&[
            &format!("error: this program was built without support for `{device}`"),
            &format!("--features {feature}"),
        ]);
    }
    bench.run(&["eval", "photos", "--model", "bundle", "--device", "cpu"]).succeeded();
}

/// No machine has as many GPUs; many have none, or no driver but the stub that programs are linked against.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_that_is_not_there_is_named_with_a_way_out() {
    let bench = Bench::with_photos();
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--device", "cuda:99"];
    let ran = bench.run(&arguments).failed();
    ran.said(&[
        "error: cannot open device `cuda:99`: DriverError(CUDA_ERROR_",
        "hint: `nvidia-smi`",
        "without `--device`",
    ]);
}

#[test]
fn a_device_that_does_not_exist_says_which_do() {
    let bench = Bench::with_bundle();
    for device in ["tpu", "cpu:3", "cuda:x", "cuda:-1", ""] {
        let ran = bench.run(&["eval", "photos", "--model", "bundle", "--device", device]).failed();
        ran.said(&[&format!("error: unknown device `{device}`, expected cpu, cuda, cuda:N or metal")]);
    }
}

#[test]
fn half_precision_that_a_device_does_not_have_is_refused_before_the_model_is_read() {
    let bench = Bench::with_photos();
    for command in ["train", "eval"] {
        let ran =
            bench.run(&[command, "photos", "--model", "nowhere", "--device", "cpu", "--precision", "f16"]).failed();
        ran.said(&["error: f16 is computed on CUDA alone; bf16 is what a CPU has", "hint: give `--device cuda`"]);
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let bench = Bench::new();
    let version = format!("finetune {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(bench.run(&["--version"]).succeeded().out, version);
    bench.run(&["--help"]).succeeded().printed(&["Examples:", "finetune train photos --model resnet18"]);
    for command in ["demo", "train", "predict", "eval", "embed", "fetch", "models", "summary", "verify", "cache"] {
        bench.run(&[command, "--help"]).succeeded().printed(&["Usage: finetune"]);
    }
    let help = bench.run(&["train", "--help"]).succeeded();
    for option in "--epochs --batch-size --lr --optimizer --weight-decay --seed --out --no-pretrained --weights \
        --val-fraction --threads --device --strict"
        .split_whitespace()
    {
        assert!(help.out.contains(option), "{option}");
    }
}

#[test]
fn wrong_arguments_have_an_exit_code_of_their_own() {
    let bench = Bench::new();
    bench.run::<&str>(&[]).exited(2);
    bench.run(&["tarin"]).exited(2).said(&["train"]);
    bench.run(&["train"]).exited(2).said(&["--model"]);
    bench.run(&["predict", "--model", "x"]).exited(2);
    bench.run(&["models", "--threads", "0"]).exited(2);
}

#[test]
fn logs_go_to_stderr_and_only_if_asked_for() {
    let bench = Bench::with_bundle();
    let arguments = ["predict", "photos/red/000.png", "--model", "bundle"];
    let plain = bench.run(&arguments).succeeded();
    assert_eq!(plain.err, "");
    let mut command = bench.command(&arguments);
    command.env("RUST_LOG", "not a=valid=filter");
    assert_eq!(run(command).succeeded().out, plain.out);
    let verbose = bench.run(&[&arguments[..], &["-vv"]].concat()).succeeded();
    assert_eq!(verbose.out, plain.out);
}

/// Runs a command whose output nobody reads, and gives what it says on stderr.
fn unread(mut command: Command) -> String {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{:?}: {said}", output.status);
    said
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let bench = Bench::with_bundle();
    bench.picture("photo.png", RED, 1);
    for arguments in [
        &["models"][..],
        &["summary", "resnet18"],
        &["predict", "photo.png", "--model", "bundle"],
        &["predict", "photo.png", "--model", "bundle", "--json"],
        &["eval", "photos", "--model", "bundle"],
        &["eval", "photos", "--model", "bundle", "--json"],
        &["fetch", "bundle"],
    ] {
        assert_eq!(unread(bench.command(arguments)), "", "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_fails_and_names_stdout() {
    let bench = Bench::with_bundle();
    bench.picture("photo.png", RED, 1);
    let fails = |arguments: &[&str]| {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = bench.command(arguments).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("error: stdout: No space left on device"), "{arguments:?}: {said}");
        said
    };
    for arguments in [
        &["models"][..],
        &["models", "--json"],
        &["summary", "resnet18"],
        &["fetch", "bundle"],
        &["predict", "photo.png", "--model", "bundle"],
        &["predict", "photo.png", "--model", "bundle", "--json"],
        &["eval", "photos", "--model", "bundle"],
        &["eval", "photos", "--model", "bundle", "--json"],
        &["neighbours", "photo.png", "--model", "bundle"],
        &["embed", "photos", "--model", "bundle", "--out", "features.safetensors"],
        &["doctor", "photos"],
        &["find-lr", "photos", "--model", "bundle", "--out", "lr.svg"],
        &["bench", "--model", "bundle"],
        &["verify", "--model", "resnet20_cifar"],
    ] {
        fails(arguments);
    }
    let train = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out"];
    let said = fails(&[&train[..], &["told"]].concat());
    assert!(said.contains("try: finetune predict PHOTO --model told"), "{said}");
    fails(&[&train[..], &["logged", "--log-format", "json"]].concat());
    for bundle in ["told", "logged"] {
        bench.run(&["predict", "photo.png", "--model", bundle]).succeeded();
    }
}
