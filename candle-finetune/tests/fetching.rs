//! From a name on a Hub on loopback to a model in use: fetched once, found ever after.

mod common;
#[path = "../../candle-resnet/tests/hub_server/mod.rs"]
mod hub_server;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;

use candle_core::{Device, Tensor};
use candle_resnet::architecture::Architecture;
use candle_resnet::initialise::fresh_weights;
use candle_resnet::layout::LAYOUTS;
use candle_resnet::weights;
use common::{Bench, RED, Ran, run, timm_files};
use hub_server::{COMMIT, Fault, HubServer, Request, Side};
use serde_json::json;

const REPOSITORY: &str = "me/tiny";
const NAME: &str = "hf-hub:me/tiny";

/// A Hub, and a folder to run the program in.
struct Hub {
    server: HubServer,
    bench: Bench,
    /// SHA-256 of the weights of [`REPOSITORY`].
    sha256: String,
}

impl Hub {
    fn new() -> Hub {
        let (server, bench) = (HubServer::start(), Bench::with_photos());
        let (config, weights) = timm_files("resnet20_cifar", Some(&["cat", "dog", "fox"]), 3);
        server.add_small(REPOSITORY, "config.json", config);
        let sha256 = server.add_large(REPOSITORY, "model.safetensors", weights);
        Hub { server, bench, sha256 }
    }

    /// With the model in the cache.
    fn fetched() -> Hub {
        let hub = Hub::new();
        hub.run(&["fetch", NAME]).succeeded();
        assert!(!hub.server.take_requests().is_empty());
        hub
    }

    /// Runs the program with a connection to the Hub.
    fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        self.run_with(arguments, &[])
    }

    fn run_with<S: AsRef<OsStr>>(&self, arguments: &[S], variables: &[(&str, &str)]) -> Ran {
        let mut command = self.bench.command(arguments);
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", self.server.endpoint());
        command.envs(variables.iter().copied());
        run(command)
    }

    fn targets(&self) -> Vec<String> {
        self.server.take_requests().into_iter().map(|request| request.target).collect()
    }
}

fn on(side: Side, requests: &[Request]) -> Vec<Option<&str>> {
    requests.iter().filter(|request| request.side == side).map(|request| request.header("authorization")).collect()
}

#[test]
fn fetch_prints_where_the_verified_weights_lie() {
    let hub = Hub::new();
    let ran = hub.run(&["fetch", NAME]).succeeded();
    let snapshot = hub.bench.path("hf/hub/models--me--tiny/snapshots").join(COMMIT);
    assert_eq!(ran.out.trim(), snapshot.join("model.safetensors").display().to_string());
    assert_eq!(hub_server::sha256(&fs::read(ran.out.trim()).unwrap()), hub.sha256);
    assert!(snapshot.join("config.json").exists());
}

#[test]
fn a_host_that_never_answers_is_told_of_once_before_the_error() {
    let hub = Hub::new();
    let ran = hub.run_with(&["fetch", NAME], &[("HF_ENDPOINT", "http://127.0.0.1:1")]).failed();
    assert_eq!(ran.err.matches("trying again").count(), 1, "{ran:?}");
    ran.said(&["error: ", "no connection to 127.0.0.1", "hint: check the connection"]);
}

#[test]
fn what_was_fetched_is_used_without_a_request() {
    let hub = Hub::fetched();
    hub.run(&["fetch", NAME]).succeeded();
    hub.run(&["predict", "photos/red/000.png", "--model", NAME]).succeeded().printed(&["cat", "dog", "fox"]);
    hub.run(&["summary", NAME]).succeeded().printed(&["(fc): Linear(in_features=64, out_features=3"]);
    hub.run(&["train", "photos", "--model", NAME, "--epochs", "2"]).succeeded();
    assert_eq!(hub.targets(), [""; 0]);
    // Nor does being forbidden to ask change anything.
    hub.bench.run(&["predict", "photos/red/000.png", "--model", NAME]).succeeded();
}

#[test]
fn commands_fetch_what_they_lack() {
    let hub = Hub::new();
    hub.run(&["predict", "photos/red/000.png", "--model", NAME]).succeeded().printed(&["cat"]);
    assert!(hub.targets().iter().any(|target| target == "/me/tiny/resolve/main/config.json"));
    hub.run(&["predict", "photos/red/000.png", "--model", NAME]).succeeded();
    assert_eq!(hub.targets(), [""; 0]);
}

#[test]
fn a_summary_needs_no_weights() {
    let hub = Hub::new();
    hub.run(&["summary", NAME]).succeeded();
    assert!(hub.targets().iter().all(|target| target.ends_with("/config.json")));
}

#[test]
fn the_bundle_records_where_its_weights_came_from() {
    let hub = Hub::fetched();
    hub.run(&["train", "photos", "--model", NAME, "--epochs", "2", "--out", "bundle"]).succeeded();
    let config = hub.bench.json("bundle/config.json");
    let from = &config["pretrained_from"];
    assert_eq!(from["model"], NAME);
    assert_eq!(from["repository"], REPOSITORY);
    assert_eq!(from["commit"], COMMIT);
    assert_eq!(from["file"], "model.safetensors");
    assert_eq!(from["sha256"], hub.sha256);
    assert_eq!(config["pretrained_cfg"]["license"], "mit");
    assert_eq!(config["pretrained_cfg"]["origin_url"], "https://example.org/tiny");
    assert_eq!(config["label_names"], serde_json::json!(["blue", "red"]));
}

#[test]
fn a_bundle_on_the_hub_is_as_sure_as_in_a_folder() {
    let hub = Hub::new();
    hub.bench.train("photos", &["--out", "bundle"]).succeeded();
    let mut config = hub.bench.json("bundle/config.json");
    config["calibration"] = json!({"temperature": 2.5, "risk_coverage": "0.999999 40 0, 0 60 30"});
    hub.bench.file("bundle/config.json", config.to_string());
    hub.server.add_small("me/bundle", "config.json", hub.bench.read("bundle/config.json"));
    let weights = fs::read(hub.bench.path("bundle/model.safetensors")).unwrap();
    hub.server.add_large("me/bundle", "model.safetensors", weights);
    let says = |model: &str, further: &[&str]| {
        let ran = hub.run(&[further, &["--model", model, "--json"]].concat()).succeeded();
        (ran.json_lines(), ran)
    };
    let same = |arguments: &[&str]| {
        let (there, ran) = says("hf-hub:me/bundle", arguments);
        assert_eq!(there, says("bundle", arguments).0);
        (there, ran)
    };
    let (evaluated, _) = same(&["eval", "photos"]);
    assert_eq!(evaluated[0]["calibrated"]["temperature"], 2.5);
    let (answers, ran) = same(&["predict", "photos", "--max-error", "0.05"]);
    assert!(answers.iter().all(|answer| answer["sure"] == false), "{answers:?}");
    ran.said(&["66.7 % of 60 validation images got one, 0 of them wrong"]);
    same(&["predict", "photos"]);
    let never = ["predict", "photos", "--model", "hf-hub:me/bundle", "--max-error", "0.0001"];
    hub.run(&never).failed().said(&["is never sure enough", "hint: allow more"]).did_not_say(&["--calibrate"]);
}

#[test]
fn a_revision_is_asked_for_by_name() {
    let hub = Hub::new();
    hub.run(&["fetch", "hf-hub:me/tiny@refs/pr/1"]).succeeded();
    assert!(hub.targets().iter().any(|target| target.contains("/resolve/refs%2Fpr%2F1/")));
    hub.run(&["fetch", "hf-hub:me/tiny@nowhere"])
        .failed()
        .said(&["no revision `nowhere` in repository `me/tiny`", "hint: leave the revision out"]);
}

#[test]
fn a_bare_architecture_means_torchvisions_weights() {
    let hub = Hub::new();
    hub.server.add_large("timm/resnet18.tv_in1k", "model.safetensors", "not read here");
    let ran = hub.run(&["fetch", "resnet18"]).succeeded();
    assert!(ran.out.contains("models--timm--resnet18.tv_in1k"), "{ran:?}");
    assert_eq!(hub.targets()[0], "/timm/resnet18.tv_in1k/resolve/main/model.safetensors");
}

#[test]
fn other_names_of_weights_lead_to_their_repositories() {
    let hub = Hub::new();
    for (name, target) in [
        ("ResNet50_Weights.IMAGENET1K_V2", "/timm/resnet50.tv2_in1k/resolve/main/model.safetensors"),
        ("gluon_resnet18_v1b", "/timm/resnet18.gluon_in1k/resolve/main/model.safetensors"),
        ("lmz/candle-resnet", "/lmz/candle-resnet/resolve/main/resnet18.safetensors"),
        ("lmz/candle-resnet/resnet34", "/lmz/candle-resnet/resolve/main/resnet34.safetensors"),
        ("microsoft/resnet-50", "/microsoft/resnet-50/resolve/main/config.json"),
    ] {
        hub.run(&["fetch", name]).failed();
        assert_eq!(hub.targets()[0], target);
    }
}

#[test]
fn offline_without_the_file_says_how_to_get_it() {
    let hub = Hub::new();
    hub.run_with(&["predict", "photos/red/000.png", "--model", NAME], &[("HF_HUB_OFFLINE", "1")]).failed().said(&[
        "error: `config.json` of `me/tiny` is not in the cache",
        "requests to the Hub are switched off",
        "hint: unset HF_HUB_OFFLINE",
    ]);
    assert_eq!(hub.targets(), [""; 0]);
}

#[test]
fn an_unknown_repository_is_named() {
    let hub = Hub::new();
    hub.run(&["fetch", "hf-hub:me/tinny"]).failed().said(&[
        "error: no repository `me/tinny` on the Hub",
        "hint: check the name",
        "HF_TOKEN",
    ]);
}

#[test]
fn a_repository_without_weights_is_incomplete() {
    let hub = Hub::new();
    hub.server.add_small("me/empty", "config.json", timm_files("resnet20_cifar", None, 3).0);
    hub.run(&["fetch", "hf-hub:me/empty"]).failed().said(&["me/empty: holds no model.safetensors"]);
}

#[test]
fn a_repository_of_another_family_is_refused_by_its_config() {
    let hub = Hub::new();
    hub.server.add_small("me/vit", "config.json", r#"{"architecture": "vit_tiny", "num_classes": 3}"#);
    hub.run(&["fetch", "hf-hub:me/vit"]).failed().said(&["config.json: architecture `vit_tiny` is not known"]);
}

/// A repository with transformers' config, preprocessing and names.
fn add_transformers(hub: &Hub, repository: &str) {
    let config = r#"{"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512], "id2label": {"0": "cat", "1": "dog"}}"#;
    let preprocessor = r#"{"size": {"shortest_edge": 64}, "crop_pct": 0.875, "resample": 3,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
    hub.server.add_small(repository, "config.json", config);
    hub.server.add_small(repository, "preprocessor_config.json", preprocessor);
    let fresh = fresh_weights(Architecture::named("resnet18").unwrap(), 2, 3, &Device::Cpu).unwrap();
    let layout = LAYOUTS.iter().find(|layout| layout.name == "transformers'").unwrap();
    let renamed = |(name, tensor): (String, Tensor)| (layout.from_torchvision(&name).unwrap(), tensor);
    let tensors: BTreeMap<String, Tensor> = weights::tensors(&fresh).unwrap().into_iter().map(renamed).collect();
    hub.server.add_large(repository, "model.safetensors", safetensors::serialize(tensors, None).unwrap());
}

#[test]
fn a_repository_of_transformers_is_fetched_with_its_preprocessing() {
    let hub = Hub::new();
    add_transformers(&hub, "me/hf");
    hub.run(&["fetch", "hf-hub:me/hf"]).succeeded();
    let mut files: Vec<String> = hub.targets();
    files.retain(|target| target.ends_with("preprocessor_config.json"));
    assert!(
        files.iter().all(|target| target.contains(COMMIT)) && !files.is_empty(),
        "the one of the same commit: {files:?}"
    );
    hub.run(&["summary", "hf-hub:me/hf"]).succeeded().printed(&["input 3×64×64", "out_features=2"]);
    hub.run(&["predict", "photos/red/000.png", "--model", "hf-hub:me/hf"]).succeeded().printed(&["cat", "dog"]);
    assert_eq!(hub.targets(), [""; 0]);
}

#[test]
fn bytes_with_a_wrong_checksum_are_never_believed() {
    let hub = Hub::new();
    for _ in 0..2 {
        hub.server.fail(Side::Storage, "GET", Fault::WrongBytes);
    }
    hub.run(&["fetch", NAME]).failed().said(&["expected checksum", &hub.sha256, "hint: a proxy or mirror"]);
    let ran = hub.run(&["fetch", NAME]).succeeded();
    assert_eq!(hub_server::sha256(&fs::read(ran.out.trim()).unwrap()), hub.sha256);
}

#[test]
fn the_token_reaches_the_endpoint_and_no_other_host() {
    let hub = Hub::new();
    hub.run_with(&["fetch", NAME], &[("HF_TOKEN", "hf_topsecret")]).succeeded().did_not_say(&["hf_topsecret"]);
    let requests = hub.server.take_requests();
    let (to_hub, to_storage) = (on(Side::Hub, &requests), on(Side::Storage, &requests));
    assert!(!to_hub.is_empty() && to_hub.iter().all(|sent| *sent == Some("Bearer hf_topsecret")), "{to_hub:?}");
    assert!(!to_storage.is_empty() && to_storage.iter().all(Option::is_none), "{to_storage:?}");
}

#[test]
fn a_login_is_as_good_as_a_variable() {
    let hub = Hub::new();
    hub.bench.file("hf/token", "hf_login\n");
    hub.run(&["fetch", NAME]).succeeded();
    let requests = hub.server.take_requests();
    assert!(on(Side::Hub, &requests).iter().all(|sent| *sent == Some("Bearer hf_login")));
}

#[test]
fn cache_lists_what_was_fetched_and_removes_it() {
    let hub = Hub::fetched();
    let listed = hub.run(&["cache"]).succeeded().said(&["1 repositories"]);
    for text in [REPOSITORY, &COMMIT[..12], "main", "config.json, model.safetensors"] {
        assert!(listed.out.contains(text), "{listed:?}");
    }
    assert_eq!(hub.run(&["cache", "list"]).succeeded().out, listed.out);
    hub.run(&["cache", "remove", "me/tiny"]).succeeded().said(&["me/tiny: ", "freed"]);
    assert_eq!(hub.run(&["cache"]).succeeded().out, "");
    hub.bench.run(&["fetch", NAME]).failed().said(&["is not in the cache"]);
}

#[test]
fn cache_removes_one_revision() {
    let hub = Hub::fetched();
    hub.run(&["cache", "remove", "me/tiny@main"]).succeeded().said(&["freed"]);
    hub.bench.run(&["fetch", NAME]).failed().said(&["is not in the cache"]);
}

#[test]
fn removing_what_is_not_there_is_an_error() {
    let hub = Hub::fetched();
    hub.run(&["cache", "remove", "resnet18"]).failed().said(&["`timm/resnet18.tv_in1k` is not in the cache"]);
    hub.run(&["cache", "remove", "me/huge"]).failed().said(&["error: `me/huge` is not in the cache"]);
    hub.run(&["cache", "remove", "../hub"]).failed().said(&["is not a repository name"]);
    hub.bench.run(&["fetch", NAME]).succeeded();
}

#[test]
fn cache_prune_takes_unfinished_downloads_only() {
    let hub = Hub::fetched();
    let unfinished = hub.bench.file("hf/hub/models--me--tiny/blobs/0123.incomplete", [0; 5000]);
    hub.run(&["cache"]).succeeded().printed(&["unfinished download, 4.88 KiB"]);
    hub.run(&["cache", "prune"]).succeeded().said(&["4.88 KiB freed"]);
    assert!(!unfinished.exists());
    hub.bench.run(&["fetch", NAME]).succeeded();
}

#[test]
fn an_empty_cache_is_no_error() {
    let bench = Bench::new();
    assert_eq!(bench.run(&["cache"]).succeeded().said(&["0 repositories"]).out, "");
    bench.run(&["cache", "prune"]).succeeded();
}

#[test]
fn a_local_name_needs_no_hub() {
    let bench = Bench::new();
    bench.model_folder("tiny", Some(&["cat", "dog"]), 2);
    let photo = bench.picture("photo.png", RED, 0);
    for name in ["tiny", "./tiny", "local-dir:tiny"] {
        bench.run(&["predict", photo.to_str().unwrap(), "--model", name]).succeeded().printed(&["cat", "dog"]);
    }
    let ran = bench.run(&["fetch", "tiny"]).succeeded();
    assert!(bench.path(ran.out.trim()).ends_with("tiny/model.safetensors"), "{ran:?}");
}
