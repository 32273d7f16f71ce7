//! The WGSL files, embedded. A line `#import NAME` takes in `shaders/shared/NAME.wgsl`; what a kernel unrolls is written in the
//! syntax of Jinja templates (`{% for %}`, `{{ }}`), with defaults for its variables at the top of the file.

use super::recording::{Kernel, Precision};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use std::collections::BTreeMap;

macro_rules! shader_files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../shaders/", $name, ".wgsl")))),*]
    };
}

/// Every shader by its path below `shaders/`, without the ending.
pub const SHADERS: &[(&str, &str)] = shader_files![
    "conv3d/forward",
    "conv3d/input_gradient",
    "conv3d/weight_gradient",
    "conv3d/slabs",
    "conv3d/staged",
    "conv3d/matrix",
    "conv3d/weight_gradient_staged",
    "conv3d/weight_gradient_gathered",
    "conv3d/weight_gradient_matrix",
    "instance_norm/statistics",
    "instance_norm/finalize",
    "instance_norm/apply",
    "instance_norm/backward_reduce",
    "instance_norm/backward_finalize",
    "instance_norm/backward_apply",
    "avg_pool3d/forward",
    "avg_pool3d/backward",
    "densify/forward",
    "densify/backward",
    "channel_sum/partial",
    "channel_sum/finalize",
    "layout/pack",
    "elementwise/add",
    "elementwise/leaky_relu",
    "elementwise/leaky_relu_backward",
    "masked_l2/loss",
    "masked_l2/finalize",
    "dice_ce/state",
    "dice_ce/sums",
    "dice_ce/reduce",
    "dice_ce/finalize",
    "dice_ce/project",
    "dice_ce/gradient",
    "global_pool/finalize",
    "global_pool/backward",
    "channel_norm/statistics",
    "channel_norm/finalize",
    "channel_norm/apply",
    "channel_norm/backward_reduce",
    "channel_norm/backward_apply",
    "voco/gram",
    "voco/cosines",
    "voco/coefficients",
    "voco/gradient",
    "confusion/decide",
    "confusion/count",
    "confusion/clear",
    "sgd/norm_partial",
    "sgd/norm_finalize",
    "sgd/update",
    "interpolate/forward",
    "interpolate/backward",
    "augment/prefilter",
    "augment/cubic",
    "augment/linear",
    "augment/labels",
    "augment/unpack_labels",
    "augment/noise",
    "augment/blur",
    "augment/lower_resolution",
    "augment/copy",
    "augment/moments",
    "augment/moments_finalize",
    "augment/brightness",
    "augment/contrast",
    "augment/power",
    "augment/restore",
    "augment/finish",
    "augment/finish_labels",
    "distort/owners",
    "distort/clear",
    "distort/transform",
    "fuse/fuse",
    "bench/fma",
    "bench/copy",
];

const SHARED: &[(&str, &str)] = shader_files![
    "shared/space",
    "shared/pass",
    "shared/weight_gradient",
    "shared/reduce",
    "shared/pair",
    "shared/labels",
    "shared/probability",
    "shared/step_values",
    "shared/augment",
    "shared/extremes",
    "shared/packed_labels",
    "shared/threefry",
    "shared/distort",
    "shared/channel_norm",
    "shared/voco",
];

/// The element of a feature tensor: a quad of channels of one voxel. `#import element` brings this line.
fn element(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "alias Feature = vec4<f32>;\n",
        Precision::F16 => "alias Feature = vec4<f16>;\n",
    }
}

/// The source of a kernel's shader with its imports in place. Panics on a name that is not in [`SHADERS`] and on a template
/// that does not render: mistakes in the program, which the tests of all operators would meet.
pub fn source(kernel: &Kernel) -> String {
    let find = |list: &[(&str, &'static str)], name: &str| {
        list.iter().find(|(n, _)| *n == name).map(|(_, text)| *text).unwrap_or_else(|| panic!("no shader {name}"))
    };
    let mut out = String::new();
    for line in find(SHADERS, kernel.shader).lines() {
        match line.strip_prefix("#import ").map(str::trim) {
            Some("element") => out.push_str(element(kernel.precision)),
            Some(import) => out.push_str(find(SHARED, &format!("shared/{import}"))),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    if out.contains("{%") {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        templates.set_syntax(syntax.unwrap_or_default());
        let variables: BTreeMap<_, _> = kernel.variables.iter().copied().collect();
        out = templates
            .render_str(&out, variables)
            .unwrap_or_else(|error| panic!("the template {} does not render: {error:#}", kernel.shader));
    }
    match kernel.precision {
        Precision::F32 => out,
        Precision::F16 => format!("enable f16;\n{out}"),
    }
}
