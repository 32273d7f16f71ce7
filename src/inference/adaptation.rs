//! The adaptation plan by which nnssl's checkpoints tell nnU-Net how to fine-tune them, read and written (nnssl,
//! `adaptation_planning/adaptation_plan.py` and `experiment_planning/experiment_planners/plan.py`).

use serde_json::{Value, json};

use crate::compute::model::{Encoder, Network};
use crate::formats::nnunet::Architecture;
use crate::inference::architecture::architecture_of;
use crate::tasks::Plan;

/// Where it stands in a checkpoint.
pub const KEY: &str = "nnssl_adaptation_plan";

/// The name of its file beside a checkpoint, as folders on the Hugging Face hub have it.
pub const FILE: &str = "adaptation_plan.json";

/// Where nnU-Net's plans find the classes of networks that nnssl names alone.
const PACKAGE: &str = "dynamic_network_architectures.architectures.unet";

/// What an adaptation plan says, each part where it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Adaptation {
    /// nnssl's name of the network: `ResEncL`, `ResidualEncoderUNet`, `PrimusM`.
    pub class: String,
    /// The network, where it is a U-Net; else what is wrong with it.
    pub architecture: Result<Architecture, String>,
    /// Voxels (z, y, x) of a patch for networks that go on from the checkpoint.
    pub patch: Option<[usize; 3]>,
    /// How the scans of the pre-training were prepared.
    pub preparation: Option<Preparation>,
    /// The module that holds the stages of the encoder; its tensors are in stages.
    pub encoder: Option<String>,
    /// The module that holds the first convolution.
    pub stem: Option<String>,
    /// Names of the first convolution, without `.weight`.
    pub projections: Vec<String>,
    /// All of it.
    pub json: Value,
}

/// How scans were prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// Name of the configuration: `onemmiso`, `median`, `noresample`.
    pub name: String,
    /// Voxel edge lengths in mm (z, y, x); `None`: each scan kept its own.
    pub spacing: Option<[f64; 3]>,
    /// Names of nnU-Net's classes, one a channel.
    pub normalization: Vec<String>,
    /// Which axis of the reader each axis of the network is.
    pub transpose: [usize; 3],
}

impl Adaptation {
    /// From its JSON.
    ///
    /// # Errors
    /// A part of it has a form that is not known: its key, and what it is.
    pub fn parse(json: Value) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().map(str::to_string);
        let network = json.get("architecture_plans").ok_or("it has no architecture_plans")?;
        let class = text(&network["arch_class_name"]).ok_or("architecture_plans has no arch_class_name")?;
        let architecture = architecture_from(&class, network);
        let patch = ["recommended_downstream_patchsize", "pretrain_patch_size"].iter().find_map(|key| {
            let value = json.get(*key).filter(|v| !v.is_null())?;
            Some(serde_json::from_value(value.clone()).map_err(|_| format!("{key} is {value}")))
        });
        let projections = json["keys_to_in_proj"].as_array();
        Ok(Self {
            class,
            architecture,
            patch: patch.transpose()?,
            preparation: json.get("pretrain_plan").filter(|v| !v.is_null()).map(preparation).transpose()?,
            encoder: text(&json["key_to_encoder"]),
            stem: text(&json["key_to_stem"]),
            projections: projections.map(|list| list.iter().filter_map(text).collect()).unwrap_or_default(),
            json,
        })
    }
}

impl Adaptation {
    /// Its JSON for the same weights under nnU-Net's names of encoder and stem, as this program writes them.
    pub fn for_usual_names(&self) -> Value {
        let mut json = self.json.clone();
        let stem = self.stem.as_deref().filter(|stem| stem.starts_with("encoder.stem."));
        if let Some(stem) = stem {
            json["key_to_stem"] = json!("encoder.stem");
            let usual =
                |name: &String| name.strip_prefix(stem).map_or(name.clone(), |rest| format!("encoder.stem{rest}"));
            json["keys_to_in_proj"] = self.projections.iter().map(usual).collect();
        }
        if self.encoder.is_some() {
            json["key_to_encoder"] = json!("encoder.stages");
        }
        json
    }
}

/// The network of one of nnssl's classes.
fn architecture_from(class: &str, plans: &Value) -> Result<Architecture, String> {
    match class {
        // Without skip connections the encoder is the same.
        "ResEncL" | "NoSkipResEncL" => Ok(architecture_of(&Network::preset("L").ok_or("there is no network L")?)),
        "ResidualEncoderUNet" | "PlainConvUNet" => {
            let mut arguments =
                plans["arch_kwargs"].as_object().cloned().ok_or("architecture_plans has no arch_kwargs")?;
            arguments.extend(plans["arch_kwargs_requiring_import"].as_object().cloned().unwrap_or_default());
            // nnssl names the convolutions of plain stages as the blocks of residual ones.
            if class == "PlainConvUNet"
                && let Some(blocks) = arguments.remove("n_blocks_per_stage")
            {
                arguments.entry("n_conv_per_stage").or_insert(blocks);
            }
            Architecture::from_json(
                &json!({ "network_class_name": format!("{PACKAGE}.{class}"), "arch_kwargs": arguments }),
            )
            .map_err(|refusal| refusal.cause)
        }
        other if ["Primus", "Eva", "ViT", "SwinUNETR"].iter().any(|kind| other.starts_with(kind)) => {
            Err(format!("its network is {other}, a transformer"))
        }
        other => Err(format!("its network is {other}")),
    }
}

/// The one configuration of a `pretrain_plan`.
fn preparation(plan: &Value) -> Result<Preparation, String> {
    let configurations = plan["configurations"].as_object().ok_or("pretrain_plan has no configurations")?;
    let mut list = configurations.iter();
    let (Some((name, found)), None) = (list.next(), list.next()) else {
        return Err(format!("pretrain_plan has {} configurations, where one is expected", configurations.len()));
    };
    let read = |key: &str, value: &Value| -> Result<Option<[f64; 3]>, String> {
        serde_json::from_value(value.clone()).map_err(|_| format!("{key} of {name} is {value}"))
    };
    let spacing = read("spacing", &found["spacing"])?;
    if spacing.is_some_and(|mm| mm.iter().any(|mm| !(mm.is_finite() && *mm > 0.0))) {
        return Err(format!("spacing of {name} is {}", found["spacing"]));
    }
    let schemes = found["normalization_schemes"].as_array();
    let axes: Option<[usize; 3]> = serde_json::from_value(plan["transpose_forward"].clone()).unwrap_or(Some([0, 1, 2]));
    Ok(Preparation {
        name: name.clone(),
        spacing,
        normalization: schemes.iter().flat_map(|s| s.iter()).filter_map(|s| Some(s.as_str()?.into())).collect(),
        transpose: axes.unwrap_or([0, 1, 2]),
    })
}

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
    let mut json = architecture.to_json();
    if let Some(arguments) = json["arch_kwargs"].as_object_mut()
        && let Some(convolutions) = arguments.remove("n_conv_per_stage")
    {
        // As nnssl's DynamicArchitecturePlans want it.
        arguments.insert("n_blocks_per_stage".into(), convolutions);
    }
    json!({
        "arch_class_name": if architecture.residual { "ResidualEncoderUNet" } else { "PlainConvUNet" },
        "arch_kwargs": json["arch_kwargs"],
        "arch_kwargs_requiring_import": json["_kw_requires_import"],
    })
}
