//! `finetune train --log-format json`: what machines are told, from the beginning to the end.

mod common;

use common::{Bench, Ran};
use serde_json::{Value, json};

/// Every event of a training that this program ran.
fn events(ran: &Ran) -> Vec<Value> {
    let events = ran.json_lines();
    let elapsed: Vec<f64> = events.iter().map(|event| event["elapsed"].as_f64().unwrap()).collect();
    assert!(elapsed.is_sorted() && elapsed.iter().all(|&seconds| seconds >= 0.0), "{elapsed:?}");
    events
}

/// Names of events, those that follow each other and are alike named once.
fn names(events: &[Value]) -> Vec<String> {
    let name = |event: &Value| {
        let phase = event["phase"].as_str().map_or(String::new(), |phase| format!(" {phase}"));
        event["event"].as_str().unwrap().to_owned() + &phase
    };
    let mut names: Vec<String> = events.iter().map(name).collect();
    names.dedup();
    names
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

#[test]
fn a_head_is_told_from_plan_to_result() {
    let bench = Bench::new();
    for (split, count) in [("train", 8), ("val", 4), ("test", 4)] {
        bench.two_colours(&format!("photos/{split}"), count);
    }
    let ran = bench.train("photos", &["--epochs", "3", "--out", "bundle", "--log-format", "json"]).succeeded();
    assert_eq!(ran.err, "");
    let events = events(&ran);
    let expected = [
        "plan",
        "begin train-features",
        "end train-features",
        "begin val-features",
        "end val-features",
        "begin fit",
        "epoch fit",
        "end fit",
        "begin test-features",
        "end test-features",
        "result",
    ];
    assert_eq!(names(&events), expected);

    let plan = &events[0];
    assert_eq!(plan["classes"], json!(["blue", "red"]));
    assert_eq!(plan["images"], json!({"train": 16, "val": 8, "test": 8, "val-fraction": 0.0}));
    assert_eq!((&plan["data"], &plan["train-from"], &plan["pixels"]), (&json!("photos"), &json!("head"), &json!(32)));
    assert_eq!(plan["settings"]["head"]["epochs"], 3);

    let rows = bench.rows("bundle/metrics.csv");
    let epochs = named(&events, "epoch");
    assert_eq!(epochs.len(), rows.len());
    for (epoch, row) in epochs.iter().zip(&rows) {
        let fields = ["phase", "epoch", "lr", "train-loss", "train-top1", "val-loss", "val-top1", "seconds"];
        let text = |field: &&str| epoch[field].as_str().map_or(epoch[field].to_string(), str::to_owned);
        assert_eq!(fields.iter().map(text).collect::<Vec<_>>(), *row);
        assert_eq!(epoch["epochs"], 3);
    }

    let result = events.last().unwrap();
    assert_eq!((&result["bundle"], &result["report"]), (&json!("bundle"), &json!("bundle/report.html")));
    let best = &epochs[2]["best"];
    assert_eq!(
        [&result["val"]["epoch"], &result["val"]["top1"], &result["val"]["loss"]],
        [&best["epoch"], &best["val-top1"], &best["val-loss"]]
    );
    assert_eq!((&result["test"]["images"], &result["interrupted"]), (&json!(8), &json!(false)));
}

#[test]
fn a_tail_is_told_part_by_part_and_epoch_by_epoch() {
    let bench = Bench::with_photos();
    let options = ["--train-from", "layer3", "--freeze-epochs", "2", "--epochs", "2", "--no-map-cache", "--no-report"];
    let ran = bench.train("photos", &[&options[..], &["--out", "bundle", "--log-format", "json"]].concat()).succeeded();
    let events = events(&ran);
    let expected = [
        "plan",
        "estimate",
        "begin train-features",
        "end train-features",
        "begin head",
        "epoch head",
        "end head",
        "begin fit",
        "begin epoch",
        "end epoch",
        "epoch fit",
        "begin epoch",
        "end epoch",
        "epoch fit",
        "end fit",
        "begin index",
        "end index",
        "result",
    ];
    assert_eq!(names(&events), expected);
    let part = |row: &Value| (row["part"].as_str().unwrap().to_owned(), row["trained"] == row["parameters"]);
    let parts: Vec<_> = events[0]["parts"].as_array().unwrap().iter().map(part).collect();
    let trained =
        ["stem", "layer1", "layer2", "layer3", "fc"].map(|name| (name.into(), ["layer3", "fc"].contains(&name)));
    assert_eq!(parts, trained);
    assert!(events[1]["epoch"].as_f64().unwrap() > 0.0 && events[1]["memory"].as_u64().unwrap() > 0);
    assert_eq!(events.last().unwrap()["report"], Value::Null);
}

#[test]
fn what_is_worth_knowing_and_what_cannot_be_read_is_an_event() {
    let bench = Bench::with_photos();
    bench.file("photos/red/broken.png", "no picture");
    let copy = std::fs::read(bench.path("photos/red/000.png")).unwrap();
    bench.file("photos/red/copy.png", copy);
    let ran = bench.train("photos", &["--epochs", "1", "--out", "bundle", "--log-format", "json"]).succeeded();
    assert_eq!(ran.err, "");
    let events = events(&ran);
    let notes = named(&events, "note");
    assert!(notes[0]["message"].as_str().unwrap().starts_with("files that are there several times: "), "{notes:?}");
    let skipped = named(&events, "skipped");
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0]["image"].as_str().unwrap().ends_with("broken.png"), "{skipped:?}");
    assert!(skipped[0]["reason"].as_str().unwrap().contains("broken.png"), "{skipped:?}");
    assert_eq!(events.last().unwrap()["skipped"], 1);
}

#[test]
fn a_failure_is_the_last_event_and_stands_on_stderr_as_well() {
    let bench = Bench::with_photos();
    bench.file("bundle/of/mine.txt", "");
    let ran = bench.train("photos", &["--out", "bundle", "--log-format", "json"]).failed();
    let events = events(&ran);
    assert_eq!(names(&events), ["error"]);
    let text = |name: &str| events[0][name].as_str().unwrap();
    assert_eq!(ran.err, format!("error: {}\nhint: {}\n", text("message"), text("hint")));
}

#[cfg(unix)]
#[test]
fn a_run_that_was_stopped_says_from_where_it_goes_on_and_then_after_what() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let bench = Bench::with_photos();
    let options =
        ["--train-from", "layer3", "--freeze-epochs", "1", "--epochs", "100000", "--lr", "1e-9", "--no-report"];
    let arguments = ["train", "photos", "--model", "resnet20_cifar", "--no-pretrained", "--out", "bundle"];
    let mut command = bench.command(&[&arguments[..], &options, &["--log-format", "json"]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut events: Vec<Value> = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        events.push(serde_json::from_str(&line.unwrap()).unwrap());
        if names(&events).last().unwrap() == "epoch fit" && named(&events, "epoch").len() == 3 {
            let status = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
            assert!(status.success());
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let result = events.last().unwrap();
    assert_eq!((&result["event"], &result["interrupted"]), (&json!("result"), &json!(true)));
    assert_eq!(result["unfinished"], "bundle.unfinished");
    let told: Vec<&Value> = named(&events, "epoch").into_iter().filter(|event| event["phase"] == "fit").collect();

    // A setting of the run cannot be changed: it is stopped again.
    let mut command = bench.command(&["train", "--resume", "bundle.unfinished", "--log-format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut again: Vec<Value> = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        again.push(serde_json::from_str(&line.unwrap()).unwrap());
        if again.last().unwrap()["event"] == "resumed" {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let resumed = named(&again, "resumed")[0];
    let epochs: Vec<&Value> = resumed["epochs"].as_array().unwrap().iter().map(|epoch| &epoch["train-loss"]).collect();
    assert_eq!(epochs, told.iter().map(|event| &event["train-loss"]).collect::<Vec<_>>());
}
