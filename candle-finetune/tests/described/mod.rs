//! An optimiser as golden trajectories describe it: `sgd lr=0.05 momentum=0.9 nesterov weight_decay=1e-4`.

use std::fmt;

use candle_finetune::train::OptimizerSettings;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(transparent)]
pub struct Described(String);

impl Described {
    pub fn settings(&self) -> OptimizerSettings {
        match self.0.split(' ').next() {
            Some("adamw") => OptimizerSettings::ADAMW,
            Some("sgd") => OptimizerSettings::Sgd {
                momentum: self.value("momentum").unwrap_or(0.0),
                nesterov: self.0.contains("nesterov"),
            },
            other => panic!("unknown optimiser {other:?}"),
        }
    }

    pub fn lr(&self) -> f64 {
        self.value("lr").unwrap()
    }

    pub fn weight_decay(&self) -> f64 {
        self.value("weight_decay").unwrap_or(0.0)
    }

    /// That of `name=value`.
    fn value(&self, name: &str) -> Option<f64> {
        let find = |word: &str| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
        self.0.split(' ').find_map(find)
    }
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
