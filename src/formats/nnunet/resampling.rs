//! How plans have arrays change their voxel size.

use super::refusal::{Cause, Refusal, only};
use serde_json::{Map, Value, json};

/// Beyond this ratio of the largest to the smallest voxel edge, nnU-Net resamples slices one by one.
const ANISOTROPY: f64 = 3.0;
const SPLINES: &str = "resample_data_or_seg_to_shape";
const TORCH: &str = "resample_torch_fornnunet";
const NONE: &str = "no_resampling_hack";

/// How arrays change their voxel size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resampling {
    /// Which of nnU-Net's functions does it.
    pub function: Interpolation,
    /// Whether slices are resampled one by one; `None`: decided by the anisotropy.
    pub force_separate_z: Option<bool>,
    /// The ratio of the largest to the smallest voxel edge beyond which they are.
    pub anisotropy: f64,
}

/// nnU-Net's functions for resampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Splines of scikit-image (`resample_data_or_seg_to_shape`).
    Splines {
        /// Order of interpolation: 0, 1 or 3.
        order: u32,
        /// Order along the thick axis when slices are resampled one by one.
        order_z: u32,
    },
    /// Linear as PyTorch has it (`resample_torch_fornnunet`).
    Torch {
        /// Whether it is linear along the thick axis as well when slices are resampled one by one, rather than nearest.
        linear_z: bool,
    },
    /// None: voxels keep the size that they have (`no_resampling_hack`).
    None,
}

impl Resampling {
    /// nnU-Net's usual way with splines of this order.
    pub fn splines(order: u32) -> Self {
        let function = Interpolation::Splines { order, order_z: 0 };
        Self { function, force_separate_z: None, anisotropy: ANISOTROPY }
    }

    /// Voxels stay as they are.
    pub fn none() -> Self {
        Self { function: Interpolation::None, ..Self::splines(0) }
    }

    /// What a configuration says of `what` (`data`, `seg`, `probabilities`), splines of `order` where it says nothing.
    ///
    /// # Errors
    /// It asks for another function, or for something that is not supported.
    pub(super) fn from_json(configuration: &Map<String, Value>, what: &str, order: u32) -> Cause<Self> {
        let key = format!("resampling_fn_{what}");
        let function = configuration.get(&key).and_then(Value::as_str).unwrap_or(SPLINES);
        let known = [SPLINES, TORCH, NONE];
        if !known.contains(&function) {
            return Err(Refusal::new(
                format!("{key} is {function}; only {} are supported", known.join(", ")),
                "Predict with nnU-Net, or take a model or plans with one of these functions",
            ));
        }
        let name = format!("{key}_kwargs");
        let kwargs = match configuration.get(&name) {
            None if function == SPLINES => return Ok(Self::splines(order)),
            None | Some(Value::Null) => &Map::new(),
            Some(given) => given.as_object().ok_or_else(|| format!("{name} is {given}"))?,
        };
        if function == NONE {
            only(&name, kwargs, &[])?;
            return Ok(Self::none());
        }
        let get = |key: &str| kwargs.get(key).filter(|v| !v.is_null());
        let wrong = |key: &str, wanted: &str| -> Refusal {
            format!("{name} has {key} = {}; only {wanted} is supported", kwargs[key]).into()
        };
        // Logits come back slice by slice, which splines of order 3 do not allow.
        let (orders, listed): (&[u32], _) =
            if what == "probabilities" { (&[0, 1], "0 or 1") } else { (&[0, 1, 3], "0, 1 or 3") };
        let number = |key: &str, default: u32| {
            let order = get(key).map_or(Some(default), |v| v.as_u64()?.try_into().ok());
            order.filter(|order| orders.contains(order)).ok_or_else(|| match get(key) {
                Some(_) => wrong(key, listed),
                None => format!("{name} has no {key}, which is then {default}; only {listed} is supported").into(),
            })
        };
        let expect = |key: &str, wanted: Value| match get(key) {
            Some(v) if *v != wanted => Err(wrong(key, &wanted.to_string())),
            _ => Ok(()),
        };
        expect("is_seg", json!(what == "seg"))?;
        let force_separate_z = match kwargs.get("force_separate_z") {
            // The default of each function.
            None => (function == SPLINES).then_some(false),
            Some(Value::Null) => None,
            Some(v) => Some(v.as_bool().ok_or_else(|| wrong("force_separate_z", "true, false or null"))?),
        };
        let threshold = "separate_z_anisotropy_threshold";
        let anisotropy = get(threshold).map_or(Some(ANISOTROPY), Value::as_f64).filter(|ratio| *ratio > 0.0);
        let anisotropy = anisotropy.ok_or_else(|| wrong(threshold, "a number above 0"))?;
        // The first two have no effect on what comes out.
        let of_torch = ["num_threads", "device", "memefficient_seg_resampling", "mode"];
        let common = ["is_seg", "force_separate_z", threshold];
        let function = if function == SPLINES {
            only(&name, kwargs, &[&common, &["order", "order_z"]])?;
            Interpolation::Splines { order: number("order", 3)?, order_z: number("order_z", 0)? }
        } else {
            only(&name, kwargs, &[&common, &of_torch, &["aniso_axis_mode"]])?;
            expect("mode", json!("linear"))?;
            if what == "seg" {
                expect("memefficient_seg_resampling", json!(false))?;
            }
            let along = get("aniso_axis_mode").map_or(Some("nearest-exact"), Value::as_str);
            match along {
                Some("nearest-exact") => Interpolation::Torch { linear_z: false },
                Some("linear") => Interpolation::Torch { linear_z: true },
                _ => return Err(wrong("aniso_axis_mode", "nearest-exact or linear")),
            }
        };
        Ok(Self { function, force_separate_z, anisotropy })
    }

    /// The function and its arguments, as a configuration has them.
    pub(super) fn to_json(self, is_seg: bool) -> (&'static str, Value) {
        let mut kwargs = json!({ "is_seg": is_seg });
        let function = match self.function {
            Interpolation::Splines { order, order_z } => {
                (kwargs["order"], kwargs["order_z"]) = (order.into(), order_z.into());
                SPLINES
            }
            Interpolation::Torch { linear_z } => {
                kwargs["memefficient_seg_resampling"] = false.into();
                if linear_z {
                    kwargs["aniso_axis_mode"] = "linear".into();
                }
                TORCH
            }
            Interpolation::None => return (NONE, json!({})),
        };
        kwargs["force_separate_z"] = json!(self.force_separate_z);
        if self.anisotropy != ANISOTROPY {
            kwargs["separate_z_anisotropy_threshold"] = self.anisotropy.into();
        }
        (function, kwargs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(function: &str, kwargs: Value) -> Cause<Resampling> {
        let configuration = json!({ "resampling_fn_seg": function, "resampling_fn_seg_kwargs": kwargs });
        Resampling::from_json(configuration.as_object().unwrap(), "seg", 1)
    }

    #[test]
    fn arguments_are_those_of_nnunets_functions() {
        for (function, kwargs, interpolation, force_separate_z, anisotropy) in [
            (SPLINES, json!({}), Interpolation::Splines { order: 3, order_z: 0 }, Some(false), 3.0),
            (
                SPLINES,
                json!({ "is_seg": true, "order": 1, "order_z": 1, "force_separate_z": null, "separate_z_anisotropy_threshold": 2 }),
                Interpolation::Splines { order: 1, order_z: 1 },
                None,
                2.0,
            ),
            (TORCH, json!(null), Interpolation::Torch { linear_z: false }, None, 3.0),
            (
                TORCH,
                json!({ "is_seg": true, "force_separate_z": false, "memefficient_seg_resampling": false, "aniso_axis_mode": "linear", "mode": "linear" }),
                Interpolation::Torch { linear_z: true },
                Some(false),
                3.0,
            ),
            (NONE, json!({}), Interpolation::None, None, 3.0),
        ] {
            let found = read(function, kwargs.clone()).unwrap();
            assert_eq!(found, Resampling { function: interpolation, force_separate_z, anisotropy }, "{kwargs}");
            let (name, again) = found.to_json(true);
            assert_eq!((name, read(name, again).unwrap()), (function, found));
        }
        let none = Resampling::from_json(&Map::new(), "data", 3).unwrap();
        assert_eq!(none, Resampling::splines(3));
    }

    #[test]
    fn other_functions_and_arguments_are_refused_by_name() {
        for (function, kwargs, named) in [
            ("resample_with_care", json!({}), "resample_with_care"),
            (NONE, json!({ "order": 1 }), "order"),
            // nnU-Net has this function, and cannot be told by plans to call it.
            ("resample_torch_simple", json!({}), "resample_torch_simple"),
            (SPLINES, json!({ "order": "cubic" }), "order"),
            (SPLINES, json!({ "is_seg": false }), "is_seg"),
            (SPLINES, json!({ "mode": "linear" }), "mode"),
            (SPLINES, json!({ "force_separate_z": 1 }), "force_separate_z"),
            (TORCH, json!({ "order": 1 }), "order"),
            (TORCH, json!({ "mode": "nearest" }), "mode"),
            (TORCH, json!({ "aniso_axis_mode": "area" }), "aniso_axis_mode"),
            (TORCH, json!({ "memefficient_seg_resampling": true }), "memefficient_seg_resampling"),
            (TORCH, json!({ "separate_z_anisotropy_threshold": -1 }), "separate_z_anisotropy_threshold"),
        ] {
            let refusal = read(function, kwargs).unwrap_err();
            assert!(refusal.cause.contains(named), "{refusal:?}");
        }
    }
}
