//! Range tests of given losses as fastai 2.8.12 makes them (`scripts/golden/golden_range_test.py`).

use candle_finetune::train::range_test::{End, Point, RangeTest, Sweep};

#[derive(serde::Deserialize)]
struct Golden {
    lowest: f64,
    highest: f64,
    steps: usize,
    losses: Vec<f64>,
    rates: Vec<f64>,
    /// Computed in f32.
    smoothed: Vec<f64>,
    valley: f64,
    steep: f64,
}

/// Relative.
#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!((found / expected - 1.0).abs() <= tolerance, "{found} instead of {expected}");
}

#[test]
fn rates_smoothed_losses_end_and_proposals_are_those_of_fastai() {
    for line in include_str!("golden/range_test.jsonl").lines() {
        let golden: Golden = serde_json::from_str(line).unwrap();
        let Golden { lowest, highest, steps, .. } = golden;
        let mut sweep = Sweep::new(RangeTest { lowest, highest, steps }).unwrap();
        golden.losses.iter().for_each(|&loss| sweep.record(loss).unwrap());
        let curve = sweep.into_curve();
        assert_eq!(curve.points.len(), golden.rates.len());
        assert_eq!(curve.end == End::Steps, golden.rates.len() == steps);
        for (Point { lr, smoothed, .. }, (rate, loss)) in
            curve.points.iter().zip(golden.rates.iter().zip(&golden.smoothed))
        {
            assert_close(*lr, *rate, 1e-12);
            assert_close(*smoothed, *loss, 2e-6);
        }
        assert_close(curve.valley().unwrap().lr, golden.valley, 1e-6);
        assert_close(curve.steep().unwrap().lr, golden.steep, 1e-6);
    }
}
