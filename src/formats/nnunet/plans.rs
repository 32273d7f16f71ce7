//! `plans.json`: how a data set is prepared, and the network of each configuration.

use super::architecture::{Architecture, triple};
use super::json::{PLANS, kind_of};
use super::refusal::{Cause, Refusal, only};
use super::resampling::{Interpolation, Resampling};
use crate::base::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Which reader nnU-Net used, because it decides the axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Voxels in the order of the file (SimpleITKIO, NibabelIO): array axes (z, y, x) are the file's k, j, i.
    AsStored,
    /// NibabelIOWithReorient: turned into RAS+ first.
    Reoriented,
}

impl Reader {
    /// By the name of nnU-Net's class.
    ///
    /// # Errors
    /// The class reads no NIfTI files.
    pub fn from_name(name: &str) -> Cause<Self> {
        let (what, remedy) = match name {
            "SimpleITKIO" | "NibabelIO" => return Ok(Self::AsStored),
            "NibabelIOWithReorient" | "SimpleITKIOWithReorient" => return Ok(Self::Reoriented),
            "Tiff3DIO" => (
                "TIFF stacks",
                "Write the images as NIfTI with the same axes and their voxel size, and set the reader to SimpleITKIO",
            ),
            "NaturalImage2DIO" => ("2D pictures such as PNG", "Use nnU-Net; this program runs 3D networks on NIfTI"),
            _ => ("a kind that nnU-Net itself does not know", "Use the program that this reader is from"),
        };
        Err(Refusal::new(format!("images are read by {name}, which is not for NIfTI files but for {what}"), remedy))
    }
}

/// What happens to the intensities of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Normalization {
    /// To zero mean and unit variance.
    #[serde(rename = "ZScoreNormalization")]
    ZScore,
    /// Clipped to the 0.5 and 99.5 percentiles of the data set's foreground, then its mean and deviation.
    #[serde(rename = "CTNormalization")]
    Ct,
    /// Left as they are.
    #[serde(rename = "NoNormalization")]
    None,
    /// To the range 0 to 1 of each image.
    #[serde(rename = "RescaleTo01Normalization")]
    RescaleTo01,
    /// Divided by 255.
    #[serde(rename = "RGBTo01Normalization")]
    RgbTo01,
}

/// Foreground intensities of a channel over the whole data set.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Intensity {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
    /// The 0.5th percentile.
    pub percentile_00_5: f64,
    /// The 99.5th percentile.
    pub percentile_99_5: f64,
}

/// One configuration, such as `3d_fullres`. Axes are those after `transpose_forward`.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// Its name in the plans.
    pub name: String,
    /// Patches of a step.
    pub batch_size: usize,
    /// Voxels of a patch.
    pub patch_size: [usize; 3],
    /// Voxel edge lengths in mm.
    pub spacing: [f64; 3],
    /// One a channel.
    pub normalization: Vec<Normalization>,
    /// For each channel, whether only what is not 0 counts for its normalisation.
    pub use_mask_for_norm: Vec<bool>,
    /// How images change their voxel size.
    pub data: Resampling,
    /// How label maps change their voxel size.
    pub segmentation: Resampling,
    /// How logits change their voxel size on their way back.
    pub probabilities: Resampling,
    /// Whether the Dice loss is of all samples of a step as one.
    pub batch_dice: bool,
    /// The network.
    pub architecture: Architecture,
}

/// What a `plans.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Plans {
    /// The data set that they were made for; empty where the file does not say.
    pub dataset_name: String,
    /// What nnU-Net calls them; empty where the file does not say.
    pub plans_name: String,
    /// How images are read.
    pub reader: Reader,
    /// Axis of the image (z, y, x) that each axis of prepared arrays is.
    pub transpose_forward: [usize; 3],
    /// One a channel, where the file has them.
    pub intensities: Vec<Intensity>,
    /// The file as it was, to be handed on.
    pub json: Value,
}

/// What of the whole plans is read.
const WHOLE: [&str; 9] = [
    "dataset_name",
    "plans_name",
    "image_reader_writer",
    "label_manager",
    "transpose_forward",
    "transpose_backward",
    "foreground_intensity_properties_per_channel",
    "foreground_intensity_properties_by_modality",
    "configurations",
];
/// What of the whole plans only tells how they were made.
const SAID: [&str; 4] = [
    "original_median_spacing_after_transp",
    "original_median_shape_after_transp",
    "experiment_planner_used",
    "continue_training",
];
/// What is said of data sets, trainings and other programs' ways; predictions do not depend on it.
const WITHOUT_EFFECT: [&str; 7] = [
    "data_identifier",
    "batch_size",
    "median_image_size_in_voxels",
    "batch_dice",
    "inherits_from",
    "next_stage",
    "num_pool_per_axis",
];
/// What is read.
const READ: [&str; 13] = [
    "preprocessor_name",
    "previous_stage",
    "patch_size",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
    "resampling_fn_probabilities",
    "resampling_fn_probabilities_kwargs",
    "architecture",
];
/// What the first plans of nnU-Net v2 had in place of `architecture`.
const FIRST_PLANS: [&str; 7] = [
    "UNet_class_name",
    "UNet_base_num_features",
    "unet_max_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "conv_kernel_sizes",
    "pool_op_kernel_sizes",
];

/// # Errors
/// `key` names another class than nnU-Net's usual one, whose doings are not known.
fn usual_class(key: &str, given: Option<&Value>, usual: &str) -> Cause<()> {
    match given {
        None | Some(Value::Null) => Ok(()),
        Some(class) if class == usual => Ok(()),
        Some(class) => Err(Refusal::new(
            format!("{key} is {class}; only {usual} is supported"),
            "Predict with the program that this class is from",
        )),
    }
}

impl Plans {
    /// # Errors
    /// The file is missing, not JSON, or lacks something.
    pub fn read(path: &Path) -> Result<Self> {
        let remedy = "Take the plans.json that belongs to the model, as nnU-Net v2 wrote it";
        Self::from_json(super::read_json(path)?).map_err(|refusal| refusal.of(path, remedy))
    }

    /// As [`Plans::read`] from a value, such as the copy inside a checkpoint.
    ///
    /// # Errors
    /// Something is missing, makes no sense or is not supported; callers know where the value is from.
    pub fn from_json(json: Value) -> Cause<Self> {
        let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        if let Some(other) = kind_of(&json).filter(|kind| *kind != PLANS) {
            let remedy = "Name the plans, such as nnUNetPlans.json of a data set or plans.json of a model";
            return Err(Refusal::new(format!("it is {other} and no plans"), remedy));
        }
        let whole = json.as_object().ok_or_else(|| format!("they are {json}, not a table"))?;
        only("the top level", whole, &[&WHOLE, &SAID])?;
        let reader = json.get("image_reader_writer").filter(|reader| !reader.is_null());
        let named = |reader: &Value| match reader.as_str() {
            Some(name) => Reader::from_name(name),
            None => Err(format!("image_reader_writer is {reader}, not the name of a reader").into()),
        };
        let reader = reader.map_or(Ok(Reader::AsStored), named)?;
        usual_class("label_manager", json.get("label_manager"), "LabelManager")?;
        let transpose = |key: &str| -> Cause<[usize; 3]> {
            let Some(v) = json.get(key) else { return Ok([0, 1, 2]) };
            let axes = triple(v).ok_or_else(|| format!("{key} is {v}, not three axes"))?;
            let order = (0..3).all(|axis| axes.contains(&axis)).then_some(axes);
            order.ok_or_else(|| format!("{key} is {axes:?}, not an order of the axes 0, 1, 2").into())
        };
        let transpose_forward = transpose("transpose_forward")?;
        let backward = transpose("transpose_backward")?;
        if json.get("transpose_backward").is_some() && transpose_forward.map(|axis| backward[axis]) != [0, 1, 2] {
            let cause =
                format!("transpose_backward {backward:?} does not undo transpose_forward {transpose_forward:?}");
            return Err(cause.into());
        }
        let mut intensities = Vec::new();
        // The second is the name that the first versions had.
        let keys = ["foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"];
        let found = keys.iter().find_map(|key| Some((key, json.get(*key)?.as_object()?)));
        if let Some((key, list)) = found {
            for k in 0..list.len() {
                let channel = list.get(&k.to_string()).filter(|channel| channel.is_object());
                let lacking = |_| format!("{key} lacks numbers of channel {k}");
                intensities.push(Intensity::deserialize(channel.unwrap_or(&Value::Null)).map_err(lacking)?);
            }
        }
        Ok(Self {
            dataset_name: text("dataset_name"),
            plans_name: text("plans_name"),
            reader,
            transpose_forward,
            intensities,
            json,
        })
    }

    /// Names of the configurations.
    pub fn configurations(&self) -> Vec<&str> {
        let list = self.json.get("configurations").and_then(Value::as_object);
        list.map(|l| l.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// A configuration by name.
    ///
    /// # Errors
    /// There is no such configuration, or it asks for something that is not supported.
    pub fn configuration(&self, name: &str) -> Cause<Configuration> {
        let json = self.inherited(name, 0)?;
        if let Some(patch) = json.get("patch_size").filter(|patch| is_flat(patch)) {
            let cause =
                format!("{name} is a 2D configuration (patch_size {patch}); only 3D configurations are supported");
            return Err(Refusal::new(cause, self.in_3d()));
        }
        if json.get("previous_stage").is_some_and(|v| !v.is_null()) {
            let cause = format!("{name} is the second stage of a cascade, which is not supported");
            return Err(Refusal::new(cause, "Predict with nnU-Net, or with a model of another configuration"));
        }
        let get = |key: &str| json.get(key).ok_or_else(|| format!("configuration {name} has no {key}"));
        let spacing = get("spacing")?.as_array().map(|l| l.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
        let spacing: [f64; 3] =
            spacing.and_then(|l| l.try_into().ok()).ok_or_else(|| format!("spacing of {name} is not three numbers"))?;
        if spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(format!("spacing of {name} is {spacing:?}").into());
        }
        let schemes = get("normalization_schemes")?;
        let scheme = |scheme: &Value| {
            Normalization::deserialize(scheme).map_err(|_| format!("the normalization {scheme} is not known").into())
        };
        let list =
            schemes.as_array().ok_or_else(|| format!("normalization_schemes of {name} is {schemes}, no list"))?;
        let normalization = list.iter().map(scheme).collect::<Cause<Vec<Normalization>>>()?;
        let masks = get("use_mask_for_norm")?;
        let list: Option<Vec<bool>> = masks.as_array().and_then(|list| list.iter().map(Value::as_bool).collect());
        let use_mask_for_norm = list.filter(|list| list.len() == normalization.len()).ok_or_else(|| {
            format!(
                "use_mask_for_norm of {name} is {masks}, not true or false for each of {} channels",
                normalization.len()
            )
        })?;
        let patch_size = triple(get("patch_size")?).ok_or_else(|| {
            format!("patch_size of {name} is {}: only 3D configurations are supported", json["patch_size"])
        })?;
        if patch_size.iter().any(|n| !(1..=4096).contains(n)) {
            return Err(format!("patch_size of {name} is {patch_size:?}, and 1 to 4096 voxels are supported").into());
        }
        let batch_size = get("batch_size")?;
        let batch_size = batch_size.as_u64().ok_or_else(|| format!("batch_size of {name} is {batch_size}"))? as usize;
        let batch_dice = json.get("batch_dice").map_or(Some(false), Value::as_bool);
        usual_class("preprocessor_name", json.get("preprocessor_name"), "DefaultPreprocessor")?;
        let configuration = Configuration {
            name: name.to_string(),
            batch_size,
            patch_size,
            spacing,
            normalization,
            use_mask_for_norm,
            data: Resampling::from_json(&json, "data", 3)?,
            segmentation: Resampling::from_json(&json, "seg", 1)?,
            probabilities: Resampling::from_json(&json, "probabilities", 1)?,
            batch_dice: batch_dice.ok_or_else(|| format!("batch_dice of {name} is {}", json["batch_dice"]))?,
            architecture: match json.get("architecture") {
                Some(architecture) => Architecture::from_json(architecture)?,
                None => Architecture::from_first_plans(&json)?,
            },
        };
        let functions = [configuration.data, configuration.segmentation, configuration.probabilities];
        let keeps = functions.map(|how| how.function == Interpolation::None);
        if keeps.contains(&true) && keeps.contains(&false) {
            let cause = format!(
                "of the three resampling functions of {name} some are no_resampling_hack and some are not: images, label maps \
                 and logits would have different voxels"
            );
            return Err(cause.into());
        }
        only(&format!("configuration {name}"), &json, &[&READ, &FIRST_PLANS, &WITHOUT_EFFECT])?;
        Ok(configuration)
    }

    /// What to do where a configuration is not of 3D.
    fn in_3d(&self) -> String {
        let is_3d =
            |name: &&str| self.inherited(name, 0).is_ok_and(|c| c.get("patch_size").is_some_and(|p| !is_flat(p)));
        let list: Vec<&str> = self.configurations().into_iter().filter(is_3d).collect();
        match list.is_empty() {
            true => "Predict with nnU-Net".into(),
            false => format!("Take a model of another configuration of these plans: {}", list.join(", ")),
        }
    }

    /// The configuration with what it inherits.
    fn inherited(&self, name: &str, depth: usize) -> Cause<Map<String, Value>> {
        let found = self.json.get("configurations").and_then(|c| c.get(name)).and_then(Value::as_object);
        let own = found.ok_or_else(|| format!("there is no configuration {name}, only {:?}", self.configurations()))?;
        let mut out = match own.get("inherits_from").and_then(Value::as_str) {
            Some(_) if depth > 8 => return Err(format!("{name} inherits from itself").into()),
            Some(parent) => self.inherited(parent, depth + 1)?,
            None => Map::new(),
        };
        out.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
        Ok(out)
    }
}

/// Whether a patch is of two numbers.
fn is_flat(patch: &Value) -> bool {
    patch.as_array().is_some_and(|sizes| sizes.len() == 2)
}

impl Configuration {
    /// The value of `configurations.NAME`. `median` is the median shape of the prepared images.
    pub fn to_json(&self, plans_name: &str, median: [usize; 3]) -> Value {
        let (data, data_kwargs) = self.data.to_json(false);
        let (segmentation, segmentation_kwargs) = self.segmentation.to_json(true);
        let (probabilities, probabilities_kwargs) = self.probabilities.to_json(false);
        json!({
            "data_identifier": format!("{plans_name}_{}", self.name),
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": self.batch_size,
            "patch_size": self.patch_size,
            "median_image_size_in_voxels": median,
            "spacing": self.spacing,
            "normalization_schemes": self.normalization,
            "use_mask_for_norm": self.use_mask_for_norm,
            "resampling_fn_data": data,
            "resampling_fn_seg": segmentation,
            "resampling_fn_data_kwargs": data_kwargs,
            "resampling_fn_seg_kwargs": segmentation_kwargs,
            "resampling_fn_probabilities": probabilities,
            "resampling_fn_probabilities_kwargs": probabilities_kwargs,
            "architecture": self.architecture.to_json(),
            "batch_dice": self.batch_dice,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::architecture::{Layers, Norm};
    use super::*;

    fn configuration() -> Configuration {
        Configuration {
            name: "3d_fullres".into(),
            batch_size: 2,
            patch_size: [40, 56, 40],
            spacing: [1.0; 3],
            normalization: vec![Normalization::ZScore, Normalization::Ct],
            use_mask_for_norm: vec![false, true],
            data: Resampling::splines(3),
            segmentation: Resampling::splines(1),
            probabilities: Resampling::splines(1),
            batch_dice: true,
            architecture: Architecture {
                residual: false,
                features: vec![32, 64],
                blocks: vec![2, 2],
                kernels: vec![[1, 3, 3], [3; 3]],
                strides: vec![[1; 3], [1, 2, 2]],
                decoder_convs: vec![2],
                layers: Layers::default(),
            },
        }
    }

    /// Plans with this configuration and another one that inherits from it.
    fn plans(c: &Configuration) -> Value {
        json!({
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [2, 0, 1],
            "transpose_backward": [1, 2, 0],
            "configurations": {
                "3d_fullres": c.to_json("nnUNetPlans", [40; 3]),
                "child": { "inherits_from": "3d_fullres", "batch_size": 5 },
            },
        })
    }

    /// Why the plans are refused whose value there is set, or added.
    fn refusal(json: &Value, pointer: &str, value: Value) -> Refusal {
        let mut json = json.clone();
        let (table, key) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(table).unwrap()[key] = value;
        Plans::from_json(json).and_then(|p| p.configuration("3d_fullres").map(|_| ())).expect_err(pointer)
    }

    #[test]
    fn a_configuration_survives_json_and_may_be_inherited() {
        let c = configuration();
        let json = plans(&c);
        let plans = Plans::from_json(json.clone()).unwrap();
        assert_eq!(plans.configuration("3d_fullres").unwrap(), c);
        assert_eq!(plans.configuration("child").unwrap(), Configuration { name: "child".into(), batch_size: 5, ..c });
        assert_eq!((plans.reader, plans.transpose_forward), (Reader::AsStored, [2, 0, 1]));
        assert!(plans.configuration("2d").unwrap_err().cause.contains("3d_fullres"));
        let change = |pointer: &str, value: Value| refusal(&json, pointer, value).cause;
        let kwargs = "/configurations/3d_fullres/architecture/arch_kwargs";
        assert!(change(&format!("{kwargs}/norm_op"), json!("torch.nn.GroupNorm")).contains("InstanceNorm3d"));
        assert!(change(&format!("{kwargs}/strides"), json!([[1, 1, 1]])).contains("strides"));
        assert!(change("/configurations/3d_fullres/patch_size", json!([40, 40])).contains("3D"));
        assert!(change("/configurations/3d_fullres/patch_size", json!([40, 40, u64::MAX])).contains("4096"));
        assert!(change("/transpose_forward", json!([0, 0, 1])).contains("transpose_forward"));
        assert!(change("/transpose_backward", json!([2, 0, 1])).contains("does not undo"));
        for (key, value, named) in [
            ("n_stages", json!(u64::MAX), "stages"),
            ("features_per_stage", json!([32, u64::MAX]), "features"),
            ("n_conv_per_stage", json!([2, 1_000_000]), "blocks"),
            ("n_conv_per_stage_decoder", json!([0]), "decoder"),
            ("kernel_sizes", json!([[1, 3, 3], [3, 3, 9999]]), "kernel"),
            ("strides", json!([[1, 1, 1], [2, 2, u64::MAX]]), "stride"),
        ] {
            let error = change(&format!("{kwargs}/{key}"), value);
            assert!(error.contains(named) && error.contains("supported"), "{error}");
        }
    }

    #[test]
    fn the_first_plans_of_version_2_are_read() {
        let mut c = configuration().to_json("nnUNetPlans", [40; 3]);
        let object = c.as_object_mut().unwrap();
        object.remove("architecture");
        for (key, value) in [
            ("UNet_class_name", json!("PlainConvUNet")),
            ("UNet_base_num_features", json!(32)),
            ("unet_max_num_features", json!(320)),
            ("n_conv_per_stage_encoder", json!([2, 2])),
            ("n_conv_per_stage_decoder", json!([2])),
            ("conv_kernel_sizes", json!([[1, 3, 3], [3, 3, 3]])),
            ("pool_op_kernel_sizes", json!([[1, 1, 1], [1, 2, 2]])),
        ] {
            object.insert(key.into(), value);
        }
        let read = |c: &Value| {
            Plans::from_json(json!({ "configurations": { "3d_fullres": c } })).unwrap().configuration("3d_fullres")
        };
        assert_eq!(read(&c).unwrap(), configuration());
        for (key, value, named) in [
            ("conv_kernel_sizes", json!([]), "0 stages"),
            ("conv_kernel_sizes", json!([[3, 3, 3]]), "1 stages"),
            ("conv_kernel_sizes", json!(vec![[3, 3, 3]; 70]), "70 stages"),
            ("UNet_base_num_features", json!(0), "features"),
            ("UNet_base_num_features", json!(u64::MAX), "features"),
        ] {
            let mut changed = c.clone();
            changed["unet_max_num_features"] = json!(u64::MAX);
            changed[key] = value;
            let error = read(&changed).unwrap_err().cause;
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn whatever_is_not_known_is_refused_by_name_with_what_to_do() {
        let (plain, residual) = (configuration(), {
            let c = configuration();
            Configuration { architecture: Architecture { residual: true, ..c.architecture.clone() }, ..c }
        });
        let (plain, residual) = (plans(&plain), plans(&residual));
        let (c, kwargs) = ("/configurations/3d_fullres", "/configurations/3d_fullres/architecture/arch_kwargs");
        for (json, pointer, value, named, remedy) in [
            (&plain, "/label_manager", json!("MyLabels"), "label_manager is \"MyLabels\"", "program"),
            (&plain, "/image_reader_writer", json!("Tiff3DIO"), "read by Tiff3DIO", "Write the images as NIfTI"),
            (&plain, "/image_reader_writer", json!("NaturalImage2DIO"), "2D pictures", "nnU-Net"),
            (&plain, "/image_reader_writer", json!(["SimpleITKIO"]), "image_reader_writer is [", ""),
            (
                &plain,
                "/test_time_augmentation",
                json!("rotate"),
                "the key test_time_augmentation (\"rotate\")",
                "remove it",
            ),
            (&plain, "/image_reader_writer", json!("MyIO"), "read by MyIO", "program that this reader is from"),
            (&plain, &format!("{c}/preprocessor_name"), json!("Mine"), "preprocessor_name is \"Mine\"", "program"),
            (&plain, &format!("{c}/pad_mode"), json!("edge"), "the key pad_mode (\"edge\")", "remove it"),
            (&plain, &format!("{c}/patch_size"), json!([40, 40]), "2D configuration", "Predict with nnU-Net"),
            (&plain, &format!("{c}/previous_stage"), json!("3d_lowres"), "cascade", "Predict with nnU-Net"),
            (&plain, &format!("{c}/use_mask_for_norm"), json!([0, 1]), "use_mask_for_norm", ""),
            (&plain, &format!("{c}/use_mask_for_norm"), json!([true]), "use_mask_for_norm", ""),
            (&plain, &format!("{c}/normalization_schemes"), json!(["Mine"]), "normalization \"Mine\"", ""),
            (&plain, &format!("{c}/normalization_schemes"), json!([null, null]), "normalization null", ""),
            (&plain, &format!("{c}/normalization_schemes"), json!("Mine"), "normalization_schemes", ""),
            (&plain, &format!("{c}/batch_size"), json!("two"), "batch_size", ""),
            (&plain, &format!("{c}/batch_dice"), json!("yes"), "batch_dice", ""),
            (&plain, &format!("{c}/resampling_fn_data_kwargs/order"), json!(2), "order = 2; only 0, 1 or 3", ""),
            (&plain, &format!("{c}/resampling_fn_probabilities_kwargs/order"), json!(3), "order = 3; only 0 or 1", ""),
            (
                &plain,
                &format!("{c}/resampling_fn_probabilities_kwargs"),
                json!({}),
                "has no order, which is then 3",
                "",
            ),
            (
                &plain,
                &format!("{c}/resampling_fn_seg"),
                json!("no_resampling_hack"),
                "resampling_fn_seg_kwargs has the key",
                "",
            ),
            (&plain, &format!("{c}/architecture/network_class_name"), json!(null), "network_class_name is null", ""),
            (&plain, &format!("{c}/resampling_fn_data"), json!("mine"), "resampling_fn_data is mine", "nnU-Net"),
            (&plain, &format!("{c}/resampling_fn_data_kwargs/anti_aliasing"), json!(true), "anti_aliasing", "remove"),
            (&plain, &format!("{c}/architecture/network_class_name"), json!("a.b.PlainConvUNet"), "a.b.", "program"),
            (&plain, &format!("{c}/architecture/version"), json!(2), "architecture has the key version", "remove it"),
            (&plain, &format!("{kwargs}/conv_op"), json!("my.Conv3d"), "conv_op is \"my.Conv3d\"", ""),
            (&plain, &format!("{kwargs}/norm_op_kwargs/groups"), json!(8), "norm_op_kwargs has the key groups", ""),
            (&plain, &format!("{kwargs}/norm_op_kwargs/eps"), json!("small"), "eps = \"small\"", ""),
            (&plain, &format!("{kwargs}/nonlin"), json!("torch.nn.GELU"), "nonlin is \"torch.nn.GELU\"", ""),
            (&plain, &format!("{kwargs}/nonlin"), json!(null), "nonlin is null", ""),
            (&plain, &format!("{kwargs}/nonlin_kwargs/alpha"), json!(1), "nonlin_kwargs has the key alpha", ""),
            (&plain, &format!("{kwargs}/dropout_op"), json!("my.Drop"), "dropout_op is \"my.Drop\"", ""),
            (&plain, &format!("{kwargs}/squeeze_excitation"), json!(true), "the key squeeze_excitation (true)", ""),
            (&residual, &format!("{kwargs}/nonlin_first"), json!(true), "the key nonlin_first (true)", ""),
            (&residual, &format!("{kwargs}/stem_channels"), json!(16), "stem_channels is 16", ""),
            (&residual, &format!("{kwargs}/bottleneck_channels"), json!([4, 4]), "bottleneck_channels is [4,4]", ""),
            (&residual, &format!("{kwargs}/block"), json!("a.residual.BottleneckD"), "block is", ""),
        ] {
            let refusal = refusal(json, pointer, value);
            let said = refusal.remedy.unwrap_or_default();
            assert!(refusal.cause.contains(named) && said.contains(remedy), "{pointer}: {}. {said}", refusal.cause);
        }
        let mut mixed = plain.clone();
        for (key, value) in
            [("resampling_fn_data", json!("no_resampling_hack")), ("resampling_fn_data_kwargs", json!({}))]
        {
            mixed["configurations"]["3d_fullres"][key] = value;
        }
        let cause = Plans::from_json(mixed).unwrap().configuration("3d_fullres").unwrap_err().cause;
        assert!(cause.contains("some are no_resampling_hack"), "{cause}");
        // Of several configurations, those that would do are named.
        let mut two = plain.clone();
        two["configurations"]["2d"] = json!({ "inherits_from": "3d_fullres", "patch_size": [40, 56] });
        let refusal = Plans::from_json(two).unwrap().configuration("2d").unwrap_err();
        assert!(refusal.remedy.is_some_and(|remedy| remedy.contains("3d_fullres, child")));
    }

    #[test]
    fn layers_are_what_pytorch_makes_of_the_arguments() {
        let usual = Layers::default();
        let json = plans(&configuration());
        let kwargs = "/configurations/3d_fullres/architecture/arch_kwargs";
        for (changes, layers) in [
            (json!({}), usual),
            (
                json!({ "norm_op_kwargs": { "eps": 1e-3 } }),
                Layers { norm: Norm::Instance { eps: 1e-3, affine: false }, ..usual },
            ),
            (json!({ "norm_op_kwargs": null }), Layers { norm: Norm::Instance { eps: 1e-5, affine: false }, ..usual }),
            (
                json!({ "norm_op_kwargs": { "affine": true, "track_running_stats": true } }),
                Layers { norm: Norm::Running { eps: 1e-5, affine: true }, ..usual },
            ),
            (
                json!({ "norm_op": "torch.nn.BatchNorm3d", "norm_op_kwargs": {} }),
                Layers { norm: Norm::Running { eps: 1e-5, affine: true }, ..usual },
            ),
            (json!({ "norm_op": null, "norm_op_kwargs": null }), Layers { norm: Norm::None, ..usual }),
            (
                json!({ "conv_bias": false, "nonlin_first": true }),
                Layers { conv_bias: false, nonlin_first: true, ..usual },
            ),
            (json!({ "nonlin": "torch.nn.ReLU" }), Layers { negative_slope: 0.0, ..usual }),
            (json!({ "nonlin_kwargs": { "negative_slope": 0.2 } }), Layers { negative_slope: 0.2, ..usual }),
            (
                json!({ "dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": { "p": 0.3 } }),
                Layers { dropout: true, ..usual },
            ),
        ] {
            let mut json = json.clone();
            let table = json.pointer_mut(kwargs).unwrap().as_object_mut().unwrap();
            table.extend(changes.as_object().unwrap().clone());
            let mut c = Plans::from_json(json).unwrap().configuration("3d_fullres").unwrap();
            assert_eq!(c.architecture.layers, layers, "{changes}");
            assert_eq!(layers.unusual().is_some(), layers != usual);
            // And as they are written.
            c = Plans::from_json(plans(&c)).unwrap().configuration("3d_fullres").unwrap();
            assert_eq!(c.architecture.layers, layers, "{changes}");
        }
    }
}
