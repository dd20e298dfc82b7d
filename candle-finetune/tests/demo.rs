//! `finetune demo`: from nothing to predictions, without network.

mod common;

use common::Bench;

/// Top-1 in percent, as `finetune eval` printed it.
fn top1(out: &str) -> f64 {
    let rest = out.split("top-1 ").nth(1).unwrap_or_else(|| panic!("{out}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn demo_goes_the_whole_way_without_network_or_cache() {
    let bench = Bench::new();
    let ran = bench.run(&["demo"]).succeeded().said(&[
        "drawn pictures of balloon, flower, mushroom, tree, umbrella",
        "train finetune-demo/pictures --model resnet20_cifar.embedded",
        "200 to train, 20 % of them held out, 100 to test",
        "eval finetune-demo/pictures --model finetune-demo/model",
        "predict finetune-demo/pictures/test/mushroom/000.png --model finetune-demo/model",
        "train photos --model resnet18",
    ]);
    let top1 = top1(&ran.out);
    assert!((60.0..100.0).contains(&top1), "five classes, learnable and not trivial: {top1} %");
    assert!(ran.out.contains(" %  mushroom"), "{ran:?}");
    assert_eq!(bench.names(), ["finetune-demo"]);
    // What was shown can be typed.
    let again = bench.run(&["eval", "finetune-demo/pictures", "--model", "finetune-demo/model"]).succeeded();
    assert!(ran.out.contains(&again.out), "{again:?}");
}

#[test]
fn demo_runs_again_where_it_ran_before_and_gives_the_same() {
    let bench = Bench::new();
    let arguments = ["demo", "--out", "my demo"];
    let first = bench.run(&arguments).succeeded().said(&["train 'my demo/pictures' --model"]);
    let weights = bench.tensors("my demo/model/model.safetensors");
    assert_eq!(bench.run(&arguments).succeeded().out, first.out);
    assert_eq!(bench.tensors("my demo/model/model.safetensors"), weights);
}

#[test]
fn demo_leaves_folders_alone_that_it_did_not_make() {
    let bench = Bench::new();
    bench.file("finetune-demo/thesis.txt", "years of work");
    bench.run(&["demo"]).failed().said(&[
        "error: finetune-demo: holds something that `finetune demo` did not write",
        "hint: choose another --out",
    ]);
    assert_eq!(common::names_in(&bench.path("finetune-demo")), ["thesis.txt"]);
    bench.file("file", "");
    bench.run(&["demo", "--out", "file"]).failed().said(&["error: file: "]);
}
