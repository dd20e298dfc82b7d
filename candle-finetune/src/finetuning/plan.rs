//! What of a network trains, part by part.

use candle_resnet::architecture::Architecture;
use candle_resnet::part::Part;
use candle_resnet::training::Statistics;

use crate::error::Result;
use crate::train::tail::TailSettings;

/// What becomes of a part.
#[derive(Debug, Clone, PartialEq)]
pub struct PartPlan {
    /// Which.
    pub part: Part,
    /// Its values, without running statistics.
    pub parameters: usize,
    /// Those of them that train.
    pub trained: usize,
    /// Its highest learning rate; none where it stays as it is.
    pub lr: Option<f64>,
    /// What its batch norms normalise by; none where it has none.
    pub statistics: Option<Statistics>,
}

/// Every part of `architecture` with `classes` outputs, in order; `tail` has its rate filled in.
///
/// # Errors
/// If the network has no such part as the first to train.
pub fn part_plans(architecture: &Architecture, classes: usize, tail: &TailSettings) -> Result<Vec<PartPlan>> {
    let (norms, scales) = (tail.norms(architecture)?, tail.scales(architecture)?);
    let tensors = Part::tensors(architecture, classes);
    let plan = |part| {
        let own = || tensors.iter().filter(move |(of, _)| *of == part).map(|(_, spec)| spec);
        let parameters = || own().filter(|spec| spec.role.is_parameter());
        let scale = scales.iter().find(|(trained, _)| *trained == part).map(|(_, scale)| scale);
        let has_statistics = own().any(|spec| !spec.role.is_parameter());
        let trains = |name: &str| scale.is_some() && tail.train_from.trains(name);
        let trained = parameters().filter(|spec| trains(&spec.name)).map(|spec| spec.elements()).sum();
        PartPlan {
            part,
            parameters: parameters().map(|spec| spec.elements()).sum(),
            trained,
            lr: scale.zip(tail.lr).filter(|_| trained > 0).map(|(scale, lr)| scale * lr),
            statistics: has_statistics.then(|| norms.of(part)),
        }
    };
    Ok(Part::all(architecture).map(plan).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tail::TrainFrom;

    #[test]
    fn parts_add_up_to_the_network_and_only_those_that_train_have_a_rate() {
        let resnet18 = Architecture::named("resnet18").unwrap();
        let tail = TailSettings { lr: Some(0.1), layer_decay: 0.5, ..TailSettings::pretrained(TrainFrom::Stage(4)) };
        let plans = part_plans(resnet18, 1000, &tail).unwrap();
        assert_eq!(plans.iter().map(|plan| plan.parameters).sum::<usize>(), 11_689_512);
        let rates: Vec<Option<f64>> = plans.iter().map(|plan| plan.lr).collect();
        assert_eq!(rates, [None, None, None, None, Some(0.05), Some(0.1)]);
        let some = TailSettings { train_from: "layer3.1.bn2.*".parse().unwrap(), ..tail };
        let trained: Vec<usize> = part_plans(resnet18, 10, &some).unwrap().iter().map(|plan| plan.trained).collect();
        assert_eq!(trained, [0, 0, 0, 512, 0, 5130]);
        assert_eq!((plans[0].statistics, plans[5].statistics), (Some(Statistics::Running), None));
    }
}
