//! Plans as nnU-Net writes them: `plans.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::fingerprint::Fingerprint;
use super::planner::{Options, Plan, Planner, Stage};
use crate::formats::nnunet::{Configuration, Resampling};

const FULL: &str = "3d_fullres";
const LOW: &str = "3d_lowres";
const CASCADE: &str = "3d_cascade_fullres";

/// The name of a data set: that of its folder.
pub fn name_of(folder: &Path) -> String {
    let whole = folder.canonicalize().ok();
    whole.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The content of `plans.json`; `reader` is the name of nnU-Net's class that reads the images.
pub fn plans(plan: &Plan, fingerprint: &Fingerprint, dataset: &str, reader: &str, options: &Options) -> Value {
    let planner = options.planner;
    let name = options.name.as_deref().unwrap_or(planner.plans_name());
    let backward: Vec<usize> = (0..3).map(|a| plan.transpose.iter().position(|&t| t == a).unwrap_or(a)).collect();
    let mut configurations = json!({});
    // nnU-Net's residual planners share what is prepared with its default plans, as long as it is the same.
    let shared = planner.residual() && options.name.is_none() && options.spacing.is_none();
    let identified = if shared { Planner::Default.plans_name() } else { name };
    if let Some(low) = &plan.low {
        configurations[LOW] = configuration(plan, low, LOW, false, name);
        // A whole median, as nnU-Net rounds it here alone.
        configurations[LOW]["median_image_size_in_voxels"] = json!(low.median.map(|n| n as u64));
        configurations[LOW]["next_stage"] = json!(CASCADE);
    }
    configurations[FULL] = configuration(plan, &plan.full, FULL, plan.low.is_some(), identified);
    if plan.low.is_some() {
        configurations[CASCADE] = json!({ "inherits_from": FULL, "previous_stage": LOW });
    }
    json!({
        "dataset_name": dataset,
        "plans_name": name,
        "original_median_spacing_after_transp": plan.original_spacing,
        "original_median_shape_after_transp": plan.original_shape.map(|n| n.round_ties_even() as u64),
        "image_reader_writer": reader,
        "transpose_forward": plan.transpose,
        "transpose_backward": backward,
        "configurations": configurations,
        "experiment_planner_used": planner.class(),
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": fingerprint.foreground_intensity_properties_per_channel,
    })
}

fn configuration(plan: &Plan, stage: &Stage, name: &str, batch_dice: bool, plans_name: &str) -> Value {
    let configuration = Configuration {
        name: name.into(),
        batch_size: stage.batch,
        patch_size: stage.patch,
        spacing: stage.spacing,
        normalization: plan.normalization.clone(),
        use_mask_for_norm: plan.use_mask_for_norm.clone(),
        data: Resampling::splines(3),
        segmentation: Resampling::splines(1),
        probabilities: Resampling::splines(1),
        batch_dice,
        architecture: stage.architecture.clone(),
    };
    let mut value = configuration.to_json(plans_name, stage.patch);
    // A median may be a half.
    value["median_image_size_in_voxels"] = json!(stage.median);
    value
}
