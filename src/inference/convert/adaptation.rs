//! The adaptation plan by which nnssl's checkpoints tell nnU-Net how to fine-tune them (nnssl,
//! `adaptation_planning/adaptation_plan.py` and `experiment_planning/experiment_planners/plan.py`).

use serde_json::{Value, json};

use crate::compute::model::{Encoder, Network};
use crate::inference::architecture::architecture_of;
use crate::tasks::Plan;

/// Where it stands in a checkpoint.
pub const KEY: &str = "nnssl_adaptation_plan";

/// The adaptation plan of a pre-training on scans with voxels of `spacing` mm along (z, y, x).
pub fn plan(plan: &Plan, spacing: [f64; 3]) -> Value {
    let network = &plan.network;
    // Where the first convolution is, the stem, and the names of its weights; as the classes of the networks have them.
    let (stem, projection) = match network.encoder {
        Encoder::Residual => ("encoder.stem", "encoder.stem.convs.0"),
        Encoder::Plain => ("encoder.stages.0", "encoder.stages.0.0.convs.0"),
    };
    let configuration = if spacing == [1.0; 3] { "onemmiso" } else { "median" };
    json!({
        "architecture_plans": architecture(network),
        "pretrain_plan": {
            "dataset_name": "spark3d",
            "plans_name": "nnsslPlans",
            "original_median_spacing_after_transp": spacing,
            "image_reader_writer": "NibabelIOWithReorient",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "experiment_planner_used": "spark3d",
            "configurations": { configuration: {
                "data_identifier": format!("nnsslPlans_{configuration}"),
                "preprocessor_name": "DefaultPreprocessor",
                "spacing_style": configuration,
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [false],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": { "is_seg": false, "order": 3, "order_z": 0, "force_separate_z": null },
                "resampling_fn_mask": "resample_data_or_seg_to_shape",
                "resampling_fn_mask_kwargs": { "is_seg": true, "order": 1, "order_z": 0, "force_separate_z": null },
                "spacing": spacing,
                "patch_size": plan.train.patch,
            } },
        },
        "pretrain_num_input_channels": network.input_channels,
        "recommended_downstream_patchsize": plan.train.patch,
        "key_to_encoder": "encoder.stages",
        "key_to_stem": stem,
        "keys_to_in_proj": [format!("{projection}.conv"), format!("{projection}.all_modules.0")],
        "key_to_lpe": null,
    })
}

/// By its name where nnssl has one for it, else by class and arguments.
fn architecture(network: &Network) -> Value {
    let named =
        Network::preset("L").is_some_and(|large| large == Network { deep_supervision: false, ..network.clone() });
    if named {
        return json!({ "arch_class_name": "ResEncL", "arch_kwargs": null, "arch_kwargs_requiring_import": null });
    }
    let architecture = architecture_of(network);
    let json = architecture.to_json();
    json!({
        "arch_class_name": if architecture.residual { "ResidualEncoderUNet" } else { "PlainConvUNet" },
        "arch_kwargs": json["arch_kwargs"],
        "arch_kwargs_requiring_import": json["_kw_requires_import"],
    })
}
