//! What pretexts are judged by: the loss of a validation, beside that of predicting zero.

use crate::compute::graph::BlockMask;
use crate::data::dataset::Patch;
use crate::evaluation::pictures::curves::Series;
use crate::tasks::task::{Measured, Past, ValidationResult};
use serde_json::{Map, Value, json};

/// The network with the lowest loss is the best.
pub fn by_loss(measured: &Measured, past: &mut Past) -> ValidationResult {
    let (loss, zero) = (measured.loss(), measured.loss_of_zero());
    let is_best = past.best.is_none_or(|best| loss < best);
    if is_best {
        past.best = Some(loss);
    }
    let mut record = Map::new();
    record.insert("validation_loss".into(), json!(loss));
    record.extend(zero.map(|zero| ("validation_loss_of_zero".to_string(), json!(zero))));
    let message = match zero {
        Some(zero) => format!("validation loss {loss:.4} = {:.2} of predicting zero ({zero:.4})", loss / zero),
        None => format!("validation loss {loss:.4}"),
    };
    ValidationResult { record, message, is_best }
}

/// Losses over the steps of a run, and what predicting zero gives where the log has it.
pub fn curves(records: &[Value]) -> Vec<Series> {
    let mut curves =
        vec![Series::of(records, "training", "loss"), Series::of(records, "validation", "validation_loss")];
    if records.iter().any(|r| r.get("validation_loss_of_zero").is_some()) {
        curves.push(Series::of(records, "predicting zero", "validation_loss_of_zero"));
    }
    curves
}

/// Mean square of the voxels of a patch in hidden blocks: the loss of predicting zero there.
pub fn hidden_mean_square(mask: &BlockMask, patch: &Patch) -> f64 {
    let d = patch.shape;
    let visible = |v: usize| mask.at([v / (d[1] * d[2]), v / d[2] % d[1], v % d[2]], d);
    mean_square(patch.data.iter().enumerate().filter(|(v, _)| !visible(*v)).map(|(_, &x)| x))
}

/// Mean square of values.
pub fn mean_square(values: impl Iterator<Item = f32>) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for v in values {
        sum += f64::from(v).powi(2);
        count += 1;
    }
    sum / count.max(1) as f64
}
