//! The network of a configuration: a U-Net of nnU-Net's own classes.

use super::refusal::{Cause, Refusal, only};
use serde_json::{Map, Value, json};

/// The package of nnU-Net's own networks.
const PACKAGE: &str = "dynamic_network_architectures.";

/// A U-Net as the plans describe it. Lists go from the highest resolution down, `decoder_convs` from the lowest up.
#[derive(Clone, Debug, PartialEq)]
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
    /// What goes with each convolution.
    pub layers: Layers,
}

/// What goes with each convolution of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layers {
    /// What normalises its output.
    pub norm: Norm,
    /// Whether the activation comes before the norm.
    pub nonlin_first: bool,
    /// Slope of the activation below 0: that of a leaky ReLU, or 0 for a ReLU.
    pub negative_slope: f64,
    /// Whether it has a bias; projections never have, and heads always.
    pub conv_bias: bool,
    /// Whether the network was trained with dropout, which predicting knows nothing of.
    pub dropout: bool,
}

/// Norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// None at all.
    None,
    /// By the statistics of the sample itself: InstanceNorm3d.
    Instance {
        /// Added to the variance.
        eps: f64,
        /// Whether it has a scale and a shift.
        affine: bool,
    },
    /// By statistics that the training gathered: BatchNorm3d, and InstanceNorm3d that tracks them.
    Running {
        /// Added to the variance.
        eps: f64,
        /// Whether it has a scale and a shift.
        affine: bool,
    },
}

impl Default for Layers {
    /// Those of the networks that nnU-Net plans.
    fn default() -> Self {
        Self {
            norm: Norm::Instance { eps: 1e-5, affine: true },
            nonlin_first: false,
            negative_slope: 0.01,
            conv_bias: true,
            dropout: false,
        }
    }
}

impl Layers {
    /// The key of the first thing that is not as in the networks that nnU-Net plans, which are those that can be trained.
    pub fn unusual(&self) -> Option<&'static str> {
        let usual = Self::default();
        let differing = [
            ("norm_op", self.norm != usual.norm),
            ("nonlin_first", self.nonlin_first != usual.nonlin_first),
            ("nonlin", self.negative_slope != usual.negative_slope),
            ("conv_bias", self.conv_bias != usual.conv_bias),
            ("dropout_op", self.dropout != usual.dropout),
        ];
        differing.into_iter().find_map(|(key, differs)| differs.then_some(key))
    }

    fn from_kwargs(kwargs: &Map<String, Value>) -> Cause<Self> {
        let get = |key: &str| kwargs.get(key).unwrap_or(&Value::Null);
        let flag = |key: &str| match get(key) {
            // What they are where nobody says.
            Value::Null => Ok(false),
            v => v.as_bool().ok_or_else(|| Refusal::from(format!("{key} is {v}, not true or false"))),
        };
        Ok(Self {
            norm: norm(get("norm_op"), get("norm_op_kwargs"))?,
            nonlin_first: flag("nonlin_first")?,
            negative_slope: slope(get("nonlin"), get("nonlin_kwargs"))?,
            conv_bias: flag("conv_bias")?,
            dropout: dropout(get("dropout_op"))?,
        })
    }

    /// Writes its keys of `arch_kwargs`.
    fn write(&self, kwargs: &mut Value) {
        kwargs["conv_bias"] = self.conv_bias.into();
        let (class, numbers) = match self.norm {
            Norm::None => (Value::Null, Value::Null),
            Norm::Instance { eps, affine } => {
                ("torch.nn.modules.instancenorm.InstanceNorm3d".into(), json!({ "eps": eps, "affine": affine }))
            }
            Norm::Running { eps, affine } => {
                ("torch.nn.modules.batchnorm.BatchNorm3d".into(), json!({ "eps": eps, "affine": affine }))
            }
        };
        (kwargs["norm_op"], kwargs["norm_op_kwargs"]) = (class, numbers);
        (kwargs["dropout_op"], kwargs["dropout_op_kwargs"]) = match self.dropout {
            true => ("torch.nn.modules.dropout.Dropout3d".into(), json!({ "p": 0.0 })),
            false => (Value::Null, Value::Null),
        };
        kwargs["nonlin"] = "torch.nn.LeakyReLU".into();
        kwargs["nonlin_kwargs"] = json!({ "inplace": true });
        if self.negative_slope != Self::default().negative_slope {
            kwargs["nonlin_kwargs"]["negative_slope"] = self.negative_slope.into();
        }
        if self.nonlin_first {
            kwargs["nonlin_first"] = true.into();
        }
    }
}

/// The class of PyTorch's that a value names, without its module.
fn torch_class(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix("torch.nn.")?.rsplit('.').next()
}

/// The arguments of a class; none where there is no table.
fn arguments<'a>(key: &str, value: &'a Value, known: &[&str]) -> Cause<impl Fn(&str) -> Option<&'a Value>> {
    let table = value.as_object();
    if table.is_none() && !value.is_null() {
        return Err(format!("{key} is {value}").into());
    }
    if let Some(table) = table {
        only(key, table, &[known])?;
    }
    Ok(move |name: &str| table.and_then(|table| table.get(name)).filter(|v| !v.is_null()))
}

fn norm(class: &Value, kwargs: &Value) -> Cause<Norm> {
    let batch = match torch_class(class) {
        Some("InstanceNorm3d") => false,
        Some("BatchNorm3d") => true,
        None if class.is_null() => return Ok(Norm::None),
        _ => return Err(format!("norm_op is {class}; only InstanceNorm3d and BatchNorm3d are supported").into()),
    };
    let get = arguments("norm_op_kwargs", kwargs, &["eps", "affine", "track_running_stats", "momentum"])?;
    let wrong = |key: &str| Refusal::from(format!("norm_op_kwargs has {key} = {}", kwargs[key]));
    let eps = get("eps").map_or(Some(1e-5), Value::as_f64).filter(|eps| *eps > 0.0 && *eps < 1.0);
    let eps = eps.ok_or_else(|| wrong("eps"))?;
    // Where nothing is said, batch norms have both and instance norms neither.
    let flag = |key: &str| get(key).map_or(Some(batch), Value::as_bool).ok_or_else(|| wrong(key));
    let (affine, running) = (flag("affine")?, flag("track_running_stats")?);
    // Without running statistics, a batch of one sample is normalised as an instance.
    Ok(if running { Norm::Running { eps, affine } } else { Norm::Instance { eps, affine } })
}

fn slope(class: &Value, kwargs: &Value) -> Cause<f64> {
    let get = arguments("nonlin_kwargs", kwargs, &["inplace", "negative_slope"])?;
    let given = get("negative_slope");
    match torch_class(class) {
        Some("LeakyReLU") => given.map_or(Some(0.01), Value::as_f64),
        Some("ReLU") if given.is_none() => Some(0.0),
        _ => return Err(format!("nonlin is {class}; only LeakyReLU and ReLU are supported").into()),
    }
    .ok_or_else(|| format!("nonlin_kwargs has negative_slope = {}", kwargs["negative_slope"]).into())
}

fn dropout(class: &Value) -> Cause<bool> {
    match torch_class(class) {
        None if class.is_null() => Ok(false),
        Some(name) if name.ends_with("Dropout") || name.starts_with("Dropout") => Ok(true),
        _ => Err(format!("dropout_op is {class}; only PyTorch's own dropout is supported").into()),
    }
}

impl Architecture {
    /// The value of a configuration's `architecture`.
    pub fn from_json(a: &Value) -> Cause<Self> {
        let class = a.get("network_class_name").unwrap_or(&Value::Null);
        let class = class.as_str().ok_or_else(|| format!("network_class_name is {class}"))?;
        let residual = class_of(class.strip_prefix(PACKAGE).and_then(|path| path.rsplit('.').next()), class)?;
        let whole = a.as_object().ok_or_else(|| format!("architecture is {a}"))?;
        only("architecture", whole, &[&["network_class_name", "arch_kwargs", "_kw_requires_import"]])?;
        let kwargs = a.get("arch_kwargs").and_then(Value::as_object).ok_or("the architecture has no arch_kwargs")?;
        let get = |key: &str| kwargs.get(key).unwrap_or(&Value::Null);
        let n = stages(get("n_stages").as_u64().ok_or("arch_kwargs has no n_stages")?)?;
        if torch_class(get("conv_op")) != Some("Conv3d") {
            return Err(format!("conv_op is {}; only Conv3d is supported", get("conv_op")).into());
        }
        let layers = Layers::from_kwargs(kwargs)?;
        let blocks = if residual { "n_blocks_per_stage" } else { "n_conv_per_stage" };
        let features = numbers(kwargs, "features_per_stage", n)?;
        let names = [blocks, "kernel_sizes", "strides"];
        let architecture = Self::from_lists(residual, features, kwargs, names)?.with(layers);
        let lists = ["n_stages", "features_per_stage", "n_conv_per_stage_decoder", "deep_supervision"];
        let convolutions = ["conv_op", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs"];
        let activations = ["nonlin", "nonlin_kwargs"];
        // A parameter of one of the two classes each.
        let own: &[&str] =
            if residual { &["block", "bottleneck_channels", "stem_channels"] } else { &["nonlin_first"] };
        only("arch_kwargs", kwargs, &[&names, &lists, &convolutions, &activations, own])?;
        // Of what could be in their place nothing is supported.
        let basic = get("block").as_str().is_some_and(|block| block.ends_with("residual.BasicBlockD"));
        let stem = get("stem_channels");
        for (key, as_usual) in [
            ("block", basic || get("block").is_null()),
            ("bottleneck_channels", get("bottleneck_channels").is_null()),
            ("stem_channels", stem.is_null() || number(stem) == architecture.features.first().copied()),
        ] {
            if !as_usual {
                return Err(format!("{key} is {}; only networks without it are supported", get(key)).into());
            }
        }
        Ok(architecture)
    }

    /// The first plans of nnU-Net v2 had these values in the configuration itself.
    pub(super) fn from_first_plans(c: &Map<String, Value>) -> Cause<Self> {
        let get = |key: &str| c.get(key).unwrap_or(&Value::Null);
        let class = get("UNet_class_name").as_str().ok_or("the configuration has no architecture")?;
        let residual = class_of(Some(class), class)?;
        let n = stages(get("conv_kernel_sizes").as_array().map_or(0, Vec::len) as u64)?;
        let base = get("UNet_base_num_features").as_u64().ok_or("UNet_base_num_features is missing")? as usize;
        let most = get("unet_max_num_features").as_u64().ok_or("unet_max_num_features is missing")? as usize;
        let features = (0..n).map(|s| base.saturating_mul(1 << s).min(most)).collect();
        let names = ["n_conv_per_stage_encoder", "conv_kernel_sizes", "pool_op_kernel_sizes"];
        Self::from_lists(residual, features, c, names)
    }

    fn with(self, layers: Layers) -> Self {
        Self { layers, ..self }
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
                return Err(format!("a {what} is {value}, and 1 to {most} is supported").into());
            }
        }
        Ok(Self { residual, features, blocks, kernels, strides, decoder_convs, layers: Layers::default() })
    }

    /// The value of a configuration's `architecture`.
    pub fn to_json(&self) -> Value {
        let (class, blocks) = match self.residual {
            true => ("ResidualEncoderUNet", "n_blocks_per_stage"),
            false => ("PlainConvUNet", "n_conv_per_stage"),
        };
        let mut kwargs = json!({
            "n_stages": self.features.len(),
            "features_per_stage": self.features,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": self.kernels,
            "strides": self.strides,
            blocks: self.blocks,
            "n_conv_per_stage_decoder": self.decoder_convs,
        });
        self.layers.write(&mut kwargs);
        json!({
            "network_class_name": format!("{PACKAGE}architectures.unet.{class}"),
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        })
    }
}

/// Whether the class of this name is the one with residual blocks; `path` is where it is from, for messages.
fn class_of(name: Option<&str>, path: &str) -> Cause<bool> {
    match name {
        Some("ResidualEncoderUNet") => Ok(true),
        Some("PlainConvUNet") => Ok(false),
        _ => Err(Refusal::new(
            format!("the network is a {path}; only nnU-Net's own ResidualEncoderUNet and PlainConvUNet are supported"),
            "Predict with the program that this class is from, or take a model or plans with one of these networks",
        )),
    }
}

/// A number of stages that a network can have.
fn stages(n: u64) -> Cause<usize> {
    let possible = (2..=12).contains(&n).then_some(n as usize);
    possible.ok_or_else(|| format!("the network has {n} stages, and 2 to 12 are supported").into())
}

fn number(v: &Value) -> Option<usize> {
    v.as_u64().map(|v| v as usize)
}

/// A list of three whole numbers.
pub(super) fn triple(v: &Value) -> Option<[usize; 3]> {
    let list: Option<Vec<usize>> = v.as_array()?.iter().map(number).collect();
    list?.try_into().ok()
}

/// The `n` values in the list of this name.
fn list<T>(json: &Map<String, Value>, key: &str, n: usize, one: impl Fn(&Value) -> Option<T>) -> Cause<Vec<T>> {
    let given = json.get(key).unwrap_or(&Value::Null);
    let list: Option<Vec<T>> = given.as_array().and_then(|list| list.iter().map(one).collect());
    list.filter(|list| list.len() == n).ok_or_else(|| format!("{key} is {given}").into())
}

/// `n` numbers, or one for all.
fn numbers(json: &Map<String, Value>, key: &str, n: usize) -> Cause<Vec<usize>> {
    let for_all = json.get(key).and_then(number);
    for_all.map_or_else(|| list(json, key, n, number), |one| Ok(vec![one; n]))
}

fn triples(json: &Map<String, Value>, key: &str, n: usize) -> Cause<Vec<[usize; 3]>> {
    list(json, key, n, |v| triple(v).or_else(|| number(v).map(|k| [k; 3])))
}
