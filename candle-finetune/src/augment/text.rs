//! The text of a policy: steps between commas, each with numbers between colons, `crop=0.25:1,flip,randaugment=2:9`.

use super::error::AugmentError;
use super::policy::{AreaRange, Automatic, ColorJitter, Erasing, Framing, Policy, Range, check};

/// A step of the text: where its numbers go.
struct Step {
    name: &'static str,
    /// Steps of one part of the policy exclude each other.
    part: &'static str,
    set: fn(&mut Policy, &Numbers) -> Result<(), AugmentError>,
}

const STEPS: [Step; 8] = [
    Step { name: "crop", part: "framing", set: set_crop },
    Step { name: "padcrop", part: "framing", set: set_padcrop },
    Step { name: "flip", part: "flip", set: set_flip },
    Step { name: "vflip", part: "vflip", set: set_vflip },
    Step { name: "randaugment", part: "automatic", set: set_randaugment },
    Step { name: "trivial", part: "automatic", set: set_trivial },
    Step { name: "color", part: "color", set: set_color },
    Step { name: "erase", part: "erase", set: set_erase },
];

pub(super) fn parse(text: &str) -> Result<Policy, AugmentError> {
    let mut policy = Policy::default();
    let mut seen: Vec<&Step> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, numbers) = part.split_once('=').map_or((part, None), |(name, numbers)| (name, Some(numbers)));
        let step = STEPS.iter().find(|step| step.name == name);
        let step = step.ok_or_else(|| AugmentError::Unknown(name.to_owned()))?;
        if let Some(other) = seen.iter().find(|other| other.part == step.part) {
            return Err(AugmentError::Conflict(other.name, step.name));
        }
        seen.push(step);
        (step.set)(&mut policy, &Numbers::parse(step.name, numbers)?)?;
    }
    Ok(policy)
}

fn set_crop(policy: &mut Policy, numbers: &Numbers) -> Result<(), AugmentError> {
    policy.framing = Framing::ResizedCrop(area(numbers.or([0.08, 1.0, 3.0 / 4.0, 4.0 / 3.0])?));
    Ok(())
}

fn set_padcrop(policy: &mut Policy, numbers: &Numbers) -> Result<(), AugmentError> {
    let [padding] = numbers.or([4.0])?;
    policy.framing = Framing::PaddedCrop { padding: numbers.whole("padding", padding, 1, 8192)? };
    Ok(())
}

fn set_flip(policy: &mut Policy, numbers: &Numbers) -> Result<(), AugmentError> {
    [policy.flip] = numbers.or([0.5])?;
    Ok(())
}

fn set_vflip(policy: &mut Policy, numbers: &Numbers) -> Result<(), AugmentError> {
    [policy.vflip] = numbers.or([0.5])?;
    Ok(())
}

fn set_randaugment(policy: &mut Policy, numbers: &Numbers) -> Result<(), AugmentError> {
    let [operations, magnitude] = numbers.or([2.0, 9.0])?;
    policy.automatic = Some(Automatic::RandAugment {
        operations: numbers.whole("number of operations", operations, 1, 100)? as u8,
        magnitude: numbers.whole("magnitude", magnitude, 0, 30)? as u8,
    });
    Ok(())
}

fn set_trivial(policy: &mut Policy, numbers: &Numbers) -> Result<(), AugmentError> {
    let [] = numbers.or([])?;
    policy.automatic = Some(Automatic::TrivialWide);
    Ok(())
}

/// One number is for brightness, contrast and saturation, as in timm.
fn set_color(policy: &mut Policy, numbers: &Numbers) -> Result<(), AugmentError> {
    let first = numbers.given.first().copied().unwrap_or(0.4);
    let [brightness, contrast, saturation, hue] = numbers.or([first, first, first, 0.0])?;
    policy.color = Some(ColorJitter { brightness, contrast, saturation, hue });
    Ok(())
}

fn set_erase(policy: &mut Policy, numbers: &Numbers) -> Result<(), AugmentError> {
    let [probability, smallest, largest, lowest, highest] = numbers.or([0.5, 0.02, 0.33, 0.3, 3.3])?;
    policy.erase = Some(Erasing { probability, area: area([smallest, largest, lowest, highest]) });
    Ok(())
}

fn area([smallest, largest, lowest, highest]: [f64; 4]) -> AreaRange {
    AreaRange { scale: Range { low: smallest, high: largest }, ratio: Range { low: lowest, high: highest } }
}

/// The numbers of a step.
struct Numbers {
    step: &'static str,
    given: Vec<f64>,
}

impl Numbers {
    fn parse(step: &'static str, text: Option<&str>) -> Result<Numbers, AugmentError> {
        let number = |text: &str| {
            text.trim().parse().map_err(|_| AugmentError::NotANumber { step, found: text.trim().to_owned() })
        };
        let given = text.map(|text| text.split(':').map(number).collect()).transpose()?;
        Ok(Numbers { step, given: given.unwrap_or_default() })
    }

    /// Those that were given, and `defaults` for the rest.
    fn or<const N: usize>(&self, defaults: [f64; N]) -> Result<[f64; N], AugmentError> {
        if self.given.len() > N {
            return Err(AugmentError::TooMany { step: self.step, found: self.given.len(), most: N });
        }
        let mut numbers = defaults;
        numbers[..self.given.len()].copy_from_slice(&self.given);
        Ok(numbers)
    }

    fn whole(&self, what: &'static str, found: f64, low: u16, high: u16) -> Result<u16, AugmentError> {
        check(self.step, what, found, low.into(), high.into())?;
        if found.fract() == 0.0 {
            Ok(found as u16)
        } else {
            Err(AugmentError::NotWhole { step: self.step, what, found })
        }
    }
}

/// The text with every number spelled out; read again, it gives the same policy.
pub(super) fn print(policy: &Policy) -> String {
    let mut steps = Vec::new();
    match policy.framing {
        Framing::Center => {}
        Framing::ResizedCrop(area) => steps.push(format!("crop={}", print_area(&area))),
        Framing::PaddedCrop { padding } => steps.push(format!("padcrop={padding}")),
    }
    for (name, probability) in [("flip", policy.flip), ("vflip", policy.vflip)] {
        if probability != 0.0 {
            steps.push(format!("{name}={probability}"));
        }
    }
    match policy.automatic {
        None => {}
        Some(Automatic::RandAugment { operations, magnitude }) => {
            steps.push(format!("randaugment={operations}:{magnitude}"));
        }
        Some(Automatic::TrivialWide) => steps.push("trivial".into()),
    }
    if let Some(ColorJitter { brightness, contrast, saturation, hue }) = policy.color {
        steps.push(format!("color={brightness}:{contrast}:{saturation}:{hue}"));
    }
    if let Some(Erasing { probability, area }) = policy.erase {
        steps.push(format!("erase={probability}:{}", print_area(&area)));
    }
    steps.join(",")
}

fn print_area(AreaRange { scale, ratio }: &AreaRange) -> String {
    format!("{}:{}:{}:{}", scale.low, scale.high, ratio.low, ratio.high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: &str =
        "erase=0.25:0.02:0.33:0.3:3.3,color=0.1:0.2:0.3:0.05,randaugment=3:12,vflip=0.1,flip,crop=0.25";

    #[test]
    fn text_is_read_in_any_order_and_written_in_one() {
        let policy: Policy = EVERYTHING.parse().unwrap();
        let written = "crop=0.25:1:0.75:1.3333333333333333,flip=0.5,vflip=0.1,randaugment=3:12,\
                       color=0.1:0.2:0.3:0.05,erase=0.25:0.02:0.33:0.3:3.3";
        assert_eq!(policy.to_string(), written);
        for text in [written, "padcrop", "trivial", "color", "flip=1", " crop , flip "] {
            let policy: Policy = text.parse().unwrap();
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }

    #[test]
    fn what_is_left_out_is_torchvisions_default() {
        let policy: Policy = "crop,flip,randaugment,color=0.2,erase".parse().unwrap();
        assert_eq!(
            policy.to_string(),
            "crop=0.08:1:0.75:1.3333333333333333,flip=0.5,randaugment=2:9,color=0.2:0.2:0.2:0,erase=0.5:0.02:0.33:0.3:3.3"
        );
        assert_eq!("padcrop".parse::<Policy>().unwrap().framing, Framing::PaddedCrop { padding: 4 });
    }

    #[test]
    fn text_that_cannot_be_meant_is_refused() {
        for (text, said) in [
            ("", "the augmentation policy changes nothing"),
            ("flip=0", "the augmentation policy changes nothing"),
            (
                "rotate",
                "no augmentation is named `rotate`, expected crop, padcrop, flip, vflip, randaugment, trivial, color or erase",
            ),
            ("crop,padcrop", "`crop` and `padcrop` do not go together"),
            ("flip,flip=1", "`flip` and `flip` do not go together"),
            ("trivial,randaugment", "`trivial` and `randaugment` do not go together"),
            ("flip=often", "`flip` has `often`, expected a number"),
            ("flip=", "`flip` has ``, expected a number"),
            ("flip=0.5:1", "`flip` has 2 numbers, expected at most 1"),
            ("trivial=1", "`trivial` has 1 numbers, expected at most 0"),
            ("flip=1.5", "`flip` has a probability of 1.5, expected 0 to 1"),
            ("vflip=nan", "`vflip` has a probability of NaN, expected 0 to 1"),
            ("crop=0.5:0.4", "`crop` has a largest area of 0.4, expected 0.5 to 1"),
            ("crop=0.5:1:0", "`crop` has a lowest ratio of 0, expected 0.001 to 1000"),
            ("crop=0.5:1:2:1", "`crop` has a highest ratio of 1, expected 2 to 1000"),
            ("padcrop=0", "`padcrop` has a padding of 0, expected 1 to 8192"),
            ("padcrop=1.5", "`padcrop` has a padding of 1.5, expected a whole number"),
            ("randaugment=0", "`randaugment` has a number of operations of 0, expected 1 to 100"),
            ("randaugment=2:31", "`randaugment` has a magnitude of 31, expected 0 to 30"),
            ("color=-1", "`color` has a brightness of -1, expected 0 to 100"),
            ("color=0:0:0:0.6", "`color` has a hue of 0.6, expected 0 to 0.5"),
            ("erase=2", "`erase` has a probability of 2, expected 0 to 1"),
            ("erase=0.5:0.1:1.1", "`erase` has a largest area of 1.1, expected 0.1 to 1"),
        ] {
            assert_eq!(text.parse::<Policy>().unwrap_err().to_string(), said, "{text}");
        }
    }
}
