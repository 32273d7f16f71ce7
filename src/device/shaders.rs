//! The WGSL files, embedded, and their one directive: a line `#import NAME` takes in `shaders/shared/NAME.wgsl`.

macro_rules! shader_files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../shaders/", $name, ".wgsl")))),*]
    };
}

/// Every shader by its path below `shaders/`, without the ending.
pub const SHADERS: &[(&str, &str)] = shader_files![
    "conv3d/forward",
    "conv3d/input_gradient",
    "conv3d/weight_gradient",
    "conv3d/slabs",
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
    "confusion/decide",
    "confusion/count",
    "confusion/clear",
    "sgd/norm_partial",
    "sgd/norm_finalize",
    "sgd/update",
    "interpolate/forward",
    "interpolate/backward",
    "bench/fma",
    "bench/copy",
];

const SHARED: &[(&str, &str)] =
    shader_files!["shared/space", "shared/reduce", "shared/pair", "shared/labels", "shared/probability"];

/// The source of a shader with its imports in place. Panics on a name that is not in [`SHADERS`]: a mistake in the
/// program, which the tests of all operators would meet.
pub fn source(name: &str) -> String {
    let find = |list: &[(&str, &'static str)], name: &str| {
        list.iter().find(|(n, _)| *n == name).map(|(_, text)| *text).unwrap_or_else(|| panic!("no shader {name}"))
    };
    let mut out = String::new();
    for line in find(SHADERS, name).lines() {
        match line.strip_prefix("#import ") {
            Some(import) => out.push_str(find(SHARED, &format!("shared/{}", import.trim()))),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}
