//! Dynamic loss scaling, as PyTorch's GradScaler does it: features of 16 bits hold no gradient below 6e-8, so all gradients carry
//! a factor that is as large as their range allows. A step whose gradient leaves the range is skipped and halves the factor; many
//! good steps in a row double it. With features of 32 bits the factor is 1 and stays so.

use crate::base::{Error, Result};
use crate::compute::graph::Precision;
use crate::inference::weights::Checkpoint;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const FIRST: f32 = 65536.0;
/// Good steps in a row before the factor is doubled.
const GROWTH_INTERVAL: u32 = 2000;

/// Keys of a checkpoint's metadata; the first and the last are those of the log as well.
const SCALE: &str = "loss_scale";
const GOOD_STEPS: &str = "loss_scale_good_steps";
const SKIPPED_STEPS: &str = "skipped_steps";

/// The factor of the gradients of a training in 16 bits, as PyTorch's GradScaler sets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    dynamic: bool,
    /// A power of two: scaling rounds nothing.
    scale: f32,
    /// Good steps since the factor changed.
    good_steps: u32,
    /// Steps whose gradient left the range of 16 bits.
    skipped_steps: u64,
}

impl LossScale {
    /// The factor of a training that begins.
    pub fn new(precision: Precision) -> Self {
        let dynamic = precision == Precision::F16;
        Self { dynamic, scale: if dynamic { FIRST } else { 1.0 }, good_steps: 0, skipped_steps: 0 }
    }

    /// As it was when the checkpoint was written.
    ///
    /// # Errors
    /// The checkpoint has something else than a number there.
    pub fn resume(precision: Precision, checkpoint: &Checkpoint) -> Result<Self> {
        let mut state = Self::new(precision);
        if state.dynamic {
            read(checkpoint, SCALE, &mut state.scale)?;
            read(checkpoint, GOOD_STEPS, &mut state.good_steps)?;
            read(checkpoint, SKIPPED_STEPS, &mut state.skipped_steps)?;
        }
        Ok(state)
    }

    /// The factor of the gradients of the next step.
    pub fn factor(&self) -> f32 {
        self.scale
    }

    /// Takes note of a step whose gradient had this norm. One that is not finite was skipped.
    pub fn update(&mut self, gradient_norm: f64) {
        if !self.dynamic {
            return;
        }
        if !gradient_norm.is_finite() {
            self.scale /= 2.0;
            self.good_steps = 0;
            self.skipped_steps += 1;
            return;
        }
        self.good_steps += 1;
        if self.good_steps == GROWTH_INTERVAL {
            self.good_steps = 0;
            // Gradients that are all zero let it grow without end.
            if (2.0 * self.scale).is_finite() {
                self.scale *= 2.0;
            }
        }
    }

    /// Whether the step that [`LossScale::update`] took note of was skipped because the factor was too large: the loss was a
    /// number, and smaller factors are left to try.
    pub fn explains(&self, loss: f64, gradient_norm: f64) -> bool {
        self.dynamic && loss.is_finite() && !gradient_norm.is_finite() && self.scale >= 1.0
    }

    /// Puts the state into a checkpoint's metadata.
    pub fn save(&self, extra: &mut BTreeMap<String, String>) {
        if self.dynamic {
            extra.insert(SCALE.into(), self.scale.to_string());
            extra.insert(GOOD_STEPS.into(), self.good_steps.to_string());
            extra.insert(SKIPPED_STEPS.into(), self.skipped_steps.to_string());
        }
    }

    /// What the log says of a step.
    pub fn record(&self) -> Map<String, Value> {
        let fields = [(SCALE, json!(self.scale)), (SKIPPED_STEPS, json!(self.skipped_steps))];
        fields.into_iter().filter(|_| self.dynamic).map(|(key, value)| (key.to_string(), value)).collect()
    }
}

/// The value of a key, where there is one.
fn read<T: std::str::FromStr>(checkpoint: &Checkpoint, key: &str, value: &mut T) -> Result<()> {
    let Some(text) = checkpoint.extra.get(key) else { return Ok(()) };
    *value = text.parse().map_err(|_| {
        Error::plan(format!("the checkpoint has {key} = {text:?}, not a number"), "Use another checkpoint of the run")
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_at_once_and_doubles_after_many_good_steps() {
        let mut scale = LossScale::new(Precision::F16);
        assert_eq!(scale.factor(), 65536.0);
        for _ in 0..1999 {
            scale.update(3.0);
        }
        assert_eq!(scale.factor(), 65536.0);
        scale.update(3.0);
        assert_eq!(scale.factor(), 131072.0);
        // An overflow starts the count again.
        (0..1999).for_each(|_| scale.update(3.0));
        scale.update(f64::INFINITY);
        (0..1999).for_each(|_| scale.update(3.0));
        assert_eq!((scale.factor(), scale.skipped_steps), (65536.0, 1));
        scale.update(f64::NAN);
        assert_eq!((scale.factor(), scale.skipped_steps), (32768.0, 2));
    }

    #[test]
    fn it_explains_overflows_until_it_is_below_one() {
        let mut scale = LossScale::new(Precision::F16);
        for k in 0..17 {
            scale.update(f64::INFINITY);
            assert_eq!(scale.explains(0.5, f64::INFINITY), k < 16, "{}", scale.factor());
        }
        assert!(!LossScale::new(Precision::F16).explains(f64::NAN, f64::NAN), "the loss carries no factor");
        assert!(!LossScale::new(Precision::F16).explains(1.0, 1.0));
        let mut plain = LossScale::new(Precision::F32);
        plain.update(f64::INFINITY);
        assert!(plain.factor() == 1.0 && !plain.explains(1.0, f64::INFINITY) && plain.record().is_empty());
    }

    #[test]
    fn it_survives_a_checkpoint_and_refuses_a_damaged_one() {
        let mut scale = LossScale { scale: 1e-3, ..LossScale::new(Precision::F16) };
        scale.update(f64::NAN);
        (0..7).for_each(|_| scale.update(1.0));
        let mut checkpoint = Checkpoint::default();
        scale.save(&mut checkpoint.extra);
        assert_eq!(LossScale::resume(Precision::F16, &checkpoint).unwrap(), scale);
        assert_eq!(LossScale::resume(Precision::F32, &checkpoint).unwrap(), LossScale::new(Precision::F32));
        checkpoint.extra.insert(SCALE.into(), "many".into());
        assert!(LossScale::resume(Precision::F16, &checkpoint).unwrap_err().to_string().contains("many"));
        let mut plain = BTreeMap::new();
        LossScale::new(Precision::F32).save(&mut plain);
        assert!(plain.is_empty());
    }
}
