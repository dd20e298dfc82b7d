//! A folder to work in, pictures to train on, and the program to run there; no network and nobody's real cache.

#![allow(dead_code)] // Each test program uses another part of it.

#[path = "../../../candle-resnet/tests/device/mod.rs"]
pub mod device;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use candle_resnet::architecture::Architecture;
use candle_resnet::config::ModelConfig;
use candle_resnet::initialise::fresh_weights;
use candle_resnet::{checkpoint, weights};
use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than any command here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What decides where the program looks and what it says; a developer's own settings must not change a test.
const VARIABLES: [&str; 16] = [
    "FINETUNE_MODELS_DIR",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "TRANSFORMERS_OFFLINE",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "http_proxy",
    "HTTP_PROXY",
];

pub const RED: [u8; 3] = [200, 40, 30];
pub const BLUE: [u8; 3] = [30, 50, 210];
pub const GREEN: [u8; 3] = [40, 190, 60];

/// An empty folder in which the program runs.
pub struct Bench {
    folder: TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    /// With `photos/red` and `photos/blue`, eight pictures each.
    pub fn with_photos() -> Bench {
        let bench = Bench::new();
        bench.two_colours("photos", 8);
        bench
    }

    /// With photos and a bundle named `bundle` that was trained on them.
    pub fn with_bundle() -> Bench {
        let bench = Bench::with_photos();
        bench.run(&["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "bundle"]).succeeded();
        bench
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// `red` and `blue` below `folder`, `count` pictures each.
    pub fn two_colours(&self, folder: &str, count: usize) {
        self.class(&format!("{folder}/red"), RED, count);
        self.class(&format!("{folder}/blue"), BLUE, count);
    }

    /// `count` pictures of about one colour; up to eight are others in each of `train`, `val` and `test`.
    pub fn class(&self, folder: &str, colour: [u8; 3], count: usize) {
        let of = |split: &str| folder.split('/').any(|part| part == split);
        let first = if of("val") {
            8
        } else if of("test") {
            16
        } else {
            0
        };
        for index in 0..count {
            self.picture(&format!("{folder}/{index:03}.png"), colour, first + index);
        }
    }

    /// One picture of 32×32 pixels: a colour with a pattern that is another for each `index`.
    pub fn picture(&self, name: &str, colour: [u8; 3], index: usize) -> PathBuf {
        let path = self.new_path(name);
        picture(colour, index).save(&path).unwrap();
        path
    }

    /// A file that holds just this.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.new_path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn new_path(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// The program, at home here and forbidden to make requests, on the device of the tests.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(program());
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.current_dir(self.root()).args(arguments).args(device_arguments(arguments));
        command.env("HF_HOME", self.path("hf")).env("HF_HUB_OFFLINE", "1").env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// Runs the program to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        run(self.command(arguments))
    }

    /// Trains a new head for a small network with weights from seed 0, and further arguments.
    pub fn train(&self, folder: &str, further: &[&str]) -> Ran {
        let mut arguments = vec!["train", folder, "--model", "resnet20_cifar", "--no-pretrained"];
        arguments.extend(further);
        self.run(&arguments)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// Rows of a table below its headings.
    pub fn rows(&self, name: &str) -> Vec<Vec<String>> {
        let mut reader = csv::Reader::from_path(self.path(name)).unwrap();
        reader.records().map(|row| row.unwrap().iter().map(String::from).collect()).collect()
    }

    /// Tensors of a weights file, as bits.
    pub fn tensors(&self, name: &str) -> std::collections::BTreeMap<String, Vec<u32>> {
        let bits = |tensor: &Tensor| -> Vec<u32> {
            tensor
                .flatten_all()
                .unwrap()
                .to_dtype(DType::F32)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
                .into_iter()
                .map(f32::to_bits)
                .collect()
        };
        let tensors = checkpoint::read(&self.path(name)).unwrap();
        tensors.iter().map(|(name, tensor)| (name.clone(), bits(tensor))).collect()
    }

    /// Names in the folder that the program runs in, sorted.
    pub fn names(&self) -> Vec<String> {
        names_in(self.root())
    }

    /// A folder in timm's format with a fresh `resnet20_cifar` for these classes.
    pub fn model_folder(&self, name: &str, labels: Option<&[&str]>, classes: usize) {
        let (config, weights) = timm_files("resnet20_cifar", labels, classes);
        self.file(&format!("{name}/config.json"), config);
        self.file(&format!("{name}/model.safetensors"), weights);
    }
}

/// The program that was built with the tests; `CARGO_BIN_EXE_finetune` says where it lies on a machine that has no cargo.
fn program() -> OsString {
    std::env::var_os("CARGO_BIN_EXE_finetune").unwrap_or_else(|| env!("CARGO_BIN_EXE_finetune").into())
}

/// Commands that compute somewhere.
const ON_A_DEVICE: [&str; 9] =
    ["bench", "doctor", "embed", "eval", "find-lr", "neighbours", "predict", "train", "verify"];

/// Sends a command to the device of the tests, unless it says where it computes.
fn device_arguments<S: AsRef<OsStr>>(arguments: &[S]) -> Vec<String> {
    let computes = arguments.first().is_some_and(|command| ON_A_DEVICE.iter().any(|name| command.as_ref() == *name));
    let says_where = arguments.iter().any(|argument| argument.as_ref() == "--device");
    let elsewhere = computes && !says_where && device::name() != "cpu";
    if elsewhere { vec!["--device".into(), device::name()] } else { Vec::new() }
}

pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub fn picture(colour: [u8; 3], index: usize) -> RgbImage {
    RgbImage::from_fn(32, 32, |x, y| {
        let shade = ((x as usize * (index + 1) + y as usize * (index + 3)) % 24) as u8;
        Rgb(colour.map(|value| value.saturating_add(shade)))
    })
}

/// `config.json` and `model.safetensors` of a network with fresh weights.
pub fn timm_files(architecture: &str, labels: Option<&[&str]>, classes: usize) -> (String, Vec<u8>) {
    let architecture = Architecture::named(architecture).unwrap();
    let config = ModelConfig {
        label_names: labels.map(|labels| labels.iter().map(|label| label.to_string()).collect()),
        license: Some("mit".into()),
        origin_url: Some("https://example.org/tiny".into()),
        ..ModelConfig::new(*architecture, classes)
    };
    let fresh = fresh_weights(architecture, classes, 3, &Device::Cpu).unwrap();
    let bytes = safetensors::serialize(weights::tensors(&fresh).unwrap(), None).unwrap();
    (config.to_json(), bytes)
}

/// Runs a command to its end; whatever it was given, it must not panic.
pub fn run(command: Command) -> Ran {
    let output = assert_cmd::Command::from_std(command).timeout(PATIENCE).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    ran
}

/// `command` behind what a shell does before, as limits and ignored signals are inherited.
pub fn in_shell(before: &str, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("{before} && exec \"$0\" \"$@\""));
    behind(shell, command)
}

/// `command` as the last arguments of `starter`, which starts it.
pub fn behind(mut starter: Command, command: &Command) -> Command {
    starter.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        starter.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => starter.env(name, value),
            None => starter.env_remove(name),
        };
    }
    starter
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    #[track_caller]
    pub fn exited(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn succeeded(self) -> Ran {
        self.exited(0)
    }

    #[track_caller]
    pub fn failed(self) -> Ran {
        self.exited(1)
    }

    /// Stderr has all of these.
    #[track_caller]
    pub fn said(self, texts: &[&str]) -> Ran {
        for text in texts {
            assert!(self.err.contains(text), "stderr lacks `{text}`: {self:#?}");
        }
        self
    }

    /// Stderr has none of these.
    #[track_caller]
    pub fn did_not_say(self, texts: &[&str]) -> Ran {
        for text in texts {
            assert!(!self.err.contains(text), "stderr has `{text}`: {self:#?}");
        }
        self
    }

    /// Stdout has all of these.
    #[track_caller]
    pub fn printed(self, texts: &[&str]) -> Ran {
        for text in texts {
            assert!(self.out.contains(text), "stdout lacks `{text}`: {self:#?}");
        }
        self
    }

    /// Each line of stdout as JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:#?}"))).collect()
    }
}
