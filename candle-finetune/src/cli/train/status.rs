//! Where a training stands, in lines for people. Pure: of the terminal it knows the width.

use candle_finetune::train::{EpochRecord, best};

use super::sparkline::sparkline;
use crate::cli::progress::NARROW;
use crate::cli::text::duration;

/// Columns of the largest curve.
const CURVE: usize = 40;

/// Epochs of which a curve says more than their lines do.
const CURVED: usize = 3;

/// A training that goes on.
pub struct Status<'a> {
    /// Epochs that are over.
    pub history: &'a [EpochRecord],
    /// Epochs in all, unless patience ends them.
    pub epochs: usize,
    /// Seconds until all are over, where anything tells.
    pub left: Option<f64>,
}

impl Status<'_> {
    /// Two lines of at most `width` columns; one until an epoch is over.
    pub fn lines(&self, width: usize) -> String {
        match self.so_far(width) {
            Some(so_far) => format!("{}\n{so_far}", self.now(width)),
            None => self.now(width),
        }
    }

    /// Which epoch runs, what the last one reached, and how long all will take.
    fn now(&self, width: usize) -> String {
        let epoch = self.epochs.min(self.history.len() + 1);
        let epoch = aligned(&format!("{epoch}/{}", self.epochs), width);
        let left = self.left.map_or(String::new(), |left| format!("   {} left", duration(left)));
        let Some(last) = self.history.last() else { return epoch + &left };
        let (all, one) = (values(last), value(last));
        let longest_first = [
            format!("{epoch} last {all}{left}"),
            format!("{epoch} last {one}{left}"),
            format!("{epoch} {one}{left}"),
            format!("{epoch} {one}"),
        ];
        first_within(width, longest_first)
    }

    /// The best epoch, and the curve of all.
    fn so_far(&self, width: usize) -> Option<String> {
        let curve = Curve::of(self.history)?;
        let [long, short] = match best(self.history) {
            Some(EpochRecord { epoch, val_top1: Some(top1), .. }) => {
                let best = format!("{} {}", aligned("best", width), percent(*top1));
                [format!("{best} after epoch {epoch}   "), format!("{best} ({epoch})   ")]
            }
            _ => [aligned("loss", width) + " ", "loss ".into()],
        };
        let text = if width < NARROW { short } else { long };
        let room = width.saturating_sub(text.chars().count());
        Some(format!("{text}{}", curve.drawn(room)).trim_end().into())
    }
}

/// What an epoch reached, in at most `width` columns where that can be.
pub fn epoch_line(name: &str, record: &EpochRecord, epochs: usize, width: usize) -> String {
    let digits = epochs.to_string().len();
    let epoch = format!("{:>digits$}/{epochs}", record.epoch);
    let top1 = |top1: Option<f64>| top1.map_or(String::new(), |top1| format!("  top-1 {}", percent(top1)));
    let reached = |[train, val]: [&str; 2]| {
        let val = record.val_loss.map_or(String::new(), |loss| format!("   {val} {loss:.4}{}", top1(record.val_top1)));
        format!("{train} {:.4}{}{val}", record.train_loss, top1(record.train_top1))
    };
    let longest_first = [
        format!("{name:>12} {epoch}   {}", reached(["train loss", "val loss"])),
        format!("{name:>12} {epoch}   {}", reached(["loss", "val"])),
        format!("{name} {epoch} {}", value(record)),
    ];
    first_within(width, longest_first)
}

/// The curve of epochs that are over, where it is worth a line of at most `width` columns.
pub fn curve_line(history: &[EpochRecord], width: usize) -> Option<String> {
    let curve = Curve::of(history).filter(|curve| curve.values.len() >= CURVED)?;
    let (name, scale) = (aligned("curve", width), format!("   {}", curve.scale()));
    let room = width.saturating_sub(name.chars().count() + 1);
    let beside = room.saturating_sub(scale.chars().count());
    let line = if width < NARROW { curve.drawn(room) } else { curve.drawn(beside) + &scale };
    Some(format!("{name} {line}"))
}

/// What epochs are compared by.
struct Curve {
    values: Vec<f64>,
    /// Whether they are accuracies on validation images, and not losses in training.
    validated: bool,
}

impl Curve {
    /// Nothing before the first epoch is over.
    fn of(history: &[EpochRecord]) -> Option<Curve> {
        let validated = history.last()?.val_top1.is_some();
        let value = |record: &EpochRecord| if validated { record.val_top1 } else { Some(record.train_loss) };
        Some(Curve { values: history.iter().filter_map(value).collect(), validated })
    }

    /// Nothing for one epoch, which is no curve.
    fn drawn(&self, width: usize) -> String {
        if self.values.len() < 2 { String::new() } else { sparkline(&self.values, width.min(CURVE)) }
    }

    /// What the lowest and the highest block stand for.
    fn scale(&self) -> String {
        let [low, high] =
            [f64::min, f64::max].map(|chosen| self.values.iter().copied().reduce(chosen).unwrap_or(f64::NAN));
        match self.validated {
            true => format!("val top-1, ▁ {}, █ {}", percent(low), percent(high)),
            false => format!("train loss, ▁ {low:.4}, █ {high:.4}"),
        }
    }
}

/// A fraction as people read it.
pub fn percent(fraction: f64) -> String {
    format!("{:5.2} %", 100.0 * fraction)
}

/// In the column of names, which a narrow terminal has no room for.
fn aligned(name: &str, width: usize) -> String {
    if width < NARROW { name.into() } else { format!("{name:>12}") }
}

fn values(record: &EpochRecord) -> String {
    let val = record.val_loss.map_or(String::new(), |loss| format!(", val {loss:.4}"));
    let top1 = record.val_top1.map_or(String::new(), |top1| format!(", top-1 {}", percent(top1)));
    format!("loss {:.4}{val}{top1}", record.train_loss)
}

fn value(record: &EpochRecord) -> String {
    record.val_top1.map_or(format!("loss {:.4}", record.train_loss), |top1| format!("top-1 {}", percent(top1)))
}

/// The first text of at most `width` columns, or the last one.
fn first_within<const N: usize>(width: usize, texts: [String; N]) -> String {
    let fits = |text: &String| text.chars().count() <= width;
    let place = texts.iter().position(fits).unwrap_or(N - 1);
    texts.into_iter().nth(place).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: usize, train_loss: f64, val: Option<(f64, f64)>) -> EpochRecord {
        let (val_loss, val_top1) = val.unzip();
        EpochRecord { epoch, lr: 0.01, train_loss, train_top1: None, val_loss, val_top1, seconds: 2.0 }
    }

    fn three_epochs() -> [EpochRecord; 3] {
        [record(1, 1.5, Some((1.4, 0.25))), record(2, 1.25, Some((1.1, 0.625))), record(3, 1.125, Some((1.2, 0.5)))]
    }

    #[test]
    fn before_the_first_epoch_is_over_only_the_time_is_told() {
        let status = Status { history: &[], epochs: 10, left: Some(90.0) };
        assert_eq!(status.lines(80), "        1/10   1 min 30 s left");
        assert_eq!(Status { left: None, ..status }.lines(40), "1/10");
    }

    #[test]
    fn last_best_and_curve_are_told_below_each_other() {
        let status = Status { history: &three_epochs(), epochs: 10, left: Some(14.0) };
        let wide = "        4/10 last loss 1.1250, val 1.2000, top-1 50.00 %   14 s left\n        best 62.50 % after epoch 2   ▁█▆";
        assert_eq!(status.lines(80), wide);
    }

    #[test]
    fn an_epoch_says_less_where_there_is_less_room() {
        let record = EpochRecord { train_top1: Some(0.75), ..record(3, 1.125, Some((1.2, 0.5))) };
        let all = "        head  3/10   train loss 1.1250  top-1 75.00 %   val loss 1.2000  top-1 50.00 %";
        assert_eq!(epoch_line("head", &record, 10, usize::MAX), all);
        let less = "        head  3/10   loss 1.1250  top-1 75.00 %   val 1.2000  top-1 50.00 %";
        assert_eq!(epoch_line("head", &record, 10, 80), less);
        assert_eq!(epoch_line("head", &record, 10, 40), "head  3/10 top-1 50.00 %");
    }

    #[test]
    fn narrow_terminals_are_not_overrun() {
        let history: Vec<EpochRecord> = (1..=200).map(|epoch| record(epoch, 1.0, Some((1.0, 0.5)))).collect();
        let status = Status { history: &history, epochs: 200, left: Some(3599.0) };
        assert_eq!(
            status.lines(40),
            format!("200/200 top-1 50.00 %   59 min 59 s left\nbest 50.00 % (1)   {}", "▅".repeat(21))
        );
        for width in 40..200 {
            let lines = [status.lines(width), curve_line(&history, width).unwrap()].join("\n");
            assert!(lines.lines().all(|line| line.chars().count() <= width), "{width}: {lines}");
        }
    }

    #[test]
    fn without_validation_the_loss_is_the_curve_and_nothing_is_the_best() {
        let history = [record(1, 2.0, None), record(2, 1.5, None), record(3, 1.0, None)];
        let status = Status { history: &history, epochs: 3, left: None };
        assert_eq!(status.lines(80), "         3/3 last loss 1.0000\n        loss █▅▁");
        assert_eq!(curve_line(&history, 80).unwrap(), "       curve █▅▁   train loss, ▁ 1.0000, █ 2.0000");
    }

    #[test]
    fn a_curve_stays_where_it_says_more_than_its_epochs() {
        let history = three_epochs();
        assert_eq!(curve_line(&history, 80).unwrap(), "       curve ▁█▆   val top-1, ▁ 25.00 %, █ 62.50 %");
        assert_eq!(curve_line(&history, 40).unwrap(), "curve ▁█▆");
        assert_eq!(curve_line(&history[..2], 80), None);
    }
}
