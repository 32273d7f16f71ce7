//! The model of a fine-tuning in nnU-Net's words: its plans.json, so that a run is a model folder of its layout.

use crate::base::{Error, Result};
use crate::formats::nnunet::{Configuration, Dataset, Normalization, Plans, Reader, Resampling};
use crate::inference::architecture::architecture_of;
use crate::tasks::plan::finetune::Plan;
use serde_json::{Map, Value, json};

/// The name of the configuration of our models.
pub const CONFIGURATION: &str = "3d_fullres";
const PLANS_NAME: &str = "spark3dPlans";

/// Plans for `dataset`, called `name`: those of `given` (with a configuration of theirs) or new ones, with the values of `plan`.
///
/// # Errors
/// The given plans are for another number of channels.
pub fn plans(
    plan: &Plan,
    dataset: &Dataset,
    name: &str,
    given: Option<&(Plans, Configuration)>,
) -> Result<(Plans, Configuration)> {
    let channels = dataset.channels.len();
    let mut configuration = Configuration {
        name: CONFIGURATION.into(),
        batch_size: plan.train.batch,
        patch_size: plan.train.patch,
        spacing: plan.data.spacing,
        normalization: vec![Normalization::ZScore; channels],
        use_mask_for_norm: vec![false; channels],
        data: Resampling::splines(3),
        segmentation: Resampling::splines(1),
        probabilities: Resampling::splines(1),
        batch_dice: plan.train.batch_dice,
        architecture: architecture_of(&plan.network),
    };
    if let Some((_, given)) = given {
        let Configuration { normalization, use_mask_for_norm, data, segmentation, probabilities, .. } = given.clone();
        if normalization.len() != channels {
            let what = format!("the plans are for {} channels, the data set has {channels}", normalization.len());
            return Err(Error::plan(what, "Leave out --plans, or name the plans.json that was made for this data set"));
        }
        configuration =
            Configuration { normalization, use_mask_for_norm, data, segmentation, probabilities, ..configuration };
    }
    if !plan.data.resample {
        let none = Resampling::none();
        configuration = Configuration { data: none, segmentation: none, probabilities: none, ..configuration };
    }
    let mut json = given.map_or_else(|| fresh(channels, plan), |(plans, _)| plans.json.clone());
    let plans_name = json["plans_name"].as_str().unwrap_or(PLANS_NAME).to_string();
    json["dataset_name"] = json!(name);
    // Plans that read so already keep the name of their class.
    let named = given.and_then(|(plans, _)| plans.json["image_reader_writer"].as_str());
    let named =
        named.filter(|name| !plan.data.reorient && Reader::from_name(name) == Ok(Reader::AsStored) && !name.is_empty());
    let reader = if plan.data.reorient { "NibabelIOWithReorient" } else { named.unwrap_or(dataset.reader()) };
    json["image_reader_writer"] = json!(reader);
    let mut value = configuration.to_json(&plans_name, plan.train.patch);
    // The median image, where somebody planned with it.
    if let Some((plans, given)) = given.filter(|(_, given)| given.spacing == configuration.spacing) {
        let key = "median_image_size_in_voxels";
        if let Some(median) = plans.json["configurations"][&given.name].get(key) {
            value[key] = median.clone();
        }
    }
    json["configurations"] = json!({ CONFIGURATION: value });
    let plans = Plans::from_json(json).map_err(|refusal| Error::plan(refusal.cause, "Correct the plans"))?;
    let configuration =
        plans.configuration(CONFIGURATION).map_err(|refusal| Error::plan(refusal.cause, "Correct the plan"))?;
    Ok((plans, configuration))
}

fn fresh(channels: usize, plan: &Plan) -> Value {
    // Read for every channel, used by CT alone.
    let unused = json!({
        "max": 1.0, "mean": 0.0, "median": 0.0, "min": 0.0, "percentile_00_5": 0.0, "percentile_99_5": 1.0, "std": 1.0,
    });
    let intensities: Map<String, Value> = (0..channels).map(|c| (c.to_string(), unused.clone())).collect();
    json!({
        "dataset_name": "",
        "plans_name": PLANS_NAME,
        "original_median_spacing_after_transp": plan.data.spacing,
        "original_median_shape_after_transp": plan.train.patch,
        "image_reader_writer": "",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {},
        "experiment_planner_used": "spark3d",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": intensities,
    })
}
