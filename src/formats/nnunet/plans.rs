//! `plans.json`: how a data set is prepared, and the network of each configuration.

use crate::base::{Error, Result};
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
    /// The class reads no NIfTI files: the cause alone.
    pub fn from_name(name: &str) -> Cause<Self> {
        match name {
            "SimpleITKIO" | "NibabelIO" | "" => Ok(Self::AsStored),
            "NibabelIOWithReorient" | "SimpleITKIOWithReorient" => Ok(Self::Reoriented),
            other => Err(format!("images are read by {other}, which is not for NIfTI files")),
        }
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

/// How arrays change their voxel size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resampling {
    /// Order of interpolation: 0, 1 or 3.
    pub order: u32,
    /// Order along the thick axis when slices are resampled one by one.
    pub order_z: u32,
    /// `None`: decided by the anisotropy.
    pub force_separate_z: Option<bool>,
}

/// A U-Net as the plans describe it. Lists go from the highest resolution down, `decoder_convs` from the lowest up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Residual encoder (ResidualEncoderUNet) or plain (PlainConvUNet).
    pub residual: bool,
    /// Channels of each stage.
    pub features: Vec<usize>,
    /// Residual blocks or convolutions of each stage.
    pub blocks: Vec<usize>,
    /// Edges of each stage's convolutions, along the axes after the plans' transposition.
    pub kernels: Vec<[usize; 3]>,
    /// Of each stage's first convolution; 1 throughout for the first stage.
    pub strides: Vec<[usize; 3]>,
    /// Convolutions of each stage of the decoder.
    pub decoder_convs: Vec<usize>,
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

type Cause<T> = std::result::Result<T, String>;

impl Plans {
    /// # Errors
    /// The file is missing, not JSON, or lacks something.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_json(super::read_json(path)?).map_err(|cause| {
            Error::file(path, cause, "Take the plans.json that belongs to the model, as nnU-Net v2 wrote it")
        })
    }

    /// As [`Plans::read`] from a value, such as the copy inside a checkpoint.
    ///
    /// # Errors
    /// Something is missing or makes no sense: the cause alone, for callers that know where the value is from.
    pub fn from_json(json: Value) -> Cause<Self> {
        let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let reader = Reader::from_name(&text("image_reader_writer"))?;
        let transpose = |key: &str| -> Cause<[usize; 3]> {
            let Some(v) = json.get(key) else { return Ok([0, 1, 2]) };
            let axes = triple(v).ok_or_else(|| format!("{key} is {v}, not three axes"))?;
            let order = (0..3).all(|axis| axes.contains(&axis)).then_some(axes);
            order.ok_or_else(|| format!("{key} is {axes:?}, not an order of the axes 0, 1, 2"))
        };
        let transpose_forward = transpose("transpose_forward")?;
        let backward = transpose("transpose_backward")?;
        if json.get("transpose_backward").is_some() && transpose_forward.map(|axis| backward[axis]) != [0, 1, 2] {
            return Err(format!(
                "transpose_backward {backward:?} does not undo transpose_forward {transpose_forward:?}"
            ));
        }
        let mut intensities = Vec::new();
        if let Some(list) = json.get("foreground_intensity_properties_per_channel").and_then(Value::as_object) {
            for k in 0..list.len() {
                let channel = list.get(&k.to_string()).filter(|channel| channel.is_object());
                let lacking = |_| format!("foreground_intensity_properties_per_channel lacks numbers of channel {k}");
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
    /// There is no such configuration, or it asks for something that is not supported: the cause alone.
    pub fn configuration(&self, name: &str) -> Cause<Configuration> {
        let json = self.inherited(name, 0)?;
        if json.get("previous_stage").is_some_and(|v| !v.is_null()) {
            return Err(format!("{name} is the second stage of a cascade, which is not supported"));
        }
        let get = |key: &str| json.get(key).ok_or_else(|| format!("configuration {name} has no {key}"));
        let three = |key: &str| -> Cause<[usize; 3]> {
            let v = get(key)?;
            triple(v).ok_or_else(|| format!("{key} of {name} is {v}: only 3D configurations are supported"))
        };
        let spacing = get("spacing")?.as_array().map(|l| l.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
        let spacing: [f64; 3] =
            spacing.and_then(|l| l.try_into().ok()).ok_or_else(|| format!("spacing of {name} is not three numbers"))?;
        if spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(format!("spacing of {name} is {spacing:?}"));
        }
        let schemes = get("normalization_schemes")?.as_array().cloned().unwrap_or_default();
        let scheme = |scheme: &Value| {
            let class = scheme.as_str().unwrap_or_default();
            serde_json::from_value(class.into()).map_err(|_| format!("the normalization {class} is not known"))
        };
        let normalization = schemes.iter().map(scheme).collect::<Cause<Vec<Normalization>>>()?;
        let masks = get("use_mask_for_norm")?.as_array().cloned().unwrap_or_default();
        let use_mask_for_norm = masks.iter().map(|v| v.as_bool().unwrap_or(false)).collect();
        let resampling = |what: &str, order: u64| -> Cause<Resampling> {
            let key = format!("resampling_fn_{what}");
            let function = json.get(&key).and_then(Value::as_str);
            if let Some(other) = function.filter(|f| *f != "resample_data_or_seg_to_shape") {
                return Err(format!("{key} is {other}; only resample_data_or_seg_to_shape is supported"));
            }
            let kwargs = json.get(&format!("{key}_kwargs"));
            let number = |key: &str| kwargs.and_then(|k| k.get(key)).and_then(Value::as_u64);
            Ok(Resampling {
                order: number("order").unwrap_or(order) as u32,
                order_z: number("order_z").unwrap_or(0) as u32,
                force_separate_z: kwargs.and_then(|k| k.get("force_separate_z")).and_then(Value::as_bool),
            })
        };
        let patch_size = three("patch_size")?;
        if patch_size.iter().any(|n| !(1..=4096).contains(n)) {
            return Err(format!("patch_size of {name} is {patch_size:?}, and 1 to 4096 voxels are supported"));
        }
        Ok(Configuration {
            name: name.to_string(),
            batch_size: get("batch_size")?.as_u64().unwrap_or(2) as usize,
            patch_size,
            spacing,
            normalization,
            use_mask_for_norm,
            data: resampling("data", 3)?,
            segmentation: resampling("seg", 1)?,
            probabilities: resampling("probabilities", 1)?,
            batch_dice: json.get("batch_dice").and_then(Value::as_bool).unwrap_or(false),
            architecture: match json.get("architecture") {
                Some(architecture) => Architecture::from_json(architecture)?,
                None => Architecture::from_first_plans(&json)?,
            },
        })
    }

    /// The configuration with what it inherits.
    fn inherited(&self, name: &str, depth: usize) -> Cause<Map<String, Value>> {
        let found = self.json.get("configurations").and_then(|c| c.get(name)).and_then(Value::as_object);
        let own = found.ok_or_else(|| format!("there is no configuration {name}, only {:?}", self.configurations()))?;
        let mut out = match own.get("inherits_from").and_then(Value::as_str) {
            Some(_) if depth > 8 => return Err(format!("{name} inherits from itself")),
            Some(parent) => self.inherited(parent, depth + 1)?,
            None => Map::new(),
        };
        out.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
        Ok(out)
    }
}

fn number(v: &Value) -> Option<usize> {
    v.as_u64().map(|v| v as usize)
}

fn triple(v: &Value) -> Option<[usize; 3]> {
    let list: Option<Vec<usize>> = v.as_array()?.iter().map(number).collect();
    list?.try_into().ok()
}

impl Architecture {
    /// From the `architecture` of a configuration.
    ///
    /// # Errors
    /// It is not a network that is supported: the cause alone.
    pub fn from_json(a: &Value) -> Cause<Self> {
        let class = a.get("network_class_name").and_then(Value::as_str).unwrap_or_default();
        let residual = match class.rsplit('.').next() {
            Some("ResidualEncoderUNet") => true,
            Some("PlainConvUNet") => false,
            _ => return Err(format!("the network is a {class}; ResidualEncoderUNet and PlainConvUNet are supported")),
        };
        let kwargs = a.get("arch_kwargs").and_then(Value::as_object).ok_or("the architecture has no arch_kwargs")?;
        let get = |key: &str| kwargs.get(key).unwrap_or(&Value::Null);
        let n = stages(get("n_stages").as_u64().ok_or("arch_kwargs has no n_stages")?)?;
        let expect = |key: &str, wanted: &str| match get(key).as_str() {
            Some(text) if text.ends_with(wanted) => Ok(()),
            _ => Err(format!("{key} is {}, only {wanted} is supported", get(key))),
        };
        expect("conv_op", "Conv3d")?;
        expect("norm_op", "InstanceNorm3d")?;
        expect("nonlin", "LeakyReLU")?;
        if !get("dropout_op").is_null() {
            return Err(format!("dropout_op is {}, only networks without dropout are supported", get("dropout_op")));
        }
        if get("conv_bias").as_bool() != Some(true) {
            return Err("convolutions have no bias; only conv_bias = true is supported".into());
        }
        let norm = get("norm_op_kwargs");
        let eps = norm.get("eps").and_then(Value::as_f64).unwrap_or(1e-5);
        if (eps - 1e-5).abs() > 1e-12 || norm.get("affine").and_then(Value::as_bool) != Some(true) {
            return Err(format!("norm_op_kwargs are {norm}, only eps 1e-5 with affine parameters is supported"));
        }
        if get("nonlin_kwargs").get("negative_slope").and_then(Value::as_f64).is_some_and(|s| s != 0.01) {
            return Err("the leaky ReLU has another slope than 0.01".into());
        }
        let blocks = if residual { "n_blocks_per_stage" } else { "n_conv_per_stage" };
        let features = numbers(kwargs, "features_per_stage", n)?;
        Self::from_lists(residual, features, kwargs, [blocks, "kernel_sizes", "strides"])
    }

    /// The first plans of nnU-Net v2 had these values in the configuration itself.
    fn from_first_plans(c: &Map<String, Value>) -> Cause<Self> {
        let get = |key: &str| c.get(key).unwrap_or(&Value::Null);
        let class = get("UNet_class_name").as_str().ok_or("the configuration has no architecture")?;
        let residual = match class {
            "PlainConvUNet" => false,
            "ResidualEncoderUNet" => true,
            other => return Err(format!("the network is a {other}, which is not supported")),
        };
        let n = stages(get("conv_kernel_sizes").as_array().map_or(0, Vec::len) as u64)?;
        let base = get("UNet_base_num_features").as_u64().ok_or("UNet_base_num_features is missing")? as usize;
        let most = get("unet_max_num_features").as_u64().ok_or("unet_max_num_features is missing")? as usize;
        let features = (0..n).map(|s| base.saturating_mul(1 << s).min(most)).collect();
        let names = ["n_conv_per_stage_encoder", "conv_kernel_sizes", "pool_op_kernel_sizes"];
        Self::from_lists(residual, features, c, names)
    }

    /// With the other lists of `json`, which has these names for them.
    fn from_lists(
        residual: bool,
        features: Vec<usize>,
        json: &Map<String, Value>,
        [blocks, kernels, strides]: [&str; 3],
    ) -> Cause<Self> {
        let n = features.len();
        let (blocks, kernels) = (numbers(json, blocks, n)?, triples(json, kernels, n)?);
        let (strides, decoder_convs) = (triples(json, strides, n)?, numbers(json, "n_conv_per_stage_decoder", n - 1)?);
        // Far above any network that fits a device, so that sizes computed from these numbers do not overflow.
        let limits: [(&str, &[usize], usize); 5] = [
            ("number of features", &features, 8192),
            ("number of blocks or convolutions", &blocks, 64),
            ("number of convolutions in the decoder", &decoder_convs, 64),
            ("kernel size", kernels.as_flattened(), 31),
            ("stride", strides.as_flattened(), 16),
        ];
        for (what, values, most) in limits {
            if let Some(value) = values.iter().find(|v| !(1..=most).contains(*v)) {
                return Err(format!("a {what} is {value}, and 1 to {most} is supported"));
            }
        }
        Ok(Self { residual, features, blocks, kernels, strides, decoder_convs })
    }

    /// The value of a configuration's `architecture`.
    pub fn to_json(&self) -> Value {
        let (class, blocks) = match self.residual {
            true => ("ResidualEncoderUNet", "n_blocks_per_stage"),
            false => ("PlainConvUNet", "n_conv_per_stage"),
        };
        json!({
            "network_class_name": format!("dynamic_network_architectures.architectures.unet.{class}"),
            "arch_kwargs": {
                "n_stages": self.features.len(),
                "features_per_stage": self.features,
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": self.kernels,
                "strides": self.strides,
                blocks: self.blocks,
                "n_conv_per_stage_decoder": self.decoder_convs,
                "conv_bias": true,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": { "eps": 1e-5, "affine": true },
                "dropout_op": null,
                "dropout_op_kwargs": null,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": { "inplace": true },
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        })
    }
}

/// A number of stages that a network can have.
fn stages(n: u64) -> Cause<usize> {
    let possible = (2..=12).contains(&n).then_some(n as usize);
    possible.ok_or_else(|| format!("the network has {n} stages, and 2 to 12 are supported"))
}

/// The `n` values in the list of this name.
fn list<T>(json: &Map<String, Value>, key: &str, n: usize, one: impl Fn(&Value) -> Option<T>) -> Cause<Vec<T>> {
    let given = json.get(key).unwrap_or(&Value::Null);
    let list: Option<Vec<T>> = given.as_array().and_then(|list| list.iter().map(one).collect());
    list.filter(|list| list.len() == n).ok_or_else(|| format!("{key} is {given}"))
}

/// `n` numbers, or one for all.
fn numbers(json: &Map<String, Value>, key: &str, n: usize) -> Cause<Vec<usize>> {
    let for_all = json.get(key).and_then(number);
    for_all.map_or_else(|| list(json, key, n, number), |one| Ok(vec![one; n]))
}

fn triples(json: &Map<String, Value>, key: &str, n: usize) -> Cause<Vec<[usize; 3]>> {
    list(json, key, n, |v| triple(v).or_else(|| number(v).map(|k| [k; 3])))
}

impl Configuration {
    /// The value of `configurations.NAME`. `median` is the median shape of the prepared images.
    pub fn to_json(&self, plans_name: &str, median: [usize; 3]) -> Value {
        let resampling = |r: &Resampling, is_seg: bool| json!({ "is_seg": is_seg, "order": r.order, "order_z": r.order_z, "force_separate_z": r.force_separate_z });
        json!({
            "data_identifier": format!("{plans_name}_{}", self.name),
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": self.batch_size,
            "patch_size": self.patch_size,
            "median_image_size_in_voxels": median,
            "spacing": self.spacing,
            "normalization_schemes": self.normalization,
            "use_mask_for_norm": self.use_mask_for_norm,
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": resampling(&self.data, false),
            "resampling_fn_seg_kwargs": resampling(&self.segmentation, true),
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": resampling(&self.probabilities, false),
            "architecture": self.architecture.to_json(),
            "batch_dice": self.batch_dice,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> Configuration {
        let resampling = |order| Resampling { order, order_z: 0, force_separate_z: None };
        Configuration {
            name: "3d_fullres".into(),
            batch_size: 2,
            patch_size: [40, 56, 40],
            spacing: [1.0; 3],
            normalization: vec![Normalization::ZScore, Normalization::Ct],
            use_mask_for_norm: vec![false, true],
            data: resampling(3),
            segmentation: resampling(1),
            probabilities: resampling(1),
            batch_dice: true,
            architecture: Architecture {
                residual: false,
                features: vec![32, 64],
                blocks: vec![2, 2],
                kernels: vec![[1, 3, 3], [3; 3]],
                strides: vec![[1; 3], [1, 2, 2]],
                decoder_convs: vec![2],
            },
        }
    }

    #[test]
    fn a_configuration_survives_json_and_may_be_inherited() {
        let c = configuration();
        let child = json!({ "inherits_from": "3d_fullres", "batch_size": 5 });
        let json = json!({
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [2, 0, 1],
            "transpose_backward": [1, 2, 0],
            "configurations": { "3d_fullres": c.to_json("nnUNetPlans", [40; 3]), "child": child },
        });
        let plans = Plans::from_json(json.clone()).unwrap();
        assert_eq!(plans.configuration("3d_fullres").unwrap(), c);
        assert_eq!(plans.configuration("child").unwrap(), Configuration { name: "child".into(), batch_size: 5, ..c });
        assert_eq!((plans.reader, plans.transpose_forward), (Reader::AsStored, [2, 0, 1]));
        assert!(plans.configuration("2d").unwrap_err().contains("3d_fullres"));
        let change = |pointer: &str, value: Value| {
            let mut json = json.clone();
            *json.pointer_mut(pointer).unwrap() = value;
            Plans::from_json(json).and_then(|p| p.configuration("3d_fullres").map(|_| ())).unwrap_err()
        };
        let kwargs = "/configurations/3d_fullres/architecture/arch_kwargs";
        assert!(change(&format!("{kwargs}/norm_op"), json!("torch.nn.BatchNorm3d")).contains("InstanceNorm3d"));
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
            let error = read(&changed).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
